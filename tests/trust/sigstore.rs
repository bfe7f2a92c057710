//! A private Sigstore in a box: certificate authority, certificate log, transparency logs of both
//! generations and a timestamp authority, made anew for every test. cosign accepts what it makes.

use std::path::PathBuf;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use jiff::Timestamp;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PublicKeyData,
    SanType, SerialNumber, SigningKey,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use time::OffsetDateTime;

use crate::lab::run;

pub const ISSUER: &str = "https://issuer.example";
pub const SAN: &str = "https://github.com/owner/app/.github/workflows/release.yml@refs/tags/v1.2.3";
const ORIGIN: &str = "rekor.example - 1";
/// Nothing listens there, and asking needs no name server.
const V2_HOST: &str = "localhost";

pub fn b64(bytes: impl AsRef<[u8]>) -> String {
    BASE64_STANDARD.encode(bytes)
}

pub fn hash(bytes: impl AsRef<[u8]>) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// A certificate authority: root and intermediate.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub intermediate: Vec<u8>,
    pub root: Vec<u8>,
}

/// How a leaf certificate is made; the default is a genuine one.
#[derive(Clone, Copy)]
pub struct Leaf<'a> {
    pub san: &'a str,
    pub issuer: &'a str,
    /// Seconds from now; it lives for ten minutes.
    pub from: i64,
    pub authority: &'a Authority,
    /// Who signs the certificate log's promise; `None` leaves it out.
    pub ct: Option<&'a KeyPair>,
    pub usage: ExtendedKeyUsage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum ExtendedKeyUsage {
    CodeSigning,
    ServerAuth,
}

/// A key with its certificate.
pub struct Signer {
    pub key: KeyPair,
    pub der: Vec<u8>,
}

pub struct Sigstore {
    pub authority: Authority,
    pub ct: KeyPair,
    pub rekor: KeyPair,
    pub rekor2: KeyPair,
    rekor_url: String,
    tsa: TempDir,
    tsa_chain: [Vec<u8>; 2],
    now: i64,
}

