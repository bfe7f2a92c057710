//! Where the signatures of an image may be, and how much is looked through to find them. Whether one counts is
//! not asked here.

use processgit_updater::https::Authorities;
use processgit_updater::registry::{Client, Limits, RegistryFault};
use processgit_updater::trust::image::Search;
use serde_json::{Value, json};

use crate::lab::{BUNDLE, INDEX, MANIFEST, SIMPLE, Stub, sha256};
use crate::registry::QUICK;

const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const REFERRERS: &str = "/v2/a/b/referrers/sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const FALLBACK: &str = "/v2/a/b/manifests/sha256-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A manifest with so many signatures, told apart by `name`; its entry in a list.
fn manifest(stub: &Stub, name: &str, kind: &str, signatures: usize) -> Value {
    let layers: Vec<Value> = (0..signatures)
        .map(|at| {
            let blob = format!("{name} {at}");
            let digest = sha256(blob.as_bytes());
            stub.answer(&format!("/v2/a/b/blobs/{digest}"), "application/octet-stream", blob);
            json!({"mediaType": kind, "digest": digest})
        })
        .collect();
    let manifest = json!({"schemaVersion": 2, "layers": layers, "annotations": {"name": name}}).to_string();
    let digest = sha256(manifest.as_bytes());
    stub.answer(&format!("/v2/a/b/manifests/{digest}"), MANIFEST, manifest);
    json!({"mediaType": MANIFEST, "digest": digest})
}

/// A page of a list, with its `Link` header if it has one.
fn list(stub: &Stub, path: &str, entries: &[Value], link: &str) {
    let headers = [("content-type", INDEX), ("link", link)];
    let headers = &headers[..if link.is_empty() { 1 } else { 2 }];
    stub.reply(path, 200, headers, &json!({"manifests": entries}).to_string());
}

/// How many were found, and the kinds of what could not be read.
async fn found(stub: &Stub, limits: Limits) -> (usize, Vec<RegistryFault>) {
    let client = Client::new(&Authorities::default()).within(limits);
    let repository = client.with_docker_config("/nonexistent".into()).repository(&stub.address, "a/b").unwrap();
    let mut search = Search::new(&repository, DIGEST);
    let (mut count, mut unread) = (0, Vec::new());
    while let Some(found) = search.next().await {
        match found {
            Ok(_) => count += 1,
            Err(error) => unread.push(error.fault),
        }
    }
    (count, unread)
}

