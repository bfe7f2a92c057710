//! Room that the journal keeps for itself: a file that is given back when the disk is full, so that the
//! way back can still be written down.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FallocateFlags, fallocate, fstatvfs};

/// Bytes. A save appends the job and its record to the write-ahead log, at most about 200 KiB: a dozen steps
/// of 16 KiB of output each, and a Plan. The longest way back makes twenty saves.
pub const SIZE: u64 = 4 << 20;

/// The reserve of one state folder.
pub struct Ballast {
    file: PathBuf,
    /// It was given back, and nobody else may take the room meanwhile.
    is_out: AtomicBool,
}

impl Ballast {
    pub fn of(folder: &Path) -> Self {
        Self { file: folder.join("ballast"), is_out: AtomicBool::new(false) }
    }

    /// It was given back: what can be done without should not be written now.
    pub fn is_out(&self) -> bool {
        self.is_out.load(Ordering::Relaxed)
    }

    /// Makes it, if it is not there. Blocking.
    ///
    /// # Errors
    /// There is no room for it, or the file cannot be written.
    pub fn make(&self) -> io::Result<()> {
        if !self.is_whole() {
            let made = self.write();
            if made.is_err() {
                // Half of it helps nobody.
                let _ = fs::remove_file(&self.file);
            }
            made?;
        }
        self.is_out.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Gives the room back. `false`: there was none to give. Blocking.
    pub fn release(&self) -> bool {
        let released = fs::remove_file(&self.file).is_ok();
        if released {
            // Some file systems hand out freed blocks only after they have written down that they are free.
            let _ = self.file.parent().map(|folder| File::open(folder).and_then(|folder| folder.sync_all()));
            self.is_out.store(true, Ordering::Relaxed);
        }
        released
    }

    fn is_whole(&self) -> bool {
        fs::metadata(&self.file).is_ok_and(|m| m.len() == SIZE && m.blocks() * 512 >= SIZE)
    }

    fn write(&self) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&self.file)?;
        let free = fstatvfs(&file)?;
        let free = free.f_bavail * free.f_frsize;
        if free < 2 * SIZE {
            let text = format!("{} MiB are free, {} are needed", free >> 20, (2 * SIZE) >> 20);
            return Err(io::Error::new(io::ErrorKind::StorageFull, text));
        }
        let _ = fallocate(&file, FallocateFlags::empty(), 0, SIZE);
        if !self.is_whole() {
            // This file system promises blocks only to what is written, and may compress what is alike.
            let mut content = vec![0; SIZE as usize];
            blake3::Hasher::new().finalize_xof().fill(&mut content);
            file.write_all(&content)?;
        }
        file.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_really_there_and_really_given_back() {
        for folder in [std::env::temp_dir(), "/dev/shm".into()] {
            let folder = tempfile::tempdir_in(folder).unwrap();
            let (ballast, file) = (Ballast::of(folder.path()), folder.path().join("ballast"));
            for torn in [None, Some(0), Some(SIZE - 1), Some(SIZE)] {
                if let Some(size) = torn {
                    // A hole of the right size is no reserve either.
                    File::create(&file).unwrap().set_len(size).unwrap();
                }
                ballast.make().unwrap();
                let made = fs::metadata(&file).unwrap();
                assert!(made.blocks() * 512 >= SIZE && made.len() == SIZE && made.mode() & 0o777 == 0o600, "{torn:?}");
            }
            assert!(ballast.release() && ballast.is_out() && !file.exists());
            assert!(!ballast.release());
            ballast.make().unwrap();
            assert!(!ballast.is_out());
        }
    }
}
