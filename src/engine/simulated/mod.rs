//! A small world with images, containers, Compose, `.env`, data and an application: the product's stub
//! mode, and the tests' double.
//!
//! It behaves as the real one was seen to behave, half-done swaps included: `up` consists of the steps
//! that Compose takes, and a process may die between any two of them. Tests inject faults at any call by
//! its name, see [`Faults`].

mod application;
mod compose;
mod engine;
mod faults;
mod operator;
mod stores;

pub use application::SimulatedTrust;
pub use compose::is_edited;
pub use faults::{Fate, Faults, NoFaults};
pub use operator::STRANGER;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use super::{Container, EngineError, Healthcheck, Image, Mount, MountKind, RestartPolicy, RunState, Written, label};
use crate::clock::Clock;
use crate::helper::wire::Failure;
use crate::reference::{Reference, is_same_repository};
use crate::update::plan::strings;
use crate::update::ports::SnapshotInfo;

/// How an image's application behaves when it is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Behaviour {
    #[default]
    Good,
    /// Exits at once, again and again.
    Crashes,
    /// Runs, and answers 500.
    Answers500,
    /// Good, but its migration exits with code 1.
    MigrationFails,
    /// Good, but its migration never ends.
    MigrationHangs,
    /// Good, but as a worker beside the application it crashes.
    WorkerCrashes,
    /// Good, but as an init service it exits with code 1.
    InitFails,
}

/// What a service of the same image beside the application is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mate {
    /// It runs once, before the application.
    Init,
    /// It needs the application, and has the same data.
    Worker,
    /// It lives in the application's namespaces.
    Lodger,
}

/// A service of the same image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrewService {
    pub service: String,
    pub is: Mate,
}

impl CrewService {
    /// The application depends on it; otherwise it depends on the application.
    fn is_needed(&self) -> bool {
        self.is == Mate::Init
    }
}

/// What the world starts with.
#[derive(Debug, Clone)]
pub struct Seed {
    pub container: String,
    pub service: String,
    pub project: String,
    /// `registry/repository`
    pub repository: String,
    pub version_key: String,
    /// What runs.
    pub version: String,
    pub env: Vec<u8>,
    /// The application has a volume.
    pub has_data: bool,
    /// How long every call takes; nothing is: at once, after everybody else had a turn.
    pub latency: Duration,
}

/// The world, shared by everybody who plays a part in it.
#[derive(Clone)]
pub struct Simulated {
    world: Arc<Mutex<World>>,
    clock: Arc<dyn Clock>,
    faults: Arc<dyn Faults>,
    latency: Duration,
    /// Becomes true when a call's fate was death: from then on nothing that this process asks returns.
    dead: Arc<tokio::sync::watch::Sender<bool>>,
}

/// The state of the world. Public to tests, which judge it.
#[derive(Debug, Clone)]
pub struct World {
    pub seed: Seed,
    /// What every image carries beside its version.
    pub image_labels: BTreeMap<String, String>,
    pub images: BTreeMap<String, SimImage>,
    /// `repository:tag` or `repository@digest` → image id.
    pub tags: BTreeMap<String, String>,
    pub containers: Vec<Container>,
    /// Services beside the application that Compose makes of the same image.
    pub crew: Vec<CrewService>,
    pub env: Option<Vec<u8>>,
    /// What is in the application's volume.
    pub data: String,
    /// What is in the volumes of services beside the application that hold data of their own, by service.
    pub stores: BTreeMap<String, String>,
    /// The stores' part of each snapshot.
    pub kept_stores: BTreeMap<String, BTreeMap<String, String>>,
    /// Snapshots: what they are, and the data they hold.
    pub generations: BTreeMap<String, (SnapshotInfo, String)>,
    /// The application's volume has no name, but that of the engine's.
    pub anonymous_volumes: bool,
    /// Somebody has written more into the Compose file than there was: whatever is made of it says so.
    pub edited: bool,
    /// The Compose file, with its variables.
    pub written: Written,
    /// The commands of hooks that were run, in order.
    pub hooks_run: Vec<String>,
    /// How images that are pulled will behave, by digest.
    pub behaviours: BTreeMap<String, Behaviour>,
    /// Moments at which two versions ran on the same data, and it was not a person who brought that about.
    pub clashes: Vec<String>,
    /// Services that the application depends on, beside its crew, and how long each takes after its start until
    /// its HEALTHCHECK says that it is well.
    pub needs: BTreeMap<String, Duration>,
    /// The variables that the Compose file gives to services.
    pub environments: BTreeMap<String, BTreeMap<String, String>>,
    /// Moments at which the application was started while something that it needs was not ready, and it was
    /// neither a person nor the engine after a restart of its own who did it.
    pub hasty: Vec<String>,
    /// Services with `post_start` and `pre_stop` commands.
    pub commands: BTreeSet<String>,
    /// Moments at which such a service was started or stopped without its commands, and it was neither a person nor the
    /// engine after a restart of its own who did it.
    pub without_commands: Vec<String>,
    /// A person is at work.
    by_hand: bool,
    /// The engine starts again what ran.
    restarting: bool,
    /// The version that the next pull brings, of a digest that was never here.
    pub wanted_version: String,
    /// The versions of all that was ever here, by digest.
    versions: BTreeMap<String, String>,
    serial: u64,
}

