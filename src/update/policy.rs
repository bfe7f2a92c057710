//! May this release replace what runs? Pure: every refusal says what was found and what was expected.

use semver::Version;

use super::refusal::{Code, Refusal};
use super::running::Running;
use crate::platform;
use crate::release::manifest::Manifest;

/// What the judgement depends on, apart from the manifest.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    pub app_name: &'a str,
    pub asked_tag: &'a str,
    pub running: &'a Running,
    /// The key that selects the version in `.env`.
    pub version_key: &'a str,
    /// `os/arch[/variant]` of this engine.
    pub platform: &'a str,
    /// The highest version that was ever committed here.
    pub highest_committed: Option<&'a Version>,
    /// Why an earlier job of the same digest was rolled back after it had been started.
    pub known_bad: Option<&'a str>,
    pub allow_downgrade: bool,
    pub retry: bool,
    /// The command that asks for such a job: `update` or `self-update`.
    pub command: &'a str,
}

/// Judges a manifest whose signature has been verified. All refusals at once, none when it may.
pub fn judge(manifest: &Manifest, facts: &Facts<'_>) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    let (name, tag, version) = (&manifest.name, &manifest.tag, &manifest.version);
    if name != facts.app_name {
        let expected = facts.app_name;
        refusals.push(
            Refusal::new(
                Code::WrongApplication,
                format!("the manifest is for {name:?}, but this updater updates {expected:?} (PROCESSGIT_UPDATER_APP_NAME)"),
            )
            .text("name the repository whose releases are meant in PROCESSGIT_UPDATER_REPO, or this application in PROCESSGIT_UPDATER_APP_NAME"),
        );
    }
    if tag != facts.asked_tag {
        let expected = facts.asked_tag;
        refusals.push(
            Refusal::new(Code::WrongTag, format!("the manifest is for tag {tag:?}, but {expected:?} was asked for"))
                .text("the publisher has to publish the release again"),
        );
    }
    refusals.extend(version_refusal(manifest, facts));
    if let Some(min) = &manifest.min_upgrade_from {
        match facts.running {
            Running::Known { version: running, .. } if running.cmp_precedence(min).is_ge() => {}
            Running::Known { version: running, .. } => {
                let what = format!("version {version} can be installed from {min} or later, but {running} runs");
                // By the manifest's own rule a tag is the version after a `v`.
                refusals.push(Refusal::new(Code::TooOld, what).command(facts.typed(&format!("v{min}"), "")));
            }
            Running::Unknown(why) => {
                let what = format!(
                    "version {version} can be installed from {min} or later, but it is not known whether the version that runs is: {why}"
                );
                refusals.push(Refusal::new(Code::TooOld, what).text(format!(
                    "set PROCESSGIT_UPDATER_HEALTH_VERSION so that the application can be asked, or select the version that runs: `processgit-updater env set {} VERSION`, then `docker compose up -d`",
                    facts.version_key
                )));
            }
        }
    }
    if !manifest.image.platforms.iter().any(|p| platform::runs(facts.platform, p)) {
        let (found, expected) = (manifest.image.platforms.join(", "), facts.platform);
        refusals.push(
            Refusal::new(Code::Platform, format!("the image is for {found}, but this engine runs {expected}"))
                .text(format!("the publisher has to publish the image for {expected}")),
        );
    }
    if let (Some(reason), false) = (facts.known_bad, facts.retry) {
        let what = format!("this image was started before and rolled back: {reason}");
        refusals.push(Refusal::new(Code::KnownBad, what).command(facts.typed(tag, " --retry")));
    }
    refusals
}

impl Facts<'_> {
    /// As a person types it.
    fn typed(&self, tag: &str, flag: &str) -> String {
        format!("processgit-updater {} {}{flag}", self.command, shell_words::quote(tag))
    }
}

fn version_refusal(manifest: &Manifest, facts: &Facts<'_>) -> Option<Refusal> {
    if facts.allow_downgrade {
        return None;
    }
    let found = &manifest.version;
    let refusal = |code, what| Some(Refusal::new(code, what).command(facts.typed(&manifest.tag, " --allow-downgrade")));
    // Build metadata has no precedence in SemVer: compare with `cmp_precedence`.
    match (facts.running, facts.highest_committed) {
        (Running::Known { version, .. }, _) if found.cmp_precedence(version).is_lt() => {
            refusal(Code::Downgrade, format!("version {found} is older than {version}, which runs"))
        }
        (_, Some(highest)) if found.cmp_precedence(highest).is_lt() => refusal(
            Code::OlderThanCommitted,
            format!("version {found} is older than {highest}, which was committed here before"),
        ),
        (Running::Unknown(why), _) => {
            let what =
                format!("which version runs is not known, so it cannot be excluded that {found} is older: {why}");
            let consent = facts.typed(&manifest.tag, " --allow-downgrade");
            let remedy = format!("if it is not older, `{consent}` installs it");
            Some(Refusal::new(Code::VersionUnknown, what).text(remedy))
        }
        (Running::Known { .. }, _) => None,
    }
}
