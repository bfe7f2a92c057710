//! The archive, read by the program that people have.

use std::fs::{self, File};
use std::process::Command;

use processgit_updater::snapshot::{Error, Quiet, Source};

use crate::tree::*;
use crate::{Bench, copy, snapshot};

#[test]
fn gnu_tar_restores_everything_but_sockets() {
    let bench = Bench::in_memory();
    let (source, repository) = (bench.source(), bench.repository());
    adversarial(&source);
    // A sparse file with a long name, one that does not end in a hole, and a name that needs no extension.
    let long = source.join("x".repeat(200));
    write_at(&long, 3 << 20, b"end");
    fs::hard_link(&long, source.join("y".repeat(120))).unwrap();
    fs::remove_file(source.join("socket")).unwrap();
    let single = bench.folder.path().join("single");
    write(&single, b"a root that is a file");
    let sources = vec![bench.sources().remove(0), Source::new("single", single)];
    let generation = snapshot(&repository, sources);

    let archive = bench.folder.path().join("archive.tar.zst");
    let report = repository.export(&generation, &mut File::create(&archive).unwrap(), &mut Quiet).unwrap();
    assert!(report.sockets.is_empty() && report.entries > 100, "{report:?}");
    let unpacked = bench.folder.path().join("unpacked");
    fs::create_dir(&unpacked).unwrap();
    let output = Command::new("tar")
        .args(["--numeric-owner", "--xattrs", "--xattrs-include=*", "--zstd", "-xpf"])
        .arg(&archive)
        .arg("-C")
        .arg(&unpacked)
        .output()
        .expect("tar and zstd are installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_same(&account(&source), &account(&unpacked.join("data")), "unpacked");
    assert_eq!(fs::read(unpacked.join("single")).unwrap(), b"a root that is a file");
    assert_eq!(rsync_differences(&source, &unpacked.join("data")), "");
}

#[test]
fn sockets_are_named_and_damage_is_an_error() {
    let bench = Bench::in_memory();
    let repository = bench.repository();
    adversarial(&bench.source());
    let generation = snapshot(&repository, bench.sources());
    let report = repository.export(&generation, &mut Vec::new(), &mut Quiet).unwrap();
    assert_eq!(report.sockets, ["data/socket"]);
    write_at(&copy(&generation).join("plain"), 0, b"PLAIN");
    let error = repository.export(&generation, &mut Vec::new(), &mut Quiet).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
}
