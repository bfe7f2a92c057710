//! The journal on disk: embedded SQLite, WAL, `synchronous=FULL`: what is committed is on the disk.
//!
//! | file | holds |
//! |---|---|
//! | `updater.lock`   | one process at a time (`flock`) |
//! | `journal.db`     | jobs, their private records, the audit trail, known-bad digests |
//! | `journal.head`   | the last entry of the trail: proves that nothing was cut off ([`chain`]) |
//! | `journal.known`  | known-bad digests and the highest version once more ([`known`]) |
//! | `installation`   | sixteen random hexadecimal digits: which updater this is |
//! | `secret`         | 32 random bytes: which containers are its own ([`secret`]) |
//! | `ballast`        | room that is given back when the disk is full, see [`ballast`] |
//! | `self/`          | the same again for the updater's own updates, of its deputy ([`own_data`]) |
//! | `logs/<job>.log` | everything a job printed, at most [`logs::LOG_CAP`] bytes |

pub mod ballast;
mod chain;
mod damaged;
mod import;
mod known;
mod lock;
pub mod logs;
pub mod own_data;
mod rows;
mod schema;
pub mod secret;
#[cfg(test)]
mod tests;
mod thin;

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension};
use semver::Version;

use crate::engine::seal::Seal;
use crate::update::job::{Job, JobId, Kind, State};
use crate::update::ports::{Entry, Journal, JournalError, VerifiedDigest};
use crate::update::record::{Heading, Record};
use ballast::Ballast;
use chain::{Head, HeadFile};
use known::Known;
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
    troubles: Arc<Mutex<Vec<String>>>,
    beside: Option<Arc<Beside>>,
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
        let (opened, was_damaged) = match open_with_room(&file, &ballast) {
            Err(StoreError::Damaged { file, why }) => {
                let aside = damaged::put_aside(folder).map_err(io)?;
                tracing::error!(file = %aside.display(), "the journal cannot be read and was put aside: {why}");
                (open_with_room(&file, &ballast)?, true)
            }
            other => (other?, false),
        };
        let is_new = opened.is_new;
        let (db, beside) = beside(opened, folder, &file, was_damaged)?;
        import::once(&db, folder)?;
        let logs = Logs::open(&folder.join("logs")).map_err(io)?;
        make(&ballast);
        let installation = installation(&folder.join("installation")).map_err(io)?;
        let secret = Secret::of(folder).map_err(io)?;
        let mut troubles = damaged::notices(folder);
        troubles.extend(another_secret(&db, &secret, folder).map_err(|e| schema::faulty(&file, e))?);
        if let Err(e) = schema::checkpoint(&db) {
            tracing::warn!("the journal's log cannot be emptied: {e}");
        }
        let store = Self {
            db: Arc::new(Mutex::new(db)),
            logs: Some(logs),
            ballast: Some(Arc::new(ballast)),
            installation,
            seal: secret.seal(),
            is_new,
            troubles: Arc::new(Mutex::new(troubles)),
            beside: Some(Arc::new(beside)),
            _lock: Some(lock),
        };
        store.keep_up(file, folder.to_owned());
        Ok(store)
    }

    /// What may take its time, in the background: a large journal is read as a whole, and old history is thinned.
    fn keep_up(&self, file: PathBuf, folder: PathBuf) {
        let is_large = !schema::is_small(&file);
        let (db, troubles) = (Arc::downgrade(&self.db), self.troubles.clone());
        let beside = self.beside.clone();
        let logs = self.logs.as_ref().map(|logs| logs.folder().to_owned());
        let work = move || {
            if is_large && let Some(fault) = schema::look(&file) {
                let text = fault_text(&file, &fault);
                tracing::error!("{text}");
                damaged::note_loss(&folder, &text);
                troubles.lock().unwrap_or_else(PoisonError::into_inner).push(text);
            }
            // Ends with the store.
            while let Some(db) = db.upgrade() {
                let thinned = thin_some(&mut db.lock().unwrap_or_else(PoisonError::into_inner), beside.as_deref());
                drop(db);
                let thinned = thinned.unwrap_or_else(|e| {
                    tracing::warn!("old history cannot be thinned: {e}");
                    Vec::new()
                });
                if thinned.is_empty() {
                    return;
                }
                for job in thinned {
                    let _ = logs.as_ref().map(|logs| fs::remove_file(logs::path(logs, &job.0)));
                }
                std::thread::sleep(BETWEEN_BATCHES);
            }
        };
        let is_due = {
            let db = self.db.lock().unwrap_or_else(PoisonError::into_inner);
            thin::is_due(&db, thin::WHOLE).unwrap_or(false)
        };
        if (is_due || is_large)
            && let Err(e) = std::thread::Builder::new().name("journal".into()).spawn(work)
        {
            tracing::warn!("the journal is not looked through: {e}");
        }
    }

    /// To look at what is there, beside whoever works with it: nothing is made, locked or brought to another
    /// format. Without a journal it is an empty one. Blocking.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn peek(folder: &Path) -> Result<Self, StoreError> {
        let file = folder.join(JOURNAL);
        let is_new = !file.exists();
        // Read before the journal: whoever works with it only goes on.
        let head = HeadFile::read(folder);
        let db = if is_new { schema::in_memory()? } else { schema::peek(&file)? };
        let mut troubles = damaged::notices(folder);
        if let Some(head) = head.filter(|head| head.seq > 0 && !is_new) {
            // A journal of the format before has no links to look at.
            let fault = chain::fault_at(&db, &head).unwrap_or_default();
            troubles.extend(fault.map(|fault| fault_text(&file, &fault)));
        }
        let secret = Secret::read(folder).ok().flatten();
        Ok(Self {
            installation: fs::read_to_string(folder.join("installation")).unwrap_or_default(),
            seal: secret.map_or_else(Seal::random, |secret| secret.seal()),
            is_new,
            troubles: Arc::new(Mutex::new(troubles)),
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
            troubles: Arc::default(),
            beside: None,
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
        done.await.map_err(|e| JournalError::Failed(e.to_string()))?.map_err(|e| match lacks_room(&e) {
            true => JournalError::NoRoom(e.to_string()),
            false => JournalError::Failed(e.to_string()),
        })
    }
}

