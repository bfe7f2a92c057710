//! The domain: one update, from request to proven verdict. It knows traits and plain types only.
//!
//! Read [`run`] for the update from top to bottom, [`transition`] for what comes when, [`effects`] for
//! what is done and undone, [`plan`] for what is fixed beforehand.

pub mod advice;
pub mod book;
mod check;
pub mod context;
pub mod door;
pub mod drift;
pub mod effects;
pub mod errors;
pub mod job;
mod lives;
mod lost;
pub mod note;
pub mod observe;
pub mod one_shot;
pub mod plan;
pub mod policy;
pub mod ports;
pub mod record;
pub mod refusal;
pub mod rollback_view;
pub mod run;
pub mod running;
pub mod self_update;
pub mod settle;
pub mod survey;
pub mod transition;
pub mod version_changes;

#[cfg(test)]
pub mod tests;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::release::{Channel, Release, SourceError};
use book::{Book, HISTORY};
use context::Context;
use door::{AbortError, Door};
use job::{Job, JobId, Kind, State};
use ports::{DataError, Entry, ExportSink, JournalError, Options, Ports, SnapshotInfo};
use record::Record;
use refusal::Refusal;
pub use rollback_view::RollbackView;

/// What a job is asked to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    Update(Request),
    /// A snapshot of the data now; `hot`: without stopping the application, not consistent.
    Snapshot {
        hot: bool,
    },
    /// The data of this snapshot, with the version that wrote it if that is still to be had.
    Restore {
        snapshot: String,
        accept_drift: bool,
        /// Also where the snapshot has not all of the application's mounts, or has others.
        #[serde(default)]
        accept_partial: bool,
    },
    /// The version before the last committed update, with the data of that moment or with today's.
    Rollback {
        with_data: bool,
        accept_drift: bool,
        /// As of [`Order::Restore`].
        #[serde(default)]
        accept_partial: bool,
    },
    /// Another version of the updater itself; an empty tag is the newest.
    SelfUpdate(Request),
}

impl Order {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Order::Update(_) => Kind::Update,
            Order::Snapshot { .. } => Kind::Snapshot,
            Order::Restore { .. } => Kind::Restore,
            Order::Rollback { .. } => Kind::Rollback,
            Order::SelfUpdate(_) => Kind::SelfUpdate,
        }
    }
}

/// What `POST /update` asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    pub target_tag: String,
    /// An older version than the one that runs is wanted.
    #[serde(default)]
    pub allow_downgrade: bool,
    /// The deployment may have drifted from what runs; the update changes more than the version.
    #[serde(default)]
    pub accept_drift: bool,
    /// A digest that was started and rolled back before is wanted again.
    #[serde(default)]
    pub retry: bool,
    /// The application need not be well before: the update shall repair it.
    #[serde(default)]
    pub accept_unwell: bool,
}

/// Why a request was not accepted.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SubmitError {
    /// One job at a time.
    #[error("job {} is active ({}): wait for its end, or follow it at /update/{}", .0.id, .0.state, .0.id)]
    Busy(Box<Job>),
    /// A failed job waits for a person.
    #[error("{}", settle::refusal(.0))]
    Unsettled(Box<Job>),
    /// The process is stopping.
    #[error("the updater is stopping: ask again when it is back")]
    Stopping,
    /// Another one's way may still have to be found.
    #[error("the updater is still looking for what an earlier life left, and cannot see it: {0}")]
    Looking(String),
    /// It could not be written down, so nothing was begun.
    #[error("the journal cannot be written, so nothing was begun: {0}")]
    Journal(String),
}

/// What is asked of `GET /check`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckRequest {
    /// `None`: the newest of the channel.
    #[serde(default)]
    pub tag: Option<String>,
    #[serde(default)]
    pub channel: Channel,
    #[serde(default)]
    pub allow_downgrade: bool,
    #[serde(default)]
    pub accept_drift: bool,
    #[serde(default)]
    pub accept_unwell: bool,
    /// Nothing that is remembered of releases is good enough.
    #[serde(default)]
    pub fresh: bool,
}

