//! The test bench: a world, a release, an updater.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use processgit_updater::clock::{Clock, TokioClock};
use processgit_updater::engine::label;
use processgit_updater::engine::seal::Seal;
use processgit_updater::engine::simulated::{
    Behaviour, Fate, Faults, Mate, NoFaults, Seed, Simulated, SimulatedTrust, World,
};
use processgit_updater::health::gate::GateSettings;
use processgit_updater::health::{HealthTarget, VersionAt};
use processgit_updater::release::{Asset, Channel, Release, ReleaseSource, SourceError};
use processgit_updater::store::Store;
use processgit_updater::trust::{Trust, TrustError};
use processgit_updater::update::job::{Job, JobId, State, Verified};
use processgit_updater::update::ports::{Entry, Journal, JournalError, Options, Owner, Ports, VerifiedDigest};
use processgit_updater::update::record::Record;
use processgit_updater::update::transition::{self, Effect};
use processgit_updater::update::{Order, Request, SubmitError, Updater};
use serde_json::{Value, json};

use crate::explorer::{Remains, Witness};
use crate::journal::Memory;

pub const KEY: &str = "PROCESSGIT_VERSION";
pub const ENV: &str = "# a comment\nPROCESSGIT_VERSION=1.0.0\nOTHER='x y'\n";
pub const DIGEST: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";

/// When every test begins.
pub const START: &str = "2026-01-03T00:00:00Z";

/// Of the first updater.
pub static SEAL: LazyLock<Seal> = LazyLock::new(|| Seal::new([1; 32]));

/// What a test starts with; the fields that differ are what the test is about.
#[derive(Clone)]
pub struct Scene {
    pub behaviour: Behaviour,
    pub migration: Option<&'static str>,
    pub has_data: bool,
    pub snapshots: bool,
    pub manifest: fn(&mut Value),
    /// The image's tag in the manifest, which `.env` will name.
    pub tag: &'static str,
    pub env: &'static str,
    pub restart_policy: &'static str,
    pub options: fn(&mut Options),
    /// The real journal instead of a quick one.
    pub sqlite: bool,
    /// What else is in the world from the beginning.
    pub world: fn(&mut World),
    /// Jobs that went well before.
    pub before: &'static [fn(&World) -> Order],
    /// What happened since.
    pub since: fn(&mut World),
    /// The job that the test is about.
    pub order: fn(&World) -> Order,
    /// What runs if an order by hand is committed, and with which data.
    pub by_hand: (&'static str, &'static str),
}

impl Default for Scene {
    fn default() -> Self {
        Self {
            behaviour: Behaviour::Good,
            migration: None,
            has_data: true,
            snapshots: true,
            manifest: |_| {},
            tag: "1.1.0",
            env: ENV,
            restart_policy: "unless-stopped",
            options: |_| {},
            sqlite: false,
            world: |_| {},
            before: &[],
            since: |_| {},
            order: update,
            by_hand: ("1.0.0", "written by 1.0.0"),
        }
    }
}

/// The application's container was made from this tag.
pub fn runs_as(world: &mut World, tag: &str) {
    let id = world.containers[0].image_id.clone();
    world.containers[0].image_ref = format!("ghcr.io/algomation-ai/processgit:{tag}");
    world.tags.insert(world.containers[0].image_ref.clone(), id);
}

/// The release that the scene offers: `v1.1.0`.
pub fn manifest(scene: &Scene) -> Value {
    let mut manifest = json!({
        "schema_version": 1, "name": "processgit", "version": "1.1.0", "tag": "v1.1.0",
        "released_at": "2026-01-02T03:04:05Z", "prerelease": false, "min_upgrade_from": null,
        "image": {"registry": "ghcr.io", "repository": "algomation-ai/processgit", "tag": scene.tag, "digest": DIGEST,
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
        let asset =
            Asset { name: "release.json".into(), size: self.0.len() as u64, url: String::new(), uploaded: true };
        Ok(Release {
            tag: tag.into(),
            name: tag.into(),
            prerelease: false,
            html_url: String::new(),
            published_at: None,
            remarks: vec![],
            assets: vec![asset],
        })
    }
    async fn fetch(&self, _: &Asset, _: usize) -> Result<Bytes, SourceError> {
        Ok(self.0.clone())
    }
}

/// Signatures have their own tests; here everything is genuine.
pub struct Trusting;

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
        self.manifest(&Bytes::new(), &BTreeMap::new()).await
    }
    fn agrees(&self, _: &str, _: &str) -> Result<(), TrustError> {
        Ok(())
    }
    fn describe(&self) -> String {
        "test".into()
    }
}

