//! What can go wrong. Every error names the entry, what was being done to it and what helps.

use std::io;

use rustix::io::Errno;

use crate::update::ports::{DataError, Obstacle};

/// Why a pass, a restore, a check or an export ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused something. Nothing is skipped, so the whole action ended.
    #[error("cannot {doing} {path}: {source}{}", remedy(.source))]
    Io { doing: &'static str, path: String, source: io::Error },
    /// Strict passes demand that nobody writes.
    #[error(
        "{path} changed while it was being copied, although nothing may write now: find and stop the program that writes there"
    )]
    Changed { path: String },
    /// The root of a source is not the one that was noted when the job was planned.
    #[error(
        "{what}, is not what it was when this was planned ({seen}): somebody moved or replaced it, or mounted something there; put it back as it was"
    )]
    OtherRoot { what: String, seen: String },
    /// What is at a source is not what the container sees there.
    #[error("{0}")]
    SeenOtherwise(String),
    /// [`Progress`](super::Progress) said stop.
    #[error("interrupted at {path}: run it again to finish, or discard it")]
    Interrupted { path: String },
    /// A file of the repository is not what was written.
    #[error("{path} is damaged ({why}): use another generation")]
    Damaged { path: String, why: String },
    /// What is on disk is not what the manifest says.
    #[error("{root} is not what the manifest says: {}", list(.differences, *.count))]
    Differs { root: String, count: u64, differences: Vec<Difference> },
    /// No snapshot can be taken, for these reasons.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Preflight(Vec<Obstacle>),
    /// There is no such snapshot; these there are.
    #[error("there is no snapshot {id:?}; there are: {}", .known.join(", "))]
    NoSuch { id: String, known: Vec<String> },
    /// The request cannot be carried out; the text says why and what would be accepted.
    #[error("{0}")]
    Refused(String),
    /// Another process works in the repository.
    #[error("the snapshot repository {path} is in use by another process: wait for it to end")]
    Busy { path: String },
}

/// With its values, as the domain knows it.
impl From<Error> for DataError {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::Io { doing, path, source } => {
                let remedy = remedy(&source).to_owned();
                Self::Io { doing: doing.to_owned(), path, cause: source.into(), remedy }
            }
            Error::OtherRoot { .. } | Error::SeenOtherwise(_) => Self::Moved(text),
            Error::Changed { .. } => Self::Changed(text),
            Error::Interrupted { .. } => Self::Interrupted(text),
            Error::Damaged { .. } => Self::Damaged(text),
            Error::Differs { .. } => Self::Differs(text),
            Error::Preflight(obstacles) => Self::Preflight(obstacles),
            Error::NoSuch { id, known } => Self::NoSuchSnapshot { id, known },
            Error::Refused(text) => Self::Refused(text),
            Error::Busy { .. } => Self::Busy(text),
        }
    }
}

/// One attribute of one entry that is not as recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Relative to the source's root; bytes that are no UTF-8 are replaced.
    pub path: String,
    /// What differs, for example `mode 600, recorded 644`.
    pub what: String,
}

impl Error {
    /// The disk (or the quota) is full: pruning may help, nothing was lost.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Error::Io { source, .. } if is_full(source))
    }

    /// [`Progress`](super::Progress) ended it.
    pub fn is_interrupted(&self) -> bool {
        matches!(self, Error::Interrupted { .. })
    }
}

fn is_full(error: &io::Error) -> bool {
    [Errno::NOSPC, Errno::DQUOT].map(Errno::raw_os_error).map(Some).contains(&error.raw_os_error())
}

fn remedy(error: &io::Error) -> &'static str {
    if is_full(error) {
        return "; free room there or prune snapshots";
    }
    match Errno::from_io_error(error) {
        Some(Errno::ACCESS | Errno::PERM) => "; run with the rights of root, and clear immutable flags (lsattr)",
        Some(Errno::NOTSUP) => "; the file system cannot hold this attribute, choose another one",
        Some(Errno::MFILE | Errno::NFILE) => "; raise the limit of open files (ulimit -n)",
        Some(Errno::XDEV | Errno::BUSY) => "; something is mounted there now, unmount it",
        Some(Errno::IO) => "; check the disk",
        _ => "",
    }
}

fn list(differences: &[Difference], count: u64) -> String {
    let shown: Vec<String> = differences.iter().map(|d| format!("{}: {}", d.path, d.what)).collect();
    let more = count.saturating_sub(shown.len() as u64);
    if more == 0 { shown.join("; ") } else { format!("{}; and {more} more", shown.join("; ")) }
}

/// Where something happened: the root of the tree and the path below it. Text is made only for errors.
#[derive(Clone, Copy)]
pub(super) struct Site<'a> {
    pub root: &'a str,
    pub path: &'a [u8],
}

impl Site<'_> {
    pub fn text(self) -> String {
        if self.path.is_empty() {
            return self.root.to_owned();
        }
        format!("{}/{}", self.root, shown(self.path))
    }
}

/// A path for people; of one that is longer than anybody reads, its two ends.
pub(super) fn shown(path: &[u8]) -> String {
    const END: usize = 500;
    match (path.get(..END), path.len().checked_sub(END).and_then(|from| path.get(from..))) {
        (Some(first), Some(last)) if path.len() > 2 * END => {
            let [first, last] = [first, last].map(String::from_utf8_lossy);
            format!("{first}…{last} ({} bytes)", path.len())
        }
        _ => String::from_utf8_lossy(path).into_owned(),
    }
}

/// Says what was being done, and to what.
pub(super) trait Context<T> {
    fn context(self, doing: &'static str, site: Site<'_>) -> Result<T, Error>;
    fn at(self, doing: &'static str, path: &std::path::Path) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn context(self, doing: &'static str, site: Site<'_>) -> Result<T, Error> {
        self.map_err(|e| Error::Io { doing, path: site.text(), source: e.into() })
    }

    fn at(self, doing: &'static str, path: &std::path::Path) -> Result<T, Error> {
        self.map_err(|e| Error::Io { doing, path: path.display().to_string(), source: e.into() })
    }
}

#[cfg(test)]
mod tests;
