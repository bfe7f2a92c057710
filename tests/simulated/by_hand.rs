//! Jobs by hand: one row a story. What holds after every end is [`assert_invariants`]'s business.

use std::sync::Arc;
use std::time::Duration;

use processgit_updater::engine::simulated::{Behaviour, NoFaults, World};
use processgit_updater::engine::{Container, RunState, label};
use processgit_updater::update::Order;
use processgit_updater::update::job::State::{self, *};
use processgit_updater::update::ports::{Distance, HookSetting, Options};

use crate::bench::{ENV, Installation, Scene, add_service, restore, rollback, snapshot, update, wait};
use crate::invariants::assert_invariants;

/// A worker beside the application that writes to the same data, and a database with hooks.
pub fn hooked() -> Scene {
    Scene {
        world: |world| {
            add_service(world, "worker", true);
            add_service(world, "db", false);
        },
        options: |options| {
            options.stop_services = vec!["worker".into()];
            hook(options, "dump", "load");
        },
        ..Scene::default()
    }
}

/// The same, and the application crashes unless the worker has been running for a while.
pub fn waiting() -> Scene {
    Scene {
        world: |world| {
            (hooked().world)(world);
            let takes = Duration::from_secs(8);
            world.needs.insert("worker".into(), takes);
            let is_worker = |c: &&mut Container| c.label(label::SERVICE) == Some("worker");
            for worker in world.containers.iter_mut().filter(is_worker) {
                worker.started_at = worker.started_at.map(|at| at - takes);
            }
        },
        ..hooked()
    }
}

/// A database beside the application, which takes 8 s to get ready, and whose data belongs to the transaction.
pub fn with_database() -> Scene {
    Scene {
        world: |world| {
            let now = world.containers[0].started_at.expect("the application runs");
            world.add_store("db", Duration::from_secs(8), now);
        },
        options: |options| options.data_services = vec!["db".into()],
        ..Scene::default()
    }
}

fn hook(options: &mut Options, before: &str, after: &str) {
    let of_db = |command: &str| HookSetting { service: "db".into(), command: vec![command.into()] };
    options.hook_before_copy = Some(of_db(before));
    options.hook_after_restore = Some(of_db(after));
}

/// The first version no longer works.
pub fn breaks(world: &mut World) {
    first_version(world, Behaviour::Answers500);
}

/// The first version no longer starts.
pub fn crashes(world: &mut World) {
    first_version(world, Behaviour::Crashes);
}

fn first_version(world: &mut World, behaviour: Behaviour) {
    for image in world.images.values_mut().filter(|i| i.version == "1.0.0") {
        image.behaviour = behaviour;
    }
}

/// The application has gone on writing.
pub fn written(world: &mut World) {
    world.data.push_str(", and later");
}

fn stopped(world: &mut World) {
    world.containers[0].state = RunState::Exited;
}

fn hot(_: &World) -> Order {
    Order::Snapshot { hot: true }
}

fn without_data(_: &World) -> Order {
    Order::Rollback { with_data: false, accept_drift: false, accept_partial: false }
}

struct Story {
    name: &'static str,
    scene: Scene,
    end: State,
    /// Must stand in the job's error; empty for none.
    reason: &'static str,
    steps: &'static [State],
    /// The data of the snapshot that was taken, and of the one that keeps what failed.
    snapshot: Option<&'static str>,
    failed_snapshot: Option<&'static str>,
    hooks: &'static [&'static str],
}

const REFUSED: &[State] = &[Planning, RolledBack];
const STAYED: &[State] = &[Planning, Snapshotting, Swapping, Healthchecking, Committed];
const RESTORED: &[State] = &[Planning, Snapshotting, Migrating, Swapping, Healthchecking, Committed];
const MOVED: &[State] = &[Planning, Pulling, Verifying, Snapshotting, Migrating, Swapping, Healthchecking, Committed];
const BOTH: &str = "written by 1.0.0, written by 1.1.0";

fn story(name: &'static str, scene: Scene, steps: &'static [State]) -> Story {
    let end = steps[steps.len() - 1];
    Story { name, scene, end, reason: "", steps, snapshot: None, failed_snapshot: None, hooks: &[] }
}

fn refused(name: &'static str, scene: Scene, reason: &'static str) -> Story {
    Story { reason, ..story(name, scene, REFUSED) }
}

