//! The data: copied before, put back exactly.

use super::app::{require_no_writers, require_stopped, stop_writers};
use super::{Result, writers};
use crate::update::book::{Book, HISTORY};
use crate::update::context::Context;
use crate::update::job::State;
use crate::update::plan::{Plan, Purpose};
use crate::update::ports::{CopyLabel, DataMount, Generation, JournalError, Kept, Ports, Standing};
use crate::update::record::Learned;

fn mounts(plan: &Plan) -> Vec<DataMount> {
    plan.data.sources()
}

/// What the copy is of: enough to have the matching version again.
fn label(cx: &Context, plan: &Plan) -> CopyLabel {
    let previous = &plan.previous;
    CopyLabel {
        job: cx.job.clone(),
        version: previous.version.clone(),
        image: previous.image_ref.clone(),
        image_id: previous.image_id.clone(),
        repo_digest: previous.repo_digest.clone(),
        env_value: plan.env.value_before.clone(),
        by_hand: plan.purpose == Purpose::Snapshot,
    }
}

/// First pass: most of the work, while the application runs.
pub async fn hot_copy(cx: &Context, plan: &Plan) -> Result {
    cx.say("copying the data while the application runs");
    Ok(cx.ports.data.hot(&label(cx, plan), &mounts(plan), cx.copying()).await?)
}

/// What changed since the hot copy; complete and durable before anything else is done.
pub async fn cold_copy(cx: &Context, plan: &Plan, learned: &mut Learned) -> Result {
    let copied = cx.ports.data.cold(&label(cx, plan), &mounts(plan), cx.copying()).await;
    let generation = copied?;
    require_stopped(cx, plan, learned, "copying its data").await?;
    writers::require_none(cx, plan, learned, "while it was copied").await?;
    taken(cx, generation, learned);
    Ok(())
}

/// A snapshot of the running application: no moment at which it had exactly this data.
pub async fn copy_running(cx: &Context, plan: &Plan, learned: &mut Learned) -> Result {
    let copied = cx.ports.data.running(&label(cx, plan), &mounts(plan), cx.copying()).await;
    taken(cx, copied?, learned);
    Ok(())
}

fn taken(cx: &Context, generation: Generation, learned: &mut Learned) {
    let Generation { id, files, bytes } = generation;
    cx.say(&format!("snapshot {id}: {files} files, {bytes} bytes"));
    cx.change(|job| job.snapshot = Some(id.clone()));
    learned.generation = Some(id);
}

/// An earlier generation's data; what was there has just been copied.
pub async fn load(cx: &Context, plan: &Plan, learned: &Learned) -> Result {
    let Some(generation) = plan.restores() else { return Ok(()) };
    cx.say(&format!("restoring the data of snapshot {generation}"));
    cx.ports.data.load(generation, &plan.restored(), cx.copying()).await?;
    require_stopped(cx, plan, learned, "restoring its data").await
}

/// Puts the data back as it was when the application stopped; what was written since is kept.
pub async fn restore_data(cx: &Context, plan: &Plan, learned: &mut Learned) -> Result {
    let Some(generation) = learned.generation.clone() else { return Ok(()) };
    let stopped = stop_writers(cx, plan).await?;
    writers::await_none(cx, plan, learned).await?;
    cx.say(&format!("restoring the data from snapshot {generation}"));
    let needed = standing_now(cx, learned).await?.needed;
    let kept = cx.ports.data.restore(&label(cx, plan), &generation, &mounts(plan), &needed, cx.copying()).await;
    let Kept { id, pruned } = kept?;
    require_no_writers(cx, plan, &stopped, "restoring the data").await?;
    if !pruned.is_empty() {
        cx.warn(&format!(
            "to make room for what was written since, these snapshots were removed: {}",
            pruned.join(", ")
        ));
    }
    cx.say(&format!("what was written since is kept as snapshot {id}"));
    cx.change(|job| job.failed_snapshot = Some(id.clone()));
    learned.failed_generation = Some(id);
    Ok(())
}

/// Retention. What cannot be asked for is not pruned.
pub async fn prune(cx: &Context, learned: &Learned) -> Result {
    let standing = standing_now(cx, learned).await?;
    Ok(cx.ports.data.tidy(&cx.job, &standing).await?)
}

async fn standing_now(cx: &Context, learned: &Learned) -> Result<Standing> {
    let mut standing = standing(&cx.ports, &cx.book).await?;
    standing.needed.extend(learned.generation.clone());
    Ok(standing)
}

/// Nothing may remove, whatever retention says, the snapshot that a rollback by hand would want, and what a failed
/// job has named to a person: until it is settled, or, of a job that an earlier version of the updater left, as long
/// as nothing has gone well since.
pub async fn standing(ports: &Ports, book: &Book) -> std::result::Result<Standing, JournalError> {
    let last = ports.journal.last_committed().await?;
    let jobs = book.recent(HISTORY);
    let since = jobs.iter().take_while(|job| job.state != State::Committed).filter(|job| job.state == State::Failed);
    let unasked = since.filter(|job| !job.needs_you && job.settled_at.is_none());
    let waiting = book.waiting();
    let needed = last
        .and_then(|(_, record)| record.learned.generation)
        .into_iter()
        .chain(unasked.filter_map(|job| job.snapshot.clone()))
        .chain(waiting.iter().flat_map(|job| [job.snapshot.clone(), job.failed_snapshot.clone()]).flatten())
        .collect();
    // Of this very job too: it is about to end so.
    let undone = jobs.iter().filter(|job| matches!(job.state, State::RolledBack | State::RollingBack));
    let attempts = undone.flat_map(|job| [job.snapshot.clone(), job.failed_snapshot.clone()]).flatten().collect();
    Ok(Standing { needed, attempts })
}
