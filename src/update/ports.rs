//! The traits through which the domain acts, gathered. Who implements them is [`crate::daemon`]'s
//! business.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use semver::Version;
use serde::{Deserialize, Serialize};

use super::Request;
pub use super::errors::{DataError, DeputyError, EnvError, IoCause, JournalError, Obstacle, PlaceError};
use super::job::{CopyProgress, Job, JobId, Kind, Verified};
use super::plan::Root;
use super::record::Record;
use super::transition::Effect;
use crate::clock::Clock;
use crate::engine::seal::Seal;
use crate::engine::{Compose, Container, Engine, Mount, PlannedProjects, Project, Volume, label};
use crate::health::Probe;
use crate::reference;
use crate::release::ReleaseSource;
use crate::trust::Trust;

/// The `.env` file that selects the version.
#[async_trait]
pub trait EnvStore: Send + Sync {
    /// `None`: there is no file.
    async fn read(&self) -> Result<Option<Vec<u8>>, EnvError>;
    /// Atomic and durable. `None` removes the file (it did not exist before the update).
    async fn write(&self, bytes: Option<&[u8]>) -> Result<(), EnvError>;
    /// Refuses when a write could not work, without writing: a single file mounted by itself, a folder
    /// that is read-only; or when this is not the file that Compose reads for `project_env`.
    async fn preflight(&self, project_env: &[String]) -> Result<(), EnvError>;
    /// For messages.
    fn path(&self) -> String;
}

/// Where this process runs: on the host, or in a container of the engine.
#[async_trait]
pub trait Place: Send + Sync {
    /// What an operator should know of it; an error is why no job may be begun here.
    async fn check(&self) -> Result<Vec<String>, PlaceError>;
    /// Waits until nothing that an earlier life began is still under way.
    async fn settle(&self) -> Result<(), PlaceError>;
}

/// Who updates the updater itself: a container that outlives it.
#[async_trait]
pub trait Deputy: Send + Sync {
    /// The tag of the updater's own newest release.
    async fn latest(&self) -> Result<String, DeputyError>;
    /// Could it be done at all? The updater's own container.
    async fn possible(&self) -> Result<Container, DeputyError>;
    /// Begins the job, unless a deputy has it already, and waits for its end: the job as the deputy's
    /// journal has it. Dropping the future leaves the deputy at work. `sealed`: see [`Record::sealed`].
    async fn carry_out(&self, job: &JobId, request: &Request, sealed: bool) -> Result<Job, DeputyError>;
    /// The job has its verdict: what is left of the deputy goes.
    async fn dismiss(&self, job: &JobId, sealed: bool);
}

/// What is appended to the audit trail together with a save.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    Accepted,
    Intent(Effect),
    Done(Effect),
    Failed(Effect, String),
    Note(String),
    /// The end. A digest that was started and rolled back is remembered as bad; the highest version ever
    /// committed is remembered.
    Ended {
        bad_digest: Option<String>,
        committed: Option<Version>,
    },
}

/// What a verified manifest said of the image with a digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedDigest {
    pub version: Version,
    /// The image tag that it names.
    pub image_tag: String,
}

impl VerifiedDigest {
    /// What the job's manifest said of this digest, if it was verified and did.
    pub fn of(job: &Job, digest: &str) -> Option<Self> {
        let is_verified = job.verified.iter().any(|verified| verified.subject == Verified::MANIFEST);
        let says = is_verified && job.kind == Kind::Update && job.target_digest.as_deref() == Some(digest);
        let image_tag = job.target_image.as_deref().and_then(reference::version_of).unwrap_or_default().to_owned();
        let version = job.target_version.as_deref().filter(|_| says)?;
        Some(Self { version: Version::parse(version).ok()?, image_tag })
    }
}

