//! placeholder
use semver::Version;
pub const MANIFEST_CAP: usize = 1024 * 1024;
#[derive(Debug, Clone)]
pub struct Manifest {
    pub name: String,
    pub version: Version,
    pub tag: String,
    pub min_upgrade_from: Option<Version>,
    pub image: Image,
    pub migration: Migration,
    pub breaking_changes: Vec<String>,
    pub deprecations: Vec<String>,
}
#[derive(Debug, Clone)]
pub struct Image {
    pub registry: String,
    pub repository: String,
    pub tag: String,
    pub digest: String,
    pub platforms: Vec<String>,
}
#[derive(Debug, Clone)]
pub struct Migration {
    pub required: bool,
    pub command: Option<String>,
    pub estimated_downtime_seconds: Option<u64>,
}
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct ManifestError;
impl Manifest {
    pub fn parse(_b: &[u8]) -> Result<Self, ManifestError> {
        Err(ManifestError)
    }
    pub fn image_reference(&self) -> String {
        String::new()
    }
}
