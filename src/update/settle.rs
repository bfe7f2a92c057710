//! A failed job waits for a person: until it is settled, everything that its commands need is kept, and no
//! update is begun over it.
//!
//! Only a person settles it. A rollback or a restore that went well says that data and version are those of before;
//! whether the application does again what it is for, and whether what the failed version wrote is still needed,
//! nobody but the person knows. So such a job only says that the failed one still waits.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::book::Book;
use super::context::Context;
use super::door::Door;
use super::effects::{self, EffectError};
use super::job::{Job, JobId, Kind, State};
use super::plan::Plan;
use super::ports::JournalError;
use super::record::Record;
use super::refusal::{Code, Refusal, Refused, Remedy};
use super::{Inner, LOOKING, Updater};
use crate::engine::{Container, EngineError, label};

/// What settling a job does, or has done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settlement {
    pub job: Job,
    /// What goes, or went, one line each: containers, anonymous volumes, the image.
    pub removes: Vec<String>,
    /// Snapshots that from then on go by retention, as every other.
    pub released: Vec<String>,
}

/// Why a job was not settled.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SettleError {
    #[error("there is no job {0}")]
    Unknown(String),
    #[error("job {id} does not wait for a person: it is {state}")]
    NotFailed { id: String, state: State },
    #[error("job {id} is active ({state}): settle when it has ended")]
    Busy { id: String, state: State },
    #[error("the updater is still looking for what an earlier life left: ask again in a minute")]
    Looking,
    #[error("what job {id} left cannot be seen: {source}")]
    Unseen { id: String, source: EngineError },
    /// The job is settled; only what it left is still there.
    #[error("job {id} is settled, but not all that it left could be removed: {why}. Settle it once more")]
    Left { id: String, why: EffectError },
    #[error("job {id} is not settled, because the journal cannot be used: {source}")]
    Journal { id: String, source: JournalError },
}

/// Failed jobs that wait for a person, newest first. `stub`: simulated ones, which are of no interest to a real
/// updater.
pub fn unsettled(book: &Book, stub: bool) -> Vec<Arc<Job>> {
    book.waiting().into_iter().filter(|job| job.stub == stub).collect()
}

/// Among `jobs`, the one that no update may be begun over: what it left of the application is not known to be
/// whole. A failed self-update left the application alone.
pub fn in_the_way<'a>(mut jobs: impl Iterator<Item = &'a Job>) -> Option<&'a Job> {
    jobs.find(|job| is_in_the_way(job))
}

fn is_in_the_way(job: &Job) -> bool {
    job.needs_you && job.kind != Kind::SelfUpdate
}

/// Why no update is begun.
pub fn refusal(job: &Job) -> Refusal {
    let id = &job.id;
    let what = format!(
        "job {id} failed and waits for you: do what its error says (`processgit-updater history {id}`), and declare it done"
    );
    Refusal::new(Code::Unsettled, what).command(command(job))
}

/// What doctor says first.
pub fn finding(job: &Job) -> Refusal {
    let error = job.error.as_deref().unwrap_or_default();
    let what = format!(
        "{} failed and waits for you; what its commands need is kept until you have done what it says and declared it done: {error}",
        job.id
    );
    Refusal::new(Code::Unsettled, what)
        .text(format!("do what it says; the last of its commands, `{}`, declares it done", command(job)))
}

fn command(job: &Job) -> String {
    format!("processgit-updater settle {}", job.id)
}

/// What helps against these starts or remakes the application, or changes its version: it would undo what a failed
/// job's own commands do, or run a version on data that is not its own.
const CONTRADICTS: &[Code] = &[
    Code::NotRunning,
    Code::NoRestart,
    Code::NoContainer,
    Code::NotByCompose,
    Code::ImageGone,
    Code::ServiceMissing,
    Code::Replicas,
    Code::ProjectMoved,
    Code::OldInAnotherProject,
    Code::ComposeRecreates,
    Code::TouchesOthers,
    Code::Drift,
    Code::NotSelected,
    Code::NotApplied,
    Code::PartlyUpdated,
    Code::ShellVariable,
    Code::NoEnv,
    Code::EnvOtherFile,
    Code::NoSnapshotOfUpdate,
];

