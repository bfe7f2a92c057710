//! May this release replace what runs? Pure: every refusal says what was found and what was expected.

use std::fmt;

use semver::Version;

use super::running::{Running, Unknown};
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

/// Why not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the manifest is for {found:?}, but this updater updates {expected:?} (PROCESSGIT_UPDATER_APP_NAME)")]
    Name { found: String, expected: String },
    #[error("the manifest is for tag {found:?}, but {expected:?} was asked for")]
    Tag { found: String, expected: String },
    #[error("version {found} is older than {running}, which runs. {consent} installs it all the same")]
    Downgrade { found: Version, running: Version, consent: Consent },
    #[error(
        "version {found} is older than {highest}, which was committed here before. {consent} installs it all the same"
    )]
    Replay { found: Version, highest: Version, consent: Consent },
    #[error(
        "which version runs is not known, so it cannot be excluded that {found} is older: {why}. If it is not older, {consent} installs it"
    )]
    Unknown { found: Version, why: Unknown, consent: Consent },
    #[error("version {found} can be installed from {min} or later, but {running} runs: update to {min} first")]
    TooOld { found: Version, min: Version, running: Version },
    #[error(
        "version {found} can be installed from {min} or later, but it is not known whether the version that runs is: {why}. Set PROCESSGIT_UPDATER_HEALTH_VERSION so that the application can be asked, or select the version that runs: `processgit-updater env set {key} VERSION`, then `docker compose up -d`"
    )]
    PerhapsTooOld { found: Version, min: Version, why: Unknown, key: String },
    #[error("the image is for {found}, but this engine runs {expected}")]
    Platform { found: String, expected: String },
    #[error(
        "this image was started before and rolled back: {reason}. `processgit-updater {command} {tag} --retry` (or \"retry\": true) tries again"
    )]
    KnownBad { reason: String, tag: String, command: String },
}

/// How an operator allows a downgrade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consent {
    pub command: String,
    pub tag: String,
}

impl fmt::Display for Consent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { command, tag } = self;
        write!(f, "`processgit-updater {command} {tag} --allow-downgrade` (or \"allow_downgrade\": true)")
    }
}

/// Judges a manifest whose signature has been verified. All refusals at once, none when it may.
pub fn judge(manifest: &Manifest, facts: &Facts<'_>) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    if manifest.name != facts.app_name {
        refusals.push(Refusal::Name { found: manifest.name.clone(), expected: facts.app_name.to_owned() });
    }
    if manifest.tag != facts.asked_tag {
        refusals.push(Refusal::Tag { found: manifest.tag.clone(), expected: facts.asked_tag.to_owned() });
    }
    refusals.extend(version_refusal(manifest, facts));
    if let Some(min) = &manifest.min_upgrade_from {
        let (found, min) = (manifest.version.clone(), min.clone());
        match facts.running {
            Running::Known { version, .. } if version.cmp_precedence(&min).is_ge() => {}
            Running::Known { version, .. } => {
                refusals.push(Refusal::TooOld { found, min, running: version.clone() });
            }
            Running::Unknown(why) => {
                let key = facts.version_key.to_owned();
                refusals.push(Refusal::PerhapsTooOld { found, min, why: why.clone(), key });
            }
        }
    }
    if !manifest.image.platforms.iter().any(|p| platform::runs(facts.platform, p)) {
        refusals.push(Refusal::Platform {
            found: manifest.image.platforms.join(", "),
            expected: facts.platform.to_owned(),
        });
    }
    if let (Some(reason), false) = (facts.known_bad, facts.retry) {
        refusals.push(Refusal::KnownBad {
            reason: reason.to_owned(),
            tag: manifest.tag.clone(),
            command: facts.command.to_owned(),
        });
    }
    refusals
}

fn version_refusal(manifest: &Manifest, facts: &Facts<'_>) -> Option<Refusal> {
    if facts.allow_downgrade {
        return None;
    }
    let found = manifest.version.clone();
    let consent = Consent { command: facts.command.to_owned(), tag: manifest.tag.clone() };
    // Build metadata has no precedence in SemVer: compare with `cmp_precedence`.
    match (facts.running, facts.highest_committed) {
        (Running::Known { version, .. }, _) if found.cmp_precedence(version).is_lt() => {
            Some(Refusal::Downgrade { found, running: version.clone(), consent })
        }
        (_, Some(highest)) if found.cmp_precedence(highest).is_lt() => {
            Some(Refusal::Replay { found, highest: highest.clone(), consent })
        }
        (Running::Unknown(why), _) => Some(Refusal::Unknown { found, why: why.clone(), consent }),
        (Running::Known { .. }, _) => None,
    }
}
