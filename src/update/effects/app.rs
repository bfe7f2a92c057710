//! The application's container: stopped, kept from being revived, found again.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::oneshot::ONE_SHOTS;
use super::order::{Patience, await_dependencies, tell_downtime};
use super::{EffectError, Result, volumes};
use crate::command::line;
use crate::engine::seal::{CLAIM, name_of};
use crate::engine::{Container, EngineError, RestartPolicy, RunState, label};
use crate::update::context::Context;
use crate::update::plan::{Companion, Plan};
use crate::update::record::{Learned, Record};
use crate::update::survey::data::overlaps;
use crate::update::survey::names;

/// With `restart: always` an engine or machine restart would start the old version on half-migrated
/// data. Compose does not notice the change.
pub async fn disarm(cx: &Context, record: &Record, plan: &Plan) -> Result {
    // `docker container prune` takes what was never started.
    super::claim::claim(cx, record, plan).await?;
    for (id, ..) in start_order(plan) {
        cx.ports.engine.set_restart_policy(id, &RestartPolicy::never()).await?;
    }
    Ok(())
}

/// The very containers that were stopped, as far as they still stand, have their restart policies and run
/// again: the companions, and the application where it ran before. Also where they have been started: the
/// engine may have restarted since, and nothing restarts what is disarmed.
pub async fn rearm(cx: &Context, plan: &Plan) -> Result {
    start_again(cx, plan, plan.previous.baseline.running, Patience::Hopes).await
}

/// What was stopped runs again, where no other version was wanted; and the companions in any case, but
/// those that were made anew. Data that was put back must prove that it works, so then the application is
/// started even if it had not run.
pub async fn resume(cx: &Context, plan: &Plan, learned: &Learned) -> Result {
    let application_too = plan.previous.baseline.running || plan.restores().is_some();
    // Another version is judged by the gate, whatever waits for it here.
    let patience = if plan.stays { Patience::Demands } else { Patience::Hopes };
    start_again(cx, plan, application_too, patience).await?;
    tell_downtime(cx, plan, learned);
    Ok(())
}

async fn start_again(cx: &Context, plan: &Plan, application_too: bool, patience: Patience) -> Result {
    let engine = &cx.ports.engine;
    super::swap::tidy_half_swapped(cx, plan).await?;
    if engine.container(&plan.previous.container_id).await?.is_some_and(|c| !c.is_alive()) {
        // Whoever was started meanwhile in the namespaces of a life that has ended lives nowhere.
        for lodger in containers(cx, plan).await?.iter().filter(|c| !c.lives_in().is_empty() && c.is_alive()) {
            engine.stop(&lodger.id, None).await?;
        }
    }
    for (id, name, policy) in start_order(plan) {
        if engine.container(id).await?.is_none() {
            if !is_moved(plan, id) {
                cx.warn(&format!(
                    "container {name}, which was stopped with the application, was removed meanwhile: make it anew with `docker compose up -d`"
                ));
            }
            continue;
        }
        engine.set_restart_policy(id, policy).await?;
        if application_too || *id != plan.previous.container_id {
            if let Some(service) = handle_of(plan, id) {
                // Only what was to be stopped waits for the application: it may crash, and is judged later.
                let is_needed = *id == plan.previous.container_id
                    || plan.companions.iter().any(|c| c.container_id == *id && c.needed);
                let patience = if is_needed { patience } else { Patience::Hopes };
                await_dependencies(cx, plan, service, patience).await?;
            }
            start(cx, plan, id, name, service_of(plan, id)).await?;
        }
    }
    Ok(())
}

/// The application's container and its companions, those first that others need: id, name, restart policy.
fn start_order(plan: &Plan) -> impl DoubleEndedIterator<Item = (&String, &String, &RestartPolicy)> {
    let previous = &plan.previous;
    let own = (&previous.container_id, &previous.container_name, &previous.restart_policy);
    let companions = |needed: bool| {
        let some = plan.companions.iter().filter(move |c| c.needed == needed);
        some.map(|c| (&c.container_id, &c.name, &c.restart_policy))
    };
    companions(true).chain(std::iter::once(own)).chain(companions(false))
}

