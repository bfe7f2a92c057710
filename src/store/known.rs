//! What must survive the journal: versions that are known to be bad, and the highest that was ever committed (the
//! guard against downgrades). Kept a second time in a file of its own, rewritten when it changes.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use rusqlite::{Connection, params};
use semver::Version;
use serde::{Deserialize, Serialize};

use super::chain::write_whole;
use super::schema;

pub const NAME: &str = "journal.known";

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Grows by one with each change.
    pub version: i64,
    /// Digest and reason.
    pub bad: BTreeMap<String, String>,
    pub highest: Option<Version>,
}

impl Known {
    /// As the journal has it.
    pub fn of(db: &Connection) -> rusqlite::Result<Self> {
        let mut bad = db.prepare("SELECT digest, reason FROM known_bad")?;
        let bad = bad.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
        let highest = schema::meta(db, "highest_committed")?.and_then(|text| Version::parse(&text).ok());
        Ok(Self { version: version(db)?, bad, highest })
    }

    /// As the file has it; `None` when there is none, or when it is damaged.
    pub fn read(folder: &Path) -> Option<Self> {
        let text = fs::read_to_string(folder.join(NAME)).ok()?;
        let (sum, json) = text.split_once('\n')?;
        let is_whole = blake3::hash(json.as_bytes()).to_hex().as_str() == sum;
        is_whole.then(|| serde_json::from_str(json).ok())?
    }

    /// Durable when it returns.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        let json = serde_json::to_string(self)?;
        let sum = blake3::hash(json.as_bytes()).to_hex();
        write_whole(&folder.join(NAME), format!("{sum}\n{json}").as_bytes())
    }

    /// The journal knows at least what the file does; true if it had to be told.
    pub fn bring_back(&self, db: &mut Connection) -> rusqlite::Result<bool> {
        let there = Self::of(db)?;
        // A journal that is ahead has been changed since the file was written.
        if there.version > self.version || there == *self {
            return Ok(false);
        }
        let tx = db.transaction()?;
        for (digest, reason) in &self.bad {
            tx.execute("INSERT OR IGNORE INTO known_bad (digest, reason) VALUES (?1, ?2)", params![digest, reason])?;
        }
        if let Some(highest) = self.highest.as_ref().filter(|highest| there.highest.as_ref() < Some(*highest)) {
            schema::set_meta(&tx, "highest_committed", &highest.to_string())?;
        }
        schema::set_meta(&tx, "known_version", &(self.version + 1).to_string())?;
        tx.commit()?;
        Ok(true)
    }
}

fn version(db: &Connection) -> rusqlite::Result<i64> {
    Ok(schema::meta(db, "known_version")?.and_then(|text| text.parse().ok()).unwrap_or(0))
}

/// It is changed in this transaction.
pub fn changes(db: &Connection) -> rusqlite::Result<()> {
    schema::set_meta(db, "known_version", &(version(db)? + 1).to_string())
}
