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
    let request = Request {
        target_tag: "v1".into(),
        allow_downgrade: false,
        accept_drift: false,
        retry: false,
        accept_unwell: false,
    };
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
    db.execute_batch("PRAGMA user_version = 3; UPDATE meta SET value = '3' WHERE key = 'format'").unwrap();
    drop(db);
    let error = Store::open(folder.path()).err().unwrap();
    assert!(matches!(error, StoreError::Newer { found: 3, .. }), "{error}");
    let db = rusqlite::Connection::open(folder.path().join("journal.db")).unwrap();
    db.query_row("SELECT count(*) FROM jobs", [], |_| Ok(())).unwrap();
}

/// All that a journal holds.
fn content(store: &Store) -> Vec<String> {
    let db = store.db.lock().unwrap();
    let all = |query: &str| -> Vec<String> {
        let mut query = db.prepare(query).unwrap();
        let columns = query.column_count();
        let text = |row: &rusqlite::Row<'_>| {
            Ok((0..columns).map(|at| format!("{:?} ", row.get_ref(at).unwrap())).collect::<String>())
        };
        query.query_map([], text).unwrap().map(Result::unwrap).collect()
    };
    [
        all("SELECT * FROM jobs ORDER BY seq"),
        all("SELECT * FROM trail ORDER BY seq"),
        all("SELECT * FROM known_bad ORDER BY digest"),
        all("SELECT value FROM meta WHERE key = 'highest_committed'"),
    ]
    .concat()
}

/// A journal at rest: a version known to be bad, a committed one, and thirty jobs more.
async fn rested(folder: &Path) {
    let store = Store::open(folder).unwrap();
    end(&store, "bad", true, None).await;
    end(&store, "c0ffee", false, Some("1.2.0")).await;
    for number in 0..30 {
        end(&store, &format!("{number:x}"), false, None).await;
    }
}

/// Opens a damaged journal: what it holds is what was written, or the loss is told, and told again; and what is
/// known of versions is still there.
async fn told_or_unchanged(what: &str, state: &Path, whole: &[String]) -> bool {
    let store = Store::open(state).unwrap_or_else(|e| panic!("{what}: {e}"));
    let is_told = !store.troubles().is_empty();
    let found = content(&store);
    assert!(is_told || found == whole, "{what}: not told");
    let bad = store.known_bad("bad").await.unwrap().is_some();
    let highest = store.highest_committed().await.unwrap().map(|version| version.to_string());
    assert_eq!((bad, highest.as_deref()), (true, Some("1.2.0")), "{what}");
    drop(store);
    assert_eq!(!Store::open(state).unwrap().troubles().is_empty(), is_told, "{what}: until it was seen to");
    is_told
}

/// Pages and frames that are lost, zeroed or flipped, in the database and in the log of a killed process: what is
/// read is what was written, or the operator is told.
#[tokio::test]
async fn damage_anywhere_is_told_or_changes_nothing() {
    const PAGE: usize = 4096;
    const FRAME: usize = PAGE + 24;
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let (rest, dead) = (folder.path().join("rest"), folder.path().join("dead"));
    rested(&rest).await;
    copy(&rest, &dead);
    killed(&dead).await;
    let (mut told, mut unchanged) = (0, 0);
    for (base, file, step) in
        [(&rest, "journal.db", PAGE), (&dead, "journal.db", PAGE), (&dead, "journal.db-wal", FRAME)]
    {
        let state = folder.path().join("state");
        let fresh = || {
            let _ = fs::remove_dir_all(&state);
            copy(base, &state);
        };
        fresh();
        let whole = content(&Store::open(&state).unwrap());
        let bytes = fs::read(base.join(file)).unwrap();
        assert!(bytes.len() > 3 * step, "{file}");
        let start = if step == FRAME { 32 } else { 0 };
        for at in (start..bytes.len()).step_by(step) {
            let end = (at + step).min(bytes.len());
            let cut = bytes[..at].to_vec();
            let (mut zeroed, mut flipped, mut torn) = (bytes.clone(), bytes.clone(), bytes.clone());
            zeroed[at..end].fill(0);
            flipped[at + (at / step * 97) % (end - at)] ^= 1;
            torn[at + (end - at) / 2..end].fill(7);
            for (how, damaged) in [("cut", cut), ("zeroed", zeroed), ("flipped", flipped), ("torn", torn)] {
                fresh();
                fs::write(state.join(file), damaged).unwrap();
                match told_or_unchanged(&format!("{file} {how} at {at}"), &state, &whole).await {
                    true => told += 1,
                    false => unchanged += 1,
                }
            }
        }
    }
    println!("{told} told, {unchanged} unchanged");
    assert!(told > 50 && unchanged > 5, "{told} {unchanged}");
}

