//! What is mounted only while a container uses it: a volume of the engine's own driver with options (`type`, `o`,
//! `device`). At other times its folder is an empty mountpoint. Here it is mounted as that driver does it, for
//! this process alone: a mount without a place, gone with its descriptor, whatever happens to the process.

use std::net::ToSocketAddrs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen, open_tree,
};

use super::error::{Context, Error};

/// How the engine's driver mounts a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OnUse {
    /// The volume's name, for people.
    pub volume: String,
    /// Where the engine mounts it.
    pub mountpoint: PathBuf,
    /// Of the file system: `ext4`, `nfs`; for binds `none`.
    pub kind: String,
    pub device: String,
    /// A comma list as mount(8) has it after `-o`.
    pub options: String,
}

/// Options that say how a mount may be used and not what is mounted, or that are the default (mount(8)).
const OF_THE_MOUNT: [&str; 17] = [
    "",
    "defaults",
    "rw",
    "exec",
    "noexec",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
    "async",
];

impl OnUse {
    /// Content is kept in memory, and only as long as the mount is used.
    pub fn is_memory(&self) -> bool {
        matches!(self.kind.as_str(), "tmpfs" | "ramfs")
    }

    fn has(&self, option: &str) -> bool {
        self.options.split(',').any(|one| one == option)
    }

    /// A folder or file of the host under another name.
    pub fn is_bind(&self) -> bool {
        self.has("bind") || self.has("rbind")
    }

    /// The root of what the engine mounts; with `subpath` that part of it. For looking ([`OFlags::PATH`]).
    pub fn open(&self, subpath: &str) -> Result<OwnedFd, Error> {
        let root = self.open_root().map_err(|source| Error::Io {
            doing: "mount, as the engine does for a container,",
            path: format!("volume {} ({} {})", self.volume, self.kind, self.device),
            source: source.into(),
        })?;
        if subpath.is_empty() {
            return Ok(root);
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat2(root.as_fd(), subpath, flags, Mode::empty(), ResolveFlags::IN_ROOT)
            .at("open in the volume", Path::new(subpath))
    }

    fn open_root(&self) -> rustix::io::Result<OwnedFd> {
        let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        // While it is in use, what the engine has mounted is the thing itself: an overlay can be mounted only once.
        if is_mounted_at(&self.mountpoint) {
            return open_tree(CWD, &self.mountpoint, clone);
        }
        if self.is_bind() {
            let deep = if self.has("rbind") { OpenTreeFlags::AT_RECURSIVE } else { OpenTreeFlags::empty() };
            return open_tree(CWD, &self.device, clone | deep);
        }
        let new = fsopen(&self.kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
        if !self.device.is_empty() {
            fsconfig_set_string(new.as_fd(), "source", &self.device)?;
        }
        for option in self.options.split(',').filter(|option| !OF_THE_MOUNT.contains(option)) {
            match option.split_once('=') {
                Some(("addr", host)) => fsconfig_set_string(new.as_fd(), "addr", address(host)?)?,
                Some((name, value)) => fsconfig_set_string(new.as_fd(), name, value)?,
                None => fsconfig_set_flag(new.as_fd(), option)?,
            }
        }
        fsconfig_create(new.as_fd())?;
        fsmount(new.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    }
}

/// The engine resolves the name of an NFS or SMB server, because the kernel knows addresses only.
fn address(host: &str) -> rustix::io::Result<String> {
    let mut found = (host, 0).to_socket_addrs().map_err(|_| Errno::HOSTUNREACH)?;
    found.next().map(|address| address.ip().to_string()).ok_or(Errno::HOSTUNREACH)
}

/// Something is mounted at this very path.
fn is_mounted_at(path: &Path) -> bool {
    let Ok(stat) = rustix::fs::statx(CWD, path, rustix::fs::AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS) else {
        return false;
    };
    stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
}
