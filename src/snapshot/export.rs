//! A generation as one file, `tar` in `zstd`, from which GNU tar restores everything:
//! `tar --numeric-owner --xattrs --xattrs-include='*' -xpf FILE.tar.zst`.

use std::collections::HashMap;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{pread, retry_on_intr};

use super::beneath;
use super::content::extents;
use super::entry::{Entry, Extent, Kind};
use super::error::{Context, Error, Site};
use super::links::{Place, Places};
use super::manifest::Reader;
use super::progress::{Meter, Progress};
use super::repository::{Generation, Repository, SourceMeta};
use super::restore::open_folder;
use super::tar::{BLOCK, Member, padding, sparse_map};

/// Fast, and far better than gzip.
const LEVEL: i32 = 3;
const THREADS: u32 = 2;
const BUFFER: usize = 256 << 10;

/// What an archive holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ExportReport {
    pub entries: u64,
    /// Bytes of content, before compression.
    pub bytes: u64,
    /// Sockets, which no tar archive can hold; the program that owns one makes it anew.
    pub sockets: Vec<String>,
}

impl Repository {
    /// Writes the generation, one top-level folder (or file) for every source. Content that is not what
    /// was recorded is an error; the output is then worth nothing. The caller flushes `out` to its disk.
    pub fn export(
        &self,
        generation: &Generation,
        out: &mut dyn Write,
        progress: &mut dyn Progress,
    ) -> Result<ExportReport, Error> {
        let whole = Site { root: "the archive", path: b"" };
        let mut encoder = zstd::Encoder::new(out, LEVEL).context("write", whole)?;
        encoder.include_checksum(true).and_then(|()| encoder.multithread(THREADS)).context("write", whole)?;
        let mut meter = Meter::new(progress);
        let mut report = ExportReport::default();
        for source in &generation.meta.sources {
            let export = Export {
                label: generation.tree().join(&source.name).display().to_string(),
                name: source.name.as_bytes(),
                tree: open_folder(&generation.tree())?,
                leaders: HashMap::new(),
                places: Places::default(),
                out: &mut encoder,
                buffer: vec![0; BUFFER],
                report: &mut report,
                meter: &mut meter,
            };
            export.run(generation, source)?;
        }
        // Two empty blocks end an archive.
        encoder.write_all(&[0; 2 * BLOCK]).context("write", whole)?;
        encoder.finish().and_then(Write::flush).context("write", whole)?;
        Ok(report)
    }
}

struct Export<'a, 'p> {
    label: String,
    name: &'a [u8],
    tree: OwnedFd,
    /// First member of every group of hard links.
    leaders: HashMap<u64, Place>,
    places: Places,
    out: &'a mut dyn Write,
    buffer: Vec<u8>,
    report: &'a mut ExportReport,
    meter: &'a mut Meter<'p>,
}

impl Export<'_, '_> {
    fn run(mut self, generation: &Generation, source: &SourceMeta) -> Result<(), Error> {
        let mut manifest = Reader::open(&generation.manifest(&source.name))?;
        while let Some(entry) = manifest.take()? {
            self.meter.entry(Site { root: &self.label, path: &entry.path })?;
            if entry.kind == Kind::Socket {
                self.report.sockets.push(String::from_utf8_lossy(&self.path(&entry)).into_owned());
                continue;
            }
            self.report.entries += 1;
            self.member(&entry)?;
        }
        Ok(())
    }

    /// The path in the archive, which is also that in the `tree` folder.
    fn path(&self, entry: &Entry) -> Vec<u8> {
        if entry.path.is_empty() { self.name.to_vec() } else { [self.name, b"/", &entry.path].concat() }
    }

