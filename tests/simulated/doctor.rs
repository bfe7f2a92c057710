//! The doctor: everything broken once, by a row. A good deployment has nothing to tell, and one fault is one
//! finding, which names the thing, its value and the remedy.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use clap::Parser;
use jiff::Timestamp;
use processgit_updater::clock::TokioClock;
use processgit_updater::doctor::around::{Around, Holder, Socket, StateFolder};
use processgit_updater::doctor::{Doctor, Examine, Report, Verdict};
use processgit_updater::engine::simulated::{Fate, Faults, NoFaults, World};
use processgit_updater::engine::{EngineError, EngineFacts, RunState, Volume, label};
use processgit_updater::helper::own::OwnContainer;
use processgit_updater::helper::wire::Failure;
use processgit_updater::registry::RegistryError;
use processgit_updater::release::SourceError;
use processgit_updater::release::github::Reach;
use processgit_updater::settings::{Fault, ServeArgs, Settings};
use processgit_updater::trust::judge::TrustState;
use processgit_updater::update::job::{Job, JobId};
use processgit_updater::update::ports::{Entry, Ports};
use processgit_updater::update::record::Record;

use Verdict::{Bad, Warning};

use crate::bench::{At, Installation, Scene, request};
use crate::doctor_rows::label_one;
use processgit_updater::update::Order;

/// All is well around the process, unless a row says otherwise.
#[derive(Clone)]
pub struct Surroundings {
    pub facts: Result<EngineFacts, EngineError>,
    pub refused: Vec<String>,
    pub state: StateFolder,
    pub trust: Result<TrustState, String>,
    pub reach: Result<Reach, SourceError>,
    pub has_image: Result<bool, RegistryError>,
}

impl Surroundings {
    fn at(now: Timestamp) -> Self {
        let trust = TrustState { policy: "keyless".into(), keyless: true, since: Some(now), ..TrustState::default() };
        Self {
            facts: Ok(EngineFacts { rootless: false, storage: "overlay2".into(), time: Some(now) }),
            refused: vec![],
            state: StateFolder {
                exists: true,
                unwritable: None,
                holder: Holder::Us,
                unreadable: None,
                free: Some(1 << 40),
            },
            trust: Ok(trust),
            reach: Ok(Reach { date: Some(now), remaining: Some(59), limit: Some(60), resets: None }),
            has_image: Ok(true),
        }
    }
}

#[async_trait]
impl Around for Surroundings {
    async fn socket(&self) -> Option<Socket> {
        None
    }
    async fn engine(&self) -> Result<EngineFacts, EngineError> {
        self.facts.clone()
    }
    async fn refused_calls(&self) -> Result<Vec<String>, EngineError> {
        Ok(self.refused.clone())
    }
    async fn volumes_called(&self, _: &str) -> Result<Vec<Volume>, EngineError> {
        Ok(vec![])
    }
    async fn own(&self) -> Result<Option<Arc<OwnContainer>>, EngineError> {
        Ok(None)
    }
    fn orphans(&self) -> Vec<PathBuf> {
        vec![]
    }
    async fn state(&self) -> StateFolder {
        self.state.clone()
    }
    fn trust(&self) -> Result<TrustState, String> {
        self.trust.clone()
    }
    async fn reach(&self) -> Result<Reach, SourceError> {
        self.reach.clone()
    }
    async fn has_image(&self, _: &str, _: &str, _: &str) -> Result<bool, RegistryError> {
        self.has_image.clone()
    }
}

#[derive(Parser)]
struct Serve {
    #[command(flatten)]
    args: ServeArgs,
}

fn settings(flags: &[&str]) -> (Settings, Vec<Fault>) {
    let usual = ["--token=0123456789abcdef", "--stub=false", "--github-api=https://api.example"];
    let is_given = |flag: &&&str| flags.iter().any(|given| given.split('=').next() == flag.split('=').next());
    let all = ["serve"].iter().chain(usual.iter().filter(|flag| !is_given(flag))).chain(flags);
    let args = Serve::try_parse_from(all).unwrap().args;
    args.settings_as_far_as_they_go().unwrap()
}

/// Everything that a row may break.
pub struct Case {
    pub scene: Scene,
    pub faults: Arc<dyn Faults>,
    pub flags: &'static [&'static str],
    pub names: &'static [&'static str],
    pub around: fn(&mut Surroundings),
    pub ports: fn(&mut Ports),
    /// A job that has not ended is in the journal.
    pub unfinished: bool,
}

