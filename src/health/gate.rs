//! The gate: the application is judged by many observations, not by one answer.
//!
//! Healthy means, unbroken for [`GateSettings::stable`]: the right image runs, it has not restarted, its
//! own HEALTHCHECK agrees if it has one, the health URL answers 200, and the answer names the version
//! where a pointer to it is set. A container that has exited is a verdict at once, and so is one that
//! restarts, once that has gone on for a while ([`super::crashes`]). Services that are moved together are
//! judged together, in every look: one that was healthy for long and falls while another is still starting
//! was not.
//!
//! What cannot be seen is no observation: while the engine is away, or this process itself did not run, the clock of
//! the gate stands still, and afterwards the application has the time to show itself healthy once more. A container
//! that somebody else removed, replaced or stopped gets no verdict at all.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use super::crashes::{Crashes, patience};
use super::watch::watched;
use super::{Answer, Evidence, Probe, Silence, VersionAt};
use crate::engine::{Container, Engine, Healthcheck, RunState};

#[derive(Debug, Clone)]
pub struct GateSettings {
    /// Deadline.
    pub timeout: Duration,
    /// Longest pause between two probes.
    pub interval: Duration,
    /// How long it must stay healthy, unbroken.
    pub stable: Duration,
    /// Where the answer names the version.
    pub version: Option<VersionAt>,
    /// Nothing but the container's own HEALTHCHECK decides, so it must have one.
    pub healthcheck_decides: bool,
    /// Restarts are no verdict before the deadline: what it waits for may still come.
    pub to_the_end: bool,
}

/// Who must be healthy.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// How the verdict calls its container: `its container`, `the container of service worker`.
    pub called: String,
    pub container_id: String,
    pub image_id: String,
    /// Compared with the value at [`GateSettings::version`].
    pub version: Option<String>,
    pub demands: Demands,
    /// It was made for this gate: every restart counts. One that ran before may have had restarts of its
    /// own.
    pub fresh: bool,
}

/// How much is asked. The way back asks for what was so before, not more.
#[derive(Debug, Clone, Copy)]
pub struct Demands {
    pub running: bool,
    pub http: bool,
    pub healthcheck: bool,
    /// It runs once: it must have ended, with exit code 0.
    pub ended: bool,
}

impl Demands {
    /// Everything that an application must be.
    pub const ALL: Self = Self { running: true, http: true, healthcheck: true, ended: false };
    /// Its container is there, of the right image.
    pub const NOTHING: Self = Self { running: false, http: false, healthcheck: false, ended: false };
}

/// Why nobody passed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GateError {
    /// It was seen, and does not work.
    #[error("{0}")]
    Unhealthy(String),
    /// Its container ended.
    #[error("{why}")]
    Ended { why: String, evidence: Evidence },
    /// Nothing was seen, or somebody else had a hand in it: this says nothing about the application.
    #[error("{0}")]
    NoVerdict(String),
}

/// The first pause. A healthy application is noticed at once; the pauses grow by half to the interval.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// One probe waits no longer than this, nor than the whole gate.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// After this process did not run for a while, a healthy application has at least so long to begin to show it,
/// beyond [`GateSettings::stable`]: its own HEALTHCHECK may have to come round again.
const AFRESH: Duration = Duration::from_secs(15);
/// So long it is waited to see a crashing container between two of its runs, where its exit code can be read.
const BETWEEN_RUNS: Duration = Duration::from_secs(5);
/// So long an engine that does not answer is waited for.
const MOST_BLINDNESS: Duration = Duration::from_secs(15 * 60);

/// The containers are judged until all are healthy, one is hopeless, or the deadline passes.
///
/// # Errors
/// For the operator: what was last seen.
pub async fn pass(
    engine: &dyn Engine,
    probe: &dyn Probe,
    settings: &GateSettings,
    candidates: &[Candidate],
) -> Result<(), GateError> {
    let start = Instant::now();
    let mut deadline = start + settings.timeout;
    let mut blind = Duration::ZERO;
    let mut pause = FIRST_PAUSE.min(settings.interval);
    let mut streak: Option<Streak> = None;
    let of = |c: &Candidate| if c.fresh { Crashes::of_fresh() } else { Crashes::default() };
    let mut crashes: Vec<_> = candidates.iter().map(of).collect();
    let mut last = GateError::NoVerdict("no observation was complete".into());
    loop {
        let begun = Instant::now();
        let now = begun.duration_since(start).saturating_sub(blind);
        let mut is_blind = false;
        let (look, away) = watched(look_at_all(engine, probe, settings, candidates, &mut crashes, now)).await;
        match look {
            // Whatever it says, it may be of a moment long ago.
            _ if !away.is_never() => {}
            Look::Hopeless(why) => return Err(why),
            Look::Blind(why) if blind > MOST_BLINDNESS => return Err(GateError::NoVerdict(why)),
            Look::Blind(_) => {
                is_blind = true;
                streak = None;
            }
            Look::NotYet(why) => {
                streak = None;
                last = why;
            }
            Look::Healthy(lives) => {
                let kept = streak.take().filter(|s| s.lives == lives);
                let now = streak.insert(kept.unwrap_or_else(|| Streak { since: Instant::now(), lives }));
                if now.since.elapsed() >= settings.stable {
                    return Ok(());
                }
                last = GateError::Unhealthy(format!("healthy, but not yet for {:?}", settings.stable));
            }
        }
        // Who became healthy in time may go on to prove that it stays so.
        let in_time = streak.as_ref().is_some_and(|s| s.since < deadline);
        if away.is_never() && !is_blind && Instant::now() + pause >= deadline && !in_time {
            return Err(too_late(engine, candidates, &crashes, last).await.within(settings.timeout));
        }
        let rest = match &streak {
            // In the last stretch there is no reason to overshoot.
            Some(s) => pause.min(settings.stable.saturating_sub(s.since.elapsed())).max(FIRST_PAUSE.min(pause)),
            None => pause,
        };
        let ((), slept) = watched(sleep(rest)).await;
        pause = (pause + pause / 2).min(settings.interval);
        let away = away.and(slept);
        if is_blind {
            deadline += begun.elapsed();
            blind += begun.elapsed();
        }
        if !away.is_never() {
            tracing::warn!("this process did not run for {:?}: the application is looked at afresh", away.time);
            let counted = if is_blind { Duration::ZERO } else { away.counted };
            deadline = (deadline + counted).max(Instant::now() + settings.stable + AFRESH);
            streak = None;
            crashes.fill(Crashes::default());
        }
    }
}

