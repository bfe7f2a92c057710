use serde_json::json;

use super::policy::manifest;
use crate::update::job::{Job, JobId, Kind, Verified};
use crate::update::ports::VerifiedDigest;
use crate::update::running::Witness::{self, Application, Manifest as ByManifest, Tag};
use crate::update::running::{Evidence, Running, not_applied, tag_decides, version};

const DIGEST: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";

/// A container made from `latest`, of which nobody knows anything.
const NOTHING: Evidence<'_> = Evidence {
    image_ref: "acme.example/app:latest",
    repo_digests: &[],
    version_key: "APP_VERSION",
    env_value: Some("latest"),
    verified: &[],
    application: Err("the application is not asked"),
    process: None,
    label: None,
};

fn said(version_text: &str, image_tag: &str) -> VerifiedDigest {
    VerifiedDigest { version: version(version_text).unwrap(), image_tag: image_tag.into() }
}

/// Name, image, `.env`, what manifests of its digest said, what the application says; what is known.
type Row = (
    &'static str,
    String,
    Option<&'static str>,
    Vec<VerifiedDigest>,
    Result<&'static str, &'static str>,
    Option<(&'static str, Witness)>,
);

#[test]
fn the_first_witness_who_knows_the_version_is_believed() {
    let of = |tag: &str| format!("acme.example/app:{tag}");
    let text = str::to_owned;
    let process = version("0.1.0").unwrap();
    #[rustfmt::skip]
    let rows: Vec<Row> = vec![
        ("the tag", of("1.2.3"), Some("1.2.3"), vec![], Err(""), Some(("1.2.3", Tag))),
        ("the tag with v", of("v1.2.3"), Some("v1.2.3"), vec![], Err(""), Some(("1.2.3", Tag))),
        ("the tag beside a digest", format!("{}@{DIGEST}", of("1.2.3")), Some("1.2.3"), vec![], Err(""), Some(("1.2.3", Tag))),
        ("a port is no tag", text("acme.example:5000/app"), None, vec![], Err(""), None),
        ("Compose's default", of("1.2.3"), None, vec![], Err(""), Some(("1.2.3", Tag))),
        ("the tag, whatever the application calls itself", of("1.2.3"), Some("1.2.3"), vec![], Ok("9.9.9"), Some(("1.2.3", Tag))),
        ("an edit that is not applied: newer", of("1.2.3"), Some("2.0.0"), vec![], Err(""), Some(("1.2.3", Tag))),
        ("an edit that is not applied: older", of("1.2.3"), Some("0.9.0"), vec![], Err(""), Some(("1.2.3", Tag))),
        ("an edit that is not applied: latest", of("1.2.3"), Some("latest"), vec![], Err(""), Some(("1.2.3", Tag))),
        ("an edit of latest that is not applied", of("latest"), Some("2.0.0"), vec![], Err(""), None),
        ("latest", of("latest"), Some("latest"), vec![], Err(""), None),
        ("no tag is latest", text("acme.example/app"), None, vec![], Err(""), None),
        ("a tag that is no SemVer", of("1.25"), Some("1.25"), vec![], Err(""), None),
        ("leading zeros", of("2026.01.1"), Some("2026.01.1"), vec![], Err(""), None),
        ("a calendar version", of("2026.11.1"), Some("2026.11.1"), vec![], Err(""), Some(("2026.11.1", Tag))),
        ("a digest alone", format!("acme.example/app@{DIGEST}"), Some("1.2.3"), vec![], Err(""), None),
        ("an image id", text(DIGEST), Some("1.2.3"), vec![], Err(""), None),
        ("latest, verified", of("latest"), None, vec![said("1.2.3", "1.2.3")], Ok("9.9.9"), Some(("1.2.3", ByManifest))),
        ("a digest, verified", format!("acme.example/app@{DIGEST}"), None, vec![said("1.2.3", "1.2.3")], Err(""), Some(("1.2.3", ByManifest))),
        ("stable, verified", of("stable"), Some("stable"), vec![said("1.2.3", "stable")], Err(""), Some(("1.2.3", ByManifest))),
        ("verified twice: the last job", of("latest"), None, vec![said("1.2.4", "1.2.4"), said("1.2.3", "1.2.3")], Err(""), Some(("1.2.4", ByManifest))),
        ("a variant, verified", of("1.2.3-alpine"), None, vec![said("1.2.3", "1.2.3-alpine")], Err(""), Some(("1.2.3", ByManifest))),
        ("a variant that nobody verified", of("1.2.3-alpine"), None, vec![], Err(""), Some(("1.2.3-alpine", Tag))),
        ("promoted: the digest of another tag", of("1.2.3-rc.1"), None, vec![said("1.2.3", "1.2.3")], Err(""), Some(("1.2.3-rc.1", Tag))),
        ("latest, says the application", of("latest"), Some("latest"), vec![], Ok("1.2.3"), Some(("1.2.3", Application))),
        ("no key, says the application", text("acme.example/app"), None, vec![], Ok("v1.2.3"), Some(("1.2.3", Application))),
        ("the application says nonsense", of("latest"), Some("latest"), vec![], Ok("main"), None),
    ];
    // Labels are no witness: with and without them, in agreement or not, the outcome is the same.
    for label in [None, Some("0.0.5"), Some("1.2.3"), Some("1.25.3"), Some("9.9.9"), Some("nightly")] {
        for (name, image_ref, env_value, verified, application, expected) in &rows {
            let evidence =
                Evidence { image_ref, env_value: *env_value, verified, application: *application, label, ..NOTHING };
            let found = match evidence.weigh() {
                Running::Known { version, by } => Some((version.to_string(), by)),
                Running::Unknown(_) => None,
            };
            assert_eq!(found.as_ref().map(|(v, by)| (v.as_str(), *by)), *expected, "{name}, label {label:?}");
            let itself = Evidence { process: Some(&process), ..evidence }.weigh();
            let expected = expected.unwrap_or(("0.1.0", Witness::Process));
            assert_eq!(itself, Running::Known { version: version(expected.0).unwrap(), by: expected.1 }, "{name}");
        }
    }
}

#[test]
fn every_witness_who_does_not_know_is_named_with_the_reason() {
    let names = [format!("acme.example/app@{DIGEST}")];
    let rows: Vec<(Evidence<'_>, &[&str])> = vec![
        (
            NOTHING,
            &["APP_VERSION=latest names no version", "it has no digest of a registry", "the application is not asked"],
        ),
        (
            Evidence { env_value: None, repo_digests: &names, ..NOTHING },
            &["APP_VERSION is not set in .env, and the container's image is acme.example/app:latest", DIGEST],
        ),
        (
            Evidence { env_value: Some("1.2.3"), ..NOTHING },
            &["APP_VERSION=1.2.3 in .env has not been applied: the container's image is acme.example/app:latest"],
        ),
        (Evidence { application: Ok("main"), ..NOTHING }, &["the application calls itself \"main\""]),
        (
            Evidence { label: Some("1.25.3"), ..NOTHING },
            &["org.opencontainers.image.version says 1.25.3, but images inherit this label from their base image"],
        ),
    ];
    for (evidence, parts) in rows {
        let Running::Unknown(why) = evidence.weigh() else { panic!("{evidence:?}") };
        let text = why.to_string();
        for part in parts {
            assert!(text.contains(part), "{text:?} should say {part:?}");
        }
        assert_eq!(text.contains("label"), evidence.label.is_some());
    }
}

#[test]
fn a_manifest_at_hand_may_name_what_runs() {
    let manifest = manifest(|m| m["image"]["digest"] = json!(DIGEST));
    let names = [format!("acme.example/app@{}", DIGEST.replace('1', "2")), format!("mirror.example/app@{DIGEST}")];
    let other = [format!("acme.example/app@{}", DIGEST.replace('1', "2"))];
    let unknown = NOTHING.weigh();
    let known = |text: &str, by| Running::Known { version: version(text).unwrap(), by };
    let (latest, same_tag) = ("acme.example/app:latest", "acme.example/app:1.2.0");
    for (name, running, image_ref, digests, expected) in [
        ("by its digest", unknown.clone(), latest, &names[..], known("1.2.0", Witness::Manifest)),
        ("another digest", unknown.clone(), latest, &other[..], unknown.clone()),
        ("none", unknown.clone(), latest, &[][..], unknown.clone()),
        (
            "more than the application",
            known("9.9.9", Witness::Application),
            latest,
            &names,
            known("1.2.0", Witness::Manifest),
        ),
        ("its own tag", known("1.2.0", Witness::Tag), same_tag, &names, known("1.2.0", Witness::Manifest)),
        ("another tag", known("1.3.0", Witness::Tag), "acme.example/app:1.3.0", &names, known("1.3.0", Witness::Tag)),
        ("a journal that knows", known("1.1.0", Witness::Manifest), latest, &names, known("1.1.0", Witness::Manifest)),
    ] {
        assert_eq!(running.knowing(&manifest, image_ref, digests), expected, "{name}");
    }
}

#[test]
fn the_journal_and_the_application_are_asked_only_where_the_tag_leaves_doubt() {
    for (image_ref, decides) in [
        ("acme.example/app:1.2.3", true),
        ("acme.example/app:v1.2.3", true),
        ("acme.example/app:1.2.3-alpine", false),
        ("acme.example/app:latest", false),
        ("acme.example:5000/app", false),
    ] {
        assert_eq!(tag_decides(image_ref), decides, "{image_ref}");
    }
}

#[test]
fn an_edit_of_env_may_not_be_applied() {
    for (image_ref, value, expected) in [
        ("acme.example/app:1.2.3", Some("1.2.3"), None),
        ("acme.example/app:v1.2.3", Some("1.2.3"), None),
        ("acme.example/app:1.2.3", Some("1.2.4"), Some("1.2.4")),
        ("acme.example/app:latest", Some("1.2.3"), Some("1.2.3")),
        ("acme.example/app:1.2.3", None, None),
        ("acme.example/app", Some("1.2.3"), None),
    ] {
        assert_eq!(not_applied(image_ref, value), expected, "{image_ref} {value:?}");
    }
}

#[test]
fn only_a_verified_manifest_of_this_very_digest_counts() {
    let verified = |subject: &str| Verified {
        subject: subject.into(),
        carrier: "release.json.sigstore.json".into(),
        identity: "key".into(),
        issuer: None,
        log_index: None,
        integrated_time: None,
    };
    let mut good = Job::new(JobId::random(), "v1.2.3".into(), jiff::Timestamp::UNIX_EPOCH, false);
    good.target_version = Some("1.2.3".into());
    good.target_image = Some("acme.example/app:stable".into());
    good.target_digest = Some(DIGEST.into());
    good.verified = vec![verified(Verified::MANIFEST), verified("image")];
    assert_eq!(VerifiedDigest::of(&good, DIGEST), Some(said("1.2.3", "stable")));
    type Spoil = fn(&mut Job);
    let rows: [(&str, Spoil); 8] = [
        ("another digest", |job| job.target_digest = Some(DIGEST.replace('1', "2"))),
        ("no digest", |job| job.target_digest = None),
        ("no version", |job| job.target_version = None),
        ("a version that is none", |job| job.target_version = Some("latest".into())),
        ("nothing verified", |job| job.verified.clear()),
        ("only the image verified", |job| drop(job.verified.remove(0))),
        ("a rollback by hand, which copies what an earlier job believed", |job| job.kind = Kind::Rollback),
        ("an update of the updater", |job| job.kind = Kind::SelfUpdate),
    ];
    for (name, spoil) in rows {
        let mut job = good.clone();
        spoil(&mut job);
        assert_eq!(VerifiedDigest::of(&job, DIGEST), None, "{name}");
    }
}
