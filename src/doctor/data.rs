//! The application's data: who writes to it, whether a copy finds room, and where copies are kept.

use tokio::time::timeout;

use super::{Doctor, Finding, LOOK, WORK, asked};
use crate::command;
use crate::engine::compose_config::Volume;
use crate::engine::{ComposeConfig, Mount, MountKind};
use crate::update::plan::DataPlan;
use crate::update::refusal::{Code, Refusal, Refused};
use crate::update::survey::data_beside::{self, Covers, Stakes};
use crate::update::survey::{self, Deployment};

/// What would be copied, or why it cannot be.
pub async fn look(doctor: &Doctor, deployment: &Deployment) -> Result<DataPlan, Refused> {
    let looking = survey::data::looked_at(&doctor.ports, &doctor.options, deployment);
    let late = |_| Refused::because(Code::TimedOut, format!("the look at the data did not end within {WORK:?}"));
    timeout(WORK, looking).await.unwrap_or_else(|elapsed| Err(late(elapsed)))
}

/// Everything but the room.
pub async fn check(
    doctor: &Doctor,
    deployment: &Deployment,
    looked: Result<DataPlan, Refused>,
    config: Option<&ComposeConfig>,
) -> Vec<Finding> {
    let (plan, mut findings) = match looked {
        Ok(plan) => {
            let first = mounts(doctor, &plan);
            (plan, vec![first])
        }
        Err(refused) => {
            let plan = survey::data::mounts(&doctor.ports, &doctor.options, deployment);
            (plan, super::bad("data", refused).collect())
        }
    };
    let plan = &plan;
    let Some(config) = config else {
        findings.extend(
            ["data beside", "writers", "hooks"].map(|check| Finding::skipped(check, "Compose cannot be asked")),
        );
        return findings;
    };
    findings.extend(beside(doctor, deployment, plan, config));
    findings.extend(writers(doctor, deployment, plan, config));
    findings.extend(hooks(doctor, deployment, config));
    findings.push(place(doctor, plan, config).await);
    findings
}

fn mounts(doctor: &Doctor, plan: &DataPlan) -> Finding {
    let copied: Vec<&str> = plan.copied.iter().map(|mount| mount.destination.as_str()).collect();
    match (doctor.ports.data.off(), plan.uncovered()) {
        (Some(why), Some(uncovered)) => Finding::warning(
            "data",
            Refusal::new(
                Code::SnapshotsOff,
                format!(
                    "NO data is copied ({why}): when a new version fails after it has written, the job ends `failed`, and {uncovered} stays as it left it"
                ),
            )
            .setting("PROCESSGIT_UPDATER_SNAPSHOT=on"),
        ),
        (None, Some(uncovered)) => Finding::warning(
            "data",
            Refusal::new(
                Code::DataNotCopied,
                format!("not copied: {uncovered}; a rollback cannot put it back. Copied: {}", copied.join(", ")),
            )
            .text("take it out of PROCESSGIT_UPDATER_SNAPSHOT_EXCLUDE, if it is not too much"),
        ),
        (_, None) if copied.is_empty() => Finding::ok("data", "the application has no writable mount of its own: nothing to copy there"),
        (_, None) => Finding::ok("data", format!("copied before an update: {}", copied.join(", "))),
    }
}

/// Databases and the like, in other containers or on other hosts.
fn beside(doctor: &Doctor, deployment: &Deployment, plan: &DataPlan, config: &ComposeConfig) -> Vec<Finding> {
    const CHECK: &str = "data beside";
    let options = &doctor.options;
    let stores = survey::assemble::stores(options, deployment, config, plan);
    let covers = Covers::of(options, plan.is_copied());
    let known = survey::named::Known::of(deployment, config);
    let told = data_beside::told(&stores, covers, Stakes::AnotherVersion);
    let wrong = told.into_iter().chain(data_beside::unknown(&stores, covers, known));
    let mut findings: Vec<Finding> = wrong.map(|refusal| Finding::warning(CHECK, refusal)).collect();
    if let Some(covered) = data_beside::covered(&stores) {
        findings.push(Finding::ok(CHECK, covered));
    } else if findings.is_empty() {
        findings
            .push(Finding::ok(CHECK, "none was found: nothing that the application depends on or names keeps data, and nothing in its networks seems to"));
    }
    findings
}

fn writers(doctor: &Doctor, deployment: &Deployment, plan: &DataPlan, config: &ComposeConfig) -> Vec<Finding> {
    let (named, own) = (&doctor.options.stop_services, doctor.options.own_container.as_deref());
    let wrong = survey::named::stop_refusals(named, own, deployment, config);
    if !wrong.is_empty() {
        return super::bad("writers", Refused(wrong)).collect();
    }
    match survey::data::companions(&doctor.options, deployment, Some(plan), config) {
        Err(refused) => super::bad("writers", refused).collect(),
        Ok(companions) if companions.is_empty() => vec![Finding::ok("writers", "nobody else writes to the data")],
        Ok(companions) => {
            let list: Vec<&str> = companions.iter().map(|companion| companion.name.as_str()).collect();
            vec![Finding::ok("writers", format!("stopped with the application: {}", list.join(", ")))]
        }
    }
}

