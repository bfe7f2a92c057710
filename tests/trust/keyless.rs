//! Keyless: every genuine carrier of a private Sigstore is accepted (by cosign too), and every forgery is
//! refused, although all the rest of it is in order.

use std::path::Path;

use bytes::Bytes;
use processgit_updater::settings::Signing;
use processgit_updater::trust::Trust;
use processgit_updater::trust::judge::Judge;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::lab::{Registry, Stub, carriers, flip, run, with};
use crate::sigstore::{
    Authority, ExtendedKeyUsage, ISSUER, Leaf, SAN, Signer, Sigstore, b64, hash, message, pae, pem, write_root,
};

const RELEASE: &[u8] = b"{\"schema_version\":1,\"version\":\"1.2.3\"}\n";
const OTHER: &[u8] = b"{\"schema_version\":1,\"version\":\"1.2.2\"}\n";
const IDENTITY: &str = r"^https://github\.com/owner/app/\.github/workflows/release\.yml@refs/tags/v.*$";
const LOGGED: i64 = -30;

async fn judge(root: &Path) -> Judge {
    let signing = Signing {
        key: None,
        issuer: ISSUER.into(),
        identity_regex: IDENTITY.into(),
        trusted_root: Some(root.to_owned()),
        verify_image: true,
    };
    Judge::from_settings(&signing).await.unwrap()
}

/// The genuine signature of a file, in every form it is published in.
struct Signed {
    signer: Signer,
    sig: Vec<u8>,
    v1: Vec<u8>,
    v2: Vec<u8>,
}

impl Signed {
    fn new(sigstore: &Sigstore, leaf: Leaf<'_>, data: &[u8]) -> Self {
        let signer = sigstore.signer(leaf);
        let sig = signer.sign(data);
        let v1 = v1(sigstore, &signer, data, &sig, LOGGED);
        let entry = sigstore.entry2(&signer.hashedrekord2(data, &sig));
        let v2 = signer.bundle(json!([entry]), &[sigstore.stamp(&sig)], message(data, &sig)).to_string().into();
        Self { signer, sig, v1, v2 }
    }

