//! Every state that a death can leave behind. One life, watched, shows all the states in which it could have
//! died: after each call that changes something and after each save of the journal. From each of them the
//! next life begins, and is watched in turn, until nothing new is found.

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashSet, VecDeque};
use std::fmt::Write;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use processgit_updater::clock::{Clock, TokioClock};
use processgit_updater::engine::simulated::{Fate, Faults, World};
use processgit_updater::update::record::{Heading, Record};

use crate::journal::{Disk, Memory};

/// Calls that change nothing: a death around them is one that is known already.
const LOOKS: [&str; 17] = [
    "engine.info",
    "engine.container",
    "engine.containers",
    "engine.image",
    "engine.wait",
    "probe.ask",
    "probe.accepts",
    "env.read",
    "env.preflight",
    "data.preflight",
    "data.list",
    "data.verify",
    "data.distance",
    "data.export",
    "compose.config",
    "compose.dry_run",
    "compose.up/look",
];

/// What is left when everything of the process is gone.
#[derive(Clone)]
pub struct Remains {
    pub world: World,
    pub disk: Disk,
    pub now: Timestamp,
    /// After which call.
    pub after: String,
    /// How many deaths there were, this one included.
    pub deaths: u32,
}

impl Remains {
    /// Two states with the same print have the same future: identities and times are left out, as far as
    /// nobody compares them.
    pub fn print(&self) -> u64 {
        let mut text = String::new();
        let (world, disk) = (&self.world, &self.disk);
        let record = disk.jobs.iter().find(|(job, _)| !job.state.is_end()).map(|(_, record)| record);
        for c in &world.containers {
            let same_life = record.is_some_and(|r| r.learned.stopped.get(&c.id) == Some(&c.started_at));
            let _ = write!(
                text,
                "{} {} {} {:?} {} {} {same_life} {:?};",
                c.id, c.name, c.image_id, c.state, c.exit_code, c.restart_policy.name, c.labels
            );
        }
        let data: Vec<_> = world.generations.iter().map(|(id, (_, data))| (id, data)).collect();
        let images: Vec<_> = world.images.keys().collect();
        let _ = write!(
            text,
            "{images:?}{:?}{:?}{}{data:?}{:?}",
            world.tags,
            world.env,
            world.data,
            (&world.stores, &world.kept_stores)
        );
        if let Some(r) = record {
            let learned = &r.learned;
            let _ = write!(
                text,
                "{:?}{}{:?}{:?}{:?}{:?}{}{}{}",
                r.plan.is_some(),
                r.heading == Heading::There,
                r.begun,
                r.done,
                (r.failed_there, r.failed_back),
                (&learned.new_image_id, &learned.generation, &learned.failed_generation, learned.swap_began.is_some()),
                // All that have worn out are alike.
                r.lives.min(Record::MAX_LIVES + 2),
                r.interrupted,
                r.aborted
            );
        }
        let mut hasher = DefaultHasher::new();
        (without_identities(&text), disk.known_bad.len(), &disk.highest).hash(&mut hasher);
        hasher.finish()
    }

    /// A clock that goes on from there.
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(TokioClock::starting_at(self.now))
    }
}

/// Container ids come from a counter and job ids from chance: each is replaced by the order in which it
/// appears. Images keep theirs.
fn without_identities(text: &str) -> String {
    let (mut plain, mut known) = (String::with_capacity(text.len()), Vec::new());
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_ascii_hexdigit()) {
        let (before, from) = rest.split_at(at);
        plain.push_str(before);
        let length = from.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(from.len());
        let (word, after) = from.split_at(length);
        let (of_container, of_job) = (word.len() == 64 && word.starts_with("00000000"), word.len() == 16);
        if of_container || of_job {
            let number = known.iter().position(|k| *k == word).unwrap_or_else(|| {
                known.push(word);
                known.len() - 1
            });
            let _ = write!(plain, "#{number}");
        } else {
            plain.push_str(word);
        }
        rest = after;
    }
    plain.push_str(rest);
    plain
}

/// Watches a life.
pub struct Witness {
    journal: Arc<Memory>,
    clock: Arc<dyn Clock>,
    deaths: u32,
    seen: Mutex<Vec<Remains>>,
}

impl Witness {
    pub fn of(journal: Arc<Memory>, clock: Arc<dyn Clock>, deaths: u32) -> Arc<Self> {
        Arc::new(Self { journal, clock, deaths, seen: Mutex::default() })
    }

    /// In which states it could have died.
    pub fn seen(&self) -> Vec<Remains> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

impl Faults for Witness {
    fn fate(&self, _: &str) -> Fate {
        Fate::Go
    }

    fn done(&self, name: &str, world: &World) {
        if LOOKS.contains(&name) {
            return;
        }
        let (disk, now) = (self.journal.disk().clone(), self.clock.now());
        let remains = Remains { world: world.clone(), disk, now, after: name.to_owned(), deaths: self.deaths + 1 };
        self.seen.lock().unwrap().push(remains);
    }
}

/// States that are still to be lived from, each once, those after fewer deaths first.
#[derive(Default)]
pub struct Frontier {
    known: HashSet<u64>,
    open: VecDeque<Remains>,
}

impl Frontier {
    pub fn add(&mut self, remains: impl IntoIterator<Item = Remains>) {
        for one in remains {
            if self.known.insert(one.print()) {
                self.open.push_back(one);
            }
        }
    }

    pub fn next(&mut self) -> Option<Remains> {
        self.open.pop_front()
    }

    pub fn len(&self) -> usize {
        self.known.len()
    }
}
