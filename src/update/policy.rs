//! May this release replace what runs? Pure: every refusal says what was found and what was expected.

use semver::Version;

use crate::release::manifest::Manifest;

/// What the judgement depends on, apart from the manifest.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    pub app_name: &'a str,
    pub asked_tag: &'a str,
    /// What runs; `None` when neither `.env` nor the image's label says it.
    pub running: Option<&'a Version>,
    /// How the running version is written in `.env`, for messages.
    pub running_as: &'a str,
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
    #[error(
        "version {found} is older than {running}, which runs; a request with \"allow_downgrade\": true installs it all the same"
    )]
    Downgrade { found: Version, running: Version },
    #[error(
        "version {found} is older than {highest}, which was committed here before; a request with \"allow_downgrade\": true installs it all the same"
    )]
    Replay { found: Version, highest: Version },
    #[error(
        "the running version is unknown: .env says {running_as:?} and the image has no label org.opencontainers.image.version, so it cannot be told whether {found} is a downgrade; a request with \"allow_downgrade\": true installs it all the same"
    )]
    Unknown { found: Version, running_as: String },
    #[error("version {found} can be installed from {min} or later, but {running} runs: update to {min} first")]
    TooOld { found: Version, min: Version, running: String },
    #[error("the image is for {found}, but this engine runs {expected}")]
    Platform { found: String, expected: String },
    #[error(
        "this image was started before and rolled back: {reason}. `processgit-updater {command} {tag} --retry` (or \"retry\": true) tries again"
    )]
    KnownBad { reason: String, tag: String, command: String },
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
    if let Some(min) = &manifest.min_upgrade_from
        && facts.running.is_none_or(|running| running < min)
    {
        let running =
            facts.running.map_or_else(|| format!("an unknown version ({:?})", facts.running_as), Version::to_string);
        refusals.push(Refusal::TooOld { found: manifest.version.clone(), min: min.clone(), running });
    }
    if !manifest.image.platforms.iter().any(|p| platform_matches(p, facts.platform)) {
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
    match (facts.running, facts.highest_committed) {
        (None, _) => Some(Refusal::Unknown { found, running_as: facts.running_as.to_owned() }),
        // Build metadata has no precedence in SemVer: compare with `cmp_precedence`.
        (Some(running), _) if found.cmp_precedence(running).is_lt() => {
            Some(Refusal::Downgrade { found, running: running.clone() })
        }
        (_, Some(highest)) if found.cmp_precedence(highest).is_lt() => {
            Some(Refusal::Replay { found, highest: highest.clone() })
        }
        _ => None,
    }
}

/// `linux/arm64` serves an engine of `linux/arm64/v8` and the reverse; other variants must be equal.
fn platform_matches(offered: &str, engine: &str) -> bool {
    let normal = |p: &str| p.strip_suffix("/v8").unwrap_or(p).to_owned();
    normal(offered) == normal(engine)
}

/// The running version: from the value in `.env`, with or without `v`; where that is no SemVer (`latest`),
/// from the image's label `org.opencontainers.image.version`.
pub fn running_version(env_value: Option<&str>, image_label: Option<&str>) -> Option<Version> {
    let parse = |text: &str| Version::parse(text.strip_prefix('v').unwrap_or(text)).ok();
    env_value.and_then(parse).or_else(|| image_label.and_then(parse))
}
