use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use proptest::prelude::*;

use super::*;

#[test]
fn get_reads_what_compose_reads() {
    // Each row was compared with `docker compose config`.
    let table: &[(&str, Option<&str>)] = &[
        ("", None),
        ("K", None),
        ("KEY=1", None),
        ("#K=1", None),
        ("K=", Some("")),
        ("K=v", Some("v")),
        ("K=v\r\nB=1\r\n", Some("v")),
        ("  K = v  ", Some("v")),
        ("K: v", Some("v")),
        ("export K=v", Some("v")),
        (" \texport\tK=v", Some("v")),
        ("\u{feff}K=v", Some("v")),
        ("K=v # note", Some("v")),
        ("K=v\t# no note", Some("v\t# no note")),
        ("K=a#b", Some("a#b")),
        ("K= # taken for the value", Some("# taken for the value")),
        ("K='v' # note", Some("v")),
        ("K=\"v\"# note", Some("v")),
        ("K=''", Some("")),
        ("K='a\\'b'", Some("a'b")),
        ("K='a\\nb'", Some("a\\nb")),
        ("K='a\nb'", Some("a\nb")),
        ("K='a\r\nb'", Some("a\r\nb")),
        (r#"K="a\"b\\c\td\0101\$e\q""#, Some("a\"b\\c\tdA$e\\q")),
        (r#"K="\a\b\f\r\v\x""#, Some("\u{7}\u{8}\u{c}\r\u{b}\\x")),
        (r"K='a\\\'b\\'", Some(r"a\\'b\\")),
        ("K=a$$b", Some("a$b")),
        ("K=${X}", Some("${X}")),
        ("K=1\nK=2\n", Some("2")),
        ("K=1\nK\n", Some("1")),
        ("A=\"x\" K=2\n", Some("2")),
        ("A=\"\nK=1\n\"\nK=2\n", Some("2")),
        ("A='\nK=1\n'\n", None),
        ("A='it\\'s\nK=1\n'\nK=2", Some("2")),
        ("what is this\nK=2\n", Some("2")),
        ("A='never closed\nK=2\n", Some("2")),
        ("K K=1\n", None),
        ("K=1\nÉ='\nK=2\n'\n", Some("1")),
    ];
    for (file, value) in table {
        assert_eq!(get(file.as_bytes(), "K").as_deref(), *value, "{file:?}");
    }
    assert_eq!(get(b"K=a\xff", "K").as_deref(), Some("a\u{fffd}"));
}

/// A line that Compose refuses gives no value to anything.
#[test]
fn the_keys_that_are_given_a_value() {
    for (file, keys) in [
        ("", &[][..]),
        ("A=1\nexport B='2'\nC: 3\n", &["A", "B", "C"]),
        ("A\n#B=1\nC=\n", &["C"]),
        ("two words=1\n=2\nA=3\n", &["A"]),
        ("two words='\nA=1\n'\n", &["A"]),
    ] {
        assert_eq!(assigned(file.as_bytes()), keys, "{file:?}");
    }
}

#[test]
fn set_changes_only_what_it_must() {
    const DUP: &str = "# duplicate, disabled by processgit-updater: ";
    let table: &[(&str, &str, &str)] = &[
        // appended
        ("", "2", "K=2\n"),
        ("A=1\n", "2", "A=1\nK=2\n"),
        ("A=1", "2", "A=1\nK=2"),
        ("A=1\r\n", "2", "A=1\r\nK=2\r\n"),
        ("A=1\r\nB=2", "2", "A=1\r\nB=2\r\nK=2"),
        ("# K=1\n", "2", "# K=1\nK=2\n"),
        ("KEY=1\n", "2", "KEY=1\nK=2\n"),
        ("\u{feff}", "2", "\u{feff}K=2\n"),
        ("A='\nK=1\n'\n", "2", "A='\nK=1\n'\nK=2\n"),
        // replaced
        ("K=1", "2", "K=2"),
        ("K=1\r\nA=1\r\n", "2", "K=2\r\nA=1\r\n"),
        ("\u{feff}K=1\n", "2", "\u{feff}K=2\n"),
        ("  export  K = '1'  # note\n", "2", "  export  K = 2  # note\n"),
        ("K: 1\n", "2", "K: 2\n"),
        ("K=\n", "2", "K=2\n"),
        ("K\nA=1\n", "2", "K=2\nA=1\n"),
        ("K=\"1\"# note\n", "2", "K='2'# note\n"),
        ("K= # note\n", "2", "K= 2 # note\n"),
        ("K= # note\n", "", "K= '' # note\n"),
        ("K=1 # note\n", "", "K='' # note\n"),
        ("K=1\n", "", "K=\n"),
        ("K='one\ntwo' # note\nA=1\n", "2", "K=2 # note\nA=1\n"),
        ("K='1' A=1\n", "2", "K='2' A=1\n"),
        ("A='1' K=1\n", "2", "A='1' K=2\n"),
        // says so already
        ("K='2'\n", "2", "K='2'\n"),
        ("K=$2\n", "$2", "K='$2'\n"),
        // quoted where it must be
        ("K=1\n", "a b", "K='a b'\n"),
        ("K=1\n", "a#b", "K='a#b'\n"),
        ("K=1\n", "it's", "K=\"it's\"\n"),
        ("K=1\n", "'$\"\\\n", "K=\"'\\$\\\"\\\\\\n\"\n"),
        ("K=1\n", "ü", "K='ü'\n"),
        // duplicates
        ("K=1\nA=1\nK=3\n", "2", &format!("K=2\nA=1\n{DUP}K=3\n")),
        ("K=1\r\n export K='3'\r\nK=4", "2", &format!("K=2\r\n {DUP}export K='3'\r\n{DUP}K=4")),
        ("K=1\nK='3\n4'\n", "2", &format!("K=2\n{DUP}K='3\n# 4'\n")),
        ("K=1\nK='3' A=1\n", "2", &format!("K=2\n{DUP}K='3'\n A=1\n")),
        ("K=1\nK='3' # note\n", "2", &format!("K=2\n{DUP}K='3' # note\n")),
        ("K=2\nK=3\n", "2", &format!("K=2\n{DUP}K=3\n")),
    ];
    for (file, value, expected) in table {
        let edited = set(file.as_bytes(), "K", value).unwrap();
        assert_eq!(String::from_utf8_lossy(&edited.bytes), *expected, "{file:?}");
        assert_eq!(get(&edited.bytes, "K").as_deref(), Some(*value), "{file:?}");
    }
}

#[test]
fn set_tells_what_was_there() {
    let table: &[(&str, Option<&str>, bool)] = &[
        ("", None, false),
        ("K", None, true),
        ("K='1'", Some("1"), true),
        ("K=1\nK=3\n", Some("3"), true),
        ("K=1\n", Some("1"), true),
    ];
    for (file, previous, had_key) in table {
        let edited = set(file.as_bytes(), "K", "2").unwrap();
        assert_eq!((edited.previous.as_deref(), edited.had_key), (*previous, *had_key), "{file:?}");
    }
}

#[test]
fn what_cannot_be_set_is_refused_by_name() {
    let table: &[(&str, &str, &str, &str)] = &[
        ("", "", "2", "the key is empty: name the variable to set, such as PROCESSGIT_VERSION"),
        ("", "A B", "2", "the key \"A B\" cannot stand in a .env file: use letters, digits and _ . - only"),
        ("", "A=B", "2", "the key \"A=B\" cannot stand in a .env file: use letters, digits and _ . - only"),
        ("", "K", "a\0b", "the value for K holds a NUL character, which no .env file can carry"),
        (
            "A=1\nB='x\nK=1\n",
            "K",
            "2",
            "line 2: the quoted value never ends, so Compose cannot read this file: close the ' quote",
        ),
    ];
    for (file, key, value, message) in table {
        assert_eq!(set(file.as_bytes(), key, value).unwrap_err().to_string(), *message);
    }
}

#[test]
fn bytes_that_are_no_text_stay() {
    let edited = set(b"A=\xff\xfe\n\xff\xfe=1\n# \x80\nK=\xff\n", "K", "2").unwrap();
    assert_eq!(edited.bytes, b"A=\xff\xfe\n\xff\xfe=1\n# \x80\nK=2\n");
}

#[test]
fn set_back_restores_one_key_in_a_file_that_moved_on() {
    let table: &[(&str, &str, &str)] = &[
        // before, now, after
        ("K=1\n", "K=2\nNEW=1\n", "K=1\nNEW=1\n"),
        ("K=\"1\"\n", "K=2\nNEW=1\n", "K=\"1\"\nNEW=1\n"),
        ("K=${TAG:-1}\n", "K=2\nNEW=1\n", "K=${TAG:-1}\nNEW=1\n"),
        ("K=1\n", "NEW=1\n", "NEW=1\nK=1\n"),
        ("K=1\nK=3\n", "K=2\nNEW=1\n", "K=3\nNEW=1\n"),
        ("A=1\n", "A=1\nK=2\nNEW=1\n", "A=1\nNEW=1\n"),
        ("A=1", "A=1\nK=2", "A=1"),
        ("A=1\r\n", "A=1\r\nK=2\r\n", "A=1\r\n"),
        ("A=1\n", "K=2 # kept\n", "# duplicate, disabled by processgit-updater: K=2 # kept\n"),
        ("K\n", "K=2\nNEW=1\n", "NEW=1\n"),
        ("K=1\nK\n", "K=2\nNEW=1\n", "K=1\nNEW=1\n"),
    ];
    for (before, now, after) in table {
        let got = set_back(now.as_bytes(), before.as_bytes(), "K").unwrap();
        assert_eq!(String::from_utf8_lossy(&got), *after, "{before:?} {now:?}");
        assert_eq!(get(&got, "K"), get(before.as_bytes(), "K"), "{before:?} {now:?}");
    }
}

/// Lines such as people, editors and accidents produce.
fn some_file() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        "[A-J]{1,3}=[a-z0-9.]{0,8}",
        "export [A-J]{1,3}=[a-z]{0,4}",
        "[A-J]{1,3}: [a-z]{0,4}",
        "[A-J]{1,3}='[a-z #=$\n]{0,8}'",
        "[A-J]{1,3}=\"[a-z #=\n]{0,8}\" ?(# [a-z]{0,4})?",
        "K ?= ?[a-z0-9.]{0,8}( # [a-z]{0,4})?",
        "(export )?K=['][a-z\n]{0,8}[']( # [a-z]{0,4})?",
        "# [ -~]{0,10}",
        "[ \t]{0,3}",
        "[a-z ]{0,8}",
    ];
    let ending = prop_oneof![Just("\n"), Just("\r\n")];
    (any::<bool>(), proptest::collection::vec(line, 0..8), ending, any::<bool>()).prop_map(|(bom, lines, end, last)| {
        let mut text = String::from(if bom { "\u{feff}" } else { "" });
        text.push_str(&lines.join(end));
        if last {
            text.push_str(end);
        }
        text.into_bytes()
    })
}

