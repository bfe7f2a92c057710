//! Can a snapshot be taken at all? Asked before anything is stopped, all answers at once.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, XattrFlags, accessat, fstatvfs, mknodat, setxattr};

use super::entry::{Entry, Sameness, Stat, Time};
use super::error::{Context, Error};
use super::manifest::Reader;
use super::mirror::Former;
use super::progress::{Meter, Progress};
use super::repository::{Repository, new_private_folder, remove_folder};
use super::restore::open_folder;
use super::root::Source;
use super::walk::{Step, Walk};
use crate::update::ports::Obstacle;

/// Room beyond the copy itself, for what changes until the cold pass and for the copy of what a failed
/// version leaves: one tenth of the data and this much.
const RESERVE: u64 = 16 << 20;
/// The smallest thing a file system stores, for our estimate.
const BLOCK: u64 = 4096;
/// Inodes to spare, beyond one tenth of those needed.
const INODES_RESERVE: u64 = 100;
/// No more unreadable entries than this are named.
const NAMED: usize = 10;
/// An access ACL: owner rw, user 1 r, group r, mask r, others nothing (`struct posix_acl_xattr_entry`).
const ACL: &[u8] = &[
    2, 0, 0, 0, //
    1, 0, 6, 0, 255, 255, 255, 255, //
    2, 0, 4, 0, 1, 0, 0, 0, //
    4, 0, 4, 0, 255, 255, 255, 255, //
    16, 0, 4, 0, 255, 255, 255, 255, //
    32, 0, 0, 0, 255, 255, 255, 255,
];

/// What a snapshot of the sources would need, and what is there.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Preflight {
    pub entries: u64,
    /// Bytes that the sources occupy on their disk.
    pub source_bytes: u64,
    /// Bytes of content that no earlier snapshot has.
    pub new_bytes: u64,
    /// Bytes and inodes that the repository needs: what is not shared with an earlier snapshot, and a reserve.
    pub needed_bytes: u64,
    pub needed_inodes: u64,
    /// Bytes and inodes that are free there; `None`: the file system makes inodes as it needs them.
    pub available_bytes: u64,
    pub available_inodes: Option<u64>,
    /// Why no snapshot can be taken; empty when one can.
    pub refusals: Vec<Obstacle>,
}

impl Preflight {
    /// All refusals as one error.
    pub fn verdict(&self) -> Result<(), Error> {
        if self.refusals.is_empty() { Ok(()) } else { Err(Error::Preflight(self.refusals.clone())) }
    }
}

impl Repository {
    /// Looks at the sources and at the repository. An `Err` is a look that failed; what speaks against a
    /// snapshot is in [`Preflight::refusals`].
    pub fn preflight(&self, sources: &[Source], progress: &mut dyn Progress) -> Result<Preflight, Error> {
        let mut found = Preflight::default();
        let mut meter = Meter::new(progress);
        for source in sources {
            source.open()?;
            if let Some(refusal) = overlap(self, source)? {
                found.refusals.push(refusal);
                continue;
            }
            let former = match self.former(&source.name)? {
                Former::Generation(manifest, _) => Some(manifest),
                Former::Nothing | Former::SameTree(_) => None,
            };
            survey(self, source, former, &mut found, &mut meter)?;
        }
        room(self, &mut found)?;
        // Under the lock always the same one, so that one that was left goes; a look is in nobody's way.
        let probe = match self.lock {
            Some(_) => format!("probe-{}", std::process::id()),
            None => format!("probe-{:016x}", rand::random::<u64>()),
        };
        if let Err(e) = abilities(&self.root().join(probe)) {
            let folder = self.root().display().to_string();
            found.refusals.push(Obstacle::Unable { folder, why: e.to_string() });
        }
        Ok(found)
    }
}

/// The repository in a source would copy itself; a source in the repository would be pruned.
fn overlap(repository: &Repository, source: &Source) -> Result<Option<Obstacle>, Error> {
    if source.opened.is_some() {
        // No path leads there; the walk recognises the repository when it meets it.
        return Ok(None);
    }
    let source = source.path.as_path();
    let root = fs::canonicalize(repository.root()).at("find", repository.root())?;
    let path = fs::canonicalize(source).at("find", source)?;
    Ok(if path.starts_with(&root) {
        Some(Obstacle::DataInFolder { folder: root.display().to_string(), data: path.display().to_string() })
    } else if root.starts_with(&path) {
        Some(inside(repository, source))
    } else {
        None
    })
}

fn inside(repository: &Repository, source: &Path) -> Obstacle {
    let (folder, data) = (repository.root().display().to_string(), source.display().to_string());
    Obstacle::FolderInData { folder, data }
}

