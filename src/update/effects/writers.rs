//! Who else writes to the application's data. Planning refuses a job where others do (`survey/data.rs`); here it is
//! looked at again just before the data is touched, because a container may have come since.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::app::is_moved;
use super::{EffectError, Result};
use crate::command;
use crate::engine::{Container, Mount};
use crate::update::context::Context;
use crate::update::plan::Plan;
use crate::update::record::Learned;
use crate::update::refusal::{Code, Refusal};
use crate::update::survey::data::overlaps;

/// A backup or an import that somebody has begun may end by itself. Longer than this the application is not
/// kept down for it; then a person has to stop it.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_secs(1);

/// Just before the application is stopped: nobody but those who were planned with writes to its data. Who could, and
/// does not run, is remembered.
pub async fn before_the_stop(cx: &Context, plan: &Plan, learned: &mut Learned) -> Result {
    let with_access = with_access(cx, plan).await?;
    refuse(with_access.iter().filter(|c| c.is_alive()), "now")?;
    learned.bystanders = Some(with_access.into_iter().map(|c| (c.id, c.started_at)).collect());
    Ok(())
}

/// Nobody but those who were planned with writes to the data, or has done so since the application was stopped.
/// `when` is said of them: `writes to the application's data WHEN`.
pub async fn require_none(cx: &Context, plan: &Plan, learned: &Learned, when: &str) -> Result {
    let with_access = with_access(cx, plan).await?;
    refuse(with_access.iter().filter(|c| c.is_alive() || has_run(c, learned)), when)
}

/// After a migration there is no way to leave out what others wrote meanwhile: it is told.
pub async fn tell(cx: &Context, plan: &Plan, learned: &Learned, when: &str) -> Result {
    let with_access = with_access(cx, plan).await?;
    let strangers: Vec<_> = with_access.iter().filter(|c| c.is_alive() || has_run(c, learned)).collect();
    if !strangers.is_empty() {
        cx.warn(&described(&strangers, when));
    }
    Ok(())
}

/// Before older data is put back: whoever still writes would write into it, and is waited for. Whatever others have
/// written is told, because the restored data does not have it.
pub async fn await_none(cx: &Context, plan: &Plan, learned: &Learned) -> Result {
    let began = Instant::now();
    loop {
        let mut with_access = with_access(cx, plan).await?;
        // What is moved has just been stopped, whoever made it.
        with_access.retain(|c| !plan.project.is_of_moved(c));
        let alive: Vec<_> = with_access.iter().filter(|c| c.is_alive()).collect();
        if alive.is_empty() {
            let ended: Vec<_> = with_access.iter().filter(|c| has_run(c, learned)).collect();
            if !ended.is_empty() {
                cx.warn(&format!(
                    "{}: the data is put back without what it wrote, which is kept in the snapshot of the failed version",
                    described(&ended, "during this job")
                ));
            }
            return Ok(());
        }
        let names: Vec<_> = alive.iter().map(|c| c.name.as_str()).collect();
        if began.elapsed() >= PATIENCE {
            return Err(refused(format!(
                "{}, so the data cannot be put back. It is not stopped without your consent: {}",
                described(&alive, "now"),
                command::line(["docker", "stop"].into_iter().chain(names))
            )));
        }
        if began.elapsed().is_zero() {
            cx.say(&format!("waiting for {}, which still writes to the data", names.join(", ")));
        }
        sleep(PAUSE).await;
    }
}

fn refuse<'a>(strangers: impl Iterator<Item = &'a Container>, when: &str) -> Result {
    let strangers: Vec<_> = strangers.collect();
    if strangers.is_empty() {
        return Ok(());
    }
    Err(refused(format!(
        "{} and was not there when the job was planned. Stop it, or name it in PROCESSGIT_UPDATER_STOP_SERVICES to have it stopped as well, then ask again",
        described(&strangers, when)
    )))
}

fn refused(what: String) -> EffectError {
    EffectError::Port(Refusal::new(Code::Writers, what))
}

fn described(strangers: &[&Container], when: &str) -> String {
    let names: Vec<_> = strangers.iter().map(|c| c.name.as_str()).collect();
    let does = if strangers.iter().any(|c| c.is_alive()) { "writes" } else { "had write access" };
    format!("container {} {does} to the application's data {when}", names.join(", "))
}

/// It has been started since the application was stopped.
fn has_run(c: &Container, learned: &Learned) -> bool {
    let is_other_than_before = |before: &Option<_>| *before != c.started_at;
    let bystanders = learned.bystanders.as_ref();
    c.started_at.is_some() && bystanders.is_some_and(|known| known.get(&c.id).is_none_or(is_other_than_before))
}

/// Containers with a writable mount of the data that are neither part of this job nor ours.
async fn with_access(cx: &Context, plan: &Plan) -> Result<Vec<Container>> {
    let data: &[Mount] = if plan.data.is_copied() { &plan.data.copied } else { &plan.data.uncovered };
    if data.is_empty() {
        return Ok(Vec::new());
    }
    let mut containers = cx.ports.engine.containers(&[]).await?;
    containers.retain(|c| {
        let is_ours = cx.options.is_ours(c) || cx.options.is_for_one_command(c, &plan.project);
        let is_companion = plan.companions.iter().any(|companion| companion.container_id == c.id);
        !is_ours && !is_companion && !is_moved(plan, &c.id) && c.mounts.iter().any(|m| overlaps(m, data))
    });
    Ok(containers)
}
