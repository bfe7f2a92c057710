//! The command line against the real server with a scripted domain: what is printed, and exit codes.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::{BufRead, BufReader, Read};
use std::process::{Command as Process, Stdio};
use std::sync::{Arc, Mutex};

use assert_cmd::Command;
use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use processgit_updater::api::VERSION;
use processgit_updater::doctor::{Finding, Verdict};
use processgit_updater::release::{Channel, SourceError};
use processgit_updater::settings::Listen;
use processgit_updater::update::door::AbortError;
use processgit_updater::update::job::{Job, State, Verified};
use processgit_updater::update::refusal::Remedy;
use processgit_updater::update::{Check, CheckRequest, Request, SubmitError};
use serde_json::Value;
use support::{JOB, Script, Server, TOKEN, ended, job, release};

const PROGRAM: &str = env!("CARGO_BIN_EXE_processgit-updater");

/// The program with an empty environment and `line` as its arguments.
fn bare(line: &str) -> Command {
    let mut command = Command::new(PROGRAM);
    command.env_clear().args(line.split(' ').filter(|word| !word.is_empty()));
    command
}

/// The program, told where `server` is and with which token.
fn asking(server: &Server, line: &str) -> Command {
    let mut command = bare(line);
    command.env("PROCESSGIT_UPDATER_URL", &server.url).env("PROCESSGIT_UPDATER_TOKEN", TOKEN);
    command
}

fn stdout(command: &mut Command) -> String {
    String::from_utf8(command.output().unwrap().stdout).unwrap()
}

/// A script whose job is looked at as `frames`, one after the other.
fn frames(frames: Vec<Job>) -> Script {
    Script { frames: Mutex::new(frames.into()), ..Script::default() }
}

fn committed() -> Vec<Job> {
    let planning = job("v0.1.2", &[(State::Planning, "release v0.1.2 found")]);
    let pulling = job("v0.1.2", &[(State::Planning, "release v0.1.2 found"), (State::Pulling, "layer 1\nlayer 2")]);
    vec![planning, pulling.clone(), ended(pulling, State::Committed, None)]
}

#[test]
fn version_and_help() {
    bare("--version").assert().code(0).stdout(format!("processgit-updater {VERSION}\n"));
    bare("--help").assert().code(0).stdout(contains("Examples:").and(contains("Exit codes:")));
    for command in [
        "serve",
        "status",
        "check",
        "doctor",
        "update",
        "abort",
        "history",
        "env set",
        "manifest verify",
        "healthz",
        "snapshot restore",
        "rollback",
    ] {
        bare(&format!("{command} --help")).assert().code(0).stdout(contains("Usage: processgit-updater"));
    }
    for usage in ["nonsense", "update --token secret", "check --channel beta"] {
        bare(usage).assert().code(2).stderr(contains("error:"));
    }
}

#[test]
fn completions() {
    for (shell, text) in [("bash", "complete -F"), ("zsh", "#compdef"), ("fish", "complete -c")] {
        bare(&format!("completions {shell}")).assert().code(0).stdout(contains(text));
    }
}

