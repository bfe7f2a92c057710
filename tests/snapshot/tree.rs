//! The tree that careless copies break, and an account of every attribute that does not use the code under test.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{AtFlags, CWD, FileType, Mode, SeekFrom, Timespec, Timestamps, UTIME_OMIT, XattrFlags};

/// Access ACL: owner rw, user 1234 r, group r, mask r, others nothing (`struct posix_acl_xattr_entry`).
pub const ACL: &[u8] = &[
    2, 0, 0, 0, //
    1, 0, 6, 0, 255, 255, 255, 255, //
    2, 0, 4, 0, 210, 4, 0, 0, //
    4, 0, 4, 0, 255, 255, 255, 255, //
    16, 0, 4, 0, 255, 255, 255, 255, //
    32, 0, 0, 0, 255, 255, 255, 255,
];
/// `cap_net_bind_service=ep` (`struct vfs_cap_data`, revision 2).
pub const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

pub fn name(bytes: &[u8]) -> OsString {
    OsString::from_vec(bytes.to_vec())
}

pub fn write(path: &Path, content: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

pub fn write_at(path: &Path, offset: u64, content: &[u8]) {
    let file = File::options().write(true).create(true).truncate(false).open(path).unwrap();
    file.write_all_at(content, offset).unwrap();
}

pub fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

pub fn chown(path: &Path, uid: u32, gid: u32) {
    std::os::unix::fs::lchown(path, Some(uid), Some(gid)).unwrap();
}

pub fn set_mtime(path: &Path, secs: i64, nanos: i64) {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: secs, tv_nsec: nanos },
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Does something to a file and puts its mtime back.
pub fn keeping_mtime(path: &Path, act: impl FnOnce(&Path)) {
    let before = path.symlink_metadata().unwrap();
    act(path);
    set_mtime(path, before.mtime(), before.mtime_nsec());
}

pub fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
}

pub fn mknod(path: &Path, kind: FileType, major: u32, minor: u32) {
    rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o640), rustix::fs::makedev(major, minor)).unwrap();
}

/// Not compressible, and different for every seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Makes the adversarial tree in the empty folder `root`.
pub fn adversarial(root: &Path) {
    let at = |path: &str| root.join(path);
    write(&at("plain"), b"plain content\n");
    write(&at("twin"), b"other content\n");
    write(&at("empty"), b"");
    write(&at("large"), &noise(1, (1 << 20) + 7));
    for path in ["a/x", "a/y/z", "a.b", "a b", "a-", "dir/one", "dir/two", "dir/sub/three", "other/one", "other/two"] {
        write(&at(path), path.as_bytes());
    }
    special_names(root);
    special_files(root);
    links(root);
    holes(root);
    attributes(root);
    for (path, secs, nanos) in [("plain", -1_000_000_000, 999_999_999), ("twin", -1_000_000_000, 999_999_999)] {
        set_mtime(&at(path), secs, nanos);
    }
    set_mtime(&at("large"), 4_102_444_800, 1);
    set_mtime(&at("dir"), 1_000_000_000, 5);
    chmod(root, 0o2751);
    chown(root, 1000, 1001);
    chmod(root, 0o2751);
    set_xattr(root, "user.root", b"root's own");
    set_mtime(root, 1_234_567_890, 123_456_789);
}

fn special_names(root: &Path) {
    for bytes in [&b"\xff\xfe not utf-8"[..], b"new\nline", b"-rf", b" ", b"\x01", b"\xe2\x82\xac", b"..."] {
        write(&root.join(name(bytes)), bytes);
    }
    write(&root.join(name(&[b'n'; 255])), b"longest name");
    write(&root.join(name(b"\xff dir")).join(name(b"\xfe")), b"below");
    let mut deep = root.join("deep");
    for level in 0..60 {
        deep.push(format!("level {level}"));
    }
    write(&deep.join("bottom"), b"deep");
}

