//! The folder that holds the generations, and what is done to finished ones.
//!
//! ```text
//! <repository>/                 0700, as is everything in it that is not the application's own
//!   lock                        flock: one process works here
//!   generations/<id>/           finished; nothing in it is ever changed
//!     meta.json                 when, why, of what
//!     manifest/<source>         every entry
//!     tree/<source>             the data, to be read with ls and cp
//!   aligned/<id>/<source>       manifest with the inodes and times of the source after a restore of <id>
//!   work/<id>/                  a pass under way; not finished, so worth nothing
//!   trash/<id>/                 being deleted
//! ```

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock, fstatfs, removexattr, syncfs};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::changes::{self, Changes};
use super::entry::{Stat, Time};
use super::error::{Context, Error};
use super::limits::Limits;
use super::manifest::{self, Reader, Writer};
use super::mirror::{Former, Summary};
use super::pass::Pass;
use super::progress::{Meter, Progress};
use super::restore::{self, RestoreReport, open_folder};
use super::retention::Keep;
use super::root::Source;
use super::walk::Walk;
use super::{beneath, node, verify};

/// Version of the layout and of `meta.json`.
const FORMAT: u32 = 1;
/// Longer than two ticks of the clock that stamps inodes (at most 10 ms each).
pub(super) const TICKS: Duration = Duration::from_millis(25);

/// What a snapshot is for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// In words, for people.
    pub reason: String,
    /// The job that took it.
    pub job: Option<String>,
    /// Version and image that had written the data: enough to have them again.
    pub version: Option<String>,
    pub image: Option<String>,
    #[serde(default)]
    pub image_id: Option<String>,
    /// `repository@sha256:…`
    #[serde(default)]
    pub repo_digest: Option<String>,
    /// The version key's value in `.env`.
    #[serde(default)]
    pub env_value: Option<String>,
    /// A person asked for it.
    #[serde(default)]
    pub by_hand: bool,
}

/// `meta.json` of a generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    pub format: u32,
    pub id: String,
    pub created_at: Timestamp,
    /// Nobody wrote while it was taken.
    pub consistent: bool,
    pub label: Label,
    pub sources: Vec<SourceMeta>,
}

/// One source of a generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceMeta {
    pub name: String,
    pub path: PathBuf,
    /// Where the application saw it; empty in snapshots of programs that did not note it.
    #[serde(default)]
    pub shown: String,
    pub entries: u64,
    /// Sum of the sizes of all files.
    pub bytes: u64,
    /// Of these, what was not shared with an earlier generation when it was taken.
    pub copied_bytes: u64,
}

/// A finished snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    pub meta: Meta,
    path: PathBuf,
}

impl Generation {
    /// Its name.
    pub fn id(&self) -> &str {
        &self.meta.id
    }

    /// Its folder; the data is below `tree/<source>`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Size of all files, and how much of it this generation added to the disk.
    pub fn bytes(&self) -> (u64, u64) {
        let sum = |of: fn(&SourceMeta) -> u64| self.meta.sources.iter().map(of).sum();
        (sum(|s| s.bytes), sum(|s| s.copied_bytes))
    }

    pub(super) fn tree(&self) -> PathBuf {
        self.path.join("tree")
    }

    pub(super) fn manifest(&self, source: &str) -> PathBuf {
        self.path.join("manifest").join(source)
    }
}

/// The repository, locked for this process as long as this lives, unless it is only looked at.
pub struct Repository {
    root: PathBuf,
    /// To recognise the folder, and to flush its file system.
    folder: OwnedFd,
    stat: Stat,
    /// Of what is copied.
    pub(super) limits: Limits,
    pub(super) lock: Option<File>,
}

impl Repository {
    /// Opens the repository, makes it if there is none, and locks it.
    pub fn open(root: &Path) -> Result<Self, Error> {
        for folder in ["", "generations", "aligned", "work", "trash"] {
            private_folder(&root.join(folder))?;
        }
        let path = root.join("lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&path).at("open", &path)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => return Err(Error::Busy { path: root.display().to_string() }),
            other => other.at("lock", &path)?,
        }
        Ok(Self { lock: Some(lock), ..Self::look(root)? })
    }

    /// To look at a repository that there is, and at what a pass would need, beside whoever works there. A
    /// look must never keep a job out.
    pub fn look(root: &Path) -> Result<Self, Error> {
        allow_open_files();
        let folder = open_folder(root)?;
        let stat = beneath::stat_of(folder.as_fd()).at("look at", root)?;
        Ok(Self { root: root.to_owned(), folder, stat, limits: Limits::DEFAULT, lock: None })
    }

