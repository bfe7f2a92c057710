//! What the update asks of Docker and Compose, in our own words.
//!
//! ```text
//!            update (domain)
//!               │ knows only
//!      ┌────────┴─────────┐
//!   trait Engine      trait Compose
//!      │     │            │     │
//!  docker  simulated  compose  simulated
//! ```
//! `docker` is the only module that knows the Docker client library. `simulated` is the stub mode of the
//! product and the tests' double: a small world with images, containers and `.env`, with faults on
//! request.

pub mod compose;
pub mod compose_config;
pub mod credentials;
pub mod docker;
pub mod insecure;
pub mod lines;
mod memory_file;
pub mod planned_files;
pub mod seal;
pub mod simulated;
pub mod spawner;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

pub use self::compose_config::{ComposeConfig, Written};
use crate::update::job::Layer;

/// Where the engine listens when `DOCKER_HOST` is not set: the Docker CLI's own default.
pub const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";

/// Labels that Compose puts on its containers.
pub mod label {
    pub const PROJECT: &str = "com.docker.compose.project";
    pub const SERVICE: &str = "com.docker.compose.service";
    pub const WORKING_DIR: &str = "com.docker.compose.project.working_dir";
    /// Comma list of absolute paths.
    pub const CONFIG_FILES: &str = "com.docker.compose.project.config_files";
    /// Comma list; present only when `--env-file` was used.
    pub const ENVIRONMENT_FILE: &str = "com.docker.compose.project.environment_file";
    /// On a volume: what the files call it.
    pub const VOLUME: &str = "com.docker.compose.volume";
    pub const ONEOFF: &str = "com.docker.compose.oneoff";
    pub const NUMBER: &str = "com.docker.compose.container-number";
    pub const CONFIG_HASH: &str = "com.docker.compose.config-hash";
    /// The id of the image that Compose made the container from.
    pub const IMAGE: &str = "com.docker.compose.image";
    /// Ours: the job it belongs to. Helpers belong to none.
    pub const JOB: &str = "io.processgit.updater.job";
    /// Ours, on every container we make: `claim`, `guard-old`, `guard-new`, `guard-data`, `migration`, `hook`,
    /// `helper-deployment`, `helper-data`, `deputy`.
    pub const ROLE: &str = "io.processgit.updater.role";
    /// Ours, on some that are never started: [`crate::update::note`].
    pub const NOTE: &str = "io.processgit.updater.note";
    /// Ours, on a deputy: the job it carries out. Not [`JOB`]: whatever belongs to the job is swept by the
    /// deputy itself.
    pub const DEPUTY_OF: &str = "io.processgit.updater.deputy-of";
    /// Ours, on helpers and claims: the state folder whose updater made it.
    pub const OWNER: &str = "io.processgit.updater.owner";
    /// Ours, on every container we make: proves the others, see [`super::seal`].
    pub const SEAL: &str = "io.processgit.updater.seal";
    /// With this begin all of ours.
    pub const OURS: &str = "io.processgit.updater.";
}

/// Why the engine (or Compose) did not do what was asked. The message is complete: what was asked, what
/// came back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineError {
    /// The engine does not answer: socket missing or refused, daemon restarting, deadline passed.
    #[error("the Docker engine does not answer: {0}")]
    Unreachable(String),
    /// The thing named does not exist.
    #[error("{0} does not exist")]
    NotFound(String),
    /// The name is taken.
    #[error("{0}")]
    Conflict(String),
    /// Its host does not have the source of a bind.
    #[error("{doing}: {path} does not exist on the engine's host")]
    SourceGone { doing: String, path: String },
    /// A Compose file, an environment file or the folder of a project is not where it was when Compose made the
    /// container.
    #[error("{path}, from which Compose has made the container, does not exist any more")]
    ProjectGone { path: String },
    /// The engine or Compose refused or failed.
    #[error("{0}")]
    Failed(String),
}

impl EngineError {
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound(_))
    }

    /// Waiting may help: nothing was said about the request itself.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable(_))
    }
}

pub type Result<T> = std::result::Result<T, EngineError>;

/// The engine itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineInfo {
    /// `28.5.2`
    pub version: String,
    /// Negotiated API version, `1.51`.
    pub api_version: String,
    /// `linux/amd64`, `linux/arm/v7`: as manifests name platforms.
    pub platform: String,
    /// Images live in containerd's store: an image's id is then a manifest's digest, not a config's.
    pub containerd_store: bool,
}

