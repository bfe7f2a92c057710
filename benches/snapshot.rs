//! What a snapshot costs beside the tools it replaces, on data like an application's.
//!
//! `cargo bench --bench snapshot [-- FILES MEGABYTES RUNS]` makes a tree in the temporary folder and
//! prints the medians and their ratios, with the goals. Run as root; ratios are worth comparing, seconds
//! only on one machine. With `memory N` it walks, copies and restores N small files and prints the
//! highest memory of the process.

use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, fs};

use lab::tree::{self, change, walk, walk_and_copy};
use processgit_updater::snapshot::{Counts, Label, Quiet, Repository, Source};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = env::args().skip(1).filter(|a| a != "--bench").collect();
    let number = |i: usize, default| arguments.get(i).and_then(|a| a.parse().ok()).unwrap_or(default);
    if arguments.first().is_some_and(|a| a == "memory") {
        return memory(number(1, 200_000));
    }
    let (files, megabytes, runs) = (number(0, 60_000), number(1, 700), number(2, 3));
    let folder = tempfile::tempdir()?;
    let source = folder.path().join("source");
    tree::make(&source, files, megabytes)?;
    let mut table = Table { rows: Vec::new() };
    eprintln!("{files} files, {megabytes} MB");
    for run in 0..runs {
        measure(folder.path(), &source, run as u64, &mut table)?;
    }
    table.print();
    disk(folder.path(), &source)
}

fn timed(act: impl FnOnce() -> Result<(), Failure>) -> Result<Duration, Failure> {
    let start = Instant::now();
    act()?;
    Ok(start.elapsed())
}

fn run(program: &str, arguments: &[&str]) -> Result<(), Failure> {
    let status = Command::new(program).args(arguments).status()?;
    if status.success() { Ok(()) } else { Err(format!("{program} {arguments:?}: {status}").into()) }
}

fn measure(folder: &Path, source: &Path, seed: u64, table: &mut Table) -> Result<(), Failure> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let (archive, plain, unpacked) = (folder.join("data.tgz"), folder.join("plain"), folder.join("unpacked"));
    let repository = Repository::open(&folder.join(format!("repository {seed}")))?;
    let sources = vec![Source::new("data", source)];
    // Older than the margin within which nothing is trusted, as an application's data is.
    std::thread::sleep(Duration::from_millis(2500));
    let mut add = |name, time| table.add(name, time);

    add("walk", timed(|| walk(source, &mut |_| Ok(())))?);
    let changed = folder.join("changed");
    fs::create_dir_all(&changed)?;
    add("walk, and copy of 1 %", timed(|| walk_and_copy(source, 100, &changed))?);
    add("tar czf", timed(|| run("tar", &["czf", &text(&archive), "-C", &text(source), "."]))?);
    add("cp -a", timed(|| run("cp", &["-a", &text(source), &text(&plain)]))?);
    add(
        "cp -a, flushed",
        timed(|| {
            rustix::fs::sync();
            Ok(())
        })?,
    );
    let mut pass = repository.begin(sources.clone(), Label::default())?;
    add("hot, first", timed(|| Ok(pass.hot(&mut Quiet).map(drop)?))?);
    add("cold, nothing changed", timed(|| Ok(pass.cold(&mut Quiet).map(drop)?))?);

    change(source, 100, seed + 1)?;
    let mut pass = repository.begin(sources.clone(), Label::default())?;
    add("hot, 1 % changed", timed(|| Ok(pass.hot(&mut Quiet).map(drop)?))?);
    change(source, 100, seed + 7)?;
    let mut generation = None;
    add(
        "cold, 1 % changed",
        timed(|| {
            generation = Some(pass.cold(&mut Quiet)?);
            Ok(())
        })?,
    );
    let generation = generation.ok_or("no generation")?;

    std::thread::sleep(Duration::from_millis(100));
    change(source, 100, seed + 13)?;
    add(
        "failed state kept",
        timed(|| {
            Ok(repository.keep_present_state(sources.clone(), "failed", Label::default(), &mut Quiet).map(drop)?)
        })?,
    );
    add("restore, 1 % changed", timed(|| Ok(repository.restore(&generation, &sources, &mut Quiet).map(drop)?))?);
    add("equals", timed(|| Ok(repository.equals(&generation, &sources, &mut Quiet).map(drop)?))?);
    fs::create_dir(&unpacked)?;
    add("tar xzf", timed(|| run("tar", &["xzf", &text(&archive), "-C", &text(&unpacked)]))?);
    add("verify", timed(|| Ok(repository.verify(&generation, &mut Quiet)?))?);
    for path in [&plain, &unpacked, &folder.join(format!("repository {seed}"))] {
        fs::remove_dir_all(path)?;
    }
    Ok(())
}