    /// Refuses to copy what is larger.
    pub fn within(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// All generations, oldest first.
    pub fn generations(&self) -> Result<Vec<Generation>, Error> {
        list(&self.root)
    }

    /// The generation with this name.
    pub fn generation(&self, id: &str) -> Result<Generation, Error> {
        let known = self.generations()?;
        let names: Vec<_> = known.iter().map(|g| g.meta.id.clone()).collect();
        known
            .into_iter()
            .find(|g| g.meta.id == id)
            .ok_or_else(|| Error::NoSuch { id: id.to_owned(), known: names.clone() })
    }

    /// Starts a pass over these sources. Nothing is copied yet.
    pub fn begin(&self, sources: Vec<Source>, label: Label) -> Result<Pass<'_>, Error> {
        let stamp = Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
        Pass::begin(self, format!("{stamp}-{:04x}", rand::random::<u16>()), sources, label)
    }

    /// Goes on with a pass of an earlier process whose hot pass is complete. The sources must be those of that pass.
    pub fn resume(&self, id: &str, sources: Vec<Source>) -> Result<Pass<'_>, Error> {
        Pass::resume(self, id, sources)
    }

    /// Passes that were begun and not finished.
    pub fn unfinished(&self) -> Result<Vec<String>, Error> {
        names_in(&self.root.join("work"))
    }

    /// Throws an unfinished pass away.
    pub fn discard(&self, id: &str) -> Result<(), Error> {
        self.throw_away("work", id)
    }

    /// Copies the sources as they are now, while nobody writes, under a name of the caller's choice,
    /// for example `failed-<job>`. A generation of that name that exists already is left as it is: after
    /// a restore that died, the sources are no longer what was to be kept.
    pub fn keep_present_state(
        &self,
        sources: Vec<Source>,
        id: &str,
        label: Label,
        progress: &mut dyn Progress,
    ) -> Result<Generation, Error> {
        if let Some(kept) = self.generations()?.into_iter().find(|g| g.meta.id == id) {
            return Ok(kept);
        }
        self.throw_away("work", id)?;
        let pass = Pass::begin(self, id.to_owned(), sources, label)?;
        let kept = pass.without_limits().cold(progress);
        if kept.is_err() {
            // Gives the room back; the first error is the one to report.
            let _ = self.throw_away("work", id);
        }
        kept
    }

    /// Compares every attribute and all content of a generation with its manifest.
    pub fn verify(&self, generation: &Generation, progress: &mut dyn Progress) -> Result<(), Error> {
        let mut meter = Meter::new(progress);
        for source in &generation.meta.sources {
            let manifest = Reader::open(&generation.manifest(&source.name))?;
            let walk = Walk::open(&generation.tree().join(&source.name), false)?;
            verify::run(walk, manifest, None, &mut meter)?;
        }
        Ok(())
    }

    /// What the sources differ in from a generation. Content is not read: inodes and times tell.
    pub fn changes(
        &self,
        generation: &Generation,
        sources: &[Source],
        progress: &mut dyn Progress,
    ) -> Result<Changes, Error> {
        self.count_changes(generation, sources, false, progress)
    }

    /// Are the sources exactly as they were when the generation was taken, or last restored?
    pub fn equals(
        &self,
        generation: &Generation,
        sources: &[Source],
        progress: &mut dyn Progress,
    ) -> Result<bool, Error> {
        check_sources(generation, sources)?;
        Ok(self.count_changes(generation, sources, true, progress)?.is_none())
    }

    fn count_changes(
        &self,
        generation: &Generation,
        sources: &[Source],
        first_only: bool,
        progress: &mut dyn Progress,
    ) -> Result<Changes, Error> {
        check_known(generation, sources)?;
        let mut meter = Meter::new(progress);
        let mut changes = Changes::default();
        for source in sources {
            let manifest = Reader::open(&self.current_manifest(generation, &source.name))?;
            let walk = Walk::of(source, true)?;
            changes::count(walk, manifest, first_only, &mut changes, &mut meter)?;
        }
        Ok(changes)
    }

    /// Makes the sources, to which nobody may write now, exactly what they were when the generation was
    /// taken, flushes and verifies. The sources must be those of the generation. After an error it can
    /// be called again.
    pub fn restore(
        &self,
        generation: &Generation,
        sources: &[Source],
        progress: &mut dyn Progress,
    ) -> Result<RestoreReport, Error> {
        check_sources(generation, sources)?;
        self.restore_some(generation, sources, progress)
    }

    /// As [`Self::restore`], for some of the generation's sources: what the others hold stays as it is.
    pub fn restore_some(
        &self,
        generation: &Generation,
        sources: &[Source],
        progress: &mut dyn Progress,
    ) -> Result<RestoreReport, Error> {
        check_known(generation, sources)?;
        let mut meter = Meter::new(progress);
        let mut report = RestoreReport::default();
        let tree = generation.tree();
        for source in sources {
            let manifest = self.current_manifest(generation, &source.name);
            let task = restore::Task { source, manifest: &manifest, tree: &tree };
            restore::run(task, &mut report, &mut meter)?;
        }
        let ended = Instant::now();
        for source in sources {
            sync_source(source)?;
        }
        // Whoever writes next writes later than the last of our own changes, by the clock of the inodes.
        std::thread::sleep((2 * TICKS).saturating_sub(ended.elapsed()));
        self.align(generation, sources, &mut meter)?;
        Ok(report)
    }

    /// Verifies the restored sources and records their new inodes and times: otherwise the next pass
    /// would take everything that was restored for changed.
    fn align(&self, generation: &Generation, sources: &[Source], meter: &mut Meter<'_>) -> Result<(), Error> {
        let settled_before = Time::now_less(TICKS);
        let fresh = self.root.join("aligned").join(format!(".{}", generation.id()));
        remove_folder(&fresh)?;
        new_private_folder(&fresh)?;
        for source in sources {
            let recorded = Reader::open(&self.current_manifest(generation, &source.name))?;
            let out = Writer::create(&fresh.join(&source.name))?;
            if let Some(out) = verify::run(Walk::of(source, false)?, recorded, Some(out), meter)? {
                out.finish(settled_before)?;
            }
        }
        // Not flushed: a power failure may cost this record, and the next pass some time.
        let place = self.root.join("aligned").join(generation.id());
        remove_folder(&place)?;
        fs::rename(&fresh, &place).at("rename into place", &place)
    }

    /// The manifest with the inodes and times that the source is expected to have.
    fn current_manifest(&self, generation: &Generation, source: &str) -> PathBuf {
        let aligned = self.root.join("aligned").join(generation.id()).join(source);
        if Reader::open(&aligned).is_ok() { aligned } else { generation.manifest(source) }
    }

    /// Deletes what is too much or too old. Returns the deleted names.
    pub fn prune(&self, keep: &Keep<'_>, now: Timestamp) -> Result<Vec<String>, Error> {
        let known = self.generations()?;
        let list: Vec<_> = known.iter().map(|g| (g.id(), g.meta.created_at)).collect();
        let doomed: Vec<String> = keep.too_much(&list, now).into_iter().map(str::to_owned).collect();
        for id in &doomed {
            self.throw_away("generations", id)?;
        }
        for left in names_in(&self.root.join("trash"))? {
            remove_folder(&self.root.join("trash").join(left))?;
        }
        for left in names_in(&self.root.join("aligned"))? {
            if !self.root.join("generations").join(left.trim_start_matches('.')).exists() {
                remove_folder(&self.root.join("aligned").join(left))?;
            }
        }
        Ok(doomed)
    }

    /// Deletes a generation; files that others share stay with those.
    pub fn remove(&self, generation: &Generation) -> Result<(), Error> {
        self.throw_away("generations", generation.id())
    }

    /// Renames away, so that a half-deleted generation is never taken for one; then deletes.
    fn throw_away(&self, room: &str, id: &str) -> Result<(), Error> {
        check_name(id)?;
        let (from, to) = (self.root.join(room).join(id), self.root.join("trash").join(id));
        remove_folder(&to)?;
        match fs::rename(&from, &to) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.at("discard", &from)?,
        }
        sync_folder(&self.root.join(room))?;
        remove_folder(&to)
    }

    /// The state of this source that a new pass can share most with: the newest one that is known to
    /// have been exactly what the source was.
    pub(super) fn former(&self, source: &str) -> Result<Former, Error> {
        let mut candidates = Vec::new();
        for generation in self.generations()? {
            let aligned = self.root.join("aligned").join(generation.id()).join(source);
            for path in [generation.manifest(source), aligned] {
                // A damaged manifest is no former state; `verify` is there to tell.
                if let Ok(time) = manifest::settled_before(&path) {
                    candidates.push((time, path, generation.tree()));
                }
            }
        }
        candidates.sort_by_key(|(time, ..)| *time);
        while let Some((_, path, tree)) = candidates.pop() {
            if let Ok(reader) = Reader::open(&path) {
                return Ok(Former::Generation(reader, open_folder(&tree)?));
            }
        }
        Ok(Former::Nothing)
    }

    /// Moves a finished pass among the generations. Everything in it must have been flushed.
    pub(super) fn adopt(&self, id: &str) -> Result<Generation, Error> {
        let place = self.root.join("generations").join(id);
        fs::rename(self.work(id), &place).at("rename into place", &place)?;
        sync_folder(&self.root.join("generations"))?;
        sync_folder(&self.root.join("work"))?;
        read_generation(&place)
    }

    pub(super) fn meta(
        &self,
        id: &str,
        consistent: bool,
        label: &Label,
        sources: &[Source],
        summaries: &[Summary],
    ) -> Meta {
        let sources = sources.iter().zip(summaries).map(|(source, summary)| SourceMeta {
            name: source.name.clone(),
            path: source.path.clone(),
            shown: source.shown.clone(),
            entries: summary.entries,
            bytes: summary.bytes,
            copied_bytes: summary.copied_bytes,
        });
        Meta {
            format: FORMAT,
            id: id.to_owned(),
            created_at: Timestamp::now(),
            consistent,
            label: label.clone(),
            sources: sources.collect(),
        }
    }

    pub(super) fn work(&self, id: &str) -> PathBuf {
        self.root.join("work").join(id)
    }

    /// Everything written to the repository so far is on the disk.
    pub(super) fn flush(&self) -> Result<(), Error> {
        syncfs(&self.folder).at("flush", &self.root)
    }

    pub(super) fn stat(&self) -> &Stat {
        &self.stat
    }

    /// Its folder.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

