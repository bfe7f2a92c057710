//! Containers that run once, and commands of Compose's own.

use std::sync::{Arc, Mutex};

use processgit_updater::engine::simulated::{Behaviour, Fate, Faults, NoFaults, World};
use processgit_updater::update::job::State::{self, *};
use processgit_updater::update::ports::HookSetting;

use crate::bench::{At, Installation, Scene, crewed, occurrences, restore, snapshot};
use crate::by_hand::hooked;
use crate::invariants::assert_invariants;

/// Sees, at every save and every call, whether a container that runs once is there.
#[derive(Default)]
struct Sees(Mutex<Vec<(String, bool)>>);

fn one_shot(world: &World) -> bool {
    world.containers.iter().any(|c| c.name.contains("-hook-") || c.name.contains("-migration-"))
}

impl Faults for Sees {
    fn fate(&self, _: &str) -> Fate {
        Fate::Go
    }

    fn done(&self, name: &str, world: &World) {
        self.0.lock().unwrap().push((name.to_owned(), one_shot(world)));
    }
}

fn migrates(behaviour: Behaviour) -> Scene {
    Scene { behaviour, migration: Some("migrate"), ..Scene::default() }
}

/// It keeps its volumes in use as long as it is there.
#[tokio::test(start_paused = true)]
async fn a_container_that_has_ended_goes_when_its_outcome_is_written_down() {
    let fails = || Scene {
        options: |options| {
            (hooked().options)(options);
            options.hook_before_copy.as_mut().unwrap().command = vec!["false".into()];
        },
        ..hooked()
    };
    for (name, scene, outcome, ends) in [
        ("a migration", migrates(Behaviour::Good), "journal.done", Committed),
        ("a migration that fails", migrates(Behaviour::MigrationFails), "journal.failed", RolledBack),
        ("a migration that hangs", migrates(Behaviour::MigrationHangs), "journal.failed", RolledBack),
        ("a hook", hooked(), "journal.done", Committed),
        ("a hook that fails", fails(), "journal.failed", RolledBack),
    ] {
        let installation = Installation::ready(scene).await;
        let sees = Arc::new(Sees::default());
        let job = installation.run(sees.clone()).await;
        assert_eq!(job.state, ends, "{name}: {:?}", job.error);
        let seen = sees.0.lock().unwrap().clone();
        let started = seen.iter().position(|(call, _)| call == "compose.create").expect(name);
        let written = started + seen[started..].iter().position(|(call, _)| call == outcome).expect(name);
        assert!(seen[started..=written].iter().all(|(_, is_there)| *is_there), "{name}: it stays until then");
        let next = written + seen[written..].iter().position(|(call, _)| call == "journal.intent").expect(name);
        assert!(!seen[next].1, "{name}: it is gone before anything else is done");
        if job.state == RolledBack {
            let evidence = job.evidence.clone().expect("its last words are kept");
            assert_eq!(evidence.tail, ["(simulated output)"], "{name}");
        }
        assert_invariants(&installation, &job, name);
    }
}

/// The application's own lodger is stopped with it, and so is the network that it has.
#[tokio::test(start_paused = true)]
async fn a_hook_that_would_live_in_what_is_stopped_is_refused() {
    let installation = Installation::ready(Scene {
        options: |options| {
            (crewed().options)(options);
            let hook = HookSetting { service: "lodger".into(), command: vec!["dump".into()] };
            options.hook_before_copy = Some(hook);
        },
        ..crewed()
    })
    .await;
    let job = installation.run(Arc::new(NoFaults)).await;
    let error = job.error.clone().unwrap_or_default();
    assert!(error.contains("`dump` is to run in the namespaces of container processgit"), "{error}");
    assert_eq!(job.steps.iter().map(|step| step.state).collect::<Vec<_>>(), [Planning, RolledBack]);
    assert_invariants(&installation, &job, "a lodger's hook");
}

/// A socket proxy that does not let Compose run commands in containers: known while planning.
#[tokio::test(start_paused = true)]
async fn commands_that_nobody_may_run_refuse_the_job() {
    let installation = Installation::ready(commanded(Scene::default())).await;
    let why = "asking for a command in container x: refused with 403 Forbidden";
    let job = installation.run(At::nth("engine.may_reach", 1, Fate::Fail(why.into()))).await;
    let error = job.error.clone().unwrap_or_default();
    assert!(
        error.contains("post_start and pre_stop") && error.contains(why) && error.contains("socket-proxy.yml"),
        "{error}"
    );
    assert_eq!(job.steps.iter().map(|step| step.state).collect::<Vec<_>>(), [Planning, RolledBack]);
    assert_invariants(&installation, &job, "a proxy");
}

