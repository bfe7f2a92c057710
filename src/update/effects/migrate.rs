//! The migration: a one-shot container of the new image, in the application's surroundings.

use super::app::require_stopped;
use super::{EffectError, Result};
use crate::engine::{ContainerSpec, label};
use crate::update::context::Context;
use crate::update::plan::{Migration, Plan};
use crate::update::record::Learned;

/// Runs it to its end, streams what it prints, and demands exit code 0 within the deadline.
pub async fn migrate(cx: &Context, plan: &Plan, learned: &Learned) -> Result {
    let Some(migration) = &plan.migration else { return Ok(()) };
    cx.say(&format!("migrating: {}", migration.text()));
    let engine = &cx.ports.engine;
    let spec = specification(cx, plan, migration, learned);
    // A half-made one of the same name can only be a leftover of this job.
    engine.remove(&spec.name).await?;
    let id = engine.create(&spec).await?;
    engine.start(&id).await?;

    let (lines, said) = cx.lines("");
    let (stream, container) = (cx.ports.engine.clone(), id.clone());
    let follow = tokio::spawn(async move { stream.logs(&container, lines).await });
    let limit = cx.options.migration_timeout;
    let ended = tokio::time::timeout(limit, engine.wait(&id)).await;
    if ended.is_err() {
        engine.remove(&id).await?;
    }
    let _ = follow.await;
    let _ = said.await;
    match ended {
        Err(_) => {
            return Err(EffectError::other(format!(
                "the migration was killed: it had not ended within {limit:?} (PROCESSGIT_UPDATER_MIGRATION_TIMEOUT)"
            )));
        }
        Ok(Err(e)) => return Err(e.into()),
        Ok(Ok(0)) => {}
        Ok(Ok(code)) => {
            return Err(EffectError::other(format!(
                "the migration failed: {:?} exited with code {code}",
                migration.text()
            )));
        }
    }
    engine.remove(&id).await?;
    require_stopped(cx, plan, "the migration").await
}

/// It takes no name, alias, port, restart policy or Compose label of the application: nothing may route
/// traffic to it or take it for the service.
fn specification(cx: &Context, plan: &Plan, migration: &Migration, learned: &Learned) -> ContainerSpec {
    let service = &migration.service;
    let labels = [(label::JOB, cx.job.0.as_str()), (label::ROLE, "migration")];
    ContainerSpec {
        name: format!("processgit-updater-migration-{}", cx.job.0.trim_start_matches("job_")),
        image: learned.new_image_id.clone().unwrap_or_else(|| plan.target.pinned()),
        entrypoint: service.entrypoint.clone(),
        command: Some(migration.command.clone()),
        env: service.environment.iter().map(|(key, value)| format!("{key}={value}")).collect(),
        user: service.user.clone(),
        working_dir: service.working_dir.clone(),
        labels: labels.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
        mounts: plan.mounts.clone(),
        networks: service.networks.clone(),
        extra_hosts: service.extra_hosts.clone(),
        cap_add: service.cap_add.clone(),
        cap_drop: service.cap_drop.clone(),
        security_opt: service.security_opt.clone(),
        privileged: service.privileged,
        tmpfs: service.tmpfs.clone(),
        read_only: service.read_only,
        stop_grace_seconds: None,
    }
}
