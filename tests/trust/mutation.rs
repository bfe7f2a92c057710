//! Changed bytes: none is accepted, but where it carries nothing.

use bytes::Bytes;
use processgit_updater::trust::Trust;
use processgit_updater::trust::judge::Judge;
use serde_json::{Value, json};

use crate::lab::{carriers, with};
use crate::signed::{RELEASE, Signed, judge, unb64};
use crate::sigstore::{Sigstore, b64, write_root};

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
            let got = judge.manifest(&Bytes::from_static(RELEASE), &found).await;
            let panicked = got.as_ref().is_err_and(|error| error.to_string().contains("panic"));
            if panicked || (got.is_ok() && !explained(at)) {
                let before = original[at.saturating_sub(20)..at].escape_ascii();
                accepted.push(format!("byte {at} ^ {bit:#x} after {before}: {got:?}"));
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
