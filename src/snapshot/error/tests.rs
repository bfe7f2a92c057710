use super::*;

fn io(errno: Errno) -> Error {
    Error::Io { doing: "write", path: "/data/x".into(), source: errno.into() }
}

#[test]
fn each_refusal_of_the_kernel_has_the_remedy_that_fits() {
    for (errno, says, is_full) in [
        (Errno::NOSPC, "; free room there or prune snapshots", true),
        (Errno::DQUOT, "; free room there or prune snapshots", true),
        (Errno::ACCESS, "; run with the rights of root", false),
        (Errno::PERM, "; run with the rights of root", false),
        (Errno::NOTSUP, "; the file system cannot hold this attribute", false),
        (Errno::MFILE, "; raise the limit of open files", false),
        (Errno::NFILE, "; raise the limit of open files", false),
        (Errno::XDEV, "; something is mounted there now", false),
        (Errno::BUSY, "; something is mounted there now", false),
        (Errno::IO, "; check the disk", false),
        (Errno::NOENT, "", false),
    ] {
        let error = io(errno);
        let text = error.to_string();
        assert!(text.starts_with("cannot write /data/x: ") && text.contains(says), "{text}");
        assert_eq!(text.contains("; "), !says.is_empty(), "{text}");
        assert_eq!((error.is_disk_full(), error.is_interrupted()), (is_full, false), "{text}");
        let DataError::Io { doing, path, remedy, .. } = DataError::from(error) else { panic!("{text}") };
        assert_eq!((&*doing, &*path), ("write", "/data/x"));
        assert!(remedy.starts_with(says), "{remedy}");
    }
    assert!(Error::Interrupted { path: "x".into() }.is_interrupted());
    assert!(!Error::Interrupted { path: "x".into() }.is_disk_full());
}

#[test]
fn differences_that_are_not_listed_are_counted() {
    let difference = |path: &str| Difference { path: path.into(), what: "mode 600, recorded 644".into() };
    for (count, listed, expected) in [
        (1, &["a"][..], "a: mode 600, recorded 644"),
        (2, &["a", "b"], "a: mode 600, recorded 644; b: mode 600, recorded 644"),
        (9, &["a"], "a: mode 600, recorded 644; and 8 more"),
    ] {
        let differences = listed.iter().map(|path| difference(path)).collect();
        let error = Error::Differs { root: "/data".into(), count, differences };
        assert_eq!(error.to_string(), format!("/data is not what the manifest says: {expected}"));
    }
}

#[test]
fn a_path_that_nobody_reads_to_its_end_is_shown_by_its_ends() {
    let (whole, long) = ([b"a".repeat(500), b"b".repeat(500)].concat(), [b"a".repeat(501), b"b".repeat(500)].concat());
    assert_eq!(shown(b"a/b"), "a/b");
    assert_eq!(shown(&whole), String::from_utf8_lossy(&whole));
    assert_eq!(shown(&long), format!("{}…{} (1001 bytes)", "a".repeat(500), "b".repeat(500)));
    let at = |path: &'static [u8]| Site { root: "/data", path }.text();
    assert_eq!((at(b"").as_str(), at(b"a").as_str()), ("/data", "/data/a"));
}
