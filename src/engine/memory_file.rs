//! Files for a child process that are on no disk: nothing is left behind, whoever kills whom, and nobody else
//! can read them.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{MemfdFlags, memfd_create};

/// Bytes in memory that a child can open by a path (memfd_create(2)).
#[derive(Debug, Clone)]
pub struct MemoryFile(Arc<OwnedFd>);

impl MemoryFile {
    /// # Errors
    /// The kernel has no memory for it.
    pub fn new(bytes: &[u8]) -> io::Result<Self> {
        // Only the child that is meant to have it gets it, see `spawner`.
        let mut file = File::from(memfd_create("processgit-updater", MemfdFlags::CLOEXEC)?);
        file.write_all(bytes)?;
        Ok(Self(Arc::new(file.into())))
    }

    /// Where a child that was given it finds it.
    pub fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.0.as_raw_fd())
    }
}

impl AsFd for MemoryFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