/// Its index needs some room of its own.
fn open_with_room(file: &Path, ballast: &Ballast) -> Result<schema::Opened, StoreError> {
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

/// What is kept beside the journal.
struct Beside {
    folder: PathBuf,
    head: Mutex<Option<HeadFile>>,
}

impl Beside {
    /// After a save: the journal has it, so a fault here costs only the proof.
    fn saved(&self, head: &Head) {
        let mut file = self.head.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Err(e)) = file.as_mut().map(|file| file.write(head)) {
            tracing::warn!("the journal's end cannot be written down beside it: {e}");
        }
    }

    fn learned(&self, db: &Connection) {
        let written = Known::of(db).map_err(|e| e.to_string());
        if let Err(e) = written.and_then(|known| known.write(&self.folder).map_err(|e| e.to_string())) {
            tracing::warn!("what is known of versions cannot be written down beside the journal: {e}");
        }
    }
}

/// Compares the journal with what is kept beside it, brings back what it has lost, and begins anew with both.
fn beside(
    opened: schema::Opened,
    folder: &Path,
    file: &Path,
    was_damaged: bool,
) -> Result<(Connection, Beside), StoreError> {
    let schema::Opened { mut db, is_new, was_unlinked } = opened;
    let sql = |e| schema::faulty(file, e);
    let head = HeadFile::read(folder);
    let had_head = schema::meta(&db, "head").map_err(sql)?.is_some();
    let mut fault = match &head {
        _ if was_damaged || was_unlinked => None,
        // Of a journal without any entry.
        Some(Head { seq: 0, .. }) => None,
        Some(head) => chain::fault_at(&db, head).map_err(sql)?,
        None if had_head && !is_new => Some("its proof, journal.head, is missing or damaged".to_owned()),
        None => None,
    };
    if fault.is_none() && schema::is_small(file) {
        fault = chain::fault(&db).map_err(sql)?;
    }
    let brought_back = match Known::read(folder) {
        Some(known) => known.bring_back(&mut db).map_err(sql)?,
        None => false,
    };
    if let Some(fault) = fault {
        damaged::note_loss(folder, &fault_text(file, &fault));
    } else if brought_back && !was_damaged && !was_unlinked {
        damaged::note_loss(folder, &fault_text(file, "versions known to be bad, or the highest version, were missing"));
    }
    if !had_head {
        schema::set_meta(&db, "head", "1").map_err(sql)?;
    }
    // On a full disk it works without.
    let now = chain::head(&db).map_err(sql)?;
    let begun = HeadFile::begin(folder, now).map_err(|e| tracing::warn!("journal.head cannot be written: {e}")).ok();
    let beside = Beside { folder: folder.to_owned(), head: Mutex::new(begun) };
    beside.learned(&db);
    Ok((db, beside))
}

