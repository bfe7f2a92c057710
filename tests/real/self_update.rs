//! The updater replaces itself, and is put back where its successor does not come up.

use lab::publish::ReleaseSpec;
use lab::sidecar::{self, Sees};
use lab::updater::Job;
use serde_json::{Value, json};

use crate::case::{Stage, case};

const KEY: &str = "PROCESSGIT_UPDATER_VERSION";

/// An updater at 1.0.0 from the registry, and a release 2.0.0 of it whose image has these lines more.
fn stage(more: &str) -> Stage {
    let stage = case()
        .sidecar(Sees::Deploy, |s| {
            s.version_key = Some(KEY.into());
            s.lines.extend(["read_only: true", "cap_drop: [ALL]"].map(str::to_owned));
        })
        .setting("SELF_REPO", lab::releases::REPO)
        .setting("HEALTH_TIMEOUT", "15s")
        .stage();
    let image = sidecar::publish(&stage.lab, "2.0.0", more);
    stage.lab.publish(ReleaseSpec::new("2.0.0").app_name("processgit-updater").existing_image(&image, "2.0.0"));
    stage
}

fn begin(stage: &Stage, request: Value) -> String {
    let answer = stage.updater.post("/self-update", &request).expect_status(&[202], "POST /self-update").json();
    answer["job_id"].as_str().expect("an id").to_owned()
}

fn self_update(stage: &Stage, request: Value) -> Job {
    stage.updater.wait_out(&begin(stage, request))
}

/// The version that `.env` says and the label of the image that runs.
fn versions(stage: &Stage) -> (String, String) {
    let env = std::fs::read_to_string(stage.app.env_file()).unwrap();
    let selected = env.lines().find_map(|line| line.strip_prefix("PROCESSGIT_UPDATER_VERSION=")).unwrap_or_default();
    let name = stage.app.updater_container().unwrap();
    let runs = stage.lab.engine.container(&name).expect("the updater's container");
    assert_eq!(runs["State"]["Running"], true, "{runs:#}");
    (selected.to_owned(), runs["Config"]["Labels"]["lab.version"].as_str().unwrap_or_default().to_owned())
}

fn both(version: &str) -> (String, String) {
    (version.to_owned(), version.to_owned())
}

/// The application was never touched, no deputy is left, and the updater still updates.
fn assert_at_rest(stage: &Stage) {
    let labelled = |c: &Value| c["Labels"]["io.processgit.updater.role"] == "deputy";
    lab::eventually("the end of the deputy", std::time::Duration::from_secs(10), || {
        (!stage.lab.engine.containers(&stage.lab.run.label()).iter().any(labelled)).then_some(())
    });
    stage.assert_next_update_works();
    assert_eq!(stage.app.would_change(), [""; 0], "`docker compose up -d` on the host");
}

#[test]
fn a_good_successor_is_committed() {
    let stage = stage("");
    let job = self_update(&stage, json!({"target_tag": "v2.0.0"}));
    job.assert_end("committed", &[]);
    assert_eq!(job.0["kind"], "self_update");
    assert!(job.states().contains(&"swapping") && job.states().contains(&"snapshotting"), "{:#}", job.0);
    assert_eq!(versions(&stage), both("2.0.0"));
    // By its own history, which has moved with it.
    let history = stage.updater.get("/history").json();
    assert_eq!(history["jobs"][0]["id"], job.0["id"]);
    // The newest, which it is already.
    self_update(&stage, json!({})).assert_end("committed", &[]);
    assert_at_rest(&stage);
}

#[test]
fn one_that_does_not_come_up_is_replaced_by_the_old_one() {
    let stage = stage("ENTRYPOINT [\"/processgit-updater\", \"--version\"]");
    let job = self_update(&stage, json!({"target_tag": "v2.0.0"}));
    job.assert_end("rolled_back", &["not healthy"]);
    assert_eq!(versions(&stage), both("1.0.0"));
    self_update(&stage, json!({"target_tag": "v2.0.0"}))
        .assert_end("rolled_back", &["started before", "self-update v2.0.0 --retry"]);
    assert_at_rest(&stage);
}

/// The old one could not open a newer journal: it gets its own back.
#[test]
fn one_that_brings_the_journal_to_a_newer_format_and_does_not_come_up() {
    let stage = stage("ENV UPDATER_STATE_FORMAT=3\nENV UPDATER_FAILPOINT=\"kill /state opened#1\"");
    let job = self_update(&stage, json!({"target_tag": "v2.0.0"}));
    job.assert_end("rolled_back", &["was written by a newer updater (format 3, this one knows 2)"]);
    assert_eq!(versions(&stage), both("1.0.0"));
    assert_eq!(stage.updater.get("/history").json()["jobs"][0]["id"], job.0["id"]);
    assert_at_rest(&stage);
}

#[test]
fn the_deputy_dies_in_the_middle() {
    let stage = stage("");
    let id = begin(&stage, json!({"target_tag": "v2.0.0"}));
    let deputy = format!("processgit-updater-deputy-{}", id.trim_start_matches("job_"));
    lab::eventually("the updater's new container", std::time::Duration::from_secs(60), || {
        let env = std::fs::read_to_string(stage.app.env_file()).ok()?;
        env.contains("PROCESSGIT_UPDATER_VERSION=2.0.0").then_some(())
    });
    // By the kernel, not by the engine, which would take it for an operator's wish.
    let pid = stage.lab.engine.container(&deputy).expect("the deputy")["State"]["Pid"].as_i64().unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).expect("it runs");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let job = stage.updater.wait_out(&id);
    match job.state() {
        "committed" => assert_eq!(versions(&stage), both("2.0.0")),
        "rolled_back" => assert_eq!(versions(&stage), both("1.0.0")),
        _ => panic!("neither: {:#}", job.0),
    }
    assert_at_rest(&stage);
}

/// As the README has it: the command is in a container of its own, and the updater's is replaced meanwhile.
#[test]
fn a_command_in_a_container_of_its_own_follows_to_the_verdict() {
    let stage = stage("");
    let run = ["run", "--rm", "--no-deps", "-T", "updater", "self-update", "v2.0.0"];
    let output = stage.app.compose_command(&run).output().expect("docker compose");
    let said = String::from_utf8_lossy(&[output.stdout.clone(), output.stderr].concat()).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("committed"), "{said}");
    assert_eq!(versions(&stage), both("2.0.0"));
    // In the updater's own container it says beforehand that it will not see the end.
    let output = stage.updater.command().args(["self-update", "v2.0.0"]).output().expect("the program");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("ends with it (exit code 137)") && said.contains("docker compose run --rm"), "{said}");
}

/// The doctor resolves it as the job does.
#[test]
fn a_key_that_does_not_select_it_is_found_beforehand() {
    let stage = case().sidecar(Sees::Deploy, |s| s.version_key = Some("UPDATER_VERSION".into())).stage();
    let output = stage.updater.command().args(["doctor", "--json"]).output().expect("the program");
    let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
    let of_itself = |f: &&Value| f["check"] == "self-update";
    let finding = report["findings"].as_array().and_then(|all| all.iter().find(of_itself)).expect("a finding");
    assert_eq!((&finding["verdict"], &finding["code"]), (&json!("warning"), &json!("not_selected")), "{finding:#}");
    assert_eq!(finding["remedy"], "PROCESSGIT_UPDATER_SELF_VERSION_KEY=UPDATER_VERSION", "{finding:#}");
}
