//! The power goes out at any moment of an update that is rolled back and of one that is committed. A real
//! updater does both under `strace`; from its system calls follows everything that may be on the disk, after
//! every single one of them. In each of those the journal can be read, holds whatever it was relied on for, and
//! agrees with `.env`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use lab::power_cut::{Disk, Remains, fingerprint};
use lab::publish::ReleaseSpec;
use lab::strace::{Call, Strace};
use processgit_updater::store::Store;
use processgit_updater::update::job::State;
use processgit_updater::update::ports::Journal;
use processgit_updater::update::record::Record;
use processgit_updater::update::transition::Effect;

use crate::case::Stage;
use crate::data::with_data;

/// What the journal said is on the disk: the updater has gone on, relying on it.
#[derive(Default)]
struct Claims {
    begun: Vec<String>,
    done: Vec<String>,
    ended: usize,
    /// They differ from the ones before.
    edition: usize,
}

impl Claims {
    /// The process came to this place, see `src/failpoint.rs`.
    fn hear(&mut self, place: &str) {
        let (place, _) = place.split_once('#').expect("PLACE#N");
        match place.split_once('/').expect("EFFECT/NAME") {
            ("end", "recorded") => (self.begun, self.done, self.ended) = (Vec::new(), Vec::new(), self.ended + 1),
            (effect, "begun") => self.begun.push(effect.to_owned()),
            (effect, "done") => self.done.push(effect.to_owned()),
            _ => return,
        }
        self.edition += 1;
    }
}

/// Where things are, and how `.env` may be.
struct Scene {
    state: PathBuf,
    env: PathBuf,
    before: Vec<u8>,
    /// As the two updates write it.
    after: [Vec<u8>; 2],
    runtime: tokio::runtime::Runtime,
    /// In memory, where flushing costs nothing. Its ballast is the one of all states.
    spare: tempfile::TempDir,
}

impl Scene {
    /// The machine has started again, and this is on the disk.
    fn check(&self, remains: &Remains, claims: &Claims, context: &str) {
        let env = remains.get(&self.env).unwrap_or_else(|| panic!("{context}: .env is gone"));
        let is_after = self.after.contains(env);
        assert!(is_after || *env == self.before, "{context}: .env: {:?}", String::from_utf8_lossy(env));

        let folder = tempfile::tempdir_in("/dev/shm").expect("a folder");
        for (path, bytes) in remains.iter().filter(|(path, _)| path.parent() == Some(&self.state)) {
            let name = path.file_name().expect("a name");
            fs::write(folder.path().join(name), bytes).expect("a file");
        }
        // Making four MiB of it every time takes longer than all the rest.
        fs::hard_link(self.spare.path().join("ballast"), folder.path().join("ballast")).expect("a link");
        let store = Store::open(folder.path()).unwrap_or_else(|e| panic!("{context}: {e}"));
        let aside = fs::read_dir(folder.path()).expect("the folder").map(|entry| entry.expect("an entry").file_name());
        let aside: Vec<_> = aside.filter(|name| name.to_string_lossy().contains("damaged")).collect();
        assert!(aside.is_empty(), "{context}: the journal was taken for damaged: {aside:?}");

        let (ended, unfinished) = self.runtime.block_on(async {
            let jobs = store.recent(10).await.expect("the jobs");
            let ended: Vec<State> = jobs.iter().map(|job| job.state).filter(|state| state.is_end()).collect();
            (ended, store.unfinished().await.expect("the unfinished jobs"))
        });
        assert!(ended.len() >= claims.ended, "{context}: {} jobs had ended, the journal knows {ended:?}", claims.ended);
        match unfinished.first() {
            Some((_, record)) => self.check_record(record, env, claims, context),
            None if ended.len() == claims.ended => {
                assert_eq!(claims.begun, Vec::<String>::new(), "{context}: the journal knows of no job");
            }
            None => {}
        }
        if let (None, Some(last)) = (unfinished.first(), ended.first()) {
            assert_eq!(is_after, *last == State::Committed, "{context}: {last:?}, and .env is of the other version");
        }
    }

