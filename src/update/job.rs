//! The job as everybody outside sees it: the shape the HTTP contract fixes.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::refusal::Code;
use crate::health::Evidence;
use crate::text;

/// The most that a step's `output` holds, in bytes; older text is dropped at a line's start. The whole
/// log is a route of its own. The admin page reads at most 1 MiB of any answer, and `/history` answers
/// with fifty jobs, hence the small number (see [`Job::for_history`]).
pub const OUTPUT_TAIL: usize = 16 * 1024;

/// What a job is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    #[default]
    Update,
    /// A snapshot by hand.
    Snapshot,
    /// The data of a snapshot, by hand.
    Restore,
    /// Back to the version before the last committed update, by hand.
    Rollback,
    /// The updater itself, by a deputy.
    SelfUpdate,
}

/// Where a job stands. The names are the contract's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Idle,
    Planning,
    Pulling,
    Verifying,
    Snapshotting,
    Migrating,
    Swapping,
    Healthchecking,
    RollingBack,
    /// The new version runs and has proven healthy.
    Committed,
    /// The update did not happen; the application is as it was before.
    RolledBack,
    /// A person is needed; the job's error says what to do.
    Failed,
    /// Stopped on request before anything was changed.
    Aborted,
}

impl State {
    /// No further step follows.
    pub fn is_end(self) -> bool {
        matches!(self, State::Committed | State::RolledBack | State::Failed | State::Aborted)
    }

    /// The name in the API, in logs and on the terminal.
    pub fn name(self) -> &'static str {
        match self {
            State::Idle => "idle",
            State::Planning => "planning",
            State::Pulling => "pulling",
            State::Verifying => "verifying",
            State::Snapshotting => "snapshotting",
            State::Migrating => "migrating",
            State::Swapping => "swapping",
            State::Healthchecking => "healthchecking",
            State::RollingBack => "rolling_back",
            State::Committed => "committed",
            State::RolledBack => "rolled_back",
            State::Failed => "failed",
            State::Aborted => "aborted",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// `job_` and sixteen hexadecimal digits; whatever is read from outside is nothing else (`FromStr`,
/// `Deserialize`), so that it may stand in names, paths and commands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct JobId(pub String);

impl JobId {
    /// A fresh identifier from 64 random bits.
    pub fn random() -> Self {
        Self(format!("job_{:016x}", rand::random::<u64>()))
    }

    /// The sixteen digits.
    pub fn digits(&self) -> &str {
        self.0.trim_start_matches(JOB)
    }
}

const JOB: &str = "job_";

/// A text that is no job's identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is no job's id (job_ and sixteen hexadecimal digits): {0:?}")]
pub struct NoJobId(String);

impl TryFrom<String> for JobId {
    type Error = NoJobId;

    fn try_from(text: String) -> Result<Self, NoJobId> {
        let is_digit = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        match text.strip_prefix(JOB).is_some_and(|digits| digits.len() == 16 && digits.bytes().all(is_digit)) {
            true => Ok(Self(text)),
            false => Err(NoJobId(text.chars().take(64).collect())),
        }
    }
}

impl FromStr for JobId {
    type Err = NoJobId;

    fn from_str(text: &str) -> Result<Self, NoJobId> {
        text.to_owned().try_into()
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One layer of an image on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    pub id: String,
    /// The engine's own words: `Downloading`, `Extracting`, `Pull complete`, `Already exists` …
    pub status: String,
    /// Bytes so far.
    #[serde(default)]
    pub current: u64,
    /// Bytes in all, 0 while unknown.
    #[serde(default)]
    pub total: u64,
}

/// How far copying has come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyProgress {
    pub files: u64,
    pub bytes: u64,
    /// Bytes a second, since the pass began.
    pub rate: u64,
    /// Of these: entries that the mounts have, and bytes that are not in an earlier snapshot. As the look at the
    /// room found them; the application may have written since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_files: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<u64>,
}

/// What a step shows while it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Progress {
    Layers(Vec<Layer>),
    Copy(CopyProgress),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    pub state: State,
    pub started_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Timestamp>,
    /// A bounded tail ([`OUTPUT_TAIL`]) of what the step printed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
}

/// A request to change the application, and what has become of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    pub id: JobId,
    #[serde(default)]
    pub kind: Kind,
    pub state: State,
    pub target_tag: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_version: Option<String>,
    /// `registry/repository:tag`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_image: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_digest: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_image: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_version: Option<String>,
    pub started_at: Timestamp,
    pub updated_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Timestamp>,
    #[serde(default)]
    pub steps: Vec<Step>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Why the job did not do what it was asked for, for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// It failed, and no person has settled it yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub needs_you: bool,
    /// When a person declared the failed job done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled_at: Option<Timestamp>,
    /// What the operator should know, but what stopped nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Every Docker operation was simulated.
    #[serde(default)]
    pub stub: bool,
    /// The snapshot that was taken of the data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// The snapshot that keeps what a failed version, or a failed restore, had written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_snapshot: Option<String>,
    /// What was verified, and how: one line each for the manifest and the image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verified: Vec<Verified>,
    /// What the container left whose failure turned the job back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// The application was touched, or might have been: its container, its data or `.env`. Absent in jobs of
    /// versions that did not record it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub touched: Option<bool>,
}

