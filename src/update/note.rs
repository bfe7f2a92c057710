//! What is left on the engine for the case that the journal cannot be read: enough of a job's Plan, in the
//! label of a container that is never started, to find the way back. Pure; who leaves them and who finds them
//! is the business of [`super::effects`] and [`super::lost`].
//!
//! A label cannot be changed, so there are two: the claim is made before anything else, a guard just before
//! the data may change. What neither holds is secret: anybody who may ask the engine reads it.

use serde::{Deserialize, Serialize};

use super::Order;
use super::job::JobId;
use super::plan::{EnvChange, Member, Plan, Purpose};
use super::record::{Heading, Learned, Record};
use super::transition::{Effect, touched, way_back, way_there};
use crate::engine::{ComposeConfig, Container, RestartPolicy};
use crate::envfile;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Note {
    /// Whose job it is: two updaters on one engine must not end each other's jobs.
    pub installation: String,
    pub job: JobId,
    pub order: Order,
    /// Without `.env`, without environments.
    pub plan: Plan,
    /// From here on the data may have changed.
    pub data_may_differ: bool,
    /// The snapshot that has the data from before.
    pub generation: Option<String>,
}

impl Note {
    pub fn of(installation: &str, record: &Record, plan: &Plan) -> Self {
        let mut plan = plan.clone();
        (plan.env.before, plan.env.after) = (None, None);
        let one_shots = [&mut plan.migration, &mut plan.hooks.before_copy, &mut plan.hooks.after_restore];
        one_shots.into_iter().flatten().for_each(|one| one.config = ComposeConfig::default());
        Self {
            installation: installation.to_owned(),
            job: record.job.clone(),
            order: record.order.clone(),
            plan: Plan { changes: Vec::new(), drift: Vec::new(), warnings: Vec::new(), configuration: None, ..plan },
            data_may_differ: false,
            generation: None,
        }
    }

    /// The record that the journal would hold at least, on its way back. `.env` is `env` now. Where the data
    /// may have changed nothing is done unattended: the undo counts as failed, so that a person is called.
    pub fn record(&self, env: Option<Vec<u8>>, new_image_id: Option<String>) -> Record {
        let plan = Plan { env: as_if_edited(&self.plan.env, env), ..self.plan.clone() };
        let way = way_there(&plan);
        let changes_data = way.iter().position(|e| e.changes_data()).filter(|_| may_lose_data(&plan));
        let (begun, done) = match changes_data {
            Some(first) if self.data_may_differ => (way.len(), first),
            Some(first) => (first, 0),
            // Nothing can be lost, so the way back is the same from wherever it was.
            None => (way.len(), 0),
        };
        let why = if self.data_may_differ {
            "the journal was lost in the middle of this job, and whether the data was changed is not known"
        } else {
            "the journal was lost in the middle of this job, before the data was touched"
        };
        let mut record = Record::new(self.job.clone(), self.order.clone());
        record.heading = Heading::Back { why: why.into() };
        (record.begun, record.done) = (way[..begun].to_vec(), way[..done].to_vec());
        record.learned = Learned { new_image_id, generation: self.generation.clone(), ..Learned::default() };
        record.interrupted = true;
        record.plan = Some(plan);
        if self.data_may_differ {
            record.failed_back = way_back(&record).first().copied();
        }
        record
    }

    /// The journal knows less than this note, the engine's containers and `.env` tell: its last pages are
    /// lost. A new container proves nothing: before our own there is a note that says so, and without it
    /// somebody else has made it.
    pub fn is_ahead_of(&self, record: &Record, containers: &[Container], env: Option<&[u8]>) -> bool {
        let (previous, change, plan) = (&self.plan.previous, &self.plan.env, &self.plan);
        let is_as_before = |id: &String, policy: &RestartPolicy, ran: bool| {
            let found = containers.iter().find(|c| c.id == *id);
            found.is_some_and(|c| (c.is_alive() || !ran) && c.restart_policy == *policy)
        };
        let still_stands = |m: &Member| containers.iter().any(|c| c.id == m.container_id);
        let untouched = is_as_before(&previous.container_id, &previous.restart_policy, previous.baseline.running)
            && plan.companions.iter().all(|c| is_as_before(&c.container_id, &c.restart_policy, true))
            && plan.crew.iter().all(still_stands);
        let value = env.and_then(|bytes| envfile::get(bytes, &change.key));
        let is_written = value == change.value_after && value != change.value_before;
        record.plan.is_none()
            || (self.data_may_differ && !record.begun.iter().any(|e| e.changes_data()))
            || (!untouched && !touched(record))
            || (is_written && !record.has_begun(Effect::WriteEnv))
    }
}

/// The application has data, or a migration may change what is elsewhere. A snapshot changes nothing.
pub fn may_lose_data(plan: &Plan) -> bool {
    let has_data = !plan.data.is_empty() || !plan.beside.uncovered.is_empty();
    plan.purpose != Purpose::Snapshot && (has_data || plan.migration.is_some())
}

/// The change of `.env` as it must have been, if the file is still what we wrote, and only the key counts.
fn as_if_edited(change: &EnvChange, now: Option<Vec<u8>>) -> EnvChange {
    let bytes = now.as_deref().unwrap_or_default();
    let with = |value: &Option<String>| match value {
        Some(value) => envfile::set(bytes, &change.key, value).map(|edited| edited.bytes).ok(),
        // As if from a file without the key.
        None => envfile::set_back(bytes, b"", &change.key).ok(),
    };
    let is_after = envfile::get(bytes, &change.key) == change.value_after;
    let (before, after) =
        if is_after { (with(&change.value_before), now.clone()) } else { (now.clone(), with(&change.value_after)) };
    EnvChange { before, after, ..change.clone() }
}