/// What a person looking for a fault wants to know of the engine, beyond what an update needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EngineFacts {
    pub rootless: bool,
    /// `overlay2`, `overlayfs`
    pub storage: String,
    /// The engine's clock.
    pub time: Option<Timestamp>,
}

/// An image at hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// `sha256:…`; what a container's `image_id` equals. Which digest this is depends on the store.
    pub id: String,
    /// `repository@sha256:…`
    pub repo_digests: Vec<String>,
    /// `repository:tag`
    pub repo_tags: Vec<String>,
    pub labels: BTreeMap<String, String>,
    /// `os/arch[/variant]`
    pub platform: String,
    /// The whole answer of the engine (its `Config` holds the defaults a service inherits).
    #[serde(skip)]
    pub raw: serde_json::Value,
}

/// What the container does right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    Created,
    Running,
    Paused,
    Restarting,
    Exited,
    Removing,
    Dead,
}

/// The verdict of the container's own HEALTHCHECK.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Healthcheck {
    /// The image or service defines none.
    None,
    Starting,
    Healthy,
    Unhealthy,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountKind {
    Volume,
    Bind,
    Tmpfs,
    Other,
}

/// A mount as the engine recorded it on the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    pub kind: MountKind,
    /// Volume name, empty for other kinds.
    pub name: String,
    /// Path on the host.
    pub source: String,
    /// Path in the container.
    pub destination: String,
    pub writable: bool,
    /// Sub-folder of the volume that is mounted, empty for its root.
    #[serde(default)]
    pub subpath: String,
}

impl Mount {
    /// The engine names an anonymous volume with 64 hexadecimal digits.
    pub fn is_anonymous(&self) -> bool {
        self.name.len() == 64 && self.name.bytes().all(|b| b.is_ascii_hexdigit())
    }

    /// What is mounted, on the host. The engine records the volume's own folder as the source, whatever
    /// part of it is mounted.
    pub fn host_path(&self) -> PathBuf {
        let source = Path::new(&self.source);
        if self.subpath.is_empty() || source.ends_with(&self.subpath) {
            source.to_owned()
        } else {
            source.join(&self.subpath)
        }
    }
}

/// A volume, as the engine knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Volume {
    pub name: String,
    /// `local`, or a plugin.
    pub driver: String,
    /// Where it is on the engine's host.
    pub mountpoint: String,
    /// Of the driver (`type`, `o`, `device`). They may hold a password: never stored, never shown.
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    pub created_at: Option<Timestamp>,
}

impl Volume {
    /// The engine's own driver mounts such a volume when a container begins to use it, and unmounts it when the
    /// last one ends: at other times its folder is an empty mountpoint.
    pub fn is_mounted_on_use(&self) -> bool {
        self.driver != LOCAL_DRIVER || ["type", "o", "device"].iter().any(|name| !self.option(name).is_empty())
    }

    /// An option of the driver, empty where it is not given.
    pub fn option(&self, name: &str) -> &str {
        self.options.get(name).map(String::as_str).unwrap_or_default()
    }
}

/// The engine's own volume driver.
pub const LOCAL_DRIVER: &str = "local";

/// `unless-stopped`, `on-failure` with its count …
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartPolicy {
    /// `no`, `always`, `unless-stopped`, `on-failure`
    pub name: String,
    /// For `on-failure`; 0 means unlimited.
    pub maximum_retry_count: i64,
}

impl RestartPolicy {
    /// The engine restarts it, until a person stops it.
    pub fn unless_stopped() -> Self {
        Self { name: "unless-stopped".into(), maximum_retry_count: 0 }
    }

    /// Nothing restarts it.
    pub fn never() -> Self {
        Self { name: "no".into(), maximum_retry_count: 0 }
    }
}

/// What the engine gives a container that names no stop timeout, in seconds.
pub const DEFAULT_STOP_GRACE: i64 = 10;

/// A container, as inspected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    pub id: String,
    /// Without the leading slash.
    pub name: String,
    /// The reference it was created from (`Config.Image`).
    pub image_ref: String,
    /// The image it runs (`Image`): compare with [`Image::id`].
    pub image_id: String,
    pub state: RunState,
    pub exit_code: i64,
    pub started_at: Option<Timestamp>,
    pub created_at: Option<Timestamp>,
    pub restart_count: i64,
    pub healthcheck: Healthcheck,
    /// When the HEALTHCHECK is made for the first time, in seconds from the start: until then it is
    /// [`Healthcheck::Starting`]. 0 where there is no check.
    #[serde(default)]
    pub healthcheck_seconds: u64,
    pub restart_policy: RestartPolicy,
    pub labels: BTreeMap<String, String>,
    pub mounts: Vec<Mount>,
    /// Network name → address of the container in it (may be empty).
    pub networks: BTreeMap<String, String>,
    /// `bridge`, `host`, `none`, a network's name, `container:<id>`
    pub network_mode: String,
    /// The whole answer of the engine, for the comparison with the resolved configuration. Large, and
    /// with secrets in its environment: never logged, never put into a job.
    #[serde(skip)]
    pub raw: serde_json::Value,
}

