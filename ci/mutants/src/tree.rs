//! A copy of the project with all mutants in it, built once.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::list::Mutant;
use crate::memory::Memory;
use crate::weave::{Woven, weave};

/// What the woven code asks: `MUTANT` names the one that is active; `MUTANT_REACHED` a file into which every
/// number goes that was asked for.
const SWITCH: &str = r#"
#[doc(hidden)]
pub fn mutant(number: usize) -> bool {
    use std::io::Write;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{LazyLock, Mutex};
    static ACTIVE: LazyLock<usize> =
        LazyLock::new(|| std::env::var("MUTANT").ok().and_then(|number| number.parse().ok()).unwrap_or(0));
    static REACHED: LazyLock<Option<Mutex<std::fs::File>>> = LazyLock::new(|| {
        let path = std::env::var_os("MUTANT_REACHED")?;
        std::fs::OpenOptions::new().create(true).append(true).open(path).ok().map(Mutex::new)
    });
    static SEEN: [AtomicBool; 20_000] = [const { AtomicBool::new(false) }; 20_000];
    if let Some(file) = &*REACHED {
        if !SEEN[number].swap(true, Ordering::Relaxed) {
            let _ = file.lock().unwrap().write_all(format!("{number}\n").as_bytes());
        }
    }
    *ACTIVE == number
}
"#;

/// The tests that need no engine.
const TESTS: [&str; 3] = ["simulated", "snapshot", "trust"];

/// Test programs, and the mutants that compile.
pub struct Built {
    pub programs: Vec<PathBuf>,
    pub live: HashSet<usize>,
}

/// The project's files, relative to `from`.
///
/// # Errors
/// It is no repository.
pub fn files(from: &Path) -> Result<Vec<String>> {
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(from).output().context("git ls-files")?;
    Ok(String::from_utf8(listed.stdout)?.split_terminator('\0').map(str::to_owned).collect())
}

/// Copies the project's files from `from` to `to`, weaves the mutants in and builds the tests.
///
/// # Errors
/// Something else than a mutant does not compile.
pub fn build(from: &Path, to: &Path, files: &[String], mutants: &[Mutant], memory: &Memory) -> Result<Built> {
    // Read once: somebody may go on working on them.
    let mut sources = BTreeMap::<&str, (String, Vec<&Mutant>)>::new();
    for mutant in mutants {
        if !sources.contains_key(&*mutant.file) {
            sources.insert(&mutant.file, (fs::read_to_string(from.join(&mutant.file))?, Vec::new()));
        }
        sources.entry(&mutant.file).and_modify(|(_, of_file)| of_file.push(mutant));
    }
    for name in files.iter().filter(|name| !sources.contains_key(name.as_str())) {
        let content = fs::read(from.join(name)).with_context(|| name.clone())?;
        write(to, name, &if name == "src/lib.rs" { [&content, SWITCH.as_bytes()].concat() } else { content })?;
    }
    let compiling = mutants.iter().filter(|mutant| memory.compiles(mutant));
    let mut live: HashSet<usize> = compiling.map(|mutant| mutant.number).collect();
    loop {
        let woven = woven(to, &sources, &live)?;
        let placed: HashSet<usize> = woven.values().flat_map(|woven| &woven.placed).copied().collect();
        live.retain(|number| placed.contains(number));
        let errors = compile(to, &["check", "--lib"])?.errors;
        if errors.is_empty() {
            break;
        }
        let is_arm = |number: usize| mutants[number - 1].genre == "MatchArm";
        let guilty: HashSet<usize> = errors.iter().flat_map(|error| blame(error, &woven, is_arm)).collect();
        eprintln!("{} mutants do not compile", guilty.len());
        if guilty.is_empty() {
            bail!("no mutant is to blame: {}", errors[0].rendered);
        }
        guilty.iter().for_each(|number| memory.note_that_it_does_not_compile(&mutants[number - 1]));
        live.retain(|number| !guilty.contains(number));
    }
    let tests = TESTS.iter().flat_map(|name| ["--test", name]);
    let built = compile(to, &["test", "--no-run", "--lib"].into_iter().chain(tests).collect::<Vec<_>>())?;
    if let Some(error) = built.errors.first() {
        bail!("the tests do not compile: {}", error.rendered);
    }
    Ok(Built { programs: built.programs, live })
}

