//! One entry of a walk against one entry of a manifest, attribute by attribute.

use std::os::fd::AsFd;

use super::attributes::{self, Inode};
use super::beneath;
use super::content::{Copier, End, extents};
use super::entry::{Entry, Kind, Sameness, Stat, Time};
use super::error::{Context, Error};
use super::mirror::read_special;
use super::progress::Meter;
use super::walk::Walk;

/// Where a hole ends depends on the file system's block size: data may spread by this much on either side.
const HOLE_SLACK: u64 = 64 << 10;

/// Compares what was just given, in all attributes and, if wanted, in content. A folder must have been
/// descended into. Returns what differs, in words.
pub(super) fn differences(
    walk: &mut Walk,
    stat: &Stat,
    recorded: &Entry,
    copier: Option<&mut Copier>,
    meter: &mut Meter<'_>,
) -> Result<Vec<String>, Error> {
    if !same_type(recorded, stat) {
        return Ok(vec![format!("no {} any more", recorded.kind.word())]);
    }
    let mut found = differing_numbers(stat, recorded);
    if stat.is_folder() {
        if let Some(folder) = walk.folder() {
            let xattrs = attributes::xattrs(Inode::Open(folder)).context("read the xattrs of", walk.site())?;
            differing_xattrs(&xattrs, recorded, &mut found);
        }
    } else if stat.is_file() {
        differing_file(walk, stat, recorded, copier, meter, &mut found)?;
    } else if let Some(node) = walk.open_node()? {
        if !beneath::stat_of(node.as_fd()).context("look at", walk.site())?.is_still(stat) {
            found.push("being replaced".to_owned());
            return Ok(found);
        }
        let now = read_special(&node, stat, walk.path()).context("read", walk.site())?;
        differing_xattrs(&now.xattrs, recorded, &mut found);
        if now.kind != recorded.kind {
            found.push(format!("{} has another target or device number", recorded.kind.word()));
        }
    }
    Ok(found)
}

/// Is what was just given as recorded? Looks into it only when the times leave a doubt.
pub(super) fn is_same(
    walk: &mut Walk,
    stat: &Stat,
    recorded: &Entry,
    settled_before: Time,
    copier: &mut Copier,
    meter: &mut Meter<'_>,
) -> Result<bool, Error> {
    match recorded.sameness(stat, settled_before) {
        Sameness::Same => Ok(true),
        Sameness::Different => Ok(false),
        Sameness::Unsettled => Ok(differences(walk, stat, recorded, Some(copier), meter)?.is_empty()),
    }
}

/// Device numbers are compared later, with words of their own.
fn same_type(recorded: &Entry, stat: &Stat) -> bool {
    use rustix::fs::FileType::{BlockDevice, CharacterDevice};
    match recorded.kind {
        Kind::CharDevice { .. } => stat.file_type == CharacterDevice,
        Kind::BlockDevice { .. } => stat.file_type == BlockDevice,
        _ => recorded.kind.is(stat),
    }
}

fn differing_numbers(stat: &Stat, recorded: &Entry) -> Vec<String> {
    let mut found = Vec::new();
    // Linux gives symbolic links a mode that nobody can set.
    if stat.mode != recorded.mode && !matches!(recorded.kind, Kind::Symlink { .. }) {
        found.push(format!("mode {:o}, recorded {:o}", stat.mode, recorded.mode));
    }
    if (stat.uid, stat.gid) != (recorded.uid, recorded.gid) {
        found.push(format!("owner {}:{}, recorded {}:{}", stat.uid, stat.gid, recorded.uid, recorded.gid));
    }
    if stat.mtime != recorded.mtime {
        found.push(format!("mtime {}, recorded {}", stat.mtime, recorded.mtime));
    }
    if stat.size != recorded.size {
        found.push(format!("size {}, recorded {}", stat.size, recorded.size));
    }
    found
}

fn differing_xattrs(now: &[(Vec<u8>, Vec<u8>)], recorded: &Entry, found: &mut Vec<String>) {
    let wanted = &recorded.xattrs;
    let differing = now.iter().filter(|x| !wanted.contains(x)).chain(wanted.iter().filter(|x| !now.contains(x)));
    let mut names: Vec<_> = differing.map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect();
    names.dedup();
    if !names.is_empty() {
        found.push(format!("xattr {}", names.join(", ")));
    }
}

fn differing_file(
    walk: &mut Walk,
    stat: &Stat,
    recorded: &Entry,
    copier: Option<&mut Copier>,
    meter: &mut Meter<'_>,
    found: &mut Vec<String>,
) -> Result<(), Error> {
    let Kind::File { hash, extents: recorded_extents } = &recorded.kind else { return Ok(()) };
    let Some(file) = walk.open_file()? else { return Ok(()) };
    if !beneath::stat_of(file.as_fd()).context("look at", walk.site())?.is_still(stat) {
        found.push("being written to".to_owned());
        return Ok(());
    }
    let xattrs = attributes::xattrs(Inode::Open(file.as_fd())).context("read the xattrs of", walk.site())?;
    differing_xattrs(&xattrs, recorded, found);
    let now = extents(file.as_fd(), stat).context("read", walk.site())?;
    if let Some(recorded) = recorded_extents {
        let data: u64 = now.as_ref().map_or(stat.size, |list| list.iter().map(|(_, length)| length).sum());
        let most: u64 = recorded.iter().map(|(_, length)| length + 2 * HOLE_SLACK).sum();
        if data > most {
            found.push(format!("{data} bytes of data, recorded with holes and {most} at most"));
        }
    }
    if let Some(copier) = copier.filter(|_| stat.size == recorded.size) {
        // Which of the two forms of the hash it is depends on the record, not on today's holes.
        let whole = [(0, stat.size)];
        let shape = recorded_extents.as_ref().map(|_| now.as_deref().unwrap_or(&whole));
        let site = walk.site();
        let actual = copier.hash(End { fd: file.as_fd(), site }, stat.size, shape, &mut |n| meter.bytes(n, site))?;
        if actual != *hash {
            found.push("other content".to_owned());
        }
    }
    Ok(())
}
