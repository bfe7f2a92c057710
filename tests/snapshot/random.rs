//! Any tree, any mutation: passes and restores must be exact.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use processgit_updater::snapshot::{Label, Quiet};
use proptest::prelude::*;
use rustix::fs::FileType;

use crate::tree::*;
use crate::{Bench, copy, snapshot, until};

/// One thing a program may do. Paths are few, so that they meet; what is impossible is left undone.
#[derive(Debug, Clone)]
enum Act {
    Write(PathBuf, u8, u32),
    WriteAt(PathBuf, u64, u8),
    Folder(PathBuf),
    Symlink(PathBuf, PathBuf),
    Link(PathBuf, PathBuf),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    Node(PathBuf, u8),
    Mode(PathBuf, u32),
    Owner(PathBuf, u32),
    Time(PathBuf, i64),
    Xattr(PathBuf, Option<u8>),
    Acl(PathBuf),
}

fn path() -> impl Strategy<Value = PathBuf> {
    let one = proptest::sample::select(vec![&b"a"[..], b"b", b"a.b", b"\xff"]);
    proptest::collection::vec(one, 1..4).prop_map(|parts| parts.into_iter().map(name).collect())
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => (path(), any::<u8>(), 0..70_000u32).prop_map(|(p, seed, size)| Act::Write(p, seed, size)),
        2 => (path(), 0..400_000u64, any::<u8>()).prop_map(|(p, at, byte)| Act::WriteAt(p, at, byte)),
        3 => path().prop_map(Act::Folder),
        1 => (path(), path()).prop_map(|(a, b)| Act::Symlink(a, b)),
        3 => (path(), path()).prop_map(|(a, b)| Act::Link(a, b)),
        3 => (path(), path()).prop_map(|(a, b)| Act::Rename(a, b)),
        2 => path().prop_map(Act::Remove),
        1 => (path(), 0..4u8).prop_map(|(p, kind)| Act::Node(p, kind)),
        1 => (path(), 0..0o10000u32).prop_map(|(p, mode)| Act::Mode(p, mode)),
        1 => (path(), 0..3u32).prop_map(|(p, id)| Act::Owner(p, id)),
        1 => (path(), -5..5i64).prop_map(|(p, secs)| Act::Time(p, secs)),
        1 => (path(), any::<Option<u8>>()).prop_map(|(p, value)| Act::Xattr(p, value)),
        1 => path().prop_map(Act::Acl),
    ];
    proptest::collection::vec(act, 0..40)
}

fn perform(root: &Path, acts: &[Act]) {
    for act in acts {
        // Many are impossible: a folder is missing, a name is taken, a link leads nowhere.
        let _ = attempt(root, act);
    }
}

fn attempt(root: &Path, act: &Act) -> std::io::Result<()> {
    let at = |path: &PathBuf| root.join(path);
    // Never through a link, which might lead out of the tree.
    let plain = |path: &PathBuf| at(path).symlink_metadata().ok().filter(|m| !m.is_symlink()).map(|_| at(path));
    match act {
        // Never through a link, and never into a pipe, which would wait for a reader for ever.
        Act::Write(p, seed, size) if at(p).symlink_metadata().map_or(true, |m| m.is_file()) => {
            fs::write(at(p), noise((*seed).into(), *size as usize))?;
        }
        Act::WriteAt(p, offset, byte) => {
            if let Some(path) = plain(p).filter(|p| p.is_file()) {
                write_at(&path, *offset, &[*byte]);
                File::options().write(true).open(path)?.set_len(500_000)?;
            }
        }
        Act::Folder(p) => fs::create_dir(at(p))?,
        Act::Symlink(p, target) => symlink(target, at(p))?,
        Act::Link(from, to) => fs::hard_link(at(from), at(to))?,
        Act::Rename(from, to) => fs::rename(at(from), at(to))?,
        Act::Remove(p) if at(p).symlink_metadata()?.is_dir() => fs::remove_dir_all(at(p))?,
        Act::Remove(p) => fs::remove_file(at(p))?,
        Act::Node(p, kind) => {
            let kind =
                [FileType::Fifo, FileType::Socket, FileType::CharacterDevice, FileType::BlockDevice][*kind as usize];
            let mode = rustix::fs::Mode::RUSR;
            rustix::fs::mknodat(rustix::fs::CWD, at(p), kind, mode, rustix::fs::makedev(240, 8))?;
        }
        Act::Mode(p, mode) => plain(p).iter().for_each(|p| chmod(p, *mode)),
        Act::Owner(p, id) => std::os::unix::fs::lchown(at(p), Some(*id), Some(id + 1))?,
        Act::Time(p, secs) if at(p).symlink_metadata().is_ok() => set_mtime(&at(p), *secs, 7),
        Act::Xattr(p, Some(value)) => {
            rustix::fs::lsetxattr(at(p), "trusted.x", &[*value], rustix::fs::XattrFlags::empty())?;
        }
        Act::Xattr(p, None) => rustix::fs::lremovexattr(at(p), "trusted.x")?,
        Act::Acl(p) => {
            let name = if at(p).is_dir() { "system.posix_acl_default" } else { "system.posix_acl_access" };
            rustix::fs::lsetxattr(at(p), name, ACL, rustix::fs::XattrFlags::empty())?;
        }
        Act::Write(..) | Act::Time(..) => {}
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_mutation_of_any_tree(first in acts(), hot in acts(), failed in acts(), interrupt in 1..60u64) {
        let bench = Bench::in_memory();
        let (source, repository) = (bench.source(), bench.repository());
        perform(&source, &first);
        let initial = account(&source);
        let one = snapshot(&repository, bench.sources());
        assert_same(&initial, &account(&copy(&one)), "first generation");

        // A second generation, of which much changes between its passes.
        let mut pass = repository.begin(bench.sources(), Label::default()).unwrap();
        perform(&source, &hot[..hot.len() / 2]);
        pass.hot(&mut Quiet).unwrap();
        perform(&source, &hot[hot.len() / 2..]);
        let before = account(&source);
        let two = pass.cold(&mut Quiet).unwrap();
        assert_same(&before, &account(&copy(&two)), "second generation");

        perform(&source, &failed);
        let damaged = account(&source);
        let kept = repository.keep_present_state(bench.sources(), "failed", Label::default(), &mut Quiet).unwrap();
        assert_same(&damaged, &account(&copy(&kept)), "damaged state");
        let _ = repository.restore(&two, &bench.sources(), &mut until(interrupt));
        repository.restore(&two, &bench.sources(), &mut Quiet).unwrap();
        assert_same(&before, &account(&source), "restored");
        assert!(repository.equals(&two, &bench.sources(), &mut Quiet).unwrap());

        // Back to the first, and again to the damaged one: any generation can be restored over any other.
        for (generation, expected) in [(&one, &initial), (&kept, &damaged), (&two, &before)] {
            repository.restore(generation, &bench.sources(), &mut Quiet).unwrap();
            assert_same(expected, &account(&source), "restored over another");
        }
        for (generation, expected) in [(&one, &initial), (&two, &before), (&kept, &damaged)] {
            assert_same(expected, &account(&copy(generation)), "a finished generation");
            repository.verify(generation, &mut Quiet).unwrap();
        }
    }
}
