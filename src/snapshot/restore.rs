//! Restoring one source in place.
//!
//! Three walks. *Clear* removes everything that is not exactly what was recorded: other inode, other
//! ctime, not recorded at all. *Fill* makes what is missing and sets the metadata of folders from the
//! bottom up, the root's last. *Verify* (in its own room) compares. Clearing first frees the disk that
//! a failed version may have filled. Nothing is remembered between the walks but what is on disk, so
//! a restore that died is simply run again.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, fsync, ftruncate};

use super::attributes::{self, Inode};
use super::beneath;
use super::content::{Copier, End};
use super::entry::{Entry, Kind, Sameness, Stat, Time};
use super::error::{Context, Error, Site};
use super::inspect;
use super::links::{Place, Places};
use super::manifest::Reader;
use super::node;
use super::progress::Meter;
use super::root::Source;
use super::trail::Trail;
use super::walk::{Step, Walk};

/// What a restore did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RestoreReport {
    /// Entries that were exactly as recorded; folders are not counted.
    pub kept: u64,
    /// Entries made anew; folders are not counted.
    pub rewritten: u64,
    /// Entries removed, those to be made anew included.
    pub removed: u64,
    /// Bytes of content written.
    pub bytes: u64,
    /// Mountpoints that were left alone.
    pub mounts: u64,
}

/// One source and the generation it is restored from.
#[derive(Clone, Copy)]
pub struct Task<'a> {
    pub source: &'a Source,
    pub manifest: &'a Path,
    /// The generation's `tree` folder.
    pub tree: &'a Path,
}

/// Clears and fills; verifying is the caller's next step.
pub(super) fn run(task: Task<'_>, report: &mut RestoreReport, meter: &mut Meter<'_>) -> Result<(), Error> {
    let manifest = Reader::open(task.manifest)?;
    let root = Walk::of(task.source, true)?;
    let recorded = manifest.peek().cloned();
    let recorded = recorded.filter(|root| root.path.is_empty() && !root.is_mount()).ok_or_else(|| Error::Damaged {
        path: task.manifest.display().to_string(),
        why: "it has no root".to_owned(),
    })?;
    if !recorded.kind.is(root.root_stat()) {
        return Err(Error::Refused(format!(
            "{} is no {} any more, as it was when the snapshot was taken: mount what was mounted then",
            task.source.site(),
            recorded.kind.word()
        )));
    }
    if recorded.is_folder() {
        let leaders = clear(root, manifest, report, meter)?;
        Fill::new(task, leaders, report, meter)?.run()
    } else {
        file_root(task, root, &recorded, manifest.settled_before, report, meter)
    }
}

/// For every group of hard links, where a name is that leads to the group's inode.
type Leaders = HashMap<u64, Place>;

/// Removes what is not as recorded. Returns the groups of which a name was kept: the others are made
/// from it, even if they come first.
fn clear(
    mut walk: Walk,
    mut manifest: Reader,
    report: &mut RestoreReport,
    meter: &mut Meter<'_>,
) -> Result<Leaders, Error> {
    let mut leaders = Leaders::new();
    let mut places = Places::default();
    let mut copier = Copier::default();
    let root = *walk.root_stat();
    loop {
        let stat = match walk.step()? {
            Step::Entry(stat) => stat,
            Step::Leave => continue,
            Step::End => return Ok(leaders),
        };
        meter.entry(walk.site())?;
        while manifest.take_before(walk.path())?.is_some() {}
        let keep = match manifest.take_at(walk.path())? {
            _ if walk.is_mount(&stat) => {
                report.mounts += 1;
                true
            }
            None => false,
            Some(recorded) if recorded.is_mount() => true,
            Some(recorded) if recorded.is_folder() && stat.is_folder() => walk.descend()?,
            Some(recorded) if recorded.is_folder() || stat.is_folder() => false,
            Some(recorded) => {
                let settled_before = manifest.settled_before;
                let same = inspect::is_same(&mut walk, &stat, &recorded, settled_before, &mut copier, meter)?;
                if same && recorded.group != 0 {
                    leaders.entry(recorded.group).or_insert_with(|| places.of(&recorded.path));
                }
                same
            }
        };
        if let (false, Some(folder)) = (keep, walk.folder()) {
            let before = report.removed;
            let all = node::remove(folder, walk.name(), &root, &mut report.removed).context("remove", walk.site())?;
            report.mounts += u64::from(!all);
            meter.counts.removed += report.removed - before;
        }
    }
}

