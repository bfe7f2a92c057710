//! One pass over one source: a tree is made, or brought up to date, to be the source's exact likeness,
//! and its manifest is written.
//!
//! Building starts from nothing and takes what did not change from a previous generation, as further
//! names of its inodes. Updating changes the tree of an earlier pass of the same generation. Either
//! way an inode that has a name already is never opened for writing and never given other metadata:
//! it may be shared with a finished generation. What changed is made under a name of its own and
//! renamed into place, and a change of metadata alone is a change.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, linkat, readlinkat, renameat};
use rustix::io::Errno;

use super::attributes::{self, Inode};
use super::beneath;
use super::content::{Copier, End};
use super::entry::{Entry, Kind, Sameness, Stat, Time};
use super::error::{Context, Error, Site};
use super::inspect;
use super::limits::{self, Limits};
use super::links::Links;
use super::manifest::{Reader, Writer};
use super::node;
use super::progress::Meter;
use super::root::Source;
use super::trail::Trail;
use super::walk::{Step, Walk};

/// File systems limit the names of an inode (ext4: 65,000). A group of hard links starts on a fresh
/// inode before its members could be torn apart by that limit.
const NAMES_MAX: u32 = 60_000;

/// What the tree is made from besides the source.
pub enum Former {
    /// Nothing: everything is copied.
    Nothing,
    /// A finished generation: its manifest of this source, and its `tree` folder.
    Generation(Reader, OwnedFd),
    /// The same tree, as an earlier pass left it.
    SameTree(Reader),
}

/// One pass over one source.
pub struct Task<'a> {
    /// Its name is that of its root in `tree`.
    pub source: &'a Source,
    /// Entries may vanish and change while they are copied.
    pub tolerant: bool,
    /// What is larger is refused.
    pub limits: Option<Limits>,
    pub former: Former,
    /// The `tree` folder, and its path for errors.
    pub tree: OwnedFd,
    pub tree_path: &'a Path,
    /// An empty folder beside it, for what is not in place yet.
    pub staging: OwnedFd,
    /// Where the manifest is written.
    pub manifest: &'a Path,
    /// Goes into the manifest.
    pub settled_before: Time,
    /// The repository, which must not be met on the way.
    pub repository: &'a Stat,
}

/// What a source holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    pub entries: u64,
    /// Sum of the sizes of all files, hard links counted once.
    pub bytes: u64,
    /// Bytes that are not shared with the former state.
    pub copied_bytes: u64,
}

/// Does it.
pub(super) fn run(task: Task<'_>, meter: &mut Meter<'_>) -> Result<Summary, Error> {
    let mut mirror = Mirror::new(task, meter)?;
    loop {
        match mirror.walk.step()? {
            Step::Entry(stat) => mirror.entry(stat)?,
            Step::Leave => mirror.leave()?,
            Step::End => break,
        }
    }
    mirror.out.finish(mirror.settled_before)?;
    Ok(mirror.summary)
}

struct Mirror<'a, 'p> {
    walk: Walk,
    name: &'a [u8],
    label: String,
    repository: &'a Stat,
    former: Option<Reader>,
    /// The tree exists and is brought up to date.
    update: bool,
    /// The previous generation's tree, to share inodes with.
    shared: Option<Trail>,
    tree: Trail,
    frames: Vec<Frame>,
    staging: OwnedFd,
    staged: u64,
    links: Links,
    copier: Copier,
    out: Writer,
    settled_before: Time,
    meter: &'a mut Meter<'p>,
    summary: Summary,
}

/// A folder we are in: what it costs does not depend on how deep it is.
struct Frame {
    /// Without its path.
    entry: Entry,
    path_len: usize,
    /// Its copy was changed and gets its metadata when we leave.
    touched: bool,
}

impl<'a, 'p> Mirror<'a, 'p> {
    fn new(task: Task<'a>, meter: &'a mut Meter<'p>) -> Result<Self, Error> {
        let (former, shared, update) = match task.former {
            Former::Nothing => (None, None, false),
            Former::Generation(manifest, tree) => (Some(manifest), Some(Trail::new(tree)), false),
            Former::SameTree(manifest) => (Some(manifest), None, true),
        };
        Ok(Self {
            walk: Walk::of(task.source, task.tolerant)?.within(task.limits),
            name: task.source.name.as_bytes(),
            label: task.tree_path.join(&task.source.name).display().to_string(),
            repository: task.repository,
            former,
            update,
            shared,
            tree: Trail::new(task.tree),
            frames: Vec::new(),
            staging: task.staging,
            staged: 0,
            links: Links::default(),
            copier: Copier::default(),
            out: Writer::create(task.manifest)?,
            settled_before: task.settled_before,
            meter,
            summary: Summary::default(),
        })
    }

