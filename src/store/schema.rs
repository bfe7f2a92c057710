//! The journal's tables, and their version.

use std::path::Path;

use rusqlite::Connection;

use super::StoreError;

/// Kept in SQLite's `user_version`. A newer one is never opened by an older binary.
const FORMAT: i64 = 1;

const TABLES: &str = "
CREATE TABLE jobs (
    seq    INTEGER PRIMARY KEY AUTOINCREMENT,
    id     TEXT NOT NULL UNIQUE,
    ended  INTEGER NOT NULL,
    job    TEXT NOT NULL,            -- JSON, as the API shows it
    record TEXT                      -- JSON, what recovery needs; NULL for imported jobs
) STRICT;
CREATE INDEX jobs_unfinished ON jobs (ended) WHERE ended = 0;
CREATE TABLE trail (                 -- append-only: what was meant, and what came of it
    seq    INTEGER PRIMARY KEY AUTOINCREMENT,
    job    TEXT NOT NULL,
    at     TEXT NOT NULL,
    state  TEXT NOT NULL,
    what   TEXT NOT NULL,
    effect TEXT,
    text   TEXT
) STRICT;
CREATE TABLE known_bad (digest TEXT PRIMARY KEY, reason TEXT NOT NULL) STRICT;
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
";

/// Opens the journal, checks that it is whole, and makes the tables of a new one.
pub fn open(file: &Path) -> Result<Connection, StoreError> {
    let wrong = |why: String| StoreError::Journal { file: file.to_owned(), why };
    let sql = |e: rusqlite::Error| match super::lacks_room(&e) {
        true => StoreError::NoRoom { file: file.to_owned(), why: e.to_string() },
        false => wrong(e.to_string()),
    };
    let db = Connection::open(file).map_err(sql)?;
    db.pragma_update(None, "journal_mode", "WAL").map_err(sql)?;
    // FULL: a commit returns after the disk has it, also in WAL mode.
    db.pragma_update(None, "synchronous", "FULL").map_err(sql)?;
    // A journal is read rarely: a quarter of a mebibyte (negative: KiB) is plenty.
    db.pragma_update(None, "cache_size", -256).map_err(sql)?;
    let check: String = db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(sql)?;
    if check != "ok" {
        return Err(wrong(check));
    }
    let found: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(sql)?;
    match found {
        0 => make(&db).map_err(sql)?,
        FORMAT => {}
        _ => return Err(StoreError::Newer { file: file.to_owned(), found, known: FORMAT }),
    }
    Ok(db)
}

/// A journal without a file.
pub fn in_memory() -> Result<Connection, StoreError> {
    let sql = |e: rusqlite::Error| StoreError::Journal { file: ":memory:".into(), why: e.to_string() };
    let db = Connection::open_in_memory().map_err(sql)?;
    make(&db).map_err(sql)?;
    Ok(db)
}

fn make(db: &Connection) -> rusqlite::Result<()> {
    // By its name other updaters tell this state folder from theirs.
    let name = "INSERT INTO meta VALUES ('installation', lower(hex(randomblob(8))));";
    db.execute_batch(&format!("BEGIN; {TABLES} {name} PRAGMA user_version = {FORMAT}; COMMIT;"))
}