#[test]
fn an_update_in_plain_lines() {
    let server = Server::start(frames(committed()));
    let shown = stdout(&mut asking(&server, "update v0.1.2"));
    insta::assert_snapshot!(shown, @r"
    job_00000000000000a1: update to v0.1.2
    planning
      | release v0.1.2 found
    planning done in 10 s
    pulling
      | layer 1
      | layer 2
    pulling done in 10 s
    committed: v0.1.2 runs; it took 20 s (simulated)
    ");
}

#[test]
fn every_end_has_its_exit_code() {
    for (state, code, text) in [
        (State::Committed, 0, ""),
        (
            State::RolledBack,
            3,
            "error: rolled_back after 20 s: the application is as it was before (simulated): no route\n",
        ),
        (State::Failed, 4, "error: failed after 20 s: a person is needed (simulated): no route\n"),
        (State::Aborted, 5, "error: aborted after 20 s: nothing was changed (simulated): no route\n"),
    ] {
        let last = ended(job("v1", &[(State::Planning, ""), (State::Pulling, "")]), state, Some("no route"));
        let server = Server::start(frames(vec![last.clone()]));
        asking(&server, "update v1").assert().code(code).stderr(text.to_owned());

        let server = Server::start(frames(vec![last.clone()]));
        let output = asking(&server, "update v1 --json").assert().code(code).get_output().clone();
        assert_eq!(serde_json::from_slice::<Job>(&output.stdout).unwrap(), last, "{state}");
    }
}

#[test]
fn an_abort() {
    let active = job("v0.1.2", &[(State::Pulling, "")]);
    let aborted = ended(active.clone(), State::Aborted, Some("stopped on request"));
    let script = |end: &Job| Script { active: Mutex::new(Some(Arc::new(active.clone()))), ..frames(vec![end.clone()]) };
    for line in ["abort", &format!("abort {JOB}")] {
        let server = Server::start(script(&aborted));
        asking(&server, line).assert().code(0).stdout(format!("{JOB}: aborted\n"));
        assert_eq!(*server.script.aborts.lock().unwrap(), [JOB], "{line}");
    }
    let server = Server::start(script(&aborted));
    let json: Value = serde_json::from_str(&stdout(&mut asking(&server, "abort --json"))).unwrap();
    assert_eq!(json["state"], "aborted");

    let server = Server::start(Script::default());
    asking(&server, "abort").assert().code(1).stderr(contains("no job is active"));
    let too_late = Some(AbortError::TooLate("too late to abort".into()));
    let server = Server::start(Script { abort_fails: too_late, ..Script::default() });
    asking(&server, "abort job_0").assert().code(1).stderr(contains("too late to abort"));
}

#[test]
fn what_an_update_asks_for() {
    let plain = Request { target_tag: "v0.1.2".into(), ..Request::default() };
    for (line, channels, request) in [
        ("update", vec![Channel::Stable], plain.clone()),
        ("update --channel prerelease", vec![Channel::Prerelease], plain.clone()),
        ("update v7", vec![], Request { target_tag: "v7".into(), ..plain.clone() }),
        ("update --allow-downgrade", vec![Channel::Stable], Request { allow_downgrade: true, ..plain.clone() }),
        ("update --accept-drift", vec![Channel::Stable], Request { accept_drift: true, ..plain.clone() }),
        ("update --accept-unwell", vec![Channel::Stable], Request { accept_unwell: true, ..plain.clone() }),
        ("update --retry", vec![Channel::Stable], Request { retry: true, ..plain.clone() }),
    ] {
        let server = Server::start(Script::default());
        asking(&server, &format!("{line} --no-follow")).assert().code(0).stdout(contains(JOB));
        assert_eq!(*server.script.channels.lock().unwrap(), channels, "{line}");
        assert_eq!(server.script.requests(), [request], "{line}");
    }
}

#[test]
fn no_follow_as_json() {
    let server = Server::start(Script::default());
    let json: Value = serde_json::from_str(&stdout(&mut asking(&server, "update v1 --no-follow --json"))).unwrap();
    assert_eq!(json["id"], JOB);
}

#[test]
fn updates_that_are_not_accepted() {
    let busy = SubmitError::Busy(Box::new(job("v0.1.1", &[(State::Pulling, "")])));
    let server = Server::start(Script { submits: Mutex::new([Err(busy)].into()), ..Script::default() });
    asking(&server, "update v1").assert().code(1).stdout("").stderr(contains("error: job").and(contains(JOB)));
    asking(&server, "update v1/../2").assert().code(1).stderr(contains("is no tag"));

    let nothing = SourceError::not_found("o/app has no stable release");
    let server = Server::start(Script { latest: Some(Err(nothing)), ..Script::default() });
    asking(&server, "update").assert().code(1).stderr("error: o/app has no stable release\n");
}

#[test]
fn an_updater_that_restarts_in_the_middle() {
    let mut looks = committed();
    let last = looks.pop().unwrap();
    let server = Server::start(frames(looks));
    let mut child = Process::new(PROGRAM)
        .args(["update", "v0.1.2"])
        .env_clear()
        .env("PROCESSGIT_UPDATER_URL", &server.url)
        .env("PROCESSGIT_UPDATER_TOKEN", TOKEN)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut shown = String::new();
    let mut until = |text: &str| {
        let from = shown.len();
        while !shown[from..].contains(text) {
            assert_ne!(lines.read_line(&mut shown).unwrap(), 0, "{text:?} never came after:\n{shown}");
        }
    };
    until("layer 2");
    let listen = server.listen();
    server.stop();
    until("does not answer");
    let _server = Server::on(&listen, Arc::new(frames(vec![last])));
    until("committed");
    lines.read_to_string(&mut shown).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(shown.matches("does not answer").count(), 1, "{shown}");
    assert_eq!(shown.matches("is back").count(), 1, "{shown}");
    assert_eq!(shown.matches("layer 1").count(), 1, "nothing is told twice: {shown}");
}

#[test]
fn an_interrupt_stops_the_following_only() {
    let server = Server::start(frames(vec![job("v1", &[(State::Pulling, "layer")])]));
    let mut child = Process::new(PROGRAM)
        .args(["update", "v1"])
        .env_clear()
        .env("PROCESSGIT_UPDATER_URL", &server.url)
        .env("PROCESSGIT_UPDATER_TOKEN", TOKEN)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("layer")));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(stderr.contains("goes on by itself") && stderr.contains("processgit-updater status"), "{stderr}");
}

