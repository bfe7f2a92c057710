use serde_json::{Value, json};

use crate::release::manifest::Manifest;
use crate::update::policy::{Facts, judge};
use crate::update::running::{Running, Unknown, Witness};

pub(super) fn manifest(change: impl FnOnce(&mut Value)) -> Manifest {
    let mut value = json!({
        "schema_version": 1, "name": "processgit", "version": "1.2.0", "tag": "v1.2.0",
        "released_at": "2026-01-02T03:04:05Z", "prerelease": false, "min_upgrade_from": null,
        "image": {"registry": "ghcr.io", "repository": "algomation-ai/processgit", "tag": "1.2.0",
                  "digest": format!("sha256:{:064}", 7), "platforms": ["linux/amd64", "linux/arm64"]},
        "signing": {"method": "cosign-keyless", "issuer": "https://issuer.example", "identity_regex": "^x$"},
        "release_notes_url": "https://example.org/notes",
        "migration": {"required": false},
        "breaking_changes": [], "deprecations": []
    });
    change(&mut value);
    Manifest::parse(value.to_string().as_bytes()).unwrap()
}

fn runs(version: &str) -> Running {
    Running::Known { version: semver::Version::parse(version).unwrap(), by: Witness::Tag }
}

fn facts(running: &Running) -> Facts<'_> {
    Facts {
        app_name: "processgit",
        asked_tag: "v1.2.0",
        running,
        version_key: "APP_VERSION",
        platform: "linux/amd64",
        highest_committed: None,
        known_bad: None,
        allow_downgrade: false,
        command: "update",
        retry: false,
    }
}

