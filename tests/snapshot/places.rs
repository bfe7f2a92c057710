//! Mounts, roots that are files, several sources, and folders inside each other.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use processgit_updater::engine::{self, MountKind};
use processgit_updater::snapshot::host::{HostData, Retention};
use processgit_updater::snapshot::{Error, Label, Quiet, Source};
use processgit_updater::update::job::JobId;
use processgit_updater::update::ports::{CopyLabel, CopyReport, DataMount, DataStore, Look, Obstacle};

use crate::disk::Mount;
use crate::tree::*;
use crate::{Bench, copy, snapshot, sources};

#[test]
fn mounts_inside_are_neither_crossed_nor_touched() {
    let bench = Bench::new();
    let (source, repository) = (bench.source(), bench.repository());
    for path in ["a/x", "bound from/inner", "later/y"] {
        write(&source.join(path), path.as_bytes());
    }
    write(&source.join("file"), b"below the mount");
    let outer = bench.folder.path().join("outer file");
    write(&outer, b"somebody else's");
    fs::create_dir_all(source.join("mounted/tmpfs")).unwrap();
    fs::create_dir_all(source.join("mounted/bind")).unwrap();
    let _tmpfs = Mount::new(&["-t", "tmpfs", "none"], &source.join("mounted/tmpfs"));
    // The same file system: only the mount tells.
    let _bind = Mount::new(&["--bind", source.join("bound from").to_str().unwrap()], &source.join("mounted/bind"));
    let _file = Mount::new(&["--bind", outer.to_str().unwrap()], &source.join("file"));
    write(&source.join("mounted/tmpfs/foreign"), b"not ours");
    let before = account(&source);

    let generation = snapshot(&repository, bench.sources());
    assert_eq!(fs::read_dir(copy(&generation).join("mounted/tmpfs")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(copy(&generation).join("mounted/bind")).unwrap().count(), 0);
    assert_eq!(fs::read(copy(&generation).join("file")).unwrap(), b"");
    repository.verify(&generation, &mut Quiet).unwrap();

    chmod(&source.join("mounted"), 0o700);
    fs::remove_dir_all(source.join("a")).unwrap();
    // A folder that the failed version made, in which somebody mounted something.
    write(&source.join("new/gone"), b"");
    fs::create_dir_all(source.join("new/kept/mount")).unwrap();
    let late = Mount::new(&["-t", "tmpfs", "none"], &source.join("new/kept/mount"));
    write(&source.join("new/kept/mount/foreign"), b"not ours");
    for _ in 0..2 {
        let report = repository.restore(&generation, &bench.sources(), &mut Quiet).unwrap();
        assert_eq!(report.mounts, 4, "{report:?}");
        assert!(source.join("new/kept/mount/foreign").exists() && !source.join("new/gone").exists());
    }
    drop(late);
    repository.restore(&generation, &bench.sources(), &mut Quiet).unwrap();
    assert_same(&before, &account(&source), "restored");
    assert!(repository.equals(&generation, &bench.sources(), &mut Quiet).unwrap());

    // Where something recorded is hidden by a mount nothing can be proven.
    let _hides = Mount::new(&["-t", "tmpfs", "none"], &source.join("later"));
    let error = repository.restore(&generation, &bench.sources(), &mut Quiet).unwrap_err();
    assert!(error.to_string().contains("something is mounted there now"), "{error}");
}

#[test]
fn a_root_that_is_a_file_is_restored_in_place() {
    type Act = fn(&Path);
    let mutations: [(&str, Act); 6] = [
        ("nothing", |_| {}),
        ("content", |p| keeping_mtime(p, |p| write_at(p, 0, b"CONTENT"))),
        ("longer", |p| write(p, &noise(1, 1 << 20))),
        ("emptied", |p| write(p, b"")),
        ("metadata", |p| {
            chown(p, 5, 5);
            chmod(p, 0o777);
            set_xattr(p, "user.a", b"2");
        }),
        ("mtime", |p| set_mtime(p, 1, 1)),
    ];
    for (what, mutate) in mutations {
        let bench = Bench::new();
        let repository = bench.repository();
        let file = bench.folder.path().join("app.ini");
        write(&file, b"content of the file");
        write_at(&file, 1 << 20, b"behind a hole");
        chown(&file, 1000, 1000);
        chmod(&file, 0o640);
        set_xattr(&file, "user.a", b"1");
        // Bound on itself: like a single file in a container it cannot be unlinked.
        let _mount = Mount::new(&["--bind", file.to_str().unwrap()], &file);
        let before = account(&file);
        let generation = snapshot(&repository, sources(&file));
        assert_same(&before, &account(&copy(&generation)), what);
        let inode = file.metadata().unwrap().ino();
        mutate(&file);
        for _ in 0..2 {
            repository.restore(&generation, &sources(&file), &mut Quiet).expect(what);
            assert_same(&before, &account(&file), what);
        }
        assert_eq!(file.metadata().unwrap().ino(), inode, "{what}");
        let second = snapshot(&repository, sources(&file));
        assert_eq!(second.bytes().1, 0, "{what}");
    }
}

#[test]
fn several_sources_and_none_forgotten() {
    let bench = Bench::in_memory();
    let repository = bench.repository();
    let both: Vec<Source> = ["one", "two"].map(|name| Source::new(name, bench.folder.path().join(name))).to_vec();
    for source in &both {
        write(&source.path.join(&source.name), source.name.as_bytes());
    }
    let generation = snapshot(&repository, both.clone());
    for source in &both {
        write(&source.path.join("extra"), b"x");
    }
    let changes = repository.changes(&generation, &both, &mut Quiet).unwrap();
    assert_eq!((changes.added, changes.changed, changes.removed, changes.bytes), (2, 2, 0, 2));
    let error = repository.restore(&generation, &both[..1], &mut Quiet).unwrap_err();
    assert!(error.to_string().contains("of the mounts one, two, not of one"), "{error}");
    let report = repository.restore(&generation, &both, &mut Quiet).unwrap();
    assert_eq!((report.kept, report.rewritten, report.removed), (2, 0, 2));
}

#[test]
fn refused_before_anything_is_stopped() {
    let bench = Bench::new();
    let (source, repository) = (bench.source(), bench.repository());
    write(&source.join("x"), b"x");
    let refusals = |path: &Path| repository.preflight(&sources(path), &mut Quiet).unwrap().refusals;
    assert!(refusals(&source).is_empty());
    let found = refusals(bench.folder.path());
    assert!(matches!(found[..], [Obstacle::FolderInData { .. }]), "{found:?}");
    let found = refusals(&repository.root().join("work"));
    assert!(matches!(found[..], [Obstacle::DataInFolder { .. }]), "{found:?}");
    // The same folder by another mount, which no path tells.
    let elsewhere = bench.folder.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let _mount = Mount::new(&["--bind", bench.folder.path().to_str().unwrap()], &elsewhere);
    let found = refusals(&elsewhere);
    assert!(matches!(found[..], [Obstacle::FolderInData { .. }]), "{found:?}");
    let mut pass = repository.begin(sources(&elsewhere), Label::default()).unwrap();
    assert!(matches!(pass.hot(&mut Quiet), Err(Error::Refused(_))));

    for name in ["", ".", "..", "a/b", ".hidden", "a b", "é"] {
        let source = Source::new(name, source.clone());
        assert!(matches!(repository.begin(vec![source], Label::default()), Err(Error::Refused(_))), "{name:?}");
    }
    let twice = [bench.sources(), bench.sources()].concat();
    assert!(matches!(repository.begin(twice, Label::default()), Err(Error::Refused(_))));
}

#[test]
fn preflight_counts_what_is_not_shared() {
    let bench = Bench::new();
    let (source, repository) = (bench.source(), bench.repository());
    write(&source.join("large"), &noise(1, 10 << 20));
    fs::hard_link(source.join("large"), source.join("large too")).unwrap();
    File::create(source.join("hole")).unwrap().set_len(1 << 40).unwrap();
    let preflight = || repository.preflight(&bench.sources(), &mut Quiet).unwrap();
    let first = preflight();
    assert_eq!((first.entries, first.source_bytes >> 20), (4, 10));
    // What changed within the last ticks of the inodes' clock is never taken for shared, and no event tells
    // when that clock has moved on.
    std::thread::sleep(std::time::Duration::from_millis(200));
    snapshot(&repository, bench.sources());
    let second = preflight();
    assert_eq!((first.needed_bytes - second.needed_bytes) >> 20, 10);
    second.verdict().unwrap();
}

/// Longer than any path the kernel takes in one piece.
#[test]
fn deeper_than_a_path_may_be_long() {
    let bench = Bench::in_memory();
    let (source, repository) = (bench.source(), bench.repository());
    let deepest = |root: &Path| {
        let mut folder = rustix::fs::open(root, OPEN, rustix::fs::Mode::empty()).unwrap();
        for _ in 0..40 {
            let name = "d".repeat(200);
            match rustix::fs::mkdirat(&folder, &name, rustix::fs::Mode::RWXU) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(e) => panic!("{e}"),
            }
            folder = rustix::fs::openat(&folder, &name, OPEN, rustix::fs::Mode::empty()).unwrap();
        }
        folder
    };
    const OPEN: rustix::fs::OFlags = rustix::fs::OFlags::DIRECTORY;
    let mode = rustix::fs::Mode::RUSR;
    let create = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
    let look = |root: &Path, name: &str| rustix::fs::statat(deepest(root), name, rustix::fs::AtFlags::empty());
    let folder = deepest(&source);
    rustix::fs::openat(&folder, "one", create, mode).unwrap();
    rustix::fs::linkat(&folder, "one", &folder, "two", rustix::fs::AtFlags::empty()).unwrap();
    let generation = snapshot(&repository, bench.sources());
    assert_eq!(look(&copy(&generation), "one").unwrap().st_ino, look(&copy(&generation), "two").unwrap().st_ino);
    for name in ["one", "two"] {
        rustix::fs::unlinkat(&folder, name, rustix::fs::AtFlags::empty()).unwrap();
    }
    repository.restore(&generation, &bench.sources(), &mut Quiet).unwrap();
    assert_eq!(look(&source, "one").unwrap().st_ino, look(&source, "two").unwrap().st_ino);
}

