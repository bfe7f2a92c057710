//! One entry of a tree: what the manifest records of it, and what a look at the file system tells.

use std::fmt;
use std::time::SystemTime;

use rustix::fs::{FileType, Statx, StatxAttributes};

/// Seconds and nanoseconds since 1970, as the kernel keeps them; before 1970 `secs` is negative.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    pub secs: i64,
    pub nanos: u32,
}

impl Time {
    /// Now, less `margin`.
    pub fn now_less(margin: std::time::Duration) -> Self {
        let moment = SystemTime::now() - margin;
        let since = moment.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { secs: since.as_secs().cast_signed(), nanos: since.subsec_nanos() }
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}", self.secs, self.nanos)
    }
}

/// A stretch of a file that holds data: offset and length in bytes.
pub type Extent = (u64, u64);

/// What an entry is, with what only that kind has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Folder,
    File {
        /// BLAKE3; see [`content`](super::content) for files with holes.
        hash: [u8; 32],
        /// Where the data is; `None`: the file has no holes.
        extents: Option<Vec<Extent>>,
    },
    Symlink {
        target: Vec<u8>,
    },
    Fifo,
    Socket,
    CharDevice {
        major: u32,
        minor: u32,
    },
    BlockDevice {
        major: u32,
        minor: u32,
    },
    /// Something else is mounted here: its content is not ours, and it is never touched.
    Mount {
        folder: bool,
    },
}

/// A recorded entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the root, components separated by `/`; empty for the root itself. Bytes, not text.
    pub path: Vec<u8>,
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky (`0o7777`).
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    /// Bytes; 0 for everything that is neither a file nor a symbolic link.
    pub size: u64,
    /// Name and value, sorted by name. ACLs and capabilities are among them.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Entries with the same number are one inode; 0: the only link.
    pub group: u64,
    /// Of the source, to notice changes: not something to restore.
    pub ino: u64,
    pub ctime: Time,
}

/// What `statx` says of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    pub file_type: FileType,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    /// 512-byte blocks on disk.
    pub blocks: u64,
    pub mtime: Time,
    pub ctime: Time,
    pub ino: u64,
    pub dev: (u32, u32),
    pub rdev: (u32, u32),
    pub nlink: u32,
    /// Root of a mount. `None`: the kernel (before 5.8) does not say.
    pub mount_root: Option<bool>,
}

impl From<Statx> for Stat {
    fn from(s: Statx) -> Self {
        let mode = u32::from(s.stx_mode);
        let file_type = FileType::from_raw_mode(mode);
        let sized = matches!(file_type, FileType::RegularFile | FileType::Symlink);
        let tells_mounts = s.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT);
        Self {
            file_type,
            mode: mode & 0o7777,
            uid: s.stx_uid,
            gid: s.stx_gid,
            size: if sized { s.stx_size } else { 0 },
            blocks: s.stx_blocks,
            mtime: Time { secs: s.stx_mtime.tv_sec, nanos: s.stx_mtime.tv_nsec },
            ctime: Time { secs: s.stx_ctime.tv_sec, nanos: s.stx_ctime.tv_nsec },
            ino: s.stx_ino,
            dev: (s.stx_dev_major, s.stx_dev_minor),
            rdev: (s.stx_rdev_major, s.stx_rdev_minor),
            nlink: s.stx_nlink,
            mount_root: tells_mounts.then(|| s.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
        }
    }
}

impl Stat {
    pub fn is_folder(&self) -> bool {
        self.file_type == FileType::Directory
    }

    pub fn is_file(&self) -> bool {
        self.file_type == FileType::RegularFile
    }

    /// More than one name leads to this inode.
    pub fn is_linked(&self) -> bool {
        !self.is_folder() && self.nlink > 1
    }

    /// The same inode in the same state: nothing was written, renamed, linked or changed in between.
    pub fn is_still(&self, other: &Stat) -> bool {
        (self.file_type, self.ino, self.dev, self.size, self.mtime, self.ctime)
            == (other.file_type, other.ino, other.dev, other.size, other.mtime, other.ctime)
    }
}

/// Is an entry as it was recorded?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sameness {
    /// Yes: inode, size, mtime and ctime are those recorded, and old enough to be trusted.
    Same,
    /// They are, but were too young at that time: a later write may carry the same ctime.
    Unsettled,
    Different,
}

impl Entry {
    /// What `stat` tells; content, xattrs and group are added by the caller.
    pub fn new(path: &[u8], kind: Kind, stat: &Stat) -> Self {
        Self {
            path: path.to_vec(),
            kind,
            mode: stat.mode,
            uid: stat.uid,
            gid: stat.gid,
            mtime: stat.mtime,
            size: stat.size,
            xattrs: Vec::new(),
            group: 0,
            ino: stat.ino,
            ctime: stat.ctime,
        }
    }

    /// The same under another path.
    pub fn elsewhere(&self, path: Vec<u8>) -> Self {
        Self {
            path,
            kind: self.kind.clone(),
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            mtime: self.mtime,
            size: self.size,
            xattrs: self.xattrs.clone(),
            group: self.group,
            ino: self.ino,
            ctime: self.ctime,
        }
    }

    /// A place where something else is mounted.
    pub fn mount(path: &[u8], folder: bool) -> Self {
        Self {
            path: path.to_vec(),
            kind: Kind::Mount { folder },
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            size: 0,
            xattrs: Vec::new(),
            group: 0,
            ino: 0,
            ctime: Time::default(),
        }
    }

