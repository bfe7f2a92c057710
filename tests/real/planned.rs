//! Files that change while a job runs: nothing is made of them that was not planned, neither forward nor on the
//! way back.

use std::fs;

use lab::engine::must_run;
use lab::publish::ReleaseSpec;

use crate::case::{Leaves::*, Stage, case};
use crate::data::with_data;

/// What whoever may write to the deployment's folder would like to have.
fn privileged(stage: &Stage) {
    stage.app.edit(&stage.app.compose_file(), |text| {
        text.replacen("  app:\n", "  app:\n    privileged: true\n    cap_add: [SYS_ADMIN]\n    user: \"0:0\"\n", 1)
    });
}

fn is_privileged(stage: &Stage) -> bool {
    let inspected = stage.lab.engine.container(&stage.app.container).expect("the application's container");
    inspected["HostConfig"]["Privileged"].as_bool().expect("a flag")
}

fn made_from(stage: &Stage) -> String {
    let inspected = stage.lab.engine.container(&stage.app.container).expect("the application's container");
    inspected["Config"]["Labels"]["com.docker.compose.project.config_files"].as_str().expect("a label").to_owned()
}

fn with_migration(release: ReleaseSpec) -> ReleaseSpec {
    // It takes long enough to be met.
    release.image(|i| i.env.push(("DATA_DIR".into(), "/data".into()))).migration("fill 300")
}

#[test]
fn a_compose_file_that_is_edited_during_the_migration_is_not_used() {
    let (stage, _job) = with_data("good").release(with_migration).during("migrating", privileged).ends(
        "rolled_back",
        &["the deployment's files were changed since the job was planned", "service app"],
        Whatever,
    );
    assert!(!is_privileged(&stage));
    assert_eq!(stage.app.running_version().as_deref(), Some("1.0.0"));
}

#[test]
fn without_data_it_is_not_used_either() {
    // The gate of the download is the first moment at which a job can be met.
    let (stage, _job) = case().during("pulling", privileged).ends(
        "rolled_back",
        &["the deployment's files were changed since the job was planned"],
        Whatever,
    );
    assert!(!is_privileged(&stage));
}

/// The new version is there already, and is not healthy: the old one is made of what was planned, and whoever
/// undoes the edit finds everything as it was.
#[test]
fn a_compose_file_that_is_edited_at_the_gate_is_not_used_on_the_way_back() {
    let (mut stage, job) = with_data("error500")
        .setting("HEALTH_TIMEOUT", "6s")
        .during("healthchecking", privileged)
        .ends("rolled_back", &["is not healthy"], Whatever);
    assert!(!is_privileged(&stage));
    assert_eq!(stage.app.running_version().as_deref(), Some("1.0.0"));
    let warnings = job.0["warnings"].to_string();
    assert!(warnings.contains("the old version was made from the configuration that was planned"), "{warnings}");
    let own_file = stage.app.compose_file().display().to_string();
    assert_ne!(made_from(&stage), own_file, "the label says what it was made of");

    // The operator undoes the edit: the next update goes by the project's own file.
    stage.app.edit(&stage.app.compose_file(), |text| {
        text.replacen("    privileged: true\n    cap_add: [SYS_ADMIN]\n    user: \"0:0\"\n", "", 1)
    });
    stage.release = stage.lab.publish(ReleaseSpec::new("1.2.0").image(|i| {
        i.env.push(("DATA_DIR".into(), "/data".into()));
    }));
    let job = stage.updater.update(&stage.release.tag);
    job.assert_end("committed", &[]);
    assert_eq!(made_from(&stage), own_file);
}

/// A file that cannot be read any more is no reason to leave the application down.
#[test]
fn a_compose_file_that_is_broken_at_the_gate_keeps_nobody_down() {
    let (stage, _job) = with_data("error500")
        .setting("HEALTH_TIMEOUT", "6s")
        .during("healthchecking", |stage| fs::write(stage.app.compose_file(), "services: [").expect("writing"))
        .ends("rolled_back", &["is not healthy"], Whatever);
    assert_eq!(stage.app.running_version().as_deref(), Some("1.0.0"));
    must_run(std::process::Command::new("docker").args(["inspect", &stage.app.container]));
}
