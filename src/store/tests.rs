use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use semver::Version;

use super::{Store, StoreError};
use crate::update::Request;
use crate::update::job::{Job, JobId, State};
use crate::update::ports::{Entry, Journal};
use crate::update::record::Record;

/// Ends a job about `digest`; gives back why the digest is known to be bad, and the highest version.
async fn end(store: &Store, digest: &str, bad: bool, committed: Option<&str>) -> (Option<String>, Option<String>) {
    let now = "2026-01-02T03:04:05Z".parse().unwrap();
    let mut job = Job::new(JobId(format!("job_{digest:0>16}")), "v1".into(), now, false);
    job.target_digest = Some(digest.into());
    job.error = bad.then(|| "it crashed".into());
    job.enter(if bad { State::RolledBack } else { State::Committed }, now);
    let request = Request { target_tag: "v1".into(), allow_downgrade: false, accept_drift: false, retry: false };
    let committed = committed.map(|version| Version::parse(version).unwrap());
    let entry = Entry::Ended { bad_digest: bad.then(|| digest.to_owned()), committed };
    store.save(&job, &Record::new(job.id.clone(), crate::update::Order::Update(request)), entry).await.unwrap();
    let highest = store.highest_committed().await.unwrap().map(|version| version.to_string());
    (store.known_bad(digest).await.unwrap(), highest)
}

#[tokio::test]
async fn what_an_end_teaches() {
    let store = Store::in_memory().unwrap();
    let crashed = "it crashed (job_000000000000000a, 2026-01-02T03:04:05Z)";
    // digest, rolled back after its start, committed as, then known to be bad because, then highest
    for (digest, bad, committed, known_bad, highest) in [
        ("a", true, None, Some(crashed), None),
        ("b", false, Some("1.2.0"), None, Some("1.2.0")),
        ("c", false, Some("1.10.0"), None, Some("1.10.0")),
        ("d", false, Some("1.9.0"), None, Some("1.10.0")),
        ("e", false, Some("1.10.0-rc.1"), None, Some("1.10.0")),
        ("f", false, None, None, Some("1.10.0")),
        ("a", false, Some("1.3.0"), None, Some("1.10.0")),
        ("a", true, None, Some(crashed), Some("1.10.0")),
    ] {
        let (found, best) = end(&store, digest, bad, committed).await;
        assert_eq!((found.as_deref(), best.as_deref()), (known_bad, highest), "{digest} {committed:?}");
    }
}

/// A journal with an ended job and one in the middle, as a killed process leaves it: most of it is still in
/// the write-ahead log. With every state that the second job was in.
async fn killed(folder: &Path) -> Vec<Job> {
    let store = Store::open(folder).unwrap();
    end(&store, "a", false, Some("1.0.0")).await;
    let mut job =
        Job::new(JobId("job_000000000000000b".into()), "v2".into(), "2026-01-02T03:04:05Z".parse().unwrap(), false);
    let mut written = Vec::new();
    for state in [State::Planning, State::Pulling, State::Snapshotting] {
        job.enter(state, job.started_at);
        job.say(&"output ".repeat(200), job.started_at);
        let record = Record::new(job.id.clone(), crate::update::Order::Snapshot { hot: false });
        store.save(&job, &record, Entry::Note(state.name().into())).await.unwrap();
        written.push(job.clone());
    }
    // The log of a killed process is not written back.
    let db = store.db.lock().unwrap();
    db.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
    written
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap).filter(|e| e.path().is_file()) {
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// What was in the log is in the database.
fn written_back(db: &Path) {
    let db = rusqlite::Connection::open(db).unwrap();
    db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
}

#[tokio::test]
async fn a_damaged_journal_is_kept_aside_and_a_new_one_begun() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let base = folder.path().join("base");
    killed(&base).await;
    fn truncate(file: &Path, to: fn(u64) -> u64) {
        let file = fs::File::options().write(true).open(file).unwrap();
        file.set_len(to(file.metadata().unwrap().len())).unwrap();
    }
    type Damage = fn(&Path);
    let all_but_the_head: Damage = |db| {
        let mut bytes = fs::read(db).unwrap();
        bytes[100..].fill(7);
        fs::write(db, bytes).unwrap();
    };
    // What happened to the file, and whether the log had been written back to it.
    let rows: [(&str, bool, Damage); 6] = [
        ("garbage", true, |db| fs::write(db, [7; 50_000]).unwrap()),
        ("garbage after the head", true, all_but_the_head),
        ("half of it", true, |db| truncate(db, |length| length / 2)),
        ("torn within a page", true, |db| truncate(db, |length| length - 1000)),
        ("emptied, the log left", false, |db| truncate(db, |_| 0)),
        ("removed, the log left", false, |db| fs::remove_file(db).unwrap()),
    ];
    for (what, is_written_back, damage) in rows {
        let state = folder.path().join(what.replace(' ', "-"));
        copy(&base, &state);
        let name = fs::read_to_string(state.join("installation")).unwrap();
        if is_written_back {
            written_back(&state.join("journal.db"));
        }
        damage(&state.join("journal.db"));
        let damaged = fs::read(state.join("journal.db")).ok();
        let store = Store::open(&state).expect(what);
        assert_eq!(store.count().await.unwrap(), 0, "{what}");
        assert_eq!(store.installation(), name, "{what}: it is the same updater");
        let troubles = store.troubles();
        if damaged.is_some() {
            let [trouble] = &troubles[..] else { panic!("{what}: {troubles:?}") };
            assert!(trouble.contains("the journal was damaged and a new one was begun"), "{what}: {trouble}");
            let aside =
                trouble.split_whitespace().find(|word| word.contains(".damaged-")).unwrap().trim_end_matches(';');
            assert!(fs::read(aside).ok() == damaged, "{what}: kept as it was found");
        } else {
            assert!(fs::read_dir(&state).unwrap().any(|e| e.unwrap().file_name().to_string_lossy().ends_with("-wal")));
        }
        drop(store);
        assert_eq!(Store::open(&state).unwrap().troubles(), troubles, "{what}: told until the file is gone");
    }
}

