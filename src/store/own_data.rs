//! The updater's journal as the data of the updater's own update: copied while the updater is stopped, put
//! back when the new one did not come up. A newer updater may have brought the journal to a format that
//! the old one refuses.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use rusqlite::Connection;
use rusqlite::backup::Backup;

use super::JOURNAL;
use super::chain::{companions, write_whole};
use crate::update::job::JobId;
use crate::update::ports::{
    CopyLabel, CopyReport, DataError, DataMount, DataStore, Distance, ExportSink, Generation, Kept, SnapshotInfo,
    Standing,
};

/// Pages that are copied in one step; the updater is stopped, so nobody waits for the lock.
const ALL_PAGES: i32 = -1;

/// Copies of the journal in the deputy's own folder.
pub struct OwnData {
    journal: PathBuf,
    copies: PathBuf,
}

impl OwnData {
    /// `updater` is the updater's state folder, `deputy` the deputy's.
    pub fn new(updater: PathBuf, deputy: PathBuf) -> Self {
        Self { journal: updater.join(JOURNAL), copies: deputy.join("copies") }
    }

    fn copy_of(&self, generation: &str) -> PathBuf {
        self.copies.join(format!("{generation}.db"))
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, String> + Send + 'static,
    ) -> Result<T, DataError> {
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|e| DataError::Broken(e.to_string()))?.map_err(DataError::Refused)
    }
}

/// A whole, self-contained copy: SQLite's own backup reads the write-ahead log too.
fn back_up(from: &Path, to: &Path) -> Result<(), String> {
    let text = |e: rusqlite::Error| format!("copying {} to {}: {e}", from.display(), to.display());
    let io = |e: std::io::Error| format!("{}: {e}", to.display());
    let folder = to.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(io)?;
    let unfinished = to.with_extension("new");
    let _ = std::fs::remove_file(&unfinished);
    let source = Connection::open(from).map_err(text)?;
    let mut target = Connection::open(&unfinished).map_err(text)?;
    let backup = Backup::new(&source, &mut target).map_err(text)?;
    backup.step(ALL_PAGES).map_err(text)?;
    drop(backup);
    target.close().map_err(|(_, e)| text(e))?;
    std::fs::File::open(&unfinished).and_then(|f| f.sync_all()).map_err(io)?;
    std::fs::rename(&unfinished, to).map_err(io)?;
    std::fs::File::open(folder).and_then(|f| f.sync_all()).map_err(io)
}

/// The journal becomes the copy; its log of the time since goes first, or it would be read into it.
fn put_back(copy: &Path, journal: &Path) -> Result<(), String> {
    let io = |e: std::io::Error| format!("putting {} back: {e}", journal.display());
    for end in ["-wal", "-shm"] {
        let mut log = journal.as_os_str().to_owned();
        log.push(end);
        match std::fs::remove_file(&log) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(io(e)),
            _ => {}
        }
    }
    for name in companions() {
        let beside = journal.with_file_name(name);
        match std::fs::remove_file(&beside) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(io(e)),
            _ => {}
        }
    }
    back_up(copy, journal)?;
    for name in companions() {
        if let Ok(bytes) = std::fs::read(copy.with_extension(name)) {
            write_whole(&journal.with_file_name(name), &bytes).map_err(io)?;
        }
    }
    Ok(())
}

/// What proves the journal is as old as the copy.
fn back_up_beside(journal: &Path, copy: &Path) -> Result<(), String> {
    for name in companions() {
        let to = copy.with_extension(name);
        let copied = match std::fs::read(journal.with_file_name(name)) {
            Ok(bytes) => write_whole(&to, &bytes),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
        };
        copied.map_err(|e| format!("{}: {e}", to.display()))?;
    }
    Ok(())
}

#[async_trait]
impl DataStore for OwnData {
    fn off(&self) -> Option<String> {
        None
    }

    async fn preflight(&self, _mounts: &[DataMount]) -> Result<(), DataError> {
        Ok(())
    }

    async fn hot(&self, _label: &CopyLabel, _mounts: &[DataMount], _report: CopyReport) -> Result<(), DataError> {
        Ok(())
    }

    async fn cold(
        &self,
        label: &CopyLabel,
        _mounts: &[DataMount],
        _report: CopyReport,
    ) -> Result<Generation, DataError> {
        let id = label.job.0.clone();
        let (journal, copy) = (self.journal.clone(), self.copy_of(&id));
        self.blocking(move || {
            back_up(&journal, &copy)?;
            back_up_beside(&journal, &copy)?;
            let bytes = std::fs::metadata(&copy).map_or(0, |m| m.len());
            Ok(Generation { id, files: 1, bytes })
        })
        .await
    }

