//! The folders from the root of a tree to where the walk stands, opened only when something is to be
//! done there: in a pass in which nothing changed, none is.

use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use super::beneath;

/// A stack of folders in one tree.
pub struct Trail {
    root: Rc<OwnedFd>,
    levels: Vec<(Vec<u8>, Option<Rc<OwnedFd>>)>,
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

    /// Goes into a folder of the innermost one.
    pub fn push(&mut self, name: &[u8]) {
        self.levels.push((name.to_vec(), None));
    }

    /// Comes back out of the innermost folder.
    pub fn pop(&mut self) {
        self.levels.pop();
    }

    /// The innermost folder.
    pub fn folder(&mut self) -> rustix::io::Result<Rc<OwnedFd>> {
        let opened = self.levels.iter().rposition(|(_, fd)| fd.is_some());
        let mut folder = opened.and_then(|i| self.levels[i].1.clone()).unwrap_or_else(|| self.root.clone());
        for (name, fd) in &mut self.levels[opened.map_or(0, |i| i + 1)..] {
            folder = Rc::new(beneath::folder(folder.as_fd(), name)?);
            *fd = Some(folder.clone());
        }
        Ok(folder)
    }
}
