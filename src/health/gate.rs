//! The gate: the application is judged by many observations, not by one answer.
//!
//! Healthy means, unbroken for [`GateSettings::stable`]: the right image runs, it has not restarted, its
//! own HEALTHCHECK agrees if it has one, the health URL answers 200, and the answer names the version
//! where a pointer to it is set. A container that has exited, or restarts again and again, is a verdict
//! at once. Services that are moved together are judged together, in every look: one that was healthy for
//! long and falls while another is still starting was not.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout_at};

use super::{Answer, Probe};
use crate::engine::{Engine, Healthcheck, RunState};

#[derive(Debug, Clone)]
pub struct GateSettings {
    /// Deadline.
    pub timeout: Duration,
    /// Longest pause between two probes.
    pub interval: Duration,
    /// How long it must stay healthy, unbroken.
    pub stable: Duration,
    /// JSON pointer into the answer.
    pub version: Option<String>,
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

/// The first pause. A healthy application is noticed at once; the pauses grow by half to the interval.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// One probe waits no longer than this, however long the deadline is.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// So many restarts within one gate are a crash loop. The engine restarts after 0.1, 0.2, 0.4 … seconds,
/// so this is about a second; fewer may be an application that waits for its database by dying.
const RESTARTS: i64 = 3;

/// The containers are judged until all are healthy, one is hopeless, or the deadline passes. The error is
/// for the operator and says what was last seen.
pub async fn pass(
    engine: &dyn Engine,
    probe: &dyn Probe,
    settings: &GateSettings,
    candidates: &[Candidate],
) -> Result<(), String> {
    let deadline = Instant::now() + settings.timeout;
    let mut pause = FIRST_PAUSE.min(settings.interval);
    let mut streak: Option<Streak> = None;
    let mut restarts = vec![None; candidates.len()];
    let mut last = "no observation was complete".to_owned();
    loop {
        match timeout_at(deadline, look_at_all(engine, probe, settings, candidates, &mut restarts)).await {
            // The deadline cut this look off; what was seen before it is what there is to say.
            Err(_) => {}
            Ok(Look::Hopeless(why)) => return Err(why),
            Ok(Look::NotYet(why)) => {
                streak = None;
                last = why;
            }
            Ok(Look::Healthy(lives)) => {
                let kept = streak.take().filter(|s| s.lives == lives);
                let now = streak.insert(kept.unwrap_or_else(|| Streak { since: Instant::now(), lives }));
                if now.since.elapsed() >= settings.stable {
                    return Ok(());
                }
                last = format!("healthy, but not yet for {:?}", settings.stable);
            }
        }
        if Instant::now() + pause >= deadline {
            return Err(format!("not healthy within {:?}: {last}", settings.timeout));
        }
        sleep(match &streak {
            // In the last stretch there is no reason to overshoot.
            Some(s) => pause.min(settings.stable.saturating_sub(s.since.elapsed())).max(FIRST_PAUSE.min(pause)),
            None => pause,
        })
        .await;
        pause = (pause + pause / 2).min(settings.interval);
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
    NotYet(String),
    /// No waiting helps.
    Hopeless(String),
}

/// Healthy is what all of them are; hopeless, if one of them is. `restarts`: how often each had restarted
/// before.
async fn look_at_all(
    engine: &dyn Engine,
    probe: &dyn Probe,
    settings: &GateSettings,
    candidates: &[Candidate],
    restarts: &mut [Option<i64>],
) -> Look<Vec<Life>> {
    let looks = candidates.iter().zip(restarts).map(|(c, before)| look(engine, probe, settings, c, before));
    let (mut lives, mut not_yet) = (Vec::new(), None);
    for look in join_all(looks).await {
        match look {
            Look::Healthy(life) => lives.push(life),
            Look::NotYet(why) => not_yet = not_yet.or(Some(why)),
            Look::Hopeless(why) => return Look::Hopeless(why),
        }
    }
    not_yet.map_or(Look::Healthy(lives), Look::NotYet)
}

async fn look(
    engine: &dyn Engine,
    probe: &dyn Probe,
    settings: &GateSettings,
    candidate: &Candidate,
    restarts_before: &mut Option<i64>,
) -> Look<Life> {
    let Candidate { called, demands, .. } = candidate;
    let container = match engine.container(&candidate.container_id).await {
        Ok(Some(c)) => c,
        Ok(None) => return Look::Hopeless(format!("{called} was removed by somebody else")),
        Err(e) => return Look::NotYet(e.to_string()),
    };
    if container.image_id != candidate.image_id {
        return Look::Hopeless(format!("{called} runs image {}, expected {}", container.image_id, candidate.image_id));
    }
    let healthy = Look::Healthy((container.started_at, container.restart_count));
    let before = *restarts_before.get_or_insert(if candidate.fresh { 0 } else { container.restart_count });
    let restarts = container.restart_count - before;
    match container.state {
        _ if !demands.running && !demands.ended => return healthy,
        RunState::Exited if demands.ended && container.exit_code == 0 => return healthy,
        RunState::Exited | RunState::Dead => {
            let tail = tail(engine, &container.id).await;
            return Look::Hopeless(format!("{called} exited with code {}{tail}", container.exit_code));
        }
        _ if restarts >= RESTARTS => {
            let tail = tail(engine, &container.id).await;
            return Look::Hopeless(format!(
                "{called} crashes again and again (exit code {}, {restarts} restarts){tail}",
                container.exit_code
            ));
        }
        RunState::Running if demands.ended => {
            return Look::NotYet(format!("{called} still runs; the one before it had run to its end"));
        }
        RunState::Running => {}
        state => return Look::NotYet(format!("{called} is {}", format!("{state:?}").to_lowercase())),
    }
    match (demands.healthcheck, container.healthcheck) {
        (true, Healthcheck::Starting) => return Look::NotYet(format!("the HEALTHCHECK of {called} is still starting")),
        (true, Healthcheck::Unhealthy) => return Look::NotYet(format!("the HEALTHCHECK of {called} says unhealthy")),
        _ => {}
    }
    if !demands.http {
        return healthy;
    }
    match judge(probe.ask(&container, PROBE_TIMEOUT).await, settings, candidate) {
        Ok(()) => healthy,
        Err(why) => Look::NotYet(why),
    }
}

/// Is this answer what a healthy application of this version says?
fn judge(answer: Answer, settings: &GateSettings, candidate: &Candidate) -> Result<(), String> {
    let body = match answer {
        Answer::Silent(why) => return Err(format!("the health URL does not answer: {why}")),
        Answer::Http { status: 200, body } => body,
        Answer::Http { status, .. } => return Err(format!("the health URL answers {status}, expected 200")),
    };
    let (Some(pointer), Some(expected)) = (&settings.version, &candidate.version) else { return Ok(()) };
    let json: serde_json::Value = serde_json::from_slice(&body)
        .map_err(|e| format!("the health answer is no JSON, but a version was expected at {pointer}: {e}"))?;
    let found = match json.pointer(pointer) {
        Some(serde_json::Value::String(text)) => text.strip_prefix('v').unwrap_or(text).to_owned(),
        Some(other) => other.to_string(),
        None => return Err(format!("the health answer has nothing at {pointer}, expected {expected}")),
    };
    if found == *expected {
        Ok(())
    } else {
        Err(format!("the health answer says version {found} at {pointer}, expected {expected}"))
    }
}

/// The container's last words, for the verdict.
async fn tail(engine: &dyn Engine, id: &str) -> String {
    match engine.log_tail(id, 5).await {
        Ok(lines) if !lines.is_empty() => format!("; its last words: {}", lines.join(" | ")),
        _ => String::new(),
    }
}
