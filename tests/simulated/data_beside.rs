//! Data beside the application that no snapshot has: what is told before a job, and how the job ends.

use std::sync::Arc;
use std::time::Duration;

use processgit_updater::engine::simulated::{Behaviour, Fate, Faults, NoFaults, World};
use processgit_updater::update::CheckRequest;
use processgit_updater::update::job::State::{self, *};
use processgit_updater::update::ports::{HookSetting, Options};

use crate::bench::{At, Installation, Scene, add_service, restore, rollback, snapshot, update};
use crate::by_hand::breaks;
use crate::invariants::assert_invariants;

/// A database that the application depends on.
fn db(world: &mut World) {
    let now = world.containers[0].started_at.expect("the application runs");
    world.add_store("db", Duration::ZERO, now);
    add_service(world, "tool", false);
}

/// A store that is only in its network.
fn near(world: &mut World) {
    db(world);
    world.needs.clear();
}

/// The application's variables name it, and another host.
fn named(world: &mut World, variable: &str, value: &str) {
    let variables = world.environments.entry("processgit".into()).or_default();
    variables.insert(variable.into(), value.into());
}

/// In another container, of which they name the database.
fn hooks(options: &mut Options) {
    let of_db =
        |command: &str| Some(HookSetting { service: "tool".into(), command: vec![command.into(), "--host=db".into()] });
    (options.hook_before_copy, options.hook_after_restore) = (of_db("dump"), of_db("load"));
}

fn crashes() -> Scene {
    Scene { behaviour: Behaviour::Crashes, world: db, ..Scene::default() }
}

struct Row {
    name: &'static str,
    scene: Scene,
    end: State,
    /// Must stand in the error, or in a warning.
    says: &'static str,
}

const LOST: &str = "the new version may have changed the data of db (beside the application, and not copied)";
const TOLD: &str = "data beside the application is NOT copied: db (volume db; the application depends on it)";

fn rows() -> Vec<Row> {
    let row = |name, scene, end, says| Row { name, scene, end, says };
    let without_data = || Scene { has_data: false, ..crashes() };
    vec![
        row("a good version", Scene { behaviour: Behaviour::Good, ..crashes() }, Committed, TOLD),
        row("a bad version", crashes(), Failed, LOST),
        row("and it is told before", crashes(), Failed, "Set PROCESSGIT_UPDATER_DATA_SERVICES=db"),
        row("the application has no data of its own", without_data(), Failed, LOST),
        row(
            "a migration that fails",
            Scene { migration: Some("migrate"), behaviour: Behaviour::MigrationFails, ..crashes() },
            Failed,
            LOST,
        ),
        row(
            "declared to be looked after elsewhere",
            Scene { options: |o| o.data_elsewhere = vec!["db".into()], ..crashes() },
            RolledBack,
            "the data of db was not put back: PROCESSGIT_UPDATER_DATA_ELSEWHERE says that you look after it",
        ),
        row("hooks that dump and load it", Scene { options: hooks, ..crashes() }, RolledBack, "is not healthy"),
        row(
            "hooks that are not run, because nothing is copied",
            Scene { options: hooks, ..without_data() },
            Failed,
            "the hooks do not run, because no data of the application itself is copied",
        ),
        row(
            "a database on another host",
            Scene {
                world: |world| named(world, "DATABASE_URL", "postgres://u:s3cret@sql.example.org/app"),
                ..crashes()
            },
            Failed,
            "the data of sql.example.org (beside the application, and not copied)",
        ),
        row(
            "a container that its variables name",
            Scene {
                world: |world| {
                    near(world);
                    named(world, "DB_HOST", "db");
                },
                ..crashes()
            },
            Failed,
            LOST,
        ),
        row(
            "a container that is only in its network",
            Scene { world: near, ..crashes() },
            RolledBack,
            "this may be data of the application, and is not copied: db",
        ),
        row("a snapshot", Scene { order: snapshot, ..crashes() }, Committed, "The snapshot will not have it"),
        row(
            "a restore of the version that runs, which does not work with it",
            Scene { before: &[snapshot], since: breaks, order: restore, ..crashes() },
            RolledBack,
            "It stays as it is now, and need not fit the data that is put back",
        ),
        row(
            "a rollback by hand to a version that does not work any more",
            Scene { behaviour: Behaviour::Good, before: &[update], since: breaks, order: rollback, ..crashes() },
            Failed,
            LOST,
        ),
    ]
}

