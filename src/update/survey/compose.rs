//! Asks Compose whether the wish changes what it names, and nothing else.

use serde_json::Value;

use super::wish::Wish;
use super::{Deployment, Refused};
use crate::engine::{Container, DryRun, EngineError, Project, label};
use crate::release::reference;
use crate::update::drift;
use crate::update::plan;
use crate::update::ports::Ports;

/// The project as Compose resolves it now and with the wanted version, and what `up` would do now.
pub struct Resolved {
    pub old: Value,
    pub new: Value,
    pub dry_run: DryRun,
}

pub async fn resolve(ports: &Ports, deployment: &Deployment, wish: &Wish) -> Result<Resolved, Refused> {
    let project = &deployment.project;
    let wanted = wish.env_value.as_deref().unwrap_or_default();
    let (old, new, dry_run) = tokio::join!(
        ports.compose.config(project, None),
        ports.compose.config(project, Some(wanted)),
        ports.compose.dry_run(project)
    );
    let compose = |e: EngineError| Refused::because(format!("Compose cannot read the deployment: {e}"));
    Ok(Resolved { old: old.map_err(compose)?, new: new.map_err(compose)?, dry_run: dry_run.map_err(compose)? })
}

/// What differs between files and container; asked of Compose first, because another Compose version
/// hashes differently without any material difference.
pub fn drift(resolved: &Resolved, deployment: &Deployment) -> Vec<String> {
    if resolved.dry_run.unchanged {
        return Vec::new();
    }
    drift::differences(&resolved.old, &deployment.project.service, &deployment.container, &deployment.image)
}

pub fn drift_refusal(drift: &[String], wish: &Wish, deployment: &Deployment) -> Option<String> {
    (!drift.is_empty() && !wish.accept_drift).then(|| {
        format!(
            "the deployment has drifted from what runs, and the update would change more than the version: {}. Run `docker compose up -d {}` first, or say \"accept_drift\": true",
            drift.join("; "),
            deployment.project.service
        )
    })
}

/// The service's image must follow the version key, and nothing else may.
pub fn resolution_refusals(resolved: &Resolved, deployment: &Deployment, wish: &Wish) -> Vec<String> {
    let Project { service, version_key: key, .. } = &deployment.project;
    let image = |config: &Value| config["services"][service.as_str()]["image"].as_str().unwrap_or_default().to_owned();
    let (old, new, expected) = (image(&resolved.old), image(&resolved.new), wish.target.reference());
    let wanted = wish.env_value.as_deref().unwrap_or_default();
    let mut refusals = Vec::new();
    if new != expected {
        let repository = expected.strip_suffix(&format!(":{}", wish.target.image_tag)).unwrap_or(&expected);
        refusals.push(format!(
            "with {key}={wanted} Compose resolves the image of service {service} to {new:?}, expected {expected:?}: the Compose file must say image: {repository}:${{{key}}}"
        ));
    }
    let old_version = deployment.env_value.clone().or_else(|| reference::version_of(&old).map(str::to_owned));
    let (a, b) = (&resolved.old["services"][service.as_str()], &resolved.new["services"][service.as_str()]);
    let beyond = plan::changes_beyond_version(a, b, &old_version.unwrap_or_default(), wanted);
    if !beyond.is_empty() {
        refusals.push(format!(
            "{key} changes more of service {service} than its image and the version itself: {}",
            beyond.join(", ")
        ));
    }
    refusals
}

/// The other containers of the project: one container is moved, and nothing may live inside of it.
pub fn sibling_refusals(siblings: &[Container], deployment: &Deployment) -> Vec<String> {
    let (project, name) = (&deployment.project, &deployment.container.name);
    let shared = format!("container:{}", deployment.container.id);
    let shares = |c: &&Container| {
        let host = &c.raw["HostConfig"];
        c.network_mode == shared || host["PidMode"] == *shared || host["IpcMode"] == *shared
    };
    let text = |c: &Container| {
        format!(
            "container {} lives in the namespaces of {name} and would lose them: such services are not moved yet",
            c.name
        )
    };
    let mut refusals: Vec<String> = siblings.iter().filter(shares).map(text).collect();
    let is_replica =
        |c: &&Container| c.label(label::SERVICE) == Some(&project.service) && c.label(label::ONEOFF) != Some("True");
    let replicas: Vec<_> = siblings.iter().filter(is_replica).map(|c| c.name.as_str()).collect();
    if replicas.len() != 1 {
        refusals.push(format!(
            "service {} has {} containers ({}), expected one: remove the leftovers, or scale it to one",
            project.service,
            replicas.len(),
            replicas.join(", ")
        ));
    }
    refusals
}

/// Containers of the deployment's project.
pub async fn siblings(ports: &Ports, deployment: &Deployment) -> Result<Vec<Container>, Refused> {
    let labels = [(label::PROJECT, deployment.project.name.as_str())];
    ports.engine.containers(&labels).await.map_err(Refused::because)
}
