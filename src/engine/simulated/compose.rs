//! The simulated Compose: it resolves the services that there are, and recreates those it is told to in the
//! steps that the real one takes: all are made anew, each after those it needs, and then all are started.

use std::collections::BTreeMap;

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::{Mate, Simulated, World};
use crate::engine::compose_config::{Dependency, Service};
use crate::engine::{Compose, ComposeConfig, Container, DryRun, EngineError, Mount, Project, Result, RunState, label};
use crate::envfile;

impl World {
    pub(super) fn reference(&self, version: Option<&str>) -> String {
        let key = &self.seed.version_key;
        let in_env = self.env.as_deref().and_then(|bytes| envfile::get(bytes, key));
        format!("{}:{}", self.seed.repository, version.map(str::to_owned).or(in_env).unwrap_or_else(|| "latest".into()))
    }

    fn config(&self, version: Option<&str>) -> ComposeConfig {
        let image = self.reference(version);
        let service = |needs: Vec<&str>| Service {
            image: Some(image.clone()),
            depends_on: needs.into_iter().map(|name| (name.to_owned(), Dependency::default())).collect(),
            ..Service::default()
        };
        let own = self.seed.service.as_str();
        let needed = self.crew.iter().filter(|m| m.is_needed()).map(|m| m.service.as_str()).collect();
        let mut services = BTreeMap::from([(own.to_owned(), service(needed))]);
        for mate in &self.crew {
            let needed = if mate.is_needed() { vec![] } else { vec![own] };
            services.insert(mate.service.clone(), service(needed));
        }
        ComposeConfig { name: self.seed.project.clone(), services, ..ComposeConfig::default() }
    }

    /// All services, each after those it needs.
    pub(super) fn in_order(&self) -> Vec<String> {
        let crew = |needed| self.crew.iter().filter(move |m| m.is_needed() == needed).map(|m| m.service.clone());
        crew(true).chain([self.seed.service.clone()]).chain(crew(false)).collect()
    }

    /// A new container of the service, under a temporary name as long as there is an old one.
    pub(super) fn create_beside(
        &mut self,
        service: &str,
        reference: &str,
        image: &str,
        old: Option<&str>,
    ) -> Result<String> {
        let name = self.name_of(service);
        let name = old.map_or_else(|| name.clone(), |old| format!("{}_{name}", &old[..12]));
        if self.find(&name).is_some() {
            return Err(EngineError::Conflict(format!("the name {name} is taken")));
        }
        let mut container = self.make_service(service, &name, reference, image);
        if let Some(old) = old.and_then(|old| self.find(old)) {
            container.mounts.clone_from(&self.containers[old].mounts);
        }
        let id = container.id.clone();
        self.containers.push(container);
        Ok(id)
    }

    pub(super) fn stop_container(&mut self, id: &str) {
        if let Some(at) = self.find(id) {
            self.containers[at].state = RunState::Exited;
        }
    }

    pub(super) fn rename_container(&mut self, id: &str, name: &str) -> Result<()> {
        if self.containers.iter().any(|c| c.name == name && c.id != id) {
            return Err(EngineError::Conflict(format!("the name {name} is taken")));
        }
        let at = self.find(id).ok_or_else(|| EngineError::NotFound(format!("container {id}")))?;
        self.containers[at].name = name.to_owned();
        Ok(())
    }

    pub(super) fn container_of(&self, service: &str) -> Option<&Container> {
        let is_project = |c: &&Container| c.label(label::PROJECT) == Some(&self.seed.project);
        self.containers.iter().filter(is_project).find(|c| c.label(label::SERVICE) == Some(service))
    }

    /// The mode that Compose gives a service of this crew.
    fn network_mode(&self, mate: Option<Mate>) -> String {
        let application = self.container_of(&self.seed.service).map(|c| c.id.as_str()).unwrap_or_default();
        if mate == Some(Mate::Lodger) { format!("container:{application}") } else { "simulated_default".into() }
    }

    /// The container that `up` would leave as it is.
    pub(super) fn is_current(&self, container: &Container, reference: &str) -> bool {
        let mate = container.label(label::SERVICE).and_then(|service| self.mate(service));
        container.image_ref == reference
            && self.resolve(reference).as_ref() == Some(&container.image_id)
            && container.network_mode == self.network_mode(mate)
    }

