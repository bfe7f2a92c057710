//! A job's lives: a process that dies ends one, and so does a panic in the job's task. The next one takes
//! the job up where the journal and the world are; after [`Record::MAX_LIVES`] a person is called.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::sleep;

use super::context::Context;
use super::door::{AbortError, Door};
use super::job::{Job, JobId, State};
use super::ports::Entry;
use super::record::Record;
use super::survey::sources;
use super::{Updater, run, transition};
use crate::engine::label;

/// Between two attempts to read a journal after a fault.
const PAUSE: Duration = Duration::from_secs(5);

impl Updater {
    /// Takes up, one after the other, what earlier processes left unfinished. Nothing is accepted before it
    /// is known what that is.
    pub(super) async fn recover(&self, unfinished: Vec<(Job, Record)>) {
        let updater = self.clone();
        let closed = self.inner.entrance.clone().lock_owned().await;
        self.inner.tasks.spawn(async move {
            let unfinished = updater.with_lost(unfinished).await;
            drop(closed);
            for (_, record) in unfinished {
                updater.live(next_life(record, 0)).await;
            }
            updater.sweep_leftovers().await;
            updater.keep_what_failed_jobs_need().await;
        });
    }

    /// Carries the job to its end, or until the process is asked to stop. The way out of it is there at once.
    pub(super) fn live(&self, record: Record) -> impl Future<Output = ()> + Send + 'static {
        let (updater, cx) = (self.clone(), self.context(&record, door_of(&record)));
        async move { updater.lives(cx, record).await }
    }

    async fn lives(&self, mut cx: Context, mut record: Record) {
        loop {
            let lives = record.lives;
            let life = async {
                if record.interrupted {
                    tracing::warn!(job = %cx.job, lives, "taking up an unfinished job");
                    cx.say("the updater was restarted");
                    // Counted before anything else can fail: endless loops must end.
                    run::note(&cx, &record, Entry::Note(format!("life {lives}"))).await;
                }
                run::run(&cx, record, &self.inner.stop).await;
            };
            if AssertUnwindSafe(life).catch_unwind().await.is_ok() {
                return;
            }
            // The panic hook has written where it was.
            tracing::error!(job = %cx.job, "the updater has a fault; the job is taken up as after a death");
            cx.door.shut(AbortError::TooLate("the updater had a fault meanwhile: ask again".into()));
            let Some(recorded) = self.recorded(&cx.job).await else { return };
            record = next_life(recorded, lives);
            cx = self.context(&record, door_of(&record));
        }
    }

    /// What the journal knows of the unfinished job; `None` when it has ended, or nobody waits any more.
    async fn recorded(&self, id: &JobId) -> Option<Record> {
        let journal = &self.inner.ports.journal;
        while !self.inner.stop.is_cancelled() {
            let found = match (journal.unfinished().await, journal.job(&id.0).await) {
                (Ok(unfinished), Ok(job)) => Some((unfinished, job)),
                (Err(e), _) | (_, Err(e)) => {
                    tracing::error!(job = %id, "{e}");
                    None
                }
            };
            if let Some((unfinished, job)) = found {
                let record = unfinished.into_iter().map(|(_, record)| record).find(|record| record.job == *id);
                if let (None, Some(ended)) = (&record, job) {
                    self.inner.book.change(&id.0, |known| *known = ended);
                }
                return record;
            }
            tokio::select! {
                () = sleep(PAUSE) => {}
                () = self.inner.stop.cancelled() => {}
            }
        }
        None
    }

    /// Nobody needs what it left. Whether a failed one is settled, a deputy does not know: its journal has nobody
    /// who settles.
    fn is_done_with(&self, job: &Job) -> bool {
        let is_deputy = self.inner.options.data_in.is_some();
        job.state.is_end() && !job.needs_you && !(is_deputy && job.state == State::Failed)
    }

    /// Containers of ours whose job has ended: a process died between its end and its tidying.
    async fn sweep_leftovers(&self) {
        let engine = &self.inner.ports.engine;
        let Ok(containers) = engine.containers(&[]).await else { return };
        for container in containers {
            let Some(ours) = self.inner.options.owner.seal.read(&container) else { continue };
            let is_leftover = match ours.label(label::JOB).or(ours.label(label::DEPUTY_OF)) {
                Some(job) => self.job(job).await.is_some_and(|job| self.is_done_with(&job)),
                // What planning has made to look has told it already, whoever plans right now.
                None => ours.role() == sources::LOOK,
            };
            if is_leftover && let Err(e) = engine.remove(&container.id).await {
                tracing::warn!("the leftover {} could not be removed: {e}", container.name);
            }
        }
    }
}

/// At least one more than the `lives` that are known of; the journal may have missed some.
fn next_life(record: Record, lives: u32) -> Record {
    Record { lives: record.lives.max(lives) + 1, interrupted: true, ..record }
}

/// The way out of a job that an earlier life has begun.
fn door_of(record: &Record) -> Door {
    let door = if record.aborted { Door::left() } else { Door::open() };
    if let Some(why) = record.begun.iter().find_map(|effect| transition::too_late_to_abort(*effect)) {
        door.close(why);
    }
    door
}
