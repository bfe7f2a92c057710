//! A disk that fills, at every place where it can.

use std::fs;
use std::path::Path;

use processgit_updater::engine::{Mount, MountKind};
use processgit_updater::snapshot::host::{HostData, Retention};
use processgit_updater::snapshot::{Keep, Label, Quiet, Repository, Source};
use processgit_updater::update::job::JobId;
use processgit_updater::update::ports::{CopyLabel, CopyReport, DataMount, DataStore, Obstacle};

use crate::disk::Disk;
use crate::tree::*;
use crate::{copy, snapshot, sources};

fn megabytes(root: &Path, from: u64, count: u64) {
    for i in from..from + count {
        write(&root.join(format!("file {i}")), &noise(i, 1 << 20));
    }
}

#[test]
fn at_the_hot_pass_and_at_the_cold_pass() {
    for full_at in ["hot", "cold"] {
        let disk = Disk::ext4(60);
        let data = tempfile::tempdir().unwrap();
        let source = sources(data.path());
        megabytes(data.path(), 0, 10);
        let repository = Repository::open(&disk.root().join("repository")).unwrap();
        let first = snapshot(&repository, source.clone());
        let before = account(data.path());
        let mut pass = repository.begin(source.clone(), Label::default()).unwrap();
        let id = pass.id().to_owned();
        disk.fill(5);
        let error = if full_at == "hot" {
            megabytes(data.path(), 10, 10);
            pass.hot(&mut Quiet).unwrap_err()
        } else {
            pass.hot(&mut Quiet).unwrap();
            megabytes(data.path(), 10, 10);
            pass.cold(&mut Quiet).unwrap_err()
        };
        assert!(error.is_disk_full(), "{error}");
        assert!(error.to_string().contains("file 1") && error.to_string().contains("prune snapshots"), "{error}");
        let refusals = repository.preflight(&source, &mut Quiet).unwrap().refusals;
        assert!(refusals.iter().any(|r| matches!(r, Obstacle::NoRoom { .. })), "{refusals:?}");
        repository.discard(&id).unwrap();
        assert_eq!(repository.generations().unwrap(), std::slice::from_ref(&first));
        assert_same(&before, &account(&copy(&first)), full_at);
        fs::remove_file(disk.filler()).unwrap();
        repository.verify(&snapshot(&repository, source), &mut Quiet).unwrap();
    }
}

#[test]
fn at_the_copy_of_the_damaged_state() {
    let disk = Disk::ext4(60);
    let data = tempfile::tempdir().unwrap();
    let source = sources(data.path());
    megabytes(data.path(), 0, 10);
    let repository = Repository::open(&disk.root().join("repository")).unwrap();
    let old = snapshot(&repository, source.clone());
    megabytes(data.path(), 5, 10);
    let before = account(data.path());
    let guarding = snapshot(&repository, source.clone());
    fs::remove_file(data.path().join("file 1")).unwrap();
    megabytes(data.path(), 20, 12);
    let damaged = account(data.path());
    disk.fill(8);
    let keep = || repository.keep_present_state(source.clone(), "failed-job", Label::default(), &mut Quiet);
    let error = keep().unwrap_err();
    assert!(error.is_disk_full(), "{error}");
    assert!(repository.unfinished().unwrap().is_empty());
    assert_same(&damaged, &account(data.path()), "nothing may be restored over it");
    // Whoever frees room may go on.
    let doomed = repository
        .prune(&Keep { newest: 1, ..Keep::new(&[guarding.id().to_owned()], &[]) }, guarding.meta.created_at)
        .unwrap();
    assert_eq!(doomed, [old.id()]);
    fs::remove_file(disk.filler()).unwrap();
    let kept = keep().unwrap();
    assert_same(&damaged, &account(&copy(&kept)), "kept");
    repository.restore(&guarding, &source, &mut Quiet).unwrap();
    assert_same(&before, &account(data.path()), "restored");
    assert_eq!(keep().unwrap().id(), kept.id());
    assert_same(&damaged, &account(&copy(&kept)), "kept, asked for again");
}