/// What it costs does not depend on how deep it is.
struct Frame {
    /// Without its path.
    entry: Entry,
    path_len: usize,
}

struct Fill<'a, 'p> {
    label: String,
    name: &'a [u8],
    manifest: Reader,
    source: Trail,
    generation: Trail,
    /// The folders we are in, from the root.
    frames: Vec<Frame>,
    /// The path of the innermost.
    path: Vec<u8>,
    leaders: Leaders,
    places: Places,
    copier: Copier,
    report: &'a mut RestoreReport,
    meter: &'a mut Meter<'p>,
}

impl<'a, 'p> Fill<'a, 'p> {
    fn new(
        task: Task<'a>,
        leaders: Leaders,
        report: &'a mut RestoreReport,
        meter: &'a mut Meter<'p>,
    ) -> Result<Self, Error> {
        Ok(Self {
            label: task.source.site(),
            name: task.source.name.as_bytes(),
            manifest: Reader::open(task.manifest)?,
            source: Trail::new(task.source.open_folder()?),
            generation: Trail::new(open_folder(task.tree)?),
            frames: Vec::new(),
            path: Vec::new(),
            leaders,
            places: Places::default(),
            copier: Copier::default(),
            report,
            meter,
        })
    }

    fn run(&mut self) -> Result<(), Error> {
        while let Some(entry) = self.manifest.take()? {
            self.meter.entry(Site { root: &self.label, path: &entry.path })?;
            while !self.frames.is_empty() && entry.parent() != Some(&self.path[..]) {
                self.leave()?;
            }
            match entry.kind {
                Kind::Folder => self.folder(entry)?,
                Kind::Mount { folder } => self.mount(&entry, folder)?,
                _ => self.leaf(&entry)?,
            }
        }
        while !self.frames.is_empty() {
            self.leave()?;
        }
        Ok(())
    }

    fn folder(&mut self, entry: Entry) -> Result<(), Error> {
        if entry.path.is_empty() {
            self.generation.push(self.name);
        } else {
            let site = Site { root: &self.label, path: &entry.path };
            let parent = self.source.folder().context("open", site)?;
            if beneath::look(parent.as_fd(), entry.name()).context("look at", site)?.is_none() {
                node::new_folder(parent.as_fd(), entry.name()).context("create", site)?;
            }
            self.source.push(entry.name());
            self.generation.push(entry.name());
        }
        self.path.clone_from(&entry.path);
        self.frames.push(Frame { path_len: entry.path.len(), entry: Entry { path: Vec::new(), ..entry } });
        Ok(())
    }

    /// Sets the metadata of the folder we leave, unless nothing moved it.
    fn leave(&mut self) -> Result<(), Error> {
        let Some(Frame { entry, path_len }) = self.frames.pop() else { return Ok(()) };
        let site = Site { root: &self.label, path: &self.path };
        let folder = self.source.folder().context("open", site)?;
        let stat = beneath::stat_of(folder.as_fd()).context("look at", site)?;
        if entry.sameness(&stat, self.manifest.settled_before) != Sameness::Same {
            attributes::apply(Inode::Open(folder.as_fd()), &entry).context("set the metadata of", site)?;
        }
        self.generation.pop();
        if path_len > 0 {
            self.source.pop();
        }
        self.path.truncate(self.frames.last().map_or(0, |outer| outer.path_len));
        Ok(())
    }

    fn mount(&mut self, entry: &Entry, folder: bool) -> Result<(), Error> {
        let site = Site { root: &self.label, path: &entry.path };
        let parent = self.source.folder().context("open", site)?;
        match beneath::look(parent.as_fd(), entry.name()).context("look at", site)? {
            Some(_) => Ok(()),
            // So that it can be mounted again.
            None => node::mountpoint(parent.as_fd(), entry.name(), folder).context("create", site),
        }
    }

