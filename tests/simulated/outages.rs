//! From some call on the engine does not answer any more: for a while, or for ever. A job is neither stuck nor
//! given up while the engine may still come back.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use processgit_updater::clock::Clock;
use processgit_updater::engine::simulated::{Fate, Faults, NoFaults};
use processgit_updater::update::job::State;

use crate::bench::{Installation, Scene, wait};
use crate::death::ended;
use crate::faults::{calls_of, jobs_by_hand, only_looks, updates};
use crate::invariants::{assert_invariants, assert_verdict};

/// Nobody answers from the nth call of this name on, for so long.
struct Outage {
    call: String,
    nth: usize,
    lasts: Duration,
    /// What becomes of the call with which it begins.
    first: Fate,
    clock: Arc<dyn Clock>,
    state: Mutex<(usize, Option<Timestamp>)>,
}

impl Faults for Outage {
    fn fate(&self, name: &str) -> Fate {
        let mut state = self.state.lock().unwrap();
        let (seen, since) = &mut *state;
        if since.is_none() && name == self.call {
            *seen += 1;
            if *seen == self.nth {
                *since = Some(self.clock.now());
                return self.first.clone();
            }
        }
        let is_elsewhere = name.starts_with("engine.") || name.starts_with("compose.");
        let lasts = since.is_some_and(|since| self.clock.now() < since + self.lasts);
        if is_elsewhere && lasts { Fate::Hang } else { Fate::Go }
    }
}

const A_WHILE: Duration = Duration::from_secs(3600);
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3600);

async fn outages(what: &str, scenes: Vec<(&str, Scene)>) {
    let (mut cases, mut failed) = (0, 0);
    for (kind, scene) in scenes {
        let first = Installation::ready(scene.clone()).await;
        let ready = first.remains("ready", 0);
        let changes = |(call, _): &(String, usize)| !only_looks(call) && !call.starts_with("journal.");
        for (call, nth) in calls_of(&scene).await.into_iter().filter(changes) {
            for (lasts, fate) in [(A_WHILE, Fate::Hang), (A_WHILE, Fate::HangAfter), (FOR_EVER, Fate::HangAfter)] {
                let context = format!("{kind}: no answer after {call} #{nth} for {lasts:?}, {fate:?}");
                let installation = first.from(&ready);
                let (call, clock) = (call.clone(), ready.clock());
                let outage = Outage { call, nth, lasts, first: fate, clock, state: Mutex::default() };
                let (updater, _) = installation.process(Arc::new(outage)).await;
                let Ok(job) = installation.submit(&updater, installation.order()).await else { continue };
                let job = wait(&updater, &job.id.0).await;
                assert_verdict(&installation, &job, &context);
                if lasts == A_WHILE {
                    assert_ne!(job.state, State::Failed, "{context}: {:?}", job.error);
                    // What could not be removed meanwhile goes at the next start.
                    let job = ended(&installation, Arc::new(NoFaults)).await;
                    assert_invariants(&installation, &job, &context);
                }
                failed += usize::from(job.state == State::Failed);
                cases += 1;
            }
        }
    }
    println!("cases: engines that do not answer, {what} {cases}");
    assert!(failed > 20, "{failed}");
}

#[tokio::test(start_paused = true)]
async fn the_engine_does_not_answer_from_any_call_of_an_update_on() {
    outages("updates", updates()).await;
}

#[tokio::test(start_paused = true)]
async fn the_engine_does_not_answer_from_any_call_of_a_job_by_hand_on() {
    outages("jobs by hand", jobs_by_hand()).await;
}
