use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::io::FdFlags;

use super::*;

/// A folder with another in it, a file, a pipe, and links that stay inside or lead out.
fn tree() -> (tempfile::TempDir, OwnedFd) {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    fs::create_dir_all(at("real/dir")).unwrap();
    fs::write(at("real/file"), "content").unwrap();
    symlink("real", at("link")).unwrap();
    symlink("/", at("out")).unwrap();
    rustix::fs::mknodat(CWD, at("pipe"), rustix::fs::FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let folder = opened(root.path());
    (root, folder)
}

fn opened(path: &Path) -> OwnedFd {
    fs::File::open(path).unwrap().into()
}

#[test]
fn nothing_leads_out_of_the_folder_or_over_a_link() {
    let (_root, dir) = tree();
    for (name, is_opened) in [
        (".", true),
        ("real", true),
        ("real/dir", true),
        ("link", false),
        ("link/dir", false),
        ("out", false),
        ("out/tmp", false),
        ("..", false),
        ("real/../..", false),
        ("/", false),
        ("real/file", false),
        ("pipe", false),
    ] {
        assert_eq!(folder(dir.as_fd(), name.as_bytes()).is_ok(), is_opened, "{name}");
    }
    let file_of = |name: &str| file(dir.as_fd(), name.as_bytes()).is_ok();
    assert!(file_of("real/file") && !file_of("link/file") && !file_of("link"));
    let system = opened(Path::new("/"));
    assert_eq!(folder(system.as_fd(), b"proc").err(), Some(Errno::XDEV), "a mount is not crossed");
}

#[test]
fn looking_neither_waits_nor_leaves_a_trace() {
    let (root, dir) = tree();
    // Nobody writes to this pipe, and nobody waits for that.
    file(dir.as_fd(), b"pipe").unwrap();
    let node_of_pipe = node(dir.as_fd(), b"pipe").unwrap();
    reopen(node_of_pipe.as_fd(), OFlags::RDONLY).unwrap();
    assert!(node(dir.as_fd(), b"link").is_ok(), "a link is itself");

    let path = root.path().join("real/file");
    let long_ago = SystemTime::now() - Duration::from_secs(90_000);
    fs::File::open(&path).unwrap().set_times(fs::FileTimes::new().set_accessed(long_ago)).unwrap();
    let before = fs::metadata(&path).unwrap().atime();
    let mut text = String::new();
    fs::File::from(file(dir.as_fd(), b"real/file").unwrap()).read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), fs::metadata(&path).unwrap().atime()), ("content", before), "the time of access stays");
}

#[test]
fn a_new_file_replaces_nothing_and_is_for_its_owner() {
    let (root, dir) = tree();
    assert_eq!(new_file(dir.as_fd(), b"real/file").err(), Some(Errno::EXIST));
    assert_eq!(new_file(dir.as_fd(), b"link").err(), Some(Errno::EXIST));
    let mut made = fs::File::from(new_file(dir.as_fd(), b"new").unwrap());
    made.write_all(b"x").unwrap();
    assert_eq!(made.read(&mut [0]).unwrap(), 0, "it can be read back");
    assert_eq!(fs::metadata(root.path().join("new")).unwrap().mode() & 0o777, 0o600);
    let inode = stat_of(made.as_fd()).unwrap();
    assert_eq!(inode, stat(dir.as_fd(), b"new").unwrap());
    assert!(look(dir.as_fd(), b"none").unwrap().is_none());
    assert!(look(dir.as_fd(), b"real/file/below").is_err());
}

/// A folder may hold a million names: what they take is counted, and bounded.
#[test]
fn names_are_listed_within_a_bound() {
    let (_root, dir) = tree();
    let real = folder(dir.as_fd(), b"real").unwrap();
    let within = |most| Names::list(folder(dir.as_fd(), b"real").unwrap().as_fd(), &mut scratch(), most);
    let names = Names::list(real.as_fd(), &mut scratch(), usize::MAX).unwrap();
    assert_eq!((names.get(0), names.get(1), names.get(2)), (Some(&b"dir"[..]), Some(&b"file"[..]), None));
    assert_eq!(names.held(), "dirfile".len() + 2 * 8);
    assert!(within(names.held()).is_ok());
    assert_eq!(within(names.held() - 1).err(), Some(Errno::NOMEM));
    assert_eq!(within(0).err(), Some(Errno::NOMEM));
}

/// Whatever this process starts must not hold what it has opened.
#[test]
fn no_descriptor_reaches_a_child() {
    let (_root, dir) = tree();
    let nodes = node(dir.as_fd(), b"real/file").unwrap();
    for fd in [
        folder(dir.as_fd(), b"real").unwrap(),
        file(dir.as_fd(), b"real/file").unwrap(),
        new_file(dir.as_fd(), b"new").unwrap(),
        reopen(nodes.as_fd(), OFlags::RDONLY).unwrap(),
        nodes,
    ] {
        assert!(rustix::io::fcntl_getfd(&fd).unwrap().contains(FdFlags::CLOEXEC));
    }
}

#[test]
fn the_folder_of_a_path_of_any_length() {
    let (_root, dir) = tree();
    let long = "n".repeat(200);
    for depth in [0, 1, 10, 11, 40] {
        let mut at = folder(dir.as_fd(), b".").unwrap();
        for _ in 0..depth {
            let _ = rustix::fs::mkdirat(&at, &*long, Mode::RWXU);
            at = folder(at.as_fd(), long.as_bytes()).unwrap();
        }
        let path = format!("{}last", format!("{long}/").repeat(depth));
        let found = parent(dir.as_fd(), path.as_bytes()).unwrap();
        assert_eq!(stat_of(found.as_fd()).unwrap(), stat_of(at.as_fd()).unwrap(), "{} bytes", path.len());
    }
    assert!(parent(dir.as_fd(), b"none/last").is_err() && parent(dir.as_fd(), b"link/last").is_err());
}
