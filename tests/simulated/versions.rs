//! Which version runs, and what an update may therefore replace.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use processgit_updater::engine::simulated::{NoFaults, World};
use processgit_updater::health::VersionAt;
use processgit_updater::release::{Asset, Channel, Release, ReleaseSource, SourceError};
use processgit_updater::update::job::State;
use processgit_updater::update::ports::Options;
use processgit_updater::update::{CheckRequest, Order, Request, survey};
use serde_json::json;

use crate::bench::{DIGEST, Installation, Scene, request, runs_as};

const LATEST: &str = "PROCESSGIT_VERSION=latest\n";

/// The application runs as `latest`, and its health answer names no version.
fn latest() -> Scene {
    Scene {
        env: LATEST,
        world: |w| runs_as(w, "latest"),
        options: |options| options.health.version = None,
        ..Scene::default()
    }
}

fn allowed() -> Request {
    Request { allow_downgrade: true, ..request() }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_known_needs_consent() {
    let answers = |options: &mut Options| options.health.version = VersionAt::parse("/version").ok();
    let names_nothing = |options: &mut Options| options.health.version = VersionAt::parse("/build").ok();
    let is_the_release = |w: &mut World| {
        runs_as(w, "latest");
        let id = w.containers[0].image_id.clone();
        w.tags.insert(format!("ghcr.io/algomation-ai/processgit@{DIGEST}"), id);
    };
    let needs: fn(&mut serde_json::Value) = |m| m["min_upgrade_from"] = json!("1.0.0");
    let rows: Vec<(&str, Scene, Request, State, &[&str])> = vec![
        (
            "latest",
            latest(),
            request(),
            State::RolledBack,
            &[
                "which version runs is not known, so it cannot be excluded that 1.1.0 is older",
                "PROCESSGIT_VERSION=latest names no version",
                "no manifest that was verified here names its digest sha256:",
                "PROCESSGIT_UPDATER_HEALTH_VERSION is not set",
                "the image's label org.opencontainers.image.version says 1.0.0, but images inherit this label",
                "`processgit-updater update v1.1.0 --allow-downgrade`",
            ],
        ),
        ("no key at all", Scene { env: "", ..latest() }, request(), State::RolledBack, &["is not set in .env"]),
        (
            "an edit that is not applied",
            Scene { env: "PROCESSGIT_VERSION=1.0.0\n", ..latest() },
            request(),
            State::RolledBack,
            &["PROCESSGIT_VERSION=1.0.0 in .env has not been applied"],
        ),
        ("latest, with consent", latest(), allowed(), State::Committed, &[]),
        ("latest, the application says it", Scene { options: answers, ..latest() }, request(), State::Committed, &[]),
        (
            "latest, the application says nothing",
            Scene { options: names_nothing, ..latest() },
            request(),
            State::RolledBack,
            &["the health answer has nothing at /build"],
        ),
        ("latest is the very release", Scene { world: is_the_release, ..latest() }, request(), State::Committed, &[]),
        (
            "a minimum that may not be reached",
            Scene { manifest: needs, ..latest() },
            allowed(),
            State::RolledBack,
            &[
                "can be installed from 1.0.0 or later, but it is not known whether the version that runs is",
                "`processgit-updater env set PROCESSGIT_VERSION VERSION`",
            ],
        ),
        (
            "a minimum that is reached",
            Scene { manifest: needs, options: answers, ..latest() },
            request(),
            State::Committed,
            &[],
        ),
    ];
    for (name, scene, request, end, says) in rows {
        let installation = Installation::new(scene);
        let (updater, _) = installation.process(Arc::new(NoFaults)).await;
        let wish = CheckRequest { tag: None, allow_downgrade: request.allow_downgrade, ..CheckRequest::default() };
        let check = updater.check(wish).await;
        assert_eq!(check.allowed, end == State::Committed, "{name}: {:?}", check.refusal);
        let job = installation.submit_and_wait(&updater, Order::Update(request)).await;
        assert_eq!(job.state, end, "{name}: {:?}", job.error);
        let error = job.error.unwrap_or_default();
        for part in says {
            assert!(error.contains(part), "{name}: {error:?} should say {part:?}");
        }
        assert_eq!(check.refusal.unwrap_or_default(), error, "{name}: what was foretold");
        let doubted = job.warnings.iter().any(|w| w.starts_with("which version runs is not known"));
        assert_eq!(doubted, name == "latest, with consent", "{name}: {:?}", job.warnings);
    }
}

/// Once a manifest was verified for a digest, its version is known under whatever tag it runs.
#[tokio::test(start_paused = true)]
async fn a_verified_digest_is_recognised_again() {
    let stable: fn(&mut serde_json::Value) = |m| m["image"]["tag"] = json!("stable");
    let installation = Installation::new(Scene { manifest: stable, sqlite: true, ..latest() });
    let (updater, _) = installation.process(Arc::new(NoFaults)).await;
    let first = installation.submit_and_wait(&updater, Order::Update(allowed())).await;
    assert_eq!(first.state, State::Committed, "{:?}", first.error);
    let check = updater.check(CheckRequest::default()).await;
    assert_eq!((check.running_version.as_deref(), check.running_unknown), (Some("1.1.0"), None));
    let again = installation.submit_and_wait(&updater, Order::Update(request())).await;
    assert_eq!(again.state, State::Committed, "without consent: {:?}", again.error);
    assert_eq!(again.previous_version.as_deref(), Some("1.1.0"));
}

/// What `.env` says and what runs are two things.
#[tokio::test(start_paused = true)]
async fn an_edit_that_is_not_applied_is_told_apart_from_what_runs() {
    for (env, version, not_applied) in [
        ("PROCESSGIT_VERSION=1.0.0\n", "1.0.0", None),
        ("PROCESSGIT_VERSION=1.1.0\n", "1.0.0", Some("PROCESSGIT_VERSION=1.1.0")),
        ("PROCESSGIT_VERSION=9.0.0\n", "1.0.0", Some("PROCESSGIT_VERSION=9.0.0")),
        ("PROCESSGIT_VERSION=latest\n", "1.0.0", Some("PROCESSGIT_VERSION=latest")),
    ] {
        let installation = Installation::new(Scene { env, ..Scene::default() });
        let (updater, _) = installation.process(Arc::new(NoFaults)).await;
        let check = updater.check(CheckRequest::default()).await;
        assert_eq!(check.running_version.as_deref(), Some(version), "{env}");
        assert_eq!(check.running_image.as_deref(), Some("ghcr.io/algomation-ai/processgit:1.0.0"), "{env}");
        assert_eq!(check.not_applied.as_deref(), not_applied, "{env}");
        assert!(!check.refusal.unwrap_or_default().contains("older"), "{env}: what runs is older than the release");
    }
}

/// The newest release is no newer than what runs: there is nothing to do, and nothing is refused.
#[tokio::test(start_paused = true)]
async fn whoever_is_up_to_date_is_told_so() {
    let newer = || Scene { env: "PROCESSGIT_VERSION=1.5.0\n", world: |w| runs_as(w, "1.5.0"), ..Scene::default() };
    let the_release = |w: &mut World| {
        runs_as(w, "1.1.0");
        let id = w.containers[0].image_id.clone();
        w.tags.insert(format!("ghcr.io/algomation-ai/processgit@{DIGEST}"), id);
    };
    let same = || Scene { env: "PROCESSGIT_VERSION=1.1.0\n", world: the_release, ..Scene::default() };
    let edited = || Scene { env: "PROCESSGIT_VERSION=1.0.9\n", ..same() };
    let asked_for = || CheckRequest { tag: Some("v1.1.0".into()), ..CheckRequest::default() };
    for (what, scene, request, up_to_date, refusal) in [
        ("a newer one runs", newer(), CheckRequest::default(), true, None),
        ("a newer one runs, and this was asked for", newer(), asked_for(), false, Some("is older than 1.5.0")),
        ("it runs", same(), CheckRequest::default(), true, None),
        ("it runs, and was asked for", same(), asked_for(), true, None),
        ("it runs, and .env was edited", edited(), CheckRequest::default(), true, None),
        ("it runs, .env was edited, and it was asked for", edited(), asked_for(), false, Some("drifted")),
        ("an older one runs", Scene::default(), CheckRequest::default(), false, None),
    ] {
        let installation = Installation::new(scene);
        let (updater, _) = installation.process(Arc::new(NoFaults)).await;
        let check = updater.check(request).await;
        assert_eq!(check.up_to_date, up_to_date, "{what}: {check:?}");
        let found = check.refusal.clone().unwrap_or_default();
        assert!(
            found.contains(refusal.unwrap_or_default()) && found.is_empty() == refusal.is_none(),
            "{what}: {found}"
        );
        assert_eq!(check.release.map(|release| release.tag).as_deref(), Some("v1.1.0"), "{what}");
    }
}

/// The files of a release that was just published may be on their way.
#[tokio::test(start_paused = true)]
async fn a_release_that_is_still_uploading_is_called_that() {
    // The bench begins at 2026-01-03T00:00:00Z.
    let at = |text: &str| Some(text.parse().unwrap());
    type Change = fn(&mut Release);
    let rows: [(&str, Change, Option<jiff::Timestamp>, &[&str]); 4] = [
        (
            "no manifest yet",
            |r| r.assets.clear(),
            at("2026-01-02T23:57:00Z"),
            &[
                "has no asset release.json yet: it was published 3 min ago (2026-01-02T23:57:00Z), so its files may still be uploading",
            ],
        ),
        (
            "no manifest",
            |r| r.assets.clear(),
            at("2026-01-02T12:00:00Z"),
            &["has no asset release.json: it was not published for this updater"],
        ),
        ("no manifest, and no date", |r| r.assets.clear(), None, &["it was not published for this updater"]),
        (
            "half of one",
            |r| r.assets[0].uploaded = false,
            at("2026-01-02T12:00:00Z"),
            &["release.json of release v1.1.0 is still being uploaded. Try again in a few minutes"],
        ),
    ];
    for (what, change, published, says) in rows {
        let release: Release = {
            let mut release = Release {
                tag: "v1.1.0".into(),
                name: "v1.1.0".into(),
                prerelease: false,
                html_url: String::new(),
                published_at: published,
                remarks: vec![],
                assets: vec![Asset { name: "release.json".into(), size: 1, url: String::new(), uploaded: true }],
            };
            change(&mut release);
            release
        };
        let installation = Installation::new(Scene::default());
        let (mut ports, ..) = installation.ports(Arc::new(NoFaults));
        ports.releases = Arc::new(Offers(release));
        let refused = survey::candidate(&ports, "v1.1.0").await.unwrap_err().to_string();
        for part in says {
            assert!(refused.contains(part), "{what}: {refused}");
        }
    }
}

struct Offers(Release);

#[async_trait]
impl ReleaseSource for Offers {
    async fn latest(&self, _: Channel) -> Result<Release, SourceError> {
        Ok(self.0.clone())
    }
    async fn by_tag(&self, _: &str) -> Result<Release, SourceError> {
        Ok(self.0.clone())
    }
    async fn fetch(&self, asset: &Asset, _: usize) -> Result<Bytes, SourceError> {
        Err(SourceError::not_found(format!("{} is not there", asset.name)))
    }
}

/// What a publisher writes is shown, and commands nothing.
#[tokio::test(start_paused = true)]
async fn words_of_a_publisher_are_cleaned() {
    let manifest: fn(&mut serde_json::Value) = |m| {
        m["breaking_changes"] = json!(["\u{1b}[2Jgone", "a\u{202e}b"]);
        m["deprecations"] = json!(["c\u{200b}d"]);
    };
    let installation = Installation::new(Scene { manifest, ..Scene::default() });
    let (updater, _) = installation.process(Arc::new(NoFaults)).await;
    let check = updater.check(CheckRequest::default()).await;
    assert_eq!(check.breaking_changes, ["\u{fffd}[2Jgone", "a\u{fffd}b"]);
    assert_eq!(check.deprecations, ["c\u{fffd}d"]);
}