/// What an update would do: the Plan as people see it. No secret is in it, and no value of an
/// environment variable but the version's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What runs; the tag of its image where the version is not known.
    pub running_version: Option<String>,
    /// Why the running version is not known.
    #[serde(default)]
    pub running_unknown: Option<String>,
    /// The version key's value in `.env`, where the container was made before it was set to that.
    #[serde(default)]
    pub not_applied: Option<String>,
    pub running_image: Option<String>,
    /// The release that was looked at.
    pub release: Option<Release>,
    /// The update would be begun.
    pub allowed: bool,
    /// Why not; says what was found and what was expected.
    pub refusal: Option<String>,
    /// The same, one by one.
    #[serde(default)]
    pub refusals: Vec<Refusal>,
    /// What runs is this release, or a newer one than the newest of the channel.
    pub up_to_date: bool,
    pub target_version: Option<String>,
    pub target_image: Option<String>,
    pub target_digest: Option<String>,
    /// What would change, one line each.
    pub changes: Vec<String>,
    /// What differs between the files and what runs, one line each.
    pub drift: Vec<String>,
    pub warnings: Vec<String>,
    /// The command, when a migration is required.
    pub migration: Option<String>,
    pub estimated_downtime_seconds: Option<u64>,
    pub breaking_changes: Vec<String>,
    pub deprecations: Vec<String>,
    pub verified: Vec<job::Verified>,
    /// By which policy signatures were judged, one line.
    #[serde(default)]
    pub trust: String,
}

/// The public face of the domain, shared by every route.
#[derive(Clone)]
pub struct Updater {
    inner: Arc<Inner>,
}

struct Inner {
    ports: Ports,
    options: Arc<Options>,
    book: Arc<Book>,
    /// Held while a job is accepted: exactly one of many at once.
    entrance: Arc<Mutex<()>>,
    /// The way out of the job that runs.
    exit: RwLock<Option<(JobId, Arc<Door>)>>,
    /// What its operator should know.
    notices: RwLock<Vec<String>>,
    /// Why it cannot be seen what an earlier life left.
    unseen: RwLock<String>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// So long a request waits until it is known what an earlier life left; the admin page waits ten seconds.
const LOOKING: Duration = Duration::from_secs(5);
/// And so long a start with a new journal, before it answers at all.
const FIRST_LOOK: Duration = Duration::from_secs(2);
/// The most of a log that one answer holds, bytes.
const LOG_PAGE: usize = 512 * 1024;

impl Updater {
    /// Reads the journal and takes up again what an earlier process left unfinished.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub async fn start(ports: Ports, options: Options) -> Result<Self, JournalError> {
        let journal = &ports.journal;
        let book = Book::new(journal.recent(HISTORY).await?, journal.waiting().await?, journal.count().await?);
        let unfinished = ports.journal.unfinished().await?;
        let updater = Self {
            inner: Arc::new(Inner {
                ports,
                options: Arc::new(options),
                book: Arc::new(book),
                entrance: Arc::default(),
                exit: RwLock::default(),
                notices: RwLock::default(),
                unseen: RwLock::new("the engine has not answered yet".into()),
                stop: CancellationToken::new(),
                tasks: TaskTracker::new(),
            }),
        };
        let journal = updater.inner.ports.journal.clone();
        journal.troubles().into_iter().for_each(|trouble| updater.notice(trouble));
        updater.recover(unfinished).await;
        if journal.is_new() {
            // Whoever follows a job that was lost should not be told that there is none.
            let _ = tokio::time::timeout(FIRST_LOOK, updater.inner.entrance.lock()).await;
        }
        Ok(updater)
    }

    fn notice(&self, text: String) {
        let mut notices = self.inner.notices.write().unwrap_or_else(PoisonError::into_inner);
        if !notices.contains(&text) {
            tracing::error!("{text}");
            notices.push(text);
        }
    }