/// `check` looks beside a job, too: it takes nothing away from it, before, between and during its passes. What
/// a dead process left goes.
#[tokio::test]
async fn a_check_beside_a_job() {
    let bench = Bench::new();
    write(&bench.source().join("file"), b"content");
    let mounts = [mount(&bench)];
    let root = bench.folder.path().join("repository");
    let data = HostData::new(root.clone(), Retention { keep: 5, max_age: None });
    let of = CopyLabel { job: JobId("job_1".into()), ..CopyLabel::default() };

    let left = bench.repository().begin(bench.sources(), Label::default()).unwrap().id().to_owned();
    data.preflight(&mounts).await.unwrap();
    assert!(!bench.repository().unfinished().unwrap().contains(&left), "of a process that is no more");
    data.hot(&of, &mounts, Arc::new(|_| ())).await.unwrap();
    data.preflight(&mounts).await.unwrap();
    assert_eq!(bench.repository().unfinished().unwrap().len(), 1, "the job still needs it");
    let at_work = bench.repository();
    data.preflight(&mounts).await.unwrap();
    drop(at_work);
    data.cold(&of, &mounts, Arc::new(|_| ())).await.unwrap();
}

/// The same without a moment of rest: a check that begins during one pass and ends after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_beside_jobs_without_end() {
    let bench = Bench::new();
    write(&bench.source().join("file"), b"content");
    let mounts = [mount(&bench)];
    let data = Arc::new(HostData::new(bench.folder.path().join("repository"), Retention { keep: 5, max_age: None }));
    let checks = tokio::spawn({
        let (data, mounts) = (data.clone(), mounts.clone());
        async move {
            loop {
                data.preflight(&mounts).await.unwrap();
            }
        }
    });
    for job in 0..60 {
        let of = CopyLabel { job: JobId(format!("job_{job}")), ..CopyLabel::default() };
        data.hot(&of, &mounts, Arc::new(|_| ())).await.unwrap();
        data.cold(&of, &mounts, Arc::new(|_| ())).await.unwrap();
    }
    assert!(!checks.is_finished(), "{:?}", checks.await);
    checks.abort();
}

