//! The manifest: every entry of one source, in the order of the walk, streamed both ways so that a
//! million entries need no memory to speak of.
//!
//! A file is the magic `PGUMANI1`, records, an empty record, and a trailer. A record is its length
//! (u32, little-endian) and that many bytes: the kind (1 byte), how many bytes of the path are those of
//! the record before, the rest of the path, and the attributes in the order of [`put_entry`]. Numbers
//! are LEB128, signed ones zigzag; byte strings carry their length. The trailer is the number of
//! entries (u64), the settled-before time (i64 seconds, u32 nanoseconds), all little-endian, and the
//! BLAKE3 hash of everything before the hash.

use std::cmp::Ordering;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::entry::{Entry, Kind, Time};
use super::error::{Context, Error};

const MAGIC: &[u8; 8] = b"PGUMANI1";
const HASH: usize = 32;
const TRAILER: usize = 8 + 8 + 4 + HASH;
/// A record holds a path, xattrs (at most 64 KiB each) and extents; more than this is damage.
const RECORD_MAX: usize = 256 << 20;

/// The order of the walk: folders before what is in them, siblings by their bytes.
pub fn order(a: &[u8], b: &[u8]) -> Ordering {
    // A name holds neither `/` nor NUL, so a separator that sorts below everything compares component by component.
    let rank = |byte: u8| if byte == b'/' { 0 } else { byte };
    let same = common(a, b);
    match (a.get(same), b.get(same)) {
        (Some(x), Some(y)) => rank(*x).cmp(&rank(*y)),
        _ => a.len().cmp(&b.len()),
    }
}

/// How many bytes at the beginning are the same. Paths may be long, and two that follow each other differ at their
/// ends, so most of it is compared in blocks.
fn common(a: &[u8], b: &[u8]) -> usize {
    const BLOCK: usize = 256;
    let blocks = a.chunks(BLOCK).zip(b.chunks(BLOCK)).take_while(|(x, y)| x == y && x.len() == BLOCK).count() * BLOCK;
    blocks + a[blocks..].iter().zip(&b[blocks..]).take_while(|(x, y)| x == y).count()
}

/// Is `path` below the folder `folder`? The empty folder is the root; nothing is below itself.
pub fn is_below(path: &[u8], folder: &[u8]) -> bool {
    match path.strip_prefix(folder) {
        Some(rest) if folder.is_empty() => !rest.is_empty(),
        Some(rest) => rest.first() == Some(&b'/'),
        None => false,
    }
}

/// Writes a new manifest; it is none until [`Writer::finish`].
pub struct Writer {
    path: PathBuf,
    file: BufWriter<File>,
    hash: blake3::Hasher,
    last: Vec<u8>,
    record: Vec<u8>,
    entries: u64,
}

impl Writer {
    /// Creates the file, which must not exist.
    pub fn create(path: &Path) -> Result<Self, Error> {
        let file = File::create_new(path).at("create the manifest", path)?;
        let mut writer = Self {
            path: path.to_owned(),
            file: BufWriter::with_capacity(128 << 10, file),
            hash: blake3::Hasher::new(),
            last: Vec::new(),
            record: Vec::new(),
            entries: 0,
        };
        writer.write(MAGIC)?;
        Ok(writer)
    }

    /// Appends an entry, which must follow the one before in [`order`].
    pub fn push(&mut self, entry: &Entry) -> Result<(), Error> {
        let mut record = std::mem::take(&mut self.record);
        record.clear();
        record.extend([0; 4]);
        put_entry(&mut record, &self.last, entry);
        let length = u32::try_from(record.len() - 4).unwrap_or(u32::MAX);
        record[..4].copy_from_slice(&length.to_le_bytes());
        self.write(&record)?;
        self.record = record;
        self.last.clone_from(&entry.path);
        self.entries += 1;
        Ok(())
    }

    /// Writes the trailer and flushes to disk.
    pub fn finish(mut self, settled_before: Time) -> Result<u64, Error> {
        self.write(&0u32.to_le_bytes())?;
        self.write(&self.entries.to_le_bytes())?;
        self.write(&settled_before.secs.to_le_bytes())?;
        self.write(&settled_before.nanos.to_le_bytes())?;
        let hash = *self.hash.finalize().as_bytes();
        let Self { path, mut file, entries, .. } = self;
        file.write_all(&hash).and_then(|()| file.flush()).at("write", &path)?;
        Ok(entries)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.hash.update(bytes);
        self.file.write_all(bytes).at("write", &self.path)
    }
}