    /// A container of the service, made and not started.
    pub(super) fn make_service(&mut self, service: &str, name: &str, reference: &str, image: &str) -> Container {
        let mate = self.mate(service);
        let labels = self.compose_labels(service);
        let mut container = self.make(name, reference, image, labels);
        container.network_mode = self.network_mode(mate);
        if mate == Some(Mate::Init) {
            container.restart_policy.name = "no".into();
        }
        if let Some(own) = container.mounts.first().cloned().filter(|_| mate == Some(Mate::Worker)) {
            let (name, source, destination) = ("own".into(), "/simulated/volumes/own".into(), "/own".into());
            container.mounts.push(Mount { name, source, destination, ..own });
        }
        if mate == Some(Mate::Lodger) {
            container.networks.clear();
            container.mounts.clear();
        }
        container
    }
}

#[async_trait]
impl Compose for Simulated {
    async fn version(&self) -> Result<String> {
        Ok("simulated".into())
    }

    async fn config(&self, project: &Project, version: Option<&str>) -> Result<ComposeConfig> {
        // Another key selects nothing.
        let version = version.filter(|_| project.version_key == self.world().seed.version_key);
        self.call("compose.config", |w| Ok(w.config(version))).await
    }

    async fn dry_run(&self, _project: &Project, service: &str) -> Result<DryRun> {
        self.call("compose.dry_run", |w| {
            let reference = w.reference(None);
            let unchanged = w.container_of(service).is_some_and(|c| w.is_current(c, &reference));
            Ok(DryRun { unchanged, actions: vec![if unchanged { "Running" } else { "Recreate" }.into()] })
        })
        .await
    }

    async fn up(&self, project: &Project, lines: mpsc::Sender<String>) -> Result<()> {
        let in_order = self.world().in_order();
        let in_order: Vec<String> = in_order.into_iter().filter(|service| project.moves(service)).collect();
        let mut made = Vec::new();
        for service in &in_order {
            made.push(self.create(service, &lines).await?);
        }
        for (service, id) in in_order.iter().zip(made) {
            let _ = lines.send(format!("Container {service}  Starting")).await;
            if self.begin(&id).await? != 0 {
                return Err(EngineError::Failed(format!("service {service:?} didn't complete successfully: exit 1")));
            }
        }
        Ok(())
    }
}

impl Simulated {
    /// Create under a temporary name, stop the old, remove it, rename. The id of the one that is to be
    /// started.
    async fn create(&self, service: &str, lines: &mpsc::Sender<String>) -> Result<String> {
        let (reference, image, old) = self
            .call("compose.up/look", |w| {
                let reference = w.reference(None);
                let image =
                    w.resolve(&reference).ok_or_else(|| EngineError::Failed(format!("No such image: {reference}")))?;
                let old = w.container_of(service).map(|c| (c.id.clone(), w.is_current(c, &reference)));
                Ok::<_, EngineError>((reference, image, old))
            })
            .await?;
        let old = match old {
            Some((old, true)) => {
                let _ = lines.send(format!("Container {service}  Running")).await;
                return Ok(old);
            }
            other => other.map(|(old, _)| old),
        };
        let _ = lines.send(format!("Container {service}  Recreate")).await;
        let beside = old.as_deref();
        let id = self.call("compose.up/create", |w| w.create_beside(service, &reference, &image, beside)).await?;
        if let Some(old) = &old {
            let name = self.world().name_of(service);
            self.replace(old, &id, &name).await?;
        }
        Ok(id)
    }

    async fn replace(&self, old: &str, new: &str, name: &str) -> Result<()> {
        self.call("compose.up/stop", |w| {
            w.stop_container(old);
            Ok::<_, EngineError>(())
        })
        .await?;
        self.call("compose.up/remove", |w| {
            w.containers.retain(|c| c.id != old);
            Ok::<_, EngineError>(())
        })
        .await?;
        self.call("compose.up/rename", |w| w.rename_container(new, name)).await
    }

    /// The exit code of one that ends at once.
    async fn begin(&self, id: &str) -> Result<i64> {
        let now = self.clock.now();
        self.call("compose.up/start", |w| {
            let Some(at) = w.find(id) else { return Ok(0) };
            if !w.can_start(at) {
                return Err(EngineError::Failed("cannot join the network of a container that does not run".into()));
            }
            w.start_at(at, now);
            Ok::<_, EngineError>(w.containers[at].exit_code)
        })
        .await
    }
}