/// Starts a container that was stopped. Commands that Compose runs after a start are run: the engine knows nothing
/// of them.
pub async fn start(cx: &Context, plan: &Plan, id: &str, name: &str, service: Option<&str>) -> Result {
    cx.say(&format!("starting {name}"));
    let Some(service) = service.filter(|service| plan.runs_post_start(service)) else {
        return Ok(cx.ports.engine.start(id).await?);
    };
    let is_moved = plan.project.moves(service);
    let planned = if is_moved { super::swap::as_planned(cx, plan).await? } else { None };
    let (lines, said) = cx.lines("compose: ");
    let started = cx.ports.compose.start(planned.as_ref().unwrap_or(&plan.project), service, lines).await;
    let _ = said.await;
    started.map_err(|e| with_commands(e, format_args!("starting service {service} with its post_start commands")))
}

/// Stops a container, after the commands that Compose runs in it before.
async fn halt(cx: &Context, plan: &Plan, id: &str, name: &str) -> Result {
    cx.say(&format!("stopping {name}"));
    let engine = &cx.ports.engine;
    let service = service_of(plan, id).filter(|service| plan.commands.pre_stop.contains(*service));
    let Some(service) = service else { return Ok(engine.stop(id, None).await?) };
    // There is nothing to run them in.
    if !engine.container(id).await?.is_some_and(|c| c.is_running()) {
        return Ok(engine.stop(id, None).await?);
    }
    let (lines, said) = cx.lines("compose: ");
    let stopped = cx.ports.compose.stop(&plan.project, service, lines).await;
    let _ = said.await;
    stopped.map_err(|e| with_commands(e, format_args!("stopping service {service} with its pre_stop commands")))
}

/// Compose gives up where one of the commands fails.
fn with_commands(error: EngineError, doing: std::fmt::Arguments<'_>) -> EffectError {
    if error.is_unreachable() { error.into() } else { EffectError::other(format!("{doing}: {error}")) }
}

fn service_of<'a>(plan: &'a Plan, id: &str) -> Option<&'a str> {
    if id == plan.previous.container_id {
        return Some(&plan.project.service);
    }
    plan.companions.iter().find(|c| c.container_id == id)?.service.as_deref()
}

/// By which it waits for others.
fn handle_of<'a>(plan: &'a Plan, id: &str) -> Option<&'a str> {
    let companion = || plan.companions.iter().find(|c| c.container_id == id);
    service_of(plan, id).or_else(|| companion().map(Companion::handle))
}

/// Stops them gracefully, those that need others first, and observes that they have exited.
pub async fn stop(cx: &Context, plan: &Plan, learned: &mut Learned) -> Result {
    let engine = &cx.ports.engine;
    super::writers::before_the_stop(cx, plan, learned).await?;
    learned.stopped_at = Some(cx.ports.clock.now());
    for (id, name, _) in start_order(plan).rev() {
        let begun = Instant::now();
        halt(cx, plan, id, name).await?;
        let stopped = engine.container(id).await?;
        if let Some(warning) = stopped.as_ref().and_then(|c| killed(c, begun.elapsed())) {
            cx.warn(&warning);
        }
        learned.stopped.insert(id.clone(), stopped.and_then(|c| c.started_at));
    }
    require_stopped(cx, plan, learned, "stopping it").await
}

/// It was asked to end, did not, and was killed when its time was over: downtime at each update, and perhaps data that
/// it had not written yet.
fn killed(container: &Container, took: Duration) -> Option<String> {
    /// What a shell shows for a process that SIGKILL has ended.
    const KILLED: i64 = 137;
    let grace = container.stop_grace();
    (container.exit_code == KILLED && took >= grace).then(|| {
        format!(
            "container {} did not end within {} s and was killed, which every update waits for. If its first process does not pass signals on: `init: true`. If it ends by another signal than SIGTERM: `stop_signal`. If it needs longer: `stop_grace_period`",
            container.name,
            grace.as_secs()
        )
    })
}