/// The remedy, unless it contradicts what the failed job's commands do.
pub fn fitting(job: &Job, code: Option<Code>, remedy: Option<Remedy>) -> Option<Remedy> {
    let contradicts = code.is_some_and(|code| CONTRADICTS.contains(&code));
    let first = || Remedy::Text(format!("first finish job {0}: `processgit-updater history {0}` says how", job.id));
    remedy.map(|remedy| if contradicts { first() } else { remedy })
}

/// What a job that ends has to say of itself, or of others, that wait for a person.
pub(super) fn reminders(book: &Book, ending: &Job) -> Vec<String> {
    let and = |job: &Job| if is_in_the_way(job) { ", and no update is begun" } else { "" };
    let itself = ending.needs_you.then(|| {
        format!(
            "this job waits for you: do what the error says, then declare it done with `{}`; until then what it needs is kept{}",
            command(ending),
            and(ending)
        )
    });
    let others = unsettled(book, ending.stub).into_iter().filter(|job| job.id != ending.id).map(|job| {
        format!(
            "job {} still waits for you: when the application runs as it should, declare it done with `{}`; until then what it needs is kept{}",
            job.id,
            command(&job),
            and(&job)
        )
    });
    itself.into_iter().chain(others).collect()
}

/// The refusals of a job by hand that was asked for while a failed one waits.
pub(super) fn without_contradictions(book: &Book, stub: bool, refused: Refused) -> Refused {
    let waiting = unsettled(book, stub);
    let Some(job) = in_the_way(waiting.iter().map(Arc::as_ref)) else { return refused };
    let of = |refusal: Refusal| Refusal { remedy: fitting(job, Some(refusal.code), refusal.remedy), ..refusal };
    Refused(refused.0.into_iter().map(of).collect())
}

/// What a job has left.
struct Remains {
    job: Job,
    record: Option<Record>,
    containers: Vec<Container>,
    /// Anonymous volumes that came with the new version.
    volumes: Vec<String>,
    /// The image that came with the job, where nothing uses it.
    image: Option<String>,
}

impl Remains {
    fn plan(&self) -> Option<&Plan> {
        self.record.as_ref()?.plan.as_ref()
    }

    fn settlement(&self) -> Settlement {
        let container = |c: &Container| format!("container {}", c.name);
        let volumes = self.volumes.iter().map(|name| format!("volume {name}"));
        let image = self.image.iter().map(|name| format!("image {name}"));
        Settlement {
            job: self.job.clone(),
            removes: self.containers.iter().map(container).chain(volumes).chain(image).collect(),
            released: self.job.snapshot.iter().chain(&self.job.failed_snapshot).cloned().collect(),
        }
    }
}

impl Updater {
    /// Failed jobs that wait for a person, newest first.
    pub fn needs_you(&self) -> Vec<Arc<Job>> {
        unsettled(&self.inner.book, self.stub())
    }

    /// What [`Self::settle`] would do.
    ///
    /// # Errors
    /// There is no such job, it has not failed, or the engine does not answer.
    pub async fn settlement(&self, id: &str) -> Result<Settlement, SettleError> {
        self.remains(id).await.map(|remains| remains.settlement())
    }

    /// A person declares the failed job done: updates are begun again, and what was kept for its sake is removed.
    /// It is recorded first, so that a death in between leaves only what the next start sweeps. Asked again, it
    /// removes what may be left.
    ///
    /// # Errors
    /// As [`Self::settlement`]; a job is active; or it could not be recorded.
    pub async fn settle(&self, id: &str) -> Result<Settlement, SettleError> {
        let entrance = timeout(LOOKING, self.inner.entrance.lock()).await;
        let _no_job_begins = entrance.map_err(|_| SettleError::Looking)?;
        if let Some(active) = self.active() {
            return Err(SettleError::Busy { id: active.id.to_string(), state: active.state });
        }
        let mut remains = self.remains(id).await?;
        if remains.job.settled_at.is_none() {
            let settled = Job { needs_you: false, settled_at: Some(self.inner.ports.clock.now()), ..remains.job };
            let saved = self.inner.ports.journal.settle(&settled).await;
            saved.map_err(|source| SettleError::Journal { id: id.to_owned(), source })?;
            self.inner.book.change(id, |job| *job = settled.clone());
            tracing::info!(job = id, "settled by a person");
            remains.job = settled;
        }
        let swept = self.sweep(&remains).await;
        swept.map_err(|why| SettleError::Left { id: id.to_owned(), why })?;
        Ok(remains.settlement())
    }

