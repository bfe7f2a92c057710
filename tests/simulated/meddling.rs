//! Somebody else acts at any moment: a person, a prune, a restarted engine; while the updater works and while
//! it is dead. The job ends in a state that is true, no two versions ever run on the same data, and no version
//! is called bad for what others did.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use processgit_updater::clock::Clock;
use processgit_updater::engine::simulated::{Behaviour, Fate, Faults, NoFaults, STRANGER, World, is_edited};
use processgit_updater::engine::{Container, RunState, label};
use processgit_updater::update::effects::is_half_swapped;
use processgit_updater::update::job::{Job, State};

use crate::bench::{At, DIGEST, Installation, Scene, wait};
use crate::death::{ended, live_until_death};
use crate::explorer::Remains;
use crate::faults::{calls_of, jobs_by_hand, only_looks, updates};
use crate::invariants::assert_verdict;

/// What somebody does.
#[derive(Clone, Copy)]
struct Deed {
    name: &'static str,
    does: fn(&mut World, Timestamp),
}

const fn deed(name: &'static str, does: fn(&mut World, Timestamp)) -> Deed {
    Deed { name, does }
}

const DEEDS: [Deed; 13] = [
    deed("the engine restarts", World::restart_engine),
    deed("compose up", |w, now| w.compose_up(false, usize::MAX, now)),
    deed("compose up --force-recreate", |w, now| w.compose_up(true, usize::MAX, now)),
    deed("compose up, interrupted after its first step", |w, now| w.compose_up(true, 1, now)),
    deed("compose up, interrupted after its second step", |w, now| w.compose_up(true, 2, now)),
    deed("compose up, interrupted after its third step", |w, now| w.compose_up(true, 3, now)),
    deed("the application's container is removed", |w, _| w.remove_application()),
    deed("docker container prune", |w, _| w.prune_containers()),
    deed("docker image prune -a", |w, _| w.prune_images()),
    deed("another container comes and writes to the data", |w, now| w.run_stranger(true, now)),
    deed("another container has written to the data", |w, now| w.run_stranger(false, now)),
    deed("more is written into the Compose file", |w, _| w.edited = true),
    deed("a comment is added to .env", |w, _| {
        if let Some(env) = &mut w.env {
            env.extend_from_slice(COMMENT);
        }
    }),
];

/// Does it just before the nth call.
struct Meddler {
    call: String,
    nth: usize,
    deed: Deed,
    seen: Mutex<usize>,
    clock: Arc<dyn Clock>,
}

impl Faults for Meddler {
    fn fate(&self, _: &str) -> Fate {
        Fate::Go
    }
    fn meanwhile(&self, name: &str, world: &mut World) {
        if name == self.call {
            let mut seen = self.seen.lock().unwrap();
            *seen += 1;
            if *seen == self.nth {
                (self.deed.does)(world, self.clock.now());
            }
        }
    }
}

/// What nobody may put right unattended: data that was written to a container of somebody else's, and data that
/// was thrown away, and data into which somebody goes on writing.
const BEYOND_REPAIR: [&str; 3] = [
    "what runs now is not what the updater started",
    "has a new, empty volume at",
    "container stranger writes to the application's data now, so the data cannot be put back",
];

#[derive(Default)]
struct Count {
    cases: usize,
    failed: BTreeMap<&'static str, Vec<String>>,
}

impl Count {
    /// Whatever was done, this holds.
    async fn check(&mut self, installation: &Installation, job: &Job, deed: Deed, context: String) {
        self.cases += 1;
        assert!(job.state.is_end(), "{context}: {job:?}");
        let clashes = installation.world.world().clashes.clone();
        // Nobody can look and start at once.
        assert!(clashes.is_empty() || context.contains(" before engine.start "), "{context}: {clashes:?}");
        if installation.scene.behaviour == Behaviour::Good {
            assert_eq!(installation.known_bad(DIGEST).await, None, "{context}: {:?}", job.error);
        }
        forget_what_people_leave(&mut installation.world.world());
        if deed.name.contains("written into the Compose file") {
            let edited: Vec<_> =
                installation.world.world().containers.iter().filter(|c| is_edited(c)).map(|c| c.name.clone()).collect();
            assert!(edited.is_empty(), "{context}: made of a file that nobody has planned with: {edited:?}");
        }
        installation.bring_back(|name| {
            job.warnings
                .iter()
                .any(|w| w.contains(&format!("container {name}, which was stopped with the application, was removed")))
        });
        match job.state {
            State::Failed => {
                let error = job.error.as_deref().unwrap_or_default();
                assert!(BEYOND_REPAIR.iter().any(|why| error.contains(why)), "{context}: {error}");
                self.failed.entry(deed.name).or_default().push(format!("{context}: {error}"));
            }
            // What others did to an application that the job has not touched is their business.
            State::RolledBack | State::Committed if !installation.touched(&job.id) => return,
            _ => {}
        }
        assert_verdict(installation, job, &context);
    }

