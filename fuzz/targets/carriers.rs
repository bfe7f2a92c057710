//! Files that carry a signature: the first digit says which. None of them was made with the key that is trusted.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use bytes::Bytes;
use processgit_updater::https::Authorities;
use processgit_updater::settings::Signing;
use processgit_updater::trust::judge::Judge;
use processgit_updater::trust::{CARRIERS, Trust, carrier};
use tokio::runtime::Runtime;

const MANIFEST: &[u8] = b"{}";
/// Of a key that was thrown away.
const KEY: &str = "\
-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE4wptdB8H4QxMH4SKZCz5/DJcYS2A
Dg2aUstitpO3uVCtMSPa1ybpBYxW3UQ+KGO+c5P83zO2fxtpA56B42tRfg==
-----END PUBLIC KEY-----
";

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_current_thread().build().expect("a runtime"));

static JUDGE: LazyLock<Judge> = LazyLock::new(|| {
    let file = std::env::temp_dir().join(format!("fuzz-{}.pub", std::process::id()));
    std::fs::write(&file, KEY).expect("writing the key");
    let signing = Signing::new(Some(file.clone()), "owner/name", "https://issuer.example".into(), None, None);
    let judge = RUNTIME.block_on(Judge::from_settings(&signing.expect("a policy"), &Authorities::default()));
    std::fs::remove_file(&file).expect("removing the key");
    judge.expect("a judge")
});

/// Nothing is accepted that the trusted key has not signed, and every refusal says what was found.
pub fn fuzz(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else { return };
    let text = String::from_utf8_lossy(rest);
    let _ = carrier::bundle(rest);
    let _ = carrier::signature(rest);
    let _ = carrier::certificates(rest);
    let names = ["dev.cosignproject.cosign/signature", "dev.sigstore.cosign/certificate", "dev.sigstore.cosign/bundle"];
    let values = text.splitn(names.len(), '\n').map(str::to_owned);
    let _ = carrier::annotations(&names.map(str::to_owned).into_iter().zip(values).collect());
    let name = CARRIERS[usize::from(first.wrapping_sub(b'0')) % CARRIERS.len()].to_owned();
    let found = BTreeMap::from([(name, Bytes::copy_from_slice(rest))]);
    match RUNTIME.block_on(JUDGE.manifest(&Bytes::from_static(MANIFEST), &found)) {
        Ok(verified) => panic!("accepted: {verified:?}"),
        Err(why) if why.is_refusal() => assert!(!why.to_string().is_empty(), "{why:?}"),
        Err(why) => panic!("nobody was to be asked: {why:?}"),
    }
}
