//! `/snapshots` and `/rollback`, and what a person says to a job (`abort`, `settle`), row by row, against the real
//! server on a loopback port.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use processgit_updater::api;
use processgit_updater::update::door::AbortError;
use processgit_updater::update::job::{Job, State};
use processgit_updater::update::ports::{Distance, SnapshotInfo};
use processgit_updater::update::settle::SettleError;
use processgit_updater::update::{Order, RollbackView};
use serde_json::{Value, json};
use support::{JOB, Script, Server, TOKEN, ended, failed, job, snapshot};

/// The contract's "reads at most 1 MiB".
const MIB: usize = 1024 * 1024;

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

async fn answer(response: reqwest::Response) -> (u16, Value) {
    (response.status().as_u16(), response.json().await.unwrap())
}

async fn get(server: &Server, path: &str) -> (u16, Value) {
    answer(client().get(format!("{}{path}", server.url)).bearer_auth(TOKEN).send().await.unwrap()).await
}

/// Without a content type.
async fn post(server: &Server, path: &str, body: &'static str) -> (u16, Value) {
    let request = client().post(format!("{}{path}", server.url)).bearer_auth(TOKEN).body(body);
    answer(request.send().await.unwrap()).await
}

#[tokio::test]
async fn what_is_ordered() {
    let restore = |accept_drift| Order::Restore { snapshot: "gen-1".into(), accept_drift, accept_partial: false };
    let rollback = |with_data, accept_drift| Order::Rollback { with_data, accept_drift, accept_partial: false };
    for (path, body, expected) in [
        ("/snapshots", "", Ok(Order::Snapshot { hot: false })),
        ("/snapshots", " \n", Ok(Order::Snapshot { hot: false })),
        ("/snapshots", "{}", Ok(Order::Snapshot { hot: false })),
        ("/snapshots", r#"{"hot":true,"more":1}"#, Ok(Order::Snapshot { hot: true })),
        ("/snapshots", r#"{"hot":null}"#, Ok(Order::Snapshot { hot: false })),
        ("/snapshots", r#"{"hot":"yes"}"#, Err(400)),
        ("/snapshots", "[true]", Err(400)),
        ("/snapshots", "nonsense", Err(400)),
        ("/snapshots/gen-1/restore", "", Ok(restore(false))),
        ("/snapshots/gen-1/restore", r#"{"accept_drift":true}"#, Ok(restore(true))),
        ("/snapshots/gen-1/restore", r#"{"accept_drift":1}"#, Err(400)),
        ("/snapshots/gen-9/restore", "", Err(404)),
        ("/snapshots/gen%201/restore", "", Err(400)),
        ("/snapshots/..%2fgen-1/restore", "", Err(400)),
        ("/snapshots/%2e%2e%00/restore", "", Err(400)),
        ("/rollback", "", Ok(rollback(true, false))),
        ("/rollback", "{}", Ok(rollback(true, false))),
        ("/rollback", r#"{"with_data":false,"accept_drift":true}"#, Ok(rollback(false, true))),
        ("/rollback", r#"{"with_data":"no"}"#, Err(400)),
    ] {
        let server = Server::start(Script::default());
        let (status, json) = post(&server, path, body).await;
        let ordered = server.script.orders.lock().unwrap().pop();
        match expected {
            Ok(order) => {
                assert_eq!((status, ordered), (202, Some(order)), "{path} {body}");
                assert_eq!((&json["job_id"], &json["job"]["id"]), (&json!(JOB), &json!(JOB)));
                assert_eq!(json["status_url"], format!("/update/{JOB}"));
            }
            Err(code) => {
                assert_eq!((status, &json["code"], ordered), (code, &json!(code), None), "{path} {body}: {json}");
            }
        }
    }
}

#[tokio::test]
async fn ids() {
    let longest = "x".repeat(128);
    for (id, status) in [("gen-1", 404), ("A.b_c-9", 404), (&longest, 404), (&format!("{longest}x"), 400), ("a+b", 400)]
    {
        let server = Server::start(Script { snapshots: Some(Ok(vec![])), ..Script::default() });
        assert_eq!(get(&server, &format!("/snapshots/{id}/verify")).await.0, status, "{id}");
        assert_eq!(get(&server, &format!("/snapshots/{id}/export")).await.0, status, "{id}");
    }
}

#[tokio::test]
async fn a_list_newest_first_and_bounded() {
    let server = Server::start(Script::default());
    let (status, json) = get(&server, "/snapshots").await;
    assert_eq!((status, json["snapshots"].as_array().unwrap().len()), (200, 2));
    let first: SnapshotInfo = serde_json::from_value(json["snapshots"][0].clone()).unwrap();
    assert_eq!(first, snapshot("gen-2"));

    let many = (0..5000).map(|n| snapshot(&format!("gen-{n}"))).collect();
    let server = Server::start(Script { snapshots: Some(Ok(many)), ..Script::default() });
    let (_, json) = get(&server, "/snapshots").await;
    let shown = json["snapshots"].as_array().unwrap().len();
    assert!(json.to_string().len() <= MIB && shown > 500, "{shown}");
    assert_eq!(json["snapshots"][0]["id"], "gen-0", "the newest stay");
}

#[tokio::test]
async fn without_snapshots_every_route_says_why() {
    for path in ["/snapshots", "/snapshots/gen-1/verify", "/snapshots/gen-1/export"] {
        let server = Server::start(Script { snapshots: Some(Err("it is off")), ..Script::default() });
        assert_eq!(get(&server, path).await, (409, json!({"error": "it is off", "code": 409})), "{path}");
    }
}

#[tokio::test]
async fn verify() {
    let server = Server::start(Script::default());
    assert_eq!(get(&server, "/snapshots/gen-1/verify").await, (200, json!({"ok": true})));
    let server = Server::start(Script { damage: Some("data/x: other content"), ..Script::default() });
    let expected = json!({"ok": false, "error": "data/x: other content"});
    assert_eq!(get(&server, "/snapshots/gen-1/verify").await, (200, expected));
}

#[tokio::test]
async fn prune() {
    let server = Server::start(Script::default());
    assert_eq!(post(&server, "/snapshots/prune", "").await, (200, json!({"left": 2})));
    let server = Server::start(Script { prune_fails: Some("job job_1 is active"), ..Script::default() });
    assert_eq!(post(&server, "/snapshots/prune", "").await.0, 409);
}

#[tokio::test]
async fn an_export_arrives_byte_by_byte() {
    for size in [1, 1000, 5_000_001] {
        let archive: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
        let server = Server::start(Script { archive: archive.clone(), ..Script::default() });
        let url = format!("{}/snapshots/gen-1/export", server.url);
        let response = client().get(url).bearer_auth(TOKEN).send().await.unwrap();
        assert_eq!(response.headers()["content-type"], "application/zstd");
        assert_eq!(response.headers()["content-disposition"], "attachment; filename=\"gen-1.tar.zst\"");
        assert!(response.bytes().await.unwrap() == archive, "{size} bytes");
    }
}

#[tokio::test]
async fn an_export_that_fails_midway_is_not_taken_for_a_whole_one() {
    let script = Script { archive: vec![7; 300_000], export_fails: Some("data/x: I/O error"), ..Script::default() };
    let server = Server::start(script);
    let url = format!("{}/snapshots/gen-1/export", server.url);
    let response = client().get(url).bearer_auth(TOKEN).send().await.unwrap();
    assert_eq!(response.status(), 200, "it had begun");
    assert!(response.bytes().await.is_err(), "and was broken off");
    assert_eq!(get(&server, "/snapshots").await.0, 200, "the server goes on");

    let server = Server::start(Script { export_fails: Some("data/x: I/O error"), ..Script::default() });
    let (status, json) = get(&server, "/snapshots/gen-1/export").await;
    assert_eq!((status, &json["error"]), (500, &json!("data/x: I/O error")), "before the first byte it is an error");
}

#[tokio::test]
async fn a_client_that_goes_away_ends_the_export() {
    let server = Server::start(Script { archive: vec![7; 50_000_000], ..Script::default() });
    let url = format!("{}/snapshots/gen-1/export", server.url);
    let mut response = client().get(url).bearer_auth(TOKEN).send().await.unwrap();
    assert!(response.chunk().await.unwrap().is_some());
    drop(response);
    // The server can only stop when the writer has: nothing is left hanging on the channel.
    server.stop();
}

#[tokio::test]
async fn the_view_of_a_rollback() {
    let view = RollbackView {
        from_version: Some("0.1.2".into()),
        to_version: Some("0.1.1".into()),
        to_image: "ghcr.io/o/app:0.1.1".into(),
        snapshot: Some("gen-1".into()),
        written_since: Some(Distance { files: 3, bytes: 4096 }),
        not_counted: vec![],
        is_partial: false,
        changes: vec!["image".into()],
        warnings: vec![],
    };
    for (query, with_data) in [("", true), ("?with_data=", true), ("?with_data=true", true), ("?with_data=No", false)] {
        let server = Server::start(Script { view: Some(Ok(view.clone())), ..Script::default() });
        let (status, json) = get(&server, &format!("/rollback{query}")).await;
        assert_eq!((status, serde_json::from_value::<RollbackView>(json).unwrap()), (200, view.clone()), "{query}");
        assert_eq!(*server.script.views.lock().unwrap(), [with_data], "{query}");
    }
    let server =
        Server::start(Script { view: Some(Err("there is nothing to go back to".into())), ..Script::default() });
    let refused = json!({"error": "there is nothing to go back to", "code": 409});
    assert_eq!(get(&server, "/rollback").await, (409, refused));
    assert_eq!(get(&server, "/rollback?with_data=perhaps").await.0, 400);
}

#[tokio::test]
async fn large_bodies_are_refused_here_too() {
    let body: &'static str = Box::leak(" ".repeat(api::BODY_CAP + 1).into_boxed_str());
    for path in ["/snapshots", "/snapshots/gen-1/restore", "/rollback"] {
        let server = Server::start(Script::default());
        assert_eq!(post(&server, path, body).await.0, 413, "{path}");
    }
}

#[tokio::test]
async fn abort() {
    let text = |text: &str| text.to_owned();
    for (fails, status, said) in [
        (None, 202, ""),
        (Some(AbortError::Unknown(text("x"))), 404, "there is no job \"x\""),
        (Some(AbortError::TooLate(text("too late: swapping"))), 409, "too late: swapping"),
        (Some(AbortError::Journal(text("full"))), 500, "the job goes on: full"),
        (Some(AbortError::Stopping), 503, "the updater is stopping"),
    ] {
        let server = Server::start(Script { abort_fails: fails, ..Script::default() });
        let (answered, json) = post(&server, &format!("/update/{JOB}/abort"), "").await;
        assert_eq!(answered, status, "{json}");
        if status == 202 {
            assert_eq!((&json["job_id"], &json["job"]["id"]), (&json!(JOB), &json!(JOB)), "{json}");
            assert_eq!(json["status_url"], "/update/job_00000000000000a1");
        } else {
            assert!(json["error"].as_str().unwrap().contains(said), "{json}");
        }
        assert_eq!(*server.script.aborts.lock().unwrap(), [JOB]);
    }
}

fn knows(jobs: &[Job]) -> Script {
    let script = Script::default();
    script.history.lock().unwrap().extend(jobs.iter().cloned().map(Arc::new));
    script
}

#[tokio::test]
async fn settle() {
    let path = format!("/update/{JOB}/settle");
    let server = Server::start(knows(&[failed()]));
    let expected = |json: &Value| {
        assert_eq!((&json["job"]["id"], &json["job"]["state"]), (&json!(JOB), &json!("failed")), "{json}");
        assert_eq!(json["removes"], json!(["container guard-old", "image ghcr.io/o/app:0.1.2"]), "{json}");
        assert_eq!(json["released"], json!(["gen-1"]), "{json}");
    };
    let (status, shown) = get(&server, &path).await;
    assert_eq!(status, 200);
    expected(&shown);
    assert!(server.script.settled.lock().unwrap().is_empty(), "it was only shown");
    // Whatever the body is, none is wanted.
    for body in ["", "nonsense"] {
        let (status, done) = post(&server, &path, body).await;
        assert_eq!(status, 200, "{done}");
        expected(&done);
    }
    assert_eq!(*server.script.settled.lock().unwrap(), [JOB, JOB]);

    let committed = ended(job("v1", &[]), State::Committed, None);
    let fails = |error: SettleError| Script { settle_fails: Some(error), ..knows(&[failed()]) };
    let id = || JOB.to_owned();
    for (script, status, said) in [
        (Script::default(), 404, "there is no job"),
        (knows(&[committed]), 409, "does not wait for a person: it is committed"),
        (fails(SettleError::Busy { id: id(), state: State::Pulling }), 409, "is active (pulling)"),
        (fails(SettleError::Looking), 503, "ask again"),
    ] {
        let server = Server::start(script);
        let (answered, json) = post(&server, &path, "").await;
        assert_eq!((answered, &json["code"]), (status, &json!(status)), "{json}");
        assert!(json["error"].as_str().unwrap().contains(said), "{json}");
    }
}

#[tokio::test]
async fn who_needs_you_is_in_the_status() {
    let (_, status) = get(&Server::start(knows(&[])), "/status").await;
    assert!(status.get("needs_you").is_none(), "{status}");
    let settled = Job { needs_you: false, ..failed() };
    let (_, status) = get(&Server::start(knows(&[failed(), settled])), "/status").await;
    let since = status["needs_you"][0]["since"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert_eq!(Some(since), failed().completed_at);
    assert_eq!(status["needs_you"], json!([{"job": JOB, "since": since.to_string(), "error": "by hand"}]));
    let (_, history) = get(&Server::start(knows(&[failed()])), "/history").await;
    assert_eq!(history["jobs"][0]["needs_you"], true);
}
