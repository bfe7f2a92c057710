//! The doctor on a real deployment: nothing to tell of a good one, and one broken thing is the one it names.

use std::fs;
use std::process::Command;
use std::time::Duration;

use jiff::Timestamp;
use lab::engine::must_run;
use lab::eventually;
use lab::publish::ReleaseSpec;
use lab::sidecar::{Network, Sees};
use lab::socket_proxy::Filter;
use lab::world::World;
use serde_json::Value;

use crate::case::{Stage, case};
use crate::data::with_data;
use crate::disk::Mount;
use crate::examples::example;

/// What is not well, as `check: seen -> remedy`, and the exit code.
pub fn troubles(command: &mut Command) -> (Vec<String>, Option<i32>) {
    let output = command.args(["doctor", "--json"]).output().expect("the program");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    let text = |finding: &Value, field: &str| finding[field].as_str().unwrap_or("NONE").to_owned();
    let findings = report["findings"].as_array().expect("findings");
    let told = findings.iter().filter(|f| f["verdict"] == "bad" || f["verdict"] == "warning");
    let line = |f: &Value| format!("{}: {} -> {}", text(f, "check"), text(f, "seen"), text(f, "remedy"));
    (told.map(line).collect(), output.status.code())
}

/// It tells one thing, with all of these in it, and nothing if there are none.
fn tells(command: &mut Command, bad: bool, parts: &[&str]) {
    let (told, code) = troubles(command);
    assert_eq!(told.len(), parts.len().min(1), "{told:#?}");
    for part in parts {
        assert!(told[0].contains(part), "it does not say {part:?}: {}", told[0]);
    }
    assert_eq!(code, Some(i32::from(bad)), "{told:?}");
}

/// From a process of its own.
fn here(stage: &Stage) -> Command {
    let mut command = stage.updater.command();
    // Before the command there is no place for a flag.
    command.env("PROCESSGIT_UPDATER_URL", "http://127.0.0.1:1");
    command
}

#[test]
fn on_the_host() {
    let stage = with_data("good").stage();
    tells(&mut stage.updater.command(), false, &[]);
    tells(&mut here(&stage), false, &["updater: none answers at http://127.0.0.1:1"]);
    stage.before.assert_untouched(&World::of(&stage.app));

    let folder = stage.app.folder();
    let read_only = Mount::new(&["--bind", folder.to_str().expect("a path")], folder);
    must_run(Command::new("mount").args(["-o", "remount,bind,ro"]).arg(folder));
    tells(
        &mut stage.updater.command(),
        true,
        &[".env: ", "cannot be written: Read-only file system", "mount it writable"],
    );
    drop(read_only);

    stage.lab.publish(ReleaseSpec::new("1.2.0").by_a_stranger());
    let (told, _) = troubles(&mut here(&stage));
    assert!(
        told.len() == 2 && told[1].starts_with("newest release: the manifest of v1.2.0 is not trusted"),
        "{told:?}"
    );

    stage.lab.engine.stop(&stage.app.container);
    tells(&mut stage.updater.command(), true, &["application: container ", "is exited", "docker start "]);
}

#[test]
fn a_key_that_selects_nothing() {
    let stage = case().app(|a| a.ignores_version_key = true).stage();
    let parts = ["version key: with APP_VERSION=", "demo/app:${APP_VERSION:-latest}"];
    tells(&mut stage.updater.command(), true, &parts);
}

#[test]
fn in_a_container() {
    let stage = with_data("good").sidecar(Sees::Deploy, |s| s.network = Network::Host).stage();
    tells(&mut stage.updater.command(), false, &[]);
    // As one types it where it does not run.
    let mut stage = stage;
    stage.updater.sigterm();
    let mut run = stage.app.compose_command(&["run", "--rm", "--no-deps", "-T", "updater"]);
    tells(&mut run, false, &["updater: none answers at"]);
}

#[test]
fn a_state_folder_that_is_no_mount() {
    let stage = case()
        .sidecar(Sees::Deploy, |s| s.network = Network::Host)
        .setting("STATE_DIR", "/state")
        .setting("SNAPSHOT", "off")
        .stage();
    let (told, code) = troubles(&mut stage.updater.command());
    let place: Vec<_> = told.iter().filter(|line| line.starts_with("place: ")).collect();
    assert!(place.len() == 1 && place[0].contains("/state") && place[0].contains("is no mount"), "{told:?}");
    assert_eq!(code, Some(1));
}

