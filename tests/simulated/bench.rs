//! The test bench: a world, a release, an updater; and the invariants that hold whatever happened.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use processgit_updater::clock::{Clock, TokioClock};
use processgit_updater::engine::simulated::{
    Behaviour, Fate, Faults, NoFaults, Seed, Simulated, SimulatedTrust, World,
};
use processgit_updater::engine::{RunState, label};
use processgit_updater::envfile;
use processgit_updater::health::gate::GateSettings;
use processgit_updater::release::{Asset, Channel, Release, ReleaseSource, SourceError};
use processgit_updater::store::Store;
use processgit_updater::trust::{Trust, TrustError};
use processgit_updater::update::job::{Job, JobId, State, Verified};
use processgit_updater::update::ports::{Entry, Journal, JournalError, Options, Ports};
use processgit_updater::update::record::Record;
use processgit_updater::update::{Order, Request, Updater};
use serde_json::{Value, json};

pub const KEY: &str = "PROCESSGIT_VERSION";
pub const ENV: &str = "# a comment\nPROCESSGIT_VERSION=1.0.0\nOTHER='x y'\n";
pub const DIGEST: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";

/// What a test starts with; the fields that differ are what the test is about.
#[derive(Clone)]
pub struct Scene {
    pub behaviour: Behaviour,
    pub migration: Option<&'static str>,
    pub has_data: bool,
    pub snapshots: bool,
    pub manifest: fn(&mut Value),
    pub env: &'static str,
    pub restart_policy: &'static str,
}

impl Default for Scene {
    fn default() -> Self {
        Self {
            behaviour: Behaviour::Good,
            migration: None,
            has_data: true,
            snapshots: true,
            manifest: |_| {},
            env: ENV,
            restart_policy: "unless-stopped",
        }
    }
}

/// The release that the scene offers: `v1.1.0`.
pub fn manifest(scene: &Scene) -> Value {
    let mut manifest = json!({
        "schema_version": 1, "name": "processgit", "version": "1.1.0", "tag": "v1.1.0",
        "released_at": "2026-01-02T03:04:05Z", "prerelease": false, "min_upgrade_from": null,
        "image": {"registry": "ghcr.io", "repository": "algomation-ai/processgit", "tag": "1.1.0", "digest": DIGEST,
                  "platforms": ["linux/amd64", "linux/arm64"]},
        "signing": {"method": "cosign-keyless", "issuer": "https://token.actions.githubusercontent.com", "identity_regex": "^x$"},
        "release_notes_url": "https://example.org/notes",
        "migration": {"required": scene.migration.is_some(), "command": scene.migration},
        "breaking_changes": [], "deprecations": []
    });
    (scene.manifest)(&mut manifest);
    manifest
}

struct OneRelease(Bytes);

#[async_trait]
impl ReleaseSource for OneRelease {
    async fn latest(&self, _: Channel) -> Result<Release, SourceError> {
        self.by_tag("v1.1.0").await
    }
    async fn by_tag(&self, tag: &str) -> Result<Release, SourceError> {
        let asset = Asset { name: "release.json".into(), size: self.0.len() as u64, url: String::new() };
        Ok(Release {
            tag: tag.into(),
            name: tag.into(),
            prerelease: false,
            html_url: String::new(),
            published_at: None,
            assets: vec![asset],
        })
    }
    async fn fetch(&self, _: &Asset, _: usize) -> Result<Bytes, SourceError> {
        Ok(self.0.clone())
    }
}

/// Signatures have their own tests; here everything is genuine.
struct Trusting;

#[async_trait]
impl Trust for Trusting {
    fn carriers(&self) -> &'static [&'static str] {
        &[]
    }
    async fn manifest(&self, _: &Bytes, _: &BTreeMap<String, Bytes>) -> Result<Verified, TrustError> {
        Ok(Verified {
            subject: "manifest".into(),
            carrier: "test".into(),
            identity: "test".into(),
            issuer: None,
            log_index: None,
            integrated_time: None,
        })
    }
    async fn image(&self, _: &str, _: &str, _: &str) -> Result<Verified, TrustError> {
        unreachable!("the simulated trust answers for images")
    }
    fn agrees(&self, _: &str, _: &str) -> Result<(), TrustError> {
        Ok(())
    }
    fn describe(&self) -> String {
        "test".into()
    }
}

/// A journal that a dead process no longer writes to.
struct Mortal {
    journal: Arc<Store>,
    world: Simulated,
}

