//! The data: copied before, put back exactly.

use super::app::require_stopped;
use super::{EffectError, Result};
use crate::engine::Mount;
use crate::update::context::Context;
use crate::update::plan::{DataPlan, Plan};
use crate::update::record::Learned;

fn mounts(plan: &Plan) -> &[Mount] {
    match &plan.data {
        DataPlan::Copied(mounts) => mounts,
        DataPlan::None | DataPlan::NotCopied { .. } => &[],
    }
}

pub async fn hot_copy(cx: &Context, plan: &Plan) -> Result {
    cx.say("copying the data while the application runs");
    cx.ports.data.hot(&cx.job, mounts(plan), cx.copying()).await.map_err(EffectError::other)
}

/// What changed since the hot copy; complete and durable before anything else is done.
pub async fn cold_copy(cx: &Context, plan: &Plan, learned: &mut Learned) -> Result {
    let generation = cx.ports.data.cold(&cx.job, mounts(plan), cx.copying()).await.map_err(EffectError::other)?;
    require_stopped(cx, plan, "copying its data").await?;
    cx.say(&format!("snapshot {}: {} files, {} bytes", generation.id, generation.files, generation.bytes));
    learned.generation = Some(generation.id);
    Ok(())
}

/// Puts the data back as it was when the application stopped; what the new version wrote is kept.
pub async fn restore_data(cx: &Context, plan: &Plan, learned: &mut Learned) -> Result {
    let Some(generation) = learned.generation.clone() else { return Ok(()) };
    cx.say(&format!("restoring the data from snapshot {generation}"));
    let kept =
        cx.ports.data.restore(&cx.job, &generation, mounts(plan), cx.copying()).await.map_err(EffectError::other)?;
    cx.say(&format!("what the new version wrote is kept as snapshot {kept}"));
    learned.failed_generation = Some(kept);
    Ok(())
}
