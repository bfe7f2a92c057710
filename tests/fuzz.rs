//! The fuzzers' targets over their corpus and many small changes of it, with a stable toolchain. `./fuzz` looks
//! further, led by coverage.
//!
//! `FUZZ_SEED=N` repeats a run, `FUZZ_RUNS=N` makes it longer.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a broken promise should panic")]

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use processgit_updater::update::job::Job;
use processgit_updater::update::record::Record;

#[path = "../fuzz/targets/lib.rs"]
mod targets;

/// Changed inputs for each target.
const RUNS: usize = 10_000;
/// Inputs grow to this, in bytes, and no further.
const LARGEST: usize = 64 * 1024;

#[test]
fn api() {
    run("api");
}

#[test]
fn carriers() {
    run("carriers");
}

#[test]
fn env() {
    run("env");
}

#[test]
fn journal() {
    run("journal");
}

#[test]
fn labels() {
    run("labels");
}

#[test]
fn manifest() {
    run("manifest");
}

/// What one version wrote, the next one reads: the updater that updates itself finds its own unfinished job.
#[test]
fn every_row_of_the_corpus_is_understood() {
    for (number, row) in corpus("journal").iter().enumerate() {
        let job = serde_json::from_slice::<Job>(row);
        let record = serde_json::from_slice::<Record>(row);
        let remedy = "give a new field #[serde(default)], or raise the journal's format";
        assert!(job.is_ok() || record.is_ok(), "row {number}: {:?}, {:?}: {remedy}", job.err(), record.err());
    }
}

fn run(name: &str) {
    let target = targets::ALL.iter().find(|(known, _)| *known == name).expect("a target").1;
    let corpus = corpus(name);
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let seed: u64 = number("FUZZ_SEED").unwrap_or_else(rand::random);
    let runs = number("FUZZ_RUNS").map_or(RUNS, |runs| runs as usize);
    println!("{name}: {} inputs, {runs} changes of them, FUZZ_SEED={seed}", corpus.len());
    let mut changes = Changes::new(seed, &corpus);
    let inputs = corpus.iter().cloned().chain((0..runs).map(|_| changes.next_input()));
    for (number, input) in inputs.enumerate() {
        if catch_unwind(AssertUnwindSafe(|| target(&input))).is_err() {
            let file = std::env::temp_dir().join(format!("fuzz-{name}-{seed}-{number}"));
            fs::write(&file, &input).expect("keeping the input");
            panic!("{name}: input {number} of FUZZ_SEED={seed}, kept as {}: {}", file.display(), input.escape_ascii());
        }
    }
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut files: Vec<_> = fs::read_dir(folder).expect("a corpus").map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 3, "a corpus of {} is none", files.len());
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

/// Small changes of a corpus: bits, bytes, words of other inputs, pieces left out, doubled, exchanged.
struct Changes<'a> {
    corpus: &'a [Vec<u8>],
    words: Vec<Vec<u8>>,
    state: u64,
}

impl<'a> Changes<'a> {
    fn new(seed: u64, corpus: &'a [Vec<u8>]) -> Self {
        let own = corpus.iter().flat_map(|input| input.split(|byte| !is_word(*byte))).map(<[u8]>::to_vec);
        let odd =
            ["\0", "\"", "'", "\\", "$", "${A}", "#", "=", ",", "\n", "\r\n", "/", "..", "/etc", "{", "}", "[", "]"];
        let odd =
            odd.into_iter().chain(["null", "true", "-1", "1e999", "18446744073709551616", "\u{feff}", "\u{1F600}"]);
        let words: BTreeSet<Vec<u8>> = own.chain(odd.map(|word| word.as_bytes().to_vec())).collect();
        Self { corpus, words: words.into_iter().collect(), state: seed | 1 }
    }

    /// xorshift64*
    fn random(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.random() >> 16) as usize % bound.max(1)
    }

    fn piece(&mut self, length: usize) -> Range<usize> {
        let start = self.below(length + 1);
        start..start + self.below((length - start).min(64) + 1)
    }

    fn next_input(&mut self) -> Vec<u8> {
        let mut input = self.corpus[self.below(self.corpus.len())].clone();
        for _ in 0..=self.below(4) {
            self.change(&mut input);
        }
        input.truncate(LARGEST);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.below(input.len() + 1);
        match self.below(8) {
            0 if at < input.len() => input[at] ^= 1 << self.below(8),
            1 if at < input.len() => input[at] = self.random() as u8,
            2 => drop(input.drain(self.piece(input.len()))),
            3 => {
                let piece = input[self.piece(input.len())].to_vec();
                input.splice(at..at, piece);
            }
            4 => input.truncate(at),
            5 => {
                let other = &self.corpus[self.below(self.corpus.len())];
                let piece = other[self.piece(other.len())].to_vec();
                let gap = self.piece(input.len());
                input.splice(gap, piece);
            }
            6 => {
                let word = self.word();
                input.splice(word_around(input, at), word);
            }
            _ => {
                let word = self.word();
                input.splice(at..at, word);
            }
        }
    }

    fn word(&mut self) -> Vec<u8> {
        let chosen = self.below(self.words.len());
        self.words[chosen].clone()
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)
}

/// Where the word is that `at` lies in.
fn word_around(input: &[u8], at: usize) -> Range<usize> {
    let before = input[..at].iter().rev().take_while(|byte| is_word(**byte)).count();
    let after = input[at..].iter().take_while(|byte| is_word(**byte)).count();
    at - before..at + after
}
