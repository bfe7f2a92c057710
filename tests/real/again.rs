//! Several requests: at once, and one after the other.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use lab::engine::must_run;
use lab::publish::ReleaseSpec;
use serde_json::json;

use crate::case::Leaves::{Restored, Untouched};
use crate::case::case;

#[test]
fn of_twenty_requests_at_once_one_is_accepted() {
    let stage = case().stage();
    let request = json!({ "target_tag": "v1.1.0" });
    let answers: Vec<_> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..20).map(|_| scope.spawn(|| stage.updater.post("/update", &request))).collect();
        asked.into_iter().map(|asked| asked.join().expect("an answer")).collect()
    });
    let mut count = BTreeMap::new();
    for answer in &answers {
        *count.entry(answer.status).or_insert(0) += 1;
    }
    assert_eq!(count, [(202, 1), (409, 19)].into());
    let accepted = answers.iter().find(|answer| answer.status == 202).expect("one was accepted").json();
    let job = stage.updater.wait_for_end(accepted["job_id"].as_str().expect("a job"));
    job.assert_end("committed", &[]);
    let history = stage.updater.get("/history").json();
    assert_eq!(history["jobs"].as_array().map(Vec::len), Some(1), "one job, not twenty");
}

#[test]
fn a_digest_that_was_started_and_rolled_back_is_not_tried_again_unless_told() {
    let (stage, _job) =
        case().release(|r| r.behaviour("crash")).gate_for("crash").ends("rolled_back", &["exit code 1"], Restored);
    stage.update().assert_end("rolled_back", &["retry", "rolled back"]);
    stage.assert_leaves(Restored, Duration::ZERO);
    let told = stage.updater.update_with(json!({ "target_tag": "v1.1.0", "retry": true }));
    told.assert_end("rolled_back", &["exit code 1"]);
    stage.assert_next_update_works();
}

#[test]
fn a_failed_download_is_no_reason_to_refuse_the_next_try() {
    let stage = case().stage();
    stage.lab.releases.storage_trouble(lab::releases::Trouble::Status(500));
    stage.update().assert_end("rolled_back", &["500"]);
    stage.assert_leaves(Untouched, Duration::ZERO);
    stage.lab.releases.storage_trouble(lab::releases::Trouble::None);
    stage.update().assert_end("committed", &[]);
}

/// What was committed once is the floor: a genuine older release is a replay.
#[test]
fn three_updates_in_a_row_and_no_way_back_by_an_old_release() {
    let stage = case().stage();
    for version in ["1.1.0", "1.2.0", "1.3.0"] {
        let release = stage.lab.publish(ReleaseSpec::new(version));
        stage.updater.update(&release.tag).assert_end("committed", &[]);
    }
    stage.updater.update("v1.2.0").assert_end("rolled_back", &["1.2.0", "1.3.0"]);
    stage.app.await_version("1.3.0");
}

#[test]
fn an_application_that_another_updater_works_on_is_left_alone() {
    let stage = case().stage();
    let claim = format!("processgit-updater-claim-{}.{}", stage.lab.run.id, stage.app.spec.service);
    let image = stage.app.running_image().expect("it runs");
    let owner =
        ["--label", "io.processgit.updater.owner=stranger", "--label", "io.processgit.updater.place=host elsewhere"];
    must_run(Command::new("docker").args(["create", "--name", &claim]).args(owner).args([&image, "/claim"]));
    let job = stage.update();
    job.assert_end(
        "rolled_back",
        &["another updater works on service app: host elsewhere", &format!("docker rm {claim}")],
    );
    assert_eq!(job.states(), ["planning", "rolled_back"]);
    must_run(Command::new("docker").args(["rm", &claim]));
    stage.assert_leaves(Untouched, Duration::ZERO);
    stage.assert_next_update_works();
}