    /// What its operator should know of this updater itself.
    pub fn notices(&self) -> Vec<String> {
        self.inner.notices.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn context(&self, record: &Record, door: Door) -> Context {
        let Inner { ports, options, book, exit, .. } = &*self.inner;
        let (job, door) = (record.job.clone(), Arc::new(door));
        *exit.write().unwrap_or_else(PoisonError::into_inner) = Some((job.clone(), door.clone()));
        Context { ports: ports.clone(), options: options.clone(), book: book.clone(), job, door, sealed: record.sealed }
    }

    /// Accepts a job and starts it, or says why not. Exactly one of many at once is accepted.
    ///
    /// # Errors
    /// A job is active, a failed one waits for a person, the process is stopping, or the journal cannot be written.
    pub async fn submit(&self, order: Order) -> Result<Job, SubmitError> {
        self.submit_as(JobId::random(), order).await
    }

    /// As [`Self::submit`], under a name that somebody else has given the job.
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub async fn submit_as(&self, id: JobId, order: Order) -> Result<Job, SubmitError> {
        let opened = tokio::time::timeout(LOOKING, self.inner.entrance.lock()).await;
        let Ok(_one_at_a_time) = opened else {
            let why = self.inner.unseen.read().unwrap_or_else(PoisonError::into_inner).clone();
            return Err(SubmitError::Looking(why));
        };
        if self.inner.stop.is_cancelled() {
            return Err(SubmitError::Stopping);
        }
        if let Some(active) = self.active() {
            return Err(SubmitError::Busy(Box::new((*active).clone())));
        }
        if matches!(order, Order::Update(_))
            && let Some(job) = settle::in_the_way(self.needs_you().iter().map(Arc::as_ref))
        {
            return Err(SubmitError::Unsettled(Box::new(job.clone())));
        }
        let Inner { ports, options, book, .. } = &*self.inner;
        let tag = match &order {
            Order::Update(request) | Order::SelfUpdate(request) => request.target_tag.clone(),
            _ => String::new(),
        };
        let job = Job { kind: order.kind(), ..Job::new(id, tag, ports.clock.now(), options.stub) };
        let record = Record::new(job.id.clone(), order);
        ports.journal.save(&job, &record, Entry::Accepted).await.map_err(|e| SubmitError::Journal(e.to_string()))?;
        book.add(job.clone());
        tracing::info!(job = %job.id, kind = ?job.kind, tag = job.target_tag, "accepted");
        self.inner.tasks.spawn(self.live(record));
        Ok(job)
    }

    /// Leaves the job, as long as it has not touched the application; returns when that is recorded. Asked
    /// again, the answer is the same.
    ///
    /// # Errors
    /// Too late, unknown, or it could not be recorded.
    pub async fn abort(&self, id: &str) -> Result<Job, AbortError> {
        let unknown = || AbortError::Unknown(id.chars().take(64).collect());
        let job = self.job(id).await.ok_or_else(unknown)?;
        match job.state {
            State::Aborted => return Ok((*job).clone()),
            end if end.is_end() => {
                return Err(AbortError::TooLate(format!("too late to abort: the job has ended, {end}")));
            }
            _ => {}
        }
        let exit = self.inner.exit.read().unwrap_or_else(PoisonError::into_inner).clone();
        match exit.filter(|(job, _)| job.0 == id) {
            Some((_, door)) => door.knock().await?,
            None => return Err(AbortError::TooLate("the job is just being taken up: ask again".into())),
        }
        Ok((*self.job(id).await.unwrap_or(job)).clone())
    }

    /// Stops at the next moment at which nothing is half-done, or after `grace`; what is unfinished is
    /// taken up by the next start.
    pub async fn stop(&self, grace: std::time::Duration) {
        self.inner.stop.cancel();
        self.inner.tasks.close();
        if tokio::time::timeout(grace, self.inner.tasks.wait()).await.is_err() {
            tracing::warn!("a job is in the middle of something; the next start takes it up");
        }
    }

    /// Waits until every job has ended; no further one is expected.
    pub async fn finish(&self) {
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    /// Any job that was ever accepted.
    pub async fn job(&self, id: &str) -> Option<Arc<Job>> {
        id.parse::<JobId>().ok()?;
        if let Some(job) = self.inner.book.get(id) {
            return Some(job);
        }
        match self.inner.ports.journal.job(id).await {
            Ok(job) => job.map(Arc::new),
            Err(e) => {
                tracing::error!("{e}");
                None
            }
        }
    }

    /// The job that has not ended.
    pub fn active(&self) -> Option<Arc<Job>> {
        self.inner.book.active()
    }

    /// The last `limit` jobs, newest first; from memory, at most 50.
    pub fn history(&self, limit: usize) -> Vec<Arc<Job>> {
        self.inner.book.recent(limit)
    }

    /// How many jobs there are in all.
    pub fn count(&self) -> usize {
        self.inner.book.count()
    }

    /// The whole log of a job, from byte `offset` on, at most 512 KiB; `None` for an unknown job.
    pub async fn log(&self, id: &str, offset: u64) -> Option<Vec<u8>> {
        self.job(id).await?;
        match self.inner.ports.journal.read_log(id, offset, LOG_PAGE).await {
            Ok(bytes) => Some(bytes),
            Err(e) => {
                tracing::error!("{e}");
                Some(Vec::new())
            }
        }
    }

    /// What [`Order::Rollback`] would do, without any effect.
    ///
    /// # Errors
    /// Why it would be refused.
    pub async fn rollback_view(&self, with_data: bool) -> Result<RollbackView, String> {
        let Inner { ports, options, .. } = &*self.inner;
        let order = Order::Rollback { with_data, accept_drift: true, accept_partial: true };
        let look = async {
            let deployment = survey::deployment(ports, options).await?;
            let wish = survey::wish::by_hand(ports, &order, &deployment).await?;
            survey::assemble::plan(ports, options, &deployment, wish, Vec::new()).await
        };
        let refused = |refused| settle::without_contradictions(&self.inner.book, options.stub, refused).to_string();
        let plan = look.await.map_err(refused)?;
        let written_since = match plan.restores() {
            Some(id) => Some(ports.data.distance(id, &plan.restored()).await.map_err(|e| e.to_string())?),
            None => None,
        };
        Ok(RollbackView {
            from_version: plan.previous.version.clone(),
            to_version: Some(plan.target.version.clone()).filter(|v| !v.is_empty()),
            to_image: plan.target.reference(),
            snapshot: plan.restores().map(str::to_owned),
            written_since,
            not_counted: plan.beside.not_copied().map(str::to_owned).collect(),
            is_partial: !plan.partial.is_empty(),
            changes: plan.changes,
            warnings: plan.warnings,
        })
    }

    /// Snapshots, newest first.
    ///
    /// # Errors
    /// The repository cannot be read.
    pub async fn snapshots(&self) -> Result<Vec<SnapshotInfo>, DataError> {
        self.inner.ports.data.list().await
    }

    /// Reads all of a snapshot and compares it with its manifest.
    ///
    /// # Errors
    /// It differs, or cannot be read.
    pub async fn verify_snapshot(&self, id: &str) -> Result<(), DataError> {
        self.inner.ports.data.verify(id).await
    }

    /// Writes a snapshot as `tar.zst`.
    ///
    /// # Errors
    /// It cannot be read, or the sink fails.
    pub async fn export_snapshot(&self, id: &str, sink: ExportSink) -> Result<(), DataError> {
        self.inner.ports.data.export(id, sink).await
    }

    /// Retention, now. Returns how many snapshots are left.
    ///
    /// # Errors
    /// A job is active, or the repository cannot be changed.
    pub async fn prune_snapshots(&self) -> Result<usize, DataError> {
        let _no_job_begins = self.inner.entrance.lock().await;
        if let Some(active) = self.active() {
            return Err(DataError::JobActive { job: active.id.to_string(), state: active.state.to_string() });
        }
        let data = &self.inner.ports.data;
        let standing = effects::standing(&self.inner.ports, &self.inner.book).await?;
        data.tidy(&JobId("by hand".into()), &standing).await?;
        Ok(data.list().await?.len())
    }

    /// The next question for a release is asked anew, whatever is remembered.
    pub fn forget_releases(&self) {
        self.inner.ports.releases.forget();
    }

    /// The newest release of the channel.
    ///
    /// # Errors
    /// The source cannot be reached, or has no such release.
    pub async fn latest(&self, channel: Channel) -> Result<Release, SourceError> {
        self.inner.ports.releases.latest(channel).await
    }

    /// Every Docker operation is simulated.
    pub fn stub(&self) -> bool {
        self.inner.options.stub
    }

    /// By which policy signatures are judged, one line.
    pub fn trust(&self) -> String {
        self.inner.ports.trust.describe()
    }
}
