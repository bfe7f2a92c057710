//! The domain: one update, from request to proven verdict. It knows traits and plain types only.

pub mod job;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::release::{Channel, Release, SourceError};
use job::Job;

/// What `POST /update` asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
}

/// Why a request was not accepted.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SubmitError {
    /// One job at a time.
    #[error("job {} is active ({}): wait for its end, or follow it at /update/{}", .0.id, .0.state, .0.id)]
    Busy(Box<Job>),
    /// The process is stopping.
    #[error("the updater is stopping: ask again when it is back")]
    Stopping,
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
}

/// What an update would do: the Plan as people see it. No secret is in it, and no value of an
/// environment variable but the version's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What runs.
    pub running_version: Option<String>,
    pub running_image: Option<String>,
    /// The release that was looked at.
    pub release: Option<Release>,
    /// The update would be begun.
    pub allowed: bool,
    /// Why not; says what was found and what was expected.
    pub refusal: Option<String>,
    /// The release is what runs already.
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
}

/// The public face of the domain, shared by every route.
#[derive(Clone)]
pub struct Updater {
    inner: Arc<()>,
}

impl Updater {
    /// Accepts a job and starts it, or says why not. Exactly one of many at once is accepted.
    pub async fn submit(&self, _request: Request) -> Result<Job, SubmitError> {
        unimplemented!("{:p}", self.inner)
    }
    /// Any job that was ever accepted.
    pub async fn job(&self, _id: &str) -> Option<Job> {
        unimplemented!()
    }
    /// The job that has not ended.
    pub fn active(&self) -> Option<Arc<Job>> {
        unimplemented!()
    }
    /// The last `limit` jobs, newest first; from memory, at most 50.
    pub fn history(&self, _limit: usize) -> Vec<Arc<Job>> {
        unimplemented!()
    }
    /// How many jobs there are in all.
    pub fn count(&self) -> usize {
        unimplemented!()
    }
    /// The whole log of a job, from byte `offset` on, at most 512 KiB; `None` for an unknown job.
    pub async fn log(&self, _id: &str, _offset: u64) -> Option<Vec<u8>> {
        unimplemented!()
    }
    /// What an update would do, without any effect.
    pub async fn check(&self, _request: CheckRequest) -> Check {
        unimplemented!()
    }
    /// The newest release of the channel.
    pub async fn latest(&self, _channel: Channel) -> Result<Release, SourceError> {
        unimplemented!()
    }
    /// Every Docker operation is simulated.
    pub fn stub(&self) -> bool {
        unimplemented!()
    }
    /// By which policy signatures are judged, one line.
    pub fn trust(&self) -> String {
        unimplemented!()
    }
}
