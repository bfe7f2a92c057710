//! What a signature on an image says, and that it says it of this digest. Pure.

use serde::Deserialize;
use sigstore_verify::types::{DsseEnvelope, Sha256Hash, Statement};

use super::{TrustError, TrustFault};

/// The only predicate that makes an attestation a signature (cosign 3).
pub const SIGN_PREDICATE: &str = "https://sigstore.dev/cosign/sign/v1";
const IN_TOTO: &str = "application/vnd.in-toto+json";
const STATEMENTS: [&str; 2] = [Statement::TYPE_V1, "https://in-toto.io/Statement/v0.1"];
/// The only type of a simple signing payload that is a signature (cosign before 3).
const SIMPLE_TYPE: &str = "cosign container image signature";

pub(super) const NO_ATTESTATION: &str =
    "the bundle holds an attestation, expected a signature over the file itself (cosign sign-blob)";

pub(super) const NO_IMAGE: &str = "the bundle holds no attestation about an image";

/// The attestation in `envelope` is cosign's image signature, about `digest`. To be asked after the
/// envelope's signature has held.
///
/// # Errors
/// Another payload, predicate or subject; both the found and the expected are shown.
pub fn statement_is_about(envelope: &DsseEnvelope, digest: &Sha256Hash) -> Result<(), TrustError> {
    if envelope.payload_type != IN_TOTO {
        return Err(none(format!("the envelope holds {:?}, expected {IN_TOTO:?}", envelope.payload_type)));
    }
    let statement: Statement = serde_json::from_slice(envelope.payload.as_bytes())
        .map_err(|error| none(format!("the envelope holds no in-toto statement: {error}")))?;
    if !STATEMENTS.contains(&statement.type_.as_str()) {
        return Err(none(format!("the statement's type is {:?}, expected {:?}", statement.type_, STATEMENTS[0])));
    }
    if statement.predicate_type != SIGN_PREDICATE {
        return Err(none(format!(
            "an attestation of type {:?} is no signature, expected {SIGN_PREDICATE:?}",
            statement.predicate_type
        )));
    }
    if !statement.matches_sha256(digest) {
        let found: Vec<String> = statement
            .subject
            .iter()
            .filter_map(|s| s.digest.sha256)
            .map(|d| format!("sha256:{}", d.to_hex()))
            .collect();
        return Err(other(format!(
            "the signature is about {}, expected sha256:{}",
            if found.is_empty() { "nothing".into() } else { found.join(", ") },
            digest.to_hex()
        )));
    }
    Ok(())
}

/// The simple signing payload is cosign's image signature, about `digest`. To be asked after the
/// signature over `payload` has held. `docker-reference` is not compared: a mirror keeps signatures.
///
/// # Errors
/// Another type or digest; both the found and the expected are shown.
pub fn simple_signing_is_about(payload: &[u8], digest: &Sha256Hash) -> Result<(), TrustError> {
    #[derive(Deserialize)]
    struct Payload {
        critical: Critical,
    }
    #[derive(Deserialize)]
    struct Critical {
        image: Image,
        #[serde(rename = "type")]
        kind: String,
    }
    #[derive(Deserialize)]
    struct Image {
        #[serde(rename = "docker-manifest-digest")]
        digest: String,
    }
    let Payload { critical } = serde_json::from_slice(payload)
        .map_err(|error| none(format!("the signed payload is no simple signing document: {error}")))?;
    if critical.kind != SIMPLE_TYPE {
        return Err(none(format!("the signed payload is a {:?}, expected {SIMPLE_TYPE:?}", critical.kind)));
    }
    let expected = format!("sha256:{}", digest.to_hex());
    if critical.image.digest != expected {
        return Err(other(format!("the signature is about {}, expected {expected}", critical.image.digest)));
    }
    Ok(())
}

fn none(text: String) -> TrustError {
    TrustError::new(TrustFault::NoSignature, text)
}

fn other(text: String) -> TrustError {
    TrustError::new(TrustFault::Invalid, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use sigstore_verify::types::{DsseSignature, KeyId, PayloadBytes, SignatureBytes};

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn digest() -> Sha256Hash {
        Sha256Hash::from_hex(HEX).unwrap()
    }

    #[test]
    fn only_a_signature_statement_about_the_digest_counts() {
        let genuine = json!({
            "_type": "https://in-toto.io/Statement/v1", "predicateType": SIGN_PREDICATE, "predicate": {},
            "subject": [{"digest": {"sha256": HEX}, "annotations": {}}]});
        let with = |path: &str, value: Value| {
            let mut changed = genuine.clone();
            *changed.pointer_mut(path).unwrap() = value;
            changed
        };
        let table = [
            ("genuine", IN_TOTO, genuine.clone(), true),
            ("old statement type", IN_TOTO, with("/_type", json!("https://in-toto.io/Statement/v0.1")), true),
            (
                "one of two subjects",
                IN_TOTO,
                with("/subject", json!([{"digest": {"sha256": "00".repeat(32)}}, {"digest": {"sha256": HEX}}])),
                true,
            ),
            ("another payload type", "text/plain", genuine.clone(), false),
            ("another statement type", IN_TOTO, with("/_type", json!("x")), false),
            ("another predicate", IN_TOTO, with("/predicateType", json!("https://slsa.dev/provenance/v1")), false),
            (
                "predicate as a prefix",
                IN_TOTO,
                with("/predicateType", json!("https://sigstore.dev/cosign/sign/v12")),
                false,
            ),
            ("another digest", IN_TOTO, with("/subject/0/digest/sha256", json!("00".repeat(32))), false),
            ("no digest", IN_TOTO, with("/subject/0/digest", json!({})), false),
            ("no subject", IN_TOTO, with("/subject", json!([])), false),
            (
                "digest of another algorithm",
                IN_TOTO,
                with("/subject/0/digest", json!({"sha512": "00".repeat(64)})),
                false,
            ),
            ("no statement", IN_TOTO, json!([]), false),
        ];
        for (name, payload_type, statement, expected) in table {
            let signature = DsseSignature::new(SignatureBytes::new(vec![1]), KeyId::new(""));
            let payload = PayloadBytes::new(statement.to_string().into_bytes());
            let envelope = DsseEnvelope::new(payload_type, payload, signature);
            assert_eq!(statement_is_about(&envelope, &digest()).is_ok(), expected, "{name}");
        }
    }

    #[test]
    fn only_a_simple_signing_document_about_the_digest_counts() {
        let document = |kind: &str, digest: &str| {
            json!({"critical": {"identity": {"docker-reference": "r/a"}, "type": kind,
                "image": {"docker-manifest-digest": digest}}, "optional": null})
        };
        let ours = format!("sha256:{HEX}");
        let table = [
            ("genuine", document(SIMPLE_TYPE, &ours), true),
            ("atomic signature", document("atomic container signature", &ours), false),
            ("another digest", document(SIMPLE_TYPE, &format!("sha256:{}", "00".repeat(32))), false),
            ("upper case digest", document(SIMPLE_TYPE, &format!("sha256:{}", HEX.to_uppercase())), false),
            ("no algorithm", document(SIMPLE_TYPE, HEX), false),
            ("empty", json!({}), false),
        ];
        for (name, document, expected) in table {
            let got = simple_signing_is_about(document.to_string().as_bytes(), &digest());
            assert_eq!(got.is_ok(), expected, "{name}");
        }
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_are_refused(bytes: Vec<u8>) {
            proptest::prop_assert!(simple_signing_is_about(&bytes, &digest()).is_err());
        }
    }
}
