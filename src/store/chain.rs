//! Proof that the journal holds all that was written to it, and nothing else.
//!
//! Every entry of the trail has a link: a hash over the link before it, the entry, and the checksum of the job as
//! it was saved with the entry. Whoever knows the last link can tell whether anything was changed, removed or cut
//! off before it. The last link is kept in a second place, [`HeadFile`], because SQLite takes a write-ahead log
//! for complete up to where it is damaged. This is against faults of disks and file systems, not against root.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::schema;

pub type Link = [u8; 32];

/// The last entry that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub seq: i64,
    pub link: Link,
}

/// What an entry of the trail says.
pub struct Entry<'a> {
    pub job: &'a str,
    pub at: &'a str,
    pub state: &'a str,
    pub what: &'a str,
    pub effect: Option<&'a str>,
    pub text: Option<&'a str>,
    /// Of the job as it is saved with the entry.
    pub sum: &'a [u8],
}

impl Entry<'_> {
    fn link(&self, before: Option<&[u8]>, seq: i64) -> Link {
        let mut hasher = blake3::Hasher::new();
        let mut add = |part: Option<&[u8]>| {
            // The length before each part, so that no two entries are encoded alike; none differs from an empty one.
            let length = part.map_or(u64::MAX, |part| part.len() as u64);
            hasher.update(&length.to_be_bytes()).update(part.unwrap_or_default());
        };
        add(before);
        add(Some(&seq.to_be_bytes()));
        for part in [self.job, self.at, self.state, self.what] {
            add(Some(part.as_bytes()));
        }
        add(self.effect.map(str::as_bytes));
        add(self.text.map(str::as_bytes));
        add(Some(self.sum));
        *hasher.finalize().as_bytes()
    }
}

/// The last entry of the trail and its link; the link of an entry without one is empty.
fn last(db: &Connection) -> rusqlite::Result<Option<(i64, Option<Vec<u8>>)>> {
    let last = "SELECT seq, link FROM trail ORDER BY seq DESC LIMIT 1";
    db.query_row(last, [], |row| Ok((row.get(0)?, row.get(1)?))).optional()
}

/// The journal's end; `None` where its last entry has no link.
pub fn head(db: &Connection) -> rusqlite::Result<Option<Head>> {
    Ok(last(db)?.and_then(|(seq, link)| Some(Head { seq, link: link?.try_into().ok()? })))
}

/// Appends an entry.
pub fn append(db: &Connection, entry: &Entry<'_>) -> rusqlite::Result<Head> {
    let (seq, before) = last(db)?.map_or((1, None), |(seq, link)| (seq + 1, link));
    let link = entry.link(before.as_deref(), seq);
    db.execute(
        "INSERT INTO trail (seq, job, at, state, what, effect, text, sum, link)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![seq, entry.job, entry.at, entry.state, entry.what, entry.effect, entry.text, entry.sum, link],
    )?;
    Ok(Head { seq, link })
}

/// Why the journal ends otherwise than `head` says; `None` when it holds that entry, perhaps with others after it.
pub fn fault_at(db: &Connection, head: &Head) -> rusqlite::Result<Option<String>> {
    let link = "SELECT link FROM trail WHERE seq = ?1";
    let found: Option<Option<Vec<u8>>> = db.query_row(link, [head.seq], |row| row.get(0)).optional()?;
    Ok(match found {
        None => {
            let last = last(db)?.map_or(0, |(seq, _)| seq);
            Some(format!("it ends with entry {last}, and entry {} had been written", head.seq))
        }
        Some(link) if link.as_deref() != Some(&head.link) => {
            Some(format!("entry {} is another one than had been written", head.seq))
        }
        Some(_) => None,
    })
}

