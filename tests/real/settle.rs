//! A failed job until it is settled, as a person meets it: doctor, the job's own commands, `settle`, the next update.

use std::process::Command;

use lab::engine::must_run;
use lab::sidecar::{Network, Sees};
use serde_json::{Value, json};

use crate::advice::{commands, with_worker};
use crate::case::{Case, Leaves::Whatever, Stage};
use crate::data::{data, with_data};

fn doctor(stage: &Stage) -> Vec<Value> {
    let output = stage.updater.command().args(["doctor", "--json"]).output().expect("the program");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    report["findings"].as_array().expect("findings").clone()
}

/// Every container, running or not, that carries the job's label.
fn left_of(job: &str) -> String {
    let filter = format!("label=io.processgit.updater.job={job}");
    must_run(Command::new("docker").args(["ps", "-a", "--filter", &filter, "--format", "{{.Names}}"]))
}

/// Compose cannot make the old version anew, because a file that it needs is gone.
fn breaks(case: Case) -> Case {
    let case = case.app(|a| {
        a.service_lines.push("secrets: [password]".into());
        a.file_lines.push("secrets: { password: { file: ./password } }".into());
        a.files.push(("password".into(), "secret".into()));
    });
    case.setting("HEALTH_TIMEOUT", "2s")
        .during("healthchecking", |s| std::fs::remove_file(s.app.folder().join("password")).expect("the file"))
}

#[test]
fn a_failed_job_is_settled_by_hand() {
    settles(with_worker(with_data("error500")));
}

#[test]
fn a_failed_job_of_a_sidecar_is_settled_by_hand() {
    settles(with_worker(with_data("error500")).sidecar(Sees::Deploy, |s| s.network = Network::Host));
}

fn settles(case: Case) {
    let (mut stage, job) = breaks(case).ends("failed", &["by hand"], Whatever);
    let id = job.0["id"].as_str().expect("an id").to_owned();
    let kept = left_of(&id);
    assert!(kept.contains("guard-old"), "{kept}");
    stage.updater.restart();
    stage.updater.await_answer();

    let found = doctor(&stage);
    assert_eq!((&found[0]["check"], &found[0]["code"]), (&json!("failed job"), &json!("unsettled")), "{found:#?}");
    assert_eq!(found[0]["verdict"], "bad");
    let remedies: Vec<&str> = found.iter().filter_map(|finding| finding["remedy"].as_str()).collect();
    for part in ["docker start", "up -d", "docker rm", "env set"] {
        assert!(remedies.iter().all(|remedy| !remedy.contains(part)), "{part}: {remedies:#?}");
    }
    let refused = stage.updater.post("/update", &json!({ "target_tag": stage.release.tag }));
    let said = refused.expect_status(&[409], "an update over a failed job").text();
    assert!(said.contains(&format!("processgit-updater settle {id}")), "{said}");
    assert_eq!(left_of(&id), kept, "kept over the restart");

    stage.app.write("password", "secret");
    let commands = commands(job.error());
    let (settle, by_hand) = commands.split_last().expect("commands");
    assert!(settle.ends_with(&format!("processgit-updater settle {id} --yes")), "{settle}");
    stage.type_in(by_hand);
    stage.app.await_version("1.0.0");
    assert_eq!(data(&stage), json!({"counter": 2, "schema": 1}));
    assert_eq!(doctor(&stage)[0]["check"], "failed job", "only a person settles it");
    let status = stage.updater.get("/status").expect_status(&[200], "GET /status").json();
    assert_eq!(status["needs_you"][0]["job"], json!(id));

    stage.type_in(std::slice::from_ref(settle));
    assert_eq!(left_of(&id), "", "nothing of it is left");
    let trouble: Vec<Value> = doctor(&stage).into_iter().filter(|finding| finding["verdict"] == "bad").collect();
    assert_eq!(trouble, [] as [Value; 0]);
    // Settled once more, as whoever is not sure does.
    stage.type_in(std::slice::from_ref(settle));
    stage.assert_next_update_works();
}