    fn report(&self, what: &str) {
        println!("cases: {what} {}", self.cases);
        for (deed, failed) in &self.failed {
            println!("  {deed}: {} need a person, as {}", failed.len(), failed[0]);
        }
    }
}

const COMMENT: &[u8] = b"# meanwhile\n";

/// Comments that people add stay, and so does the half-made container of a person who came last: they are no
/// difference.
fn forget_what_people_leave(world: &mut World) {
    let standing: Vec<_> = world.containers.iter().filter(|c| !is_half_swapped(c)).cloned().collect();
    let stands = |c: &Container| standing.iter().any(|other| other.label(label::SERVICE) == c.label(label::SERVICE));
    world.containers.retain(|c| !(c.state == RunState::Created && is_half_swapped(c) && stands(c)));
    world.containers.retain(|c| c.name != STRANGER);
    if let Some(env) = &mut world.env
        && env.ends_with(COMMENT)
    {
        env.truncate(env.len() - COMMENT.len());
    }
}

/// Before every call that changes something and at the first look after it; at every look of the gate.
fn moments(mut calls: Vec<(String, usize)>) -> Vec<(String, usize)> {
    let mut after_a_look = false;
    let differs = |(call, _): &(String, usize)| {
        let looks = only_looks(call);
        let again = looks && after_a_look && !call.starts_with("probe.");
        after_a_look = looks;
        !again
    };
    calls.retain(differs);
    calls
}

async fn while_the_updater_works(what: &str, scenes: Vec<(&str, Scene)>) {
    let mut count = Count::default();
    for (kind, scene) in scenes {
        let first = Installation::ready(scene.clone()).await;
        let ready = first.remains("ready", 0);
        for (call, nth) in moments(calls_of(&scene).await) {
            for deed in DEEDS {
                let context = format!("{kind}: {} before {call} #{nth}", deed.name);
                let installation = first.from(&ready);
                let clock = ready.clock();
                let meddler = Meddler { call: call.clone(), nth, deed, seen: Mutex::new(0), clock };
                let (updater, _) = installation.process(Arc::new(meddler)).await;
                let Ok(job) = installation.submit(&updater, installation.order()).await else { continue };
                let job = wait(&updater, &job.id.0).await;
                count.check(&installation, &job, deed, context).await;
                assert!(updater.active().is_none());
            }
        }
    }
    count.report(&format!("deeds of others while an updater works, {what}"));
}

#[tokio::test(start_paused = true)]
async fn while_the_updater_works_on_an_update() {
    while_the_updater_works("updates", updates()).await;
}

#[tokio::test(start_paused = true)]
async fn while_the_updater_works_on_a_job_by_hand() {
    while_the_updater_works("jobs by hand", jobs_by_hand()).await;
}

#[tokio::test(start_paused = true)]
async fn while_the_updater_is_dead() {
    let mut count = Count::default();
    for (kind, scene) in updates().into_iter().chain(jobs_by_hand()) {
        let first = Installation::ready(scene.clone()).await;
        let watched = first.watched(0);
        first.run(watched.clone()).await;
        let unfinished =
            |r: &Remains| r.after != "journal.accepted" && r.disk.jobs.iter().any(|(j, _)| !j.state.is_end());
        for remains in watched.seen().into_iter().filter(unfinished) {
            for deed in DEEDS {
                let context = format!("{kind}: dead after {}, and {}", remains.after, deed.name);
                let installation = first.from(&remains);
                (deed.does)(&mut installation.world.world(), remains.now);
                let job = ended(&installation, Arc::new(NoFaults)).await;
                count.check(&installation, &job, deed, context).await;
            }
        }
    }
    count.report("deeds of others while an updater is dead");
}

/// The old version was started by somebody on data that a migration had begun to change, and people worked with it.
#[tokio::test(start_paused = true)]
async fn data_that_was_revived_long_ago_is_not_taken_back() {
    let installation = Installation::ready(Scene { migration: Some("migrate"), ..Scene::default() }).await;
    assert!(live_until_death(&installation, At::nth("engine.wait", 1, Fate::DieAfter)).await);
    let now = installation.now();
    installation.world.world().compose_up(false, usize::MAX, now);
    let data = installation.world.world().data.clone();
    tokio::time::advance(Duration::from_secs(2 * 3600 + 1)).await;
    let job = ended(&installation, Arc::new(NoFaults)).await;
    let error = job.error.unwrap_or_default();
    assert_eq!(job.state, State::Failed, "{error}");
    assert!(error.contains("the updater was away for 120 minutes"), "{error}");
    assert_eq!(installation.world.world().data, data);
}
