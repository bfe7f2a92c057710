//! One row a story: how a job ends, and why.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use processgit_updater::engine::Healthcheck;
use processgit_updater::engine::simulated::{Behaviour, Fate, Faults, NoFaults, World};
use processgit_updater::update::job::State;
use processgit_updater::update::{CheckRequest, Order, Request};
use serde_json::json;

use crate::bench::{At, DIGEST, ENV, Installation, Scene, crewed, request, runs_as, snapshot};
use crate::by_hand::waiting;
use crate::invariants::assert_invariants;
use crate::others::Meddler;

struct Story {
    name: &'static str,
    scene: Scene,
    end: State,
    /// Must stand in the job's error; empty for none.
    reason: &'static str,
    steps: &'static [State],
}

use State::*;

const UNTOUCHED: &[State] = &[Planning, RolledBack];

fn stories() -> Vec<Story> {
    let scene = Scene::default;
    let refused = |name, manifest, reason| Story {
        name,
        scene: Scene { manifest, ..scene() },
        end: RolledBack,
        reason,
        steps: UNTOUCHED,
    };
    vec![
        Story {
            name: "commit",
            scene: scene(),
            end: Committed,
            reason: "",
            steps: &[Planning, Pulling, Verifying, Snapshotting, Swapping, Healthchecking, Committed],
        },
        Story {
            name: "commit with migration",
            scene: Scene { migration: Some("app migrate --to '1.1'"), ..scene() },
            end: Committed,
            reason: "",
            steps: &[Planning, Pulling, Verifying, Snapshotting, Migrating, Swapping, Healthchecking, Committed],
        },
        Story {
            name: "commit without data",
            scene: Scene { has_data: false, ..scene() },
            end: Committed,
            reason: "",
            steps: &[Planning, Pulling, Verifying, Swapping, Healthchecking, Committed],
        },
        Story {
            name: "crash loop",
            scene: Scene { behaviour: Behaviour::Crashes, ..scene() },
            end: RolledBack,
            reason: "crashes again and again",
            steps: &[Planning, Pulling, Verifying, Snapshotting, Swapping, Healthchecking, RollingBack, RolledBack],
        },
        Story {
            name: "answers 500",
            scene: Scene { behaviour: Behaviour::Answers500, ..scene() },
            end: RolledBack,
            reason: "the health URL answers 500, expected 200",
            steps: &[Planning, Pulling, Verifying, Snapshotting, Swapping, Healthchecking, RollingBack, RolledBack],
        },
        Story {
            name: "migration fails",
            scene: Scene { behaviour: Behaviour::MigrationFails, migration: Some("migrate"), ..scene() },
            end: RolledBack,
            reason: "the migration failed: \"migrate\" exited with code 1",
            steps: &[Planning, Pulling, Verifying, Snapshotting, Migrating, RollingBack, RolledBack],
        },
        Story {
            name: "migration hangs",
            scene: Scene { behaviour: Behaviour::MigrationHangs, migration: Some("migrate"), ..scene() },
            end: RolledBack,
            reason: "it had not ended within 60s",
            steps: &[Planning, Pulling, Verifying, Snapshotting, Migrating, RollingBack, RolledBack],
        },
        Story {
            name: "uncovered data, new version started",
            scene: Scene { behaviour: Behaviour::Crashes, snapshots: false, ..scene() },
            end: Failed,
            reason: "The old version runs again, but its data was not restored: the new version may have changed /data",
            steps: &[Planning, Pulling, Verifying, Swapping, Healthchecking, RollingBack, Failed],
        },
        Story {
            name: "no data, new version started",
            scene: Scene { behaviour: Behaviour::Crashes, has_data: false, ..scene() },
            end: RolledBack,
            reason: "crashes again and again",
            steps: &[Planning, Pulling, Verifying, Swapping, Healthchecking, RollingBack, RolledBack],
        },
        Story {
            name: "a crew",
            scene: crewed(),
            end: Committed,
            reason: "",
            steps: &[Planning, Pulling, Verifying, Snapshotting, Swapping, Healthchecking, Committed],
        },
        Story {
            name: "a crew whose worker crashes",
            scene: Scene { behaviour: Behaviour::WorkerCrashes, ..crewed() },
            end: RolledBack,
            reason: "the container of service worker crashes again and again",
            steps: &[Planning, Pulling, Verifying, Snapshotting, Swapping, Healthchecking, RollingBack, RolledBack],
        },
        Story {
            name: "a crew whose init fails",
            scene: Scene { behaviour: Behaviour::InitFails, ..crewed() },
            end: RolledBack,
            reason: "service init of version 1.1.0 exited with code 1",
            steps: &[Planning, Pulling, Verifying, Snapshotting, Swapping, RollingBack, RolledBack],
        },
        Story {
            name: "a lodger that is not moved",
            scene: Scene { options: |options| options.move_services = vec!["init".into()], ..crewed() },
            end: RolledBack,
            reason: "container test-lodger-1 lives in the namespaces of processgit and would lose them. Name its service in PROCESSGIT_UPDATER_MOVE_SERVICES",
            steps: UNTOUCHED,
        },
        Story {
            name: "a crew that there is not",
            scene: Scene { options: |options| options.move_services = vec!["ghost".into()], ..scene() },
            end: RolledBack,
            reason: "service ghost (PROCESSGIT_UPDATER_MOVE_SERVICES) has no container in project test",
            steps: UNTOUCHED,
        },
        refused(
            "another name",
            |m| m["name"] = json!("other"),
            "the manifest is for \"other\", but this updater updates \"processgit\"",
        ),
        refused(
            "another tag",
            |m| {
                m["version"] = json!("1.2.0");
                m["tag"] = json!("v1.2.0");
            },
            "the manifest is for tag \"v1.2.0\", but \"v1.1.0\" was asked for",
        ),
        refused(
            "another platform",
            |m| m["image"]["platforms"] = json!(["linux/s390x"]),
            "the image is for linux/s390x, but this engine runs linux/",
        ),
        refused(
            "too large a step",
            |m| m["min_upgrade_from"] = json!("1.0.5"),
            "can be installed from 1.0.5 or later, but 1.0.0 runs. Run `processgit-updater update v1.0.5`",
        ),
        Story {
            name: "a downgrade",
            scene: Scene { env: "PROCESSGIT_VERSION=1.5.0\n", world: |w| runs_as(w, "1.5.0"), ..scene() },
            end: RolledBack,
            reason: "version 1.1.0 is older than 1.5.0, which runs",
            steps: UNTOUCHED,
        },
    ]
}