    fn check_record(&self, record: &Record, env: &[u8], claims: &Claims, context: &str) {
        let names = |effects: &[Effect]| effects.iter().map(|effect| format!("{effect:?}")).collect::<Vec<_>>();
        let (begun, done) = (names(&record.begun), names(&record.done));
        let missing = |claimed: &[String], known: &[String]| -> Vec<String> {
            claimed.iter().filter(|effect| !known.contains(effect)).cloned().collect()
        };
        assert_eq!(missing(&claims.begun, &begun), Vec::<String>::new(), "{context}: begun, and not in the journal");
        assert_eq!(missing(&claims.done, &done), Vec::<String>::new(), "{context}: done, and not in the journal");
        let (wrote, restores) = (record.has_done(Effect::WriteEnv), record.has_begun(Effect::RestoreEnv));
        let after = record.plan.as_ref().and_then(|plan| plan.env.after.as_deref());
        let expected = match (wrote, restores) {
            (true, false) => after,
            (_, true) if record.has_done(Effect::RestoreEnv) => Some(&*self.before),
            (false, false) if !record.has_begun(Effect::WriteEnv) => Some(&*self.before),
            _ => return,
        };
        assert_eq!(Some(env), expected, "{context}: the journal knows better what is in .env: {begun:?} {done:?}");
    }
}

/// What is claimed of the data is flushed, too.
fn check_data(disk: &Disk, place: &str, snapshots: &Path, volume: &Path) {
    let folder = match place.split_once('#').map(|(place, _)| place) {
        Some("ColdCopy/acted") => snapshots,
        Some("RestoreData/acted") => volume,
        _ => return,
    };
    assert_eq!(disk.pending_below(folder), Vec::<String>::new(), "{place}: not flushed");
}

/// The place that this call tells, if it is a line in `log`.
fn place<'a>(call: &'a Call, log: &Path) -> Option<&'a str> {
    (call.name == "write" && call.open(0) == Some(log))
        .then(|| std::str::from_utf8(call.bytes(1)).expect("a line").trim_end())
}

/// An update to a version that changes the data and dies, then one to a good one; everything they did.
fn watched(stage: &mut Stage, log: &Path) -> Vec<Call> {
    stage.updater.variables.insert("UPDATER_FAILPOINT_LOG".into(), log.display().to_string());
    stage.updater.restart();
    let strace = Strace::attach(stage.updater.pid(), &log.with_extension("strace"));
    stage.update().assert_end("rolled_back", &["crashes again and again"]);
    let good = stage.lab.publish(ReleaseSpec::new("1.2.0").image(|i| i.env.push(("DATA_DIR".into(), "/data".into()))));
    stage.updater.update(&good.tag).assert_end("committed", &[]);
    strace.calls()
}

#[test]
fn at_any_moment() {
    let mut stage = with_data("crash-late:0.1").stage();
    let state = PathBuf::from(&stage.updater.settings()["PROCESSGIT_UPDATER_STATE_DIR"]);
    let log = state.with_extension("places");
    let mounts = stage.app.app().expect("the application")["Mounts"].clone();
    let volume = PathBuf::from(mounts[0]["Source"].as_str().expect("where the volume is"));
    let env = stage.app.env_file();
    let before = fs::read(&env).expect(".env");
    rustix::fs::sync();
    // The ballast holds nothing, and what processes share of the log's index is made anew.
    let mut disk = Disk::of(
        &[state.clone(), env.parent().expect("a folder").to_owned(), volume.clone()],
        &["ballast", "journal.db-shm"],
    );
    let calls = watched(&mut stage, &log);

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let spare = tempfile::tempdir_in("/dev/shm").expect("a folder in memory");
    drop(Store::open(spare.path()).expect("a state folder"));
    let with = |version: &str| String::from_utf8_lossy(&before).replace("=1.0.0", version).into_bytes();
    let scene = Scene { after: [with("=1.1.0"), with("=1.2.0")], env, before, runtime, state, spare };
    assert_eq!(fs::read(&scene.env).expect(".env"), scene.after[1], "as the second update has left it");
    let (mut claims, mut seen, mut places) = (Claims::default(), BTreeSet::new(), BTreeSet::new());
    for (at, call) in calls.iter().enumerate() {
        let told = place(call, &log);
        let changed = match told {
            Some(told) => {
                check_data(&disk, told, &scene.state.join("snapshots"), &volume);
                claims.hear(told);
                places.insert(told);
                true
            }
            None => disk.apply(call),
        };
        let new = |remains: &Remains| seen.insert((fingerprint(remains), claims.edition));
        for remains in if changed { disk.remains() } else { Vec::new() }.into_iter().filter(new) {
            let context = format!("after call {at} of {}, {}, at {told:?}", calls.len(), call.name);
            scene.check(&remains, &claims, &context);
        }
    }
    println!("cases: power cut {} of {} calls", seen.len(), calls.len());
    assert_eq!(claims.ended, 2, "both jobs were watched to their ends: {places:#?}");
    assert!(places.contains("RestoreData/acted#1") && places.contains("ColdCopy/acted#2"), "{places:#?}");
    assert!(seen.len() > 1000, "{} states of the disk", seen.len());
}
