//! The bytes of a file: copying them with their holes, and hashing them on the way.
//!
//! The hash of a file without holes is its plain BLAKE3, the one that `b3sum` prints. A file with holes
//! may be a terabyte of nothing, so only its data is hashed, in a form that does not depend on where a
//! file system happens to put the edges of holes: for every 64 KiB window that is not all zero, its index
//! (u64, little-endian) and its bytes; at the end the size of the file (u64).

use std::os::fd::BorrowedFd;

use rustix::fs::{SeekFrom, ftruncate, ioctl_ficlone, seek};
use rustix::io::{Errno, pread, pwrite, retry_on_intr};

use super::beneath;
use super::entry::{Extent, Stat};
use super::error::{Context, Error, Site};

const BUFFER: usize = 256 << 10;
const WINDOW: u64 = 64 << 10;

/// Called with the number of bytes of every step; an error ends the copy.
pub type Tick<'a> = &'a mut dyn FnMut(u64) -> Result<(), Error>;

/// One end of a copy: the descriptor, and its name for errors.
#[derive(Clone, Copy)]
pub(super) struct End<'a> {
    pub fd: BorrowedFd<'a>,
    pub site: Site<'a>,
}

/// What was copied, which may be less or more than was there at first when somebody writes.
#[derive(Debug)]
pub struct Content {
    pub size: u64,
    pub hash: [u8; 32],
    pub extents: Option<Vec<Extent>>,
}

/// Copies and hashes; keeps its buffer, and what it learned of the file systems.
pub struct Copier {
    buffer: Vec<u8>,
    /// Both ends are on one file system that shares blocks (Btrfs, XFS), as far as we know.
    reflink: bool,
}

impl Default for Copier {
    fn default() -> Self {
        Self { buffer: vec![0; BUFFER], reflink: true }
    }
}

impl Copier {
    /// Copies `from`, which looked like `stat`, into the empty file `to`.
    pub(super) fn copy(&mut self, from: End<'_>, stat: &Stat, to: End<'_>, tick: Tick<'_>) -> Result<Content, Error> {
        if self.clone_blocks(from, to) {
            let stat = beneath::stat_of(to.fd).context("look at", to.site)?;
            let extents = extents(to.fd, &stat).context("read", to.site)?;
            let hash = self.hash(to, stat.size, extents.as_deref(), tick)?;
            return Ok(Content { size: stat.size, hash, extents });
        }
        let Some(list) = extents(from.fd, stat).context("read", from.site)? else {
            return self.copy_plain(from, stat.size, to, tick);
        };
        for (offset, length) in &list {
            self.copy_stretch(from, to, (*offset, *length), None, tick)?;
        }
        ftruncate(to.fd, stat.size).context("write", to.site)?;
        let hash = self.hash(to, stat.size, Some(&list), &mut |_| Ok(()))?;
        Ok(Content { size: stat.size, hash, extents: Some(list) })
    }

    fn clone_blocks(&mut self, from: End<'_>, to: End<'_>) -> bool {
        // Whatever the reason, copying byte by byte will tell whether it was a real fault.
        self.reflink = self.reflink && ioctl_ficlone(to.fd, from.fd).is_ok();
        self.reflink
    }

    fn copy_plain(&mut self, from: End<'_>, size: u64, to: End<'_>, tick: Tick<'_>) -> Result<Content, Error> {
        let mut hasher = blake3::Hasher::new();
        let size = self.copy_stretch(from, to, (0, size), Some(&mut hasher), tick)?;
        Ok(Content { size, hash: *hasher.finalize().as_bytes(), extents: None })
    }

    /// Copies one stretch; ends early where the file ends. Returns how many bytes there were.
    fn copy_stretch(
        &mut self,
        from: End<'_>,
        to: End<'_>,
        (offset, length): Extent,
        mut hasher: Option<&mut blake3::Hasher>,
        tick: Tick<'_>,
    ) -> Result<u64, Error> {
        let mut done = 0;
        while done < length {
            let want = (length - done).min(BUFFER as u64) as usize;
            let got = read_some(from.fd, &mut self.buffer[..want], offset + done).context("read", from.site)?;
            if got == 0 {
                break;
            }
            let chunk = &self.buffer[..got];
            if let Some(hasher) = &mut hasher {
                hasher.update(chunk);
            }
            write_all(to.fd, chunk, offset + done).context("write", to.site)?;
            done += got as u64;
            tick(got as u64)?;
        }
        Ok(done)
    }

