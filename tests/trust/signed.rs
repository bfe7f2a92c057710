//! Genuine keyless signatures of files and images, in every form they are published in.

use std::path::Path;

use processgit_updater::https::Authorities;
use processgit_updater::settings::Signing;
use processgit_updater::trust::judge::Judge;
use serde_json::{Value, json};

use crate::sigstore::{ISSUER, Leaf, SAN, Signer, Sigstore, b64, message, pae, pem};

pub const RELEASE: &[u8] = b"{\"schema_version\":1,\"version\":\"1.2.3\"}\n";
pub const OTHER: &[u8] = b"{\"schema_version\":1,\"version\":\"1.2.2\"}\n";
pub const IDENTITY: &str = r"^https://github\.com/owner/app/\.github/workflows/release\.yml@refs/tags/v.*$";
pub const LOGGED: i64 = -30;

pub async fn judge(root: &Path) -> Judge {
    let signing = Signing {
        key: None,
        issuer: ISSUER.into(),
        identity_regex: IDENTITY.into(),
        trusted_root: Some(root.to_owned()),
        refreshed_root: None,
        verify_image: true,
    };
    Judge::from_settings(&signing, &Authorities::default()).await.unwrap()
}

/// The genuine signature of a file, in every form it is published in.
pub struct Signed {
    pub signer: Signer,
    pub sig: Vec<u8>,
    pub v1: Vec<u8>,
    pub v2: Vec<u8>,
}

impl Signed {
    pub fn new(sigstore: &Sigstore, leaf: Leaf<'_>, data: &[u8]) -> Self {
        let signer = sigstore.signer(leaf);
        let sig = signer.sign(data);
        let v1 = v1(sigstore, &signer, data, &sig, LOGGED);
        let entry = sigstore.entry2(&signer.hashedrekord2(data, &sig));
        let v2 = signer.bundle(json!([entry]), &[sigstore.stamp(&sig)], message(data, &sig)).to_string().into();
        Self { signer, sig, v1, v2 }
    }

    /// With a chain, in the formats before 0.3.
    pub fn older(&self, sigstore: &Sigstore, version: &str, proof: bool) -> Vec<u8> {
        let mut bundle: Value = serde_json::from_slice(&self.v1).unwrap();
        bundle["mediaType"] = json!(format!("application/vnd.dev.sigstore.bundle+json;version={version}"));
        let chain = [&self.signer.der, &sigstore.authority.intermediate].map(|der| json!({"rawBytes": b64(der)}));
        let material = bundle["verificationMaterial"].as_object_mut().unwrap();
        material.remove("certificate");
        material.insert("x509CertificateChain".into(), json!({"certificates": chain}));
        if !proof {
            material["tlogEntries"][0].as_object_mut().unwrap().remove("inclusionProof");
        }
        bundle.to_string().into()
    }

    /// cosign's older bundle.
    pub fn cosign(&self) -> Vec<u8> {
        let bundle: Value = serde_json::from_slice(&self.v1).unwrap();
        let rekor = rekor_bundle(&bundle["verificationMaterial"]["tlogEntries"][0]);
        json!({"base64Signature": b64(&self.sig), "cert": b64(self.signer.pem()), "rekorBundle": rekor})
            .to_string()
            .into()
    }

    pub fn sig(&self) -> Vec<u8> {
        b64(&self.sig).into()
    }

    pub fn crt(&self) -> Vec<u8> {
        b64(self.signer.pem()).into()
    }
}

pub fn v1(sigstore: &Sigstore, signer: &Signer, data: &[u8], sig: &[u8], logged: i64) -> Vec<u8> {
    let entry = sigstore.entry(&signer.hashedrekord(data, sig), logged);
    signer.bundle(json!([entry]), &[], message(data, sig)).to_string().into()
}

pub fn number(text: &Value) -> i64 {
    text.as_str().unwrap().parse().unwrap()
}

pub fn unb64(text: &str) -> Vec<u8> {
    use base64::prelude::{BASE64_STANDARD, Engine as _};
    BASE64_STANDARD.decode(text).unwrap()
}

pub fn to_hex(base64_text: &Value) -> String {
    hex::encode(unb64(base64_text.as_str().unwrap()))
}

