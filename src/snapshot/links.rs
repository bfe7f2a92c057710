//! Hard links within one source: which names are one inode. Only inodes with several names are held,
//! and only until the last of them was seen.

use std::collections::HashMap;

use super::entry::{Entry, Stat};

/// The inodes with several names met so far.
#[derive(Default)]
pub struct Links {
    leaders: HashMap<((u32, u32), u64), Leader>,
    last_group: u64,
}

struct Leader {
    entry: Entry,
    stat: Stat,
    seen: u32,
    /// Its copy is the one that was there before this pass.
    kept: bool,
}

impl Links {
    /// The first name that was met of this inode, if the inode is still as it was then.
    pub fn leader(&self, stat: &Stat) -> Option<&Entry> {
        let leader = self.leaders.get(&(stat.dev, stat.ino)).filter(|_| stat.is_linked())?;
        // Inode numbers are given again; only the same state proves the same inode.
        leader.stat.is_still(stat).then_some(&leader.entry)
    }

    /// May the copy that is there already stay? Not when an earlier name, new since (its folder was
    /// renamed, which the inode does not show), was given a copy of its own.
    pub fn may_keep(&self, stat: &Stat) -> bool {
        let leader = self.leaders.get(&(stat.dev, stat.ino)).filter(|_| stat.is_linked());
        leader.is_none_or(|leader| leader.kept)
    }

    /// Notes a name, and returns the group it belongs to: 0 for an inode with one name.
    pub fn note(&mut self, entry: &Entry, stat: &Stat, kept: bool) -> u64 {
        if !stat.is_linked() {
            return 0;
        }
        let key = (stat.dev, stat.ino);
        if let Some(leader) = self.leaders.get_mut(&key).filter(|leader| leader.stat.is_still(stat)) {
            leader.seen += 1;
            let group = leader.entry.group;
            if leader.seen >= stat.nlink {
                self.leaders.remove(&key);
            }
            return group;
        }
        self.last_group += 1;
        let entry = Entry { group: self.last_group, ..entry.clone() };
        self.leaders.insert(key, Leader { entry, stat: *stat, seen: 1, kept });
        self.last_group
    }
}