    fn entry(&mut self, stat: Stat) -> Result<(), Error> {
        self.meter.entry(self.walk.site())?;
        let known = self.known()?;
        if self.walk.is_mount(&stat) {
            self.mount(&stat, known)
        } else if stat.is_folder() {
            self.folder(stat, known)
        } else {
            self.leaf(stat, known)
        }
    }

    /// What the former state had at this path; what it had before it, and the source has not, is removed.
    fn known(&mut self) -> Result<Option<Entry>, Error> {
        let Some(mut former) = self.former.take() else { return Ok(None) };
        while let Some(gone) = former.take_before(self.walk.path())? {
            self.gone(&gone)?;
        }
        let known = former.take_at(self.walk.path())?;
        self.former = Some(former);
        Ok(known)
    }

    fn gone(&mut self, gone: &Entry) -> Result<(), Error> {
        // What lay deeper went with its folder.
        let here = self.frames.last().map(|frame| &self.walk.path()[..frame.path_len]);
        if self.update && gone.parent() == here { self.discard(gone.name()) } else { Ok(()) }
    }

    fn leave(&mut self) -> Result<(), Error> {
        if let Some(mut former) = self.former.take() {
            while let Some(gone) = former.take_below(self.walk.path())? {
                self.gone(&gone)?;
            }
            self.former = Some(former);
        }
        let Some(frame) = self.frames.pop() else { return Ok(()) };
        if frame.touched {
            let folder = self.tree.folder().context("open", self.site())?;
            attributes::apply(Inode::Open(folder.as_fd()), &frame.entry).context("set the metadata of", self.site())?;
        }
        self.tree.pop();
        if let Some(shared) = &mut self.shared {
            shared.pop();
        }
        Ok(())
    }

    fn folder(&mut self, seen: Stat, known: Option<Entry>) -> Result<(), Error> {
        if (seen.dev, seen.ino) == (self.repository.dev, self.repository.ino) {
            let text = format!("the snapshot repository is inside {}: move it elsewhere", self.walk.label());
            return Err(Error::Refused(text));
        }
        if !self.walk.descend()? {
            return self.vanished(known.as_ref());
        }
        let stat = self.walk.folder_stat().unwrap_or(seen);
        if !self.walk.is_tolerant() && !stat.is_still(&seen) {
            return Err(self.walk.changed());
        }
        let name = self.entry_name();
        let present = self.update && known.as_ref().is_some_and(Entry::is_folder);
        if !present {
            if self.update && known.is_some() {
                self.discard(&name)?;
            }
            let parent = self.tree.folder().context("open", self.site())?;
            node::new_folder(parent.as_fd(), &name).context("create", self.site())?;
            self.touch();
        }
        let same = known.filter(|k| k.sameness(&stat, self.trusted_before()) == Sameness::Same);
        let touched = !(present && same.is_some());
        let entry = match same {
            Some(known) => known,
            None => self.read_folder(&stat)?,
        };
        self.out.push(&entry)?;
        self.summary.entries += 1;
        let path_len = entry.path.len();
        self.frames.push(Frame { entry: Entry { path: Vec::new(), ..entry }, path_len, touched });
        self.tree.push(&name);
        if let Some(shared) = &mut self.shared {
            shared.push(&name);
        }
        Ok(())
    }

    fn read_folder(&self, stat: &Stat) -> Result<Entry, Error> {
        let mut entry = Entry::new(self.walk.path(), Kind::Folder, stat);
        if let Some(folder) = self.walk.folder() {
            entry.xattrs = attributes::xattrs(Inode::Open(folder)).context("read the xattrs of", self.walk.site())?;
        }
        Ok(entry)
    }

    fn mount(&mut self, stat: &Stat, known: Option<Entry>) -> Result<(), Error> {
        let entry = Entry::mount(self.walk.path(), stat.is_folder());
        if !(self.update && known.as_ref().is_some_and(|known| known.kind == entry.kind)) {
            let (folder, name) = self.target()?;
            node::mountpoint(folder.as_fd(), &name, stat.is_folder()).context("create", self.site())?;
            self.place(&name, known.as_ref(), stat.is_folder())?;
        }
        self.summary.entries += 1;
        self.out.push(&entry)
    }

