//! What a verdict takes: an unbroken run of one life, a clock that was not stopped, and an application that was well
//! before.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use processgit_updater::engine::Healthcheck;
use processgit_updater::engine::simulated::{Behaviour, Fate, Faults, World};
use processgit_updater::health::gate::{self, Candidate, Demands, GateError, GateSettings};
use processgit_updater::update::job::State;
use processgit_updater::update::{CheckRequest, Order, Request};
use tokio::time::{Instant, advance, sleep};

use crate::bench::{DIGEST, Installation, Scene, request};

/// What happens to the world before each look at the container: the time since the first one decides.
struct Meanwhile {
    begun: Instant,
    act: fn(&mut World, Duration, &mut u32),
    done: Mutex<u32>,
}

impl Meanwhile {
    fn new(act: fn(&mut World, Duration, &mut u32)) -> Arc<Self> {
        Arc::new(Self { begun: Instant::now(), act, done: Mutex::default() })
    }
}

impl Faults for Meanwhile {
    fn fate(&self, _: &str) -> Fate {
        Fate::Go
    }

    fn meanwhile(&self, name: &str, world: &mut World) {
        if name == "engine.container" {
            (self.act)(world, self.begun.elapsed(), &mut self.done.lock().unwrap());
        }
    }
}

const SETTINGS: GateSettings = GateSettings {
    timeout: Duration::from_secs(10),
    interval: Duration::from_secs(1),
    stable: Duration::from_secs(3),
    version: None,
    healthcheck_decides: false,
};

/// The gate over the application that runs, and how long it took. This process is stopped at `stop`, for thirty seconds.
async fn judged(act: fn(&mut World, Duration, &mut u32), stop: Option<Duration>) -> (Result<(), GateError>, Duration) {
    let installation = Installation::new(Scene::default());
    let (ports, _, world) = installation.ports(Meanwhile::new(act));
    let application = world.world().containers[0].clone();
    let candidates = [Candidate {
        called: "its container".into(),
        container_id: application.id,
        image_id: application.image_id,
        version: None,
        demands: Demands::ALL,
        fresh: true,
    }];
    let begun = Instant::now();
    let stopped = async {
        if let Some(stop) = stop {
            sleep(stop).await;
            advance(Duration::from_secs(30)).await;
        }
    };
    let (verdict, ()) = tokio::join!(gate::pass(&*ports.engine, &*ports.probe, &SETTINGS, &candidates), stopped);
    (verdict, begun.elapsed())
}

fn behave(world: &mut World, behaviour: Behaviour) {
    world.images.values_mut().for_each(|image| image.behaviour = behaviour);
}

fn once(done: &mut u32, is_time: bool, act: impl FnOnce()) {
    if is_time && *done == 0 {
        *done = 1;
        act();
    }
}

