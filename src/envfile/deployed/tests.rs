use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::{DeployedEnv, is_mountpoint};
use crate::update::ports::{EnvError, EnvStore};

/// A deployment's folder with a `.env`, a link to the folder, and another folder with a `.env` of its own.
fn folders() -> (tempfile::TempDir, impl Fn(&str) -> String) {
    let root = tempfile::tempdir().unwrap();
    for folder in ["app", "other", "empty"] {
        fs::create_dir(root.path().join(folder)).unwrap();
    }
    for file in ["app/.env", "app/more.env", "other/.env"] {
        fs::write(root.path().join(file), "K=1\n").unwrap();
    }
    symlink("app", root.path().join("link")).unwrap();
    symlink("../app/.env", root.path().join("empty/linked.env")).unwrap();
    let path = root.path().to_owned();
    (root, move |name: &str| path.join(name).display().to_string())
}

#[tokio::test]
async fn a_write_reaches_the_file_that_compose_reads_or_is_refused() {
    let (_root, at) = folders();
    for (ours, theirs, says) in [
        ("app/.env", &[][..], None),
        ("app/.env", &["app/.env"], None),
        ("app/.env", &["link/.env"], None),
        ("link/.env", &["app/.env"], None),
        ("app/.env", &["empty/linked.env"], None),
        ("empty/.env", &["empty/.env"], None),
        // The last one wins.
        ("app/more.env", &["app/.env", "app/more.env"], None),
        ("app/.env", &["app/.env", "app/more.env"], Some("more.env")),
        ("app/.env", &["other/.env"], Some("other/.env")),
        ("app/.env", &["gone/.env"], Some("gone/.env")),
        ("gone/.env", &["app/.env"], Some("/gone")),
        ("gone/.env", &[], Some("/gone")),
    ] {
        let project: Vec<String> = theirs.iter().map(|name| at(name)).collect();
        let answer = DeployedEnv::new(at(ours).into()).preflight(&project).await;
        match says {
            None => assert_eq!(answer, Ok(()), "{ours} {theirs:?}"),
            Some(says) => {
                let error = answer.unwrap_err();
                assert!(error.to_string().contains(says), "{ours} {theirs:?}: {error}");
                let (is_other, is_unseen) = (says.ends_with("env") && !says.starts_with("gone"), says == "gone/.env");
                assert_eq!(matches!(error, EnvError::Other { .. }), is_other, "{error:?}");
                assert_eq!(matches!(error, EnvError::Unseen { .. }), is_unseen, "{error:?}");
                if let EnvError::NoFolder { folder, .. } = error {
                    assert_eq!(folder, at("gone"));
                }
            }
        }
        let left: Vec<PathBuf> = fs::read_dir(at("app")).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left.len(), 2, "looking leaves nothing behind: {left:?}");
    }
}

#[test]
fn what_is_mounted_alone_cannot_be_renamed_over() {
    let (_root, at) = folders();
    assert!(is_mountpoint(Path::new("/proc"), Path::new("/")), "a mount of its own");
    for inside in ["app/.env", "app/none", "link", "empty/linked.env"] {
        assert!(!is_mountpoint(Path::new(&at(inside)), Path::new(&at("app"))), "{inside}");
    }
}

#[tokio::test]
async fn what_was_not_there_is_taken_away_again() {
    let (_root, at) = folders();
    let env = DeployedEnv::new(at("empty/.env").into());
    assert_eq!(env.path(), at("empty/.env"));
    assert_eq!(env.read().await, Ok(None));
    env.write(Some(b"K=2\n")).await.unwrap();
    assert_eq!(env.read().await, Ok(Some(b"K=2\n".to_vec())));
    env.write(None).await.unwrap();
    assert_eq!(env.read().await, Ok(None));
    assert_eq!(env.write(None).await, Ok(()), "it is away already");
    let folder = DeployedEnv::new(at("other").into()).write(None).await;
    assert!(matches!(folder, Err(EnvError::NotRemoved { .. })), "{folder:?}");
}