/// Changes that SQLite takes for its own: a lost tail, an older copy, rows that were changed with their checksum.
#[tokio::test]
async fn a_changed_history_is_told() {
    type Change = fn(&Path);
    fn sql(state: &Path, statement: &str) {
        rusqlite::Connection::open(state.join("journal.db")).unwrap().execute_batch(statement).unwrap();
    }
    let rows: [(&str, Change); 9] = [
        ("the last entry is gone", |s| sql(s, "DELETE FROM trail WHERE seq = (SELECT max(seq) FROM trail)")),
        ("the last job is gone", |s| sql(s, "DELETE FROM jobs WHERE seq = (SELECT max(seq) FROM jobs)")),
        ("the first job is gone", |s| sql(s, "DELETE FROM jobs WHERE seq = 1")),
        ("an entry in the middle is gone", |s| sql(s, "DELETE FROM trail WHERE seq = 7")),
        ("an entry says something else", |s| sql(s, "UPDATE trail SET text = 'x' WHERE seq = 7")),
        ("no version is bad", |s| sql(s, "DELETE FROM known_bad")),
        ("no version is the highest", |s| sql(s, "DELETE FROM meta WHERE key = 'highest_committed'")),
        ("the proof is gone", |s| fs::remove_file(s.join("journal.head")).unwrap()),
        ("the journal is gone", |s| fs::remove_file(s.join("journal.db")).unwrap()),
    ];
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let base = folder.path().join("base");
    rested(&base).await;
    for (what, change) in rows {
        let state = folder.path().join(what.replace(' ', "-"));
        copy(&base, &state);
        change(&state);
        assert!(told_or_unchanged(what, &state, &[]).await, "{what}");
    }

    let older = folder.path().join("older");
    copy(&base, &older);
    end(&Store::open(&base).unwrap(), "fff", false, None).await;
    fs::copy(base.join("journal.head"), older.join("journal.head")).unwrap();
    assert!(told_or_unchanged("an older copy", &older, &[]).await);
}

/// A job that was changed together with its checksum, far from the end.
#[tokio::test]
async fn an_old_job_that_was_changed_is_told() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let store = Store::open(folder.path()).unwrap();
    end(&store, "bad", true, Some("1.2.0")).await;
    end(&store, "bad", true, None).await;
    for number in 0..60 {
        end(&store, &format!("{number:x}"), false, None).await;
    }
    {
        let db = store.db.lock().unwrap();
        let (job, record): (String, String) =
            db.query_row("SELECT job, record FROM jobs WHERE seq = 3", [], |r| Ok((r.get(0)?, r.get(1)?))).unwrap();
        let changed = job.replace("committed", "failed");
        assert_ne!(job, changed);
        let sum = super::schema::sum(&changed, Some(&record));
        db.execute("UPDATE jobs SET job = ?1, sum = ?2 WHERE seq = 3", rusqlite::params![changed, sum]).unwrap();
    }
    drop(store);
    assert!(told_or_unchanged("an old job", folder.path(), &[]).await);
}

