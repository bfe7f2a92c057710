//! Releases that are not what they should be: nothing is touched, nobody notices.

use lab::image::ImageSpec;
use lab::publish::{Carrier, Published, REPOSITORY, ReleaseSpec};
use serde_json::json;

use crate::case::Leaves::Untouched;
use crate::case::case;

/// Release 1.1.0, changed so, is refused, and the reason contains all of `says`.
fn refused(change: impl FnOnce(ReleaseSpec) -> ReleaseSpec + 'static, says: &[&str]) {
    case().release(change).ends("rolled_back", says, Untouched);
}

#[test]
fn another_key_signed_it() {
    refused(ReleaseSpec::by_a_stranger, &["release.json", "signature", "key sha256:"]);
}

#[test]
fn nobody_signed_the_manifest() {
    refused(|r| r.carrier(Carrier::Nothing), &["release.json", "not signed"]);
}

#[test]
fn the_manifest_was_changed_after_it_was_signed() {
    let tamper = |bytes| String::from_utf8(bytes).unwrap().replace("2026-01-01", "2026-01-02").into_bytes();
    refused(move |r| r.tampered(tamper), &["release.json", "signature"]);
}

#[test]
fn a_genuine_manifest_under_another_tag() {
    case()
        .offers(|lab, _| {
            let genuine = lab.publish(ReleaseSpec::new("1.1.0"));
            let tag = "v1.2.0".to_owned();
            lab.releases.offer(lab::releases::Offer {
                tag: tag.clone(),
                assets: genuine.assets.clone(),
                ..Default::default()
            });
            Published { tag, ..genuine }
        })
        .ends("rolled_back", &["v1.1.0", "v1.2.0"], Untouched);
}

#[test]
fn nobody_signed_the_image() {
    refused(|r| r.image_signature(None), &["signature", "demo/app@sha256:"]);
}

/// The manifest is genuine, but names an image that only a stranger has signed.
#[test]
fn a_stranger_signed_the_image() {
    case()
        .offers(|lab, _| {
            let image = lab.registry.push(REPOSITORY, "1.1.0", &ImageSpec::new("1.1.0"));
            lab.stranger.image(&image.reference(), lab::signer::Layout::Tag);
            lab.publish(ReleaseSpec::new("1.1.0").existing_image(&image, "1.1.0").image_signature(None))
        })
        .ends("rolled_back", &["signature", "key sha256:"], Untouched);
}

#[test]
fn it_is_older_than_what_runs() {
    case().offers(|lab, _| lab.publish(ReleaseSpec::new("0.9.0"))).ends(
        "rolled_back",
        &["0.9.0", "1.0.0", "--allow-downgrade"],
        Untouched,
    );
}

#[test]
fn a_version_in_between_is_required() {
    refused(|r| r.manifest(|m| m["min_upgrade_from"] = json!("1.0.5")), &["1.0.5", "1.0.0"]);
}

#[test]
fn it_is_for_another_application() {
    refused(|r| r.app_name("other-app"), &["other-app", "demo", "APP_NAME"]);
}

#[test]
fn the_manifest_says_it_is_for_another_platform() {
    refused(|r| r.manifest(|m| m["image"]["platforms"] = json!(["linux/s390x"])), &["linux/s390x"]);
}

#[test]
fn the_image_is_for_another_platform_than_the_manifest_says() {
    refused(|r| r.image(|i| i.platform = "linux/s390x".into()), &["s390x"]);
}

#[test]
fn the_manifest_is_deeply_nested() {
    refused(|r| r.bytes("[".repeat(100_000).into_bytes()), &["release.json"]);
}

#[test]
fn the_manifest_is_not_utf_8() {
    refused(|r| r.bytes(b"{\"name\": \"\xff\xfe\"}".to_vec()), &["release.json", "UTF-8"]);
}

#[test]
fn the_manifest_has_16_mib() {
    refused(|r| r.bytes(vec![b' '; 16 * 1024 * 1024]), &["release.json"]);
}

#[test]
fn the_manifest_has_a_field_that_nobody_knows() {
    refused(|r| r.manifest(|m| m["surprise"] = json!(1)), &["release.json", "surprise"]);
}

#[test]
fn the_registry_does_not_have_the_image() {
    case().before(|s| s.lab.registry.forget(&s.release.image)).ends("rolled_back", &["demo/app@sha256:"], Untouched);
}

/// Genuine in every way, but the Compose file runs images of another repository.
#[test]
fn the_image_is_not_the_one_that_compose_would_run() {
    case()
        .offers(|lab, _| {
            let image = lab.registry.push("demo/other", "1.1.0", &ImageSpec::new("1.1.0"));
            lab.publish(ReleaseSpec::new("1.1.0").existing_image(&image, "1.1.0"))
        })
        .ends("rolled_back", &["demo/other:1.1.0", "demo/app:1.1.0"], Untouched);
}
