//! The Plan: everything an update will do, and everything the way back needs, fixed before the first
//! effect. Pure: made from what was surveyed, written to the journal, read again by recovery.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use super::one_shot::OneShot;
use super::ports::DataMount;
use crate::engine::{ComposeConfig, Container, Healthcheck, Mount, Project, RestartPolicy, RunState};
use crate::reference::Reference;

/// The version that is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    pub tag: String,
    pub version: String,
    pub registry: String,
    pub repository: String,
    /// The name in the Compose file, where that spells the repository in its own way (`acme/app` for
    /// `docker.io/acme/app`): what Compose looks for, so what is tagged and shown.
    #[serde(default)]
    pub spelled: Option<String>,
    /// Written to `.env`.
    pub image_tag: String,
    /// Empty for an image that was made here and has none.
    pub digest: String,
    /// The image's id, where it ran here before: then it is not pulled if it is at hand, and its signature
    /// was a matter of that time.
    pub known_image: Option<String>,
    pub estimated_downtime_seconds: Option<u64>,
}

impl Target {
    /// `registry/repository:tag`: what Compose resolves to, as the Compose file spells it.
    pub fn reference(&self) -> String {
        let name = self.name();
        // What runs may be named by a digest or an id alone.
        if self.image_tag.is_empty() { name } else { format!("{name}:{}", self.image_tag) }
    }

    fn name(&self) -> String {
        match &self.spelled {
            Some(spelled) => spelled.clone(),
            None if self.registry.is_empty() => self.repository.clone(),
            None => format!("{}/{}", self.registry, self.repository),
        }
    }

    /// `registry/repository@sha256:…`, what is pulled. Docker Hub is asked under the name by which the
    /// engine knows it.
    pub fn pinned(&self) -> String {
        match Reference::parse(&self.name()) {
            Ok(name) => name.unified().with_digest(&self.digest).to_string(),
            Err(_) => format!("{}@{}", self.name(), self.digest),
        }
    }

    /// How the engine knows it: by the id it had here, or by its digest.
    pub fn handle(&self) -> String {
        self.known_image.clone().unwrap_or_else(|| self.pinned())
    }
}

/// How well the application was before. The way back must reach this, not more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    pub running: bool,
    pub answered_ok: bool,
    pub healthcheck: Healthcheck,
}

impl Baseline {
    /// Everything that the gate asks for was so.
    pub fn is_well(&self) -> bool {
        self.running && self.answered_ok && self.healthcheck != Healthcheck::Unhealthy
    }
}

/// What runs, and how to have it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Previous {
    pub container_id: String,
    pub container_name: String,
    /// The image it runs, whatever its tags mean by now.
    pub image_id: String,
    /// The reference the old configuration resolves to.
    pub image_ref: String,
    /// `repository@sha256:…` where the image has one: how to pull it again when it is gone.
    pub repo_digest: Option<String>,
    pub version: Option<String>,
    pub restart_policy: RestartPolicy,
    pub baseline: Baseline,
}

/// The bytes of `.env` before and after. `None`: there is no file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvChange {
    pub key: String,
    #[serde(with = "maybe_base64")]
    pub before: Option<Vec<u8>>,
    #[serde(with = "maybe_base64")]
    pub after: Option<Vec<u8>>,
    /// The key's value before; `None`: it was absent.
    pub value_before: Option<String>,
    /// `None`: the key is taken out.
    pub value_after: Option<String>,
}

impl EnvChange {
    /// The key selects the same before and after: a version that was built again under its old tag, a vendor
    /// whose tag is always `stable`, an operator who has written the new version down already.
    pub fn keeps_the_value(&self) -> bool {
        self.value_before == self.value_after
    }
}

/// What happens to the data.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataPlan {
    /// These mounts are copied before anything may write to them. Where one is not the application's, its
    /// service stands before the path: `worker:/data`.
    pub copied: Vec<Mount>,
    /// Writable, and not copied: a rollback after the new version has begun cannot put them back.
    pub uncovered: Vec<Mount>,
    /// Why not.
    pub why: String,
    /// What was found at the root of each copied mount, by its path as `copied` has it.
    #[serde(default)]
    pub roots: BTreeMap<String, Root>,
}

/// The root of a mount, as it was found while planning. Whoever opens it later proves that it is still this one:
/// a folder on the host may be moved, replaced by a link, or hidden by another mount.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// Symbolic links resolved; as the process that looked sees it.
    pub path: String,
    /// Major and minor number of the file system's device.
    pub device: (u32, u32),
    pub inode: u64,
    /// The boot in which it was found: the next one may give devices other numbers.
    pub boot: String,
    /// The engine mounts it whenever a container begins to use it, so that the number may change.
    pub mounted_on_use: bool,
}

