//! Runs, for each mutant, the tests that reach it, until one of them fails.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde::{Deserialize, Serialize};

use crate::list::Mutant;
use crate::memory::Memory;

/// A test, and in which program it is.
struct Test {
    program: usize,
    name: String,
    /// Processor time.
    took: Duration,
    /// What it waits for counts too when tests are put in order.
    lasted: Duration,
}

/// All tests, and for each mutant those that reach it, the quickest first.
pub struct Suite<'a> {
    programs: &'a [PathBuf],
    folder: &'a Path,
    budget: Duration,
    tests: Vec<Test>,
    reached: HashMap<usize, Vec<usize>>,
}

/// A test that uses no processor for so long waits for something that never comes.
const IDLE: Duration = Duration::from_secs(20);
/// The tests that caught a mutant last in the same file are asked first: so many.
const RECENT: usize = 6;

/// How a mutant fared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Fate {
    Caught,
    Survived,
    NotReached,
}

impl<'a> Suite<'a> {
    /// Runs every test once as it is; those that take longer than `budget`, or fail, are left out. Times are processor
    /// times, so that a machine with other work changes nothing.
    ///
    /// # Errors
    /// The tests cannot be listed.
    pub fn explore(programs: &'a [PathBuf], folder: &'a Path, budget: Duration, memory: &Memory) -> Result<Self> {
        let mut names = Vec::new();
        for (program, path) in programs.iter().enumerate() {
            let listed = Command::new(path).args(["--list", "--format", "terse"]).current_dir(folder).output()?;
            let listed = String::from_utf8(listed.stdout)?;
            names.extend(listed.lines().filter_map(|line| Some((program, line.strip_suffix(": test")?.to_owned()))));
        }
        names.retain(|(_, name)| !memory.is_slow(name, budget));
        let done = Mutex::new(Vec::new());
        parallel(names.len(), |i| {
            let (program, name) = &names[i];
            let notes = folder.join(format!("target/reached.{i}"));
            let _ = fs::remove_file(&notes);
            let call = Call { program: &programs[*program], folder, names: &[name], mutant: 0, reached: Some(&notes) };
            let begun = Instant::now();
            let (passed, took) = call.run(budget).unwrap_or_default();
            let reached = fs::read_to_string(&notes).unwrap_or_default();
            let reached: Vec<usize> = reached.lines().filter_map(|line| line.parse().ok()).collect();
            let _ = fs::remove_file(&notes);
            if took >= budget {
                memory.note_slow(name, took);
            }
            let test = Test { program: *program, name: name.clone(), took, lasted: begun.elapsed() };
            done.lock().expect("a thread died").push((test, reached, passed));
        });
        let mut done = done.into_inner().expect("a thread died");
        done.sort_by_key(|(test, ..)| test.lasted);
        done.retain(|(test, _, passed)| {
            if !passed && test.took < budget {
                eprintln!("left out, because it fails without any mutant: {}", test.name);
            }
            *passed
        });
        let mut suite = Self { programs, folder, budget, tests: Vec::new(), reached: HashMap::new() };
        for (test, reached, _) in done {
            for mutant in reached {
                suite.reached.entry(mutant).or_default().push(suite.tests.len());
            }
            suite.tests.push(test);
        }
        Ok(suite)
    }

    /// Finds the fates of `mutants` and tells each, with the test that caught it; first those that no test reaches.
    pub fn fates(&self, mutants: &[&Mutant], memory: &Memory, tell: impl Fn(&Mutant, Fate, Option<&str>) + Sync) {
        let (reached, never): (Vec<&Mutant>, Vec<&Mutant>) =
            mutants.iter().partition(|mutant| self.reached.contains_key(&mutant.number));
        never.into_iter().for_each(|mutant| tell(mutant, Fate::NotReached, None));
        let recent = Mutex::new(HashMap::<&str, VecDeque<usize>>::new());
        parallel(reached.len(), |i| {
            let mutant = reached[i];
            let before = memory.caught_by(mutant).and_then(|name| self.tests.iter().position(|test| test.name == name));
            let mut first: Vec<usize> = before.into_iter().collect();
            first.extend(recent.lock().expect("a thread died").get(&*mutant.file).into_iter().flatten());
            let (fate, by) = self.fate(mutant.number, &first);
            if let Some(by) = by {
                let mut recent = recent.lock().expect("a thread died");
                let of_file = recent.entry(&mutant.file).or_default();
                of_file.retain(|test| *test != by);
                of_file.push_front(by);
                of_file.truncate(RECENT);
            }
            tell(mutant, fate, by.map(|by| &*self.tests[by].name));
        });
    }

