//! Runs, for each mutant, the tests that reach it, until one of them fails.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// A test, how long it took and in which program it is.
struct Test {
    program: usize,
    name: String,
    took: Duration,
}

/// All tests, and for each mutant those that reach it, the quickest first.
pub struct Suite<'a> {
    programs: &'a [PathBuf],
    folder: &'a Path,
    tests: Vec<Test>,
    reached: HashMap<usize, Vec<usize>>,
}

/// What takes longer is not asked: it is an enumeration that reaches nearly every mutant.
const SLOWEST: Duration = Duration::from_secs(90);

/// How a mutant fared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    Caught,
    Survived,
    NotReached,
}

impl<'a> Suite<'a> {
    /// Runs every test once as it is; those that take longer than [`SLOWEST`], or fail, are left out.
    ///
    /// # Errors
    /// The tests cannot be listed.
    pub fn explore(programs: &'a [PathBuf], folder: &'a Path) -> Result<Self> {
        let mut names = Vec::new();
        for (program, path) in programs.iter().enumerate() {
            let listed = Command::new(path).args(["--list", "--format", "terse"]).current_dir(folder).output()?;
            let listed = String::from_utf8(listed.stdout)?;
            names.extend(listed.lines().filter_map(|line| Some((program, line.strip_suffix(": test")?.to_owned()))));
        }
        let done = Mutex::new(Vec::new());
        parallel(names.len(), |i| {
            let (program, name) = &names[i];
            let notes = folder.join(format!("target/reached.{i}"));
            let _ = fs::remove_file(&notes);
            let start = Instant::now();
            let passed = Call { program: &programs[*program], folder, names: &[name], mutant: 0, reached: Some(&notes) }
                .passes(SLOWEST);
            let reached = fs::read_to_string(&notes).unwrap_or_default();
            let reached: Vec<usize> = reached.lines().filter_map(|line| line.parse().ok()).collect();
            let _ = fs::remove_file(&notes);
            let test = Test { program: *program, name: name.clone(), took: start.elapsed() };
            done.lock().expect("a thread died").push((test, reached, passed));
        });
        let mut done = done.into_inner().expect("a thread died");
        done.sort_by_key(|(test, ..)| test.took);
        done.retain(|(test, _, passed)| *passed || test.took < SLOWEST);
        done.retain(|(test, _, passed)| {
            if !passed {
                eprintln!("left out, because it fails without any mutant: {}", test.name);
            }
            *passed
        });
        let mut suite = Self { programs, folder, tests: Vec::new(), reached: HashMap::new() };
        for (test, reached, _) in done {
            for mutant in reached {
                suite.reached.entry(mutant).or_default().push(suite.tests.len());
            }
            suite.tests.push(test);
        }
        Ok(suite)
    }

    /// The fates of `mutants`, in their order.
    pub fn fates(&self, mutants: &[usize], tell: impl Fn(usize, Fate) + Sync) -> Vec<Fate> {
        let fates = Mutex::new(vec![Fate::NotReached; mutants.len()]);
        parallel(mutants.len(), |i| {
            let fate = self.fate(mutants[i]);
            tell(mutants[i], fate);
            fates.lock().expect("a thread died")[i] = fate;
        });
        fates.into_inner().expect("a thread died")
    }

    fn fate(&self, mutant: usize) -> Fate {
        let Some(tests) = self.reached.get(&mutant) else { return Fate::NotReached };
        let mut rest = &tests[..];
        let mut size = 1;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(size.min(rest.len()));
            for program in 0..self.programs.len() {
                let of = |i: &&usize| self.tests[**i].program == program;
                let names: Vec<&str> = now.iter().filter(of).map(|i| self.tests[*i].name.as_str()).collect();
                let took: Duration = now.iter().filter(of).map(|i| self.tests[*i].took).sum();
                if names.is_empty() {
                    continue;
                }
                let call =
                    Call { program: &self.programs[program], folder: self.folder, names: &names, mutant, reached: None };
                if !call.passes(took * 3 + Duration::from_secs(5)) {
                    return Fate::Caught;
                }
            }
            rest = later;
            size *= 3;
        }
        Fate::Survived
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
    fn passes(&self, deadline: Duration) -> bool {
        self.run(deadline).unwrap_or(false)
    }

    fn run(&self, deadline: Duration) -> Result<bool> {
        let mut command = Command::new(self.program);
        command.args(["--exact", "--test-threads=1"]).args(self.names).current_dir(self.folder);
        command.env("MUTANT", self.mutant.to_string()).env("CARGO_MANIFEST_DIR", self.folder);
        if let Some(reached) = self.reached {
            command.env("MUTANT_REACHED", reached);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().context("starting a test")?;
        let end = Instant::now() + deadline;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status.success());
            }
            if Instant::now() >= end {
                child.kill()?;
                child.wait()?;
                return Ok(false);
            }
            thread::sleep(Duration::from_millis(3));
        }
    }
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
