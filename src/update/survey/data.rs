//! Which data is copied, who else writes to it, and the operator's hooks.

use std::path::Path;

use serde_json::Value;

use super::{Deployment, Refused};
use crate::engine::{Container, Mount, MountKind, label};
use crate::update::plan::{self, Companion, DataPlan, Hooks, OneShot};
use crate::update::ports::{HookSetting, Options, Ports};

/// The engine's socket is no data, and never reaches a one-shot container.
pub fn is_socket(mount: &Mount) -> bool {
    mount.source.ends_with(".sock")
}

/// Every writable mount is copied, but those that the operator leaves out; or none, where snapshots are
/// off. Room and rights are checked here, before anything is stopped.
pub async fn data_plan(ports: &Ports, options: &Options, mounts: &[Mount]) -> Result<DataPlan, Refused> {
    let is_data = |m: &&Mount| m.writable && matches!(m.kind, MountKind::Volume | MountKind::Bind) && !is_socket(m);
    let holds = |m: &&Mount| options.data_in.as_ref().is_none_or(|path| Path::new(path).starts_with(&m.destination));
    let mounts = mounts.iter().filter(is_data).filter(holds).cloned();
    if let Some(why) = ports.data.off() {
        return Ok(DataPlan { copied: Vec::new(), uncovered: mounts.collect(), why });
    }
    let is_excluded = |m: &Mount| options.snapshot_exclude.iter().any(|e| Path::new(&m.destination) == Path::new(e));
    let (uncovered, copied): (Vec<Mount>, Vec<Mount>) = mounts.partition(is_excluded);
    if !copied.is_empty() {
        ports.data.preflight(&copied).await.map_err(Refused::because)?;
    }
    Ok(DataPlan { copied, uncovered, why: "PROCESSGIT_UPDATER_SNAPSHOT_EXCLUDE leaves it out".into() })
}

/// Containers that write to the same data: those the operator named are stopped too, any other one is a
/// reason to refuse, because the copy would not be consistent.
pub async fn companions(
    ports: &Ports,
    options: &Options,
    deployment: &Deployment,
    data: &DataPlan,
) -> Result<Vec<Companion>, Refused> {
    if data.copied.is_empty() {
        return Ok(Vec::new());
    }
    let all = ports.engine.containers(&[]).await.map_err(Refused::because)?;
    let writes = |c: &&Container| {
        let is_own = options.own_container.as_ref().is_some_and(|own| c.id.starts_with(own));
        c.id != deployment.container.id
            && super::is_alive(c)
            && !is_own
            // A helper of ours writes only when it is told to.
            && c.label(label::OWNER).is_none()
            && c.mounts.iter().any(|m| overlaps(m, &data.copied))
    };
    let is_named = |c: &&Container| {
        let service = c.label(label::SERVICE).filter(|_| c.label(label::PROJECT) == Some(&deployment.project.name));
        options.stop_services.iter().any(|name| *name == c.name || Some(name.as_str()) == service)
    };
    let (named, others): (Vec<&Container>, Vec<&Container>) = all.iter().filter(writes).partition(is_named);
    if !others.is_empty() {
        let names: Vec<_> = others.iter().map(|c| c.name.as_str()).collect();
        return Err(Refused::because(format!(
            "these containers write to the application's data too, so no consistent copy can be made while they run: {}. Name them in PROCESSGIT_UPDATER_STOP_SERVICES to have them stopped as well",
            names.join(", ")
        )));
    }
    let companion = |c: &Container| Companion {
        container_id: c.id.clone(),
        name: c.name.clone(),
        restart_policy: c.restart_policy.clone(),
    };
    Ok(named.into_iter().map(companion).collect())
}

/// A writable mount of the same volume, or of a folder in, at or above one of them.
fn overlaps(mount: &Mount, copied: &[Mount]) -> bool {
    let path = Path::new(&mount.source);
    mount.writable
        && !is_socket(mount)
        && copied.iter().any(|c| {
            let same_volume = !mount.name.is_empty() && mount.name == c.name;
            let nested =
                !mount.source.is_empty() && (path.starts_with(&c.source) || Path::new(&c.source).starts_with(path));
            same_volume || nested
        })
}

/// The hooks that are set, each in the surroundings of the service it names.
pub fn hooks(
    options: &Options,
    config: &Value,
    siblings: &[Container],
    deployment: &Deployment,
) -> Result<Hooks, Refused> {
    let one = |setting: &Option<HookSetting>| match setting {
        Some(setting) => hook(setting, config, siblings, deployment).map(Some),
        None => Ok(None),
    };
    Ok(Hooks { before_copy: one(&options.hook_before_copy)?, after_restore: one(&options.hook_after_restore)? })
}

/// The service's own mounts, and the application's data beside them, so that a dump finds a place that
/// is copied.
fn hook(
    setting: &HookSetting,
    config: &Value,
    siblings: &[Container],
    deployment: &Deployment,
) -> Result<OneShot, Refused> {
    let of_service =
        |c: &&Container| c.label(label::SERVICE) == Some(&setting.service) && c.label(label::ONEOFF) != Some("True");
    let Some(container) = siblings.iter().find(of_service) else {
        return Err(Refused::because(format!(
            "the hook {:?} is to run in the surroundings of service {}, which has no container: start it, or name another service",
            setting.text(),
            setting.service
        )));
    };
    let mut mounts: Vec<Mount> = container.mounts.iter().filter(|m| !is_socket(m)).cloned().collect();
    for mount in deployment.container.mounts.iter().filter(|m| !is_socket(m)) {
        if mounts.iter().all(|m| m.destination != mount.destination) {
            mounts.push(mount.clone());
        }
    }
    let (key, value) = (&deployment.project.version_key, deployment.env_value.as_deref().unwrap_or_default());
    Ok(OneShot {
        image: Some(container.image_id.clone()),
        command: setting.command.clone(),
        surroundings: plan::surroundings(config, &setting.service, container.reachable_networks(), key, value),
        mounts,
    })
}
