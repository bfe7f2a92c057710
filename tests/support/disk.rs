//! Mounts and small disks that end with the test.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A mount that ends with the test.
pub struct Mount(pub PathBuf);

impl Mount {
    pub fn new(arguments: &[&str], at: &Path) -> Self {
        run("mount", arguments, at);
        Self(at.to_owned())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

pub fn run(program: &str, arguments: &[&str], last: &Path) {
    let output = Command::new(program).args(arguments).arg(last).output().expect(program);
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A file system of its own in a file.
pub struct Disk {
    /// First: dropped before what it is mounted on.
    _mount: Mount,
    folder: tempfile::TempDir,
}

impl Disk {
    pub fn new(mib: u64, make: &[&str]) -> Self {
        assert!(rustix::process::geteuid().is_root(), "these tests need root");
        let folder = tempfile::tempdir().unwrap();
        let (image, at) = (folder.path().join("image"), folder.path().join("mnt"));
        File::create(&image).unwrap().set_len(mib << 20).unwrap();
        run(make[0], &make[1..], &image);
        fs::create_dir(&at).unwrap();
        let mount = Mount::new(&["-o", "loop", image.to_str().unwrap()], &at);
        Self { folder, _mount: mount }
    }

    /// In memory, where flushing costs nothing.
    pub fn tmpfs(mib: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().join("mnt");
        fs::create_dir(&at).unwrap();
        let mount = Mount::new(&["-t", "tmpfs", "-o", &format!("size={mib}m"), "none"], &at);
        Self { folder, _mount: mount }
    }

    pub fn ext4(mib: u64) -> Self {
        Self::new(mib, &["mkfs.ext4", "-q", "-m", "0", "-N", "2000", "-F"])
    }

    pub fn root(&self) -> PathBuf {
        self.folder.path().join("mnt")
    }

    /// Bytes that are free.
    pub fn free(&self) -> u64 {
        let free = rustix::fs::statvfs(self.root()).unwrap();
        free.f_bavail * free.f_frsize
    }

    /// Takes all room but this much.
    pub fn fill(&self, leave_mib: u64) {
        fs::write(self.filler(), vec![7; (self.free() - (leave_mib << 20)) as usize]).unwrap();
    }

    /// Takes all room, to the last byte.
    pub fn fill_up(&self) {
        let mut file = File::options().append(true).create(true).open(self.filler()).unwrap();
        for size in [1 << 20, 4096, 1] {
            while file.write_all(&vec![7; size]).is_ok() {}
        }
        let _ = file.sync_all();
    }

    /// What fills it.
    pub fn filler(&self) -> PathBuf {
        self.root().join("filler")
    }
}