/// A journal that a dead process no longer writes to, and whose saves have their fate as calls have.
struct Mortal {
    journal: Arc<dyn Journal>,
    world: Simulated,
    faults: Arc<dyn Faults>,
}

fn name_of(entry: &Entry) -> &'static str {
    match entry {
        Entry::Accepted => "journal.accepted",
        Entry::Intent(_) => "journal.intent",
        Entry::Done(_) => "journal.done",
        Entry::Failed(..) => "journal.failed",
        Entry::Note(_) => "journal.note",
        Entry::Ended { .. } => "journal.ended",
    }
}

#[async_trait]
impl Journal for Mortal {
    async fn settle(&self, job: &Job) -> Result<(), JournalError> {
        self.journal.settle(job).await
    }
    async fn waiting(&self) -> Result<Vec<Job>, JournalError> {
        self.journal.waiting().await
    }
    async fn record(&self, id: &str) -> Result<Option<Record>, JournalError> {
        self.journal.record(id).await
    }
    async fn save(&self, job: &Job, record: &Record, entry: Entry) -> Result<(), JournalError> {
        if self.world.is_dead() {
            std::future::pending::<()>().await;
        }
        let name = name_of(&entry);
        let fate = self.faults.fate(name);
        if fate == Fate::DieBefore {
            self.world.kill();
            std::future::pending::<()>().await;
        }
        if matches!(fate, Fate::Go | Fate::Lose(_) | Fate::DieAfter | Fate::HangAfter) {
            self.journal.save(job, record, entry).await?;
            self.faults.done(name, &self.world.world());
        }
        match fate {
            Fate::Panic => panic!("{name} panics, as the test says"),
            Fate::DieAfter => {
                self.world.kill();
                std::future::pending().await
            }
            Fate::Go => Ok(()),
            _ => Err(JournalError::NoRoom("the disk is full".into())),
        }
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
    async fn verified(&self, digest: &str) -> Result<Vec<VerifiedDigest>, JournalError> {
        self.journal.verified(digest).await
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
    journal: Arc<dyn Journal>,
    /// The same, unless the scene wants the real one.
    memory: Arc<Memory>,
    clock: Arc<dyn Clock>,
    releases: Arc<OneRelease>,
    pub owner: Owner,
    /// The world before the last job.
    pub before: Mutex<Option<World>>,
}

impl Installation {
    pub fn new(scene: Scene) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(TokioClock::starting_at(START.parse().unwrap()));
        let seed = Seed {
            container: "processgit".into(),
            service: "processgit".into(),
            project: "test".into(),
            repository: "ghcr.io/algomation-ai/processgit".into(),
            version_key: KEY.into(),
            version: "1.0.0".into(),
            env: scene.env.as_bytes().to_vec(),
            has_data: scene.has_data,
            latency: Duration::ZERO,
        };
        let world = Simulated::new(seed, clock.clone(), Arc::new(NoFaults));
        world.world().behaviours.insert(DIGEST.into(), scene.behaviour);
        world.world().containers[0].restart_policy.name = scene.restart_policy.into();
        let releases = Arc::new(OneRelease(manifest(&scene).to_string().into()));
        (scene.world)(&mut world.world());
        let memory = Arc::new(Memory::default());
        let journal: Arc<dyn Journal> =
            if scene.sqlite { Arc::new(Store::in_memory().unwrap()) } else { memory.clone() };
        let owner = Owner { id: "first".into(), place: "host one, state folder /state".into(), seal: SEAL.clone() };
        Self { scene, world, journal, memory, clock, releases, owner, before: Mutex::default() }
    }

    /// Another journal, whatever the first one knew.
    #[must_use]
    pub fn with_journal(mut self, journal: Arc<dyn Journal>) -> Self {
        self.journal = journal;
        self
    }

    /// Watches the next life; `deaths` are those before it.
    pub fn watched(&self, deaths: u32) -> Arc<Witness> {
        Witness::of(self.memory.clone(), self.clock.clone(), deaths)
    }

    /// What would be left if everything ended now.
    pub fn remains(&self, after: &str, deaths: u32) -> Remains {
        let (world, disk) = (self.world.world().clone(), self.memory.disk().clone());
        Remains { world, disk, now: self.now(), after: after.to_owned(), deaths }
    }

    /// Siblings that are gone, and that `is_told` of, are no difference.
    pub fn bring_back(&self, is_told: impl Fn(&str) -> bool) {
        let before = self.before.lock().unwrap();
        let world = &mut self.world.world().containers;
        for sibling in before.iter().flat_map(|world| &world.containers) {
            if is_told(&sibling.name) && world.iter().all(|c| c.id != sibling.id) {
                world.push(sibling.clone());
            }
        }
    }

    /// The job has begun something that changes an application, which it had seen running.
    pub fn touched(&self, job: &JobId) -> bool {
        let disk = self.memory.disk();
        let record = disk.jobs.iter().find(|(known, _)| known.id == *job).map(|(_, record)| record);
        let touches = |e: &Effect| *e != Effect::Tidy && transition::too_late_to_abort(*e).is_some();
        let ran = |record: &Record| record.plan.as_ref().is_some_and(|plan| plan.previous.baseline.running);
        record.is_some_and(|record| ran(record) && record.begun.iter().any(touches))
    }

    /// The same installation, as a death has left it.
    pub fn from(&self, remains: &Remains) -> Self {
        let (memory, clock) = (Arc::new(Memory::of(remains.disk.clone())), remains.clock());
        Self {
            scene: self.scene.clone(),
            world: Simulated::resume(remains.world.clone(), clock.clone()),
            journal: memory.clone(),
            memory,
            clock,
            releases: self.releases.clone(),
            owner: self.owner.clone(),
            before: Mutex::new(self.before.lock().unwrap().clone()),
        }
    }

    /// Another updater with a state folder of its own, in the same world.
    pub fn another(&self) -> Self {
        let memory = Arc::new(Memory::default());
        Self {
            scene: self.scene.clone(),
            world: self.world.clone(),
            journal: memory.clone(),
            memory,
            clock: self.clock.clone(),
            releases: self.releases.clone(),
            owner: Owner {
                id: "second".into(),
                place: "host two, state folder /state".into(),
                seal: Seal::new([2; 32]),
            },
            before: Mutex::default(),
        }
    }

    /// As [`Installation::new`], and what comes before the scene's order has happened.
    pub async fn ready(scene: Scene) -> Self {
        let installation = Self::new(scene);
        let (updater, _) = installation.process(Arc::new(NoFaults)).await;
        for order in installation.scene.before {
            let order = order(&installation.world.world());
            let job = installation.submit_and_wait(&updater, order).await;
            assert_eq!(job.state, State::Committed, "{:?}", job.error);
        }
        (installation.scene.since)(&mut installation.world.world());
        installation
    }

    /// Submits, and remembers how the world was.
    pub async fn submit(&self, updater: &Updater, order: Order) -> Result<Job, SubmitError> {
        *self.before.lock().unwrap() = Some(self.world.world().clone());
        updater.submit(order).await
    }

    pub async fn submit_and_wait(&self, updater: &Updater, order: Order) -> Job {
        let job = self.submit(updater, order).await.expect("accepted");
        wait(updater, &job.id.0).await
    }

    /// The scene's order.
    pub fn order(&self) -> Order {
        (self.scene.order)(&self.world.world())
    }

    /// A process with this luck. It takes up what is unfinished.
    pub async fn process(&self, faults: Arc<dyn Faults>) -> (Updater, Simulated) {
        let (ports, options, world) = self.ports(faults);
        (Updater::start(ports, options).await.unwrap(), world)
    }

    /// What a process with this luck is made of.
    pub fn ports(&self, faults: Arc<dyn Faults>) -> (Ports, Options, Simulated) {
        let world = self.world.with_faults(faults.clone());
        let shared = Arc::new(world.clone());
        let ports = Ports {
            engine: shared.clone(),
            compose: shared.clone(),
            planned: shared.clone(),
            probe: shared.clone(),
            env: shared.clone(),
            place: shared.clone(),
            deputy: Arc::new(processgit_updater::helper::deputy::NoDeputy("not here")),
            data: if self.scene.snapshots { shared } else { Arc::new(processgit_updater::snapshot::NoSnapshots) },
            releases: self.releases.clone(),
            trust: Arc::new(SimulatedTrust::new(Arc::new(Trusting), world.clone())),
            journal: Arc::new(Mortal { journal: self.journal.clone(), world: world.clone(), faults: faults.clone() }),
            clock: self.clock.clone(),
        };
        let mut options = Options {
            snapshot_exclude: vec![],
            move_services: vec![],
            stop_services: vec![],
            data_services: vec![],
            data_elsewhere: vec![],
            hook_before_copy: None,
            hook_after_restore: None,
            command: "update",
            owner: self.owner.clone(),
            data_in: None,
            own_container: None,
            app_name: "processgit".into(),
            app_container: "processgit".into(),
            app_service: None,
            runs_as: None,
            others_version_key: "PROCESSGIT_UPDATER_VERSION".into(),
            version_key: KEY.into(),
            verify_image: true,
            migration_timeout: Duration::from_secs(60),
            health: GateSettings {
                timeout: Duration::from_secs(10),
                interval: Duration::from_secs(1),
                stable: Duration::from_secs(3),
                version: Some(VersionAt::Pointer("/version".into())),
                healthcheck_decides: false,
                to_the_end: false,
            },
            health_target: HealthTarget::Http("http://processgit:3000/".parse().unwrap()),
            stub: true,
        };
        (self.scene.options)(&mut options);
        (ports, options, world)
    }

    /// The scene's order under this luck, in one life.
    pub async fn run(&self, faults: Arc<dyn Faults>) -> Job {
        let (updater, _) = self.process(faults).await;
        self.submit_and_wait(&updater, self.order()).await
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

    pub fn clock(&self) -> Arc<dyn Clock> {
        self.clock.clone()
    }

    pub fn disk(&self) -> std::sync::MutexGuard<'_, crate::journal::Disk> {
        self.memory.disk()
    }

    pub async fn known_bad(&self, digest: &str) -> Option<String> {
        self.journal.known_bad(digest).await.unwrap()
    }

    pub async fn jobs(&self) -> Vec<Job> {
        self.journal.recent(50).await.unwrap()
    }
}

pub fn request() -> Request {
    Request { target_tag: "v1.1.0".into(), retry: true, accept_unwell: true, ..Request::default() }
}

/// The update to the release that there is.
pub fn update(_: &World) -> Order {
    Order::Update(request())
}

pub fn snapshot(_: &World) -> Order {
    Order::Snapshot { hot: false }
}

/// The oldest snapshot.
pub fn restore(world: &World) -> Order {
    let oldest = world.generations.values().map(|(info, _)| info).min_by_key(|info| info.created_at);
    Order::Restore { snapshot: oldest.expect("there is one").id.clone(), accept_drift: false, accept_partial: false }
}

pub fn rollback(_: &World) -> Order {
    Order::Rollback { with_data: true, accept_drift: false, accept_partial: false }
}

/// A service beside the application.
pub fn add_service(world: &mut World, name: &str, has_data: bool) {
    let mut c = world.containers[0].clone();
    c.id = format!("{name:c<64}");
    c.name = format!("test-{name}-1");
    c.labels.insert(label::SERVICE.into(), name.into());
    c.restart_policy.name = "always".into();
    if !has_data {
        c.mounts.clear();
    }
    world.containers.push(c);
}

/// An application whose volume has no name.
pub fn anonymous() -> Scene {
    Scene {
        world: |world| {
            world.anonymous_volumes = true;
            world.containers[0].mounts[0].name = "a".repeat(64);
        },
        ..Scene::default()
    }
}

/// An application with everything that may be moved together with it.
pub fn crewed() -> Scene {
    Scene {
        world: |world| {
            let now = world.containers[0].started_at.expect("the application runs");
            world.add_mate("init", Mate::Init, now);
            world.add_mate("worker", Mate::Worker, now);
            world.add_mate("lodger", Mate::Lodger, now);
        },
        options: |options| options.move_services = ["init", "worker", "lodger"].map(Into::into).to_vec(),
        ..Scene::default()
    }
}

/// Waits for the end; the paused clock makes it quick.
pub async fn wait(updater: &Updater, id: &str) -> Job {
    // The longest patience is two hours, for an engine that is away.
    for _ in 0..100_000 {
        let job = updater.job(id).await.expect("known");
        if job.state.is_end() {
            return (*job).clone();
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
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
