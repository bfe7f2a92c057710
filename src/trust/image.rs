//! Finds the signatures of an image in its registry. Nothing found here is believed: every manifest and
//! blob is hashed again, and every signature is bound to the digest by whoever judges it.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::CARRIER_CAP;
use crate::registry::{Descriptor, Manifest, RegistryError, Repository};

/// Manifests that are looked at in one place, and layers of each. An image has few signatures; a registry
/// that somebody else can write to must not keep us busy.
const MANIFESTS: usize = 32;
const LAYERS: usize = 32;

const BUNDLE: &str = "application/vnd.dev.sigstore.bundle";
const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

/// Where signatures may be, in the order they are looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The referrers API of OCI 1.1, or the tag that stands in for it where there is no such API.
    Referrers { fallback: String },
    /// cosign's own tag, before OCI 1.1.
    Tag(String),
}

/// A signature that was found, not yet checked.
#[derive(Debug, Clone)]
pub struct Signature {
    /// `referrers`, or the tag.
    pub place: String,
    pub content: Content,
}

/// The two ways to sign an image.
#[derive(Debug, Clone)]
pub enum Content {
    /// A Sigstore bundle (cosign 3).
    Bundle(Bytes),
    /// A payload, and everything about its signature in annotations (cosign before 3).
    SimpleSigning { payload: Bytes, annotations: BTreeMap<String, String> },
}

/// Where to look for the signatures of `digest` (`sha256:…`).
pub fn places(digest: &str) -> [Place; 2] {
    let tag = digest.replace(':', "-");
    let old = Place::Tag(format!("{tag}.sig"));
    [Place::Referrers { fallback: tag }, old]
}

/// Everything in one place that has the form of a signature. What is listed but cannot be had is an
/// error of its own in the list: the genuine signature may stand beside it.
///
/// # Errors
/// See [`RegistryError`], when not even the list can be had.
pub async fn signatures(
    repository: &Repository,
    place: &Place,
    digest: &str,
) -> Result<Vec<Result<Signature, RegistryError>>, RegistryError> {
    let mut found = Vec::new();
    match place {
        Place::Tag(tag) => {
            let manifest = repository.manifest(tag, CARRIER_CAP).await?.unwrap_or_default();
            read_layers(repository, &manifest, &format!("tag {tag}"), &mut found).await;
        }
        Place::Referrers { fallback } => {
            let (listed, name) = match repository.referrers(digest, CARRIER_CAP).await? {
                Some(listed) => (listed, "referrers".to_owned()),
                None => {
                    let index = repository.manifest(fallback, CARRIER_CAP).await?.unwrap_or_default();
                    (index.manifests, format!("tag {fallback}"))
                }
            };
            for Descriptor { digest, .. } in listed.iter().take(MANIFESTS) {
                match repository.manifest(digest, CARRIER_CAP).await {
                    Ok(Some(manifest)) => read_layers(repository, &manifest, &name, &mut found).await,
                    // Listed but gone is somebody's clean-up.
                    Ok(None) => {}
                    Err(error) => found.push(Err(error)),
                }
            }
        }
    }
    Ok(found)
}

/// The layers' own media types decide: lists and fallback tags name wrong artifact types.
async fn read_layers(
    repository: &Repository,
    manifest: &Manifest,
    place: &str,
    found: &mut Vec<Result<Signature, RegistryError>>,
) {
    for layer in manifest.layers.iter().take(LAYERS) {
        let is_bundle = layer.media_type.starts_with(BUNDLE);
        if !is_bundle && layer.media_type != SIMPLE_SIGNING {
            continue;
        }
        let blob = repository.blob(&layer.digest, CARRIER_CAP).await;
        found.push(blob.map(|bytes| Signature {
            place: place.to_owned(),
            content: if is_bundle {
                Content::Bundle(bytes)
            } else {
                Content::SimpleSigning { payload: bytes, annotations: layer.annotations.clone() }
            },
        }));
    }
}
