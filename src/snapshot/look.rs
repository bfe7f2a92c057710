//! Is what would be copied the very thing that a container sees? The kernel answers where its first process can be
//! reached: by the inodes at both ends, and by the mounts below them.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};

use super::beneath;
use super::entry::Stat;
use super::error::{Context, Error};
use super::root::Source;

/// More file systems than this below one mount are no data folder, and are not copied one by one.
const MOST_NESTED: usize = 64;

/// File systems of the kernel's own, which hold no data of anybody (proc(5), `/proc/filesystems`).
const OF_THE_KERNEL: [&str; 21] = [
    "proc",
    "sysfs",
    "cgroup",
    "cgroup2",
    "devpts",
    "devtmpfs",
    "mqueue",
    "securityfs",
    "debugfs",
    "tracefs",
    "bpf",
    "pstore",
    "configfs",
    "fusectl",
    "hugetlbfs",
    "binfmt_misc",
    "autofs",
    "nsfs",
    "efivarfs",
    "selinuxfs",
    "rpc_pipefs",
];

/// A running container that has the source mounted.
#[derive(Debug, Clone)]
pub struct Witness {
    /// For people.
    pub name: String,
    pub id: String,
    /// Its first process, in our own process namespace.
    pub pid: i32,
    /// Where it has the source.
    pub path: String,
    /// Its other mounts below that path.
    pub beside: Vec<String>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub root: Stat,
    /// Writable file systems mounted below it, relative to it.
    pub nested: Vec<PathBuf>,
}

/// Looks at the source, and through the witness's eyes where that can be done.
pub fn look(source: &Source, witness: Option<&Witness>) -> Result<Found, Error> {
    let root = beneath::stat_of(source.open()?.as_fd()).at("look at", &source.path)?;
    let by_path = source.opened.is_none();
    let ours = read_mounts(Path::new("/proc/self/mountinfo"));
    let ours = by_path.then(|| below(&ours, &source.path, &[]));
    let theirs = match witness.and_then(Eyes::open) {
        None => None,
        Some(eyes) => {
            eyes.require_same(source, &root)?;
            Some(below(&read_mounts(&eyes.process.join("mountinfo")), Path::new(&eyes.of.path), &eyes.of.beside))
        }
    };
    if let (Some(ours), Some(theirs), Some(witness)) = (&ours, &theirs, witness)
        && let Some(differs) = ours.symmetric_difference(theirs).next()
    {
        let place = source.path.join(differs);
        let restart = shell_words::join(["docker", "restart", witness.name.as_str()]);
        return Err(Error::SeenOtherwise(format!(
            "container {} and the host see different things at {}, because something was mounted or unmounted there after the container was started: `{restart}` makes both see the same",
            witness.name,
            place.display()
        )));
    }
    let nested: Vec<PathBuf> = theirs.or(ours).unwrap_or_default().into_iter().collect();
    if nested.len() > MOST_NESTED {
        return Err(Error::Refused(format!(
            "{} file systems are mounted below {}: mount the folders that hold data one by one, or leave {} out with PROCESSGIT_UPDATER_SNAPSHOT_EXCLUDE",
            nested.len(),
            source.site(),
            source.shown
        )));
    }
    Ok(Found { root, nested })
}

/// What a container's first process sees.
struct Eyes<'a> {
    of: &'a Witness,
    process: PathBuf,
    root: OwnedFd,
}

impl<'a> Eyes<'a> {
    /// `None` where its process cannot be looked into: not here, not with our rights, or another one by now.
    fn open(of: &'a Witness) -> Option<Self> {
        let process = PathBuf::from(format!("/proc/{}", of.pid));
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, process.join("root"), flags, Mode::empty()).ok()?;
        // Its control group has the container's id; numbers of processes are given again, and another
        // machine's mean nothing here.
        let is_it = of.pid > 0 && fs::read_to_string(process.join("cgroup")).is_ok_and(|text| text.contains(&of.id));
        is_it.then_some(Self { of, process, root })
    }

    fn require_same(&self, source: &Source, ours: &Stat) -> Result<(), Error> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let path = self.of.path.trim_start_matches('/');
        let Ok(seen) = rustix::fs::openat2(self.root.as_fd(), path, flags, Mode::empty(), ResolveFlags::IN_ROOT) else {
            // It has just ended.
            return Ok(());
        };
        let seen = beneath::stat_of(seen.as_fd()).at("look at", &source.path)?;
        if (seen.dev, seen.ino) == (ours.dev, ours.ino) {
            return Ok(());
        }
        let restart = shell_words::join(["docker", "restart", self.of.name.as_str()]);
        Err(Error::SeenOtherwise(format!(
            "what container {} sees at {} is not what is at {} on the host (inode {} of device {}:{} there, {} of {}:{} here): the folder was moved or replaced, or something was mounted over it, after the container was started, and a copy would be of other data. Put the right folder there, then `{restart}`",
            self.of.name,
            self.of.path,
            source.site(),
            seen.ino,
            seen.dev.0,
            seen.dev.1,
            ours.ino,
            ours.dev.0,
            ours.dev.1
        )))
    }
}

