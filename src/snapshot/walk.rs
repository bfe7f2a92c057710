//! The walk: a tree in one fixed order, folder by folder through descriptors, without crossing mounts.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use super::beneath::{self, Names};
use super::entry::Stat;
use super::error::{Context, Error, Site};

/// What comes next.
#[derive(Debug)]
pub enum Step {
    /// An entry; a folder's content follows only after [`Walk::descend`].
    Entry(Stat),
    /// Everything in the folder at [`Walk::path`] has been given.
    Leave,
    End,
}

/// A walk under way.
pub struct Walk {
    label: String,
    root: OwnedFd,
    root_stat: Stat,
    levels: Vec<Level>,
    path: Vec<u8>,
    started: bool,
    /// Entries may vanish or change their type while we look.
    tolerant: bool,
    scratch: Vec<MaybeUninit<u8>>,
}

struct Level {
    folder: OwnedFd,
    /// As it was when it was opened.
    stat: Stat,
    names: Names,
    next: usize,
    /// Length of the folder's own path.
    path_len: usize,
}

impl Walk {
    /// Opens the root, a folder or a single file.
    pub fn open(root: &Path, tolerant: bool) -> Result<Self, Error> {
        let fd = rustix::fs::openat(CWD, root, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).at("open", root)?;
        let root_stat = beneath::stat_of(fd.as_fd()).at("look at", root)?;
        Ok(Self {
            label: root.display().to_string(),
            root: fd,
            root_stat,
            levels: Vec::new(),
            path: Vec::new(),
            started: false,
            tolerant,
            scratch: beneath::scratch(),
        })
    }

    /// The next step. Not an `Iterator`: the caller asks between two steps.
    pub fn step(&mut self) -> Result<Step, Error> {
        if !self.started {
            self.started = true;
            return Ok(Step::Entry(self.root_stat));
        }
        loop {
            let Some(level) = self.levels.last_mut() else { return Ok(Step::End) };
            self.path.truncate(level.path_len);
            let Some(name) = level.names.get(level.next) else {
                self.check_unchanged()?;
                self.levels.pop();
                return Ok(Step::Leave);
            };
            level.next += 1;
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend(name);
            match beneath::stat(level.folder.as_fd(), name) {
                Ok(stat) => return Ok(Step::Entry(stat)),
                Err(Errno::NOENT) if self.tolerant => {}
                Err(Errno::NOENT) => return Err(self.changed()),
                Err(e) => return Err(e).context("look at", self.site()),
            }
        }
    }

    /// Goes into the folder that was just given. `false`: it is gone (tolerant walks only).
    pub fn descend(&mut self) -> Result<bool, Error> {
        let opened = match self.levels.last() {
            None => beneath::folder(self.root.as_fd(), b"."),
            Some(level) => beneath::folder(level.folder.as_fd(), self.name()),
        };
        let Some(folder) = self.present(opened, "open")? else { return Ok(false) };
        let listed = Names::list(folder.as_fd(), &mut self.scratch);
        let Some(names) = self.present(listed, "list")? else { return Ok(false) };
        let stat = beneath::stat_of(folder.as_fd()).context("look at", self.site())?;
        self.levels.push(Level { folder, stat, names, next: 0, path_len: self.path.len() });
        Ok(true)
    }

    /// The file that was just given, to read it. `None`: it is gone (tolerant walks only).
    pub fn open_file(&mut self) -> Result<Option<OwnedFd>, Error> {
        let opened = match self.levels.last() {
            None => beneath::reopen(self.root.as_fd(), OFlags::RDONLY),
            Some(level) => beneath::file(level.folder.as_fd(), self.name()),
        };
        self.present(opened, "open")
    }

    /// The entry that was just given, for its attributes. `None`: it is gone (tolerant walks only).
    pub fn open_node(&mut self) -> Result<Option<OwnedFd>, Error> {
        let opened = match self.levels.last() {
            None => rustix::io::fcntl_dupfd_cloexec(self.root.as_fd(), 0),
            Some(level) => beneath::node(level.folder.as_fd(), self.name()),
        };
        self.present(opened, "open")
    }