#[derive(Debug, Clone)]
pub struct SimImage {
    pub digest: String,
    pub repository: String,
    pub version: String,
    pub behaviour: Behaviour,
}

impl Simulated {
    pub fn new(seed: Seed, clock: Arc<dyn Clock>, faults: Arc<dyn Faults>) -> Self {
        let latency = seed.latency;
        let world = World::new(seed, clock.now());
        Self { world: Arc::new(Mutex::new(world)), clock, faults, latency, dead: Arc::default() }
    }

    /// Goes on from a world as it was.
    pub fn resume(world: World, clock: Arc<dyn Clock>) -> Self {
        let latency = world.seed.latency;
        Self { world: Arc::new(Mutex::new(world)), clock, faults: Arc::new(NoFaults), latency, dead: Arc::default() }
    }

    /// The same world, met by other luck: what a restarted process sees.
    #[must_use]
    pub fn with_faults(&self, faults: Arc<dyn Faults>) -> Self {
        Self { faults, dead: Arc::default(), ..self.clone() }
    }

    /// Returns when a call was told to die.
    pub async fn death(&self) {
        let _ = self.dead.subscribe().wait_for(|dead| *dead).await;
    }

    /// The process has died: it does nothing any more.
    pub fn is_dead(&self) -> bool {
        *self.dead.borrow()
    }

    /// It does nothing from now on.
    pub fn kill(&self) {
        self.dead.send_replace(true);
    }

    /// The world as it is.
    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One call: its latency, its fate, its work.
    async fn call<T, E: From<String> + From<Failure>>(
        &self,
        name: &str,
        work: impl FnOnce(&mut World) -> Result<T, E>,
    ) -> Result<T, E> {
        if self.latency.is_zero() {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(self.latency).await;
        }
        if self.is_dead() {
            return std::future::pending().await;
        }
        self.faults.meanwhile(name, &mut self.world());
        let work = || {
            let mut world = self.world();
            let done = work(&mut world);
            self.faults.done(name, &world);
            done
        };
        match self.faults.fate(name) {
            Fate::Go => work(),
            Fate::Fail(why) => Err(E::from(why)),
            Fate::FailAs(failure) => Err(E::from(failure)),
            Fate::Away => Err(E::from(AWAY.to_owned())),
            Fate::Lose(why) => work().and(Err(E::from(why))),
            Fate::Hang => self.no_answer().await,
            Fate::HangAfter => {
                let _ = work();
                self.no_answer().await
            }
            #[allow(clippy::panic, reason = "on request of a test")]
            Fate::Panic => panic!("{name} panics, as the test says"),
            Fate::DieBefore => self.die().await,
            Fate::DieAfter => {
                let _ = work();
                self.die().await
            }
        }
    }

    /// What a real adapter makes of a call that never returns.
    async fn no_answer<T, E: From<String>>(&self) -> Result<T, E> {
        tokio::time::sleep(DEADLINE).await;
        if self.is_dead() {
            return std::future::pending().await;
        }
        Err(E::from(AWAY.to_owned()))
    }

    async fn die<T>(&self) -> T {
        self.kill();
        std::future::pending().await
    }
}

/// The deadline of a call, as the real adapters have it.
const DEADLINE: Duration = Duration::from_secs(60);

/// How an engine that is away is told apart from one that refuses.
const AWAY: &str = "connection refused";

impl From<String> for EngineError {
    fn from(why: String) -> Self {
        if why == AWAY { Self::Unreachable(why) } else { Self::Failed(why) }
    }
}

