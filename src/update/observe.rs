//! What is true right now, as far as the next action depends on it.

use super::context::Context;
use super::effects::{is_half_swapped, of_service};
use super::plan::{EnvChange, Plan};
use super::record::{Learned, Record};
use super::survey::is_alive;
use super::transition::{App, Env, Seen};
use crate::engine::Container;
use crate::envfile;

/// Looks at engine and `.env`. An error means that nothing could be seen, never that nothing is there.
pub async fn observe(cx: &Context, record: &Record, plan: &Plan) -> Result<Seen, String> {
    let engine = &cx.ports.engine;
    let pinned = plan.target.handle();
    let (containers, old, new, env) = tokio::join!(
        of_service(cx, plan),
        engine.image(&plan.previous.image_id),
        engine.image(&pinned),
        cx.ports.env.read()
    );
    let containers = containers.map_err(|e| e.to_string())?;
    let since_swap = record.learned.swap_began.map_or(0, |at| cx.ports.clock.now().duration_since(at).as_secs());
    Ok(Seen {
        app: app(&containers, plan, &record.learned),
        env: env_seen(&env.map_err(|e| e.to_string())?, &plan.env),
        old_image: old.map_err(|e| e.to_string())?.is_some(),
        new_image: new.map_err(|e| e.to_string())?.is_some(),
        since_swap,
    })
}

/// Compares the service's containers with the Plan. Pure.
fn app(containers: &[Container], plan: &Plan, learned: &Learned) -> App {
    let (previous, target) = (&plan.previous, plan.target.reference());
    let is_new = |c: &&Container| learned.new_image_id.as_ref() == Some(&c.image_id) && c.image_ref == target;
    let mut standing = containers.iter().filter(|c| !is_half_swapped(c)).peekable();
    if standing.peek().is_none() {
        return App::Gone;
    }
    let standing: Vec<&Container> = standing.collect();
    if let Some(c) = standing.iter().find(|c| c.id == previous.container_id) {
        return App::Untouched { running: is_alive(c) };
    }
    if let Some(c) = standing.iter().find(|c| is_new(c)) {
        return App::New { running: is_alive(c), ours: learned.new_container.as_ref() == Some(&c.id) };
    }
    match standing.iter().find(|c| c.image_id == previous.image_id) {
        Some(c) => App::OldAnew { running: is_alive(c) },
        None => App::Foreign,
    }
}

/// Compares `.env` with the Plan. Pure.
fn env_seen(now: &Option<Vec<u8>>, change: &EnvChange) -> Env {
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