fn stories() -> Vec<Story> {
    let scene = Scene::default;
    let taken = "written by 1.0.0";
    vec![
        Story { snapshot: Some(taken), ..story("snapshot", Scene { order: snapshot, ..scene() }, STAYED) },
        Story {
            snapshot: Some(taken),
            ..story(
                "hot snapshot",
                Scene { order: hot, ..scene() },
                &[Planning, Snapshotting, Healthchecking, Committed],
            )
        },
        Story {
            snapshot: Some(taken),
            ..story("snapshot of a stopped application", Scene { since: stopped, order: snapshot, ..scene() }, STAYED)
        },
        Story {
            snapshot: Some(taken),
            hooks: &["dump"],
            ..story("snapshot with a companion and a hook", Scene { order: snapshot, ..hooked() }, STAYED)
        },
        Story {
            snapshot: Some("written by 1.0.0, and later"),
            ..story("restore", Scene { before: &[snapshot], since: written, order: restore, ..scene() }, RESTORED)
        },
        Story {
            snapshot: Some(taken),
            ..story(
                "restore starts an application that was stopped",
                Scene { before: &[snapshot], since: stopped, order: restore, ..scene() },
                RESTORED,
            )
        },
        Story {
            snapshot: Some(BOTH),
            hooks: &["dump", "dump", "load"],
            ..story("restore of the version before", Scene { before: &[update], order: restore, ..hooked() }, MOVED)
        },
        Story {
            snapshot: Some(BOTH),
            ..story("rollback", Scene { before: &[update], order: rollback, ..scene() }, MOVED)
        },
        Story {
            snapshot: Some(BOTH),
            ..story(
                "rollback over snapshots that were taken since",
                Scene { before: &[update, snapshot, snapshot], order: rollback, ..scene() },
                MOVED,
            )
        },
        Story {
            snapshot: Some(BOTH),
            ..story(
                "rollback without data",
                Scene { before: &[update], order: without_data, by_hand: ("1.0.0", BOTH), ..scene() },
                &[Planning, Pulling, Verifying, Snapshotting, Swapping, Healthchecking, Committed],
            )
        },
        Story {
            end: RolledBack,
            reason: "the health URL answers 500",
            snapshot: Some("written by 1.0.0, and later"),
            failed_snapshot: Some(taken),
            hooks: &["dump", "dump", "load", "load"],
            ..story(
                "restore, and the application does not work with it",
                Scene {
                    before: &[snapshot],
                    since: |world| {
                        written(world);
                        breaks(world);
                    },
                    order: restore,
                    ..hooked()
                },
                &[Planning, Snapshotting, Migrating, Swapping, Healthchecking, RollingBack, RolledBack],
            )
        },
        Story {
            reason: "the health URL answers 500",
            snapshot: Some(BOTH),
            failed_snapshot: Some(taken),
            ..story(
                "rollback, and the old version does not work",
                Scene { before: &[update], since: breaks, order: rollback, ..scene() },
                &[
                    Planning,
                    Pulling,
                    Verifying,
                    Snapshotting,
                    Migrating,
                    Swapping,
                    Healthchecking,
                    RollingBack,
                    RolledBack,
                ],
            )
        },
        Story {
            reason: "the hook failed: \"false\" exited with code 1",
            hooks: &["false"],
            ..story(
                "the hook before the copy fails",
                Scene {
                    options: |o| hook(o, "false", "load"),
                    world: |w| add_service(w, "db", false),
                    order: snapshot,
                    ..scene()
                },
                &[Planning, Snapshotting, RollingBack, RolledBack],
            )
        },
        Story {
            reason: "the hook failed: \"false\" exited with code 1; the last it said: \"(simulated output)\". The data may have been changed, and must be put back",
            snapshot: Some("written by 1.0.0, and later"),
            failed_snapshot: Some(taken),
            // An undo is tried three times, and then it is a person's business.
            hooks: &["dump", "dump", "false", "false", "false", "false"],
            ..story(
                "the hook after the restore fails, there and back",
                Scene {
                    options: |o| hook(o, "dump", "false"),
                    world: |w| add_service(w, "db", false),
                    before: &[snapshot],
                    since: written,
                    order: restore,
                    ..scene()
                },
                &[Planning, Snapshotting, Migrating, RollingBack, Failed],
            )
        },
        Story {
            reason: "its data was not restored: the new version may have changed /cache",
            snapshot: Some(BOTH),
            failed_snapshot: Some(taken),
            ..story(
                "rollback with an excluded mount, and the old version does not work",
                Scene {
                    options: |options| options.snapshot_exclude = vec!["/cache/".into()],
                    before: &[update],
                    since: |world| {
                        breaks(world);
                        let mut cache = world.containers[0].mounts[0].clone();
                        (cache.name, cache.destination) = ("cache".into(), "/cache".into());
                        world.containers[0].mounts.push(cache);
                    },
                    order: rollback,
                    ..scene()
                },
                &[Planning, Pulling, Verifying, Snapshotting, Migrating, Swapping, Healthchecking, RollingBack, Failed],
            )
        },
        refused(
            "rollback where nothing was committed",
            Scene { order: rollback, ..scene() },
            "there is nothing to go back to: no update has been committed here",
        ),
        refused(
            "a second rollback",
            Scene { before: &[update, rollback], order: rollback, ..scene() },
            "there is nothing to go back to",
        ),
        refused(
            "rollback with data where no snapshot was taken",
            Scene { snapshots: false, before: &[update], order: rollback, ..scene() },
            "no data is copied here: PROCESSGIT_UPDATER_SNAPSHOT is off",
        ),
        refused(
            "a snapshot that does not exist",
            Scene {
                order: |_| Order::Restore { snapshot: "gen-9".into(), accept_drift: false, accept_partial: false },
                ..scene()
            },
            "there is no snapshot \"gen-9\"",
        ),
        refused(
            "a snapshot of an application without data",
            Scene { has_data: false, order: snapshot, ..scene() },
            "the application has no data to copy",
        ),
        refused(
            "an unnamed writer",
            Scene { options: |_| {}, order: snapshot, ..hooked() },
            "Set PROCESSGIT_UPDATER_STOP_SERVICES=test-worker-1",
        ),
        refused(
            "a hook in a service that does not exist",
            Scene { options: |o| hook(o, "dump", "load"), order: snapshot, ..scene() },
            "is to run in the surroundings of service db, which has no container",
        ),
    ]
}

