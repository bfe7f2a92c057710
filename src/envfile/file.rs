//! The `.env` on disk: read whole, written beside and renamed over, so that a reader or a crash sees
//! the old file or the new one, never a part.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rustix::fs::{Gid, IFlags, Mode, OFlags, Uid, XattrFlags};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, capabilities};

use crate::failpoint;

use super::{CAP, Edited, EnvFileError, get, set, set_back};

/// Temporary files beside `.env` begin so. One left by a crash is taken away later, see [`STALE`].
const TEMPORARY: &str = ".processgit-updater-";
/// No write takes this long, so a temporary file of this age has no owner any more.
const STALE: Duration = Duration::from_secs(3600);
/// As many symbolic links as Linux itself follows (`MAXSYMLINKS`).
const LINKS: usize = 40;

/// The whole file; `None` when there is none. Follows links, refuses whatever is no regular file.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, EnvFileError> {
    let Some(file) = open(path)? else { return Ok(None) };
    let mut bytes = Vec::new();
    file.take(CAP as u64 + 1).read_to_end(&mut bytes).map_err(failed("read", path))?;
    if bytes.len() > CAP {
        return Err(EnvFileError::TooLarge { path: path.display().to_string() });
    }
    Ok(Some(bytes))
}

/// What Compose reads for `key` in this file; `None` when file or key are absent.
pub fn get_file(path: &Path, key: &str) -> Result<Option<String>, EnvFileError> {
    Ok(read(path)?.and_then(|bytes| get(&bytes, key)))
}

/// Sets `key` on disk. A file that says so already is not written again.
pub fn set_file(path: &Path, key: &str, value: &str) -> Result<Edited, EnvFileError> {
    let before = read(path)?;
    let edited = set(before.as_deref().unwrap_or_default(), key, value)?;
    if before.as_ref() != Some(&edited.bytes) {
        write_atomic(path, &edited.bytes)?;
    }
    Ok(edited)
}

/// Takes `key` out on disk. A file without it is not written again.
pub fn unset_file(path: &Path, key: &str) -> Result<(), EnvFileError> {
    let Some(before) = read(path)? else { return Ok(()) };
    // As if from a file without the key.
    let after = set_back(&before, b"", key)?;
    if after == before { Ok(()) } else { write_atomic(path, &after) }
}

/// Replaces the file, or makes it: temporary file beside it, fsync, rename, fsync of the folder. Owner,
/// group, mode and extended attributes stay; a link stays a link, and what it points to is replaced.
///
/// A new file belongs to its folder's owner and has mode 0600, because a `.env` holds passwords and
/// only Compose and that person have to read it.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), EnvFileError> {
    let path = &follow(path)?;
    let (folder, name) = split(path)?;
    let old = open(path)?;
    sweep(&folder);
    let temporary = Temporary::create(&folder, &name)?;
    fill(&temporary, bytes).map_err(failed("write", &temporary.path))?;
    match &old {
        Some(old) => take_over(old, &temporary, path)?,
        None => adopt(&folder, &temporary),
    }
    temporary.file.sync_all().map_err(failed("flush", &temporary.path))?;
    failpoint::reach(format_args!(".env written beside"));
    temporary.rename_to(path)?;
    failpoint::reach(format_args!(".env renamed"));
    File::open(&folder).and_then(|folder| folder.sync_all()).map_err(failed("flush", &folder))
}

/// More than any update adds to the file, bytes.
const ROOM: u64 = 4096;

/// Does all that [`write_atomic`] does but the rename, and leaves no trace: whoever may do that may replace the
/// file. What would stop only the rename (attributes, somebody else's file in a sticky folder) is looked at.
///
/// # Errors
/// What a write would fail with.
pub fn rehearse(path: &Path) -> Result<(), EnvFileError> {
    let real = follow(path)?;
    let (folder, name) = split(&real)?;
    let old = open(&real)?;
    if old.is_none() && real != path {
        let (path, target) = (path.display().to_string(), real.display().to_string());
        return Err(EnvFileError::Dangling { path, target });
    }
    let opened = File::open(&folder).map_err(failed("open", &folder))?;
    // First: in a folder to which can only be added, what was made could not be removed again.
    require_unflagged(&opened, &folder)?;
    let mut length = ROOM;
    if let Some(old) = &old {
        require_unflagged(old, &real)?;
        require_own_in_sticky(&opened, old, &real)?;
        length = ROOM.saturating_add(old.metadata().map_err(failed("inspect", &real))?.len());
    }
    let temporary = Temporary::create(&folder, &name)?;
    io::copy(&mut io::repeat(b'\n').take(length), &mut &temporary.file).map_err(failed("write", &temporary.path))?;
    if let Some(old) = &old {
        take_over(old, &temporary, &real)?;
    }
    temporary.file.sync_all().map_err(failed("flush", &temporary.path))
}

