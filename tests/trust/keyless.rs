//! Keyless: every genuine carrier of a private Sigstore is accepted (by cosign too), and every forgery is
//! refused, although all the rest of it is in order.

use bytes::Bytes;
use processgit_updater::trust::judge::Judge;
use processgit_updater::trust::{Trust, TrustFault};
use processgit_updater::update::refusal::Refusal;
use serde_json::{Value, json};

use crate::forgery::forgeries;
use crate::lab::{Found, Stub, carriers, flip, run, succeeds, with};
use crate::signed::{IDENTITY, OTHER, RELEASE, Signed, api_entry, assert_row, judge};
use crate::sigstore::{ISSUER, SAN, Sigstore, b64, pem, write_root};

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
    let genuine = Signed::new(&sigstore, sigstore.leaf(), RELEASE);
    let other = Signed::new(&sigstore, sigstore.leaf(), OTHER);
    let table = forgeries(&sigstore, &genuine, &other);
    for (name, bundle, refusal) in &table {
        let got = judge.manifest(&Bytes::from_static(RELEASE), &carriers(&[(".sigstore.json", bundle)])).await;
        assert_row(name, refusal, got);
        let beside = carriers(&[(".sigstore.json", bundle), (".bundle", &genuine.cosign())]);
        let got = judge.manifest(&Bytes::from_static(RELEASE), &beside).await;
        assert_row(&format!("{name}, beside a genuine one"), refusal, got);
    }
    forged_older_carriers(&judge, &sigstore, &genuine, &other, &log).await;
}

/// The rows are worth something: cosign refuses them too.
#[tokio::test]
async fn cosign_refuses_the_same() {
    let sigstore = Sigstore::new("http://127.0.0.1:1");
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    write_root(&sigstore, dir);
    let genuine = Signed::new(&sigstore, sigstore.leaf(), RELEASE);
    let other = Signed::new(&sigstore, sigstore.leaf(), OTHER);
    std::fs::write(dir.join("release.json"), RELEASE).unwrap();
    // To cosign an attestation about a file is as good as a signature on it; we want the signature.
    let looser = ["v1: attestation about the file"];
    let mut accepted = Vec::new();
    for (name, bundle, _) in forgeries(&sigstore, &genuine, &other) {
        std::fs::write(dir.join("bundle"), bundle).unwrap();
        let line = "verify-blob --trusted-root trusted_root.json --bundle bundle --certificate-identity-regexp";
        let who = [IDENTITY, "--certificate-oidc-issuer", ISSUER, "release.json"];
        let arguments: Vec<&str> = line.split(' ').chain(who).collect();
        if succeeds(dir, "cosign", &arguments) {
            accepted.push(name);
        }
    }
    assert_eq!(accepted, looser);
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
    assert!(matches!(error.fault, TrustFault::Log { .. }), "{error:?}");
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
        let error = judge.manifest(&Bytes::from_static(RELEASE), &found).await.unwrap_err();
        let told = Refusal::from(error).to_string();
        assert!(told.contains(said) && told.contains("PROCESSGIT_UPDATER_TRUSTED_ROOT"), "{part}: {told}");
    }
}
