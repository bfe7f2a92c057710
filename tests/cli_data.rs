//! `snapshot`, `rollback` and `settle` against the real server with a scripted domain.
#![allow(clippy::unwrap_used)]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};

use assert_cmd::Command;
use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use processgit_updater::update::job::{Job, Kind, State};
use processgit_updater::update::ports::{Distance, SnapshotInfo};
use processgit_updater::update::{Order, RollbackView};
use serde_json::Value;
use support::{JOB, Script, Server, TOKEN, ended, failed, job, snapshot};

/// The program, told where `server` is and with which token; nobody is at its terminal.
fn asking(server: &Server, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_processgit-updater"));
    command.env_clear().args(line.split(' '));
    command.env("PROCESSGIT_UPDATER_URL", &server.url).env("PROCESSGIT_UPDATER_TOKEN", TOKEN);
    command
}

fn stdout(command: &mut Command) -> String {
    String::from_utf8(command.output().unwrap().stdout).unwrap()
}

fn view() -> RollbackView {
    RollbackView {
        from_version: Some("0.1.2".into()),
        to_version: Some("0.1.1".into()),
        to_image: "ghcr.io/o/app:0.1.1".into(),
        snapshot: Some("gen-1".into()),
        written_since: Some(Distance { files: 3, bytes: 4096 }),
        not_counted: vec!["db".into(), "sql.example.org".into()],
        is_partial: false,
        changes: vec!["image: 0.1.2 -> 0.1.1".into()],
        warnings: vec!["\u{1b}[2Jcareful".into()],
    }
}

/// A job of this kind that ends at the first look.
fn ends(kind: Kind, state: State) -> Script {
    let mut job = ended(job("0.1.1", &[(State::Snapshotting, "copied")]), state, Some("no route"));
    (job.kind, job.snapshot, job.previous_version) = (kind, Some("gen-3".into()), Some("0.1.2".into()));
    Script { frames: Mutex::new([job].into()), view: Some(Ok(view())), ..Script::default() }
}

#[test]
fn what_is_ordered() {
    let restore = |accept_drift| Order::Restore { snapshot: "gen-1".into(), accept_drift, accept_partial: false };
    let rollback = |with_data, accept_drift| Order::Rollback { with_data, accept_drift, accept_partial: false };
    for (line, order) in [
        ("snapshot create", Order::Snapshot { hot: false }),
        ("snapshot create --hot", Order::Snapshot { hot: true }),
        ("snapshot restore gen-1 --yes", restore(false)),
        ("snapshot restore gen-1 -y --accept-drift", restore(true)),
        ("rollback --yes", rollback(true, false)),
        ("rollback --yes --without-data --accept-drift", rollback(false, true)),
    ] {
        let server = Server::start(Script::default());
        asking(&server, &format!("{line} --no-follow")).assert().code(0).stdout(contains(JOB));
        assert_eq!(*server.script.orders.lock().unwrap(), [order], "{line}");
    }
}

#[test]
fn jobs_are_followed_to_their_exit_code() {
    for (line, kind, told) in [
        ("snapshot create", Kind::Snapshot, "committed: snapshot gen-3 was taken; it took 10 s"),
        (
            "snapshot restore gen-1 --yes",
            Kind::Restore,
            "committed: the data is that of the snapshot, 0.1.1 runs, before 0.1.2; the data until now is kept as snapshot gen-3;",
        ),
        ("rollback --yes", Kind::Rollback, "committed: 0.1.1 runs again, before 0.1.2; the data until now is kept as"),
    ] {
        let server = Server::start(ends(kind, State::Committed));
        asking(&server, line).assert().code(0).stdout(contains("snapshotting\n  | copied\n").and(contains(told)));
        for (state, code) in [(State::RolledBack, 3), (State::Failed, 4)] {
            let server = Server::start(ends(kind, state));
            asking(&server, line).assert().code(code).stderr(contains("no route"));
            let output = asking(&server, &format!("{line} --json")).assert().code(code).get_output().clone();
            assert_eq!(serde_json::from_slice::<Job>(&output.stdout).unwrap().state, state, "{line}");
        }
    }
}