/// Reads a manifest, one entry ahead.
pub struct Reader {
    path: PathBuf,
    file: BufReader<File>,
    record: Vec<u8>,
    last: Vec<u8>,
    ahead: Option<Entry>,
    ended: bool,
    /// How many entries it has.
    pub entries: u64,
    /// Records whose ctime is not before this moment are not to be trusted.
    pub settled_before: Time,
}

impl Reader {
    /// Opens a manifest after its hash was checked: nothing acts on a damaged one.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let mut file = File::open(path).at("open the manifest", path)?;
        let (entries, settled_before) = check(&mut file, path)?;
        file.seek(SeekFrom::Start(MAGIC.len() as u64)).at("read", path)?;
        let mut reader = Self {
            path: path.to_owned(),
            file: BufReader::with_capacity(128 << 10, file),
            record: Vec::new(),
            last: Vec::new(),
            ahead: None,
            ended: false,
            entries,
            settled_before,
        };
        reader.ahead = reader.read()?;
        Ok(reader)
    }

    /// The entry that [`Reader::take`] gives next.
    pub fn peek(&self) -> Option<&Entry> {
        self.ahead.as_ref()
    }

    /// The next entry.
    pub fn take(&mut self) -> Result<Option<Entry>, Error> {
        if self.ahead.is_none() {
            return Ok(None);
        }
        let following = self.read()?;
        Ok(std::mem::replace(&mut self.ahead, following))
    }

    /// The next entry, if it comes before `path`.
    pub fn take_before(&mut self, path: &[u8]) -> Result<Option<Entry>, Error> {
        match self.peek() {
            Some(entry) if order(&entry.path, path).is_lt() => self.take(),
            _ => Ok(None),
        }
    }

    /// The next entry, if it is below `folder`.
    pub fn take_below(&mut self, folder: &[u8]) -> Result<Option<Entry>, Error> {
        match self.peek() {
            Some(entry) if is_below(&entry.path, folder) => self.take(),
            _ => Ok(None),
        }
    }

    /// The next entry, if it is at `path`.
    pub fn take_at(&mut self, path: &[u8]) -> Result<Option<Entry>, Error> {
        match self.peek() {
            Some(entry) if entry.path == path => self.take(),
            _ => Ok(None),
        }
    }

    fn read(&mut self) -> Result<Option<Entry>, Error> {
        if self.ended {
            return Ok(None);
        }
        let mut length = [0; 4];
        self.file.read_exact(&mut length).at("read", &self.path)?;
        let length = u32::from_le_bytes(length) as usize;
        if length == 0 {
            self.ended = true;
            return Ok(None);
        }
        if length > RECORD_MAX {
            return Err(damaged(&self.path, "a record of impossible length"));
        }
        self.record.resize(length, 0);
        self.file.read_exact(&mut self.record).at("read", &self.path)?;
        let entry = Decoder { rest: &self.record }.entry(&self.last);
        let entry = entry.ok_or_else(|| damaged(&self.path, "a record cannot be understood"))?;
        self.last.clone_from(&entry.path);
        Ok(Some(entry))
    }
}

/// Only the settled-before time, without reading the entries.
pub fn settled_before(path: &Path) -> Result<Time, Error> {
    let mut file = File::open(path).at("open the manifest", path)?;
    let mut trailer = [0; TRAILER];
    file.seek(SeekFrom::End(-(TRAILER as i64))).at("read", path)?;
    file.read_exact(&mut trailer).at("read", path)?;
    Ok(trailer_fields(&trailer).1)
}

fn check(file: &mut File, path: &Path) -> Result<(u64, Time), Error> {
    let size = file.metadata().at("read", path)?.len();
    let Some(hashed) = size.checked_sub(HASH as u64).filter(|_| size >= (MAGIC.len() + TRAILER) as u64) else {
        return Err(damaged(path, "too short"));
    };
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 128 << 10];
    let mut body = file.take(hashed);
    let mut start = true;
    loop {
        let n = body.read(&mut buffer).at("read", path)?;
        if n == 0 {
            break;
        }
        if std::mem::take(&mut start) && !buffer[..n].starts_with(MAGIC) {
            return Err(damaged(path, "not a manifest of this version"));
        }
        hasher.update(&buffer[..n]);
    }
    let mut trailer = [0; TRAILER];
    file.seek(SeekFrom::End(-(TRAILER as i64))).at("read", path)?;
    file.read_exact(&mut trailer).at("read", path)?;
    if hasher.finalize().as_bytes()[..] != trailer[TRAILER - HASH..] {
        return Err(damaged(path, "its hash does not match its content"));
    }
    Ok(trailer_fields(&trailer))
}