fn at(now: i64, offset: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(now + offset).unwrap()
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn ca(name: &str, now: i64, path: BasicConstraints) -> CertificateParams {
    let mut params = named(name);
    params.is_ca = IsCa::Ca(path);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = (at(now, -86_400 * 30), at(now, 86_400 * 30));
    params
}

impl Authority {
    pub fn new(now: i64) -> Self {
        let key = || KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
        let params = ca("sigstore root", now, BasicConstraints::Unconstrained);
        let root_key = key();
        let root = params.self_signed(&root_key).unwrap().der().to_vec();
        let root_issuer = Issuer::new(params, root_key);
        let mut params = ca("sigstore intermediate", now, BasicConstraints::Constrained(0));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        params.use_authority_key_identifier_extension = true;
        let intermediate_key = key();
        let intermediate = params.signed_by(&intermediate_key, &root_issuer).unwrap().der().to_vec();
        Self { issuer: Issuer::new(params, intermediate_key), intermediate, root }
    }
}

impl Sigstore {
    /// `rekor_url`: where the first log says it can be asked.
    pub fn new(rekor_url: &str) -> Self {
        let now = Timestamp::now().as_second();
        let p256 = || KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let (tsa, tsa_chain) = timestamp_authority(now);
        Self {
            authority: Authority::new(now),
            ct: p256(),
            rekor: p256(),
            rekor2: KeyPair::generate_for(&PKCS_ED25519).unwrap(),
            rekor_url: rekor_url.to_owned(),
            tsa,
            tsa_chain,
            now,
        }
    }

    /// A genuine leaf, to be varied.
    pub fn leaf(&self) -> Leaf<'_> {
        Leaf {
            san: SAN,
            issuer: ISSUER,
            from: -60,
            authority: &self.authority,
            ct: Some(&self.ct),
            usage: ExtendedKeyUsage::CodeSigning,
        }
    }

    pub fn signer(&self, leaf: Leaf<'_>) -> Signer {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.serial_number = Some(SerialNumber::from_slice(&hash(key.public_key_raw())[..16]));
        (params.not_before, params.not_after) = (at(self.now, leaf.from), at(self.now, leaf.from + 600));
        params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(leaf.san).unwrap())];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match leaf.usage {
            ExtendedKeyUsage::CodeSigning => ExtendedKeyUsagePurpose::CodeSigning,
            ExtendedKeyUsage::ServerAuth => ExtendedKeyUsagePurpose::ServerAuth,
        }];
        params.use_authority_key_identifier_extension = true;
        let utf8 = [&[0x0c, leaf.issuer.len() as u8], leaf.issuer.as_bytes()].concat();
        params.custom_extensions = vec![
            CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 57264, 1, 1], leaf.issuer.as_bytes().to_vec()),
            CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 57264, 1, 8], utf8),
        ];
        if let Some(ct) = leaf.ct {
            let unlogged = params.signed_by(&key, &leaf.authority.issuer).unwrap();
            let promise = self.sct(ct, leaf, first_element(unlogged.der()));
            params
                .custom_extensions
                .push(CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 11129, 2, 4, 2], promise));
        }
        let der = params.signed_by(&key, &leaf.authority.issuer).unwrap().der().to_vec();
        Signer { key, der }
    }

    /// The certificate log's promise (RFC 6962, 3.2 and 3.3), as the content of its extension.
    fn sct(&self, ct: &KeyPair, leaf: Leaf<'_>, tbs: &[u8]) -> Vec<u8> {
        let time = u64::try_from((self.now + leaf.from) * 1000).unwrap().to_be_bytes();
        let issuer = hash(leaf.authority.issuer.key().subject_public_key_info());
        let length = u32::try_from(tbs.len()).unwrap().to_be_bytes();
        let signed = [&[0, 0][..], &time, &[0, 1], &issuer, &length[1..], tbs, &[0, 0]].concat();
        let signature = ct.sign(&signed).unwrap();
        // The log's name is always the genuine one: a wrong key shows in the signature only.
        let log = hash(self.ct.subject_public_key_info());
        let sct = [&[0][..], &log, &time, &[0, 0, 4, 3], &length16(&signature), &signature].concat();
        let list = [&length16(&sct)[..], &sct].concat();
        let content = [&length16(&list)[..], &list].concat();
        let mut octets = vec![0x04];
        match content.len() {
            short @ 0..=127 => octets.push(short as u8),
            long @ 128..=255 => octets.extend([0x81, long as u8]),
            longer => octets.extend([&[0x82][..], &u16::try_from(longer).unwrap().to_be_bytes()].concat()),
        }
        [octets, content].concat()
    }

    /// An entry of the v1 log, complete: promise, proof and checkpoint. `logged` is seconds from now.
    pub fn entry(&self, body: &Value, logged: i64) -> Value {
        self.entry_by(&self.rekor, body, logged)
    }

    /// Like [`Sigstore::entry`], signed by another key under the log's name.
    pub fn entry_by(&self, key: &KeyPair, body: &Value, logged: i64) -> Value {
        let id = hash(self.rekor.subject_public_key_info());
        let (encoded, time) = (b64(body.to_string()), self.now + logged);
        let promised =
            format!(r#"{{"body":"{encoded}","integratedTime":{time},"logID":"{}","logIndex":1001}}"#, hex::encode(id));
        json!({
            "logIndex": "1001", "logId": {"keyId": b64(id)}, "integratedTime": time.to_string(),
            "kindVersion": {"kind": body["kind"], "version": body["apiVersion"]},
            "inclusionPromise": {"signedEntryTimestamp": b64(key.sign(promised.as_bytes()).unwrap())},
            "inclusionProof": proof(body.to_string().as_bytes(), ORIGIN, "rekor.example", &id, key),
            "canonicalizedBody": encoded,
        })
    }

    /// An entry of the v2 log: a proof, and no time.
    pub fn entry2(&self, body: &Value) -> Value {
        json!({
            "logIndex": "1", "logId": {"keyId": b64(self.id2())},
            "kindVersion": {"kind": "hashedrekord", "version": "0.0.2"},
            "inclusionProof": proof(body.to_string().as_bytes(), V2_HOST, V2_HOST, &self.id2(), &self.rekor2),
            "canonicalizedBody": b64(body.to_string()),
        })
    }

    fn id2(&self) -> [u8; 32] {
        hash([format!("{V2_HOST}\n").as_bytes(), &[1], self.rekor2.public_key_raw()].concat())
    }

    /// An RFC 3161 stamp over `data`, now, by openssl.
    pub fn stamp(&self, data: &[u8]) -> String {
        let folder = self.tsa.path();
        std::fs::write(folder.join("data"), data).unwrap();
        let openssl = |line: &str| run(folder, "openssl", &line.split(' ').collect::<Vec<_>>());
        openssl("ts -query -data data -sha256 -no_nonce -out query");
        openssl("ts -reply -config ts.cnf -section tsa -queryfile query -out reply");
        b64(std::fs::read(folder.join("reply")).unwrap())
    }

    pub fn trusted_root(&self) -> Value {
        let window = json!({"start": Timestamp::from_second(self.now - 86_400 * 20).unwrap().to_string()});
        let log = |url: &str, spki: Vec<u8>, kind: &str, id: [u8; 32]| {
            json!({"baseUrl": url, "hashAlgorithm": "SHA2_256", "logId": {"keyId": b64(id)},
                "publicKey": {"rawBytes": b64(spki), "keyDetails": kind, "validFor": window}})
        };
        let chain = |list: [&Vec<u8>; 2]| json!({"certificates": list.map(|der| json!({"rawBytes": b64(der)}))});
        let spki = |key: &KeyPair| key.subject_public_key_info();
        const P256: &str = "PKIX_ECDSA_P256_SHA_256";
        json!({
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [
                log(&self.rekor_url, spki(&self.rekor), P256, hash(spki(&self.rekor))),
                log(&format!("https://{V2_HOST}"), spki(&self.rekor2), "PKIX_ED25519", self.id2()),
            ],
            "certificateAuthorities": [{
                "subject": {"organization": "example", "commonName": "ca"}, "uri": "https://ca.example",
                "certChain": chain([&self.authority.intermediate, &self.authority.root]), "validFor": window}],
            "ctlogs": [log("https://ct.example", spki(&self.ct), P256, hash(spki(&self.ct)))],
            "timestampAuthorities": [{
                "subject": {"organization": "example", "commonName": "tsa"}, "uri": "https://tsa.example",
                "certChain": chain([&self.tsa_chain[0], &self.tsa_chain[1]]), "validFor": window}],
        })
    }

    /// What `trusted_root.json` says, as the files cosign's older options want.
    pub fn write_pems(&self, folder: &std::path::Path) {
        let chain = [&self.authority.intermediate, &self.authority.root].map(|der| pem("CERTIFICATE", der)).concat();
        std::fs::write(folder.join("chain.pem"), chain).unwrap();
        std::fs::write(folder.join("root.pem"), pem("CERTIFICATE", &self.authority.root)).unwrap();
        for (name, key) in [("rekor.pub", &self.rekor), ("ctfe.pub", &self.ct)] {
            std::fs::write(folder.join(name), pem("PUBLIC KEY", &key.subject_public_key_info())).unwrap();
        }
    }
}