#[test]
fn a_hot_snapshot_is_warned_of() {
    let server = Server::start(Script::default());
    asking(&server, "snapshot create --hot --no-follow")
        .assert()
        .code(0)
        .stderr(contains("warning:").and(contains("not consistent")));
    asking(&server, "snapshot create --no-follow").assert().code(0).stderr("");
}

#[test]
fn without_a_terminal_only_yes_will_do() {
    for line in ["snapshot restore gen-1", "rollback", "rollback --without-data"] {
        let server = Server::start(Script { view: Some(Ok(view())), ..Script::default() });
        asking(&server, line).write_stdin("y\n").assert().code(1).stderr(contains("say --yes"));
        assert!(server.script.orders.lock().unwrap().is_empty(), "{line}");
    }
}

#[test]
fn a_list() {
    let alien = SnapshotInfo { label: None, consistent: false, ..snapshot("gen-1") };
    let server = Server::start(Script { snapshots: Some(Ok(vec![snapshot("gen-2"), alien])), ..Script::default() });
    insta::assert_snapshot!(stdout(&mut asking(&server, "snapshot list")), @r"
    taken                 version  consistent  size    own     job                   why               id
    2026-01-02 03:04:05Z  0.1.1    yes         1.2 MB  4.0 kB  job_00000000000000a1  before an update  gen-2
    2026-01-02 03:04:05Z  -        NO          1.2 MB  4.0 kB  -                     before an update  gen-1
    ");
    let json: serde_json::Value = serde_json::from_str(&stdout(&mut asking(&server, "snapshot list --json"))).unwrap();
    assert_eq!(json["snapshots"][0]["id"], "gen-2");
    let server = Server::start(Script { snapshots: Some(Ok(vec![])), ..Script::default() });
    asking(&server, "snapshot list").assert().code(0).stdout("no snapshot yet\n");
    let server = Server::start(Script { snapshots: Some(Err("it is off")), ..Script::default() });
    asking(&server, "snapshot list").assert().code(1).stderr("error: it is off\n");
}

#[test]
fn verify_and_prune() {
    let server = Server::start(Script::default());
    asking(&server, "snapshot verify gen-1").assert().code(0).stdout("snapshot gen-1 is whole\n");
    asking(&server, "snapshot verify gen-9").assert().code(1).stderr(contains("there is no snapshot \"gen-9\""));
    asking(&server, "snapshot verify ../x").assert().code(1).stderr(contains("is no snapshot's id"));
    asking(&server, "snapshot prune").assert().code(0).stdout("2 left\n");
    let server = Server::start(Script { damage: Some("data/x: other content"), ..Script::default() });
    asking(&server, "snapshot verify gen-1").assert().code(1).stderr("error: snapshot gen-1: data/x: other content\n");
}

#[test]
fn an_export_appears_when_it_is_complete() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("data.tar.zst");
    let line = format!("snapshot export gen-1 {}", file.display());
    let entries = || std::fs::read_dir(folder.path()).unwrap().count();

    let server =
        Server::start(Script { archive: vec![7; 300_000], export_fails: Some("it broke"), ..Script::default() });
    asking(&server, &line).assert().code(1).stderr(contains("the download broke off"));
    assert_eq!(entries(), 0, "nothing is left of half an archive");

    let server = Server::start(Script { archive: vec![7; 300_000], ..Script::default() });
    asking(&server, &line).assert().code(0).stdout(contains("300.0 kB written to"));
    assert!(std::fs::read(&file).unwrap() == vec![7; 300_000]);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "it holds secrets");
    asking(&server, &line).assert().code(0);
    assert_eq!(entries(), 1, "replaced, and no temporary file is left");

    let output = asking(&server, "snapshot export gen-1 -").assert().code(0).get_output().clone();
    assert!(output.stdout == vec![7; 300_000], "nothing but the archive");
    let missing = folder.path().join("no/such/folder/x");
    asking(&server, &format!("snapshot export gen-1 {}", missing.display()))
        .assert()
        .code(1)
        .stderr(contains("cannot write").and(contains("no/such/folder/x")));
}