    /// With a chain, in the formats before 0.3.
    fn older(&self, sigstore: &Sigstore, version: &str, proof: bool) -> Vec<u8> {
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
    fn cosign(&self) -> Vec<u8> {
        let bundle: Value = serde_json::from_slice(&self.v1).unwrap();
        let rekor = rekor_bundle(&bundle["verificationMaterial"]["tlogEntries"][0]);
        json!({"base64Signature": b64(&self.sig), "cert": b64(self.signer.pem()), "rekorBundle": rekor})
            .to_string()
            .into()
    }

    fn sig(&self) -> Vec<u8> {
        b64(&self.sig).into()
    }

    fn crt(&self) -> Vec<u8> {
        b64(self.signer.pem()).into()
    }
}

fn v1(sigstore: &Sigstore, signer: &Signer, data: &[u8], sig: &[u8], logged: i64) -> Vec<u8> {
    let entry = sigstore.entry(&signer.hashedrekord(data, sig), logged);
    signer.bundle(json!([entry]), &[], message(data, sig)).to_string().into()
}

fn number(text: &Value) -> i64 {
    text.as_str().unwrap().parse().unwrap()
}

fn unb64(text: &str) -> Vec<u8> {
    use base64::prelude::{BASE64_STANDARD, Engine as _};
    BASE64_STANDARD.decode(text).unwrap()
}

fn to_hex(base64_text: &Value) -> String {
    hex::encode(unb64(base64_text.as_str().unwrap()))
}

fn rekor_bundle(entry: &Value) -> Value {
    json!({"SignedEntryTimestamp": entry["inclusionPromise"]["signedEntryTimestamp"], "Payload": {
        "body": entry["canonicalizedBody"], "integratedTime": number(&entry["integratedTime"]),
        "logIndex": number(&entry["logIndex"]), "logID": to_hex(&entry["logId"]["keyId"])}})
}

/// The entry as a log answers it.
fn api_entry(bundle: &[u8]) -> Value {
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

fn assert_row(
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

#[tokio::test]
async fn genuine_manifests() {
    let log = Stub::start().await;
    let sigstore = Sigstore::new(&log.url());
    let folder = tempfile::tempdir().unwrap();
    let judge = judge(&write_root(&sigstore, folder.path())).await;
    let signed = Signed::new(&sigstore, sigstore.leaf(), RELEASE);
    let (v01, v02) = (signed.older(&sigstore, "0.1", false), signed.older(&sigstore, "0.2", true));
    let (old, sig, crt) = (signed.cosign(), signed.sig(), signed.crt());
    let plain_crt =
        [signed.signer.pem().as_bytes(), pem("CERTIFICATE", &sigstore.authority.intermediate).as_bytes()].concat();
    let other = Signed::new(&sigstore, sigstore.leaf(), RELEASE);
    let key_sig = b64(b"made with a key");
    log.answer("/api/v1/log/entries/retrieve", "application/json", api_entry(&signed.v1).to_string());

    let table: &[(&str, &[(&str, &[u8])])] = &[
        ("bundle, v1 log", &[(".sigstore.json", &signed.v1)]),
        ("bundle, v2 log", &[(".sigstore.json", &signed.v2)]),
        ("bundle 0.1, promise only", &[(".sigstore.json", &v01)]),
        ("bundle 0.2", &[(".sigstore.json", &v02)]),
        ("cosign's older bundle", &[(".cosign.bundle", &old)]),
        ("the older bundle's other name", &[(".bundle", &old)]),
        ("signature and certificate, entry looked up", &[(".sig", &sig), (".crt", &crt)]),
        ("certificate in plain PEM, with its chain", &[(".sig", &sig), (".crt", &plain_crt)]),
        ("everything", &[(".sigstore.json", &signed.v2), (".bundle", &old), (".sig", &sig), (".crt", &crt)]),
        ("two signatures", &[(".sigstore.json", &signed.v1), (".bundle", &other.cosign())]),
        ("beside a key's signature", &[(".sigstore.json", &signed.v1), (".sig", key_sig.as_bytes())]),
    ];
    for (name, found) in table {
        assert_row(name, "", judge.manifest(&Bytes::from_static(RELEASE), &carriers(found)).await);
    }

    let dir = folder.path();
    sigstore.write_pems(dir);
    std::fs::write(dir.join("release.json"), RELEASE).unwrap();
    let who = ["--certificate-identity", SAN, "--certificate-oidc-issuer", ISSUER, "release.json"];
    for (name, bundle) in [("v1", &signed.v1), ("v2", &signed.v2)] {
        std::fs::write(dir.join(name), bundle).unwrap();
        let check = ["verify-blob", "--trusted-root", "trusted_root.json", "--bundle", name];
        run(dir, "cosign", &[&check[..], &who].concat());
    }
    std::fs::write(dir.join("old"), &old).unwrap();
    let keys = "SIGSTORE_ROOT_FILE=root.pem SIGSTORE_REKOR_PUBLIC_KEY=rekor.pub SIGSTORE_CT_LOG_PUBLIC_KEY_FILE=ctfe.pub \
         cosign verify-blob --new-bundle-format=false --offline --certificate-chain chain.pem --bundle old";
    run(dir, "env", &[keys.split_whitespace().collect(), who.to_vec()].concat());
}

#[tokio::test]
async fn forged_manifests() {
    let log = Stub::start().await;
    let sigstore = Sigstore::new(&log.url());
    let folder = tempfile::tempdir().unwrap();
    let judge = judge(&write_root(&sigstore, folder.path())).await;
    let foreign = Sigstore::new("http://127.0.0.1:1");
    let genuine = Signed::new(&sigstore, sigstore.leaf(), RELEASE);
    let other = Signed::new(&sigstore, sigstore.leaf(), OTHER);
    let (v1_, v2) = (&genuine.v1, &genuine.v2);
    let leaf = |leaf: Leaf<'_>| Signed::new(&sigstore, leaf, RELEASE);
    let san = |san: &str| leaf(Leaf { san, ..sigstore.leaf() }).v1;
    let genuine_leaf = sigstore.leaf();
    let stranger = Authority::new(jiff::Timestamp::now().as_second());

    let flip_at = |bundle: &[u8], pointer: &str, at: isize| {
        with(bundle, pointer, |text| *text = json!(flip(text.as_str().unwrap(), at)))
    };
    const ENTRY: &str = "/verificationMaterial/tlogEntries/0";
    let inside =
        |bundle: &[u8], pointer: &str, value: Value| with(bundle, &format!("{ENTRY}{pointer}"), |at| *at = value);
    let without = |bundle: &[u8], pointer: &str, key: &str| {
        with(bundle, pointer, |at| assert!(at.as_object_mut().unwrap().remove(key).is_some()))
    };
    let part = |bundle: &[u8], pointer: &str| -> Value {
        serde_json::from_slice::<Value>(bundle).unwrap().pointer(pointer).unwrap().clone()
    };
    let signer = &genuine.signer;
    let body = signer.hashedrekord(RELEASE, &genuine.sig);
    let with_entry = |entry: Value| with(v1_, ENTRY, |at| *at = entry);
    let stamped = |bundle: &[u8], data: &[u8], by: &Sigstore| {
        with(bundle, "/verificationMaterial/timestampVerificationData/rfc3161Timestamps/0/signedTimestamp", |at| {
            *at = json!(by.stamp(data))
        })
    };
    let body_flipped =
        with(v1_, &format!("{ENTRY}/canonicalizedBody"), |text| *text = json!(flip(text.as_str().unwrap(), 30)));
    let checkpoint_by_another = {
        let entry = foreign.entry_by(&foreign.rekor, &body, LOGGED);
        inside(v1_, "/inclusionProof", entry["inclusionProof"].clone())
    };
    let tampered_note = with(v1_, &format!("{ENTRY}/inclusionProof/checkpoint/envelope"), |note| {
        *note = json!(note.as_str().unwrap().replace("rekor.example - 1", "rekor.example - 2"))
    });
    let statement =
        json!({"_type": "https://in-toto.io/Statement/v1", "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {}, "subject": [{"name": "release.json", "digest": {"sha256": hex::encode(hash(RELEASE))}}]})
        .to_string();
    let attestation = attest(&sigstore, signer, statement.as_bytes(), false);
    let time_field = number(&part(v1_, &format!("{ENTRY}/integratedTime")));
    let expired = {
        let old = sigstore.signer(Leaf { from: -3600, ..genuine_leaf });
        v1(&sigstore, &old, RELEASE, &old.sign(RELEASE), LOGGED)
    };
    let not_yet = v1(&sigstore, signer, RELEASE, &genuine.sig, -90);
    let expired2 = leaf(Leaf { from: -3600, ..genuine_leaf }).v2;
    let sig_of_other = with(v1_, "/messageSignature/signature", |s| *s = json!(b64(&other.sig)));
    let by_uncertified = {
        let thief = sigstore.signer(genuine_leaf);
        let sig = thief.sign(RELEASE);
        let entry = sigstore.entry(&signer.hashedrekord(RELEASE, &sig), LOGGED);
        signer.bundle(json!([entry]), &[], message(RELEASE, &sig)).to_string().into_bytes()
    };
    let other_entry = with_entry(part(&other.v1, ENTRY));

    let table: Vec<(&str, Vec<u8>, &str)> = vec![
        ("v1: flipped byte in the signature", flip_at(v1_, "/messageSignature/signature", -1), "invalid signature"),
        ("v1: flipped byte in the digest", flip_at(v1_, "/messageSignature/messageDigest/digest", 0), "artifact"),
        (
            "v1: flipped byte in the certificate",
            flip_at(v1_, "/verificationMaterial/certificate/rawBytes", -1),
            "certificate",
        ),
        (
            "v1: flipped byte in the promise",
            flip_at(v1_, &format!("{ENTRY}/inclusionPromise/signedEntryTimestamp"), -1),
            "promise",
        ),
        (
            "v1: flipped byte in the root hash",
            flip_at(v1_, &format!("{ENTRY}/inclusionProof/rootHash"), 0),
            "root hash",
        ),
        (
            "v1: flipped byte in a proof hash",
            flip_at(v1_, &format!("{ENTRY}/inclusionProof/hashes/0"), 0),
            "inclusion proof",
        ),
        ("v1: flipped byte in the body", body_flipped, "inclusion p"),
        ("v1: integrated time changed", inside(v1_, "/integratedTime", json!((time_field + 1).to_string())), "promise"),
        ("v1: log index changed", inside(v1_, "/logIndex", json!("1002")), "promise"),
        ("v1: promise by another key", with_entry(sigstore.entry_by(&foreign.rekor, &body, LOGGED)), "promise"),
        ("v1: checkpoint by another log", checkpoint_by_another, "checkpoint"),
        ("v1: checkpoint tampered with", tampered_note, "checkpoint"),
        ("v1: entry of an unknown log", with_entry(foreign.entry(&body, LOGGED)), "log"),
        ("v1: entry of another file", other_entry, "hashedrekord"),
        ("v1: no log entry", with(v1_, "/verificationMaterial/tlogEntries", |e| *e = json!([])), "proof"),
        ("v1: no inclusion proof", without(v1_, ENTRY, "inclusionProof"), "proof"),
        ("v1: no promise, so no time", without(v1_, ENTRY, "inclusionPromise"), "timestamp"),
        ("v1: no integrated time", without(v1_, ENTRY, "integratedTime"), "timestamp"),
        (
            "v1: a second entry that nobody vouches for",
            with(v1_, "/verificationMaterial/tlogEntries", |e| {
                let mut bare = e[0].clone();
                bare.as_object_mut().unwrap().retain(|k, _| k != "inclusionProof" && k != "inclusionPromise");
                e.as_array_mut().unwrap().push(bare);
            }),
            "transparency log",
        ),
        ("v1: logged before the certificate began", not_yet, "CertNotValidYet"),
        ("v1: certificate expired when it was logged", expired, "CertExpired"),
        ("v1: signature of another file", sig_of_other, "invalid signature"),
        ("v1: certificate of another signer", by_uncertified, "invalid signature"),
        ("v1: whole bundle of another file", other.v1.clone(), "artifact mismatch"),
        ("v1: attestation about the file", attestation, "attestation"),
        ("v2: no stamp", without(v2, "/verificationMaterial", "timestampVerificationData"), "RFC3161"),
        ("v2: stamp of other data", stamped(v2, b"other", &sigstore), "timestamp"),
        ("v2: stamp by an unknown authority", stamped(v2, &genuine.sig, &foreign), "timestamp"),
        ("v2: certificate expired when it was stamped", expired2, "CertExpired"),
        ("v2: no inclusion proof", without(v2, ENTRY, "inclusionProof"), "proof"),
        (
            "v2: flipped byte in a proof hash",
            flip_at(v2, &format!("{ENTRY}/inclusionProof/hashes/0"), 0),
            "inclusion proof",
        ),
        ("v2: another place in the log", inside(v2, "/logIndex", json!("2")), "inclusion proof"),
        ("v2: entry of another file", with(v2, ENTRY, |e| *e = part(&other.v2, ENTRY)), "mismatch"),
        ("v2: flipped byte in the signature", flip_at(v2, "/messageSignature/signature", -1), "timestamp"),
        ("v2: whole bundle of another file", other.v2.clone(), "artifact mismatch"),
        (
            "certificate log: promise by another key",
            leaf(Leaf { ct: Some(&foreign.ct), ..genuine_leaf }).v1,
            "certificate timestamp",
        ),
        ("certificate log: no promise", leaf(Leaf { ct: None, ..genuine_leaf }).v1, "certificate timestamp"),
        (
            "certificate by an authority of the same name",
            leaf(Leaf { authority: &stranger, ..genuine_leaf }).v1,
            "chain",
        ),
        ("certificate for servers", leaf(Leaf { usage: ExtendedKeyUsage::ServerAuth, ..genuine_leaf }).v1, "chain"),
        ("another issuer", leaf(Leaf { issuer: "https://issuer.example.evil", ..genuine_leaf }).v1, "issuer mismatch"),
        ("another repository", san(&SAN.replace("owner", "evil")), "expected an identity"),
        (
            "identity as a prefix",
            san(&SAN.replace("/v1.2.3", "/v1.2.3").replace("tags", "heads")),
            "expected an identity",
        ),
        ("identity inside another", san(&format!("https://evil.example/?{SAN}")), "expected an identity"),
    ];
    for (name, bundle, refusal) in &table {
        let got = judge.manifest(&Bytes::from_static(RELEASE), &carriers(&[(".sigstore.json", bundle)])).await;
        assert_row(name, refusal, got);
        let beside = carriers(&[(".sigstore.json", bundle), (".bundle", &genuine.cosign())]);
        let got = judge.manifest(&Bytes::from_static(RELEASE), &beside).await;
        assert_row(&format!("{name}, beside a genuine one"), refusal, got);
    }
    forged_older_carriers(&judge, &sigstore, &genuine, &other, &log).await;
}

async fn forged_older_carriers(judge: &Judge, sigstore: &Sigstore, genuine: &Signed, other: &Signed, log: &Stub) {
    let old = genuine.cosign();
    let set = |pointer: &str, value: Value| with(&old, pointer, |at| *at = value);
    let text = |pointer: &str| {
        let json: Value = serde_json::from_slice(&old).unwrap();
        json.pointer(pointer).unwrap().as_str().unwrap().to_owned()
    };
    let part = |bundle: &[u8], pointer: &str| -> Value {
        serde_json::from_slice::<Value>(bundle).unwrap().pointer(pointer).unwrap().clone()
    };
    let time = part(&old, "/rekorBundle/Payload/integratedTime").as_i64().unwrap();
    let stranger = sigstore.signer(sigstore.leaf());
    let broken_pem = b64("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n");
    let table: Vec<(&str, Vec<u8>, &str)> = vec![
        (
            "flipped byte in the signature",
            set("/base64Signature", json!(flip(&text("/base64Signature"), -1))),
            "signature",
        ),
        (
            "flipped byte in the promise",
            set("/rekorBundle/SignedEntryTimestamp", json!(flip(&text("/rekorBundle/SignedEntryTimestamp"), -1))),
            "promise",
        ),
        (
            "flipped byte in the body",
            set("/rekorBundle/Payload/body", json!(flip(&text("/rekorBundle/Payload/body"), 40))),
            "log entry",
        ),
        ("integrated time changed", set("/rekorBundle/Payload/integratedTime", json!(time + 1)), "promise"),
        ("log index changed", set("/rekorBundle/Payload/logIndex", json!(1002)), "promise"),
        ("log changed", set("/rekorBundle/Payload/logID", json!("00".repeat(32))), "log"),
        ("entry of another file", set("/rekorBundle", part(&other.cosign(), "/rekorBundle")), "hashedrekord"),
        ("another certificate", set("/cert", json!(b64(stranger.pem()))), "signature"),
        ("empty certificate", set("/cert", json!(broken_pem)), "certificate"),
        ("no certificate", set("/cert", json!("")), "signed with a key"),
        (
            "no log entry",
            with(&old, "", |o| drop(o.as_object_mut().unwrap().remove("rekorBundle"))),
            "alone do not prove",
        ),
        (
            "another kind of entry",
            set("/rekorBundle/Payload/body", json!(b64(r#"{"kind":"rpm","apiVersion":"0.0.1"}"#))),
            "not understood",
        ),
        ("of another file", other.cosign(), "signature"),
        ("not JSON", b"hello".to_vec(), "no signature bundle"),
    ];
    let release = Bytes::from_static(RELEASE);
    for (name, bundle, refusal) in &table {
        for place in [".cosign.bundle", ".bundle"] {
            let got = judge.manifest(&release, &carriers(&[(place, bundle)])).await;
            assert_row(&format!("older bundle, {name}"), refusal, got);
        }
    }

    let (sig, crt) = (genuine.sig(), genuine.crt());
    let answers: Vec<(&str, Option<Value>, &str)> = vec![
        ("no such entry", Some(json!([])), "alone do not prove"),
        ("the entry of another file", Some(api_entry(&other.v1)), "hashedrekord"),
        ("nonsense", Some(json!({"code": 500})), "could not be asked"),
        ("no such address", None, "alone do not prove"),
    ];
    const PATH: &str = "/api/v1/log/entries/retrieve";
    for (name, answer, refusal) in answers {
        match answer {
            Some(json) => log.answer(PATH, "application/json", json.to_string()),
            None => log.forget(PATH),
        }
        let got = judge.manifest(&release, &carriers(&[(".sig", &sig), (".crt", &crt)])).await;
        assert_row(&format!("the log answers {name}"), refusal, got);
    }
    log.answer(PATH, "application/json", api_entry(&genuine.v1).to_string());
    let detached: Vec<(&str, Vec<u8>, Vec<u8>, &str)> = vec![
        (
            "flipped byte in the signature",
            flip(std::str::from_utf8(&sig).unwrap(), -1).into(),
            crt.clone(),
            "signature",
        ),
        ("signature of another file", other.sig(), crt.clone(), "signature"),
        ("certificate of another signer", sig.clone(), other.crt(), "signature"),
        ("truncated certificate", sig.clone(), crt[..40].to_vec(), ".crt"),
        ("no certificate", sig.clone(), b"\n".to_vec(), "signed with a key"),
    ];
    for (name, sig, crt, refusal) in &detached {
        let got = judge.manifest(&release, &carriers(&[(".sig", sig), (".crt", crt)])).await;
        assert_row(&format!("signature and certificate, {name}"), refusal, got);
    }

    let folder = tempfile::tempdir().unwrap();
    let unreachable = with(sigstore.trusted_root().to_string().as_bytes(), "/tlogs/0/baseUrl", |url| {
        *url = json!("http://127.0.0.1:1")
    });
    std::fs::write(folder.path().join("root.json"), unreachable).unwrap();
    let judge = self::judge(&folder.path().join("root.json")).await;
    let got = judge.manifest(&release, &carriers(&[(".sig", &sig), (".crt", &crt)])).await;
    let error = got.unwrap_err();
    assert!(matches!(error, processgit_updater::trust::TrustError::Unavailable(_)), "{error:?}");
    assert!(error.to_string().contains("release.json.sigstore.json"), "{error}");
}

/// Every changed byte that is accepted all the same, but for those in one of the `harmless` parts.
async fn accepted(
    judge: &Judge,
    original: &[u8],
    harmless: &[(&[u8], &str)],
    wrap: impl Fn(&[u8]) -> Vec<u8>,
) -> Vec<String> {
    let explained = |at: usize| {
        let covers = |part: &[u8]| {
            original
                .windows(part.len())
                .enumerate()
                .any(|(start, window)| window == part && (start..start + part.len()).contains(&at))
        };
        harmless.iter().any(|(part, _)| covers(part))
    };
    let mut accepted = Vec::new();
    for at in 0..original.len() {
        for bit in [0x01, 0x20] {
            let mut changed = original.to_vec();
            changed[at] ^= bit;
            let found = carriers(&[(".sigstore.json", &wrap(&changed))]);
            if judge.manifest(&Bytes::from_static(RELEASE), &found).await.is_ok() && !explained(at) {
                let before = original[at.saturating_sub(20)..at].escape_ascii();
                accepted.push(format!("byte {at} ^ {bit:#x} after {before}"));
            }
        }
    }
    accepted
}

/// No single changed byte of a bundle is accepted, but where it carries nothing.
#[tokio::test]
async fn one_byte_mutations() {
    let sigstore = Sigstore::new("http://127.0.0.1:1");
    let folder = tempfile::tempdir().unwrap();
    let judge = judge(&write_root(&sigstore, folder.path())).await;
    let signed = Signed::new(&sigstore, sigstore.leaf(), RELEASE);
    const STAMPS: &str = "/verificationMaterial/timestampVerificationData/rfc3161Timestamps";
    let stamp = {
        let bundle: Value = serde_json::from_slice(&signed.v2).unwrap();
        bundle.pointer(STAMPS).unwrap()[0]["signedTimestamp"].as_str().unwrap().to_owned()
    };

    // part of the bundle, why a change of it does not matter
    let v1: &[(&[u8], &str)] = &[
        (b"\"messageDigest\"", "optional: the signature itself covers the file"),
        (b"\"algorithm\":\"SHA", "the algorithm's name is read in any case"),
        (b"\"mediaType\"", "without it the rules of the oldest format apply, and hold"),
        (" rekor.example ".as_bytes(), "the name before a checkpoint's signature: its key counts"),
    ];
    let root: Value = serde_json::from_slice(&signed.v2).unwrap();
    let root = &root["verificationMaterial"]["tlogEntries"][0]["inclusionProof"]["rootHash"];
    let root = format!("\"rootHash\":{root}");
    let v2: &[(&[u8], &str)] = &[
        (" localhost ".as_bytes(), "the name before a checkpoint's signature: its key counts"),
        (b"\"logIndex\":\"1\"", "the proof's copy; the entry's own is refused when it is changed"),
        (b"\"treeSize\":\"3\"", "the signed checkpoint of a v2 log says it"),
        (root.as_bytes(), "the signed checkpoint of a v2 log says it"),
        (stamp.as_bytes(), "changed byte by byte below"),
    ];
    // In DER: INTEGER is 02, OCTET STRING 04, OBJECT IDENTIFIER 06.
    let der: &[(&[u8], &str)] = &[
        (b"\x02\x01\x00\x30", "granted, or granted with modifications"),
        (b"\x02\x01\x03\x31", "version of the envelope (CMS): nothing depends on it"),
        (b"\x02\x01\x01\x30", "version of the signer's part: nothing depends on it"),
        (b"\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01", "list of hashes used; the signer's own name of it counts"),
        (b"\x05\x00", "the empty parameters of a hash"),
        (b"\x04\x51", "the wrapping of what was signed; its content counts"),
        (b"\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02", "name of the signature's kind; the authority's key decides"),
    ];
    assert_eq!(accepted(&judge, &signed.v1, v1, <[u8]>::to_vec).await, [""; 0], "v1");
    let v2 = [v1, v2].concat();
    assert_eq!(accepted(&judge, &signed.v2, &v2, <[u8]>::to_vec).await, [""; 0], "v2");
    let stamped = |stamp: &[u8]| with(&signed.v2, STAMPS, |at| at[0]["signedTimestamp"] = json!(b64(stamp)));
    assert_eq!(accepted(&judge, &unb64(&stamp), der, stamped).await, [""; 0], "stamp");
}

/// An image's signature as cosign 3 makes it.
fn attest(sigstore: &Sigstore, signer: &Signer, payload: &[u8], v2: bool) -> Vec<u8> {
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

fn statement(predicate: &str, digest: &str) -> Vec<u8> {
    json!({"_type": "https://in-toto.io/Statement/v1", "predicateType": predicate, "predicate": {},
        "subject": [{"digest": {"sha256": digest.trim_start_matches("sha256:")}}]})
    .to_string()
    .into()
}

const SIGN: &str = "https://sigstore.dev/cosign/sign/v1";

/// An image's signature as cosign before 3 makes it.
fn simple(sigstore: &Sigstore, signer: &Signer, digest: &str) -> (Vec<u8>, Value) {
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

#[tokio::test]
async fn images() {
    let sigstore = Sigstore::new("http://127.0.0.1:1");
    let folder: TempDir = tempfile::tempdir().unwrap();
    let judge = judge(&write_root(&sigstore, folder.path())).await;
    let registry = Registry::start();
    let digest = format!("sha256:{}", hex::encode(hash(b"image")));
    let other = format!("sha256:{}", hex::encode(hash(b"another image")));
    let signer = sigstore.signer(sigstore.leaf());
    let stranger = sigstore.signer(Leaf { san: "https://github.com/evil/app", ..sigstore.leaf() });

    let v1 = attest(&sigstore, &signer, &statement(SIGN, &digest), false);
    let v2 = attest(&sigstore, &signer, &statement(SIGN, &digest), true);
    let provenance = attest(&sigstore, &signer, &statement("https://slsa.dev/provenance/v1", &digest), false);
    let grafted = attest(&sigstore, &signer, &statement(SIGN, &other), true);
    let (payload, notes) = simple(&sigstore, &signer, &digest);
    let change = |key: &str, value: Option<&str>| {
        let mut notes = notes.clone();
        match value {
            Some(value) => notes[key] = json!(value),
            None => drop(notes.as_object_mut().unwrap().remove(key)),
        }
        vec![(payload.clone(), notes)]
    };
    let flipped = |at: &str, byte: isize| with(&v1, at, |text| *text = json!(flip(text.as_str().unwrap(), byte)));
    let sig = notes["dev.cosignproject.cosign/signature"].as_str().unwrap();
    let logged_time =
        notes["dev.sigstore.cosign/bundle"].as_str().unwrap().replace("\"integratedTime\":1", "\"integratedTime\":2");

    type Simple = Vec<(Vec<u8>, Value)>;
    let table: Vec<(&str, Vec<Vec<u8>>, Simple, &str)> = vec![
        ("fallback tag, v1 log", vec![v1.clone()], vec![], ""),
        ("fallback tag, v2 log", vec![v2.clone()], vec![], ""),
        ("old tag", vec![], vec![(payload.clone(), notes.clone())], ""),
        ("after an attestation", vec![provenance.clone(), v2.clone()], vec![], ""),
        ("unsigned", vec![], vec![], "carries no signature"),
        ("another attestation", vec![provenance], vec![], "is no signature"),
        ("about another image", vec![grafted], vec![], "artifact"),
        (
            "by another identity",
            vec![attest(&sigstore, &stranger, &statement(SIGN, &digest), false)],
            vec![],
            "expected an identity",
        ),
        ("flipped signature", vec![flipped("/dsseEnvelope/signatures/0/sig", -1)], vec![], "signature"),
        ("flipped payload", vec![flipped("/dsseEnvelope/payload", 12)], vec![], "signature"),
        (
            "entry of another signature",
            vec![with(&v1, "/verificationMaterial/tlogEntries", |e| {
                let from: Value =
                    serde_json::from_slice(&attest(&sigstore, &signer, &statement(SIGN, &digest), false)).unwrap();
                *e = from["verificationMaterial"]["tlogEntries"].clone();
            })],
            vec![],
            "log entry",
        ),
        ("old tag, about another image", vec![], vec![simple(&sigstore, &signer, &other)], "signature is about"),
        ("old tag, by another identity", vec![], vec![simple(&sigstore, &stranger, &digest)], "expected an identity"),
        (
            "old tag, flipped signature",
            vec![],
            change("dev.cosignproject.cosign/signature", Some(&flip(sig, -1))),
            "signature",
        ),
        (
            "old tag, another certificate",
            vec![],
            change("dev.sigstore.cosign/certificate", Some(&stranger.pem())),
            "tag",
        ),
        ("old tag, empty certificate", vec![], change("dev.sigstore.cosign/certificate", Some("")), "tag"),
        ("old tag, no certificate", vec![], change("dev.sigstore.cosign/certificate", None), "tag"),
        ("old tag, no log entry", vec![], change("dev.sigstore.cosign/bundle", None), "without the log entry"),
        ("old tag, broken log entry", vec![], change("dev.sigstore.cosign/bundle", Some("{")), "unreadable annotation"),
        ("old tag, other integrated time", vec![], change("dev.sigstore.cosign/bundle", Some(&logged_time)), "tag"),
    ];
    for (row, (name, bundles, simple, refusal)) in table.iter().enumerate() {
        let repository = format!("keyless/r{row}");
        if !bundles.is_empty() {
            registry.push_bundles(&repository, &digest, bundles).await;
        }
        if !simple.is_empty() {
            registry.push_simple(&repository, &digest, simple).await;
        }
        assert_row(name, refusal, judge.image(&registry.address, &repository, &digest).await);
    }

    let referrers = Stub::start().await;
    referrers.attach("with/api", &digest, &[&v1]);
    let verified = judge.image(&referrers.address, "with/api", &digest).await.unwrap();
    assert_eq!(verified.carrier, "referrers");

    judge.agrees("cosign-keyless", ISSUER).unwrap();
    assert!(judge.agrees("cosign-key", ISSUER).unwrap_err().to_string().contains("cosign-key"));
    assert!(judge.agrees("cosign-keyless", "https://evil").unwrap_err().to_string().contains("https://evil"));
}