/// Everything the updater remembers. A call that returns `Ok` has reached the disk.
#[async_trait]
pub trait Journal: Send + Sync {
    /// One transaction, flushed: the job as the world sees it, its private record, and the entry.
    async fn save(&self, job: &Job, record: &Record, entry: Entry) -> Result<(), JournalError>;
    /// The job as it is now that a person has settled it; its record stays. Flushed.
    async fn settle(&self, job: &Job) -> Result<(), JournalError>;
    /// Failed jobs that no person has settled, newest first.
    async fn waiting(&self) -> Result<Vec<Job>, JournalError>;
    /// The record of any job that has one.
    async fn record(&self, id: &str) -> Result<Option<Record>, JournalError>;
    /// Jobs that have not ended, oldest first.
    async fn unfinished(&self) -> Result<Vec<(Job, Record)>, JournalError>;
    async fn job(&self, id: &str) -> Result<Option<Job>, JournalError>;
    /// The last jobs, newest first.
    async fn recent(&self, limit: usize) -> Result<Vec<Job>, JournalError>;
    async fn count(&self) -> Result<usize, JournalError>;
    /// Why this digest is known to be bad.
    async fn known_bad(&self, digest: &str) -> Result<Option<String>, JournalError>;
    /// The last update that was committed and not gone back from, with its record.
    async fn last_committed(&self) -> Result<Option<(Job, Record)>, JournalError>;
    /// What verified manifests have said of the image with this digest, newest first.
    async fn verified(&self, digest: &str) -> Result<Vec<VerifiedDigest>, JournalError>;
    async fn highest_committed(&self) -> Result<Option<Version>, JournalError>;
    /// It was begun with this process: whatever was before is not in it.
    fn is_new(&self) -> bool {
        false
    }
    /// What became of it, where that is not as it should be: one line each.
    fn troubles(&self) -> Vec<String> {
        Vec::new()
    }
    /// Appends a line to the job's whole log (best effort, bounded; never waits for the disk).
    fn log(&self, job: &JobId, line: &str);
    /// The whole log from `offset` on, at most `cap` bytes.
    async fn read_log(&self, job: &str, offset: u64, cap: usize) -> Result<Vec<u8>, JournalError>;
}

/// What a copy is of: enough to have the matching version again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyLabel {
    pub job: JobId,
    pub version: Option<String>,
    /// The reference that the configuration resolved to.
    pub image: String,
    pub image_id: String,
    /// `repository@sha256:…`
    pub repo_digest: Option<String>,
    /// The version key's value in `.env`; `None`: it was absent.
    pub env_value: Option<String>,
    /// A person asked for it: it goes by retention only, never because room is needed.
    #[serde(default)]
    pub by_hand: bool,
}

/// A snapshot, as lists show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotInfo {
    pub id: String,
    pub created_at: Timestamp,
    /// The application was stopped while it was taken.
    pub consistent: bool,
    pub reason: String,
    /// Bytes of all files, and how many of them it does not share with an earlier snapshot.
    pub bytes: u64,
    pub own_bytes: u64,
    pub entries: u64,
    /// Where the application saw what is in it; empty in old ones, which did not note it.
    #[serde(default)]
    pub mounts: Vec<String>,
    /// `None`: taken by something else.
    pub label: Option<CopyLabel>,
}

/// What retention has to know of snapshots, beyond their age.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Nothing may remove them.
    pub needed: Vec<String>,
    /// Of attempts that were rolled back: the data before, and what the attempt left. They are counted apart, so
    /// that failures never push out a snapshot of a version that worked.
    pub attempts: Vec<String>,
}

/// How far the present data is from a snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distance {
    /// Files that were changed, made or removed since.
    pub files: u64,
    /// Bytes of those that are there now.
    pub bytes: u64,
}

/// A mount of the application whose data is copied or put back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataMount {
    pub mount: Mount,
    /// What must be found there; `None`: it was planned by a program that noted nothing.
    pub root: Option<Root>,
    /// How the engine mounts it, where this process has to do the same. Filled in when it is opened and never
    /// stored, because the options may hold a password.
    #[serde(skip)]
    pub volume: Option<Volume>,
}

impl DataMount {
    /// Nothing is known of its root.
    pub fn new(mount: Mount) -> Self {
        Self { mount, root: None, volume: None }
    }
}

