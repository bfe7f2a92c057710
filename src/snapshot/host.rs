//! The application's data where this process sees it under the engine's own paths: on the host itself.
//!
//! Copying blocks, so it runs on a blocking thread; when the caller goes away, the thread stops at the
//! next entry and leaves what a power failure would leave.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::Timestamp;

use super::{Counts, Error, Label, Quiet, Repository, Source, list};
use crate::engine::Mount;
use crate::update::job::{CopyProgress, JobId};
use crate::update::ports::{
    CopyLabel, CopyReport, DataError, DataStore, Distance, ExportSink, Generation, Kept, Room, SnapshotInfo,
};

/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// How long somebody who is only tidying up is waited for.
const SOON: Duration = Duration::from_secs(5);

/// What stays when old snapshots are pruned.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    pub keep: usize,
    /// `None`: age does not matter.
    pub max_age: Option<Duration>,
}

/// Copies in process.
pub struct HostData {
    root: PathBuf,
    retention: Retention,
    /// The pass that a job's hot copy has begun.
    passes: Arc<Mutex<HashMap<JobId, String>>>,
}

impl HostData {
    /// `root` is the repository; it is made when it is first needed.
    pub fn new(root: PathBuf, retention: Retention) -> Self {
        Self { root, retention, passes: Arc::default() }
    }

    /// Runs on a blocking thread, with the repository open. Dropping the future stops it.
    async fn with<T: Send + 'static>(
        &self,
        report: CopyReport,
        work: impl FnOnce(&Repository, &mut Teller) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, DataError> {
        Self::at(self.root.clone(), open_soon, report, work).await
    }

    async fn at<T: Send + 'static>(
        root: PathBuf,
        open: impl FnOnce(&Path) -> Result<Repository, Error> + Send + 'static,
        report: CopyReport,
        work: impl FnOnce(&Repository, &mut Teller) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, DataError> {
        let abandoned = Arc::new(AtomicBool::new(false));
        let _abandon = AbandonOnDrop(abandoned.clone());
        let done = tokio::task::spawn_blocking(move || {
            let repository = open(&root)?;
            work(&repository, &mut Teller::new(report, abandoned))
        });
        done.await.map_err(|e| DataError::Broken(e.to_string()))?.map_err(DataError::from)
    }
}

/// Somebody may just be tidying up, see [`HostData::preflight`].
fn open_soon(root: &Path) -> Result<Repository, Error> {
    let deadline = Instant::now() + SOON;
    loop {
        match Repository::open(root) {
            Err(Error::Busy { .. }) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
            other => return other,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct AbandonOnDrop(Arc<AtomicBool>);

impl Drop for AbandonOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A folder that is for one look only, whoever still waits for it.
struct RemoveOnDrop(PathBuf);

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        if let Err(e) = super::repository::remove_folder(&self.0) {
            tracing::warn!("{e}");
        }
    }
}

/// Tells progress now and then, and stops when nobody waits any more.
struct Teller {
    report: CopyReport,
    abandoned: Arc<AtomicBool>,
    begun: Instant,
    told: Option<Instant>,
    asked: u64,
}

impl Teller {
    fn new(report: CopyReport, abandoned: Arc<AtomicBool>) -> Self {
        Self { report, abandoned, begun: Instant::now(), told: None, asked: 0 }
    }
}

impl super::Progress for Teller {
    fn update(&mut self, counts: &Counts) -> ControlFlow<()> {
        if self.abandoned.load(Ordering::Relaxed) {
            return ControlFlow::Break(());
        }
        // Reading the clock at every entry would cost more than the entry; a large file asks often too.
        self.asked += 1;
        if self.asked.is_multiple_of(64) && self.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            self.told = Some(Instant::now());
            let seconds = self.begun.elapsed().as_secs_f64().max(0.001);
            let rate = (counts.bytes as f64 / seconds) as u64;
            (self.report)(CopyProgress { files: counts.entries, bytes: counts.bytes, rate });
        }
        ControlFlow::Continue(())
    }
}

fn silent() -> CopyReport {
    Arc::new(|_| ())
}

/// The mounts, each under a name that depends only on where the application sees it: volumes may be
/// renamed, and two paths may differ in a character that a name cannot hold.
fn sources(mounts: &[Mount]) -> Result<Vec<Source>, DataError> {
    mounts
        .iter()
        .map(|mount| {
            let path = mount.host_path();
            if !path.exists() {
                let (destination, path) = (mount.destination.clone(), path.display().to_string());
                return Err(DataError::Unseen { destination, path });
            }
            let readable = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
            let text: String = mount.destination.trim_matches('/').chars().map(readable).take(60).collect();
            let hash = blake3::hash(mount.destination.as_bytes()).to_hex();
            Ok(Source { name: format!("{text}-{}", &hash[..8]), path })
        })
        .collect()
}

fn why(of: &CopyLabel) -> &'static str {
    if of.by_hand { ASKED } else { BEFORE }
}

