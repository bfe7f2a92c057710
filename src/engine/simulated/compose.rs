//! The simulated Compose: it resolves the services that there are, and recreates those it is told to in the
//! steps that the real one takes: all are made anew, each after those it needs, and then all are started.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde_json::json;
use tokio::sync::mpsc;

use super::{Mate, Simulated, World};
use crate::engine::compose_config::service::Hook;
use crate::engine::compose_config::{Dependency, Service, ServiceMount};
use crate::engine::{
    Compose, ComposeConfig, Container, DryRun, EngineError, Mount, MountKind, PlannedProjects, Project, RestartPolicy,
    Result, RunState, Written, label,
};
use crate::envfile;

/// The label that an edit of the Compose file gives to what is made of it.
const EDITED: &str = "edited";
/// The Compose file of projects that are made from a planned configuration.
const PLANNED: &str = "/simulated/planned.json";
pub(super) const OWN_FILE: &str = "/simulated/docker-compose.yml";

impl World {
    /// As `.env` selects it, or these bytes in its place.
    pub(super) fn reference(&self, env: Option<&[u8]>) -> String {
        let env = env.or(self.env.as_deref());
        let version = env.and_then(|bytes| envfile::get(bytes, &self.seed.version_key));
        format!("{}:{}", self.seed.repository, version.unwrap_or_else(|| "latest".into()))
    }