/// The trials of the calls are harmless, and a call that is missing is named.
#[test]
fn behind_a_socket_proxy() {
    let folder = tempfile::tempdir().expect("a folder");
    let rules = folder.path().join("rules.yml");
    let text = fs::read_to_string(example("socket-proxy.yml")).expect("the example");
    fs::write(&rules, text.replace("rename|update", "rename").replace("images/(create|", "images/(")).expect("writing");
    for (rules, parts) in [
        (example("socket-proxy.yml"), &[][..]),
        (rules, &["engine calls: ", ": POST containers/*/update, POST images/create ->"]),
    ] {
        let behind = Some(Filter { rules, tcp: None });
        let stage = case().sidecar(Sees::Deploy, |s| (s.network, s.behind) = (Network::Host, behind)).stage();
        tells(&mut stage.updater.command(), !parts.is_empty(), parts);
        stage.before.assert_untouched(&World::of(&stage.app));
    }
}

#[test]
fn as_nobody_in_no_group() {
    let stage = case().sidecar(Sees::Deploy, |s| (s.network, s.user) = (Network::Host, Some((65534, 65534)))).stage();
    let parts = ["socket: /var/run/docker.sock is of user 0", "this process is user 65534", "group_add: "];
    tells(&mut stage.updater.command(), true, &parts);
}

/// What is mounted file by file is left behind when the host replaces it.
#[test]
fn files_one_by_one() {
    let stage = case().sidecar(Sees::SingleFiles, |s| s.network = Network::Host).stage();
    tells(
        &mut stage.updater.command(),
        false,
        &["place: /deploy/.env is mounted by itself; an editor", "mount the folder"],
    );
    let (file, new) = (stage.app.env_file(), stage.app.folder().join(".env.new"));
    fs::copy(&file, &new).and_then(|_| fs::rename(&new, &file)).expect("as an editor does it");
    tells(
        &mut stage.updater.command(),
        false,
        &["place: /deploy/.env is mounted by itself, and the host has replaced it"],
    );
}

/// Before it is told to be real: the updater that simulates has the state folder, and a look beside it sees
/// everything.
#[test]
fn beside_an_updater_that_simulates() {
    let stage = with_data("good").sidecar(Sees::Deploy, |s| s.network = Network::Host).setting("STUB", "true").stage();
    let mut here = stage.updater.command();
    let output = here.args(["doctor", "--here", "--stub=false", "--json"]).output().expect("the program");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    let all = report["findings"].as_array().expect("findings");
    for check in ["compose", ".env", "version key", "drift", "data", "room", "writers"] {
        let found = all.iter().filter(|f| f["check"] == check).collect::<Vec<_>>();
        assert!(!found.is_empty() && found.iter().all(|f| f["verdict"] == "ok"), "{check}: {found:#?}");
    }
    assert_eq!((report["ok"].as_bool(), output.status.code()), (Some(true), Some(0)), "{report:#}");
    stage.before.assert_untouched(&World::of(&stage.app));
}

/// In another folder the same files are another project, with empty volumes.
#[test]
fn data_that_stayed_in_another_project() {
    let old = |stage: &Stage| format!("{}-old", stage.app.project);
    let stage = with_data("good").stage();
    let volume = |project: &str, stage: &Stage| {
        let name = format!("{project}_data");
        let label = |name: &str, value: &str| format!("com.docker.compose.{name}={value}");
        let run = stage.lab.run.label();
        must_run(Command::new("docker").args(["volume", "create", "--label", &run]).args([
            "--label",
            &label("project", project),
            "--label",
            &label("volume", "data"),
            &name,
        ]));
        name
    };
    // Younger: somebody else's.
    let other = volume(&format!("{}-younger", stage.app.project), &stage);
    tells(&mut stage.updater.command(), false, &[]);
    must_run(Command::new("docker").args(["volume", "rm", &other]));
    let name = volume(&old(&stage), &stage);
    stage.app.compose(&["down", "-v"]);
    // The engine notes whole seconds, so what is made now may be as old.
    let second = || Timestamp::now().as_second();
    let made = second();
    eventually("the next second", Duration::from_secs(5), || (second() > made).then_some(()));
    stage.app.compose(&["up", "-d"]);
    stage.app.await_version("1.0.0");
    let keep = format!("COMPOSE_PROJECT_NAME={}", old(&stage));
    tells(&mut stage.updater.command(), false, &["project: ", &name, &keep]);
    must_run(Command::new("docker").args(["volume", "rm", &name]));
}
