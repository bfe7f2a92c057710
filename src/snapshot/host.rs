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

use super::look::Witness;
use super::mounted::OnUse;
use super::{Counts, Error, Identity, Keep, Label, Limits, Quiet, Repository, Source, list};
use crate::engine::{Mount, Volume};
use crate::update::job::{CopyProgress, JobId};
use crate::update::plan::Root;
use crate::update::ports::{
    CopyLabel, CopyReport, DataError, DataMount, DataStore, Distance, ExportSink, Generation, Kept, Look, Looked, Room,
    SnapshotInfo, Standing,
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
    limits: Limits,
    /// The pass that a job's hot copy has begun.
    passes: Arc<Mutex<HashMap<JobId, Begun>>>,
    /// What the last look at the room has found.
    expected: Arc<Mutex<Option<Expected>>>,
}

/// A pass between its two halves.
#[derive(Debug, Clone)]
struct Begun {
    id: String,
    /// Bytes that the hot copy has copied.
    bytes: u64,
}

#[derive(Debug, Clone, Copy)]
struct Expected {
    files: u64,
    bytes: u64,
}

impl HostData {
    /// `root` is the repository; it is made when it is first needed.
    pub fn new(root: PathBuf, retention: Retention) -> Self {
        Self { root, retention, limits: Limits::DEFAULT, passes: Arc::default(), expected: Arc::default() }
    }

