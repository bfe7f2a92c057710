//! The engine ends in the middle of a job, politely or by `kill -9`, and starts again with everything that its
//! restart policies bring back. The job goes on, or goes back, and what it says is true.
//!
//! Never on the shared engine: `ci/second-engine.sh` runs them on one of their own.

use std::fs;
use std::time::Duration;

use lab::eventually;
use lab::world::World;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::case::Leaves::{Restored, Updated};
use crate::case::Stage;
use crate::data::{data, with_data};

/// It happens while the updater waits at this place, see `src/failpoint.rs`; without one, in this state.
enum At {
    Place(&'static str),
    State(&'static str),
}
use At::{Place, State};

/// The updater is stopped at the place.
fn await_stop(stage: &Stage, place: &str) {
    let stat = format!("/proc/{}/stat", stage.updater.pid());
    eventually(place, Duration::from_secs(60), || fs::read_to_string(&stat).ok().filter(|stat| stat.contains(") T ")));
}

fn restarted(signal: Signal, behaviour: &'static str, migration: Option<&'static str>, at: &At, may_end: &[&str]) {
    let case = with_data(behaviour).setting("HEALTH_TIMEOUT", "15s").setting("MIGRATION_TIMEOUT", "60s");
    let case = match migration {
        Some(command) => case.release(move |r| {
            let image = r.behaviour(behaviour).migration(command);
            image.image(|i| i.env.extend([("DATA_DIR".into(), "/data".into()), ("SCHEMA".into(), "2".into())]))
        }),
        None => case,
    };
    let mut stage = case.stage();
    if let Place(place) = at {
        stage.updater.variables.insert("UPDATER_FAILPOINT".into(), format!("stop {place}"));
        stage.updater.restart();
    }
    let id = stage.updater.begin(&json!({ "target_tag": stage.release.tag }));
    match at {
        Place(place) => {
            await_stop(&stage, place);
            stage.lab.engine.restart(signal);
            let pid = Pid::from_raw(i32::try_from(stage.updater.pid()).expect("a process")).expect("a process");
            kill_process(pid, Signal::CONT).expect("SIGCONT");
        }
        State(state) => {
            stage.updater.wait_for(&id, state);
            stage.lab.engine.restart(signal);
        }
    }
    let job = stage.updater.wait_for_end(&id);
    assert!(may_end.contains(&job.state()), "not one of {may_end:?}: {:#}", job.0);
    println!("{} {}", job.state(), job.error());
    let leaves = if job.state() == "committed" { Updated } else { Restored };
    let (before, after) = (stage.before.clone().without_starts(), World::of(&stage.app).without_starts());
    stage.assert_leaves_in(leaves, Duration::ZERO, &before, &after);
    let schema = if job.state() == "committed" { 2 } else { 1 };
    assert_eq!(data(&stage)["schema"], json!(schema), "the data is that of the version: {:#}", job.0);
    stage.updater.variables.clear();
    stage.assert_next_update_works();
}

macro_rules! rows {
    ($($name:ident: $signal:ident, $behaviour:expr, $migration:expr, $at:expr, $may_end:expr;)*) => {$(
        #[test]
        #[ignore = "restarts the engine: ci/second-engine.sh runs it on one of its own"]
        fn $name() {
            restarted(Signal::$signal, $behaviour, $migration, &$at, &$may_end);
        }
    )*};
}

rows! {
    while_pulling: TERM, "good", None, State("pulling"), ["committed", "rolled_back"];
    before_the_pull: KILL, "good", None, Place("Pull/begun#1"), ["committed"];
    after_the_stop: TERM, "good", None, Place("Stop/done#1"), ["committed"];
    while_copying: KILL, "good", None, Place("ColdCopy/entry#2"), ["committed"];
    while_a_migration_runs: TERM, "good", Some("migrate --hang"), State("migrating"), ["rolled_back"];
    while_a_migration_runs_and_not_politely: KILL, "good", Some("migrate --hang"), State("migrating"), ["rolled_back"];
    before_the_swap: TERM, "good", None, Place("Swap/begun#1"), ["committed", "rolled_back"];
    while_swapping: KILL, "good", None, Place("Swap/a child has spoken#1"), ["committed", "rolled_back"];
    while_swapping_politely: TERM, "good", None, Place("Swap/a child has spoken#2"), ["committed", "rolled_back"];
    at_the_gate: TERM, "slow:3", None, State("healthchecking"), ["committed", "rolled_back"];
    at_the_gate_and_not_politely: KILL, "slow:3", None, State("healthchecking"), ["committed", "rolled_back"];
    before_the_data_is_put_back: TERM, "crash-late:0.1", None, Place("RestoreData/entry#2"), ["rolled_back"];
    while_the_old_version_is_made_anew: KILL, "crash-late:0.1", None, Place("StartOld/a child has spoken#1"), ["rolled_back"];
    before_the_old_version_is_proven: TERM, "crash-late:0.1", None, Place("Prove/begun#1"), ["rolled_back"];
}