/// Ten generations with 1 % changed between them, against the data.
fn disk(folder: &Path, source: &Path) -> Result<(), Failure> {
    let repository = Repository::open(&folder.join("ten"))?;
    let sources = vec![Source::new("data", source)];
    for seed in 0..10 {
        change(source, 100, 100 + seed * 3)?;
        std::thread::sleep(Duration::from_millis(2500));
        let mut pass = repository.begin(sources.clone(), Label::default())?;
        pass.hot(&mut Quiet)?;
        pass.cold(&mut Quiet)?;
    }
    let used = |path: &Path| -> Result<f64, Failure> {
        let output = Command::new("du").args(["-s", "--block-size=1"]).arg(path).output()?;
        Ok(String::from_utf8(output.stdout)?.split_whitespace().next().ok_or("du said nothing")?.parse()?)
    };
    println!("disk, ten generations / data   {:>8.2}    goal 1.3", used(&folder.join("ten"))? / used(source)?);
    Ok(())
}

fn memory(files: usize) -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let source = folder.path().join("source");
    tree::make(&source, files, 0)?;
    let sources = vec![Source::new("data", source.clone())];
    let repository = Repository::open(&folder.path().join("repository"))?;
    let base = peak()?;
    let mut pass = repository.begin(sources.clone(), Label::default())?;
    pass.hot(&mut Quiet)?;
    let generation = pass.cold(&mut Quiet)?;
    let passes = peak()?;
    change(&source, 100, 3)?;
    let mut progress = |_: &Counts| ControlFlow::Continue(());
    repository.restore(&generation, &sources, &mut progress)?;
    println!("{files} files: peak {base} KiB before, {passes} KiB after the passes, {} KiB after a restore", peak()?);
    Ok(())
}

/// Highest resident memory so far, KiB.
fn peak() -> Result<u64, Failure> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

struct Table {
    rows: Vec<(&'static str, Vec<Duration>)>,
}

impl Table {
    fn add(&mut self, name: &'static str, time: Duration) {
        eprintln!("{name:<30} {:>8.3} s", time.as_secs_f64());
        match self.rows.iter_mut().find(|(n, _)| *n == name) {
            Some((_, times)) => times.push(time),
            None => self.rows.push((name, vec![time])),
        }
    }

    fn median(&self, name: &str) -> f64 {
        let Some((_, times)) = self.rows.iter().find(|(n, _)| *n == name) else { return f64::NAN };
        let mut times = times.clone();
        times.sort();
        times[times.len() / 2].as_secs_f64()
    }

    fn print(&self) {
        for (name, _) in &self.rows {
            println!("{name:<30} {:>8.3} s", self.median(name));
        }
        for (of, to, goal) in [
            ("cold, 1 % changed", "tar czf", 0.05),
            ("cold, 1 % changed", "walk, and copy of 1 %", 3.0),
            ("hot, first", "cp -a", 1.5),
            ("restore, 1 % changed", "tar xzf", 0.25),
        ] {
            println!("{:<30} {:>8.2}    goal {goal}", format!("{of} / {to}"), self.median(of) / self.median(to));
        }
    }
}
