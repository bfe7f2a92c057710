//! What is true right now, as far as the next action depends on it.

use jiff::Timestamp;

use super::context::Context;
use super::effects::{EffectError, containers, is_half_swapped};
use super::plan::{EnvChange, Plan};
use super::record::{Learned, Record};
use super::transition::{App, Env, Seen};
use crate::engine::{Container, EngineError, label};
use crate::envfile;
use crate::reference::is_same;

/// Nothing could be seen.
pub struct Blind {
    pub why: String,
    /// The engine does not answer. It may come back with everything as it should be.
    pub is_engine_away: bool,
}

impl From<EffectError> for Blind {
    fn from(error: EffectError) -> Self {
        let is_engine_away = matches!(&error, EffectError::Engine(e) if e.is_unreachable());
        Self { why: error.to_string(), is_engine_away }
    }
}

impl From<EngineError> for Blind {
    fn from(error: EngineError) -> Self {
        Self { why: error.to_string(), is_engine_away: error.is_unreachable() }
    }
}

/// Looks at engine and `.env`. An error means that nothing could be seen, never that nothing is there.
pub async fn observe(cx: &Context, record: &Record, plan: &Plan) -> Result<Seen, Blind> {
    let engine = &cx.ports.engine;
    let pinned = plan.target.handle();
    let (containers, old, new, env) = tokio::join!(
        containers(cx, plan),
        engine.image(&plan.previous.image_id),
        engine.image(&pinned),
        cx.ports.env.read()
    );
    let containers = containers?;
    let env = env.map_err(|e| Blind { why: e.to_string(), is_engine_away: false })?;
    let writing_since = record.learned.swap_began.or_else(|| revived(&containers, plan, &record.learned));
    let since_swap = writing_since.map_or(0, |at| cx.ports.clock.now().duration_since(at).as_secs());
    Ok(Seen {
        app: app(&containers, plan, &record.learned),
        env: env_seen(&env, &plan.env),
        old_image: old?.is_some(),
        new_image: new?.is_some(),
        since_swap,
    })
}

/// Since when a container runs that this job has stopped, or did not know: somebody has started it.
fn revived(containers: &[Container], plan: &Plan, learned: &Learned) -> Option<Timestamp> {
    let as_found = |c: &&Container| c.id == plan.previous.container_id && !learned.stopped.contains_key(&c.id);
    let of_application = containers.iter().filter(|c| c.label(label::SERVICE) == Some(&plan.project.service));
    of_application.filter(|c| c.is_alive() && !as_found(c)).filter_map(|c| c.started_at).min()
}

/// Compares the containers of all that is moved with the Plan. Pure.
pub(super) fn app(containers: &[Container], plan: &Plan, learned: &Learned) -> App {
    let of = |service: &str| containers.iter().filter(|c| c.label(label::SERVICE) == Some(service)).collect::<Vec<_>>();
    let service = &plan.project.service;
    let (app, _) = one(&of(service), &plan.previous.container_id, learned.new_containers.get(service), plan, learned);
    plan.crew.iter().fold(app, |all, member| {
        let new = learned.new_containers.get(&member.service);
        let (seen, container) = one(&of(&member.service), &member.container_id, new, plan, learned);
        let is_well = container.is_some_and(|c| member.was.is_fulfilled_by(c));
        let as_before = is_well || member.was.demands_nothing();
        together(all, if matches!(seen, App::New { .. }) { seen.with(is_well) } else { seen.with(as_before) })
    })
}

/// Compares one service's containers with the Plan.
fn one<'a>(
    containers: &[&'a Container],
    old: &str,
    new: Option<&String>,
    plan: &Plan,
    learned: &Learned,
) -> (App, Option<&'a Container>) {
    let standing: Vec<&Container> = containers.iter().filter(|c| !is_half_swapped(c)).copied().collect();
    let find = |is: &dyn Fn(&&&Container) -> bool| standing.iter().find(is).copied();
    let target = plan.target.reference();
    let is_new = |c: &&&Container| learned.new_image_id.as_ref() == Some(&c.image_id) && is_same(&c.image_ref, &target);
    if standing.is_empty() {
        return (App::Gone, None);
    }
    if let Some(c) = find(&|c| c.id == old) {
        return (App::Untouched { running: c.is_alive() }, Some(c));
    }
    if let Some(c) = find(&is_new) {
        return (App::New { running: c.is_alive(), ours: new == Some(&c.id) }, Some(c));
    }
    match find(&|c| c.image_id == plan.previous.image_id) {
        Some(c) => (App::OldAnew { running: c.is_alive() }, Some(c)),
        None => (App::Foreign, None),
    }
}

impl App {
    /// The same, running or not.
    fn with(self, running: bool) -> Self {
        match self {
            App::Untouched { .. } => App::Untouched { running },
            App::OldAnew { .. } => App::OldAnew { running },
            App::New { ours, .. } => App::New { running, ours },
            App::Mixed | App::Foreign | App::Gone => self,
        }
    }
}

/// What the application and a member are seen as, together. Of the old version some may be untouched and
/// some made anew: that is the old version, made anew.
fn together(all: App, member: App) -> App {
    use App::*;
    match (all, member) {
        (Untouched { running: a }, Untouched { running: b }) => Untouched { running: a && b },
        (Untouched { running: a } | OldAnew { running: a }, Untouched { running: b } | OldAnew { running: b }) => {
            OldAnew { running: a && b }
        }
        (New { running: a, ours: x }, New { running: b, ours: y }) => New { running: a && b, ours: x && y },
        (Foreign | Gone, _) => all,
        _ => Mixed,
    }
}

/// Compares `.env` with the Plan. Pure.
pub(super) fn env_seen(now: &Option<Vec<u8>>, change: &EnvChange) -> Env {
    if *now == change.before {
        return Env::Before;
    }
    if *now == change.after {
        return Env::After;
    }
    let value = now.as_deref().and_then(|bytes| envfile::get(bytes, &change.key));
    match value {
        v if v == change.value_before => Env::KeyBefore,
        v if v == change.value_after => Env::KeyAfter,
        _ => Env::Other,
    }
}