impl Signer {
    pub fn sign(&self, data: &[u8]) -> Vec<u8> {
        self.key.sign(data).unwrap()
    }

    pub fn pem(&self) -> String {
        pem("CERTIFICATE", &self.der)
    }

    /// What the v1 log keeps of a signature over a file.
    pub fn hashedrekord(&self, data: &[u8], signature: &[u8]) -> Value {
        json!({"apiVersion": "0.0.1", "kind": "hashedrekord", "spec": {
            "data": {"hash": {"algorithm": "sha256", "value": hex::encode(hash(data))}},
            "signature": {"content": b64(signature), "publicKey": {"content": b64(self.pem())}}}})
    }

    /// What the v2 log keeps; of an attestation, `data` is its pre-authentication encoding.
    pub fn hashedrekord2(&self, data: &[u8], signature: &[u8]) -> Value {
        json!({"apiVersion": "0.0.2", "kind": "hashedrekord", "spec": {"hashedRekordV002": {
            "data": {"algorithm": "SHA2_256", "digest": b64(hash(data))},
            "signature": {"content": b64(signature), "verifier": {
                "keyDetails": "PKIX_ECDSA_P256_SHA_256", "x509Certificate": {"rawBytes": b64(&self.der)}}}}}})
    }

    /// What the v1 log keeps of an attestation.
    pub fn dsse(&self, envelope: &Value, payload: &[u8]) -> Value {
        json!({"apiVersion": "0.0.1", "kind": "dsse", "spec": {
            "envelopeHash": {"algorithm": "sha256", "value": hex::encode(hash(envelope.to_string()))},
            "payloadHash": {"algorithm": "sha256", "value": hex::encode(hash(payload))},
            "signatures": [{"signature": envelope["signatures"][0]["sig"], "verifier": b64(self.pem())}]}})
    }

