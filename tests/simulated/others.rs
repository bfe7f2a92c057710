//! What others do meanwhile: somebody starts what was stopped, somebody prunes.

use std::sync::{Arc, Mutex};

use processgit_updater::engine::label;
use processgit_updater::engine::simulated::{Behaviour, Fate, Faults, NoFaults, STRANGER, Simulated, World};
use processgit_updater::engine::{Container, RunState};
use processgit_updater::update::job::State::{self, *};

use crate::bench::{Installation, Scene, anonymous, restore, snapshot};
use crate::by_hand::hooked;
use crate::invariants::assert_invariants;

/// Somebody who does this in the middle of a call.
pub struct Meddler {
    pub world: Simulated,
    pub call: &'static str,
    pub deed: Mutex<Option<fn(&mut World)>>,
}

impl Faults for Meddler {
    fn fate(&self, name: &str) -> Fate {
        if name == self.call
            && let Some(deed) = self.deed.lock().unwrap().take()
        {
            deed(&mut self.world.world());
        }
        Fate::Go
    }
}

/// It was started, wrote, and was stopped again.
fn has_run(c: &mut Container) {
    c.state = RunState::Exited;
    c.started_at = c.started_at.map(|at| at + std::time::Duration::from_secs(1));
}

fn app_has_run(world: &mut World) {
    let is_app = |c: &&mut Container| c.label(label::SERVICE) == Some("processgit");
    world.containers.iter_mut().filter(is_app).for_each(has_run);
}

fn companion_has_run(world: &mut World) {
    let is_worker = |c: &&mut Container| c.label(label::SERVICE) == Some("worker");
    world.containers.iter_mut().filter(is_worker).for_each(has_run);
}

/// A container of somebody else's came, wrote into the data, and ended.
fn stranger_has_written(world: &mut World) {
    let now = world.containers[0].started_at.map(|at| at + std::time::Duration::from_secs(60)).unwrap();
    world.run_stranger(false, now);
}

/// `docker container prune`
fn prune(world: &mut World) {
    world.containers.retain(|c| c.state == RunState::Running);
}

/// `docker system prune -a`
fn prune_all(world: &mut World) {
    prune(world);
    let used: Vec<String> = world.containers.iter().map(|c| c.image_id.clone()).collect();
    world.images.retain(|id, _| used.contains(id));
    world.tags.retain(|_, id| used.contains(id));
}

struct Row {
    name: &'static str,
    scene: Scene,
    /// In the middle of the first of these.
    call: &'static str,
    deed: fn(&mut World),
    end: State,
    /// Must stand in the job.
    says: &'static str,
}

fn rows() -> Vec<Row> {
    let scene = Scene::default;
    let migration = || Scene { migration: Some("migrate"), ..scene() };
    let crashes = || Scene { behaviour: Behaviour::Crashes, ..scene() };
    let row = |name, scene, call, deed, says| Row { name, scene, call, deed, end: RolledBack, says };
    vec![
        row(
            "started during the cold copy",
            scene(),
            "data.cold",
            app_has_run,
            "processgit was started by somebody else during copying its data",
        ),
        row(
            "a companion, started during the cold copy",
            hooked(),
            "data.cold",
            companion_has_run,
            "test-worker-1 was started by somebody else during copying its data",
        ),
        row(
            "another container, during the cold copy",
            scene(),
            "data.cold",
            stranger_has_written,
            "container stranger had write access to the application's data while it was copied",
        ),
        row(
            "started during the hook",
            hooked(),
            "engine.wait",
            app_has_run,
            "processgit was started by somebody else during the hook before the copy",
        ),
        row(
            "started during the migration",
            migration(),
            "engine.wait",
            app_has_run,
            "processgit was started by somebody else during the migration",
        ),
        row(
            "started while earlier data is loaded",
            Scene { before: &[snapshot], order: restore, ..scene() },
            "data.load",
            app_has_run,
            "processgit was started by somebody else during restoring its data",
        ),
        row(
            "started before the swap",
            scene(),
            "env.write",
            app_has_run,
            "processgit was started by somebody else during the update",
        ),
        // It is put back once more.
        row(
            "started while the data is put back",
            crashes(),
            "data.restore",
            app_has_run,
            "processgit was started by somebody else during restoring the data; trying again",
        ),
        row(
            "containers are pruned",
            scene(),
            "data.cold",
            prune,
            "the container processgit was removed by somebody else during copying its data",
        ),
        row("everything is pruned", scene(), "data.cold", prune_all, "the old image is gone; pulling"),
        row(
            "everything is pruned during a migration",
            migration(),
            "engine.wait",
            prune_all,
            "the old image is gone; pulling",
        ),
        row(
            "containers are pruned during a snapshot",
            Scene { order: snapshot, ..scene() },
            "data.cold",
            prune,
            "the container processgit was removed by somebody else",
        ),
        row(
            "everything is pruned during a snapshot",
            Scene { order: snapshot, ..scene() },
            "data.cold",
            prune_all,
            "the old image is gone; pulling",
        ),
        Row {
            end: Failed,
            ..row(
                "containers are pruned, and the data has no name",
                anonymous(),
                "data.cold",
                prune,
                "has a new, empty volume at /data",
            )
        },
    ]
}