/// `chattr +i`, `chattr +a`: nobody may rename over such a file, or in such a folder, root included.
fn require_unflagged(file: &File, path: &Path) -> Result<(), EnvFileError> {
    // Most file systems in memory, and those of a network, have no attributes.
    let Ok(flags) = rustix::fs::ioctl_getflags(file) else { return Ok(()) };
    let flag = match () {
        () if flags.contains(IFlags::IMMUTABLE) => 'i',
        () if flags.contains(IFlags::APPEND) => 'a',
        () => return Ok(()),
    };
    Err(EnvFileError::Flagged { path: path.display().to_string(), flag })
}

/// In a folder like `/tmp` a file is replaced by its owner, by the folder's, or by whoever has CAP_FOWNER
/// (sticky bit, inode(7)).
fn require_own_in_sticky(folder: &File, old: &File, path: &Path) -> Result<(), EnvFileError> {
    let inspect = |file| rustix::fs::fstat(file).map_err(|errno| failed("inspect", path)(errno.into()));
    let (folder, old) = (inspect(folder)?, inspect(old)?);
    let us = rustix::process::geteuid().as_raw();
    let may = || capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::FOWNER));
    if !Mode::from_raw_mode(folder.st_mode).contains(Mode::SVTX) || [folder.st_uid, old.st_uid].contains(&us) || may() {
        return Ok(());
    }
    Err(EnvFileError::Sticky { path: path.display().to_string(), owner: old.st_uid, us })
}

/// The blocking functions of this module, off the async runtime.
pub mod aio {
    use super::*;

    /// [`super::read`]
    pub async fn read(path: PathBuf) -> Result<Option<Vec<u8>>, EnvFileError> {
        blocking(path, super::read).await
    }

    /// [`super::write_atomic`]
    pub async fn write_atomic(path: PathBuf, bytes: Vec<u8>) -> Result<(), EnvFileError> {
        blocking(path, move |path| super::write_atomic(path, &bytes)).await
    }

    /// [`super::get_file`]
    pub async fn get_file(path: PathBuf, key: String) -> Result<Option<String>, EnvFileError> {
        blocking(path, move |path| super::get_file(path, &key)).await
    }

    /// [`super::set_file`]
    pub async fn set_file(path: PathBuf, key: String, value: String) -> Result<Edited, EnvFileError> {
        blocking(path, move |path| super::set_file(path, &key, &value)).await
    }

    async fn blocking<T: Send + 'static>(
        path: PathBuf,
        work: impl FnOnce(&Path) -> Result<T, EnvFileError> + Send + 'static,
    ) -> Result<T, EnvFileError> {
        let shown = path.clone();
        match tokio::task::spawn_blocking(move || work(&path)).await {
            Ok(done) => done,
            Err(stopped) => Err(failed("finish with", &shown)(io::Error::other(stopped))),
        }
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> EnvFileError {
    let path = path.display().to_string();
    move |source| EnvFileError::Io { action: action.into(), path, source: source.into() }
}

/// Where the links end; the last name need not exist.
fn follow(path: &Path) -> Result<PathBuf, EnvFileError> {
    let mut at = path.to_owned();
    for _ in 0..LINKS {
        match fs::read_link(&at) {
            // A relative target counts from the folder of the link; an absolute one replaces it all.
            Ok(target) => at = at.parent().unwrap_or(Path::new("")).join(target),
            // No link, or nothing yet. Whatever else is wrong with it is told when it is opened.
            Err(_) => return Ok(at),
        }
    }
    Err(failed("follow", path)(Errno::LOOP.into()))
}

/// Folder and name; a name alone is in the folder where we are.
pub(super) fn split(path: &Path) -> Result<(PathBuf, OsString), EnvFileError> {
    let not_a_file = || EnvFileError::NotAFile { path: path.display().to_string() };
    let name = path.file_name().ok_or_else(not_a_file)?;
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    Ok((folder.to_owned(), name.to_owned()))
}

fn open(path: &Path) -> Result<Option<File>, EnvFileError> {
    // NONBLOCK: a pipe without a writer must not hang us.
    let opened = rustix::fs::open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty());
    let file = match opened {
        Ok(fd) => File::from(fd),
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(failed("open", path)(errno.into())),
    };
    match file.metadata().map_err(failed("inspect", path))?.is_file() {
        true => Ok(Some(file)),
        false => Err(EnvFileError::NotAFile { path: path.display().to_string() }),
    }
}

