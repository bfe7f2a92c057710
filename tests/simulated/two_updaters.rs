//! Two updaters with state folders of their own on one application: one works, the other is told who does.

use std::sync::{Arc, Mutex};

use processgit_updater::engine::label;
use processgit_updater::engine::simulated::{Fate, Faults, NoFaults, World};
use processgit_updater::update::job::{Job, State};
use tokio::sync::Notify;

use crate::bench::{At, Installation, Scene, wait};
use crate::faults::{calls_of, updates};

/// Tells when the nth call comes.
struct Tells {
    at: Arc<At>,
    reached: Notify,
}

impl Faults for Tells {
    fn fate(&self, name: &str) -> Fate {
        if self.at.fate(name) != Fate::Go {
            self.reached.notify_one();
        }
        Fate::Go
    }
}

/// What changes the application, and who did it, in order.
#[derive(Default)]
struct Trail(Mutex<Vec<&'static str>>);

struct Touches {
    who: &'static str,
    trail: Arc<Trail>,
    then: Arc<dyn Faults>,
}

impl Faults for Touches {
    fn fate(&self, name: &str) -> Fate {
        self.then.fate(name)
    }
    fn done(&self, name: &str, _: &World) {
        if matches!(name, "engine.set_restart_policy" | "engine.stop" | "env.write" | "compose.up/create") {
            self.trail.0.lock().unwrap().push(self.who);
        }
    }
}

fn was_refused(job: &Job) -> bool {
    let error = job.error.as_deref().unwrap_or_default();
    let steps: Vec<State> = job.steps.iter().map(|step| step.state).collect();
    error.contains("another updater works on service processgit: host ")
        && error.contains("docker rm processgit-updater-claim-test.processgit")
        && steps == [State::Planning, State::RolledBack]
}

/// Whatever the moment at which the second one begins: they never touch the application by turns.
#[tokio::test(start_paused = true)]
async fn one_works_and_the_other_is_told_who() {
    let (mut refused, mut both) = (0, 0);
    for (kind, scene) in updates() {
        for (call, nth) in calls_of(&scene).await {
            let context = format!("{kind}: the second begins at {call} #{nth}");
            let first = Installation::ready(scene.clone()).await;
            let second = first.another();
            let (trail, tells) = (Arc::new(Trail::default()), At::nth(&call, nth, Fate::Hang));
            let tells = Arc::new(Tells { at: tells, reached: Notify::new() });
            let faults = |who, then| Arc::new(Touches { who, trail: trail.clone(), then });
            let (one, _) = first.process(faults("one", tells.clone())).await;
            let (two, _) = second.process(faults("two", Arc::new(NoFaults))).await;
            let begun = first.submit(&one, first.order()).await.expect("accepted");
            tells.reached.notified().await;
            let other = second.submit(&two, second.order()).await.expect("accepted");
            let jobs = [wait(&one, &begun.id.0).await, wait(&two, &other.id.0).await];
            for job in &jobs {
                assert!(matches!(job.state, State::Committed | State::RolledBack), "{context}: {job:?}");
            }
            let mut order = trail.0.lock().unwrap().clone();
            order.dedup();
            assert!(order.len() <= 2, "{context}: by turns: {order:?}: {jobs:#?}");
            *(if jobs.iter().any(was_refused) { &mut refused } else { &mut both }) += 1;
            let ours = |world: &World| world.containers.iter().filter(|c| c.label(label::JOB).is_some()).count();
            assert_eq!(ours(&first.world.world()), 0, "{context}: no claim is left");
        }
    }
    println!("cases: two updaters {}", refused + both);
    assert!(refused > 200 && both > 10);
}

/// The state folder of a dead updater is gone: its claim stays, and the way out is told.
#[tokio::test(start_paused = true)]
async fn a_dead_holder_is_named_and_the_remedy_works() {
    let first = Installation::new(Scene::default());
    let (one, world) = first.process(At::nth("data.hot", 1, Fate::DieAfter)).await;
    first.submit(&one, first.order()).await.expect("accepted");
    world.death().await;
    let second = first.another();
    let (two, _) = second.process(Arc::new(NoFaults)).await;
    let before = first.world.world().clone();
    let job = second.submit_and_wait(&two, second.order()).await;
    assert!(was_refused(&job), "{job:#?}");
    let error = job.error.unwrap_or_default();
    assert!(error.contains("host one, state folder /state (job_"), "{error}");
    assert_eq!(first.world.world().containers, before.containers, "nothing was touched");

    first.world.world().containers.retain(|c| !c.name.starts_with("processgit-updater-claim-"));
    assert_eq!(second.submit_and_wait(&two, second.order()).await.state, State::Committed);
}

/// One that comes back finds its own claim, and so does one that lost it to a prune.
#[tokio::test(start_paused = true)]
async fn its_own_claim_is_no_obstacle() {
    let first = Installation::new(Scene::default());
    let (one, world) = first.process(At::nth("journal.done", 1, Fate::DieBefore)).await;
    first.submit(&one, first.order()).await.expect("accepted");
    world.death().await;
    // The journal was lost with the job, but not the state folder's name.
    let mut again = first.another();
    again.owner.clone_from(&first.owner);
    let (updater, _) = again.process(Arc::new(NoFaults)).await;
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    let lost = updater.active().expect("it is found by its claim");
    assert_eq!(wait(&updater, &lost.id.0).await.state, State::RolledBack);
    assert_eq!(again.submit_and_wait(&updater, again.order()).await.state, State::Committed);

    struct Prunes;
    impl Faults for Prunes {
        fn fate(&self, _: &str) -> Fate {
            Fate::Go
        }
        fn meanwhile(&self, name: &str, world: &mut World) {
            if name == "data.hot" {
                world.containers.retain(|c| c.label(label::JOB).is_none());
            }
        }
        fn done(&self, name: &str, world: &World) {
            let claims = world.containers.iter().filter(|c| c.label(label::ROLE) == Some("claim")).count();
            assert!(name != "engine.stop" || claims == 1, "it was taken again before anything was touched");
        }
    }
    let pruned = Installation::new(Scene::default());
    assert_eq!(pruned.run(Arc::new(Prunes)).await.state, State::Committed);
}
