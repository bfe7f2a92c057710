//! The journal's tables, their version, and whether they are whole.

use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use crate::update::ports::Entry;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::{StoreError, chain};
use crate::failpoint;
use crate::update::job::Job;
use crate::update::record::Record;

/// Kept in SQLite's `user_version`, and once more in `meta`: a newer one is never opened by an older binary,
/// and a damaged one is not taken for newer.
const FORMAT: i64 = 2;
/// The format before the trail had links ([`super::chain`]); it is brought to this one when it is opened.
const UNLINKED: i64 = 1;
/// A journal up to this size is read as a whole when it is opened, bytes; a larger one in the background.
pub const SMALL: u64 = 8 << 20;
/// So many of the last jobs are read at the start; they must be whole.
const LOOKED_AT: i64 = 50;

const TABLES: &str = "
CREATE TABLE jobs (
    seq    INTEGER PRIMARY KEY AUTOINCREMENT,
    id     TEXT NOT NULL UNIQUE,
    ended  INTEGER NOT NULL,
    job    TEXT NOT NULL,            -- JSON, as the API shows it
    record TEXT,                     -- JSON, what recovery needs; NULL for imported jobs
    sum    BLOB NOT NULL             -- of both: SQLite does not notice a bit that flips in a text
) STRICT;
CREATE INDEX jobs_unfinished ON jobs (ended) WHERE ended = 0;
CREATE TABLE trail (                 -- append-only: what was meant, and what came of it
    seq    INTEGER PRIMARY KEY AUTOINCREMENT,
    job    TEXT NOT NULL,
    at     TEXT NOT NULL,
    state  TEXT NOT NULL,
    what   TEXT NOT NULL,
    effect TEXT,
    text   TEXT,
    sum    BLOB,                     -- of the job as it was saved with the entry
    link   BLOB                      -- of this entry and all before it
) STRICT;
CREATE TABLE known_bad (digest TEXT PRIMARY KEY, reason TEXT NOT NULL) STRICT;
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
";

/// A job waits for a person: it says so. No text in it can, because the quotes of a text are escaped.
pub const WAITS: &str = r#"instr(job, '"needs_you":true') > 0"#;

const LINKS: &str = "
ALTER TABLE trail ADD COLUMN sum BLOB;
ALTER TABLE trail ADD COLUMN link BLOB;
";

/// A journal that was opened.
pub struct Opened {
    pub db: Connection,
    pub is_new: bool,
    /// It was written by a version that knew no links.
    pub was_unlinked: bool,
}

/// Opens the journal, checks that it is whole, and makes the tables of a new one.
pub fn open(file: &Path) -> Result<Opened, StoreError> {
    let damaged = |why: String| StoreError::Damaged { file: file.to_owned(), why };
    let sql = |e| faulty(file, e);
    let is_gone = std::fs::metadata(file).map_or(true, |m| m.len() == 0);
    if is_gone && std::fs::metadata(wal(file)).is_ok_and(|m| m.len() > 0) {
        return Err(damaged("it is empty or missing, but its write-ahead log is not".into()));
    }
    // It holds `.env` with its secrets, and SQLite gives its log and its index the database's own mode.
    private(file).map_err(|e| StoreError::NoRoom { file: file.to_owned(), why: e.to_string() })?;
    let mut db = Connection::open(file).map_err(sql)?;
    // What turns out to be damaged is left as it was found.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(sql)?;
    db.pragma_update(None, "journal_mode", "WAL").map_err(sql)?;
    // FULL: a commit returns after the disk has it, also in WAL mode.
    db.pragma_update(None, "synchronous", "FULL").map_err(sql)?;
    // A journal is read rarely: a quarter of a mebibyte (negative: KiB) is plenty.
    db.pragma_update(None, "cache_size", -256).map_err(sql)?;
    let found = format(&db, file)?;
    require_structure(&db, file, found)?;
    match found {
        0 => make(&mut db).map_err(sql)?,
        UNLINKED => link(&mut db).map_err(sql)?,
        _ => {}
    }
    require_whole(&db, file)?;
    // Only for speed. Earlier versions keep it up to date too.
    if let Err(e) = index_waiting(&db) {
        tracing::warn!("the journal has no index of the jobs that wait for a person: {e}");
    }
    if let Some(newer) = failpoint::newer_format() {
        note_format(&db, newer).map_err(sql)?;
    }
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).map_err(sql)?;
    Ok(Opened { db, is_new: found == 0, was_unlinked: found == UNLINKED })
}

