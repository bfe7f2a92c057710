//! How much of a tree is taken before it is refused. Whoever may write to the application's data decides how deep
//! and how wide it is, and must not decide how much memory its copy takes.

use super::error::{Error, Site};

/// What one mount may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Folders inside each other.
    pub depth: u64,
    /// Files, folders and all else.
    pub entries: u64,
}

impl Limits {
    /// A program reaches at most 2,048 folders by one path (`PATH_MAX` is 4,096 bytes), so what is deeper than
    /// twice that was made to be deep. A hundred times the largest data folder we have been shown has 20 million
    /// entries; a walk through those takes a minute.
    pub const DEFAULT: Self = Self { depth: 4096, entries: 20_000_000 };

    pub(super) fn check(&self, depth: usize, entries: u64, site: Site<'_>) -> Result<(), Error> {
        let (what, most, setting) = if depth as u64 > self.depth {
            ("folders inside each other", self.depth, "PROCESSGIT_UPDATER_SNAPSHOT_MAX_DEPTH")
        } else if entries > self.entries {
            ("entries", self.entries, "PROCESSGIT_UPDATER_SNAPSHOT_MAX_ENTRIES")
        } else {
            return Ok(());
        };
        Err(Error::Refused(format!(
            "{} has more than {most} {what} (at {}): remove what does not belong there, or allow more with {setting}",
            site.root,
            site.text()
        )))
    }
}

/// Names of one folder after the other are held while the walk is in them, and inodes with several names until
/// all of them were met. Each of the two may take this much, bytes: the names of three million files in one
/// folder, a million files with two names. A helper's memory limit has room for both.
pub const HELD: usize = 256 << 20;

/// What is said when it is not enough.
pub(super) fn too_much(what: &str, site: Site<'_>) -> Error {
    Error::Refused(format!(
        "{} has so many {what} (at {}) that they cannot be held in memory ({} MiB): remove what does not belong there, or leave the mount out with PROCESSGIT_UPDATER_SNAPSHOT_EXCLUDE",
        site.root,
        site.text(),
        HELD >> 20
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused() {
        let limits = Limits { depth: 3, entries: 10 };
        let site = Site { root: "/data", path: b"a/b" };
        for (depth, entries, setting) in [(3, 10, None), (4, 1, Some("MAX_DEPTH")), (1, 11, Some("MAX_ENTRIES"))] {
            let refused = limits.check(depth, entries, site).err().map(|e| e.to_string());
            assert_eq!(refused.is_some(), setting.is_some(), "{depth} {entries}: {refused:?}");
            assert!(refused.unwrap_or_default().contains(setting.unwrap_or_default()), "{depth} {entries}");
        }
    }
}