fn special_files(root: &Path) {
    let at = |path: &str| root.join(path);
    mknod(&at("fifo"), FileType::Fifo, 0, 0);
    mknod(&at("lone fifo"), FileType::Fifo, 0, 0);
    mknod(&at("null"), FileType::CharacterDevice, 1, 3);
    mknod(&at("block"), FileType::BlockDevice, 240, 200_000);
    drop(UnixListener::bind(at("socket")).unwrap());
    chown(&at("socket"), 33, 33);
    set_mtime(&at("fifo"), 1_111_111_111, 42);
    set_mtime(&at("socket"), 1_111_111_112, 43);
}

fn links(root: &Path) {
    let at = |path: &str| root.join(path);
    for (target, path) in [
        ("plain", "link"),
        ("/nonexistent/absolute", "dangling"),
        ("dir", "link to dir"),
        ("loop", "loop"),
        ("../../..", "dir/up"),
    ] {
        symlink(target, at(path)).unwrap();
    }
    symlink(name(&[b't'; 1000]), at("long target")).unwrap();
    symlink(name(b"\xff"), at("bytes target")).unwrap();
    chown(&at("link"), 1000, 7);
    set_mtime(&at("link"), 1_222_222_222, 222_222_222);
    set_xattr(&at("link"), "trusted.of-link", b"yes");
    write(&at("linked 1"), b"one inode, three names");
    for path in ["a/linked 2", "zzz linked 3"] {
        fs::hard_link(at("linked 1"), at(path)).unwrap();
    }
    fs::hard_link(at("dangling"), at("dangling too")).unwrap();
    fs::hard_link(at("fifo"), at("dir/fifo too")).unwrap();
    write(&at("pair 1"), b"same bytes");
    write(&at("single"), b"same bytes");
    fs::hard_link(at("pair 1"), at("pair 2")).unwrap();
}

fn holes(root: &Path) {
    let at = |path: &str| root.join(path);
    let mib = 1 << 20;
    write_at(&at("sparse"), mib, &noise(2, 5000));
    write_at(&at("sparse"), 4 * mib, &noise(3, 10));
    File::options().write(true).open(at("sparse")).unwrap().set_len(8 * mib).unwrap();
    File::create(at("only a hole")).unwrap().set_len(3 * mib + 1).unwrap();
    write(&at("zeros"), &[0; 100_000]);
}

fn attributes(root: &Path) {
    let at = |path: &str| root.join(path);
    for (path, mode, uid, gid) in [
        ("setuid", 0o4755, 1234, 5678),
        ("setgid", 0o2711, 0, 5678),
        ("no rights", 0o000, 1000, 1000),
        ("huge ids", 0o644, 4_294_967_294, 2_147_483_648),
    ] {
        write(&at(path), path.as_bytes());
        chown(&at(path), uid, gid);
        chmod(&at(path), mode);
    }
    for (path, mode) in [("closed", 0o000), ("sticky", 0o1777), ("setgid dir", 0o2775), ("read only", 0o555)] {
        write(&at(path).join("inside"), path.as_bytes());
        chown(&at(path), 1000, 100);
        chmod(&at(path), mode);
    }
    for path in ["xattrs", "acl", "capable"] {
        write(&at(path), path.as_bytes());
    }
    for (name, value) in
        [("user.a", &b"1"[..]), ("user.empty", b""), ("user.long", &[7; 2000]), ("trusted.t", b"\0\xff")]
    {
        set_xattr(&at("xattrs"), name, value);
    }
    set_xattr(&at("acl"), "system.posix_acl_access", ACL);
    set_xattr(&at("capable"), "security.capability", CAPABILITY);
    fs::create_dir(at("default acl")).unwrap();
    set_xattr(&at("default acl"), "system.posix_acl_default", ACL);
    write(&at("default acl/inherits"), b"an ACL of its own");
    write(&at("default acl/sub/does too"), b"more");
    write(&at("default acl/does not"), b"plain");
    rustix::fs::lremovexattr(at("default acl/does not"), "system.posix_acl_access").unwrap();
}