/// Readable by its owner only, from the first moment on.
fn private(file: &Path) -> std::io::Result<()> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(file)?;
    for part in ["", "-wal", "-shm"] {
        let mut name = file.as_os_str().to_owned();
        name.push(part);
        match std::fs::set_permissions(name, Permissions::from_mode(0o600)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

/// Of a large one only the jobs at its end are read before it is used; the rest follows in the background.
pub fn is_small(file: &Path) -> bool {
    std::fs::metadata(file).map_or(true, |m| m.len() <= SMALL)
}

/// SQLite's own look at its pages.
fn require_structure(db: &Connection, file: &Path, found: i64) -> Result<(), StoreError> {
    if found == 0 || !is_small(file) {
        return Ok(());
    }
    match structural_fault(db) {
        Ok(None) => Ok(()),
        Ok(Some(why)) => Err(StoreError::Damaged { file: file.to_owned(), why }),
        Err(e) => Err(faulty(file, e)),
    }
}

/// Reads all of it, beside whoever writes. What is not as it was written, if anything.
pub fn look(file: &Path) -> Option<String> {
    let look = || -> rusqlite::Result<Option<String>> {
        let db = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        match structural_fault(&db)? {
            None => chain::fault(&db),
            fault => Ok(fault),
        }
    };
    look().unwrap_or_else(|e| Some(e.to_string()))
}

/// What SQLite finds wrong with its pages, if anything.
pub fn structural_fault(db: &Connection) -> rusqlite::Result<Option<String>> {
    let check: String = db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    Ok((check != "ok").then_some(check))
}

/// What is in the log goes to the database, and the log is emptied: what is in no log cannot be lost with one.
pub fn checkpoint(db: &Connection) -> rusqlite::Result<()> {
    // Whoever looks at the journal meanwhile is not waited for.
    db.busy_timeout(Duration::ZERO)?;
    let done = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    db.busy_timeout(BUSY)?;
    done
}

/// How long is waited for somebody who looks at the journal.
const BUSY: Duration = Duration::from_secs(5);

/// Opens it to be read only, beside whoever writes, and checks that it is whole.
pub fn peek(file: &Path) -> Result<Connection, StoreError> {
    let sql = |e| faulty(file, e);
    let db = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(sql)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(sql)?;
    match format(&db, file)? {
        0 => in_memory(),
        found => {
            require_structure(&db, file, found)?;
            require_whole(&db, file).map(|()| db)
        }
    }
}

pub fn faulty(file: &Path, error: rusqlite::Error) -> StoreError {
    let (file, why) = (file.to_owned(), error.to_string());
    if super::lacks_room(&error) { StoreError::NoRoom { file, why } } else { StoreError::Damaged { file, why } }
}

/// The format of a database that is one; 0: it has no tables yet.
fn format(db: &Connection, file: &Path) -> Result<i64, StoreError> {
    let sql = |e| faulty(file, e);
    let damaged = |why: String| StoreError::Damaged { file: file.to_owned(), why };
    match db.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(sql)? {
        found @ (UNLINKED | FORMAT) => Ok(found),
        // Without a format there are no tables, or the head of the file is damaged.
        0 if is_empty(db).map_err(sql)? => Ok(0),
        found if format_in_meta(db).map_err(sql)? == Some(found) => {
            Err(StoreError::Newer { file: file.to_owned(), found, known: FORMAT })
        }
        found => Err(damaged(format!("its format is said to be {found}"))),
    }
}

fn wal(file: &Path) -> std::path::PathBuf {
    file.with_extension("db-wal")
}

fn format_in_meta(db: &Connection) -> rusqlite::Result<Option<i64>> {
    Ok(meta(db, "format")?.and_then(|text| text.parse().ok()))
}

/// A value of the journal as a whole.
pub fn meta(db: &Connection, key: &str) -> rusqlite::Result<Option<String>> {
    db.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0)).optional()
}