#[tokio::test]
async fn the_tag_that_stands_in_for_the_list_is_always_looked_at() {
    for (status, kind, body) in [
        (200, INDEX, r#"{"manifests": []}"#),
        (200, INDEX, r#"{"manifests": null}"#),
        (200, INDEX, "{}"),
        (200, "text/html", "<html>"),
        (400, "text/plain", ""),
        (403, "text/plain", ""),
        (404, "text/plain", ""),
        (405, "text/plain", ""),
        (501, "text/plain", ""),
    ] {
        let stub = Stub::start().await;
        stub.reply(REFERRERS, status, &[("content-type", kind)], body);
        let entry = manifest(&stub, "one", BUNDLE, 1);
        list(&stub, FALLBACK, &[entry], "");
        assert_eq!(found(&stub, QUICK).await, (1, vec![]), "{status} {kind} {body}");
    }
}

#[tokio::test]
async fn all_places_are_looked_at_and_what_is_in_two_of_them_once() {
    let stub = Stub::start().await;
    let (both, other) = (manifest(&stub, "both", BUNDLE, 1), manifest(&stub, "other", BUNDLE, 1));
    list(&stub, REFERRERS, std::slice::from_ref(&both), "");
    list(&stub, FALLBACK, &[both, other], "");
    let old = manifest(&stub, "old", SIMPLE, 3);
    let path = format!("/v2/a/b/manifests/{}", old["digest"].as_str().unwrap());
    let body = stub.body(&path);
    stub.answer(&format!("{FALLBACK}.sig"), MANIFEST, body);
    assert_eq!(found(&stub, QUICK).await, (5, vec![]));
    let asked = stub.asked.lock().unwrap().clone();
    assert_eq!(asked.iter().filter(|(uri, _)| uri.contains("/blobs/")).count(), 5);
}

#[tokio::test]
async fn a_list_goes_on_wherever_the_registry_says_and_only_there_is_asked() {
    let stranger = Stub::start().await;
    for (link, expected) in [
        ("</v2/a/b/more?last=1>; rel=\"next\"".to_owned(), 1),
        ("<more>; rel=next".to_owned(), 0),
        ("</v2/a/b/more>; rel=\"Next\"".to_owned(), 1),
        ("</v2/a/b/more?a=1,2>; REL=NEXT".to_owned(), 1),
        ("</v2/a/b/first>; rel=\"first\", </v2/a/b/more>; rel=\"next\"".to_owned(), 1),
        ("<http://inner.example:5000/v2/a/b/more>; rel=\"next\"".to_owned(), 1),
        (format!("<{}/v2/a/b/more>; rel=\"next\"", stranger.url()), 1),
        ("<https://inner.example/v2/a/b/more>; rel=\"next\"".to_owned(), 1),
        ("<https://evil.example/elsewhere>; rel=\"next\"".to_owned(), 0),
    ] {
        let stub = Stub::start().await;
        let entry = manifest(&stub, "one", BUNDLE, 1);
        list(&stub, REFERRERS, &[], &link);
        list(&stub, "/v2/a/b/more", &[entry], "");
        let (count, unread) = found(&stub, QUICK).await;
        assert_eq!(count, expected, "{link}");
        assert_eq!(unread.len(), 1 - expected, "what is not had is told: {link}");
    }
    assert!(stranger.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn many_pages_many_manifests_and_many_layers() {
    let stub = Stub::start().await;
    for page in 0..12 {
        let path = if page == 0 { REFERRERS.to_owned() } else { format!("/v2/a/b/page{page}") };
        let entries: Vec<Value> = (0..5).map(|at| manifest(&stub, &format!("{page} {at}"), "text/plain", 1)).collect();
        let link = if page < 11 { format!("</v2/a/b/page{}>; rel=\"next\"", page + 1) } else { String::new() };
        list(&stub, &path, &entries, &link);
    }
    let last = manifest(&stub, "last", BUNDLE, 40);
    list(&stub, "/v2/a/b/page11", &[last], "");
    assert_eq!(found(&stub, QUICK).await, (40, vec![]));
}

/// A list without an end, and one that leads in a circle.
#[tokio::test]
async fn what_is_too_much_is_told() {
    let stub = Stub::start().await;
    let entries: Vec<Value> = (0..50).map(|at| manifest(&stub, &format!("{at}"), BUNDLE, 1)).collect();
    list(&stub, REFERRERS, &entries, "");
    let (count, unread) = found(&stub, Limits { bytes: 12_000, ..QUICK }).await;
    assert!(count < 50 && unread.contains(&RegistryFault::Budget), "{count} {unread:?}");

    let stub = Stub::start().await;
    list(&stub, REFERRERS, &[], "</v2/a/b/x>; rel=\"next\"");
    list(&stub, "/v2/a/b/x", &[], "</v2/a/b/y>; rel=\"next\"");
    list(&stub, "/v2/a/b/y", &[], "</v2/a/b/x>; rel=\"next\"");
    assert_eq!(found(&stub, QUICK).await, (0, vec![]));
}

/// Whoever has found a good one stops asking, however much there is.
#[tokio::test]
async fn the_likely_places_come_first() {
    let stub = Stub::start().await;
    let mut entries: Vec<Value> = (0..30).map(|at| manifest(&stub, &format!("{at}"), "text/plain", 1)).collect();
    let mut signed = manifest(&stub, "signed", BUNDLE, 1);
    signed["artifactType"] = BUNDLE.into();
    entries.push(signed);
    list(&stub, REFERRERS, &entries, "");
    let client = Client::new(&Authorities::default()).with_docker_config("/nonexistent".into());
    let repository = client.repository(&stub.address, "a/b").unwrap();
    assert!(Search::new(&repository, DIGEST).next().await.unwrap().is_ok());
    assert_eq!(stub.asked.lock().unwrap().len(), 3, "the list, the manifest, the signature");
}
