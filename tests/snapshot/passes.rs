//! The two passes while somebody writes, and what is left when a process dies.

use std::fs::{self, File};
use std::io::Write;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use processgit_updater::snapshot::{Counts, Error, Keep, Label, Quiet, Repository, list};
use rusqlite::Connection;
use rustix::fs::FileType;

use crate::tree::*;
use crate::{Bench, copy, snapshot, until};

/// Does something once, at the first entry after `n` bytes were copied.
fn after_bytes(n: u64, mut act: impl FnMut()) -> impl FnMut(&Counts) -> ControlFlow<()> {
    let mut done = false;
    move |counts| {
        if counts.bytes >= n && !std::mem::replace(&mut done, counts.bytes >= n) {
            act();
        }
        ControlFlow::Continue(())
    }
}

#[test]
fn the_hot_pass_bears_a_busy_application_and_the_cold_pass_gets_it_right() {
    let append = |path: &Path| File::options().append(true).open(path).unwrap().write_all(&noise(7, 100_000)).unwrap();
    type Act = fn(&Path, &dyn Fn(&Path));
    let cases: [(&str, Act); 7] = [
        ("a file grows while it is copied", |r, append| append(&r.join("b grows"))),
        ("a file shrinks while it is copied", |r, _| write(&r.join("b grows"), b"short")),
        ("a file vanishes before it is reached", |r, _| fs::remove_file(r.join("c/vanishes")).unwrap()),
        ("a folder vanishes before it is reached", |r, _| fs::remove_dir_all(r.join("d")).unwrap()),
        ("a file becomes a folder before it is reached", |r, _| {
            fs::remove_file(r.join("c/vanishes")).unwrap();
            write(&r.join("c/vanishes/x"), b"x");
        }),
        ("a folder becomes a link before it is reached", |r, _| {
            fs::remove_dir_all(r.join("d")).unwrap();
            std::os::unix::fs::symlink("/etc", r.join("d")).unwrap();
        }),
        ("what was copied already is renamed behind the pass", |r, _| {
            fs::rename(r.join("a early"), r.join("z late")).unwrap();
        }),
    ];
    for (what, act) in cases {
        let bench = Bench::new();
        let (source, repository) = (bench.source(), bench.repository());
        write(&source.join("a early"), b"copied first");
        write(&source.join("b grows"), &noise(1, 2 << 20));
        write(&source.join("c/vanishes"), b"x");
        write(&source.join("d/e/f"), b"y");
        let mut pass = repository.begin(bench.sources(), Label::default()).unwrap();
        pass.hot(&mut after_bytes(1 << 20, || act(&source, &append))).expect(what);
        let generation = pass.cold(&mut Quiet).expect(what);
        assert_same(&account(&source), &account(&copy(&generation)), what);
        repository.verify(&generation, &mut Quiet).expect(what);
    }
}

#[test]
fn the_cold_pass_is_strict() {
    type Act = fn(&Path);
    let cases: [(&str, Act, &str); 5] = [
        ("grows", |r| write_at(&r.join("b"), 3 << 20, b"more"), "source/b"),
        ("same size", |r| write_at(&r.join("b"), 0, b"?"), "source/b"),
        ("vanishes", |r| fs::remove_file(r.join("d")).unwrap(), "source/d"),
        ("folder vanishes", |r| fs::remove_dir_all(r.join("c")).unwrap(), "source/c"),
        ("appears behind the pass", |r| write(&r.join("a new"), b""), "source"),
    ];
    for (what, act, named) in cases {
        let bench = Bench::new();
        let (source, repository) = (bench.source(), bench.repository());
        write(&source.join("b"), &noise(1, 2 << 20));
        write(&source.join("c/x"), b"x");
        write(&source.join("d"), b"x");
        let pass = repository.begin(bench.sources(), Label::default()).unwrap();
        let error = pass.cold(&mut after_bytes(1 << 20, || act(&source))).expect_err(what);
        assert!(matches!(&error, Error::Changed { path } if path.ends_with(named)), "{what}: {error}");
        assert!(repository.generations().unwrap().is_empty(), "{what}");
    }
}

