//! The judge: a policy, a trusted root, and what it takes to look signatures up.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use sigstore_verify::types::{Bundle, DerCertificate, Sha256Hash, SignatureBytes, SignatureContent};
use tokio_util::sync::CancellationToken;

use super::carrier::{self, Carrier};
use super::error::Signed;
use super::image::{Content, Search, Signature};
use super::key::Subject;
use super::keyless::{self, Proven};
use super::payload;
use super::policy::{Policy, PolicyError};
use super::refresh::{PERIOD, RETRY, Refresh, RefreshError};
use super::rekor::Rekor;
use super::root::Root;
use super::{BUNDLES, CARRIER_CAP, CARRIERS, CRT, SIG, Trust, TrustError, TrustFault};
use crate::engine::insecure::EngineRegistries;
use crate::https::Authorities;
use crate::reference::is_sha256;
use crate::registry::{self, RegistryError};
use crate::settings::Signing;
use crate::update::job::Verified;

/// The only method manifests know (schema version 1).
const METHOD: &str = "cosign-keyless";
/// Why signatures were refused: so many reasons are told.
const REASONS: usize = 5;
/// Bytes of a `release.json` that the command line reads.
const MANIFEST_CAP: u64 = 1024 * 1024;

/// Judges by the operator's settings. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Judge {
    /// Replaced as a whole when the root is refreshed; whoever judges keeps what it began with.
    rules: Arc<RwLock<Arc<Rules>>>,
    registry: registry::Client,
    rekor: Rekor,
    refresh: Option<Refresh>,
}

/// How the judge is.
#[derive(Debug, Clone, Default)]
pub struct TrustState {
    /// As [`Trust::describe`].
    pub policy: String,
    /// Signatures are checked against a Sigstore root.
    pub keyless: bool,
    /// Which root it is.
    pub root: String,
    /// Since when it is as it is.
    pub since: Option<Timestamp>,
    /// It is to be fetched anew every day.
    pub refreshed: bool,
    /// Nothing that is signed now could hold.
    pub ended: Option<String>,
}

/// Policy and root: everything that decides, and nothing that does I/O.
#[derive(Debug)]
struct Rules {
    policy: Arc<Policy>,
    root: Root,
}

/// Why there is no judge.
#[derive(Debug, Clone, thiserror::Error)]
pub enum JudgeError {
    /// A setting makes no policy.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error("the judge could not be made: {0}")]
    Panicked(String),
}

/// Where there is no judge: nothing is trusted, and it is said why.
pub struct Unjudged(pub String);

#[async_trait]
impl Trust for Unjudged {
    fn carriers(&self) -> &'static [&'static str] {
        &[]
    }
    async fn manifest(&self, _: &Bytes, _: &BTreeMap<String, Bytes>) -> Result<Verified, TrustError> {
        Err(TrustError::new(TrustFault::NoPolicy, self.0.clone()))
    }
    async fn image(&self, _: &str, _: &str, _: &str) -> Result<Verified, TrustError> {
        Err(TrustError::new(TrustFault::NoPolicy, self.0.clone()))
    }
    fn agrees(&self, _: &str, _: &str) -> Result<(), TrustError> {
        Ok(())
    }
    fn describe(&self) -> String {
        self.0.clone()
    }
}

/// What came of looking at one carrier.
enum Finding {
    Holds(Box<Verified>),
    /// Made under the other kind of policy; says what it is.
    Foreign(String),
    /// Its log entry must be looked up, then it is checked.
    Unlogged(Unlogged),
}

struct Unlogged {
    carrier: &'static str,
    signature: SignatureBytes,
    certificates: Vec<DerCertificate>,
}

