//! Where releases come from, and what a release says of itself.

pub mod error;
pub mod github;
pub mod manifest;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use error::{SourceError, SourceFault};

/// Which releases are offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Channel {
    /// Without pre-releases.
    #[default]
    Stable,
    /// Pre-releases too.
    Prerelease,
}

/// A release, as the HTTP contract shows it. Drafts are never seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    pub tag: String,
    pub name: String,
    pub prerelease: bool,
    pub html_url: String,
    pub published_at: Option<Timestamp>,
    /// What should be known of this answer: older releases that could not be read, tags that are not offered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
    /// The files it carries that concern an updater; none where it comes from a list.
    #[serde(skip)]
    pub assets: Vec<Asset>,
}

/// A file of a release, not yet fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asset {
    pub name: String,
    /// Bytes, as the source claims.
    pub size: u64,
    /// The API's address of it.
    pub url: String,
    /// All of it is there.
    pub uploaded: bool,
}

/// The asset that is the manifest. The names of its signatures begin with it.
pub const MANIFEST: &str = "release.json";

/// Offers releases: GitHub's API, or anything that can do the same.
#[async_trait]
pub trait ReleaseSource: Send + Sync {
    /// The highest SemVer of the channel, not the youngest.
    async fn latest(&self, channel: Channel) -> Result<Release, SourceError>;
    /// The release with exactly this tag.
    async fn by_tag(&self, tag: &str) -> Result<Release, SourceError>;
    /// Asks anew at the next question, whatever is remembered.
    fn forget(&self) {}
    /// Fetches an asset of at most `cap` bytes.
    async fn fetch(&self, asset: &Asset, cap: usize) -> Result<Bytes, SourceError>;
}