fn assignments(bytes: &[u8]) -> Vec<(String, String)> {
    let keys: std::collections::BTreeSet<String> = scan(bytes)
        .statements
        .iter()
        .map(|s| String::from_utf8_lossy(&bytes[s.key.clone()]).into_owned())
        .filter(|key| key != "K")
        .collect();
    keys.into_iter().filter_map(|key| get(bytes, &key).map(|value| (key, value))).collect()
}

proptest! {
    #[test]
    fn set_then_get_returns_the_value(file in some_file(), value in "[^\0]{0,12}") {
        let edited = set(&file, "K", &value).unwrap();
        prop_assert_eq!(get(&edited.bytes, "K"), Some(value.clone()));
        let kept = scan(&edited.bytes).statements.iter().filter(|s| s.is(&edited.bytes, "K")).count();
        prop_assert_eq!(kept, 1);
        prop_assert_eq!(assignments(&edited.bytes), assignments(&file));
        prop_assert_eq!(set(&edited.bytes, "K", &value).unwrap().bytes, edited.bytes);
    }

    #[test]
    fn lines_without_the_key_stay_byte_for_byte(file in some_file(), value in "[0-9.]{1,8}") {
        let edited = set(&file, "K", &value).unwrap();
        let mut left = edited.bytes.as_slice();
        for line in file.split_inclusive(|b| *b == b'\n').filter(|line| !line.contains(&b'K')) {
            // Continued lines of a replaced value are the key's own.
            if scan(&file).statements.iter().any(|s| s.is(&file, "K") && file[s.start..s.end].contains(&b'\n')) {
                return Ok(());
            }
            let at = left.windows(line.len()).position(|w| w == line);
            prop_assert!(at.is_some(), "{:?} is gone", String::from_utf8_lossy(line));
            left = &left[at.unwrap() + line.len()..];
        }
        prop_assert_eq!(edited.bytes.ends_with(b"\n"), file.ends_with(b"\n") || file.is_empty() || file == scan::BOM);
    }

    #[test]
    fn any_bytes_are_survived(file in proptest::collection::vec(any::<u8>(), 0..64), value in "[a-z]{0,4}") {
        let _ = get(&file, "K");
        if let Ok(edited) = set(&file, "K", &value) {
            prop_assert_eq!(get(&edited.bytes, "K"), Some(value));
            let _ = set_back(&edited.bytes, &file, "K");
        }
    }
}

