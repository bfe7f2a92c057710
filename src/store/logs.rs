//! Everything a job printed, one file a job. Writing happens on a thread of its own: an update never
//! waits for it, and a full disk costs only the log.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};

use crate::update::job::JobId;

/// The most that is kept of one job's output, bytes.
pub const LOG_CAP: u64 = 16 * 1024 * 1024;
/// Lines that wait for the disk; more are dropped rather than waited for.
const QUEUE: usize = 4096;

pub struct Logs {
    folder: PathBuf,
    queue: SyncSender<(JobId, String)>,
}

impl Logs {
    pub fn open(folder: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let (queue, lines) = sync_channel::<(JobId, String)>(QUEUE);
        let inside = folder.to_owned();
        std::thread::Builder::new().name("job-logs".into()).spawn(move || {
            let mut open: HashMap<JobId, Bounded> = HashMap::new();
            for (job, line) in lines {
                // One job runs at a time: the others' files need not stay open.
                open.retain(|known, _| *known == job);
                let file = open.entry(job.clone()).or_insert_with(|| Bounded::open(&inside, &job));
                file.write(&line);
            }
        })?;
        Ok(Self { folder: folder.to_owned(), queue })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn append(&self, job: &JobId, line: &str) {
        let _ = self.queue.try_send((job.clone(), line.to_owned()));
    }

    pub async fn read(&self, job: &str, offset: u64, cap: usize) -> io::Result<Vec<u8>> {
        let path = path(&self.folder, job);
        let read = move || {
            let mut file = match File::open(path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                other => other?,
            };
            file.seek(SeekFrom::Start(offset))?;
            let mut bytes = Vec::new();
            file.take(cap as u64).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
    }
}

/// The file of a job's log.
pub fn path(folder: &Path, job: &str) -> PathBuf {
    folder.join(format!("{job}.log"))
}

/// A log that stops at its cap, saying so.
struct Bounded {
    file: Option<File>,
    left: u64,
}

impl Bounded {
    fn open(folder: &Path, job: &JobId) -> Self {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path(folder, &job.0)).ok();
        let size = file.as_ref().and_then(|f| f.metadata().ok()).map_or(0, |m| m.len());
        Self { file, left: LOG_CAP.saturating_sub(size) }
    }

    fn write(&mut self, line: &str) {
        let Some(file) = &mut self.file else { return };
        let length = line.len() as u64 + 1;
        if length > self.left {
            let _ = writeln!(file, "[the log ends here: it has reached {LOG_CAP} bytes]");
            self.file = None;
            return;
        }
        self.left -= length;
        let _ = file.write_all(format!("{line}\n").as_bytes());
    }
}