/// Writes what has changed, and leaves the rest as it is, so that cargo need not build it again.
fn write(to: &Path, name: &str, content: &[u8]) -> Result<()> {
    let target = to.join(name);
    if fs::read(&target).is_ok_and(|known| known == content) {
        return Ok(());
    }
    fs::create_dir_all(target.parent().context("no folder")?)?;
    fs::write(&target, content).with_context(|| name.to_owned())
}

fn woven(
    to: &Path,
    sources: &BTreeMap<&str, (String, Vec<&Mutant>)>,
    live: &HashSet<usize>,
) -> Result<BTreeMap<String, Woven>> {
    let mut all = BTreeMap::new();
    for (file, (source, mutants)) in sources {
        let live: Vec<&Mutant> = mutants.iter().copied().filter(|mutant| live.contains(&mutant.number)).collect();
        let woven = weave(source, &live).with_context(|| (*file).to_owned())?;
        write(to, file, woven.text.as_bytes())?;
        all.insert((*file).to_owned(), woven);
    }
    Ok(all)
}

/// What cargo printed, as far as it matters.
struct Compiled {
    errors: Vec<Diagnostic>,
    programs: Vec<PathBuf>,
}

#[derive(Deserialize)]
struct Message {
    reason: String,
    message: Option<Diagnostic>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Diagnostic {
    level: String,
    code: Option<Code>,
    rendered: String,
    spans: Vec<Where>,
}

#[derive(Deserialize)]
struct Code {
    code: String,
}

#[derive(Deserialize)]
struct Where {
    is_primary: bool,
    file_name: String,
    byte_start: usize,
    byte_end: usize,
}

fn compile(tree: &Path, arguments: &[&str]) -> Result<Compiled> {
    let output = Command::new("cargo")
        .args(arguments)
        .args(["--locked", "--quiet", "--message-format", "json"])
        .env("CARGO_TARGET_DIR", tree.join("target"))
        .current_dir(tree)
        .output()
        .context("cargo")?;
    let mut compiled = Compiled { errors: Vec::new(), programs: Vec::new() };
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let message: Message = serde_json::from_str(line)?;
        match (message.reason.as_str(), message.message, message.executable) {
            ("compiler-message", Some(message), _) if message.level == "error" && !message.spans.is_empty() => {
                compiled.errors.push(message);
            }
            ("compiler-artifact", _, Some(program)) => compiled.programs.push(program),
            _ => {}
        }
    }
    if !output.status.success() && compiled.errors.is_empty() {
        bail!("cargo: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(compiled)
}

/// The mutants whose words are nearest to the error, in the same file. A match that is no longer exhaustive blames
/// every arm in it that a mutant takes away.
fn blame(error: &Diagnostic, woven: &BTreeMap<String, Woven>, is_arm: impl Fn(usize) -> bool) -> Vec<usize> {
    let not_exhaustive = error.code.as_ref().is_some_and(|code| code.code == "E0004");
    let mut nearest: Option<(usize, Vec<usize>)> = None;
    for span in &error.spans {
        let Some(Woven { text, words, .. }) = woven.get(&span.file_name) else { continue };
        if not_exhaustive && span.is_primary {
            let end = span.byte_end + block(&text[span.byte_end..]);
            let inside = words.iter().filter(|(range, _)| (span.byte_end..end).contains(&range.start));
            return inside.map(|(_, mutant)| *mutant).filter(|mutant| is_arm(*mutant)).collect();
        }
        for (range, mutant) in words {
            let distance = range.start.saturating_sub(span.byte_end).max(span.byte_start.saturating_sub(range.end));
            if nearest.as_ref().is_none_or(|(least, _)| distance < *least) {
                nearest = Some((distance, vec![*mutant]));
            }
        }
    }
    nearest.map(|(_, mutants)| mutants).unwrap_or_default()
}

/// The length of the block that begins in `text`, with what is before it.
fn block(text: &str) -> usize {
    let mut depth = 0;
    for (at, letter) in text.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 1 => return at,
            '}' => depth -= 1,
            _ => {}
        }
    }
    text.len()
}