#[tokio::test(start_paused = true)]
async fn every_story_ends_as_told() {
    for story in stories() {
        let name = story.name;
        let installation = Installation::ready(Scene { sqlite: true, ..story.scene.clone() }).await;
        let job = installation.run(Arc::new(NoFaults)).await;
        assert_eq!(job.state, story.end, "{name}: {:?}", job.error);
        let error = job.error.clone().unwrap_or_default();
        assert!(error.contains(story.reason) && error.is_empty() == story.reason.is_empty(), "{name}: {error}");
        assert_eq!(job.steps.iter().map(|s| s.state).collect::<Vec<_>>(), story.steps, "{name}");
        assert_invariants(&installation, &job, name);
        let world = installation.world.world();
        let data = |id: &Option<String>| id.as_ref().map(|id| world.generations[id].1.as_str());
        assert_eq!(data(&job.snapshot), story.snapshot, "{name}: the data before");
        assert_eq!(data(&job.failed_snapshot), story.failed_snapshot, "{name}: what failed had written");
        assert_eq!(world.hooks_run, story.hooks, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hot_snapshot_stops_nothing_and_says_what_it_is() {
    let installation = Installation::ready(Scene { order: hot, ..Scene::default() }).await;
    let before = installation.world.world().containers.clone();
    let job = installation.run(Arc::new(NoFaults)).await;
    let world = installation.world.world();
    assert_eq!(world.containers, before);
    assert!(!world.generations[&job.snapshot.unwrap()].0.consistent);
    assert!(job.warnings.iter().any(|w| w.contains("not consistent")), "{:?}", job.warnings);
}

/// The simulated retention keeps nothing but the newest snapshot and what it is told to spare.
#[tokio::test(start_paused = true)]
async fn retention_spares_what_somebody_needs() {
    let failing = Scene {
        options: |o| hook(o, "dump", "false"),
        world: |w| add_service(w, "db", false),
        before: &[snapshot],
        since: written,
        order: restore,
        ..Scene::default()
    };
    // What has happened, how the last job ended, and whose snapshot must stay: the first job's or the last one's.
    for (what, scene, end, of_last) in [
        (
            "a rollback would want it",
            Scene { before: &[update, snapshot], order: snapshot, ..Scene::default() },
            Committed,
            false,
        ),
        ("a failed job has named it", failing, Failed, true),
    ] {
        let installation = Installation::ready(scene).await;
        let (updater, _) = installation.process(Arc::new(NoFaults)).await;
        let first = installation.jobs().await.pop().unwrap().snapshot.unwrap();
        let job = updater.submit(installation.order()).await.expect("accepted");
        let refused = updater.prune_snapshots().await.unwrap_err().to_string();
        assert!(refused.contains("is active") && refused.contains("prune when it has ended"), "{what}: {refused}");
        let job = wait(&updater, &job.id.0).await;
        assert_eq!(job.state, end, "{what}: {:?}", job.error);
        // Newer than all of them, so that none is spared for its age.
        let scene = |w: &mut World| {
            let newest = w.generations.values().map(|(info, _)| info.created_at).max().unwrap();
            let (mut info, data) = w.generations.values().next().unwrap().clone();
            (info.id, info.created_at) = ("newest".into(), newest + std::time::Duration::from_secs(1));
            w.generations.insert("newest".into(), (info, data));
        };
        scene(&mut installation.world.world());
        // Of a failed job also what there was when it went back: its text says that it is kept.
        let needed = if of_last { vec![job.failed_snapshot.unwrap(), job.snapshot.unwrap()] } else { vec![first] };
        assert_eq!(updater.prune_snapshots().await.unwrap(), needed.len() + 1, "{what}");
        let left: Vec<String> = installation.world.world().generations.keys().cloned().collect();
        assert_eq!(left, [needed, vec!["newest".into()]].concat(), "{what}");
        if of_last {
            updater.settle(&job.id.0).await.unwrap();
            assert_eq!(updater.prune_snapshots().await.unwrap(), 1, "{what}: settled");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn going_back_leaves_env_byte_by_byte() {
    for order in [restore, rollback, without_data] {
        let installation = Installation::ready(Scene { before: &[update], order, ..Scene::default() }).await;
        installation.run(Arc::new(NoFaults)).await;
        assert_eq!(installation.world.world().env.as_deref(), Some(ENV.as_bytes()));
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_person_is_told_before_a_rollback() {
    let installation = Installation::ready(Scene { before: &[update], ..Scene::default() }).await;
    let (updater, _) = installation.process(Arc::new(NoFaults)).await;
    let with = updater.rollback_view(true).await.unwrap();
    assert_eq!((with.from_version.as_deref(), with.to_version.as_deref()), (Some("1.1.0"), Some("1.0.0")));
    assert!(with.snapshot.is_some());
    assert_eq!(with.written_since, Some(Distance { files: 1, bytes: 1 }));
    let without = updater.rollback_view(false).await.unwrap();
    assert_eq!((without.snapshot, without.written_since), (None, None));
    let nothing = Installation::new(Scene::default());
    let (updater, _) = nothing.process(Arc::new(NoFaults)).await;
    assert!(updater.rollback_view(true).await.unwrap_err().contains("nothing to go back to"));
}

/// A job by hand that fails says nothing about a version: the next update to it is not refused.
#[tokio::test(start_paused = true)]
async fn no_version_is_called_bad_by_hand() {
    let scene = |before| Scene { before, since: breaks, ..Scene::default() };
    for scene in [Scene { order: rollback, ..scene(&[update]) }, Scene { order: restore, ..scene(&[snapshot]) }] {
        let installation = Installation::ready(scene).await;
        let digest = installation.world.world().images.values().find(|i| i.version == "1.0.0").unwrap().digest.clone();
        let job = installation.run(Arc::new(NoFaults)).await;
        assert_eq!(job.state, RolledBack);
        assert_eq!(installation.known_bad(&digest).await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn an_excluded_path_without_a_mount_is_told() {
    let scene = Scene { options: |options| options.snapshot_exclude = vec!["/media".into()], ..Scene::default() };
    let job = Installation::ready(scene).await.run(Arc::new(NoFaults)).await;
    let told = job
        .warnings
        .iter()
        .any(|w| w.contains("SNAPSHOT_EXCLUDE names /media, but the application has no mount there"));
    assert!(told, "{:?}", job.warnings);
}