    /// Sorts out what happened to an entry between seeing and opening it.
    fn present<T>(&self, got: rustix::io::Result<T>, doing: &'static str) -> Result<Option<T>, Error> {
        match got {
            Ok(got) => Ok(Some(got)),
            // Gone, or of another type by now (a link, no folder, a socket).
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::NXIO) if self.tolerant => Ok(None),
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::NXIO) => Err(self.changed()),
            Err(e) => Err(e).context(doing, self.site()),
        }
    }

    /// A strict walk notices that something came or went in a folder after it was listed.
    fn check_unchanged(&self) -> Result<(), Error> {
        let Some(level) = self.levels.last().filter(|_| !self.tolerant) else { return Ok(()) };
        let now = beneath::stat_of(level.folder.as_fd()).context("look at", self.site())?;
        if now.is_still(&level.stat) { Ok(()) } else { Err(self.changed()) }
    }

    /// The entry that was just given is something else than what was recorded of it.
    pub fn changed(&self) -> Error {
        Error::Changed { path: self.site().text() }
    }

    /// Something else is mounted on the entry that was just given. The root is where we start, mount or not.
    pub fn is_mount(&self, stat: &Stat) -> bool {
        !self.path.is_empty() && is_mount(stat, &self.root_stat)
    }

    /// The path below the root of what was just given; empty for the root.
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// Its last component.
    pub fn name(&self) -> &[u8] {
        self.path.rsplit(|b| *b == b'/').next().unwrap_or_default()
    }

    /// The innermost folder: of the entry just given, or the one just descended into. `None` at the root.
    pub fn folder(&self) -> Option<BorrowedFd<'_>> {
        self.levels.last().map(|level| level.folder.as_fd())
    }

    /// How the folder just descended into looked.
    pub fn folder_stat(&self) -> Option<Stat> {
        self.levels.last().map(|level| level.stat)
    }

    /// What the root is.
    pub fn root_stat(&self) -> &Stat {
        &self.root_stat
    }

    /// Entries may vanish.
    pub fn is_tolerant(&self) -> bool {
        self.tolerant
    }

    /// The text of the root's path, for errors.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// For errors.
    pub(super) fn site(&self) -> Site<'_> {
        Site { root: &self.label, path: &self.path }
    }
}

/// Is `stat` the root of another mount than the tree's? Older kernels only tell by the device.
pub fn is_mount(stat: &Stat, root: &Stat) -> bool {
    stat.mount_root.unwrap_or(stat.dev != root.dev)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn paths(root: &Path) -> Vec<String> {
        let mut walk = Walk::open(root, false).unwrap();
        let mut seen = Vec::new();
        loop {
            match walk.step().unwrap() {
                Step::Entry(stat) => {
                    seen.push(String::from_utf8_lossy(walk.path()).into_owned());
                    if stat.is_folder() {
                        assert!(walk.descend().unwrap());
                    }
                }
                Step::Leave => seen.push(format!("<{}", String::from_utf8_lossy(walk.path()))),
                Step::End => return seen,
            }
        }
    }

    #[test]
    fn one_order_whatever_the_file_system_says() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["b", "a.b", "a/z", "a/y/x"] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let expected = ["", "a", "a/y", "a/y/x", "<a/y", "a/z", "<a", "a.b", "b", "<"];
        assert_eq!(paths(dir.path()), expected);
        assert_eq!(paths(&dir.path().join("b")), [""]);
    }

    #[test]
    fn a_folder_swapped_for_a_link_is_not_entered() {
        for (tolerant, entered) in [(true, Some(false)), (false, None)] {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("a")).unwrap();
            let mut walk = Walk::open(dir.path(), tolerant).unwrap();
            walk.step().unwrap();
            walk.descend().unwrap();
            assert!(matches!(walk.step().unwrap(), Step::Entry(stat) if stat.is_folder()));
            fs::remove_dir(dir.path().join("a")).unwrap();
            std::os::unix::fs::symlink("/etc", dir.path().join("a")).unwrap();
            assert_eq!(walk.descend().ok(), entered, "tolerant {tolerant}");
        }
    }
}