#[tokio::test(start_paused = true)]
async fn an_unbroken_run_is_one_life() {
    type Act = fn(&mut World, Duration, &mut u32);
    let rows: [(&str, Act); 4] = [
        ("restarted, and at once healthy again", |w, t, done| {
            once(done, t.as_secs() >= 2, || w.containers[0].restart_count += 1);
        }),
        ("started anew by somebody", |w, t, done| {
            once(done, t.as_secs() >= 2, || w.containers[0].started_at = Some(jiff::Timestamp::UNIX_EPOCH));
        }),
        ("one answer is not 200", |w, t, done| {
            let bad = t.as_secs() >= 2 && *done == 0;
            *done += u32::from(bad);
            behave(w, if bad { Behaviour::Answers500 } else { Behaviour::Good });
        }),
        ("its HEALTHCHECK falls", |w, t, done| {
            let bad = t.as_secs() >= 2 && *done < 2;
            *done += u32::from(bad);
            w.containers[0].healthcheck = if bad { Healthcheck::Unhealthy } else { Healthcheck::Healthy };
        }),
    ];
    let (verdict, took) = judged(|_, _, _| {}, None).await;
    assert!(verdict.is_ok() && took < Duration::from_secs(4), "{verdict:?} after {took:?}");
    for (name, act) in rows {
        let (verdict, took) = judged(act, None).await;
        assert_eq!(verdict, Ok(()), "{name}");
        assert!(took >= SETTINGS.stable + Duration::from_secs(2), "{name}: passed after {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_gap_the_application_is_looked_at_afresh() {
    let late = Some(Duration::from_millis(9500));
    let (verdict, took) = judged(|_, _, _| {}, Some(Duration::from_secs(1))).await;
    assert_eq!(verdict, Ok(()));
    assert!(took >= Duration::from_secs(34), "what was seen before the gap proves nothing after it: {took:?}");

    type Act = fn(&mut World, Duration, &mut u32);
    let rows: [(&str, Act); 3] = [
        ("it needs a moment after the gap", |w, t, _| {
            behave(w, if t.as_secs() < 43 { Behaviour::Answers500 } else { Behaviour::Good });
        }),
        ("it begins to answer during the gap", |w, t, _| {
            behave(w, if t.as_secs() < 10 { Behaviour::Answers500 } else { Behaviour::Good });
        }),
        ("the machine stalled with it, and the engine has restarted it", |w, t, done| {
            behave(w, if t.as_secs() < 10 { Behaviour::Answers500 } else { Behaviour::Good });
            once(done, t.as_secs() >= 10, || w.containers[0].restart_count += 5);
        }),
    ];
    for (name, act) in rows {
        let (verdict, took) = judged(act, late).await;
        assert_eq!(verdict, Ok(()), "{name} after {took:?}");
    }

    let (verdict, took) = judged(|w, _, _| behave(w, Behaviour::Answers500), late).await;
    assert!(matches!(verdict, Err(GateError::Unhealthy(_))), "a bad one is still found out: {verdict:?}");
    assert!(took < Duration::from_secs(65), "{took:?}");
}

/// The first questions get no answer.
struct Blip {
    left: Mutex<u32>,
}

impl Faults for Blip {
    fn fate(&self, name: &str) -> Fate {
        let mut left = self.left.lock().unwrap();
        if name != "probe.ask" || *left == 0 {
            return Fate::Go;
        }
        *left -= 1;
        Fate::Fail("cut off".into())
    }
}

fn old_answers_500(world: &mut World) {
    behave(world, Behaviour::Answers500);
}

#[tokio::test(start_paused = true)]
async fn an_application_that_is_not_well_is_not_updated_unasked() {
    let strict = |_: &World| Order::Update(Request { accept_unwell: false, ..request() });
    let repair = |_: &World| Order::Update(Request { accept_unwell: true, ..request() });
    let scene = |world, order, behaviour| Scene { world, order, behaviour, ..Scene::default() };
    let stopped: fn(&mut World) = |w| w.containers[0].state = processgit_updater::engine::RunState::Exited;
    let unhealthy: fn(&mut World) = |w| w.containers[0].healthcheck = Healthcheck::Unhealthy;
    for (name, scene, end, says) in [
        ("500", scene(old_answers_500, strict, Behaviour::Good), State::RolledBack, "answers 500, expected 200"),
        ("stopped", scene(stopped, strict, Behaviour::Good), State::RolledBack, "does not run (exited"),
        ("HEALTHCHECK", scene(unhealthy, strict, Behaviour::Good), State::RolledBack, "says unhealthy"),
        ("repaired", scene(old_answers_500, repair, Behaviour::Good), State::Committed, ""),
        ("not repaired", scene(old_answers_500, repair, Behaviour::Answers500), State::RolledBack, "answers 500"),
        (
            "made worse",
            scene(old_answers_500, repair, Behaviour::Crashes),
            State::RolledBack,
            "crashes again and again",
        ),
    ] {
        let is_refusal = end == State::RolledBack
            && !matches!(&(scene.order)(&Installation::new(scene.clone()).world.world()), Order::Update(r) if r.accept_unwell);
        let installation = Installation::new(scene);
        let job = installation.run(Arc::new(processgit_updater::engine::simulated::NoFaults)).await;
        let error = job.error.clone().unwrap_or_default();
        assert_eq!(job.state, end, "{name}: {error}");
        assert!(error.contains(says), "{name}: {error}");
        assert_eq!(error.contains("--accept-unwell"), is_refusal, "{name}: {error}");
        assert_eq!(job.touched, Some(!is_refusal), "{name}");
        assert_eq!(installation.known_bad(DIGEST).await, None, "{name}: nobody is blamed");
    }
}

#[tokio::test(start_paused = true)]
async fn a_moment_without_an_answer_is_no_fault() {
    let strict = |_: &World| Order::Update(Request { accept_unwell: false, ..request() });
    let installation = Installation::new(Scene { order: strict, ..Scene::default() });
    let job = installation.run(Arc::new(Blip { left: Mutex::new(3) })).await;
    assert_eq!(job.state, State::Committed, "{:?}", job.error);
}

#[tokio::test(start_paused = true)]
async fn a_check_says_it_too() {
    let installation = Installation::new(Scene { world: old_answers_500, ..Scene::default() });
    let (updater, _) = installation.process(Arc::new(processgit_updater::engine::simulated::NoFaults)).await;
    let check = updater.check(CheckRequest::default()).await;
    assert!(check.refusal.as_deref().is_some_and(|why| why.contains("--accept-unwell")), "{check:?}");
    let check = updater.check(CheckRequest { accept_unwell: true, ..CheckRequest::default() }).await;
    assert!(check.allowed, "{:?}", check.refusal);
}

#[tokio::test(start_paused = true)]
async fn what_a_failed_version_leaves_is_kept() {
    for (name, scene, container, code) in [
        ("gate", Scene { behaviour: Behaviour::Crashes, ..Scene::default() }, "processgit", 1),
        (
            "migration",
            Scene { behaviour: Behaviour::MigrationFails, migration: Some("migrate"), ..Scene::default() },
            "processgit-updater-migration-",
            1,
        ),
    ] {
        let installation = Installation::new(scene);
        let job = installation.run(Arc::new(processgit_updater::engine::simulated::NoFaults)).await;
        let (evidence, error) = (job.evidence.clone().unwrap_or_default(), job.error.unwrap_or_default());
        assert!(evidence.container.starts_with(container), "{name}: {evidence:?}");
        assert_eq!(
            (evidence.exit_code, &evidence.tail[..]),
            (Some(code), &["(simulated output)".to_owned()][..]),
            "{name}"
        );
        assert!(error.contains("; the last it said: \"(simulated output)\""), "{name}: {error}");
        assert!(installation.known_bad(DIGEST).await.is_some(), "{name}");
    }
}