/// All generations of a repository, oldest first, without locking it: they appear and disappear whole.
pub fn list(root: &Path) -> Result<Vec<Generation>, Error> {
    let folder = root.join("generations");
    let mut list = Vec::new();
    for name in names_in(&folder)? {
        match read_generation(&folder.join(name)) {
            // Pruned while we looked.
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            other => list.push(other?),
        }
    }
    list.sort_by(|a, b| (a.meta.created_at, a.id()).cmp(&(b.meta.created_at, b.id())));
    Ok(list)
}

fn read_generation(path: &Path) -> Result<Generation, Error> {
    let file = path.join("meta.json");
    let text = fs::read(&file).at("read", &file)?;
    let damaged = |why: String| Error::Damaged { path: file.display().to_string(), why };
    let meta: Meta = serde_json::from_slice(&text).map_err(|e| damaged(e.to_string()))?;
    if meta.format != FORMAT {
        return Err(damaged(format!("format {}, this program knows {FORMAT}", meta.format)));
    }
    Ok(Generation { meta, path: path.to_owned() })
}

/// What puts everything back must not mix two states of the application.
fn check_sources(generation: &Generation, sources: &[Source]) -> Result<(), Error> {
    check_known(generation, sources)?;
    if generation.meta.sources.len() == sources.len() { Ok(()) } else { Err(other_mounts(generation, sources)) }
}

