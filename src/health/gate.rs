//! The gate: the application is judged by many observations, not by one answer.
//!
//! Healthy means, unbroken for [`GateSettings::stable`]: the right image runs, it has not restarted, its
//! own HEALTHCHECK agrees if it has one, the health URL answers 200, and the answer names the version
//! where a pointer to it is set. A container that has exited, or restarts again and again, is a verdict
//! at once.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::{Answer, Probe};
use crate::engine::{Container, Engine, Healthcheck, RunState};

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
    pub container_id: String,
    pub image_id: String,
    /// Compared with the value at [`GateSettings::version`].
    pub version: Option<String>,
}

/// How much is asked. The way back asks for what was so before, not more.
#[derive(Debug, Clone, Copy)]
pub struct Demands {
    pub running: bool,
    pub http: bool,
    pub healthcheck: bool,
}

impl Demands {
    /// Everything.
    pub const ALL: Self = Self { running: true, http: true, healthcheck: true };
}

/// The first pause. A healthy application is noticed at once; the pauses grow by half to the interval.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// One probe waits no longer than this, however long the deadline is.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// So many restarts within one gate are a crash loop. The engine restarts after 0.1, 0.2, 0.4 … seconds,
/// so this is about a second; fewer may be an application that waits for its database by dying.
const RESTARTS: i64 = 3;

/// The container is judged until it is healthy, hopeless, or the deadline passes. The error is for the
/// operator and says what was last seen.
pub async fn pass(
    engine: &dyn Engine,
    probe: &dyn Probe,
    settings: &GateSettings,
    candidate: &Candidate,
    demands: Demands,
) -> Result<(), String> {
    let deadline = Instant::now() + settings.timeout;
    let mut pause = FIRST_PAUSE.min(settings.interval);
    let mut streak: Option<Streak> = None;
    let mut first: Option<Container> = None;
    let mut last = "no observation was complete".to_owned();
    loop {
        match timeout_at(deadline, look(engine, probe, settings, candidate, demands, first.as_ref())).await {
            // The deadline cut this look off; what was seen before it is what there is to say.
            Err(_) => {}
            Ok(Look::Hopeless(why)) => return Err(why),
            Ok(Look::NotYet(why, container)) => {
                streak = None;
                first = first.or(container.map(|c| *c));
                last = why;
            }
            Ok(Look::Healthy(container)) => {
                let kept = streak.take().filter(|s| s.is_same(&container));
                let now = streak.insert(kept.unwrap_or_else(|| Streak::begin(&container)));
                if now.since.elapsed() >= settings.stable {
                    return Ok(());
                }
                first.get_or_insert(*container);
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

/// An unbroken run of healthy observations of one life of one container.
struct Streak {
    since: Instant,
    restart_count: i64,
    started_at: Option<jiff::Timestamp>,
}

impl Streak {
    fn begin(c: &Container) -> Self {
        Self { since: Instant::now(), restart_count: c.restart_count, started_at: c.started_at }
    }

    fn is_same(&self, c: &Container) -> bool {
        self.restart_count == c.restart_count && self.started_at == c.started_at
    }
}

enum Look {
    Healthy(Box<Container>),
    NotYet(String, Option<Box<Container>>),
    /// No waiting helps.
    Hopeless(String),
}

async fn look(
    engine: &dyn Engine,
    probe: &dyn Probe,
    settings: &GateSettings,
    candidate: &Candidate,
    demands: Demands,
    first: Option<&Container>,
) -> Look {
    let container = match engine.container(&candidate.container_id).await {
        Ok(Some(c)) => c,
        Ok(None) => return Look::Hopeless("its container was removed by somebody else".into()),
        Err(e) => return Look::NotYet(e.to_string(), None),
    };
    if container.image_id != candidate.image_id {
        return Look::Hopeless(format!(
            "its container runs image {}, expected {}",
            container.image_id, candidate.image_id
        ));
    }
    if !demands.running {
        return Look::Healthy(Box::new(container));
    }
    let restarts = container.restart_count - first.map_or(0, |f| f.restart_count);
    let not_yet = |why: String, c: Container| Look::NotYet(why, Some(Box::new(c)));
    match container.state {
        RunState::Exited | RunState::Dead => {
            let tail = tail(engine, &container.id).await;
            return Look::Hopeless(format!("its container exited with code {}{tail}", container.exit_code));
        }
        _ if restarts >= RESTARTS => {
            let tail = tail(engine, &container.id).await;
            return Look::Hopeless(format!(
                "its container crashes again and again (exit code {}, {restarts} restarts){tail}",
                container.exit_code
            ));
        }
        RunState::Running => {}
        state => return not_yet(format!("its container is {state:?}").to_lowercase(), container),
    }
    match (demands.healthcheck, container.healthcheck) {
        (true, Healthcheck::Starting) => return not_yet("its HEALTHCHECK is still starting".into(), container),
        (true, Healthcheck::Unhealthy) => return not_yet("its HEALTHCHECK says unhealthy".into(), container),
        _ => {}
    }
    if !demands.http {
        return Look::Healthy(Box::new(container));
    }
    match judge(probe.ask(&container, PROBE_TIMEOUT).await, settings, candidate) {
        Ok(()) => Look::Healthy(Box::new(container)),
        Err(why) => not_yet(why, container),
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
