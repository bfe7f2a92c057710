//! A pinned key: what cosign and openssl sign with it is accepted, everything else is refused.

use bytes::Bytes;
use processgit_updater::https::Authorities;
use processgit_updater::settings::Signing;
use processgit_updater::trust::Trust;
use processgit_updater::trust::judge::Judge;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SigningKey};
use serde_json::{Value, json};

use crate::lab::{Cosign, Format, Found, Registry, Simple, carriers, flip, pinned, run, with};
use crate::signed::rekor_bundle;
use crate::sigstore::{Sigstore, b64, hash, message, pem, write_root};

const RELEASE: &[u8] = b"{\"schema_version\":1,\"name\":\"processgit\"}\n";
const OTHER: &[u8] = b"{\"schema_version\":1,\"name\":\"processgi7\"}\n";

#[tokio::test]
async fn manifests() {
    let cosign = Cosign::new(&["ours", "theirs"]);
    cosign.write("release.json", RELEASE);
    cosign.write("other.json", OTHER);
    let (bundle, _) = cosign.sign_blob("ours", "release.json", Format::New);
    let (old, sig) = cosign.sign_blob("ours", "release.json", Format::Old);
    let (their_bundle, _) = cosign.sign_blob("theirs", "release.json", Format::New);
    let (their_old, their_sig) = cosign.sign_blob("theirs", "release.json", Format::Old);
    let (other_bundle, _) = cosign.sign_blob("ours", "other.json", Format::New);
    let (other_old, other_sig) = cosign.sign_blob("ours", "other.json", Format::Old);
    cosign.write("predicate.json", "{}");
    cosign.run(&[
        "attest-blob",
        "--key",
        "ours.key",
        "-y",
        "--signing-config",
        "sc.json",
        "--predicate",
        "predicate.json",
        "--type",
        "https://slsa.dev/provenance/v1",
        "--bundle",
        "attestation.json",
        "release.json",
    ]);
    let attestation = cosign.read("attestation.json");

    let text = String::from_utf8(sig.clone()).unwrap();
    let flipped = flip(&text, -1);
    let wrapped = format!("{}\n{}", &text[..40], &text[40..]);
    let spaced = format!("  {text}\r\n\n");
    let set = |document: &[u8], pointer: &str, value: Value| with(document, pointer, |at| *at = value);
    let signature = "/messageSignature/signature";
    let graft = |from: &[u8]| {
        let from: Value = serde_json::from_slice(from).unwrap();
        set(&bundle, signature, from.pointer(signature).unwrap().clone())
    };
    let no_digest = with(&bundle, "/messageSignature", |m| drop(m.as_object_mut().unwrap().remove("messageDigest")));
    let other_digest = set(&bundle, "/messageSignature/messageDigest/digest", json!("A".repeat(43) + "="));
    let sha512 = set(&bundle, "/messageSignature/messageDigest/algorithm", json!("SHA2_512"));
    let flipped_bundle = with(&bundle, signature, |s| *s = json!(flip(s.as_str().unwrap(), -1)));
    let flipped_old = with(&old, "/base64Signature", |s| *s = json!(flip(s.as_str().unwrap(), -1)));
    let certified = with(&bundle, "/verificationMaterial", |m| *m = json!({"certificate": {"rawBytes": "MAA="}}));
    let logged = with(&bundle, "/verificationMaterial", |m| {
        m["tlogEntries"] = json!([{
        "logId": {"keyId": "wNI9atQGlz+VWfO6LRygH4QUfY/8W4RFwiT5i5WRgB0="}, "logIndex": "1", "integratedTime": "1700000000",
        "kindVersion": {"kind": "hashedrekord", "version": "0.0.1"}, "canonicalizedBody": "e30=",
        "inclusionPromise": {"signedEntryTimestamp": "AAAA"}}])
    });
    let stamped = with(&bundle, "/verificationMaterial", |m| {
        m["timestampVerificationData"] = json!({"rfc3161Timestamps": [{"signedTimestamp": "AAAA"}]})
    });

    // name, carriers, "" for accepted or a part of the refusal
    let table: &[(&str, Found<'_>, &str)] = &[
        ("detached", &[(".sig", &sig)], ""),
        ("detached, white space around", &[(".sig", spaced.as_bytes())], ""),
        ("detached, empty certificate", &[(".sig", &sig), (".crt", b"\n")], ""),
        ("bundle", &[(".sigstore.json", &bundle)], ""),
        ("bundle without a digest", &[(".sigstore.json", &no_digest)], ""),
        ("older bundle", &[(".cosign.bundle", &old)], ""),
        ("new bundle under the older name", &[(".bundle", &bundle)], ""),
        ("all of them", &[(".sigstore.json", &bundle), (".bundle", &old), (".sig", &sig)], ""),
        ("nothing", &[], "not signed"),
        ("only a certificate", &[(".crt", b"x")], "not signed"),
        ("empty", &[(".sig", b"")], "empty signature"),
        ("white space", &[(".sig", b" \n")], "empty signature"),
        ("not base64", &[(".sig", b"!!!!")], "no base64"),
        ("not text", &[(".sig", b"\xff\xfe")], "no text"),
        ("base64 broken inside", &[(".sig", wrapped.as_bytes())], "no base64"),
        ("truncated", &[(".sig", &sig[..48])], "not made over these bytes"),
        ("flipped byte", &[(".sig", flipped.as_bytes())], "not made over these bytes"),
        ("of another file", &[(".sig", &other_sig)], "not made over these bytes"),
        ("by another key", &[(".sig", &their_sig)], "not made over these bytes"),
        ("with somebody's certificate", &[(".sig", &sig), (".crt", b"garbage!")], "neither PEM"),
        ("bundle by another key", &[(".sigstore.json", &their_bundle)], "not made over these bytes"),
        ("bundle of another file", &[(".sigstore.json", &other_bundle)], "another file"),
        ("bundle with a grafted signature", &[(".sigstore.json", &graft(&other_bundle))], "not made over these bytes"),
        ("bundle with their signature", &[(".sigstore.json", &graft(&their_bundle))], "not made over these bytes"),
        ("bundle with another digest", &[(".sigstore.json", &other_digest)], "another file"),
        ("bundle with another algorithm", &[(".sigstore.json", &sha512)], "another file"),
        ("bundle with a flipped byte", &[(".sigstore.json", &flipped_bundle)], "not made over these bytes"),
        ("bundle without a signature", &[(".sigstore.json", &set(&bundle, signature, json!("")))], "not made over"),
        ("bundle cut off", &[(".sigstore.json", &bundle[..bundle.len() - 9])], "no signature bundle"),
        ("bundle is no JSON", &[(".sigstore.json", b"hello")], "no signature bundle"),
        ("bundle is empty", &[(".sigstore.json", b"")], "no signature bundle"),
        ("bundle is another JSON", &[(".sigstore.json", b"{}")], "no Sigstore bundle"),
        ("bundle with a certificate", &[(".sigstore.json", &certified)], "signed with a certificate"),
        ("bundle with an invented log entry", &[(".sigstore.json", &logged)], "release.json.sigstore.json"),
        ("bundle with an invented timestamp", &[(".sigstore.json", &stamped)], "timestamp"),
        ("attestation about the file", &[(".sigstore.json", &attestation)], "attestation"),
        ("older bundle by another key", &[(".bundle", &their_old)], "not made over these bytes"),
        ("older bundle of another file", &[(".bundle", &other_old)], "not made over these bytes"),
        ("older bundle with a flipped byte", &[(".bundle", &flipped_old)], "not made over these bytes"),
        ("genuine beside a forged bundle", &[(".sigstore.json", &their_bundle), (".sig", &sig)], "not made over"),
        ("genuine beside a forged signature", &[(".sigstore.json", &bundle), (".sig", &their_sig)], "not made over"),
    ];
    let judge = pinned(cosign.path("ours.pub")).await;
    for (name, found, refusal) in table {
        match judge.manifest(&Bytes::from_static(RELEASE), &carriers(found)).await {
            Ok(verified) => {
                assert_eq!(*refusal, "", "{name} was accepted: {verified:?}");
                assert_eq!(verified.carrier, format!("release.json{}", found[0].0), "{name}");
                assert!(verified.identity.starts_with("key sha256:"), "{name}");
            }
            Err(error) => {
                assert!(!refusal.is_empty(), "{name}: {error}");
                assert!(error.to_string().contains(refusal), "{name}: {error} should say {refusal:?}");
            }
        }
    }
    let changed = Bytes::from_static(OTHER);
    for found in [[(".sig", &sig[..])], [(".sigstore.json", &bundle)], [(".bundle", &old)]] {
        assert!(judge.manifest(&changed, &carriers(&found)).await.is_err(), "{}: another manifest", found[0].0);
    }

    let manifest = cosign.path("release.json");
    assert!(judge.verify_file(&manifest).await.unwrap_err().to_string().contains("not signed"));
    cosign.write("release.json.sig", &sig);
    assert_eq!(judge.verify_file(&manifest).await.unwrap().carrier, "release.json.sig");
    let absent = judge.verify_file(&cosign.path("absent.json")).await.unwrap_err();
    assert!(absent.to_string().contains("does not exist"), "{absent}");
}

/// Keys and signatures as openssl makes them: P-256 like cosign's, Ed25519 for detached files only.
#[tokio::test]
async fn openssl_signatures() {
    let folder = Cosign::new(&[]);
    folder.write("release.json", RELEASE);
    let openssl = |line: &str| run(folder.folder(), "openssl", &line.split(' ').collect::<Vec<_>>());
    openssl("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out p256.pem");
    openssl("genpkey -algorithm ED25519 -out ed25519.pem");
    openssl("dgst -sha256 -sign p256.pem -out p256.raw release.json");
    openssl("pkeyutl -sign -rawin -inkey ed25519.pem -in release.json -out ed25519.raw");
    for (key, other) in [("p256", "ed25519"), ("ed25519", "p256")] {
        openssl(&format!("pkey -in {key}.pem -pubout -out {key}.pub"));
        let encode = |name: &str| {
            use base64::prelude::{BASE64_STANDARD, Engine as _};
            BASE64_STANDARD.encode(folder.read(&format!("{name}.raw")))
        };
        let judge = pinned(folder.path(&format!("{key}.pub"))).await;
        let judged = |sig: String| {
            let (judge, found) = (judge.clone(), carriers(&[(".sig", sig.as_bytes())]));
            async move { judge.manifest(&Bytes::from_static(RELEASE), &found).await }
        };
        assert!(judged(encode(key)).await.is_ok(), "{key}");
        assert!(judged(flip(&encode(key), -1)).await.is_err(), "{key}, flipped");
        assert!(judged(encode(other)).await.is_err(), "{key}, by {other}");
        let material = json!({"publicKey": {"hint": ""}});
        let bundle = json!({"mediaType": crate::lab::BUNDLE, "verificationMaterial": material,
            "messageSignature": {"signature": encode(key)}});
        let found = carriers(&[(".sigstore.json", bundle.to_string().as_bytes())]);
        let accepted = judge.manifest(&Bytes::from_static(RELEASE), &found).await.is_ok();
        assert_eq!(accepted, key == "p256", "{key}: Ed25519 counts in a detached signature only");
    }
}

/// Both layouts of cosign, in a real registry: each row in a repository of its own.
#[tokio::test]
async fn images() {
    let cosign = Cosign::new(&["ours", "theirs"]);
    let registry = Registry::start();
    let digest = registry.push_image("signed/both", r#"{"os":"linux"}"#).await;
    let other = registry.push_image("signed/other", r#"{"os":"linux","author":"x"}"#).await;
    let reference = |repository: &str, digest: &str| format!("{}/{repository}@{digest}", registry.address);
    for format in [Format::New, Format::Old] {
        cosign.sign_image("ours", &reference("signed/both", &digest), format);
        cosign.sign_image("ours", &reference("signed/other", &other), format);
        registry.push_image("signed/theirs", r#"{"os":"linux"}"#).await;
        cosign.sign_image("theirs", &reference("signed/theirs", &digest), format);
    }
    registry.push_image("signed/attested", r#"{"os":"linux"}"#).await;
    cosign.write("predicate.json", "{}");
    for kind in ["https://slsa.dev/provenance/v1", "https://sigstore.dev/cosign/sign/v12"] {
        cosign.run(&[
            "attest",
            "--key",
            "ours.key",
            "-y",
            "--signing-config",
            "sc.json",
            "--allow-http-registry",
            "--predicate",
            "predicate.json",
            "--type",
            kind,
            &reference("signed/attested", &digest),
        ]);
    }
    cosign.write("manifest.json", registry.get_manifest("signed/both", &digest).await.to_string());
    let (blob_bundle, _) = cosign.sign_blob("ours", "manifest.json", Format::New);

    let new = registry.bundles("signed/both", &digest).await.remove(0);
    let new_other = registry.bundles("signed/other", &other).await.remove(0);
    let new_theirs = registry.bundles("signed/theirs", &digest).await.remove(0);
    let attested = registry.bundles("signed/attested", &digest).await;
    let (payload, notes) = registry.simple("signed/both", &digest).await;
    let (payload_other, notes_other) = registry.simple("signed/other", &other).await;
    let (_, notes_theirs) = registry.simple("signed/theirs", &digest).await;

    let flipped = with(&new, "/dsseEnvelope/signatures/0/sig", |s| *s = json!(flip(s.as_str().unwrap(), -1)));
    let with_part = |part: &str| {
        let from: Value = serde_json::from_slice(&new_other).unwrap();
        with(&new, part, |at| *at = from.pointer(part).unwrap().clone())
    };
    let two = with(&new, "/dsseEnvelope/signatures", |s| {
        let again = s[0].clone();
        s.as_array_mut().unwrap().push(again);
    });
    const SIG: &str = "dev.cosignproject.cosign/signature";
    let note = |value: &str| json!({SIG: value});
    let sig = notes[SIG].as_str().unwrap();
    let relabelled = String::from_utf8(payload_other.clone()).unwrap().replace(&other, &digest).into_bytes();

    let table: Vec<(&str, Vec<Vec<u8>>, Simple, &str)> = vec![
        ("new layout", vec![new.clone()], vec![], ""),
        ("old layout", vec![], vec![(payload.clone(), notes.clone())], ""),
        (
            "genuine after other things",
            vec![attested[0].clone(), new_theirs.clone(), b"{".to_vec(), new.clone()],
            vec![],
            "",
        ),
        ("genuine beside one too large to read", vec![vec![b' '; 2 << 20], new.clone()], vec![], ""),
        ("old layout after a foreign new one", vec![new_theirs.clone()], vec![(payload.clone(), notes.clone())], ""),
        (
            "second of two in the old layout",
            vec![],
            vec![(payload.clone(), notes_theirs.clone()), (payload.clone(), notes.clone())],
            "",
        ),
        ("unsigned", vec![], vec![], "carries no signature"),
        ("new layout by another key", vec![new_theirs.clone()], vec![], "not made over"),
        ("old layout by another key", vec![], vec![(payload.clone(), notes_theirs.clone())], "not made over"),
        ("new layout, flipped byte", vec![flipped], vec![], "not made over"),
        ("new layout, truncated", vec![new[..new.len() / 2].to_vec()], vec![], "no signature bundle"),
        ("new layout, too large to read", vec![vec![b' '; 2 << 20]], vec![], "is larger than"),
        ("new layout, empty", vec![b"{}".to_vec()], vec![], "no Sigstore bundle"),
        ("new layout, two signatures", vec![two], vec![], "exactly one signature"),
        ("new layout, of another image", vec![new_other.clone()], vec![], "signature is about"),
        ("new layout, payload of another image", vec![with_part("/dsseEnvelope/payload")], vec![], "not made over"),
        (
            "new layout, signature of another image",
            vec![with_part("/dsseEnvelope/signatures")],
            vec![],
            "not made over",
        ),
        ("another attestation", vec![attested[0].clone()], vec![], "is no signature"),
        ("an attestation named almost like it", vec![attested[1].clone()], vec![], "is no signature"),
        ("a signature on the manifest as a file", vec![blob_bundle], vec![], "no attestation"),
        (
            "old layout, of another image",
            vec![],
            vec![(payload_other.clone(), notes_other.clone())],
            "signature is about",
        ),
        ("old layout, digest replaced", vec![], vec![(relabelled, notes_other.clone())], "not made over"),
        ("old layout, signature of another image", vec![], vec![(payload.clone(), notes_other)], "not made over"),
        ("old layout, flipped byte", vec![], vec![(payload.clone(), note(&flip(sig, -1)))], "not made over"),
        ("old layout, truncated", vec![], vec![(payload.clone(), note(&sig[..40]))], "not made over"),
        ("old layout, not base64", vec![], vec![(payload.clone(), note("!!!"))], "no base64"),
        ("old layout, empty", vec![], vec![(payload.clone(), note(""))], "no annotation"),
        ("old layout, no annotation", vec![], vec![(payload.clone(), json!({}))], "no annotation"),
    ];
    let judge = pinned(cosign.path("ours.pub")).await;
    for (row, (name, bundles, simple, refusal)) in table.iter().enumerate() {
        let repository = format!("rows/r{row}");
        if !bundles.is_empty() {
            registry.push_bundles(&repository, &digest, bundles).await;
        }
        if !simple.is_empty() {
            registry.push_simple(&repository, &digest, simple).await;
        }
        match judge.image(&registry.address, &repository, &digest).await {
            Ok(verified) => assert_eq!(*refusal, "", "{name} was accepted: {verified:?}"),
            Err(error) => {
                assert!(!refusal.is_empty(), "{name}: {error}");
                assert!(error.to_string().contains(refusal), "{name}: {error} should say {refusal:?}");
            }
        }
    }
    let ours = judge.image(&registry.address, "signed/both", &digest).await.unwrap();
    assert_eq!(ours.carrier, format!("tag {}", digest.replace(':', "-")));
    for (registry, repository, digest) in [
        (registry.address.as_str(), "signed/both", "sha256:short"),
        (registry.address.as_str(), "signed/../both", digest.as_str()),
        ("not/a/registry", "signed/both", digest.as_str()),
        ("127.0.0.1:1", "signed/both", digest.as_str()),
    ] {
        assert!(judge.image(registry, repository, digest).await.is_err(), "{registry} {repository} {digest}");
    }
}

/// A key's signature that was logged: the entry is not demanded, but where it is present it must hold.
#[tokio::test]
async fn logged_key_signatures() {
    let sigstore = Sigstore::new("http://127.0.0.1:1");
    let folder = tempfile::tempdir().unwrap();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let public = pem("PUBLIC KEY", &key.subject_public_key_info());
    std::fs::write(folder.path().join("key.pub"), &public).unwrap();
    let signing = Signing {
        key: Some(folder.path().join("key.pub")),
        issuer: String::new(),
        identity_regex: String::new(),
        trusted_root: Some(write_root(&sigstore, folder.path())),
        refreshed_root: None,
        verify_image: true,
    };
    let judge = Judge::from_settings(&signing, &Authorities::default()).await.unwrap();

    let sig = key.sign(RELEASE).unwrap();
    let record = |data: &[u8], sig: &[u8]| {
        json!({"apiVersion": "0.0.1", "kind": "hashedrekord", "spec": {
            "data": {"hash": {"algorithm": "sha256", "value": hex::encode(hash(data))}},
            "signature": {"content": b64(sig), "publicKey": {"content": b64(&public)}}}})
    };
    let entry = sigstore.entry(&record(RELEASE, &sig), -30);
    let other = sigstore.entry(&record(OTHER, &key.sign(OTHER).unwrap()), -30);
    let foreign = Sigstore::new("http://127.0.0.1:1").entry(&record(RELEASE, &sig), -30);
    let bundle = |entry: &Value| {
        let (name, content) = message(RELEASE, &sig);
        let material = json!({"publicKey": {"hint": "ours"}, "tlogEntries": [entry]});
        json!({"mediaType": crate::lab::BUNDLE, "verificationMaterial": material, name: content}).to_string()
    };
    let older = |entry: &Value| {
        json!({"base64Signature": b64(&sig), "cert": b64(&public), "rekorBundle": rekor_bundle(entry)}).to_string()
    };
    let flipped = |pointer: &str| {
        let mut entry = entry.clone();
        let at = entry.pointer_mut(pointer).unwrap();
        *at = json!(flip(at.as_str().unwrap(), -1));
        entry
    };
    let promise = flipped("/inclusionPromise/signedEntryTimestamp");
    let table = [
        ("bundle", ".sigstore.json", bundle(&entry), ""),
        ("older bundle", ".bundle", older(&entry), ""),
        ("bundle, entry of another file", ".sigstore.json", bundle(&other), "hash mismatch"),
        ("bundle, entry of another log", ".sigstore.json", bundle(&foreign), "checkpoint"),
        ("bundle, flipped promise", ".sigstore.json", bundle(&promise), "promise"),
        ("bundle, flipped proof", ".sigstore.json", bundle(&flipped("/inclusionProof/hashes/0")), "inclusion proof"),
        ("older bundle, entry of another file", ".bundle", older(&other), "hash mismatch"),
        ("older bundle, entry of another log", ".bundle", older(&foreign), "promise"),
        ("older bundle, flipped promise", ".bundle", older(&promise), "promise"),
    ];
    for (name, place, bytes, refusal) in &table {
        match judge.manifest(&Bytes::from_static(RELEASE), &carriers(&[(place, bytes.as_bytes())])).await {
            Ok(verified) => assert_eq!(*refusal, "", "{name} was accepted: {verified:?}"),
            Err(error) => assert!(!refusal.is_empty() && error.to_string().contains(refusal), "{name}: {error}"),
        }
    }
    judge.agrees("cosign-keyless", "https://whoever.example").unwrap();
}
