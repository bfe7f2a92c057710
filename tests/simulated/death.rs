//! The process dies before and after every call of every kind of job, and again during recovery.

use std::sync::Arc;
use std::time::Duration;

use processgit_updater::engine::simulated::{Behaviour, Fate, NoFaults};
use processgit_updater::update::job::{Job, State};

use processgit_updater::update::Order;

use crate::bench::{At, Installation, Scene, assert_invariants, request, restore, snapshot, wait};
use crate::by_hand::written;
use crate::faults::{calls_of, jobs_by_hand, updates};

/// Runs until the process dies; false when the job ended before it came to that.
async fn live_until_death(installation: &Installation, faults: Arc<At>, begin: bool) -> bool {
    let (updater, world) = installation.process(faults).await;
    let life = async {
        let id = if begin {
            installation.submit(&updater, installation.order()).await.expect("accepted").id.0
        } else {
            match updater.active() {
                Some(job) => job.id.0.clone(),
                None => return,
            }
        };
        wait(&updater, &id).await;
    };
    tokio::select! {
        () = world.death() => true,
        () = life => false,
    }
}

/// A lucky life that ends whatever is unfinished; then everything must hold and a next job must work.
pub async fn recover(installation: &Installation, context: &str) -> Job {
    let (updater, _) = installation.process(Arc::new(NoFaults)).await;
    if let Some(active) = updater.active() {
        wait(&updater, &active.id.0).await;
    }
    let job = installation.jobs().await.into_iter().next().expect("there was a job");
    // What is swept at start is swept after recovery.
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_invariants(installation, &job, context);
    assert_ne!(job.state, State::Failed, "{context}: {:?}", job.error);
    let next = installation.submit_and_wait(&updater, Order::Update(request())).await;
    assert_ne!(next.state, State::Failed, "{context}: the next job: {:?}", next.error);
    assert_invariants(installation, &next, &format!("{context}: the next job"));
    job
}

async fn dies_at_any_call(scenes: Vec<(&str, Scene)>) {
    let mut cases = 0;
    for (kind, scene) in scenes {
        for (call, nth) in calls_of(&scene).await {
            for fate in [Fate::DieBefore, Fate::DieAfter] {
                let context = format!("{kind}: {fate:?} {call} #{nth}");
                let installation = Installation::ready(scene.clone()).await;
                live_until_death(&installation, At::nth(&call, nth, fate), true).await;
                recover(&installation, &context).await;
                cases += 1;
            }
        }
    }
    println!("{cases} deaths");
    assert!(cases > 200);
}

#[tokio::test(start_paused = true)]
async fn the_process_may_die_at_any_call_of_an_update() {
    dies_at_any_call(updates()).await;
}

#[tokio::test(start_paused = true)]
async fn the_process_may_die_at_any_call_of_a_job_by_hand() {
    dies_at_any_call(jobs_by_hand()).await;
}

#[tokio::test(start_paused = true)]
async fn the_engine_may_restart_while_the_updater_is_dead() {
    let mut cases = 0;
    for (kind, scene) in updates().into_iter().chain(jobs_by_hand()) {
        for (call, nth) in calls_of(&scene).await {
            let context = format!("{kind}: dies after {call} #{nth}, then the engine restarts");
            let installation = Installation::ready(scene.clone()).await;
            if live_until_death(&installation, At::nth(&call, nth, Fate::DieAfter), true).await {
                let now = installation.now();
                installation.world.world().restart_engine(now);
                recover(&installation, &context).await;
                cases += 1;
            }
        }
    }
    println!("{cases} deaths with an engine restart");
}

/// People have written what nobody may take away unattended.
#[tokio::test(start_paused = true)]
async fn data_is_not_taken_back_after_a_long_absence() {
    let update = Scene::default();
    let restore = Scene { before: &[snapshot], since: written, order: restore, ..Scene::default() };
    let fails = Scene { behaviour: Behaviour::Answers500, ..Scene::default() };
    let (both, after, before) = ("written by 1.0.0, written by 1.1.0", Fate::DieAfter, Fate::DieBefore);
    // The first probe is the baseline's, of the planning; the first policy is that of the application.
    for (kind, scene, call, nth, fate, data) in [
        ("the swap had begun", &update, "compose.up/start", 1, after.clone(), both),
        ("at the gate", &update, "probe.ask", 2, after.clone(), both),
        ("at the gate, with other data", &restore, "probe.ask", 2, after, "written by 1.0.0"),
        ("on the way back, and it still runs", &fails, "engine.set_restart_policy", 2, before, both),
    ] {
        let installation = Installation::ready(scene.clone()).await;
        assert!(live_until_death(&installation, At::nth(call, nth, fate), true).await, "{kind}");
        tokio::time::advance(Duration::from_secs(2 * 3600)).await;
        let (updater, _) = installation.process(Arc::new(NoFaults)).await;
        let id = updater.active().expect("it is unfinished").id.0.clone();
        let job = wait(&updater, &id).await;
        let error = job.error.unwrap_or_default();
        assert_eq!(job.state, State::Failed, "{kind}: {error}");
        assert!(error.contains("the updater was away for 120 minutes"), "{kind}: {error}");
        assert_eq!(installation.world.world().data, data, "{kind}");
    }
}
