//! Is it genuine? Signatures on the manifest and on the image, judged by the operator's policy alone.
//!
//! | file | holds |
//! |---|---|
//! | [`judge`]   | [`judge::Judge`], the [`Trust`] that `serve` and the commands use |
//! | [`error`]   | why something is not trusted or cannot be judged: kinds, with what helps (pure) |
//! | [`policy`]  | whom the operator trusts: a pinned key, or an issuer and an identity |
//! | [`key`]     | signatures made with the pinned key |
//! | [`keyless`] | signatures made with a certificate of a moment, and the proof of that moment |
//! | [`root`]    | the Sigstore (public or private) that keyless signatures are checked against |
//! | [`refresh`] | keeps the public Sigstore's root current, where the operator wants it |
//! | [`carrier`] | the file formats that carry a manifest's signature (pure) |
//! | [`payload`] | what a signature on an image says, bound to the digest (pure) |
//! | [`image`]   | finds the signatures of an image in its registry |
//! | [`rekor`]   | asks the transparency log for an entry that a release does not carry |

pub mod carrier;
pub mod error;
pub mod image;
pub mod judge;
pub mod key;
pub mod keyless;
pub mod payload;
pub mod policy;
pub mod refresh;
pub mod rekor;
pub mod root;

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;

pub use self::error::{TrustError, TrustFault};
use crate::update::job::Verified;

/// The most bytes of a signature carrier that are fetched.
pub const CARRIER_CAP: usize = 1024 * 1024;

/// Complete bundles, in the order they are looked at. Which format a file has is told by its content.
pub(crate) const BUNDLES: [&str; 3] =
    ["release.json.sigstore.json", "release.json.cosign.bundle", "release.json.bundle"];
/// A bare signature, and the certificate of its key if it was made with one.
pub(crate) const SIG: &str = "release.json.sig";
pub(crate) const CRT: &str = "release.json.crt";
/// The release assets that may carry the manifest's signature, in the order they are looked at.
pub const CARRIERS: [&str; 5] = [BUNDLES[0], BUNDLES[1], BUNDLES[2], SIG, CRT];

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
    /// What a verified manifest says of its own signing must agree with the policy, or the publisher and
    /// the operator mean different things. With a pinned key nothing is compared: manifests say
    /// `cosign-keyless`, the only method their schema knows, and the key has decided already.
    fn agrees(&self, method: &str, issuer: &str) -> Result<(), TrustError>;
    /// One line for `status`, `check` and the log: by which policy is judged, and with the Sigstore root of
    /// which day. Changes when the root is refreshed.
    fn describe(&self) -> String;
}