#[tokio::test(start_paused = true)]
async fn what_others_do_is_noticed_and_undone() {
    for Row { name, scene, call, deed, end, says } in rows() {
        let installation = Installation::ready(scene).await;
        let (world, deed) = (installation.world.clone(), Mutex::new(Some(deed)));
        let meddler = Arc::new(Meddler { world, call, deed });
        let job = installation.run(meddler.clone()).await;
        assert!(meddler.deed.lock().unwrap().is_none(), "{name}: it came to that");
        assert_eq!(job.state, end, "{name}: {:?}", job.error);
        let output: String = job.steps.iter().filter_map(|step| step.output.clone()).collect();
        let told = format!("{} {output}", job.error.clone().unwrap_or_default());
        assert!(told.contains(says), "{name}: {told}");
        installation.world.world().containers.retain(|c| c.name != STRANGER);
        assert_invariants(&installation, &job, name);
    }
}

/// What cannot be brought back is not passed over in silence.
#[tokio::test(start_paused = true)]
async fn a_companion_that_was_removed_is_told() {
    let installation = Installation::ready(hooked()).await;
    let without = |world: &mut World| world.containers.retain(|c| c.label(label::SERVICE) != Some("worker"));
    let (world, deed) = (installation.world.clone(), Mutex::new(Some(without as fn(&mut World))));
    let job = installation.run(Arc::new(Meddler { world, call: "compose.up/start", deed })).await;
    assert_eq!(job.state, Committed, "{:?}", job.error);
    assert!(job.warnings.iter().any(|w| w.contains("test-worker-1, which was stopped")), "{:?}", job.warnings);
    let (updater, _) = installation.process(Arc::new(NoFaults)).await;
    assert!(updater.active().is_none());
}

/// Also where nothing is copied: a migration changes the same data.
#[tokio::test(start_paused = true)]
async fn nobody_writes_while_a_migration_runs() {
    let scene = Scene { snapshots: false, migration: Some("migrate"), ..hooked() };
    let installation = Installation::ready(Scene { options: |_| {}, ..scene.clone() }).await;
    let error = installation.run(Arc::new(NoFaults)).await.error.unwrap_or_default();
    assert!(error.contains("which must not change meanwhile: test-worker-1"), "{error}");
    let installation = Installation::ready(scene).await;
    let job = installation.run(Arc::new(NoFaults)).await;
    assert_eq!(job.state, Committed, "{:?}", job.error);
    let stopping = job.steps.iter().filter_map(|step| step.output.clone()).collect::<String>();
    assert!(stopping.contains("stopping test-worker-1"), "{stopping}");
}

/// Nothing may route traffic to a one-shot container, or take it for the service.
#[tokio::test(start_paused = true)]
async fn a_migration_and_a_hook_look_like_nobody() {
    let look = |world: &mut World| {
        let one_shots =
            || world.containers.iter().filter(|c| ["migration", "hook"].contains(&c.label(label::ROLE).unwrap_or("")));
        assert_eq!(one_shots().count(), 1, "{:#?}", world.containers);
        for c in one_shots() {
            assert!(c.name.starts_with("processgit-updater-"), "{}", c.name);
            assert_ne!(c.label(label::PROJECT), Some("test"), "a project of its own");
            assert_ne!(c.label(label::SERVICE), Some("processgit"));
            assert_eq!(c.restart_policy.name, "no");
        }
    };
    for scene in [hooked(), Scene { migration: Some("migrate"), ..Scene::default() }] {
        let installation = Installation::ready(scene).await;
        let (world, deed) = (installation.world.clone(), Mutex::new(Some(look as fn(&mut World))));
        let looker = Arc::new(Meddler { world, call: "engine.wait", deed });
        let job = installation.run(looker.clone()).await;
        assert!(looker.deed.lock().unwrap().is_none() && job.state == Committed, "{:?}", job.error);
    }
}