pub fn rekor_bundle(entry: &Value) -> Value {
    json!({"SignedEntryTimestamp": entry["inclusionPromise"]["signedEntryTimestamp"], "Payload": {
        "body": entry["canonicalizedBody"], "integratedTime": number(&entry["integratedTime"]),
        "logIndex": number(&entry["logIndex"]), "logID": to_hex(&entry["logId"]["keyId"])}})
}

/// The entry as a log answers it.
pub fn api_entry(bundle: &[u8]) -> Value {
    let bundle: Value = serde_json::from_slice(bundle).unwrap();
    let entry = &bundle["verificationMaterial"]["tlogEntries"][0];
    let proof = &entry["inclusionProof"];
    let mut answer = rekor_bundle(entry)["Payload"].clone();
    answer["verification"] = json!({"signedEntryTimestamp": entry["inclusionPromise"]["signedEntryTimestamp"],
        "inclusionProof": {
            "checkpoint": proof["checkpoint"]["envelope"], "logIndex": number(&proof["logIndex"]),
            "treeSize": number(&proof["treeSize"]), "rootHash": to_hex(&proof["rootHash"]),
            "hashes": proof["hashes"].as_array().unwrap().iter().map(to_hex).collect::<Vec<_>>()}});
    json!([{"24296fb24b8ad77a": answer}])
}

pub fn assert_row(
    name: &str,
    refusal: &str,
    got: Result<processgit_updater::update::job::Verified, impl std::fmt::Display>,
) {
    match got {
        Ok(verified) => {
            assert_eq!(refusal, "", "{name} was accepted: {verified:?}");
            assert_eq!((verified.identity.as_str(), verified.issuer.as_deref()), (SAN, Some(ISSUER)), "{name}");
            assert!(verified.integrated_time.is_some() && verified.log_index.is_some(), "{name}: {verified:?}");
        }
        Err(error) => {
            assert!(!refusal.is_empty(), "{name}: {error}");
            let error = error.to_string();
            assert!(error.contains(refusal), "{name}: {error} should say {refusal:?}");
        }
    }
}

/// An image's signature as cosign 3 makes it.
pub fn attest(sigstore: &Sigstore, signer: &Signer, payload: &[u8], v2: bool) -> Vec<u8> {
    let pae = pae(payload);
    let sig = signer.sign(&pae);
    let envelope = json!({"payload": b64(payload), "payloadType": "application/vnd.in-toto+json", "signatures": [{"sig": b64(&sig)}]});
    let bundle = if v2 {
        let entry = sigstore.entry2(&signer.hashedrekord2(&pae, &sig));
        signer.bundle(json!([entry]), &[sigstore.stamp(&sig)], ("dsseEnvelope", envelope))
    } else {
        let entry = sigstore.entry(&signer.dsse(&envelope, payload), LOGGED);
        signer.bundle(json!([entry]), &[], ("dsseEnvelope", envelope))
    };
    bundle.to_string().into()
}

pub fn statement(predicate: &str, digest: &str) -> Vec<u8> {
    json!({"_type": "https://in-toto.io/Statement/v1", "predicateType": predicate, "predicate": {},
        "subject": [{"digest": {"sha256": digest.trim_start_matches("sha256:")}}]})
    .to_string()
    .into()
}

pub const SIGN: &str = "https://sigstore.dev/cosign/sign/v1";

/// An image's signature as cosign before 3 makes it.
pub fn simple(sigstore: &Sigstore, signer: &Signer, digest: &str) -> (Vec<u8>, Value) {
    let payload =
        json!({"critical": {"identity": {"docker-reference": "r/app"}, "type": "cosign container image signature",
        "image": {"docker-manifest-digest": digest}}, "optional": null})
        .to_string()
        .into_bytes();
    let sig = signer.sign(&payload);
    let entry = sigstore.entry(&signer.hashedrekord(&payload, &sig), LOGGED);
    let notes = json!({
        "dev.cosignproject.cosign/signature": b64(&sig), "dev.sigstore.cosign/certificate": signer.pem(),
        "dev.sigstore.cosign/chain": pem("CERTIFICATE", &sigstore.authority.intermediate),
        "dev.sigstore.cosign/bundle": rekor_bundle(&entry).to_string()});
    (payload, notes)
}
