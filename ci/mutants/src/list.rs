//! What there is to break, as `cargo mutants` lists it.

use serde::Deserialize;

#[derive(Debug, Deserialize)]
pub struct Mutant {
    /// Counted by us, from 1.
    #[serde(skip)]
    pub number: usize,
    /// How many before it have the same title.
    #[serde(skip)]
    pub nth: usize,
    pub file: String,
    pub genre: String,
    pub name: String,
    pub replacement: String,
    pub span: Place,
}

#[derive(Debug, Deserialize)]
pub struct Place {
    pub start: Point,
}

/// Both from 1; columns in characters.
#[derive(Debug, Deserialize)]
pub struct Point {
    pub line: usize,
    pub column: usize,
}

impl Mutant {
    /// What it does, without the line, which moves: `FILE: replace == with != in FUNCTION`.
    pub fn title(&self) -> String {
        let what = self.name.splitn(4, ':').nth(3).unwrap_or_default();
        format!("{}:{what}", self.file)
    }

    /// Its name for a later run, which may find it on another line.
    pub fn key(&self) -> String {
        format!("{} #{}", self.title(), self.nth)
    }
}