/// Each of them is in the generation.
fn check_known(generation: &Generation, sources: &[Source]) -> Result<(), Error> {
    let is_known = |source: &Source| generation.meta.sources.iter().any(|known| known.name == source.name);
    if sources.iter().all(is_known) { Ok(()) } else { Err(other_mounts(generation, sources)) }
}

fn other_mounts(generation: &Generation, sources: &[Source]) -> Error {
    let list = |mut names: Vec<&str>| {
        names.sort_unstable();
        names.join(", ")
    };
    let name = |shown: &'_ str, name: &'_ str| if shown.is_empty() { name.to_owned() } else { shown.to_owned() };
    let recorded: Vec<String> = generation.meta.sources.iter().map(|s| name(&s.shown, &s.name)).collect();
    let given: Vec<String> = sources.iter().map(|s| name(&s.shown, &s.name)).collect();
    let [recorded, given] = [recorded, given].map(|names| list(names.iter().map(String::as_str).collect()));
    Error::Refused(format!("snapshot {} is of the mounts {recorded}, not of {given}", generation.id()))
}

/// Names become file names.
pub(super) fn check_name(name: &str) -> Result<(), Error> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if name.is_empty() || name.len() > 200 || name.starts_with('.') || !name.chars().all(plain) {
        let rule = "letters, digits, dot, underscore and dash, at most 200, no dot in front";
        return Err(Error::Refused(format!("{name:?} is no name for the snapshot repository: {rule}")));
    }
    Ok(())
}

