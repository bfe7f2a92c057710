//! What the ports' calls fail with: the code for programs, the remedy for people.

use rustix::io::Errno;

use crate::engine::EngineError;
use crate::envfile::EnvFileError;
use crate::release::manifest::ManifestError;
use crate::update::errors::{DataError, DeputyError, EnvError, IoCause, JournalError, Obstacle};
use crate::update::refusal::{Code, Explained, Refusal};

fn cause(errno: Errno) -> IoCause {
    errno.into()
}

fn told(error: impl Explained + 'static) -> (Code, String) {
    let (code, refusal) = (error.code(), Refusal::from(error));
    assert_eq!(refusal.code, code);
    (code, refusal.to_string())
}

#[test]
fn what_a_full_disk_is() {
    for (errno, is_full) in [(Errno::NOSPC, true), (Errno::DQUOT, true), (Errno::IO, false), (Errno::PERM, false)] {
        assert_eq!(cause(errno).is_full(), is_full, "{errno:?}");
        let error =
            DataError::Io { doing: "write".into(), path: "/x".into(), cause: cause(errno), remedy: String::new() };
        assert_eq!(error.code(), if is_full { Code::NoRoom } else { Code::CopyFailed }, "{errno:?}");
    }
    assert!(!IoCause { errno: None, text: "no number".into() }.is_full());
}

#[test]
fn each_reason_why_env_cannot_be_written_has_its_way_out() {
    let path = || "/srv/app/.env".to_owned();
    let folder = || "/srv/app".to_owned();
    let none = |project_env: &[&str]| EnvError::NoFolder {
        path: path(),
        folder: folder(),
        project_env: project_env.iter().map(ToString::to_string).collect(),
    };
    let file = |error: EnvFileError| EnvError::File(error);
    let failed = EnvFileError::Io { action: "replace".into(), path: path(), source: cause(Errno::IO) };
    let owner = EnvFileError::Owner { path: path(), uid: 1, gid: 2, source: cause(Errno::PERM) };
    for (error, code, says) in [
        (none(&["/other/.env"]), Code::EnvNoFolder, "PROCESSGIT_UPDATER_ENV_FILE=/other/.env"),
        (none(&["/other/.env", "/srv/app/.env"]), Code::EnvNoFolder, "Put the folder back"),
        (none(&[]), Code::EnvNoFolder, "Put the folder back"),
        (EnvError::Other { path: path(), theirs: "/b/.env".into() }, Code::EnvOtherFile, "ENV_FILE=/b/.env"),
        (EnvError::Unseen { path: path(), theirs: "/b/.env".into() }, Code::EnvUnseen, "--force-recreate"),
        (EnvError::SingleFile { path: path(), folder: folder() }, Code::EnvSingleFile, ".:/srv/app"),
        (
            EnvError::Unwritable { path: path(), folder: "/a b".into(), cause: cause(Errno::ROFS) },
            Code::EnvUnwritable,
            "findmnt -T '/a b'",
        ),
        (file(EnvFileError::Mounted { path: path() }), Code::EnvSingleFile, "mount the folder that holds it"),
        (file(owner), Code::EnvOwner, "run the updater as root or as that user"),
        (file(EnvFileError::Flagged { path: path(), flag: 'i' }), Code::EnvUnwritable, "chattr -i /srv/app/.env"),
        (file(EnvFileError::Sticky { path: path(), owner: 1, us: 2 }), Code::EnvUnwritable, "sticky bit"),
        (
            file(EnvFileError::Dangling { path: path(), target: "/gone".into() }),
            Code::EnvUnwritable,
            "make /srv/app/.env a file",
        ),
        (file(failed), Code::EnvUnwritable, "cannot replace /srv/app/.env"),
        (file(EnvFileError::BadKey("A B".into())), Code::EnvInvalid, "use letters, digits"),
        (file(EnvFileError::NotAFile { path: path() }), Code::EnvInvalid, "point PROCESSGIT_UPDATER_ENV_FILE at"),
    ] {
        let (is, text) = told(error.clone());
        assert_eq!(is, code, "{error:?}");
        assert!(text.contains(says), "{error:?}: {text}");
    }
}

#[test]
fn each_reason_why_data_cannot_be_had_has_its_way_out() {
    let elsewhere = "eep the snapshots elsewhere (PROCESSGIT_UPDATER_SNAPSHOT_DIR)";
    let no_room = Obstacle::NoRoom { folder: "/s".into(), needed: 10, free: 3 };
    for (error, code, says) in [
        (DataError::Off, Code::SnapshotsOff, "PROCESSGIT_UPDATER_SNAPSHOT=on"),
        (DataError::Preflight(vec![no_room]), Code::NoRoom, "free 8 MiB there, or keep"),
        (
            DataError::Preflight(vec![Obstacle::FolderInData { folder: "/d/s".into(), data: "/d".into() }]),
            Code::SnapshotsInData,
            elsewhere,
        ),
        (
            DataError::NoSuchSnapshot { id: "x".into(), known: vec![] },
            Code::NoSuchSnapshot,
            "processgit-updater snapshot list",
        ),
        (
            DataError::Engine(EngineError::SourceGone { doing: "copying".into(), path: "/data".into() }),
            Code::SourceGone,
            "put it back; or, if the deployment's folder was moved",
        ),
        (DataError::Journal(JournalError::NoRoom("full".into())), Code::JournalNoRoom, "is there room"),
    ] {
        let (is, text) = told(error.clone());
        assert_eq!(is, code, "{error:?}");
        assert!(text.to_lowercase().contains(&says.to_lowercase()), "{error:?}: {text}");
    }
}

#[test]
fn a_manifest_of_tomorrow_asks_for_another_updater() {
    let wrong = |field: &str| ManifestError::Wrong { field: field.into(), found: "2".into(), accepted: "1".into() };
    for (field, says) in [("schema_version", "pdate the updater"), ("version", "hoose another release")] {
        let (code, text) = told(wrong(field));
        assert_eq!(code, Code::ManifestInvalid);
        assert!(text.contains(says), "{field}: {text}");
    }
}

/// Only what nobody can know needs a person.
#[test]
fn a_self_update_that_was_not_begun() {
    assert!(DeputyError::OnHost.not_begun());
    assert!(DeputyError::Journal(JournalError::Failed("x".into())).not_begun());
    assert!(!DeputyError::Lost("the deputy is gone".into()).not_begun());
}