/// The process ends between the outcome and the removal: the next life removes it, whatever else becomes of the job.
#[tokio::test(start_paused = true)]
async fn the_next_life_removes_what_the_last_one_did_not() {
    let recorder = Arc::new(crate::bench::Recorder::default());
    Installation::ready(migrates(Behaviour::Good)).await.run(recorder.clone()).await;
    let calls = recorder.0.lock().unwrap().clone();
    let started = calls.iter().position(|call| call == "compose.create").unwrap();
    let removed = started + calls[started..].iter().position(|call| call == "engine.remove").unwrap();
    let (call, nth) = occurrences(&calls)[removed].clone();

    let installation = Installation::ready(migrates(Behaviour::Good)).await;
    let (updater, world) = installation.process(At::nth(&call, nth, Fate::DieBefore)).await;
    let job = installation.submit(&updater, installation.order()).await.unwrap();
    world.death().await;
    assert!(one_shot(&installation.world.world()), "it is left");
    let sees = Arc::new(Sees::default());
    let (updater, _) = installation.process(sees.clone()).await;
    let job = crate::bench::wait(&updater, &job.id.0).await;
    assert_eq!(job.state, RolledBack, "{:?}", job.error);
    let seen = sees.0.lock().unwrap().clone();
    let intent = seen.iter().find(|(call, _)| call == "journal.intent").expect("an effect");
    assert!(!intent.1, "gone before anything else is done");
    assert_invariants(&installation, &job, "died before the removal");
}

/// The application and all that is stopped with it have `post_start` and `pre_stop` commands.
fn commanded(scene: Scene) -> Scene {
    Scene { world: |world| world.commands = ["processgit".into()].into(), ..scene }
}

#[tokio::test(start_paused = true)]
async fn composes_own_commands_run_at_every_stop_and_start() {
    let rows: Vec<(&str, Scene, State)> = vec![
        ("an update", commanded(Scene::default()), Committed),
        ("a failed migration", commanded(migrates(Behaviour::MigrationFails)), RolledBack),
        ("a snapshot", commanded(Scene { order: snapshot, ..Scene::default() }), Committed),
        ("earlier data", commanded(Scene { before: &[snapshot], order: restore, ..Scene::default() }), Committed),
        ("a bad version", commanded(Scene { behaviour: Behaviour::Crashes, ..Scene::default() }), RolledBack),
        ("with a companion", Scene { world: with_companion, ..hooked() }, Committed),
        (
            "a bad version with a companion",
            Scene { world: with_companion, behaviour: Behaviour::Crashes, ..hooked() },
            RolledBack,
        ),
        ("a crew", Scene { world: with_crew, ..crewed() }, Committed),
        ("a snapshot with a crew", Scene { world: with_crew, order: snapshot, ..crewed() }, Committed),
    ];
    for (name, scene, ends) in rows {
        let installation = Installation::ready(scene).await;
        let before = installation.world.world().containers[0].id.clone();
        let is_snapshot = name.contains("snapshot");
        let job = installation.run(Arc::new(NoFaults)).await;
        assert_eq!(job.state, ends, "{name}: {:?}", job.error);
        assert_invariants(&installation, &job, name);
        let world = installation.world.world();
        // The failed version's container is stopped as it is: Compose, too, runs nothing in what it replaces.
        let without: Vec<_> =
            world.without_commands.iter().filter(|what| !is_of_the_failed_version(what, ends)).collect();
        assert!(without.is_empty(), "{name}: {without:?}");
        if is_snapshot {
            assert!(world.containers.iter().any(|c| c.id == before), "{name}: the very container runs again");
        }
    }
}

fn is_of_the_failed_version(what: &str, ends: State) -> bool {
    ends == RolledBack && what == "processgit was stopped"
}

fn with_companion(world: &mut World) {
    (hooked().world)(world);
    world.commands = ["processgit", "worker"].map(Into::into).into();
}

fn with_crew(world: &mut World) {
    (crewed().world)(world);
    world.commands = ["processgit", "worker"].map(Into::into).into();
}