    pub fn is_folder(&self) -> bool {
        matches!(self.kind, Kind::Folder)
    }

    pub fn is_mount(&self) -> bool {
        matches!(self.kind, Kind::Mount { .. })
    }

    /// The last component of the path; empty for the root.
    pub fn name(&self) -> &[u8] {
        self.path.rsplit(|b| *b == b'/').next().unwrap_or_default()
    }

    /// The path of the folder it is in; `None` for the root.
    pub fn parent(&self) -> Option<&[u8]> {
        if self.path.is_empty() {
            return None;
        }
        let end = self.path.iter().rposition(|b| *b == b'/').unwrap_or(0);
        Some(&self.path[..end])
    }

    /// Compares with what is there now. Records whose ctime is not before `settled_before` are not trusted.
    pub fn sameness(&self, now: &Stat, settled_before: Time) -> Sameness {
        let same = self.kind.is(now)
            && (self.ino, self.size, self.mtime, self.ctime) == (now.ino, now.size, now.mtime, now.ctime);
        match same {
            false => Sameness::Different,
            true if self.ctime < settled_before => Sameness::Same,
            true => Sameness::Unsettled,
        }
    }
}

impl Kind {
    /// Is `stat` of this kind? Content is not looked at.
    pub fn is(&self, stat: &Stat) -> bool {
        match (self, stat.file_type) {
            (Kind::Folder, FileType::Directory)
            | (Kind::File { .. }, FileType::RegularFile)
            | (Kind::Symlink { .. }, FileType::Symlink)
            | (Kind::Fifo, FileType::Fifo)
            | (Kind::Socket, FileType::Socket) => true,
            (Kind::CharDevice { major, minor }, FileType::CharacterDevice)
            | (Kind::BlockDevice { major, minor }, FileType::BlockDevice) => (*major, *minor) == stat.rdev,
            _ => false,
        }
    }

    /// For differences and errors.
    pub fn word(&self) -> &'static str {
        match self {
            Kind::Folder => "folder",
            Kind::File { .. } => "file",
            Kind::Symlink { .. } => "symbolic link",
            Kind::Fifo => "fifo",
            Kind::Socket => "socket",
            Kind::CharDevice { .. } => "character device",
            Kind::BlockDevice { .. } => "block device",
            Kind::Mount { .. } => "mountpoint",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_inodes_have_more_than_one_name() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at("sub/sub")).unwrap();
        for name in ["alone", "first"] {
            std::fs::write(at(name), "").unwrap();
        }
        std::fs::hard_link(at("first"), at("second")).unwrap();
        let opened: std::os::fd::OwnedFd = std::fs::File::open(folder.path()).unwrap().into();
        let stat = |name: &str| {
            let opened = std::os::fd::AsFd::as_fd(&opened);
            super::super::beneath::stat(opened, name.as_bytes()).unwrap()
        };
        for (name, is_linked) in [("alone", false), ("first", true), ("second", true), ("sub", false)] {
            assert_eq!(stat(name).is_linked(), is_linked, "{name}");
        }
    }

    /// What was changed at the moment of the record itself may have changed again since.
    #[test]
    fn is_it_as_it_was_recorded() {
        let folder = tempfile::tempdir().unwrap();
        let opened: std::os::fd::OwnedFd = std::fs::File::open(folder.path()).unwrap().into();
        let mut now = super::super::beneath::stat_of(std::os::fd::AsFd::as_fd(&opened)).unwrap();
        now.ctime = Time { secs: 100, nanos: 0 };
        let recorded = Entry {
            kind: Kind::Folder,
            ino: now.ino,
            size: now.size,
            mtime: now.mtime,
            ctime: now.ctime,
            ..Entry::mount(b"x", true)
        };
        let other_kind = Entry { kind: Kind::Fifo, ..recorded.clone() };
        for (entry, settled_before, expected) in [
            (&recorded, 101, Sameness::Same),
            (&recorded, 100, Sameness::Unsettled),
            (&recorded, 99, Sameness::Unsettled),
            (&other_kind, 101, Sameness::Different),
        ] {
            assert_eq!(entry.sameness(&now, Time { secs: settled_before, nanos: 0 }), expected, "{entry:?}");
        }
        now.size += 1;
        assert_eq!(recorded.sameness(&now, Time { secs: 101, nanos: 0 }), Sameness::Different);
    }

    #[test]
    fn kinds_have_their_words() {
        let device = Kind::CharDevice { major: 1, minor: 3 };
        for (kind, word) in [(Kind::Folder, "folder"), (Kind::Fifo, "fifo"), (device, "character device")] {
            assert_eq!(kind.word(), word);
        }
    }

    #[test]
    fn a_time_is_told_to_the_nanosecond() {
        assert_eq!(Time { secs: 7, nanos: 5 }.to_string(), "7.000000005");
    }

    #[test]
    fn names_and_parents() {
        for (path, name, parent) in
            [("", "", None), ("a", "a", Some("")), ("a/b", "b", Some("a")), ("a/b/c", "c", Some("a/b"))]
        {
            let entry = Entry::mount(path.as_bytes(), true);
            assert_eq!(entry.name(), name.as_bytes(), "{path}");
            assert_eq!(entry.parent(), parent.map(str::as_bytes), "{path}");
        }
    }
}