#[test]
fn a_file_is_replaced_with_its_mode_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(".env");
    for mode in [0o600, 0o640, 0o444, 0o666] {
        let _ = fs::remove_file(&path);
        fs::write(&path, "A=1\nK=1\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let inode = fs::metadata(&path).unwrap().ino();
        let edited = set_file(&path, "K", "2").unwrap();
        assert_eq!((edited.previous.as_deref(), edited.had_key), (Some("1"), true));
        assert_eq!(fs::read(&path).unwrap(), b"A=1\nK=2\n");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, mode);
        assert_ne!(fs::metadata(&path).unwrap().ino(), inode, "replaced, not overwritten");
        assert_eq!(get_file(&path, "K").unwrap().as_deref(), Some("2"));
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn owner_and_group_are_kept_where_we_may() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(".env");
    fs::write(&path, "K=1\n").unwrap();
    std::os::unix::fs::chown(&path, Some(1234), Some(4321)).unwrap();
    set_file(&path, "K", "2").unwrap();
    let owner = |path| fs::metadata(path).map(|m| (m.uid(), m.gid())).unwrap();
    assert_eq!(owner(&path), (1234, 4321));
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::chown(folder.path(), Some(77), Some(78)).unwrap();
    set_file(&path, "K", "2").unwrap();
    assert_eq!(owner(&path), (77, 78), "a new file belongs to the folder's owner");
}

