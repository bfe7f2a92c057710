//! What containers are given from the host: a source that is gone is found before anything is stopped. One
//! that runs goes on without it, but once stopped neither it nor its successor could be started; or the engine
//! would make an empty folder in its place.

use std::collections::BTreeMap;
use std::path::Path;

use super::Deployment;
use super::data::is_socket;
use crate::engine::{ComposeConfig, ContainerSpec, EngineError, Mount, MountKind};
use crate::update::plan::Companion;
use crate::update::ports::{Options, Ports};
use crate::update::refusal::{Code, Refusal, Refused};

/// A container of ours that is never started: it is only made to see whether the engine has all it is to mount.
pub const LOOK: &str = "look";

/// A path of the engine's host, and for people who needs it, and for what.
pub(in crate::update) type Needed = BTreeMap<String, String>;

/// One refusal for each source that is gone. `new`: the configuration from which containers are made anew;
/// `None`: the very containers are started again.
pub async fn refusals(
    ports: &Ports,
    options: &Options,
    deployment: &Deployment,
    companions: &[Companion],
    new: Option<&ComposeConfig>,
) -> Result<Vec<Refusal>, Refused> {
    let needed = needed(deployment, companions, new);
    if needed.is_empty() || has(ports, options, deployment, needed.keys()).await? {
        return Ok(Vec::new());
    }
    let mut refusals = Vec::new();
    for (path, who) in &needed {
        if !has(ports, options, deployment, std::iter::once(path)).await? {
            let what = format!(
                "{path} does not exist on the engine's host (any more), and {who}: once stopped, it could not be started again as it is"
            );
            let remedy = "Put it back, or take it out of the Compose file and run `docker compose up -d`";
            refusals.push(Refusal::new(Code::SourceGone, what).text(remedy));
        }
    }
    Ok(refusals)
}

/// The engine has them all: it makes a container that mounts them, or refuses to.
async fn has(
    ports: &Ports,
    options: &Options,
    deployment: &Deployment,
    paths: impl Iterator<Item = &String>,
) -> Result<bool, Refused> {
    let mount = |(n, path): (usize, &String)| Mount {
        kind: MountKind::Bind,
        name: String::new(),
        source: path.clone(),
        destination: format!("/{n}"),
        writable: false,
        subpath: String::new(),
    };
    let spec = ContainerSpec {
        name: format!("processgit-updater-{LOOK}-{:08x}", rand::random::<u32>()),
        image: deployment.container.image_id.clone(),
        command: Some(vec!["never-started".into()]),
        labels: [(crate::engine::label::ROLE.to_owned(), LOOK.to_owned())].into(),
        mounts: paths.enumerate().map(mount).collect(),
        ..ContainerSpec::default()
    };
    match ports.engine.create(&options.owner.seal.put_on(spec)).await {
        Ok(id) => {
            ports.engine.remove(&id).await?;
            Ok(true)
        }
        // What it says of it is no concern of ours: with other mounts it is asked again.
        Err(EngineError::SourceGone { .. } | EngineError::Failed(_) | EngineError::NotFound(_)) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Pure.
pub(in crate::update) fn needed(
    deployment: &Deployment,
    companions: &[Companion],
    new: Option<&ComposeConfig>,
) -> Needed {
    let mut needed = Needed::new();
    let mut need = |path: &str, who: String| {
        if Path::new(path).is_absolute() {
            needed.entry(path.to_owned()).or_insert(who);
        }
    };
    let stopped = companions.iter().filter_map(|c| deployment.containers.iter().find(|d| d.id == c.container_id));
    for container in deployment.moved().map(|(_, container, _)| container).chain(stopped) {
        let binds = container.mounts.iter().filter(|m| m.kind == MountKind::Bind && !is_socket(m));
        for mount in binds {
            need(&mount.source, format!("container {} has it mounted at {}", container.name, mount.destination));
        }
        let devices = container.raw["HostConfig"]["Devices"].as_array().into_iter().flatten();
        for device in devices.filter_map(|device| device["PathOnHost"].as_str()) {
            need(device, format!("container {} has it as a device", container.name));
        }
    }
    let Some(new) = new else { return needed };
    for (name, service) in deployment.project.moved().filter_map(|name| Some((name, new.service(name)?))) {
        // The engine makes the source of a short form.
        let demanded = service.volumes.iter().filter(|v| v.kind == "bind" && v.bind.create_host_path == Some(false));
        for volume in demanded {
            need(
                volume.source.as_deref().unwrap_or_default(),
                format!("service {name} mounts it at {}", volume.target),
            );
        }
        for (what, references, objects) in
            [("secret", &service.secrets, &new.secrets), ("config", &service.configs, &new.configs)]
        {
            for key in references.iter().map(|reference| &reference.source) {
                if let Some(file) = objects.get(key).and_then(|object| object.file.as_deref()) {
                    need(file, format!("service {name} has it as {what} {key}"));
                }
            }
        }
        for device in service.devices.iter().map(|device| &device.source) {
            need(device, format!("service {name} has it as a device"));
        }
        for key in service.volumes.iter().filter(|v| v.kind == "volume").filter_map(|v| v.source.as_deref()) {
            let Some(options) = new.volumes.get(key).map(|volume| &volume.driver_opts) else { continue };
            let is_bind = options.get("o").is_some_and(|o| o.split(',').any(|o| o == "bind" || o == "rbind"));
            if let Some(device) = options.get("device").filter(|_| is_bind) {
                need(device, format!("the volume {key} of service {name} is this folder"));
            }
        }
    }
    needed
}
