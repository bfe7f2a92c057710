//! What may be on the disk after the power went out: folders as a process writes them, in which only what was
//! flushed is certain.
//!
//! The model is stricter than any file system in use. Flushing a file keeps its content, not its name; a name
//! is kept when its folder is flushed. What was not flushed may be there, may be missing, may be torn in the
//! middle of a write, and a later write may be there without an earlier one. Changes of names reach the disk
//! in their order.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use crate::strace::Call;

/// What a disk writes as a whole, bytes.
const SECTOR: usize = 512;

type Id = usize;

#[derive(Debug, Clone)]
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Cut(usize),
}

#[derive(Debug, Clone, Default)]
struct File {
    flushed: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Naming {
    Set(PathBuf, Id),
    Remove(PathBuf),
    /// `of` was renamed: the file itself, or a folder that it is in.
    Rename {
        from: PathBuf,
        to: PathBuf,
        id: Id,
        of: PathBuf,
    },
}

impl Naming {
    fn folder(&self) -> Option<&Path> {
        match self {
            Self::Set(path, _) | Self::Remove(path) | Self::Rename { of: path, .. } => path.parent(),
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, Id>) {
        match self {
            Self::Set(path, id) => drop(names.insert(path.clone(), *id)),
            Self::Remove(path) => drop(names.remove(path)),
            Self::Rename { from, to, id, .. } => {
                names.remove(from);
                names.insert(to.clone(), *id);
            }
        }
    }
}

/// The folders, as they are and as they are on the disk for certain.
pub struct Disk {
    folders: Vec<PathBuf>,
    except: Vec<&'static str>,
    files: Vec<File>,
    names: BTreeMap<PathBuf, Id>,
    flushed_names: BTreeMap<PathBuf, Id>,
    pending_names: Vec<Naming>,
}

/// What the disk may hold: the content of each file.
pub type Remains = BTreeMap<PathBuf, Vec<u8>>;

impl Disk {
    /// These folders, with everything in them flushed; files called `except` are not followed.
    pub fn of(folders: &[PathBuf], except: &[&'static str]) -> Self {
        let mut disk = Self {
            folders: folders.to_vec(),
            except: except.to_vec(),
            files: Vec::new(),
            names: BTreeMap::new(),
            flushed_names: BTreeMap::new(),
            pending_names: Vec::new(),
        };
        for folder in folders {
            disk.read(folder);
        }
        disk.flushed_names = disk.names.clone();
        disk
    }

    fn read(&mut self, folder: &Path) {
        for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry")) {
            let kind = entry.file_type().expect("a kind");
            if kind.is_dir() {
                self.read(&entry.path());
            } else if kind.is_file() && self.knows(&entry.path()) {
                let flushed = fs::read(entry.path()).expect("a file");
                self.files.push(File { flushed, pending: Vec::new() });
                self.names.insert(entry.path(), self.files.len() - 1);
            }
        }
    }

    fn knows(&self, path: &Path) -> bool {
        let is_excepted = path.file_name().is_some_and(|name| self.except.iter().any(|except| name == *except));
        !is_excepted && self.folders.iter().any(|folder| path.starts_with(folder))
    }

    /// What of this path is not flushed, in words.
    pub fn pending_below(&self, folder: &Path) -> Vec<String> {
        let content =
            self.names.iter().filter(|(path, id)| path.starts_with(folder) && !self.files[**id].pending.is_empty());
        let names = self.pending_names.iter().filter(|naming| naming.folder().is_some_and(|f| f.starts_with(folder)));
        content.map(|(path, _)| path.display().to_string()).chain(names.map(|naming| format!("{naming:?}"))).collect()
    }

    /// The call has been made. False if it changed nothing here.
    pub fn apply(&mut self, call: &Call) -> bool {
        match call.name.as_str() {
            "open" | "openat" | "creat" => self.opened(call),
            "write" => self.appended(call),
            "pwrite64" => {
                let at = usize::try_from(call.number(3)).expect("an offset");
                self.written(call, at)
            }
            "ftruncate" => {
                let len = usize::try_from(call.number(1)).expect("a length");
                self.changed(call, Change::Cut(len))
            }
            "rename" => self.renamed(call.path(0), call.path(1)),
            "renameat" | "renameat2" => self.renamed(call.path(1), call.path(3)),
            "linkat" => self.linked(&call.path(1), call.path(3)),
            "link" => self.linked(&call.path(0), call.path(1)),
            "unlink" => self.removed(call.path(0)),
            "unlinkat" => self.removed(call.path(1)),
            "fsync" | "fdatasync" => call.open(0).map(Path::to_owned).is_some_and(|path| self.flushed(&path)),
            "syncfs" | "sync" => self.flush_all(),
            // What copies of large files are made with: their content is not followed, only whether it is flushed.
            "copy_file_range" | "sendfile" | "fallocate" | "writev" | "pwritev" => {
                let target = if call.name == "copy_file_range" { 2 } else { 0 };
                let change = Change::Write { at: 0, bytes: Vec::new() };
                call.open(target).map(Path::to_owned).is_some_and(|path| self.change(&path, change))
            }
            _ => false,
        }
    }

    fn opened(&mut self, call: &Call) -> bool {
        let (path, flags) = if call.name == "openat" { (1, 2) } else { (0, 1) };
        let (path, flags) = (call.path(path), call.word(flags).to_owned());
        if !self.knows(&path) || flags.contains("O_DIRECTORY") || flags.contains("O_TMPFILE") {
            return false;
        }
        match self.names.get(&path).copied() {
            Some(id) if flags.contains("O_TRUNC") => self.files[id].pending.push(Change::Cut(0)),
            None if flags.contains("O_CREAT") => {
                self.files.push(File::default());
                self.name(Naming::Set(path, self.files.len() - 1));
            }
            _ => return false,
        }
        true
    }

