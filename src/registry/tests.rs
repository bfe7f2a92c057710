use super::*;

#[tokio::test]
async fn the_ways_to_a_registry() {
    for (registry, expected) in [
        ("docker.io", &["https://registry-1.docker.io/v2/library/a/"][..]),
        ("index.docker.io", &["https://registry-1.docker.io/v2/library/a/"]),
        ("registry-1.docker.io", &["https://registry-1.docker.io/v2/library/a/"]),
        ("ghcr.io", &["https://ghcr.io/v2/a/"]),
        ("GHCR.io", &["https://ghcr.io/v2/a/"]),
        ("registry:5000", &["https://registry:5000/v2/a/"]),
        ("10.0.0.7:5000", &["https://10.0.0.7:5000/v2/a/"]),
        ("localhost:5000", &["http://localhost:5000/v2/a/", "https://localhost:5000/v2/a/"]),
        ("127.9.9.9:5000", &["http://127.9.9.9:5000/v2/a/", "https://127.9.9.9:5000/v2/a/"]),
        ("[::1]:5000", &["http://[::1]:5000/v2/a/", "https://[::1]:5000/v2/a/"]),
        ("localhost.evil.example", &["https://localhost.evil.example/v2/a/"]),
        ("127.0.0.1.evil.example", &["https://127.0.0.1.evil.example/v2/a/"]),
        ("nas.lan:5000", &["https://nas.lan:5000/v2/a/", "http://nas.lan:5000/v2/a/"]),
    ] {
        struct Nas;
        #[async_trait::async_trait]
        impl EngineRegistries for Nas {
            async fn insecure(&self) -> Option<InsecureRegistries> {
                let hosts = [("nas.lan:5000".to_owned(), false)].into();
                Some(InsecureRegistries { hosts, networks: vec![] })
            }
        }
        let client = Client::new(&Authorities::default()).like(Arc::new(Nas));
        let repository = client.repository(registry, "a").unwrap();
        let routes = repository.routes().await.unwrap();
        assert_eq!(routes.iter().map(|route| route.base.as_str()).collect::<Vec<_>>(), expected, "{registry}");
    }
}

#[test]
fn what_is_not_there_may_be_null() {
    let manifest: Manifest = serde_json::from_str(
        r#"{"manifests": null, "layers": [{"mediaType": null, "digest": "d", "annotations": null}], "config": null}"#,
    )
    .unwrap();
    assert!(manifest.manifests.is_empty() && manifest.layers[0].annotations.is_empty());
}
