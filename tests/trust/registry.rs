//! The registry client against a registry that answers whatever a row wants.

use std::collections::BTreeMap;
use std::time::Duration;

use processgit_updater::engine::insecure::{EngineRegistries, InsecureRegistries};
use processgit_updater::https::Authorities;
use processgit_updater::registry::{Client, Limits, Login, RegistryError, RegistryFault};
use processgit_updater::retry::Pauses;
use serde_json::json;

use crate::lab::{BUNDLE, INDEX, MANIFEST, Stub, sha256};

const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Tries again without waiting long.
pub const QUICK: Limits = Limits {
    time: Duration::from_secs(20),
    bytes: 64 << 20,
    pauses: Pauses { first: Duration::from_millis(1), longest: Duration::from_millis(4), tries: 3 },
};

fn kind(error: RegistryError) -> &'static str {
    match error.fault {
        RegistryFault::Name => "name",
        RegistryFault::Unanswered { .. } => "unanswered",
        RegistryFault::Denied(Login::None) => "denied to strangers",
        RegistryFault::Denied(Login::Refused) => "denied to us",
        RegistryFault::Denied(Login::Unusable(_)) => "denied, for our credentials cannot be used",
        RegistryFault::Realm { .. } => "another host's token service",
        RegistryFault::RateLimit { .. } => "limited",
        RegistryFault::Server => "server",
        RegistryFault::Nonsense => "nonsense",
        RegistryFault::Missing => "missing",
        RegistryFault::TooLarge => "too large",
        RegistryFault::WrongDigest => "wrong digest",
        RegistryFault::Budget => "budget",
    }
}

fn anonymous() -> Client {
    Client::new(&Authorities::default()).within(QUICK).with_docker_config("/nonexistent/config.json".into())
}

/// A client with these credentials for `address`.
fn client(address: &str, auth: serde_json::Value) -> (Client, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.json");
    std::fs::write(&file, json!({"auths": {address: auth}}).to_string()).unwrap();
    (Client::new(&Authorities::default()).within(QUICK).with_docker_config(file), folder)
}

#[test]
fn names_that_no_registry_has_are_refused() {
    let client = Client::new(&Authorities::default());
    for (registry, repository, accepted) in [
        ("ghcr.io", "owner/app", true),
        ("docker.io", "busybox", true),
        ("registry:5000", "a/b/c", true),
        ("127.0.0.1:5000", "a", true),
        ("[::1]:5000", "a", true),
        ("", "a", false),
        ("ghcr.io/v2", "a", false),
        ("user@ghcr.io", "a", false),
        ("ghcr.io?x", "a", false),
        ("ghcr.io:99999", "a", false),
        ("ghcr.io", "", false),
        ("ghcr.io", "Upper/case", false),
        ("ghcr.io", "a/../b", false),
        ("ghcr.io", "a//b", false),
        ("ghcr.io", "/a", false),
        ("ghcr.io", "a?b", false),
        ("ghcr.io", "a/.hidden", false),
    ] {
        assert_eq!(client.repository(registry, repository).is_ok(), accepted, "{registry} {repository}");
    }
}