    /// The content hash of a file with this size and these extents (`None`: no holes).
    pub(super) fn hash(
        &mut self,
        file: End<'_>,
        size: u64,
        extents: Option<&[Extent]>,
        tick: Tick<'_>,
    ) -> Result<[u8; 32], Error> {
        let mut hasher = blake3::Hasher::new();
        let Some(extents) = extents else {
            let mut at = 0;
            loop {
                let got = read_some(file.fd, &mut self.buffer, at).context("read", file.site)?;
                if got == 0 {
                    return Ok(*hasher.finalize().as_bytes());
                }
                hasher.update(&self.buffer[..got]);
                at += got as u64;
                tick(got as u64)?;
            }
        };
        let mut next = 0;
        for (offset, length) in extents.iter().filter(|(_, length)| *length > 0) {
            let last = (offset + length - 1) / WINDOW;
            for window in next.max(offset / WINDOW)..=last {
                let got = self.read_window(file, window)?;
                if self.buffer[..got].iter().any(|b| *b != 0) {
                    hasher.update(&window.to_le_bytes());
                    hasher.update(&self.buffer[..got]);
                }
                tick(got as u64)?;
            }
            next = next.max(last + 1);
        }
        hasher.update(&size.to_le_bytes());
        Ok(*hasher.finalize().as_bytes())
    }

    fn read_window(&mut self, file: End<'_>, window: u64) -> Result<usize, Error> {
        let mut filled = 0;
        while filled < WINDOW as usize {
            let rest = &mut self.buffer[filled..WINDOW as usize];
            match read_some(file.fd, rest, window * WINDOW + filled as u64).context("read", file.site)? {
                0 => break,
                got => filled += got,
            }
        }
        Ok(filled)
    }
}

fn read_some(fd: BorrowedFd<'_>, buffer: &mut [u8], offset: u64) -> rustix::io::Result<usize> {
    retry_on_intr(|| pread(fd, &mut *buffer, offset))
}

fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8], mut offset: u64) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        let written = retry_on_intr(|| pwrite(fd, bytes, offset))?;
        if written == 0 {
            return Err(Errno::IO);
        }
        bytes = &bytes[written..];
        offset += written as u64;
    }
    Ok(())
}