    fn leaf(&mut self, stat: Stat, known: Option<Entry>) -> Result<(), Error> {
        let trusted_before = self.trusted_before();
        let same = match &known {
            Some(known) => {
                inspect::is_same(&mut self.walk, &stat, known, trusted_before, &mut self.copier, self.meter)?
            }
            None => false,
        };
        let recorded = known.as_ref().filter(|_| same).cloned();
        let keep = self.update && same && self.links.may_keep(&stat);
        let entry = match recorded {
            recorded @ Some(_) if keep => recorded,
            recorded => match (self.join(&stat, known.as_ref())?, recorded) {
                (Some(entry), _) => Some(entry),
                (None, Some(recorded)) if self.share(&stat)? => Some(recorded),
                _ => self.make(&stat, known.as_ref())?,
            },
        };
        match entry {
            Some(entry) => self.record(entry, &stat, keep),
            None => self.vanished(known.as_ref()),
        }
    }

    fn record(&mut self, mut entry: Entry, stat: &Stat, kept: bool) -> Result<(), Error> {
        let groups = self.links.leader(stat).is_some();
        let noted = self.links.note(&entry, stat, kept);
        entry.group = noted.map_err(|_| limits::too_much("files with several names", self.walk.site()))?;
        self.summary.entries += 1;
        self.summary.bytes += if groups { 0 } else { entry.size };
        self.out.push(&entry)
    }

    /// Another name of an inode that this pass has met already.
    fn join(&mut self, stat: &Stat, known: Option<&Entry>) -> Result<Option<Entry>, Error> {
        let Some((leader, place)) = self.links.leader(stat) else { return Ok(None) };
        let (leader, place) = (leader.elsewhere(self.walk.path().to_vec()), place.path());
        let path = if place.is_empty() { self.name.to_vec() } else { [self.name, b"/", &place].concat() };
        let (folder, name) = self.target()?;
        node::link(self.tree.root().as_fd(), &path, folder.as_fd(), &name).context("link", self.site())?;
        self.place(&name, known, false)?;
        Ok(Some(leader))
    }

    /// Shares the inode of the previous generation. `false`: it has to be copied after all.
    fn share(&mut self, stat: &Stat) -> Result<bool, Error> {
        let name = self.entry_name();
        let Some(shared) = &mut self.shared else { return Ok(false) };
        let Ok(from) = shared.folder() else { return Ok(false) };
        if stat.is_linked() {
            let names = beneath::stat(from.as_fd(), &name).map_or(NAMES_MAX, |there| there.nlink);
            if names.saturating_add(stat.nlink) >= NAMES_MAX {
                return Ok(false);
            }
        }
        let folder = self.tree.folder().context("open", self.site())?;
        match linkat(&from, &name[..], &folder, &name[..], AtFlags::empty()) {
            Ok(()) => Ok(true),
            // Too many names; or somebody removed it from the generation, which `verify` will tell.
            Err(Errno::MLINK | Errno::NOENT) => Ok(false),
            Err(e) => Err(e).context("link", self.site()),
        }
    }

    /// Copies the entry from the source. `None`: it is gone.
    fn make(&mut self, stat: &Stat, known: Option<&Entry>) -> Result<Option<Entry>, Error> {
        let (folder, name) = self.target()?;
        let made = if stat.is_file() {
            self.make_file(stat, &folder, &name)?
        } else {
            self.make_special(stat, &folder, &name)?
        };
        if made.is_some() {
            self.place(&name, known, false)?;
            self.meter.counts.copied += 1;
        }
        Ok(made)
    }

    fn make_file(&mut self, seen: &Stat, folder: &OwnedFd, name: &[u8]) -> Result<Option<Entry>, Error> {
        let Some(file) = self.walk.open_file()? else { return Ok(None) };
        let before = beneath::stat_of(file.as_fd()).context("look at", self.walk.site())?;
        let strict = !self.walk.is_tolerant();
        if strict && !before.is_still(seen) {
            return Err(self.walk.changed());
        }
        if !before.is_file() {
            return Ok(None);
        }
        let to = beneath::new_file(folder.as_fd(), name).context("create", self.site())?;
        let here = Site { root: &self.label, path: self.walk.path() };
        let from = End { fd: file.as_fd(), site: self.walk.site() };
        let mut tick = |bytes| self.meter.bytes(bytes, here);
        let content = self.copier.copy(from, &before, End { fd: to.as_fd(), site: here }, &mut tick)?;
        self.summary.copied_bytes += content.size;
        let kind = Kind::File { hash: content.hash, extents: content.extents };
        let mut entry = Entry::new(self.walk.path(), kind, &before);
        entry.size = content.size;
        entry.xattrs = attributes::xattrs(Inode::Open(file.as_fd())).context("read the xattrs of", self.walk.site())?;
        if strict {
            let after = beneath::stat_of(file.as_fd()).context("look at", self.walk.site())?;
            if !after.is_still(&before) || content.size != before.size {
                return Err(self.walk.changed());
            }
        }
        attributes::apply(Inode::Open(to.as_fd()), &entry).context("set the metadata of", here)?;
        Ok(Some(entry))
    }

