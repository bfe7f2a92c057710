//! Hard links within one source: which names are one inode. Only inodes with several names are held, and only until
//! the last of them was seen.

use std::collections::HashMap;
use std::rc::Rc;

use super::entry::{Entry, Kind, Stat};
use super::limits::HELD;

/// Where an entry is. Places share the folders on the way to them: each costs one name, however deep it is.
#[derive(Debug, Clone)]
pub struct Place {
    folder: Option<Rc<Folder>>,
    name: Box<[u8]>,
}

#[derive(Debug)]
struct Folder {
    outer: Option<Rc<Folder>>,
    name: Box<[u8]>,
}

impl Place {
    /// Relative to the root; empty for the root itself.
    pub fn path(&self) -> Vec<u8> {
        let mut names = vec![&self.name[..]];
        let mut folder = self.folder.as_deref();
        while let Some(Folder { outer, name }) = folder {
            names.push(name);
            folder = outer.as_deref();
        }
        names.reverse();
        names.join(&b'/')
    }
}

/// One after the other, so that a deep one does not end in as deep a recursion.
impl Drop for Folder {
    fn drop(&mut self) {
        let mut outer = self.outer.take();
        while let Some(mut folder) = outer.and_then(Rc::into_inner) {
            outer = folder.outer.take();
        }
    }
}

/// Gives places in the order of the walk.
#[derive(Default)]
pub struct Places {
    /// The folder of the last place, from the outermost, with the lengths of their paths.
    folders: Vec<(usize, Rc<Folder>)>,
    /// Its path.
    path: Vec<u8>,
}

impl Places {
    /// The place of the entry at `path`.
    pub fn of(&mut self, path: &[u8]) -> Place {
        let (parent, name) = match path.iter().rposition(|b| *b == b'/') {
            Some(end) => (&path[..end], &path[end + 1..]),
            None => (&path[..0], path),
        };
        let is_outside = |length: usize, known: &[u8]| {
            parent.get(..length) != known.get(..length) || parent.get(length).is_some_and(|b| *b != b'/')
        };
        while self.folders.last().is_some_and(|(length, _)| is_outside(*length, &self.path)) {
            self.folders.pop();
        }
        let mut at = self.folders.last().map_or(0, |(length, _)| length + 1);
        while at < parent.len() {
            let end = parent[at..].iter().position(|b| *b == b'/').map_or(parent.len(), |n| at + n);
            let outer = self.folders.last().map(|(_, folder)| folder.clone());
            self.folders.push((end, Rc::new(Folder { outer, name: parent[at..end].into() })));
            at = end + 1;
        }
        self.path.clear();
        self.path.extend(parent);
        Place { folder: self.folders.last().map(|(_, folder)| folder.clone()), name: name.into() }
    }
}

/// The inodes with several names met so far.
#[derive(Default)]
pub struct Links {
    leaders: HashMap<((u32, u32), u64), Leader>,
    places: Places,
    last_group: u64,
    held: usize,
}

struct Leader {
    /// Without its path.
    entry: Entry,
    place: Place,
    stat: Stat,
    seen: u32,
    /// Its copy is the one that was there before this pass.
    kept: bool,
}

impl Leader {
    fn held(&self) -> usize {
        let xattrs: usize = self.entry.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        let extents = match &self.entry.kind {
            Kind::File { extents: Some(list), .. } => size_of_val(&list[..]),
            Kind::Symlink { target } => target.len(),
            _ => 0,
        };
        size_of::<Self>() + self.place.name.len() + xattrs + extents
    }
}

/// There are more of them than can be held.
#[derive(Debug, PartialEq, Eq)]
pub struct TooMany;

impl Links {
    /// The first name that was met of this inode, if the inode is still as it was then: what it is, and where.
    pub fn leader(&self, stat: &Stat) -> Option<(&Entry, &Place)> {
        let leader = self.leaders.get(&(stat.dev, stat.ino)).filter(|_| stat.is_linked())?;
        // Inode numbers are given again; only the same state proves the same inode.
        leader.stat.is_still(stat).then_some((&leader.entry, &leader.place))
    }

    /// May the copy that is there already stay? Not when an earlier name, new since (its folder was
    /// renamed, which the inode does not show), was given a copy of its own.
    pub fn may_keep(&self, stat: &Stat) -> bool {
        let leader = self.leaders.get(&(stat.dev, stat.ino)).filter(|_| stat.is_linked());
        leader.is_none_or(|leader| leader.kept)
    }

    /// Notes a name, and returns the group it belongs to: 0 for an inode with one name.
    pub fn note(&mut self, entry: &Entry, stat: &Stat, kept: bool) -> Result<u64, TooMany> {
        if !stat.is_linked() {
            return Ok(0);
        }
        let key = (stat.dev, stat.ino);
        if let Some(leader) = self.leaders.get_mut(&key).filter(|leader| leader.stat.is_still(stat)) {
            leader.seen += 1;
            let group = leader.entry.group;
            if leader.seen >= stat.nlink {
                self.held -= self.leaders.remove(&key).map_or(0, |leader| leader.held());
            }
            return Ok(group);
        }
        self.last_group += 1;
        let place = self.places.of(&entry.path);
        let entry = Entry { group: self.last_group, ..entry.elsewhere(Vec::new()) };
        let leader = Leader { entry, place, stat: *stat, seen: 1, kept };
        self.held += leader.held();
        let former = self.leaders.insert(key, leader);
        self.held -= former.map_or(0, |former| former.held());
        if self.held > HELD { Err(TooMany) } else { Ok(self.last_group) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_lead_to_what_they_were_made_of() {
        let paths = ["", "a", "a/b/c", "a/b/d", "a/bb", "a/b/e", "z", "z/y/x/w", "zz/y/x/w", "zz/y/x"];
        let mut places = Places::default();
        let made: Vec<Place> = paths.iter().map(|path| places.of(path.as_bytes())).collect();
        for (path, place) in paths.iter().zip(made) {
            assert_eq!(String::from_utf8(place.path()).unwrap(), *path);
        }
    }

    #[test]
    fn a_deep_place_costs_one_name() {
        let deep = vec!["folder"; 100_000].join("/");
        let mut places = Places::default();
        let all: Vec<Place> = (0..1000).map(|n| places.of(format!("{deep}/{n}").as_bytes())).collect();
        assert_eq!(all[999].path(), format!("{deep}/999").as_bytes());
        assert!(all.windows(2).all(|two| Rc::ptr_eq(two[0].folder.as_ref().unwrap(), two[1].folder.as_ref().unwrap())));
    }
}