/// A mount that is looked at while planning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    pub source: DataMount,
    /// Who sees it, where a container runs that does.
    pub seen_by: Option<SeenBy>,
}

/// A running container, and where it has a mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenBy {
    pub name: String,
    pub container_id: String,
    /// Its first process, as the engine's host numbers it.
    pub pid: i32,
    pub path: String,
    /// Its other mounts below that path.
    pub beside: Vec<String>,
}

/// What was found at a mount.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Looked {
    pub root: Root,
    /// Other file systems mounted below it, which the container sees too: paths relative to the root.
    pub nested: Vec<String>,
}

/// Where an export is written to; blocking.
pub type ExportSink = Box<dyn std::io::Write + Send>;

/// What a finished copy is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    pub id: String,
    pub files: u64,
    pub bytes: u64,
}

/// What was kept before other data was put in its place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    pub id: String,
    /// Snapshots that had to go to make room for it.
    pub pruned: Vec<String>,
}

/// Whether a copy would succeed, looked at without any effect that stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// Bytes that a copy needs, reserve included, and bytes that are free; `None`: not known.
    pub needed_and_free: Option<(u64, u64)>,
    /// Copies that were begun and that nobody will end.
    pub unfinished: usize,
    /// Why none can be made.
    pub refusals: Vec<Obstacle>,
}

/// Hears how copying comes on.
pub type CopyReport = Arc<dyn Fn(CopyProgress) + Send + Sync>;

/// Copies of the application's data.
#[async_trait]
pub trait DataStore: Send + Sync {
    /// `None`: this installation copies data. `Some(why)`: it does not, for this reason.
    fn off(&self) -> Option<String>;
    /// Is what would be copied the very thing that the container sees? Where it is not, or where that cannot be had
    /// while the container is stopped, the error names it. Answers in the order of `mounts`.
    async fn look(&self, mounts: &[Look]) -> Result<Vec<Looked>, DataError> {
        Ok(vec![Looked::default(); mounts.len()])
    }
    /// Is there room, and can everything be read and kept? Without effects.
    async fn preflight(&self, mounts: &[DataMount]) -> Result<(), DataError>;
    /// As [`Self::preflight`], for a person; and what an earlier life left stays.
    async fn room(&self, mounts: &[DataMount]) -> Result<Room, DataError> {
        match self.preflight(mounts).await {
            Ok(()) => Ok(Room::default()),
            Err(DataError::Preflight(refusals)) => Ok(Room { refusals, ..Room::default() }),
            Err(other) => Err(other),
        }
    }
    /// First pass, the application running.
    async fn hot(&self, label: &CopyLabel, mounts: &[DataMount], report: CopyReport) -> Result<(), DataError>;
    /// Second pass, the application stopped: strict, durable, complete. Done twice it is the same one.
    async fn cold(&self, label: &CopyLabel, mounts: &[DataMount], report: CopyReport) -> Result<Generation, DataError>;
    /// A snapshot without stopping anything: not consistent.
    async fn running(
        &self,
        label: &CopyLabel,
        mounts: &[DataMount],
        report: CopyReport,
    ) -> Result<Generation, DataError>;
    /// Keeps the present state as a generation of its own, restores `generation` in place and verifies
    /// it. Where there is no room for the first, snapshots that nobody needs go, the oldest first, but
    /// none in `pinned`; if that is not enough, nothing is restored. Done twice it ends in the same state.
    async fn restore(
        &self,
        label: &CopyLabel,
        generation: &str,
        mounts: &[DataMount],
        pinned: &[String],
        report: CopyReport,
    ) -> Result<Kept, DataError>;
    /// Restores `generation` in place and verifies it, keeping nothing.
    async fn load(&self, generation: &str, mounts: &[DataMount], report: CopyReport) -> Result<(), DataError>;
    /// Retention; unfinished copies are dropped.
    async fn tidy(&self, job: &JobId, standing: &Standing) -> Result<(), DataError>;
    /// Newest first.
    async fn list(&self) -> Result<Vec<SnapshotInfo>, DataError>;
    /// Reads all of it and compares it with its manifest.
    async fn verify(&self, generation: &str) -> Result<(), DataError>;
    /// How far the present data is from it. Content is not read.
    async fn distance(&self, generation: &str, mounts: &[DataMount]) -> Result<Distance, DataError>;
    /// Writes it as `tar.zst`.
    async fn export(&self, generation: &str, sink: ExportSink) -> Result<(), DataError>;
}

