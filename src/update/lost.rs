//! Jobs that the journal does not know, or not far enough, found by the notes that they left on the engine:
//! the journal was lost or damaged while the application was stopped, and nobody else would start it.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Updater;
use super::job::Job;
use super::note::Note;
use super::plan::Plan;
use super::ports::Entry;
use super::record::Record;
use crate::command::line;
use crate::engine::seal::{Seal, few, says_to_be_ours};
use crate::engine::{Container, label};

/// So long is looked for an engine that does not answer; nothing is begun meanwhile.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

impl Updater {
    /// The jobs to take up: those of the journal, and what it has lost. The book knows them all when this
    /// returns.
    pub(super) async fn with_lost(&self, unfinished: Vec<(Job, Record)>) -> Vec<(Job, Record)> {
        let deadline = Instant::now() + PATIENCE;
        let mut pause = FIRST_PAUSE;
        loop {
            let why = match self.find_lost(&unfinished).await {
                Ok(lost) => return self.merged(unfinished, lost).await,
                Err(why) => why,
            };
            why.clone_into(&mut self.inner.unseen.write().unwrap_or_else(PoisonError::into_inner));
            tracing::warn!("what an earlier life left cannot be seen, trying again in {pause:?}: {why}");
            if Instant::now() + pause > deadline {
                tracing::error!("going on with what the journal says: {why}");
                return unfinished;
            }
            tokio::select! {
                () = sleep(pause) => {}
                () = self.inner.stop.cancelled() => return unfinished,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn find_lost(&self, unfinished: &[(Job, Record)]) -> Result<Vec<Lost>, String> {
        let ports = &self.inner.ports;
        ports.place.settle().await.map_err(|e| e.to_string())?;
        let containers = ports.engine.containers(&[]).await.map_err(|e| e.to_string())?;
        let owner = &self.inner.options.owner;
        self.tell_of_strangers(&containers);
        let mut lost = Vec::new();
        for trace in traces(&owner.seal, &containers) {
            let note = &trace.note;
            // A deputy has a journal of its own for the updater's update.
            if note.installation != owner.id {
                continue;
            }
            let env = ports.env.read().await.map_err(|e| e.to_string())?;
            let known = unfinished.iter().find(|(job, _)| job.id == note.job);
            let is_settled = match known {
                Some((_, record)) => !note.is_ahead_of(record, &containers, env.as_deref()),
                None => self.job(&note.job.0).await.is_some_and(|job| job.state.is_end()),
            };
            if !is_settled {
                let record = note.record(env, trace.new_image.clone());
                lost.push(Lost { job: known.map(|(job, _)| job.clone()), record });
            }
        }
        Ok(lost)
    }

    /// Writes them down before anything is done about them.
    async fn merged(&self, mut unfinished: Vec<(Job, Record)>, lost: Vec<Lost>) -> Vec<(Job, Record)> {
        for Lost { job, record } in lost {
            let is_new = job.is_none();
            let mut job = job.unwrap_or_else(|| self.job_of(&record));
            let text = "the journal does not know how far this job had come; it is ended by what it left on the engine, in the labels of its guards";
            tracing::error!(job = %job.id, "{text}");
            job.warnings.push(text.into());
            job.snapshot = job.snapshot.or_else(|| record.learned.generation.clone());
            if let Err(e) = self.inner.ports.journal.save(&job, &record, Entry::Note(text.into())).await {
                tracing::error!(job = %job.id, "{e}");
            }
            match is_new {
                true => self.inner.book.add(job.clone()),
                false => self.inner.book.change(&job.id.0, |known| *known = job.clone()),
            }
            unfinished.retain(|(known, _)| known.id != job.id);
            unfinished.push((job, record));
        }
        unfinished
    }

    /// As far as it can be told again.
    fn job_of(&self, record: &Record) -> Job {
        let (options, now) = (&self.inner.options, self.inner.ports.clock.now());
        let mut job = Job::new(record.job.clone(), String::new(), now, options.stub);
        job.kind = record.order.kind();
        if let Some(Plan { target, previous, .. }) = &record.plan {
            job.target_tag.clone_from(&target.tag);
            job.target_version = Some(target.version.clone()).filter(|v| !v.is_empty());
            job.target_image = Some(target.reference());
            job.target_digest = Some(target.digest.clone()).filter(|d| !d.is_empty());
            job.previous_image = Some(previous.image_ref.clone());
            job.previous_version.clone_from(&previous.version);
        }
        job
    }

    /// Another updater's job is its own business, unless that updater is gone for good. What such a note says
    /// is only told: nothing proves it.
    fn tell_of_strangers(&self, containers: &[Container]) {
        let options = &self.inner.options;
        let is_strange = |c: &&Container| says_to_be_ours(c) && options.owner.seal.read(c).is_none();
        let strangers: Vec<_> = containers.iter().filter(is_strange).collect();
        if !strangers.is_empty() {
            tracing::warn!(
                containers = few(&strangers),
                "left alone: an updater's labels without the seal of this one"
            );
        }
        for container in strangers {
            let note = container.label(label::NOTE).and_then(|text| serde_json::from_str::<Note>(text).ok());
            let Some(note) = note.filter(|note| note.plan.previous.container_name == options.app_container) else {
                continue;
            };
            let whose = match note.installation == options.owner.id {
                true => "this updater, but without its seal: it was forged, or the state folder has lost its secret",
                false => "another updater (another state folder)",
            };
            self.notice(format!(
                "container {0} says that {1} of {whose} is in the middle of changing {2}. Nothing is done about it. If no updater works on {2}, look whether the application runs as it should, then remove the container: {3}",
                container.name,
                note.job,
                options.app_container,
                line(["docker", "rm", &container.name])
            ));
        }
    }
}

struct Lost {
    /// As the journal has it, if it has it.
    job: Option<Job>,
    record: Record,
}

/// What a job left.
struct Trace {
    note: Note,
    new_image: Option<String>,
}

/// One for every job of this updater, by its latest note. Pure.
fn traces(seal: &Seal, containers: &[Container]) -> Vec<Trace> {
    let mut notes = BTreeMap::<String, Note>::new();
    for container in containers {
        let Some(text) = seal.read(container).and_then(|ours| ours.label(label::NOTE)) else { continue };
        match serde_json::from_str::<Note>(text) {
            Ok(note) if notes.get(&note.job.0).is_none_or(|known| !known.data_may_differ) => {
                notes.insert(note.job.0.clone(), note);
            }
            Ok(_) => {}
            Err(e) => tracing::warn!("the note of {} cannot be read: {e}", container.name),
        }
    }
    let of = |note: Note| {
        let is_new = |c: &&Container| {
            seal.read(c).is_some_and(|ours| ours.job().as_ref() == Some(&note.job) && ours.role() == "guard-new")
        };
        Trace { new_image: containers.iter().find(is_new).map(|c| c.image_id.clone()), note }
    };
    notes.into_values().map(of).collect()
}
