//! Certificates of one's own: servers over TLS whose CA only the operator knows.

use std::path::{Path, PathBuf};
use std::process::Command;

use processgit_updater::https::Authorities;
use processgit_updater::registry::Client;
use processgit_updater::release::github::GithubReleases;
use processgit_updater::release::{Channel, ReleaseSource};
use processgit_updater::settings::Repo;
use serde_json::{Value, json};

use crate::lab::{Ca, MANIFEST, Stub};
use crate::signed::{IDENTITY, Signed, api_entry};
use crate::sigstore::{ISSUER, SAN, Sigstore, write_root};

/// Which CA file an operator names, and whether a server is believed then.
fn rows(folder: &Path, ca: &Ca) -> Vec<(&'static str, Option<PathBuf>, bool)> {
    let write = |name: &str, text: String| {
        std::fs::write(folder.join(name), text).unwrap();
        Some(folder.join(name))
    };
    vec![
        ("the system's only", None, false),
        ("another's", write("other.pem", Ca::new().pem()), false),
        ("ours", write("ours.pem", ca.pem()), true),
        ("ours among others", write("both.pem", format!("{}\n{}", Ca::new().pem(), ca.pem())), true),
    ]
}

fn assert_row(name: &str, believed: bool, got: Result<(), String>) {
    assert_eq!(got.is_ok(), believed, "{name}: {got:?}");
    if let Err(error) = got {
        assert!(error.contains("UnknownIssuer") && error.contains("PROCESSGIT_UPDATER_CA_FILE"), "{name}: {error}");
    }
}

#[tokio::test]
async fn registries_and_releases() {
    let (ca, folder) = (Ca::new(), tempfile::tempdir().unwrap());
    let server = Stub::over_tls(&ca).await;
    server.answer("/v2/a/b/manifests/tag", MANIFEST, "{}");
    let release = json!({"tag_name": "v1.0.0", "name": "", "draft": false, "prerelease": false, "assets": [],
        "html_url": "https://example.org", "published_at": "2026-01-31T12:00:00Z"});
    server.answer("/repos/o/n/releases", "application/json", json!([release]).to_string());
    for (name, file, believed) in rows(folder.path(), &ca) {
        let authorities = Authorities::load(file.as_deref()).unwrap();
        let repository = Client::new(&authorities).repository(&server.address, "a/b").unwrap();
        let got = repository.manifest("tag", 4096).await.map(drop).map_err(|e| e.told());
        assert_row(&format!("registry, {name}"), believed, got);

        let (api, repo) = (server.url().parse().unwrap(), Repo { owner: "o".into(), name: "n".into() });
        let releases = GithubReleases::new(api, repo, None, &[], &authorities).unwrap();
        let got = releases.latest(Channel::Stable).await.map(drop).map_err(|e| e.told());
        assert_row(&format!("releases, {name}"), believed, got);
    }
}

/// A release server of one's own, at an address that does not fit it: what is told names the ways out.
#[tokio::test]
async fn a_release_server_that_is_not_as_the_settings_say() {
    let ca = Ca::new();
    let plain = Stub::start().await;
    let (tls, its_own) = (Stub::over_tls(&ca).await, Stub::as_authority().await);
    let nobody = Stub::start().await;
    nobody.reply("/repos/o/n/releases", 302, &[("location", "https://files.invalid/list")], "");
    let http = |address: &str| format!("http://{address}");
    let https = |address: &str| format!("https://{address}");
    for (what, api, says, remedy) in [
        (
            "no TLS",
            https(&plain.address),
            "it does not speak TLS at that port",
            "Write http:// into PROCESSGIT_UPDATER_GITHUB_API if that server has no TLS, or give it TLS",
        ),
        (
            "TLS only",
            http(&tls.address),
            "it speaks TLS at that port, and was asked over plain http",
            "Write https:// into PROCESSGIT_UPDATER_GITHUB_API, or the port",
        ),
        (
            "a CA of one's own",
            https(&tls.address),
            "its certificate is by a CA that is not trusted here",
            "Name the CA that signed the certificate of the server in PROCESSGIT_UPDATER_GITHUB_API with PROCESSGIT_UPDATER_CA_FILE",
        ),
        (
            "a self-signed certificate, as openssl req -x509 makes it",
            https(&its_own.address),
            "its certificate is that of a CA",
            "a certificate that a CA has signed (or a self-signed one without CA:TRUE)",
        ),
        (
            "a redirect to a host that is not there",
            http(&nobody.address),
            "https://files.invalid/list cannot be asked: ",
            "Let this machine reach files.invalid too",
        ),
    ] {
        let repo = Repo { owner: "o".into(), name: "n".into() };
        let releases = GithubReleases::new(api.parse().unwrap(), repo, None, &[], &Authorities::default()).unwrap();
        let told = releases.latest(Channel::Stable).await.unwrap_err().told();
        assert!(told.contains(says) && told.contains(remedy), "{what}: {told}");
        assert!(!told.contains("InvalidContentType"), "{what}: {told}");
    }
}

