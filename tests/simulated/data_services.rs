//! Databases beside the application whose data belongs to the transaction.

use std::sync::Arc;
use std::time::Duration;

use processgit_updater::engine::simulated::{Behaviour, NoFaults, World};
use processgit_updater::engine::{RunState, label};
use processgit_updater::update::CheckRequest;
use processgit_updater::update::job::State::{self, *};
use processgit_updater::update::ports::Options;
use processgit_updater::update::refusal::Code;

use crate::bench::{DIGEST, Installation, Scene, add_service, restore, rollback, snapshot, update};
use crate::by_hand::{breaks, with_database, written};
use crate::invariants::assert_invariants;

fn migrating(behaviour: Behaviour) -> Scene {
    Scene { behaviour, migration: Some("migrate"), ..with_database() }
}

/// It has gone on writing, to the database too.
fn written_to_both(world: &mut World) {
    written(world);
    world.stores.values_mut().for_each(|store| store.push_str(", and later"));
}

/// It takes longer than the gate waits.
fn never_ready(world: &mut World) {
    world.needs.insert("db".into(), Duration::from_secs(3600));
    world.containers.iter_mut().for_each(|c| c.started_at = c.started_at.map(|at| at - Duration::from_secs(7200)));
}

struct Row {
    name: &'static str,
    scene: Scene,
    end: State,
    /// In the database afterwards.
    store: &'static str,
    /// Must stand in the job.
    says: &'static str,
}

fn rows() -> Vec<Row> {
    let row = |name, scene, end, store, says| Row { name, scene, end, store, says };
    let before = "written by 1.0.0";
    vec![
        row(
            "an update",
            with_database(),
            Committed,
            "written by 1.0.0, written by 1.1.0",
            "test-db-1 runs again, after 8.",
        ),
        row(
            "with a migration, which finds the database ready",
            migrating(Behaviour::Good),
            Committed,
            "written by 1.0.0, migrated by 1.1.0, written by 1.1.0",
            "starting test-db-1",
        ),
        row("a migration that fails", migrating(Behaviour::MigrationFails), RolledBack, before, "exited with code 1"),
        row(
            "a version that migrates, and is not well",
            Scene { behaviour: Behaviour::Answers500, ..with_database() },
            RolledBack,
            before,
            "is not healthy",
        ),
        row("a snapshot", Scene { order: snapshot, ..with_database() }, Committed, before, "test-db-1 runs again"),
        row(
            "a restore",
            Scene { before: &[snapshot], since: written_to_both, order: restore, ..with_database() },
            Committed,
            before,
            "restoring the data of snapshot",
        ),
        row(
            "a restore that fails",
            Scene { before: &[snapshot], since: breaks, order: restore, ..with_database() },
            RolledBack,
            before,
            "is not healthy",
        ),
        row(
            "a rollback by hand",
            Scene { before: &[update], since: written_to_both, order: rollback, ..with_database() },
            Committed,
            before,
            "restoring the data of snapshot",
        ),
    ]
}

#[tokio::test(start_paused = true)]
async fn a_database_goes_the_way_of_the_application() {
    for Row { name, scene, end, store, says } in rows() {
        let installation = Installation::ready(scene).await;
        let job = installation.run(Arc::new(NoFaults)).await;
        let output: String = job.steps.iter().filter_map(|step| step.output.clone()).collect();
        assert_eq!(job.state, end, "{name}: {:?}\n{output}", job.error);
        let told = format!("{} {output}", job.error.clone().unwrap_or_default());
        assert!(told.contains(says), "{name}: {told}");
        assert_eq!(installation.world.world().stores["db"], store, "{name}");
        assert_invariants(&installation, &job, name);
        let world = installation.world.world();
        let db = world.containers.iter().find(|c| c.label(label::SERVICE) == Some("db")).unwrap();
        assert_eq!((db.state, &*db.restart_policy.name), (RunState::Running, "unless-stopped"), "{name}");
    }
}

/// Nothing of the new version comes near it: neither its migration nor the version itself.
#[tokio::test(start_paused = true)]
async fn a_database_that_does_not_get_ready_turns_the_job_back() {
    for scene in [migrating(Behaviour::Good), with_database()] {
        let installation = Installation::ready(Scene { since: never_ready, ..scene }).await;
        let job = installation.run(Arc::new(NoFaults)).await;
        let error = job.error.clone().unwrap_or_default();
        assert!(error.contains("service db, which service processgit depends on, is not healthy yet"), "{error}");
        // On the way back the old version is started all the same: nothing more can be done for it.
        assert_eq!(std::mem::take(&mut installation.world.world().hasty).len(), 1, "{error}");
        assert_eq!(job.state, RolledBack, "{error}");
        assert_invariants(&installation, &job, "not ready");
        assert_eq!(installation.known_bad(DIGEST).await, None, "the version is not to blame");
    }
}

/// What is named and not there is told before anything is done.
#[tokio::test(start_paused = true)]
async fn a_name_that_nobody_has_is_refused() {
    let scene = Scene { options: |options| options.data_services = vec!["bd".into()], ..with_database() };
    let installation = Installation::ready(scene).await;
    let (updater, _) = installation.process(Arc::new(NoFaults)).await;
    let job = installation.submit_and_wait(&updater, installation.order()).await;
    let error = job.error.clone().unwrap_or_default();
    assert_eq!((job.state, job.reason.map(|reason| reason.code)), (RolledBack, Some(Code::NameWrong)), "{error}");
    assert!(error.contains("DATA_SERVICES names bd"), "{error}");
    assert_eq!(installation.world.world().stores["db"], "written by 1.0.0");
}

/// A worker of another image names the database in its variables: it loses it for a while, and is told.
#[tokio::test(start_paused = true)]
async fn who_else_uses_the_database_is_named_while_planning() {
    const TOLD: &str = "these go on while the database that they use is stopped, and what they write to it before the verdict may be taken back: worker (without db)";
    let world = |world: &mut World| {
        (with_database().world)(world);
        add_service(world, "worker", false);
        world
            .environments
            .entry("worker".into())
            .or_default()
            .insert("DATABASE_URL".into(), "postgres://db/app".into());
    };
    let stops = |options: &mut Options| {
        (with_database().options)(options);
        options.stop_services = vec!["worker".into()];
    };
    for (scene, is_told) in [
        (Scene { world, ..with_database() }, true),
        (Scene { world, options: stops, ..with_database() }, false),
        (with_database(), false),
    ] {
        let installation = Installation::ready(scene).await;
        let (updater, _) = installation.process(Arc::new(NoFaults)).await;
        let check = updater.check(CheckRequest { tag: Some("v1.1.0".into()), ..CheckRequest::default() }).await;
        assert!(check.allowed, "{:?}", check.refusal);
        assert_eq!(check.warnings.iter().any(|line| line.contains(TOLD)), is_told, "{:?}", check.warnings);
    }
}
