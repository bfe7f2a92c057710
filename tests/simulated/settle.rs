//! A failed job waits for a person: what it needs is kept, over restarts too, and no update is begun over it,
//! until it is settled.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use processgit_updater::doctor::{Report, Verdict};
use processgit_updater::engine::simulated::{Behaviour, Fate, Faults, NoFaults, World};
use processgit_updater::engine::{Container, ContainerSpec, label};
use processgit_updater::update::job::{Job, State};
use processgit_updater::update::refusal::Code;
use processgit_updater::update::settle::{SettleError, Settlement};
use processgit_updater::update::{CheckRequest, Order, SubmitError, Updater};

use crate::bench::{
    At, DIGEST, ENV, Installation, Recorder, SEAL, Scene, occurrences, restore, rollback, snapshot, update, wait,
};
use crate::doctor::{Case, examine};

/// This call works so often, and then fails however often it is tried.
struct Only(usize, &'static str, AtomicUsize);

impl Only {
    fn nth(often: usize, call: &'static str) -> Arc<Self> {
        Arc::new(Self(often, call, AtomicUsize::new(0)))
    }
}

impl Faults for Only {
    fn fate(&self, name: &str) -> Fate {
        match name == self.1 && self.2.fetch_add(1, Ordering::Relaxed) >= self.0 {
            true => Fate::Fail("as the test says".into()),
            false => Fate::Go,
        }
    }
}

/// The data of before is not to be had.
fn unrestorable() -> Scene {
    Scene { behaviour: Behaviour::Crashes, ..Scene::default() }
}

/// The job has failed, in a process that is gone by now.
async fn failed(scene: Scene, luck: Arc<Only>) -> (Installation, Job) {
    let installation = Installation::ready(scene).await;
    let job = installation.run(luck).await;
    assert_eq!((job.state, job.needs_you), (State::Failed, true), "{:?}", job.error);
    (installation, job)
}

/// A lucky process, which has swept what ended jobs have left.
async fn started(installation: &Installation) -> Updater {
    let (updater, _) = installation.process(Arc::new(NoFaults)).await;
    // Its first task takes up and sweeps; in a paused clock this outlasts it.
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    updater
}

/// The order, as the world is now.
fn asks(installation: &Installation, order: fn(&World) -> Order) -> Order {
    order(&installation.world.world())
}

/// The containers that the job has left.
fn left_of(installation: &Installation, job: &Job) -> Vec<Container> {
    let world = installation.world.world();
    let is_its = |c: &&Container| SEAL.read(c).is_some_and(|ours| ours.label(label::JOB) == Some(&job.id.0));
    world.containers.iter().filter(is_its).cloned().collect()
}

/// Of every way to fail: what the printed commands need is there, also after a restart; after settling nothing is.
#[tokio::test(start_paused = true)]
async fn what_a_failed_job_needs_is_kept_until_it_is_settled() {
    let uncovered = Scene { behaviour: Behaviour::Crashes, snapshots: false, ..Scene::default() };
    let by_hand = Scene { before: &[snapshot], order: restore, behaviour: Behaviour::Good, ..Scene::default() };
    let migration = Scene { migration: Some("migrate"), behaviour: Behaviour::MigrationFails, ..Scene::default() };
    let real = Scene { sqlite: true, ..unrestorable() };
    for (what, scene, often, call) in [
        ("the data cannot be put back", unrestorable(), 0, "data.restore"),
        ("the same, in the real journal", real, 0, "data.restore"),
        ("after a migration", migration, 0, "data.restore"),
        (".env cannot be put back", unrestorable(), 1, "env.write"),
        ("the old version cannot be started", unrestorable(), 1, "compose.up/start"),
        ("all is back but the data, of which there is no copy", uncovered, 0, "no call"),
        ("a restore by hand, and no way back", by_hand, 0, "engine.start"),
    ] {
        let (installation, job) = failed(scene, Only::nth(often, call)).await;
        let error = job.error.clone().unwrap();
        let settle = format!("processgit-updater settle {}", job.id);
        assert!(error.contains(&settle), "{what}: {error}");
        assert!(job.warnings.iter().any(|w| w.contains(&settle)), "{what}: {:?}", job.warnings);
        let old = installation.before.lock().unwrap().as_ref().unwrap().containers[0].image_id.clone();
        let kept = left_of(&installation, &job);
        assert!(kept.iter().any(|c| c.image_id == old), "{what}: nothing protects the old image: {kept:?}");

        let updater = started(&installation).await;
        assert_eq!(left_of(&installation, &job), kept, "{what}: after a restart");
        let refused = updater.submit(asks(&installation, update)).await.unwrap_err();
        assert!(matches!(&refused, SubmitError::Unsettled(waiting) if waiting.id == job.id), "{what}: {refused:?}");
        assert!(refused.to_string().contains(&settle), "{what}: {refused}");
        let check = updater.check(CheckRequest::default()).await;
        let codes: Vec<Code> = check.refusals.iter().map(|refusal| refusal.code).collect();
        assert_eq!((check.allowed, &codes[..]), (false, &[Code::Unsettled][..]), "{what}: {check:?}");

        let shown = updater.settlement(&job.id.0).await.unwrap();
        assert_eq!(containers(&shown), kept.len(), "{what}: {shown:?}");
        assert_eq!(left_of(&installation, &job), kept, "{what}: it was only shown");
        for gone in [kept.len(), 0] {
            let settled = updater.settle(&job.id.0).await.unwrap();
            assert!(!settled.job.needs_you && settled.job.settled_at.is_some(), "{what}");
            assert_eq!(containers(&settled), gone, "{what}: {settled:?}");
            assert_eq!(left_of(&installation, &job), [], "{what}");
        }
        // It is remembered, and the next update is begun.
        let updater = started(&installation).await;
        assert!(updater.needs_you().is_empty(), "{what}");
        installation.world.world().behaviours.insert(DIGEST.into(), Behaviour::Good);
        let next = updater.submit(asks(&installation, update)).await.unwrap();
        assert_ne!(wait(&updater, &next.id.0).await.state, State::Failed, "{what}");
    }
}

fn containers(settlement: &Settlement) -> usize {
    settlement.removes.iter().filter(|line| line.starts_with("container ")).count()
}

/// The image that the job had pulled goes with it, unless somebody has decided to keep the new version.
#[tokio::test(start_paused = true)]
async fn the_image_that_came_with_the_job_goes_unless_it_is_used() {
    for keeps in [false, true] {
        let (installation, job) = failed(unrestorable(), Only::nth(0, "data.restore")).await;
        let new = installation.world.world().images.iter().find(|(_, image)| image.digest == DIGEST).unwrap().0.clone();
        let old = installation.before.lock().unwrap().as_ref().unwrap().containers[0].image_id.clone();
        for c in installation.world.world().containers.iter_mut().filter(|c| c.name == "processgit") {
            c.image_id = if keeps { new.clone() } else { old.clone() };
        }
        let updater = started(&installation).await;
        let settled = updater.settle(&job.id.0).await.unwrap();
        let image = "image ghcr.io/algomation-ai/processgit:1.1.0".to_owned();
        assert_eq!(settled.removes.contains(&image), !keeps, "{settled:?}");
        let is_there = installation.world.world().images.values().any(|image| image.digest == DIGEST);
        assert_eq!(is_there, keeps);
    }
}

#[tokio::test(start_paused = true)]
async fn the_way_out_stays_open_and_says_that_the_job_still_waits() {
    let (installation, job) = failed(unrestorable(), Only::nth(0, "data.restore")).await;
    let updater = started(&installation).await;
    // Refused for its own reason, with nothing advised that contradicts the failed job's commands.
    let snapshot_of_job = job.snapshot.clone().unwrap();
    let restore =
        |accept_drift| Order::Restore { snapshot: snapshot_of_job.clone(), accept_drift, accept_partial: false };
    let edit = |env: &str| installation.world.world().env = Some(env.into());
    edit("PROCESSGIT_VERSION=1.0.9\n");
    let back = installation.submit_and_wait(&updater, restore(false)).await;
    let error = back.error.unwrap_or_default();
    assert!(error.contains("1.0.9") && error.contains(&format!("First finish job {}", job.id)), "{error}");
    assert!(!error.contains("docker compose up") && !error.contains("docker start"), "{error}");
    edit(ENV);
    let back = installation.submit_and_wait(&updater, asks(&installation, rollback)).await;
    assert!(back.error.unwrap_or_default().contains("nothing to go back to"));

    let restored = installation.submit_and_wait(&updater, restore(true)).await;
    assert_eq!(restored.state, State::Committed, "{:?}", restored.error);
    let reminded =
        |w: &String| w.contains(&format!("{} still waits", job.id)) && w.contains("processgit-updater settle");
    assert!(restored.warnings.iter().any(reminded), "{:?}", restored.warnings);
    assert!(!restored.needs_you);
    assert_eq!(updater.needs_you().first().map(|waiting| waiting.id.clone()), Some(job.id.clone()));

    let unknown = updater.settle("job_ffffffffffffffff").await.unwrap_err();
    assert!(matches!(unknown, SettleError::Unknown(_)), "{unknown}");
    let other = updater.settle(&restored.id.0).await.unwrap_err();
    assert!(matches!(other, SettleError::NotFailed { state: State::Committed, .. }), "{other}");
    let active = updater.submit(asks(&installation, snapshot)).await.unwrap();
    let busy = updater.settle(&job.id.0).await.unwrap_err();
    assert!(matches!(busy, SettleError::Busy { .. }), "{busy}");
    wait(&updater, &active.id.0).await;
    updater.settle(&job.id.0).await.unwrap();
}

/// Doctor names the job first, and advises nothing that contradicts its commands.
#[tokio::test(start_paused = true)]
async fn doctor_names_the_failed_job_first_and_withholds_what_contradicts_it() {
    let (installation, job) = failed(unrestorable(), Only::nth(0, "data.restore")).await;
    let report = examine(&installation, Case::default()).await;
    let first = &report.findings[0];
    assert_eq!((&*first.check, first.verdict, first.code), ("failed job", Verdict::Bad, Some(Code::Unsettled)));
    assert!(first.seen.contains(job.error.as_ref().unwrap()), "{}", first.seen);
    let words = |report: &Report| -> Vec<String> {
        report.findings.iter().filter_map(|f| Some(format!("{}: {}", f.check, f.remedy.as_ref()?.words()))).collect()
    };
    let told = words(&report);
    assert!(told[0].starts_with("failed job: ") && told[0].contains(&format!("settle {}", job.id)), "{}", told[0]);
    for part in ["docker start", "docker compose", "docker rm", "env set", "--accept"] {
        assert!(told.iter().all(|remedy| !remedy.contains(part)), "{part}: {told:#?}");
    }
    let leftovers = report.findings.iter().find(|finding| finding.check == "leftovers").unwrap();
    assert_eq!(leftovers.verdict, Verdict::Ok, "{leftovers:?}");
    assert!(leftovers.seen.contains("kept until you are done with the failed job"), "{leftovers:?}");

    // Settled, though nothing was done: the rest is advised again.
    started(&installation).await.settle(&job.id.0).await.unwrap();
    let report = examine(&installation, Case::default()).await;
    assert!(report.findings.iter().all(|finding| finding.check != "failed job"));
    let told = words(&report);
    assert!(told.iter().any(|remedy| remedy.contains("docker start")), "{told:#?}");
    assert!(told.iter().all(|remedy| !remedy.contains("docker rm")), "{told:#?}");
}

/// `docker container prune` takes what was never started. The next start makes it again.
#[tokio::test(start_paused = true)]
async fn a_guard_that_was_pruned_is_made_again() {
    let by_hand = Scene { before: &[snapshot], order: restore, ..Scene::default() };
    for (scene, call) in [(unrestorable(), "data.restore"), (by_hand, "engine.start")] {
        let (installation, job) = failed(scene, Only::nth(0, call)).await;
        installation.world.world().containers.retain(|c| c.started_at.is_some());
        assert_eq!(left_of(&installation, &job), []);
        started(&installation).await;
        let old = installation.before.lock().unwrap().as_ref().unwrap().containers[0].image_id.clone();
        let kept: Vec<String> = left_of(&installation, &job).into_iter().map(|c| c.image_id).collect();
        assert_eq!(kept, [old]);
    }
}

/// However many jobs there have been since.
#[tokio::test(start_paused = true)]
async fn it_waits_however_many_jobs_there_have_been_since() {
    let (installation, job) = failed(unrestorable(), Only::nth(0, "data.restore")).await;
    let waits = |updater: &Updater| updater.needs_you().iter().any(|waiting| waiting.id == job.id);
    let updater = started(&installation).await;
    for _ in 0..55 {
        installation.submit_and_wait(&updater, Order::Snapshot { hot: true }).await;
    }
    assert!(waits(&updater) && updater.history(100).len() == 50);
    let updater = started(&installation).await;
    assert!(waits(&updater) && updater.history(100).len() == 50);
    let snapshots = updater.snapshots().await.unwrap();
    assert!(snapshots.iter().any(|snapshot| Some(&snapshot.id) == job.snapshot.as_ref()), "its snapshot is kept");
    updater.settle(&job.id.0).await.unwrap();
    assert!(!waits(&updater));
}

/// A job that an earlier version of the updater left blocks nothing; it can be settled all the same.
#[tokio::test(start_paused = true)]
async fn a_job_that_failed_under_an_earlier_version_blocks_nothing() {
    let (installation, job) = failed(unrestorable(), Only::nth(0, "data.restore")).await;
    installation.disk().jobs.iter_mut().for_each(|(job, _)| job.needs_you = false);
    let updater = started(&installation).await;
    assert!(updater.needs_you().is_empty());
    assert_eq!(left_of(&installation, &job), [], "swept, as it always was");
    let settled = updater.settle(&job.id.0).await.unwrap();
    assert!(settled.job.settled_at.is_some());
    let next = updater.submit(asks(&installation, update)).await.unwrap();
    wait(&updater, &next.id.0).await;
}

/// The deputy's journal does not know whether a person has settled the job, so its sweep leaves what a failed one
/// needs.
#[tokio::test(start_paused = true)]
async fn a_deputy_sweeps_nothing_of_a_failed_job() {
    let scene = Scene { options: |o| o.data_in = Some("/state".into()), ..unrestorable() };
    let installation = Installation::ready(scene).await;
    let job = installation.run(Only::nth(1, "compose.up/start")).await;
    assert_eq!((job.state, job.needs_you), (State::Failed, false), "{:?}", job.error);
    let kept = left_of(&installation, &job);
    assert!(!kept.is_empty());
    started(&installation).await;
    assert_eq!(left_of(&installation, &job), kept);
}

/// Killed at any call of settling: the job is settled or not, never half; asked again, all is well.
#[tokio::test(start_paused = true)]
async fn the_process_may_die_anywhere_while_it_settles() {
    let recorder = Arc::new(Recorder::default());
    let (installation, job) = failed(unrestorable(), Only::nth(0, "data.restore")).await;
    let (updater, _) = installation.process(recorder.clone()).await;
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    let before = recorder.0.lock().unwrap().len();
    updater.settle(&job.id.0).await.unwrap();
    let calls = recorder.0.lock().unwrap().clone();
    let all = occurrences(&calls);
    assert!(all.len() > before + 4, "{all:?}");
    for (name, nth) in &all[before..] {
        for fate in [Fate::DieBefore, Fate::DieAfter] {
            let context = format!("{fate:?} {name} {nth}");
            let (installation, job) = failed(unrestorable(), Only::nth(0, "data.restore")).await;
            let (updater, world) = installation.process(At::nth(name, *nth, fate)).await;
            tokio::time::sleep(std::time::Duration::from_secs(60)).await;
            tokio::select! {
                () = world.death() => {}
                settled = updater.settle(&job.id.0) => panic!("{context}: {settled:?}"),
            }
            let kept = left_of(&installation, &job).len();
            let updater = started(&installation).await;
            let left = left_of(&installation, &job).len();
            match updater.needs_you().is_empty() {
                true => assert_eq!(left, 0, "{context}: settled, so the start has swept"),
                false => assert_eq!(left, kept, "{context}: not settled, so all is kept"),
            }
            updater.settle(&job.id.0).await.unwrap();
            assert_eq!((left_of(&installation, &job).len(), updater.needs_you().len()), (0, 0), "{context}");
        }
    }
}

/// The engine does not remove what is to go: the job is settled, what is left is told, and goes later.
#[tokio::test(start_paused = true)]
async fn an_engine_that_removes_nothing_does_not_keep_a_job_from_being_settled() {
    let (installation, job) = failed(unrestorable(), Only::nth(0, "data.restore")).await;
    let (updater, _) = installation.process(Only::nth(0, "engine.remove")).await;
    let left = updater.settle(&job.id.0).await.unwrap_err();
    assert!(matches!(left, SettleError::Left { .. }), "{left}");
    assert!(left.to_string().contains("is settled, but not all"), "{left}");
    assert!(updater.needs_you().is_empty());
    started(&installation).await;
    assert_eq!(left_of(&installation, &job), []);
}

/// Planning makes a container that is never started, to look whether the engine has all it is to mount. One that a
/// death has left is swept; what only says to be one is not touched.
#[tokio::test(start_paused = true)]
async fn what_planning_made_to_look_is_swept() {
    let installation = Installation::ready(Scene::default()).await;
    {
        let mut world = installation.world.world();
        let mut look = |name: &str, is_sealed: bool| {
            let labels = [(label::ROLE.to_owned(), "look".to_owned())].into();
            let spec = ContainerSpec { name: name.to_owned(), labels, ..ContainerSpec::default() };
            let labels = if is_sealed { SEAL.put_on(spec).labels } else { spec.labels };
            let c = world.containers[0].clone();
            world.containers.push(Container { id: format!("{name:0<64}"), name: name.to_owned(), labels, ..c });
        };
        look("processgit-updater-look-00000001", true);
        look("processgit-updater-look-00000002", false);
    }
    started(&installation).await;
    let world = installation.world.world();
    let names: Vec<&str> = world.containers.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["processgit", "processgit-updater-look-00000002"]);
}