/// Where the data of a file is; `None` when it has no holes.
pub fn extents(fd: BorrowedFd<'_>, stat: &Stat) -> rustix::io::Result<Option<Vec<Extent>>> {
    if stat.blocks.saturating_mul(512) >= stat.size {
        return Ok(None);
    }
    let mut list = Vec::new();
    let mut at = 0;
    while at < stat.size {
        let start = match seek(fd, SeekFrom::Data(at)) {
            Err(Errno::NXIO) => break,
            other => other?,
        };
        let end = seek(fd, SeekFrom::Hole(start))?.min(stat.size);
        if start >= end {
            break;
        }
        list.push((start, end - start));
        at = end;
    }
    Ok(if list == [(0, stat.size)] { None } else { Some(list) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::fs::{FileExt, MetadataExt};

    const SITE: Site<'static> = Site { root: "test", path: b"" };

    fn end(file: &File) -> End<'_> {
        End { fd: file.as_fd(), site: SITE }
    }

    #[test]
    fn content_and_holes_arrive() {
        let mib = 1u64 << 20;
        type Case<'a> = (&'a str, u64, &'a [(u64, usize)]);
        let cases: [Case<'_>; 7] = [
            ("empty", 0, &[]),
            ("small", 10, &[(0, 10)]),
            ("longer than the buffer", 3 * mib + 1, &[(0, 3 * (1 << 20) + 1)]),
            ("nothing but a hole", 5 * mib, &[]),
            ("a hole at both ends", 5 * mib, &[(mib, 4096)]),
            ("two extents in one window", mib, &[(0, 10), (32 << 10, 10)]),
            ("unaligned end", 5 * mib + 7, &[(0, 1), (5 * mib, 7)]),
        ];
        let mut copier = Copier::default();
        for (name, size, data) in cases {
            let (from, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
            from.set_len(size).unwrap();
            for (offset, length) in data {
                from.write_all_at(&vec![b'x'; *length], *offset).unwrap();
            }
            let stat = beneath::stat_of(from.as_fd()).unwrap();
            let content = copier.copy(end(&from), &stat, end(&to), &mut |_| Ok(())).unwrap();
            let expected = extents(from.as_fd(), &stat).unwrap();
            assert_eq!(content.extents, expected, "{name}");
            let copy = beneath::stat_of(to.as_fd()).unwrap();
            assert_eq!((copy.size, extents(to.as_fd(), &copy).unwrap()), (size, expected), "{name}");
            assert_eq!(from.metadata().unwrap().blocks(), to.metadata().unwrap().blocks(), "{name}");
            for file in [&from, &to] {
                let hash = copier.hash(end(file), size, content.extents.as_deref(), &mut |_| Ok(())).unwrap();
                assert_eq!(hash, content.hash, "{name}");
            }
        }
    }

    /// What is written to a file while it is copied belongs to the next pass.
    #[test]
    fn a_stretch_ends_where_it_should() {
        let (from, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        from.write_all_at(&vec![b'x'; 3 * BUFFER], 0).unwrap();
        for (offset, length, expected) in
            [(0, BUFFER as u64 + 5, BUFFER as u64 + 5), (10, 5, 5), (0, 0, 0), (3 * BUFFER as u64 - 7, 100, 7)]
        {
            let mut copier = Copier::default();
            let mut told = 0;
            let mut tick = |bytes| {
                told += bytes;
                Ok(())
            };
            let done = copier.copy_stretch(end(&from), end(&to), (offset, length), None, &mut tick).unwrap();
            assert_eq!((done, told), (expected, expected), "{offset} {length}");
        }
    }

    /// Wherever the extents of a file begin, all of its data counts.
    #[test]
    fn the_hash_knows_every_window() {
        let mut copier = Copier::default();
        let mut hash = |at: u64, extents: &[Extent]| {
            let file = tempfile::tempfile().unwrap();
            file.set_len(4 * WINDOW).unwrap();
            file.write_all_at(b"x", at).unwrap();
            copier.hash(end(&file), 4 * WINDOW, Some(extents), &mut |_| Ok(())).unwrap()
        };
        let places = [4096, WINDOW - 1, WINDOW, 2 * WINDOW + 5, 4 * WINDOW - 1];
        let whole = places.map(|at| hash(at, &[(0, 4 * WINDOW)]));
        for (n, at) in places.into_iter().enumerate() {
            assert_eq!(hash(at, &[(at, 1)]), whole[n], "{at}");
            assert_eq!(hash(at, &[(0, 0), (at, 1), (4 * WINDOW - 1, 0)]), whole[n], "{at}: an empty extent is none");
            assert!(whole[..n].iter().all(|other| *other != whole[n]), "{at}");
        }
    }

    #[test]
    fn the_hash_of_a_plain_file_is_blake3_and_that_of_a_sparse_one_ignores_where_holes_end() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"hello", 0).unwrap();
        let mut copier = Copier::default();
        let mut hash =
            |size, extents: Option<&[Extent]>| copier.hash(end(&file), size, extents, &mut |_| Ok(())).unwrap();
        assert_eq!(hash(5, None), *blake3::hash(b"hello").as_bytes());
        file.set_len(1 << 20).unwrap();
        let tight = hash(1 << 20, Some(&[(0, 5)]));
        assert_eq!(tight, hash(1 << 20, Some(&[(0, 4096), (8192, 4096), (300_000, 1)])));
        assert_ne!(tight, hash(2 << 20, Some(&[(0, 5)])));
    }
}