/// Makes a folder that is ours alone, if there is none, and makes it ours alone, if there is.
fn private_folder(path: &Path) -> Result<(), Error> {
    match DirBuilder::new().recursive(true).mode(0o700).create(path) {
        Ok(()) => {}
        other => other.at("create the folder", path)?,
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).at("protect", path)?;
    // Otherwise what we make would inherit more than its owner's rights.
    for acl in ["system.posix_acl_default", "system.posix_acl_access"] {
        match removexattr(path, acl) {
            Err(Errno::NODATA | Errno::NOTSUP) => {}
            other => other.at("protect", path)?,
        }
    }
    Ok(())
}

pub(super) fn new_private_folder(path: &Path) -> Result<(), Error> {
    DirBuilder::new().mode(0o700).create(path).at("create the folder", path)
}

/// Removes a folder of ours with everything in it; nothing there is fine.
pub(super) fn remove_folder(path: &Path) -> Result<(), Error> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let parent = open_folder(parent)?;
    let root = beneath::stat_of(parent.as_fd()).at("look at", path)?;
    let mut removed = 0;
    match node::remove(parent.as_fd(), name.as_encoded_bytes(), &root, &mut removed) {
        Ok(true) | Err(Errno::NOENT) => Ok(()),
        Ok(false) => Err(Errno::BUSY).at("remove", path),
        Err(e) => Err(e).at("remove", path),
    }
}

fn names_in(folder: &Path) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).at("list", folder)? {
        names.push(entry.at("list", folder)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

pub(super) fn sync_folder(folder: &Path) -> Result<(), Error> {
    File::open(folder).and_then(|f| f.sync_all()).at("flush", folder)
}

/// Flushes the file system of a source. It also makes later writes through memory maps that exist
/// already visible in ctime: the next write to a flushed page is noticed by the kernel. `false`: not
/// here, because this file system has nothing to flush to.
pub(super) fn sync_source(source: &Source) -> Result<bool, Error> {
    /// `TMPFS_MAGIC` of `linux/magic.h`.
    const TMPFS: u64 = 0x0102_1994;
    let file = source.open_to_flush()?;
    syncfs(&file).at("flush the file system of", &source.path)?;
    let kind = fstatfs(&file).at("look at the file system of", &source.path)?.f_type;
    Ok(kind as u64 != TMPFS)
}

/// Writes a small JSON file whole or not at all.
pub(super) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), Error> {
    let fresh = path.with_extension("new");
    let text = serde_json::to_vec_pretty(value).map_err(io::Error::from).at("write", path)?;
    let mut file = File::create(&fresh).at("create", &fresh)?;
    file.write_all(&text).and_then(|()| file.sync_all()).at("write", &fresh)?;
    fs::rename(&fresh, path).at("rename into place", path)
}

/// A pass has some hundreds of folders open, whatever the depth of the tree ([`Trail`](super::trail::Trail)).
fn allow_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(65_536, |most| most.min(65_536));
    if current.is_some_and(|now| now < wanted) {
        // Without it deep trees may fail, and their error says so.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    /// SQLite writes the index of its log through a shared memory map.
    #[test]
    fn after_a_flush_a_write_through_a_memory_map_moves_ctime() {
        let folder = tempfile::tempdir().unwrap();
        let database = rusqlite::Connection::open(folder.path().join("db")).unwrap();
        let index = folder.path().join("db-shm");
        let ctime = || index.metadata().map(|m| (m.ctime(), m.ctime_nsec())).unwrap();
        database.execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE t(x)").unwrap();
        for n in 0..3 {
            assert!(
                sync_source(&Source::new("data", folder.path())).unwrap(),
                "the temporary folder must be on a disk"
            );
            let (before, content) = (ctime(), fs::read(&index).unwrap());
            std::thread::sleep(TICKS);
            database.execute("INSERT INTO t VALUES (?1)", [n]).unwrap();
            assert_ne!(content, fs::read(&index).unwrap());
            assert_ne!(before, ctime());
        }
    }
}
