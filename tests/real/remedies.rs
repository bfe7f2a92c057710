//! Remedies that are commands, typed as they are printed: the situation, what is said of it, the command, and what
//! is said afterwards. A row each.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use lab::engine::must_run;
use lab::publish::ReleaseSpec;
use lab::sidecar::{Network, Sees};
use processgit_updater::update::refusal::{Code, Does};
use serde_json::{Value, json};

use crate::case::{Case, Stage, case};

/// Who says it.
#[derive(Clone, Copy)]
enum Says {
    Doctor,
    /// `check` of this release.
    Check(&'static str),
    /// A command that is refused.
    Refused(&'static [&'static str]),
}
use Says::{Check, Doctor, Refused};

/// The test's name, the code, what there is, what happens to it, and who says so.
macro_rules! rows {
    ($($name:ident $code:ident $case:expr, $happens:expr, $says:expr;)*) => {
        const ROWS: &[Code] = &[$(Code::$code,)*];
        $(#[test] fn $name() {
            let happens: fn(&mut Stage) = $happens;
            typed(Code::$code, $case, happens, $says);
        })*
    };
}

rows! {
    it_was_stopped NotRunning case(), |s| s.lab.engine.stop(&s.app.container), Doctor;
    nothing_differs_that_is_compared ComposeRecreates case(), |s| insert(s, "    hostname: other\n"), Doctor;
    the_file_was_edited Drift case(), |s| insert(s, "    working_dir: /tmp\n"), Doctor;
    the_version_was_written_by_hand NotApplied case(), |s| select(s, "1.0.5"), Doctor;
    a_user_of_the_shell ShellVariable case(), of_the_shell, Doctor;
    a_variable_that_is_demanded ShellVariable case(), |s| {
        insert(s, "    user: \"${WHO:?set WHO}\"\n");
        up(s, &[("WHO", "1234")]);
    }, Doctor;
    a_secret_of_the_shell ShellVariable case(), |s| {
        s.app.edit(&s.app.compose_file(), |text| text.replacen("    environment:\n", "    environment:\n      TITLE_OF_SHELL: ${TITLE_OF_SHELL:-}\n", 1));
        up(s, &[("TITLE_OF_SHELL", "a b#c $x")]);
    }, Doctor;
    one_of_the_crew_is_gone ServiceMissing crew(), |s| {
        s.app.compose(&["rm", "-sf", "jobs"]);
    }, Doctor;
    two_of_one_service Replicas case().app(|a| a.generated_name = true), |s| {
        s.app.edit(&s.app.compose_file(), unpublished);
        s.app.compose(&["up", "-d", "--no-recreate", "--scale", "app=2", "app"]);
    }, Doctor;
    a_network_that_is_not_there TouchesOthers case().app(|a| a.file_lines.push("networks: { more: {} }".into())), |s| {
        insert(s, "    networks: [default, more]\n");
    }, Doctor;
    the_file_was_renamed ProjectMoved case(), |s| {
        fs::rename(s.app.compose_file(), s.app.folder().join("compose.yaml")).expect("renaming");
    }, Doctor;
    the_key_is_in_the_first_of_two_files EnvOtherFile two_files(), into_the_first, Doctor;
    an_older_release Downgrade case(), |s| publish(s, ReleaseSpec::new("0.9.0")), Check("v0.9.0");
    a_step_between_is_needed TooOld case(), |s| {
        publish(s, ReleaseSpec::new("1.0.5"));
        publish(s, ReleaseSpec::new("1.2.0").manifest(|m| m["min_upgrade_from"] = json!("1.0.5")));
    }, Check("v1.2.0");
    it_was_rolled_back_before KnownBad case().release(|r| r.behaviour("crash")).gate_for("crash"), |s| {
        s.update().assert_end("rolled_back", &[]);
    }, Refused(&["update", "v1.1.0"]);
    older_than_what_was_committed OlderThanCommitted case(), |s| {
        publish(s, ReleaseSpec::new("1.0.5"));
        s.update().assert_end("committed", &[]);
        select(s, "1.0.0");
        up(s, &[]);
    }, Check("v1.0.5");
    the_newest_would_be_refused WouldBeRefused case(), |s| {
        publish(s, ReleaseSpec::new("1.2.0").manifest(|m| m["min_upgrade_from"] = json!("1.1.5")));
    }, Doctor;
    its_healthcheck_fails Unhealthy case().app(|a| {
        a.service_lines.push("healthcheck: { test: [CMD, /nothing], interval: 200ms, retries: 1 }".into());
    }), |s| {
        lab::eventually("the HEALTHCHECK's verdict", std::time::Duration::from_secs(20), || {
            (s.app.app()?["State"]["Health"]["Status"] == "unhealthy").then_some(())
        });
    }, Doctor;
    the_updaters_own_policy NoRestart case().sidecar(Sees::Deploy, |s| s.network = Network::Host), |s| {
        let name = s.app.updater_container().expect("the updater's container");
        must_run(Command::new("docker").args(["update", "--restart", "no", &name]));
    }, Doctor;
    a_container_that_says_it_is_ours NotOurs case(), forged, Doctor;
    a_file_that_is_none ComposeUnreadable case(), |s| insert(s, "    nonsense: true\n"), Doctor;
}

