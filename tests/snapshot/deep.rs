//! Trees that were made to be deep or wide: what a copy holds in memory does not grow with them, and beyond a
//! bound they are refused.

use std::fs;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use processgit_updater::snapshot::{Counts, Error, Label, Limits, Quiet};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, XattrFlags};

use crate::tree::{account, assert_same, write};
use crate::{Bench, copy, snapshot};

const DEEP: usize = 2000;
/// Paths of all these folders together have half a gigabyte; their names half a megabyte.
const ALLOWED: u64 = 48 << 20;

fn folder(path: &Path) -> OwnedFd {
    rustix::fs::openat(CWD, path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

/// The longest that a file system takes.
fn long(n: usize) -> String {
    format!("{n:0>255}")
}

/// The innermost of `depth` folders inside each other, which are made where they are missing.
fn innermost(root: &Path, depth: usize) -> OwnedFd {
    let mut at = folder(root);
    for n in 0..depth {
        let _ = rustix::fs::mkdirat(&at, long(n), Mode::RWXU);
        at = rustix::fs::openat(&at, long(n), OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    }
    at
}

fn put(at: &OwnedFd, name: &str, content: &[u8]) {
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::TRUNC | OFlags::CLOEXEC;
    let file = rustix::fs::openat(at, name, flags, Mode::RUSR).unwrap();
    rustix::io::write(&file, content).unwrap();
    rustix::fs::fsetxattr(&file, "user.a", content, XattrFlags::empty()).unwrap();
}

fn content(at: &OwnedFd, name: &str) -> (Vec<u8>, Vec<u8>, u64) {
    let file = rustix::fs::openat(at, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let (mut bytes, mut xattr) = (vec![0; 64], vec![0; 64]);
    let read = rustix::io::pread(&file, &mut bytes[..], 0).unwrap();
    let length = rustix::fs::fgetxattr(&file, "user.a", &mut xattr[..]).unwrap();
    bytes.truncate(read);
    xattr.truncate(length);
    (bytes, xattr, rustix::fs::fstat(&file).unwrap().st_ino)
}

/// The most memory that this process has used since [`forget_peak`], bytes (proc(5)). Each test is a process.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

fn forget_peak() {
    fs::write("/proc/self/clear_refs", "5").unwrap();
}

fn open_files() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn a_deep_tree_costs_little_memory_and_few_open_files() {
    let bench = Bench::in_memory();
    let (source, repository) = (bench.source(), bench.repository());
    let deepest = innermost(&source, DEEP);
    put(&deepest, "file", b"content");
    rustix::fs::linkat(&deepest, "file", folder(&source), "outside", AtFlags::empty()).unwrap();
    for n in 0..100 {
        put(&deepest, &format!("{n}"), b"x");
        rustix::fs::linkat(&deepest, format!("{n}"), &deepest, format!("{n} again"), AtFlags::empty()).unwrap();
    }
    drop(deepest);
    forget_peak();
    let before = peak();
    let mut most_open = 0;
    let mut watching = |counts: &Counts| {
        if counts.entries.is_multiple_of(100) {
            most_open = most_open.max(open_files());
        }
        ControlFlow::Continue(())
    };
    repository.preflight(&bench.sources(), &mut watching).unwrap().verdict().unwrap();
    let mut pass = repository.begin(bench.sources(), Label::default()).unwrap();
    pass.hot(&mut watching).unwrap();
    let generation = pass.cold(&mut watching).unwrap();
    repository.verify(&generation, &mut watching).unwrap();

    // The failed version changes what is deepest, and goes deeper.
    put(&innermost(&source, DEEP), "file", b"CHANGED");
    put(&innermost(&source, DEEP + 50), "more", b"more");
    let kept = repository.keep_present_state(bench.sources(), "failed-1", Label::default(), &mut watching).unwrap();
    repository.restore(&generation, &bench.sources(), &mut watching).unwrap();
    let used = peak().saturating_sub(before);
    assert!(used < ALLOWED, "{} MiB more than before", used >> 20);
    assert!(most_open < 600, "{most_open} files open");

    let deepest = innermost(&source, DEEP);
    let found = content(&deepest, "file");
    assert_eq!((&found.0[..], &found.1[..]), (&b"content"[..], &b"content"[..]));
    assert_eq!(content(&folder(&source), "outside").2, found.2, "one inode");
    assert_eq!(content(&deepest, "7").2, content(&deepest, "7 again").2, "one inode");
    assert!(rustix::fs::accessat(&deepest, long(DEEP), rustix::fs::Access::EXISTS, AtFlags::empty()).is_err());
    assert!(repository.equals(&generation, &bench.sources(), &mut Quiet).unwrap());
    repository.remove(&kept).unwrap();
}

#[test]
fn what_is_larger_than_allowed_is_refused_before_it_is_copied() {
    type Make = fn(&Path);
    let cases: [(&str, Make, Limits, &str); 2] = [
        (
            "deep",
            |root| write(&root.join("a/b/c/d/file"), b""),
            Limits { depth: 3, ..Limits::DEFAULT },
            "more than 3 folders inside each other",
        ),
        (
            "wide",
            |root| (0..20).for_each(|n| write(&root.join(format!("{n}")), b"")),
            Limits { entries: 19, ..Limits::DEFAULT },
            "more than 19 entries",
        ),
    ];
    for (what, make, limits, says) in cases {
        let bench = Bench::in_memory();
        write(&bench.source().join("small"), b"");
        let first = snapshot(&bench.repository(), bench.sources());
        let before = account(&bench.source());
        make(&bench.source());
        let repository = bench.repository().within(limits);
        let refused = |error: Error| {
            let text = error.to_string();
            assert!(text.contains(says) && text.contains("PROCESSGIT_UPDATER_SNAPSHOT_MAX_"), "{what}: {text}");
        };
        refused(repository.preflight(&bench.sources(), &mut Quiet).unwrap_err());
        let mut pass = repository.begin(bench.sources(), Label::default()).unwrap();
        refused(pass.hot(&mut Quiet).unwrap_err());
        refused(repository.begin(bench.sources(), Label::default()).unwrap().cold(&mut Quiet).unwrap_err());
        // A failed version has made it: it is kept and undone all the same.
        let kept = repository.keep_present_state(bench.sources(), "failed-1", Label::default(), &mut Quiet).unwrap();
        assert_same(&account(&bench.source()), &account(&copy(&kept)), what);
        repository.restore(&first, &bench.sources(), &mut Quiet).unwrap();
        assert_same(&before, &account(&bench.source()), what);
    }
}

/// Paths in messages are for people, and a job's record has a bound.
#[test]
fn a_long_path_is_shown_by_its_ends() {
    let bench = Bench::in_memory();
    let deepest = innermost(&bench.source(), 100);
    put(&deepest, "file", b"content");
    let repository = bench.repository().within(Limits { depth: 99, ..Limits::DEFAULT });
    let error = repository.preflight(&bench.sources(), &mut Quiet).unwrap_err().to_string();
    assert!(error.len() < 2000 && error.contains('…'), "{} bytes: {error}", error.len());
    let _ = deepest.as_fd();
}