/// A journal of the format before: it stays readable, and from then on its entries are linked.
#[tokio::test]
async fn a_journal_without_links_is_brought_to_this_format() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    rested(folder.path()).await;
    {
        let db = rusqlite::Connection::open(folder.path().join("journal.db")).unwrap();
        db.execute_batch(
            "ALTER TABLE trail DROP COLUMN sum; ALTER TABLE trail DROP COLUMN link;
             DELETE FROM meta WHERE key IN ('head', 'known_version', 'secret');
             UPDATE meta SET value = '1' WHERE key = 'format'; PRAGMA user_version = 1",
        )
        .unwrap();
    }
    assert_eq!(Store::peek(folder.path()).unwrap().count().await.unwrap(), 32);
    let store = Store::open(folder.path()).unwrap();
    assert_eq!((store.count().await.unwrap(), store.troubles()), (32, vec![]));
    end(&store, "abc", false, None).await;
    drop(store);
    let whole = content(&Store::open(folder.path()).unwrap());
    assert!(!told_or_unchanged("linked", folder.path(), &whole).await);
    rusqlite::Connection::open(folder.path().join("journal.db"))
        .unwrap()
        .execute("DELETE FROM trail WHERE seq = (SELECT max(seq) FROM trail)", [])
        .unwrap();
    assert!(told_or_unchanged("the last entry is gone", folder.path(), &whole).await);
}

/// What is in no log cannot be lost with one.
#[tokio::test]
async fn the_log_is_empty_between_jobs() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let file = |name: &str| fs::metadata(folder.path().join(name)).unwrap();
    let store = Store::open(folder.path()).unwrap();
    assert_eq!(file("journal.db-wal").len(), 0);
    end(&store, "a", false, Some("1.0.0")).await;
    assert_eq!(file("journal.db-wal").len(), 0);
    for name in ["journal.db", "journal.db-wal", "journal.db-shm", "journal.head", "journal.known", "secret"] {
        assert_eq!(file(name).permissions().mode() & 0o777, 0o600, "{name}");
    }
}

fn thin_all(store: &Store, spared: &JobId) {
    let mut db = store.db.lock().unwrap();
    let trail =
        |db: &rusqlite::Connection| -> i64 { db.query_row("SELECT count(*) FROM trail", [], |r| r.get(0)).unwrap() };
    let (thinned, head) = super::thin::batch(&mut db, 10, Some(spared)).unwrap();
    assert_eq!((thinned.len(), head), (19, super::chain::head(&db).unwrap()));
    assert!(!super::thin::is_due(&db, 10).unwrap());
    assert_eq!(super::thin::batch(&mut db, 10, None).unwrap(), (vec![], None));
    let with_record: i64 =
        db.query_row("SELECT count(*) FROM jobs WHERE record IS NOT NULL", [], |r| r.get(0)).unwrap();
    assert_eq!((with_record, trail(&db)), (11, 30 + 19));
    assert_eq!(super::chain::fault(&db).unwrap(), None);
}

/// Verdicts and trail stay; what else was known of very old jobs goes, but for the one that can be gone back from.
#[tokio::test]
async fn old_history_is_thinned() {
    let store = Store::in_memory().unwrap();
    for number in 0..30 {
        end(&store, &format!("{number:x}"), number % 3 == 0, None).await;
    }
    let spared = JobId(format!("job_{:0>16x}", 4));
    thin_all(&store, &spared);
    let jobs = store.recent(100).await.unwrap();
    assert_eq!(jobs.len(), 30);
    for (number, job) in jobs.iter().rev().enumerate() {
        let end = if number % 3 == 0 { State::RolledBack } else { State::Committed };
        assert_eq!((job.state, job.steps.last().map(|step| step.state)), (end, Some(end)));
        assert_eq!(job.error.is_some(), number % 3 == 0);
    }
}