/// A fifo, a socket or a device has no content that could be read twice: whether it is still the one that was
/// looked at is all that can be known. Replaced between the look and the copy it stops the cold pass, and
/// the hot pass leaves it to the cold one.
#[test]
fn a_special_file_that_is_replaced_under_the_hands_is_noticed() {
    type Make = fn(&Path, u32);
    let cases: [(&str, Make); 4] = [
        ("fifo", |p, _| mknod(p, FileType::Fifo, 0, 0)),
        ("socket", |p, _| drop(std::os::unix::net::UnixListener::bind(p).unwrap())),
        ("character device", |p, minor| mknod(p, FileType::CharacterDevice, 1, minor)),
        ("block device", |p, minor| mknod(p, FileType::BlockDevice, 240, minor)),
    ];
    for (what, make) in cases {
        let bench = Bench::new();
        let (source, repository) = (bench.source(), bench.repository());
        let special = source.join("special");
        make(&special, 3);
        set_mtime(&special, 1_000_000_000, 7);
        // An inode may be given again at once: only its ctime tells, and the clock of that ticks slowly.
        std::thread::sleep(std::time::Duration::from_millis(25));
        // Its like, with the same time, takes its place at the moment when it has been looked at: the root is
        // the first entry, this is the second.
        let at_entry = |n: u64| {
            let mut done = false;
            let special = special.clone();
            move |counts: &Counts| {
                if counts.entries == n && !std::mem::replace(&mut done, true) {
                    fs::remove_file(&special).unwrap();
                    make(&special, 5);
                    set_mtime(&special, 1_000_000_000, 7);
                }
                ControlFlow::Continue(())
            }
        };
        let pass = repository.begin(bench.sources(), Label::default()).unwrap();
        let error = pass.cold(&mut at_entry(2)).expect_err(what);
        assert!(matches!(&error, Error::Changed { path } if path.ends_with("source/special")), "{what}: {error}");

        let mut pass = repository.begin(bench.sources(), Label::default()).unwrap();
        pass.hot(&mut at_entry(2)).expect(what);
        let generation = pass.cold(&mut Quiet).expect(what);
        let recorded = account(&source);
        assert_same(&recorded, &account(&copy(&generation)), what);

        // Replaced since: put back. Replaced again while that is verified (the third walk): noticed.
        fs::remove_file(&special).unwrap();
        repository.restore(&generation, &bench.sources(), &mut Quiet).expect(what);
        assert_same(&recorded, &account(&source), what);
        fs::remove_file(&special).unwrap();
        let error = repository.restore(&generation, &bench.sources(), &mut at_entry(5)).expect_err(what);
        assert!(matches!(error, Error::Changed { .. }), "{what}: {error}");
        repository.restore(&generation, &bench.sources(), &mut Quiet).expect(what);
        assert_same(&recorded, &account(&source), what);
    }
}

/// SQLite writes the index of its log through a shared memory map, and keeps writing to pages that were
/// dirty before the hot pass: without a flush at the right moment nothing shows that they changed.
#[test]
fn writes_through_a_memory_map_are_noticed() {
    let bench = Bench::new();
    let (source, repository) = (bench.source(), bench.repository());
    let database = Connection::open(source.join("db")).unwrap();
    database.execute_batch("PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; CREATE TABLE t(x)").unwrap();
    let look = || fs::read(source.join("db-shm")).unwrap();
    let mut pass = repository.begin(bench.sources(), Label::default()).unwrap();
    pass.hot(&mut Quiet).unwrap();
    let before = look();
    database.execute_batch("INSERT INTO t VALUES (1); INSERT INTO t VALUES (2)").unwrap();
    let after = look();
    assert_ne!(before, after);
    let generation = pass.cold(&mut Quiet).unwrap();
    assert_eq!(fs::read(copy(&generation).join("db-shm")).unwrap(), after);
    assert_same(&account(&source), &account(&copy(&generation)), "database");
}