    fn leaf(&mut self, entry: &Entry) -> Result<(), Error> {
        let site = Site { root: &self.label, path: &entry.path };
        let folder = self.source.folder().context("open", site)?;
        if beneath::look(folder.as_fd(), entry.name()).context("look at", site)?.is_some() {
            // Clearing left only what is as recorded.
            self.report.kept += 1;
        } else {
            self.make(entry, &folder)?;
            self.report.rewritten += 1;
            self.meter.counts.copied += 1;
        }
        if entry.group != 0 && !self.leaders.contains_key(&entry.group) {
            let place = self.places.of(&entry.path);
            self.leaders.insert(entry.group, place);
        }
        Ok(())
    }

    fn make(&mut self, entry: &Entry, folder: &OwnedFd) -> Result<(), Error> {
        let site = Site { root: &self.label, path: &entry.path };
        if let Some(leader) = self.leaders.get(&entry.group) {
            let root = self.source.root().as_fd();
            return node::link(root, &leader.path(), folder.as_fd(), entry.name()).context("link", site);
        }
        if !matches!(entry.kind, Kind::File { .. }) {
            return node::special(folder.as_fd(), entry.name(), entry).context("create", site);
        }
        let saved = self.generation.folder().context("open the copy of", site)?;
        let from = beneath::file(saved.as_fd(), entry.name()).context("open the copy of", site)?;
        let to = beneath::new_file(folder.as_fd(), entry.name()).context("create", site)?;
        let ends = (End { fd: from.as_fd(), site }, End { fd: to.as_fd(), site });
        self.report.bytes += write_file(entry, ends, &mut self.copier, self.meter)?;
        Ok(())
    }
}

/// Writes content and metadata into an empty file, and proves that the copy was what was recorded.
fn write_file(
    entry: &Entry,
    (from, to): (End<'_>, End<'_>),
    copier: &mut Copier,
    meter: &mut Meter<'_>,
) -> Result<u64, Error> {
    let stat = beneath::stat_of(from.fd).context("look at the copy of", from.site)?;
    let content = copier.copy(from, &stat, to, &mut |n| meter.bytes(n, to.site))?;
    let Kind::File { hash, extents } = &entry.kind else { return Ok(0) };
    // The two forms of the hash cannot be compared; verifying does, by the record's form.
    let comparable = extents.is_some() == content.extents.is_some();
    if content.size != entry.size || (comparable && content.hash != *hash) {
        return Err(Error::Damaged {
            path: format!("the copy of {}", to.site.text()),
            why: "its content is not what was recorded".to_owned(),
        });
    }
    attributes::apply(Inode::Open(to.fd), entry).context("set the metadata of", to.site)?;
    Ok(content.size)
}

/// A mount whose root is a file cannot be unlinked: its content is replaced.
fn file_root(
    task: Task<'_>,
    mut walk: Walk,
    entry: &Entry,
    settled_before: Time,
    report: &mut RestoreReport,
    meter: &mut Meter<'_>,
) -> Result<(), Error> {
    meter.entry(walk.site())?;
    let stat: Stat = *walk.root_stat();
    let mut copier = Copier::default();
    walk.step()?;
    if inspect::is_same(&mut walk, &stat, entry, settled_before, &mut copier, meter)? {
        report.kept += 1;
        return Ok(());
    }
    let label = task.source.site();
    let site = Site { root: &label, path: b"" };
    let tree = open_folder(task.tree)?;
    let from = beneath::file(tree.as_fd(), task.source.name.as_bytes()).context("open the copy of", site)?;
    let node = walk.open_node()?.ok_or_else(|| walk.changed())?;
    let to = beneath::reopen(node.as_fd(), OFlags::RDWR).context("open for writing", site)?;
    ftruncate(&to, 0).context("write", site)?;
    let ends = (End { fd: from.as_fd(), site }, End { fd: to.as_fd(), site });
    report.bytes += write_file(entry, ends, &mut copier, meter)?;
    fsync(&to).context("flush", site)?;
    report.rewritten += 1;
    Ok(())
}

/// A folder of ours or of the application, by its path.
pub fn open_folder(path: &Path) -> Result<OwnedFd, Error> {
    rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .at("open the folder", path)
}
