//! Is it genuine? Signatures on the manifest and on the image, judged by the operator's policy alone.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;

use crate::update::job::Verified;

/// The most bytes of a signature carrier that are fetched.
pub const CARRIER_CAP: usize = 1024 * 1024;

/// Why something is not trusted. The text says what was found and what was expected.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TrustError {
    /// Checked, and not genuine (or no signature at all). Never try again.
    #[error("{0}")]
    Refused(String),
    /// Could not be checked: registry unreachable, and the like.
    #[error("{0}")]
    Unavailable(String),
}

/// The judge.
#[async_trait]
pub trait Trust: Send + Sync {
    /// The names of the release assets that may carry the manifest's signature, in the order they are
    /// looked for. The caller fetches those that exist and hands them to [`Trust::manifest`].
    fn carriers(&self) -> &'static [&'static str];
    /// Judges the exact bytes of `release.json` by the carriers that were found (asset name → bytes).
    /// All that is present and understood must hold.
    async fn manifest(&self, manifest: &Bytes, carriers: &BTreeMap<String, Bytes>) -> Result<Verified, TrustError>;
    /// Judges the image `registry/repository` at `digest`, by the signatures in its registry.
    async fn image(&self, registry: &str, repository: &str, digest: &str) -> Result<Verified, TrustError>;
    /// One line for `status` and the log: by which policy is judged.
    fn describe(&self) -> String;
}