impl GateError {
    fn within(self, timeout: Duration) -> Self {
        let within = |why: String| format!("not healthy within {timeout:?}: {why}");
        match self {
            Self::Unhealthy(why) => Self::Unhealthy(within(why)),
            Self::Ended { why, evidence } => Self::Ended { why: within(why), evidence },
            Self::NoVerdict(why) => Self::NoVerdict(within(why)),
        }
    }
}

/// An unbroken run of healthy observations of one life of each container.
struct Streak {
    since: Instant,
    lives: Vec<Life>,
}

/// Since when a container runs, and how often it was restarted.
type Life = (Option<jiff::Timestamp>, i64);

enum Look<T> {
    Healthy(T),
    NotYet(GateError),
    /// No waiting helps.
    Hopeless(GateError),
    /// The engine did not answer.
    Blind(String),
}

fn not_yet<T>(why: impl Into<String>) -> Look<T> {
    Look::NotYet(GateError::Unhealthy(why.into()))
}

fn ended(why: String, evidence: Evidence) -> GateError {
    let why = format!("{why}{}", evidence.words());
    GateError::Ended { why, evidence }
}

/// Why the time was not enough: one that has crashed meanwhile tells more than that it was not healthy.
async fn too_late(engine: &dyn Engine, candidates: &[Candidate], crashes: &[Crashes], last: GateError) -> GateError {
    let GateError::Unhealthy(why) = &last else { return last };
    let Some((Candidate { called, container_id, .. }, crashes)) = candidates
        .iter()
        .zip(crashes)
        .filter(|(_, crashes)| crashes.any())
        .max_by_key(|(_, crashes)| crashes.goes_on())
    else {
        return last;
    };
    let Ok(Some(container)) = engine.container(container_id).await else { return last };
    if crashes.goes_on() {
        return crashed(engine, called, container, crashes).await;
    }
    let evidence = Evidence::read(engine, &container.id, &container.name, None, crashes.restarts()).await;
    let how = if crashes.is_loop() { "crashes again and again" } else { "crashed before" };
    ended(format!("{why} ({called} {how}: {})", times(crashes)), evidence)
}

/// It crashes, and that is the verdict.
async fn crashed(engine: &dyn Engine, called: &str, container: Container, crashes: &Crashes) -> GateError {
    let (id, name) = (container.id.clone(), container.name.clone());
    let code = exit_code(engine, container).await;
    let evidence = Evidence::read(engine, &id, &name, code, crashes.restarts()).await;
    let code = code.map_or_else(String::new, |code| format!("exit code {code}, "));
    let how = if crashes.is_loop() { "crashes again and again" } else { "crashes" };
    ended(format!("{called} {how} ({code}{})", times(crashes)), evidence)
}

fn times(crashes: &Crashes) -> String {
    match crashes.restarts() {
        1 => "1 restart".to_owned(),
        n => format!("{n} restarts"),
    }
}

/// Healthy is what all of them are; hopeless, if one of them is. `now`: by the gate's own clock.
async fn look_at_all(
    engine: &dyn Engine,
    probe: &dyn Probe,
    settings: &GateSettings,
    candidates: &[Candidate],
    crashes: &mut [Crashes],
    now: Duration,
) -> Look<Vec<Life>> {
    let looks = candidates.iter().zip(crashes).map(|(c, crashes)| look(engine, probe, settings, c, crashes, now));
    let (mut lives, mut not_yet, mut blind) = (Vec::new(), None, None);
    for look in join_all(looks).await {
        match look {
            Look::Healthy(life) => lives.push(life),
            Look::NotYet(why) => not_yet = not_yet.or(Some(why)),
            Look::Blind(why) => blind = blind.or(Some(why)),
            Look::Hopeless(why) => return Look::Hopeless(why),
        }
    }
    match (blind, not_yet) {
        (Some(why), _) => Look::Blind(why),
        (None, Some(why)) => Look::NotYet(why),
        (None, None) => Look::Healthy(lives),
    }
}