/// Why a job did not do what it was asked for: the first cause, not what followed from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    pub code: Code,
    pub text: String,
}

/// What a verified signature says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// `manifest` or `image`.
    pub subject: String,
    /// Where the signature was found: `release.json.sigstore.json`, `release.json.sig`, `referrers` …
    pub carrier: String,
    /// Keyless: the identity in the certificate. Key: `key sha256:<hex of the SPKI>`.
    pub identity: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_index: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integrated_time: Option<Timestamp>,
}

impl Verified {
    /// The subject of a verified `release.json`.
    pub const MANIFEST: &str = "manifest";
}

impl Job {
    /// A job that has just been accepted.
    pub fn new(id: JobId, target_tag: String, now: Timestamp, stub: bool) -> Self {
        Self {
            id,
            kind: Kind::Update,
            state: State::Idle,
            target_tag,
            target_version: None,
            target_image: None,
            target_digest: None,
            previous_image: None,
            previous_version: None,
            started_at: now,
            updated_at: now,
            completed_at: None,
            steps: Vec::new(),
            error: None,
            reason: None,
            needs_you: false,
            settled_at: None,
            warnings: Vec::new(),
            stub,
            snapshot: None,
            failed_snapshot: None,
            verified: Vec::new(),
            evidence: None,
            touched: Some(false),
        }
    }

    /// The job enters `state`: the step before is complete, a new one begins. An end state is itself the
    /// last step, complete at once. Entering the state it is in already does nothing (a step may consist
    /// of several effects).
    pub fn enter(&mut self, state: State, now: Timestamp) {
        self.updated_at = now;
        if self.state == state && self.steps.last().is_some_and(|s| s.completed_at.is_none()) {
            return;
        }
        self.state = state;
        self.complete_step(now);
        let completed_at = state.is_end().then_some(now);
        self.completed_at = completed_at;
        self.steps.push(Step { state, started_at: now, completed_at, output: None, error: None, progress: None });
    }

    fn complete_step(&mut self, now: Timestamp) {
        if let Some(step) = self.steps.last_mut() {
            step.completed_at.get_or_insert(now);
        }
    }

    /// The running step has failed.
    pub fn fail_step(&mut self, error: &str, now: Timestamp) {
        self.updated_at = now;
        if let Some(step) = self.steps.last_mut() {
            step.error = Some(text::clean(error).into_owned());
            step.completed_at = Some(now);
        }
    }

    /// Adds a line to the running step's output and drops what exceeds [`OUTPUT_TAIL`].
    pub fn say(&mut self, line: &str, now: Timestamp) {
        self.updated_at = now;
        let Some(step) = self.steps.last_mut() else { return };
        let output = step.output.get_or_insert_default();
        // It may be what a container printed.
        output.push_str(&text::clean(line));
        output.push('\n');
        if output.len() > OUTPUT_TAIL {
            let cut = output.len() - OUTPUT_TAIL;
            let from = output.as_bytes()[cut..].iter().position(|b| *b == b'\n').map_or(cut, |at| cut + at + 1);
            let from = (from..=output.len()).find(|at| output.is_char_boundary(*at)).unwrap_or(output.len());
            output.drain(..from);
        }
    }

    /// The running step's progress.
    pub fn progress(&mut self, progress: Progress, now: Timestamp) {
        self.updated_at = now;
        if let Some(step) = self.steps.last_mut() {
            step.progress = Some(progress);
        }
    }
}