    fn member(&mut self, entry: &Entry) -> Result<(), Error> {
        let path = self.path(entry);
        let mut member = Member {
            path: &path,
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.mtime,
            xattrs: &entry.xattrs,
            ..Member::default()
        };
        if let Some(leader) = self.leaders.get(&entry.group).map(Place::path) {
            member.kind = b'1';
            member.link = &leader;
            return self.write(member);
        }
        if entry.group != 0 {
            let place = self.places.of(&path);
            self.leaders.insert(entry.group, place);
        }
        match &entry.kind {
            Kind::File { .. } => return self.file(entry, member),
            Kind::Mount { folder: false } => (member.kind, member.mode) = (b'0', 0o600),
            Kind::Mount { folder: true } => (member.kind, member.mode) = (b'5', 0o700),
            Kind::Folder => member.kind = b'5',
            Kind::Symlink { target } => (member.kind, member.link) = (b'2', target),
            Kind::CharDevice { major, minor } => (member.kind, member.device) = (b'3', (*major, *minor)),
            Kind::BlockDevice { major, minor } => (member.kind, member.device) = (b'4', (*major, *minor)),
            Kind::Fifo => member.kind = b'6',
            Kind::Socket => return Ok(()),
        }
        let folder_path = [&path[..], b"/"].concat();
        if member.kind == b'5' {
            member.path = &folder_path;
        }
        self.write(member)
    }

    fn write(&mut self, member: Member<'_>) -> Result<(), Error> {
        member.write(&mut self.out).context("write to the archive", Site { root: &self.label, path: member.path })
    }

    fn file(&mut self, entry: &Entry, mut member: Member<'_>) -> Result<(), Error> {
        let label = self.label.clone();
        let site = Site { root: &label, path: &entry.path };
        let folder = beneath::parent(self.tree.as_fd(), member.path).context("open", site)?;
        let name = if entry.path.is_empty() { self.name } else { entry.name() };
        let file = beneath::file(folder.as_fd(), name).context("open", site)?;
        let stat = beneath::stat_of(file.as_fd()).context("look at", site)?;
        if stat.size != entry.size {
            return Err(other_content(site));
        }
        member.kind = b'0';
        self.report.bytes += stat.size;
        let Some(extents) = extents(file.as_fd(), &stat).context("read", site)? else {
            member.size = stat.size;
            self.write(member)?;
            let hash = self.content(file.as_fd(), (0, stat.size), site)?;
            self.pad(stat.size).context("write to the archive", site)?;
            let recorded = matches!(&entry.kind, Kind::File { hash: h, extents: None } if *h != hash);
            return if recorded { Err(other_content(site)) } else { Ok(()) };
        };
        let map = sparse_map(&extents, stat.size);
        let data: u64 = extents.iter().map(|(_, length)| length).sum();
        member.size = map.len() as u64 + data;
        member.sparse = Some(stat.size);
        self.write(member)?;
        self.out.write_all(&map).context("write to the archive", site)?;
        for extent in extents {
            self.content(file.as_fd(), extent, site)?;
        }
        self.pad(data).context("write to the archive", site)
    }

    fn content(&mut self, file: BorrowedFd<'_>, extent: Extent, site: Site<'_>) -> Result<[u8; 32], Error> {
        let (mut at, end) = (extent.0, extent.0 + extent.1);
        let mut hasher = blake3::Hasher::new();
        while at < end {
            let want = (end - at).min(BUFFER as u64) as usize;
            let got = retry_on_intr(|| pread(file, &mut self.buffer[..want], at)).context("read", site)?;
            if got == 0 {
                return Err(other_content(site));
            }
            hasher.update(&self.buffer[..got]);
            self.out.write_all(&self.buffer[..got]).context("write to the archive", site)?;
            self.meter.bytes(got as u64, site)?;
            at += got as u64;
        }
        Ok(*hasher.finalize().as_bytes())
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        self.out.write_all(padding(size))
    }
}

fn other_content(site: Site<'_>) -> Error {
    Error::Damaged { path: site.text(), why: "its content is not what was recorded".to_owned() }
}
