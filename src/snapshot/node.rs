//! Making and removing one entry in a folder.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Mode, linkat, makedev, mkdirat, mknodat, symlinkat, unlinkat};
use rustix::io::{Errno, Result};

use super::attributes::{self, Inode};
use super::beneath::{self, Names};
use super::entry::{Entry, Kind, Stat};
use super::trail::Trail;
use super::walk::is_mount;

/// Makes what is neither folder nor file, with all its metadata. A socket is made as a name without a
/// listener, as `tar` and `rsync` make it: the application binds it anew.
pub fn special(folder: BorrowedFd<'_>, name: &[u8], entry: &Entry) -> Result<()> {
    let make = |file_type, dev| mknodat(folder, name, file_type, Mode::RUSR | Mode::WUSR, dev);
    match &entry.kind {
        Kind::Symlink { target } => symlinkat(&target[..], folder, name),
        Kind::Fifo => make(FileType::Fifo, 0),
        Kind::Socket => make(FileType::Socket, 0),
        Kind::CharDevice { major, minor } => make(FileType::CharacterDevice, makedev(*major, *minor)),
        Kind::BlockDevice { major, minor } => make(FileType::BlockDevice, makedev(*major, *minor)),
        Kind::Folder | Kind::File { .. } | Kind::Mount { .. } => Err(Errno::INVAL),
    }?;
    let node = beneath::node(folder, name)?;
    attributes::apply(Inode::Node(node.as_fd()), entry)
}

/// Makes a folder that only we can enter; its metadata comes when its content is complete.
pub fn new_folder(folder: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    mkdirat(folder, name, Mode::RWXU)
}

/// Makes something to mount on.
pub fn mountpoint(dir: BorrowedFd<'_>, name: &[u8], folder: bool) -> Result<()> {
    if folder { new_folder(dir, name) } else { beneath::new_file(dir, name).map(drop) }
}

/// Gives the entry at `path` below `root` one more name.
pub fn link(root: BorrowedFd<'_>, path: &[u8], folder: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    let parent = beneath::parent(root, path)?;
    let from = path.rsplit(|b| *b == b'/').next().unwrap_or_default();
    linkat(&parent, from, folder, name, AtFlags::empty())
}

/// Removes whatever has this name, with everything below. Mountpoints, and the folders that lead to
/// them, stay: then `false`. `removed` counts. Mounts are told by `root`, the root of the tree.
pub fn remove(folder: BorrowedFd<'_>, name: &[u8], root: &Stat, removed: &mut u64) -> Result<bool> {
    if let Some(done) = unlink(folder, name, removed)? {
        return Ok(done);
    }
    if is_mount(&beneath::stat(folder, name)?, root) {
        return Ok(false);
    }
    let mut scratch = beneath::scratch();
    let mut trail = Trail::new(rustix::io::fcntl_dupfd_cloexec(folder, 0)?);
    let mut levels = vec![Level::enter(&mut trail, name, &mut scratch)?];
    let mut all = true;
    while let Some(level) = levels.last_mut() {
        let folder = trail.folder()?;
        let Some(name) = level.names.get(level.next) else {
            let Some(Level { name, complete, .. }) = levels.pop() else { break };
            all = complete;
            trail.pop();
            if complete {
                unlinkat(&trail.folder()?, &name[..], AtFlags::REMOVEDIR)?;
            } else if let Some(outer) = levels.last_mut() {
                outer.complete = false;
            }
            *removed += u64::from(complete);
            continue;
        };
        level.next += 1;
        match unlink(folder.as_fd(), name, removed)? {
            Some(true) => {}
            Some(false) => level.complete = false,
            None if is_mount(&beneath::stat(folder.as_fd(), name)?, root) => level.complete = false,
            None => {
                let inner = Level::enter(&mut trail, name, &mut scratch)?;
                levels.push(inner);
            }
        }
    }
    Ok(all)
}

/// A folder that is being emptied; the innermost one of a trail.
struct Level {
    name: Box<[u8]>,
    names: Names,
    next: usize,
    complete: bool,
}

impl Level {
    fn enter(trail: &mut Trail, name: &[u8], scratch: &mut [MaybeUninit<u8>]) -> Result<Self> {
        let folder = beneath::folder(trail.folder()?.as_fd(), name)?;
        let names = Names::list(folder.as_fd(), scratch, usize::MAX)?;
        let stat = beneath::stat_of(folder.as_fd())?;
        trail.push_open(name, folder, &stat);
        Ok(Self { name: name.into(), names, next: 0, complete: true })
    }
}

/// Removes what is no folder. `Some(true)`: gone, `Some(false)`: something is mounted there, `None`: a folder.
fn unlink(folder: BorrowedFd<'_>, name: &[u8], removed: &mut u64) -> Result<Option<bool>> {
    match unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) => {
            *removed += 1;
            Ok(Some(true))
        }
        Err(Errno::NOENT) => Ok(Some(true)),
        Err(Errno::BUSY) => Ok(Some(false)),
        Err(Errno::ISDIR) => Ok(None),
        Err(e) => Err(e),
    }
}
