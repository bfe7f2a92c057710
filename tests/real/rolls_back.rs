//! Releases that turn out bad after the swap, or in the migration: the application is as it was before.

use serde_json::json;

use crate::case::Case;
use crate::case::Leaves::{Restored, Whatever};
use crate::case::case;

/// A release whose image behaves so; the gate is impatient.
fn bad(behaviour: &'static str) -> Case {
    case().release(|r| r.behaviour(behaviour)).setting("HEALTH_TIMEOUT", "4s")
}

#[test]
fn it_crashes_at_the_start() {
    bad("crash").setting("HEALTH_TIMEOUT", "1m").ends(
        "rolled_back",
        &["exit code 1", "crashing at the start"],
        Restored,
    );
}

#[test]
fn it_answers_and_then_crashes() {
    bad("crash-late:1").setting("HEALTH_STABLE", "2s").ends("rolled_back", &[], Restored);
}

#[test]
fn it_answers_500_for_ever() {
    bad("error500").ends("rolled_back", &["within 4s", "500"], Restored);
}

#[test]
fn every_second_answer_is_a_500() {
    bad("flaky:2").setting("HEALTH_STABLE", "2s").ends("rolled_back", &["within 4s"], Restored);
}

#[test]
fn it_never_listens() {
    bad("never").ends("rolled_back", &["within 4s", "does not answer"], Restored);
}

#[test]
fn it_accepts_and_never_answers() {
    bad("silent").ends("rolled_back", &["within 4s"], Restored);
}

#[test]
fn it_says_it_is_another_version() {
    bad("wrong-version").setting("HEALTH_VERSION", "/version").ends(
        "rolled_back",
        &["/version", "0.0.0-wrong", "1.1.0"],
        Restored,
    );
}

#[test]
fn it_does_not_say_its_version_where_it_was_expected() {
    bad("good").setting("HEALTH_VERSION", "/build/version").ends("rolled_back", &["/build/version"], Restored);
}

#[test]
fn its_own_healthcheck_says_unhealthy() {
    let sick = json!({ "Test": ["CMD", "/demo-app", "check", "--fail"], "Interval": 300_000_000_u64, "Retries": 1 });
    case().release(|r| r.image(move |i| i.healthcheck = Some(sick))).setting("HEALTH_TIMEOUT", "4s").ends(
        "rolled_back",
        &["unhealthy"],
        Restored,
    );
}

#[test]
fn its_program_does_not_exist() {
    bad("good").release(|r| r.image(|i| i.entrypoint = "/no-such-program".into())).ends(
        "rolled_back",
        &["no-such-program"],
        Restored,
    );
}

#[test]
fn the_migration_fails() {
    let (_stage, job) =
        case().release(|r| r.migration("migrate --fail")).ends("rolled_back", &["migrate --fail", "code 1"], Restored);
    assert!(job.output("migrating").contains("the migration failed, as it was asked to"), "{:#}", job.0);
}

#[test]
fn the_migration_hangs() {
    case().release(|r| r.migration("migrate --hang")).setting("MIGRATION_TIMEOUT", "2s").ends(
        "rolled_back",
        &["2s", "MIGRATION_TIMEOUT"],
        Restored,
    );
}

#[test]
fn the_env_file_says_latest_and_the_local_tag_moves_meanwhile() {
    bad("error500")
        .app(|a| a.image_tag = "latest".into())
        .setting("HEALTH_VERSION", "/version")
        .during("healthchecking", |s| {
            let other = s.lab.engine.image(&s.release.image.reference()).expect("the new image")["Id"].clone();
            s.lab.engine.tag(other.as_str().expect("an id"), &s.app.image.name(), "latest");
        })
        .ends("rolled_back", &["500"], Restored);
}

#[test]
fn the_operator_edits_the_env_file_meanwhile() {
    let (stage, _job) = bad("error500")
        .during("healthchecking", |s| s.app.edit(&s.app.env_file(), |text| format!("ADDED=meanwhile\n{text}")))
        .ends("rolled_back", &["500"], Whatever);
    let env = std::fs::read_to_string(stage.app.env_file()).unwrap();
    assert_eq!(env, format!("ADDED=meanwhile\n{}", stage.before.env), "the edit is kept, the version is set back");
    stage.app.await_version("1.0.0");
}

/// With a writable mount and no copy of the data, nobody can say that all is as before.
#[test]
fn data_that_was_not_copied_is_not_called_restored() {
    let (stage, _job) = bad("error500")
        .setting("SNAPSHOT", "off")
        .app(|a| {
            a.service_lines.push("volumes: [data:/data]".into());
            a.file_lines.push("volumes: { data: {} }".into());
        })
        .ends("failed", &["/data", "500"], Whatever);
    stage.app.await_version("1.0.0");
    assert_eq!(stage.app.version_in_env().as_deref(), Some("1.0.0"));
}
