//! Mutation testing in minutes: `cargo mutants` lists what could be broken in the heart of the program; here all
//! of it is compiled into one copy of the project, and switched on one at a time. `cargo mutants` itself builds
//! the project anew for each of some 4,000 mutants, which takes more than a day on two cores.

mod list;
mod memory;
mod run;
mod tree;
mod weave;

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use list::Mutant;
use memory::Memory;
use run::{Fate, Suite};

/// Where no rule may be broken without a test that notices.
const EXAMINED: [&str; 5] = ["src/update/**", "src/health/**", "src/snapshot/**", "src/trust/**", "src/envfile*/**"];
/// Mutants that survive for a written reason, one a line: `TITLE # REASON`.
const ACCEPTED: &str = "ci/mutants/accepted.txt";

/// So much processor time the tests may take that are asked for one mutant, in seconds; `MUTANTS_BUDGET` changes it. What
/// takes longer alone is not asked: it is an enumeration that reaches nearly every mutant.
const BUDGET: u64 = 30;

fn main() -> Result<ExitCode> {
    let here = std::env::current_dir()?;
    let only: Vec<String> = std::env::args().skip(1).collect();
    let mutants = listed(&here, &only)?;
    let budget = std::env::var("MUTANTS_BUDGET").ok().map(|seconds| seconds.parse()).transpose()?.unwrap_or(BUDGET);
    let budget = Duration::from_secs(budget);
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| here.join("target"), Into::into);
    let copy = target.join("mutants");
    fs::create_dir_all(copy.join("target"))?;
    let files = tree::files(&here)?;
    let memory = Memory::open(&copy.join("target/memory.jsonl"), &here, &mutants, &files)?;
    let built = tree::build(&here, &copy, &files, &mutants, &memory)?;
    let live: Vec<&Mutant> = mutants.iter().filter(|mutant| built.live.contains(&mutant.number)).collect();
    let (known, open): (Vec<&Mutant>, Vec<&Mutant>) = live.iter().partition(|mutant| memory.fate(mutant).is_some());
    eprintln!("{} mutants, {} of them compile, {} are still to be tried", mutants.len(), live.len(), open.len());
    let fates = known.into_iter().filter_map(|mutant| Some((mutant.number, memory.fate(mutant)?)));
    let fates = Mutex::new(fates.collect::<HashMap<usize, Fate>>());
    if !open.is_empty() {
        let suite = Suite::explore(&built.programs, &copy, budget, &memory)?;
        let tried = AtomicUsize::new(0);
        suite.fates(&open, &memory, |mutant, fate, by| {
            memory.note_fate(mutant, fate, by);
            fates.lock().expect("a thread died").insert(mutant.number, fate);
            let tried = tried.fetch_add(1, Ordering::Relaxed) + 1;
            if fate != Fate::Caught {
                eprintln!("{tried}/{} {fate:?}: {}", open.len(), mutant.name);
            }
        });
    }
    report(&here, &mutants, &live, &fates.into_inner().expect("a thread died"))
}

fn listed(here: &Path, only: &[String]) -> Result<Vec<Mutant>> {
    let mut command = Command::new("cargo");
    command.args(["mutants", "--list", "--json"]).current_dir(here);
    let only: Vec<&str> = only.iter().map(String::as_str).collect();
    for pattern in if only.is_empty() { &EXAMINED } else { &only[..] } {
        command.args(["--file", pattern]);
    }
    let output = command.output().context("cargo mutants")?;
    if !output.status.success() {
        bail!("cargo mutants: {}", String::from_utf8_lossy(&output.stderr));
    }
    let mut mutants: Vec<Mutant> = serde_json::from_slice(&output.stdout)?;
    let mut titles = HashMap::<String, usize>::new();
    for (i, mutant) in mutants.iter_mut().enumerate() {
        mutant.number = i + 1;
        let same = titles.entry(mutant.title()).or_default();
        mutant.nth = *same;
        *same += 1;
    }
    Ok(mutants)
}

/// What survived and is not accepted fails; so does an accepted one that is caught by now.
fn report(here: &Path, mutants: &[Mutant], live: &[&Mutant], fates: &HashMap<usize, Fate>) -> Result<ExitCode> {
    let text = fs::read_to_string(here.join(ACCEPTED)).context(ACCEPTED)?;
    let mut accepted = HashMap::<&str, usize>::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (title, reason) = line.split_once(" # ").with_context(|| format!("{ACCEPTED}: no reason: {line}"))?;
        if reason.trim().is_empty() {
            bail!("{ACCEPTED}: no reason: {line}");
        }
        *accepted.entry(title).or_default() += 1;
    }
    let mut bad = 0;
    let fate = |mutant: &Mutant| fates.get(&mutant.number).copied().unwrap_or(Fate::NotReached);
    for (mutant, fate) in live.iter().map(|m| (*m, fate(m))).filter(|(_, fate)| *fate != Fate::Caught) {
        match accepted.get_mut(mutant.title().as_str()) {
            Some(left) if *left > 0 => *left -= 1,
            _ => {
                bad += 1;
                println!("{fate:?}: {}", mutant.name);
            }
        }
    }
    let examined = |title: &str| mutants.iter().any(|mutant| mutant.title() == title);
    for (title, _) in accepted.iter().filter(|(title, left)| **left > 0 && examined(title)) {
        bad += 1;
        println!("accepted, but caught or gone: {title}");
    }
    let caught = fates.values().filter(|fate| **fate == Fate::Caught).count();
    println!("{caught} of {} mutants caught, {bad} to look at", live.len());
    Ok(if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
