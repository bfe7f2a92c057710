//! The real engine: Docker's Engine API. The only module that knows the client library.

mod connect;
mod convert;
mod error;
mod follow;
mod inquiry;
mod pull;

use std::collections::HashMap;
use std::env;
use std::fmt;
use std::future::Future;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bollard::models::{ContainerUpdateBody, ExecConfig, NetworkConnectRequest};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
    RemoveImageOptionsBuilder, RemoveVolumeOptions, RenameContainerOptionsBuilder, StopContainerOptionsBuilder,
    TagImageOptionsBuilder, UploadToContainerOptionsBuilder,
};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

pub use self::connect::AddressError;
use self::connect::{Address, Client};
use self::error::{engine_error, is_404};
use super::{
    Container, ContainerSpec, DEFAULT_STOP_GRACE, Engine, EngineError, EngineInfo, Event, Image, MountKind, Reach,
    RestartPolicy, Result, RunState, Volume,
};
use crate::failpoint;
use crate::reference::Reference;
use crate::update::job::Layer;

/// A name that no container has.
const NO_CONTAINER: &str = "processgit-updater-no-such-container";
/// Deadline of a call that only looks.
const LOOK: Duration = Duration::from_secs(10);
/// Deadline of a call that changes something.
const ACT: Duration = Duration::from_secs(60);
/// What a stop may take beyond the container's own time: the kill and the engine's bookkeeping.
const STOP_MARGIN: u64 = 30;
/// A container whose stop timeout is "for ever" gets this long, in seconds.
const LONGEST_GRACE: i64 = 3600;
/// How many containers are inspected at once.
const INSPECTIONS: usize = 8;
/// Between two looks at a container that is being removed.
const REMOVAL_PAUSE: Duration = Duration::from_millis(100);
/// The first API version that knows sub-folders of volumes. Older engines silently mount the whole volume.
const SUBPATH_VERSION: (usize, usize) = (1, 45);

/// Docker's engine behind `DOCKER_HOST`. It need not be there yet: each call connects if none has, and
/// after the engine was away the API version is agreed on anew (it may have been upgraded).
pub struct DockerEngine {
    address: Address,
    client: Mutex<Option<Client>>,
}

impl DockerEngine {
    /// The engine that `DOCKER_HOST` names, Docker's default socket without it.
    pub fn from_environment() -> std::result::Result<Self, AddressError> {
        let tls = env::var_os("DOCKER_TLS_VERIFY").is_some_and(|value| !value.is_empty());
        Self::new(&env::var("DOCKER_HOST").unwrap_or_default(), tls)
    }

    /// `host` as in `DOCKER_HOST`: `unix:///path` or `tcp://host:port`.
    pub fn new(host: &str, tls: bool) -> std::result::Result<Self, AddressError> {
        Ok(Self { address: Address::parse(host, tls)?, client: Mutex::new(None) })
    }

    /// The path of its socket; `None`: it is reached over TCP.
    pub fn socket(&self) -> Option<&Path> {
        match &self.address {
            Address::Unix(path) => Some(Path::new(path)),
            Address::Tcp(_) => None,
        }
    }

    async fn client(&self) -> Result<Client> {
        if let Some(client) = self.known_client().clone() {
            return Ok(client);
        }
        let client = connect::connect(&self.address, LOOK).await?;
        *self.known_client() = Some(client.clone());
        Ok(client)
    }

    fn known_client(&self) -> std::sync::MutexGuard<'_, Option<Client>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An engine that was away may come back as another version.
    fn noticed(&self, error: EngineError) -> EngineError {
        if error.is_unreachable() {
            *self.known_client() = None;
        }
        error
    }

