//! The place where releases come from is broken: nothing is touched.

use lab::publish::Published;
use lab::publish::ReleaseSpec;
use lab::releases::{Offer, Trouble};

use crate::case::Leaves::Untouched;
use crate::case::case;

/// The API misbehaves so.
fn api(trouble: Trouble, says: &[&str]) {
    case().before(move |s| s.lab.releases.api_trouble(trouble)).ends("rolled_back", says, Untouched);
}

/// The downloads misbehave so.
fn storage(trouble: Trouble, says: &[&str]) {
    case().before(move |s| s.lab.releases.storage_trouble(trouble)).ends("rolled_back", says, Untouched);
}

#[test]
fn the_api_answers_500() {
    api(Trouble::Status(500), &["500"]);
}

#[test]
fn the_api_limits_us() {
    api(Trouble::RateLimited, &["limit"]);
}

#[test]
fn the_api_stalls_in_the_middle_of_an_answer() {
    api(Trouble::Stalls, &["v1.1.0"]);
}

#[test]
fn the_api_is_cut_off_in_the_middle_of_an_answer() {
    api(Trouble::CutOff, &["v1.1.0"]);
}

#[test]
fn the_download_answers_500() {
    storage(Trouble::Status(500), &["release.json", "500"]);
}

#[test]
fn the_download_stalls() {
    storage(Trouble::Stalls, &["release.json"]);
}

#[test]
fn the_download_is_cut_off() {
    storage(Trouble::CutOff, &["release.json"]);
}

/// Offers `v1.1.0` without the asset of this name.
fn without(asset: &'static str, says: &[&str]) {
    case()
        .offers(move |lab, _| {
            let mut release = lab.publish(ReleaseSpec::new("1.1.0"));
            release.assets.retain(|(name, _)| name != asset);
            lab.releases.offer(Offer { tag: release.tag.clone(), assets: release.assets.clone(), ..Offer::default() });
            release
        })
        .ends("rolled_back", says, Untouched);
}

#[test]
fn the_release_carries_no_manifest() {
    without("release.json", &["v1.1.0", "release.json"]);
}

#[test]
fn the_release_carries_no_signature() {
    without("release.json.sig", &["release.json", "not signed"]);
}

#[test]
fn there_is_no_such_release() {
    case().offers(|lab, _| Published { tag: "v9.9.9".into(), ..lab.publish(ReleaseSpec::new("1.1.0")) }).ends(
        "rolled_back",
        &["v9.9.9"],
        Untouched,
    );
}
