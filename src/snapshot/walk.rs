//! The walk: a tree in one fixed order, folder by folder through descriptors, without crossing mounts.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use super::beneath::{self, Names};
use super::entry::Stat;
use super::error::{Context, Error, Site};
use super::limits::{self, Limits};
use super::root::Source;
use super::trail::Trail;

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
    /// The folders of `levels`, from the root's own; `None` until it was descended into.
    trail: Option<Trail>,
    path: Vec<u8>,
    /// Bytes of the names in `levels`.
    held: usize,
    /// Entries given so far.
    given: u64,
    limits: Option<Limits>,
    started: bool,
    /// Entries may vanish or change their type while we look.
    tolerant: bool,
    scratch: Vec<MaybeUninit<u8>>,
}

struct Level {
    /// As it was when it was opened.
    stat: Stat,
    names: Names,
    next: usize,
    /// Length of the folder's own path.
    path_len: usize,
}

impl Walk {
    /// Opens a root of ours, a folder or a single file.
    pub fn open(root: &Path, tolerant: bool) -> Result<Self, Error> {
        let fd = rustix::fs::openat(CWD, root, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).at("open", root)?;
        Self::from(fd, root.display().to_string(), tolerant)
    }

    /// Opens the application's.
    pub fn of(source: &Source, tolerant: bool) -> Result<Self, Error> {
        Self::from(source.open()?, source.site(), tolerant)
    }

    fn from(root: OwnedFd, label: String, tolerant: bool) -> Result<Self, Error> {
        let root_stat = beneath::stat_of(root.as_fd()).context("look at", Site { root: &label, path: b"" })?;
        Ok(Self {
            label,
            root,
            root_stat,
            levels: Vec::new(),
            trail: None,
            path: Vec::new(),
            held: 0,
            given: 0,
            limits: None,
            started: false,
            tolerant,
            scratch: beneath::scratch(),
        })
    }

    /// Refuses what is larger.
    pub fn within(self, limits: Option<Limits>) -> Self {
        Self { limits, ..self }
    }

    /// The next step. Not an `Iterator`: the caller asks between two steps.
    pub fn step(&mut self) -> Result<Step, Error> {
        if !self.started {
            self.started = true;
            return Ok(Step::Entry(self.root_stat));
        }
        loop {
            let Some(level) = self.levels.last() else { return Ok(Step::End) };
            self.path.truncate(level.path_len);
            let Some(folder) = self.innermost()? else {
                self.pop();
                return Ok(Step::Leave);
            };
            let Some(level) = self.levels.last_mut() else { return Ok(Step::End) };
            let Some(name) = level.names.get(level.next) else {
                self.check_unchanged(folder.as_fd())?;
                self.pop();
                return Ok(Step::Leave);
            };
            level.next += 1;
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend(name);
            match beneath::stat(folder.as_fd(), name) {
                Ok(stat) => {
                    self.given += 1;
                    self.check_limits()?;
                    return Ok(Step::Entry(stat));
                }
                Err(Errno::NOENT) if self.tolerant => {}
                Err(Errno::NOENT) => return Err(self.changed()),
                Err(e) => return Err(e).context("look at", self.site()),
            }
        }
    }

    /// Goes into the folder that was just given. `false`: it is gone (tolerant walks only).
    pub fn descend(&mut self) -> Result<bool, Error> {
        let opened = match self.folder() {
            None => beneath::folder(self.root.as_fd(), b"."),
            Some(folder) => beneath::folder(folder, self.name()),
        };
        let Some(folder) = self.present(opened, "open")? else { return Ok(false) };
        let listed = Names::list(folder.as_fd(), &mut self.scratch, limits::HELD.saturating_sub(self.held));
        if listed.as_ref().err() == Some(&Errno::NOMEM) {
            return Err(limits::too_much("names in one folder", self.site()));
        }
        let Some(names) = self.present(listed, "list")? else { return Ok(false) };
        let stat = beneath::stat_of(folder.as_fd()).context("look at", self.site())?;
        self.held += names.held();
        self.levels.push(Level { stat, names, next: 0, path_len: self.path.len() });
        let name = self.path.rsplit(|b| *b == b'/').next().unwrap_or_default();
        match &mut self.trail {
            None => self.trail = Some(Trail::new(folder)),
            Some(trail) => trail.push_open(name, folder, &stat),
        }
        self.check_limits()?;
        Ok(true)
    }

    fn check_limits(&self) -> Result<(), Error> {
        // The root is no folder inside another.
        let depth = self.levels.len().saturating_sub(1);
        self.limits.map_or(Ok(()), |limits| limits.check(depth, self.given, self.site()))
    }

    /// Leaves the innermost folder.
    fn pop(&mut self) {
        self.held -= self.levels.pop().map_or(0, |level| level.names.held());
        match &mut self.trail {
            Some(trail) if !self.levels.is_empty() => trail.pop(),
            trail => *trail = None,
        }
    }

    /// The innermost folder, which may have to be opened again. `None`: it is gone (tolerant walks only).
    fn innermost(&mut self) -> Result<Option<Rc<OwnedFd>>, Error> {
        let Some(trail) = &mut self.trail else { return Ok(None) };
        let opened = trail.folder();
        self.present(opened, "open")
    }

    /// The file that was just given, to read it. `None`: it is gone (tolerant walks only).
    pub fn open_file(&mut self) -> Result<Option<OwnedFd>, Error> {
        let opened = match self.folder() {
            None => beneath::reopen(self.root.as_fd(), OFlags::RDONLY),
            Some(folder) => beneath::file(folder, self.name()),
        };
        self.present(opened, "open")
    }

    /// The entry that was just given, for its attributes. `None`: it is gone (tolerant walks only).
    pub fn open_node(&mut self) -> Result<Option<OwnedFd>, Error> {
        let opened = match self.folder() {
            None => rustix::io::fcntl_dupfd_cloexec(self.root.as_fd(), 0),
            Some(folder) => beneath::node(folder, self.name()),
        };
        self.present(opened, "open")
    }

    /// Sorts out what happened to an entry between seeing and opening it.
    fn present<T>(&self, got: rustix::io::Result<T>, doing: &'static str) -> Result<Option<T>, Error> {
        match got {
            Ok(got) => Ok(Some(got)),
            // Gone, or of another type by now (a link, no folder, a socket), or another folder.
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::NXIO | Errno::STALE) if self.tolerant => Ok(None),
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::NXIO | Errno::STALE) => Err(self.changed()),
            Err(e) => Err(e).context(doing, self.site()),
        }
    }

    /// A strict walk notices that something came or went in a folder after it was listed.
    fn check_unchanged(&self, folder: BorrowedFd<'_>) -> Result<(), Error> {
        let Some(level) = self.levels.last().filter(|_| !self.tolerant) else { return Ok(()) };
        let now = beneath::stat_of(folder).context("look at", self.site())?;
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
        self.trail.as_ref().and_then(Trail::open_one)
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