impl Default for Case {
    fn default() -> Self {
        Self {
            scene: Scene::default(),
            faults: Arc::new(NoFaults),
            flags: &[],
            names: &[],
            around: |_| {},
            ports: |_| {},
            unfinished: false,
        }
    }
}

/// All checks, in their order. Each says something in every report.
const CHECKS: [&str; 36] = [
    "settings",
    "names",
    "token",
    "stub",
    "engine",
    "socket",
    "engine calls",
    "place",
    "application",
    "health",
    "healthcheck",
    "project",
    "services",
    "compose",
    ".env",
    "version key",
    "drift",
    "followers",
    "data",
    "data beside",
    "writers",
    "hooks",
    "room",
    "snapshots",
    "trust",
    "trusted root",
    "clock",
    "releases",
    "newest release",
    "registry",
    "image signature",
    "state folder",
    "journal",
    "jobs",
    "leftovers",
    "self-update",
];

pub async fn report(case: Case) -> Report {
    let installation = Installation::new(case.scene.clone());
    installation.committed_before("1.0.0").await;
    let report = examine(&installation, case).await;
    let mut checks: Vec<&str> = report.findings.iter().map(|f| f.check.as_str()).collect();
    checks.dedup();
    assert_eq!(checks, CHECKS);
    report
}

/// As [`report`], of what has become of this installation.
pub async fn examine(installation: &Installation, case: Case) -> Report {
    let (mut ports, options, _) = installation.ports(case.faults);
    if case.unfinished {
        let job = Job::new(JobId("job_00000000000000a1".into()), "v1.1.0".into(), installation.now(), false);
        let record = Record::new(job.id.clone(), Order::Update(request()));
        ports.journal.save(&job, &record, Entry::Accepted).await.unwrap();
    }
    ports.clock = Arc::new(TokioClock::starting_at("2026-12-03T00:00:00Z".parse().unwrap()));
    (case.ports)(&mut ports);
    let mut around = Surroundings::at(ports.clock.now());
    (case.around)(&mut around);
    let (settings, faults) = settings(case.flags);
    let names = case.names.iter().map(|name| (*name).to_owned()).collect();
    let doctor = Doctor { settings, faults, names, ports, options, around: Arc::new(around) };
    doctor.examine().await
}

/// What is not well: `check: seen -> remedy`.
pub async fn troubles(case: Case) -> Vec<(Verdict, String)> {
    let report = report(case).await;
    let is_trouble = |v: Verdict| matches!(v, Bad | Warning);
    let found = report.findings.iter().filter(|f| is_trouble(f.verdict));
    let found = found.map(|f| {
        (f.verdict, format!("{}: {} -> {}", f.check, f.seen, f.remedy.as_ref().map_or("NONE", |r| r.words())))
    });
    let found: Vec<_> = found.collect();
    let is_unseen = report.unseen() > 0;
    assert_eq!(report.ok, !is_unseen && !found.iter().any(|(verdict, _)| *verdict == Bad));
    found
}

#[tokio::test(start_paused = true)]
async fn a_good_deployment_has_nothing_to_tell() {
    assert_eq!(troubles(Case::default()).await, []);
    // Nor is it of interest here what another updater does on the same engine.
    let theirs = world(|w| label_one(w, label::JOB, "job_00000000000000ff", "guard-old"));
    assert_eq!(troubles(theirs).await, []);
    let theirs = world(|w| {
        label_one(w, label::OWNER, "somebody", "helper-data");
        w.containers.last_mut().unwrap().labels.remove(label::SEAL);
    });
    assert_eq!(troubles(theirs).await, []);
}

/// One fault, one finding, with all of `says` in it.
pub async fn one(what: &str, case: Case, verdict: Verdict, says: &[&str]) {
    let found = troubles(case).await;
    let [(seen, text)] = &found[..] else { panic!("{what}: {found:#?}") };
    assert_eq!(*seen, verdict, "{what}: {text}");
    assert!(!text.ends_with("NONE"), "{what}: no remedy: {text}");
    for part in says {
        assert!(text.contains(part), "{what}: it does not say {part:?}: {text}");
    }
}

pub fn world(world: fn(&mut World)) -> Case {
    Case { scene: Scene { world, ..Scene::default() }, ..Case::default() }
}

