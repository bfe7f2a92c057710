//! What the journal knows of an unfinished job, beyond what the world may see.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Order;
use super::job::JobId;
use super::plan::Plan;
use super::refusal::Code;
use super::transition::Effect;

/// Which way the job goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Heading {
    There,
    Back { why: String },
}

/// What effects have learned, for later effects and for the way back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Learned {
    /// The id of the new image in this engine's store.
    pub new_image_id: Option<String>,
    /// The containers that the swap made, by service.
    #[serde(default)]
    pub new_containers: BTreeMap<String, String>,
    /// Anonymous volumes that came with the new version's containers; they go when it does.
    #[serde(default)]
    pub new_volumes: BTreeSet<String>,
    /// Those that were stopped, by id, and since when they had been running: another time means that somebody
    /// has started them since.
    #[serde(default)]
    pub stopped: BTreeMap<String, Option<Timestamp>>,
    /// Those among them that this job has started again already, because the application needs them.
    #[serde(default)]
    pub started_again: BTreeSet<String>,
    /// Since when they are stopped.
    #[serde(default)]
    pub stopped_at: Option<Timestamp>,
    /// Containers with a writable mount of the data that did not run when the application was stopped, by id, and
    /// when they had last been started. `None` before that.
    #[serde(default)]
    pub bystanders: Option<BTreeMap<String, Option<Timestamp>>>,
    /// Since when the application may be writing, with the new version or with other data.
    pub swap_began: Option<Timestamp>,
    /// Another version than the old one ran before our own swap: somebody else's doing.
    #[serde(default)]
    pub others_wrote: bool,
    /// The generation that holds the data from before.
    pub generation: Option<String>,
    /// Where the failed version's data went.
    pub failed_generation: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub job: JobId,
    pub order: Order,
    pub plan: Option<Plan>,
    pub heading: Heading,
    /// What it went back for, for programs.
    #[serde(default)]
    pub code: Option<Code>,
    /// Effects whose intent was recorded.
    pub begun: Vec<Effect>,
    /// Effects whose success was recorded.
    pub done: Vec<Effect>,
    /// The effect on the way there that failed.
    pub failed_there: Option<Effect>,
    /// It failed because the version that was tried does not work.
    #[serde(default)]
    pub blamed: bool,
    /// The undo that failed, after its retries.
    pub failed_back: Option<Effect>,
    pub learned: Learned,
    /// How many processes have worked on it.
    pub lives: u32,
    /// An earlier process died on it.
    pub interrupted: bool,
    /// Left on request, before anything was changed.
    #[serde(default)]
    pub aborted: bool,
    /// The containers of this job are sealed ([`crate::engine::seal`]). A job that a version without seals has
    /// begun has some that are not.
    #[serde(default)]
    pub sealed: bool,
}

impl Record {
    /// A job that could not be recovered in so many lives needs a person.
    pub const MAX_LIVES: u32 = 5;

    pub fn new(job: JobId, order: Order) -> Self {
        Self {
            job,
            order,
            plan: None,
            heading: Heading::There,
            code: None,
            begun: Vec::new(),
            done: Vec::new(),
            failed_there: None,
            blamed: false,
            failed_back: None,
            learned: Learned::default(),
            lives: 1,
            interrupted: false,
            aborted: false,
            sealed: true,
        }
    }

    /// From here on it goes back, because of this.
    pub fn turn(&mut self, code: Code, why: String) {
        self.code.get_or_insert(code);
        self.heading = Heading::Back { why };
    }

    pub fn has_begun(&self, effect: Effect) -> bool {
        self.begun.contains(&effect)
    }

    /// What is done once more is not done before it is.
    pub fn begin(&mut self, effect: Effect) {
        if !self.has_begun(effect) || self.has_done(effect) {
            self.begun.push(effect);
        }
        self.done.retain(|e| *e != effect);
    }

    pub fn has_done(&self, effect: Effect) -> bool {
        self.done.contains(&effect)
    }

    /// Why it went back, or `otherwise` when it has not.
    pub fn why_or(&self, otherwise: &str) -> String {
        match &self.heading {
            Heading::There => otherwise.to_owned(),
            Heading::Back { why } => why.clone(),
        }
    }

    /// It is the new version's own fault: its migration failed, or it was started and not healthy. A
    /// network failure, or an interrupted updater, says nothing about the version; neither does a job by
    /// hand, which brings a version together with data it did not leave behind.
    ///
    /// Nor is it blamed where the application was not well before: what made it so, a wrong health URL or a
    /// database that is down, may have failed the new version too.
    pub fn new_version_is_bad(&self) -> bool {
        let was_well = self.plan.as_ref().is_none_or(|plan| plan.previous.baseline.is_well());
        self.blamed && was_well && matches!(self.order, Order::Update(_))
    }
}