fn fault_text(file: &Path, fault: &str) -> String {
    format!(
        "the journal {} is not what was written to it: {fault}. History or audit trail may be incomplete; versions known to be bad and the highest version were kept beside it",
        file.display()
    )
}

/// Between two batches of thinning the journal is free for others.
const BETWEEN_BATCHES: std::time::Duration = std::time::Duration::from_millis(20);

/// A batch of old jobs loses its details; whose they were.
fn thin_some(db: &mut Connection, beside: Option<&Beside>) -> rusqlite::Result<Vec<JobId>> {
    if !thin::is_due(db, thin::WHOLE)? {
        return Ok(Vec::new());
    }
    let spared = last_committed(db)?.map(|(job, _)| job.id);
    let (thinned, head) = thin::batch(db, thin::WHOLE, spared.as_ref())?;
    if let (Some(beside), Some(head)) = (beside, head) {
        beside.saved(&head);
    }
    Ok(thinned)
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
        let ends = matches!(entry, Entry::Ended { .. });
        let beside = self.beside.clone();
        let logs = self.logs.as_ref().map(|logs| logs.folder().to_owned());
        self.with(move |db| {
            let saved = match rows::write(db, &job, &record, &entry) {
                Err(e) if is_vital && lacks_room(&e) && ballast.as_ref().is_some_and(|b| b.release()) => {
                    tracing::warn!(job = %job.id, "the disk of the journal is full: its reserve was given back");
                    rows::write(db, &job, &record, &entry)
                }
                other => other,
            };
            if let (Ok(head), Some(beside)) = (&saved, &beside) {
                beside.saved(head);
                if ends {
                    beside.learned(db);
                    for job in thin_some(db, Some(beside)).unwrap_or_default() {
                        let _ = logs.as_ref().map(|logs| fs::remove_file(logs::path(logs, &job.0)));
                    }
                    if let Err(e) = schema::checkpoint(db) {
                        tracing::warn!("the journal's log cannot be emptied: {e}");
                    }
                }
            }
            if between_jobs && let Some(ballast) = &ballast {
                make(ballast);
            }
            saved.map(|_| ())
        })
        .await
    }

    async fn settle(&self, job: &Job) -> Result<(), JournalError> {
        let (job, beside) = (job.clone(), self.beside.clone());
        self.with(move |db| {
            let head = rows::settle(db, &job)?;
            if let Some(beside) = &beside {
                beside.saved(&head);
            }
            Ok(())
        })
        .await
    }

    async fn waiting(&self) -> Result<Vec<Job>, JournalError> {
        self.with(|db| rows::waiting(db)).await
    }

    async fn record(&self, id: &str) -> Result<Option<Record>, JournalError> {
        let id = id.to_owned();
        self.with(move |db| rows::record(db, &id)).await
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
        self.with(|db| last_committed(db)).await
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
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn log(&self, job: &JobId, line: &str) {
        let is_full = self.ballast.as_ref().is_some_and(|b| b.is_out());
        if let Some(logs) = self.logs.as_ref().filter(|_| !is_full) {
            logs.append(job, line);
        }
    }

    async fn read_log(&self, job: &str, offset: u64, cap: usize) -> Result<Vec<u8>, JournalError> {
        match &self.logs {
            Some(logs) => logs.read(job, offset, cap).await.map_err(|e| JournalError::Failed(e.to_string())),
            None => Ok(Vec::new()),
        }
    }
}

fn last_committed(db: &Connection) -> rusqlite::Result<Option<(Job, Record)>> {
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
}
