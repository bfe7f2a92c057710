//! The file formats that carry a signature: Sigstore bundles, cosign's older Rekor bundle, and a bare
//! signature with or without a certificate. Pure: bytes in, something to check out; nothing here decides.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde::Deserialize;
use sigstore_verify::rekor::LogEntry;
use sigstore_verify::types::bundle::{
    CertificateContent, PublicKeyIdentifier, VerificationMaterial, VerificationMaterialContent, X509Certificate,
};
use sigstore_verify::types::{
    Bundle, DerCertificate, InclusionPromise, KindVersion, MediaType, MessageSignature, SignatureBytes,
    SignatureContent, SignedTimestamp, TransparencyLogEntry,
};

/// A signature as it was found, understood but not yet checked.
#[derive(Debug, Clone)]
pub enum Carrier {
    /// Complete: signature, signer, and what was logged.
    Bundle(Box<Bundle>),
    /// A bare signature; the certificates may be none.
    Bare { signature: SignatureBytes, certificates: Vec<DerCertificate> },
}

/// cosign's older bundle (`--bundle` before the Sigstore format).
#[derive(Deserialize)]
struct OldBundle {
    #[serde(rename = "base64Signature")]
    signature: String,
    #[serde(default)]
    cert: String,
    #[serde(rename = "rekorBundle", default)]
    rekor: Option<RekorBundle>,
}

/// What cosign keeps of a log entry: in its older bundle, and in an annotation of an image signature.
#[derive(Deserialize)]
struct RekorBundle {
    #[serde(rename = "SignedEntryTimestamp")]
    promise: SignedTimestamp,
    #[serde(rename = "Payload")]
    payload: LogEntry,
}

/// A file named `*.bundle` or `*.sigstore.json`: either format, told by its fields.
///
/// # Errors
/// Says what the file is not.
pub fn bundle(bytes: &[u8]) -> Result<Carrier, String> {
    #[derive(Deserialize)]
    struct Probe {
        #[serde(rename = "base64Signature")]
        old: Option<serde::de::IgnoredAny>,
    }
    let text = std::str::from_utf8(bytes).map_err(|_| "is no text, expected a signature bundle in JSON".to_owned())?;
    let probe: Probe = serde_json::from_str(text).map_err(|error| format!("is no signature bundle: {error}"))?;
    if probe.old.is_none() {
        let bundle = Bundle::from_json(text).map_err(|error| format!("is no Sigstore bundle: {error}"))?;
        return Ok(Carrier::Bundle(Box::new(bundle)));
    }
    let old: OldBundle = serde_json::from_str(text).map_err(|error| format!("is no cosign bundle: {error}"))?;
    let signature = signature(old.signature.as_bytes())?;
    let certificates = certificates(old.cert.as_bytes())?;
    match old.rekor {
        None => Ok(Carrier::Bare { signature, certificates }),
        Some(rekor) => with_log_entry(signature, certificates, rekor),
    }
}

/// The annotations of a layer under cosign's old `.sig` tag.
///
/// # Errors
/// Says which annotation is missing or unreadable.
pub fn annotations(annotations: &std::collections::BTreeMap<String, String>) -> Result<Carrier, String> {
    let get = |key: &str| annotations.get(key).map_or("", |v| v.trim());
    let encoded = get("dev.cosignproject.cosign/signature");
    if encoded.is_empty() {
        return Err("has no annotation dev.cosignproject.cosign/signature".into());
    }
    let signature = signature(encoded.as_bytes())?;
    let mut chain = certificates(get("dev.sigstore.cosign/certificate").as_bytes())?;
    if !chain.is_empty() {
        chain.extend(certificates(get("dev.sigstore.cosign/chain").as_bytes())?);
    }
    match get("dev.sigstore.cosign/bundle") {
        "" => Ok(Carrier::Bare { signature, certificates: chain }),
        json => {
            let rekor = serde_json::from_str(json)
                .map_err(|error| format!("has an unreadable annotation dev.sigstore.cosign/bundle: {error}"))?;
            with_log_entry(signature, chain, rekor)
        }
    }
}

/// A detached signature: base64, with white space around it but not inside.
///
/// # Errors
/// An empty signature, or no base64.
pub fn signature(bytes: &[u8]) -> Result<SignatureBytes, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "is no text, expected a signature in base64".to_owned())?;
    let decoded = BASE64_STANDARD.decode(text.trim()).map_err(|error| format!("is no base64 signature: {error}"))?;
    if decoded.is_empty() {
        return Err("is an empty signature".into());
    }
    Ok(SignatureBytes::new(decoded))
}

