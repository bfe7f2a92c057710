//! Everything that would make an update fail, or go wrong at midnight, looked at beforehand. Nothing is
//! changed. Where planning has a rule, that rule is asked, not a second one.
//!
//! | file | holds |
//! |---|---|
//! | this one       | who looks, in which order, and for how long |
//! | [`finding`]    | what a check says, [`show`] how people read it (both pure) |
//! | [`around`]     | what only the doctor asks of the world, and [`here`] how it is asked |
//! | [`settings`]   | faults, names that nobody knows, the token (pure) |
//! | [`engine`]     | the engine, its socket, a proxy before it |
//! | [`application`]| the container, its health, its project |
//! | [`deployment`] | Compose, `.env`, what follows the version key, drift |
//! | [`projects`]   | data that stayed in the volumes of another project |
//! | [`data`]       | who writes to the data, room for snapshots and where they are kept |
//! | [`source`]     | whom is trusted, releases, registry, the clock |
//! | [`state`]      | the state folder, unfinished jobs, leftovers |
//! | [`itself`]     | the updater's own update |

pub mod application;
pub mod around;
pub mod data;
pub mod deployment;
pub mod engine;
pub mod finding;
pub mod here;
pub mod itself;
pub mod projects;
pub mod settings;
pub mod show;
pub mod source;
pub mod state;

pub use finding::{Finding, Report, Verdict};

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::timeout;

use crate::settings::{Fault, Settings, name};
use crate::update::job::Job;
use crate::update::ports::{Options, Ports};
use crate::update::refusal::{Code, Refused};
use crate::update::settle;
use around::{Around, Holder, StateFolder};

/// One look at engine or disk.
const LOOK: Duration = Duration::from_secs(15);
/// One question to the world outside.
const OUTSIDE: Duration = Duration::from_secs(25);
/// One run of Compose or one walk through the data, a helper's start included.
const WORK: Duration = Duration::from_secs(40);

/// Looks at everything.
#[derive(Clone)]
pub struct Doctor {
    pub settings: Settings,
    /// What is wrong with them; [`Doctor::settings`] has the defaults instead.
    pub faults: Vec<Fault>,
    /// The variables of this environment that are meant for the updater.
    pub names: Vec<String>,
    pub ports: Ports,
    pub options: Options,
    pub around: Arc<dyn Around>,
}

/// For the API.
#[async_trait]
pub trait Examine: Send + Sync {
    async fn examine(&self) -> Report;
}

/// The checks that need the engine.
const ENGINE: [&str; 4] = ["engine", "socket", "engine calls", "place"];
/// The checks that need the application's container, in their order.
const APPLICATION: &[&str] = &[
    "application",
    "health",
    "healthcheck",
    "project",
    "services",
    "compose",
    ".env",
    "version key",
    "drift",
    "followers",
    "data",
    "data beside",
    "writers",
    "hooks",
    "room",
    "snapshots",
];

#[async_trait]
impl Examine for Doctor {
    async fn examine(&self) -> Report {
        let mut findings = settings::check(self);
        let state = self.around.state().await;
        let unfinished = asked(LOOK, self.ports.journal.unfinished()).await;
        let unfinished = unfinished.map(|jobs| jobs.into_iter().map(|(job, _)| job).collect::<Vec<_>>());
        if self.settings.stub {
            let simulated = "stub mode simulates every Docker operation";
            let docker = ENGINE.iter().chain(APPLICATION);
            findings.extend(docker.map(|check| Finding::skipped(check, simulated)));
            let outside = source::Outside::look(self).await;
            findings.extend(source::check(self, &outside, None, None).await);
            findings.extend(state::check(self, &state, &unfinished, None).await);
            findings.extend(itself::check(self).await);
            return self.report(findings).await;
        }
        let seen = engine::Seen::look(self).await;
        let ahead = source::ahead(seen.facts.as_ref(), self.ports.clock.now());
        // Before any helper of ours is made: those that are there now are somebody else's.
        let containers = match &seen.info {
            Ok(_) => asked(LOOK, self.ports.engine.containers(&[])).await,
            Err(why) => Err(why.clone()),
        };
        let busy = self.busy(&state, &unfinished);
        let application = async {
            match (&seen.info, &containers) {
                (Ok(info), Ok(containers)) => application::check(self, info, containers, busy.as_deref()).await,
                (_, Err(_)) | (Err(_), _) => {
                    let unseen = "the engine does not answer";
                    (APPLICATION.iter().map(|check| Finding::skipped(check, unseen)).collect(), None)
                }
            }
        };
        let of_itself = async {
            match &busy {
                Some(busy) => vec![Finding::unseen("self-update", busy)],
                None => itself::check(self).await,
            }
        };
        let (of_engine, (of_application, deployment), outside, of_state, of_itself) = tokio::join!(
            engine::check(self, &seen, containers.as_ref().err()),
            application,
            source::Outside::look(self),
            state::check(self, &state, &unfinished, containers.as_deref().ok()),
            of_itself
        );
        findings.extend(of_engine.into_iter().chain(of_application));
        findings.extend(source::check(self, &outside, ahead, deployment.as_ref()).await);
        findings.extend(of_state);
        findings.extend(of_itself);
        self.report(findings).await
    }
}

