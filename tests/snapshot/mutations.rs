//! Everything that a failed version may do to its data, one row each, and the way back.

use std::fs::{self, File};
use std::ops::ControlFlow;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use processgit_updater::snapshot::{Counts, Error, Label, Quiet};
use rustix::fs::FileType;

use crate::disk::run;
use crate::tree::*;
use crate::{Bench, copy, snapshot, until};

type Mutation = (&'static str, fn(&Path));

const MUTATIONS: &[Mutation] = &[
    ("nothing", |_| {}),
    ("other content, same size and mtime", |r| keeping_mtime(&r.join("plain"), |p| write_at(p, 0, b"PLAIN"))),
    ("one byte in the middle of a large file", |r| keeping_mtime(&r.join("large"), |p| write_at(p, 500_000, b"!"))),
    ("appended", |r| write_at(&r.join("plain"), 1000, b"more")),
    ("truncated", |r| File::options().write(true).open(r.join("large")).unwrap().set_len(10).unwrap()),
    ("mode", |r| chmod(&r.join("setuid"), 0o600)),
    ("owner", |r| chown(&r.join("plain"), 5, 6)),
    ("group alone", |r| chown(&r.join("plain"), 0, 6)),
    ("mode and owner of a fifo", |r| {
        chown(&r.join("lone fifo"), 5, 6);
        chmod(&r.join("lone fifo"), 0o600);
    }),
    ("mode and owner of a device", |r| {
        chown(&r.join("null"), 5, 6);
        chmod(&r.join("null"), 0o600);
    }),
    ("owner of a link", |r| chown(&r.join("link"), 5, 6)),
    ("owner of a setuid file, which clears the bit", |r| chown(&r.join("setuid"), 5, 6)),
    ("mtime alone", |r| set_mtime(&r.join("plain"), 5, 5)),
    ("mtime by a nanosecond", |r| set_mtime(&r.join("large"), 4_102_444_800, 2)),
    ("mtime of a folder", |r| set_mtime(&r.join("dir"), 1_000_000_000, 6)),
    ("mtime of a fifo", |r| set_mtime(&r.join("lone fifo"), 5, 5)),
    ("mtime of a link", |r| set_mtime(&r.join("link"), 5, 5)),
    ("xattr added", |r| set_xattr(&r.join("plain"), "user.new", b"x")),
    ("xattr changed", |r| set_xattr(&r.join("xattrs"), "user.a", b"2")),
    ("xattr removed", |r| rustix::fs::lremovexattr(r.join("xattrs"), "user.empty").unwrap()),
    ("xattr of a link", |r| rustix::fs::lremovexattr(r.join("link"), "trusted.of-link").unwrap()),
    ("xattr of a folder", |r| set_xattr(&r.join("dir"), "user.new", b"x")),
    ("xattr of a fifo", |r| set_xattr(&r.join("lone fifo"), "trusted.new", b"x")),
    ("xattr of a device", |r| set_xattr(&r.join("null"), "trusted.new", b"x")),
    ("ACL added", |r| set_xattr(&r.join("plain"), "system.posix_acl_access", ACL)),
    ("ACL removed", |r| rustix::fs::lremovexattr(r.join("acl"), "system.posix_acl_access").unwrap()),
    ("default ACL removed", |r| rustix::fs::lremovexattr(r.join("default acl"), "system.posix_acl_default").unwrap()),
    ("default ACL on a folder whose files are rewritten", |r| {
        set_xattr(&r.join("dir"), "system.posix_acl_default", ACL);
        write(&r.join("dir/one"), b"changed");
    }),
    ("capability added", |r| set_xattr(&r.join("plain"), "security.capability", CAPABILITY)),
    ("capability changed", |r| {
        let mut other = CAPABILITY.to_vec();
        other[5] = 8;
        set_xattr(&r.join("capable"), "security.capability", &other);
    }),
    ("capability removed by a write", |r| write(&r.join("capable"), b"capable")),
    ("file removed", |r| fs::remove_file(r.join("plain")).unwrap()),
    ("folder removed", |r| fs::remove_dir_all(r.join("dir")).unwrap()),
    ("everything removed", |r| {
        for entry in fs::read_dir(r).unwrap() {
            remove(&entry.unwrap().path());
        }
    }),
    ("file added", |r| write(&r.join("new"), b"new")),
    ("folder added", |r| write(&r.join("new/in/here"), b"new")),
    ("file added to a folder with a fixed mtime", |r| keeping_mtime(&r.join("dir"), |p| write(&p.join("new"), b""))),
    ("file to folder", |r| {
        remove(&r.join("plain"));
        write(&r.join("plain/inside"), b"x");
    }),
    ("folder to file", |r| {
        remove(&r.join("dir"));
        write(&r.join("dir"), b"x");
    }),
    ("file to link", |r| replace_with_link(&r.join("plain"), "twin")),
    ("link to file", |r| {
        remove(&r.join("link"));
        write(&r.join("link"), b"plain content\n");
    }),
    ("folder to link to its like", |r| {
        fs::rename(r.join("dir"), r.join("moved")).unwrap();
        symlink("moved", r.join("dir")).unwrap();
    }),
    ("folder to link out of the tree", |r| replace_with_link(&r.join("dir"), "../outside")),
    ("link to folder", |r| {
        remove(&r.join("link to dir"));
        write(&r.join("link to dir/one"), b"dir/one");
    }),
    ("target of a link", |r| replace_with_link(&r.join("link"), "twin")),
    ("target of a link, as long", |r| replace_with_link(&r.join("link"), "plaiN")),
    ("fifo to file", |r| {
        remove(&r.join("fifo"));
        write(&r.join("fifo"), b"");
    }),
    ("socket removed", |r| remove(&r.join("socket"))),
    ("socket to fifo", |r| {
        remove(&r.join("socket"));
        mknod(&r.join("socket"), FileType::Fifo, 0, 0);
    }),
    ("device number", |r| keeping_all_but(&r.join("null"), |p| mknod(p, FileType::CharacterDevice, 1, 5))),
    ("device number of a block device", |r| {
        keeping_all_but(&r.join("block"), |p| mknod(p, FileType::BlockDevice, 240, 200_001));
    }),
    ("character device to block device", |r| {
        keeping_all_but(&r.join("null"), |p| mknod(p, FileType::BlockDevice, 1, 3))
    }),
    ("the very same fifo, made anew", |r| keeping_all_but(&r.join("lone fifo"), |p| mknod(p, FileType::Fifo, 0, 0))),
    ("the very same device, made anew", |r| {
        keeping_all_but(&r.join("null"), |p| mknod(p, FileType::CharacterDevice, 1, 3));
    }),
    ("the very same socket, made anew", |r| {
        keeping_all_but(&r.join("socket"), |p| drop(std::os::unix::net::UnixListener::bind(p).unwrap()));
    }),
    ("a socket that is bound again, as applications do", |r| {
        remove(&r.join("socket"));
        drop(std::os::unix::net::UnixListener::bind(r.join("socket")).unwrap());
    }),
    ("one inode split in two", |r| {
        keeping_mtime(&r.join("pair 2"), |p| {
            remove(p);
            write(p, b"same bytes");
        });
    }),
    ("two files merged into one inode", |r| {
        remove(&r.join("single"));
        fs::hard_link(r.join("pair 1"), r.join("single")).unwrap();
    }),
    ("a group joined by a stranger", |r| fs::hard_link(r.join("linked 1"), r.join("linked 4")).unwrap()),
    ("a name of a group removed", |r| remove(&r.join("a/linked 2"))),
    ("the first name of a group rewritten", |r| {
        remove(&r.join("linked 1"));
        write(&r.join("linked 1"), b"one inode, three names");
    }),
    ("content through another name", |r| write(&r.join("zzz linked 3"), b"ONE inode, three names")),
    ("hard links of a link split", |r| {
        remove(&r.join("dangling too"));
        symlink("/nonexistent/absolute", r.join("dangling too")).unwrap();
    }),
    ("holes filled", |r| keeping_mtime(&r.join("sparse"), |p| write_at(p, 0, &noise(9, 8 << 20)))),
    ("holes filled with zeros", |r| keeping_mtime(&r.join("only a hole"), |p| write_at(p, 0, &[0; 1 << 20]))),
    ("data punched out", |r| {
        keeping_mtime(&r.join("zeros"), |p| {
            fs::remove_file(p).unwrap();
            File::create(p).unwrap().set_len(100_000).unwrap();
        });
    }),
    ("root: mode", |r| chmod(r, 0o700)),
    ("root: owner", |r| chown(r, 0, 0)),
    ("root: mtime", |r| set_mtime(r, 1, 1)),
    ("root: xattr", |r| rustix::fs::lremovexattr(r, "user.root").unwrap()),
    ("root: default ACL", |r| set_xattr(r, "system.posix_acl_default", ACL)),
    ("root: default ACL, and everything rewritten", |r| {
        set_xattr(r, "system.posix_acl_default", ACL);
        for entry in fs::read_dir(r).unwrap() {
            remove(&entry.unwrap().path());
        }
    }),
    ("file renamed", |r| fs::rename(r.join("plain"), r.join("plain 2")).unwrap()),
    ("folder renamed", |r| fs::rename(r.join("dir"), r.join("dir 2")).unwrap()),
    ("folder with hard links renamed, to sort first", |r| {
        fs::rename(r.join("dir"), r.join("0")).unwrap();
        fs::rename(r.join("a"), r.join("1")).unwrap();
    }),
    ("two files swapped, same size and mtime", |r| swap(&r.join("plain"), &r.join("twin"))),
    ("two folders swapped", |r| swap(&r.join("dir"), &r.join("other"))),
    ("the very same content in a new inode", |r| {
        keeping_mtime(&r.join("large"), |p| {
            let content = fs::read(p).unwrap();
            remove(p);
            write(p, &content);
        });
    }),
    ("a name that is no text renamed", |r| {
        fs::rename(r.join(name(b"\xff\xfe not utf-8")), r.join(name(b"\xff\xff"))).unwrap();
    }),
    ("deep down", |r| fs::remove_dir_all(r.join("deep/level 0/level 1")).unwrap()),
    ("in a folder without rights", |r| write(&r.join("closed/inside"), b"changed")),
    ("folder modes", |r| {
        for folder in ["closed", "sticky", "setgid dir", "read only"] {
            chmod(&r.join(folder), 0o750);
        }
    }),
];

fn remove(path: &Path) {
    if path.symlink_metadata().unwrap().is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
}

/// Puts another one in its place that has its owner, mode and time.
fn keeping_all_but(path: &Path, make: impl FnOnce(&Path)) {
    let before = path.symlink_metadata().unwrap();
    remove(path);
    make(path);
    chown(path, before.uid(), before.gid());
    chmod(path, before.mode() & 0o7777);
    set_mtime(path, before.mtime(), before.mtime_nsec());
}

fn replace_with_link(path: &Path, target: &str) {
    remove(path);
    symlink(target, path).unwrap();
}

fn swap(a: &Path, b: &Path) {
    let spare = a.with_file_name("spare");
    for (from, to) in [(a, &spare), (b, &a.to_owned()), (&spare, &b.to_owned())] {
        fs::rename(from, to).unwrap();
    }
}

/// A tree that a version has mutated, a snapshot of it as it was before, and what lies outside.
struct Case {
    bench: Bench,
    outside: Account,
}

impl Case {
    fn new() -> Self {
        let bench = Bench::in_memory();
        adversarial(&bench.source());
        let outside = bench.folder.path().join("outside");
        write(&outside.join("one"), b"not ours");
        Self { outside: account(&outside), bench }
    }

    fn assert_outside_untouched(&self, what: &str) {
        assert_same(&self.outside, &account(&self.bench.folder.path().join("outside")), what);
    }
}

#[test]
fn every_mutation_is_undone() {
    for (what, mutate) in MUTATIONS {
        let case = Case::new();
        let (source, repository) = (case.bench.source(), case.bench.repository());
        let before = account(&source);
        let generation = snapshot(&repository, case.bench.sources());
        assert_same(&before, &account(&copy(&generation)), what);

        mutate(&source);
        let mutated = account(&source);
        let unchanged = repository.equals(&generation, &case.bench.sources(), &mut Quiet).unwrap();
        assert_eq!(unchanged, mutated == before && !what.starts_with("the very same"), "{what}");
        let kept =
            repository.keep_present_state(case.bench.sources(), "failed-job", Label::default(), &mut Quiet).unwrap();
        assert_same(&mutated, &account(&copy(&kept)), what);

        let report = repository.restore(&generation, &case.bench.sources(), &mut Quiet).expect(what);
        assert_same(&before, &account(&source), what);
        assert_eq!(rsync_differences(&copy(&generation), &source), "", "{what}");
        case.assert_outside_untouched(what);
        assert!(report.rewritten < 100 && (report.kept > 40 || what.contains("everything")), "{what}: {report:?}");
        assert!(repository.equals(&generation, &case.bench.sources(), &mut Quiet).unwrap(), "{what}");

        // Nothing in a finished generation moved, and the next pass need not copy what was restored.
        assert_same(&before, &account(&copy(&generation)), what);
        assert_same(&mutated, &account(&copy(&kept)), what);
        for generation in [&generation, &kept] {
            repository.verify(generation, &mut Quiet).unwrap();
        }
        let mut pass = repository.begin(case.bench.sources(), Label::default()).unwrap();
        assert_eq!(pass.hot(&mut Quiet).unwrap().bytes, 0, "{what}");
    }
}

#[test]
fn every_mutation_reaches_the_next_generation_and_none_the_previous_one() {
    for (what, mutate) in MUTATIONS {
        for between_passes in [false, true] {
            let case = Case::new();
            let (source, repository) = (case.bench.source(), case.bench.repository());
            let before = account(&source);
            let first = snapshot(&repository, case.bench.sources());
            let mut pass = repository.begin(case.bench.sources(), Label::default()).unwrap();
            if between_passes {
                pass.hot(&mut Quiet).unwrap();
                mutate(&source);
            } else {
                mutate(&source);
                pass.hot(&mut Quiet).unwrap();
            }
            let second = pass.cold(&mut Quiet).unwrap();
            assert_same(&account(&source), &account(&copy(&second)), what);
            assert_same(&before, &account(&copy(&first)), what);
            assert_eq!(rsync_differences(&source, &copy(&second)), "", "{what}");
            repository.verify(&first, &mut Quiet).unwrap();
            repository.verify(&second, &mut Quiet).unwrap();
        }
    }
}

/// Interrupted at every tenth entry of its whole course, again and again, then left to end.
#[test]
fn an_interrupted_restore_is_run_again() {
    let everything_else: fn(&Path) = |r| {
        for (what, mutate) in MUTATIONS {
            if ["large", "mode", "xattr changed", "holes filled", "folder renamed"].contains(what) {
                mutate(r);
            }
        }
        write(&r.join("extra/file"), b"x");
        write(&r.join("plain"), b"other");
        remove(&r.join("linked 1"));
    };
    let case = Case::new();
    let (source, repository) = (case.bench.source(), case.bench.repository());
    let before = account(&source);
    let generation = snapshot(&repository, case.bench.sources());
    let mut ended = false;
    for n in (1..).step_by(10) {
        everything_else(&source);
        match repository.restore(&generation, &case.bench.sources(), &mut until(n)) {
            Err(e) => assert!(e.is_interrupted(), "{e}"),
            Ok(_) => ended = true,
        }
        // Run again, and interrupted again at another place, before it may end.
        let _ = repository.restore(&generation, &case.bench.sources(), &mut until(n / 2 + 1));
        repository.restore(&generation, &case.bench.sources(), &mut Quiet).unwrap();
        assert_same(&before, &account(&source), &format!("interrupted at {n}"));
        if ended {
            break;
        }
    }
    assert_eq!(rsync_differences(&copy(&generation), &source), "");
    case.assert_outside_untouched("interrupted");
}

/// Somebody changes what was put back before it is compared: the restore has failed.
#[test]
fn a_difference_after_a_restore_is_an_error() {
    type Act = fn(&Path);
    let acts: [(&str, Act, &str); 7] = [
        ("content", |r| keeping_mtime(&r.join("z"), |p| write_at(p, 0, b"X")), "other content"),
        ("size", |r| write(&r.join("z"), b"longer than it was"), "size"),
        ("mode", |r| chmod(&r.join("z"), 0o777), "mode"),
        ("owner", |r| chown(&r.join("z"), 7, 8), "owner"),
        ("xattr", |r| rustix::fs::lremovexattr(r.join("z"), "user.a").unwrap(), "xattr user.a"),
        ("missing", |r| fs::remove_file(r.join("z")).unwrap(), "missing"),
        ("more", |r| write(&r.join("zz"), b""), "not recorded"),
    ];
    for (what, act, says) in acts {
        let bench = Bench::in_memory();
        let (source, repository) = (bench.source(), bench.repository());
        write(&source.join("z"), b"content");
        set_xattr(&source.join("z"), "user.a", b"1");
        let generation = snapshot(&repository, bench.sources());
        // Root and file, three times: cleared, filled, compared.
        let mut act = Some(act);
        let mut comparing = |counts: &Counts| {
            if counts.entries == 5 {
                act.take().into_iter().for_each(|act| act(&source));
            }
            ControlFlow::Continue(())
        };
        let error = repository.restore(&generation, &bench.sources(), &mut comparing).expect_err(what);
        assert!(matches!(error, Error::Differs { .. }) && error.to_string().contains(says), "{what}: {error}");
    }
}

/// An attribute of a file comes back whatever became of the file: on a disk, with times that have settled, over
/// several generations that share inodes.
#[test]
fn an_xattr_comes_back_whatever_became_of_its_file() {
    type Act = fn(&Path);
    let acts: [(&str, Act); 16] = [
        ("nothing", |_| {}),
        ("removed", |p| rustix::fs::lremovexattr(p, "user.a").unwrap()),
        ("changed", |p| set_xattr(p, "user.a", b"2")),
        ("removed and set again", |p| {
            rustix::fs::lremovexattr(p, "user.a").unwrap();
            set_xattr(p, "user.a", b"1");
        }),
        ("another added", |p| set_xattr(p, "user.b", b"2")),
        ("written in place", |p| write_at(p, 0, b"X")),
        ("written in place, its times put back", |p| keeping_mtime(p, |p| write_at(p, 0, b"X"))),
        ("truncated", |p| write(p, b"")),
        ("replaced by rename", |p| {
            write(&p.with_extension("new"), b"content");
            fs::rename(p.with_extension("new"), p).unwrap();
        }),
        ("replaced by rename, with its times", |p| {
            write(&p.with_extension("new"), b"content");
            let times = rustix::fs::lstat(p).unwrap();
            set_mtime(&p.with_extension("new"), times.st_mtime, times.st_mtime_nsec as i64);
            fs::rename(p.with_extension("new"), p).unwrap();
        }),
        ("replaced by a copy", |p| {
            run("cp", &["--preserve=mode,timestamps", p.to_str().unwrap()], &p.with_extension("new"));
            fs::rename(p.with_extension("new"), p).unwrap();
        }),
        ("a second name, then only that", |p| {
            fs::hard_link(p, p.with_extension("link")).unwrap();
            fs::remove_file(p).unwrap();
            fs::rename(p.with_extension("link"), p).unwrap();
        }),
        ("made unreadable", |p| chmod(p, 0)),
        ("given away", |p| chown(p, 1, 1)),
        ("a folder", |p| {
            fs::remove_file(p).unwrap();
            fs::create_dir(p).unwrap();
        }),
        ("gone", |p| fs::remove_file(p).unwrap()),
    ];
    let bench = Bench::new();
    let (source, repository) = (bench.source(), bench.repository());
    let file = |n: usize| source.join(format!("{n:02}"));
    for n in 0..acts.len() {
        write(&file(n), b"content");
        chown(&file(n), 1000, 1000);
        // Set before the mode: the owner himself could not, of a file that is only to be read.
        set_xattr(&file(n), "user.a", b"1");
        chmod(&file(n), [0o644, 0o444, 0o4755][n % 3]);
    }
    let before = account(&source);
    // Longer than the clock's ticks, so that inodes and times are believed.
    std::thread::sleep(std::time::Duration::from_millis(60));
    let mut generations = Vec::new();
    for round in 0..3 {
        let pass = repository.begin(bench.sources(), Label::default()).unwrap();
        let generation = pass.cold(&mut Quiet).unwrap();
        assert_same(&before, &account(&copy(&generation)), &format!("snapshot {round}"));
        acts.iter().enumerate().for_each(|(n, (_, act))| act(&file(n)));
        let name = format!("failed-{round}");
        repository.keep_present_state(bench.sources(), &name, Label::default(), &mut Quiet).unwrap();
        repository.restore(&generation, &bench.sources(), &mut Quiet).unwrap();
        assert_same(&before, &account(&source), &format!("restored in round {round}"));
        generations.push(generation);
    }
    for generation in generations {
        repository.restore(&generation, &bench.sources(), &mut Quiet).unwrap();
        assert_same(&before, &account(&source), generation.id());
    }
}
