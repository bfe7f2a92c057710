//! What holds after every end, whatever happened on the way.

use processgit_updater::engine::simulated::{Mate, World};
use processgit_updater::engine::{Container, RunState, label};
use processgit_updater::envfile;
use processgit_updater::update::job::{Job, Kind, State};

use crate::bench::{DIGEST, Installation, KEY, manifest};

/// What must hold after every end, whatever happened on the way. `context` names the case.
pub fn assert_invariants(installation: &Installation, job: &Job, context: &str) {
    assert_verdict(installation, job, context);
    if job.state == State::Failed {
        return;
    }
    let world = installation.world.world();
    assert_eq!(world.hasty, [""; 0], "{context}");
    let ours: Vec<_> = world.containers.iter().filter(|c| c.labels.contains_key(label::JOB)).map(|c| &c.name).collect();
    assert!(ours.is_empty(), "{context}: nothing of ours is left behind: {ours:?}");
    if matches!(job.state, State::RolledBack | State::Aborted) {
        let before = installation.before.lock().unwrap().clone().expect("the job was submitted");
        assert_eq!(world.tags, before.tags, "{context}: no tag left behind or moved");
    }
}

/// The world is what the verdict says; something may have been left behind.
pub fn assert_verdict(installation: &Installation, job: &Job, context: &str) {
    let world = installation.world.world();
    assert!(job.state.is_end(), "{context}: {job:?}");
    assert_eq!(job.steps.last().map(|s| s.state), Some(job.state), "{context}: the end is the last step");
    if job.state == State::Failed {
        let error = job.error.as_deref().unwrap_or_default();
        assert!(
            error.contains("by hand") || error.contains("data was not restored"),
            "{context}: a failed job says what to do: {error}"
        );
        return;
    }
    let before = installation.before.lock().unwrap().clone().expect("the job was submitted");
    let (app, was) = (application(&world, context), application(&before, context));
    assert_eq!(app.name, "processgit", "{context}: under its own name");
    assert_eq!(app.mounts, was.mounts, "{context}: on its own data");
    let committed = job.state == State::Committed;
    let runs = was.state == RunState::Running || (committed && job.kind != Kind::Snapshot);
    assert_eq!(app.state == RunState::Running, runs, "{context}: it runs, or not");
    let policy = if app.id == was.id { &was.restart_policy.name } else { "unless-stopped" };
    assert_eq!(app.restart_policy.name, policy, "{context}: its restart policy");
    assert_crew(&world, app, context);
    assert_eq!(others(&world), others(&before), "{context}: everybody else is as before");
    let image = &world.images[&app.image_id];
    let value = envfile::get(world.env.as_deref().unwrap_or_default(), KEY);
    match (job.state, job.kind) {
        (State::Committed, Kind::Update) => {
            let tag = &manifest(&installation.scene)["image"]["tag"];
            assert_eq!(value.as_deref(), tag.as_str(), "{context}");
            assert_eq!(image.digest, DIGEST, "{context}");
        }
        (State::Committed, _) => {
            let (version, data) = installation.scene.by_hand;
            assert_eq!((value.as_deref(), &*image.version, &*world.data), (Some(version), version, data), "{context}");
        }
        (State::RolledBack | State::Aborted, _) => {
            if job.state == State::Aborted {
                assert_eq!((&app.id, app.started_at), (&was.id, was.started_at), "{context}: it was not touched");
            }
            assert_eq!(world.env, before.env, "{context}: .env byte for byte");
            assert_eq!(app.image_id, was.image_id, "{context}");
            if installation.scene.has_data && installation.scene.snapshots {
                assert_eq!(world.data, before.data, "{context}: the data is what it was");
                assert_eq!(world.stores, before.stores, "{context}: so is the data beside the application");
            }
        }
        _ => panic!("{context}: {job:?}"),
    }
}

fn application<'a>(world: &'a World, context: &str) -> &'a Container {
    the_one(world, "processgit", context)
}

fn the_one<'a>(world: &'a World, service: &str, context: &str) -> &'a Container {
    let of_service = |c: &&Container| c.label(label::SERVICE) == Some(service);
    let found: Vec<_> = world.containers.iter().filter(of_service).collect();
    assert_eq!(found.len(), 1, "{context}: one container of {service}: {found:#?}");
    found[0]
}

/// Who moves with the application is of its version, and does what it should.
fn assert_crew(world: &World, app: &Container, context: &str) {
    for mate in &world.crew {
        let c = the_one(world, &mate.service, context);
        let context = format!("{context}: {}", mate.service);
        assert_eq!(c.name, format!("test-{}-1", mate.service), "{context}");
        assert_eq!((&c.image_id, &c.image_ref), (&app.image_id, &app.image_ref), "{context}: of the same image");
        let (state, policy) = match mate.is {
            Mate::Init => (RunState::Exited, "no"),
            Mate::Worker | Mate::Lodger => (RunState::Running, "unless-stopped"),
        };
        assert_eq!((c.state, c.exit_code, &*c.restart_policy.name), (state, 0, policy), "{context}");
        if mate.is == Mate::Lodger {
            assert_eq!(c.network_mode, format!("container:{}", app.id), "{context}");
            assert!(c.started_at >= app.started_at, "{context}: it lives in the namespaces of this very life");
        }
    }
}

/// What the siblings are like: id, restart policy, running.
fn others(world: &World) -> Vec<(&str, &str, bool)> {
    let is_moved = |service: &str| service == "processgit" || world.crew.iter().any(|mate| mate.service == service);
    let is_sibling = |c: &&Container| c.label(label::SERVICE).is_some_and(|service| !is_moved(service));
    let siblings = world.containers.iter().filter(is_sibling);
    let mut others: Vec<_> =
        siblings.map(|c| (&*c.id, &*c.restart_policy.name, c.state == RunState::Running)).collect();
    others.sort_unstable();
    others
}
