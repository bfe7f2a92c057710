//! The journal's rows: each save is one transaction over job, record, audit trail, and what an end teaches.

use rusqlite::{Connection, OptionalExtension, params};
use semver::Version;

use super::chain::{self, Head};
use super::{known, parse, schema, to_sql};
use crate::update::job::Job;
use crate::update::ports::Entry;
use crate::update::record::Record;

/// One transaction: job, record, entry, and what the end teaches. The journal's new end.
pub fn write(db: &mut Connection, job: &Job, record: &Record, entry: &Entry) -> rusqlite::Result<Head> {
    let record = serde_json::to_string(record).map_err(to_sql)?;
    write_with(db, job, Some(&record), entry)
}

/// The job, with its record as it stands.
pub fn settle(db: &mut Connection, job: &Job) -> rusqlite::Result<Head> {
    let record = record_text(db, &job.id.0)?;
    write_with(db, job, record.as_deref(), &Entry::Note("settled by a person".into()))
}

/// Failed jobs that no person has settled, newest first. No text in a job can hold these very bytes: its quotes are
/// escaped.
pub fn waiting(db: &Connection) -> rusqlite::Result<Vec<Job>> {
    let mut query = db.prepare(&format!("SELECT job FROM jobs WHERE {} ORDER BY seq DESC", schema::WAITS))?;
    let rows = query.query_map([], |row| row.get::<_, String>(0))?;
    rows.map(|row| row.and_then(|text| parse(&text))).collect()
}

/// `None` for an imported job, and one so old that only its verdict was kept.
pub fn record(db: &Connection, id: &str) -> rusqlite::Result<Option<Record>> {
    record_text(db, id)?.map(|text| parse(&text)).transpose()
}

fn record_text(db: &Connection, id: &str) -> rusqlite::Result<Option<String>> {
    let found = db.query_row("SELECT record FROM jobs WHERE id = ?1", [id], |row| row.get(0)).optional()?;
    Ok(found.flatten())
}

fn write_with(db: &mut Connection, job: &Job, record: Option<&str>, entry: &Entry) -> rusqlite::Result<Head> {
    let tx = db.transaction()?;
    let job_text = serde_json::to_string(job).map_err(to_sql)?;
    let sum = schema::sum(&job_text, record);
    tx.execute(
        "INSERT INTO jobs (id, ended, job, record, sum) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (id) DO UPDATE SET ended = ?2, job = ?3, record = ?4, sum = ?5",
        params![job.id.0, job.state.is_end(), job_text, record, sum],
    )?;
    let (what, effect, text) = schema::row(entry);
    let entry_text = chain::Entry {
        job: &job.id.0,
        at: &job.updated_at.to_string(),
        state: job.state.name(),
        what,
        effect: effect.as_deref(),
        text,
        sum: &sum,
    };
    let head = chain::append(&tx, &entry_text)?;
    if let Entry::Ended { bad_digest, committed } = entry {
        learn(&tx, job, bad_digest.as_deref(), committed.as_ref())?;
        known::changes(&tx)?;
    }
    tx.commit()?;
    Ok(head)
}

fn learn(
    tx: &rusqlite::Transaction<'_>,
    job: &Job,
    bad_digest: Option<&str>,
    committed: Option<&Version>,
) -> rusqlite::Result<()> {
    if let Some(digest) = bad_digest {
        let reason = format!("{} ({}, {})", job.error.as_deref().unwrap_or("unknown"), job.id, job.updated_at);
        tx.execute(
            "INSERT INTO known_bad (digest, reason) VALUES (?1, ?2) ON CONFLICT (digest) DO UPDATE SET reason = ?2",
            params![digest, reason],
        )?;
    }
    let Some(version) = committed else { return Ok(()) };
    if let Some(digest) = &job.target_digest {
        // It has proven itself since.
        tx.execute("DELETE FROM known_bad WHERE digest = ?1", [digest])?;
    }
    let known: Option<String> =
        tx.query_row("SELECT value FROM meta WHERE key = 'highest_committed'", [], |r| r.get(0)).optional()?;
    let highest = known.and_then(|text| Version::parse(&text).ok()).filter(|known| known > version);
    if highest.is_none() {
        tx.execute(
            "INSERT INTO meta (key, value) VALUES ('highest_committed', ?1) ON CONFLICT (key) DO UPDATE SET value = ?1",
            [version.to_string()],
        )?;
    }
    Ok(())
}