/// Everything about every entry, in words: path → description.
pub type Account = BTreeMap<OsString, String>;

/// Takes the account of a tree.
pub fn account(root: &Path) -> Account {
    let mut account = Account::new();
    let mut inodes = HashMap::new();
    describe(root, Path::new("."), &mut account, &mut inodes);
    account
}

fn describe(root: &Path, path: &Path, account: &mut Account, inodes: &mut HashMap<u64, PathBuf>) {
    let full = if path == Path::new(".") { root.to_owned() } else { root.join(path) };
    let meta = full.symlink_metadata().unwrap();
    let kind = meta.file_type();
    let mut text = format!("{kind:?} mode {:o} {}:{}", meta.mode(), meta.uid(), meta.gid());
    text += &format!(" mtime {}.{:09}", meta.mtime(), meta.mtime_nsec());
    for name in xattr_names(&full) {
        let mut value = vec![0; 65536];
        let length = rustix::fs::lgetxattr(&full, &*name, &mut value[..]).unwrap();
        text += &format!(" {name}={:?}", &value[..length]);
    }
    if kind.is_file() {
        let content = fs::read(&full).unwrap();
        text += &format!(" size {} {} data {:?}", meta.len(), blake3::hash(&content), data(&full, meta.len()));
    } else if kind.is_symlink() {
        text += &format!(" to {:?}", fs::read_link(&full).unwrap());
    } else if kind.is_char_device() || kind.is_block_device() {
        text += &format!(" device {:x}", meta.rdev());
    }
    if !kind.is_dir() {
        let first = inodes.entry(meta.ino()).or_insert_with(|| path.to_owned());
        text += &format!(" inode of {first:?}");
    }
    account.insert(path.as_os_str().to_owned(), text);
    if kind.is_dir() {
        let mut names: Vec<_> = fs::read_dir(&full).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        for name in names {
            describe(root, &path.join(name), account, inodes);
        }
    }
}

fn xattr_names(path: &Path) -> Vec<String> {
    let mut list = vec![0; 65536];
    let length = rustix::fs::llistxattr(path, &mut list[..]).unwrap();
    let names = list[..length].split(|b| *b == 0).filter(|n| !n.is_empty());
    let mut names: Vec<_> = names.map(|n| String::from_utf8(n.to_vec()).unwrap()).collect();
    names.sort();
    names
}

fn data(path: &Path, size: u64) -> Vec<(u64, u64)> {
    let file = File::open(path).unwrap();
    let mut list = Vec::new();
    let mut at = 0;
    while let Ok(start) = rustix::fs::seek(file.as_fd(), SeekFrom::Data(at)) {
        at = rustix::fs::seek(file.as_fd(), SeekFrom::Hole(start)).unwrap().min(size);
        list.push((start, at));
        if at >= size {
            break;
        }
    }
    list
}

/// Fails with the entries that differ, not with two whole trees.
#[track_caller]
pub fn assert_same(expected: &Account, found: &Account, what: &str) {
    let mut lines = Vec::new();
    for (path, text) in expected {
        match found.get(path) {
            None => lines.push(format!("{path:?} is missing")),
            Some(other) if other != text => lines.push(format!("{path:?}\n  was {text}\n  is  {other}")),
            Some(_) => {}
        }
    }
    lines.extend(found.keys().filter(|p| !expected.contains_key(*p)).map(|p| format!("{p:?} is not expected")));
    assert!(lines.is_empty(), "{what}:\n{}", lines.join("\n"));
}

/// The independent judge: what rsync would still change to make `to` like `from`.
pub fn rsync_differences(from: &Path, to: &Path) -> String {
    let mut from = from.as_os_str().to_owned();
    from.push(OsStr::from_bytes(b"/"));
    let output = Command::new("rsync")
        .args(["-aHAXS", "--checksum", "--delete", "--dry-run", "--itemize-changes"])
        .arg(from)
        .arg(to)
        .output()
        .expect("rsync is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
