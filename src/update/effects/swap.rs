//! The swap: `.env` selects the version, Compose makes the container; and back.

use super::app::{is_half_swapped, of_service};
use super::{EffectError, Result};
use crate::engine::Container;
use crate::envfile;
use crate::update::context::Context;
use crate::update::plan::Plan;
use crate::update::record::{Learned, Record};
use crate::update::transition::Effect;

/// The version key, atomically and durably.
pub async fn write_env(cx: &Context, plan: &Plan) -> Result {
    if !plan.stops_first() {
        // The first touch of this job; `docker container prune` takes what was never started.
        super::claim::claim(cx, plan).await?;
    }
    let change = &plan.env;
    let value = change.value_after.as_deref().unwrap_or("(absent)");
    cx.say(&format!("{}: {}={value}", cx.ports.env.path(), change.key));
    cx.ports.env.write(change.after.as_deref()).await.map_err(EffectError::other)
}

/// The very bytes, if the file is still what we wrote. Somebody's edits are kept: then only the key goes
/// back.
pub async fn restore_env(cx: &Context, plan: &Plan) -> Result {
    let (env, change) = (&cx.ports.env, &plan.env);
    let now = env.read().await.map_err(EffectError::other)?;
    if now == change.before {
        return Ok(());
    }
    if now == change.after {
        return env.write(change.before.as_deref()).await.map_err(EffectError::other);
    }
    cx.warn(&format!(
        "{} was edited during the update: the edits are kept, only {} was set back",
        env.path(),
        change.key
    ));
    let before = change.before.as_deref().unwrap_or_default();
    let bytes = envfile::set_back(&now.unwrap_or_default(), before, &change.key).map_err(EffectError::other)?;
    env.write(Some(&bytes)).await.map_err(EffectError::other)
}

/// Compose recreates the one service; then the new container must be there, of the right image.
pub async fn swap(cx: &Context, plan: &Plan, learned: &mut Learned) -> Result {
    up(cx, plan).await?;
    let container = the_one(cx, plan).await?;
    let expected = learned.new_image_id.as_deref().unwrap_or_default();
    if container.image_id != expected {
        return Err(EffectError::other(format!(
            "Compose started image {}, expected {expected} ({})",
            container.image_id,
            plan.target.pinned()
        )));
    }
    learned.new_container = Some(container.id);
    Ok(())
}

/// The old version runs again: the very container, where it still stands under its own name and the
/// swap has not begun; otherwise Compose makes it anew from the old configuration.
pub async fn start_old(cx: &Context, record: &Record, plan: &Plan) -> Result {
    let engine = &cx.ports.engine;
    let previous = &plan.previous;
    if !previous.baseline.running {
        cx.say("the application did not run before the update");
    }
    let same = engine.container(&previous.container_id).await?;
    if same.is_some() && !record.has_begun(Effect::Swap) {
        if previous.baseline.running {
            engine.start(&previous.container_id).await?;
        }
        return Ok(());
    }
    cx.say(&format!("starting the old version ({})", previous.image_ref));
    up(cx, plan).await?;
    let container = the_one(cx, plan).await?;
    if container.image_id != previous.image_id {
        return Err(EffectError::other(format!(
            "Compose started image {}, expected the old one, {}",
            container.image_id, previous.image_id
        )));
    }
    Ok(())
}

/// `compose up` of the one service, after removing what an interrupted one left behind: a container
/// under a temporary name, which `up` would keep for ever or stumble over.
async fn up(cx: &Context, plan: &Plan) -> Result {
    for container in of_service(cx, plan).await?.iter().filter(|c| is_half_swapped(c)) {
        cx.say(&format!("removing {}, left behind by an interrupted `compose up`", container.name));
        cx.ports.engine.remove(&container.id).await?;
    }
    let (lines, said) = cx.lines("compose: ");
    let up = cx.ports.compose.up(&plan.project, lines).await;
    let _ = said.await;
    Ok(up?)
}

/// The service's container; there must be exactly one.
async fn the_one(cx: &Context, plan: &Plan) -> Result<Container> {
    let mut containers = of_service(cx, plan).await?;
    match (containers.pop(), containers.len()) {
        (Some(one), 0) => Ok(one),
        (None, _) => {
            Err(EffectError::other(format!("after `compose up` service {} has no container", plan.project.service)))
        }
        (Some(_), more) => Err(EffectError::other(format!(
            "after `compose up` service {} has {} containers, expected one",
            plan.project.service,
            more + 1
        ))),
    }
}