/// Reads the whole trail and every job. What is not as it was written, if anything.
pub fn fault(db: &Connection) -> rusqlite::Result<Option<String>> {
    // The last checksum of each job, both shortened: 100,000 jobs are a few mebibytes.
    let mut sums = HashMap::<u64, u64>::new();
    let mut trail = db.prepare("SELECT seq, job, at, state, what, effect, text, sum, link FROM trail ORDER BY seq")?;
    let mut rows = trail.query([])?;
    let mut before: Option<Vec<u8>> = None;
    while let Some(row) = rows.next()? {
        let (seq, link): (i64, Option<Vec<u8>>) = (row.get(0)?, row.get(8)?);
        match (link, &before) {
            // Written by a version without links.
            (None, None) => {}
            (Some(link), _) if link == entry_of(row)?.link(before.as_deref(), seq) => {
                let entry = entry_of(row)?;
                sums.insert(short(blake3::hash(entry.job.as_bytes()).as_bytes()), short(entry.sum));
                before = Some(link);
            }
            _ => return Ok(Some(format!("entry {seq} is not what was written, or one before it is missing"))),
        }
    }
    let mut jobs = db.prepare("SELECT id, job, record FROM jobs")?;
    let mut rows = jobs.query([])?;
    while let Some(row) = rows.next()? {
        let id = row.get_ref(0)?.as_str()?;
        let (job, record) = (row.get_ref(1)?.as_str()?, row.get_ref(2)?.as_str_or_null()?);
        let known = sums.remove(&short(blake3::hash(id.as_bytes()).as_bytes()));
        if known.is_some_and(|sum| sum != short(&schema::sum(job, record))) {
            return Ok(Some(format!("job {id} is not what was written")));
        }
    }
    Ok((!sums.is_empty()).then(|| format!("{} of the jobs that were written are missing", sums.len())))
}

fn entry_of<'a>(row: &'a Row<'_>) -> rusqlite::Result<Entry<'a>> {
    Ok(Entry {
        job: row.get_ref(1)?.as_str()?,
        at: row.get_ref(2)?.as_str()?,
        state: row.get_ref(3)?.as_str()?,
        what: row.get_ref(4)?.as_str()?,
        effect: row.get_ref(5)?.as_str_or_null()?,
        text: row.get_ref(6)?.as_str_or_null()?,
        sum: row.get_ref(7)?.as_blob()?,
    })
}

fn short(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).fold(0, |all, byte| all << 8 | u64::from(*byte))
}

const NAME: &str = "journal.head";
/// A power cut spoils at most the slot that is being written; the other one has the entry before.
const SLOTS: u64 = 2;
const SLOT: usize = 512;
/// Sequence number, link, checksum of both.
const USED: usize = 8 + 32 + 32;

/// The last entry, beside the journal: written in place after each save, so that it needs no room.
pub struct HeadFile {
    file: File,
    next: u64,
}

impl HeadFile {
    /// What the file says; `None` when there is none, or when it cannot be understood.
    pub fn read(folder: &Path) -> Option<Head> {
        let bytes = fs::read(folder.join(NAME)).ok()?;
        bytes.chunks(SLOT).filter_map(parse).max_by_key(|head| head.seq)
    }

    /// A new file with this entry; durable when it returns.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn begin(folder: &Path, head: Option<Head>) -> io::Result<Self> {
        let unfinished = folder.join(format!("{NAME}.new"));
        let _ = fs::remove_file(&unfinished);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
        file.write_all_at(&[0; SLOT * SLOTS as usize], 0)?;
        let mut made = Self { file, next: 0 };
        made.write(&head.unwrap_or(Head { seq: 0, link: [0; 32] }))?;
        made.file.sync_all()?;
        fs::rename(&unfinished, folder.join(NAME))?;
        File::open(folder)?.sync_all()?;
        Ok(made)
    }

    /// Durable when it returns.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&mut self, head: &Head) -> io::Result<()> {
        let mut slot = [0; SLOT];
        slot[..8].copy_from_slice(&head.seq.to_be_bytes());
        slot[8..40].copy_from_slice(&head.link);
        let sum = *blake3::hash(&slot[..40]).as_bytes();
        slot[40..USED].copy_from_slice(&sum);
        self.file.write_all_at(&slot, self.next * SLOT as u64)?;
        self.next = (self.next + 1) % SLOTS;
        self.file.sync_data()
    }
}

fn parse(slot: &[u8]) -> Option<Head> {
    let (seq, link, sum) = (slot.get(..8)?, slot.get(8..40)?, slot.get(40..USED)?);
    if blake3::hash(slot.get(..40)?).as_bytes() != sum {
        return None;
    }
    Some(Head { seq: i64::from_be_bytes(seq.try_into().ok()?), link: link.try_into().ok()? })
}

/// The files that belong to the journal beside the database.
pub fn companions() -> [&'static str; 2] {
    [NAME, super::known::NAME]
}

/// Writes a small file as a whole; durable when it returns.
///
/// # Errors
/// It cannot be written.
pub fn write_whole(file: &PathBuf, bytes: &[u8]) -> io::Result<()> {
    let unfinished = file.with_added_extension("new");
    let _ = fs::remove_file(&unfinished);
    let mut new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    new.write_all(bytes)?;
    new.set_permissions(Permissions::from_mode(0o600))?;
    new.sync_all()?;
    fs::rename(&unfinished, file)?;
    file.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}
