//! Anonymous volumes that the new version brought along: its image declares a `VOLUME` that the old one did not.

use std::collections::BTreeSet;

use super::app::is_moved;
use crate::engine::{Container, EngineError};
use crate::update::context::Context;
use crate::update::plan::Plan;
use crate::update::record::Learned;

/// The anonymous volumes of the new version's containers that no container before them had. Compose hands the
/// others on from there.
pub fn brought(plan: &Plan, containers: &[Container]) -> BTreeSet<String> {
    let before: BTreeSet<&str> = plan.data.copied.iter().chain(&plan.data.uncovered).map(|m| m.name.as_str()).collect();
    let is_new = |c: &&Container| !is_moved(plan, &c.id) && c.image_id != plan.previous.image_id;
    let mounts = containers.iter().filter(is_new).flat_map(|c| &c.mounts);
    mounts.filter(|m| m.is_anonymous() && !before.contains(m.name.as_str())).map(|m| m.name.clone()).collect()
}

/// Removes them after a rollback. One that is older than the job is not of its making, whatever the containers
/// say, and one that is in use is needed. What stays is told; it is no reason for another verdict.
pub async fn remove_brought(cx: &Context, learned: &Learned) {
    let Some(begun) = cx.book.get(&cx.job.0).map(|job| job.started_at) else { return };
    for name in &learned.new_volumes {
        let removed = match cx.ports.engine.volume(name).await {
            // The engine tells whole seconds.
            Ok(Some(volume)) if volume.created_at.is_some_and(|at| at.as_second() >= begun.as_second()) => {
                cx.ports.engine.remove_volume(name).await
            }
            Ok(_) => Ok(()),
            Err(e) => Err(e),
        };
        match removed {
            Ok(()) | Err(EngineError::Conflict(_)) => {}
            Err(e) => cx.warn(&format!(
                "the anonymous volume {name}, which came with the new version, could not be removed ({e}): `docker volume rm {name}`"
            )),
        }
    }
}
