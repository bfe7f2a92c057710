//! What a verdict takes: an unbroken run of one life, a clock that was not stopped, and an application that was well
//! before.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use processgit_updater::clock::Clock;
use processgit_updater::engine::simulated::{Behaviour, Fate, Faults, World};
use processgit_updater::engine::{Healthcheck, RunState};
use processgit_updater::health::VersionAt;
use processgit_updater::health::gate::{self, Candidate, Demands, GateError, GateSettings};
use processgit_updater::update::job::State;
use processgit_updater::update::ports::Options;
use processgit_updater::update::{CheckRequest, Order, Request};
use tokio::time::{Instant, advance, sleep};

use crate::bench::{DIGEST, Installation, START, Scene, request};

type Act = dyn Fn(&mut World, Duration, &mut u32) + Send + Sync;

/// What happens to the world before each look at the container: the time since the first one decides.
struct Meanwhile {
    begun: Instant,
    act: Box<Act>,
    done: Mutex<u32>,
}

impl Meanwhile {
    fn new(act: impl Fn(&mut World, Duration, &mut u32) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { begun: Instant::now(), act: Box::new(act), done: Mutex::default() })
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
    to_the_end: false,
};

/// The gate over the application that runs, and how long it took. This process is stopped at `stop`, for thirty seconds.
async fn judged(act: fn(&mut World, Duration, &mut u32), stop: Option<Duration>) -> (Result<(), GateError>, Duration) {
    judged_by(&SETTINGS, Demands::ALL, Meanwhile::new(act), stop).await
}