    async fn running(
        &self,
        label: &CopyLabel,
        mounts: &[DataMount],
        report: CopyReport,
    ) -> Result<Generation, DataError> {
        self.cold(label, mounts, report).await
    }

    async fn restore(
        &self,
        label: &CopyLabel,
        generation: &str,
        _mounts: &[DataMount],
        _pinned: &[String],
        _report: CopyReport,
    ) -> Result<Kept, DataError> {
        let id = format!("failed-{}", label.job);
        let (journal, copy, kept) = (self.journal.clone(), self.copy_of(generation), self.copy_of(&id));
        self.blocking(move || {
            // Done twice, the second time would keep what was put back.
            if !kept.exists() {
                // A journal that not even SQLite can read is kept as the file it is.
                if let Err(why) = back_up(&journal, &kept) {
                    std::fs::copy(&journal, &kept).map_err(|e| format!("{why}; {e}"))?;
                }
            }
            put_back(&copy, &journal)?;
            Ok(Kept { id, pruned: Vec::new() })
        })
        .await
    }

    async fn load(&self, generation: &str, _mounts: &[DataMount], _report: CopyReport) -> Result<(), DataError> {
        let (journal, copy) = (self.journal.clone(), self.copy_of(generation));
        self.blocking(move || put_back(&copy, &journal)).await
    }

    /// Only the last job's copies are of any use.
    async fn tidy(&self, job: &JobId, _standing: &Standing) -> Result<(), DataError> {
        let (copies, job) = (self.copies.clone(), job.0.clone());
        self.blocking(move || {
            for entry in std::fs::read_dir(&copies).into_iter().flatten().flatten() {
                if !entry.file_name().to_string_lossy().contains(&job) {
                    let _ = std::fs::remove_file(entry.path());
                }
            }
            Ok(())
        })
        .await
    }

    async fn list(&self) -> Result<Vec<SnapshotInfo>, DataError> {
        Ok(Vec::new())
    }

    async fn verify(&self, _generation: &str) -> Result<(), DataError> {
        Ok(())
    }

    async fn distance(&self, _generation: &str, _mounts: &[DataMount]) -> Result<Distance, DataError> {
        Ok(Distance::default())
    }

    async fn export(&self, _generation: &str, _sink: ExportSink) -> Result<(), DataError> {
        Err(DataError::Refused("the journal is not exported".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal(folder: &Path, format: i64, row: &str) -> PathBuf {
        let file = folder.join(JOURNAL);
        let db = Connection::open(&file).unwrap();
        db.pragma_update(None, "journal_mode", "WAL").unwrap();
        db.pragma_update(None, "user_version", format).unwrap();
        db.execute_batch(&format!("CREATE TABLE IF NOT EXISTS t (x); INSERT INTO t VALUES ('{row}')")).unwrap();
        // As a process that was killed leaves it: with a log beside the file.
        std::mem::forget(db);
        file
    }

    fn rows(file: &Path) -> (i64, Vec<String>) {
        let db = Connection::open(file).unwrap();
        let format = db.query_row("PRAGMA user_version", [], |r| r.get(0)).unwrap();
        let mut query = db.prepare("SELECT x FROM t").unwrap();
        (format, query.query_map([], |r| r.get(0)).unwrap().map(Result::unwrap).collect())
    }

    #[tokio::test]
    async fn a_journal_of_a_newer_format_becomes_the_old_one_again() {
        let folder = tempfile::tempdir().unwrap();
        let (updater, deputy) = (folder.path().join("u"), folder.path().join("u/self"));
        std::fs::create_dir_all(&updater).unwrap();
        let file = journal(&updater, 1, "old");
        let data = OwnData::new(updater.clone(), deputy.clone());
        let label = CopyLabel { job: JobId("job_1".into()), ..CopyLabel::default() };
        let silent: CopyReport = std::sync::Arc::new(|_| ());
        let copy = data.cold(&label, &[], silent.clone()).await.unwrap();
        journal(&updater, 2, "new");
        for _ in 0..2 {
            let kept = data.restore(&label, &copy.id, &[], &[], silent.clone()).await.unwrap();
            assert_eq!(rows(&file), (1, vec!["old".to_owned()]));
            assert_eq!(rows(&deputy.join(format!("copies/{}.db", kept.id))), (2, vec!["old".into(), "new".into()]));
        }
        data.tidy(&JobId("job_2".into()), &Standing::default()).await.unwrap();
        assert_eq!(std::fs::read_dir(deputy.join("copies")).unwrap().count(), 0);
    }
}
