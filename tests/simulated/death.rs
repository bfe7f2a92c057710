//! The process dies before and after every call of every kind of job, and again during recovery.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use processgit_updater::engine::simulated::{Behaviour, Fate, Faults, NoFaults};
use processgit_updater::update::Order;
use processgit_updater::update::job::{Job, State};
use processgit_updater::update::record::Record;

use crate::bench::{At, Installation, Scene, request, restore, snapshot, wait};
use crate::by_hand::written;
use crate::explorer::Frontier;
use crate::faults::{jobs_by_hand, updates};
use crate::invariants::{assert_invariants, assert_verdict};

/// Runs until the process dies; false when the job ended before it came to that.
pub async fn live_until_death(installation: &Installation, faults: Arc<At>) -> bool {
    let (updater, world) = installation.process(faults).await;
    let life = async {
        let id = installation.submit(&updater, installation.order()).await.expect("accepted").id.0;
        wait(&updater, &id).await;
    };
    tokio::select! {
        () = world.death() => true,
        () = life => false,
    }
}

/// A lucky life that ends whatever is unfinished; then everything must hold and a next job must work.
pub async fn recover(installation: &Installation, context: &str) -> Job {
    let job = ended(installation, Arc::new(NoFaults)).await;
    assert_invariants(installation, &job, context);
    assert_ne!(job.state, State::Failed, "{context}: {:?}", job.error);
    next_job_works(installation, context).await;
    job
}

/// A life that ends what is unfinished, and sweeps.
pub async fn ended(installation: &Installation, faults: Arc<dyn Faults>) -> Job {
    let (updater, _) = installation.process(faults).await;
    updater.finish().await;
    installation.jobs().await.into_iter().next().expect("there was a job")
}

async fn next_job_works(installation: &Installation, context: &str) {
    let (updater, _) = installation.process(Arc::new(NoFaults)).await;
    let next = installation.submit_and_wait(&updater, Order::Update(request())).await;
    assert_ne!(next.state, State::Failed, "{context}: the next job: {:?}", next.error);
    assert_invariants(installation, &next, &format!("{context}: the next job"));
}

/// So deep it is looked in each run of the suite. Without a bound it takes minutes, and still ends: all jobs
/// that have worn out are alike.
fn most_deaths() -> u32 {
    std::env::var("EXPLORE_DEATHS").map_or(2, |deaths| deaths.parse().expect("EXPLORE_DEATHS is a number"))
}

/// What one kind of job was seen to leave.
#[derive(Default)]
struct Count {
    states: usize,
    deaths: u32,
    ends: usize,
}

/// Lives from every state that a death leaves, until nothing new is found.
async fn explore(kind: &str, scene: &Scene) -> Count {
    let mut frontier = Frontier::default();
    let mut ends = HashSet::new();
    let mut deepest = 0;
    let first = Installation::ready(scene.clone()).await;
    let watched = first.watched(0);
    first.run(watched.clone()).await;
    frontier.add(watched.seen().into_iter().filter(|remains| remains.after != "journal.accepted"));
    while let Some(remains) = frontier.next() {
        let context = format!("{kind}: death {} after {}", remains.deaths, remains.after);
        let installation = first.from(&remains);
        let witness = installation.watched(remains.deaths);
        let job = ended(&installation, witness.clone()).await;
        let lives = remains.deaths + 1;
        if lives <= Record::MAX_LIVES + 1 {
            assert_invariants(&installation, &job, &context);
        } else {
            assert_verdict(&installation, &job, &context);
        }
        if lives <= Record::MAX_LIVES {
            assert_ne!(job.state, State::Failed, "{context}: {:?}", job.error);
        }
        let end = installation.remains("the end", 0);
        if ends.insert(end.print()) && job.state != State::Failed {
            next_job_works(&installation, &context).await;
        }
        deepest = deepest.max(remains.deaths);
        if remains.deaths < most_deaths() {
            frontier.add(witness.seen());
        }
    }
    Count { states: frontier.len(), deaths: deepest, ends: ends.len() }
}

async fn explore_all(what: &str, scenes: Vec<(&str, Scene)>) {
    let mut all = 0;
    for (kind, scene) in scenes {
        let Count { states, deaths, ends } = explore(kind, &scene).await;
        println!("{kind}: {states} states after up to {deaths} deaths, {ends} ends");
        all += states;
    }
    println!("cases: states after up to {} deaths, {what} {all}", most_deaths());
    assert!(all > 1000);
}

#[tokio::test(start_paused = true)]
async fn the_process_may_die_anywhere_in_an_update_and_again_in_its_recovery() {
    explore_all("updates", updates()).await;
}

#[tokio::test(start_paused = true)]
async fn the_process_may_die_anywhere_in_a_job_by_hand_and_again_in_its_recovery() {
    explore_all("jobs by hand", jobs_by_hand()).await;
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
        assert!(live_until_death(&installation, At::nth(call, nth, fate)).await, "{kind}");
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