    /// Refuses to copy what is larger.
    pub fn within(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Runs on a blocking thread, with the repository open. Dropping the future stops it.
    async fn with<T: Send + 'static>(
        &self,
        report: CopyReport,
        work: impl FnOnce(&Repository, &mut Teller) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, DataError> {
        self.at(self.root.clone(), open_soon, report, work).await
    }

    async fn at<T: Send + 'static>(
        &self,
        root: PathBuf,
        open: impl FnOnce(&Path) -> Result<Repository, Error> + Send + 'static,
        report: CopyReport,
        work: impl FnOnce(&Repository, &mut Teller) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, DataError> {
        let abandoned = Arc::new(AtomicBool::new(false));
        let _abandon = AbandonOnDrop(abandoned.clone());
        let limits = self.limits;
        let done = tokio::task::spawn_blocking(move || {
            let repository = open(&root)?.within(limits);
            let mut teller = Teller::new(report, abandoned);
            let done = work(&repository, &mut teller);
            teller.tell();
            done
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

/// Tells progress now and then and at the end, and stops when nobody waits any more.
struct Teller {
    report: CopyReport,
    abandoned: Arc<AtomicBool>,
    begun: Instant,
    told: Option<Instant>,
    asked: u64,
    now: Counts,
    /// Bytes that an earlier pass has copied.
    before: u64,
    expected: Option<Expected>,
}

impl Teller {
    fn new(report: CopyReport, abandoned: Arc<AtomicBool>) -> Self {
        let (now, before, expected) = (Counts::default(), 0, None);
        Self { report, abandoned, begun: Instant::now(), told: None, asked: 0, now, before, expected }
    }

    fn tell(&mut self) {
        if self.asked == 0 {
            return;
        }
        self.told = Some(Instant::now());
        let seconds = self.begun.elapsed().as_secs_f64().max(0.001);
        let Counts { entries, bytes, .. } = self.now;
        (self.report)(CopyProgress {
            files: entries,
            bytes: self.before + bytes,
            rate: (bytes as f64 / seconds) as u64,
            total_files: self.expected.map(|expected| expected.files),
            total_bytes: self.expected.map(|expected| expected.bytes),
        });
    }
}

impl super::Progress for Teller {
    fn update(&mut self, counts: &Counts) -> ControlFlow<()> {
        if self.abandoned.load(Ordering::Relaxed) {
            return ControlFlow::Break(());
        }
        // Reading the clock at every entry would cost more than the entry; a large file asks often too.
        self.asked += 1;
        self.now = *counts;
        if self.asked.is_multiple_of(64) && self.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            self.tell();
        }
        ControlFlow::Continue(())
    }
}

fn silent() -> CopyReport {
    Arc::new(|_| ())
}

/// Opens the mounts.
fn sources(mounts: &[DataMount]) -> Result<Vec<Source>, Error> {
    mounts.iter().map(source).collect()
}

fn source(data: &DataMount) -> Result<Source, Error> {
    let (mount, root) = (&data.mount, data.root.as_ref());
    let expected =
        root.map(|root| Identity { device: is_still_numbered(root).then_some(root.device), inode: root.inode });
    let mut source = Source { shown: mount.destination.clone(), expected, ..Source::new(name_of(mount), "") };
    if let Some(on_use) = data.volume.as_ref().map(on_use) {
        source.opened = Some(Arc::new(on_use.open(&mount.subpath)?));
        source.path = if on_use.is_bind() { PathBuf::from(on_use.device) } else { mount.host_path() };
        return Ok(source);
    }
    source.path = match root {
        Some(root) => PathBuf::from(&root.path),
        None => mount.host_path(),
    };
    Ok(source)
}

/// A name that depends only on where the application sees it: volumes may be renamed, and two paths may differ
/// in a character that a name cannot hold.
fn name_of(mount: &Mount) -> String {
    let readable = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let text: String = mount.destination.trim_matches('/').chars().map(readable).take(60).collect();
    let hash = blake3::hash(mount.destination.as_bytes()).to_hex();
    format!("{text}-{}", &hash[..8])
}

/// File systems without a device of their own (major number 0) get a number each time they are mounted, and
/// devices may get theirs at each boot.
fn is_still_numbered(root: &Root) -> bool {
    root.boot == boot() && !(root.mounted_on_use && root.device.0 == 0)
}

fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

fn on_use(volume: &Volume) -> OnUse {
    OnUse {
        volume: volume.name.clone(),
        mountpoint: PathBuf::from(&volume.mountpoint),
        kind: volume.option("type").to_owned(),
        device: volume.option("device").to_owned(),
        options: volume.option("o").to_owned(),
    }
}

/// Looks at one mount, symbolic links on the way to it resolved: from now on there may be none.
fn look(asked: &Look) -> Result<Looked, DataError> {
    let mount = &asked.source.mount;
    let mut source = source(&DataMount { root: None, ..asked.source.clone() })?;
    if source.opened.is_none() {
        source.path = std::fs::canonicalize(&source.path).map_err(|_| unseen(mount, &source.path))?;
    }
    let witness = asked.seen_by.as_ref().map(|by| Witness {
        name: by.name.clone(),
        id: by.container_id.clone(),
        pid: by.pid,
        path: by.path.clone(),
        beside: by.beside.clone(),
    });
    let found = super::look::look(&source, witness.as_ref())?;
    let root = Root {
        path: source.path.display().to_string(),
        device: found.root.dev,
        inode: found.root.ino,
        boot: boot(),
        mounted_on_use: asked.source.root.as_ref().is_some_and(|root| root.mounted_on_use) || source.opened.is_some(),
    };
    let nested = found.nested.iter().map(|path| path.display().to_string()).collect();
    Ok(Looked { root, nested })
}

fn unseen(mount: &Mount, path: &Path) -> DataError {
    DataError::Unseen { destination: mount.destination.clone(), path: path.display().to_string() }
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

    async fn look(&self, mounts: &[Look]) -> Result<Vec<Looked>, DataError> {
        let mounts = mounts.to_vec();
        // Whatever else is wrong, the first is reason enough.
        let looked = tokio::task::spawn_blocking(move || mounts.iter().map(look).collect::<Result<Vec<_>, _>>());
        looked.await.map_err(|e| DataError::Broken(e.to_string()))?
    }

    async fn preflight(&self, mounts: &[DataMount]) -> Result<(), DataError> {
        let mounts = mounts.to_vec();
        let root = self.root.clone();
        let (passes, expected) = (self.passes.clone(), self.expected.clone());
        let tidy_and_look = move |root: &Path| {
            // Whoever works here keeps the lock, and a mere look must not keep it from a job.
            match Repository::open(root) {
                Ok(repository) => {
                    // Passes that an earlier process left: their room is needed, and nobody will end them.
                    // Asked under the repository's lock: a job may have ended its hot copy just now.
                    let needed: Vec<String> = lock(&passes).values().map(|begun| begun.id.clone()).collect();
                    for left in repository.unfinished()?.iter().filter(|left| !needed.contains(left)) {
                        repository.discard(left)?;
                    }
                }
                Err(Error::Busy { .. }) => {}
                Err(e) => return Err(e),
            }
            Repository::look(root)
        };
        let preflight = move |repository: &Repository, teller: &mut Teller| {
            let found = repository.preflight(&sources(&mounts)?, teller)?;
            *lock(&expected) = Some(Expected { files: found.entries, bytes: found.new_bytes });
            found.verdict()
        };
        self.at(root, tidy_and_look, silent(), preflight).await
    }

    async fn room(&self, mounts: &[DataMount]) -> Result<Room, DataError> {
        let mounts = mounts.to_vec();
        let root = self.root.clone();
        if root.exists() {
            let look = move |repository: &Repository, teller: &mut Teller| room(repository, &sources(&mounts)?, teller);
            return self.at(root, Repository::look, silent(), look).await;
        }
        // The first snapshot will make the repository; until then one beside it tells as much.
        let there = self.root.ancestors().find(|path| path.is_dir()).unwrap_or(&self.root);
        let stand_in = there.join(format!(".processgit-updater-probe-{:016x}", rand::random::<u64>()));
        let goes = RemoveOnDrop(stand_in.clone());
        let look = move |repository: &Repository, teller: &mut Teller| {
            let _goes = goes;
            room(repository, &sources(&mounts)?, teller)
        };
        self.at(stand_in, Repository::open, silent(), look).await
    }

    async fn hot(&self, of: &CopyLabel, mounts: &[DataMount], report: CopyReport) -> Result<(), DataError> {
        let (mounts, label) = (mounts.to_vec(), label(of, why(of)));
        let (passes, job) = (self.passes.clone(), of.job.clone());
        let expected = *lock(&self.expected);
        self.with(report, move |repository, teller| {
            teller.expected = expected;
            let mut pass = repository.begin(sources(&mounts)?, label)?;
            let bytes = pass.hot(teller)?.bytes;
            lock(&passes).insert(job, Begun { id: pass.id().to_owned(), bytes });
            Ok(())
        })
        .await
    }

    async fn cold(&self, of: &CopyLabel, mounts: &[DataMount], report: CopyReport) -> Result<Generation, DataError> {
        let (mounts, label) = (mounts.to_vec(), label(of, why(of)));
        let (passes, job) = (self.passes.clone(), of.job.clone());
        let expected = *lock(&self.expected);
        self.with(report, move |repository, teller| {
            teller.expected = expected;
            let sources = sources(&mounts)?;
            let begun = lock(&passes).remove(&job);
            teller.before = begun.as_ref().map_or(0, |begun| begun.bytes);
            let pass = match begun {
                Some(begun) => repository.resume(&begun.id, sources)?,
                None => repository.begin(sources, label)?,
            };
            Ok(finished(&pass.cold(teller)?))
        })
        .await
    }

    async fn running(&self, of: &CopyLabel, mounts: &[DataMount], report: CopyReport) -> Result<Generation, DataError> {
        let (mounts, label) = (mounts.to_vec(), label(of, RUNNING));
        self.with(report, move |repository, teller| {
            Ok(finished(&repository.begin(sources(&mounts)?, label)?.keep_hot(teller)?))
        })
        .await
    }

    async fn restore(
        &self,
        of: &CopyLabel,
        generation: &str,
        mounts: &[DataMount],
        pinned: &[String],
        report: CopyReport,
    ) -> Result<Kept, DataError> {
        let (mounts, label, id) = (mounts.to_vec(), label(of, FAILED), format!("failed-{}", of.job));
        let (generation, mut needed) = (generation.to_owned(), pinned.to_vec());
        needed.push(generation.clone());
        self.with(report, move |repository, teller| {
            let sources = sources(&mounts)?;
            let from = repository.generation(&generation)?;
            let pruned = keep_whatever_goes(repository, &sources, &id, &label, &needed, teller)?;
            repository.restore(&from, &sources, teller)?;
            Ok(Kept { id, pruned })
        })
        .await
    }

    async fn load(&self, generation: &str, mounts: &[DataMount], report: CopyReport) -> Result<(), DataError> {
        let (mounts, generation) = (mounts.to_vec(), generation.to_owned());
        self.with(report, move |repository, teller| {
            let from = repository.generation(&generation)?;
            repository.restore_some(&from, &sources(&mounts)?, teller).map(|_| ())
        })
        .await
    }

    async fn tidy(&self, _job: &JobId, standing: &Standing) -> Result<(), DataError> {
        let (retention, standing) = (self.retention, standing.clone());
        // Whatever a job had begun goes below.
        lock(&self.passes).clear();
        if !self.root.exists() {
            return Ok(());
        }
        self.with(silent(), move |repository, _| {
            for left in repository.unfinished()? {
                repository.discard(&left)?;
            }
            let keep = Keep {
                newest: retention.keep,
                max_age: retention.max_age,
                ..Keep::new(&standing.needed, &standing.attempts)
            };
            repository.prune(&keep, Timestamp::now()).map(|_| ())
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

    async fn distance(&self, generation: &str, mounts: &[DataMount]) -> Result<Distance, DataError> {
        let (mounts, generation) = (mounts.to_vec(), generation.to_owned());
        self.with(silent(), move |repository, teller| {
            let changes = repository.changes(&repository.generation(&generation)?, &sources(&mounts)?, teller)?;
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
        mounts: meta.sources.iter().map(|s| s.shown.clone()).filter(|shown| !shown.is_empty()).collect(),
        label,
    }
}

#[cfg(test)]
mod tests;