impl World {
    fn new(seed: Seed, now: Timestamp) -> Self {
        let mut world = Self {
            env: Some(seed.env.clone()),
            data: format!("written by {}", seed.version),
            images: BTreeMap::new(),
            tags: BTreeMap::new(),
            containers: Vec::new(),
            crew: Vec::new(),
            stores: BTreeMap::new(),
            kept_stores: BTreeMap::new(),
            generations: BTreeMap::new(),
            anonymous_volumes: false,
            edited: false,
            written: Written::default(),
            hooks_run: Vec::new(),
            behaviours: BTreeMap::new(),
            image_labels: BTreeMap::new(),
            clashes: Vec::new(),
            needs: BTreeMap::new(),
            environments: BTreeMap::new(),
            hasty: Vec::new(),
            commands: BTreeSet::new(),
            without_commands: Vec::new(),
            by_hand: false,
            restarting: false,
            wanted_version: String::new(),
            versions: BTreeMap::new(),
            serial: 0,
            seed,
        };
        let digest = format!("sha256:{:0>64}", "0ld");
        let reference = format!("{}:{}", world.seed.repository, world.seed.version);
        let version = world.seed.version.clone();
        let id = world.add_image(&digest, &world.seed.repository.clone(), &version);
        world.tags.insert(familiar(&reference), id.clone());
        let (service, name) = (world.seed.service.clone(), world.seed.container.clone());
        let container = world.make_service(&service, &name, &reference, &id);
        world.containers.push(container);
        world.start_at(0, now);
        world
    }

    /// Another service of the same image, which has been started.
    pub fn add_mate(&mut self, service: &str, is: Mate, now: Timestamp) {
        self.crew.push(CrewService { service: service.to_owned(), is });
        let application = &self.containers[0];
        let (reference, image) = (application.image_ref.clone(), application.image_id.clone());
        let container = self.make_service(service, &self.name_of(service), &reference, &image);
        self.containers.push(container);
        self.start_at(self.containers.len() - 1, now);
    }

    fn mate(&self, service: &str) -> Option<Mate> {
        self.crew.iter().find(|mate| mate.service == service).map(|mate| mate.is)
    }

    pub(super) fn name_of(&self, service: &str) -> String {
        if service == self.seed.service {
            return self.seed.container.clone();
        }
        format!("{}-{service}-1", self.seed.project)
    }

    /// The next update is to `version` of `repository`: what runs is from there too.
    pub fn expect(&mut self, repository: &str, version: &str) {
        version.clone_into(&mut self.wanted_version);
        // The Compose file may spell it in another way.
        if is_same_repository(&self.seed.repository, repository) {
            return;
        }
        let former = std::mem::replace(&mut self.seed.repository, repository.to_owned());
        let renamed = |name: &String| name.strip_prefix(&former).map(|rest| format!("{repository}{rest}"));
        let tag = |name: String| familiar(&renamed(&name).unwrap_or(name));
        self.tags = std::mem::take(&mut self.tags).into_iter().map(|(name, id)| (tag(name), id)).collect();
        for container in &mut self.containers {
            if let Some(name) = renamed(&container.image_ref) {
                container.image_ref = name;
            }
        }
    }

    fn serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// Adds an image under its digest; returns its id, which is not the digest, as on the classic store.
    fn add_image(&mut self, digest: &str, repository: &str, version: &str) -> String {
        let id = format!("sha256:{}", blake3::hash(digest.as_bytes()).to_hex());
        let behaviour = self.behaviours.get(digest).copied().unwrap_or_default();
        let version = self.versions.entry(digest.into()).or_insert_with(|| version.to_owned()).clone();
        let image = SimImage { digest: digest.into(), repository: repository.into(), version, behaviour };
        self.images.insert(id.clone(), image);
        self.tags.insert(familiar(&format!("{repository}@{digest}")), id.clone());
        id
    }

    /// The image's id, by id or by any of its names.
    pub fn resolve(&self, reference: &str) -> Option<String> {
        if self.images.contains_key(reference) {
            return Some(reference.to_owned());
        }
        self.tags.get(&familiar(reference)).filter(|id| self.images.contains_key(*id)).cloned()
    }

    fn describe(&self, id: &str) -> Option<Image> {
        let image = self.images.get(id)?;
        let names = |digest: bool| {
            self.tags
                .iter()
                .filter(|(name, of)| *of == id && name.contains('@') == digest)
                .map(|(n, _)| n.clone())
                .collect()
        };
        Some(Image {
            id: id.to_owned(),
            repo_digests: names(true),
            repo_tags: names(false),
            labels: self.labels_of(&image.version),
            platform: PLATFORM.to_owned(),
            raw: serde_json::Value::Null,
        })
    }

