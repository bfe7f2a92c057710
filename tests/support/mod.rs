//! A scripted domain behind the real server, on a port of its own.
#![allow(dead_code, clippy::unwrap_used)]

use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use async_trait::async_trait;
use processgit_updater::api::{self, Face, Listener};
use processgit_updater::doctor::{Examine, Finding, Report};
use processgit_updater::release::{Channel, Release, SourceError};
use processgit_updater::settings::Listen;
use processgit_updater::update::door::AbortError;
use processgit_updater::update::job::{Job, JobId, Kind, State, Step};
use processgit_updater::update::ports::{CopyLabel, DataError, ExportSink, SnapshotInfo};
use processgit_updater::update::settle::{SettleError, Settlement};
use processgit_updater::update::{Check, CheckRequest, Order, Request, RollbackView, SubmitError};
use tokio_util::sync::CancellationToken;

pub const TOKEN: &str = "correct horse battery staple";
pub const JOB: &str = "job_00000000000000a1";

/// What the domain will answer, and what it was asked.
#[derive(Default)]
pub struct Script {
    /// Answers to `submit`, in order; then a fresh job each.
    pub submits: Mutex<VecDeque<Result<Job, SubmitError>>>,
    /// Answers to `job`, in order; the last one stays.
    pub frames: Mutex<VecDeque<Job>>,
    pub active: Mutex<Option<Arc<Job>>>,
    pub history: Mutex<Vec<Arc<Job>>>,
    pub log: Vec<u8>,
    pub check: Check,
    /// How often the releases were to be asked for anew.
    pub forgotten: std::sync::atomic::AtomicUsize,
    pub latest: Option<Result<Release, SourceError>>,
    pub panics: bool,
    /// `Err`: why there are none.
    pub snapshots: Option<Result<Vec<SnapshotInfo>, &'static str>>,
    /// What `verify_snapshot` finds wrong.
    pub damage: Option<&'static str>,
    /// What an export writes, and the error that it ends with.
    pub archive: Vec<u8>,
    pub export_fails: Option<&'static str>,
    /// Why nothing is pruned.
    pub prune_fails: Option<&'static str>,
    pub view: Option<Result<RollbackView, String>>,
    pub abort_fails: Option<AbortError>,
    pub aborts: Mutex<Vec<String>>,
    pub settle_fails: Option<SettleError>,
    pub settled: Mutex<Vec<String>>,
    pub orders: Mutex<Vec<Order>>,
    pub notices: Vec<String>,
    /// What the doctor finds.
    pub findings: Vec<Finding>,
    pub views: Mutex<Vec<bool>>,
    pub checks: Mutex<Vec<CheckRequest>>,
    pub channels: Mutex<Vec<Channel>>,
}

