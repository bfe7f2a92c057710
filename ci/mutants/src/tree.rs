//! A copy of the project with all mutants in it, built once.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::list::Mutant;
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

/// Copies the project's files from `from` to `to`, weaves the mutants in and builds the tests.
///
/// # Errors
/// Something else than a mutant does not compile.
pub fn build(from: &Path, to: &Path, mutants: &[Mutant]) -> Result<Built> {
    copy(from, to)?;
    let lib = fs::read_to_string(from.join("src/lib.rs"))?;
    fs::write(to.join("src/lib.rs"), lib + SWITCH)?;
    let mut live: HashSet<usize> = mutants.iter().map(|mutant| mutant.number).collect();
    loop {
        let woven = woven(from, to, mutants, &live)?;
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
        live.retain(|number| !guilty.contains(number));
    }
    let tests = TESTS.iter().flat_map(|name| ["--test", name]);
    let built = compile(to, &["test", "--no-run", "--lib"].into_iter().chain(tests).collect::<Vec<_>>())?;
    if let Some(error) = built.errors.first() {
        bail!("the tests do not compile: {}", error.rendered);
    }
    Ok(Built { programs: built.programs, live })
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(from).output().context("git ls-files")?;
    for name in String::from_utf8(listed.stdout)?.split_terminator('\0') {
        let (source, target) = (from.join(name), to.join(name));
        let content = fs::read(&source).with_context(|| name.to_owned())?;
        if fs::read(&target).ok().as_ref() != Some(&content) {
            fs::create_dir_all(target.parent().context("no folder")?)?;
            fs::write(&target, content)?;
        }
    }
    Ok(())
}

fn woven(from: &Path, to: &Path, mutants: &[Mutant], live: &HashSet<usize>) -> Result<BTreeMap<String, Woven>> {
    let mut files = BTreeMap::<&str, Vec<&Mutant>>::new();
    for mutant in mutants {
        let of_file = files.entry(&mutant.file).or_default();
        if live.contains(&mutant.number) {
            of_file.push(mutant);
        }
    }
    let mut all = BTreeMap::new();
    for (file, of_file) in files {
        let woven = weave(&fs::read_to_string(from.join(file))?, &of_file).with_context(|| file.to_owned())?;
        if fs::read_to_string(to.join(file))? != woven.text {
            fs::write(to.join(file), &woven.text)?;
        }
        all.insert(file.to_owned(), woven);
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