    fn labels_of(&self, version: &str) -> BTreeMap<String, String> {
        let version = [("org.opencontainers.image.version".to_owned(), version.to_owned())];
        self.image_labels.clone().into_iter().chain(version).collect()
    }

    fn compose_labels(&self, service: &str) -> BTreeMap<String, String> {
        let seed = &self.seed;
        [
            (label::PROJECT, seed.project.as_str()),
            (label::SERVICE, service),
            (label::WORKING_DIR, "/simulated"),
            (label::CONFIG_FILES, compose::OWN_FILE),
            (label::ONEOFF, "False"),
            (label::CONFIG_HASH, "0"),
        ]
        .into_iter()
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect()
    }

    fn make(&mut self, name: &str, reference: &str, image: &str, labels: BTreeMap<String, String>) -> Container {
        let id = format!("{:064x}", self.serial());
        let volume = Mount {
            kind: MountKind::Volume,
            name: if self.anonymous_volumes { id.clone() } else { "data".into() },
            source: "/simulated/volumes/data".into(),
            destination: "/data".into(),
            writable: true,
            subpath: String::new(),
        };
        Container {
            id,
            name: name.to_owned(),
            image_ref: reference.to_owned(),
            image_id: image.to_owned(),
            state: RunState::Created,
            exit_code: 0,
            started_at: None,
            created_at: None,
            restart_count: 0,
            healthcheck: Healthcheck::None,
            healthcheck_seconds: 0,
            restart_policy: RestartPolicy { name: "unless-stopped".into(), maximum_retry_count: 0 },
            labels,
            mounts: if self.seed.has_data { vec![volume] } else { Vec::new() },
            networks: [("simulated_default".to_owned(), String::new())].into(),
            network_mode: "simulated_default".into(),
            raw: serde_json::Value::Null,
        }
    }

    fn find(&self, name_or_id: &str) -> Option<usize> {
        self.containers.iter().position(|c| c.id == name_or_id || c.name == name_or_id)
    }

    /// The container as an inspection finds it: a crashing application restarts as time goes by.
    fn inspect(&self, at: usize, now: Timestamp) -> Container {
        let mut c = self.containers[at].clone();
        let is_worker = c.label(label::SERVICE).and_then(|service| self.mate(service)) == Some(Mate::Worker);
        let crashes = self.images.get(&c.image_id).is_some_and(|i| match i.behaviour {
            Behaviour::Crashes => true,
            Behaviour::WorkerCrashes => is_worker,
            _ => false,
        });
        if crashes && c.state == RunState::Running {
            let lived = c.started_at.map_or(0, |s| now.duration_since(s).as_millis());
            c.exit_code = 1;
            if c.restart_policy.name == "no" {
                c.state = RunState::Exited;
            } else {
                c.state = RunState::Restarting;
                // The engine doubles its pause; a steady one is good enough here.
                c.restart_count = i64::try_from(lived / 200).unwrap_or(i64::MAX);
            }
        }
        if let Some(wanted) = c.label(label::SERVICE).and_then(|service| self.needs.get(service)) {
            let lived = c.started_at.map_or(0, |s| now.duration_since(s).as_millis());
            let is_well = c.state == RunState::Running && u128::try_from(lived).unwrap_or(0) >= wanted.as_millis();
            c.healthcheck = if is_well { Healthcheck::Healthy } else { Healthcheck::Starting };
        }
        c
    }

    /// Nobody can live in the namespaces of a container that does not run.
    fn can_start(&self, at: usize) -> bool {
        let runs = |id: &str| self.find(id).is_some_and(|at| self.containers[at].state == RunState::Running);
        self.containers[at].lives_in().into_iter().all(runs)
    }

