//! One-shot containers in the application's surroundings: the migration of the new image, the operator's
//! hooks.

use std::time::Duration;

use tokio::time::timeout;

use super::app::require_stopped;
use super::{EffectError, Result, writers};
use crate::engine::ContainerSpec;
use crate::engine::seal::name_of;
use crate::health::Evidence;
use crate::update::context::Context;
use crate::update::plan::{OneShot, Plan};
use crate::update::record::Learned;

const MIGRATION: &str = "migration";
const HOOK: &str = "hook";
/// The roles of containers that work on the data.
pub const ONE_SHOTS: [&str; 2] = [MIGRATION, HOOK];

/// The migration, in a container of the new image.
pub async fn migrate(cx: &Context, plan: &Plan, learned: &Learned) -> Result {
    let Some(migration) = &plan.migration else { return Ok(()) };
    let id = create(cx, MIGRATION, migration, learned).await?;
    // The last moment at which it can be seen that nobody else has the data.
    require_stopped(cx, plan, learned, "the preparation of the migration").await?;
    writers::require_none(cx, plan, learned, "before the migration").await?;
    // Its exit code is a verdict about the version; that of a hook is not.
    finish(cx, MIGRATION, migration, &id, EffectError::Bad).await?;
    require_stopped(cx, plan, learned, "the migration").await?;
    writers::tell(cx, plan, learned, "during the migration").await
}

/// The operator's command after the application was stopped and before its data is copied.
pub async fn before_copy(cx: &Context, plan: &Plan, learned: &Learned) -> Result {
    let Some(hook) = &plan.hooks.before_copy else { return Ok(()) };
    run_hook(cx, hook, learned).await?;
    require_stopped(cx, plan, learned, "the hook before the copy").await
}

/// The operator's command after data was put back.
pub async fn after_restore(cx: &Context, plan: &Plan, learned: &Learned) -> Result {
    let Some(hook) = &plan.hooks.after_restore else { return Ok(()) };
    run_hook(cx, hook, learned).await
}

async fn run_hook(cx: &Context, hook: &OneShot, learned: &Learned) -> Result {
    let id = create(cx, HOOK, hook, learned).await?;
    finish(cx, HOOK, hook, &id, EffectError::Other).await
}

/// After the end of a container its last lines come within this, or not at all.
const LAST_WORDS: Duration = Duration::from_secs(10);

async fn create(cx: &Context, role: &str, what: &OneShot, learned: &Learned) -> Result<String> {
    cx.say(&format!("{role}: {}", what.text()));
    let engine = &cx.ports.engine;
    let spec = specification(cx, role, what, learned);
    match engine.container(&spec.name).await? {
        Some(leftover) if cx.owns(&leftover).is_some() => engine.remove(&leftover.id).await?,
        Some(other) => return Err(EffectError::in_the_way(&other)),
        None => {}
    }
    Ok(engine.create(&spec).await?)
}

/// Runs it to its end, streams what it prints, and demands exit code 0 within the deadline.
async fn finish(cx: &Context, role: &str, what: &OneShot, id: &str, verdict: fn(String) -> EffectError) -> Result {
    let (engine, text) = (&cx.ports.engine, what.text());
    engine.start(id).await?;

    let (lines, said) = cx.lines("");
    let (stream, container) = (cx.ports.engine.clone(), id.to_owned());
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
        engine.remove(id).await?;
    }
    let words = evidence.as_ref().map(Evidence::words).unwrap_or_default();
    evidence.iter().for_each(|evidence| cx.keep_evidence(evidence));
    let _ = timeout(LAST_WORDS, async { ((&mut follow).await, said.await) }).await;
    follow.abort();
    match ended {
        Err(_) => {
            return Err(verdict(format!(
                "the {role} was killed: it had not ended within {limit:?} (PROCESSGIT_UPDATER_MIGRATION_TIMEOUT){words}"
            )));
        }
        Ok(Err(e)) => return Err(e.into()),
        Ok(Ok(0)) => {}
        Ok(Ok(code)) => return Err(verdict(format!("the {role} failed: {text:?} exited with code {code}{words}"))),
    }
    Ok(engine.remove(id).await?)
}

/// It takes no name, alias, port, restart policy or Compose label of the application: nothing may route
/// traffic to it or take it for the service.
fn specification(cx: &Context, role: &str, what: &OneShot, learned: &Learned) -> ContainerSpec {
    let around = &what.surroundings;
    let spec = ContainerSpec {
        name: name_of(role, &cx.job),
        image: what.image.clone().or_else(|| learned.new_image_id.clone()).unwrap_or_default(),
        entrypoint: around.entrypoint.clone(),
        command: Some(what.command.clone()),
        env: around.environment.iter().map(|(key, value)| format!("{key}={value}")).collect(),
        user: around.user.clone(),
        working_dir: around.working_dir.clone(),
        mounts: what.mounts.clone(),
        networks: around.networks.clone(),
        extra_hosts: around.extra_hosts.clone(),
        cap_add: around.cap_add.clone(),
        cap_drop: around.cap_drop.clone(),
        security_opt: around.security_opt.clone(),
        privileged: around.privileged,
        tmpfs: around.tmpfs.clone(),
        read_only: around.read_only,
        ..ContainerSpec::default()
    };
    cx.sealed(spec, role)
}