pub fn set_meta(db: &Connection, key: &str, value: &str) -> rusqlite::Result<()> {
    db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)", [key, value]).map(|_| ())
}

/// Every job that will be acted on or shown.
fn require_whole(db: &Connection, file: &Path) -> Result<(), StoreError> {
    let look = || -> rusqlite::Result<Option<String>> {
        let mut query = db.prepare(
            "SELECT id, ended, job, record, sum FROM jobs
             WHERE ended = 0 OR seq > (SELECT max(seq) FROM jobs) - ?1",
        )?;
        let mut rows = query.query([LOOKED_AT])?;
        while let Some(row) = rows.next()? {
            let (id, ended): (String, bool) = (row.get(0)?, row.get(1)?);
            let (job, record): (String, Option<String>) = (row.get(2)?, row.get(3)?);
            let sum_is_right = sum(&job, record.as_deref()) == *row.get_ref(4)?.as_blob()?;
            let parsed = serde_json::from_str::<Job>(&job);
            let agrees = parsed.is_ok_and(|job| job.id.0 == id && job.state.is_end() == ended);
            let is_record = record.is_none_or(|text| serde_json::from_str::<Record>(&text).is_ok());
            if !(sum_is_right && agrees && is_record) {
                return Ok(Some(id));
            }
        }
        Ok(None)
    };
    let damaged = |why: String| StoreError::Damaged { file: file.to_owned(), why };
    match look() {
        Ok(None) => Ok(()),
        Ok(Some(id)) => Err(damaged(format!("job {id} is not what was written"))),
        Err(e) => Err(damaged(e.to_string())),
    }
}

/// Tells whether a job is what was written.
pub fn sum(job: &str, record: Option<&str>) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(job.as_bytes()).update(b"\0").update(record.unwrap_or_default().as_bytes());
    *hasher.finalize().as_bytes()
}

/// A journal without a file.
pub fn in_memory() -> Result<Connection, StoreError> {
    let sql = |e: rusqlite::Error| StoreError::Damaged { file: ":memory:".into(), why: e.to_string() };
    let mut db = Connection::open_in_memory().map_err(sql)?;
    make(&mut db).map_err(sql)?;
    Ok(db)
}

fn make(db: &mut Connection) -> rusqlite::Result<()> {
    let tx = db.transaction()?;
    tx.execute_batch(TABLES)?;
    note_format(&tx, FORMAT)?;
    tx.commit()
}

fn index_waiting(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch(&format!("CREATE INDEX IF NOT EXISTS jobs_waiting ON jobs (seq) WHERE {WAITS}"))
}

fn is_empty(db: &Connection) -> rusqlite::Result<bool> {
    db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0)).map(|tables| tables == 0)
}

fn link(db: &mut Connection) -> rusqlite::Result<()> {
    let tx = db.transaction()?;
    tx.execute_batch(LINKS)?;
    note_format(&tx, FORMAT)?;
    tx.commit()
}

fn note_format(db: &Connection, format: i64) -> rusqlite::Result<()> {
    set_meta(db, "format", &format.to_string())?;
    db.pragma_update(None, "user_version", format)
}

/// What the audit trail says of it: what happened, to which effect, in which words.
pub fn row(entry: &Entry) -> (&'static str, Option<String>, Option<&str>) {
    let name = |e: &crate::update::transition::Effect| {
        serde_json::to_value(e).ok().and_then(|v| v.as_str().map(str::to_owned))
    };
    match entry {
        Entry::Accepted => ("accepted", None, None),
        Entry::Intent(e) => ("intent", name(e), None),
        Entry::Done(e) => ("done", name(e), None),
        Entry::Failed(e, why) => ("failed", name(e), Some(why)),
        Entry::Note(text) => ("note", None, Some(text)),
        Entry::Ended { .. } => ("ended", None, None),
    }
}
