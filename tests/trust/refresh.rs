//! The public root, refreshed over TUF: a repository on a loopback port, and everything it could do to us.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use processgit_updater::https::Authorities;
use processgit_updater::settings::Signing;
use processgit_updater::trust::Trust;
use processgit_updater::trust::judge::Judge;
use processgit_updater::trust::refresh::{PERIOD, RETRY, Refresh};
use rcgen::{KeyPair, PKCS_ED25519, SigningKey};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::lab::{Stub, carriers, sha256};
use crate::signed::{IDENTITY, RELEASE, Signed};
use crate::sigstore::{ISSUER, Sigstore};

const FAR: &str = "2999-01-01T00:00:00Z";
const PAST: &str = "2020-01-01T00:00:00Z";
const ROOT: &str = "trusted_root.json";

/// A TUF repository: one Ed25519 key in every role.
struct Tuf {
    key: KeyPair,
    server: Stub,
}

fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ED25519).unwrap()
}

fn id(key: &KeyPair) -> String {
    sha256(key.public_key_raw())[7..].to_owned()
}

/// Keys stand in their alphabetical order, as TUF signs them.
fn signed(content: Value, keys: &[&KeyPair]) -> Vec<u8> {
    let bytes = content.to_string();
    let sign = |key: &&KeyPair| json!({"keyid": id(key), "sig": hex::encode(key.sign(bytes.as_bytes()).unwrap())});
    let signatures: Vec<Value> = keys.iter().map(sign).collect();
    json!({"signatures": signatures, "signed": content}).to_string().into()
}

fn root(version: u32, key: &KeyPair, signers: &[&KeyPair]) -> Vec<u8> {
    let public =
        json!({"keytype": "ed25519", "keyval": {"public": hex::encode(key.public_key_raw())}, "scheme": "ed25519"});
    let role = json!({"keyids": [id(key)], "threshold": 1});
    let roles = json!({"root": role, "snapshot": role, "targets": role, "timestamp": role});
    signed(
        json!({"_type": "root", "consistent_snapshot": false, "expires": FAR, "keys": {id(key): public},
            "roles": roles, "spec_version": "1.0.0", "version": version}),
        signers,
    )
}

impl Tuf {
    async fn new() -> Self {
        Self { key: key(), server: Stub::start().await }
    }

    /// Trust begins here.
    fn anchor(&self) -> Vec<u8> {
        root(1, &self.key, &[&self.key])
    }

    fn refresh(&self, folder: &Path) -> Refresh {
        Refresh::of(&self.server.url(), &self.anchor(), folder.to_owned(), &Authorities::default())
    }

    fn publish(&self, version: u32, target: &[u8]) {
        self.publish_as(&self.key, version, FAR, target);
    }

    fn publish_as(&self, key: &KeyPair, version: u32, expires: &str, target: &[u8]) {
        let put = |name: &str, bytes: &[u8]| self.server.answer(&format!("/{name}"), "application/json", bytes);
        let pin =
            |bytes: &[u8]| json!({"hashes": {"sha256": sha256(bytes)[7..]}, "length": bytes.len(), "version": version});
        let mut listed = pin(target);
        listed.as_object_mut().unwrap().remove("version");
        let role = |kind: &str, expires: &str, name: &str, content: Value| {
            signed(
                json!({"_type": kind, "expires": expires, name: content, "spec_version": "1.0.0", "version": version}),
                &[key],
            )
        };
        let targets = role("targets", FAR, "targets", json!({ROOT: listed}));
        let snapshot = role("snapshot", FAR, "meta", json!({"targets.json": pin(&targets)}));
        put("timestamp.json", &role("timestamp", expires, "meta", json!({"snapshot.json": pin(&snapshot)})));
        put("snapshot.json", &snapshot);
        put("targets.json", &targets);
        put(&format!("targets/{ROOT}"), target);
    }
}

/// The judge of an operator who trusts the public Sigstore, which `tuf` plays.
async fn judge(refresh: Refresh) -> Judge {
    let signing = Signing {
        key: None,
        issuer: ISSUER.into(),
        identity_regex: IDENTITY.into(),
        trusted_root: None,
        refreshed_root: None,
        verify_image: true,
    };
    Judge::from_settings(&signing, &Authorities::default()).await.unwrap().with_refresh(refresh).await
}