#[test]
fn extended_attributes_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(".env");
    fs::write(&path, "K=1\n").unwrap();
    for (name, value) in [("user.one", "1"), ("user.two", "")] {
        rustix::fs::setxattr(&path, name, value.as_bytes(), rustix::fs::XattrFlags::empty()).unwrap();
    }
    set_file(&path, "K", "2").unwrap();
    let value = |name| {
        let mut value = [0; 8];
        rustix::fs::getxattr(&path, name, &mut value).map(|length| value[..length].to_vec())
    };
    assert_eq!((value("user.one"), value("user.two")), (Ok(b"1".to_vec()), Ok(vec![])));
}

#[test]
fn a_name_alone_is_in_this_folder() {
    for (path, folder, name) in
        [(".env", ".", ".env"), ("./.env", ".", ".env"), ("/.env", "/", ".env"), ("a/b", "a", "b")]
    {
        assert_eq!(file::split(path.as_ref()).unwrap(), (folder.into(), name.into()), "{path}");
    }
}

#[test]
fn the_largest_file_is_read_and_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(".env");
    fs::write(&path, vec![b'#'; CAP]).unwrap();
    assert_eq!(read(&path).unwrap().unwrap().len(), CAP);
}

#[test]
fn a_missing_file_is_made_for_its_owner_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(".env");
    assert_eq!(read(&path).unwrap(), None);
    assert_eq!(get_file(&path, "K").unwrap(), None);
    let edited = set_file(&path, "K", "2").unwrap();
    assert_eq!((edited.previous, edited.had_key), (None, false));
    assert_eq!(fs::read(&path).unwrap(), b"K=2\n");
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
}