/// Whatever happened since the stop, none of those that were stopped may run, or may have run, but by our doing.
pub async fn require_stopped(cx: &Context, plan: &Plan, learned: &Learned, after: &str) -> Result {
    for (id, name, _) in start_order(plan).filter(|(id, ..)| !learned.started_again.contains(*id)) {
        require_not_run(cx, id, name, learned.stopped.get(id).copied().flatten(), after).await?;
    }
    Ok(())
}

async fn require_not_run(cx: &Context, id: &str, name: &str, before: Option<Timestamp>, after: &str) -> Result {
    let somebody =
        |did: &str| Err(EffectError::other(format!("the container {name} was {did} by somebody else during {after}")));
    match cx.ports.engine.container(id).await? {
        None => somebody("removed"),
        Some(c) if c.started_at != before => somebody("started"),
        Some(c) if !matches!(c.state, RunState::Exited | RunState::Created | RunState::Dead) => {
            Err(EffectError::other(format!("the container {name} is {:?} after {after}", c.state)))
        }
        Some(_) => Ok(()),
    }
}

/// Before data or configuration go back nothing of the new version may run: neither its migration nor
/// its container.
pub async fn halt_new(cx: &Context, plan: &Plan, learned: &mut Learned) -> Result {
    let engine = &cx.ports.engine;
    for container in engine.containers(&[(label::JOB, &cx.job.0)]).await? {
        match cx.owns(&container) {
            Some(ours) if ours.role() == CLAIM || ours.role().starts_with("guard") => {}
            Some(_) => engine.remove(&container.id).await?,
            None if is_at_work_on_data(cx, plan, &container) => return Err(EffectError::in_the_way(&container)),
            None => {}
        }
    }
    let containers = containers(cx, plan).await?;
    // Noted before Compose makes the old version anew: it removes these containers, and leaves their volumes.
    learned.new_volumes.extend(volumes::brought(plan, &containers));
    for container in containers.iter().rev() {
        if !is_moved(plan, &container.id) && container.image_id != plan.previous.image_id {
            engine.set_restart_policy(&container.id, &RestartPolicy::never()).await?;
            engine.stop(&container.id, None).await?;
        }
    }
    Ok(())
}

/// It runs under the name of one of this job's own, which it may be if the state folder has lost its secret.
fn is_at_work_on_data(cx: &Context, plan: &Plan, container: &Container) -> bool {
    let data = [plan.data.copied.as_slice(), &plan.data.uncovered].concat();
    container.is_alive()
        && ONE_SHOTS.iter().any(|role| container.name == name_of(role, &cx.job))
        && container.mounts.iter().any(|mount| overlaps(mount, &data))
}

/// Before data is put back nobody may write to it: neither version, no companion. Their restart policies
/// are put back later, with those of the way there. Those that were stopped, for the proof afterwards.
pub async fn stop_writers(cx: &Context, plan: &Plan) -> Result<Vec<Container>> {
    let engine = &cx.ports.engine;
    for (id, name, _) in start_order(plan).rev() {
        if engine.container(id).await?.is_some() {
            engine.set_restart_policy(id, &RestartPolicy::never()).await?;
            if let Err(e) = halt(cx, plan, id, name).await {
                // Its data goes back whatever its commands say.
                cx.warn(&format!("{name} is stopped without its pre_stop commands: {e}"));
                engine.stop(id, None).await?;
            }
        }
    }
    for container in containers(cx, plan).await?.iter().rev() {
        engine.stop(&container.id, None).await?;
    }
    writers(cx, plan).await
}

/// Those that could write to the data.
async fn writers(cx: &Context, plan: &Plan) -> Result<Vec<Container>> {
    let mut writers = containers(cx, plan).await?;
    for (id, ..) in start_order(plan) {
        if writers.iter().all(|c| c.id != *id) {
            writers.extend(cx.ports.engine.container(id).await?);
        }
    }
    Ok(writers)
}