fn label(of: &CopyLabel, reason: &str) -> Label {
    Label {
        reason: reason.to_owned(),
        job: Some(of.job.0.clone()),
        version: of.version.clone(),
        image: Some(of.image.clone()),
        image_id: Some(of.image_id.clone()),
        repo_digest: of.repo_digest.clone(),
        env_value: of.env_value.clone(),
        by_hand: of.by_hand,
    }
}

const BEFORE: &str = "before a change";
const ASKED: &str = "asked for";
const RUNNING: &str = "of the running application";
const FAILED: &str = "what was written before it was put back";

/// Keeps the present state. On a full disk snapshots go for it, the oldest first, but none that is
/// `needed` or that a person asked for. Returns those that went.
fn keep_whatever_goes(
    repository: &Repository,
    sources: &[Source],
    id: &str,
    label: &Label,
    needed: &[String],
    teller: &mut Teller,
) -> Result<Vec<String>, Error> {
    let mut pruned = Vec::new();
    loop {
        let full = match repository.keep_present_state(sources.to_vec(), id, label.clone(), teller) {
            Ok(_) => return Ok(pruned),
            Err(e) if e.is_disk_full() => e,
            Err(e) => return Err(e),
        };
        let generations = repository.generations()?;
        let nobody_needs = |g: &&super::Generation| !g.meta.label.by_hand && needed.iter().all(|n| n != g.id());
        let Some(oldest) = generations.iter().find(nobody_needs) else { return Err(full) };
        tracing::warn!(snapshot = oldest.id(), "pruned to make room for the copy of what a failed version left");
        repository.remove(oldest)?;
        pruned.push(oldest.id().to_owned());
    }
}

fn room(repository: &Repository, sources: &[Source], teller: &mut Teller) -> Result<Room, Error> {
    let found = repository.preflight(sources, teller)?;
    let needed_and_free = Some((found.needed_bytes, found.available_bytes));
    Ok(Room { needed_and_free, unfinished: repository.unfinished()?.len(), refusals: found.refusals })
}

fn finished(generation: &super::Generation) -> Generation {
    let files = generation.meta.sources.iter().map(|s| s.entries).sum();
    Generation { id: generation.id().to_owned(), files, bytes: generation.bytes().0 }
}

#[async_trait]
impl DataStore for HostData {
    fn off(&self) -> Option<String> {
        None
    }

    async fn preflight(&self, mounts: &[Mount]) -> Result<(), DataError> {
        let sources = sources(mounts)?;
        let root = self.root.clone();
        let passes = self.passes.clone();
        let tidy_and_look = move |root: &Path| {
            // Whoever works here keeps the lock, and a mere look must not keep it from a job.
            match Repository::open(root) {
                Ok(repository) => {
                    // Passes that an earlier process left: their room is needed, and nobody will end them.
                    // Asked under the repository's lock: a job may have ended its hot copy just now.
                    let needed: Vec<String> = lock(&passes).values().cloned().collect();
                    for left in repository.unfinished()?.iter().filter(|left| !needed.contains(left)) {
                        repository.discard(left)?;
                    }
                }
                Err(Error::Busy { .. }) => {}
                Err(e) => return Err(e),
            }
            Repository::look(root)
        };
        let preflight =
            move |repository: &Repository, teller: &mut Teller| repository.preflight(&sources, teller)?.verdict();
        Self::at(root, tidy_and_look, silent(), preflight).await
    }

    async fn room(&self, mounts: &[Mount]) -> Result<Room, DataError> {
        let sources = sources(mounts)?;
        let root = self.root.clone();
        if root.exists() {
            let look = move |repository: &Repository, teller: &mut Teller| room(repository, &sources, teller);
            return Self::at(root, Repository::look, silent(), look).await;
        }
        // The first snapshot will make the repository; until then one beside it tells as much.
        let there = self.root.ancestors().find(|path| path.is_dir()).unwrap_or(&self.root);
        let stand_in = there.join(format!(".processgit-updater-probe-{:016x}", rand::random::<u64>()));
        let goes = RemoveOnDrop(stand_in.clone());
        let look = move |repository: &Repository, teller: &mut Teller| {
            let _goes = goes;
            room(repository, &sources, teller)
        };
        Self::at(stand_in, Repository::open, silent(), look).await
    }

    async fn hot(&self, of: &CopyLabel, mounts: &[Mount], report: CopyReport) -> Result<(), DataError> {
        let (sources, label) = (sources(mounts)?, label(of, why(of)));
        let (passes, job) = (self.passes.clone(), of.job.clone());
        self.with(report, move |repository, teller| {
            let mut pass = repository.begin(sources, label)?;
            pass.hot(teller)?;
            lock(&passes).insert(job, pass.id().to_owned());
            Ok(())
        })
        .await
    }

