//! `kill -9` at every named place of an update that is committed and of one that is rolled back, and at random
//! moments. Each time the updater is started again, and what its job says must be true of image, `.env`, data
//! and everything beside them; then the next job begins.
//!
//! What the places are is not written down here: a run that nothing happens to tells them.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use lab::eventually;
use lab::publish::{Published, ReleaseSpec};
use lab::updater::Job;
use lab::world::World;
use serde_json::json;

use crate::case::Leaves::{Restored, Updated};
use crate::case::Stage;
use crate::data::{data, with_data};

/// `UPDATER_FAILPOINT=kill PLACE`, see `src/failpoint.rs`.
const FAILPOINT: &str = "UPDATER_FAILPOINT";
const LOG: &str = "UPDATER_FAILPOINT_LOG";

/// A deployment that is updated again and again.
struct Ground {
    stage: Stage,
    /// What it is moved to in turn. One that is bad is asked for again and again.
    releases: Vec<Published>,
    deaths: usize,
}

impl Ground {
    /// Two good releases, and the application on the way from one to the other and back.
    fn good() -> Self {
        let mut stage = quick(with_data("good").release(|r| good(r).migration("migrate"))).stage();
        let second = stage.lab.publish(good(ReleaseSpec::new("1.2.0")).migration("migrate"));
        stage.update().assert_end("committed", &[]);
        let first = std::mem::replace(&mut stage.release, second);
        let mut ground = Self { releases: vec![first], stage, deaths: 0 };
        ground.runs_now("1.1.0");
        ground
    }

    /// One release that changes the data, answers for a moment and dies.
    fn bad() -> Self {
        // Proven only after it has long been dead.
        let stage =
            quick(with_data("crash-late:0.1")).setting("HEALTH_STABLE", "2s").setting("HEALTH_TIMEOUT", "3s").stage();
        Self { stage, releases: Vec::new(), deaths: 0 }
    }

    fn runs_now(&mut self, version: &str) {
        let spec = &mut self.stage.app.spec;
        (spec.image.version, spec.image_tag) = (version.into(), version.into());
    }

    /// Asks for the release that is on offer.
    fn begin(&mut self) -> String {
        self.stage.before = World::of(&self.stage.app);
        let request = json!({ "target_tag": self.stage.release.tag, "allow_downgrade": true, "retry": true });
        self.stage.updater.begin(&request)
    }

    /// It died (or not) in the middle of the job; everything is as the job says in the end.
    fn prove(&mut self, id: &str, counter: u64, context: &str) -> Job {
        self.stage.updater.variables.clear();
        self.stage.updater.restart();
        let job = self.stage.updater.wait_for_end(id);
        println!("{context}: {} {}", job.state(), job.error());
        let version = self.stage.release.version.clone();
        match job.state() {
            "committed" => {
                assert!(!self.releases.is_empty(), "{context}: {:#}", job.0);
                self.stage.assert_leaves(Updated, Duration::ZERO);
                self.runs_now(&version);
                std::mem::swap(&mut self.releases[0], &mut self.stage.release);
            }
            "rolled_back" => self.stage.assert_leaves(Restored, Duration::ZERO),
            _ => panic!("{context}: {:#}", job.0),
        }
        // Every start counts itself in the data. What a version did that is taken back, it did not do.
        let now = World::of(&self.stage.app).app.expect("the application");
        let before = self.stage.before.app.as_ref().expect("the application");
        let starts = u64::from((&now.id, &now.started_at) != (&before.id, &before.started_at));
        let found = data(&self.stage);
        assert_eq!(found, json!({ "counter": counter + starts, "schema": 1 }), "{context}: {:#}", job.0);
        let status = self.stage.updater.get("/status").json();
        assert!(status["active_job"].is_null(), "{context}: {status:#}");
        job
    }

    fn counter(&self) -> u64 {
        data(&self.stage)["counter"].as_u64().expect("a counter")
    }

    /// All places of one job, each at its first, its second and its last time.
    fn places(&mut self) -> Vec<String> {
        let log =
            PathBuf::from(&self.stage.updater.settings()["PROCESSGIT_UPDATER_STATE_DIR"]).with_extension("places");
        self.stage.updater.variables.insert(LOG.into(), log.display().to_string());
        self.stage.updater.restart();
        let (id, counter) = (self.begin(), self.counter());
        self.stage.updater.wait_for_end(&id);
        self.prove(&id, counter, "undisturbed");
        let reached = fs::read_to_string(&log).expect("the places");
        // What comes before the job is not of the job.
        let reached = reached.replace("/state opened#1\n", "");
        let mut last = BTreeMap::new();
        for place in reached.lines() {
            let (name, times) = place.rsplit_once('#').expect("PLACE#N");
            last.insert(name, times);
        }
        let is_chosen = |place: &&str| {
            let (name, times) = place.rsplit_once('#').expect("PLACE#N");
            ["1", "2", last[name]].contains(&times)
        };
        reached.lines().filter(is_chosen).map(str::to_owned).collect()
    }