/// Certificates in PEM, or base64 of that (as cosign writes `.crt`), leaf first. Nothing at all, and a
/// public key, are no certificate and no error.
///
/// # Errors
/// Anything else that is no certificate.
pub fn certificates(bytes: &[u8]) -> Result<Vec<DerCertificate>, String> {
    const END: &str = "-----END CERTIFICATE-----";
    let text = std::str::from_utf8(bytes).map_err(|_| "is no text, expected a certificate in PEM".to_owned())?;
    let decoded;
    let mut pem = text.trim();
    if !pem.is_empty() && !pem.starts_with("-----BEGIN ") {
        let bytes = BASE64_STANDARD.decode(pem).map_err(|_| "is neither PEM nor base64 of PEM".to_owned())?;
        decoded = String::from_utf8(bytes).map_err(|_| "is no base64 of PEM".to_owned())?;
        pem = decoded.trim();
    }
    if pem.starts_with("-----BEGIN PUBLIC KEY-----") {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    while !pem.is_empty() {
        let end = pem.find(END).ok_or("holds no whole certificate in PEM")? + END.len();
        let certificate = DerCertificate::from_pem(&pem[..end]).map_err(|error| error.to_string())?;
        if certificate.is_empty() {
            return Err("holds an empty certificate".into());
        }
        found.push(certificate);
        pem = pem[end..].trim_start();
    }
    Ok(found)
}

/// A bundle of the oldest Sigstore format, whose proof of time is the log's signed promise.
fn with_log_entry(
    signature: SignatureBytes,
    certificates: Vec<DerCertificate>,
    rekor: RekorBundle,
) -> Result<Carrier, String> {
    let mut entry = log_entry(&rekor.payload)?;
    entry.inclusion_promise = Some(InclusionPromise::new(rekor.promise));
    Ok(Carrier::Bundle(Box::new(assemble(signature, certificates, entry))))
}

/// A log's answer as an entry of a bundle; kind and version are read from the logged body.
///
/// # Errors
/// A body that is no entry we know.
pub fn log_entry(entry: &LogEntry) -> Result<TransparencyLogEntry, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Kind {
        kind: String,
        api_version: String,
    }
    let body: Kind = serde_json::from_slice(entry.body.as_bytes())
        .map_err(|error| format!("holds a log entry whose body is unreadable: {error}"))?;
    let kind: KindVersion =
        serde_json::from_value(serde_json::json!({ "kind": body.kind, "version": body.api_version }))
            .map_err(|error| format!("holds a log entry that is not understood: {error}"))?;
    entry.to_bundle_entry(kind).map_err(|error| format!("holds an unreadable log entry: {error}"))
}

/// Signature, signer and log entry as one bundle. Without certificates the signer is some key.
pub fn assemble(signature: SignatureBytes, certificates: Vec<DerCertificate>, entry: TransparencyLogEntry) -> Bundle {
    let signer = if certificates.is_empty() {
        VerificationMaterialContent::PublicKey(PublicKeyIdentifier::new(""))
    } else {
        let certificates = certificates.into_iter().map(X509Certificate::new).collect();
        VerificationMaterialContent::X509CertificateChain { certificates }
    };
    let material = VerificationMaterial::new(signer).with_tlog_entries(vec![entry]);
    let content = SignatureContent::MessageSignature(MessageSignature::new(signature));
    Bundle::new(MediaType::Bundle0_1, material, content)
}

