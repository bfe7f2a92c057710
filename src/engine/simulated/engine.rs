//! The simulated engine's calls.

use async_trait::async_trait;
use serde_json::json;
use tokio::sync::mpsc;

use super::{PLATFORM, Simulated, World, familiar};
use crate::engine::{
    Container, ContainerSpec, Engine, EngineError, EngineInfo, Event, Image, LOCAL_DRIVER, Reach, RestartPolicy,
    Result, RunState, Volume,
};
use crate::update::job::Layer;

fn not_found(what: &str) -> EngineError {
    EngineError::NotFound(what.to_owned())
}

fn at(world: &World, id: &str) -> Result<usize> {
    world.find(id).ok_or_else(|| not_found(&format!("container {id}")))
}

#[async_trait]
impl Engine for Simulated {
    async fn info(&self) -> Result<EngineInfo> {
        let info = EngineInfo {
            version: "simulated".into(),
            api_version: "0".into(),
            platform: PLATFORM.into(),
            containerd_store: false,
        };
        self.call("engine.info", |_| Ok(info)).await
    }

    async fn container(&self, name_or_id: &str) -> Result<Option<Container>> {
        let now = self.clock.now();
        self.call("engine.container", |w| Ok(w.find(name_or_id).map(|at| w.inspect(at, now)))).await
    }

    async fn containers(&self, labels: &[(&str, &str)]) -> Result<Vec<Container>> {
        let now = self.clock.now();
        let carries = |c: &Container| labels.iter().all(|(k, v)| c.labels.get(*k).is_some_and(|has| has == v));
        self.call("engine.containers", |w| {
            let found = (0..w.containers.len()).filter(|at| carries(&w.containers[*at]));
            Ok(found.map(|at| w.inspect(at, now)).collect())
        })
        .await
    }

    async fn image(&self, reference: &str) -> Result<Option<Image>> {
        self.call("engine.image", |w| Ok(w.resolve(reference).and_then(|id| w.describe(&id)))).await
    }

    /// Every volume that a container has is one of the engine's own.
    async fn volume(&self, name: &str) -> Result<Option<Volume>> {
        self.call("engine.volume", |w| {
            let has = |c: &Container| c.mounts.iter().any(|m| m.name == name);
            Ok(w.containers.iter().any(has).then(|| Volume {
                name: name.to_owned(),
                driver: LOCAL_DRIVER.into(),
                ..Volume::default()
            }))
        })
        .await
    }

    async fn remove_volume(&self, name: &str) -> Result<()> {
        self.call("engine.remove_volume", |w| {
            if w.containers.iter().any(|c| c.mounts.iter().any(|m| m.name == name)) {
                return Err(EngineError::Conflict(format!("volume {name} is in use by a container")));
            }
            Ok(())
        })
        .await
    }

    async fn pull(&self, reference: &str, layers: mpsc::Sender<Vec<Layer>>) -> Result<()> {
        for current in [0, 50, 100] {
            let status = if current < 100 { "Downloading" } else { "Pull complete" };
            let layer = Layer { id: "simulated".into(), status: status.into(), current, total: 100 };
            let _ = layers.send(vec![layer]).await;
            tokio::time::sleep(self.latency).await;
        }
        self.call("engine.pull", |w| {
            let (repository, digest) =
                reference.split_once('@').ok_or_else(|| EngineError::Failed(format!("{reference} names no digest")))?;
            let version = w.wanted_version.clone();
            w.add_image(digest, repository, &version);
            Ok(())
        })
        .await
    }

    async fn tag(&self, image: &str, target: &str) -> Result<()> {
        self.call("engine.tag", |w| {
            let id = w.resolve(image).ok_or_else(|| not_found(&format!("image {image}")))?;
            w.tags.insert(familiar(target), id);
            Ok(())
        })
        .await
    }

    async fn untag(&self, reference: &str) -> Result<()> {
        self.call("engine.untag", |w| {
            let reference = &familiar(reference);
            let Some(id) = w.tags.get(reference).cloned() else { return Ok(()) };
            let last = w.tags.values().filter(|of| **of == id).count() == 1;
            if last && w.containers.iter().any(|c| c.image_id == id) {
                return Err(EngineError::Conflict(format!("image {reference} is in use by a container")));
            }
            w.tags.remove(reference);
            if last {
                w.images.remove(&id);
            }
            Ok(())
        })
        .await
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<String> {
        let spec = spec.clone();
        self.call("engine.create", |w| {
            if w.find(&spec.name).is_some() {
                return Err(EngineError::Conflict(format!("the name {} is taken", spec.name)));
            }
            let image = w.resolve(&spec.image).ok_or_else(|| not_found(&format!("image {}", spec.image)))?;
            let mut c = w.make(&spec.name, &spec.image, &image, spec.labels);
            c.restart_policy = RestartPolicy::never();
            c.mounts = spec.mounts;
            c.raw = json!({"Config": {"Cmd": spec.command}});
            let id = c.id.clone();
            w.containers.push(c);
            Ok(id)
        })
        .await
    }

    async fn start(&self, id: &str) -> Result<()> {
        let now = self.clock.now();
        self.call("engine.start", |w| {
            let at = at(w, id)?;
            if !w.can_start(at) {
                return Err(EngineError::Failed(format!(
                    "{id} cannot join the network of a container that does not run"
                )));
            }
            w.note_without_commands(at, "started");
            w.start_at(at, now);
            Ok(())
        })
        .await
    }

    async fn stop(&self, id: &str, _grace_seconds: Option<i64>) -> Result<()> {
        self.call("engine.stop", |w| {
            let at = at(w, id)?;
            if w.containers[at].state == RunState::Running {
                w.note_without_commands(at, "stopped");
            }
            if w.containers[at].state != RunState::Created {
                w.containers[at].state = RunState::Exited;
            }
            Ok(())
        })
        .await
    }

    async fn remove(&self, id: &str) -> Result<()> {
        self.call("engine.remove", |w| {
            w.containers.retain(|c| c.id != id && c.name != id);
            Ok(())
        })
        .await
    }

    async fn wait(&self, id: &str) -> Result<i64> {
        loop {
            let state = self
                .call("engine.wait", |w| at(w, id).map(|at| (w.containers[at].state, w.containers[at].exit_code)))
                .await?;
            if state.0 != RunState::Running {
                return Ok(state.1);
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }

    async fn logs(&self, _id: &str, lines: mpsc::Sender<String>) -> Result<()> {
        let _ = lines.send("(simulated output)".into()).await;
        Ok(())
    }

    async fn log_tail(&self, _id: &str, _lines: usize) -> Result<Vec<String>> {
        Ok(vec!["(simulated output)".into()])
    }

    async fn set_restart_policy(&self, id: &str, policy: &RestartPolicy) -> Result<()> {
        let policy = policy.clone();
        self.call("engine.set_restart_policy", |w| {
            let at = at(w, id)?;
            w.containers[at].restart_policy = policy;
            Ok(())
        })
        .await
    }

    async fn rename(&self, id: &str, name: &str) -> Result<()> {
        self.call("engine.rename", |w| w.rename_container(id, name)).await
    }

    async fn may_reach(&self, _how: Reach) -> Result<()> {
        self.call("engine.may_reach", |_| Ok(())).await
    }

    async fn events(&self, _container_id: &str, _events: mpsc::Sender<Event>) -> Result<()> {
        std::future::pending().await
    }
}