#[test]
fn a_rollback_shows_what_it_would_do() {
    let server = Server::start(Script { view: Some(Ok(view())), ..Script::default() });
    insta::assert_snapshot!(stdout(&mut asking(&server, "rollback --yes --no-follow")), @r"
    from 0.1.2 to 0.1.1 (ghcr.io/o/app:0.1.1)
    the data becomes that of snapshot gen-1
    written since: 3 files, 4.0 kB; it is kept as a snapshot of its own
    not counted: what was written to db, sql.example.org, beside the application

    changes
      - image: 0.1.2 -> 0.1.1

    warnings
      - �[2Jcareful

    job_00000000000000a1: rollback; see it with: processgit-updater status
    ");
    assert_eq!(*server.script.views.lock().unwrap(), [true]);

    let without = RollbackView { snapshot: None, written_since: None, ..view() };
    let server = Server::start(Script { view: Some(Ok(without)), ..Script::default() });
    asking(&server, "rollback --without-data --yes --no-follow")
        .assert()
        .code(0)
        .stdout(contains("the data stays as it is"));
    assert_eq!(*server.script.views.lock().unwrap(), [false]);

    let refused = Script { view: Some(Err("there is nothing to go back to".into())), ..Script::default() };
    let server = Server::start(refused);
    asking(&server, "rollback --yes").assert().code(1).stderr("error: there is nothing to go back to\n");
    assert!(server.script.orders.lock().unwrap().is_empty());
}

#[test]
fn settling_a_failed_job() {
    let script = || {
        let script = Script::default();
        script.history.lock().unwrap().push(Arc::new(failed()));
        script
    };
    // Nobody is at the terminal: it is shown, and nothing is done.
    let server = Server::start(script());
    let shown = format!(
        "{JOB} failed: declare it done when the application runs as it should\n\nwhat is removed\n  - container guard-old\n  - image ghcr.io/o/app:0.1.2\n\nsnapshots that are then kept no longer than others\n  - gen-1\n"
    );
    asking(&server, &format!("settle {JOB}")).assert().code(1).stdout(shown.clone()).stderr(contains("say --yes"));
    assert!(server.script.settled.lock().unwrap().is_empty());

    asking(&server, &format!("settle {JOB} --yes")).assert().code(0).stdout(format!("{shown}{JOB}: settled\n"));
    let json: Value =
        serde_json::from_str(&stdout(&mut asking(&server, &format!("settle {JOB} --yes --json")))).unwrap();
    assert_eq!((&json["job"]["id"], &json["released"][0]), (&JOB.into(), &"gen-1".into()));
    assert_eq!(*server.script.settled.lock().unwrap(), [JOB, JOB]);

    asking(&server, "settle job_00000000000000ff --yes").assert().code(1).stderr(contains("there is no job"));
    // What is no id is no way to another route.
    asking(&server, "settle ../history --yes").assert().code(1);
}

#[test]
fn who_needs_you_is_shown_everywhere() {
    let server = Server::start(Script { frames: Mutex::new([failed()].into()), ..Script::default() });
    server.script.history.lock().unwrap().push(Arc::new(failed()));
    let needs_you = contains("needs you").and(contains(format!("processgit-updater history {JOB}")));
    asking(&server, "status").assert().code(0).stdout(needs_you);
    asking(&server, "history").assert().code(0).stdout(contains("failed, needs you"));
    let settle = contains("needs you").and(contains(format!("until processgit-updater settle {JOB}")));
    asking(&server, &format!("history {JOB}")).assert().code(0).stdout(settle);
}
