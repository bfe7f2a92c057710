//! One updater on one state folder.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::StoreError;

/// Who has it, if somebody has. A moment's shared lock tells.
pub fn holder(folder: &Path) -> Option<String> {
    let mut file = File::open(folder.join("updater.lock")).ok()?;
    if flock(&file, FlockOperation::NonBlockingLockShared).is_ok() {
        return None;
    }
    let mut holder = String::new();
    let _ = file.read_to_string(&mut holder);
    Some(holder.trim().to_owned())
}

/// Held as long as it lives; the kernel drops it with the process, however that ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes it, or says who holds it.
    pub fn take(folder: &Path) -> Result<Self, StoreError> {
        let io = |source| StoreError::Folder { folder: folder.to_owned(), source };
        let path = folder.join("updater.lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(io)?;
        let mut holder = String::new();
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let _ = file.read_to_string(&mut holder);
            let holder = if holder.trim().is_empty() { String::new() } else { format!(" ({})", holder.trim()) };
            return Err(StoreError::Locked { folder: folder.to_owned(), holder });
        }
        // For people only; a full disk must not keep a job from being ended.
        let _ = file.set_len(0).and_then(|()| file.rewind());
        let _ = writeln!(file, "process {}", std::process::id());
        Ok(Self { _file: file })
    }
}
