//! Labels of ours that this updater has not put there: copied, changed, or inherited from an image. Nothing is
//! run, removed or waited for because of them, whatever they say, and the operator is told.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use processgit_updater::engine::simulated::{Fate, Faults, NoFaults, World};
use processgit_updater::engine::{Container, ContainerSpec, Engine, Mount, MountKind, RunState, label};
use processgit_updater::helper::own::{Own, OwnContainer};
use processgit_updater::helper::session::{HelperOptions, Helpers, Kind, owner};
use processgit_updater::snapshot::host::Retention;
use processgit_updater::update::Updater;
use processgit_updater::update::job::State;

use crate::bench::{At, Installation, SEAL, Scene, add_service, wait};
use crate::others::Meddler;

/// An update that died with its data stopped: claim, guards and notes are there.
async fn died() -> Installation {
    let first = Installation::ready(Scene { migration: Some("migrate"), ..Scene::default() }).await;
    let (updater, world) = first.process(At::nth("engine.stop", 1, Fate::DieAfter)).await;
    first.submit(&updater, first.order()).await.expect("accepted");
    world.death().await;
    first
}

fn claim(world: &World) -> Container {
    world.containers.iter().find(|c| c.label(label::ROLE) == Some("claim")).expect("there is a claim").clone()
}

/// A running container of somebody else's, with these labels beside its own.
fn labelled(world: &mut World, name: &str, labels: &Container) {
    add_service(world, name, true);
    let theirs = world.containers.last_mut().unwrap();
    theirs.name = name.to_owned();
    theirs.labels.extend(
        labels.labels.iter().filter(|(name, _)| name.starts_with(label::OURS)).map(|(n, v)| (n.clone(), v.clone())),
    );
}

/// The application runs again and everything of the job is gone, as if a person had seen to it.
fn settled_by_hand(world: &mut World) {
    world.containers.retain(|c| c.label(label::ROLE).is_none());
    world.containers[0].state = RunState::Running;
}

/// Starts an updater and gives it the time to do whatever it would do.
async fn started(installation: &Installation) -> Updater {
    let (updater, _) = installation.process(Arc::new(NoFaults)).await;
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    updater
}

#[tokio::test(start_paused = true)]
async fn a_copied_note_is_not_acted_on() {
    type Forgery = fn(&mut World, Container);
    let rows: &[(&str, Forgery)] = &[
        ("copied as it is", |w, claim| labelled(w, "thief", &claim)),
        ("with other files for Compose", |w, mut claim| {
            let note = claim.labels.get_mut(label::NOTE).unwrap();
            *note = note.replace("/simulated/docker-compose.yml", "/tmp/evil.yml");
            assert!(note.contains("/tmp/evil.yml"));
            labelled(w, "thief", &claim);
        }),
        ("under the claim's own name, changed", |w, mut claim| {
            let note = claim.labels.get_mut(label::NOTE).unwrap();
            *note = note.replace("/simulated", "/tmp");
            labelled(w, &claim.name.clone(), &claim);
        }),
        ("without a seal", |w, mut claim| {
            claim.labels.remove(label::SEAL);
            labelled(w, "thief", &claim);
        }),
        ("in the application's image", |w, claim| {
            let app = &mut w.containers[0];
            app.labels.extend(claim.labels.into_iter().filter(|(name, _)| name.starts_with(label::OURS)));
        }),
    ];
    for (what, forge) in rows {
        let first = died().await;
        let claim = claim(&first.world.world());
        settled_by_hand(&mut first.world.world());
        forge(&mut first.world.world(), claim);
        // The journal is lost: only notes tell of the job.
        let mut again = first.another();
        again.owner.clone_from(&first.owner);
        let before = first.world.world().clone();
        let updater = started(&again).await;
        assert!(updater.active().is_none() && again.jobs().await.is_empty(), "{what}: {:?}", again.jobs().await);
        let after = first.world.world().clone();
        assert_eq!((&after.containers, &after.env), (&before.containers, &before.env), "{what}");
        let notices = updater.notices().join("\n");
        assert!(notices.contains("without its seal"), "{what}: {notices}");
    }
}

/// Beside the true note, a forged one of the same job changes nothing.
#[tokio::test(start_paused = true)]
async fn a_forged_note_beside_the_true_one_is_not_mixed_in() {
    let first = died().await;
    let mut forged = claim(&first.world.world());
    let note = forged.labels.get_mut(label::NOTE).unwrap();
    *note = note.replace("\"data_may_differ\":false", "\"data_may_differ\":true");
    forged.labels.insert(label::ROLE.into(), "guard-data".into());
    labelled(&mut first.world.world(), "thief", &forged);
    first.world.world().containers.last_mut().unwrap().mounts.clear();
    let mut again = first.another();
    again.owner.clone_from(&first.owner);
    let updater = started(&again).await;
    let [job] = &again.jobs().await[..] else { panic!("{:?}", again.jobs().await) };
    assert_eq!(wait(&updater, &job.id.0).await.state, State::RolledBack);
    assert!(first.world.world().containers.iter().any(|c| c.name == "thief"), "it is left alone");
}