#[test]
fn status() {
    let active = Arc::new(job("v0.1.2", &[(State::Pulling, "")]));
    let server = Server::start(Script { active: Mutex::new(Some(active)), ..Script::default() });
    asking(&server, "status").assert().code(0).stdout(
        contains(format!("updater  {VERSION} at {}", server.url))
            .and(contains(format!("active   {JOB}: update to v0.1.2, pulling for"))),
    );
    let json: Value = serde_json::from_str(&stdout(&mut asking(&server, "status --json"))).unwrap();
    assert_eq!((&json["active_job"]["id"], &json["stub"]), (&JOB.into(), &true.into()));
}

#[test]
fn history() {
    let jobs = ["v3", "v2", "v1"].map(|tag| Arc::new(ended(job(tag, &[(State::Pulling, "")]), State::Committed, None)));
    let server = Server::start(Script { history: Mutex::new(jobs.to_vec()), ..Script::default() });
    insta::assert_snapshot!(stdout(&mut asking(&server, "history")), @r"
    started               job     release  from  state      took  id
    2026-01-02 03:04:05Z  update  v3       -     committed  10 s  job_00000000000000a1
    2026-01-02 03:04:05Z  update  v2       -     committed  10 s  job_00000000000000a1
    2026-01-02 03:04:05Z  update  v1       -     committed  10 s  job_00000000000000a1
    ");
    for (line, jobs) in [("history --json", 3), ("history --json -n 2", 2), ("history --json -n 9", 3)] {
        let json: Value = serde_json::from_str(&stdout(&mut asking(&server, line))).unwrap();
        assert_eq!(json["jobs"].as_array().unwrap().len(), jobs, "{line}");
        assert_eq!(json["jobs"][0]["target_tag"], "v3", "{line}");
    }
}

fn verified() -> Vec<Verified> {
    let one = |subject: &str, carrier: &str| Verified {
        subject: subject.into(),
        carrier: carrier.into(),
        identity: "https://git.example/release.yml".into(),
        issuer: Some("https://issuer.example".into()),
        log_index: Some(7),
        integrated_time: Some(support::at(-60)),
    };
    vec![one("manifest", "release.json.sigstore.json"), one("image", "referrers")]
}

/// Whose signatures a job trusted: told at its end, while it runs, and ever after.
#[test]
fn what_was_verified() {
    let facts = "by https://git.example/release.yml (issuer https://issuer.example, log entry 7, signed 2026-01-02 \
                 03:03:05Z, found in ";
    let lines = [format!("manifest {facts}release.json.sigstore.json)"), format!("image {facts}referrers)")];
    let shown = |before: &str| contains(format!("{before}{}\n{before}{}\n", lines[0], lines[1]));
    let mut running = job("v0.1.2", &[(State::Pulling, "")]);
    running.verified = verified();
    for (end, code) in [(State::Committed, 0), (State::RolledBack, 3)] {
        let server = Server::start(frames(vec![ended(running.clone(), end, Some("no route"))]));
        asking(&server, "update v0.1.2").assert().code(code).stdout(shown("verified: "));
        asking(&server, &format!("history {JOB}")).assert().code(0).stdout(shown("  - "));
        let json: Job = serde_json::from_str(&stdout(&mut asking(&server, &format!("history {JOB} --json")))).unwrap();
        assert_eq!(json.verified, verified());
        asking(&server, "history job_ffffffffffffffff").assert().code(1).stderr(contains("job_ffffffffffffffff"));
    }
    let server = Server::start(Script { active: Mutex::new(Some(Arc::new(running))), ..Script::default() });
    asking(&server, "status").assert().code(0).stdout(shown("  - ").and(contains("trust    keyless")));
    let check = Check { verified: verified(), trust: "keyless, a root of 2026-10-23".into(), ..Check::default() };
    let server = Server::start(Script { check, ..Script::default() });
    asking(&server, "check").assert().stdout(shown("  - ").and(contains("trust    keyless, a root of 2026-10-23")));
}

#[test]
fn check() {
    let ready = Check { release: Some(release("v0.1.2")), allowed: true, ..Check::default() };
    let current = Check { up_to_date: true, ..Check::default() };
    let refused = Check { refusal: Some("0.1.0 is older than 0.1.1".into()), ..Check::default() };
    for (check, code, text) in [
        (ready, 0, "ready: update would begin"),
        (current, 0, "up to date"),
        (refused, 1, "refused: 0.1.0 is older than 0.1.1"),
    ] {
        let server = Server::start(Script { check: check.clone(), ..Script::default() });
        asking(&server, "check").assert().code(code).stdout(contains(text)).stderr("");
        let output = asking(&server, "check --json").assert().code(code).get_output().clone();
        assert_eq!(serde_json::from_slice::<Check>(&output.stdout).unwrap(), check);
    }
}

#[test]
fn what_a_check_asks_for() {
    for (line, request) in [
        ("check", CheckRequest::default()),
        ("check v1.0.0+b", CheckRequest { tag: Some("v1.0.0+b".into()), ..CheckRequest::default() }),
        ("check --channel prerelease", CheckRequest { channel: Channel::Prerelease, ..CheckRequest::default() }),
        (
            "check --allow-downgrade --accept-drift",
            CheckRequest { allow_downgrade: true, accept_drift: true, ..CheckRequest::default() },
        ),
    ] {
        let server = Server::start(Script::default());
        asking(&server, line).output().unwrap();
        assert_eq!(*server.script.checks.lock().unwrap(), [request], "{line}");
    }
}

#[test]
fn faults_name_their_remedy() {
    let server = Server::start(Script::default());
    asking(&server, "status")
        .env("PROCESSGIT_UPDATER_TOKEN", "wrong")
        .assert()
        .code(1)
        .stderr(contains("refuses the token").and(contains("PROCESSGIT_UPDATER_TOKEN")).and(contains("wrong").not()));
    bare("status").assert().code(1).stderr(contains("no token: set PROCESSGIT_UPDATER_TOKEN"));

    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for line in ["status", "check", "history", "update", "healthz", "snapshot list", "rollback --yes"] {
        bare(line)
            .env("PROCESSGIT_UPDATER_TOKEN", TOKEN)
            .env("PROCESSGIT_UPDATER_LISTEN", free.to_string())
            .assert()
            .code(1)
            .stdout("")
            .stderr(contains(format!("http://{free}")).and(contains("refused")).and(contains("--url")));
    }
    asking(&server, "status --url 127.0.0.1:9000").assert().code(1).stderr(contains("is no address"));
}

#[test]
fn healthz_of_the_listen_address() {
    let server = Server::start(Script::default());
    let address = server.url.trim_start_matches("http://");
    // Without a token: a HEALTHCHECK needs none.
    bare("healthz").env("PROCESSGIT_UPDATER_LISTEN", address).assert().code(0).stdout("ok\n");
}

#[test]
fn over_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("updater.sock");
    let server = Server::on(&Listen::Unix(path), Arc::new(frames(committed())));
    assert!(server.url.starts_with("unix:/"));
    asking(&server, "healthz").assert().code(0);
    asking(&server, "update v0.1.2").assert().code(0).stdout(contains("committed"));
    drop(server);
}