/// Codes whose remedy is a command and that no row types, with the reason.
const NOT_TYPED: &[(Code, &str)] = &[
    (
        Code::Leftover,
        "only an updater can seal a container, and it removes what it leaves; the simulated engine has such a row",
    ),
    (Code::Clock, "it sets the machine's clock"),
    (Code::RegistryDenied, "`docker login` asks for a password"),
    (Code::ImageGone, "the engine keeps the image of a container that runs"),
    (Code::PartlyUpdated, "the crew's own tests bring it about, and `docker compose up -d` is typed in them"),
    (Code::TokenWeak, "it only prints a new token"),
    (Code::StateNoRoom, "it shows a full disk"),
    (Code::Unsettled, "it asks a person; the job's own command does not, and is typed in the tests of settling"),
    (Code::JournalFailed, "it shows a disk that does not answer"),
    (Code::JournalDamaged, "it lists files"),
    (Code::SizeUnknown, "it measures more data than there is time for"),
    (Code::Claimed, "it shows another updater's container"),
    (Code::NoSuchSnapshot, "it lists snapshots"),
    (Code::NoSnapshotOfUpdate, "it takes an updater whose snapshots were off and are on again"),
    (Code::VersionChanged, "it lists snapshots"),
];

/// A code that gets a command gets a row here, or says why it has none.
#[test]
fn every_code_with_a_command_is_typed() {
    let covered: BTreeSet<Code> = ROWS.iter().copied().chain(NOT_TYPED.iter().map(|(code, _)| *code)).collect();
    let commands: BTreeSet<Code> = Code::COMMANDS.iter().map(|(code, _)| *code).collect();
    assert_eq!(covered, commands, "codes with a command as remedy, and the rows of this file");
}

/// The command that is printed is typed in the deployment's folder; afterwards what was said is not said any more,
/// or, where the command only shows something, it has shown it.
fn typed(code: Code, case: Case, happens: fn(&mut Stage), says: Says) {
    let mut stage = case.stage();
    happens(&mut stage);
    let found = said(&stage, says, code);
    let remedy = found.unwrap_or_else(|told| panic!("{code} is not said: {told}"));
    let output = shell(&stage, &remedy);
    let shown = format!("`{remedy}`: {output:?}");
    match Code::COMMANDS.iter().find(|(known, _)| *known == code).map(|(_, does)| *does) {
        Some(Does::Shows) => assert!(!output.stdout.is_empty() || !output.stderr.is_empty(), "{shown}"),
        // The same image fails its gate again: it was tried, which is all that was asked for.
        Some(Does::Repairs) if code == Code::KnownBad => assert_eq!(output.status.code(), Some(3), "{shown}"),
        Some(Does::Repairs) => {
            assert!(output.status.success(), "{shown}");
            if let Ok(again) = said(&stage, says, code) {
                // A release that was installed with consent is still older than what was there once.
                let is_of_release = matches!(says, Check(_));
                assert!(is_of_release && is_installed(&stage, says), "{shown}: and it is said again: {again}");
            }
        }
        None => panic!("{code} has no command"),
    }
}

fn is_installed(stage: &Stage, says: Says) -> bool {
    let Check(tag) = says else { return false };
    stage.app.running_version().as_deref() == tag.strip_prefix('v')
}

