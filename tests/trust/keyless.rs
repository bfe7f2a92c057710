//! Keyless: every genuine carrier of a private Sigstore is accepted (by cosign too), and every forgery is
//! refused, although all the rest of it is in order.

use bytes::Bytes;
use processgit_updater::trust::judge::Judge;
use processgit_updater::trust::{Trust, TrustError};
use serde_json::{Value, json};

use crate::lab::{Found, Stub, carriers, flip, run, with};
use crate::signed::{LOGGED, OTHER, RELEASE, Signed, api_entry, assert_row, attest, judge, number, v1};
use crate::sigstore::{Authority, ExtendedKeyUsage, ISSUER, Leaf, SAN, Sigstore, b64, hash, message, pem, write_root};

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

    let table: &[(&str, Found<'_>)] = &[
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
        ("a branch instead of a tag", san(&SAN.replace("tags", "heads")), "expected an identity"),
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
    let judge = crate::signed::judge(&folder.path().join("root.json")).await;
    let got = judge.manifest(&release, &carriers(&[(".sig", &sig), (".crt", &crt)])).await;
    let error = got.unwrap_err();
    assert!(matches!(error, TrustError::Unavailable(_)), "{error:?}");
    assert!(error.to_string().contains("release.json.sigstore.json"), "{error}");
}

/// A root that has ended says so, instead of blaming the signature only.
#[tokio::test]
async fn an_aged_root_says_so() {
    let sigstore = Sigstore::new("http://127.0.0.1:1");
    let folder = tempfile::tempdir().unwrap();
    let signed = Signed::new(&sigstore, sigstore.leaf(), RELEASE);
    let yesterday = (jiff::Timestamp::now() - jiff::SignedDuration::from_hours(24)).to_string();
    for (part, said) in [
        ("/certificateAuthorities/0/validFor", "every certificate authority"),
        ("/ctlogs/0/publicKey/validFor", "every certificate log"),
        ("/timestampAuthorities/0/validFor", "every timestamp authority"),
    ] {
        let root = sigstore.trusted_root().to_string();
        let aged = with(root.as_bytes(), part, |window| window["end"] = json!(yesterday));
        std::fs::write(folder.path().join("root.json"), aged).unwrap();
        let judge = judge(&folder.path().join("root.json")).await;
        let found = carriers(&[(".sigstore.json", &signed.v2)]);
        let error = judge.manifest(&Bytes::from_static(RELEASE), &found).await.unwrap_err().to_string();
        assert!(error.contains(said) && error.contains("PROCESSGIT_UPDATER_TRUSTED_ROOT"), "{part}: {error}");
    }
}