fn trailer_fields(trailer: &[u8; TRAILER]) -> (u64, Time) {
    let mut entries = [0; 8];
    let mut secs = [0; 8];
    let mut nanos = [0; 4];
    entries.copy_from_slice(&trailer[..8]);
    secs.copy_from_slice(&trailer[8..16]);
    nanos.copy_from_slice(&trailer[16..20]);
    let time = Time { secs: i64::from_le_bytes(secs), nanos: u32::from_le_bytes(nanos) };
    (u64::from_le_bytes(entries), time)
}

fn damaged(path: &Path, why: &str) -> Error {
    Error::Damaged { path: path.display().to_string(), why: why.to_owned() }
}

fn put_entry(to: &mut Vec<u8>, last: &[u8], entry: &Entry) {
    let shared = common(&entry.path, last);
    to.push(tag(&entry.kind));
    put(to, shared as u64);
    put_bytes(to, &entry.path[shared..]);
    put(to, entry.mode.into());
    put(to, entry.uid.into());
    put(to, entry.gid.into());
    put_time(to, entry.mtime);
    put(to, entry.size);
    put(to, entry.ino);
    put_time(to, entry.ctime);
    put(to, entry.group);
    put(to, entry.xattrs.len() as u64);
    for (name, value) in &entry.xattrs {
        put_bytes(to, name);
        put_bytes(to, value);
    }
    match &entry.kind {
        Kind::File { hash, extents } => {
            to.extend(hash);
            put(to, extents.as_ref().map_or(0, |list| list.len() as u64 + 1));
            for (offset, length) in extents.iter().flatten() {
                put(to, *offset);
                put(to, *length);
            }
        }
        Kind::Symlink { target } => put_bytes(to, target),
        Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
            put(to, (*major).into());
            put(to, (*minor).into());
        }
        Kind::Mount { folder } => to.push(u8::from(*folder)),
        Kind::Folder | Kind::Fifo | Kind::Socket => {}
    }
}

fn tag(kind: &Kind) -> u8 {
    match kind {
        Kind::Folder => b'd',
        Kind::File { .. } => b'f',
        Kind::Symlink { .. } => b'l',
        Kind::Fifo => b'p',
        Kind::Socket => b's',
        Kind::CharDevice { .. } => b'c',
        Kind::BlockDevice { .. } => b'b',
        Kind::Mount { .. } => b'm',
    }
}

