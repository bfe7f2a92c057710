//! Finds the signatures of an image in its registry. Nothing found here is believed: every manifest and
//! blob is hashed again, and every signature is bound to the digest by whoever judges it.

use std::collections::{BTreeMap, HashSet, VecDeque};

use bytes::Bytes;
use futures_util::future::join_all;

use super::CARRIER_CAP;
use crate::registry::{Descriptor, Manifest, Next, Page, RegistryError, Repository};

/// Bytes of one page of a list.
const LIST_CAP: usize = 4 << 20;
/// Manifests or signatures that are fetched at once.
const AT_ONCE: usize = 4;
/// Manifests that are looked at in all: more are not remembered. Time and bytes have limits of their own
/// ([`crate::registry::Limits`]).
const MANIFESTS: usize = 20_000;

const BUNDLE: &str = "application/vnd.dev.sigstore.bundle";
const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// Artifact types of signatures begin with one of these. Many are listed under another, so they only come first.
const LIKELY: [&str; 2] = [BUNDLE, "application/vnd.dev.cosign"];

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

type Found = Result<Signature, RegistryError>;

/// Looks through everything that a registry holds for an image, a signature at a time, the likely places first:
/// whoever has found a good one stops asking.
pub struct Search<'a> {
    repository: &'a Repository,
    digest: &'a str,
    steps: VecDeque<Step>,
    found: VecDeque<Found>,
    /// What was looked at: the lists overlap.
    seen: HashSet<String>,
}

enum Step {
    /// The referrers API of OCI 1.1.
    Referrers,
    Further(Next),
    /// The tag that stands in for that API; registries that have it may still hold what was put there before.
    Fallback(String),
    /// cosign's own tag, before OCI 1.1.
    OldTag(String),
    Manifests {
        place: String,
        list: VecDeque<String>,
    },
    /// Layers of one manifest that may be signatures.
    Layers {
        place: String,
        list: VecDeque<Descriptor>,
    },
}

impl<'a> Search<'a> {
    /// For the signatures of `digest` (`sha256:…`).
    pub fn new(repository: &'a Repository, digest: &'a str) -> Self {
        let tag = digest.replace(':', "-");
        let old = Step::OldTag(format!("{tag}.sig"));
        let steps = [Step::Referrers, Step::Fallback(tag), old].into();
        Self { repository, digest, steps, found: VecDeque::new(), seen: HashSet::new() }
    }

    /// The next that has the form of a signature. What is listed but cannot be had is an error of its own: the
    /// genuine signature may stand beside it.
    pub async fn next(&mut self) -> Option<Found> {
        loop {
            if let Some(found) = self.found.pop_front() {
                return Some(found);
            }
            let step = self.steps.pop_front()?;
            match self.take(step).await {
                Ok(found) => self.found.extend(found),
                Err(error) => self.found.push_back(Err(error)),
            }
            // Nothing else would be had either.
            if self.found.iter().any(|found| found.as_ref().is_err_and(RegistryError::is_final)) {
                self.steps.clear();
            }
        }
    }

    async fn take(&mut self, step: Step) -> Result<Vec<Found>, RegistryError> {
        let repository = self.repository;
        match step {
            Step::Referrers => {
                if let Some(page) = repository.referrers(self.digest, LIST_CAP).await? {
                    self.list("referrers", page);
                }
                Ok(Vec::new())
            }
            Step::Further(next) => {
                let page = repository.further(&next, LIST_CAP).await?;
                self.list("referrers", page);
                Ok(Vec::new())
            }
            Step::Fallback(tag) => {
                let index = repository.manifest(&tag, LIST_CAP).await?.unwrap_or_default();
                self.list(&format!("tag {tag}"), Page { manifests: index.manifests, next: None });
                // It is made for signatures, and names no artifact types that could be trusted: before the old tag.
                if let Some(rest) = self.steps.pop_back() {
                    self.steps.push_front(rest);
                }
                Ok(Vec::new())
            }
            Step::OldTag(tag) => {
                let manifest = repository.manifest(&tag, CARRIER_CAP).await?.unwrap_or_default();
                self.layers(&format!("tag {tag}"), manifest);
                Ok(Vec::new())
            }
            Step::Manifests { place, mut list } => {
                let some: Vec<String> = list.drain(..list.len().min(AT_ONCE)).collect();
                if !list.is_empty() {
                    self.steps.push_front(Step::Manifests { place: place.clone(), list });
                }
                let manifests = join_all(some.iter().map(|digest| repository.manifest(digest, CARRIER_CAP))).await;
                let mut failed = Vec::new();
                for manifest in manifests.into_iter().rev() {
                    match manifest {
                        Ok(Some(manifest)) => self.layers(&place, manifest),
                        // Listed but gone is somebody's clean-up.
                        Ok(None) => {}
                        Err(error) => failed.push(Err(error)),
                    }
                }
                Ok(failed)
            }
            Step::Layers { place, mut list } => {
                let some: Vec<Descriptor> = list.drain(..list.len().min(AT_ONCE)).collect();
                if !list.is_empty() {
                    self.steps.push_front(Step::Layers { place: place.clone(), list });
                }
                let blobs = join_all(some.iter().map(|layer| repository.blob(&layer.digest, CARRIER_CAP))).await;
                let signature = |(layer, blob): (Descriptor, Result<Bytes, RegistryError>)| {
                    blob.map(|bytes| signature(&place, layer, bytes))
                };
                Ok(some.into_iter().zip(blobs).map(signature).collect())
            }
        }
    }

    /// The layers' own media types decide: lists and fallback tags name wrong artifact types.
    fn layers(&mut self, place: &str, manifest: Manifest) {
        let is_signature = |layer: &Descriptor| is_bundle(layer) || layer.media_type == SIMPLE_SIGNING;
        let list: VecDeque<Descriptor> = manifest.layers.into_iter().filter(is_signature).collect();
        if !list.is_empty() {
            self.steps.push_front(Step::Layers { place: place.to_owned(), list });
        }
    }

    /// What is likely a signature is looked at next, the rest after all other places.
    fn list(&mut self, place: &str, page: Page) {
        let is_likely = |listed: &Descriptor| LIKELY.iter().any(|likely| listed.artifact_type.starts_with(likely));
        let mut fresh = Vec::new();
        for listed in page.manifests {
            if self.seen.len() < MANIFESTS && self.seen.insert(listed.digest.clone()) {
                fresh.push(listed);
            }
        }
        let (likely, rest): (Vec<_>, Vec<_>) = fresh.into_iter().partition(is_likely);
        let step = |list: Vec<Descriptor>| Step::Manifests {
            place: place.to_owned(),
            list: list.into_iter().map(|listed| listed.digest).collect(),
        };
        self.steps.push_front(step(likely));
        self.steps.push_back(step(rest));
        // A list may lead in a circle.
        let next = page.next.filter(|next| self.seen.insert(next.url.to_string()));
        self.steps.extend(next.map(Step::Further));
    }
}

fn is_bundle(layer: &Descriptor) -> bool {
    layer.media_type.starts_with(BUNDLE)
}

fn signature(place: &str, layer: Descriptor, bytes: Bytes) -> Signature {
    let content = match is_bundle(&layer) {
        true => Content::Bundle(bytes),
        false => Content::SimpleSigning { payload: bytes, annotations: layer.annotations },
    };
    Signature { place: place.to_owned(), content }
}