    /// The fate, and the test that caught it. Those of `first` that reach it are asked first.
    fn fate(&self, mutant: usize, first: &[usize]) -> (Fate, Option<usize>) {
        let Some(reaching) = self.reached.get(&mutant) else { return (Fate::NotReached, None) };
        let mut asked = HashSet::new();
        for test in first.iter().filter(|test| reaching.contains(test)) {
            if asked.insert(*test) && self.catches(mutant, &[*test]).is_some() {
                return (Fate::Caught, Some(*test));
            }
        }
        let mut left = self.budget;
        let affordable = reaching.iter().copied().filter(|test| !asked.contains(test)).filter(|test| {
            let affords = left.checked_sub(self.tests[*test].took);
            left = affords.unwrap_or(left);
            affords.is_some()
        });
        let affordable: Vec<usize> = affordable.collect();
        let mut rest = &affordable[..];
        let mut size = 1;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(size.min(rest.len()));
            if let Some(by) = self.catches(mutant, now) {
                return (Fate::Caught, Some(by));
            }
            rest = later;
            size *= 3;
        }
        (Fate::Survived, None)
    }

    /// The first of these tests that notices this mutant.
    fn catches(&self, mutant: usize, tests: &[usize]) -> Option<usize> {
        (0..self.programs.len()).find_map(|program| {
            let of: Vec<usize> = tests.iter().copied().filter(|i| self.tests[*i].program == program).collect();
            let names: Vec<&str> = of.iter().map(|i| self.tests[*i].name.as_str()).collect();
            let took: Duration = of.iter().map(|i| self.tests[*i].took).sum();
            let call =
                Call { program: &self.programs[program], folder: self.folder, names: &names, mutant, reached: None };
            if of.is_empty() || call.run(took * 3 + Duration::from_secs(2)).is_ok_and(|(passed, _)| passed) {
                return None;
            }
            let passes = |test: &&usize| of.len() > 1 && self.catches(mutant, &[**test]).is_none();
            of.iter().find(|test| !passes(test)).or(of.first()).copied()
        })
    }
}

struct Call<'a> {
    program: &'a Path,
    folder: &'a Path,
    names: &'a [&'a str],
    mutant: usize,
    reached: Option<&'a Path>,
}

impl Call<'_> {
    /// Whether all pass within so much processor time, and how much they took.
    fn run(&self, most: Duration) -> Result<(bool, Duration)> {
        let mut command = Command::new(self.program);
        command.args(["--exact", "--test-threads=1"]).args(self.names).current_dir(self.folder);
        command.env("MUTANT", self.mutant.to_string()).env("CARGO_MANIFEST_DIR", self.folder);
        if let Some(reached) = self.reached {
            command.env("MUTANT_REACHED", reached);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().context("starting a test")?;
        // The kernel keeps the bound too, should this process end first.
        let limit = Some(most.as_secs() + 2);
        let _ = prlimit(Some(Pid::from_child(&child)), Resource::Cpu, Rlimit { current: limit, maximum: limit });
        let (mut took, mut busy) = (Duration::ZERO, Instant::now());
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok((status.success(), took));
            }
            let now = processor_time(&child).unwrap_or(took);
            if now > took {
                (took, busy) = (now, Instant::now());
            }
            if took >= most || busy.elapsed() >= IDLE {
                child.kill()?;
                child.wait()?;
                return Ok((false, took));
            }
            thread::sleep(Duration::from_millis(3));
        }
    }
}

/// What the process has used so far, in steps of 10 ms.
fn processor_time(child: &Child) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).ok()?;
    let after_name = stat.rsplit_once(") ")?.1;
    let ticks: u64 = after_name.split(' ').skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Some(Duration::from_millis(ticks * 10))
}

/// Calls `each` with every number below `count`, on as many threads as there are cores.
fn parallel(count: usize, each: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    if i >= count {
                        return;
                    }
                    each(i);
                }
            });
        }
    });
}