    fn make_special(&mut self, seen: &Stat, folder: &OwnedFd, name: &[u8]) -> Result<Option<Entry>, Error> {
        let Some(inode) = self.walk.open_node()? else { return Ok(None) };
        let now = beneath::stat_of(inode.as_fd()).context("look at", self.walk.site())?;
        if !now.is_still(seen) {
            return if self.walk.is_tolerant() { Ok(None) } else { Err(self.walk.changed()) };
        }
        let entry = read_special(&inode, &now, self.walk.path()).context("read", self.walk.site())?;
        node::special(folder.as_fd(), name, &entry).context("create", self.site())?;
        Ok(Some(entry))
    }

    /// Where something new is made: in place when a tree is built, else beside the tree.
    fn target(&mut self) -> Result<(Rc<OwnedFd>, Vec<u8>), Error> {
        if !self.update {
            let folder = self.tree.folder().context("open", self.site())?;
            return Ok((folder, self.entry_name()));
        }
        self.staged += 1;
        let staging = self.staging.try_clone().context("open", self.site())?;
        Ok((Rc::new(staging), format!("{}", self.staged).into_bytes()))
    }

    /// Puts what was made under the name `made` where it belongs.
    fn place(&mut self, made: &[u8], known: Option<&Entry>, is_folder: bool) -> Result<(), Error> {
        self.touch();
        if !self.update {
            return Ok(());
        }
        let name = self.entry_name();
        // Only a folder, old or new, cannot simply be replaced.
        let was_folder = known.is_some_and(|k| matches!(k.kind, Kind::Folder | Kind::Mount { folder: true }));
        if known.is_some() && (was_folder || is_folder) {
            self.discard(&name)?;
        }
        let folder = self.tree.folder().context("open", self.site())?;
        renameat(&self.staging, made, &folder, &name[..]).context("rename into place", self.site())
    }

    fn vanished(&mut self, known: Option<&Entry>) -> Result<(), Error> {
        if self.update && known.is_some() { self.discard(&self.entry_name()) } else { Ok(()) }
    }

    /// Removes a name from the tree; inodes shared with other generations live on there.
    fn discard(&mut self, name: &[u8]) -> Result<(), Error> {
        let folder = self.tree.folder().context("open", self.site())?;
        let all = node::remove(folder.as_fd(), name, self.repository, &mut self.meter.counts.removed)
            .context("remove", self.site())?;
        self.touch();
        if all { Ok(()) } else { Err(Errno::BUSY).context("remove", self.site()) }
    }

    fn touch(&mut self) {
        if let Some(frame) = self.frames.last_mut() {
            frame.touched = true;
        }
    }

    /// The name in the tree of what was just given.
    fn entry_name(&self) -> Vec<u8> {
        if self.walk.path().is_empty() { self.name.to_vec() } else { self.walk.name().to_vec() }
    }

    fn trusted_before(&self) -> Time {
        self.former.as_ref().map_or(Time::default(), |former| former.settled_before)
    }

    /// The copy of what was just given, for errors.
    fn site(&self) -> Site<'_> {
        Site { root: &self.label, path: self.walk.path() }
    }
}

/// What is recorded of an inode that is neither folder nor file.
pub fn read_special(inode: &OwnedFd, stat: &Stat, path: &[u8]) -> rustix::io::Result<Entry> {
    let (major, minor) = stat.rdev;
    let kind = match stat.file_type {
        FileType::Symlink => Kind::Symlink { target: readlinkat(inode, c"", Vec::new())?.into_bytes() },
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        FileType::CharacterDevice => Kind::CharDevice { major, minor },
        FileType::BlockDevice => Kind::BlockDevice { major, minor },
        FileType::Directory | FileType::RegularFile | FileType::Unknown => return Err(Errno::INVAL),
    };
    let mut entry = Entry::new(path, kind, stat);
    entry.xattrs = attributes::xattrs(Inode::Node(inode.as_fd()))?;
    Ok(entry)
}
