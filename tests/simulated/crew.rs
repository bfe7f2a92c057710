//! Services of one image that move together: what is told before, and what is refused.

use std::sync::Arc;

use processgit_updater::engine::label;
use processgit_updater::engine::simulated::{NoFaults, World};
use processgit_updater::update::job::State::{self, *};
use processgit_updater::update::{CheckRequest, Order, Request};

use crate::bench::{Installation, Scene, crewed, request, snapshot, update};
use crate::invariants::assert_invariants;

#[tokio::test(start_paused = true)]
async fn what_moves_and_what_is_stopped_is_told_before() {
    let installation = Installation::new(crewed());
    let (updater, _) = installation.process(Arc::new(NoFaults)).await;
    let check = updater.check(CheckRequest::default()).await;
    assert!(check.allowed, "{:?}", check.refusal);
    let told = check.changes.join("\n");
    for line in ["moved with it: init, lodger, worker", "snapshot: of /data, worker:/own"] {
        assert!(told.contains(line), "{line}: {told}");
    }
    assert!(!told.contains("stopped with it"), "who is moved is not told twice: {told}");
    assert_eq!(check.warnings, [""; 0], "nobody is left behind");

    let some = Scene { options: |options| options.move_services = vec!["lodger".into()], ..crewed() };
    let installation = Installation::new(Scene { has_data: false, ..some });
    let (updater, _) = installation.process(Arc::new(NoFaults)).await;
    let check = updater.check(CheckRequest::default()).await;
    let told = check.warnings.join("\n");
    assert!(told.contains("not by this update: init, worker"), "{told}");
}

fn older_worker(world: &mut World) {
    let of_worker = |c: &&mut processgit_updater::engine::Container| c.label(label::SERVICE) == Some("worker");
    let worker = world.containers.iter_mut().find(of_worker).expect("there is one");
    worker.image_ref = worker.image_ref.replace("1.0.0", "0.9.0").replace("1.1.0", "0.9.0");
}

fn without_lodger(world: &mut World) {
    world.containers.retain(|c| c.label(label::SERVICE) != Some("lodger"));
}

fn two_workers(world: &mut World) {
    let mut second = world.containers.iter().find(|c| c.name == "test-worker-1").expect("there is one").clone();
    (second.id, second.name) = ("2".repeat(64), "test-worker-2".into());
    world.containers.push(second);
}

#[tokio::test(start_paused = true)]
async fn each_must_be_as_the_files_say() {
    type Row = (&'static str, fn(&mut World), bool, State, &'static str);
    let rows: [Row; 5] = [
        ("nothing is wrong", |_| {}, false, Committed, ""),
        ("one runs another version", older_worker, false, RolledBack, "worker: image: the files say"),
        ("so it does, and it is accepted", older_worker, true, Committed, ""),
        (
            "one has no container",
            without_lodger,
            false,
            RolledBack,
            "service lodger (PROCESSGIT_UPDATER_MOVE_SERVICES)",
        ),
        (
            "one has two",
            two_workers,
            false,
            RolledBack,
            "service worker has 2 containers (test-worker-1, test-worker-2)",
        ),
    ];
    for (name, since, accept_drift, end, reason) in rows {
        let installation = Installation::ready(Scene { since, ..crewed() }).await;
        let (updater, _) = installation.process(Arc::new(NoFaults)).await;
        let job = installation.submit_and_wait(&updater, Order::Update(Request { accept_drift, ..request() })).await;
        let error = job.error.clone().unwrap_or_default();
        assert_eq!(job.state, end, "{name}: {error}");
        assert!(error.contains(reason), "{name}: {error}");
        if end == Committed {
            assert_invariants(&installation, &job, name);
        }
    }
}

/// The same version again: nothing is changed, if all of them run it.
#[tokio::test(start_paused = true)]
async fn the_same_digest_must_run_in_all_of_them() {
    type Row = (fn(&mut World), State, &'static str);
    let rows: [Row; 2] = [
        (|_| {}, Committed, ""),
        (
            older_worker,
            RolledBack,
            "runs already, but not in all that is moved with it. Run `docker compose up -d worker`",
        ),
    ];
    for (since, end, reason) in rows {
        let installation = Installation::ready(Scene { before: &[update], since, ..crewed() }).await;
        let (updater, _) = installation.process(Arc::new(NoFaults)).await;
        let before = installation.world.world().containers.clone();
        let again = Order::Update(Request { accept_drift: true, ..request() });
        let job = installation.submit_and_wait(&updater, again).await;
        let error = job.error.clone().unwrap_or_default();
        assert_eq!(job.state, end, "{error}");
        assert!(error.contains(reason), "{error}");
        assert_eq!(installation.world.world().containers, before);
    }
}

/// Even a snapshot takes the namespaces away from whoever lives in them.
#[tokio::test(start_paused = true)]
async fn a_snapshot_stops_who_lives_in_the_namespaces_or_is_refused() {
    let order = snapshot;
    let scene = Scene { options: |options| options.move_services = vec!["worker".into()], order, ..crewed() };
    let job = Installation::new(scene).run(Arc::new(NoFaults)).await;
    assert_eq!(job.state, RolledBack);
    assert!(job.error.unwrap().contains("test-lodger-1 lives in the namespaces of processgit"));
    let installation = Installation::new(Scene { order, ..crewed() });
    let job = installation.run(Arc::new(NoFaults)).await;
    assert_eq!(job.state, Committed, "{:?}", job.error);
    assert_invariants(&installation, &job, "a snapshot with a crew");
}
