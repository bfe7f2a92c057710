//! The process dies, and its journal is lost, or the end of it: by enumeration. The application runs again,
//! or a person is called with the commands; and nobody takes data back on a guess.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use processgit_updater::engine::simulated::{Fate, NoFaults, World};
use processgit_updater::engine::{Container, RunState, label};
use processgit_updater::store::Store;
use processgit_updater::update::Order;
use processgit_updater::update::job::{Job, JobId, State};
use processgit_updater::update::ports::{Entry, Journal, JournalError, VerifiedDigest};
use processgit_updater::update::record::Record;
use semver::Version;

use crate::bench::{At, Installation, Scene, request, wait};
use crate::faults::{calls_of, jobs_by_hand, only_looks, updates};
use crate::invariants::assert_invariants;

/// Keeps only so many saves of the first life.
struct Short {
    store: Store,
    left: AtomicUsize,
}

#[async_trait]
impl Journal for Short {
    async fn save(&self, job: &Job, record: &Record, entry: Entry) -> Result<(), JournalError> {
        let left = self.left.load(Ordering::Relaxed);
        if left == 0 {
            return Ok(());
        }
        self.left.store(left - 1, Ordering::Relaxed);
        self.store.save(job, record, entry).await
    }
    async fn settle(&self, job: &Job) -> Result<(), JournalError> {
        self.store.settle(job).await
    }
    async fn waiting(&self) -> Result<Vec<Job>, JournalError> {
        self.store.waiting().await
    }
    async fn record(&self, id: &str) -> Result<Option<Record>, JournalError> {
        self.store.record(id).await
    }
    async fn unfinished(&self) -> Result<Vec<(Job, Record)>, JournalError> {
        self.store.unfinished().await
    }
    async fn job(&self, id: &str) -> Result<Option<Job>, JournalError> {
        self.store.job(id).await
    }
    async fn recent(&self, limit: usize) -> Result<Vec<Job>, JournalError> {
        self.store.recent(limit).await
    }
    async fn count(&self) -> Result<usize, JournalError> {
        self.store.count().await
    }
    async fn known_bad(&self, digest: &str) -> Result<Option<String>, JournalError> {
        self.store.known_bad(digest).await
    }
    async fn last_committed(&self) -> Result<Option<(Job, Record)>, JournalError> {
        self.store.last_committed().await
    }
    async fn verified(&self, digest: &str) -> Result<Vec<VerifiedDigest>, JournalError> {
        self.store.verified(digest).await
    }
    async fn highest_committed(&self) -> Result<Option<Version>, JournalError> {
        self.store.highest_committed().await
    }
    fn log(&self, _: &JobId, _: &str) {}
    async fn read_log(&self, _: &str, _: u64, _: usize) -> Result<Vec<u8>, JournalError> {
        Ok(Vec::new())
    }
}

fn guards(world: &World) -> Vec<&Container> {
    world.containers.iter().filter(|c| c.label(label::NOTE).is_some()).collect()
}

fn application(world: &World) -> Option<&Container> {
    let of_service = |c: &&Container| c.label(label::SERVICE) == Some("processgit");
    world.containers.iter().find(|c| of_service(c) && c.name == "processgit")
}

async fn dies_and_forgets(kind: &str, scene: &Scene, keeps: usize, call: &str, nth: usize) -> Option<State> {
    let context = format!("{kind}: dies after {call} #{nth}, {keeps} saves are kept");
    let installation = Installation::ready(scene.clone()).await;
    let journal = Arc::new(Short { store: Store::in_memory().unwrap(), left: usize::MAX.into() });
    let installation = installation.with_journal(journal.clone());
    journal.left.store(keeps, Ordering::Relaxed);
    let (updater, world) = installation.process(At::nth(call, nth, Fate::DieAfter)).await;
    let id = installation.submit(&updater, installation.order()).await.expect("accepted").id.0;
    tokio::select! {
        () = world.death() => {}
        _ = wait(&updater, &id) => return None,
    }
    journal.left.store(usize::MAX, Ordering::Relaxed);
    let at_death = installation.world.world().clone();
    if keeps > 0 && guards(&at_death).is_empty() {
        // Nothing was stopped yet, or the job had ended but for the last words: the journal is all there is.
        return None;
    }
    let (updater, _) = installation.process(Arc::new(NoFaults)).await;
    // It is asked for only after it is known what there is.
    let next = updater.submit(Order::Update(request())).await;
    let lost = installation.jobs().await.into_iter().find(|job| job.id.0 == id);
    let Some(lost) = lost else {
        assert!(guards(&at_death).is_empty(), "{context}: a guard tells of a job");
        let runs = application(&at_death).is_some_and(|c| c.state == RunState::Running);
        assert!(runs || !scene_runs(scene), "{context}: nobody would start it");
        return None;
    };
    assert!(next.is_err(), "{context}: one job at a time");
    let job = wait(&updater, &lost.id.0).await;
    let may_differ = guards(&at_death).iter().any(|c| c.label(label::ROLE) == Some("guard-data"));
    for _ in 0..100 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    match job.state {
        State::Failed if may_differ => {
            let error = job.error.clone().unwrap_or_default();
            assert!(error.contains("the journal was lost") || keeps > 0, "{context}: {error}");
            assert!(error.contains("To have the old version back by hand: (1) "), "{context}: {error}");
            let world = installation.world.world();
            assert_eq!(world.data, at_death.data, "{context}: nobody takes data back on a guess");
            let state = |world: &World| application(world).map(|c| (c.id.clone(), c.state));
            assert_eq!(state(&world), state(&at_death), "{context}: it is left as it is");
        }
        _ => assert_invariants(&installation, &job, &context),
    }
    assert!(keeps > 0 || may_differ || job.state == State::RolledBack, "{context}: {:?}", job.error);
    if job.needs_you {
        updater.settle(&job.id.0).await.expect(&context);
    }
    let next = installation.submit_and_wait(&updater, Order::Update(request())).await;
    assert!(next.state.is_end(), "{context}");
    Some(job.state)
}

/// It ran before the job.
fn scene_runs(scene: &Scene) -> bool {
    let installation = Installation::new(scene.clone());
    application(&installation.world.world()).is_some_and(|c| c.state == RunState::Running)
}

async fn every_death_of(what: &str, scenes: Vec<(&str, Scene)>) {
    let mut ends = std::collections::BTreeMap::<_, usize>::new();
    for (kind, scene) in scenes {
        for (call, nth) in calls_of(&scene).await.into_iter().filter(|(call, _)| !only_looks(call)) {
            for keeps in [0, 5, 9, 14] {
                let end = dies_and_forgets(kind, &scene, keeps, &call, nth).await;
                *ends.entry(end).or_default() += 1;
            }
        }
    }
    println!("cases: lost journals, {what} {}", ends.values().sum::<usize>());
    assert!(ends[&Some(State::RolledBack)] > 50 && ends[&Some(State::Failed)] > 20, "{ends:?}");
}

#[tokio::test(start_paused = true)]
async fn an_update_whose_journal_is_lost_is_ended_by_its_notes() {
    every_death_of("updates", updates()).await;
}

#[tokio::test(start_paused = true)]
async fn a_job_by_hand_whose_journal_is_lost_is_ended_by_its_notes() {
    let of_its_own = |(kind, _): &(&str, Scene)| {
        !["restore of the version before", "rollback that fails", "rollback without data"].contains(kind)
    };
    every_death_of("jobs by hand", jobs_by_hand().into_iter().filter(of_its_own).collect()).await;
}