#[test]
fn a_file_that_says_so_already_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(".env");
    fs::write(&path, "K=2\n").unwrap();
    let inode = fs::metadata(&path).unwrap().ino();
    set_file(&path, "K", "2").unwrap();
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
}

#[test]
fn a_key_is_taken_out_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(".env");
    unset_file(&path, "K").unwrap();
    assert!(!path.exists(), "no file is made for it");
    fs::write(&path, "A=1\nK=2\n").unwrap();
    unset_file(&path, "K").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"A=1\n");
    let inode = fs::metadata(&path).unwrap().ino();
    unset_file(&path, "K").unwrap();
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode, "it was out already");
}

#[test]
fn why_a_file_cannot_be_replaced() {
    for (errno, says) in [
        (rustix::io::Errno::BUSY, "/d/.env is itself a mount"),
        (rustix::io::Errno::ROFS, "cannot replace /d/.env: "),
        (rustix::io::Errno::NOSPC, "cannot replace /d/.env: "),
    ] {
        let error = file::not_replaced(errno.into(), "/d/.env".as_ref()).to_string();
        assert!(error.starts_with(says), "{error}");
    }
}

#[test]
fn a_link_stays_a_link() {
    let folder = tempfile::tempdir().unwrap();
    let (target, link) = (folder.path().join("real.env"), folder.path().join(".env"));
    fs::write(&target, "K=1\n").unwrap();
    symlink("real.env", folder.path().join("hop")).unwrap();
    symlink(folder.path().join("hop"), &link).unwrap();
    set_file(&link, "K", "2").unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read(&target).unwrap(), b"K=2\n");
    fs::remove_file(&target).unwrap();
    set_file(&link, "K", "3").unwrap();
    assert_eq!(fs::read(&target).unwrap(), b"K=3\n", "a link to nowhere makes its target");
}

#[test]
fn what_is_no_plain_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let pipe = rustix::fs::mknodat(
        rustix::fs::CWD,
        at("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    );
    pipe.unwrap();
    symlink("loop", at("loop")).unwrap();
    fs::write(at("big"), vec![b'#'; CAP + 1]).unwrap();
    let message = |name: &str| set_file(&at(name), "K", "2").unwrap_err().to_string();
    let shown = |name: &str| at(name).display().to_string();
    assert_eq!(
        message("pipe"),
        format!("{} is not a regular file: point PROCESSGIT_UPDATER_ENV_FILE at the deployment's .env", shown("pipe"))
    );
    assert!(message(".").contains("is not a regular file"), "{}", message("."));
    assert!(message("big").contains("is larger than 1048576 bytes"), "{}", message("big"));
    assert!(message("loop").starts_with(&format!("cannot open {}", shown("loop"))), "{}", message("loop"));
    assert!(message("no/such").starts_with("cannot"), "{}", message("no/such"));
}

#[test]
fn leftovers_of_a_crash_are_swept_once_they_are_old() {
    let folder = tempfile::tempdir().unwrap();
    let (old, young) = (folder.path().join(".processgit-updater-1"), folder.path().join(".processgit-updater-2"));
    fs::write(&young, "").unwrap();
    let file = fs::File::create(&old).unwrap();
    file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(7200)).unwrap();
    set_file(&folder.path().join(".env"), "K", "2").unwrap();
    assert!(!old.exists() && young.exists());
}

#[tokio::test]
async fn the_async_faces_do_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(".env");
    aio::write_atomic(path.clone(), b"K=1\n".to_vec()).await.unwrap();
    aio::set_file(path.clone(), "K".into(), "2".into()).await.unwrap();
    assert_eq!(aio::get_file(path.clone(), "K".into()).await.unwrap().as_deref(), Some("2"));
    assert_eq!(aio::read(path).await.unwrap().as_deref(), Some(b"K=2\n".as_slice()));
}