#[test]
fn every_refusal_says_what_was_found_and_what_was_expected() {
    let v = |text: &str| semver::Version::parse(text).unwrap();
    let (v110, v120, v130, build) = (v("1.1.0"), v("1.2.0"), v("1.3.0"), v("1.2.0+other"));
    let [old, same, newer, pre, rebuilt] = ["1.1.0", "1.2.0", "1.3.0", "1.2.0-rc.1", "1.2.0+other"].map(runs);
    let unknown = Running::Unknown(Unknown { tag: "APP_VERSION=latest names no version".into(), ..Unknown::default() });
    let plain = || manifest(|_| {});
    let from = |min: &'static str| manifest(move |m| m["min_upgrade_from"] = json!(min));
    let for_platforms = |list: Value| manifest(move |m| m["image"]["platforms"] = list);
    let base = facts(&old);
    let rows: Vec<(&str, Manifest, Facts<'_>, &[&str])> = vec![
        ("newer", plain(), base.clone(), &[]),
        ("the same", plain(), Facts { running: &same, ..base.clone() }, &[]),
        ("the same, other build", plain(), Facts { running: &rebuilt, ..base.clone() }, &[]),
        ("from its pre-release", plain(), Facts { running: &pre, ..base.clone() }, &[]),
        (
            "older",
            plain(),
            Facts { running: &newer, ..base.clone() },
            &[
                "version 1.2.0 is older than 1.3.0, which runs. Run `processgit-updater update v1.2.0 --allow-downgrade`",
            ],
        ),
        ("older, allowed", plain(), Facts { running: &newer, allow_downgrade: true, ..base.clone() }, &[]),
        (
            "older than what was committed once",
            plain(),
            Facts { highest_committed: Some(&v130), ..base.clone() },
            &[
                "version 1.2.0 is older than 1.3.0, which was committed here before. Run `processgit-updater update v1.2.0 --allow-downgrade`",
            ],
        ),
        ("what was committed once", plain(), Facts { highest_committed: Some(&v120), ..base.clone() }, &[]),
        ("another build of it", plain(), Facts { highest_committed: Some(&build), ..base.clone() }, &[]),
        ("newer than was ever committed", plain(), Facts { highest_committed: Some(&v110), ..base.clone() }, &[]),
        (
            "older than what was committed once, allowed",
            plain(),
            Facts { highest_committed: Some(&v130), allow_downgrade: true, ..base.clone() },
            &[],
        ),
        (
            "older than what was committed once, asked for again",
            plain(),
            Facts { highest_committed: Some(&v130), retry: true, ..base.clone() },
            &["version 1.2.0 is older than 1.3.0, which was committed here before"],
        ),
        (
            "unknown what runs",
            plain(),
            Facts { running: &unknown, ..base.clone() },
            &[
                "which version runs is not known, so it cannot be excluded that 1.2.0 is older: APP_VERSION=latest names no version; ; . If it is not older, `processgit-updater update v1.2.0 --allow-downgrade` installs it",
            ],
        ),
        (
            "unknown what runs, allowed",
            plain(),
            Facts { running: &unknown, allow_downgrade: true, ..base.clone() },
            &[],
        ),
        (
            "unknown what runs, a newer one was committed once",
            plain(),
            Facts { running: &unknown, highest_committed: Some(&v130), ..base.clone() },
            &["version 1.2.0 is older than 1.3.0, which was committed here before"],
        ),
        (
            "unknown what runs, an older one was committed once",
            plain(),
            Facts { running: &unknown, highest_committed: Some(&v110), ..base.clone() },
            &["it cannot be excluded that 1.2.0 is older"],
        ),
        (
            "of the updater itself",
            plain(),
            Facts { running: &unknown, command: "self-update", ..base.clone() },
            &["`processgit-updater self-update v1.2.0 --allow-downgrade`"],
        ),
        ("the minimum, another build", from("1.2.0"), Facts { running: &rebuilt, ..base.clone() }, &[]),
        ("the minimum", from("1.1.0"), base.clone(), &[]),
        (
            "below the minimum",
            from("1.1.5"),
            base.clone(),
            &[
                "version 1.2.0 can be installed from 1.1.5 or later, but 1.1.0 runs. Run `processgit-updater update v1.1.5`",
            ],
        ),
        (
            "below the minimum, as far as is known",
            from("1.1.5"),
            Facts { running: &unknown, allow_downgrade: true, ..base.clone() },
            &["it is not known whether the version that runs is: APP_VERSION=latest names no version"],
        ),
        ("arm64 on arm64/v8", plain(), Facts { platform: "linux/arm64/v8", ..base.clone() }, &[]),
        (
            "another platform",
            plain(),
            Facts { platform: "linux/arm/v7", ..base.clone() },
            &["the image is for linux/amd64, linux/arm64, but this engine runs linux/arm/v7"],
        ),
        (
            "an older variant",
            for_platforms(json!(["linux/arm/v6"])),
            Facts { platform: "linux/arm/v7", ..base.clone() },
            &[],
        ),
        (
            "a newer variant",
            for_platforms(json!(["linux/arm/v7"])),
            Facts { platform: "linux/arm/v6", ..base.clone() },
            &["the image is for linux/arm/v7, but this engine runs linux/arm/v6"],
        ),
        (
            "known to be bad",
            plain(),
            Facts { known_bad: Some("it crashed"), ..base.clone() },
            &["was started before and rolled back: it crashed. Run `processgit-updater update v1.2.0 --retry`"],
        ),
        ("known to be bad, again", plain(), Facts { known_bad: Some("it crashed"), retry: true, ..base.clone() }, &[]),
        (
            "known to be bad, a downgrade is allowed",
            plain(),
            Facts { known_bad: Some("it crashed"), allow_downgrade: true, ..base.clone() },
            &["was started before and rolled back: it crashed"],
        ),
        (
            "everything at once",
            plain(),
            Facts { app_name: "other", asked_tag: "v9", platform: "linux/s390x", running: &newer, ..base },
            &[
                "updates \"other\" (PROCESSGIT_UPDATER_APP_NAME)",
                "but \"v9\" was asked for",
                "older than 1.3.0",
                "linux/s390x",
            ],
        ),
    ];
    for (name, manifest, facts, expected) in rows {
        let found: Vec<String> = judge(&manifest, &facts).iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), expected.len(), "{name}: {found:?}");
        for (text, part) in found.iter().zip(expected) {
            assert!(text.contains(part), "{name}: {text:?} should say {part:?}");
        }
    }
}