#[async_trait]
impl Face for Script {
    async fn submit(&self, order: Order) -> Result<Job, SubmitError> {
        let (kind, tag) = match &order {
            Order::Update(request) => (Kind::Update, request.target_tag.clone()),
            Order::SelfUpdate(request) => (Kind::SelfUpdate, request.target_tag.clone()),
            Order::Snapshot { .. } => (Kind::Snapshot, String::new()),
            Order::Restore { .. } => (Kind::Restore, String::new()),
            Order::Rollback { .. } => (Kind::Rollback, String::new()),
        };
        self.orders.lock().unwrap().push(order);
        let fresh = || Ok(Job { kind, ..job(&tag, &[]) });
        self.submits.lock().unwrap().pop_front().unwrap_or_else(fresh)
    }
    async fn snapshots(&self) -> Result<Vec<SnapshotInfo>, DataError> {
        self.snapshots.clone().unwrap_or(Ok(vec![snapshot("gen-2"), snapshot("gen-1")])).map_err(error)
    }
    async fn verify_snapshot(&self, _: &str) -> Result<(), DataError> {
        self.damage.map_or(Ok(()), |damage| Err(error(damage)))
    }
    async fn export_snapshot(&self, _: &str, mut sink: ExportSink) -> Result<(), DataError> {
        let (archive, fails) = (self.archive.clone(), self.export_fails);
        let written = move || sink.write_all(&archive).map_err(|e| DataError::Broken(e.to_string()));
        tokio::task::spawn_blocking(written).await.unwrap()?;
        fails.map_or(Ok(()), |why| Err(error(why)))
    }
    async fn prune_snapshots(&self) -> Result<usize, DataError> {
        self.prune_fails.map_or(Ok(2), |why| Err(error(why)))
    }
    async fn rollback_view(&self, with_data: bool) -> Result<RollbackView, String> {
        self.views.lock().unwrap().push(with_data);
        self.view.clone().unwrap_or_else(|| Ok(RollbackView::default()))
    }
    async fn settlement(&self, id: &str) -> Result<Settlement, SettleError> {
        match self.history.lock().unwrap().iter().find(|job| job.id.0 == id) {
            None => Err(SettleError::Unknown(id.into())),
            Some(job) if job.state != State::Failed => Err(SettleError::NotFailed { id: id.into(), state: job.state }),
            Some(job) => Ok(Settlement {
                job: (**job).clone(),
                removes: vec!["container guard-old".into(), "image ghcr.io/o/app:0.1.2".into()],
                released: vec!["gen-1".into()],
            }),
        }
    }
    async fn settle(&self, id: &str) -> Result<Settlement, SettleError> {
        self.settled.lock().unwrap().push(id.to_owned());
        match &self.settle_fails {
            Some(error) => Err(error.clone()),
            None => self.settlement(id).await,
        }
    }
    fn needs_you(&self) -> Vec<Arc<Job>> {
        self.history.lock().unwrap().iter().filter(|job| job.needs_you).cloned().collect()
    }
    async fn abort(&self, id: &str) -> Result<Job, AbortError> {
        self.aborts.lock().unwrap().push(id.to_owned());
        match &self.abort_fails {
            Some(error) => Err(error.clone()),
            None => Ok(job("v0.1.2", &[(State::Pulling, "")])),
        }
    }
    async fn job(&self, id: &str) -> Option<Arc<Job>> {
        let mut frames = self.frames.lock().unwrap();
        let next = if frames.len() > 1 { frames.pop_front() } else { frames.front().cloned() };
        next.filter(|job| job.id.0 == id).map(Arc::new)
    }
    fn active(&self) -> Option<Arc<Job>> {
        assert!(!self.panics, "as the script says");
        self.active.lock().unwrap().clone()
    }
    fn history(&self, limit: usize) -> Vec<Arc<Job>> {
        self.history.lock().unwrap().iter().take(limit).cloned().collect()
    }
    fn count(&self) -> usize {
        self.history.lock().unwrap().len()
    }
    async fn log(&self, id: &str, offset: u64) -> Option<Vec<u8>> {
        (id == JOB).then(|| self.log.get(offset as usize..).unwrap_or_default().to_vec())
    }
    async fn check(&self, request: CheckRequest) -> Check {
        self.checks.lock().unwrap().push(request);
        self.check.clone()
    }
    fn forget_releases(&self) {
        self.forgotten.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
    async fn latest(&self, channel: Channel) -> Result<Release, SourceError> {
        self.channels.lock().unwrap().push(channel);
        self.latest.clone().unwrap_or_else(|| Ok(release("v0.1.2")))
    }
    fn stub(&self) -> bool {
        true
    }
    fn notices(&self) -> Vec<String> {
        self.notices.clone()
    }
    fn trust(&self) -> String {
        "keyless: https://issuer.example".into()
    }
}

#[async_trait]
impl Examine for Script {
    async fn examine(&self) -> Report {
        Report::new(at(0), self.findings.clone())
    }
}

impl Script {
    /// The updates that were asked for.
    pub fn requests(&self) -> Vec<Request> {
        let update = |order: &Order| if let Order::Update(request) = order { Some(request.clone()) } else { None };
        self.orders.lock().unwrap().iter().filter_map(update).collect()
    }
}

fn error(why: &str) -> DataError {
    DataError::Refused(why.to_owned())
}

pub fn snapshot(id: &str) -> SnapshotInfo {
    SnapshotInfo {
        id: id.into(),
        created_at: at(0),
        consistent: true,
        reason: "before an update".into(),
        bytes: 1_200_000,
        own_bytes: 4_000,
        entries: 12,
        mounts: Vec::new(),
        label: Some(CopyLabel {
            job: JobId(JOB.into()),
            version: Some("0.1.1".into()),
            image: "ghcr.io/o/app:0.1.1".into(),
            image_id: "sha256:aa".into(),
            repo_digest: None,
            env_value: Some("0.1.1".into()),
            by_hand: false,
        }),
    }
}

pub fn at(second: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_second(1_767_323_045 + second).unwrap()
}

pub fn release(tag: &str) -> Release {
    Release {
        tag: tag.into(),
        name: format!("Release {tag}"),
        prerelease: false,
        html_url: format!("https://git.example/releases/{tag}"),
        published_at: Some(at(-3600)),
        remarks: Vec::new(),
        assets: Vec::new(),
    }
}

/// A job that went through `steps`, each with its output, ten seconds apart.
pub fn job(tag: &str, steps: &[(State, &str)]) -> Job {
    let mut job = Job::new(JobId(JOB.into()), tag.into(), at(0), true);
    job.touched = Some(true);
    for (number, (state, output)) in steps.iter().enumerate() {
        let now = at(number as i64 * 10);
        job.enter(*state, now);
        output.lines().for_each(|line| job.say(line, now));
    }
    job
}

/// A job that waits for a person.
pub fn failed() -> Job {
    Job { needs_you: true, ..ended(job("v0.1.2", &[(State::Swapping, "")]), State::Failed, Some("by hand")) }
}

/// `job`, ended in `state` with `error`.
pub fn ended(mut job: Job, state: State, error: Option<&str>) -> Job {
    let now = at(job.steps.len() as i64 * 10);
    if let (Some(error), true) = (error, state != State::Committed) {
        job.error = Some(error.into());
    }
    job.enter(state, now);
    job
}

/// The largest job the domain makes, and then some: every text at its cap, every byte escaped in JSON.
pub fn maximal(number: usize) -> Job {
    let mut job = job("v9.9.9", &[]);
    job.id = JobId(format!("job_{number:016x}"));
    job.error = Some("\u{1}".repeat(4096));
    job.steps = (0..14)
        .map(|_| Step {
            state: State::Migrating,
            started_at: at(0),
            completed_at: Some(at(1)),
            output: Some("\u{1}".repeat(16 * 1024)),
            error: Some("\u{1}".repeat(4096)),
            progress: None,
        })
        .collect();
    job
}

/// The real server over a script, in a thread of its own; stops when dropped.
pub struct Server {
    /// `http://127.0.0.1:<port>`
    pub url: String,
    pub script: Arc<Script>,
    shutdown: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(script: Script) -> Self {
        Self::on(&Listen::Tcp("127.0.0.1:0".parse().unwrap()), Arc::new(script))
    }

    pub fn on(listen: &Listen, script: Arc<Script>) -> Self {
        let shutdown = CancellationToken::new();
        let router = api::router(script.clone(), script.clone(), TOKEN.into());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let listener = {
            let _inside = runtime.enter();
            Listener::bind(listen).unwrap()
        };
        let address = listener.address().to_owned();
        let url = if address.starts_with("unix:") { address } else { format!("http://{address}") };
        let stop = shutdown.clone();
        let thread =
            Some(std::thread::spawn(move || runtime.block_on(api::serve(listener, router, &TOKEN.into(), stop))));
        Self { url, script, shutdown, thread }
    }

    /// The address it listens on, for one that comes after it.
    pub fn listen(&self) -> Listen {
        Listen::Tcp(self.url.trim_start_matches("http://").parse().unwrap())
    }

    /// Stops it and waits until the port is free.
    pub fn stop(mut self) {
        self.join();
    }

    fn join(&mut self) {
        self.shutdown.cancel();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.join();
    }
}
