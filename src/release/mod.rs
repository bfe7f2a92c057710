//! Where releases come from, and what a release says of itself.

pub mod github;
pub mod manifest;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

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
    /// The files it carries.
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
}

/// Why a release could not be had. The texts are complete and go to the operator.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SourceError {
    /// There is no such release, or none in this channel.
    #[error("{0}")]
    NotFound(String),
    /// The source is unreachable, limits us, or answers nonsense; trying later may help.
    #[error("{0}")]
    Unavailable(String),
    /// An asset or an answer exceeds its cap.
    #[error("{0}")]
    TooLarge(String),
}

/// Offers releases: GitHub's API, or anything that can do the same.
#[async_trait]
pub trait ReleaseSource: Send + Sync {
    /// The highest SemVer of the channel, not the youngest.
    async fn latest(&self, channel: Channel) -> Result<Release, SourceError>;
    /// The release with exactly this tag.
    async fn by_tag(&self, tag: &str) -> Result<Release, SourceError>;
    /// Fetches an asset of at most `cap` bytes.
    async fn fetch(&self, asset: &Asset, cap: usize) -> Result<Bytes, SourceError>;
}