    /// Dies at the place. False if the job did not come by.
    fn dies_at(&mut self, place: &str) -> bool {
        self.stage.updater.variables.insert(FAILPOINT.into(), format!("kill {place}"));
        self.stage.updater.restart();
        let counter = self.counter();
        let id = self.begin();
        let died = eventually(place, Duration::from_secs(60), || {
            if self.stage.updater.ended().is_some() {
                return Some(true);
            }
            // It may die while it is being asked.
            lab::http::get(&format!("{}/healthz", self.stage.updater.base)).ok()?;
            (!self.is_busy()).then_some(false)
        });
        self.deaths += usize::from(died);
        self.prove(&id, counter, place);
        died
    }

    fn is_busy(&self) -> bool {
        let url = format!("{}/status", self.stage.updater.base);
        let request = lab::http::client().get(url).bearer_auth(lab::updater::TOKEN);
        lab::http::send(request).map_or(true, |answer| !answer.json()["active_job"].is_null())
    }

    /// From this place on.
    fn dies_at_all_places(&mut self, first: &str, at_least: usize) {
        let places: Vec<_> = self.places().into_iter().skip_while(|place| !place.starts_with(first)).collect();
        let missed: Vec<_> = places.iter().filter(|place| !self.dies_at(place)).collect();
        println!("cases: kill -9 at a place {}", self.deaths);
        assert!(self.deaths >= at_least, "{} deaths, {at_least} expected; not reached: {missed:#?}", self.deaths);
        assert!(missed.len() * 10 <= places.len(), "not reached: {missed:#?}");
    }

    /// Dies after so much of the time that a job takes, in thousandths; and once more while it recovers, if
    /// it is told to.
    fn dies_after(&mut self, whole: Duration, thousandths: u32, again: Option<u32>) {
        let counter = self.counter();
        let id = self.begin();
        let context = format!("after {thousandths} thousandths of {whole:?}, then {again:?}");
        for thousandths in [Some(thousandths), again].into_iter().flatten() {
            // The moment is the input of this test, there is nothing to await.
            std::thread::sleep(whole * thousandths / 1000);
            self.stage.updater.kill9();
            self.stage.updater.spawn();
        }
        self.deaths += 1 + usize::from(again.is_some());
        self.prove(&id, counter, &context);
    }
}

fn good(release: ReleaseSpec) -> ReleaseSpec {
    release.image(|i| i.env.push(("DATA_DIR".into(), "/data".into())))
}

fn quick(case: crate::case::Case) -> crate::case::Case {
    case.setting("HEALTH_INTERVAL", "50ms").setting("HEALTH_STABLE", "100ms")
}

#[test]
fn at_every_place_of_an_update() {
    Ground::good().dies_at_all_places("", 50);
}

#[test]
fn at_every_place_of_an_update_that_is_rolled_back() {
    // Until then it is no other than a good one.
    Ground::bad().dies_at_all_places("Gate/", 30);
}

/// `./test --soak N` makes it N moments.
#[test]
fn at_random_moments() {
    let moments: u64 = std::env::var("UPDATER_SOAK").map_or(8, |n| n.parse().expect("UPDATER_SOAK is a number"));
    let seed = std::env::var("UPDATER_SEED").unwrap_or_else(|_| lab::random_hex());
    println!("UPDATER_SEED={seed} repeats these moments");
    let mut state = u64::from_str_radix(&seed, 16).expect("UPDATER_SEED is sixteen hexadecimal digits") | 1;
    let mut random = move |below: u64| {
        // xorshift64, Marsaglia 2003
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        u32::try_from(state % below).expect("small")
    };
    let mut grounds = [Ground::good(), Ground::bad()];
    let whole = grounds.each_mut().map(|ground| {
        let (begun, counter) = (Instant::now(), ground.counter());
        let id = ground.begin();
        ground.stage.updater.wait_for_end(&id);
        let whole = begun.elapsed();
        ground.prove(&id, counter, "undisturbed");
        whole
    });
    for moment in 0..moments {
        let which = (moment % 2) as usize;
        let again = (random(3) == 0).then(|| random(600));
        grounds[which].dies_after(whole[which], random(1000), again);
    }
    println!("cases: kill -9 at a random moment {}", grounds.iter().map(|ground| ground.deaths).sum::<usize>());
}