    fn config(&self, env: Option<&[u8]>) -> ComposeConfig {
        let image = self.reference(env);
        let service = |needs: Vec<&str>, restart: &str| Service {
            image: Some(image.clone()),
            restart: Some(restart.to_owned()),
            labels: if self.edited { [(EDITED.to_owned(), "yes".to_owned())].into() } else { BTreeMap::new() },
            depends_on: needs.into_iter().map(|name| (name.to_owned(), Dependency::default())).collect(),
            ..Service::default()
        };
        let own = self.seed.service.as_str();
        let crew = self.crew.iter().filter(|m| m.is_needed()).map(|m| m.service.as_str());
        let needed = crew.chain(self.needs.keys().map(String::as_str)).collect();
        let mut services = BTreeMap::from([(own.to_owned(), service(needed, "unless-stopped"))]);
        for mate in &self.crew {
            let needed = if mate.is_needed() { vec![] } else { vec![own] };
            let restart = if mate.is == Mate::Init { "no" } else { "unless-stopped" };
            let network_mode = (mate.is == Mate::Lodger).then(|| format!("service:{own}"));
            services.insert(mate.service.clone(), Service { network_mode, ..service(needed, restart) });
        }
        // A project has services of other images, too.
        for other in self.containers.iter().filter(|c| c.label(label::PROJECT) == Some(&self.seed.project)) {
            let name = other.label(label::SERVICE).unwrap_or_default();
            let of_its_own = || Service { image: Some(other.image_ref.clone()), ..Service::default() };
            services.entry(name.to_owned()).or_insert_with(of_its_own);
        }
        for (name, variables) in &self.environments {
            let Some(service) = services.get_mut(name) else { continue };
            service.environment = variables.iter().map(|(key, value)| (key.clone(), Some(value.clone()))).collect();
        }
        for (_, service) in services.iter_mut().filter(|(name, _)| self.commands.contains(*name)) {
            service.post_start = vec![Hook::default()];
            service.pre_stop = vec![Hook::default()];
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

    /// Which file a container was made of, and whether that had been edited.
    pub(super) fn mark(&mut self, id: &str, edited: bool, file: &str) {
        let Some(at) = self.find(id) else { return };
        let labels = &mut self.containers[at].labels;
        labels.insert(label::CONFIG_FILES.to_owned(), file.to_owned());
        if edited {
            labels.insert(EDITED.to_owned(), "yes".to_owned());
        }
    }

    /// The container of a project that has one service, which is no part of the application's.
    fn create_one_shot(&mut self, config: &ComposeConfig) -> Result<()> {
        let Some((name, service)) = config.services.iter().next() else {
            return Err(EngineError::Failed("no service selected".into()));
        };
        if self.find(name).is_some() {
            return Err(EngineError::Conflict(format!("the name {name} is taken")));
        }
        let reference = service.image.clone().unwrap_or_default();
        let image = self.resolve(&reference).ok_or_else(|| EngineError::NotFound(format!("image {reference}")))?;
        let own = [(label::PROJECT, &config.name), (label::SERVICE, name)];
        let labels = own.map(|(key, value)| (key.to_owned(), value.clone())).into_iter().chain(service.labels.clone());
        let mut container = self.make(name, &reference, &image, labels.collect());
        container.restart_policy = RestartPolicy::never();
        let mount = |mount: &ServiceMount| Mount {
            kind: MountKind::Volume,
            name: mount.source.clone().unwrap_or_default(),
            source: format!("/simulated/volumes/{}", mount.source.as_deref().unwrap_or_default()),
            destination: mount.target.clone(),
            writable: !mount.read_only,
            subpath: String::new(),
        };
        container.mounts = service.volumes.iter().map(mount).collect();
        container.raw = json!({"Config": {"Cmd": service.command}});
        self.containers.push(container);
        Ok(())
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

/// It was made of an edited file.
pub fn is_edited(container: &Container) -> bool {
    container.label(EDITED).is_some()
}

#[async_trait]
impl PlannedProjects for Simulated {
    async fn keep(&self, project: &Project, _config: &ComposeConfig) -> Result<Project> {
        let planned = Project { config_files: vec![PLANNED.into()], ..project.clone() };
        self.call("planned.keep", |_| Ok(planned)).await
    }

    async fn original(&self, project: Project) -> Project {
        match project.config_files == [PLANNED] {
            true => Project { config_files: vec![OWN_FILE.into()], ..project },
            false => project,
        }
    }
}

#[async_trait]
impl Compose for Simulated {
    async fn version(&self) -> Result<String> {
        Ok("simulated".into())
    }

    async fn config(&self, _project: &Project, env: Option<&[u8]>) -> Result<ComposeConfig> {
        self.call("compose.config", |w| Ok(w.config(env))).await
    }

    async fn written(&self, _project: &Project) -> Result<Written> {
        self.call("compose.written", |w| Ok(w.written.clone())).await
    }

    async fn dry_run(&self, _project: &Project, service: &str) -> Result<DryRun> {
        self.call("compose.dry_run", |w| {
            let reference = w.reference(None);
            let is_current = |c: &Container| w.is_current(c, &reference) && is_edited(c) == w.edited;
            let unchanged = w.container_of(service).is_some_and(is_current);
            let actions = vec![if unchanged { "Running" } else { "Recreate" }.into()];
            Ok(DryRun { unchanged, actions, touches: Vec::new() })
        })
        .await
    }

    async fn up(&self, project: &Project, lines: mpsc::Sender<String>) -> Result<()> {
        let is_planned = project.config_files == [PLANNED];
        let in_order = self.world().in_order();
        let in_order: Vec<String> = in_order.into_iter().filter(|service| project.moves(service)).collect();
        let mut made = Vec::new();
        for service in &in_order {
            made.push(self.create(service, is_planned, &lines).await?);
        }
        for (service, id) in in_order.iter().zip(made) {
            let _ = lines.send(format!("Container {service}  Starting")).await;
            if self.begin(&id).await? != 0 {
                return Err(EngineError::Failed(format!("service {service:?} didn't complete successfully: exit 1")));
            }
        }
        Ok(())
    }

    async fn create(&self, _project: &Project, config: &ComposeConfig) -> Result<()> {
        self.call("compose.create", |w| w.create_one_shot(config)).await
    }

    async fn run(&self, _project: &Project, config: &ComposeConfig, _env: Option<&[u8]>) -> Result<()> {
        self.begin(&config.name).await.map(|_| ())
    }

    async fn stop(&self, _project: &Project, service: &str, _lines: mpsc::Sender<String>) -> Result<()> {
        self.call("compose.stop", |w| {
            let id = w.container_of(service).map(|c| c.id.clone()).unwrap_or_default();
            w.stop_container(&id);
            Ok(())
        })
        .await
    }

    async fn start(&self, _project: &Project, service: &str, _lines: mpsc::Sender<String>) -> Result<()> {
        let id = self.world().container_of(service).map(|c| c.id.clone()).unwrap_or_default();
        self.begin(&id).await.map(|_| ())
    }
}

impl Simulated {
    /// Create under a temporary name, stop the old, remove it, rename. The id of the one that is to be
    /// started.
    async fn create(&self, service: &str, is_planned: bool, lines: &mpsc::Sender<String>) -> Result<String> {
        let (reference, image, old, edited) = self
            .call("compose.up/look", |w| {
                let reference = w.reference(None);
                let image =
                    w.resolve(&reference).ok_or_else(|| EngineError::Failed(format!("No such image: {reference}")))?;
                let edited = w.edited && !is_planned;
                let is_current = |c: &Container| w.is_current(c, &reference) && is_edited(c) == edited;
                let old = w.container_of(service).map(|c| (c.id.clone(), is_current(c)));
                Ok::<_, EngineError>((reference, image, old, edited))
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
        let create = |w: &mut World| {
            let id = w.create_beside(service, &reference, &image, beside)?;
            w.mark(&id, edited, if is_planned { PLANNED } else { OWN_FILE });
            Ok::<_, EngineError>(id)
        };
        let id = self.call("compose.up/create", create).await?;
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