impl Container {
    pub fn is_running(&self) -> bool {
        self.state == RunState::Running
    }

    /// It runs, or its restart policy is at work.
    pub fn is_alive(&self) -> bool {
        matches!(self.state, RunState::Running | RunState::Restarting | RunState::Paused)
    }

    /// How long it has to end by itself when it is stopped. Without bound where the time is negative.
    pub fn stop_grace(&self) -> Duration {
        match self.raw["Config"]["StopTimeout"].as_i64().unwrap_or(DEFAULT_STOP_GRACE) {
            seconds @ 0.. => Duration::from_secs(seconds.unsigned_abs()),
            _ => Duration::MAX,
        }
    }

    /// The TCP ports that its image or its service declares, ascending.
    pub fn exposed_ports(&self) -> Vec<u16> {
        let declared = self.raw["Config"]["ExposedPorts"].as_object();
        let ports = declared.into_iter().flatten().filter_map(|(port, _)| port.strip_suffix("/tcp")?.parse().ok());
        let mut ports: Vec<u16> = ports.collect();
        ports.sort_unstable();
        ports
    }

    /// Compose counts it as a service's container: this is what its own commands demand (2.40), so others with
    /// some of its labels are not touched by them.
    pub fn is_made_by_compose(&self) -> bool {
        let needed = [label::PROJECT, label::SERVICE, label::CONFIG_HASH];
        needed.iter().all(|name| self.label(name).is_some()) && self.label(label::ONEOFF) != Some("True")
    }

    /// The containers in whose namespaces it lives (`network_mode: service:app`, `pid`, `ipc`), by id. They
    /// are those of the other one's present life: when that is stopped, this one is left with nothing.
    pub fn lives_in(&self) -> Vec<&str> {
        let host = &self.raw["HostConfig"];
        let modes = [Some(self.network_mode.as_str()), host["PidMode"].as_str(), host["IpcMode"].as_str()];
        modes.into_iter().flatten().filter_map(|mode| mode.strip_prefix("container:")).collect()
    }

    /// The networks that a container of ours joins to be where this one is, as [`ContainerSpec::networks`]
    /// wants them.
    pub fn reachable_networks(&self) -> Vec<String> {
        match self.network_mode.as_str() {
            mode @ ("host" | "none") => vec![mode.to_owned()],
            mode if mode.starts_with("container:") => vec![mode.to_owned()],
            _ => self.networks.keys().cloned().collect(),
        }
    }

    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.get(name).map(String::as_str).filter(|v| !v.is_empty())
    }
}

/// A container of ours: claims, guards, helpers. It carries no label of Compose's, no alias, no
/// name, port or restart policy of the application. Mounts are made only by `Mounts`, which refuses a
/// missing source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    pub name: String,
    /// An image id or a digest reference, never a tag.
    pub image: String,
    /// None keeps the image's.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces CMD; None keeps the image's.
    pub command: Option<Vec<String>>,
    /// `KEY=value`
    pub env: Vec<String>,
    pub user: Option<String>,
    pub working_dir: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub mounts: Vec<Mount>,
    /// The first is joined at creation, the others before the start. `host`, `none` and `container:<id>`
    /// stand alone. Empty is `none`.
    pub networks: Vec<String>,
    pub extra_hosts: Vec<String>,
    pub group_add: Vec<String>,
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub security_opt: Vec<String>,
    pub privileged: bool,
    pub tmpfs: BTreeMap<String, String>,
    pub read_only: bool,
    pub stop_grace_seconds: Option<i64>,
    /// The most memory that it gets, bytes; `None`: no limit. An engine that cannot limit it ignores it.
    #[serde(default)]
    pub memory: Option<i64>,
    /// The engine removes it as soon as it has ended.
    pub auto_remove: bool,
}

/// How Compose reaches into a container. A socket proxy may forbid it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// For `post_start` and `pre_stop` commands.
    Exec,
    /// For secrets and configs that are no files of the host.
    Archive,
}

