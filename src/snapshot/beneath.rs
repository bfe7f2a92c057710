//! Opening and looking, always relative to a folder's descriptor, one name at a time: no symbolic
//! link is followed and no mount is crossed, whoever swaps what in the meantime.

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RawDir, ResolveFlags, StatxFlags};
use rustix::io::{Errno, Result};

use super::entry::Stat;

/// Paths longer than this are opened in pieces; the kernel's limit is 4,096 bytes.
const PIECE: usize = 2048;

fn open(dir: BorrowedFd<'_>, path: &[u8], flags: OFlags, mode: Mode) -> Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    loop {
        match rustix::fs::openat2(dir, path, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, mode, resolve) {
            // AGAIN: a rename elsewhere raced with the lookup.
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

/// A folder, to list it and to act in it.
pub fn folder(dir: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd> {
    open(dir, name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
}

/// A file, to read it. Neither blocks on a fifo that took its place nor touches its access time.
pub fn file(dir: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    match open(dir, name, flags | OFlags::NOATIME, Mode::empty()) {
        // NOATIME is a right of the owner.
        Err(Errno::PERM) => open(dir, name, flags, Mode::empty()),
        other => other,
    }
}

/// A new file, to write it and read it back; whatever has the name already is an error.
pub fn new_file(dir: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd> {
    open(dir, name, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL, Mode::RUSR | Mode::WUSR)
}

/// Anything, without opening it: for attributes through [`magic`].
pub fn node(dir: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd> {
    open(dir, name, OFlags::PATH, Mode::empty())
}

/// The folder that `path` is in, `path` being relative to `root`, and of any length.
pub fn parent(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd> {
    let end = path.iter().rposition(|b| *b == b'/').unwrap_or(0);
    let mut at = folder(root, b".")?;
    let mut rest = &path[..end];
    while !rest.is_empty() {
        let piece = if rest.len() <= PIECE {
            rest.len()
        } else {
            rest[..PIECE].iter().rposition(|b| *b == b'/').ok_or(Errno::NAMETOOLONG)?
        };
        use std::os::fd::AsFd;
        at = folder(at.as_fd(), &rest[..piece])?;
        rest = rest.get(piece + 1..).unwrap_or_default();
    }
    Ok(at)
}

const WANTED: StatxFlags = StatxFlags::BASIC_STATS;

/// What is there under this name; a symbolic link is itself.
pub fn stat(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Stat> {
    rustix::fs::statx(dir, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, WANTED).map(Stat::from)
}

/// [`stat`], or `None` when nothing is there.
pub fn look(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Option<Stat>> {
    match stat(dir, name) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

/// What this descriptor leads to.
pub fn stat_of(fd: BorrowedFd<'_>) -> Result<Stat> {
    rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, WANTED).map(Stat::from)
}

/// The path by which the kernel reaches exactly the inode of a descriptor, even one from [`node`].
pub fn magic(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// A second, readable descriptor of the inode behind a [`node`] that is a file.
pub fn reopen(fd: BorrowedFd<'_>, flags: OFlags) -> Result<OwnedFd> {
    rustix::fs::openat(CWD, magic(fd), flags | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())
}

/// The names in a folder, sorted by their bytes, packed: a folder may hold a million.
pub struct Names {
    bytes: Vec<u8>,
    spans: Vec<(u32, u32)>,
}

impl Names {
    /// Lists the folder, `.` and `..` left out. `buffer` is scratch space. [`Errno::NOMEM`]: the names take more than
    /// `most` bytes.
    pub fn list(folder: BorrowedFd<'_>, buffer: &mut [MaybeUninit<u8>], most: usize) -> Result<Self> {
        let mut names = Names { bytes: Vec::new(), spans: Vec::new() };
        let mut entries = RawDir::new(folder, buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let start = u32::try_from(names.bytes.len()).map_err(|_| Errno::FBIG)?;
            names.bytes.extend(name);
            names.spans.push((start, name.len() as u32));
            if names.held() > most {
                return Err(Errno::NOMEM);
            }
        }
        let Names { bytes, spans } = &mut names;
        spans.sort_unstable_by(|a, b| slice(bytes, *a).cmp(slice(bytes, *b)));
        Ok(names)
    }

    /// Bytes that are held.
    pub fn held(&self) -> usize {
        self.bytes.len() + self.spans.len() * size_of::<(u32, u32)>()
    }

    /// The name at this place.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        self.spans.get(index).map(|span| slice(&self.bytes, *span))
    }

    /// All names, in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.spans.iter().map(|span| slice(&self.bytes, *span))
    }
}

fn slice(bytes: &[u8], (start, length): (u32, u32)) -> &[u8] {
    &bytes[start as usize..(start + length) as usize]
}

/// Scratch space for [`Names::list`].
pub fn scratch() -> Vec<MaybeUninit<u8>> {
    vec![MaybeUninit::uninit(); 32 << 10]
}

#[cfg(test)]
mod tests;