#[test]
fn a_death_in_either_pass_leaves_nothing_half_done() {
    let bench = Bench::in_memory();
    let source = bench.source();
    adversarial(&source);
    let before = account(&source);
    let root = bench.folder.path().join("repository");
    let first = snapshot(&bench.repository(), bench.sources());
    write(&source.join("plain"), b"changed");
    for n in (1..140).step_by(7) {
        // In the hot pass: only to be discarded.
        let id = {
            let repository = bench.repository();
            let mut pass = repository.begin(bench.sources(), Label::default()).unwrap();
            assert!(pass.hot(&mut until(n)).unwrap_err().is_interrupted());
            pass.id().to_owned()
        };
        assert!(matches!(bench.repository().resume(&id, bench.sources()), Err(Error::Refused(_))));
        bench.repository().discard(&id).unwrap();
        // In the cold pass: the same.
        let id = {
            let repository = bench.repository();
            let mut pass = repository.begin(bench.sources(), Label::default()).unwrap();
            pass.hot(&mut Quiet).unwrap();
            pass.id().to_owned()
        };
        write(&source.join("twin"), format!("changed {n}").as_bytes());
        let repository = bench.repository();
        assert!(repository.resume(&id, bench.sources()).unwrap().cold(&mut until(n)).unwrap_err().is_interrupted());
        assert_eq!(repository.unfinished().unwrap(), std::slice::from_ref(&id));
        repository.discard(&id).unwrap();
        assert_eq!(list(&root).unwrap(), std::slice::from_ref(&first));
    }
    assert_same(&before, &account(&copy(&first)), "first");
}

#[test]
fn the_passes_may_run_in_two_processes_and_the_hot_pass_twice() {
    let bench = Bench::in_memory();
    let source = bench.source();
    adversarial(&source);
    let id = {
        let repository = bench.repository();
        let mut pass =
            repository.begin(bench.sources(), Label { reason: "test".to_owned(), ..Label::default() }).unwrap();
        pass.hot(&mut Quiet).unwrap();
        write(&source.join("between"), b"1");
        pass.hot(&mut Quiet).unwrap();
        pass.id().to_owned()
    };
    write(&source.join("between"), b"2");
    let repository = bench.repository();
    let generation = repository.resume(&id, bench.sources()).unwrap().cold(&mut Quiet).unwrap();
    assert_eq!((generation.id(), generation.meta.label.reason.as_str()), (id.as_str(), "test"));
    assert!(generation.meta.consistent);
    assert_same(&account(&source), &account(&copy(&generation)), "resumed");
    let pass = repository.begin(bench.sources(), Label::default()).unwrap();
    assert!(!pass.keep_hot(&mut Quiet).unwrap().meta.consistent);
}

#[test]
fn unchanged_files_share_their_inode_with_the_previous_generation() {
    let bench = Bench::new();
    let (source, repository) = (bench.source(), bench.repository());
    for path in ["same", "changed", "chmodded"] {
        write(&source.join(path), path.as_bytes());
    }
    let first = snapshot(&repository, bench.sources());
    write(&source.join("changed"), b"other");
    chmod(&source.join("chmodded"), 0o600);
    let second = snapshot(&repository, bench.sources());
    let inode = |generation, path| copy(generation).join(path).metadata().unwrap().ino();
    for (path, shared) in [("same", true), ("changed", false), ("chmodded", false)] {
        assert_eq!(inode(&first, path) == inode(&second, path), shared, "{path}");
    }
    assert_eq!(fs::metadata(second.path()).unwrap().mode() & 0o7777, 0o700);
    assert_eq!(fs::metadata(repository.root()).unwrap().mode() & 0o7777, 0o700);
}

#[test]
fn a_damaged_or_missing_previous_generation_costs_time_not_data() {
    type Act = fn(&Path);
    let cases: [(&str, Act); 3] = [
        ("manifest damaged", |g| write_at(&g.join("manifest/data"), 100, b"????")),
        ("manifest missing", |g| fs::remove_file(g.join("manifest/data")).unwrap()),
        ("file missing in the tree", |g| fs::remove_file(g.join("tree/data/plain")).unwrap()),
    ];
    for (what, act) in cases {
        let bench = Bench::in_memory();
        let (source, repository) = (bench.source(), bench.repository());
        adversarial(&source);
        let first = snapshot(&repository, bench.sources());
        act(first.path());
        let second = snapshot(&repository, bench.sources());
        assert_same(&account(&source), &account(&copy(&second)), what);
        repository.verify(&first, &mut Quiet).expect_err(what);
        repository.restore(&first, &bench.sources(), &mut Quiet).map(drop).unwrap_or_default();
        repository.restore(&second, &bench.sources(), &mut Quiet).expect(what);
    }
}

