//! Mutation testing in minutes: `cargo mutants` lists what could be broken in the heart of the program; here all
//! of it is compiled into one copy of the project, and switched on one at a time. `cargo mutants` itself builds
//! the project anew for each of some 4,000 mutants, which takes more than a day on two cores.

mod list;
mod run;
mod tree;
mod weave;

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use list::Mutant;
use run::{Fate, Suite};

/// Where no rule may be broken without a test that notices.
const EXAMINED: [&str; 5] = ["src/update/**", "src/health/**", "src/snapshot/**", "src/trust/**", "src/envfile*/**"];
/// Mutants that survive for a written reason, one a line: `TITLE # REASON`.
const ACCEPTED: &str = "ci/mutants/accepted.txt";

fn main() -> Result<ExitCode> {
    let here = std::env::current_dir()?;
    let only: Vec<String> = std::env::args().skip(1).collect();
    let mutants = listed(&here, &only)?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| here.join("target"), Into::into);
    let copy = target.join("mutants");
    fs::create_dir_all(copy.join("target"))?;
    let built = tree::build(&here, &copy, &mutants)?;
    let live: Vec<usize> = mutants.iter().map(|m| m.number).filter(|number| built.live.contains(number)).collect();
    eprintln!("{} mutants, {} of them compile", mutants.len(), live.len());
    let suite = Suite::explore(&built.programs, &copy)?;
    let title = |number: usize| mutants[number - 1].name.as_str();
    let fates = suite.fates(&live, |number, fate| {
        if fate != Fate::Caught {
            eprintln!("{fate:?}: {}", title(number));
        }
    });
    report(&here, &mutants, &live, &fates)
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
    for (i, mutant) in mutants.iter_mut().enumerate() {
        mutant.number = i + 1;
    }
    Ok(mutants)
}

/// What survived and is not accepted fails; so does an accepted one that is caught by now.
fn report(here: &Path, mutants: &[Mutant], live: &[usize], fates: &[Fate]) -> Result<ExitCode> {
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
    for (number, fate) in live.iter().zip(fates).filter(|(_, fate)| **fate != Fate::Caught) {
        let mutant = &mutants[number - 1];
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
    let caught = fates.iter().filter(|fate| **fate == Fate::Caught).count();
    println!("{caught} of {} mutants caught, {bad} to look at", live.len());
    Ok(if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
