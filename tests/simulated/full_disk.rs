//! The disk of the state folder is full, from any moment of a job on: what happens can still be written
//! down, and the job ends as it would have.

use std::sync::Arc;

use processgit_updater::engine::simulated::{Behaviour, Fate, Faults, NoFaults};
use processgit_updater::store::{Store, ballast};
use processgit_updater::update::Order;
use processgit_updater::update::job::{Job, JobId, State};
use processgit_updater::update::ports::{Entry, Journal};
use processgit_updater::update::record::{Heading, Record};

use crate::bench::{At, Installation, Scene, request, wait};
use crate::disk::Disk;
use crate::faults::{calls_of, only_looks};
use crate::invariants::assert_invariants;

/// Fills the disk when the call comes, and lets it go through.
struct FillsAt {
    at: Arc<At>,
    disk: Arc<Disk>,
}

impl Faults for FillsAt {
    fn fate(&self, name: &str) -> Fate {
        if self.at.fate(name) != Fate::Go {
            self.disk.fill_up();
        }
        Fate::Go
    }
}

/// Runs the scene on a disk that is full from this call on. Whatever the job has come to is in the journal.
async fn run(scene: &Scene, disk: &Arc<Disk>, call: &str, nth: usize) -> (Installation, Job) {
    let store = Arc::new(Store::open(&disk.root().join("state")).unwrap());
    let installation = Installation::new(scene.clone()).with_journal(store.clone());
    let at = At::nth(call, nth, Fate::Hang);
    let (updater, _) = installation.process(Arc::new(FillsAt { at, disk: disk.clone() })).await;
    let job = installation.submit(&updater, installation.order()).await.expect("there is room to accept it");
    let job = wait(&updater, &job.id.0).await;
    assert!(disk.filler().exists(), "{call} #{nth}: it came to that call");
    assert!(store.unfinished().await.unwrap().is_empty(), "{call} #{nth}: {job:?}");
    assert_eq!(store.job(&job.id.0).await.unwrap().as_ref(), Some(&job), "{call} #{nth}");
    (installation, job)
}

#[tokio::test(start_paused = true)]
async fn a_job_ends_proven_and_recorded_from_whatever_moment_on_the_disk_is_full() {
    let crash = Scene { behaviour: Behaviour::Crashes, migration: Some("migrate"), ..Scene::default() };
    let (mut turned, mut cases) = (0, 0);
    for (kind, scene) in [("commit", Scene::default()), ("crash loop", crash)] {
        for (call, nth) in calls_of(&scene).await.into_iter().filter(|(call, _)| !only_looks(call)) {
            let context = format!("{kind}: full at {call} #{nth}");
            let (installation, job) = run(&scene, &Arc::new(Disk::tmpfs(12)), &call, nth).await;
            assert_ne!(job.state, State::Failed, "{context}: {:?}", job.error);
            assert_invariants(&installation, &job, &context);
            turned += usize::from(job.error.is_some_and(|e| e.contains("the journal:")));
            cases += 1;
        }
    }
    println!("cases: full disks {cases}");
    assert!(turned > 5, "what could not be written down was not begun: {turned}");
}

/// A disk that gives blocks back late.
#[tokio::test(start_paused = true)]
async fn the_reserve_is_given_back_on_a_real_file_system_and_made_again() {
    let disk = Arc::new(Disk::ext4(24));
    let (installation, job) = run(&Scene::default(), &disk, "compose.up/start", 1).await;
    assert_eq!(job.state, State::RolledBack, "{:?}", job.error);
    assert_invariants(&installation, &job, "ext4");
    let ballast = disk.root().join("state/ballast");
    assert!(!ballast.exists(), "the disk is still full");
    std::fs::remove_file(disk.filler()).unwrap();
    let (updater, _) = installation.process(Arc::new(NoFaults)).await;
    let next = installation.submit_and_wait(&updater, installation.order()).await;
    assert_eq!(next.state, State::Committed, "{:?}", next.error);
    assert_eq!(ballast.metadata().unwrap().len(), ballast::SIZE);
}

/// The updater died, and the disk is full when it comes back: it must be able to end the job.
#[tokio::test]
async fn a_journal_on_a_full_disk_is_opened_and_written_to() {
    for has_ballast in [true, false] {
        let disk = Disk::tmpfs(12);
        let state = disk.root().join("state");
        drop(Store::open(&state).unwrap());
        if !has_ballast {
            std::fs::remove_file(state.join("ballast")).unwrap();
        }
        disk.fill_up();
        let opened = Store::open(&state);
        if !has_ballast {
            let error = opened.err().expect("there is no room at all").to_string();
            assert!(error.contains("journal.db cannot be opened: ") && error.contains("Is the disk full"), "{error}");
            continue;
        }
        let store = opened.unwrap();
        let now = "2026-01-03T00:00:00Z".parse().unwrap();
        let mut job = Job::new(JobId("job_1".into()), "v1".into(), now, true);
        job.enter(State::RollingBack, now);
        let record =
            Record { heading: Heading::Back { why: "it died".into() }, ..Record::new(job.id.clone(), update()) };
        store.save(&job, &record, Entry::Note("on the way back".into())).await.unwrap();
    }
}

fn update() -> Order {
    Order::Update(request())
}
