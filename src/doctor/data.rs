//! The application's data: who writes to it, whether a copy finds room, and where copies are kept.

use serde_json::Value;

use super::{Doctor, Finding, LOOK, WORK, asked};
use crate::engine::MountKind;
use crate::update::plan::DataPlan;
use crate::update::survey::{self, Deployment};

/// Everything but the room.
pub async fn check(doctor: &Doctor, deployment: &Deployment, plan: &DataPlan, config: Option<&Value>) -> Vec<Finding> {
    let mut findings = vec![mounts(doctor, plan)];
    let Some(config) = config else {
        findings.extend(["writers", "hooks"].map(|check| Finding::skipped(check, "Compose cannot be asked")));
        return findings;
    };
    findings.push(writers(doctor, deployment, plan, config));
    findings.push(hooks(doctor, deployment, config));
    findings.extend(inside_the_project(doctor, config).await);
    findings
}

fn mounts(doctor: &Doctor, plan: &DataPlan) -> Finding {
    let copied: Vec<&str> = plan.copied.iter().map(|mount| mount.destination.as_str()).collect();
    match (doctor.ports.data.off(), plan.uncovered()) {
        (Some(why), Some(uncovered)) => Finding::warning(
            "data",
            format!(
                "NO data is copied ({why}): when a new version fails after it has written, the job ends `failed`, and {uncovered} stays as it left it"
            ),
            "PROCESSGIT_UPDATER_SNAPSHOT=on",
        ),
        (None, Some(uncovered)) => Finding::warning(
            "data",
            format!("not copied: {uncovered}; a rollback cannot put it back. Copied: {}", copied.join(", ")),
            "take it out of PROCESSGIT_UPDATER_SNAPSHOT_EXCLUDE, if it is not too much",
        ),
        (_, None) if copied.is_empty() => Finding::ok("data", "the application has no writable mount: nothing to copy"),
        (_, None) => Finding::ok("data", format!("copied before an update: {}", copied.join(", "))),
    }
}

fn writers(doctor: &Doctor, deployment: &Deployment, plan: &DataPlan, config: &Value) -> Finding {
    match survey::data::companions(&doctor.options, deployment, plan, config) {
        Err(refused) => Finding::bad("writers", refused.to_string(), "PROCESSGIT_UPDATER_STOP_SERVICES=NAME,NAME"),
        Ok(companions) if companions.is_empty() => Finding::ok("writers", "nobody else writes to the data"),
        Ok(companions) => {
            let list: Vec<&str> = companions.iter().map(|companion| companion.name.as_str()).collect();
            Finding::ok("writers", format!("stopped with the application: {}", list.join(", ")))
        }
    }
}

fn hooks(doctor: &Doctor, deployment: &Deployment, config: &Value) -> Finding {
    let options = &doctor.options;
    let set: Vec<String> = [&options.hook_before_copy, &options.hook_after_restore]
        .into_iter()
        .flatten()
        .map(|hook| hook.text())
        .collect();
    match survey::data::hooks(options, config, deployment) {
        _ if set.is_empty() => Finding::skipped("hooks", "none is set"),
        Ok(_) => Finding::ok("hooks", set.join("; ")),
        Err(refused) => Finding::bad("hooks", refused.to_string(), "docker compose up -d SERVICE"),
    }
}

/// `docker compose down -v` deletes the project's own volumes, and snapshots in one of them.
async fn inside_the_project(doctor: &Doctor, config: &Value) -> Option<Finding> {
    let folder = &doctor.settings.snapshot.dir;
    let own = asked(LOOK, doctor.around.own()).await.ok().flatten()?;
    let mount = own.mount_of(folder).filter(|mount| mount.kind == MountKind::Volume && !mount.name.is_empty())?;
    let volumes = config["volumes"].as_object()?;
    let is_own = |volume: &Value| volume["name"] == mount.name.as_str() && volume["external"] != true;
    volumes.values().any(is_own).then(|| {
        Finding::warning(
            "snapshots",
            format!(
                "{} is in volume {} of the project itself: `docker compose down -v` deletes the snapshots with the data",
                folder.display(),
                mount.name
            ),
            format!("volumes: [\"/srv/processgit-updater:{}\"]", mount.destination),
        )
    })
}

/// Whether a copy can be made: the longest look of all.
pub async fn room(doctor: &Doctor, plan: &DataPlan) -> Finding {
    let folder = doctor.settings.snapshot.dir.display();
    if plan.copied.is_empty() {
        return Finding::skipped("room", "nothing is copied");
    }
    let room = match asked(WORK, doctor.ports.data.room(&plan.copied)).await {
        Ok(room) => room,
        Err(why) => return Finding::bad("room", why, "correct PROCESSGIT_UPDATER_SNAPSHOT_DIR"),
    };
    if !room.refusals.is_empty() {
        return Finding::bad(
            "room",
            room.refusals.join("; "),
            "processgit-updater snapshot prune, or correct PROCESSGIT_UPDATER_SNAPSHOT_DIR",
        );
    }
    let numbers = room.needed_and_free.map_or_else(String::new, |(needed, free)| {
        format!(": {} MiB needed, {} MiB free", needed.div_ceil(1 << 20), free >> 20)
    });
    let left = match room.unfinished {
        0 => String::new(),
        n => format!("; {n} unfinished copies of earlier jobs, which the next one removes"),
    };
    Finding::ok("room", format!("{folder} keeps owners, xattrs and hard links{numbers}{left}"))
}
