//! Who is started when: what was stopped with the application runs, and is ready, before what depends on it.

use std::time::Duration;

use jiff::SignedDuration;
use tokio::time::{Instant, sleep};

use super::app::{containers, start};
use super::{EffectError, Result};
use crate::engine::{Container, Healthcheck, RunState, label};
use crate::update::context::Context;
use crate::update::plan::{Companion, Plan, Until, Wait};
use crate::update::record::Learned;

/// Pause between two looks at a container that is not ready yet.
const PAUSE: Duration = Duration::from_millis(200);

/// What becomes of the job when a dependency does not become ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Nothing is started without it: the job turns back.
    Demands,
    /// The application is started without it: it may work all the same, and it is judged afterwards.
    Hopes,
}

/// A container without a HEALTHCHECK, and without a port to ask, is ready when it has run for so long.
const SETTLED: SignedDuration = SignedDuration::from_secs(5);
/// So long one connection may take.
const ASKED: Duration = Duration::from_secs(2);

/// As [`start_needed`], before anything of the new version is there.
pub async fn start_needed_first(cx: &Context, plan: &Plan, learned: &mut Learned) -> Result {
    start_needed(cx, plan, Patience::Demands).await?;
    tell_downtime(cx, plan, learned);
    learned.started_again = plan.companions.iter().filter(|c| c.needed).map(|c| c.container_id.clone()).collect();
    Ok(())
}

/// Services that hold data may have users beside the application.
pub fn tell_downtime(cx: &Context, plan: &Plan, learned: &Learned) {
    let was_down = |c: &&Companion| c.holds_data && !learned.started_again.contains(&c.container_id);
    let names: Vec<&str> = plan.companions.iter().filter(was_down).map(|c| c.name.as_str()).collect();
    if let (false, Some(since)) = (names.is_empty(), learned.stopped_at) {
        let seconds = cx.ports.clock.now().duration_since(since).as_secs_f64();
        cx.say(&format!("{} runs again, after {seconds:.1} s", names.join(", ")));
    }
}

/// Starts those of the companions that the application depends on, each when what it depends on itself is
/// ready, and waits until all that is moved could be started.
pub async fn start_needed(cx: &Context, plan: &Plan, patience: Patience) -> Result {
    let engine = &cx.ports.engine;
    for companion in plan.companions.iter().filter(|c| c.needed) {
        let id = &companion.container_id;
        let is_moved = plan.crew.iter().any(|member| member.container_id == *id);
        if is_moved || engine.container(id).await?.is_none() {
            continue;
        }
        await_dependencies(cx, plan, companion.handle(), patience).await?;
        engine.set_restart_policy(id, &companion.restart_policy).await?;
        start(cx, plan, id, &companion.name, companion.service.as_deref()).await?;
    }
    // Among those that are moved Compose waits itself.
    let project = &plan.project;
    for wait in plan.waits.iter().filter(|wait| project.moves(&wait.service) && !project.moves(&wait.on)) {
        await_one(cx, plan, wait, patience).await?;
    }
    Ok(())
}

/// Waits until everything that this service depends on, and that the job starts, is ready.
pub async fn await_dependencies(cx: &Context, plan: &Plan, service: &str, patience: Patience) -> Result {
    for wait in plan.waits.iter().filter(|wait| wait.service == service) {
        await_one(cx, plan, wait, patience).await?;
    }
    Ok(())
}

async fn await_one(cx: &Context, plan: &Plan, wait: &Wait, patience: Patience) -> Result {
    let planned = Duration::from_secs(plan.health_timeout_seconds);
    let limit = cx.options.health.timeout.max(planned);
    let deadline = Instant::now() + limit;
    let mut is_told = false;
    loop {
        let why = match ready(cx, &of_service(cx, plan, &wait.on).await?, wait.until).await {
            Ready::Yes => return Ok(()),
            Ready::NotYet(_) if Instant::now() < deadline => {
                if !is_told {
                    cx.say(&format!("waiting for service {}, which service {} depends on", wait.on, wait.service));
                }
                is_told = true;
                sleep(PAUSE).await;
                continue;
            }
            Ready::NotYet(why) => {
                format!(
                    "{why} after {limit:?} (PROCESSGIT_UPDATER_HEALTH_TIMEOUT: set it longer than the service needs to start)"
                )
            }
            Ready::Never(why) => why,
        };
        let why = format!("service {}, which service {} depends on, {why}", wait.on, wait.service);
        if wait.required && patience == Patience::Demands {
            return Err(EffectError::other(why));
        }
        cx.warn(&format!("{why}: service {} is started all the same", wait.service));
        return Ok(());
    }
}