    /// Starting has consequences: the application writes its data, a migration changes it and exits, and so
    /// does a hook, well unless it is `false`.
    fn start_at(&mut self, at: usize, now: Timestamp) {
        let image = self.images.get(&self.containers[at].image_id).cloned();
        let role = self.containers[at].labels.get(label::ROLE).cloned();
        let mate = self.containers[at].label(label::SERVICE).and_then(|service| self.mate(service));
        if self.containers[at].state == RunState::Running {
            return;
        }
        self.note_clash(at);
        self.note_haste(at, now);
        let c = &mut self.containers[at];
        c.state = RunState::Running;
        // No two starts are alike, however quick they follow.
        self.serial += 1;
        let serial = jiff::SignedDuration::from_nanos(i64::try_from(self.serial).unwrap_or(i64::MAX));
        c.started_at = now.checked_add(serial).ok();
        c.restart_count = 0;
        c.exit_code = 0;
        let Some(image) = image else { return };
        match (role.as_deref(), image.behaviour) {
            (Some("migration"), behaviour) => {
                self.data.push_str(&format!(", migrated by {}", image.version));
                if behaviour != Behaviour::MigrationHangs {
                    c.state = RunState::Exited;
                    c.exit_code = i64::from(behaviour == Behaviour::MigrationFails);
                }
                self.change_stores(&format!(", migrated by {}", image.version));
            }
            (Some("hook"), _) => {
                let command = strings(&c.raw["Config"]["Cmd"]);
                c.state = RunState::Exited;
                c.exit_code = i64::from(command.first().is_some_and(|program| program == "false"));
                self.hooks_run.push(command.join(" "));
            }
            _ if mate == Some(Mate::Init) => {
                c.state = RunState::Exited;
                c.exit_code = i64::from(image.behaviour == Behaviour::InitFails);
            }
            // A version finds its own data; another one leaves its mark.
            _ if self.data.starts_with(&format!("written by {}", image.version))
                || self.data.ends_with(&format!("written by {}", image.version)) => {}
            _ => {
                self.data.push_str(&format!(", written by {}", image.version));
                self.change_stores(&format!(", written by {}", image.version));
            }
        }
    }

    /// The engine starts or stops it, and knows nothing of commands that Compose would run.
    pub(super) fn note_without_commands(&mut self, at: usize, done: &str) {
        let c = &self.containers[at];
        let Some(service) = c.label(label::SERVICE) else { return };
        if !self.by_hand && self.commands.contains(service) {
            self.without_commands.push(format!("{} was {done}", c.name));
        }
    }

    /// Another version runs on the same data.
    fn note_clash(&mut self, at: usize) {
        let is_version = |c: &Container| {
            let of_application = c.label(label::SERVICE) == Some(&self.seed.service);
            of_application || c.label(label::ROLE) == Some("migration")
        };
        let started = &self.containers[at];
        if self.by_hand || !is_version(started) || !started.mounts.iter().any(|m| m.writable) {
            return;
        }
        let other = |c: &&Container| {
            c.id != started.id && c.state == RunState::Running && is_version(c) && c.image_id != started.image_id
        };
        if let Some(other) = self.containers.iter().find(other) {
            self.clashes.push(format!("{} was started while {} ran", started.name, other.name));
        }
    }

    /// The application was started while something that it depends on was not ready: a real one crashes.
    fn note_haste(&mut self, at: usize, now: Timestamp) {
        let started = &self.containers[at];
        let is_migration = started.label(label::ROLE) == Some("migration");
        let needs_them = is_migration || started.label(label::SERVICE) == Some(&self.seed.service);
        if self.by_hand || self.restarting || !needs_them {
            return;
        }
        let is_ready = |service: &String| {
            let of_service =
                (0..self.containers.len()).find(|at| self.containers[*at].label(label::SERVICE) == Some(service));
            of_service.is_none_or(|at| self.inspect(at, now).healthcheck == Healthcheck::Healthy)
        };
        if let Some(service) = self.needs.keys().find(|service| !is_ready(service)) {
            self.hasty.push(format!("{} was started before {service} was ready", started.name));
        }
    }

    /// The machine or the engine restarts: everything ends; what ran is started again if its policy wants
    /// it, and so is what was stopped and is `always` wanted.
    pub fn restart_engine(&mut self, now: Timestamp) {
        for at in 0..self.containers.len() {
            let c = &self.containers[at];
            let wanted = match c.restart_policy.name.as_str() {
                "always" => c.state != RunState::Created,
                "unless-stopped" => c.state == RunState::Running,
                _ => false,
            };
            if c.state != RunState::Created {
                self.containers[at].state = RunState::Exited;
            }
            if wanted && self.can_start(at) {
                self.restarting = true;
                self.start_at(at, now);
                self.restarting = false;
            }
        }
    }
}

/// The engine lists an image under one name, whatever name it was asked by.
fn familiar(reference: &str) -> String {
    Reference::parse(reference).map_or_else(|_| reference.to_owned(), |parsed| parsed.familiar())
}

/// The simulated engine's platform is this machine's.
const PLATFORM: &str = if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" };
