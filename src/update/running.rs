//! Which version runs, and how that is known. Pure.
//!
//! The tag of the image that the container was made from is what the version key selected. Where that tag
//! is no version (`latest`), a manifest that was verified for the digest that runs says it, else the
//! application itself. The image's label `org.opencontainers.image.version` is never believed: an image
//! inherits it from its base image.

use std::fmt;

use semver::Version;

use super::ports::VerifiedDigest;
use crate::reference;
use crate::release::manifest::Manifest;

/// The setting that says where the application names its version.
const HEALTH_VERSION: &str = "PROCESSGIT_UPDATER_HEALTH_VERSION";
/// Where an image says a version: its own, or that of its base image.
pub const VERSION_LABEL: &str = "org.opencontainers.image.version";

/// What is known of the version that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Running {
    Known { version: Version, by: Witness },
    Unknown(Unknown),
}

/// Who says which version runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Witness {
    /// The tag of the container's image, which the version key selected.
    Tag,
    /// A manifest that was verified for the digest that runs.
    Manifest,
    /// The application, where `HEALTH_VERSION` points to.
    Application,
    /// This process was started from the image that runs: a self-update.
    Process,
}

/// Why it is not known which version runs: one reason for each witness.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unknown {
    pub tag: String,
    pub manifest: String,
    pub application: String,
    /// What the image's label says, where it says a version: a person would wonder why it is not believed.
    pub label: Option<String>,
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}; {}", self.tag, self.manifest, self.application)?;
        match &self.label {
            Some(label) => write!(
                f,
                "; the image's label {VERSION_LABEL} says {label}, but images inherit this label from their base image, so it does not count"
            ),
            None => Ok(()),
        }
    }
}

/// What was found out about the container that runs.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// The reference that the container was made from.
    pub image_ref: &'a str,
    /// Of the image that runs: `repository@sha256:…`.
    pub repo_digests: &'a [String],
    pub version_key: &'a str,
    /// The key's value in `.env`, which may have been edited since the container was made.
    pub env_value: Option<&'a str>,
    /// What verified manifests have said of the digests that run, newest first. Not asked for where the tag
    /// decides ([`Evidence::tag_decides`]).
    pub verified: &'a [VerifiedDigest],
    /// What the application says; `Err`: why it says nothing.
    pub application: Result<&'a str, &'a str>,
    /// The version of this process, where it was started from the image that runs.
    pub process: Option<&'a Version>,
    pub label: Option<&'a str>,
}

/// A SemVer, with or without `v`.
pub fn version(text: &str) -> Option<Version> {
    Version::parse(text.strip_prefix('v').unwrap_or(text)).ok()
}

/// The tag says a version by itself. `1.2.3-alpine` may be one, or the name of a variant: a verified manifest
/// knows better.
pub fn tag_decides(image_ref: &str) -> bool {
    tagged(image_ref).is_some_and(|version| version.pre.is_empty())
}

fn tagged(image_ref: &str) -> Option<Version> {
    reference::version_of(image_ref).and_then(version)
}

impl Evidence<'_> {
    /// The version that runs, by the first witness who knows it.
    pub fn weigh(&self) -> Running {
        let known = |version, by| Running::Known { version, by };
        let tagged = tagged(self.image_ref);
        let tag = reference::version_of(self.image_ref).filter(|_| tagged.is_some());
        // A manifest says what its own image tag means; a tag that says nothing needs only the digest.
        let mut explains = self.verified.iter().filter(|one| tag.is_none_or(|tag| one.image_tag == tag));
        if let Some(verified) = explains.next() {
            return known(verified.version.clone(), Witness::Manifest);
        }
        if let Some(version) = tagged {
            return known(version, Witness::Tag);
        }
        if let Some(version) = self.application.ok().and_then(version) {
            return known(version, Witness::Application);
        }
        if let Some(version) = self.process {
            return known(version.clone(), Witness::Process);
        }
        Running::Unknown(Unknown {
            tag: self.why_no_tag(),
            manifest: self.why_no_manifest(),
            application: match self.application {
                Ok(said) => format!("the application calls itself {said:?} ({HEALTH_VERSION}), which is no version"),
                Err(why) => why.to_owned(),
            },
            label: self.label.filter(|label| version(label).is_some()).map(str::to_owned),
        })
    }

    fn why_no_tag(&self) -> String {
        let (key, image) = (self.version_key, self.image_ref);
        match self.env_value {
            None => format!("{key} is not set in .env, and the container's image is {image}"),
            Some(value) if version(value).is_some() => {
                format!("{key}={value} in .env has not been applied: the container's image is {image}")
            }
            Some(value) => format!("{key}={value} names no version (image {image})"),
        }
    }

    fn why_no_manifest(&self) -> String {
        let mut digests = self.repo_digests.iter().filter_map(|name| name.split_once('@')).map(|(_, digest)| digest);
        match digests.next() {
            Some(digest) => format!("no manifest that was verified here names its digest {digest}"),
            None => "it has no digest of a registry that a verified manifest could name".to_owned(),
        }
    }
}

impl Running {
    pub fn version(&self) -> Option<&Version> {
        match self {
            Self::Known { version, .. } => Some(version),
            Self::Unknown(_) => None,
        }
    }

    /// With what a manifest says that has just been verified: it may name the digest that runs.
    #[must_use]
    pub fn knowing(self, manifest: &Manifest, image_ref: &str, repo_digests: &[String]) -> Self {
        let named = |name: &String| name.split_once('@').is_some_and(|(_, digest)| digest == manifest.image.digest);
        let explains = match &self {
            Self::Unknown(_) => true,
            Self::Known { by: Witness::Tag, .. } => {
                reference::version_of(image_ref) == Some(manifest.image.tag.as_str())
            }
            Self::Known { by: Witness::Manifest, .. } => false,
            // A signature says more than the application does.
            Self::Known { by: Witness::Application | Witness::Process, .. } => true,
        };
        match explains && repo_digests.iter().any(named) {
            true => Self::Known { version: manifest.version.clone(), by: Witness::Manifest },
            false => self,
        }
    }
}

/// What an edit of `.env` selects that has not been applied yet: the key's value, where the container was
/// made from another tag.
pub fn not_applied<'a>(image_ref: &str, env_value: Option<&'a str>) -> Option<&'a str> {
    let bare = |text: &'a str| text.strip_prefix('v').unwrap_or(text);
    let tag = reference::version_of(image_ref)?;
    env_value.filter(|value| bare(value) != tag.strip_prefix('v').unwrap_or(tag))
}