    /// What the commands of failed jobs need, where a death or somebody else has taken it away.
    pub(super) async fn keep_what_failed_jobs_need(&self) {
        let _nobody_settles = self.inner.entrance.lock().await;
        for job in self.needs_you() {
            let record = self.inner.ports.journal.record(&job.id.0).await.ok().flatten();
            let Some(Record { plan: Some(plan), sealed, .. }) = record else { continue };
            if let Err(e) = effects::keep_old(&self.beside(&job.id, sealed), &plan).await {
                tracing::warn!(job = %job.id, "the old image is not protected: {e}");
            }
        }
    }

    /// The surroundings of a job that has ended.
    fn beside(&self, job: &JobId, sealed: bool) -> Context {
        let Inner { ports, options, book, .. } = &*self.inner;
        let (ports, options, book) = (ports.clone(), options.clone(), book.clone());
        Context { ports, options, book, job: job.clone(), door: Arc::new(Door::left()), sealed }
    }

    async fn remains(&self, id: &str) -> Result<Remains, SettleError> {
        let unknown = || SettleError::Unknown(id.chars().take(64).collect());
        let unseen = |source| SettleError::Unseen { id: id.to_owned(), source };
        let job = (*self.job(id).await.ok_or_else(unknown)?).clone();
        if job.state != State::Failed {
            return Err(SettleError::NotFailed { id: job.id.to_string(), state: job.state });
        }
        let record = self.inner.ports.journal.record(id).await.unwrap_or_else(|e| {
            tracing::warn!(job = id, "only the job's containers can be told from others: {e}");
            None
        });
        let engine = &self.inner.ports.engine;
        let all = engine.containers(&[]).await.map_err(unseen)?;
        let seal = &self.inner.options.owner.seal;
        let is_its = |c: &Container| {
            let ours = seal.read(c);
            ours.is_some_and(|ours| [label::JOB, label::DEPUTY_OF].iter().any(|name| ours.label(name) == Some(id)))
        };
        let (containers, others): (Vec<_>, Vec<_>) = all.into_iter().partition(is_its);
        let mut remains = Remains { job, record, containers, volumes: Vec::new(), image: None };
        let Some(Record { plan: Some(plan), learned, .. }) = &remains.record else { return Ok(remains) };
        let is_used = |name: &String| others.iter().any(|c| c.mounts.iter().any(|m| m.name == *name));
        for name in learned.new_volumes.iter().filter(|name| !is_used(name)) {
            if engine.volume(name).await.map_err(unseen)?.is_some() {
                remains.volumes.push(name.clone());
            }
        }
        if effects::brought(plan, learned)
            && let Some(image) = engine.image(&plan.target.handle()).await.map_err(unseen)?
            && others.iter().all(|c| c.image_id != image.id)
        {
            remains.image = Some(plan.target.reference());
        }
        Ok(remains)
    }

    async fn sweep(&self, remains: &Remains) -> Result<(), EffectError> {
        for container in &remains.containers {
            self.inner.ports.engine.remove(&container.id).await?;
        }
        let (Some(record), Some(plan)) = (&remains.record, remains.plan()) else { return Ok(()) };
        let cx = self.beside(&record.job, record.sealed);
        if !remains.volumes.is_empty() {
            effects::volumes::remove_brought(&cx, &record.learned).await;
        }
        match &remains.image {
            Some(_) => effects::untag_brought(&cx, plan).await,
            None => Ok(()),
        }
    }
}
