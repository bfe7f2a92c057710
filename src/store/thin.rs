//! History without end: of very old jobs only the verdict and the audit trail are kept.

use rusqlite::{Connection, params};

use super::chain::{self, Head};
use super::{parse, schema, to_sql};
use crate::update::job::{Job, JobId};

/// So many of the last jobs keep all that is known of them.
pub const WHOLE: i64 = 10_000;
/// So many are thinned in one transaction.
pub const BATCH: i64 = 200;
/// In `meta`: up to here it has been done.
const THINNED_TO: &str = "thinned_to";

/// Thins the oldest jobs beyond the last `whole`, one batch. Whose they are, so that their logs can go, and the
/// journal's new end if it has changed. `spared` keeps its record: a rollback needs it.
pub fn batch(db: &mut Connection, whole: i64, spared: Option<&JobId>) -> rusqlite::Result<(Vec<JobId>, Option<Head>)> {
    let (from, to) = range(db, whole)?;
    let mut head = None;
    let tx = db.transaction()?;
    let jobs = {
        let mut query =
            tx.prepare("SELECT seq, job FROM jobs WHERE seq > ?1 AND seq <= ?2 AND ended = 1 ORDER BY seq LIMIT ?3")?;
        let rows =
            query.query_map(params![from, to, BATCH], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))?;
        rows.collect::<Result<Vec<_>, _>>()?
    };
    let done_to = if (jobs.len() as i64) < BATCH { to } else { jobs.last().map_or(to, |(seq, _)| *seq) };
    let mut thinned = Vec::new();
    for (seq, text) in jobs {
        // What cannot be read is left as it is.
        let Ok(job) = parse::<Job>(&text) else { continue };
        if Some(&job.id) == spared {
            continue;
        }
        let job = thin(job);
        let text = serde_json::to_string(&job).map_err(to_sql)?;
        let sum = schema::sum(&text, None);
        tx.execute("UPDATE jobs SET job = ?2, record = NULL, sum = ?3 WHERE seq = ?1", params![seq, text, sum])?;
        let entry = chain::Entry {
            job: &job.id.0,
            at: &job.updated_at.to_string(),
            state: job.state.name(),
            what: "thinned",
            effect: None,
            text: None,
            sum: &sum,
        };
        head = Some(chain::append(&tx, &entry)?);
        thinned.push(job.id);
    }
    if done_to > from {
        schema::set_meta(&tx, THINNED_TO, &done_to.to_string())?;
    }
    tx.commit()?;
    Ok((thinned, head))
}

/// There is something to do.
pub fn is_due(db: &Connection, whole: i64) -> rusqlite::Result<bool> {
    range(db, whole).map(|(from, to)| from < to)
}

fn range(db: &Connection, whole: i64) -> rusqlite::Result<(i64, i64)> {
    let last: Option<i64> = db.query_row("SELECT max(seq) FROM jobs", [], |row| row.get(0))?;
    let from = schema::meta(db, THINNED_TO)?.and_then(|text| text.parse().ok()).unwrap_or(0);
    Ok((from, last.unwrap_or(0) - whole))
}

/// The verdict stays: its last step without its output.
fn thin(mut job: Job) -> Job {
    job.steps.drain(..job.steps.len().saturating_sub(1));
    job.steps.iter_mut().for_each(|step| step.output = None);
    job
}