/// A command of the operator's, in the surroundings of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookSetting {
    pub service: String,
    pub command: Vec<String>,
}

impl HookSetting {
    /// As the setting has it.
    pub fn text(&self) -> String {
        format!("{}: {}", self.service, shell_words::join(&self.command))
    }
}

/// Who this updater is, to another one on the same engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Of the state folder, as long as it exists.
    pub id: String,
    /// For people: the host's name and the state folder.
    pub place: String,
    /// By which it recognises its own containers.
    pub seal: Seal,
}

/// Settings of the update that are plain values.
#[derive(Debug, Clone)]
pub struct Options {
    /// Paths in the application's container that are not copied.
    pub snapshot_exclude: Vec<String>,
    /// Services of the same image that are moved together with the application's.
    pub move_services: Vec<String>,
    /// Services or containers that write to the same data and are stopped with the application.
    pub stop_services: Vec<String>,
    /// Services or containers whose own data is copied and put back with the application's.
    pub data_services: Vec<String>,
    /// Services, containers or hosts whose data is the operator's own business.
    pub data_elsewhere: Vec<String>,
    pub hook_before_copy: Option<HookSetting>,
    pub hook_after_restore: Option<HookSetting>,
    /// The command that asks for an update here, for remedies: `update`; of a deputy `self-update`.
    pub command: &'static str,
    /// Only the mount that holds this path of the application's container is its data; `None`: every
    /// writable mount is.
    pub data_in: Option<String>,
    pub owner: Owner,
    /// The id, or its beginning, of the container this process runs in.
    pub own_container: Option<String>,
    pub app_name: String,
    pub app_container: String,
    pub app_service: Option<String>,
    /// The version of this process, where the application is the updater itself.
    pub runs_as: Option<Version>,
    pub version_key: String,
    /// The key that selects the version of the other one: of the updater where the application is moved, of
    /// the application where the updater is. Whose environment is `.env` as a whole finds it there.
    pub others_version_key: String,
    pub verify_image: bool,
    pub migration_timeout: Duration,
    pub health: crate::health::gate::GateSettings,
    /// Whom the probe asks, for remedies.
    pub health_target: crate::health::HealthTarget,
    pub stub: bool,
}

impl Options {
    /// This process's own container, or one that this updater has made.
    pub fn is_ours(&self, container: &Container) -> bool {
        let is_own = self.own_container.as_ref().is_some_and(|own| container.id.starts_with(own));
        is_own || self.owner.seal.read(container).is_some()
    }

    /// In a self-update, a container for one command of the updater's own service, such as the one that follows this
    /// very job: it has the service's mounts, but only the updater, which holds the lock, writes to the journal.
    pub fn is_for_one_command(&self, container: &Container, project: &Project) -> bool {
        let is_of_it = (container.label(label::PROJECT), container.label(label::SERVICE))
            == (Some(&project.name), Some(&project.service));
        self.data_in.is_some() && is_of_it && container.label(label::ONEOFF) == Some("True")
    }
}

/// Everything the domain acts through.
#[derive(Clone)]
pub struct Ports {
    pub engine: Arc<dyn Engine>,
    pub compose: Arc<dyn Compose>,
    pub planned: Arc<dyn PlannedProjects>,
    pub releases: Arc<dyn ReleaseSource>,
    pub trust: Arc<dyn Trust>,
    pub probe: Arc<dyn Probe>,
    pub env: Arc<dyn EnvStore>,
    pub data: Arc<dyn DataStore>,
    pub journal: Arc<dyn Journal>,
    pub place: Arc<dyn Place>,
    pub deputy: Arc<dyn Deputy>,
    pub clock: Arc<dyn Clock>,
}