#[tokio::test(start_paused = true)]
async fn every_story_ends_as_told() {
    for story in stories() {
        let installation = Installation::new(Scene { sqlite: true, ..story.scene.clone() });
        let job = installation.run(Arc::new(NoFaults)).await;
        let name = story.name;
        assert_eq!(job.state, story.end, "{name}: {:?}", job.error);
        let error = job.error.clone().unwrap_or_default();
        assert!(error.contains(story.reason) && error.is_empty() == story.reason.is_empty(), "{name}: {error}");
        assert_eq!(job.steps.iter().map(|s| s.state).collect::<Vec<_>>(), story.steps, "{name}");
        if name != "a downgrade" {
            assert_invariants(&installation, &job, name);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_digest_that_was_rolled_back_is_refused_until_asked_for_again() {
    let installation = Installation::new(Scene { behaviour: Behaviour::Crashes, ..Scene::default() });
    let (updater, _) = installation.process(Arc::new(NoFaults)).await;
    installation.submit_and_wait(&updater, Order::Update(request())).await;
    let mut again = request();
    again.retry = false;
    let refused = installation.submit_and_wait(&updater, Order::Update(again)).await;
    assert_eq!(refused.state, RolledBack);
    let error = refused.error.unwrap();
    assert!(
        error.contains("was started before and rolled back: ") && error.contains("crashes again and again"),
        "{error}"
    );
    assert!(error.contains("processgit-updater update v1.1.0 --retry"), "{error}");
    assert_eq!(refused.steps.len(), 2);
    let tried = installation.submit_and_wait(&updater, Order::Update(request())).await;
    assert!(tried.steps.iter().any(|s| s.state == Healthchecking), "asked for again, it is tried");
}

/// A network failure says nothing about an image; a container of it that failed does.
#[tokio::test(start_paused = true)]
async fn only_a_digest_that_was_started_is_known_to_be_bad() {
    let migration = Scene { migration: Some("migrate"), ..Scene::default() };
    for (name, scene, failing, known_bad) in [
        ("pull", Scene::default(), Some("engine.pull"), false),
        ("swap before anything was made", Scene::default(), Some("compose.up/create"), false),
        ("migration", Scene { behaviour: Behaviour::MigrationFails, ..migration }, None, true),
        ("gate", Scene { behaviour: Behaviour::Answers500, ..Scene::default() }, None, true),
        ("init", Scene { behaviour: Behaviour::InitFails, ..crewed() }, None, true),
        ("swap after some were made", crewed(), Some("compose.up/rename"), false),
    ] {
        let installation = Installation::new(scene);
        let faults: Arc<dyn Faults> = match failing {
            Some(call) => At::nth(call, 1, Fate::Fail("no route to host".into())),
            None => Arc::new(NoFaults),
        };
        let job = installation.run(faults).await;
        assert_eq!(job.state, RolledBack, "{name}: {:?}", job.error);
        let again = Request { retry: false, ..request() };
        let (updater, _) = installation.process(Arc::new(NoFaults)).await;
        let told = installation.submit_and_wait(&updater, Order::Update(again)).await.error.unwrap_or_default();
        assert_eq!(told.contains("was started before and rolled back"), known_bad, "{name}: {told}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_older_release_than_was_ever_committed_is_a_replay() {
    for (committed, allow_downgrade, end) in [
        ("1.0.5", false, Committed),
        ("1.1.0", false, Committed),
        ("1.5.0", false, RolledBack),
        ("1.5.0", true, Committed),
    ] {
        let installation = Installation::new(Scene::default());
        installation.committed_before(committed).await;
        let (updater, _) = installation.process(Arc::new(NoFaults)).await;
        let job = installation.submit_and_wait(&updater, Order::Update(Request { allow_downgrade, ..request() })).await;
        assert_eq!(job.state, end, "{committed} {allow_downgrade}: {:?}", job.error);
        if end == RolledBack {
            let error = job.error.unwrap();
            assert!(error.contains("version 1.1.0 is older than 1.5.0, which was committed here before"), "{error}");
            assert_eq!(job.steps.iter().map(|s| s.state).collect::<Vec<_>>(), UNTOUCHED);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_digest_again_changes_nothing() {
    let installation = Installation::new(Scene::default());
    let (updater, _) = installation.process(Arc::new(NoFaults)).await;
    installation.submit_and_wait(&updater, Order::Update(request())).await;
    let before = installation.world.world().containers.clone();
    let again = installation.submit_and_wait(&updater, Order::Update(request())).await;
    assert_eq!(again.state, Committed);
    assert_eq!(again.steps.iter().map(|s| s.state).collect::<Vec<_>>(), [Planning, Healthchecking, Committed]);
    assert_eq!(installation.world.world().containers, before);
}

#[tokio::test(start_paused = true)]
async fn of_twenty_requests_at_once_one_is_accepted() {
    let installation = Installation::new(Scene::default());
    let (updater, _) = installation.process(Arc::new(NoFaults)).await;
    let all = (0..20).map(|_| updater.submit(Order::Update(request())));
    let accepted = futures_util::future::join_all(all).await.into_iter().filter(Result::is_ok).count();
    assert_eq!(accepted, 1);
}

/// A job without effects proves only that nothing has changed, however well what runs may be.
#[tokio::test(start_paused = true)]
async fn the_same_digest_again_asks_for_no_better_health() {
    let installation = Installation::new(Scene::default());
    let (updater, _) = installation.process(Arc::new(NoFaults)).await;
    installation.submit_and_wait(&updater, Order::Update(request())).await;
    installation.world.world().images.values_mut().for_each(|image| image.behaviour = Behaviour::Answers500);
    installation.world.world().containers[0].restart_count = 7;
    let again = installation.submit_and_wait(&updater, Order::Update(request())).await;
    assert_eq!(again.state, Committed, "{:?}", again.error);
    assert!(again.warnings.iter().any(|w| w.contains("is not well now")), "{:?}", again.warnings);
}

/// The manifest has two tags: one names the release, the other the image.
#[tokio::test(start_paused = true)]
async fn the_tag_of_the_image_is_what_env_says() {
    let manifest = |m: &mut serde_json::Value| m["image"]["tag"] = json!("1.1.0-slim");
    let installation = Installation::new(Scene { manifest, ..Scene::default() });
    let job = installation.run(Arc::new(NoFaults)).await;
    assert_eq!(job.state, Committed, "{:?}", job.error);
    let world = installation.world.world();
    assert!(String::from_utf8_lossy(world.env.as_deref().unwrap()).contains("PROCESSGIT_VERSION=1.1.0-slim\n"));
    assert!(world.containers[0].image_ref.ends_with(":1.1.0-slim"));
}

/// What the key selects before and after: a version built again under its tag, a vendor whose tag is always
/// `stable`, an operator who has written the new version down already, a key that is absent.
#[tokio::test(start_paused = true)]
async fn whatever_the_key_says_before_and_after_both_ways_reach_their_end() {
    let absent = "# nothing\nOTHER=1\n";
    type Row = (&'static str, &'static str, &'static str);
    let rows: [Row; 6] = [
        ("another version", ENV, "1.1.0"),
        ("the same tag", ENV, "1.0.0"),
        ("always stable", "PROCESSGIT_VERSION=stable\n", "stable"),
        ("quoted, and twice", "PROCESSGIT_VERSION='1.0.0'\nPROCESSGIT_VERSION=1.0.0\n", "1.0.0"),
        ("absent", absent, "1.1.0"),
        ("absent, and latest is built again", absent, "latest"),
    ];
    for (name, env, tag) in rows {
        for (behaviour, end) in [(Behaviour::Good, Committed), (Behaviour::Crashes, RolledBack)] {
            for has_data in [true, false] {
                let scene = Scene { env, tag, behaviour, has_data, ..Scene::default() };
                let installation = Installation::new(scene);
                installation.world.world().runs_what_env_selects();
                let (updater, _) = installation.process(Arc::new(NoFaults)).await;
                let order = Order::Update(Request { allow_downgrade: true, ..request() });
                let job = installation.submit_and_wait(&updater, order).await;
                assert_eq!(job.state, end, "{name}, data {has_data}: {:?}", job.error);
                assert_invariants(&installation, &job, name);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_gate_is_as_long_as_the_release_needs() {
    let manifest = |m: &mut serde_json::Value| m["migration"]["estimated_downtime_seconds"] = json!(60);
    let scene = Scene { behaviour: Behaviour::Answers500, ..Scene::default() };
    for (scene, says) in
        [(scene.clone(), "not healthy within 10s"), (Scene { manifest, ..scene }, "not healthy within 60s")]
    {
        let job = Installation::new(scene).run(Arc::new(NoFaults)).await;
        assert!(job.error.clone().unwrap().contains(says), "{:?}", job.error);
    }
}

#[tokio::test(start_paused = true)]
async fn a_healthcheck_that_is_slower_than_the_gate_is_told() {
    for (seconds, told) in [(30, true), (9, false)] {
        let installation = Installation::new(Scene::default());
        {
            let app = &mut installation.world.world().containers[0];
            (app.healthcheck, app.healthcheck_seconds) = (Healthcheck::Healthy, seconds);
        }
        let (updater, _) = installation.process(Arc::new(NoFaults)).await;
        let warnings = updater.check(CheckRequest::default()).await.warnings.join("; ");
        let expected =
            "HEALTHCHECK of container processgit says nothing for its first 30 s, but the gate ends after 10s";
        assert_eq!(warnings.contains(expected), told, "{warnings}");
    }
}

/// What the application depends on, and was stopped with it, is well again before either version is started.
#[tokio::test(start_paused = true)]
async fn what_was_stopped_is_ready_before_what_needs_it() {
    for (scene, end) in [
        (waiting(), Committed),
        (Scene { behaviour: Behaviour::Crashes, ..waiting() }, RolledBack),
        (Scene { behaviour: Behaviour::MigrationFails, migration: Some("migrate"), ..waiting() }, RolledBack),
        (Scene { order: snapshot, ..waiting() }, Committed),
    ] {
        let installation = Installation::ready(scene).await;
        let job = installation.run(Arc::new(NoFaults)).await;
        assert_eq!(job.state, end, "{:?}", job.error);
        assert_invariants(&installation, &job, &format!("{end:?}"));
        let output: String = job.steps.iter().filter_map(|step| step.output.clone()).collect();
        assert!(output.contains("waiting for service worker, which service processgit depends on"), "{output}");
    }
}

/// A dependency that does not become well says nothing about the version; and the old one runs again.
#[tokio::test(start_paused = true)]
async fn a_dependency_that_is_never_ready_is_not_the_versions_fault() {
    let installation = Installation::ready(waiting()).await;
    let forever = |world: &mut World| {
        world.needs.insert("worker".into(), Duration::from_secs(3600));
    };
    let (world, deed) = (installation.world.clone(), Mutex::new(Some(forever as fn(&mut World))));
    let job = installation.run(Arc::new(Meddler { world, call: "env.write", deed })).await;
    let error = job.error.clone().unwrap_or_default();
    assert_eq!(job.state, RolledBack, "{error}");
    assert!(error.contains("service worker, which service processgit depends on, is not healthy yet"), "{error}");
    assert_eq!(installation.known_bad(DIGEST).await, None);
}