#[tokio::test]
async fn a_newer_journal_is_refused_and_left_where_it_is() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    drop(Store::open(folder.path()).unwrap());
    let db = rusqlite::Connection::open(folder.path().join("journal.db")).unwrap();
    db.execute_batch("PRAGMA user_version = 2; UPDATE meta SET value = '2' WHERE key = 'format'").unwrap();
    drop(db);
    let error = Store::open(folder.path()).err().unwrap();
    assert!(matches!(error, StoreError::Newer { found: 2, .. }), "{error}");
    let db = rusqlite::Connection::open(folder.path().join("journal.db")).unwrap();
    db.query_row("SELECT count(*) FROM jobs", [], |_| Ok(())).unwrap();
}

/// A bit that flips anywhere is noticed, or changes nothing: never is another history read than was written.
#[tokio::test]
async fn a_flipped_bit_is_noticed_or_changes_nothing() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let base = folder.path().join("base");
    let written = killed(&base).await;
    let (mut noticed, mut harmless, mut behind) = (0, 0, 0);
    for (file, step) in [("journal.db", 97), ("journal.db-wal", 2039)] {
        for is_written_back in [false, true] {
            let whole = folder.path().join("whole");
            let _ = fs::remove_dir_all(&whole);
            copy(&base, &whole);
            if is_written_back {
                written_back(&whole.join("journal.db"));
            }
            let Ok(bytes) = fs::read(whole.join(file)) else { continue };
            for at in (0..bytes.len()).step_by(step) {
                let state = folder.path().join("state");
                let _ = fs::remove_dir_all(&state);
                copy(&whole, &state);
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << (at % 8);
                fs::write(state.join(file), flipped).unwrap();
                let store = Store::open(&state).unwrap_or_else(|e| panic!("{file} {at}: {e}"));
                let jobs: Vec<Job> = store.unfinished().await.unwrap().into_iter().map(|(job, _)| job).collect();
                match &jobs[..] {
                    [] if !store.troubles().is_empty() => noticed += 1,
                    // The log is read up to where it is damaged.
                    [] if file == "journal.db-wal" => behind += 1,
                    [job] if *job == written[2] => harmless += 1,
                    [job] if file == "journal.db-wal" && written.contains(job) => behind += 1,
                    other => panic!("{file} {at}: {other:?}"),
                }
            }
        }
    }
    println!("{noticed} noticed, {harmless} harmless, {behind} read up to the damage");
    assert!(noticed > 50 && harmless > 100 && behind > 20, "{noticed} {harmless} {behind}");
}

#[test]
fn a_second_updater_on_one_state_folder_is_told_who_holds_it() {
    let folder = tempfile::tempdir().unwrap();
    let first = Store::open(folder.path()).unwrap();
    let error = Store::open(folder.path()).err().expect("it is held").to_string();
    let holder = format!("is in use by another updater (process {}): only one may run on it", std::process::id());
    assert!(error.contains(&holder), "{error}");
    drop(first);
    Store::open(folder.path()).unwrap();
}

#[tokio::test]
async fn a_state_folder_keeps_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let first = Store::open(folder.path()).unwrap().installation().to_owned();
    assert_eq!((first.len(), Store::open(folder.path()).unwrap().installation()), (16, &*first));
    assert_ne!(Store::in_memory().unwrap().installation(), first);
}

/// Beside a process that works, and after one that was killed: all of it is seen, and nothing is made.
#[tokio::test]
async fn a_look_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty");
    assert!(Store::peek(&empty).unwrap().unfinished().await.unwrap().is_empty() && !empty.exists());

    let written = killed(folder.path()).await;
    let files = || {
        let listed = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = listed.filter(|f| f.is_file() && !f.ends_with("journal.db-shm")).collect();
        files.sort();
        files.into_iter().map(|file| (file.clone(), fs::read(file).unwrap())).collect::<Vec<_>>()
    };
    let before = files();
    let look = Store::peek(folder.path()).unwrap();
    let found = look.unfinished().await.unwrap();
    assert_eq!(found.iter().map(|(job, _)| job).collect::<Vec<_>>(), [written.last().unwrap()]);
    let (job, record) = &found[0];
    assert!(look.save(job, record, Entry::Accepted).await.is_err(), "it is read only");
    drop(look);
    assert!(before == files(), "the files are as they were");

    assert_eq!(Store::holder(folder.path()), None);
    let serving = Store::open(folder.path()).unwrap();
    assert_eq!(Store::holder(folder.path()), Some(format!("process {}", std::process::id())));
    assert_eq!(Store::peek(folder.path()).unwrap().unfinished().await.unwrap().len(), 1, "beside who writes");
    drop(serving);
    fs::write(folder.path().join("journal.db"), "no database, but long enough to be taken for one").unwrap();
    assert!(matches!(Store::peek(folder.path()), Err(StoreError::Damaged { .. })));
}

/// The journal holds `.env` with its secrets.
#[test]
fn a_state_folder_is_its_owners_only() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let _store = Store::open(folder.path()).unwrap();
    assert_eq!((mode(folder.path()), mode(&folder.path().join("logs"))), (0o700, 0o700));
    assert_eq!(mode(&folder.path().join(super::JOURNAL)), 0o600);
}