    /// Awaits a call's answer, at most for `deadline`.
    async fn within<T>(
        &self,
        deadline: Duration,
        doing: &str,
        subject: &str,
        call: impl Future<Output = std::result::Result<T, bollard::errors::Error>>,
    ) -> Result<T> {
        let answer = match timeout(deadline, call).await {
            Ok(answer) => answer.map_err(|error| engine_error(doing, subject, error)),
            Err(_) => {
                let seconds = deadline.as_secs();
                Err(EngineError::Unreachable(format!("{doing} {subject}: no answer within {seconds} s")))
            }
        };
        if !matches!(doing, "asking" | "inspecting" | "listing") {
            failpoint::reach(format_args!("engine {doing}"));
        }
        answer.map_err(|error| self.noticed(error))
    }

    /// Awaits a look at one thing; `None`: the engine does not have it.
    async fn inspected<T>(
        &self,
        thing: Thing<'_>,
        call: impl Future<Output = std::result::Result<T, bollard::errors::Error>>,
    ) -> Result<Option<T>> {
        let call = async {
            match call.await {
                Err(error) if is_404(&error) => Ok(None),
                other => other.map(Some),
            }
        };
        self.within(LOOK, "inspecting", &thing.to_string(), call).await
    }

    /// Awaits an act on one thing. When the engine answers 404, it is looked whether the thing itself is missing.
    async fn acted<T>(
        &self,
        deadline: Duration,
        doing: &str,
        thing: Thing<'_>,
        call: impl Future<Output = std::result::Result<T, bollard::errors::Error>>,
    ) -> Result<T> {
        let mut was_404 = false;
        let call = async { call.await.inspect_err(|error| was_404 = is_404(error)) };
        let answer = self.within(deadline, doing, &thing.to_string(), call).await;
        match answer {
            Err(_) if was_404 && !self.is_there(thing).await? => Err(EngineError::NotFound(thing.to_string())),
            answer => answer,
        }
    }

    async fn is_there(&self, thing: Thing<'_>) -> Result<bool> {
        Ok(match thing {
            Thing::Container(id) => self.container(id).await?.is_some(),
            Thing::Image(reference) => self.image(reference).await?.is_some(),
            Thing::Volume(name) => self.volume(name).await?.is_some(),
            Thing::Network(name) => {
                let client = self.client().await?;
                self.inspected(thing, client.docker.inspect_network(name, None)).await?.is_some()
            }
        })
    }

    /// How long a stop takes at most, in seconds, before the kill.
    async fn grace(&self, id: &str, asked: Option<i64>) -> Result<i64> {
        let grace = match asked {
            Some(seconds) => seconds,
            None => {
                let container =
                    self.container(id).await?.ok_or_else(|| EngineError::NotFound(named("container", id)))?;
                container.raw["Config"]["StopTimeout"].as_i64().unwrap_or(DEFAULT_STOP_GRACE)
            }
        };
        Ok(if grace < 0 { LONGEST_GRACE } else { grace })
    }

    /// The engine makes a volume that does not exist and an old one ignores the sub-folder: both would
    /// put an empty or a wrong folder in the place of the data.
    async fn check_volumes(&self, client: &Client, spec: &ContainerSpec) -> Result<()> {
        for mount in spec.mounts.iter().filter(|mount| mount.kind == MountKind::Volume && !mount.name.is_empty()) {
            let name = checked(&mount.name)?;
            let volume = Thing::Volume(name);
            let found = self.inspected(volume, client.docker.inspect_volume(name)).await?;
            found.ok_or_else(|| EngineError::NotFound(volume.to_string()))?;
            if !mount.subpath.is_empty() && client.version < SUBPATH_VERSION {
                let (subpath, (major, minor)) = (&mount.subpath, client.version);
                return Err(EngineError::Failed(format!(
                    "creating container {}: folder {subpath} of {volume} cannot be mounted by this engine (API {major}.{minor}, needed 1.45): upgrade to Docker 26 or later",
                    spec.name
                )));
            }
        }
        Ok(())
    }

