//! Keyless signatures on images, in all three places they are found.

use processgit_updater::trust::{Trust, TrustFault};
use serde_json::{Value, json};

use crate::lab::{Registry, Simple, Stub, flip, with};
use crate::signed::{SIGN, assert_row, attest, judge, simple, statement};
use crate::sigstore::{ISSUER, Leaf, Sigstore, hash, write_root};

#[tokio::test]
async fn images() {
    let sigstore = Sigstore::new("http://127.0.0.1:1");
    let folder = tempfile::tempdir().unwrap();
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
    let lost = with(&v1, "/mediaType", |kind| *kind = json!("another"));
    let blob = referrers.attach("with/lost", &digest, &[&lost, &v1])[0].clone();
    for (what, body) in [("other bytes", Some("x")), ("gone", None)] {
        match body {
            Some(body) => referrers.answer(&blob, "application/octet-stream", body),
            None => referrers.forget(&blob),
        }
        let got = judge.image(&referrers.address, "with/lost", &digest).await;
        assert!(got.is_ok(), "beside a blob that is {what}: {got:?}");
    }
    referrers.reply(&blob, 503, &[], "");
    assert!(judge.image(&referrers.address, "with/lost", &digest).await.is_ok(), "beside a blob that fails now");
    let only = referrers.attach("with/one", &digest, &[&v1])[0].clone();
    referrers.reply(&only, 503, &[], "");
    let error = judge.image(&referrers.address, "with/one", &digest).await.unwrap_err();
    assert!(matches!(error.fault, TrustFault::Registry(_)), "it may have been the one: {error}");

    judge.agrees("cosign-keyless", ISSUER).unwrap();
    assert!(judge.agrees("cosign-key", ISSUER).unwrap_err().to_string().contains("cosign-key"));
    assert!(judge.agrees("cosign-keyless", "https://evil").unwrap_err().to_string().contains("https://evil"));
}