fn put(to: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        to.push(number as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

fn put_bytes(to: &mut Vec<u8>, bytes: &[u8]) {
    put(to, bytes.len() as u64);
    to.extend(bytes);
}

fn put_time(to: &mut Vec<u8>, time: Time) {
    put(to, ((time.secs << 1) ^ (time.secs >> 63)).cast_unsigned());
    put(to, time.nanos.into());
}

/// Takes a record apart; `None` when it ends too early or makes no sense.
struct Decoder<'a> {
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    fn entry(mut self, last: &[u8]) -> Option<Entry> {
        let tag = self.byte()?;
        let shared = usize::try_from(self.number()?).ok()?;
        let mut path = last.get(..shared)?.to_vec();
        path.extend(self.bytes()?);
        let (mode, uid, gid) = (self.small()?, self.small()?, self.small()?);
        let (mtime, size, ino) = (self.time()?, self.number()?, self.number()?);
        let (ctime, group) = (self.time()?, self.number()?);
        let xattrs = self.xattrs()?;
        let kind = self.kind(tag)?;
        self.rest.is_empty().then_some(Entry { path, kind, mode, uid, gid, mtime, size, xattrs, group, ino, ctime })
    }

    fn kind(&mut self, tag: u8) -> Option<Kind> {
        Some(match tag {
            b'd' => Kind::Folder,
            b'f' => Kind::File { hash: self.take(32)?.try_into().ok()?, extents: self.extents()? },
            b'l' => Kind::Symlink { target: self.bytes()?.to_vec() },
            b'p' => Kind::Fifo,
            b's' => Kind::Socket,
            b'c' => Kind::CharDevice { major: self.small()?, minor: self.small()? },
            b'b' => Kind::BlockDevice { major: self.small()?, minor: self.small()? },
            b'm' => Kind::Mount { folder: self.byte()? != 0 },
            _ => return None,
        })
    }

    fn xattrs(&mut self) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
        let count = self.number()?;
        let mut list = Vec::new();
        for _ in 0..count {
            list.push((self.bytes()?.to_vec(), self.bytes()?.to_vec()));
        }
        Some(list)
    }

    fn extents(&mut self) -> Option<Option<Vec<(u64, u64)>>> {
        let Some(count) = self.number()?.checked_sub(1) else { return Some(None) };
        let mut list = Vec::new();
        for _ in 0..count {
            list.push((self.number()?, self.number()?));
        }
        Some(Some(list))
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        self.take(length)
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn small(&mut self) -> Option<u32> {
        u32::try_from(self.number()?).ok()
    }

    fn time(&mut self) -> Option<Time> {
        let zigzag = self.number()?;
        let secs = (zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed();
        Some(Time { secs, nanos: self.small()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kinds() -> impl Strategy<Value = Kind> {
        prop_oneof![
            Just(Kind::Folder),
            Just(Kind::Fifo),
            Just(Kind::Socket),
            any::<bool>().prop_map(|folder| Kind::Mount { folder }),
            any::<Vec<u8>>().prop_map(|target| Kind::Symlink { target }),
            any::<(u32, u32)>().prop_map(|(major, minor)| Kind::CharDevice { major, minor }),
            any::<(u32, u32)>().prop_map(|(major, minor)| Kind::BlockDevice { major, minor }),
            any::<([u8; 32], Option<Vec<(u64, u64)>>)>().prop_map(|(hash, extents)| Kind::File { hash, extents }),
        ]
    }

    fn entries() -> impl Strategy<Value = Entry> {
        let numbers = any::<(u32, u32, u32, u64, u64, u64)>();
        let times = any::<(i64, u32, i64, u32)>();
        let xattrs = proptest::collection::vec(any::<(Vec<u8>, Vec<u8>)>(), 0..3);
        (any::<Vec<u8>>(), kinds(), numbers, times, xattrs).prop_map(
            |(path, kind, (mode, uid, gid, size, group, ino), (ms, mn, cs, cn), xattrs)| Entry {
                path,
                kind,
                mode,
                uid,
                gid,
                mtime: Time { secs: ms, nanos: mn },
                size,
                xattrs,
                group,
                ino,
                ctime: Time { secs: cs, nanos: cn },
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_is_written_is_read(list in proptest::collection::vec(entries(), 0..20), secs: i64, nanos: u32) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("m");
            let mut writer = Writer::create(&path).unwrap();
            for entry in &list {
                writer.push(entry).unwrap();
            }
            writer.finish(Time { secs, nanos }).unwrap();
            let mut reader = Reader::open(&path).unwrap();
            prop_assert_eq!(reader.settled_before, Time { secs, nanos });
            prop_assert_eq!(settled_before(&path).unwrap(), Time { secs, nanos });
            prop_assert_eq!(reader.entries, list.len() as u64);
            for entry in &list {
                let read = reader.take().unwrap();
                prop_assert_eq!(read.as_ref(), Some(entry));
            }
            prop_assert_eq!(reader.take().unwrap(), None);
        }
    }

    #[test]
    fn damage_anywhere_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m");
        let mut writer = Writer::create(&path).unwrap();
        writer.push(&Entry::mount(b"a", true)).unwrap();
        writer.push(&Entry::mount(b"a/b", false)).unwrap();
        writer.finish(Time::default()).unwrap();
        let good = std::fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&path, &bad).unwrap();
            assert!(matches!(Reader::open(&path), Err(Error::Damaged { .. })), "byte {at} flipped");
            std::fs::write(&path, &good[..at]).unwrap();
            assert!(matches!(Reader::open(&path), Err(Error::Damaged { .. })), "cut at {at}");
        }
    }

    #[test]
    fn order_is_that_of_the_walk() {
        let sorted = ["", "a", "a/b", "a/b/c", "a/z", "a\x01", "a b", "a.b", "a.b/c", "ab", "b"];
        for (i, a) in sorted.iter().enumerate() {
            for (j, b) in sorted.iter().enumerate() {
                assert_eq!(order(a.as_bytes(), b.as_bytes()), i.cmp(&j), "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn below() {
        for (path, folder, expected) in
            [("a", "", true), ("", "", false), ("a/b", "a", true), ("a", "a", false), ("ab", "a", false)]
        {
            assert_eq!(is_below(path.as_bytes(), folder.as_bytes()), expected, "{path} {folder}");
        }
    }
}
