//! A `.env` that cannot be replaced is known before anything is stopped; and looking leaves no trace.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

use processgit_updater::envfile::{EnvFileError, file};
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_res_gid, set_thread_res_uid};

use crate::disk::{Disk, Mount, run};

const USER: u32 = 1000;

/// A folder `app` with a `.env` in it, both this user's.
fn given(root: &Path, owner: u32) {
    let app = root.join("app");
    fs::create_dir(&app).unwrap();
    fs::write(app.join(".env"), "V=1\n").unwrap();
    chown(app.join(".env"), Some(owner), Some(owner)).unwrap();
    chown(&app, Some(owner), Some(owner)).unwrap();
}

/// What this user finds.
fn rehearsed(root: &Path, user: u32) -> Result<(), EnvFileError> {
    let path = root.join("app/.env");
    std::thread::spawn(move || {
        become_user(user);
        file::rehearse(&path)
    })
    .join()
    .unwrap()
}

/// This thread alone.
fn become_user(id: u32) {
    let (user, group) = (Uid::from_raw(id), Gid::from_raw(id));
    set_thread_res_gid(group, group, group).unwrap();
    set_thread_res_uid(user, user, user).unwrap();
}

type Made = fn(&Path) -> Option<Mount>;

/// An attribute, which goes with the disk.
fn flagged(path: &Path, flag: &str) -> Option<Mount> {
    run("chattr", &[flag], path);
    None
}

fn mode(path: &Path, mode: u32) -> Option<Mount> {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    None
}

#[test]
fn what_stops_a_write_is_found_by_a_look() {
    let rows: &[(&str, u32, u32, Made, &str)] = &[
        ("a plain file", 0, 0, |_| None, ""),
        ("somebody else's, found by root", USER, 0, |_| None, ""),
        ("its owner's", USER, USER, |_| None, ""),
        ("immutable", 0, 0, |app| flagged(&app.join(".env"), "+i"), "has the attribute i"),
        ("append only", 0, 0, |app| flagged(&app.join(".env"), "+a"), "`chattr -a "),
        ("in an immutable folder", 0, 0, |app| flagged(app, "+i"), "app has the attribute i"),
        ("in a folder that only grows", 0, 0, |app| flagged(app, "+a"), "app has the attribute a"),
        ("root's, in a folder of root's", 0, USER, |_| None, "Permission denied"),
        ("root's, in a folder of everybody", 0, USER, |app| mode(app, 0o777), "cannot keep"),
        ("root's, in a sticky folder", 0, USER, |app| mode(app, 0o1777), "in a folder with the sticky bit"),
        ("a user's, in a sticky folder of root's", USER, 0, |app| mode(app, 0o1777), ""),
        (
            "a link to a file elsewhere",
            0,
            0,
            |app| {
                fs::rename(app.join(".env"), app.parent().unwrap().join("real.env")).unwrap();
                symlink("../real.env", app.join(".env")).unwrap();
                None
            },
            "",
        ),
        (
            "a link to nothing",
            0,
            0,
            |app| {
                fs::remove_file(app.join(".env")).unwrap();
                symlink("/nowhere/of/real.env", app.join(".env")).unwrap();
                None
            },
            "is a link to /nowhere/of/real.env, which does not exist here",
        ),
        (
            "a folder",
            0,
            0,
            |app| {
                fs::remove_file(app.join(".env")).unwrap();
                fs::create_dir(app.join(".env")).unwrap();
                None
            },
            "is not a regular file",
        ),
        ("hard-linked", 0, 0, |app| fs::hard_link(app.join(".env"), app.join("copy")).map(|()| None).unwrap(), ""),
        ("not there yet", 0, 0, |app| fs::remove_file(app.join(".env")).map(|()| None).unwrap(), ""),
        (
            "on a read-only file system",
            0,
            0,
            |app| {
                let shown = Mount::new(&["--bind", app.to_str().unwrap()], app);
                run("mount", &["-o", "remount,ro,bind"], app);
                Some(shown)
            },
            "Read-only file system",
        ),
    ];
    for (name, owner, user, make, expected) in rows {
        let disk = Disk::ext4(2);
        given(&disk.root(), *owner);
        let app = disk.root().join("app");
        let _mount = make(&app);
        let listed = |folder: &Path| {
            let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let before = listed(&app);
        let found = rehearsed(&disk.root(), *user).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(if expected.is_empty() { found.is_empty() } else { found.contains(expected) }, "{name}: {found:?}");
        assert_eq!(listed(&app), before, "{name}: nothing was left");
        for file in [".env", "../real.env"].map(|file| app.join(file)).iter().filter(|file| file.is_file()) {
            assert_eq!(fs::read(file).unwrap(), b"V=1\n", "{name}");
        }
        // What was found is true.
        let written = std::thread::spawn({
            let (path, user) = (app.join(".env"), *user);
            move || {
                become_user(user);
                file::write_atomic(&path, b"V=2\n")
            }
        });
        assert_eq!(written.join().unwrap().is_ok(), expected.is_empty(), "{name}: a write");
    }
}

#[test]
fn a_full_disk_is_found_by_a_look() {
    let disk = Disk::ext4(2);
    given(&disk.root(), 0);
    disk.fill_up();
    let found = rehearsed(&disk.root(), 0).unwrap_err().to_string();
    assert!(found.contains("No space left on device"), "{found}");
}