/// The service's containers as they are: a companion's, or of what is moved those that there are now.
async fn of_service(cx: &Context, plan: &Plan, service: &str) -> Result<Vec<Container>> {
    let mut found = Vec::new();
    if plan.project.moves(service) {
        found.extend(containers(cx, plan).await?.into_iter().filter(|c| c.label(label::SERVICE) == Some(service)));
        return Ok(found);
    }
    for companion in plan.companions.iter().filter(|c| c.handle() == service) {
        found.extend(cx.ports.engine.container(&companion.container_id).await?);
    }
    Ok(found)
}

#[derive(Debug, PartialEq, Eq)]
enum Ready {
    Yes,
    NotYet(String),
    Never(String),
}

/// Are they as far as somebody waits for?
async fn ready(cx: &Context, containers: &[Container], until: Until) -> Ready {
    let ready = readiness(containers, until);
    let (Ready::Yes, Until::Serving { port }) = (&ready, until) else { return ready };
    for container in containers {
        match port {
            Some(port) if !cx.ports.probe.accepts(container, port, ASKED).await => {
                return Ready::NotYet(format!("does not accept connections at port {port}"));
            }
            None if container.started_at.is_none_or(|at| cx.ports.clock.now().duration_since(at) < SETTLED) => {
                return Ready::NotYet(format!("has not been running for {SETTLED:?}"));
            }
            _ => {}
        }
    }
    ready
}

/// As far as their states tell. Pure.
fn readiness(containers: &[Container], until: Until) -> Ready {
    let mut ready = if containers.is_empty() { Ready::Never("has no container".into()) } else { Ready::Yes };
    for container in containers {
        match readiness_of(container, until) {
            Ready::Yes => {}
            never @ Ready::Never(_) => return never,
            not_yet => ready = not_yet,
        }
    }
    ready
}

fn readiness_of(c: &Container, until: Until) -> Ready {
    let ended = || Ready::Never(format!("has ended with exit code {}", c.exit_code));
    match (until, c.state, c.healthcheck) {
        (Until::Completed, RunState::Exited, _) if c.exit_code == 0 => Ready::Yes,
        (_, RunState::Exited | RunState::Dead, _) => ended(),
        (Until::Completed, ..) => Ready::NotYet("has not run to its end".into()),
        (Until::Started | Until::Serving { .. }, RunState::Running, _) => Ready::Yes,
        (Until::Healthy, RunState::Running, Healthcheck::Healthy | Healthcheck::None) => Ready::Yes,
        // A database that recovers for longer than its HEALTHCHECK has patience is unhealthy first, and healthy then.
        (Until::Healthy, RunState::Running, Healthcheck::Unhealthy) => Ready::NotYet("is unhealthy".into()),
        (Until::Healthy, RunState::Running, Healthcheck::Starting) => Ready::NotYet("is not healthy yet".into()),
        (_, state, _) => Ready::NotYet(format!("is {}", format!("{state:?}").to_lowercase())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::update::tests::drift::container;

    #[test]
    fn a_dependency_is_ready_when_depends_on_says_so() {
        use Healthcheck::{Healthy, None, Starting, Unhealthy};
        use RunState::{Created, Exited, Restarting, Running};
        for (until, state, code, healthcheck, expected) in [
            (Until::Started, Running, 0, None, "yes"),
            (Until::Started, Running, 0, Starting, "yes"),
            (Until::Started, Restarting, 1, None, "not yet: is restarting"),
            (Until::Started, Created, 0, None, "not yet: is created"),
            (Until::Started, Exited, 1, None, "never: has ended with exit code 1"),
            (Until::Healthy, Running, 0, Healthy, "yes"),
            // There is nothing to wait for.
            (Until::Healthy, Running, 0, None, "yes"),
            (Until::Healthy, Running, 0, Starting, "not yet: is not healthy yet"),
            (Until::Healthy, Running, 0, Unhealthy, "not yet: is unhealthy"),
            (Until::Healthy, Exited, 0, Healthy, "never: has ended with exit code 0"),
            (Until::Serving { port: Option::None }, Running, 0, None, "yes"),
            (Until::Serving { port: Some(1) }, Restarting, 1, None, "not yet: is restarting"),
            (Until::Serving { port: Some(1) }, Exited, 1, None, "never: has ended with exit code 1"),
            (Until::Completed, Running, 0, Healthy, "not yet: has not run to its end"),
            (Until::Completed, Exited, 0, None, "yes"),
            (Until::Completed, Exited, 3, None, "never: has ended with exit code 3"),
        ] {
            let c = Container { state, exit_code: code, healthcheck, ..container() };
            let told = match readiness(std::slice::from_ref(&c), until) {
                Ready::Yes => "yes".to_owned(),
                Ready::NotYet(why) => format!("not yet: {why}"),
                Ready::Never(why) => format!("never: {why}"),
            };
            assert_eq!(told, expected, "{until:?} {state:?} {healthcheck:?}");
        }
        assert_eq!(readiness(&[], Until::Started), Ready::Never("has no container".into()));
    }
}
