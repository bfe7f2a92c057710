//! One-shot containers in the application's surroundings: the migration of the new image, the operator's
//! hooks.
//!
//! Compose makes and starts them, see [`crate::update::one_shot`]. Each stays until its outcome is in the
//! journal, and is removed then: a container that has ended still keeps its volumes in use.

use std::time::Duration;

use tokio::time::timeout;

use super::app::require_stopped;
use super::{EffectError, Result, writers};
use crate::engine::seal::name_of;
use crate::engine::{ComposeConfig, ContainerSpec};
use crate::health::Evidence;
use crate::update::context::Context;
use crate::update::one_shot::OneShot;
use crate::update::plan::Plan;
use crate::update::record::Learned;
use crate::update::transition::Effect;

const MIGRATION: &str = "migration";
const HOOK: &str = "hook";
/// The roles of containers that work on the data.
pub const ONE_SHOTS: [&str; 2] = [MIGRATION, HOOK];
/// After the end of a container its last lines come within this, or not at all.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// The migration, in a container of the new image.
pub async fn migrate(cx: &Context, plan: &Plan, learned: &Learned) -> Result {
    let Some(migration) = &plan.migration else { return Ok(()) };
    let made = create(cx, plan, MIGRATION, migration, learned).await?;
    // The last moment at which it can be seen that nobody else has the data.
    require_stopped(cx, plan, learned, "the preparation of the migration").await?;
    writers::require_none(cx, plan, learned, "before the migration").await?;
    // Its exit code is a verdict about the version; that of a hook is not.
    let verdict = if migration.lacks.is_empty() { EffectError::Bad } else { EffectError::Other };
    finish(cx, plan, MIGRATION, migration, &made, verdict).await?;
    require_stopped(cx, plan, learned, "the migration").await?;
    writers::tell(cx, plan, learned, "during the migration").await
}

/// The operator's command after the application was stopped and before its data is copied.
pub async fn before_copy(cx: &Context, plan: &Plan, learned: &Learned) -> Result {
    let Some(hook) = &plan.hooks.before_copy else { return Ok(()) };
    run_hook(cx, plan, hook, learned).await?;
    require_stopped(cx, plan, learned, "the hook before the copy").await
}

/// The operator's command after data was put back.
pub async fn after_restore(cx: &Context, plan: &Plan, learned: &Learned) -> Result {
    let Some(hook) = &plan.hooks.after_restore else { return Ok(()) };
    run_hook(cx, plan, hook, learned).await
}

async fn run_hook(cx: &Context, plan: &Plan, hook: &OneShot, learned: &Learned) -> Result {
    let made = create(cx, plan, HOOK, hook, learned).await?;
    finish(cx, plan, HOOK, hook, &made, EffectError::Other).await
}

/// The role of the container that an effect runs.
fn role_of(effect: Effect) -> Option<&'static str> {
    match effect {
        Effect::Migrate => Some(MIGRATION),
        Effect::HookBefore | Effect::HookAfter | Effect::HookRestored => Some(HOOK),
        _ => None,
    }
}

/// The effect's outcome is in the journal: its container is not needed any more. What cannot be removed now is
/// removed at the end of the job.
pub async fn clear(cx: &Context, effect: Effect) {
    let Some(role) = role_of(effect) else { return };
    if let Err(e) = remove(cx, role).await {
        tracing::warn!(job = %cx.job, "the container of the {role} stays for now: {e}");
    }
}

/// This job's container of this role, if there is one.
async fn remove(cx: &Context, role: &str) -> Result {
    let engine = &cx.ports.engine;
    match engine.container(&name_of(role, &cx.job)).await? {
        Some(leftover) if cx.owns(&leftover).is_some() => Ok(engine.remove(&leftover.id).await?),
        Some(other) => Err(EffectError::in_the_way(&other)),
        None => Ok(()),
    }
}

/// A container that is made and not started.
struct Made {
    id: String,
    config: ComposeConfig,
}

/// Has Compose make it.
async fn create(cx: &Context, plan: &Plan, role: &str, what: &OneShot, learned: &Learned) -> Result<Made> {
    cx.say(&format!("{role}: {}", what.text()));
    remove(cx, role).await?;
    let name = name_of(role, &cx.job);
    let image = what.image.clone().or_else(|| learned.new_image_id.clone()).unwrap_or_default();
    let sealed = cx.sealed(ContainerSpec { name: name.clone(), ..ContainerSpec::default() }, role);
    let Some(config) = what.project(&name, &image, &sealed.labels) else {
        return Err(EffectError::other(format!("the surroundings of the {role} were lost with the journal")));
    };
    cx.ports.compose.create(&plan.project, &config).await?;
    match cx.ports.engine.container(&name).await? {
        Some(container) if cx.owns(&container).is_some() => Ok(Made { id: container.id, config }),
        Some(other) => Err(EffectError::in_the_way(&other)),
        None => Err(EffectError::other(format!("the container of the {role} was removed by somebody else"))),
    }
}

/// Runs it to its end, streams what it prints, and demands exit code 0 within the deadline. What goes wrong before
/// it runs is no fault of the version.
async fn finish(
    cx: &Context,
    plan: &Plan,
    role: &str,
    what: &OneShot,
    made: &Made,
    verdict: fn(String) -> EffectError,
) -> Result {
    let (engine, id, text) = (&cx.ports.engine, &made.id, what.text());
    if what.is_given_files() {
        // The new version's secrets may come from `.env`, which is written later.
        let env = plan.env.after.as_deref().filter(|_| role == MIGRATION);
        cx.ports.compose.run(&plan.project, &made.config, env).await?;
    } else {
        engine.start(id).await?;
    }

    let (lines, said) = cx.lines("");
    let (stream, container) = (cx.ports.engine.clone(), id.clone());
    let mut follow = tokio::spawn(async move { stream.logs(&container, lines).await });
    let limit = cx.options.migration_timeout;
    let ended = timeout(limit, engine.wait(id)).await;
    let evidence = match ended {
        Ok(Ok(0)) => None,
        _ => {
            let code = ended.as_ref().ok().and_then(|code| code.as_ref().ok()).copied();
            Some(Evidence::read(&**engine, id, &name_of(role, &cx.job), code, 0).await)
        }
    };
    if ended.is_err() {
        engine.stop(id, Some(0)).await?;
    }
    let words = evidence.as_ref().map(Evidence::words).unwrap_or_default();
    evidence.iter().for_each(|evidence| cx.keep_evidence(evidence));
    let _ = timeout(LAST_WORDS, async { ((&mut follow).await, said.await) }).await;
    follow.abort();
    let without = match what.lacks.as_slice() {
        [] => String::new(),
        lacks => format!(" (it ran without {}, which its service has)", lacks.join(", ")),
    };
    match ended {
        Err(_) => Err(verdict(format!(
            "the {role} was killed: it had not ended within {limit:?} (PROCESSGIT_UPDATER_MIGRATION_TIMEOUT){without}{words}"
        ))),
        Ok(Err(e)) => Err(e.into()),
        Ok(Ok(0)) => Ok(()),
        Ok(Ok(code)) => Err(verdict(format!("the {role} failed: {text:?} exited with code {code}{without}{words}"))),
    }
}