fn hooks(doctor: &Doctor, deployment: &Deployment, config: &ComposeConfig) -> Vec<Finding> {
    let options = &doctor.options;
    let set: Vec<String> = [&options.hook_before_copy, &options.hook_after_restore]
        .into_iter()
        .flatten()
        .map(|hook| hook.text())
        .collect();
    match survey::data::hooks(options, config, deployment) {
        _ if set.is_empty() => vec![Finding::skipped("hooks", "none is set")],
        Ok(_) => vec![Finding::ok("hooks", set.join("; "))],
        Err(refused) => super::bad("hooks", refused).collect(),
    }
}

/// `docker compose down -v` deletes the project's own volumes, and snapshots in one of them.
async fn place(doctor: &Doctor, plan: &DataPlan, config: &ComposeConfig) -> Finding {
    let folder = doctor.settings.snapshot.dir.display();
    if plan.copied.is_empty() {
        return Finding::skipped("snapshots", "nothing is copied");
    }
    let own = asked(LOOK, doctor.around.own()).await.ok().flatten();
    match own.as_ref().and_then(|own| own.mount_of(&doctor.settings.snapshot.dir)).filter(|m| is_of(config, m)) {
        None => Finding::ok("snapshots", format!("kept in {folder}, outside of the project's volumes")),
        Some(mount) => Finding::warning(
            "snapshots",
            Refusal::new(
                Code::SnapshotsInProject,
                format!(
                    "{folder} is in volume {} of the project itself: `docker compose down -v` deletes the snapshots with the data",
                    mount.name
                ),
            )
            .text(format!(
                "keep it in a folder of the host: volumes: [\"/srv/processgit-updater:{}\"]",
                mount.destination
            )),
        ),
    }
}

/// It is one of the project's own volumes.
fn is_of(config: &ComposeConfig, mount: &Mount) -> bool {
    let mut volumes = config.volumes.values();
    let is_it = |volume: &Volume| volume.name.as_ref() == Some(&mount.name) && !volume.external;
    mount.kind == MountKind::Volume && !mount.name.is_empty() && volumes.any(is_it)
}

/// Whether a copy can be made: the longest look of all.
pub async fn room(doctor: &Doctor, plan: &DataPlan) -> Vec<Finding> {
    let folder = doctor.settings.snapshot.dir.display();
    if plan.copied.is_empty() {
        return vec![Finding::skipped("room", "nothing is copied")];
    }
    let room = match timeout(WORK, doctor.ports.data.room(&plan.sources())).await {
        Ok(Ok(room)) => room,
        Ok(Err(why)) => {
            let why = Refused::from(why).or_text("name another folder in PROCESSGIT_UPDATER_SNAPSHOT_DIR");
            return super::bad("room", why).collect();
        }
        // There may be much of it; an update takes the time that it needs.
        Err(_) => {
            let seconds = WORK.as_secs();
            let seen = format!("the walk through the data did not end within {seconds} s, so its size is not known");
            let look = format!("df -h {}", command::path(&doctor.settings.snapshot.dir));
            return vec![Finding::warning("room", Refusal::new(Code::SizeUnknown, seen).command(look))];
        }
    };
    if !room.refusals.is_empty() {
        return room.refusals.into_iter().map(|obstacle| Finding::bad("room", obstacle)).collect();
    }
    let numbers = room.needed_and_free.map_or_else(String::new, |(needed, free)| {
        format!(": {} MiB needed, {} MiB free", needed.div_ceil(1 << 20), free >> 20)
    });
    let left = match room.unfinished {
        0 => String::new(),
        n => format!("; {n} unfinished copies of earlier jobs, which the next one removes"),
    };
    vec![Finding::ok("room", format!("{folder} keeps owners, xattrs and hard links{numbers}{left}"))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_of_the_project() {
        let config = serde_json::json!({"volumes": {"a": {"name": "shop_a"}, "b": {"name": "b", "external": true}}});
        let config = serde_json::from_value(config).unwrap();
        for (kind, name, own) in [
            (MountKind::Volume, "shop_a", true),
            (MountKind::Volume, "b", false),
            (MountKind::Volume, "other_a", false),
            (MountKind::Bind, "", false),
        ] {
            let (source, destination) = (String::new(), "/state".into());
            let mount = Mount { kind, name: name.into(), source, destination, writable: true, subpath: String::new() };
            assert_eq!(is_of(&config, &mount), own, "{name}");
        }
    }
}
