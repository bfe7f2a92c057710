//! The root of a source: opened so that it is the very thing that was noted when the job was planned. Until then
//! whoever may write beside it could have put a link, another folder or another mount in its place.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::beneath;
use super::entry::Stat;
use super::error::{Context, Error};

/// One mount of the application.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// Stable identity of the mount, and its name in the repository: letters, digits, `.`, `_`, `-`.
    pub name: String,
    /// Where it is to be seen now; a folder or a single file.
    pub path: PathBuf,
    /// Where the application sees it, for people; empty where nobody knows.
    pub shown: String,
    /// What must be found there.
    pub expected: Option<Identity>,
    /// Its root, where a path does not lead to it: what is mounted for this process alone.
    pub opened: Option<Arc<OwnedFd>>,
}

/// Which inode it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// `None`: the file system may have been mounted anew since, and its device been given another number.
    pub device: Option<(u32, u32)>,
    pub inode: u64,
}

impl Identity {
    fn is_of(&self, stat: &Stat) -> bool {
        self.inode == stat.ino && self.device.is_none_or(|device| device == stat.dev)
    }
}

impl Source {
    /// A source of which nothing is known but its place.
    pub fn new(name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self { name: name.into(), path: path.into(), ..Self::default() }
    }

    /// Its root, for looking ([`OFlags::PATH`]).
    pub(super) fn open(&self) -> Result<OwnedFd, Error> {
        let root = match (&self.opened, self.expected) {
            (Some(root), _) => rustix::io::fcntl_dupfd_cloexec(root.as_fd(), 0).at("open", &self.path)?,
            // The path was resolved when it was noted: a link in it is new.
            (None, Some(_)) => open_without_links(&self.path).map_err(|e| self.cannot_open(e))?,
            (None, None) => rustix::fs::openat(CWD, &self.path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
                .at("open", &self.path)?,
        };
        if let Some(expected) = self.expected {
            let stat = beneath::stat_of(root.as_fd()).at("look at", &self.path)?;
            if !expected.is_of(&stat) {
                return Err(self.is_another(format!(
                    "it was inode {}, and inode {} of device {}:{} is there",
                    expected.inode, stat.ino, stat.dev.0, stat.dev.1
                )));
            }
        }
        Ok(root)
    }

    /// Its root, to list it and to act in it.
    pub(super) fn open_folder(&self) -> Result<OwnedFd, Error> {
        beneath::folder(self.open()?.as_fd(), b".").at("open the folder", &self.path)
    }

    /// A descriptor for what concerns its whole file system.
    pub(super) fn open_to_flush(&self) -> Result<OwnedFd, Error> {
        beneath::reopen(self.open()?.as_fd(), OFlags::RDONLY).at("open", &self.path)
    }

    /// Its place, for people.
    pub(super) fn site(&self) -> String {
        self.path.display().to_string()
    }

    fn cannot_open(&self, error: Errno) -> Error {
        match error {
            Errno::LOOP => self.is_another("a symbolic link leads there".to_owned()),
            Errno::NOENT | Errno::NOTDIR => self.is_another("nothing is there".to_owned()),
            other => Error::Io { doing: "open", path: self.site(), source: other.into() },
        }
    }

    fn is_another(&self, seen: String) -> Error {
        let shown =
            if self.shown.is_empty() { String::new() } else { format!("{} of the application, at ", self.shown) };
        Error::OtherRoot { what: format!("{shown}{}", self.site()), seen }
    }
}

/// Opens `path` if no symbolic link is on the way, its end included.
pub(super) fn open_without_links(path: &Path) -> rustix::io::Result<OwnedFd> {
    // Not NOFOLLOW: with PATH it would open a link itself.
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    loop {
        match rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    #[test]
    fn what_was_noted_must_be_there() {
        type Act = fn(&Path, &Path);
        let cases: [(&str, Act, Option<&str>); 6] = [
            ("nothing", |_, _| {}, None),
            ("its content changed", |root, _| fs::write(root.join("new"), "x").unwrap(), None),
            (
                "another folder",
                |root, other| {
                    fs::rename(root, other).unwrap();
                    fs::create_dir(root).unwrap();
                },
                Some("it was inode"),
            ),
            (
                "a link to it",
                |root, other| {
                    fs::rename(root, other).unwrap();
                    symlink(other, root).unwrap();
                },
                Some("a symbolic link leads there"),
            ),
            (
                "a link on the way",
                |root, other| {
                    fs::rename(root.parent().unwrap(), other).unwrap();
                    symlink(other, root.parent().unwrap()).unwrap();
                },
                Some("a symbolic link leads there"),
            ),
            ("nothing at all", |root, _| fs::remove_dir(root).unwrap(), Some("nothing is there")),
        ];
        for (what, act, refused) in cases {
            let folder = tempfile::tempdir().unwrap();
            let base = folder.path().canonicalize().unwrap();
            let (root, other) = (base.join("parent/root"), base.join("other"));
            fs::create_dir_all(&root).unwrap();
            let inode = root.metadata().unwrap().ino();
            act(&root, &other);
            for device in [None, Some(beneath_device(&base))] {
                let expected = Some(Identity { device, inode });
                let source = Source { shown: "/data".into(), expected, ..Source::new("data", &root) };
                match refused {
                    None => drop(source.open().expect(what)),
                    Some(why) => {
                        let error = source.open().expect_err(what).to_string();
                        assert!(error.contains(why) && error.contains("/data of the application"), "{what}: {error}");
                    }
                }
            }
        }
    }

    fn beneath_device(path: &Path) -> (u32, u32) {
        beneath::stat(CWD, path.as_os_str().as_encoded_bytes()).unwrap().dev
    }

    #[test]
    fn another_device_with_the_same_inode_is_another_root() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap();
        let inode = path.metadata().unwrap().ino();
        let source = |device| Source { expected: Some(Identity { device, inode }), ..Source::new("data", &path) };
        assert!(source(None).open().is_ok(), "mounted anew");
        assert!(matches!(source(Some((4095, 1))).open(), Err(Error::OtherRoot { .. })));
    }
}