/// A long history costs no time at the start.
#[tokio::test]
async fn a_hundred_thousand_jobs_do_not_delay_the_start() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    rested(folder.path()).await;
    {
        let db = rusqlite::Connection::open(folder.path().join("journal.db")).unwrap();
        db.execute_batch(
            "INSERT INTO jobs (seq, id, ended, job, record, sum)
             WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 100000)
             SELECT x - 200000, printf('job_1%015x', x), 1,
                    (SELECT replace(job, id, printf('job_1%015x', x)) FROM jobs WHERE seq = 5),
                    (SELECT record FROM jobs WHERE seq = 5), zeroblob(32) FROM n",
        )
        .unwrap();
    }
    let before = std::time::Instant::now();
    let store = Store::open(folder.path()).unwrap();
    let (recent, count) = (store.recent(50).await.unwrap().len(), store.count().await.unwrap());
    let unfinished = store.unfinished().await.unwrap().len();
    let took = before.elapsed();
    assert_eq!((recent, count, unfinished), (50, 100_032, 0));
    println!("{took:?}");
    assert!(took < std::time::Duration::from_millis(500), "{took:?}");
}

#[test]
fn a_second_updater_on_one_state_folder_is_told_who_holds_it() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let first = Store::open(folder.path()).unwrap();
    let error = Store::open(folder.path()).err().expect("it is held").to_string();
    let holder = format!("is in use by another updater (process {}): only one may run on it", std::process::id());
    assert!(error.contains(&holder), "{error}");
    drop(first);
    Store::open(folder.path()).unwrap();
}

#[tokio::test]
async fn a_state_folder_keeps_its_name() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let first = Store::open(folder.path()).unwrap().installation().to_owned();
    assert_eq!((first.len(), Store::open(folder.path()).unwrap().installation()), (16, &*first));
    assert_ne!(Store::in_memory().unwrap().installation(), first);
}

/// Beside a process that works, and after one that was killed: all of it is seen, and nothing is made.
#[tokio::test]
async fn a_look_changes_nothing() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
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

/// A failed job waits until it is settled, however many there have been since; its record stays.
#[tokio::test]
async fn failed_jobs_wait() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let store = Store::open(folder.path()).unwrap();
    let now = "2026-01-02T03:04:05Z".parse().unwrap();
    let mut job = Job::new(JobId("job_00000000000000f0".into()), "v1".into(), now, false);
    (job.needs_you, job.error) = (true, Some("x".into()));
    job.enter(State::Failed, now);
    let record = Record::new(job.id.clone(), crate::update::Order::Snapshot { hot: false });
    let ended = || Entry::Ended { bad_digest: None, committed: None };
    store.save(&job, &record, ended()).await.unwrap();
    // Words that say so are no field that says so.
    let mut other = Job::new(JobId("job_00000000000000f1".into()), r#"","needs_you":true,""#.into(), now, false);
    other.error = Some(r#""needs_you":true"#.into());
    other.enter(State::RolledBack, now);
    store.save(&other, &Record::new(other.id.clone(), record.order.clone()), ended()).await.unwrap();
    for digest in 0..60 {
        end(&store, &format!("{digest:x}"), false, None).await;
    }
    drop(store);
    let store = Store::open(folder.path()).unwrap();
    assert_eq!(store.waiting().await.unwrap(), [job.clone()]);
    let plan: String = {
        let query = format!("EXPLAIN QUERY PLAN SELECT job FROM jobs WHERE {} ORDER BY seq DESC", super::schema::WAITS);
        store.db.lock().unwrap().query_row(&query, [], |row| row.get(3)).unwrap()
    };
    assert!(plan.contains("jobs_waiting"), "{plan}");
    assert_eq!(store.record(&job.id.0).await.unwrap(), Some(record.clone()));
    assert_eq!(Store::peek(folder.path()).unwrap().waiting().await.unwrap(), [job.clone()]);

    (job.needs_you, job.settled_at) = (false, Some(now));
    store.settle(&job).await.unwrap();
    drop(store);
    let store = Store::open(folder.path()).unwrap();
    assert_eq!(store.troubles(), [""; 0], "the trail knows of it");
    assert_eq!((store.waiting().await.unwrap(), store.job(&job.id.0).await.unwrap()), (vec![], Some(job.clone())));
    assert_eq!(store.record(&job.id.0).await.unwrap(), Some(record));
    let jobs = store.recent(100).await.unwrap();
    assert_eq!(jobs.last().map(|last| last.id.clone()), Some(job.id), "it keeps its place");
}