#[test]
fn verify_names_what_is_not_as_recorded() {
    type Act = fn(&Path);
    let cases: [(&str, Act, &str); 6] = [
        ("plain", |p| keeping_mtime(p, |p| write_at(p, 0, b"PLAIN")), "other content"),
        ("sparse", |p| keeping_mtime(p, |p| write_at(p, 1 << 20, b"PLAIN")), "other content"),
        ("plain", |p| chmod(p, 0o600), "mode 600, recorded 644"),
        ("plain", |p| fs::remove_file(p).unwrap(), "missing"),
        ("new", |p| write(p, b""), "not recorded"),
        ("xattrs", |p| set_xattr(p, "user.a", b"2"), "xattr user.a"),
    ];
    for (path, act, expected) in cases {
        let bench = Bench::in_memory();
        adversarial(&bench.source());
        let repository = bench.repository();
        let generation = snapshot(&repository, bench.sources());
        repository.verify(&generation, &mut Quiet).unwrap();
        act(&copy(&generation).join(path));
        let Err(Error::Differs { differences, .. }) = repository.verify(&generation, &mut Quiet) else {
            panic!("{expected}")
        };
        assert!(differences.iter().any(|d| d.path == path && d.what == expected), "{differences:?}");
    }
}

#[test]
fn one_process_at_a_time_and_anybody_may_look() {
    let bench = Bench::in_memory();
    let root = bench.folder.path().join("repository");
    let repository = bench.repository();
    write(&bench.source().join("x"), b"x");
    let generation = snapshot(&repository, bench.sources());
    assert!(matches!(Repository::open(&root), Err(Error::Busy { .. })));
    assert_eq!(list(&root).unwrap(), [generation]);
}

#[test]
fn pruning_spares_the_pinned_and_leaves_the_others_whole() {
    let bench = Bench::in_memory();
    let (source, repository) = (bench.source(), bench.repository());
    let mut accounts = Vec::new();
    for n in 0..4 {
        write(&source.join("changes"), format!("{n}").as_bytes());
        write(&source.join("stays"), b"same");
        let generation = snapshot(&repository, bench.sources());
        accounts.push((generation.clone(), account(&copy(&generation))));
    }
    let ids: Vec<_> = accounts.iter().map(|(g, _)| g.id().to_owned()).collect();
    let now = accounts[3].0.meta.created_at;
    assert_eq!(
        repository.prune(&Keep { newest: 1, ..Keep::new(&ids[1..2], &[]) }, now).unwrap(),
        [ids[2].clone(), ids[0].clone()]
    );
    let left: Vec<_> = repository.generations().unwrap().iter().map(|g| g.id().to_owned()).collect();
    assert_eq!(left, [ids[1].clone(), ids[3].clone()]);
    for i in [1, 3] {
        assert_same(&accounts[i].1, &account(&copy(&accounts[i].0)), "left");
        repository.verify(&accounts[i].0, &mut Quiet).unwrap();
    }
    assert_eq!(fs::read_dir(repository.root().join("trash")).unwrap().count(), 0);
    // By age: an hour later all are too old, but the newest stays, and what is pinned.
    let later = now + std::time::Duration::from_secs(3600);
    let age = Some(std::time::Duration::from_secs(60));
    assert!(repository.prune(&Keep { newest: 9, max_age: age, ..Keep::new(&ids[1..2], &[]) }, now).unwrap().is_empty());
    assert!(
        repository.prune(&Keep { newest: 9, max_age: age, ..Keep::new(&ids[1..2], &[]) }, later).unwrap().is_empty()
    );
    assert_eq!(
        repository.prune(&Keep { newest: 9, max_age: age, ..Keep::default() }, later).unwrap(),
        [ids[1].clone()]
    );
}

/// The clock that stamps inodes may be another machine's, so times of the last seconds before a hot pass prove
/// nothing: the cold pass reads such a file again.
#[test]
fn what_was_written_just_before_a_hot_pass_is_read_again_by_the_cold_one() {
    let bench = Bench::new();
    write(&bench.source().join("file"), &noise(1, 100_000));
    let repository = bench.repository();
    let mut pass = repository.begin(bench.sources(), Label::default()).unwrap();
    pass.hot(&mut Quiet).unwrap();
    let mut read = 0;
    let mut cold = |counts: &Counts| {
        read = counts.bytes;
        ControlFlow::Continue(())
    };
    let generation = pass.cold(&mut cold).unwrap();
    assert_eq!((read, generation.bytes()), (100_000, (100_000, 100_000)), "read, and not copied once more");
}