#[async_trait]
impl Journal for Mortal {
    async fn save(&self, job: &Job, record: &Record, entry: Entry) -> Result<(), JournalError> {
        if self.world.is_dead() {
            std::future::pending::<()>().await;
        }
        self.journal.save(job, record, entry).await
    }
    async fn unfinished(&self) -> Result<Vec<(Job, Record)>, JournalError> {
        self.journal.unfinished().await
    }
    async fn job(&self, id: &str) -> Result<Option<Job>, JournalError> {
        self.journal.job(id).await
    }
    async fn recent(&self, limit: usize) -> Result<Vec<Job>, JournalError> {
        self.journal.recent(limit).await
    }
    async fn count(&self) -> Result<usize, JournalError> {
        self.journal.count().await
    }
    async fn known_bad(&self, digest: &str) -> Result<Option<String>, JournalError> {
        self.journal.known_bad(digest).await
    }
    async fn last_committed(&self) -> Result<Option<(Job, Record)>, JournalError> {
        self.journal.last_committed().await
    }
    async fn highest_committed(&self) -> Result<Option<semver::Version>, JournalError> {
        self.journal.highest_committed().await
    }
    fn log(&self, job: &JobId, line: &str) {
        self.journal.log(job, line);
    }
    async fn read_log(&self, job: &str, offset: u64, cap: usize) -> Result<Vec<u8>, JournalError> {
        self.journal.read_log(job, offset, cap).await
    }
}

/// One installation: its world and its journal survive the processes that work on them.
pub struct Installation {
    pub scene: Scene,
    pub world: Simulated,
    journal: Arc<Store>,
    clock: Arc<dyn Clock>,
    releases: Arc<OneRelease>,
}

impl Installation {
    pub fn new(scene: Scene) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(TokioClock::starting_at("2026-01-03T00:00:00Z".parse().unwrap()));
        let seed = Seed {
            container: "processgit".into(),
            service: "processgit".into(),
            project: "test".into(),
            repository: "ghcr.io/algomation-ai/processgit".into(),
            version_key: KEY.into(),
            version: "1.0.0".into(),
            env: scene.env.as_bytes().to_vec(),
            has_data: scene.has_data,
            latency: Duration::from_millis(1),
        };
        let world = Simulated::new(seed, clock.clone(), Arc::new(NoFaults));
        world.world().behaviours.insert(DIGEST.into(), scene.behaviour);
        world.world().containers[0].restart_policy.name = scene.restart_policy.into();
        let releases = Arc::new(OneRelease(manifest(&scene).to_string().into()));
        Self { scene, world, journal: Arc::new(Store::in_memory().unwrap()), clock, releases }
    }

    /// A process with this luck. It takes up what is unfinished.
    pub async fn process(&self, faults: Arc<dyn Faults>) -> (Updater, Simulated) {
        let world = self.world.with_faults(faults);
        let shared = Arc::new(world.clone());
        let ports = Ports {
            engine: shared.clone(),
            compose: shared.clone(),
            probe: shared.clone(),
            env: shared.clone(),
            data: if self.scene.snapshots { shared } else { Arc::new(processgit_updater::snapshot::NoSnapshots) },
            releases: self.releases.clone(),
            trust: Arc::new(SimulatedTrust::new(Arc::new(Trusting), world.clone())),
            journal: Arc::new(Mortal { journal: self.journal.clone(), world: world.clone() }),
            clock: self.clock.clone(),
        };
        let options = Options {
            snapshot_exclude: vec![],
            stop_services: vec![],
            hook_before_copy: None,
            hook_after_restore: None,
            own_container: None,
            app_name: "processgit".into(),
            app_container: "processgit".into(),
            app_service: None,
            version_key: KEY.into(),
            verify_image: true,
            migration_timeout: Duration::from_secs(60),
            health: GateSettings {
                timeout: Duration::from_secs(20),
                interval: Duration::from_secs(1),
                stable: Duration::from_secs(3),
                version: Some("/version".into()),
            },
            stub: true,
        };
        (Updater::start(ports, options).await.unwrap(), world)
    }

    /// A whole update under this luck, in one life.
    pub async fn update(&self, faults: Arc<dyn Faults>) -> Job {
        let (updater, _) = self.process(faults).await;
        submit_and_wait(&updater, request()).await
    }

    /// As if this version had run here once.
    pub async fn committed_before(&self, version: &str) {
        let mut job = Job::new(JobId("job_0000000000000001".into()), format!("v{version}"), self.now(), true);
        job.enter(State::Committed, self.now());
        let entry = Entry::Ended { bad_digest: None, committed: Some(version.parse().unwrap()) };
        self.journal.save(&job, &Record::new(job.id.clone(), Order::Update(request())), entry).await.unwrap();
    }

    pub fn now(&self) -> jiff::Timestamp {
        self.clock.now()
    }

    pub async fn jobs(&self) -> Vec<Job> {
        self.journal.recent(50).await.unwrap()
    }
}