impl Doctor {
    /// Why neither Compose nor the data may be looked at now: a look of ours would get in the way of a job.
    fn busy(&self, state: &StateFolder, unfinished: &Result<Vec<Job>, Refused>) -> Option<String> {
        let job = unfinished.as_ref().ok().and_then(|jobs| jobs.first())?;
        let is_held = state.holder != Holder::Nobody;
        is_held.then(|| format!("{} is at work ({}): ask again when it has ended", job.id, job.state))
    }

    /// A failed job that waits for a person comes first, and silences what contradicts its own commands.
    async fn report(&self, findings: Vec<Finding>) -> Report {
        let waiting = asked(LOOK, self.ports.journal.waiting()).await.unwrap_or_default();
        let told = self.understood(findings);
        let waiting: Vec<&Job> = waiting.iter().filter(|job| job.stub == self.options.stub).collect();
        let in_the_way = settle::in_the_way(waiting.iter().copied());
        let quiet = |finding: Finding| match in_the_way {
            Some(job) => Finding { remedy: settle::fitting(job, finding.code, finding.remedy), ..finding },
            None => finding,
        };
        let first = |job: &&Job| Finding::bad("failed job", settle::finding(job));
        let findings = waiting.iter().map(first).chain(told.into_iter().map(quiet)).collect();
        Report::new(self.ports.clock.now(), findings)
    }

    /// What was looked at with a default, in the place of a faulty setting, says nothing.
    fn understood(&self, findings: Vec<Finding>) -> Vec<Finding> {
        let faulty = |check: &str| {
            let depends = DEPENDS.iter().filter(|(_, checks)| checks.contains(&check)).map(|(variable, _)| *variable);
            depends.into_iter().find(|variable| self.faults.iter().any(|fault| fault.variable == *variable))
        };
        let mut told: Vec<Finding> = Vec::new();
        for finding in findings {
            match faulty(&finding.check) {
                None => told.push(finding),
                Some(_) if told.iter().any(|known| known.check == finding.check) => {}
                Some(variable) => {
                    told.push(Finding::skipped(&finding.check, format!("{variable} cannot be understood")));
                }
            }
        }
        told
    }
}

/// Which checks say nothing when a variable is faulty.
const DEPENDS: &[(&str, &[&str])] = &[
    (name::APP_CONTAINER, APPLICATION),
    (name::APP_SERVICE, APPLICATION),
    (name::MOVE_SERVICES, &["services", "followers"]),
    (name::STOP_SERVICES, &["writers"]),
    (name::DATA_SERVICES, &["data", "data beside", "writers"]),
    (name::DATA_ELSEWHERE, &["data beside"]),
    (name::HOOK_BEFORE_COPY, &["hooks", "data beside"]),
    (name::HOOK_AFTER_RESTORE, &["hooks", "data beside"]),
    (name::VERSION_KEY, &["version key", "drift", "followers"]),
    (name::ENV_FILE, &[".env", "version key"]),
    (name::HEALTH_URL, &["health"]),
    (name::HEALTH_VERSION, &["health"]),
    (name::HEALTH_TIMEOUT, &["healthcheck"]),
    (name::SNAPSHOT, &["data", "writers", "room", "snapshots"]),
    (name::SNAPSHOT_DIR, &["room", "snapshots"]),
    (name::SNAPSHOT_EXCLUDE, &["data"]),
    (name::STATE_DIR, &["state folder", "journal", "jobs", "room", "snapshots"]),
    (name::REPO, &["releases", "newest release", "registry", "image signature", "trust"]),
    (name::GITHUB_API, &["releases", "newest release", "registry", "image signature"]),
    (name::GITHUB_TOKEN, &["releases", "newest release", "registry", "image signature"]),
    (name::GITHUB_TOKEN_HOSTS, &["releases", "newest release", "registry", "image signature"]),
    (name::GITHUB_TOKEN_FILE, &["releases", "newest release", "registry", "image signature"]),
    (name::SIGNING_ISSUER, &["trust", "newest release", "image signature"]),
    (name::SIGNING_IDENTITY_REGEX, &["trust", "newest release", "image signature"]),
    (name::TRUSTED_ROOT_REFRESH, &["trusted root"]),
    (name::VERIFY_IMAGE, &["image signature"]),
];

/// The answer, or why there is none in time.
async fn asked<T>(limit: Duration, work: impl Future<Output = Result<T, impl Into<Refused>>>) -> Result<T, Refused> {
    match timeout(limit, work).await {
        Ok(done) => done.map_err(Into::into),
        Err(_) => Err(Refused::because(Code::TimedOut, format!("no answer within {} s", limit.as_secs()))),
    }
}

/// One finding for each reason.
fn bad(check: &str, refused: Refused) -> impl Iterator<Item = Finding> {
    refused.0.into_iter().map(move |refusal| Finding::bad(check, refusal))
}