/// Removes what a crash left behind. It is litter, so failing to remove it is no failure.
fn sweep(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let ours = entry.file_name().as_encoded_bytes().starts_with(TEMPORARY.as_bytes());
        if ours && is_stale(&entry).unwrap_or(false) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn is_stale(entry: &fs::DirEntry) -> io::Result<bool> {
    let metadata = entry.metadata()?;
    let age = SystemTime::now().duration_since(metadata.modified()?).unwrap_or_default();
    Ok(metadata.is_file() && age > STALE)
}

/// A file beside the target, removed again unless it was renamed.
struct Temporary {
    file: File,
    path: PathBuf,
    renamed: bool,
}

impl Temporary {
    fn create(folder: &Path, name: &OsStr) -> Result<Self, EnvFileError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let mut unique =
            OsString::from(format!("{TEMPORARY}{}-{count}-{:08x}", std::process::id(), rand::random::<u32>()));
        unique.push(name);
        let path = folder.join(unique);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // Nobody else may read it before it has the old file's owner and mode.
        let made = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR);
        let file = File::from(made.map_err(|errno| failed("create", &path)(errno.into()))?);
        Ok(Self { file, path, renamed: false })
    }

    fn rename_to(mut self, target: &Path) -> Result<(), EnvFileError> {
        fs::rename(&self.path, target).map_err(|e| not_replaced(e, target))?;
        self.renamed = true;
        Ok(())
    }
}

pub(super) fn not_replaced(error: io::Error, target: &Path) -> EnvFileError {
    match error.kind() {
        io::ErrorKind::ResourceBusy => EnvFileError::Mounted { path: target.display().to_string() },
        _ => failed("replace", target)(error),
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.renamed {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn fill(temporary: &Temporary, bytes: &[u8]) -> io::Result<()> {
    (&temporary.file).write_all(bytes)
}

/// Gives the temporary file owner, group, extended attributes (access lists among them) and mode of
/// the old one. In this order: a change of owner drops mode bits.
fn take_over(old: &File, new: &Temporary, path: &Path) -> Result<(), EnvFileError> {
    let inspect = |file: &File| rustix::fs::fstat(file).map_err(|errno| failed("inspect", path)(errno.into()));
    let (was, is) = (inspect(old)?, inspect(&new.file)?);
    if (was.st_uid, was.st_gid) != (is.st_uid, is.st_gid) {
        let (uid, gid) = (was.st_uid, was.st_gid);
        rustix::fs::fchown(&new.file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).map_err(|errno| {
            EnvFileError::Owner { path: path.display().to_string(), uid, gid, source: errno.into() }
        })?;
    }
    copy_attributes(old, &new.file);
    rustix::fs::fchmod(&new.file, Mode::from_raw_mode(was.st_mode & 0o7777))
        .map_err(|errno| failed("set the mode of", &new.path)(errno.into()))
}

/// As far as the file system and our rights allow: no attribute decides whether Compose can read it.
fn copy_attributes(old: &File, new: &File) {
    let mut names = vec![0_u8; 64 * 1024];
    let Ok(length) = rustix::fs::flistxattr(old, names.as_mut_slice()) else { return };
    for name in names[..length].split(|b| *b == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0_u8; 64 * 1024];
        if let Ok(length) = rustix::fs::fgetxattr(old, name, value.as_mut_slice()) {
            let _ = rustix::fs::fsetxattr(new, name, &value[..length], XattrFlags::empty());
        }
    }
}

/// A new `.env` belongs to whoever owns the deployment's folder, if we may give it away.
fn adopt(folder: &Path, new: &Temporary) {
    if let Ok(stat) = rustix::fs::stat(folder) {
        let _ = rustix::fs::fchown(&new.file, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)));
    }
}
