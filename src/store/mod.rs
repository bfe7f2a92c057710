//! The journal on disk: embedded SQLite, WAL, `synchronous=FULL`: what is committed is on the disk.
//!
//! | file | holds |
//! |---|---|
//! | `updater.lock`   | one process at a time (`flock`) |
//! | `journal.db`     | jobs, their private records, the audit trail, known-bad digests |
//! | `installation`   | sixteen random hexadecimal digits: which updater this is |
//! | `secret`         | 32 random bytes: which containers are its own ([`secret`]) |
//! | `ballast`        | room that is given back when the disk is full, see [`ballast`] |
//! | `self/`          | the same again for the updater's own updates, of its deputy ([`own_data`]) |
//! | `logs/<job>.log` | everything a job printed, at most [`logs::LOG_CAP`] bytes |

pub mod ballast;
mod damaged;
mod import;
mod lock;
pub mod logs;
pub mod own_data;
mod schema;
pub mod secret;
#[cfg(test)]
mod tests;

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, params};
use semver::Version;

use crate::engine::seal::Seal;
use crate::update::job::{Job, JobId, Kind, State};
use crate::update::ports::{Entry, Journal, JournalError, VerifiedDigest};
use crate::update::record::{Heading, Record};
use ballast::Ballast;
use logs::Logs;
use secret::Secret;

/// The journal's name in the state folder.
const JOURNAL: &str = "journal.db";
/// The most versions that are told of one digest.
const MOST_VERIFIED: usize = 8;

/// Why the state folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the state folder {} (PROCESSGIT_UPDATER_STATE_DIR) cannot be used: {source}", .folder.display())]
    Folder { folder: PathBuf, source: std::io::Error },
    #[error("the state folder {} is in use by another updater{holder}: only one may run on it", .folder.display())]
    Locked { folder: PathBuf, holder: String },
    #[error(
        "the journal {} cannot be read: {why}. The application was left as it is; move the file aside to start with an empty journal",
        .file.display()
    )]
    Damaged { file: PathBuf, why: String },
    #[error("the journal {} cannot be opened: {why}. Is the disk full, or not writable?", .file.display())]
    NoRoom { file: PathBuf, why: String },
    #[error(
        "the journal {} was written by a newer updater (format {found}, this one knows {known}): start the newer updater again",
        .file.display()
    )]
    Newer { file: PathBuf, found: i64, known: i64 },
    #[error("{} of the earlier implementation cannot be imported: {why}. Move it aside to start without its history", .file.display())]
    Import { file: PathBuf, why: String },
}

/// The journal. Calls run on a blocking thread; readers never wait for writers of the log.
pub struct Store {
    db: Arc<Mutex<Connection>>,
    logs: Option<Logs>,
    ballast: Option<Arc<Ballast>>,
    installation: String,
    seal: Seal,
    is_new: bool,
    /// What its operator should know.
    troubles: Vec<String>,
    /// Held for the life of the process.
    _lock: Option<lock::Lock>,
}

