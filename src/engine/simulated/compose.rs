//! The simulated Compose: it resolves one service, and recreates it in the steps that the real one takes.

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{Simulated, World};
use crate::engine::{Compose, DryRun, EngineError, Project, Result, RunState, label};
use crate::envfile;

impl World {
    fn reference(&self, version: Option<&str>) -> String {
        let key = &self.seed.version_key;
        let in_env = self.env.as_deref().and_then(|bytes| envfile::get(bytes, key));
        format!("{}:{}", self.seed.repository, version.map(str::to_owned).or(in_env).unwrap_or_else(|| "latest".into()))
    }

    fn service_container(&self) -> Option<usize> {
        let of_service = |c: &crate::engine::Container| {
            c.label(label::PROJECT) == Some(&self.seed.project) && c.label(label::SERVICE) == Some(&self.seed.service)
        };
        self.containers.iter().position(of_service)
    }

    /// The container that `up` would leave as it is.
    fn is_current(&self, at: usize, reference: &str) -> bool {
        let c = &self.containers[at];
        c.image_ref == reference && self.resolve(reference).as_ref() == Some(&c.image_id)
    }
}

#[async_trait]
impl Compose for Simulated {
    async fn version(&self) -> Result<String> {
        Ok("simulated".into())
    }

    async fn config(&self, project: &Project, version: Option<&str>) -> Result<Value> {
        self.call("compose.config", |w| Ok(json!({"services": {&project.service: {"image": w.reference(version)}}})))
            .await
    }

    async fn dry_run(&self, _project: &Project) -> Result<DryRun> {
        self.call("compose.dry_run", |w| {
            let reference = w.reference(None);
            let unchanged = w.service_container().is_some_and(|at| w.is_current(at, &reference));
            Ok(DryRun { unchanged, actions: vec![if unchanged { "Running" } else { "Recreate" }.into()] })
        })
        .await
    }

    /// Create under a temporary name, stop the old, remove it, rename, start.
    async fn up(&self, _project: &Project, lines: mpsc::Sender<String>) -> Result<()> {
        let name = self.world().seed.container.clone();
        let say = async |text: &str| {
            let _ = lines.send(format!("Container {name}  {text}")).await;
        };
        let (reference, image, old) = self
            .call("compose.up/look", |w| {
                let reference = w.reference(None);
                let image =
                    w.resolve(&reference).ok_or_else(|| EngineError::Failed(format!("No such image: {reference}")))?;
                let old = w.service_container().map(|at| (w.containers[at].clone(), w.is_current(at, &reference)));
                Ok::<_, EngineError>((reference, image, old))
            })
            .await?;
        let old = match old {
            Some((old, true)) => {
                say("Running").await;
                return self.begin(&old.id).await;
            }
            other => other.map(|(old, _)| old),
        };
        say("Recreate").await;
        let temporary = old.as_ref().map(|old| format!("{}_{name}", &old.id[..12]));
        let first_name = temporary.clone().unwrap_or_else(|| name.clone());
        let id = self
            .call("compose.up/create", |w| {
                if w.find(&first_name).is_some() {
                    return Err(EngineError::Conflict(format!("the name {first_name} is taken")));
                }
                let labels = w.compose_labels();
                let container = w.make(&first_name, &reference, &image, labels);
                let id = container.id.clone();
                w.containers.push(container);
                Ok(id)
            })
            .await?;
        if let Some(old) = &old {
            self.replace(&old.id, &id, &name).await?;
        }
        self.begin(&id).await?;
        say("Started").await;
        Ok(())
    }
}

impl Simulated {
    async fn replace(&self, old: &str, new: &str, name: &str) -> Result<()> {
        self.call("compose.up/stop", |w| {
            if let Some(at) = w.find(old) {
                w.containers[at].state = RunState::Exited;
            }
            Ok::<_, EngineError>(())
        })
        .await?;
        self.call("compose.up/remove", |w| {
            w.containers.retain(|c| c.id != old);
            Ok::<_, EngineError>(())
        })
        .await?;
        self.call("compose.up/rename", |w| {
            if let Some(at) = w.find(new) {
                w.containers[at].name = name.to_owned();
            }
            Ok::<_, EngineError>(())
        })
        .await
    }

    async fn begin(&self, id: &str) -> Result<()> {
        let now = self.clock.now();
        self.call("compose.up/start", |w| {
            if let Some(at) = w.find(id) {
                w.start_at(at, now);
            }
            Ok::<_, EngineError>(())
        })
        .await
    }
}