impl Judge {
    /// Builds the judge that the settings ask for; reads the key and the trusted root. Where the root is
    /// to be refreshed, it begins with the newest one at hand; see [`Judge::keep_root_fresh`].
    ///
    /// # Errors
    /// A setting that makes no policy is named, with what would be accepted.
    pub async fn from_settings(signing: &Signing, authorities: &Authorities) -> Result<Self, JudgeError> {
        let wanted = signing.clone();
        let rules = tokio::task::spawn_blocking(move || {
            let root = Root::load(wanted.trusted_root.as_deref())?;
            Ok::<_, PolicyError>(Rules { policy: Arc::new(Policy::from_settings(&wanted)?), root })
        });
        let rules = rules.await.map_err(|panicked| JudgeError::Panicked(panicked.to_string()))??;
        let judge = Self {
            rules: Arc::new(RwLock::new(Arc::new(rules))),
            registry: registry::Client::new(authorities),
            rekor: Rekor::new(authorities),
            refresh: None,
        };
        match &signing.refreshed_root {
            Some(folder) => Ok(judge.with_refresh(Refresh::public(folder.clone(), authorities)).await),
            None => Ok(judge),
        }
    }

    /// Takes the registries as insecure that this engine takes so.
    #[must_use]
    pub fn with_engine(mut self, engine: Arc<dyn EngineRegistries>) -> Self {
        self.registry = self.registry.like(engine);
        self
    }

    /// Takes its root from `refresh`: at once what an earlier one left, if that is newer than what is here.
    #[must_use]
    pub async fn with_refresh(mut self, refresh: Refresh) -> Self {
        match refresh.kept().await {
            Ok(Some(kept)) if kept.since() > self.rules().root.since() => self.take(kept),
            Ok(_) => {}
            Err(error) => tracing::warn!("{error}"),
        }
        self.refresh = Some(refresh);
        self
    }

    /// Refreshes the root once, if the settings ask for it. What is here stays when that fails.
    ///
    /// # Errors
    /// See [`Refresh::fetch`].
    pub async fn refresh_root(&self, stop: &CancellationToken) -> Result<(), RefreshError> {
        if let Some(refresh) = &self.refresh {
            self.take(refresh.fetch(stop).await?);
        }
        Ok(())
    }