/// Whoever carries a running job's label is neither removed nor stopped with what belongs to the job.
#[tokio::test(start_paused = true)]
async fn a_label_of_the_running_job_does_not_get_a_container_removed() {
    let sibling = |world: &mut World| {
        let mut claim = claim(world);
        claim.labels.remove(label::NOTE);
        labelled(world, "sibling", &claim);
        world.containers.last_mut().unwrap().mounts.clear();
    };
    for scene in [
        Scene::default(),
        Scene { behaviour: processgit_updater::engine::simulated::Behaviour::Crashes, ..Scene::default() },
    ] {
        let installation = Installation::ready(scene).await;
        let deed = Mutex::new(Some(sibling as fn(&mut World)));
        let meddler = Meddler { world: installation.world.clone(), call: "engine.stop", deed };
        let job = installation.run(Arc::new(meddler)).await;
        assert!(matches!(job.state, State::Committed | State::RolledBack), "{:?}", job.error);
        let world = installation.world.world();
        let ours: Vec<_> = world.containers.iter().filter(|c| c.label(label::JOB).is_some()).collect();
        assert!(ours.len() == 1 && ours[0].name == "sibling" && ours[0].is_running(), "{ours:#?}");
        assert!(job.warnings.iter().any(|w| w.contains("container sibling carries the label of this job")), "{job:#?}");
    }
}

/// A running container gets the name of this job's container of that role, and the labels of its claim.
fn take(world: &mut World, role: &str) {
    let claim = claim(world);
    let digits = claim.label(label::JOB).unwrap().trim_start_matches("job_");
    labelled(world, &format!("processgit-updater-{role}-{digits}"), &claim);
}

/// Takes the name of the migration just before it is made.
struct TakesMigration;

impl Faults for TakesMigration {
    fn fate(&self, _: &str) -> Fate {
        Fate::Go
    }
    fn meanwhile(&self, name: &str, world: &mut World) {
        let is_next = world.containers.iter().any(|c| c.label(label::ROLE) == Some("guard-data"));
        if name == "compose.create" && is_next && !world.containers.iter().any(|c| c.name.contains("-migration-")) {
            take(world, "migration");
            world.containers.last_mut().unwrap().state = RunState::Running;
        }
    }
}

/// What runs under the name of our migration, with the data, may be ours if the secret was lost: nothing is put
/// back beside it, and a person decides.
#[tokio::test(start_paused = true)]
async fn no_data_is_put_back_beside_what_may_be_our_migration() {
    let installation = Installation::ready(Scene { migration: Some("migrate"), ..Scene::default() }).await;
    let job = installation.run(Arc::new(TakesMigration)).await;
    let error = job.error.unwrap_or_default();
    assert_eq!(job.state, State::Failed, "{error}");
    assert!(error.contains("a container named processgit-updater-migration-"), "{error}");
    let world = installation.world.world();
    assert!(world.containers.iter().any(|c| c.name.contains("-migration-") && c.is_running()), "it stays");
}

/// A name that one of ours is to have, taken by somebody else: the job turns back, the container stays.
#[tokio::test(start_paused = true)]
async fn a_container_under_our_name_is_not_taken_for_ours() {
    fn take_without_data(world: &mut World, role: &str) {
        take(world, role);
        world.containers.last_mut().unwrap().mounts.clear();
    }
    type Take = fn(&mut World);
    let rows: [(&str, Take); 3] = [
        ("guard-old", |w| take_without_data(w, "guard-old")),
        ("guard-data", |w| take_without_data(w, "guard-data")),
        ("migration", |w| take_without_data(w, "migration")),
    ];
    for (role, deed) in rows {
        let installation = Installation::ready(Scene { migration: Some("migrate"), ..Scene::default() }).await;
        let deed = Mutex::new(Some(deed));
        let meddler = Meddler { world: installation.world.clone(), call: "engine.pull", deed };
        let job = installation.run(Arc::new(meddler)).await;
        let error = job.error.clone().unwrap_or_default();
        assert!(error.contains(&format!("processgit-updater-{role}-")), "{role}: {error}");
        let world = installation.world.world();
        let theirs = world.containers.iter().find(|c| c.name.contains(role)).expect("it stays");
        assert!(theirs.is_running(), "{role}");
        assert!(job.state == State::RolledBack && world.containers[0].is_running(), "{role}: {error}");
    }
}