#[test]
fn the_token_comes_from_a_file_too() {
    let server = Server::start(Script::default());
    let mut file = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file, format!("{TOKEN}\n").as_bytes()).unwrap();
    let path = file.path().display().to_string();
    bare(&format!("status --url {} --token-file {path}", server.url)).assert().code(0);
    bare("status")
        .env("PROCESSGIT_UPDATER_URL", &server.url)
        .env("PROCESSGIT_UPDATER_TOKEN_FILE", &path)
        .assert()
        .code(0);
    asking(&server, "status").env("PROCESSGIT_UPDATER_TOKEN_FILE", &path).assert().code(1).stderr(contains("both set"));
}

#[test]
fn proxies_in_the_environment_never_see_the_token() {
    let server = Server::start(Script::default());
    asking(&server, "status")
        .env("http_proxy", "http://127.0.0.1:1")
        .env("ALL_PROXY", "http://127.0.0.1:1")
        .assert()
        .code(0);
}

#[test]
fn settings_at_fault_are_told_at_once() {
    // Without arguments it is `serve`, as existing containers start it.
    for line in ["", "serve"] {
        bare(line)
            .env("PROCESSGIT_UPDATER_LISTEN", "nonsense")
            .env("PROCESSGIT_UPDATER_STUB", "maybe")
            .assert()
            .code(2)
            .stdout("")
            .stderr(
                contains("error: PROCESSGIT_UPDATER_TOKEN")
                    .and(contains("error: PROCESSGIT_UPDATER_LISTEN=\"nonsense\""))
                    .and(contains("error: PROCESSGIT_UPDATER_STUB=\"maybe\"")),
            );
    }
}