    /// The engine notices a missing network only at the start.
    async fn check_networks(&self, client: &Client, spec: &ContainerSpec) -> Result<()> {
        for network in spec.networks.iter().filter(|network| convert::is_named_network(network)) {
            let subject = Thing::Network(checked(network)?);
            let found = self.inspected(subject, client.docker.inspect_network(network, None)).await?;
            found.ok_or_else(|| EngineError::NotFound(subject.to_string()))?;
        }
        Ok(())
    }

    async fn join(&self, client: &Client, id: &str, network: &str) -> Result<()> {
        let request = NetworkConnectRequest { container: id.to_owned(), endpoint_config: None };
        let joined = client.docker.connect_network(network, request);
        self.acted(ACT, "joining", Thing::Network(checked(network)?), joined).await
    }

    /// Another request is removing it already: that one is waited for.
    async fn until_gone(&self, id: &str) -> Result<()> {
        let deadline = Instant::now() + ACT;
        while self.container(id).await?.is_some() {
            if Instant::now() > deadline {
                let (container, seconds) = (named("container", id), ACT.as_secs());
                return Err(EngineError::Failed(format!("removing {container}: it is still there after {seconds} s")));
            }
            sleep(REMOVAL_PAUSE).await;
        }
        Ok(())
    }
}

#[async_trait]
impl Engine for DockerEngine {
    async fn info(&self) -> Result<EngineInfo> {
        let client = self.client().await?;
        let (doing, subject) = ("asking", "the engine about itself");
        let version = self.within(LOOK, doing, subject, client.docker.version());
        let info = self.within(LOOK, doing, subject, client.docker.info());
        let (version, info) = tokio::try_join!(version, info)?;
        Ok(convert::info(version, info, client.version))
    }

    async fn container(&self, name_or_id: &str) -> Result<Option<Container>> {
        let name = checked(name_or_id)?;
        let client = self.client().await?;
        let found = self.inspected(Thing::Container(name), client.docker.inspect_container(name, None)).await?;
        found.map(|inspect| convert::container(inspect, client.version)).transpose()
    }

