//! Signatures made with a certificate that lived for ten minutes: the certificate authority vouches for
//! the signer, and the transparency log or a timestamp authority for the moment.

use jiff::Timestamp;
use sigstore_verify::types::{Artifact, Bundle, InclusionProof, KindVersion, TransparencyLogEntry};
use sigstore_verify::{Error, VerificationPolicy, VerificationResult};

use super::error::Rule;
use super::key::Subject;
use super::policy::Identity;
use super::root::Root;
use super::{TrustError, TrustFault};

/// What a keyless signature has proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// The subject alternative name of the certificate.
    pub identity: String,
    pub issuer: String,
    /// Where it stands in the log, if the log vouched for the number.
    pub log_index: Option<u64>,
    /// When it was logged, or stamped.
    pub time: Timestamp,
}

/// Checks a whole bundle about `subject`. The caller still has to look at what an attestation says of it.
///
/// # Errors
/// The check that failed, or both the found and the expected signer.
pub fn check(
    bundle: &Bundle,
    subject: Subject<'_>,
    issuer: &str,
    identity: &Identity,
    root: &Root,
) -> Result<Proven, TrustError> {
    let artifact = match subject {
        Subject::Blob(data) => Artifact::from_blob(data),
        Subject::Digest(digest) => Artifact::from_digest(digest),
    };
    // The identity is an expression, which the library does not know: matched below.
    let policy = VerificationPolicy::any_identity().require_issuer(issuer);
    let result = root.verifier.verify(artifact, bundle, &policy).map_err(|error| {
        // Where the root had no part in the verdict, naming it would mislead.
        let about_the_root = matches!(error, Error::Certificate(_) | Error::TransparencyLog(_) | Error::Timestamp(_));
        let source = if about_the_root { format!(" (checked with {})", root.source()) } else { String::new() };
        let aged = root.ended(Timestamp::now()).map(|text| format!("; {text}")).unwrap_or_default();
        let refused = TrustError::of_library(&error, None, format!("{error}{source}{aged}"));
        // Of a root that has ended no authority is left to prove the time.
        match refused.fault {
            TrustFault::Undated if !aged.is_empty() => TrustError::new(TrustFault::Root, refused.to_string()),
            _ => refused,
        }
    })?;
    everything_was_checked(bundle, &result, root)?;

    let signer = result.identity().map(|san| san.as_str()).unwrap_or_default();
    if !identity.matches(signer) {
        let expected = identity.configured();
        let text = format!("signed by {signer:?}, expected an identity that matches {expected:?} as a whole");
        return Err(TrustError::new(TrustFault::Signer(Rule::Identity), text));
    }
    let times = result.verified_timestamps();
    // Whole seconds, because the library counts time with an older version of jiff.
    let time = result.integrated_time().or_else(|| times.iter().min().copied()).map(|time| time.as_second());
    Ok(Proven {
        identity: signer.to_owned(),
        issuer: issuer.to_owned(),
        log_index: bundle.verification_material.tlog_entries.iter().find_map(vouched_index),
        time: time
            .and_then(|seconds| Timestamp::from_second(seconds).ok())
            .ok_or_else(|| TrustError::new(TrustFault::Undated, "nothing proves when the signature was made"))?,
    })
}

/// The library skips what its policy does not ask for; that nothing was skipped is not left to its
/// defaults.
fn everything_was_checked(bundle: &Bundle, result: &VerificationResult, root: &Root) -> Result<(), TrustError> {
    let entries = &bundle.verification_material.tlog_entries;
    // Of a v2 log the library looks at the checkpoint's key only.
    if let Some(entry) = entries.iter().find(|entry| !root.knows_log(&entry.log_id)) {
        let log = &entry.log_id.key_id;
        let text = format!("the entry is of the log {log}, which {} does not know", root.source());
        return Err(TrustError::new(TrustFault::Root, text));
    }
    let vouched = |e: &TransparencyLogEntry| e.inclusion_proof.is_some() || e.inclusion_promise.is_some();
    let checks = [
        ("the certificate", result.certificate_verified()),
        ("the certificate's entry in the certificate log", result.sct_verified()),
        ("the transparency log", result.tlog_verified() && !entries.is_empty() && entries.iter().all(vouched)),
        ("the issuer", result.identity_policy_checked()),
        ("the time of the signature", !result.verified_timestamps().is_empty()),
    ];
    match checks.iter().find(|(_, checked)| !checked) {
        Some((what, _)) => Err(TrustError::new(TrustFault::Undated, format!("nothing proves {what}"))),
        None => Ok(()),
    }
}

/// The entry's number: signed in the promise of a v1 log, proven as the leaf's place in a v2 log.
fn vouched_index(entry: &TransparencyLogEntry) -> Option<u64> {
    let proven = entry.kind_version == KindVersion::HashedRekordV002
        && entry.inclusion_proof.as_ref().is_some_and(|proof: &InclusionProof| !proof.checkpoint.is_empty());
    (proven || entry.inclusion_promise.is_some()).then(|| entry.log_index.get())
}
