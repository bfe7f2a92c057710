//! Every call of every kind of job fails, works without saying so, or meets an engine that is away: by
//! enumeration.

use std::collections::BTreeMap;
use std::sync::Arc;

use processgit_updater::engine::simulated::{Behaviour, Fate};
use processgit_updater::update::Order;
use processgit_updater::update::job::State;

use crate::bench::{
    At, Installation, Recorder, Scene, anonymous, crewed, occurrences, restore, rollback, snapshot, update, wait,
};
use crate::by_hand::{breaks, crashes, hooked, waiting, with_database, written};
use crate::invariants::assert_invariants;

/// The kinds of update.
pub fn updates() -> Vec<(&'static str, Scene)> {
    let scene = Scene::default;
    vec![
        ("commit", scene()),
        ("commit, no data", Scene { has_data: false, ..scene() }),
        ("commit with migration", Scene { migration: Some("migrate"), restart_policy: "always", ..scene() }),
        ("crash loop, a volume without a name", Scene { behaviour: Behaviour::Crashes, ..anonymous() }),
        ("crash loop, no data", Scene { behaviour: Behaviour::Crashes, has_data: false, ..scene() }),
        ("migration fails", Scene { behaviour: Behaviour::MigrationFails, migration: Some("migrate"), ..scene() }),
        ("crash loop, hooks and a companion that it needs", Scene { behaviour: Behaviour::Crashes, ..waiting() }),
        (
            "migration fails, a database",
            Scene { behaviour: Behaviour::MigrationFails, migration: Some("migrate"), ..with_database() },
        ),
        ("a crew, no data", Scene { has_data: false, ..crewed() }),
        ("a crew whose worker crashes", Scene { behaviour: Behaviour::WorkerCrashes, ..crewed() }),
    ]
}

/// The kinds of job by hand.
pub fn jobs_by_hand() -> Vec<(&'static str, Scene)> {
    let scene = Scene::default;
    vec![
        ("snapshot", Scene { order: snapshot, restart_policy: "always", ..scene() }),
        ("snapshot, hooks and a companion that it needs", Scene { order: snapshot, ..waiting() }),
        ("hot snapshot", Scene { order: |_| Order::Snapshot { hot: true }, ..scene() }),
        ("restore", Scene { before: &[snapshot], since: written, order: restore, ..hooked() }),
        ("restore that fails", Scene { before: &[snapshot], since: breaks, order: restore, ..hooked() }),
        ("restore of the version before", Scene { before: &[update], order: restore, ..hooked() }),
        (
            "restore that fails, a database",
            Scene { before: &[snapshot], since: breaks, order: restore, ..with_database() },
        ),
        ("snapshot, a crew", Scene { order: snapshot, ..crewed() }),
        ("rollback that fails", Scene { before: &[update], since: crashes, order: rollback, ..scene() }),
        (
            "rollback without data",
            Scene {
                before: &[update],
                order: |_| Order::Rollback { with_data: false, accept_drift: false, accept_partial: false },
                by_hand: ("1.0.0", "written by 1.0.0, written by 1.1.0"),
                ..scene()
            },
        ),
    ]
}

/// All calls that this kind of job makes when nothing goes wrong.
pub async fn calls_of(scene: &Scene) -> Vec<(String, usize)> {
    let recorder = Arc::new(Recorder::default());
    let installation = Installation::ready(scene.clone()).await;
    installation.run(recorder.clone()).await;
    // Before a job is accepted there is none; and the first look is at what an earlier life left.
    let calls: Vec<String> = recorder.0.lock().unwrap().iter().filter(|c| *c != "journal.accepted").cloned().collect();
    occurrences(&calls).into_iter().filter(|(call, nth)| (&**call, *nth) != ("engine.containers", 1)).collect()
}

/// Calls that change nothing: what happens after one of them happens before the next.
pub fn only_looks(call: &str) -> bool {
    ["engine.info", "engine.container", "engine.image", "engine.wait", "compose.config", "compose.dry_run", "probe."]
        .iter()
        .any(|name| call.starts_with(name))
        || ["env.read", "env.preflight", "data.preflight", "data.list", "compose.up/look"].contains(&call)
}

/// What may befall a call. Only the engine and Compose are somewhere else, where they may be away or hang.
fn fates_of(call: &str) -> Vec<Fate> {
    let mut fates = vec![Fate::Fail("it broke".into()), Fate::Lose("the answer was lost".into()), Fate::Panic];
    if ["engine.", "compose.", "probe."].iter().any(|elsewhere| call.starts_with(elsewhere)) {
        fates.extend([Fate::Away, Fate::Hang, Fate::HangAfter]);
    }
    fates
}

/// Thousands of panics are wanted here, and none of their stacks.
fn panic_quietly() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let wanted = panic.payload_as_str().is_some_and(|text| text.ends_with("as the test says"));
        if !wanted {
            usual(panic);
        }
    }));
}

async fn fails_at_any_call(what: &str, scenes: Vec<(&str, Scene)>) {
    panic_quietly();
    let mut cases = BTreeMap::new();
    for (kind, scene) in scenes {
        let ready = Installation::ready(scene.clone()).await.remains("ready", 0);
        for (call, nth) in calls_of(&scene).await {
            for fate in fates_of(&call) {
                let context = format!("{kind}: {call} #{nth} {fate:?}");
                let installation = Installation::new(scene.clone()).from(&ready);
                let (updater, _) = installation.process(At::nth(&call, nth, fate.clone())).await;
                let Ok(job) = installation.submit(&updater, installation.order()).await else { continue };
                let job = wait(&updater, &job.id.0).await;
                assert_invariants(&installation, &job, &context);
                assert_ne!(job.state, State::Failed, "{context}: one fault is never fatal: {:?}", job.error);
                assert!(updater.active().is_none(), "{context}: a next job is accepted");
                *cases.entry(format!("{fate:?}")).or_insert(0) += 1;
            }
        }
    }
    println!("of these {cases:?}");
    println!("cases: calls with a fault, {what} {}", cases.values().sum::<i32>());
    assert!(cases.values().all(|count| *count > 300));
}

#[tokio::test(start_paused = true)]
async fn every_call_of_an_update_may_fail() {
    fails_at_any_call("updates", updates()).await;
}

#[tokio::test(start_paused = true)]
async fn every_call_of_a_job_by_hand_may_fail() {
    fails_at_any_call("jobs by hand", jobs_by_hand()).await;
}