/// A Sigstore, its root, and a release that it signed.
fn sigstore() -> (Vec<u8>, Vec<u8>) {
    let sigstore = Sigstore::new("http://127.0.0.1:1");
    let bundle = Signed::new(&sigstore, sigstore.leaf(), RELEASE).v1;
    (sigstore.trusted_root().to_string().into(), bundle)
}

async fn trusts(judge: &Judge, bundle: &[u8]) -> bool {
    judge.manifest(&Bytes::from_static(RELEASE), &carriers(&[(".sigstore.json", bundle)])).await.is_ok()
}

fn going() -> CancellationToken {
    CancellationToken::new()
}

#[tokio::test]
async fn a_refreshed_root_is_used_at_once_and_after_a_restart() {
    let (tuf, folder) = (Tuf::new().await, tempfile::tempdir().unwrap());
    let (root, bundle) = sigstore();
    tuf.publish(1, &root);
    let first = judge(tuf.refresh(folder.path())).await;
    assert!(first.describe().ends_with("the built-in public Sigstore root of 2026-10-23"), "{}", first.describe());
    assert!(!trusts(&first, &bundle).await, "signed by a Sigstore that is not known yet");
    first.refresh_root(&going()).await.unwrap();
    let today = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
    assert!(first.describe().contains("the refreshed public Sigstore root of 20"), "{} ({today})", first.describe());
    assert!(trusts(&first, &bundle).await);

    // Nobody answers any more: what was kept is verified again and used.
    let nobody = Refresh::of("http://127.0.0.1:1", &tuf.anchor(), folder.path().into(), &Authorities::default());
    let second = judge(nobody).await;
    assert!(trusts(&second, &bundle).await);
    let error = second.refresh_root(&going()).await.unwrap_err().to_string();
    assert!(error.starts_with("the Sigstore root could not be refreshed from http://127.0.0.1:1: "), "{error}");
    assert!(trusts(&second, &bundle).await, "a failure changes nothing");

    // The next root replaces it, signed with the next key, which the key before has signed.
    let (next, next_bundle) = sigstore();
    let new_key = key();
    tuf.server.answer("/2.root.json", "application/json", self::root(2, &new_key, &[&tuf.key, &new_key]));
    tuf.publish_as(&new_key, 2, FAR, &next);
    first.refresh_root(&going()).await.unwrap();
    assert!(trusts(&first, &next_bundle).await && !trusts(&first, &bundle).await);
}

