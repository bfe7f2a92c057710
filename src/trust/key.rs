//! Signatures made with the operator's pinned key: ECDSA P-256, and for detached files Ed25519.

use sigstore_verify::PublicKeyVerificationPolicy;
use sigstore_verify::crypto::{KeyAlgorithm, SigningScheme, sha256, verify_signature};
use sigstore_verify::types::bundle::VerificationMaterialContent;
use sigstore_verify::types::{
    Artifact, Bundle, DerPublicKey, HashAlgorithm, Sha256Hash, SignatureBytes, SignatureContent,
};

use super::error::Rule;
use super::root::Root;
use super::{TrustError, TrustFault};

/// A public key the operator trusts.
#[derive(Debug, Clone)]
pub struct PinnedKey {
    spki: DerPublicKey,
    scheme: SigningScheme,
    name: String,
}

/// What a signature must be about.
#[derive(Debug, Clone, Copy)]
pub enum Subject<'a> {
    /// The bytes of a file.
    Blob(&'a [u8]),
    /// An image's digest, which an attestation about it names.
    Digest(Sha256Hash),
}

impl PinnedKey {
    /// Reads the one public key of a PEM file.
    ///
    /// # Errors
    /// Says what the file holds instead, and what would be accepted.
    pub fn from_pem(pem: &str) -> Result<Self, String> {
        const WANTED: &str = "expected one PEM public key (`-----BEGIN PUBLIC KEY-----`), ECDSA P-256 or Ed25519";
        let labels: Vec<&str> =
            pem.lines().filter_map(|line| line.trim().strip_prefix("-----BEGIN ")?.strip_suffix("-----")).collect();
        match labels[..] {
            [] => return Err(format!("holds no PEM; {WANTED}")),
            ["PUBLIC KEY"] => {}
            [other] => return Err(format!("holds a {other}; {WANTED}")),
            _ => return Err(format!("holds {} PEM blocks; {WANTED}", labels.len())),
        }
        let spki = DerPublicKey::from_pem(pem).map_err(|error| format!("{error}; {WANTED}"))?;
        let scheme = match KeyAlgorithm::from_spki(&spki) {
            Ok(KeyAlgorithm::EcdsaP256) => SigningScheme::EcdsaP256Sha256,
            Ok(KeyAlgorithm::Ed25519) => SigningScheme::Ed25519,
            Ok(other) => return Err(format!("holds a {other:?} key; {WANTED}")),
            Err(error) => return Err(format!("{error}; {WANTED}")),
        };
        let name = format!("key sha256:{}", sha256(spki.as_bytes()).to_hex());
        Ok(Self { spki, scheme, name })
    }

    /// `key sha256:` and the hash of the key's SPKI.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether image signatures by this key can be checked. Ed25519: cosign signs images with Ed25519ph
    /// and leaves bundles without a digest, so only detached files are left.
    pub fn signs_images(&self) -> bool {
        self.scheme != SigningScheme::Ed25519
    }

    /// A bare signature over `data`.
    ///
    /// # Errors
    /// When this key did not make it.
    pub fn check_detached(&self, data: &[u8], signature: &SignatureBytes) -> Result<(), TrustError> {
        verify_signature(&self.spki, data, signature, self.scheme).map_err(|_| {
            let text = format!("the signature was not made over these bytes with {}", self.name);
            TrustError::new(TrustFault::Signer(Rule::Key), text)
        })
    }

    /// A Sigstore bundle signed with this key, about `subject`. The caller still has to look at what an
    /// attestation says of it. A log entry and timestamps are checked against `root` where present.
    ///
    /// # Errors
    /// The check that failed.
    pub fn check_bundle(&self, bundle: &Bundle, subject: Subject<'_>, root: &Root) -> Result<(), TrustError> {
        if !matches!(bundle.verification_material.content, VerificationMaterialContent::PublicKey(_)) {
            let text = format!("the bundle was signed with a certificate, expected {}", self.name);
            return Err(TrustError::new(TrustFault::Method { key_is_set: true }, text));
        }
        if self.scheme == SigningScheme::Ed25519 {
            let text = "Ed25519 is accepted for a detached .sig only: sign with an ECDSA P-256 key";
            return Err(TrustError::new(TrustFault::NoSignature, text));
        }
        let material = &bundle.verification_material;
        let logged = !material.tlog_entries.is_empty();
        if logged || !material.timestamp_verification_data.rfc3161_timestamps.is_empty() {
            let policy = PublicKeyVerificationPolicy::new(self.spki.clone());
            let policy = if logged { policy } else { policy.skip_tlog_unsafe() };
            let artifact = match subject {
                Subject::Blob(data) => Artifact::from_blob(data),
                Subject::Digest(digest) => Artifact::from_digest(digest),
            };
            root.verifier.verify(artifact, bundle, &policy).map_err(|error| {
                let text = format!("{error} (checked with {})", self.name);
                TrustError::of_library(&error, Some(Rule::Key), text)
            })?;
            return Ok(());
        }
        // Without a log entry the library knows no time and refuses; a pinned key needs none.
        match (&bundle.content, subject) {
            (SignatureContent::MessageSignature(message), Subject::Blob(data)) => {
                if let Some(digest) = &message.message_digest
                    && (digest.algorithm != HashAlgorithm::Sha2256
                        || digest.digest.as_bytes() != sha256(data).as_bytes())
                {
                    return Err(TrustError::new(TrustFault::Invalid, "the bundle names the digest of another file"));
                }
                self.check_detached(data, &message.signature)
            }
            (SignatureContent::DsseEnvelope(envelope), Subject::Digest(_)) => {
                self.check_detached(&envelope.pae(), &envelope.signature.sig)
            }
            (SignatureContent::DsseEnvelope(_), Subject::Blob(_)) => {
                Err(TrustError::new(TrustFault::NoSignature, super::payload::NO_ATTESTATION))
            }
            _ => Err(TrustError::new(TrustFault::NoSignature, super::payload::NO_IMAGE)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P256: &str = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEfcupEZl1qLYxBGKLuSB2q/q2F55GCzbVYBT2X+4xu4G+WGFmttM1tH4AZn71v8Rmhuyeah2sGWMzv4KuyMB2rw==";

    fn pem(label: &str, body: &str) -> String {
        format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
    }

    #[test]
    fn a_key_is_one_public_key() {
        let table = [
            (pem("PUBLIC KEY", P256), None),
            (pem("PUBLIC KEY", P256).replace('\n', "\r\n"), None),
            (String::new(), Some("no PEM")),
            (P256.into(), Some("no PEM")),
            (pem("CERTIFICATE", P256), Some("holds a CERTIFICATE")),
            (pem("ENCRYPTED SIGSTORE PRIVATE KEY", P256), Some("PRIVATE KEY")),
            (pem("PUBLIC KEY", P256).repeat(2), Some("2 PEM blocks")),
            (pem("PUBLIC KEY", ""), Some("expected one PEM")),
            (pem("PUBLIC KEY", "AAAA"), Some("expected one PEM")),
            (pem("PUBLIC KEY", &P256[..40]), Some("expected one PEM")),
        ];
        for (text, problem) in table {
            match (PinnedKey::from_pem(&text), problem) {
                (Ok(key), None) => assert!(key.name().starts_with("key sha256:")),
                (Err(error), Some(problem)) => assert!(error.contains(problem), "{error} should say {problem:?}"),
                (got, _) => panic!("{text:?} gave {got:?}"),
            }
        }
    }
}