impl Store {
    /// Opens (or makes) the state folder, locks it, brings the journal to this program's format, and
    /// imports the history of the earlier implementation once. Blocking.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let io = |source| StoreError::Folder { folder: folder.to_owned(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(io)?;
        let lock = lock::Lock::take(folder)?;
        let file = folder.join(JOURNAL);
        let ballast = Ballast::of(folder);
        let (db, is_new) = match open_with_room(&file, &ballast) {
            Err(StoreError::Damaged { file, why }) => {
                let aside = damaged::put_aside(folder).map_err(io)?;
                tracing::error!(file = %aside.display(), "the journal cannot be read and was put aside: {why}");
                open_with_room(&file, &ballast)?
            }
            other => other?,
        };
        // The journal holds `.env` with its secrets.
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).map_err(io)?;
        import::once(&db, folder)?;
        let logs = Logs::open(&folder.join("logs")).map_err(io)?;
        make(&ballast);
        let installation = installation(&folder.join("installation")).map_err(io)?;
        let secret = Secret::of(folder).map_err(io)?;
        let mut troubles = damaged::notices(folder);
        troubles.extend(another_secret(&db, &secret, folder).map_err(|e| schema::faulty(&file, e))?);
        let (db, ballast) = (Arc::new(Mutex::new(db)), Some(Arc::new(ballast)));
        Ok(Self {
            db,
            logs: Some(logs),
            ballast,
            installation,
            seal: secret.seal(),
            is_new,
            troubles,
            _lock: Some(lock),
        })
    }

    /// To look at what is there, beside whoever works with it: nothing is made, locked or brought to another
    /// format. Without a journal it is an empty one. Blocking.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn peek(folder: &Path) -> Result<Self, StoreError> {
        let file = folder.join(JOURNAL);
        let is_new = !file.exists();
        let db = if is_new { schema::in_memory()? } else { schema::peek(&file)? };
        let secret = Secret::read(folder).ok().flatten();
        Ok(Self {
            installation: fs::read_to_string(folder.join("installation")).unwrap_or_default(),
            seal: secret.map_or_else(Seal::random, |secret| secret.seal()),
            is_new,
            troubles: damaged::notices(folder),
            ..Self::of(db)
        })
    }

    /// Who works on the state folder right now. Blocking.
    pub fn holder(folder: &Path) -> Option<String> {
        lock::holder(folder)
    }

    /// A journal that ends with the process, for tests.
    ///
    /// # Errors
    /// SQLite cannot be started.
    pub fn in_memory() -> Result<Self, StoreError> {
        Ok(Self { installation: random_name(), ..Self::of(schema::in_memory()?) })
    }

    /// Nothing but the tables.
    fn of(db: Connection) -> Self {
        Self {
            db: Arc::new(Mutex::new(db)),
            logs: None,
            ballast: None,
            installation: String::new(),
            seal: Seal::random(),
            is_new: false,
            troubles: Vec::new(),
            _lock: None,
        }
    }

    /// Which updater this is, among those of one engine: it stays when the journal is lost.
    pub fn installation(&self) -> &str {
        &self.installation
    }

    /// By which it recognises its own containers.
    pub fn seal(&self) -> &Seal {
        &self.seal
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, JournalError> {
        let db = self.db.clone();
        let done = tokio::task::spawn_blocking(move || work(&mut db.lock().unwrap_or_else(PoisonError::into_inner)));
        done.await.map_err(|e| JournalError(e.to_string()))?.map_err(|e| {
            let remedy = if lacks_room(&e) { "; is there room in the state folder?" } else { "" };
            JournalError(format!("{e}{remedy}"))
        })
    }
}

/// Its index needs some room of its own.
fn open_with_room(file: &Path, ballast: &Ballast) -> Result<(Connection, bool), StoreError> {
    match schema::open(file) {
        Err(StoreError::NoRoom { .. }) if ballast.release() => schema::open(file),
        other => other,
    }
}

fn random_name() -> String {
    format!("{:016x}", rand::random::<u64>())
}

/// Reads the name of this installation, or gives it one; durable when it returns.
fn installation(file: &Path) -> std::io::Result<String> {
    let known = fs::read_to_string(file).unwrap_or_default();
    if known.len() == 16 && known.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(known);
    }
    let name = random_name();
    fs::write(file, &name)?;
    fs::File::open(file)?.sync_all()?;
    file.parent().map_or(Ok(()), |folder| fs::File::open(folder)?.sync_all())?;
    Ok(name)
}

/// What the operator has to know when the secret is not the one that this journal was written with.
fn another_secret(db: &Connection, secret: &Secret, folder: &Path) -> rusqlite::Result<Option<String>> {
    let (now, known) = (secret.fingerprint(), schema::meta(db, "secret")?);
    if known.as_ref() == Some(&now) {
        return Ok(None);
    }
    schema::set_meta(db, "secret", &now)?;
    Ok(known.map(|_| {
        format!(
            "{}/secret was lost or replaced: containers that earlier jobs have left are no longer recognised and stay; `processgit-updater doctor` names them",
            folder.display()
        )
    }))
}

