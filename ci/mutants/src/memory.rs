//! What earlier runs found out, a line each in a file that is only appended to: a run that was stopped goes on where it
//! was, a mutant that was caught is shown first to the test that caught it, and what does not compile is not tried again.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::list::Mutant;
use crate::run::Fate;

#[derive(Serialize, Deserialize)]
enum Line {
    /// In a file of this hash.
    DoesNotCompile {
        mutant: String,
        source: u64,
    },
    /// Under all sources and tests of this hash.
    Fate {
        mutant: String,
        all: u64,
        fate: Fate,
        by: Option<String>,
    },
    SlowTest {
        name: String,
        seconds: u64,
    },
}

pub struct Memory {
    file: Mutex<File>,
    does_not_compile: HashMap<String, u64>,
    fates: HashMap<String, (u64, Fate, Option<String>)>,
    slow: HashMap<String, u64>,
    sources: HashMap<String, u64>,
    /// Of all sources and tests.
    all: u64,
}

impl Memory {
    /// Reads what is known of the project in `here`.
    ///
    /// # Errors
    /// The project or the file cannot be read.
    pub fn open(path: &Path, here: &Path, mutants: &[Mutant], files: &[String]) -> Result<Self> {
        let text = fs::read_to_string(path).unwrap_or_default();
        let file = OpenOptions::new().create(true).append(true).open(path).context("the memory of earlier runs")?;
        let mut all = DefaultHasher::new();
        for name in files.iter().filter(|name| name.starts_with("src/") || name.starts_with("tests/")) {
            fs::read(here.join(name)).with_context(|| name.clone())?.hash(&mut all);
        }
        let mut memory = Self {
            file: Mutex::new(file),
            does_not_compile: HashMap::new(),
            fates: HashMap::new(),
            slow: HashMap::new(),
            sources: HashMap::new(),
            all: all.finish(),
        };
        for mutant in mutants {
            if !memory.sources.contains_key(&mutant.file) {
                let mut hasher = DefaultHasher::new();
                fs::read(here.join(&mutant.file))?.hash(&mut hasher);
                memory.sources.insert(mutant.file.clone(), hasher.finish());
            }
        }
        // The last line may be cut off.
        for line in text.lines().filter_map(|line| serde_json::from_str(line).ok()) {
            match line {
                Line::DoesNotCompile { mutant, source } => drop(memory.does_not_compile.insert(mutant, source)),
                Line::Fate { mutant, all, fate, by } => drop(memory.fates.insert(mutant, (all, fate, by))),
                Line::SlowTest { name, seconds } => drop(memory.slow.insert(name, seconds)),
            }
        }
        Ok(memory)
    }

    pub fn compiles(&self, mutant: &Mutant) -> bool {
        self.does_not_compile.get(&mutant.key()) != self.sources.get(&mutant.file)
    }

    pub fn note_that_it_does_not_compile(&self, mutant: &Mutant) {
        self.note(&Line::DoesNotCompile { mutant: mutant.key(), source: self.sources[&mutant.file] });
    }

    /// Its fate, if nothing has changed since.
    pub fn fate(&self, mutant: &Mutant) -> Option<Fate> {
        self.fates.get(&mutant.key()).filter(|(all, ..)| *all == self.all).map(|(_, fate, _)| *fate)
    }

    /// It was caught once, perhaps before something changed.
    pub fn caught_by(&self, mutant: &Mutant) -> Option<&str> {
        self.fates.get(&mutant.key())?.2.as_deref()
    }

    pub fn note_fate(&self, mutant: &Mutant, fate: Fate, by: Option<&str>) {
        let by = by.map(str::to_owned);
        self.note(&Line::Fate { mutant: mutant.key(), all: self.all, fate, by });
    }

    /// It has taken longer than this.
    pub fn is_slow(&self, test: &str, most: Duration) -> bool {
        self.slow.get(test).is_some_and(|seconds| *seconds >= most.as_secs())
    }

    pub fn note_slow(&self, test: &str, took: Duration) {
        self.note(&Line::SlowTest { name: test.to_owned(), seconds: took.as_secs() });
    }

    /// What cannot be noted is found out again.
    fn note(&self, line: &Line) {
        if let Ok(mut text) = serde_json::to_string(line) {
            text.push('\n');
            let _ = self.file.lock().expect("a thread died").write_all(text.as_bytes());
        }
    }
}