impl DataPlan {
    pub fn is_copied(&self) -> bool {
        !self.copied.is_empty()
    }

    /// The copied mounts with what was found at their roots.
    pub fn sources(&self) -> Vec<DataMount> {
        let source = |mount: &Mount| DataMount {
            mount: mount.clone(),
            root: self.roots.get(&mount.destination).cloned(),
            volume: None,
        };
        self.copied.iter().map(source).collect()
    }

    /// The mounts of the application (`None`) or of a member of its crew, with their paths in its container.
    pub fn of<'a>(&'a self, member: Option<&'a str>) -> impl Iterator<Item = (&'a str, &'a Mount)> {
        self.copied.iter().chain(&self.uncovered).filter_map(move |mount| {
            let named = mount.destination.split_once(':').filter(|_| !mount.destination.starts_with('/'));
            let (owner, path) = named.map_or((None, mount.destination.as_str()), |(owner, path)| (Some(owner), path));
            (owner == member).then_some((path, mount))
        })
    }

    /// The application has no data.
    pub fn is_empty(&self) -> bool {
        self.copied.is_empty() && self.uncovered.is_empty()
    }

    /// What a person must be told when the data cannot be put back.
    pub fn uncovered(&self) -> Option<String> {
        let list: Vec<_> = self.uncovered.iter().map(|m| m.destination.as_str()).collect();
        (!list.is_empty()).then(|| format!("{} ({})", list.join(", "), self.why))
    }
}

/// Data of the application that is in other containers, or on other hosts: services, containers and hosts by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataBeside {
    /// Neither copied nor dumped: what a migration or another version changes there cannot be put back.
    pub uncovered: Vec<String>,
    /// The same, but the operator has said that it is not the job's business (`DATA_ELSEWHERE`).
    pub declared: Vec<String>,
    /// The hooks dump and load it.
    pub hooked: Vec<String>,
}

impl DataBeside {
    /// All that is in no snapshot.
    pub fn not_copied(&self) -> impl Iterator<Item = &str> {
        [&self.uncovered, &self.hooked, &self.declared].into_iter().flatten().map(String::as_str)
    }
}

/// What a snapshot and the application do not have in common: paths in the container, as [`DataPlan::copied`] has
/// them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partial {
    /// The snapshot has not these: their data stays as it is.
    pub stays: Vec<String>,
    /// The application has not these, or they are left out: their data stays in the snapshot only.
    pub missing: Vec<String>,
}

impl Partial {
    /// Compares the mounts that would be written to with those of a snapshot; one that names none is taken to be of
    /// the same.
    pub fn between(copied: &[Mount], snapshot: &[String]) -> Self {
        if snapshot.is_empty() {
            return Self::default();
        }
        let now: Vec<&String> = copied.iter().map(|mount| &mount.destination).collect();
        Self {
            stays: now.iter().filter(|path| !snapshot.contains(path)).map(|path| (*path).clone()).collect(),
            missing: snapshot.iter().filter(|path| !now.contains(path)).cloned().collect(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.stays.is_empty() && self.missing.is_empty()
    }

    /// One line for each of the two.
    pub fn lines(&self) -> Vec<String> {
        let list = |paths: &[String], what: &str| (!paths.is_empty()).then(|| format!("{}: {what}", paths.join(", ")));
        let stays = list(&self.stays, "not in the snapshot, stays as it is now");
        let missing =
            list(&self.missing, "in the snapshot, but no mount of the application that is copied: not put back");
        stays.into_iter().chain(missing).collect()
    }
}

/// What the job does with the data, beyond keeping it safe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Another version shall run.
    #[default]
    Update,
    /// A snapshot shall exist.
    Snapshot,
    /// This generation's data shall be there again; with another version, or with the one that runs.
    Restore { generation: String },
}

/// Commands for data that lives elsewhere, a database in another container for example.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Hooks {
    /// After the application was stopped, before its data is copied.
    pub before_copy: Option<OneShot>,
    /// After data was put back.
    pub after_restore: Option<OneShot>,
}

/// A container that is stopped with the application: it writes to the same data, lives in its namespaces, or holds
/// data that belongs to the job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Companion {
    pub container_id: String,
    pub name: String,
    /// `None`: it is of another project.
    #[serde(default)]
    pub service: Option<String>,
    pub restart_policy: RestartPolicy,
    /// The application depends on it: it is stopped later, and started earlier.
    #[serde(default)]
    pub needed: bool,
    /// Its own data is copied and put back with the application's (`DATA_SERVICES`).
    #[serde(default)]
    pub holds_data: bool,
}

