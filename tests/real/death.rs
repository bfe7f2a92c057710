//! The updater dies in the middle of a job. On its next start the job ends by itself, in a state that is
//! true, and the next request is accepted.

use std::time::Duration;

use crate::case::Leaves::{Restored, Updated, Whatever};
use crate::case::{Stage, case};

/// Begins an update to a release that behaves so, and waits until the job is in `state`.
fn begun(behaviour: &'static str, state: &str) -> (Stage, String) {
    let stage = case().release(move |r| r.behaviour(behaviour)).setting("HEALTH_TIMEOUT", "4s").stage();
    let id = stage.updater.begin(&serde_json::json!({ "target_tag": stage.release.tag }));
    stage.updater.wait_for(&id, state);
    (stage, id)
}

/// The job has ended, and the world agrees with what it says.
pub fn assert_proven(stage: &Stage, id: &str, may_end: &[&str]) {
    let job = stage.updater.wait_for_end(id);
    assert!(may_end.contains(&job.state()), "not one of {may_end:?}: {:#}", job.0);
    match job.state() {
        "committed" => stage.assert_leaves(Updated, Duration::ZERO),
        "rolled_back" => stage.assert_leaves(Restored, Duration::ZERO),
        _ => stage.assert_leaves(Whatever, Duration::ZERO),
    }
    stage.assert_next_update_works();
}

fn killed_in(behaviour: &'static str, state: &str, may_end: &[&str]) {
    let (mut stage, id) = begun(behaviour, state);
    stage.updater.kill9();
    stage.updater.restart();
    assert_proven(&stage, &id, may_end);
}

#[test]
fn killed_while_planning() {
    killed_in("good", "planning", &["committed", "rolled_back"]);
}

#[test]
fn killed_while_pulling() {
    killed_in("good", "pulling", &["committed", "rolled_back"]);
}

#[test]
fn killed_while_swapping() {
    killed_in("good", "swapping", &["committed", "rolled_back"]);
}

#[test]
fn killed_at_the_gate() {
    killed_in("slow:2", "healthchecking", &["committed"]);
}

#[test]
fn killed_while_swapping_to_a_bad_release() {
    killed_in("error500", "swapping", &["rolled_back"]);
}

#[test]
fn killed_at_the_gate_of_a_bad_release() {
    killed_in("error500", "healthchecking", &["rolled_back"]);
}

#[test]
fn killed_on_the_way_back() {
    killed_in("error500", "rolling_back", &["rolled_back"]);
}

#[test]
fn killed_while_swapping_and_the_application_removed_by_hand() {
    let (mut stage, id) = begun("good", "swapping");
    stage.updater.kill9();
    stage.lab.engine.remove("containers", &stage.app.container);
    stage.updater.restart();
    assert_proven(&stage, &id, &["committed", "rolled_back"]);
}

#[test]
fn asked_to_stop_in_the_middle_of_a_job() {
    let (mut stage, id) = begun("slow:1", "swapping");
    let status = stage.updater.sigterm();
    assert_eq!(status.code(), Some(0), "a clean stop");
    stage.updater.restart();
    assert_proven(&stage, &id, &["committed", "rolled_back"]);
}

#[test]
fn killed_three_times_in_one_job() {
    let (mut stage, id) = begun("slow:2", "pulling");
    for state in ["pulling", "swapping", "healthchecking"] {
        stage.updater.wait_for(&id, state);
        stage.updater.kill9();
        stage.updater.restart();
    }
    assert_proven(&stage, &id, &["committed", "rolled_back"]);
}

/// Stopped with `docker pause`, by a virtual machine that stalls, or with a laptop's lid: what the application did
/// meanwhile was not seen, and its time to become healthy has not passed.
#[test]
fn the_updater_itself_stands_still_at_the_gate() {
    let (stage, id) = begun("slow:3", "healthchecking");
    let process = rustix::process::Pid::from_raw(stage.updater.pid() as i32).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::STOP).unwrap();
    // Longer than the gate, and than any wait for an answer.
    std::thread::sleep(Duration::from_secs(8));
    rustix::process::kill_process(process, rustix::process::Signal::CONT).unwrap();
    assert_proven(&stage, &id, &["committed"]);
}
