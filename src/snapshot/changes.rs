//! How far a source has moved from what was recorded, without reading content.

use super::content::Copier;
use super::error::Error;
use super::inspect;
use super::manifest::Reader;
use super::progress::Meter;
use super::walk::{Step, Walk};

/// What is not as recorded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Changes {
    pub added: u64,
    pub changed: u64,
    pub removed: u64,
    /// Bytes of the files that were added or changed.
    pub bytes: u64,
}

impl Changes {
    /// Nothing differs.
    pub fn is_none(&self) -> bool {
        (self.added, self.changed, self.removed) == (0, 0, 0)
    }
}

/// Counts the differences between a source, by a tolerant walk, and its manifest into `changes`. With `first_only` it ends
/// at the first one.
pub(super) fn count(
    mut walk: Walk,
    mut manifest: Reader,
    first_only: bool,
    changes: &mut Changes,
    meter: &mut Meter<'_>,
) -> Result<(), Error> {
    let mut copier = Copier::default();
    while !first_only || changes.is_none() {
        let stat = match walk.step()? {
            Step::Entry(stat) => stat,
            Step::Leave => continue,
            Step::End => break,
        };
        meter.entry(walk.site())?;
        while let Some(gone) = manifest.take_before(walk.path())? {
            changes.removed += u64::from(!gone.is_mount());
        }
        let recorded = manifest.take_at(walk.path())?;
        if walk.is_mount(&stat) || recorded.as_ref().is_some_and(|r| r.is_mount()) {
            continue;
        }
        if stat.is_folder() && !walk.descend()? {
            continue;
        }
        let settled_before = manifest.settled_before;
        match recorded {
            None => changes.added += 1,
            Some(recorded) if inspect::is_same(&mut walk, &stat, &recorded, settled_before, &mut copier, meter)? => {
                continue;
            }
            Some(_) => changes.changed += 1,
        }
        changes.bytes += stat.size;
    }
    while let Some(gone) = manifest.take()?.filter(|_| !first_only || changes.is_none()) {
        changes.removed += u64::from(!gone.is_mount());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Changes;

    #[test]
    fn any_difference_is_one() {
        let none = Changes::default();
        assert!(none.is_none());
        for some in [Changes { added: 1, ..none }, Changes { changed: 1, ..none }, Changes { removed: 1, ..none }] {
            assert!(!some.is_none(), "{some:?}");
        }
    }
}
