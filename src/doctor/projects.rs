//! Data that stayed behind: Compose names volumes after the project, and the project after its folder. In another
//! folder the same files begin with empty volumes, while the data lies in those of the old project.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;

use super::{Doctor, Finding, LOOK, asked};
use crate::command::line;
use crate::engine::{Container, MountKind, Volume, label};
use crate::reference::is_same_repository;
use crate::update::refusal::{Code, Refusal};
use crate::update::survey::Deployment;

pub async fn check(doctor: &Doctor, deployment: &Deployment) -> Vec<Finding> {
    let own = own_volumes(doctor, deployment).await;
    if own.is_empty() || is_settled_here(doctor, deployment).await {
        return Vec::new();
    }
    // Where the engine does not tell, nothing is known.
    let looked = own.keys().map(|key| asked(LOOK, doctor.around.volumes_called(key)));
    let others: Vec<Volume> = join_all(looked).await.into_iter().flat_map(Result::unwrap_or_default).collect();
    left_behind(&own, &others, deployment).into_iter().collect()
}

/// An update was committed under this project: it is no new one.
async fn is_settled_here(doctor: &Doctor, deployment: &Deployment) -> bool {
    let last = asked(LOOK, doctor.ports.journal.last_committed()).await.ok().flatten();
    let plan = last.and_then(|(_, record)| record.plan);
    plan.is_some_and(|plan| plan.project.name == deployment.project.name)
}

/// The application's volumes that Compose has named after this project, by what the files call them.
async fn own_volumes(doctor: &Doctor, deployment: &Deployment) -> BTreeMap<String, Volume> {
    let mounts = deployment.moved().flat_map(|(_, container, _)| &container.mounts);
    let names: BTreeSet<&str> =
        mounts.filter(|m| m.kind == MountKind::Volume && !m.is_anonymous()).map(|m| m.name.as_str()).collect();
    let looked = names.iter().map(|name| asked(LOOK, doctor.ports.engine.volume(name)));
    let found = join_all(looked).await.into_iter().filter_map(|volume| volume.ok().flatten());
    let named = found.filter(|volume| project_of(volume) == Some(&deployment.project.name));
    named.filter_map(|volume| Some((volume.labels.get(label::VOLUME)?.clone(), volume))).collect()
}

fn project_of(volume: &Volume) -> Option<&str> {
    volume.labels.get(label::PROJECT).map(String::as_str)
}

/// Another project has all of these volumes, and older, and nothing else uses them. Pure.
fn left_behind(own: &BTreeMap<String, Volume>, others: &[Volume], deployment: &Deployment) -> Option<Finding> {
    let is_older = |other: &Volume| {
        let ours = other.labels.get(label::VOLUME).and_then(|key| own.get(key)).and_then(|volume| volume.created_at);
        other.created_at.zip(ours).is_some_and(|(theirs, ours)| theirs < ours)
    };
    let is_free = |other: &Volume| {
        let mut users = deployment.containers.iter().filter(|c| c.mounts.iter().any(|m| m.name == other.name));
        users.all(|user| !user.is_alive() && is_the_same_application(user, deployment))
    };
    let mut projects: BTreeMap<&str, Vec<&Volume>> = BTreeMap::new();
    for other in others.iter().filter(|other| is_older(other) && is_free(other)) {
        match project_of(other) {
            Some(project) if project != deployment.project.name => projects.entry(project).or_default().push(other),
            _ => {}
        }
    }
    let (old, volumes) = projects.into_iter().find(|(_, volumes)| volumes.len() == own.len())?;
    let names = |volumes: &mut dyn Iterator<Item = &Volume>| {
        volumes.map(|volume| volume.name.as_str()).collect::<Vec<_>>().join(", ")
    };
    let new = &deployment.project.name;
    let seen = format!(
        "{new} has the volumes {}, and project {old} has older ones of the same names, which nobody uses: {}. If that is this application's data, it runs on new, empty volumes since its project is called {new}: Compose names a project after its folder",
        names(&mut own.values()),
        names(&mut volumes.into_iter()),
    );
    let file = format!("{}/.env", deployment.project.working_dir);
    // A last line without its end would be continued.
    let keep = line(["printf", r"\n%s\n", &format!("COMPOSE_PROJECT_NAME={old}")]);
    let remedy = format!(
        "to keep the old project's name, in {}: `{} && {keep} >> {} && docker compose up -d` (without -v, so that all data stays). If it is other data, nothing needs doing: this is not said any more once an update is committed here",
        crate::command::word(&deployment.project.working_dir),
        line(["docker", "compose", "-p", new, "down"]),
        crate::command::word(&file),
    );
    Some(Finding::warning("project", Refusal::new(Code::OldInAnotherProject, seen).text(remedy)))
}

/// It was made for the same service, or from the same repository.
fn is_the_same_application(container: &Container, deployment: &Deployment) -> bool {
    let is_of = |(service, moved, _): (&str, &Container, _)| {
        container.label(label::SERVICE) == Some(service) || is_same_repository(&container.image_ref, &moved.image_ref)
    };
    deployment.moved().any(is_of)
}
