//! A disk that fills, at every place where it can.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use processgit_updater::snapshot::{Label, Quiet, Repository, Source};

use crate::places::{Mount, run};
use crate::tree::*;
use crate::{copy, snapshot, sources};

/// A file system of its own in a file.
struct Disk {
    folder: tempfile::TempDir,
    _mount: Mount,
}

impl Disk {
    fn new(mib: u64, make: &[&str]) -> Self {
        assert!(rustix::process::geteuid().is_root(), "these tests need root");
        let folder = tempfile::tempdir().unwrap();
        let (image, at) = (folder.path().join("image"), folder.path().join("mnt"));
        File::create(&image).unwrap().set_len(mib << 20).unwrap();
        run(make[0], &make[1..], &image);
        fs::create_dir(&at).unwrap();
        let mount = Mount::new(&["-o", "loop", image.to_str().unwrap()], &at);
        Self { folder, _mount: mount }
    }

    fn ext4(mib: u64) -> Self {
        Self::new(mib, &["mkfs.ext4", "-q", "-m", "0", "-N", "2000", "-F"])
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("mnt")
    }

    /// Takes all room but this much.
    fn fill(&self, leave_mib: u64) {
        let free = rustix::fs::statvfs(self.root()).unwrap();
        let room = free.f_bavail * free.f_frsize;
        fs::write(self.root().join("ballast"), noise(99, (room - (leave_mib << 20)) as usize)).unwrap();
    }
}

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
        assert!(refusals.iter().any(|r| r.contains("no room for the snapshot")), "{refusals:?}");
        repository.discard(&id).unwrap();
        assert_eq!(repository.generations().unwrap(), std::slice::from_ref(&first));
        assert_same(&before, &account(&copy(&first)), full_at);
        fs::remove_file(disk.root().join("ballast")).unwrap();
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
    let doomed = repository.prune(1, None, &[guarding.id()], guarding.meta.created_at).unwrap();
    assert_eq!(doomed, [old.id()]);
    fs::remove_file(disk.root().join("ballast")).unwrap();
    let kept = keep().unwrap();
    assert_same(&damaged, &account(&copy(&kept)), "kept");
    repository.restore(&guarding, &source, &mut Quiet).unwrap();
    assert_same(&before, &account(data.path()), "restored");
    assert_eq!(keep().unwrap().id(), kept.id());
    assert_same(&damaged, &account(&copy(&kept)), "kept, asked for again");
}

#[test]
fn a_failed_version_filled_the_disk_of_the_data() {
    let disk = Disk::ext4(60);
    let data = disk.root().join("data");
    let elsewhere = tempfile::tempdir().unwrap();
    let repository = Repository::open(elsewhere.path()).unwrap();
    let source = vec![Source { name: "data".to_owned(), path: data.clone() }];
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

/// File systems that share blocks; where the machine cannot make them, there is nothing to see.
#[test]
fn blocks_are_shared_where_the_file_system_can() {
    for make in [&["mkfs.xfs", "-q", "-f"][..], &["mkfs.btrfs", "-q", "-f"]] {
        if std::process::Command::new(make[0]).arg("-V").output().is_err() {
            println!("{} is not installed", make[0]);
            continue;
        }
        let disk = Disk::new(400, make);
        let data = disk.root().join("data");
        fs::create_dir(&data).unwrap();
        adversarial(&data);
        megabytes(&data, 0, 100);
        let source = vec![Source { name: "data".to_owned(), path: data.clone() }];
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