#[test]
fn a_file_that_settings_name_is_at_fault() {
    let folder = tempfile::tempdir().unwrap();
    for variable in ["CA_FILE", "SIGNING_KEY", "TRUSTED_ROOT"] {
        bare("serve")
            .env("PROCESSGIT_UPDATER_TOKEN", TOKEN)
            .env("PROCESSGIT_UPDATER_LISTEN", "127.0.0.1:0")
            .env("PROCESSGIT_UPDATER_STATE_DIR", folder.path())
            .env(format!("PROCESSGIT_UPDATER_{variable}"), "/no/such/file.pem")
            .assert()
            .code(2)
            .stderr(contains(format!("error: PROCESSGIT_UPDATER_{variable}=")).and(contains("/no/such/file.pem")))
            .stderr(contains("cannot be read"));
    }
}

#[test]
fn the_env_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(".env");
    std::fs::write(&path, "# the version\nVERSION=0.1.1\nOTHER=x").unwrap();
    let env = |line: &str| {
        let mut command = bare(&format!("env {line}"));
        command.env("PROCESSGIT_UPDATER_ENV_FILE", &path);
        command
    };
    env("get VERSION").assert().code(0).stdout("0.1.1\n");
    env("get MISSING").assert().code(1).stdout("");
    env("set VERSION 0.1.2").assert().code(0);
    env("set NEW 1").assert().code(0);
    env("get VERSION").assert().code(0).stdout("0.1.2\n");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("# the version\nVERSION=0.1.2\nOTHER=x\nNEW=1"), "{text}");
    env("unset VERSION").assert().code(0).stdout("");
    env("unset MISSING").assert().code(0);
    env("get VERSION").assert().code(1);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text.replace("VERSION=0.1.2\n", ""));
    bare(&format!("env get OTHER --file {}", path.display())).assert().code(0).stdout("x\n");
    bare("env get OTHER --file /there/is/no/such").assert().code(1);
}

#[test]
fn manifests_that_are_not_genuine() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("release.json");
    std::fs::write(&path, "{}").unwrap();
    let missing = folder.path().join("missing.json");
    bare(&format!("manifest verify {} {}", path.display(), missing.display())).assert().code(1).stdout("").stderr(
        contains(format!("error: {}: ", path.display())).and(contains(format!("error: {}: ", missing.display()))),
    );
    bare(&format!("manifest verify {} --repo nonsense", path.display())).assert().code(2);
    bare(&format!("manifest verify {} --signing-key /no/such/key", path.display()))
        .assert()
        .code(1)
        .stderr(contains("/no/such/key"));
}