async fn look(
    engine: &dyn Engine,
    probe: &dyn Probe,
    settings: &GateSettings,
    candidate: &Candidate,
    crashes: &mut Crashes,
    now: Duration,
) -> Look<Life> {
    let Candidate { called, demands, .. } = candidate;
    let container = match engine.container(&candidate.container_id).await {
        Ok(Some(c)) => c,
        Ok(None) => return Look::Hopeless(GateError::NoVerdict(format!("{called} was removed by somebody else"))),
        Err(e) => return Look::Blind(e.to_string()),
    };
    if container.image_id != candidate.image_id {
        let (runs, expected) = (&container.image_id, &candidate.image_id);
        return Look::Hopeless(GateError::NoVerdict(format!("{called} runs image {runs}, expected {expected}")));
    }
    let healthy = Look::Healthy((container.started_at, container.restart_count));
    if !demands.running && !demands.ended {
        return healthy;
    }
    crashes.see(&container, now);
    match container.state {
        RunState::Exited if demands.ended && container.exit_code == 0 => return healthy,
        // By itself it would be restarting; an engine that has just come back may still do so.
        RunState::Exited if is_revived(&container) => {
            return Look::NotYet(GateError::NoVerdict(format!("{called} was stopped by somebody else")));
        }
        RunState::Exited | RunState::Dead => {
            let code = container.exit_code;
            let evidence = Evidence::read(engine, &container.id, &container.name, Some(code), crashes.restarts()).await;
            return Look::Hopeless(ended(format!("{called} exited with code {code}"), evidence));
        }
        _ if !settings.to_the_end && crashes.are_a_verdict(now, patience(settings.timeout)) => {
            return Look::Hopeless(crashed(engine, called, container, crashes).await);
        }
        RunState::Running if demands.ended => {
            return not_yet(format!("{called} still runs; the one before it had run to its end"));
        }
        RunState::Running => {}
        RunState::Created => return Look::NotYet(GateError::NoVerdict(format!("{called} was never started"))),
        state => return not_yet(format!("{called} is {}", format!("{state:?}").to_lowercase())),
    }
    match (demands.healthcheck, container.healthcheck) {
        (true, Healthcheck::Starting) => return not_yet(format!("the HEALTHCHECK of {called} is still starting")),
        (true, Healthcheck::Unhealthy) => return not_yet(format!("the HEALTHCHECK of {called} says unhealthy")),
        _ => {}
    }
    if !demands.http {
        return healthy;
    }
    if settings.healthcheck_decides && container.healthcheck == Healthcheck::None {
        return Look::Hopeless(GateError::NoVerdict(format!(
            "{called} has no HEALTHCHECK, and PROCESSGIT_UPDATER_HEALTH_URL=none leaves the verdict to it"
        )));
    }
    match judge(probe.ask(&container, PROBE_TIMEOUT.min(settings.timeout)).await, settings, candidate) {
        Ok(()) => healthy,
        Err(why) => Look::NotYet(why),
    }
}

/// The exit code of the run that ended last. While the container runs again the engine says 0, so it is waited for
/// the moment between two runs.
async fn exit_code(engine: &dyn Engine, mut container: Container) -> Option<i64> {
    let begun = Instant::now();
    while container.is_running() && begun.elapsed() < BETWEEN_RUNS {
        sleep(FIRST_PAUSE).await;
        container = engine.container(&container.id).await.ok()??;
    }
    (!container.is_running()).then_some(container.exit_code)
}

/// Its restart policy would start it again, whatever its exit code, unless a person has stopped it.
fn is_revived(container: &Container) -> bool {
    matches!(container.restart_policy.name.as_str(), "always" | "unless-stopped")
}

/// Is this answer what a healthy application of this version says?
fn judge(answer: Answer, settings: &GateSettings, candidate: &Candidate) -> Result<(), GateError> {
    let unhealthy = |why: String| Err(GateError::Unhealthy(why));
    let body = match answer {
        Answer::Accepted => return Ok(()),
        Answer::Http { status: 200, body } => body,
        Answer::Http { status, .. } => return unhealthy(format!("the health URL answers {status}, expected 200")),
        // It was not even asked.
        Answer::Silent(why @ Silence::NoSuchName { .. }) => return Err(GateError::NoVerdict(why.to_string())),
        Answer::Silent(why) => return unhealthy(format!("the health URL does not answer: {why}")),
    };
    let (Some(at), Some(expected)) = (&settings.version, &candidate.version) else { return Ok(()) };
    match at.find(&body) {
        Ok(found) if found == *expected => Ok(()),
        Ok(found) => unhealthy(format!("the health answer says version {found} at {at}, expected {expected}")),
        Err(why) => unhealthy(format!("{why}, expected {expected}")),
    }
}