/// Something that happened to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// `start`, `die`, `health_status: healthy` …
    pub action: String,
    pub container_id: String,
}

/// The Engine API, as far as an update needs it. Every call has a deadline of its own; none blocks the
/// runtime. Every call may fail after it has worked (the answer was lost): callers look before they
/// repeat.
#[async_trait]
pub trait Engine: Send + Sync {
    async fn info(&self) -> Result<EngineInfo>;
    /// By name or id; `None` when there is none.
    async fn container(&self, name_or_id: &str) -> Result<Option<Container>>;
    /// All containers, running or not, that carry every one of these labels (`(name, value)`); an empty
    /// slice lists all.
    async fn containers(&self, labels: &[(&str, &str)]) -> Result<Vec<Container>>;
    /// By id, `repository:tag` or `repository@digest`; `None` when it is not at hand.
    async fn image(&self, reference: &str) -> Result<Option<Image>>;
    /// Pulls `repository@sha256:…`. Sends the layers' progress, at most a few times a second.
    async fn pull(&self, reference: &str, layers: mpsc::Sender<Vec<Layer>>) -> Result<()>;
    /// Makes `target` (`repository:tag`) mean `image` (id or digest reference).
    async fn tag(&self, image: &str, target: &str) -> Result<()>;
    /// Removes a tag; the image too when nothing else names or uses it. Not found is success. The last tag
    /// of an image that a container uses stays: `Conflict`.
    async fn untag(&self, reference: &str) -> Result<()>;
    /// Creates, never starts. Returns the id. A bind source, volume or network that does not exist is
    /// refused, never made.
    async fn create(&self, spec: &ContainerSpec) -> Result<String>;
    async fn start(&self, id: &str) -> Result<()>;
    /// SIGTERM (or the container's own stop signal), then SIGKILL after `grace_seconds` (None: the
    /// container's own time). Stopped already is success.
    async fn stop(&self, id: &str, grace_seconds: Option<i64>) -> Result<()>;
    /// Removes it with its anonymous volumes, running or not. Not found is success.
    async fn remove(&self, id: &str) -> Result<()>;
    /// Waits until it has exited; the exit code.
    async fn wait(&self, id: &str) -> Result<i64>;
    /// Sends the lines of stdout and stderr until the container ends. A line is cut at 8 KiB.
    async fn logs(&self, id: &str, lines: mpsc::Sender<String>) -> Result<()>;
    /// The last `lines` lines, for an error message.
    async fn log_tail(&self, id: &str, lines: usize) -> Result<Vec<String>>;
    /// By name; `None` when there is none.
    async fn volume(&self, name: &str) -> Result<Option<Volume>>;
    /// Not found is success; one that a container uses stays: `Conflict`.
    async fn remove_volume(&self, name: &str) -> Result<()>;
    async fn set_restart_policy(&self, id: &str, policy: &RestartPolicy) -> Result<()>;
    async fn rename(&self, id: &str, name: &str) -> Result<()>;
    /// Would the engine be asked for this? Tried with a container that there is not; the error is that of whoever
    /// stands before the engine.
    async fn may_reach(&self, how: Reach) -> Result<()>;
    /// Events of this container from now on, until the receiver is dropped.
    async fn events(&self, container_id: &str, events: mpsc::Sender<Event>) -> Result<()>;
}

/// Where the Compose project is, read from the running container's labels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Project {
    pub name: String,
    pub service: String,
    /// Services that are moved together with it.
    #[serde(default)]
    pub crew: Vec<String>,
    pub working_dir: String,
    pub config_files: Vec<String>,
    /// What `--env-file` named; empty when Compose reads `working_dir/.env` by itself.
    pub env_files: Vec<String>,
    /// The variable that selects the version. It is never passed on from our own environment, because a
    /// variable of the process beats `.env`.
    pub version_key: String,
    /// Compose names containers `shop_app_1` (as its first version did), or `shop-app-1`. `None`: what runs does
    /// not show it, and the project's `.env` decides.
    #[serde(default)]
    pub underscores: Option<bool>,
}

impl Project {
    /// The environment files that Compose reads for this project. Of several that set a variable the last one
    /// wins; it selects the version.
    pub fn environment_files(&self) -> Vec<String> {
        match self.env_files.is_empty() {
            true => vec![format!("{}/.env", self.working_dir)],
            false => self.env_files.clone(),
        }
    }

