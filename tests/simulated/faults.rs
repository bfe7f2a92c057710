//! Every call of every kind of job fails, works without saying so, or meets an engine that is away: by
//! enumeration.

use std::sync::Arc;

use processgit_updater::engine::simulated::{Behaviour, Fate};
use processgit_updater::update::job::State;

use processgit_updater::update::Order;

use crate::bench::{At, Installation, Recorder, Scene, assert_invariants, occurrences, request, wait};

/// The kinds of job.
pub fn scenes() -> Vec<(&'static str, Scene)> {
    let scene = Scene::default;
    vec![
        ("commit", scene()),
        ("commit, no data", Scene { has_data: false, ..scene() }),
        ("commit with migration", Scene { migration: Some("migrate"), restart_policy: "always", ..scene() }),
        ("crash loop", Scene { behaviour: Behaviour::Crashes, ..scene() }),
        ("crash loop, no data", Scene { behaviour: Behaviour::Crashes, has_data: false, ..scene() }),
        ("migration fails", Scene { behaviour: Behaviour::MigrationFails, migration: Some("migrate"), ..scene() }),
    ]
}

/// All calls that this kind of job makes when nothing goes wrong.
pub async fn calls_of(scene: &Scene) -> Vec<(String, usize)> {
    let recorder = Arc::new(Recorder::default());
    let installation = Installation::new(scene.clone());
    installation.update(recorder.clone()).await;
    let calls = recorder.0.lock().unwrap().clone();
    occurrences(&calls)
}

#[tokio::test(start_paused = true)]
async fn every_call_may_fail() {
    let fates = [Fate::Fail("it broke".into()), Fate::Lose("the answer was lost".into()), Fate::Away];
    let mut cases = 0;
    for (kind, scene) in scenes() {
        for (call, nth) in calls_of(&scene).await {
            for fate in &fates {
                let context = format!("{kind}: {call} #{nth} {fate:?}");
                let installation = Installation::new(scene.clone());
                let (updater, world) = installation.process(At::nth(&call, nth, fate.clone())).await;
                let _ = &world;
                let Ok(job) = updater.submit(Order::Update(request())).await else { continue };
                let job = wait(&updater, &job.id.0).await;
                assert_invariants(&installation, &job, &context);
                assert_ne!(job.state, State::Failed, "{context}: one fault is never fatal: {:?}", job.error);
                assert!(updater.active().is_none(), "{context}: a next job is accepted");
                cases += 1;
            }
        }
    }
    println!("{cases} single faults");
    assert!(cases > 300);
}