#[tokio::test]
async fn content_is_capped_and_hashed_again() {
    let stub = Stub::start().await;
    let repository = anonymous().repository(&stub.address, "a/b").unwrap();
    let manifest = json!({"layers": [{"mediaType": BUNDLE, "digest": DIGEST}]}).to_string();
    let named = sha256(manifest.as_bytes());
    stub.answer("/v2/a/b/manifests/tag", MANIFEST, manifest.clone());
    stub.answer(&format!("/v2/a/b/manifests/{named}"), MANIFEST, manifest.clone());
    stub.answer(&format!("/v2/a/b/manifests/{DIGEST}"), MANIFEST, manifest.clone());
    stub.answer("/v2/a/b/manifests/page", "text/html", "<html>");
    let blob = sha256(b"blob");
    stub.answer(&format!("/v2/a/b/blobs/{blob}"), "x/y", "blob");
    stub.answer(&format!("/v2/a/b/blobs/{DIGEST}"), "x/y", "other bytes");

    for (reference, cap, expected) in [
        ("tag", 4096, "found"),
        (&named, 4096, "found"),
        ("absent", 4096, "none"),
        ("tag", manifest.len(), "found"),
        ("tag", manifest.len() - 1, "too large"),
        (DIGEST, 4096, "wrong digest"),
        ("page", 4096, "nonsense"),
        ("../../secret", 4096, "name"),
        ("sha512:00", 4096, "name"),
    ] {
        let got = match repository.manifest(reference, cap).await {
            Ok(Some(manifest)) => {
                assert_eq!(manifest.layers[0].digest, DIGEST);
                "found"
            }
            Ok(None) => "none",
            Err(error) => kind(error),
        };
        assert_eq!(got, expected, "{reference} capped at {cap}");
    }
    let absent = sha256(b"absent");
    for (digest, cap, expected) in [
        (&*blob, 4, "found"),
        (&blob, 3, "too large"),
        (DIGEST, 99, "wrong digest"),
        (&absent, 99, "missing"),
        ("tag", 99, "name"),
    ] {
        let got = repository.blob(digest, cap).await.map_or_else(kind, |_| "found");
        assert_eq!(got, expected, "{digest} capped at {cap}");
    }
}

#[tokio::test]
async fn a_missing_referrers_api_is_no_error() {
    let index = |digests: &[&str]| {
        let list: Vec<_> = digests.iter().map(|d| json!({"digest": d})).collect();
        json!({"manifests": list}).to_string()
    };
    // status, content type, body, what it means
    let table = [
        (200, INDEX, index(&["one"]), "1 found"),
        (200, INDEX, index(&[]), "0 found"),
        (200, "text/html", "<html>".to_owned(), "no such API"),
        (404, "text/plain", String::new(), "no such API"),
        (400, "text/plain", String::new(), "no such API"),
        (403, "text/plain", String::new(), "no such API"),
        (405, "text/plain", String::new(), "no such API"),
        (405, "text/plain", String::new(), "no such API"),
        (501, "text/plain", String::new(), "no such API"),
        // Some name another type, or write null.
        (200, "application/json", index(&["one"]), "1 found"),
        (200, INDEX, r#"{"manifests": null}"#.to_owned(), "0 found"),
        (200, INDEX, "{".to_owned(), "nonsense"),
        (429, "text/plain", String::new(), "limited"),
        (500, "text/plain", String::new(), "server"),
        (503, "text/plain", String::new(), "server"),
    ];
    let stub = Stub::start().await;
    let repository = anonymous().repository(&stub.address, "a/b").unwrap();
    let path = format!("/v2/a/b/referrers/{DIGEST}");
    for (status, kind_of, body, expected) in table {
        stub.reply(&path, status, &[("content-type", kind_of)], &body);
        let got = match repository.referrers(DIGEST, 4096).await {
            Ok(Some(page)) => format!("{} found", page.manifests.len()),
            Ok(None) => "no such API".to_owned(),
            Err(error) => kind(error).to_owned(),
        };
        assert_eq!(got, expected, "{status} {kind_of} {body}");
    }
}

#[tokio::test]
async fn what_may_pass_is_asked_again() {
    for (what, answers, expected, asked) in [
        ("one 503", &[(503, "")][..], "found", 2),
        ("two of them", &[(502, ""), (504, "")], "found", 3),
        ("a limit that ends at once", &[(429, "0")], "found", 2),
        ("a limit that ends at a date", &[(429, "Thu, 26 Nov 2020 12:00:00 GMT")], "found", 2),
        ("a limit that ends after our time", &[(429, "3600")], "limited", 1),
        ("too many", &[(503, ""); 9], "server", 4),
        ("a refusal", &[(403, "")], "denied to strangers", 1),
        ("another answer", &[(418, "")], "nonsense", 1),
    ] {
        let stub = Stub::start().await;
        let repository = anonymous().repository(&stub.address, "a/b").unwrap();
        stub.answer("/v2/a/b/manifests/tag", MANIFEST, "{}");
        for (status, wait) in answers {
            let wait = [("retry-after", *wait)];
            stub.first("/v2/a/b/manifests/tag", *status, &wait[..usize::from(!wait[0].1.is_empty())], "busy");
        }
        let got = repository.manifest("tag", 4096).await.map_or_else(kind, |_| "found");
        assert_eq!(got, expected, "{what}");
        assert_eq!(stub.asked.lock().unwrap().len(), asked, "{what}");
    }
}

#[tokio::test]
async fn connections_that_end_are_made_again() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        // Both ways of the first try, and one of the second.
        for _ in 0..3 {
            drop(listener.accept().await.unwrap());
        }
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 1024]).await;
            let answer = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}";
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    let repository = anonymous().repository(&address, "a/b").unwrap();
    assert!(repository.manifest("tag", 4096).await.unwrap().is_some());
}

