//! A journal that cannot be read is kept, aside: nothing in it is ever deleted.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

/// How the files are called that were put aside.
const ASIDE: &str = "journal.db.damaged-";
/// SQLite's write-ahead log and its index belong to the database.
const PARTS: [&str; 3] = ["", "-wal", "-shm"];

/// Renames the journal with its write-ahead log, so that SQLite still takes them for one; durable when it
/// returns.
pub fn put_aside(folder: &Path) -> io::Result<PathBuf> {
    let stamp = Timestamp::now().strftime("%Y%m%dT%H%M%S%.3fZ");
    let aside = folder.join(format!("{ASIDE}{stamp}"));
    for part in PARTS {
        let name = |base: &Path| PathBuf::from(format!("{}{part}", base.display()));
        match fs::rename(name(&folder.join("journal.db")), name(&aside)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    File::open(folder).and_then(|folder| folder.sync_all())?;
    Ok(aside)
}

/// How the files are called that tell of a loss.
const LOST: &str = "journal.lost-";

/// Writes down that something was lost, so that it is told until somebody removes the file; once only.
pub fn note_loss(folder: &Path, what: &str) {
    let is_known = named(folder, LOST).iter().any(|file| fs::read_to_string(file).is_ok_and(|text| text == what));
    if is_known {
        return;
    }
    let stamp = Timestamp::now().strftime("%Y%m%dT%H%M%S%.3fZ");
    if let Err(e) = super::chain::write_whole(&folder.join(format!("{LOST}{stamp}")), what.as_bytes()) {
        tracing::warn!("it cannot be written down that something was lost: {e}");
    }
}

fn named(folder: &Path, beginning: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries.filter_map(|e| e.ok().map(|e| e.path())).collect();
    found.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(beginning) && !name.ends_with("-wal") && !name.ends_with("-shm") && !name.ends_with(".new")
    });
    found.sort();
    found
}

/// The journals that were put aside and are still there, one line each for the operator.
pub fn notices(folder: &Path) -> Vec<String> {
    let notice = |path: &PathBuf| {
        format!(
            "the journal was damaged and a new one was begun: the history until then is in {}; remove that file when nobody needs it",
            path.display()
        )
    };
    let lost = |path: &PathBuf| {
        let what = fs::read_to_string(path).unwrap_or_else(|e| e.to_string());
        format!("{what}. Remove {} when you have seen to it", path.display())
    };
    named(folder, ASIDE).iter().map(notice).chain(named(folder, LOST).iter().map(lost)).collect()
}
