//! Does a tree equal its manifest?

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::os::fd::{AsFd, OwnedFd};

use super::beneath::{self, Names};
use super::content::Copier;
use super::entry::{Entry, Kind, Sameness, Stat};
use super::error::{Context, Difference, Error, shown};
use super::inspect;
use super::manifest::{Reader, Writer};
use super::progress::Meter;
use super::walk::{Step, Walk};

/// An error lists no more differences than this; it counts the rest.
const LISTED: usize = 20;

/// Compares the tree, by a strict walk, with its manifest; [`Error::Differs`] tells what is not as recorded.
///
/// Without `rewrite` it is a generation's own tree: every attribute and the content of everything. With
/// it, it is a source after a restore: attributes of everything, content of what is not the very inode
/// that was recorded; `rewrite` gets the entries with the inodes and times of now, and is returned.
pub(super) fn run(
    walk: Walk,
    manifest: Reader,
    rewrite: Option<Writer>,
    meter: &mut Meter<'_>,
) -> Result<Option<Writer>, Error> {
    let mut check = Check {
        walk,
        manifest,
        is_source: rewrite.is_some(),
        out: rewrite,
        groups: HashMap::new(),
        inodes: HashMap::new(),
        copier: Copier::default(),
        meter,
        differences: Vec::new(),
        count: 0,
    };
    loop {
        match check.walk.step()? {
            Step::Entry(stat) => check.entry(stat)?,
            Step::Leave => {}
            Step::End => break,
        }
    }
    while let Some(missing) = check.manifest.take()? {
        check.missing(&missing);
    }
    if check.count > 0 {
        let root = check.walk.label().to_owned();
        return Err(Error::Differs { root, count: check.count, differences: check.differences });
    }
    Ok(check.out)
}

type Inode = ((u32, u32), u64);

struct Check<'a, 'p> {
    walk: Walk,
    manifest: Reader,
    is_source: bool,
    out: Option<Writer>,
    /// Which inode a group of hard links is, and the reverse.
    groups: HashMap<u64, Inode>,
    inodes: HashMap<Inode, u64>,
    copier: Copier,
    meter: &'a mut Meter<'p>,
    differences: Vec<Difference>,
    count: u64,
}

impl Check<'_, '_> {
    fn entry(&mut self, stat: Stat) -> Result<(), Error> {
        self.meter.entry(self.walk.site())?;
        while let Some(missing) = self.manifest.take_before(self.walk.path())? {
            self.missing(&missing);
        }
        let recorded = self.manifest.take_at(self.walk.path())?;
        let is_mount = self.walk.is_mount(&stat);
        match recorded {
            None if is_mount || self.leads_to_mounts_only(&stat)? => Ok(()),
            None => {
                self.differs(self.walk.path().to_vec(), "not recorded".to_owned());
                Ok(())
            }
            // Mounted or not at the moment: what is there was never ours.
            Some(recorded) if recorded.is_mount() => self.write(recorded),
            Some(recorded) if is_mount => {
                self.differs(recorded.path, "something is mounted here now".to_owned());
                Ok(())
            }
            Some(recorded) => self.compare(&stat, recorded),
        }
    }

    fn compare(&mut self, stat: &Stat, recorded: Entry) -> Result<(), Error> {
        let descended = stat.is_folder() && recorded.is_folder() && self.walk.descend()?;
        self.check_links(stat, &recorded);
        let untouched = self.is_source && recorded.sameness(stat, self.manifest.settled_before) == Sameness::Same;
        if !untouched {
            let wanted = descended || !stat.is_folder() || !recorded.is_folder();
            let copier = Some(&mut self.copier).filter(|_| wanted);
            for what in inspect::differences(&mut self.walk, stat, &recorded, copier, self.meter)? {
                self.differs(recorded.path.clone(), what);
            }
        }
        self.write(Entry { ino: stat.ino, ctime: stat.ctime, ..recorded })
    }

    /// Two files merged into one inode and one split in two look alike in everything else.
    fn check_links(&mut self, stat: &Stat, recorded: &Entry) {
        if stat.is_folder() {
            return;
        }
        let inode = (stat.dev, stat.ino);
        if recorded.group != 0 && *self.groups.entry(recorded.group).or_insert(inode) != inode {
            self.differs(recorded.path.clone(), "no hard link to its other names any more".to_owned());
        }
        // In a generation every inode may have further names in other generations.
        if self.is_source && stat.nlink > 1 {
            match self.inodes.entry(inode) {
                Slot::Vacant(slot) => {
                    slot.insert(recorded.group);
                }
                Slot::Occupied(slot) if recorded.group != 0 && *slot.get() == recorded.group => {}
                Slot::Occupied(_) => {
                    self.differs(recorded.path.clone(), "a hard link to something else now".to_owned());
                }
            }
        }
    }

    fn write(&mut self, entry: Entry) -> Result<(), Error> {
        match &mut self.out {
            Some(out) => out.push(&entry),
            None => Ok(()),
        }
    }

    fn missing(&mut self, missing: &Entry) {
        // A mountpoint may be gone with what was mounted there.
        if !matches!(missing.kind, Kind::Mount { .. }) {
            self.differs(missing.path.clone(), "missing".to_owned());
        }
    }

    fn differs(&mut self, path: Vec<u8>, what: String) {
        self.count += 1;
        if self.differences.len() < LISTED {
            self.differences.push(Difference { path: shown(&path), what });
        }
    }

    /// A folder that was not there before, but cannot be removed because something is mounted below it.
    fn leads_to_mounts_only(&self, stat: &Stat) -> Result<bool, Error> {
        let Some(parent) = self.walk.folder().filter(|_| stat.is_folder() && self.is_source) else { return Ok(false) };
        let folder = beneath::folder(parent, self.walk.name()).context("open", self.walk.site())?;
        let root = *self.walk.root_stat();
        only_mounts(folder, &root).context("list", self.walk.site())
    }
}

fn only_mounts(folder: OwnedFd, root: &Stat) -> rustix::io::Result<bool> {
    let mut scratch = beneath::scratch();
    let mut pending = vec![folder];
    let mut mounts = 0;
    while let Some(folder) = pending.pop() {
        for name in Names::list(folder.as_fd(), &mut scratch, usize::MAX)?.iter() {
            let stat = beneath::stat(folder.as_fd(), name)?;
            if super::walk::is_mount(&stat, root) {
                mounts += 1;
            } else if stat.is_folder() {
                pending.push(beneath::folder(folder.as_fd(), name)?);
            } else {
                return Ok(false);
            }
        }
    }
    Ok(mounts > 0)
}
