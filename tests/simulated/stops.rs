//! `STOP_SERVICES`: what is named is stopped and started with the application, whatever it shares with it.

use std::sync::Arc;
use std::time::Duration;

use processgit_updater::engine::label;
use processgit_updater::engine::simulated::{Behaviour, NoFaults, World};
use processgit_updater::update::job::State::{self, *};
use processgit_updater::update::refusal::Code;

use crate::bench::{Installation, Scene, add_service, snapshot};
use crate::invariants::assert_invariants;

/// A database that the application needs and shares no mount with, which is ready a while after its start.
fn db(world: &mut World) {
    let takes = Duration::from_secs(5);
    add_service(world, "db", false);
    world.needs.insert("db".into(), takes);
    let db = world.containers.iter_mut().find(|c| c.label(label::SERVICE) == Some("db")).expect("it was added");
    db.started_at = db.started_at.map(|at| at - takes);
}

#[tokio::test(start_paused = true)]
async fn what_is_named_is_stopped_and_started_in_time() {
    let with_db = || Scene { world: db, options: |o| o.stop_services = vec!["db".into()], ..Scene::default() };
    let rows: [(&str, Scene, State); 6] = [
        ("an update", with_db(), Committed),
        (
            "by its container's name",
            Scene { options: |o| o.stop_services = vec!["test-db-1".into()], ..with_db() },
            Committed,
        ),
        ("a bad release", Scene { behaviour: Behaviour::Crashes, ..with_db() }, RolledBack),
        ("an application without data", Scene { has_data: false, ..with_db() }, Committed),
        ("its bad release", Scene { has_data: false, behaviour: Behaviour::Crashes, ..with_db() }, RolledBack),
        ("a snapshot", Scene { order: snapshot, ..with_db() }, Committed),
    ];
    for (name, scene, end) in rows {
        let installation = Installation::new(scene);
        let before = installation.world.world().containers.iter().find(|c| c.name == "test-db-1").cloned().unwrap();
        let job = installation.run(Arc::new(NoFaults)).await;
        assert_eq!(job.state, end, "{name}: {:?}", job.error);
        let said: String = job.steps.iter().filter_map(|step| step.output.clone()).collect();
        let place = |text: &str| said.find(text).unwrap_or_else(|| panic!("{name}: {text}: {said}"));
        assert!(place("stopping processgit") < place("stopping test-db-1"), "{name}: {said}");
        place("starting test-db-1");
        // The world notes it if the application is started before the database is ready.
        assert_invariants(&installation, &job, name);
        let world = installation.world.world();
        let after = world.containers.iter().find(|c| c.name == "test-db-1").unwrap();
        assert!(after.started_at > before.started_at && after.id == before.id, "{name}: the very container");
    }
}

/// Only what runs can be stopped; what does not is left as it is.
#[tokio::test(start_paused = true)]
async fn what_does_not_run_is_not_started() {
    let installation = Installation::new(Scene {
        world: |world| {
            add_service(world, "cron", false);
            world.containers[1].state = processgit_updater::engine::RunState::Exited;
        },
        options: |o| o.stop_services = vec!["cron".into()],
        ..Scene::default()
    });
    let job = installation.run(Arc::new(NoFaults)).await;
    assert_eq!(job.state, Committed, "{:?}", job.error);
    assert_invariants(&installation, &job, "a service that did not run");
}

#[tokio::test(start_paused = true)]
async fn a_name_that_nothing_has_is_refused_before_anything_is_touched() {
    let installation =
        Installation::new(Scene { options: |o| o.stop_services = vec!["dv".into()], world: db, ..Scene::default() });
    let job = installation.run(Arc::new(NoFaults)).await;
    let code = job.reason.as_ref().map(|reason| reason.code);
    assert_eq!((job.state, code), (RolledBack, Some(Code::NameWrong)), "{:?}", job.error);
    assert!(job.error.as_ref().unwrap().ends_with("Set PROCESSGIT_UPDATER_STOP_SERVICES=db"), "{:?}", job.error);
    assert_invariants(&installation, &job, "a misspelt name");
}
