//! Deployments whose files and containers disagree: said before, not found out after.

use serde_json::json;

use crate::case::Leaves::{Untouched, Updated, Whatever};
use crate::case::{Case, Stage, case};

/// The Compose file is edited so after the application was brought up.
fn edited(from: &'static str, to: &'static str) -> Case {
    case().before(move |s: &Stage| s.app.edit(&s.app.compose_file(), |text| text.replacen(from, to, 1)))
}

const ENVIRONMENT: &str = "    environment:\n";

#[test]
fn a_variable_was_added() {
    edited(ENVIRONMENT, "    environment:\n      SECRET_GREETING: do-not-show\n").ends(
        "rolled_back",
        &["SECRET_GREETING", "accept_drift"],
        Untouched,
    );
}

#[test]
fn values_of_variables_are_never_shown() {
    let (stage, job) = edited(ENVIRONMENT, "    environment:\n      SECRET_GREETING: do-not-show\n").ends(
        "rolled_back",
        &["SECRET_GREETING"],
        Untouched,
    );
    assert!(!job.0.to_string().contains("do-not-show") && !stage.updater.log_text().contains("do-not-show"));
}

#[test]
fn a_port_was_added() {
    edited("    ports: [", "    ports: [\"127.0.0.1:0:3999\", ").ends("rolled_back", &["ports", "3999"], Untouched);
}

/// As in ProcessGit's own deployment: the whole of `.env` is the application's environment, and an update of
/// the updater has written its version there.
#[test]
fn what_the_updater_itself_has_written_is_none() {
    case()
        .app(|a| a.service_lines.push("env_file: [.env]".into()))
        .before(|s| {
            let title = "TITLE=";
            s.app.edit(&s.app.env_file(), |text| {
                text.replace(title, &format!("PROCESSGIT_UPDATER_VERSION=2.0.0\n{title}"))
            });
        })
        .ends("committed", &[], Whatever);
}

#[test]
fn it_is_accepted_on_request() {
    let (stage, _job) = edited(ENVIRONMENT, "    environment:\n      GREETING: hello\n")
        .request(json!({ "accept_drift": true }))
        .ends("committed", &[], Whatever);
    stage.app.await_version("1.1.0");
    let env = stage.app.app().expect("the application")["Config"]["Env"].to_string();
    assert!(env.contains("GREETING=hello"), "the edit is in effect: {env}");
}

/// A comment is no drift.
#[test]
fn a_comment_was_added() {
    edited(ENVIRONMENT, "    # a comment\n    environment:\n").ends("committed", &[], Whatever);
}

/// The file names its image itself, so setting the key would change nothing.
#[test]
fn the_compose_file_ignores_the_version_key() {
    case().app(|a| a.ignores_version_key = true).ends("rolled_back", &["APP_VERSION", "1.0.0", "1.1.0"], Untouched);
}

/// Somebody has written the very version into `.env` that is then asked for: it is installed, with its way back.
#[test]
fn the_wanted_version_is_in_env_already() {
    let named = || {
        case().before(|s| s.app.edit(&s.app.env_file(), |text| text.replace("APP_VERSION=1.0.0", "APP_VERSION=1.1.0")))
    };
    named().ends("committed", &[], Updated);
    let (stage, _) =
        named().release(|r| r.behaviour("crash")).gate_for("crash").ends("rolled_back", &["exit code 1"], Whatever);
    assert_eq!(stage.app.running_version().as_deref(), Some("1.0.0"));
    assert_eq!(stage.app.version_in_env().as_deref(), Some("1.1.0"), "as it was before");
}

/// For any other version `.env` has to say first what runs; `docker compose up` would be an update without a way back.
#[test]
fn another_version_is_in_env() {
    let edit = |s: &Stage| s.app.edit(&s.app.env_file(), |text| text.replace("APP_VERSION=1.0.0", "APP_VERSION=1.0.5"));
    let says = ["APP_VERSION=1.0.5 in .env has not been applied", "env set --file", "accept_drift"];
    let (_, job) = case().before(edit).ends("rolled_back", &says, Untouched);
    assert!(!job.0.to_string().contains("compose up"), "{:#}", job.0);
}