/// One line of a mountinfo file.
#[derive(Debug, PartialEq, Eq)]
struct Mounted {
    at: PathBuf,
    writable: bool,
    kind: String,
}

fn read_mounts(mountinfo: &Path) -> Vec<Mounted> {
    let text = fs::read(mountinfo).unwrap_or_default();
    text.split(|byte| *byte == b'\n').filter_map(mounted).collect()
}

/// Fields 5 and 6 are the mountpoint and its options, after the dash come type, source and options of the file
/// system (proc(5)).
fn mounted(line: &[u8]) -> Option<Mounted> {
    use std::os::unix::ffi::OsStringExt;
    let text = String::from_utf8_lossy(line);
    let (mount, file_system) = text.split_once(" - ")?;
    let options = mount.split(' ').nth(5)?;
    let mut file_system = file_system.split(' ');
    let (kind, its_options) = (file_system.next()?, file_system.nth(1).unwrap_or_default());
    let is_read_only = |list: &str| list.split(',').any(|option| option == "ro");
    let at = line.split(|byte| *byte == b' ').nth(4)?;
    Some(Mounted {
        at: PathBuf::from(std::ffi::OsString::from_vec(unescaped(at))),
        writable: !is_read_only(options) && !is_read_only(its_options),
        kind: kind.to_owned(),
    })
}

/// Blanks and backslashes are written as `\040`.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        let digits = tail.get(..3).filter(|_| *first == b'\\').and_then(|d| std::str::from_utf8(d).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    bytes
}

/// The mountpoints below `folder`, relative to it, of file systems that can hold data that changes; those at or
/// below `beside` are somebody else's.
fn below(mounts: &[Mounted], folder: &Path, beside: &[String]) -> BTreeSet<PathBuf> {
    // The engine gives every container these three.
    let of_the_engine = ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"].map(Path::new);
    let counts = |mount: &&Mounted| {
        mount.writable
            && !OF_THE_KERNEL.contains(&mount.kind.as_str())
            && !of_the_engine.contains(&mount.at.as_path())
            && !beside.iter().any(|other| mount.at.starts_with(other))
    };
    let relative = |mount: &Mounted| mount.at.strip_prefix(folder).ok().map(Path::to_owned);
    mounts.iter().filter(counts).filter_map(relative).filter(|path| !path.as_os_str().is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_below_a_folder() {
        let info = "\
22 1 254:1 / / rw,relatime - ext4 /dev/vda rw
23 22 0:20 / /srv/data/proc rw - proc proc rw
24 22 8:1 / /srv/data/with\\040blank rw,noatime shared:1 - xfs /dev/sda1 rw,attr2
25 22 8:2 / /srv/data/media/deep ro - ext4 /dev/sda2 rw
26 22 8:3 / /srv/data/frozen rw - squashfs /dev/loop0 ro
27 22 8:4 / /srv/data rw - ext4 /dev/sdb rw
28 22 8:5 / /srv/database rw - ext4 /dev/sdc rw
29 27 8:6 /x /srv/data/own rw - ext4 /dev/sdc rw
30 29 8:7 / /srv/data/own/deeper rw - ext4 /dev/sdd rw
31 27 0:50 / /srv/data/ram rw - tmpfs tmpfs rw,size=1k
broken line
";
        let mounts: Vec<_> = info.lines().filter_map(|line| mounted(line.as_bytes())).collect();
        let found = |folder: &str, beside: &[&str]| {
            let beside: Vec<String> = beside.iter().map(|b| (*b).to_owned()).collect();
            let paths = below(&mounts, Path::new(folder), &beside);
            paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(" | ")
        };
        assert_eq!(found("/srv/data", &[]), "own | own/deeper | ram | with blank");
        assert_eq!(found("/srv/data", &["/srv/data/own"]), "ram | with blank");
        assert_eq!(found("/srv/data/own", &[]), "deeper");
        assert_eq!(found("/srv/nothing", &[]), "");
    }
}