/// Adds up what is to be copied, and looks for what cannot be read.
fn survey(
    repository: &Repository,
    source: &Source,
    mut former: Option<Reader>,
    found: &mut Preflight,
    meter: &mut Meter<'_>,
) -> Result<(), Error> {
    let mut walk = Walk::of(source, true)?.within(Some(repository.limits));
    let settled_before = former.as_ref().map_or(Time::default(), |f| f.settled_before);
    // Inodes with several names, and how many of those are still to come.
    let mut linked: HashMap<_, u32> = HashMap::new();
    let mut unreadable = 0;
    loop {
        let stat = match walk.step()? {
            Step::Entry(stat) => stat,
            Step::Leave => continue,
            Step::End => break,
        };
        meter.entry(walk.site())?;
        found.entries += 1;
        let known = match &mut former {
            Some(former) => {
                while former.take_before(walk.path())?.is_some() {}
                former.take_at(walk.path())?
            }
            None => None,
        };
        if walk.is_mount(&stat) {
            continue;
        }
        if stat.is_folder() {
            // The same folder by way of another mount, which the paths do not show.
            if (stat.dev, stat.ino) == (repository.stat().dev, repository.stat().ino) {
                found.refusals.push(inside(repository, &source.path));
                continue;
            }
            found.needed_bytes += BLOCK;
            found.needed_inodes += 1;
            walk.descend()?;
        } else if !stat.is_linked() || is_first(&mut linked, &stat) {
            let copied = !is_shared(known.as_ref(), &stat, settled_before);
            add_leaf(&stat, copied, found);
            if copied && stat.is_file() && !is_readable(&walk) {
                unreadable += 1;
                if unreadable <= NAMED {
                    found.refusals.push(Obstacle::Unreadable { path: walk.site().text() });
                }
            }
        }
    }
    if unreadable > NAMED {
        let (data, count) = (source.site(), (unreadable - NAMED) as u64);
        found.refusals.push(Obstacle::MoreUnreadable { data, count });
    }
    Ok(())
}

/// No other name of this inode was met. It is forgotten with its last.
fn is_first(linked: &mut HashMap<((u32, u32), u64), u32>, stat: &Stat) -> bool {
    match linked.entry((stat.dev, stat.ino)) {
        Slot::Vacant(slot) => {
            slot.insert(stat.nlink - 1);
            true
        }
        Slot::Occupied(mut slot) => {
            *slot.get_mut() -= 1;
            if *slot.get() == 0 {
                slot.remove();
            }
            false
        }
    }
}

fn is_shared(known: Option<&Entry>, stat: &Stat, settled_before: Time) -> bool {
    known.is_some_and(|known| known.sameness(stat, settled_before) == Sameness::Same)
}

fn add_leaf(stat: &Stat, copied: bool, found: &mut Preflight) {
    let occupied = (stat.blocks * 512).max(if stat.is_file() { stat.size.min(BLOCK) } else { 0 });
    found.source_bytes += occupied;
    if copied {
        found.new_bytes += stat.size.min(occupied);
        found.needed_bytes += occupied.next_multiple_of(BLOCK);
        found.needed_inodes += 1;
    }
}

fn is_readable(walk: &Walk) -> bool {
    // A root that is a file was opened by path; the hot pass will tell.
    walk.folder().is_none_or(|folder| accessat(folder, walk.name(), Access::READ_OK, AtFlags::EACCESS).is_ok())
}

fn room(repository: &Repository, found: &mut Preflight) -> Result<(), Error> {
    let root = repository.root();
    let free = fstatvfs(open_folder(root)?).at("look at the file system of", root)?;
    found.available_bytes = free.f_bavail * free.f_frsize;
    found.available_inodes = (free.f_files > 0).then_some(free.f_favail);
    found.needed_bytes += found.source_bytes / 10 + RESERVE;
    found.needed_inodes += found.needed_inodes / 10 + INODES_RESERVE;
    if found.needed_bytes > found.available_bytes {
        let (needed, free) = (found.needed_bytes >> 20, found.available_bytes >> 20);
        found.refusals.push(Obstacle::NoRoom { folder: root.display().to_string(), needed, free });
    }
    if let Some(free) = found.available_inodes.filter(|free| *free < found.needed_inodes) {
        let needed = found.needed_inodes;
        found.refusals.push(Obstacle::NoInodes { folder: root.display().to_string(), needed, free });
    }
    Ok(())
}

/// Makes one of everything that a copy needs, and looks whether it is what was asked for.
fn abilities(probe: &Path) -> Result<(), Error> {
    remove_folder(probe)?;
    new_private_folder(probe)?;
    let result = make_one_of_each(probe);
    remove_folder(probe)?;
    result
}

fn make_one_of_each(probe: &Path) -> Result<(), Error> {
    let file = probe.join("file");
    let made = File::create_new(&file).at("create", &file)?;
    lchown(&file, Some(54_321), Some(54_322)).at("change the owner of", &file)?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o4751)).at("change the mode of", &file)?;
    setxattr(&file, "user.probe", b"1", XattrFlags::empty()).at("set an extended attribute of", &file)?;
    setxattr(&file, "system.posix_acl_access", ACL, XattrFlags::empty()).at("set an ACL of", &file)?;
    let moment = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    made.set_modified(moment).at("set the times of", &file)?;
    fs::hard_link(&file, probe.join("second name")).at("make a hard link to", &file)?;
    symlink("nowhere", probe.join("link")).at("make a symbolic link in", probe)?;
    let fifo = probe.join("fifo");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).at("make the fifo", &fifo)?;
    for name in [&b"a"[..], b"A", b"\xff"] {
        // A file system that folds case or wants UTF-8 would merge or refuse names.
        let folder = open_folder(probe)?;
        super::beneath::new_file(folder.as_fd(), name).at("make files with any name in", probe)?;
    }
    let now = made.metadata().at("look at", &file)?;
    let kept = (now.uid(), now.gid(), now.mode() & 0o7777, now.mtime_nsec(), now.nlink());
    if kept != (54_321, 54_322, 0o4640, 123_456_789, 2) {
        return Err(Error::Refused(format!(
            "{} does not keep owners, modes, times or hard links (it has {kept:?}): choose another file system",
            probe.display()
        )));
    }
    Ok(())
}