#[tokio::test]
async fn what_was_not_published_so_is_not_taken() {
    let (root, bundle) = sigstore();
    let (other, _) = sigstore();
    type Fault = fn(&Tuf, &[u8]);
    let table: &[(&str, Fault, &str)] = &[
        ("nothing changed", |_, _| {}, ""),
        ("an older version", |tuf, other| tuf.publish(1, other), "version"),
        ("signed by somebody else", |tuf, other| tuf.publish_as(&key(), 3, FAR, other), "signature"),
        ("ended", |tuf, other| tuf.publish_as(&tuf.key, 3, PAST, other), "expired"),
        (
            "another file than was listed",
            |tuf, other| {
                tuf.publish(3, other);
                let longer = [other, b" "].concat();
                tuf.server.answer("/targets/trusted_root.json", "application/json", longer);
            },
            "length",
        ),
        (
            "without the file",
            |tuf, other| {
                tuf.publish(3, other);
                tuf.server.forget("/targets/trusted_root.json");
            },
            "not found",
        ),
        ("no root at all", |tuf, _| tuf.publish(3, b"{}"), "mediaType"),
        ("a root without authorities", |tuf, _| tuf.publish(3, br#"{"mediaType":"x"}"#), "no certificateAuthorities"),
        ("not found", |tuf, _| tuf.server.forget("/timestamp.json"), "timestamp.json not found"),
        ("a fault of the server", |tuf, _| tuf.server.reply("/timestamp.json", 500, &[], ""), "500"),
        (
            "a new root that the old key has not signed",
            |tuf, other| {
                let new = key();
                tuf.server.answer("/2.root.json", "application/json", self::root(2, &new, &[&new]));
                tuf.publish_as(&new, 3, FAR, other);
            },
            "signature",
        ),
    ];
    for (name, fault, reason) in table {
        let (tuf, folder) = (Tuf::new().await, tempfile::tempdir().unwrap());
        tuf.publish(2, &root);
        let judge = judge(tuf.refresh(folder.path())).await;
        judge.refresh_root(&going()).await.unwrap();
        fault(&tuf, &other);
        let error = judge.refresh_root(&going()).await.map_err(|e| e.to_string()).err().unwrap_or_default();
        assert!(error.contains(reason) && error.is_empty() == reason.is_empty(), "{name}: {error}");
        assert!(trusts(&judge, &bundle).await, "{name}: the root before stays");
        let kept = tuf.refresh(folder.path()).kept().await;
        assert!(matches!(kept, Ok(Some(_))), "{name}: {kept:?}");
    }
}

#[tokio::test]
async fn what_was_kept_is_verified_again() {
    let (root, bundle) = sigstore();
    let (other, _) = sigstore();
    let target = format!("NEWEST/targets/{ROOT}");
    let table: &[(&str, &str, Option<&[u8]>, bool)] = &[
        ("nothing changed", "unused", Some(b""), true),
        ("another root", &target, Some(&other), false),
        ("no root", &target, None, false),
        ("a broken list", "NEWEST/targets.json", Some(b"{}"), false),
        ("no list", "NEWEST/timestamp.json", None, false),
        ("no time", "refreshed_at", Some(b"yesterday"), false),
        ("never refreshed", "refreshed_at", None, false),
        ("of a time when nothing was fetched", "refreshed_at", Some(b"2999-06-01T00:00:00Z"), false),
    ];
    for (name, file, change, used) in table {
        let (tuf, folder) = (Tuf::new().await, tempfile::tempdir().unwrap());
        tuf.publish(1, &root);
        tuf.refresh(folder.path()).fetch(&going()).await.unwrap();
        let stamp = std::fs::read_to_string(folder.path().join("refreshed_at")).unwrap();
        let file = folder.path().join(file.replace("NEWEST", stamp.trim()));
        match change {
            Some(bytes) => std::fs::write(file, bytes).unwrap(),
            None => std::fs::remove_file(file).unwrap(),
        }
        let judge = judge(tuf.refresh(folder.path())).await;
        assert_eq!(trusts(&judge, &bundle).await, *used, "{name}");
        assert_eq!(judge.describe().contains("built-in"), !used, "{name}: {}", judge.describe());
    }
}

#[tokio::test]
async fn nobody_waits_for_a_silent_server() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let key = key();
    let anchor = root(1, &key, &[&key]);
    let refresh = Refresh::of(&url, &anchor, folder.path().into(), &Authorities::default());
    let judge = judge(refresh).await;
    let stop = going();
    stop.cancel();
    assert!(judge.refresh_root(&stop).await.unwrap_err().to_string().ends_with("the updater is stopping"));
    judge.keep_root_fresh(stop).await;
}

#[tokio::test(start_paused = true)]
async fn it_is_refreshed_daily_and_tried_again_hourly() {
    let (tuf, folder) = (Tuf::new().await, tempfile::tempdir().unwrap());
    let judge = judge(tuf.refresh(folder.path())).await;
    let tries = || tuf.server.asked.lock().unwrap().iter().filter(|(path, _)| path == "/timestamp.json").count();
    let watch = async |time: Duration| {
        let before = tries();
        let _ = tokio::time::timeout(time, judge.keep_root_fresh(going())).await;
        tries() - before
    };
    assert_eq!(watch(RETRY * 5 / 2).await, 3, "nothing is published: at once, after one hour, after two");
    tuf.publish(1, &sigstore().0);
    assert_eq!(watch(PERIOD * 5 / 2).await, 3, "at once, after one day, after two");
}