#[tokio::test(start_paused = true)]
async fn what_no_snapshot_has_decides_how_a_job_ends() {
    for Row { name, scene, end, says } in rows() {
        let installation = Installation::ready(scene).await;
        let job = installation.run(Arc::new(NoFaults)).await;
        assert_eq!(job.state, end, "{name}: {:?}", job.error);
        let told = format!("{} {}", job.error.clone().unwrap_or_default(), job.warnings.join(" "));
        assert!(told.contains(says), "{name}: {told}");
        assert!(!told.contains("s3cret"), "{name}: {told}");
        if end == RolledBack {
            // Nobody puts it back, as was told.
            let before = installation.before.lock().unwrap().clone().expect("the job was submitted");
            installation.world.world().stores = before.stores;
        }
        assert_invariants(&installation, &job, name);
        if end == Failed {
            assert!(told.contains("processgit-updater settle job_"), "{name}: {told}");
            let before = installation.before.lock().unwrap().clone().expect("the job was submitted");
            let world = installation.world.world();
            if installation.scene.has_data {
                assert_eq!(world.data, before.data, "{name}: its own data is what it was");
            }
            let image = |world: &World| {
                let application = world.containers.iter().find(|c| c.name == "processgit");
                application.map(|c| c.image_id.clone())
            };
            assert_eq!(image(&world), image(&before), "{name}: the old version runs");
        }
    }
}

/// What fails before anything of the new version has run leaves the database as it was.
#[tokio::test(start_paused = true)]
async fn nothing_is_lost_before_the_new_version_has_run() {
    let fail = || Fate::Fail("the disk is gone".into());
    for call in ["engine.pull", "data.hot", "data.cold", "engine.stop", "env.write"] {
        let installation = Installation::new(crashes());
        let job = installation.run(At::nth(call, 1, fail()) as Arc<dyn Faults>).await;
        assert_eq!(job.state, RolledBack, "{call}: {:?}", job.error);
        assert_eq!(installation.world.world().stores["db"], "written by 1.0.0", "{call}");
    }
}

/// The next life knows it, too.
#[tokio::test(start_paused = true)]
async fn a_death_changes_nothing_of_it() {
    for (call, end) in [("compose.up/start", Failed), ("data.cold", RolledBack)] {
        let installation = Installation::new(crashes());
        let (updater, world) = installation.process(At::nth(call, 1, Fate::DieAfter)).await;
        let job = installation.submit(&updater, installation.order()).await.expect("accepted");
        world.death().await;
        let (next, _) = installation.process(Arc::new(NoFaults)).await;
        let job = crate::bench::wait(&next, &job.id.0).await;
        assert_eq!(job.state, end, "{call}: {:?}", job.error);
    }
}

/// Whoever looks first is told once, with the setting that the operator has, and what to add to it.
#[tokio::test(start_paused = true)]
async fn a_look_tells_it_before() {
    let add = |world: &mut World| {
        db(world);
        let now = world.containers[0].started_at.expect("the application runs");
        world.add_store("search", Duration::ZERO, now);
    };
    let scene = Scene { world: add, options: |o| o.data_services = vec!["search".into()], ..Scene::default() };
    let installation = Installation::new(scene);
    let (updater, _) = installation.process(Arc::new(NoFaults)).await;
    let check = updater.check(CheckRequest::default()).await;
    assert!(check.allowed, "{:?}", check.refusal);
    let told: Vec<&String> = check.warnings.iter().filter(|w| w.contains("beside the application")).collect();
    assert_eq!(told.len(), 1, "{:?}", check.warnings);
    assert!(told[0].contains(TOLD) && !told[0].contains("search ("), "{told:?}");
    assert!(told[0].ends_with("Set PROCESSGIT_UPDATER_DATA_SERVICES=search,db"), "{told:?}");
}

/// A person who goes back is told what the count of what was written leaves out.
#[tokio::test(start_paused = true)]
async fn what_is_not_counted_is_told_before_a_rollback() {
    type Set = fn(&mut Options);
    let rows: [(Set, &[&str]); 4] = [
        (|_| {}, &["db"]),
        (hooks, &["db"]),
        (|o| o.data_elsewhere = vec!["db".into()], &["db"]),
        (|o| o.data_services = vec!["db".into()], &[]),
    ];
    for (options, expected) in rows {
        let installation =
            Installation::ready(Scene { world: db, options, before: &[update], ..Scene::default() }).await;
        let (updater, _) = installation.process(Arc::new(NoFaults)).await;
        let view = updater.rollback_view(true).await.expect("there is something to go back to");
        assert_eq!(view.not_counted, *expected);
    }
}