/// Without it the updater works as well, until the disk is full.
fn make(ballast: &Ballast) {
    if let Err(e) = ballast.make() {
        tracing::warn!("no room for the journal's reserve, so a full disk may leave a job to a person: {e}");
    }
}

/// The disk is full, as far as SQLite tells: some of its calls only know that they failed.
fn lacks_room(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{CannotOpen, DiskFull, SystemIoFailure};
    matches!(error.sqlite_error_code(), Some(DiskFull | SystemIoFailure | CannotOpen))
}

fn to_sql(error: serde_json::Error) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(error.into())
}

fn parse<T: serde::de::DeserializeOwned>(text: &str) -> rusqlite::Result<T> {
    serde_json::from_str(text)
        .map_err(|e| rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, e.into()))
}

#[async_trait]
impl Journal for Store {
    async fn save(&self, job: &Job, record: &Record, entry: Entry) -> Result<(), JournalError> {
        let (job, record, ballast) = (job.clone(), record.clone(), self.ballast.clone());
        // Going on is not worth the reserve: what cannot be written down is not begun, and it turns back.
        let is_vital = matches!(record.heading, Heading::Back { .. }) || matches!(entry, Entry::Ended { .. });
        let between_jobs = matches!(entry, Entry::Accepted | Entry::Ended { .. });
        self.with(move |db| {
            let saved = match write(db, &job, &record, &entry) {
                Err(e) if is_vital && lacks_room(&e) && ballast.as_ref().is_some_and(|b| b.release()) => {
                    tracing::warn!(job = %job.id, "the disk of the journal is full: its reserve was given back");
                    write(db, &job, &record, &entry)
                }
                other => other,
            };
            if between_jobs && let Some(ballast) = &ballast {
                make(ballast);
            }
            saved
        })
        .await
    }

    async fn unfinished(&self) -> Result<Vec<(Job, Record)>, JournalError> {
        self.with(|db| {
            let mut query =
                db.prepare("SELECT job, record FROM jobs WHERE ended = 0 AND record IS NOT NULL ORDER BY seq")?;
            let rows = query.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
            rows.map(|row| row.and_then(|(job, record)| Ok((parse(&job)?, parse(&record)?)))).collect()
        })
        .await
    }

    async fn job(&self, id: &str) -> Result<Option<Job>, JournalError> {
        let id = id.to_owned();
        self.with(move |db| {
            let found: Option<String> =
                db.query_row("SELECT job FROM jobs WHERE id = ?1", [&id], |r| r.get(0)).optional()?;
            found.map(|text| parse(&text)).transpose()
        })
        .await
    }

    async fn recent(&self, limit: usize) -> Result<Vec<Job>, JournalError> {
        self.with(move |db| {
            let mut query = db.prepare("SELECT job FROM jobs ORDER BY seq DESC LIMIT ?1")?;
            let rows = query.query_map([i64::try_from(limit).unwrap_or(i64::MAX)], |row| row.get::<_, String>(0))?;
            rows.map(|row| row.and_then(|text| parse(&text))).collect()
        })
        .await
    }

    async fn count(&self) -> Result<usize, JournalError> {
        self.with(|db| db.query_row("SELECT count(*) FROM jobs", [], |row| row.get::<_, i64>(0)))
            .await
            .map(|n| usize::try_from(n).unwrap_or(0))
    }

    async fn known_bad(&self, digest: &str) -> Result<Option<String>, JournalError> {
        let digest = digest.to_owned();
        self.with(move |db| {
            db.query_row("SELECT reason FROM known_bad WHERE digest = ?1", [&digest], |r| r.get(0)).optional()
        })
        .await
    }

