//! A row of the journal: a job or a record.

use processgit_updater::update::advice;
use processgit_updater::update::job::Job;
use processgit_updater::update::record::Record;
use processgit_updater::update::transition::{Action, App, Env, Seen, next, way_back, way_there};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What can be read at all is written back the same, and whatever a record says there is a next action in every
/// world, one that belongs to its way.
pub fn fuzz(bytes: &[u8]) {
    round_trip::<Job>(bytes);
    let Some(record) = round_trip::<Record>(bytes) else { return };
    let way = record.plan.as_ref().map(way_there).unwrap_or_default();
    let back = if record.plan.is_some() { way_back(&record) } else { Vec::new() };
    for seen in worlds() {
        match next(&record, &seen) {
            Action::Do(effect) => assert!(way.contains(&effect) || back.contains(&effect), "{effect:?} is on no way"),
            Action::Turn(why) => assert!(!why.is_empty(), "back without a reason"),
            Action::End(verdict) => {
                assert!(verdict.state.is_end(), "{verdict:?}");
                let proven = verdict.error.is_none();
                assert_eq!(
                    proven,
                    verdict.state.name() == "committed",
                    "a reason, and only without success: {verdict:?}"
                );
            }
        }
        if let Some(plan) = &record.plan {
            assert!(!advice::by_hand(&record, plan, Some(&seen)).is_empty(), "no advice for {seen:?}");
        }
    }
}

fn round_trip<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> Option<T> {
    let read: T = serde_json::from_slice(bytes).ok()?;
    let text = serde_json::to_vec(&read).expect("what was read can be written");
    let again: T = serde_json::from_slice(&text).expect("what was written can be read");
    assert_eq!(again, read);
    Some(read)
}

/// Everything that can be seen, as far as the next action depends on it.
fn worlds() -> Vec<Seen> {
    let mut apps = vec![App::Mixed, App::Foreign, App::Gone];
    for running in [false, true] {
        apps.extend([App::Untouched { running }, App::OldAnew { running }]);
        apps.extend([false, true].map(|ours| App::New { running, ours }));
    }
    let mut worlds = Vec::new();
    for app in apps {
        for env in [Env::Before, Env::After, Env::KeyBefore, Env::KeyAfter, Env::Other] {
            for (old_image, new_image) in [(true, true), (true, false), (false, true), (false, false)] {
                worlds.extend([0, 7200].map(|since_swap| Seen { app, env, old_image, new_image, since_swap }));
            }
        }
    }
    worlds
}