    fn name(&mut self, naming: Naming) {
        naming.apply(&mut self.names);
        self.pending_names.push(naming);
    }

    fn change(&mut self, path: &Path, change: Change) -> bool {
        let id = self.names.get(path).copied();
        id.inspect(|id| self.files[*id].pending.push(change)).is_some()
    }

    fn changed(&mut self, call: &Call, change: Change) -> bool {
        call.open(0).map(Path::to_owned).is_some_and(|path| self.change(&path, change))
    }

    fn written(&mut self, call: &Call, at: usize) -> bool {
        let bytes = call.bytes(1)[..usize::try_from(call.result).expect("a length")].to_vec();
        self.changed(call, Change::Write { at, bytes })
    }

    /// Whatever uses `write` writes a file from its beginning to its end.
    fn appended(&mut self, call: &Call) -> bool {
        let Some(id) = call.open(0).and_then(|path| self.names.get(path)).copied() else { return false };
        let at = content(&self.files[id], self.files[id].pending.len(), None).len();
        self.written(call, at)
    }

    fn renamed(&mut self, from: PathBuf, to: PathBuf) -> bool {
        // Folders of the model are where their files are.
        let inside: Vec<_> = self.names.range(from.clone()..).take_while(|(path, _)| path.starts_with(&from)).collect();
        let inside: Vec<_> = inside.into_iter().map(|(path, id)| (path.clone(), *id)).collect();
        let known = !inside.is_empty() && self.knows(&to);
        for (path, id) in inside {
            let rest = path.strip_prefix(&from).expect("a prefix");
            let new = if rest == Path::new("") { to.clone() } else { to.join(rest) };
            self.name(Naming::Rename { from: path, to: new, id, of: to.clone() });
        }
        known
    }

    fn linked(&mut self, from: &Path, to: PathBuf) -> bool {
        let id = self.names.get(from).copied().filter(|_| self.knows(&to));
        id.inspect(|id| self.name(Naming::Set(to, *id))).is_some()
    }

    fn removed(&mut self, path: PathBuf) -> bool {
        let known = self.names.contains_key(&path);
        if known {
            self.name(Naming::Remove(path));
        }
        known
    }

    fn flushed(&mut self, path: &Path) -> bool {
        if let Some(id) = self.names.get(path).copied() {
            let file = &mut self.files[id];
            file.flushed = content(file, file.pending.len(), None);
            file.pending.clear();
            return true;
        }
        if !self.knows(path) {
            return false;
        }
        let (now, later) = self.pending_names.drain(..).partition(|naming| naming.folder() == Some(path));
        self.pending_names = later;
        let now: Vec<Naming> = now;
        now.iter().for_each(|naming| naming.apply(&mut self.flushed_names));
        !now.is_empty()
    }

    fn flush_all(&mut self) -> bool {
        for file in &mut self.files {
            file.flushed = content(file, file.pending.len(), None);
            file.pending.clear();
        }
        self.flushed_names = self.names.clone();
        self.pending_names.clear();
        true
    }

    /// Everything that may be on the disk if the power goes out now; each once.
    pub fn remains(&self) -> Vec<Remains> {
        let mut names = vec![self.flushed_names.clone()];
        for naming in &self.pending_names {
            let mut next = names.last().cloned().unwrap_or_default();
            naming.apply(&mut next);
            names.push(next);
        }
        let fates: [fn(&File) -> Vec<u8>; 6] = [
            |file| file.flushed.clone(),
            |file| content(file, file.pending.len(), None),
            |file| content(file, file.pending.len().saturating_sub(1), None),
            |file| torn(file, |len| SECTOR.min(len)),
            |file| torn(file, |len| (len / 2).next_multiple_of(SECTOR).min(len)),
            |file| {
                let last = file.pending.len().saturating_sub(1);
                content(file, 0, file.pending.get(last))
            },
        ];
        let mut seen = BTreeSet::new();
        let all = names.iter().flat_map(|names| {
            fates.iter().map(|fate| names.iter().map(|(path, id)| (path.clone(), fate(&self.files[*id]))).collect())
        });
        all.filter(|remains: &Remains| seen.insert(fingerprint(remains))).collect()
    }
}

/// The flushed content with the first `changes`, and one more.
fn content(file: &File, changes: usize, more: Option<&Change>) -> Vec<u8> {
    let mut bytes = file.flushed.clone();
    for change in file.pending[..changes].iter().chain(more) {
        match change {
            Change::Cut(len) => bytes.resize(*len, 0),
            Change::Write { at, bytes: new } => {
                bytes.resize(bytes.len().max(at + new.len()), 0);
                bytes[*at..at + new.len()].copy_from_slice(new);
            }
        }
    }
    bytes
}

/// All changes, the last of them only as far as `kept` says of its length.
fn torn(file: &File, kept: fn(usize) -> usize) -> Vec<u8> {
    let last = file.pending.len().saturating_sub(1);
    let part = file.pending.last().map(|change| match change {
        Change::Write { at, bytes } => Change::Write { at: *at, bytes: bytes[..kept(bytes.len())].to_vec() },
        Change::Cut(len) => Change::Cut(*len),
    });
    content(file, last, part.as_ref())
}

/// Of what is on the disk; equal for equal remains.
pub fn fingerprint(remains: &Remains) -> u64 {
    let mut hasher = DefaultHasher::new();
    remains.hash(&mut hasher);
    hasher.finish()
}