/// Whatever drips ends with the time for the whole image.
#[tokio::test]
async fn a_registry_that_drips_has_an_end() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 1024]).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n").await;
                while stream.write_all(b" ").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            });
        }
    });
    let begun = std::time::Instant::now();
    let limits = Limits { time: Duration::from_millis(400), ..QUICK };
    let repository = anonymous().within(limits).repository(&address, "a/b").unwrap();
    let error = repository.manifest("tag", 1 << 20).await.unwrap_err();
    assert_eq!(kind(error), "budget");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_refusal_is_shown_short_and_clean() {
    let stub = Stub::start().await;
    let repository = anonymous().repository(&stub.address, "a/b").unwrap();
    let long = "x".repeat(10_000);
    for (body, expected) in [
        (r#"{"errors":[{"code":"DENIED","message":"SSO is wanted"}]}"#, ": DENIED SSO is wanted"),
        ("\u{1b}[2Jnot\nyou", ": \u{fffd}[2Jnot you"),
        ("<html>please log in</html>", "(403 Forbidden)"),
        (&*long, &*format!("{}…", "x".repeat(300))),
        ("", "(403 Forbidden)"),
    ] {
        stub.reply("/v2/a/b/manifests/tag", 403, &[], body);
        let error = repository.manifest("tag", 4096).await.unwrap_err();
        assert!(error.to_string().contains(expected) && error.to_string().len() < 500, "{error}");
        assert!(error.remedy().contains("docker login"), "{}", error.remedy());
    }
}

/// As the engine does it: on this machine https is tried where http is not spoken, certificates unchecked.
#[tokio::test]
async fn a_registry_on_this_machine_may_speak_tls() {
    let stub = Stub::over_tls(&crate::lab::Ca::new()).await;
    let port = stub.address.rsplit(':').next().unwrap().to_owned();
    stub.answer("/v2/a/b/manifests/tag", MANIFEST, "{}");
    let repository = anonymous().repository(&format!("127.0.0.1:{port}"), "a/b").unwrap();
    assert!(repository.manifest("tag", 4096).await.unwrap().is_some());
}

/// The engine's `insecure-registries` count; without the entry both ways out are named.
#[tokio::test]
async fn a_registry_that_the_engine_takes_as_insecure() {
    struct Told(&'static str);
    #[async_trait::async_trait]
    impl EngineRegistries for Told {
        async fn insecure(&self) -> Option<InsecureRegistries> {
            Some(InsecureRegistries { hosts: BTreeMap::new(), networks: vec![self.0.to_owned()] })
        }
    }
    let (plain, tls) = (Stub::start_anywhere().await, Stub::over_tls(&crate::lab::Ca::new()).await);
    for stub in [&plain, &tls] {
        stub.answer("/v2/a/b/manifests/tag", MANIFEST, "{}");
    }
    for (what, stub, network, expected) in [
        ("plain http", &plain, "0.0.0.0/8", ""),
        ("its own certificate", &tls, "0.0.0.0/8", ""),
        ("plain http, not told", &plain, "10.0.0.0/8", "insecure-registries"),
        ("its own certificate, not told", &tls, "10.0.0.0/8", "PROCESSGIT_UPDATER_CA_FILE"),
    ] {
        let client = anonymous().like(std::sync::Arc::new(Told(network)));
        let got = client.repository(&stub.address, "a/b").unwrap().manifest("tag", 4096).await;
        match got {
            Ok(found) => assert!(found.is_some() && expected.is_empty(), "{what}"),
            Err(error) => {
                assert!(!expected.is_empty() && error.remedy().contains(expected), "{what}: {}", error.told());
                assert!(!error.told().contains("docker login"), "{what}: {}", error.told());
            }
        }
    }
}

#[tokio::test]
async fn challenges_are_answered() {
    let login = json!({"auth": "YWxpY2U6czNjcmV0"}); // alice:s3cret
    let identity = json!({"identitytoken": "refresh"});
    let table = [
        ("anonymous token", json!({}), "bearer", "Bearer t0ken"),
        ("token for a login", login.clone(), "bearer", "Bearer t0ken"),
        ("token for an identity token", identity, "bearer", "Bearer t0ken"),
        ("basic", login.clone(), "basic", "Basic YWxpY2U6czNjcmV0"),
        ("basic without credentials", json!({}), "basic", "denied to strangers"),
        ("no challenge", login.clone(), "", "denied to us"),
        ("token service on plain http elsewhere", login.clone(), "elsewhere", "nonsense"),
        ("token service on another host, over http", login, "neighbour", "nonsense"),
    ];
    for (name, auth, challenge, expected) in table {
        let stub = Stub::start().await;
        let (client, _folder) = client(&stub.address, auth);
        let repository = client.repository(&stub.address, "a/b").unwrap();
        let realm = |host: &str| {
            format!(r#"Bearer realm="http://{host}/token",service="reg,istry",scope="repository:a/b:pull""#)
        };
        let challenge = match challenge {
            "bearer" => realm(&stub.address),
            "elsewhere" => realm("tokens.example"),
            "neighbour" => realm(&stub.address.replace("127.0.0.1", "localhost")),
            "basic" => r#"Basic realm="registry""#.to_owned(),
            other => other.to_owned(),
        };
        stub.guard("/v2/a/b/manifests/tag", &challenge, json!({}).to_string());
        stub.answer("/token", "application/json", json!({"token": "t0ken"}).to_string());
        let got = match repository.manifest("tag", 4096).await {
            Ok(_) => stub.asked.lock().unwrap().last().unwrap().1.clone(),
            Err(error) => kind(error).to_owned(),
        };
        assert_eq!(got, expected, "{name}");
        let asked = stub.asked.lock().unwrap().clone();
        let token = asked.iter().find(|(uri, _)| uri.starts_with("/token"));
        match name {
            "anonymous token" => assert_eq!(token.unwrap().1, ""),
            "token for a login" => {
                let (uri, authorization) = token.unwrap();
                assert_eq!(authorization, "Basic YWxpY2U6czNjcmV0");
                assert_eq!(uri, "/token?service=reg%2Cistry&scope=repository%3Aa%2Fb%3Apull");
            }
            "token service on another host, over http" => assert_eq!(token, None, "it is not even asked"),
            _ => {}
        }
    }
}

#[tokio::test]
async fn credentials_do_not_follow_a_redirect_to_another_host() {
    let (registry, storage) = (Stub::start().await, Stub::start().await);
    let (client, _folder) = client(&registry.address, json!({"auth": "YWxpY2U6czNjcmV0"}));
    let repository = client.repository(&registry.address, "a/b").unwrap();
    let blob = sha256(b"blob");
    registry.guard("/v2/a/b/manifests/tag", "Basic realm=\"r\"", "{}".into());
    repository.manifest("tag", 4096).await.unwrap();
    let target = format!("http://localhost:{}/stored", storage.address.rsplit(':').next().unwrap());
    registry.reply(&format!("/v2/a/b/blobs/{blob}"), 307, &[("location", &target)], "");
    storage.answer("/stored", "x/y", "blob");
    assert_eq!(&repository.blob(&blob, 99).await.unwrap()[..], b"blob");
    assert_eq!(storage.asked.lock().unwrap()[0], ("/stored".to_owned(), String::new()));
    let asked = registry.asked.lock().unwrap().clone();
    assert!(asked.last().unwrap().1.starts_with("Basic "), "the registry itself is told");

    registry.reply(&format!("/v2/a/b/blobs/{blob}"), 307, &[("location", "/v2/a/b/again")], "");
    registry.reply("/v2/a/b/again", 307, &[("location", "/v2/a/b/again")], "");
    assert_eq!(kind(repository.blob(&blob, 99).await.unwrap_err()), "unanswered", "a loop");
}
