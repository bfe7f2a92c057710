//! What a real engine is hard to be brought to: other versions, being away. An engine of a few lines
//! stands in.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::{StatusCode, Uri};
use axum::response::IntoResponse;

use super::super::Mount;
use super::*;

/// Answers `/version` as told, and everything else from a list, the last one again and again.
struct Stub {
    engine: DockerEngine,
    /// `ApiVersion`, `MinAPIVersion`
    speaks: Arc<Mutex<(&'static str, &'static str)>>,
    /// Every path asked for.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Stub {
    async fn new(newest: &'static str, oldest: &'static str, answers: Vec<(u16, &'static str)>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let engine = DockerEngine::new(&format!("tcp://{}", listener.local_addr().unwrap()), false).unwrap();
        let (speaks, asked) = (Arc::new(Mutex::new((newest, oldest))), Arc::new(Mutex::new(Vec::new())));
        let (speaking, asking, answers) = (speaks.clone(), asked.clone(), Mutex::new(answers));
        let answer = move |uri: Uri| {
            asking.lock().unwrap().push(uri.path().to_owned());
            if uri.path() == "/version" {
                let (newest, oldest) = *speaking.lock().unwrap();
                return format!(r#"{{"ApiVersion":"{newest}","MinAPIVersion":"{oldest}"}}"#).into_response();
            }
            let mut answers = answers.lock().unwrap();
            let (status, body) = if answers.len() > 1 { answers.remove(0) } else { answers[0] };
            (StatusCode::from_u16(status).unwrap(), body).into_response()
        };
        let answer = Arc::new(answer);
        let router = Router::new().fallback(move |uri: Uri| {
            let answer = answer.clone();
            async move { answer(uri) }
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { engine, speaks, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

const NOT_THERE: (u16, &str) = (404, r#"{"message":"No such container: app"}"#);

#[test]
fn references_are_split_at_the_tag() {
    for (reference, repository, tag) in [
        ("registry:5000/foo/bar:0.1", "registry:5000/foo/bar", "0.1"),
        ("[::1]:5000/foo:0.1", "[::1]:5000/foo", "0.1"),
        ("foo:5000", "foo", "5000"),
        // The engine means `latest` where there is no tag.
        ("foo", "foo", "latest"),
        ("registry:5000/foo", "registry:5000/foo", "latest"),
    ] {
        assert_eq!(split_tag(reference).unwrap(), (repository.to_owned(), tag.to_owned()));
    }
    let pinned = format!("foo:1@sha256:{}", "0".repeat(64));
    for bad in ["foo:", ":1", "foo@sha256:00", &pinned] {
        assert!(split_tag(bad).is_err(), "{bad}");
    }
}

#[test]
fn names_stay_in_their_place() {
    for good in ["processgit", "a_b-c.d", "ghcr.io/a/b:1.0", "r:5000/a@sha256:00", "[::1]:5000/a:1"] {
        assert!(checked(good).is_ok(), "{good}");
    }
    for bad in ["", "..", "../images", "a/../b", "/a", "a//b", "a?force=true", "a b", "a%2f", "ä"] {
        assert!(checked(bad).is_err(), "{bad}");
    }
}

#[tokio::test]
async fn an_engine_that_is_not_there_is_unreachable() {
    let engine = DockerEngine::new("unix:///nowhere/docker.sock", false).unwrap();
    let error = engine.container("app").await.unwrap_err();
    assert!(error.is_unreachable() && error.to_string().contains("/nowhere/docker.sock"), "{error}");
    let refused = DockerEngine::new("tcp://127.0.0.1:1", false).unwrap().info().await.unwrap_err();
    assert!(refused.is_unreachable() && refused.to_string().contains("refused"), "{refused}");
}

#[tokio::test]
async fn the_newest_version_that_both_know_is_spoken() {
    let cases = [
        ("1.41", "1.12", "/v1.41"),
        ("1.51", "1.24", "/v1.51"),
        ("1.99", "1.44", "/v1.53"),
        ("1.99", "1.60", "/v1.60"),
    ];
    for (newest, oldest, spoken) in cases {
        let stub = Stub::new(newest, oldest, vec![NOT_THERE]).await;
        assert_eq!(stub.engine.container("app").await.unwrap(), None);
        assert_eq!(stub.asked(), ["/version".to_owned(), format!("{spoken}/containers/app/json")]);
    }
}

#[tokio::test]
async fn an_engine_that_was_away_may_come_back_as_another() {
    let stub = Stub::new("1.44", "1.24", vec![(503, "no server is available"), NOT_THERE]).await;
    let away = stub.engine.container("app").await.unwrap_err();
    assert!(away.is_unreachable() && away.to_string().contains("503 no server"), "{away}");
    *stub.speaks.lock().unwrap() = ("1.51", "1.24");
    assert_eq!(stub.engine.container("app").await.unwrap(), None);
    assert_eq!(stub.asked()[2..], ["/version", "/v1.51/containers/app/json"]);
}

#[tokio::test]
async fn waiting_goes_on_when_the_engine_restarts() {
    let answers = vec![(200, ""), (502, "gone"), (200, r#"{"StatusCode":5}"#)];
    let stub = Stub::new("1.51", "1.24", answers).await;
    assert_eq!(stub.engine.wait("app").await.unwrap(), 5);
    let waits = stub.asked().into_iter().filter(|path| path.ends_with("/wait")).count();
    assert_eq!(waits, 3);
}

const CREATED: &str = r#"{"Id":"app","Name":"/app","State":{"Status":"created"},"Config":{},"HostConfig":{}}"#;
const REMOVING: &str = r#"{"Id":"app","Name":"/app","State":{"Status":"removing"},"Config":{},"HostConfig":{}}"#;

/// Status and body of each.
type Answers = Vec<(u16, &'static str)>;

/// The engine says 404 and 409 for several reasons; which one it is shows in a look at the container.
#[tokio::test]
async fn what_a_refusal_means_is_looked_up() {
    let words = r#"{"message":"in whatever words"}"#;
    let started: [(&str, Answers, &str); 3] = [
        ("it is gone", vec![(404, words)], "container app does not exist"),
        ("something else is", vec![(404, words), (200, CREATED)], "starting container app: in whatever words"),
        ("the engine went away", vec![(404, words), (503, "")], "the Docker engine does not answer: "),
    ];
    for (what, answers, expected) in started {
        let error = Stub::new("1.51", "1.24", answers).await.engine.start("app").await.unwrap_err().to_string();
        assert!(error.starts_with(expected), "{what}: {error}");
    }
    let removed: [(&str, Answers, Option<&str>); 5] = [
        ("it was gone", vec![(404, words)], None),
        ("it is gone by now", vec![(409, words), (404, words)], None),
        ("another is removing it", vec![(409, words), (200, REMOVING), (200, REMOVING), (404, words)], None),
        ("it is held", vec![(409, words), (200, CREATED)], Some("removing container app: in whatever words")),
        (
            "a proxy has no such call",
            vec![(404, words), (200, CREATED)],
            Some("removing container app: in whatever words"),
        ),
    ];
    for (what, answers, expected) in removed {
        let removed = Stub::new("1.51", "1.24", answers).await.engine.remove("app").await;
        assert_eq!(removed.err().map(|error| error.to_string()).as_deref(), expected, "{what}");
    }
}

#[tokio::test]
async fn a_folder_of_a_volume_is_not_asked_of_an_engine_that_would_mount_all_of_it() {
    let stub = Stub::new(
        "1.44",
        "1.24",
        vec![(200, r#"{"Name":"data","Driver":"local","Mountpoint":"","Labels":{},"Scope":"local","Options":{}}"#)],
    )
    .await;
    let mount = Mount {
        kind: MountKind::Volume,
        name: "data".into(),
        source: String::new(),
        destination: "/data".into(),
        writable: true,
        subpath: "sub".into(),
    };
    let spec =
        ContainerSpec { name: "helper".into(), image: "sha256:1".into(), mounts: vec![mount], ..Default::default() };
    let error = stub.engine.create(&spec).await.unwrap_err().to_string();
    assert!(error.contains("folder sub of volume data") && error.contains("Docker 26"), "{error}");
    assert!(!stub.asked().iter().any(|path| path.ends_with("/create")));
}