impl Companion {
    /// By which others wait for it: its service, or its name where it is of another project.
    pub fn handle(&self) -> &str {
        self.service.as_deref().unwrap_or(&self.name)
    }
}

/// A service is not started before another one, which the job has stopped too, is ready (`depends_on`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    pub service: String,
    pub on: String,
    pub until: Until,
    /// `false`: Compose would start the service without the other one.
    pub required: bool,
}

/// How far a service must be, before what depends on it is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    Started,
    Healthy,
    /// It has no HEALTHCHECK: this TCP port, which did when the job was planned, accepts connections; without one, it
    /// has been running for a while.
    Serving {
        port: Option<u16>,
    },
    /// It has ended with exit code 0.
    Completed,
}

/// A service of the same image that is moved together with the application's: one of the crew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub service: String,
    /// The container before.
    pub container_id: String,
    pub container_name: String,
    pub was: Was,
    /// The application depends on it.
    pub needed: bool,
}

/// What a member's container did before. The way back must reach this, not more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Was {
    Running {
        healthcheck: Healthcheck,
    },
    /// It runs once: it had ended, and no restart policy starts it again. `well`: with exit code 0.
    Ended {
        well: bool,
    },
    /// It should run, and did not.
    Stopped,
}

impl Was {
    pub fn of(container: &Container) -> Self {
        let runs_once = matches!(container.restart_policy.name.as_str(), "no" | "on-failure");
        match container.state {
            _ if container.is_alive() => Self::Running { healthcheck: container.healthcheck },
            RunState::Exited if runs_once => Self::Ended { well: container.exit_code == 0 },
            _ => Self::Stopped,
        }
    }

    /// This container does what a good one does: it runs, or it has ended with 0. Of one that failed before
    /// nothing is asked.
    pub fn is_fulfilled_by(self, container: &Container) -> bool {
        let has_ended = container.state == RunState::Exited && container.exit_code == 0;
        match self {
            Self::Running { .. } | Self::Stopped => container.is_alive(),
            Self::Ended { well: true } => container.is_alive() || has_ended,
            Self::Ended { well: false } => true,
        }
    }

    /// There was nothing that could be lost.
    pub fn demands_nothing(self) -> bool {
        matches!(self, Self::Ended { well: false } | Self::Stopped)
    }
}

/// What the project's files said of all that is moved when the job was planned. Just before Compose makes a
/// container they must still say so. Holds environments: it stays in the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Configuration {
    pub old: ComposeConfig,
    /// As soon as `.env` is written.
    pub new: ComposeConfig,
    /// How each service's container differed from `old` then, one line a difference: what another Compose or
    /// engine reports in its own way, and drift that was accepted. What is made later may differ in nothing else.
    pub differences: BTreeMap<String, Vec<String>>,
}

/// Services with commands of Compose's own, which it runs in their containers: whoever stops or starts those
/// through the engine leaves the commands out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commands {
    pub pre_stop: BTreeSet<String>,
    pub post_start: BTreeSet<String>,
}

impl Commands {
    pub fn is_empty(&self) -> bool {
        self.pre_stop.is_empty() && self.post_start.is_empty()
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub purpose: Purpose,
    /// The very container that runs stays: no other version is wanted.
    pub stays: bool,
    /// Copied without stopping the application: not consistent.
    pub hot_only: bool,
    pub hooks: Hooks,
    /// In the order in which they are started, apart from the application's own place.
    pub companions: Vec<Companion>,
    /// Something that is moved has commands that Compose runs after its start (`post_start`). An earlier version
    /// noted no more than this.
    #[serde(default)]
    pub post_start: bool,
    /// The services, among all that is stopped and started, that have commands which only Compose runs.
    #[serde(default)]
    pub commands: Commands,
    /// Who waits for whom among all that is stopped and started.
    #[serde(default)]
    pub waits: Vec<Wait>,
    /// In the order in which they are started, too.
    #[serde(default)]
    pub crew: Vec<Member>,
    pub target: Target,
    pub project: Project,
    pub previous: Previous,
    pub env: EnvChange,
    pub migration: Option<OneShot>,
    pub data: DataPlan,
    /// What is not in the application's own mounts, and is not put back.
    #[serde(default)]
    pub beside: DataBeside,
    /// Where the snapshot that is put back has other mounts than the application.
    #[serde(default)]
    pub partial: Partial,
    /// The target is what runs already: nothing is changed, only proven.
    pub no_op: bool,
    /// The container this updater runs in, where it does: in there a person finds its commands.
    #[serde(default)]
    pub updater: Option<String>,
    /// What is updated is the updater itself, by its deputy.
    #[serde(default)]
    pub of_updater: bool,
    /// The image was at hand before, so a rollback leaves it.
    pub had_image: bool,
    /// What the tag `registry/repository:tag` meant locally before: an image id.
    pub tag_meant: Option<String>,
    /// `None` in a journal that an earlier version wrote, and in what is left on the engine.
    #[serde(default)]
    pub configuration: Option<Arc<Configuration>>,
    /// Deadline of the gate, seconds.
    pub health_timeout_seconds: u64,
    /// One line each.
    pub changes: Vec<String>,
    pub drift: Vec<String>,
    pub warnings: Vec<String>,
}

impl Plan {
    /// The application is stopped before the swap, because its data is copied or migrated, or others are stopped with
    /// it.
    pub fn stops_first(&self) -> bool {
        let has_reason = self.migration.is_some() || self.data.is_copied() || !self.companions.is_empty();
        !self.no_op && !self.hot_only && has_reason
    }