pub fn fails(call: &str, why: &str) -> Case {
    Case { faults: At::nth(call, 1, Fate::Fail(why.into())), ..Case::default() }
}

pub fn fails_as(call: &str, failure: impl Into<Failure>) -> Case {
    Case { faults: At::nth(call, 1, Fate::FailAs(failure.into())), ..Case::default() }
}

pub fn around(around: fn(&mut Surroundings)) -> Case {
    Case { around, ..Case::default() }
}

pub fn ports(ports: fn(&mut Ports)) -> Case {
    Case { ports, ..Case::default() }
}

pub fn flags(flags: &'static [&'static str]) -> Case {
    Case { flags, ..Case::default() }
}

#[tokio::test(start_paused = true)]
async fn settings_one_by_one() {
    for (what, case, verdict, says) in [
        ("a fault", flags(&["--snapshot-keep=many"]), Bad, &["settings: ", "SNAPSHOT_KEEP=\"many\""][..]),
        ("a weak token", flags(&["--token=abc"]), Warning, &["token: ", "3 characters", "openssl rand"]),
        (
            "a name that nobody knows",
            Case { names: &["PROCESSGIT_UPDATER_STUBB"], ..Case::default() },
            Warning,
            &["names: nobody knows PROCESSGIT_UPDATER_STUBB", "is PROCESSGIT_UPDATER_STUB meant?"],
        ),
        ("stub mode", flags(&["--stub=true"]), Warning, &["stub: ", "PROCESSGIT_UPDATER_STUB=false"]),
    ] {
        one(what, case, verdict, says).await;
    }
}

/// What a faulty setting decides is not looked at with its default.
#[tokio::test(start_paused = true)]
async fn all_faults_are_told_and_the_rest_is_looked_at() {
    let case = || {
        let mut case = flags(&["--health-url=x", "--listen=y", "--version-key=1"]);
        case.scene.world = |w| w.containers[0].state = RunState::Exited;
        case
    };
    let skipped = report(case()).await.findings.into_iter().filter(|f| f.verdict == Verdict::Skipped);
    let skipped: Vec<String> = skipped.map(|f| format!("{}: {}", f.check, f.seen)).collect();
    for said in [
        "health: PROCESSGIT_UPDATER_HEALTH_URL cannot be understood",
        "version key: PROCESSGIT_UPDATER_VERSION_KEY cannot be understood",
    ] {
        assert!(skipped.iter().any(|line| line == said), "{skipped:#?}");
    }
    let found = troubles(case()).await;
    let start = |text: &str| text.split(['=', ',']).next().unwrap_or_default().to_owned();
    let told: Vec<String> = found.iter().map(|(_, text)| start(text)).collect();
    assert_eq!(
        told[..3],
        ["LISTEN", "VERSION_KEY", "HEALTH_URL"].map(|name| format!("settings: PROCESSGIT_UPDATER_{name}"))
    );
    assert!(told[3].starts_with("application: container processgit is exited"), "{told:?}");
    assert_eq!(told.len(), 4, "{told:?}");
}

/// While a job is at work nothing is begun that would get in its way, and that is no fault.
#[tokio::test(start_paused = true)]
async fn while_a_job_is_at_work() {
    let case = || Case { unfinished: true, faults: At::nth("compose.config", 1, Fate::Panic), ..Case::default() };
    assert_eq!(troubles(case()).await, []);
    // What was not looked at may be anything.
    let report = report(case()).await;
    assert!(!report.ok && report.unseen() > 5, "{report:#?}");
    // Where another updater has the folder and nothing is at work, everything is looked at.
    let beside = around(|a| a.state.holder = Holder::Other("process 7".into()));
    let report = self::report(beside).await;
    assert!(report.ok && report.unseen() == 0, "{report:#?}");
}

/// Every check has a deadline: whatever hangs, the rest is told.
#[tokio::test(start_paused = true)]
async fn whatever_hangs() {
    for (call, verdict, says) in [
        ("engine.info", Bad, "no answer within 15 s"),
        ("engine.container", Bad, "no answer within 15 s"),
        ("compose.config", Bad, "no answer within 40 s"),
        ("env.preflight", Bad, "no answer within 40 s"),
        ("data.preflight", Warning, "did not end within 40 s"),
        ("probe.ask", Bad, "does not answer: no answer"),
    ] {
        one(call, Case { faults: At::nth(call, 1, Fate::Hang), ..Case::default() }, verdict, &[says]).await;
    }
}