    async fn cold(&self, of: &CopyLabel, mounts: &[Mount], report: CopyReport) -> Result<Generation, DataError> {
        let (sources, label) = (sources(mounts)?, label(of, why(of)));
        let (passes, job) = (self.passes.clone(), of.job.clone());
        self.with(report, move |repository, teller| {
            let begun = lock(&passes).remove(&job);
            let pass = match begun {
                Some(id) => repository.resume(&id)?,
                None => repository.begin(sources, label)?,
            };
            Ok(finished(&pass.cold(teller)?))
        })
        .await
    }

    async fn running(&self, of: &CopyLabel, mounts: &[Mount], report: CopyReport) -> Result<Generation, DataError> {
        let (sources, label) = (sources(mounts)?, label(of, RUNNING));
        self.with(report, move |repository, teller| Ok(finished(&repository.begin(sources, label)?.keep_hot(teller)?)))
            .await
    }

    async fn restore(
        &self,
        of: &CopyLabel,
        generation: &str,
        mounts: &[Mount],
        pinned: &[String],
        report: CopyReport,
    ) -> Result<Kept, DataError> {
        let (sources, label, id) = (sources(mounts)?, label(of, FAILED), format!("failed-{}", of.job));
        let (generation, mut needed) = (generation.to_owned(), pinned.to_vec());
        needed.push(generation.clone());
        self.with(report, move |repository, teller| {
            let from = repository.generation(&generation)?;
            let pruned = keep_whatever_goes(repository, &sources, &id, &label, &needed, teller)?;
            repository.restore(&from, &sources, teller)?;
            Ok(Kept { id, pruned })
        })
        .await
    }

    async fn load(&self, generation: &str, mounts: &[Mount], report: CopyReport) -> Result<(), DataError> {
        let (sources, generation) = (sources(mounts)?, generation.to_owned());
        self.with(report, move |repository, teller| {
            let from = repository.generation(&generation)?;
            repository.restore(&from, &sources, teller).map(|_| ())
        })
        .await
    }

    async fn tidy(&self, _job: &JobId, pinned: &[String]) -> Result<(), DataError> {
        let (retention, pinned) = (self.retention, pinned.to_vec());
        // Whatever a job had begun goes below.
        lock(&self.passes).clear();
        if !self.root.exists() {
            return Ok(());
        }
        self.with(silent(), move |repository, _| {
            for left in repository.unfinished()? {
                repository.discard(&left)?;
            }
            let pinned: Vec<&str> = pinned.iter().map(String::as_str).collect();
            repository.prune(retention.keep, retention.max_age, &pinned, Timestamp::now()).map(|_| ())
        })
        .await
    }

    /// Without the repository's lock: listing never waits for a copy.
    async fn list(&self) -> Result<Vec<SnapshotInfo>, DataError> {
        let root = self.root.clone();
        let listed = tokio::task::spawn_blocking(move || if root.exists() { list(&root) } else { Ok(Vec::new()) });
        let generations = listed.await.map_err(|e| DataError::Broken(e.to_string()))??;
        Ok(generations.iter().rev().map(info).collect())
    }

    async fn verify(&self, generation: &str) -> Result<(), DataError> {
        let generation = generation.to_owned();
        self.with(silent(), move |repository, teller| repository.verify(&repository.generation(&generation)?, teller))
            .await
    }

    async fn distance(&self, generation: &str, mounts: &[Mount]) -> Result<Distance, DataError> {
        let (sources, generation) = (sources(mounts)?, generation.to_owned());
        self.with(silent(), move |repository, teller| {
            let changes = repository.changes(&repository.generation(&generation)?, &sources, teller)?;
            Ok(Distance { files: changes.added + changes.changed + changes.removed, bytes: changes.bytes })
        })
        .await
    }

    async fn export(&self, generation: &str, mut sink: ExportSink) -> Result<(), DataError> {
        let generation = generation.to_owned();
        self.with(silent(), move |repository, _| {
            repository.export(&repository.generation(&generation)?, &mut sink, &mut Quiet).map(|_| ())
        })
        .await
    }
}

fn info(generation: &super::Generation) -> SnapshotInfo {
    let (meta, (bytes, own_bytes)) = (&generation.meta, generation.bytes());
    let label = match (&meta.label.job, &meta.label.image, &meta.label.image_id) {
        (Some(job), Some(image), Some(image_id)) => Some(CopyLabel {
            job: JobId(job.clone()),
            version: meta.label.version.clone(),
            image: image.clone(),
            image_id: image_id.clone(),
            repo_digest: meta.label.repo_digest.clone(),
            env_value: meta.label.env_value.clone(),
            by_hand: meta.label.by_hand,
        }),
        _ => None,
    };
    SnapshotInfo {
        id: meta.id.clone(),
        created_at: meta.created_at,
        consistent: meta.consistent,
        reason: meta.label.reason.clone(),
        bytes,
        own_bytes,
        entries: meta.sources.iter().map(|s| s.entries).sum(),
        label,
    }
}
