//! `abort` at any moment of every kind of job: either nothing was changed and the job ends `aborted`, or it
//! is too late and the job goes on. Whoever was told "aborted" may rely on it, whatever dies.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use processgit_updater::engine::simulated::{Fate, Faults, Simulated};
use processgit_updater::update::Updater;
use processgit_updater::update::door::AbortError;
use processgit_updater::update::job::{Job, State};
use tokio::sync::Notify;

use crate::bench::{At, DIGEST, Installation, Scene, wait};
use crate::death::recover;
use crate::faults::{calls_of, jobs_by_hand, updates};
use crate::invariants::assert_invariants;

/// The nth call has this fate, and is told of; so many calls after the abort was recorded the process dies.
struct Moment {
    call: String,
    nth: usize,
    fate: Fate,
    seen: Mutex<usize>,
    reached: Notify,
    recorded: AtomicBool,
    dies_after: Option<usize>,
    since: AtomicUsize,
}

impl Faults for Moment {
    fn fate(&self, name: &str) -> Fate {
        if self.recorded.load(Ordering::SeqCst) && Some(self.since.fetch_add(1, Ordering::SeqCst)) == self.dies_after {
            return Fate::DieAfter;
        }
        if name != self.call {
            return Fate::Go;
        }
        let mut seen = self.seen.lock().unwrap();
        *seen += 1;
        if *seen != self.nth {
            return Fate::Go;
        }
        self.reached.notify_one();
        self.fate.clone()
    }
}

/// A life in which the job is aborted at that moment.
struct Life {
    installation: Installation,
    updater: Updater,
    world: Simulated,
    moment: Arc<Moment>,
    id: String,
    answer: Result<Job, AbortError>,
}

async fn abort_at(
    installation: Installation,
    (call, nth): &(String, usize),
    fate: Fate,
    dies_after: Option<usize>,
) -> Life {
    let moment = Arc::new(Moment {
        call: call.clone(),
        nth: *nth,
        fate,
        seen: Mutex::new(0),
        reached: Notify::new(),
        recorded: AtomicBool::new(false),
        dies_after,
        since: AtomicUsize::new(0),
    });
    let (updater, world) = installation.process(moment.clone()).await;
    let id = installation.submit(&updater, installation.order()).await.expect("accepted").id.0;
    moment.reached.notified().await;
    let answer = updater.abort(&id).await;
    moment.recorded.store(answer.is_ok(), Ordering::SeqCst);
    Life { installation, updater, world, moment, id, answer }
}

/// The first of these changes the application.
const TOUCHES: [&str; 4] = ["engine.set_restart_policy", "engine.stop", "env.write", "compose.up/look"];

/// Near the boundary the job may be a few looks further than the call that was told of.
const RACE: usize = 8;

fn all_kinds() -> Vec<(&'static str, Scene)> {
    updates().into_iter().chain(jobs_by_hand()).collect()
}

#[tokio::test(start_paused = true)]
async fn at_any_moment_of_every_kind_of_job() {
    let (mut aborted, mut too_late) = (0, 0);
    for (kind, scene) in all_kinds() {
        let (ready, calls) = (Installation::ready(scene.clone()).await, calls_of(&scene).await);
        let start = ready.remains("ready", 0);
        let touched = calls.iter().position(|(name, _)| TOUCHES.contains(&name.as_str()));
        for (at, call) in calls.iter().enumerate() {
            // A journal that fails ends the job by itself.
            let fates = if call.0.starts_with("journal") { vec![Fate::Go] } else { vec![Fate::Go, Fate::Hang] };
            for fate in fates {
                let context = format!("{kind}: aborted at {call:?} {fate:?}");
                let life = abort_at(ready.from(&start), call, fate, None).await;
                let job = wait(&life.updater, &life.id).await;
                assert_invariants(&life.installation, &job, &context);
                assert_eq!(life.answer.is_ok(), job.state == State::Aborted, "{context}: {:?} {job:?}", life.answer);
                match touched {
                    Some(touched) if at >= touched => assert!(life.answer.is_err(), "{context}"),
                    Some(touched) if at + RACE < touched => {
                        assert!(life.answer.is_ok(), "{context}: {:?}", life.answer)
                    }
                    _ => {}
                }
                let again = life.updater.abort(&life.id).await;
                assert_eq!(again.is_ok(), life.answer.is_ok(), "{context}: asked again, the same answer: {again:?}");
                if job.state == State::Aborted {
                    assert_eq!(life.installation.known_bad(DIGEST).await, None, "{context}");
                }
                *(if life.answer.is_ok() { &mut aborted } else { &mut too_late }) += 1;
            }
        }
    }
    println!("cases: aborted at any moment {}", aborted + too_late);
    assert!(aborted > 300 && too_late > 300);
}

#[tokio::test(start_paused = true)]
async fn what_was_answered_stays_true_when_the_process_dies() {
    let mut cases = 0;
    let several =
        ["commit", "crash loop, hooks and a companion that it needs", "hot snapshot", "rollback without data"];
    for (kind, scene) in all_kinds().into_iter().filter(|(kind, _)| several.contains(kind)) {
        let ready = Installation::ready(scene.clone()).await;
        let start = ready.remains("ready", 0);
        for call in calls_of(&scene).await {
            for dies_after in 0.. {
                let context = format!("{kind}: aborted at {call:?}, dead {dies_after} calls later");
                let life = abort_at(ready.from(&start), &call, Fate::Go, Some(dies_after)).await;
                if life.answer.is_err() {
                    break;
                }
                let died = tokio::select! {
                    () = life.world.death() => true,
                    _ = wait(&life.updater, &life.id) => false,
                };
                if !died {
                    break;
                }
                let job = recover(&life.installation, &context).await;
                assert_eq!((job.id.0, job.state), (life.id, State::Aborted), "{context}");
                cases += 1;
            }
        }
    }
    println!("cases: deaths around an abort {cases}");
    assert!(cases > 300);
}

/// Nobody waits for a registry that sends nothing.
#[tokio::test(start_paused = true)]
async fn a_running_effect_is_left_at_once() {
    for call in ["engine.pull", "data.hot", "probe.ask"] {
        let installation = Installation::new(Scene::default());
        let begun = tokio::time::Instant::now();
        let life = abort_at(installation, &(call.into(), 1), Fate::Hang, None).await;
        let job = wait(&life.updater, &life.id).await;
        assert_eq!(job.state, State::Aborted, "{call}: {:?}", life.answer);
        assert!(begun.elapsed().as_secs() < 10, "{call}: {:?}", begun.elapsed());
        assert_eq!(life.moment.nth, 1);
        assert_eq!(life.updater.abort(&life.id).await.unwrap().state, State::Aborted, "asked again, the same answer");
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_recorded_is_not_aborted() {
    let installation = Installation::new(Scene::default());
    // Accepted, planned, and then what is asked first.
    let (updater, _) = installation.process(At::nth("journal.note", 1, Fate::Fail("full".into()))).await;
    assert!(matches!(updater.abort("job_0").await, Err(AbortError::Unknown(_))));
    let id = installation.submit(&updater, installation.order()).await.unwrap().id.0;
    let refused = updater.abort(&id).await.unwrap_err();
    assert!(matches!(refused, AbortError::Journal(_)), "{refused}");
    let job = wait(&updater, &id).await;
    assert_eq!(job.state, State::Committed, "{:?}", job.error);
    let late = updater.abort(&id).await.unwrap_err().to_string();
    assert_eq!(late, "too late to abort: the job has ended, committed");
}