/// The label of a helper hides nobody who writes to the data.
#[tokio::test(start_paused = true)]
async fn a_writer_with_a_label_of_ours_is_still_a_writer() {
    let scene = Scene {
        world: |world| {
            add_service(world, "writer", true);
            let labels = [(label::OWNER, "state /state"), (label::ROLE, "helper-data")];
            world.containers.last_mut().unwrap().labels.extend(labels.map(|(n, v)| (n.to_owned(), v.to_owned())));
        },
        ..Scene::default()
    };
    let error = Installation::ready(scene).await.run(Arc::new(NoFaults)).await.error.unwrap_or_default();
    assert!(error.contains("which must not change meanwhile: test-writer-1"), "{error}");
}

/// Helpers of an earlier life are waited for and removed; what only says to be one is not.
#[tokio::test(start_paused = true)]
async fn a_forged_helper_is_neither_waited_for_nor_removed() {
    let installation = Installation::new(Scene::default());
    let engine: Arc<dyn Engine> = Arc::new(installation.world.clone());
    let own = OwnContainer { container: own_container(&installation.world.world()) };
    let labels = [
        (label::ROLE.to_owned(), Kind::Data.role().to_owned()),
        (label::OWNER.to_owned(), owner(&own, "/state".as_ref()).unwrap()),
    ];
    let spec =
        |name: &str| ContainerSpec { name: name.into(), labels: labels.clone().into(), ..ContainerSpec::default() };
    for (name, spec, state) in [
        ("true", SEAL.put_on(spec("true")), RunState::Exited),
        ("forged", spec("forged"), RunState::Running),
        ("copied", SEAL.put_on(spec("true")), RunState::Running),
    ] {
        let mut world = installation.world.world();
        add_service(&mut world, name, true);
        let c = world.containers.last_mut().unwrap();
        (c.name, c.state) = (name.to_owned(), state);
        c.labels = spec.labels;
    }
    let options = HelperOptions {
        state_dir: PathBuf::from("/state"),
        snapshots: PathBuf::from("/state/snapshots"),
        retention: Retention { keep: 1, max_age: None },
        limits: processgit_updater::snapshot::Limits::DEFAULT,
        docker_host: String::new(),
        looks_only: false,
        seal: SEAL.clone(),
    };
    let helpers = Helpers::new(engine.clone(), Arc::new(Own::new(engine, None)), options);
    let before = installation.now();
    helpers.farewell(&own, Kind::Data).await.unwrap();
    assert_eq!(installation.now(), before, "nobody was waited for");
    let left: Vec<_> = installation.world.world().containers.iter().skip(1).map(|c| c.name.clone()).collect();
    assert_eq!(left, ["forged", "copied"]);
}

fn own_container(world: &World) -> Container {
    let mount = Mount {
        kind: MountKind::Volume,
        name: "state".into(),
        source: "/var/lib/docker/volumes/state/_data".into(),
        destination: "/state".into(),
        writable: true,
        subpath: String::new(),
    };
    Container { mounts: vec![mount], ..world.containers[0].clone() }
}

/// A job that a version without seals has begun is ended by this one, and its containers go.
#[tokio::test(start_paused = true)]
async fn a_job_of_a_version_without_seals_is_ended() {
    let first = died().await;
    for c in &mut first.world.world().containers {
        c.labels.remove(label::SEAL);
    }
    first.disk().jobs.iter_mut().for_each(|(_, record)| record.sealed = false);
    // Under another name it was nobody's then either.
    let claim = claim(&first.world.world());
    labelled(&mut first.world.world(), "thief", &claim);
    first.world.world().containers.last_mut().unwrap().mounts.clear();
    let updater = started(&first).await;
    let job = first.jobs().await.remove(0);
    assert_eq!(wait(&updater, &job.id.0).await.state, State::RolledBack);
    let world = first.world.world();
    let left: Vec<_> = world.containers.iter().filter(|c| c.label(label::ROLE).is_some()).map(|c| &c.name).collect();
    assert_eq!(left, ["thief"]);
}

/// The secret was lost in the middle of a job: it is ended, and what it can no longer recognise stays and is told.
#[tokio::test(start_paused = true)]
async fn without_its_secret_an_updater_removes_nothing() {
    let first = died().await;
    let mut again = first.from(&first.remains("a death", 1));
    again.owner.seal = processgit_updater::engine::seal::Seal::new([9; 32]);
    let updater = started(&again).await;
    let job = again.jobs().await.remove(0);
    let job = wait(&updater, &job.id.0).await;
    assert_eq!(job.state, State::RolledBack, "{:?}", job.error);
    let left = again.world.world().containers.iter().filter(|c| c.label(label::ROLE).is_some()).count();
    assert_eq!(left, 3, "claim and guards");
    assert!(updater.notices().iter().any(|n| n.contains("without its seal")), "{:?}", updater.notices());
    // The next job is told whose claim is in the way.
    let next = again.submit_and_wait(&updater, again.order()).await;
    assert!(next.error.is_some_and(|e| e.contains("docker rm processgit-updater-claim-test.processgit")));
}