/// Nobody has run since [`stop_writers`], and nobody has come.
pub async fn require_no_writers(cx: &Context, plan: &Plan, stopped: &[Container], after: &str) -> Result {
    for c in stopped {
        require_not_run(cx, &c.id, &c.name, c.started_at, after).await?;
    }
    match writers(cx, plan).await?.iter().find(|c| stopped.iter().all(|known| known.id != c.id)) {
        Some(c) => {
            Err(EffectError::other(format!("the container {} was made by somebody else during {after}", c.name)))
        }
        None => Ok(()),
    }
}

/// It is one of the containers, as they were before, of what is moved.
pub fn is_moved(plan: &Plan, id: &str) -> bool {
    id == plan.previous.container_id || plan.crew.iter().any(|member| member.container_id == id)
}

/// The containers of all that is moved, those first that others need; one-off runs and copies left out.
pub async fn containers(cx: &Context, plan: &Plan) -> Result<Vec<Container>> {
    of_moved(cx, plan).await.map(|(own, _)| own)
}

/// The containers of all that is moved, and copies that only look like them (see [`is_copy`]).
pub async fn of_moved(cx: &Context, plan: &Plan) -> Result<(Vec<Container>, Vec<Container>)> {
    let labels = [(label::PROJECT, plan.project.name.as_str()), (label::ONEOFF, "False")];
    let mut containers = cx.ports.engine.containers(&labels).await?;
    let place = |c: &Container| plan.start_order().position(|service| c.label(label::SERVICE) == Some(service));
    containers.retain(|c| place(c).is_some() && c.is_made_by_compose());
    containers.sort_by_key(place);
    Ok(containers.into_iter().partition(|c| !is_copy(c, plan)))
}

/// Somebody has run it from an image that was made of a service's container: `docker commit` keeps Compose's
/// labels. Compose gives another name, and notes the very image. Seen with Compose 2.40: `up` takes such a copy
/// for the service's container, makes it anew in its place, and removes the real one.
fn is_copy(c: &Container, plan: &Plan) -> bool {
    let known = plan.crew.iter().map(|m| (&m.container_id, &m.container_name));
    let mut known = known.chain([(&plan.previous.container_id, &plan.previous.container_name)]);
    let service = c.label(label::SERVICE).unwrap_or_default();
    let is_named_by_compose = is_half_swapped(c) || names(&c.name, &plan.project.name, service);
    let is_of_other_image = c.label(label::IMAGE).is_some_and(|image| image != c.image_id);
    is_of_other_image && !is_named_by_compose && !known.any(|(id, name)| c.id == *id || c.name == *name)
}

/// Compose must not be asked while such a copy exists: it would remove it, and the application's container too.
pub fn copy_in_the_way(copy: &Container) -> String {
    format!(
        "container {} was not made by Compose and carries the labels of service {}, so that Compose would remove it and the application's container: remove it, or run it without these labels: {}",
        copy.name,
        copy.label(label::SERVICE).unwrap_or_default(),
        line(["docker", "rm", "-f", &copy.name])
    )
}

/// A container name that Compose gives for the moment of a recreate: twelve hexadecimal digits of the
/// old id, an underscore, the name.
pub fn is_half_swapped(container: &Container) -> bool {
    let Some((id, _)) = container.name.split_once('_') else { return false };
    id.len() == 12 && id.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_kill_after_the_grace_is_told() {
        for (timeout, exit_code, took, told) in [
            (None, 137, 10, Some("within 10 s")),
            (None, 137, 11, Some("within 10 s")),
            // Killed by somebody else, or for want of memory, on the way.
            (None, 137, 9, None),
            (None, 143, 10, None),
            (None, 0, 60, None),
            (Some(30), 137, 29, None),
            (Some(30), 137, 30, Some("within 30 s")),
            (Some(0), 137, 0, Some("within 0 s")),
            (Some(-1), 137, 60, None),
        ] {
            let raw = json!({"Config": {"StopTimeout": timeout}});
            let container = Container { exit_code, raw, ..crate::update::tests::drift::container() };
            let found = killed(&container, Duration::from_secs(took));
            assert_eq!(found.is_some(), told.is_some(), "{timeout:?} {exit_code} {took}: {found:?}");
            assert!(found.is_none_or(|text| text.contains(told.unwrap_or_default())));
        }
    }
}