fn finding(verdict: Verdict) -> Finding {
    let remedy = (verdict != Verdict::Ok).then(|| Remedy::Command("docker compose up -d".into()));
    Finding { check: "application".into(), verdict, seen: "container app".into(), code: None, remedy }
}

#[test]
fn a_running_updater_is_the_doctor() {
    for (verdict, code, summary) in [
        (Verdict::Ok, 0, "nothing is wrong"),
        (Verdict::Warning, 0, "1 warning"),
        (Verdict::Bad, 1, "-> docker compose up -d\n\n1 problem"),
    ] {
        let server = Server::start(Script { findings: vec![finding(verdict)], ..Script::default() });
        let answers = contains(format!("{VERSION} answers at {}", server.url));
        asking(&server, "doctor").assert().code(code).stdout(answers.and(contains(summary)));
        let json = asking(&server, "doctor --json").assert().code(code).get_output().stdout.clone();
        assert_eq!(serde_json::from_slice::<Value>(&json).unwrap()["ok"], code == 0);
    }
}

/// No engine, no network, no updater, nothing that is set right: all of it is told, and it ends.
#[test]
fn a_doctor_with_nothing_to_go_by() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    std::fs::create_dir(&state).unwrap();
    std::fs::write(state.join("journal.db.damaged-20260101T000000Z"), "").unwrap();
    let mut command = bare("doctor --json");
    for (name, value) in [
        ("DOCKER_HOST", "unix:///nowhere/docker.sock"),
        ("PROCESSGIT_UPDATER_STUB", "false"),
        ("PROCESSGIT_UPDATER_STATE_DIR", state.to_str().unwrap()),
        ("PROCESSGIT_UPDATER_GITHUB_API", "http://127.0.0.1:1"),
        ("PROCESSGIT_UPDATER_SNAPSHOT_KEEP", "0x5"),
        ("PROCESSGIT_UPDATER_HEALTH_STABLE", "3m"),
        ("PROCESSGIT_UPDATER_SIGNING_KEY", "/nowhere/cosign.pub"),
        ("PROCESSGIT_UPDATER_SNAPSHOTS", "on"),
    ] {
        command.env(name, value);
    }
    let output = command.assert().code(1).get_output().stdout.clone();
    let report: Value = serde_json::from_slice(&output).unwrap();
    let told =
        report["findings"].as_array().unwrap().iter().filter(|f| f["verdict"] == "bad" || f["verdict"] == "warning");
    let told: Vec<String> = told.map(|f| format!("{}: {}", f["check"], f["seen"]).replace('"', "")).collect();
    for (line, part) in told.iter().zip([
        "settings: PROCESSGIT_UPDATER_TOKEN: not set",
        "settings: PROCESSGIT_UPDATER_HEALTH_STABLE=",
        "settings: PROCESSGIT_UPDATER_SNAPSHOT_KEEP=",
        "names: nobody knows PROCESSGIT_UPDATER_SNAPSHOTS",
        "engine: the Docker engine does not answer: connecting to the engine at /nowhere/docker.sock",
        "trust: PROCESSGIT_UPDATER_SIGNING_KEY=/nowhere/cosign.pub",
        "releases: http://127.0.0.1:1/",
        "journal: the journal was damaged",
    ]) {
        assert!(line.starts_with(part), "{line} instead of {part}");
    }
    assert_eq!(told.len(), 8, "{told:#?}");
    let left: Vec<_> = std::fs::read_dir(&state).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["journal.db.damaged-20260101T000000Z"], "nothing is changed");
}

#[test]
fn an_address_of_no_engine_is_told() {
    let mut command = bare("doctor --here --stub=false --token=0123456789abcdef --github-api=http://127.0.0.1:1");
    command.env("DOCKER_HOST", "ssh://host").assert().code(1).stdout(contains("DOCKER_HOST is \"ssh://host\""));
}
