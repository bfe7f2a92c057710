//! Bundles of which all is genuine but one thing.

use serde_json::{Value, json};

use crate::lab::{flip, with};
use crate::signed::{LOGGED, RELEASE, Signed, attest, number, v1};
use crate::sigstore::{Authority, ExtendedKeyUsage, Leaf, SAN, Sigstore, b64, hash, message};

/// What is wrong, the bundle over [`RELEASE`], a part of the refusal.
pub type Forgery = (&'static str, Vec<u8>, &'static str);

/// `genuine` signed [`RELEASE`], `other` another file.
pub fn forgeries(sigstore: &Sigstore, genuine: &Signed, other: &Signed) -> Vec<Forgery> {
    let foreign = Sigstore::new("http://127.0.0.1:1");
    let (v1_, v2) = (&genuine.v1, &genuine.v2);
    let leaf = |leaf: Leaf<'_>| Signed::new(sigstore, leaf, RELEASE);
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
    let attestation = attest(sigstore, signer, statement.as_bytes(), false);
    let time_field = number(&part(v1_, &format!("{ENTRY}/integratedTime")));
    let expired = {
        let old = sigstore.signer(Leaf { from: -3600, ..genuine_leaf });
        v1(sigstore, &old, RELEASE, &old.sign(RELEASE), LOGGED)
    };
    let not_yet = v1(sigstore, signer, RELEASE, &genuine.sig, -90);
    let expired2 = leaf(Leaf { from: -3600, ..genuine_leaf }).v2;
    let sig_of_other = with(v1_, "/messageSignature/signature", |s| *s = json!(b64(&other.sig)));
    let by_uncertified = {
        let thief = sigstore.signer(genuine_leaf);
        let sig = thief.sign(RELEASE);
        let entry = sigstore.entry(&signer.hashedrekord(RELEASE, &sig), LOGGED);
        signer.bundle(json!([entry]), &[], message(RELEASE, &sig)).to_string().into_bytes()
    };
    let other_entry = with_entry(part(&other.v1, ENTRY));

    vec![
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
        ("v2: stamp of other data", stamped(v2, b"other", sigstore), "timestamp"),
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
    ]
}