    async fn containers(&self, labels: &[(&str, &str)]) -> Result<Vec<Container>> {
        let client = self.client().await?;
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let filters = HashMap::from([("label".to_owned(), labels)]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let list = self.within(LOOK, "listing", "containers", client.docker.list_containers(Some(options))).await?;
        let ids: Vec<String> = list.into_iter().filter_map(|summary| summary.id).collect();
        // One that has vanished in between is no longer there to be told.
        let inspections = stream::iter(ids).map(|id| async move { self.container(&id).await });
        let found: Vec<Option<Container>> = inspections.buffered(INSPECTIONS).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    async fn image(&self, reference: &str) -> Result<Option<Image>> {
        let name = checked(reference)?;
        let client = self.client().await?;
        let found = self.inspected(Thing::Image(name), client.docker.inspect_image(name)).await?;
        Ok(found.map(convert::image))
    }

    async fn volume(&self, name: &str) -> Result<Option<Volume>> {
        let name = checked(name)?;
        let client = self.client().await?;
        let found = self.inspected(Thing::Volume(name), client.docker.inspect_volume(name)).await?;
        Ok(found.map(convert::volume))
    }

    async fn remove_volume(&self, name: &str) -> Result<()> {
        let name = checked(name)?;
        let client = self.client().await?;
        let removed = client.docker.remove_volume(name, None::<RemoveVolumeOptions>);
        gone(self.acted(ACT, "removing", Thing::Volume(name), removed).await.map(drop))
    }

    async fn pull(&self, reference: &str, layers: mpsc::Sender<Vec<Layer>>) -> Result<()> {
        let client = self.client().await?;
        pull::pull(&client, reference, layers).await.map_err(|error| self.noticed(error))
    }

    async fn tag(&self, image: &str, target: &str) -> Result<()> {
        let name = checked(image)?;
        let (repository, tag) = split_tag(target)?;
        let client = self.client().await?;
        let options = TagImageOptionsBuilder::new().repo(&repository).tag(&tag).build();
        self.acted(LOOK, "tagging", Thing::Image(name), client.docker.tag_image(name, Some(options))).await
    }

    async fn untag(&self, reference: &str) -> Result<()> {
        let name = checked(reference)?;
        let client = self.client().await?;
        // Never by force: that would take the image from under a stopped container.
        let options = RemoveImageOptionsBuilder::new().force(false).build();
        let removed = client.docker.remove_image(name, Some(options), None);
        gone(self.acted(ACT, "removing", Thing::Image(name), removed).await.map(drop))
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<String> {
        let body = convert::create_body(spec)?;
        let client = self.client().await?;
        self.check_volumes(&client, spec).await?;
        self.check_networks(&client, spec).await?;
        let options = CreateContainerOptionsBuilder::new().name(&spec.name).build();
        let doing = format!("creating container {} from", spec.name);
        let call = client.docker.create_container(Some(options), body);
        let id = self.acted(ACT, &doing, Thing::Image(checked(&spec.image)?), call).await?.id;
        for network in spec.networks.iter().skip(1) {
            if let Err(error) = self.join(&client, &id, network).await {
                // Half a container is none. If this fails too, its labels tell whose it is.
                let _ = self.remove(&id).await;
                return Err(error);
            }
        }
        Ok(id)
    }

    async fn start(&self, id: &str) -> Result<()> {
        let name = checked(id)?;
        let client = self.client().await?;
        self.acted(ACT, "starting", Thing::Container(name), client.docker.start_container(name, None)).await
    }

    async fn stop(&self, id: &str, grace_seconds: Option<i64>) -> Result<()> {
        let name = checked(id)?;
        let grace = self.grace(id, grace_seconds).await?;
        let client = self.client().await?;
        let mut options = StopContainerOptionsBuilder::new();
        if grace_seconds.is_some() {
            options = options.t(i32::try_from(grace).unwrap_or(i32::MAX));
        }
        let deadline = Duration::from_secs(grace.unsigned_abs() + STOP_MARGIN);
        let stopped = client.docker.stop_container(name, Some(options.build()));
        self.acted(deadline, "stopping", Thing::Container(name), stopped).await
    }

    async fn remove(&self, id: &str) -> Result<()> {
        let name = checked(id)?;
        let client = self.client().await?;
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        let removed = client.docker.remove_container(name, Some(options));
        match gone(self.acted(ACT, "removing", Thing::Container(name), removed).await) {
            // Another request may be removing it.
            Err(EngineError::Conflict(why)) => match self.container(id).await? {
                Some(container) if container.state != RunState::Removing => Err(EngineError::Conflict(why)),
                _ => self.until_gone(id).await,
            },
            other => other,
        }
    }

    async fn wait(&self, id: &str) -> Result<i64> {
        follow::wait(self, checked(id)?).await
    }

    async fn logs(&self, id: &str, lines: mpsc::Sender<String>) -> Result<()> {
        let client = self.client().await?;
        follow::logs(&client, checked(id)?, lines).await.map_err(|error| self.noticed(error))
    }

    async fn log_tail(&self, id: &str, lines: usize) -> Result<Vec<String>> {
        let client = self.client().await?;
        let tail = timeout(LOOK, follow::log_tail(&client, checked(id)?, lines)).await;
        let tail = tail.unwrap_or_else(|_| {
            let (container, seconds) = (named("container", id), LOOK.as_secs());
            Err(EngineError::Unreachable(format!("reading the log of {container}: no answer within {seconds} s")))
        });
        tail.map_err(|error| self.noticed(error))
    }

    async fn set_restart_policy(&self, id: &str, policy: &RestartPolicy) -> Result<()> {
        let (name, subject) = (checked(id)?, Thing::Container(id));
        let Some(restart_policy) = convert::engine_policy(policy) else {
            let (given, known) = (&policy.name, "no, always, unless-stopped or on-failure");
            return Err(EngineError::Failed(format!("{subject}: restart policy {given:?} is none of {known}")));
        };
        let client = self.client().await?;
        let change = ContainerUpdateBody { restart_policy: Some(restart_policy), ..ContainerUpdateBody::default() };
        let doing = "setting the restart policy of";
        self.acted(ACT, doing, subject, client.docker.update_container(name, change)).await
    }

    async fn may_reach(&self, how: Reach) -> Result<()> {
        let client = self.client().await?;
        let (docker, thing) = (&client.docker, Thing::Container(NO_CONTAINER));
        let asked = match how {
            Reach::Exec => {
                let command = ExecConfig { cmd: Some(vec!["true".into()]), ..ExecConfig::default() };
                let call = docker.create_exec(NO_CONTAINER, command);
                self.acted(LOOK, "asking for a command in", thing, call).await.map(|_| ())
            }
            Reach::Archive => {
                let options = UploadToContainerOptionsBuilder::new().path("/").build();
                let call = docker.upload_to_container(NO_CONTAINER, Some(options), bollard::body_full(Bytes::new()));
                self.acted(LOOK, "asking to put a file into", thing, call).await
            }
        };
        match asked {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    async fn rename(&self, id: &str, name: &str) -> Result<()> {
        let id = checked(id)?;
        let client = self.client().await?;
        let options = RenameContainerOptionsBuilder::new().name(name).build();
        self.acted(LOOK, "renaming", Thing::Container(id), client.docker.rename_container(id, options)).await
    }

    async fn events(&self, container_id: &str, events: mpsc::Sender<Event>) -> Result<()> {
        let client = self.client().await?;
        follow::events(&client, checked(container_id)?, events).await.map_err(|error| self.noticed(error))
    }
}

/// What is not there need not be removed.
fn gone(removed: Result<()>) -> Result<()> {
    match removed {
        Err(EngineError::NotFound(_)) => Ok(()),
        other => other,
    }
}

/// What a call is about.
#[derive(Clone, Copy)]
enum Thing<'a> {
    Container(&'a str),
    Image(&'a str),
    Volume(&'a str),
    Network(&'a str),
}

impl fmt::Display for Thing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Container(id) => f.write_str(&named("container", id)),
            Self::Image(reference) => f.write_str(&named("image", reference)),
            Self::Volume(name) => write!(f, "volume {name}"),
            Self::Network(name) => write!(f, "network {name}"),
        }
    }
}

/// What an error calls it; a long id is cut to the twelve digits that people know.
fn named(kind: &str, name: &str) -> String {
    let is_id = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    format!("{kind} {}", if is_id { &name[..12] } else { name })
}

/// A name or reference goes into the request's path: it must not lead elsewhere. (An empty name would turn
/// "inspect this" into "list all".)
fn checked(name: &str) -> Result<&str> {
    // Brackets stand around an address of IPv6.
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-/:@[]".contains(&byte);
    let leads_elsewhere = name.starts_with('/') || name.split('/').any(|part| matches!(part, "" | "." | ".."));
    if leads_elsewhere || !name.bytes().all(known) {
        return Err(EngineError::Failed(format!("{name:?} is no name, id or reference that Docker knows")));
    }
    Ok(name)
}

/// `registry:5000/repository:tag` in repository and tag.
fn split_tag(reference: &str) -> Result<(String, String)> {
    let parsed = Reference::parse(reference).map_err(|error| EngineError::Failed(error.to_string()))?;
    match parsed.effective_tag().filter(|_| parsed.digest().is_none()) {
        Some(tag) => Ok((parsed.written_name().to_owned(), tag.to_owned())),
        None => Err(EngineError::Failed(format!("{reference:?} cannot be tagged: expected repository:tag"))),
    }
}

#[cfg(test)]
mod tests;
