//! The folders from the root of a tree to where we stand. A tree may be deeper than a process may have files open,
//! so only some of them are: the innermost, and one in every so many, from which the others are opened again on the
//! way back. What is held of each of them is one name.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::io::{Errno, Result};

use super::beneath;
use super::entry::Stat;

/// So many of the innermost folders stay open.
const INNERMOST: usize = 64;
/// Of the others one in so many: as many folders are opened again at most to come back to one.
const PINNED: usize = 64;

/// A stack of folders in one tree.
pub struct Trail {
    root: Rc<OwnedFd>,
    levels: Vec<Level>,
}

struct Level {
    name: Box<[u8]>,
    folder: Option<Rc<OwnedFd>>,
    /// Which one it must be when it is opened again.
    identity: Option<((u32, u32), u64)>,
}

impl Trail {
    /// Starts at `root`.
    pub fn new(root: OwnedFd) -> Self {
        Self { root: Rc::new(root), levels: Vec::new() }
    }

    /// The folder it starts at.
    pub fn root(&self) -> &OwnedFd {
        &self.root
    }

    /// Goes into a folder of the innermost one. It is opened when something is to be done there: in a pass in which
    /// nothing changed, none is.
    pub fn push(&mut self, name: &[u8]) {
        self.levels.push(Level { name: name.into(), folder: None, identity: None });
    }

    /// Goes into a folder of the innermost one that is open already.
    pub fn push_open(&mut self, name: &[u8], folder: OwnedFd, stat: &Stat) {
        let identity = Some((stat.dev, stat.ino));
        self.levels.push(Level { name: name.into(), folder: Some(Rc::new(folder)), identity });
        self.close_from(self.levels.len().saturating_sub(1));
    }

    /// Comes back out of the innermost folder.
    pub fn pop(&mut self) {
        self.levels.pop();
    }

    /// The innermost folder, if it is open.
    pub fn open_one(&self) -> Option<BorrowedFd<'_>> {
        match self.levels.last() {
            None => Some(self.root.as_fd()),
            Some(level) => level.folder.as_ref().map(|folder| folder.as_fd()),
        }
    }

    /// The innermost folder. [`Errno::STALE`]: on the way to it stands another one now.
    pub fn folder(&mut self) -> Result<Rc<OwnedFd>> {
        let opened = self.levels.iter().rposition(|level| level.folder.is_some());
        let first = opened.map_or(0, |i| i + 1);
        let mut folder = opened.and_then(|i| self.levels[i].folder.clone()).unwrap_or_else(|| self.root.clone());
        if first == self.levels.len() {
            return Ok(folder);
        }
        for level in &mut self.levels[first..] {
            folder = Rc::new(beneath::folder(folder.as_fd(), &level.name)?);
            if let Some(identity) = level.identity {
                let now = beneath::stat_of(folder.as_fd())?;
                if (now.dev, now.ino) != identity {
                    return Err(Errno::STALE);
                }
            }
            level.folder = Some(folder.clone());
        }
        self.close_from(first);
        Ok(folder)
    }

    /// Closes what need not be open, now that those from `first` on have been opened.
    fn close_from(&mut self, first: usize) {
        let inner = self.levels.len().saturating_sub(INNERMOST);
        for at in first.saturating_sub(INNERMOST)..inner {
            if !at.is_multiple_of(PINNED) {
                self.levels[at].folder = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::restore::open_folder;
    use std::fs;

    fn open(trail: &Trail) -> usize {
        trail.levels.iter().filter(|level| level.folder.is_some()).count()
    }

    #[test]
    fn however_deep_few_are_open_and_each_is_found_again() {
        const DEEP: usize = 700;
        for eager in [true, false] {
            let root = tempfile::tempdir().unwrap();
            let mut trail = Trail::new(open_folder(root.path()).unwrap());
            let mut inodes = Vec::new();
            for depth in 0..DEEP {
                let name = format!("{depth}");
                let parent = trail.folder().unwrap();
                rustix::fs::mkdirat(&parent, &name, rustix::fs::Mode::RWXU).unwrap();
                let folder = beneath::folder(parent.as_fd(), name.as_bytes()).unwrap();
                let stat = beneath::stat_of(folder.as_fd()).unwrap();
                inodes.push(stat.ino);
                if eager {
                    trail.push_open(name.as_bytes(), folder, &stat)
                } else {
                    trail.push(name.as_bytes())
                }
                assert!(open(&trail) <= INNERMOST + DEEP / PINNED + 1, "{} of {depth}", open(&trail));
            }
            while let Some(inode) = inodes.pop() {
                let folder = trail.folder().unwrap();
                assert_eq!(beneath::stat_of(folder.as_fd()).unwrap().ino, inode, "eager {eager}, {}", inodes.len());
                assert!(open(&trail) <= INNERMOST + PINNED + DEEP / PINNED + 1, "{}", open(&trail));
                trail.pop();
            }
        }
    }

    #[test]
    fn another_folder_under_the_same_name_is_not_taken_for_it() {
        let root = tempfile::tempdir().unwrap();
        let mut trail = Trail::new(open_folder(root.path()).unwrap());
        for depth in 0..200 {
            let parent = trail.folder().unwrap();
            let name = format!("{depth}");
            rustix::fs::mkdirat(&parent, &name, rustix::fs::Mode::RWXU).unwrap();
            let folder = beneath::folder(parent.as_fd(), name.as_bytes()).unwrap();
            let stat = beneath::stat_of(folder.as_fd()).unwrap();
            trail.push_open(name.as_bytes(), folder, &stat);
        }
        fs::rename(root.path().join("0/1/2"), root.path().join("moved")).unwrap();
        fs::create_dir_all(root.path().join("0/1/2")).unwrap();
        // The first is pinned open, the third was closed.
        for _ in 3..200 {
            trail.pop();
        }
        assert_eq!(trail.folder().err(), Some(Errno::STALE));
        trail.pop();
        assert!(trail.folder().is_ok());
    }
}
