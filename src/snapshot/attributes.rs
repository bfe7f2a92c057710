//! Owner, mode, times and extended attributes of one inode: reading them, and making them exact.

use std::os::fd::BorrowedFd;

use rustix::fs::{self, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags};
use rustix::io::{Errno, Result};

use super::beneath::magic;
use super::entry::{Entry, Kind};

/// Longest list of names, and longest value (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX` of Linux).
const LONGEST: usize = 64 << 10;
/// Security modules give every inode a label of its own; the destination's is overwritten, never removed.
const LABEL: &[u8] = b"security.selinux";

/// How an inode is reached.
#[derive(Clone, Copy)]
pub enum Inode<'a> {
    /// An open file or folder.
    Open(BorrowedFd<'a>),
    /// Anything, from [`beneath::node`](super::beneath::node).
    Node(BorrowedFd<'a>),
}

type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// All extended attributes, sorted by name. A file system that knows none has none.
pub fn xattrs(inode: Inode<'_>) -> Result<Xattrs> {
    let mut list = Vec::new();
    for name in names(inode)? {
        let value = match value(inode, &name) {
            // Removed between the list and the look.
            Err(Errno::NODATA) => continue,
            other => other?,
        };
        list.push((name, value));
    }
    list.sort_unstable();
    Ok(list)
}

fn names(inode: Inode<'_>) -> Result<Vec<Vec<u8>>> {
    let size = match inode {
        Inode::Open(fd) => fs::flistxattr_query(fd),
        Inode::Node(fd) => fs::listxattr_query(magic(fd)),
    };
    // Nearly every inode has none: one call, no memory.
    if matches!(size, Ok(0) | Err(Errno::NOTSUP)) {
        return Ok(Vec::new());
    }
    let mut buffer = vec![0; LONGEST];
    let length = match inode {
        Inode::Open(fd) => fs::flistxattr(fd, &mut buffer[..]),
        Inode::Node(fd) => fs::listxattr(magic(fd), &mut buffer[..]),
    }?;
    Ok(buffer[..length].split(|b| *b == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect())
}

fn value(inode: Inode<'_>, name: &[u8]) -> Result<Vec<u8>> {
    let mut buffer = vec![0; LONGEST];
    let length = match inode {
        Inode::Open(fd) => fs::fgetxattr(fd, name, &mut buffer[..]),
        Inode::Node(fd) => fs::getxattr(magic(fd), name, &mut buffer[..]),
    }?;
    buffer.truncate(length);
    Ok(buffer)
}

/// Gives the inode exactly the recorded metadata: also takes away what it inherited from its folder.
///
/// The order matters: a change of owner clears setuid and capabilities, and everything moves the times.
pub fn apply(inode: Inode<'_>, entry: &Entry) -> Result<()> {
    set_owner(inode, entry)?;
    if !matches!(entry.kind, Kind::Symlink { .. }) {
        let mode = Mode::from_raw_mode(entry.mode);
        match inode {
            Inode::Open(fd) => fs::fchmod(fd, mode),
            Inode::Node(fd) => fs::chmod(magic(fd), mode),
        }?;
    }
    set_xattrs(inode, &entry.xattrs)?;
    set_times(inode, entry)
}

fn set_owner(inode: Inode<'_>, entry: &Entry) -> Result<()> {
    let (uid, gid) = (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)));
    match inode {
        Inode::Open(fd) => fs::fchown(fd, uid, gid),
        Inode::Node(fd) => fs::chown(magic(fd), uid, gid),
    }
}

fn set_xattrs(inode: Inode<'_>, wanted: &Xattrs) -> Result<()> {
    let present = names(inode)?;
    for name in present.iter().filter(|name| *name != LABEL && !wanted.iter().any(|(w, _)| w == *name)) {
        match inode {
            Inode::Open(fd) => fs::fremovexattr(fd, &name[..]),
            Inode::Node(fd) => fs::removexattr(magic(fd), &name[..]),
        }?;
    }
    for (name, wanted) in wanted {
        if present.contains(name) && value(inode, name)? == *wanted {
            continue;
        }
        match inode {
            Inode::Open(fd) => fs::fsetxattr(fd, &name[..], wanted, XattrFlags::empty()),
            Inode::Node(fd) => fs::setxattr(magic(fd), &name[..], wanted, XattrFlags::empty()),
        }?;
    }
    Ok(())
}

fn set_times(inode: Inode<'_>, entry: &Entry) -> Result<()> {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: entry.mtime.secs, tv_nsec: entry.mtime.nanos.into() },
    };
    match inode {
        Inode::Open(fd) => fs::futimens(fd, &times),
        Inode::Node(fd) => fs::utimensat(fs::CWD, magic(fd), &times, fs::AtFlags::empty()),
    }
}