    /// The service, and those that are moved together with it.
    pub fn moved(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.service.as_str()).chain(self.crew.iter().map(String::as_str))
    }

    /// `service` is one of those that are moved.
    pub fn moves(&self, service: &str) -> bool {
        self.moved().any(|moved| moved == service)
    }

    /// A container of one of those services, one-off runs left out.
    pub fn is_of_moved(&self, container: &Container) -> bool {
        let of_project = container.label(label::PROJECT) == Some(&self.name);
        let is_moved = container.label(label::SERVICE).is_some_and(|service| self.moves(service));
        of_project && is_moved && container.label(label::ONEOFF) == Some("False")
    }
}

/// One line of `compose up --dry-run`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DryRun {
    /// Compose would leave the service's container as it is.
    pub unchanged: bool,
    /// What it would do, as it says it: `Recreate`, `Create` …; for anything but a container with its name,
    /// `Network x Creating`. A question that Compose would ask (and that is answered with no) stands here
    /// too.
    pub actions: Vec<String>,
    /// The same by what it would be done to.
    #[serde(default)]
    pub touches: Vec<Touch>,
}

/// Something that Compose would change, and how, as it says it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Touch {
    Container {
        name: String,
        action: String,
    },
    Network {
        name: String,
        action: String,
    },
    /// Perhaps with Compose's question in the place of the action.
    Volume {
        name: String,
        action: String,
    },
}

impl Touch {
    /// `id` is Compose's own: `Network shop_default`.
    pub fn of(id: &str, action: &str) -> Option<Self> {
        let (kind, name) = id.split_once(' ')?;
        let (name, action) = (name.trim().to_owned(), action.to_owned());
        match kind {
            "Container" => Some(Self::Container { name, action }),
            "Network" => Some(Self::Network { name, action }),
            "Volume" => Some(Self::Volume { name, action }),
            _ => None,
        }
    }
}

/// Compose, run where paths are true.
#[async_trait]
pub trait Compose: Send + Sync {
    /// `2.40.3`
    async fn version(&self) -> Result<String>;
    /// The project as Compose resolves it (`config --format json`): as it is now, or as it would be if the
    /// environment file that selects the version (the last of [`Project::environment_files`]) had the bytes `env`.
    async fn config(&self, project: &Project, env: Option<&[u8]>) -> Result<ComposeConfig>;
    /// The project's files with their variables, to find out what depends on which.
    async fn written(&self, project: &Project) -> Result<Written>;
    /// What `up -d --no-deps SERVICE` would do now, for one of the project's services.
    async fn dry_run(&self, project: &Project, service: &str) -> Result<DryRun>;
    /// `up -d --no-deps --no-build --pull never SERVICE CREW…`, one at a time. Compose honours
    /// `depends_on` among the services that it is given, and knows nothing of the others. Sends what Compose prints, as far as
    /// the receiver keeps up. Dropping the future does not stop it: half a swap is worse than a whole one.
    async fn up(&self, project: &Project, lines: mpsc::Sender<String>) -> Result<()>;
    /// Makes, and never starts, the container of `config`, which is a project of its own with one service, both named
    /// alike.
    async fn create(&self, project: &Project, config: &ComposeConfig) -> Result<()>;
    /// Starts what [`Compose::create`] has made, and puts secrets and configs that are no files of the host into it.
    /// `project` lends its folder and its environment files, the last of them with the bytes `env` if there are any:
    /// secrets may come from there.
    async fn run(&self, project: &Project, config: &ComposeConfig, env: Option<&[u8]>) -> Result<()>;
    /// Stops the containers of one of the project's services, with its `pre_stop` commands.
    async fn stop(&self, project: &Project, service: &str, lines: mpsc::Sender<String>) -> Result<()>;
    /// Starts the containers that one of the project's services has, with its `post_start` commands. None is made
    /// anew, whatever the files say by now.
    async fn start(&self, project: &Project, service: &str, lines: mpsc::Sender<String>) -> Result<()>;
}

/// Projects that are made from the configuration a job was planned with, whatever their own files say by now.
#[async_trait]
pub trait PlannedProjects: Send + Sync {
    /// A project like this one that has exactly this configuration. What [`Compose::up`] makes of it is labelled
    /// with another Compose file.
    ///
    /// # Errors
    /// The configuration cannot be kept.
    async fn keep(&self, project: &Project, config: &ComposeConfig) -> Result<Project>;
    /// The project with its own files, where its container was made by [`PlannedProjects::keep`].
    async fn original(&self, project: Project) -> Project;
}