pub fn request() -> Request {
    Request { target_tag: "v1.1.0".into(), allow_downgrade: false, accept_drift: false, retry: true }
}

pub async fn submit_and_wait(updater: &Updater, request: Request) -> Job {
    let job = updater.submit(Order::Update(request)).await.expect("accepted");
    wait(updater, &job.id.0).await
}

/// Waits for the end; the paused clock makes it quick.
pub async fn wait(updater: &Updater, id: &str) -> Job {
    for _ in 0..200_000 {
        let job = updater.job(id).await.expect("known");
        if job.state.is_end() {
            return (*job).clone();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the job does not end: {:?}", updater.job(id).await);
}

/// The named call has this fate at its nth occurrence, counted from one; everything else goes well.
pub struct At {
    pub call: String,
    pub nth: usize,
    pub fate: Fate,
    seen: Mutex<usize>,
}

impl At {
    pub fn nth(call: &str, nth: usize, fate: Fate) -> Arc<Self> {
        Arc::new(Self { call: call.into(), nth, fate, seen: Mutex::new(0) })
    }
}

impl Faults for At {
    fn fate(&self, name: &str) -> Fate {
        if name != self.call {
            return Fate::Go;
        }
        let mut seen = self.seen.lock().unwrap();
        *seen += 1;
        if *seen == self.nth { self.fate.clone() } else { Fate::Go }
    }
}

/// Writes down which calls a run makes, in order.
#[derive(Default)]
pub struct Recorder(pub Mutex<Vec<String>>);

impl Faults for Recorder {
    fn fate(&self, name: &str) -> Fate {
        self.0.lock().unwrap().push(name.to_owned());
        Fate::Go
    }
}

/// Every call of a run as (name, nth occurrence).
pub fn occurrences(calls: &[String]) -> Vec<(String, usize)> {
    let mut counts = BTreeMap::new();
    calls
        .iter()
        .map(|name| {
            let n = counts.entry(name.clone()).or_insert(0);
            *n += 1;
            (name.clone(), *n)
        })
        .collect()
}

/// What must hold after every end, whatever happened on the way. `context` names the case.
pub fn assert_invariants(installation: &Installation, job: &Job, context: &str) {
    let world = installation.world.world();
    assert!(job.state.is_end(), "{context}: {job:?}");
    assert_eq!(job.steps.last().map(|s| s.state), Some(job.state), "{context}: the end is the last step");
    if job.state == State::Failed {
        let error = job.error.as_deref().unwrap_or_default();
        assert!(
            error.contains("by hand") || error.contains("data was not restored"),
            "{context}: a failed job says what to do: {error}"
        );
        return;
    }
    let apps: Vec<_> = world.containers.iter().filter(|c| c.labels.contains_key(label::SERVICE)).collect();
    assert_eq!(apps.len(), 1, "{context}: one application: {apps:#?}");
    let app = apps[0];
    assert_eq!(app.name, "processgit", "{context}: under its own name");
    assert_eq!(app.state, RunState::Running, "{context}: it runs");
    assert_eq!(
        app.restart_policy.name,
        if app.id.ends_with("01") { installation.scene.restart_policy } else { "unless-stopped" },
        "{context}: its restart policy"
    );
    let value = envfile::get(world.env.as_deref().unwrap_or_default(), KEY);
    let image = &world.images[&app.image_id];
    match job.state {
        State::Committed => {
            assert_eq!(value.as_deref(), Some("1.1.0"), "{context}");
            assert_eq!(image.digest, DIGEST, "{context}");
        }
        State::RolledBack => {
            assert_eq!(world.env.as_deref(), Some(installation.scene.env.as_bytes()), "{context}: .env byte for byte");
            assert_eq!(image.version, "1.0.0", "{context}");
            assert_data_restored(installation, &world, context);
            assert!(
                !world.tags.contains_key("ghcr.io/algomation-ai/processgit:1.1.0"),
                "{context}: no tag left behind"
            );
        }
        _ => panic!("{context}: {job:?}"),
    }
    let ours: Vec<_> = world.containers.iter().filter(|c| c.labels.contains_key(label::JOB)).map(|c| &c.name).collect();
    assert!(ours.is_empty(), "{context}: nothing of ours is left behind: {ours:?}");
}

fn assert_data_restored(installation: &Installation, world: &World, context: &str) {
    if installation.scene.has_data && installation.scene.snapshots {
        assert_eq!(world.data, "written by 1.0.0", "{context}: the data is what it was");
    }
}