fn release() -> Value {
    json!({
        "schema_version": 1, "name": "processgit", "version": "1.2.3", "tag": "v1.2.3",
        "released_at": "2026-01-02T03:04:05Z", "prerelease": false, "min_upgrade_from": null,
        "image": {"registry": "ghcr.io", "repository": "owner/app", "tag": "1.2.3",
                  "digest": format!("sha256:{:064}", 7), "platforms": ["linux/amd64"]},
        "signing": {"method": "cosign-keyless", "issuer": ISSUER, "identity_regex": "^x$"},
        "release_notes_url": "https://example.org/notes", "migration": {"required": false},
        "breaking_changes": [], "deprecations": []
    })
}

/// `manifest verify` in `folder`, and what it printed.
fn verify(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_processgit-updater"))
        .args(["manifest", "verify", "release.json"])
        .args(["--trusted-root", "trusted_root.json", "--signing-issuer", ISSUER])
        .args(["--signing-identity-regex", IDENTITY])
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

/// The log is asked by the program itself, over TLS; what it prints is what an operator reads.
#[tokio::test(flavor = "multi_thread")]
async fn logs_and_the_command_line() {
    let (ca, folder) = (Ca::new(), tempfile::tempdir().unwrap());
    let log = Stub::over_tls(&ca).await;
    let sigstore = Sigstore::new(&log.url());
    let dir = folder.path();
    write_root(&sigstore, dir);
    let manifest = release().to_string();
    let signed = Signed::new(&sigstore, sigstore.leaf(), manifest.as_bytes());
    log.answer("/api/v1/log/entries/retrieve", "application/json", api_entry(&signed.v1).to_string());
    std::fs::write(dir.join("release.json"), &manifest).unwrap();
    std::fs::write(dir.join("release.json.sig"), signed.sig()).unwrap();
    std::fs::write(dir.join("release.json.crt"), signed.crt()).unwrap();
    for (name, file, believed) in rows(dir, &ca) {
        let file = file.map(|path| path.to_str().unwrap().to_owned());
        let flag: Vec<&str> = file.iter().flat_map(|file| ["--ca-file", file]).collect();
        let (code, said) = verify(dir, &flag, &[]);
        assert_row(&format!("log, {name}"), believed, if code == Some(0) { Ok(()) } else { Err(said) });
        // rustls' own convention, instead of the system's certificates.
        let Some(file) = &file else { continue };
        let (code, said) = verify(dir, &[], &[("SSL_CERT_FILE", file)]);
        assert_row(&format!("log, {name}, SSL_CERT_FILE"), believed, if code == Some(0) { Ok(()) } else { Err(said) });
    }
}

#[test]
fn manifest_verify_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let sigstore = Sigstore::new("http://127.0.0.1:1");
    write_root(&sigstore, dir);
    let write = |name: &str, bytes: &[u8]| std::fs::write(dir.join(name), bytes).unwrap();
    let manifest = release().to_string();
    let signed = Signed::new(&sigstore, sigstore.leaf(), manifest.as_bytes());
    let bundle: Value = serde_json::from_slice(&signed.v1).unwrap();
    let logged = bundle["verificationMaterial"]["tlogEntries"][0]["integratedTime"].as_str().unwrap();
    let logged = jiff::Timestamp::from_second(logged.parse().unwrap()).unwrap().strftime("%Y-%m-%d %H:%M:%SZ");
    let judged = format!(
        "  judged by keyless, issuer {ISSUER}, identity all of {IDENTITY}, the trusted root trusted_root.json of {}\n",
        jiff::Timestamp::now().strftime("%Y-%m-%d")
    );
    write("release.json", manifest.as_bytes());
    write("release.json.sigstore.json", &signed.v1);
    let digest = format!("sha256:{:064}", 7);
    assert_eq!(
        verify(dir, &[], &[]),
        (
            Some(0),
            format!(
                "release.json: trusted\n  processgit v1.2.3 -> ghcr.io/owner/app:1.2.3@{digest}\n  manifest by {SAN} \
                 (issuer {ISSUER}, log entry 1001, signed {logged}, found in release.json.sigstore.json)\n{judged}"
            )
        )
    );
    let refused = |why: &str| (Some(1), format!("error: release.json: not trusted: {why}\n{judged}"));
    let mut elsewhere = release();
    elsewhere["signing"]["issuer"] = json!("https://other.example");
    let elsewhere = elsewhere.to_string();
    write("release.json", elsewhere.as_bytes());
    write("release.json.sigstore.json", &Signed::new(&sigstore, sigstore.leaf(), elsewhere.as_bytes()).v1);
    let why = format!(
        "the manifest says its issuer is \"https://other.example\", the settings trust {ISSUER:?}. Ask the publisher which \
         of both is right; if it is the manifest, correct PROCESSGIT_UPDATER_SIGNING_ISSUER"
    );
    assert_eq!(verify(dir, &[], &[]), refused(&why));
    std::fs::remove_file(dir.join("release.json.sigstore.json")).unwrap();
    let (code, said) = verify(dir, &[], &[]);
    assert!(code == Some(1) && said.contains("release.json is not signed: ") && said.ends_with(&judged), "{said}");
    assert!(
        said.contains(". Ask the publisher to sign release.json and to attach release.json.sigstore.json"),
        "{said}"
    );
    let (code, said) = verify(dir, &["--ca-file", "absent.pem"], &[]);
    assert!(code == Some(1) && said.contains("PROCESSGIT_UPDATER_CA_FILE=\"absent.pem\""), "{said}");
}