    /// A bundle of format 0.3 with these log entries and stamps.
    pub fn bundle(&self, entries: Value, stamps: &[String], content: (&str, Value)) -> Value {
        let stamps: Vec<Value> = stamps.iter().map(|stamp| json!({"signedTimestamp": stamp})).collect();
        let mut material = json!({"certificate": {"rawBytes": b64(&self.der)}, "tlogEntries": entries});
        if !stamps.is_empty() {
            material["timestampVerificationData"] = json!({"rfc3161Timestamps": stamps});
        }
        let mut bundle =
            json!({"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json", "verificationMaterial": material});
        bundle[content.0] = content.1;
        bundle
    }
}

/// The content of a bundle over a file.
pub fn message(data: &[u8], signature: &[u8]) -> (&'static str, Value) {
    let digest = json!({"algorithm": "SHA2_256", "digest": b64(hash(data))});
    ("messageSignature", json!({"messageDigest": digest, "signature": b64(signature)}))
}

/// DSSE's pre-authentication encoding of an in-toto payload.
pub fn pae(payload: &[u8]) -> Vec<u8> {
    let kind = "application/vnd.in-toto+json";
    [format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).as_bytes(), payload].concat()
}

pub fn pem(label: &str, der: &[u8]) -> String {
    let text = b64(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// Place 1 in a tree of three leaves (RFC 6962, 2.1), and a checkpoint over it.
fn proof(body: &[u8], origin: &str, name: &str, id: &[u8; 32], key: &KeyPair) -> Value {
    let leaf = |content: &[u8]| hash([&[0], content].concat());
    let node = |left: [u8; 32], right: [u8; 32]| hash([&[1][..], &left, &right].concat());
    let (before, after) = (leaf(b"before"), leaf(b"after"));
    let root = node(node(before, leaf(body)), after);
    let note = format!("{origin}\n3\n{}\n", b64(root));
    let signature = b64([&id[..4], &key.sign(note.as_bytes()).unwrap()].concat());
    json!({"logIndex": "1", "treeSize": "3", "rootHash": b64(root), "hashes": [b64(before), b64(after)],
        "checkpoint": {"envelope": format!("{note}\n— {name} {signature}\n")}})
}

fn timestamp_authority(now: i64) -> (TempDir, [Vec<u8>; 2]) {
    let folder = tempfile::tempdir().unwrap();
    let key = || KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let params = ca("tsa root", now, BasicConstraints::Unconstrained);
    let root_key = key();
    let root = params.self_signed(&root_key).unwrap().der().to_vec();
    let issuer = Issuer::new(params, root_key);
    let mut params = named("tsa");
    // Of one length, always: the stamp repeats it.
    params.serial_number = Some(SerialNumber::from_slice(&[1; 16]));
    (params.not_before, params.not_after) = (at(now, -86_400 * 20), at(now, 86_400 * 20));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    // id-kp-timeStamping, which RFC 3161 wants critical; rcgen's own is not.
    let usage = vec![0x30, 0x0a, 0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x08];
    let mut usage = CustomExtension::from_oid_content(&[2, 5, 29, 37], usage);
    usage.set_criticality(true);
    params.custom_extensions = vec![usage];
    let tsa_key = key();
    let leaf = params.signed_by(&tsa_key, &issuer).unwrap().der().to_vec();
    let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
    write("tsa.pem", pem("CERTIFICATE", &leaf));
    write("tsa.key", tsa_key.serialize_pem());
    write("serial", "01\n".into());
    write(
        "ts.cnf",
        "[tsa]\nserial = serial\nsigner_cert = tsa.pem\nsigner_key = tsa.key\nsigner_digest = sha256\n\
         default_policy = 1.2.3.4\ndigests = sha256\ness_cert_id_alg = sha256\n"
            .into(),
    );
    (folder, [leaf, root])
}

fn length16(bytes: &[u8]) -> [u8; 2] {
    u16::try_from(bytes.len()).unwrap().to_be_bytes()
}

/// The first element inside a DER sequence, header included: of a certificate, what its issuer signed.
fn first_element(der: &[u8]) -> &[u8] {
    let header = |der: &[u8]| match der[1] {
        short @ 0..=0x7f => (2, usize::from(short)),
        long => {
            let bytes = usize::from(long & 0x7f);
            (2 + bytes, der[2..2 + bytes].iter().fold(0, |length, byte| (length << 8) | usize::from(*byte)))
        }
    };
    let inside = &der[header(der).0..];
    let (start, length) = header(inside);
    &inside[..start + length]
}

/// The trusted root as a file.
pub fn write_root(sigstore: &Sigstore, folder: &std::path::Path) -> PathBuf {
    let path = folder.join("trusted_root.json");
    std::fs::write(&path, sigstore.trusted_root().to_string()).unwrap();
    path
}
