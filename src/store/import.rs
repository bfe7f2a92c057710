//! The history of the earlier implementation, `state.json`, imported once.

use std::fs;
use std::path::Path;

use rusqlite::{Connection, params};
use serde::Deserialize;

use super::{StoreError, schema};
use crate::update::job::{Job, State};

#[derive(Deserialize)]
struct Earlier {
    schema_version: u32,
    jobs: Vec<Job>,
}

/// Reads `state.json` if it is there, and renames it so that it is read once. A job that had not ended
/// has nobody who works on it: it becomes `failed`, and says so.
pub fn once(db: &Connection, folder: &Path) -> Result<(), StoreError> {
    let file = folder.join("state.json");
    let wrong = |why: String| StoreError::Import { file: file.clone(), why };
    let bytes = match fs::read(&file) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(|e| wrong(e.to_string()))?,
    };
    let earlier: Earlier = serde_json::from_slice(&bytes).map_err(|e| wrong(e.to_string()))?;
    if earlier.schema_version != 1 {
        return Err(wrong(format!("its schema_version is {}, expected 1", earlier.schema_version)));
    }
    let mut jobs = earlier.jobs;
    jobs.sort_by_key(|job| job.started_at);
    for mut job in jobs {
        settle(&mut job);
        let text = serde_json::to_string(&job).map_err(|e| wrong(e.to_string()))?;
        db.execute(
            "INSERT OR IGNORE INTO jobs (id, ended, job, record, sum) VALUES (?1, 1, ?2, NULL, ?3)",
            params![job.id.0, text, schema::sum(&text, None)],
        )
        .map_err(|e| wrong(e.to_string()))?;
    }
    fs::rename(&file, folder.join("state.json.imported")).map_err(|e| wrong(e.to_string()))
}

fn settle(job: &mut Job) {
    if job.state.is_end() {
        return;
    }
    let at = job.updated_at;
    job.error = Some(format!(
        "the earlier updater was ended during {} and could not take this job up again: check which version runs and whether it works",
        job.state
    ));
    job.enter(State::Failed, at);
}