/// The signature and the leaf certificate of a bundle over a file.
pub fn signature_and_leaf(bundle: &Bundle) -> Option<(&SignatureBytes, &DerCertificate)> {
    let SignatureContent::MessageSignature(message) = &bundle.content else { return None };
    let leaf = match &bundle.verification_material.content {
        VerificationMaterialContent::Certificate(CertificateContent { raw_bytes, .. }) => raw_bytes,
        VerificationMaterialContent::X509CertificateChain { certificates } => &certificates.first()?.raw_bytes,
        _ => return None,
    };
    Some((&message.signature, leaf))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn signatures_are_base64_with_white_space_around_it_at_most() {
        for (text, accepted) in [
            ("AAAA", true),
            (" AAAA\r\n", true),
            ("", false),
            ("\n", false),
            ("AA AA", false),
            ("AAA", false),
            ("AAB=", false),
            ("AAAA====", false),
            ("-_-_", false),
        ] {
            assert_eq!(signature(text.as_bytes()).is_ok(), accepted, "{text:?}");
        }
    }

    #[test]
    fn certificates_are_pem_or_base64_of_it() {
        let one = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
        let key = "-----BEGIN PUBLIC KEY-----\nMAA=\n-----END PUBLIC KEY-----\n";
        let empty = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n";
        let base64 = |text: &str| BASE64_STANDARD.encode(text);
        for (text, expected) in [
            (one.to_owned(), Some(1)),
            (one.repeat(3), Some(3)),
            (one.replace('\n', "\r\n"), Some(1)),
            (base64(one), Some(1)),
            (format!("{}\n", base64(&one.repeat(2))), Some(2)),
            (String::new(), Some(0)),
            (" \n".to_owned(), Some(0)),
            (key.to_owned(), Some(0)),
            (base64(key), Some(0)),
            (empty.to_owned(), None),
            (format!("{one}{empty}"), None),
            (format!("{one}garbage"), None),
            (one[..40].to_owned(), None),
            (base64("hello"), None),
            ("hello".to_owned(), None),
        ] {
            assert_eq!(certificates(text.as_bytes()).ok().map(|list| list.len()), expected, "{text:?}");
        }
    }

    /// Texts that get past the first look of a parser more often than noise does.
    fn almost() -> impl Strategy<Value = Vec<u8>> {
        const WORDS: &[&str] = &[
            "{",
            "}",
            "[",
            "]",
            ":",
            ",",
            "\"",
            "null",
            "0",
            "-1",
            "1e999",
            "AAAA",
            "e30=",
            "=",
            "\\u0000",
            "\n",
            "-----BEGIN CERTIFICATE-----",
            "-----END CERTIFICATE-----",
            "-----BEGIN PUBLIC KEY-----",
            "\"base64Signature\"",
            "\"cert\"",
            "\"rekorBundle\"",
            "\"SignedEntryTimestamp\"",
            "\"Payload\"",
            "\"body\"",
            "\"logID\"",
            "\"logIndex\"",
            "\"integratedTime\"",
            "\"mediaType\"",
            "\"verificationMaterial\"",
            "\"messageSignature\"",
            "\"dsseEnvelope\"",
            "\"tlogEntries\"",
        ];
        prop_oneof![
            any::<Vec<u8>>(),
            proptest::collection::vec(proptest::sample::select(WORDS), 0..40)
                .prop_map(|list| list.concat().into_bytes()),
        ]
    }

    /// A cosign bundle whose fields hold anything.
    fn old_bundle(signature: &str, cert: &str, body: &str, time: i64, index: i64, log: &str) -> Vec<u8> {
        let payload = serde_json::json!({"body": BASE64_STANDARD.encode(body), "integratedTime": time,
            "logIndex": index, "logID": log});
        let rekor = serde_json::json!({"SignedEntryTimestamp": "AAAA", "Payload": payload});
        serde_json::json!({"base64Signature": signature, "cert": cert, "rekorBundle": rekor}).to_string().into_bytes()
    }

    proptest! {
        #[test]
        fn no_parser_panics(bytes in almost()) {
            let _ = bundle(&bytes);
            let _ = signature(&bytes);
            let _ = certificates(&bytes);
            let _ = certificates(BASE64_STANDARD.encode(&bytes).as_bytes());
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let keys = ["cosignproject.cosign/signature", "sigstore.cosign/certificate", "sigstore.cosign/chain", "sigstore.cosign/bundle"];
            let mut notes: std::collections::BTreeMap<String, String> =
                keys.iter().map(|key| (format!("dev.{key}"), text.clone())).collect();
            let _ = annotations(&notes);
            notes.insert("dev.cosignproject.cosign/signature".into(), "AAAA".into());
            let _ = annotations(&notes);
        }

        #[test]
        fn no_field_of_an_older_bundle_panics(cert: String, body: String, time: i64, index: i64, log: String) {
            let _ = bundle(&old_bundle("AAAA", &cert, &body, time, index, &log));
            let kind = r#"{"kind":"hashedrekord","apiVersion":"0.0.1"}"#;
            let _ = bundle(&old_bundle("AAAA", "", kind, time, index, &"00".repeat(32)));
        }
    }
}
