//! The application's container: stopped, kept from being revived, found again.

use super::{EffectError, Result};
use crate::engine::{Container, RestartPolicy, RunState, label};
use crate::health::gate::Candidate;
use crate::update::context::Context;
use crate::update::plan::Plan;

/// With `restart: always` an engine or machine restart would start the old version on half-migrated
/// data. Compose does not notice the change.
pub async fn disarm(cx: &Context, plan: &Plan) -> Result {
    // `docker container prune` takes what was never started.
    super::claim::claim(cx, plan).await?;
    for (id, ..) in stopped_together(plan) {
        cx.ports.engine.set_restart_policy(id, &RestartPolicy::never()).await?;
    }
    Ok(())
}

/// The policies they had; the companions run again. Of the application's container only if that very one
/// still stands.
pub async fn rearm(cx: &Context, plan: &Plan) -> Result {
    let engine = &cx.ports.engine;
    for (id, name, policy) in stopped_together(plan) {
        let is_companion = *id != plan.previous.container_id;
        if engine.container(id).await?.is_none() {
            continue;
        }
        engine.set_restart_policy(id, policy).await?;
        if is_companion {
            cx.say(&format!("starting {name}"));
            engine.start(id).await?;
        }
    }
    Ok(())
}

/// What was stopped runs again, where no other version was wanted; and the companions in any case. Data
/// that was put back must prove that it works, so then the application is started even if it had not run.
pub async fn resume(cx: &Context, plan: &Plan) -> Result {
    if plan.stays && (plan.previous.baseline.running || plan.restores().is_some()) {
        cx.say(&format!("starting {}", plan.previous.container_name));
        cx.ports.engine.start(&plan.previous.container_id).await?;
    }
    rearm(cx, plan).await
}

/// The application's container, then its companions: id, name, restart policy.
fn stopped_together(plan: &Plan) -> impl Iterator<Item = (&String, &String, &RestartPolicy)> {
    let previous = &plan.previous;
    let companions = plan.companions.iter().map(|c| (&c.container_id, &c.name, &c.restart_policy));
    std::iter::once((&previous.container_id, &previous.container_name, &previous.restart_policy)).chain(companions)
}

/// Stops it gracefully and observes that it has exited.
pub async fn stop(cx: &Context, plan: &Plan) -> Result {
    for (id, name, _) in stopped_together(plan) {
        cx.say(&format!("stopping {name}"));
        cx.ports.engine.stop(id, None).await?;
    }
    require_stopped(cx, plan, "stopping it").await
}

/// Whatever happened since the stop, the old container must still be exited and must not have run.
pub async fn require_stopped(cx: &Context, plan: &Plan, after: &str) -> Result {
    let container = cx.ports.engine.container(&plan.previous.container_id).await?;
    let name = &plan.previous.container_name;
    match container {
        None => Err(EffectError::other(format!("the container {name} was removed by somebody else during {after}"))),
        Some(c) if c.started_at != plan.previous.started_at => {
            Err(EffectError::other(format!("the container {name} was started by somebody else during {after}")))
        }
        Some(c) if !matches!(c.state, RunState::Exited | RunState::Created | RunState::Dead) => {
            Err(EffectError::other(format!("the container {name} is {:?} after {after}", c.state)))
        }
        Some(_) => Ok(()),
    }
}

/// Before data or configuration go back nothing of the new version may run: neither its migration nor
/// its container.
pub async fn halt_new(cx: &Context, plan: &Plan) -> Result {
    let engine = &cx.ports.engine;
    for ours in engine.containers(&[(label::JOB, &cx.job.0)]).await? {
        if ours.label(label::ROLE).is_some_and(|role| role != "claim" && !role.starts_with("guard")) {
            engine.remove(&ours.id).await?;
        }
    }
    for container in of_service(cx, plan).await? {
        if container.id != plan.previous.container_id && container.image_id != plan.previous.image_id {
            engine.set_restart_policy(&container.id, &RestartPolicy::never()).await?;
            engine.stop(&container.id, None).await?;
        }
    }
    Ok(())
}

/// Before data is put back nobody may write to it: neither version, no companion. Their restart policies
/// are put back later, with those of the way there.
pub async fn stop_writers(cx: &Context, plan: &Plan) -> Result {
    let engine = &cx.ports.engine;
    for (id, ..) in stopped_together(plan) {
        if engine.container(id).await?.is_some() {
            engine.set_restart_policy(id, &RestartPolicy::never()).await?;
            engine.stop(id, None).await?;
        }
    }
    for container in of_service(cx, plan).await? {
        engine.stop(&container.id, None).await?;
    }
    Ok(())
}

/// The service's containers, one-off runs left out.
pub async fn of_service(cx: &Context, plan: &Plan) -> Result<Vec<Container>> {
    let project = &plan.project;
    let labels =
        [(label::PROJECT, project.name.as_str()), (label::SERVICE, project.service.as_str()), (label::ONEOFF, "False")];
    Ok(cx.ports.engine.containers(&labels).await?)
}

/// A container name that Compose gives for the moment of a recreate: twelve hexadecimal digits of the
/// old id, an underscore, the name.
pub fn is_half_swapped(container: &Container) -> bool {
    let Some((id, _)) = container.name.split_once('_') else { return false };
    id.len() == 12 && id.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Whom the gate judges.
pub fn candidate(container_id: &str, image_id: &str, version: Option<&str>) -> Candidate {
    Candidate { container_id: container_id.into(), image_id: image_id.into(), version: version.map(str::to_owned) }
}
