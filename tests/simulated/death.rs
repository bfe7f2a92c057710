//! The process dies before and after every call of every kind of job, and again during recovery.

use std::sync::Arc;

use processgit_updater::engine::simulated::{Fate, NoFaults};
use processgit_updater::update::job::State;

use processgit_updater::update::Order;

use crate::bench::{At, Installation, assert_invariants, request, submit_and_wait, wait};
use crate::faults::{calls_of, scenes};

/// Runs until the process dies; false when the job ended before it came to that.
async fn live_until_death(installation: &Installation, faults: Arc<At>, begin: bool) -> bool {
    let (updater, world) = installation.process(faults).await;
    let id = if begin {
        updater.submit(Order::Update(request())).await.expect("accepted").id.0
    } else {
        match updater.active() {
            Some(job) => job.id.0.clone(),
            None => return false,
        }
    };
    tokio::select! {
        () = world.death() => true,
        _ = wait(&updater, &id) => false,
    }
}

/// A lucky life that ends whatever is unfinished; then everything must hold and a next job must work.
async fn recover(installation: &Installation, context: &str) {
    let (updater, _) = installation.process(Arc::new(NoFaults)).await;
    if let Some(active) = updater.active() {
        wait(&updater, &active.id.0).await;
    }
    let job = installation.jobs().await.into_iter().next().expect("there was a job");
    // What is swept at start is swept after recovery.
    for _ in 0..100 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_invariants(installation, &job, context);
    assert_ne!(job.state, State::Failed, "{context}: {:?}", job.error);
    let next = submit_and_wait(&updater, request()).await;
    assert_ne!(next.state, State::Failed, "{context}: the next job: {:?}", next.error);
    assert_invariants(installation, &next, &format!("{context}: the next job"));
}

#[tokio::test(start_paused = true)]
async fn the_process_may_die_at_any_call() {
    let mut cases = 0;
    for (kind, scene) in scenes() {
        for (call, nth) in calls_of(&scene).await {
            for fate in [Fate::DieBefore, Fate::DieAfter] {
                let context = format!("{kind}: {fate:?} {call} #{nth}");
                let installation = Installation::new(scene.clone());
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
async fn the_engine_may_restart_while_the_updater_is_dead() {
    let mut cases = 0;
    for (kind, scene) in scenes() {
        for (call, nth) in calls_of(&scene).await {
            let context = format!("{kind}: dies after {call} #{nth}, then the engine restarts");
            let installation = Installation::new(scene.clone());
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