/// The remedy of this code; otherwise everything that was said.
fn said(stage: &Stage, says: Says, code: Code) -> Result<String, String> {
    let arguments: &[&str] = match says {
        Doctor => &["doctor", "--json"],
        Check(tag) => &["check", "--fresh", "--json", tag],
        Refused(arguments) => arguments,
    };
    let output = stage.updater.command().args(arguments).output().expect("the program");
    let text = String::from_utf8_lossy(&[output.stdout.clone(), output.stderr].concat()).into_owned();
    if let Refused(_) = says {
        // For people only.
        let command = text.split_once("Run `").and_then(|(_, rest)| rest.split_once('`')).map(|(command, _)| command);
        return command.map(str::to_owned).ok_or(text);
    }
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {text}"));
    let all =
        report[if matches!(says, Doctor) { "findings" } else { "refusals" }].as_array().cloned().unwrap_or_default();
    let found = all.iter().find(|one| one["code"] == code.name());
    let command = found.filter(|one| one["remedy_kind"] == "command").and_then(|one| one["remedy"].as_str());
    command.map(str::to_owned).ok_or(text)
}

/// As a person types it, in the deployment's folder, with the program and its address at hand.
fn shell(stage: &Stage, command: &str) -> Output {
    let programs = Path::new(env!("CARGO_BIN_EXE_processgit-updater")).parent().expect("its folder");
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).current_dir(stage.app.folder()).env("PATH", path).envs(stage.updater.settings());
    shell.env_remove("PROCESSGIT_UPDATER_STATE_DIR");
    let address = format!("PROCESSGIT_UPDATER_{}", "URL");
    shell.env(address, &stage.updater.base).output().expect("a shell")
}

/// More lines of the application's service.
fn insert(stage: &mut Stage, lines: &'static str) {
    let service = "\n  app:\n";
    stage.app.edit(&stage.app.compose_file(), |text| text.replacen(service, &format!("{service}{lines}"), 1));
}

/// `.env` names this version.
fn select(stage: &mut Stage, version: &str) {
    let file = stage.app.env_file();
    let text = fs::read_to_string(&file).expect(".env");
    let key = "APP_VERSION=";
    let lines =
        text.lines().map(|line| if line.starts_with(key) { format!("{key}{version}\n") } else { format!("{line}\n") });
    fs::write(file, lines.collect::<String>()).expect(".env");
}

/// `docker compose up -d` in a shell that has these variables.
fn up(stage: &mut Stage, variables: &[(&str, &str)]) {
    must_run(stage.app.compose_command(&["up", "-d", "app"]).envs(variables.iter().copied()));
}

fn of_the_shell(stage: &mut Stage) {
    insert(stage, "    user: \"${UID_OF_SHELL}:${GID_OF_SHELL}\"\n");
    up(stage, &[("UID_OF_SHELL", "1234"), ("GID_OF_SHELL", "4321")]);
}

fn publish(stage: &Stage, release: ReleaseSpec) {
    stage.lab.publish(release);
}

fn crew() -> Case {
    case().app(|a| a.crew = vec![("jobs", vec!["restart: always"])]).setting("MOVE_SERVICES", "jobs")
}

/// The second wins where both name a variable.
fn two_files() -> Case {
    case().app(|a| {
        a.files.push(("first.env".into(), "MORE=1\n".into()));
        a.options = ["--env-file", "first.env", "--env-file", ".env"].map(str::to_owned).to_vec();
    })
}

/// The version stands in the first alone.
fn into_the_first(stage: &mut Stage) {
    let line = "APP_VERSION=1.0.0\n";
    stage.app.edit(&stage.app.env_file(), |text| text.replace(line, ""));
    stage.app.edit(&stage.app.folder().join("first.env"), |text| text.to_owned() + line);
}

/// It says that it belongs to a job of this updater, and carries no seal.
fn forged(stage: &mut Stage) {
    let job = stage.update();
    let id = job.0["id"].as_str().expect("an id");
    let labels: [String; 3] = [
        stage.lab.run.label(),
        "io.processgit.updater.role=guard-old".into(),
        format!("io.processgit.updater.job={id}"),
    ];
    let mut create = Command::new("docker");
    create.arg("create").args(labels.iter().flat_map(|label| ["--label", label])).arg(stage.app.image.reference());
    must_run(&mut create);
}

/// Without the line that publishes a port, which two containers cannot have.
fn unpublished(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    let at = lines.iter().position(|line| line.trim_start().starts_with("ports:")).expect("a port");
    lines.remove(at);
    lines.join("\n") + "\n"
}