/// As an update asks for it: older snapshots go, but none that somebody needs; and without room nothing is
/// restored over data that was not copied.
#[tokio::test]
async fn room_is_made_for_the_damaged_state_but_not_at_any_price() {
    // What speaks for the older snapshot, and what becomes of it.
    for (what, by_hand, is_pinned, is_pruned) in [
        ("nobody needs it", false, false, true),
        ("a person asked for it", true, false, false),
        ("a rollback would want it", false, true, false),
    ] {
        let disk = Disk::ext4(60);
        let folder = tempfile::tempdir().unwrap();
        let store = HostData::new(disk.root().join("repository"), Retention { keep: 5, max_age: None });
        let mounts = [DataMount::new(Mount {
            kind: MountKind::Bind,
            name: String::new(),
            source: folder.path().display().to_string(),
            destination: "/data".into(),
            writable: true,
            subpath: String::new(),
        })];
        let quiet: CopyReport = std::sync::Arc::new(|_| ());
        let label = |job: &str, by_hand| CopyLabel {
            job: JobId(job.into()),
            version: None,
            image: String::new(),
            image_id: String::new(),
            repo_digest: None,
            env_value: None,
            by_hand,
        };
        megabytes(folder.path(), 0, 10);
        let older = store.cold(&label("job_1", by_hand), &mounts, quiet.clone()).await.unwrap();
        (0..10).for_each(|n| fs::remove_file(folder.path().join(format!("file {n}"))).unwrap());
        megabytes(folder.path(), 10, 5);
        let before = account(folder.path());
        let guarding = store.cold(&label("job_2", false), &mounts, quiet.clone()).await.unwrap();
        megabytes(folder.path(), 20, 12);
        let damaged = account(folder.path());
        disk.fill(8);
        let pinned = if is_pinned { vec![older.id.clone()] } else { Vec::new() };
        let restored = store.restore(&label("job_2", false), &guarding.id, &mounts, &pinned, quiet.clone()).await;
        let left: Vec<String> = store.list().await.unwrap().into_iter().map(|s| s.id).collect();
        if is_pruned {
            let kept = restored.expect(what);
            assert_eq!((kept.id.as_str(), &kept.pruned), ("failed-job_2", &vec![older.id]), "{what}");
            assert_eq!(left, [kept.id, guarding.id], "{what}");
            assert_same(&before, &account(folder.path()), what);
        } else {
            let error = restored.expect_err(what).to_string();
            assert!(error.contains("No space left") && error.contains("prune snapshots"), "{what}: {error}");
            assert_eq!(left, [guarding.id, older.id], "{what}");
            assert_same(&damaged, &account(folder.path()), what);
        }
    }
}

#[test]
fn a_failed_version_filled_the_disk_of_the_data() {
    let disk = Disk::ext4(60);
    let data = disk.root().join("data");
    let elsewhere = tempfile::tempdir().unwrap();
    let repository = Repository::open(elsewhere.path()).unwrap();
    let source = vec![Source::new("data", data.clone())];
    megabytes(&data, 0, 20);
    let before = account(&data);
    let generation = snapshot(&repository, source.clone());
    megabytes(&data, 0, 1);
    write(&data.join("zz"), &noise(77, 1));
    fs::remove_file(data.join("file 3")).unwrap();
    let free = rustix::fs::statvfs(&data).unwrap();
    write(&data.join("zz"), &noise(77, (free.f_bavail * free.f_frsize) as usize - (64 << 10)));
    repository.restore(&generation, &source, &mut Quiet).unwrap();
    assert_same(&before, &account(&data), "restored");
}

/// XFS allocates ahead and shows it as data while it is in memory: the edges of holes move by themselves.
fn but_holes(account: Account) -> Account {
    let cut = |text: String| match text.split_once(" data ") {
        Some((front, rest)) => format!("{front}{}", rest.split_once("] inode").map_or("", |(_, inode)| inode)),
        None => text,
    };
    account.into_iter().map(|(path, text)| (path, cut(text))).collect()
}

/// File systems that share blocks; where the kernel does not know them, there is nothing to see.
#[test]
fn blocks_are_shared_where_the_file_system_can() {
    for make in [&["mkfs.xfs", "-q", "-f"][..], &["mkfs.btrfs", "-q", "-f"]] {
        let kind = make[0].trim_start_matches("mkfs.");
        if !fs::read_to_string("/proc/filesystems").unwrap().contains(kind) {
            println!("this kernel knows no {kind}");
            continue;
        }
        let disk = Disk::new(400, make);
        let data = disk.root().join("data");
        fs::create_dir(&data).unwrap();
        adversarial(&data);
        megabytes(&data, 0, 100);
        let source = vec![Source::new("data", data.clone())];
        let repository = Repository::open(&disk.root().join("repository")).unwrap();
        rustix::fs::sync();
        let before = but_holes(account(&data));
        let free = || rustix::fs::statvfs(disk.root()).unwrap().f_bfree;
        let free_before = free();
        let generation = snapshot(&repository, source.clone());
        let used = (free_before - free()) * rustix::fs::statvfs(disk.root()).unwrap().f_frsize;
        assert!(used < 20 << 20, "{}: {used} bytes", make[0]);
        assert_same(&before, &but_holes(account(&copy(&generation))), make[0]);
        megabytes(&data, 5, 5);
        write_at(&data.join("file 9"), 5000, b"changed");
        fs::remove_file(data.join("sparse")).unwrap();
        repository.restore(&generation, &source, &mut Quiet).unwrap();
        assert_same(&before, &but_holes(account(&data)), make[0]);
        repository.verify(&generation, &mut Quiet).unwrap();
    }
}