    async fn last_committed(&self) -> Result<Option<(Job, Record)>, JournalError> {
        self.with(|db| {
            let mut query =
                db.prepare("SELECT job, record FROM jobs WHERE ended = 1 AND record IS NOT NULL ORDER BY seq DESC")?;
            let mut rows = query.query([])?;
            while let Some(row) = rows.next()? {
                let job: Job = parse(&row.get::<_, String>(0)?)?;
                let changed_version = matches!(job.kind, Kind::Update | Kind::Rollback | Kind::Restore);
                if job.state != State::Committed || !changed_version {
                    continue;
                }
                let record: Record = parse(&row.get::<_, String>(1)?)?;
                match record.plan.as_ref().map(|plan| plan.no_op || plan.stays) {
                    // It left the version as it was.
                    None | Some(true) => {}
                    // Back already: there is nothing before that is known to be good.
                    Some(false) if job.kind != Kind::Update => return Ok(None),
                    Some(false) => return Ok(Some((job, record))),
                }
            }
            Ok(None)
        })
        .await
    }

    async fn verified(&self, digest: &str) -> Result<Vec<VerifiedDigest>, JournalError> {
        let digest = digest.to_owned();
        self.with(move |db| {
            let mut query = db.prepare("SELECT job FROM jobs WHERE instr(job, ?1) > 0 ORDER BY seq DESC")?;
            let mut rows = query.query([&digest])?;
            let mut found = Vec::new();
            while let (true, Some(row)) = (found.len() < MOST_VERIFIED, rows.next()?) {
                let job: Job = parse(&row.get::<_, String>(0)?)?;
                found.extend(VerifiedDigest::of(&job, &digest).filter(|one| !found.contains(one)));
            }
            Ok(found)
        })
        .await
    }

    async fn highest_committed(&self) -> Result<Option<Version>, JournalError> {
        let text: Option<String> = self
            .with(|db| {
                db.query_row("SELECT value FROM meta WHERE key = 'highest_committed'", [], |r| r.get(0)).optional()
            })
            .await?;
        Ok(text.and_then(|text| Version::parse(&text).ok()))
    }

    fn is_new(&self) -> bool {
        self.is_new
    }

    fn troubles(&self) -> Vec<String> {
        self.troubles.clone()
    }

    fn log(&self, job: &JobId, line: &str) {
        let is_full = self.ballast.as_ref().is_some_and(|b| b.is_out());
        if let Some(logs) = self.logs.as_ref().filter(|_| !is_full) {
            logs.append(job, line);
        }
    }

    async fn read_log(&self, job: &str, offset: u64, cap: usize) -> Result<Vec<u8>, JournalError> {
        match &self.logs {
            Some(logs) => logs.read(job, offset, cap).await.map_err(|e| JournalError(e.to_string())),
            None => Ok(Vec::new()),
        }
    }
}

/// One transaction: job, record, entry, and what the end teaches.
fn write(db: &mut Connection, job: &Job, record: &Record, entry: &Entry) -> rusqlite::Result<()> {
    let tx = db.transaction()?;
    let job_text = serde_json::to_string(job).map_err(to_sql)?;
    let record_text = serde_json::to_string(record).map_err(to_sql)?;
    tx.execute(
        "INSERT INTO jobs (id, ended, job, record, sum) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (id) DO UPDATE SET ended = ?2, job = ?3, record = ?4, sum = ?5",
        params![job.id.0, job.state.is_end(), job_text, record_text, schema::sum(&job_text, Some(&record_text))],
    )?;
    let (what, effect, text) = describe(entry);
    tx.execute(
        "INSERT INTO trail (job, at, state, what, effect, text) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![job.id.0, job.updated_at.to_string(), job.state.name(), what, effect, text],
    )?;
    if let Entry::Ended { bad_digest, committed } = entry {
        learn(&tx, job, bad_digest.as_deref(), committed.as_ref())?;
    }
    tx.commit()
}

fn describe(entry: &Entry) -> (&'static str, Option<String>, Option<&str>) {
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