    /// Refreshes the root now and daily, if the settings ask for it, until `stop`. Nobody waits for it.
    pub async fn keep_root_fresh(&self, stop: CancellationToken) {
        while self.refresh.is_some() && !stop.is_cancelled() {
            let pause = match self.refresh_root(&stop).await {
                Ok(()) => {
                    tracing::info!(root = self.rules().root.source(), "the Sigstore root is current");
                    PERIOD
                }
                Err(_) if stop.is_cancelled() => return,
                Err(error) => {
                    tracing::warn!(root = self.rules().root.source(), "{error}; the root at hand stays in use");
                    RETRY
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// What a person looking for a fault wants to know.
    pub fn state(&self) -> TrustState {
        let rules = self.rules();
        TrustState {
            policy: self.describe(),
            keyless: matches!(*rules.policy, Policy::Keyless { .. }),
            root: rules.root.source().to_owned(),
            since: rules.root.since(),
            refreshed: self.refresh.is_some(),
            ended: rules.root.ended(Timestamp::now()),
        }
    }

    fn rules(&self) -> Arc<Rules> {
        self.rules.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn take(&self, root: Root) {
        let mut rules = self.rules.write().unwrap_or_else(PoisonError::into_inner);
        *rules = Arc::new(Rules { policy: rules.policy.clone(), root });
    }

    /// Judges a manifest on disk by the carriers beside it: for `dist/release.json` that is
    /// `dist/release.json.sigstore.json` and so on.
    ///
    /// # Errors
    /// See [`Trust::manifest`]; a file that cannot be read is [`TrustFault::File`].
    pub async fn verify_file(&self, manifest: &Path) -> Result<Verified, TrustError> {
        let path = manifest.to_owned();
        let read = tokio::task::spawn_blocking(move || read_with_carriers(&path));
        let (manifest, carriers) =
            read.await.map_err(|panicked| TrustError::new(TrustFault::Broken, panicked.to_string()))??;
        self.manifest(&manifest, &carriers).await
    }

    async fn judge_signature(
        &self,
        signature: Result<Signature, RegistryError>,
        digest: Sha256Hash,
    ) -> Result<Verified, TrustError> {
        let signature = signature?;
        let rules = self.rules();
        blocking(move || rules.image(&signature, digest).map_err(|error| error.of(&signature.place))).await
    }

    async fn look_up(&self, manifest: &Bytes, found: Unlogged) -> Result<Verified, TrustError> {
        let Unlogged { carrier, signature, certificates } = found;
        let leaf = certificates.first().ok_or_else(|| none(format!("{CRT} holds no certificate")))?;
        let rules = self.rules();
        let logs: Vec<String> = rules.root.logs().map(str::to_owned).collect();
        let entry = self.rekor.find(&logs, manifest, &signature, leaf).await.map_err(|error| error.of(carrier))?;
        let bundle = carrier::assemble(signature, certificates, entry);
        let manifest = manifest.clone();
        let judged =
            blocking(move || rules.bundle(Verified::MANIFEST, carrier, &bundle, Subject::Blob(&manifest))).await;
        judged.map_err(|error| error.of(carrier))
    }
}

#[async_trait]
impl Trust for Judge {
    fn carriers(&self) -> &'static [&'static str] {
        &CARRIERS
    }

    async fn manifest(&self, manifest: &Bytes, carriers: &BTreeMap<String, Bytes>) -> Result<Verified, TrustError> {
        let (rules, bytes, found) = (self.rules(), manifest.clone(), carriers.clone());
        let findings = blocking(move || rules.manifest(&bytes, &found)).await?;
        let mut first = None;
        let mut foreign = Vec::new();
        for finding in findings {
            match finding {
                Finding::Foreign(what) => foreign.push(what),
                Finding::Holds(verified) => drop(first.get_or_insert(*verified)),
                Finding::Unlogged(unlogged) => {
                    let verified = self.look_up(manifest, unlogged).await?;
                    first.get_or_insert(verified);
                }
            }
        }
        first.ok_or_else(|| {
            let expected = self.describe();
            if foreign.is_empty() {
                let text = format!("release.json is not signed: none of {} is there", CARRIERS.join(", "));
                return TrustError::new(TrustFault::Unsigned(Signed::Manifest), text);
            }
            let text = format!("no signature on release.json is one we trust ({expected}): {}", foreign.join("; "));
            TrustError::new(self.rules().method(), text)
        })
    }

    async fn image(&self, registry: &str, repository: &str, digest: &str) -> Result<Verified, TrustError> {
        if !is_sha256(digest) {
            return Err(none(format!("{digest:?} is no digest: expected sha256: and 64 hex digits")));
        }
        let hash = Sha256Hash::from_hex(&digest["sha256:".len()..]).map_err(|error| none(error.to_string()))?;
        let image = format!("{registry}/{repository}@{digest}");
        let repository = self.registry.repository(registry, repository)?;
        let mut search = Search::new(&repository, digest);
        let (mut reasons, mut further, mut unread) = (Vec::new(), 0_usize, None);
        let mut nearest: Option<TrustError> = None;
        while let Some(signature) = search.next().await {
            let error = match self.judge_signature(signature, hash).await {
                Ok(verified) => return Ok(verified),
                Err(error) if !error.is_refusal() => {
                    unread = unread.or(Some(error));
                    continue;
                }
                Err(error) => error,
            };
            let why = error.to_string();
            match reasons.contains(&why) {
                true => {}
                false if reasons.len() < REASONS => reasons.push(why),
                false => further += 1,
            }
            if nearest.as_ref().is_none_or(|nearest| nearest.nearness() < error.nearness()) {
                nearest = Some(error);
            }
        }
        // Something could not be read: it may have been the one.
        if let Some(error) = unread {
            return Err(error);
        }
        let expected = self.describe();
        let Some(nearest) = nearest else {
            let text = format!("{image} carries no signature, expected one by {expected}");
            return Err(TrustError::new(TrustFault::Unsigned(Signed::Image), text));
        };
        if further > 0 {
            reasons.push(format!("and {further} more"));
        }
        let text = format!("no signature on {image} is by {expected}: {}", reasons.join("; "));
        Err(TrustError::new(nearest.fault, text))
    }

    fn agrees(&self, method: &str, issuer: &str) -> Result<(), TrustError> {
        match &*self.rules().policy {
            Policy::Key(_) => Ok(()),
            Policy::Keyless { .. } if method != METHOD => {
                let text = format!("the manifest says it is signed by {method:?}, we verify {METHOD:?}");
                Err(TrustError::new(TrustFault::Differs, text))
            }
            Policy::Keyless { issuer: ours, .. } if issuer != ours => {
                let text = format!("the manifest says its issuer is {issuer:?}, the settings trust {ours:?}");
                Err(TrustError::new(TrustFault::Differs, text))
            }
            Policy::Keyless { .. } => Ok(()),
        }
    }

    fn describe(&self) -> String {
        let rules = self.rules();
        match &*rules.policy {
            Policy::Key(key) => key.name().to_owned(),
            Policy::Keyless { issuer, identity } => {
                let (identity, root) = (identity.configured(), rules.root.source());
                format!("keyless, issuer {issuer}, identity all of {identity}, {root}")
            }
        }
    }
}

impl Rules {
    /// Signed in the other way than the policy wants.
    fn method(&self) -> TrustFault {
        TrustFault::Method { key_is_set: matches!(*self.policy, Policy::Key(_)) }
    }

    /// Looks at every carrier; the first that does not hold is the verdict.
    fn manifest(&self, manifest: &[u8], carriers: &BTreeMap<String, Bytes>) -> Result<Vec<Finding>, TrustError> {
        let mut findings = Vec::new();
        let mut logged = Vec::new();
        for name in BUNDLES {
            let Some(bytes) = carriers.get(name) else { continue };
            let carrier = carrier::bundle(bytes).map_err(|why| none(format!("{name} {why}")))?;
            if let Carrier::Bundle(bundle) = &carrier
                && let Some((signature, leaf)) = carrier::signature_and_leaf(bundle)
            {
                logged.push((signature.clone(), leaf.clone()));
            }
            findings.push(self.carrier(name, carrier, manifest)?);
        }
        if let Some(bytes) = carriers.get(SIG) {
            let signature = carrier::signature(bytes).map_err(|why| none(format!("{SIG} {why}")))?;
            let certificates = match carriers.get(CRT) {
                Some(bytes) => carrier::certificates(bytes).map_err(|why| none(format!("{CRT} {why}")))?,
                None => Vec::new(),
            };
            // The same signature that a bundle has just proven needs no second proof.
            let proven =
                certificates.first().is_some_and(|leaf| logged.iter().any(|(s, l)| *s == signature && l == leaf));
            if !proven {
                findings.push(self.carrier(SIG, Carrier::Bare { signature, certificates }, manifest)?);
            }
        }
        Ok(findings)
    }

    fn carrier(&self, name: &'static str, carrier: Carrier, manifest: &[u8]) -> Result<Finding, TrustError> {
        let by_certificate = match &carrier {
            Carrier::Bundle(bundle) => bundle.signing_certificate().is_some(),
            Carrier::Bare { certificates, .. } => !certificates.is_empty(),
        };
        match (&*self.policy, carrier) {
            (Policy::Key(_), _) if by_certificate => {
                Ok(Finding::Foreign(format!("{name} was signed with a certificate")))
            }
            (Policy::Keyless { .. }, _) if !by_certificate => {
                Ok(Finding::Foreign(format!("{name} was signed with a key")))
            }
            (_, Carrier::Bundle(bundle)) => {
                let verified = self.bundle(Verified::MANIFEST, name, &bundle, Subject::Blob(manifest));
                let verified = verified.map_err(|error| error.of(name))?;
                Ok(Finding::Holds(Box::new(verified)))
            }
            (Policy::Key(key), Carrier::Bare { signature, .. }) => {
                key.check_detached(manifest, &signature).map_err(|error| error.of(name))?;
                Ok(Finding::Holds(Box::new(by_key(Verified::MANIFEST, name, key.name()))))
            }
            (Policy::Keyless { .. }, Carrier::Bare { signature, certificates }) => {
                Ok(Finding::Unlogged(Unlogged { carrier: name, signature, certificates }))
            }
        }
    }

    /// A signature that was found on an image: it holds, and it is about `digest`.
    fn image(&self, signature: &Signature, digest: Sha256Hash) -> Result<Verified, TrustError> {
        let place = &signature.place;
        match &signature.content {
            Content::Bundle(bytes) => {
                let Carrier::Bundle(bundle) = carrier::bundle(bytes).map_err(none)? else {
                    return Err(none("an older cosign bundle, which is for files only"));
                };
                let SignatureContent::DsseEnvelope(envelope) = &bundle.content else {
                    return Err(none(payload::NO_IMAGE));
                };
                let verified = self.bundle("image", place, &bundle, Subject::Digest(digest))?;
                payload::statement_is_about(envelope, &digest)?;
                Ok(verified)
            }
            Content::SimpleSigning { payload, annotations } => {
                let verified = match (&*self.policy, carrier::annotations(annotations).map_err(none)?) {
                    (_, Carrier::Bundle(bundle)) => self.bundle("image", place, &bundle, Subject::Blob(payload))?,
                    (Policy::Key(key), Carrier::Bare { signature, .. }) => {
                        key.check_detached(payload, &signature)?;
                        by_key("image", place, key.name())
                    }
                    (Policy::Keyless { .. }, Carrier::Bare { certificates, .. }) => {
                        return Err(match certificates.is_empty() {
                            true => TrustError::new(self.method(), "signed with a key"),
                            false => TrustError::new(
                                TrustFault::Undated,
                                "signed with a certificate, but without the log entry that proves when",
                            ),
                        });
                    }
                };
                payload::simple_signing_is_about(payload, &digest)?;
                Ok(verified)
            }
        }
    }

    fn bundle(&self, subject: &str, name: &str, bundle: &Bundle, about: Subject<'_>) -> Result<Verified, TrustError> {
        if matches!((&bundle.content, about), (SignatureContent::DsseEnvelope(_), Subject::Blob(_))) {
            return Err(none(payload::NO_ATTESTATION));
        }
        match &*self.policy {
            Policy::Key(key) => {
                key.check_bundle(bundle, about, &self.root)?;
                Ok(by_key(subject, name, key.name()))
            }
            Policy::Keyless { issuer, identity } => {
                Ok(by_certificate(subject, name, keyless::check(bundle, about, issuer, identity, &self.root)?))
            }
        }
    }
}

fn by_key(subject: &str, carrier: &str, key: &str) -> Verified {
    Verified {
        subject: subject.to_owned(),
        carrier: carrier.to_owned(),
        identity: key.to_owned(),
        issuer: None,
        log_index: None,
        integrated_time: None,
    }
}

fn by_certificate(subject: &str, carrier: &str, proven: Proven) -> Verified {
    Verified {
        subject: subject.to_owned(),
        carrier: carrier.to_owned(),
        identity: proven.identity,
        issuer: Some(proven.issuer),
        log_index: proven.log_index,
        integrated_time: Some(proven.time),
    }
}

/// What should carry a signature, and does not.
fn none(text: impl Into<String>) -> TrustError {
    TrustError::new(TrustFault::NoSignature, text)
}

/// Curve arithmetic takes milliseconds: not on the threads that answer requests.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TrustError> + Send + 'static,
) -> Result<T, TrustError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(panicked) => Err(TrustError::new(TrustFault::Broken, format!("checking the signature failed: {panicked}"))),
    }
}

fn read_with_carriers(manifest: &Path) -> Result<(Bytes, BTreeMap<String, Bytes>), TrustError> {
    let text = read_file(manifest, MANIFEST_CAP)?
        .ok_or_else(|| TrustError::new(TrustFault::File, format!("{} does not exist", manifest.display())))?;
    let mut carriers = BTreeMap::new();
    for name in CARRIERS {
        let suffix = name.trim_start_matches("release.json");
        let mut path = manifest.as_os_str().to_owned();
        path.push(suffix);
        if let Some(bytes) = read_file(&PathBuf::from(path), CARRIER_CAP as u64)? {
            carriers.insert(name.to_owned(), bytes);
        }
    }
    Ok((text, carriers))
}

/// `None` when there is no such file.
fn read_file(path: &Path, cap: u64) -> Result<Option<Bytes>, TrustError> {
    use std::io::Read as _;
    let unread = |why: String| TrustError::new(TrustFault::File, format!("{} {why}", path.display()));
    let failed = |error: std::io::Error| unread(format!("cannot be read: {error}"));
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(cap + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > cap {
        return Err(unread(format!("is larger than {cap} bytes")));
    }
    Ok(Some(bytes.into()))
}
