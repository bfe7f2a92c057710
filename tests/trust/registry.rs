//! The registry client against a registry that answers whatever a row wants.

use processgit_updater::https::Authorities;
use processgit_updater::registry::{Client, RegistryError};
use serde_json::json;

use crate::lab::{BUNDLE, INDEX, MANIFEST, Stub, sha256};

const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn kind(error: RegistryError) -> &'static str {
    match error {
        RegistryError::Name(_) => "name",
        RegistryError::Unavailable(_) => "unavailable",
        RegistryError::Denied(_) => "denied",
        RegistryError::Corrupt(_) => "corrupt",
    }
}

/// A client with these credentials for `address`.
fn client(address: &str, auth: serde_json::Value) -> (Client, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.json");
    std::fs::write(&file, json!({"auths": {address: auth}}).to_string()).unwrap();
    (Client::new(&Authorities::default()).with_docker_config(file), folder)
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
    let repository = Client::new(&Authorities::default()).repository(&stub.address, "a/b").unwrap();
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
        ("tag", manifest.len() - 1, "corrupt"),
        (DIGEST, 4096, "corrupt"),
        ("page", 4096, "corrupt"),
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
        (&blob, 3, "corrupt"),
        (DIGEST, 99, "corrupt"),
        (&absent, 99, "corrupt"),
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
        (200, INDEX, "{".to_owned(), "corrupt"),
        (429, "text/plain", String::new(), "unavailable"),
        (500, "text/plain", String::new(), "unavailable"),
        (503, "text/plain", String::new(), "unavailable"),
    ];
    let stub = Stub::start().await;
    let repository = Client::new(&Authorities::default()).repository(&stub.address, "a/b").unwrap();
    let path = format!("/v2/a/b/referrers/{DIGEST}");
    for (status, kind_of, body, expected) in table {
        stub.reply(&path, status, &[("content-type", kind_of)], &body);
        let got = match repository.referrers(DIGEST, 4096).await {
            Ok(Some(list)) => format!("{} found", list.len()),
            Ok(None) => "no such API".to_owned(),
            Err(error) => kind(error).to_owned(),
        };
        assert_eq!(got, expected, "{status} {kind_of} {body}");
    }
    stub.reply(&path, 200, &[("content-type", INDEX), ("link", "</v2/a/b/more>; rel=\"next\"")], &index(&["one"]));
    stub.reply("/v2/a/b/more", 200, &[("content-type", INDEX)], &index(&["two", "three"]));
    assert_eq!(repository.referrers(DIGEST, 4096).await.unwrap().unwrap().len(), 3);
    stub.reply(
        &path,
        200,
        &[("content-type", INDEX), ("link", "<http://127.0.0.1:1/x>; rel=\"next\"")],
        &index(&["one"]),
    );
    assert_eq!(repository.referrers(DIGEST, 4096).await.unwrap().unwrap().len(), 1, "pages stay on the host");
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
        ("basic without credentials", json!({}), "basic", "denied"),
        ("no challenge", login.clone(), "", "denied"),
        ("token service on plain http elsewhere", login, "elsewhere", "unavailable"),
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
    assert_eq!(kind(repository.blob(&blob, 99).await.unwrap_err()), "unavailable", "a loop");
}