    /// What the application needs runs again before the migration, which needs it too, and before the swap, so that
    /// nothing of the new version has been there yet if it does not get ready.
    pub fn starts_needed_first(&self) -> bool {
        let mut needed = self.companions.iter().filter(|companion| companion.needed);
        !self.stays && needed.any(|companion| companion.holds_data || self.migration.is_some())
    }

    /// Compose has commands to run in the containers of this service after each start.
    pub fn runs_post_start(&self, service: &str) -> bool {
        self.commands.post_start.contains(service) || (self.post_start && service == self.project.service)
    }

    /// All services that are moved, those first that others need.
    pub fn start_order(&self) -> impl Iterator<Item = &str> {
        let crew = |needed: bool| self.crew.iter().filter(move |m| m.needed == needed).map(|m| m.service.as_str());
        crew(true).chain(std::iter::once(self.project.service.as_str())).chain(crew(false))
    }

    /// The mounts that an earlier snapshot's data is put into.
    pub fn restored(&self) -> Vec<DataMount> {
        let mut sources = self.data.sources();
        sources.retain(|source| !self.partial.stays.contains(&source.mount.destination));
        sources
    }

    /// The generation whose data shall be there again.
    pub fn restores(&self) -> Option<&str> {
        match &self.purpose {
            Purpose::Restore { generation } => Some(generation),
            Purpose::Update | Purpose::Snapshot => None,
        }
    }
}

/// An order in which services can be started: each after those it depends on.
pub struct StartOrder {
    order: Vec<String>,
    first: usize,
}

impl StartOrder {
    /// `first` comes before all that it does not need. Compose counts shared namespaces and volumes as
    /// dependencies.
    pub fn new(config: &ComposeConfig, first: &str) -> Self {
        let (mut order, mut seen) = (Vec::new(), BTreeSet::new());
        visit(config, first, &mut order, &mut seen);
        let first = order.len() - 1;
        config.services.keys().for_each(|name| visit(config, name, &mut order, &mut seen));
        Self { order, first }
    }

    /// Who is no service of the project comes last.
    pub fn place(&self, service: Option<&str>) -> usize {
        self.order.iter().position(|s| Some(s.as_str()) == service).unwrap_or(self.order.len())
    }

    /// The first one depends on it.
    pub fn comes_before_the_first(&self, service: Option<&str>) -> bool {
        self.place(service) < self.first
    }
}

fn visit(config: &ComposeConfig, service: &str, order: &mut Vec<String>, seen: &mut BTreeSet<String>) {
    if seen.insert(service.to_owned()) {
        let needed = config.service(service).into_iter().flat_map(|service| service.depends_on.keys());
        needed.for_each(|other| visit(config, other, order, seen));
        order.push(service.to_owned());
    }
}

/// A list of texts, or one text.
pub(crate) fn strings(value: &Value) -> Vec<String> {
    match value {
        Value::Array(items) => items.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect(),
        Value::String(one) => vec![one.clone()],
        _ => Vec::new(),
    }
}

mod maybe_base64 {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(bytes: &Option<Vec<u8>>, s: S) -> Result<S::Ok, S::Error> {
        bytes.as_ref().map(|b| STANDARD.encode(b)).serialize(s)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Vec<u8>>, D::Error> {
        let text = Option::<String>::deserialize(d)?;
        text.map(|t| STANDARD.decode(t).map_err(serde::de::Error::custom)).transpose()
    }
}