async fn judged_by(
    settings: &GateSettings,
    demands: Demands,
    faults: Arc<dyn Faults>,
    stop: Option<Duration>,
) -> (Result<(), GateError>, Duration) {
    let installation = Installation::new(Scene::default());
    let (ports, _, world) = installation.ports(faults);
    let application = world.world().containers[0].clone();
    let candidates = [Candidate {
        called: "its container".into(),
        container_id: application.id,
        image_id: application.image_id,
        version: Some("1.0.0".into()),
        demands,
        fresh: true,
    }];
    let begun = Instant::now();
    let stopped = async {
        if let Some(stop) = stop {
            sleep(stop).await;
            advance(Duration::from_secs(30)).await;
        }
    };
    let (verdict, ()) = tokio::join!(gate::pass(&*ports.engine, &*ports.probe, settings, &candidates), stopped);
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

/// Restarted so often, and between two runs.
fn restarting(world: &mut World, count: i64) {
    let c = &mut world.containers[0];
    (c.state, c.exit_code, c.restart_count) = (RunState::Restarting, 3, count);
}

fn runs_again(world: &mut World) {
    world.containers[0].state = RunState::Running;
}

#[tokio::test(start_paused = true)]
async fn restarts_are_a_verdict_when_they_go_on() {
    const LONG: GateSettings = GateSettings { timeout: Duration::from_secs(120), ..SETTINGS };
    const TO_THE_END: GateSettings = GateSettings { to_the_end: true, ..LONG };
    type Act = fn(&mut World, Duration, &mut u32);
    let for_ever: Act = |w, t, _| restarting(w, 1 + i64::try_from(t.as_secs()).unwrap());
    let slow: Act = |w, t, _| if t.as_secs() < 25 { restarting(w, 8) } else { runs_again(w) };
    let once: Act = |w, t, _| if t.as_millis() < 200 { restarting(w, 1) } else { runs_again(w) };
    let ended: Act = |w, _, _| {
        w.containers[0].restart_policy.name = "no".into();
        (w.containers[0].state, w.containers[0].exit_code) = (RunState::Exited, 3);
    };
    let then_500: Act = |w, t, _| {
        if t.as_secs() < 2 {
            restarting(w, 4)
        } else {
            runs_again(w)
        };
        behave(w, Behaviour::Answers500);
    };
    let says = "its container crashes again and again (exit code 3, ";
    for (name, settings, act, seconds, expected) in [
        ("for ever", &LONG, for_ever, 30.0, Some(says)),
        (
            "for ever, a short gate",
            &SETTINGS,
            for_ever,
            10.0,
            Some("not healthy within 10s: its container crashes again"),
        ),
        (
            "for ever, to the end",
            &TO_THE_END,
            for_ever,
            120.0,
            Some("not healthy within 120s: its container crashes again"),
        ),
        ("what it needs is slow", &LONG, slow, 28.0, None),
        ("once", &LONG, once, 3.0, None),
        (
            "it has ended, and nothing restarts it",
            &LONG,
            ended,
            0.0,
            Some("its container exited with code 3; the last it said:"),
        ),
        (
            "it has ended, to the end",
            &TO_THE_END,
            ended,
            0.0,
            Some("its container exited with code 3; the last it said:"),
        ),
        (
            "then it runs, and answers 500",
            &LONG,
            then_500,
            120.0,
            Some("500, expected 200 (its container crashes again and again: 4 restarts); the last it said:"),
        ),
    ] {
        let (verdict, took) = judged_by(settings, Demands::ALL, Meanwhile::new(act), None).await;
        assert!(
            took.as_secs_f32() > seconds - 1.0 && took.as_secs_f32() < seconds + 2.0,
            "{name}: {verdict:?} after {took:?}"
        );
        match (verdict, expected) {
            (Ok(()), None) => {}
            (Err(GateError::Ended { why, evidence }), Some(says)) => {
                assert!(why.contains(says), "{name}: {why}");
                assert_eq!(evidence.tail, ["(simulated output)"], "{name}");
                assert_eq!(evidence.exit_code, Some(3).filter(|_| !says.contains("500")), "{name}");
            }
            (verdict, _) => panic!("{name}: {verdict:?}"),
        }
    }
}

/// What is looked at, how it is, and what the gate says of it.
#[tokio::test(start_paused = true)]
async fn what_each_sight_is_taken_for() {
    const NO_MORE: Demands = Demands { http: false, ..Demands::ALL };
    const ENDED: Demands = Demands { ended: true, ..Demands::NOTHING };
    const NO_CHECK: Demands = Demands { healthcheck: false, ..Demands::ALL };
    type Act = fn(&mut World, Duration, &mut u32);
    let nothing: Act = |_, _, _| {};
    let exited_well: Act = |w, _, _| w.containers[0].state = RunState::Exited;
    let exited_badly: Act = |w, _, _| (w.containers[0].state, w.containers[0].exit_code) = (RunState::Exited, 3);
    let ended_badly: Act = |w, _, _| {
        w.containers[0].restart_policy.name = "on-failure".into();
        (w.containers[0].state, w.containers[0].exit_code) = (RunState::Exited, 3);
    };
    let was_always: Act = |w, _, _| {
        w.containers[0].restart_policy.name = "always".into();
        w.containers[0].state = RunState::Exited;
    };
    let starting: Act = |w, _, _| w.containers[0].healthcheck = Healthcheck::Starting;
    let unhealthy: Act = |w, _, _| w.containers[0].healthcheck = Healthcheck::Unhealthy;
    let healthy: Act = |w, _, _| w.containers[0].healthcheck = Healthcheck::Healthy;
    let other_image: Act = |w, _, _| w.containers[0].image_id = "another".into();
    let gone: Act = |w, _, _| w.containers.clear();
    let other_version: Act = |w, _, _| w.images.values_mut().for_each(|image| image.version = "0.9.0".into());
    let stopped_by = "its container was stopped by somebody else";
    let decides = "its container has no HEALTHCHECK, and PROCESSGIT_UPDATER_HEALTH_URL=none";
    for (name, demands, act, expected, at_once) in [
        ("it runs", Demands::ALL, nothing, Ok(()), true),
        ("nothing is demanded, and it was stopped", Demands::NOTHING, exited_badly, Ok(()), true),
        ("it has ended, and that is all it should", ENDED, exited_well, Ok(()), true),
        ("it has ended badly, and nothing restarts it", ENDED, ended_badly, Err(("Ended", "exited with code 3")), true),
        (
            "it still runs, and should have ended",
            ENDED,
            nothing,
            Err(("Unhealthy", "still runs; the one before")),
            false,
        ),
        ("it should run, and has ended well", Demands::ALL, exited_well, Err(("NoVerdict", stopped_by)), false),
        ("it should run, and was stopped", Demands::ALL, exited_badly, Err(("NoVerdict", stopped_by)), false),
        ("it should always run, and was stopped", Demands::ALL, was_always, Err(("NoVerdict", stopped_by)), false),
        ("it has failed for good", Demands::ALL, ended_badly, Err(("Ended", "exited with code 3")), true),
        (
            "dead",
            Demands::ALL,
            |w, _, _| w.containers[0].state = RunState::Dead,
            Err(("Ended", "exited with code 0")),
            true,
        ),
        (
            "never started",
            Demands::ALL,
            |w, _, _| w.containers[0].state = RunState::Created,
            Err(("NoVerdict", "was never started")),
            false,
        ),
        (
            "paused",
            Demands::ALL,
            |w, _, _| w.containers[0].state = RunState::Paused,
            Err(("Unhealthy", "its container is paused")),
            false,
        ),
        ("its HEALTHCHECK starts", Demands::ALL, starting, Err(("Unhealthy", "is still starting")), false),
        ("its HEALTHCHECK fails", Demands::ALL, unhealthy, Err(("Unhealthy", "says unhealthy")), false),
        ("its HEALTHCHECK passes", Demands::ALL, healthy, Ok(()), true),
        ("its HEALTHCHECK failed before too", NO_CHECK, unhealthy, Ok(()), true),
        ("its HEALTHCHECK started before too", NO_CHECK, starting, Ok(()), true),
        ("another image", Demands::ALL, other_image, Err(("NoVerdict", "runs image another, expected")), true),
        ("removed", Demands::ALL, gone, Err(("NoVerdict", "was removed by somebody else")), true),
        (
            "another version answers",
            Demands::ALL,
            other_version,
            Err(("Unhealthy", "says version 0.9.0 at /version, expected 1.0.0")),
            false,
        ),
        ("another version answers, and nobody asks", NO_MORE, other_version, Ok(()), true),
        (
            "500",
            Demands::ALL,
            |w, _, _| behave(w, Behaviour::Answers500),
            Err(("Unhealthy", "answers 500, expected 200")),
            false,
        ),
        ("500, and nobody asks", NO_MORE, |w, _, _| behave(w, Behaviour::Answers500), Ok(()), true),
    ] {
        let settings = GateSettings { version: Some(VersionAt::Pointer("/version".into())), ..SETTINGS };
        let (verdict, took) = judged_by(&settings, demands, Meanwhile::new(act), None).await;
        let told = format!("{name}: {verdict:?} after {took:?}");
        match (verdict, expected) {
            (Ok(()), Ok(())) => assert!(took < Duration::from_secs(5), "{told}"),
            (Err(error), Err((kind, says))) => {
                assert!(format!("{error:?}").starts_with(kind) && error.to_string().contains(says), "{told}");
                assert_eq!(took < Duration::from_secs(1), at_once, "{told}");
                assert_eq!(error.to_string().starts_with("not healthy within 10s: "), !at_once, "{told}");
            }
            _ => panic!("{told}"),
        }
    }
    for (name, demands, act, expected) in [
        ("no HEALTHCHECK that could decide", Demands::ALL, nothing, Err(decides)),
        ("a HEALTHCHECK that decides", Demands::ALL, healthy, Ok(())),
        ("nothing to decide", NO_MORE, nothing, Ok(())),
    ] {
        let settings = GateSettings { healthcheck_decides: true, ..SETTINGS };
        let (verdict, _) = judged_by(&settings, demands, Meanwhile::new(act), None).await;
        match expected {
            Ok(()) => assert_eq!(verdict, Ok(()), "{name}"),
            Err(says) => {
                assert!(matches!(&verdict, Err(GateError::NoVerdict(why)) if why.contains(says)), "{verdict:?}")
            }
        }
    }
}

/// Who is healthy in time may prove after the deadline that it stays so.
#[tokio::test(start_paused = true)]
async fn healthy_in_time_is_soon_enough() {
    for (from, is_in_time) in [(0, true), (8, true), (11, false)] {
        let act = move |w: &mut World, t: Duration, _: &mut u32| {
            behave(w, if t.as_secs() < from { Behaviour::Answers500 } else { Behaviour::Good });
        };
        let (verdict, took) = judged_by(&SETTINGS, Demands::ALL, Meanwhile::new(act), None).await;
        assert_eq!(verdict.is_ok(), is_in_time, "from {from} s on: {verdict:?} after {took:?}");
        assert!(!is_in_time || took >= Duration::from_secs(from) + SETTINGS.stable, "{took:?}");
    }
}

/// The exit code is that of a run that has ended: while it runs again the engine says 0.
#[tokio::test(start_paused = true)]
async fn the_exit_code_is_read_between_two_runs() {
    const LONG: GateSettings = GateSettings { timeout: Duration::from_secs(120), ..SETTINGS };
    type Act = fn(&mut World, Duration, &mut u32);
    let crashes_seldom_seen: Act = |w, t, _| {
        restarting(w, i64::try_from(t.as_secs()).unwrap());
        if t.as_millis() % 1000 < 950 {
            (w.containers[0].state, w.containers[0].exit_code) = (RunState::Running, 0);
        }
    };
    let never_seen: Act = |w, t, _| {
        restarting(w, i64::try_from(t.as_secs()).unwrap());
        (w.containers[0].state, w.containers[0].exit_code) = (RunState::Running, 0);
    };
    for (name, act, code, waits) in
        [("seen", crashes_seldom_seen, Some(3), 0), ("never seen between two runs", never_seen, None, 5)]
    {
        let act = move |w: &mut World, t: Duration, done: &mut u32| {
            behave(w, Behaviour::Answers500);
            act(w, t, done);
        };
        let (verdict, took) = judged_by(&LONG, Demands::ALL, Meanwhile::new(act), None).await;
        let Err(GateError::Ended { why, evidence }) = verdict else { panic!("{name}: {verdict:?}") };
        assert_eq!((evidence.exit_code, why.contains("exit code")), (code, code.is_some()), "{name}: {why}");
        let waited = took.saturating_sub(Duration::from_secs(31));
        assert!((waits..=waits + 2).contains(&waited.as_secs()), "{name}: {took:?}");
    }
    // What is found out while this process does not run is of a moment long ago.
    let until_the_gap: Act = |w, t, _| {
        if t.as_secs() < 40 {
            restarting(w, i64::try_from(t.as_secs()).unwrap())
        }
        (w.containers[0].state, w.containers[0].exit_code) = (RunState::Running, 0);
        behave(w, if t.as_secs() < 40 { Behaviour::Answers500 } else { Behaviour::Good });
    };
    let stop = Some(Duration::from_secs(33));
    let (verdict, _) = judged_by(&LONG, Demands::ALL, Meanwhile::new(until_the_gap), stop).await;
    assert_eq!(verdict, Ok(()));
}

/// An engine that is away for so long, from the third second on.
struct Away(Instant, Duration);

impl Faults for Away {
    fn fate(&self, name: &str) -> Fate {
        let gone = Duration::from_secs(3);
        let is_away = (gone..gone + self.1).contains(&self.0.elapsed());
        if is_away && name == "engine.container" { Fate::Away } else { Fate::Go }
    }

    fn meanwhile(&self, _: &str, world: &mut World) {
        let is_young = self.0.elapsed() < Duration::from_secs(4);
        if is_young { restarting(world, 3) } else { runs_again(world) }
    }
}

/// The gate's clock stands still, that of its patience with restarts too; but not for ever.
#[tokio::test(start_paused = true)]
async fn an_engine_that_is_away_is_waited_for() {
    for (minutes, is_ok) in [(1, true), (14, true), (16, false)] {
        let away = Away(Instant::now(), Duration::from_secs(minutes * 60));
        let settings = GateSettings { interval: Duration::from_millis(700), ..SETTINGS };
        let (verdict, took) = judged_by(&settings, Demands::ALL, Arc::new(away), None).await;
        assert_eq!(verdict.is_ok(), is_ok, "{minutes} min: {verdict:?}");
        assert!(is_ok || matches!(verdict, Err(GateError::NoVerdict(_))), "{verdict:?}");
        assert!(took.as_secs().abs_diff(minutes.min(15) * 60) < 10, "{minutes} min: {took:?}");
    }
}

/// Whatever runs of the application crashes at certain times: something that it needs is not there.
struct Needs {
    clock: Arc<dyn Clock>,
    is_there: fn(i64) -> bool,
}

impl Faults for Needs {
    fn fate(&self, _: &str) -> Fate {
        Fate::Go
    }

    fn meanwhile(&self, _: &str, world: &mut World) {
        let seconds = self.clock.now().as_second() - START.parse::<jiff::Timestamp>().unwrap().as_second();
        let is_there = (self.is_there)(seconds);
        behave(world, if is_there { Behaviour::Good } else { Behaviour::Crashes });
    }
}

/// What an application needs may be slow to come, before an update's verdict and before that of the way back.
#[tokio::test(start_paused = true)]
async fn a_slow_dependency_makes_no_verdict() {
    let gate: fn(&mut Options) = |options| options.health.timeout = Duration::from_secs(60);
    // Planning takes no time: seconds since the job was submitted.
    for (name, is_there, end, least, most) in [
        ("at once", (|_| true) as fn(i64) -> bool, State::Committed, 3, 5),
        ("after 10 s", |t| !(0..10).contains(&t), State::Committed, 13, 16),
        ("while the old version is looked at", |t| t > 25, State::RolledBack, 28, 32),
        ("just before the old one is looked at for the last time", |t| t > 80, State::RolledBack, 83, 88),
        ("never", |_| false, State::Failed, 90, 95),
    ] {
        let scene = Scene { options: gate, ..Scene::default() };
        let installation = Installation::new(scene);
        let begun = Instant::now();
        let needs = Needs { clock: installation.clock(), is_there };
        let job = installation.run(Arc::new(needs)).await;
        let took = begun.elapsed().as_secs();
        assert_eq!(job.state, end, "{name}, after {took} s: {:?}", job.error);
        assert!((least..=most).contains(&took), "{name}: {took} s");
        let error = job.error.clone().unwrap_or_default();
        assert_eq!(error.contains("and on the way back"), end == State::Failed, "{name}: {error}");
    }
}

/// The application begins to answer, but the first question that it would answer is stopped with this process.
struct Stalled(Instant);

impl Faults for Stalled {
    fn fate(&self, name: &str) -> Fate {
        let stalls = name == "probe.ask" && (8..12).contains(&self.0.elapsed().as_secs());
        if stalls { Fate::Hang } else { Fate::Go }
    }

    fn meanwhile(&self, _: &str, world: &mut World) {
        behave(world, if self.0.elapsed().as_secs() < 8 { Behaviour::Answers500 } else { Behaviour::Good });
    }
}

#[tokio::test(start_paused = true)]
async fn a_gap_in_the_middle_of_a_look_is_no_verdict() {
    let stop = Some(Duration::from_millis(9500));
    let (verdict, _) = judged_by(&SETTINGS, Demands::ALL, Arc::new(Stalled(Instant::now())), stop).await;
    assert_eq!(verdict, Ok(()));
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
    let stopped: fn(&mut World) = |w| w.containers[0].state = RunState::Exited;
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
