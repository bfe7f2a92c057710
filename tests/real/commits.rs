//! Updates that succeed.

use std::time::Duration;

use lab::image::ImageSpec;
use lab::publish::{Carrier, REPOSITORY, ReleaseSpec};
use lab::releases::Trouble;
use lab::signer::Layout;
use serde_json::json;

use crate::case::Leaves::{Untouched, Updated};
use crate::case::case;

#[test]
fn a_good_release() {
    case().ends("committed", &[], Updated);
}

#[test]
fn a_good_release_with_bundles_as_cosign_3_makes_them_and_an_image_index() {
    case()
        .release(|r| r.carrier(Carrier::Bundle).image_signature(Some(Layout::Referrer)).image(|i| i.index = true))
        .ends("committed", &[], Updated);
}

#[test]
fn a_migration_runs_before_the_new_version() {
    let (_stage, job) = case().release(|r| r.migration("migrate")).ends("committed", &[], Updated);
    let output = job.output("migrating");
    assert!(output.contains("schema 1 is in place"), "the migration's own words: {output:?}");
    let order = ["planning", "pulling", "verifying", "snapshotting", "migrating", "swapping", "healthchecking"];
    assert_eq!(job.states(), [&order[..], &["committed"]].concat());
}

/// The tag that was signed means another image by now; the digest decides.
#[test]
fn the_tag_was_moved_to_another_image_after_signing() {
    case()
        .before(|s| {
            s.lab.registry.push(REPOSITORY, "1.1.0", &ImageSpec::new("6.6.6"));
        })
        .ends("committed", &[], Updated);
}

#[test]
fn an_application_with_quite_other_names() {
    case()
        .app(|a| {
            a.app_name = "quite-other".into();
            a.service = "web_frontend".into();
            a.container_suffix = "Web.1_x".into();
            a.version_key = "WEB_TAG".into();
            a.port = 8080;
            a.version_path = "/about/version".into();
        })
        .release(|r| r.app_name("quite-other"))
        .setting("HEALTH_VERSION", "/version")
        .ends("committed", &[], Updated);
}

#[test]
fn what_runs_already_is_left_alone() {
    case().offers(|lab, app| lab.publish(ReleaseSpec::new("1.0.0").existing_image(&app.image, "1.0.0"))).ends(
        "committed",
        &[],
        Untouched,
    );
}

#[test]
fn the_env_file_says_latest() {
    let latest = || case().app(|a| a.image_tag = "latest".into());
    latest().ends("rolled_back", &["=latest names no version", "update v1.1.0 --allow-downgrade`"], Untouched);
    latest().request(json!({ "allow_downgrade": true })).ends("committed", &[], Updated);
    latest().setting("HEALTH_VERSION", "/version").ends("committed", &[], Updated);
}

#[test]
fn the_application_takes_its_time() {
    case().release(|r| r.behaviour("slow:2")).ends("committed", &[], Updated);
}

#[test]
fn its_own_healthcheck_agrees() {
    let healthy = json!({ "Test": ["CMD", "/demo-app", "check"], "Interval": 500_000_000_u64 });
    case().release(|r| r.image(move |i| i.healthcheck = Some(healthy))).ends("committed", &[], Updated);
}

#[test]
fn a_prerelease_that_was_asked_for() {
    case().offers(|lab, _| lab.publish(ReleaseSpec::new("1.1.0-rc.1"))).ends("committed", &[], Updated);
}

#[test]
fn github_answers_late() {
    case().before(|s| s.lab.releases.api_trouble(Trouble::Late(Duration::from_secs(1)))).ends(
        "committed",
        &[],
        Updated,
    );
}

#[test]
fn a_downgrade_that_was_asked_for() {
    case().offers(|lab, _| lab.publish(ReleaseSpec::new("0.9.0"))).request(json!({ "allow_downgrade": true })).ends(
        "committed",
        &[],
        Updated,
    );
}