fn mount(bench: &Bench) -> DataMount {
    DataMount::new(engine::Mount {
        kind: MountKind::Bind,
        name: String::new(),
        source: bench.source().display().to_string(),
        destination: "/data".into(),
        writable: true,
        subpath: String::new(),
    })
}

/// Looking for room keeps no job out, waits for none, and leaves nothing.
#[tokio::test]
async fn a_look_beside_a_job() {
    let bench = Bench::new();
    write(&bench.source().join("file"), &[7; 100_000]);
    let mount = mount(&bench);
    let root = bench.folder.path().join("repository");
    let data = HostData::new(root.clone(), Retention { keep: 5, max_age: None });
    let look = async || {
        let room = data.room(std::slice::from_ref(&mount)).await.unwrap();
        let (needed, free) = room.needed_and_free.unwrap();
        assert!(needed > 100_000 && free > needed && room.refusals.is_empty(), "{room:?}");
        room.unfinished
    };
    let listed = |folder: &Path| {
        let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = listed(bench.folder.path());
    assert_eq!(look().await, 0);
    assert_eq!(listed(bench.folder.path()), before, "there is no repository yet");

    let repository = bench.repository();
    let mut pass = repository.begin(bench.sources(), Label::default()).unwrap();
    pass.hot(&mut Quiet).unwrap();
    let before = listed(&root);
    assert_eq!(look().await, 1, "a pass is under way");
    assert_eq!(listed(&root), before);
    pass.cold(&mut Quiet).unwrap();
}

/// The root of a mount is noted while planning. If something else is there later, no call reads it or writes to
/// it: a folder of the host's that a link leads to stays as it is.
#[tokio::test]
async fn a_root_that_was_replaced_is_not_followed() {
    type Act = fn(&Path, &Path);
    let replace: [(&str, Act); 4] = [
        ("a link to a folder of the host", |root, secret| std::os::unix::fs::symlink(secret, root).unwrap()),
        ("a link to what it was", |root, _| std::os::unix::fs::symlink(root.with_extension("moved"), root).unwrap()),
        ("another folder", |root, _| fs::create_dir(root).unwrap()),
        ("nothing", |_, _| {}),
    ];
    for (what, act) in replace {
        let bench = Bench::new();
        let (root, secret) = (bench.source().canonicalize().unwrap(), bench.folder.path().join("secret"));
        write(&root.join("file"), b"content");
        write(&secret.join("key"), b"of the host");
        let data = HostData::new(bench.folder.path().join("repository"), Retention { keep: 5, max_age: None });
        let of = CopyLabel { job: JobId("job_1".into()), ..CopyLabel::default() };
        let quiet = || -> CopyReport { Arc::new(|_| ()) };
        let source = mount(&bench);
        let looked = data.look(&[Look { source: source.clone(), seen_by: None }]).await.unwrap().remove(0);
        let mounts = [DataMount { root: Some(looked.root), ..source }];
        let generation = data.cold(&of, &mounts, quiet()).await.unwrap().id;

        fs::rename(&root, root.with_extension("moved")).unwrap();
        act(&root, &secret);
        let refused = [
            data.preflight(&mounts).await.unwrap_err(),
            data.room(&mounts).await.unwrap_err(),
            data.hot(&of, &mounts, quiet()).await.unwrap_err(),
            data.cold(&of, &mounts, quiet()).await.unwrap_err(),
            data.running(&of, &mounts, quiet()).await.unwrap_err(),
            data.restore(&of, &generation, &mounts, &[], quiet()).await.unwrap_err(),
            data.load(&generation, &mounts, quiet()).await.unwrap_err(),
            data.distance(&generation, &mounts).await.unwrap_err(),
        ];
        for error in refused {
            assert!(error.to_string().contains("/data of the application"), "{what}: {error}");
        }
        assert_eq!(fs::read_dir(&secret).unwrap().count(), 1, "{what}");
        assert_eq!(fs::read(root.with_extension("moved").join("file")).unwrap(), b"content", "{what}");
    }
}
