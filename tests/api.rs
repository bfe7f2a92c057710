//! The HTTP contract, row by row, against the real server on a loopback port.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use processgit_updater::api;
use processgit_updater::doctor::Finding;
use processgit_updater::release::{Channel, SourceError, SourceFault};
use processgit_updater::settings::Listen;
use processgit_updater::update::job::{Job, State};
use processgit_updater::update::refusal::{Code, Refusal};
use processgit_updater::update::{Check, CheckRequest, Request, SubmitError};
use reqwest::Method;
use serde_json::{Value, json};
use support::{JOB, Script, Server, TOKEN, ended, job, maximal, release};
use tower::ServiceExt;

const MIB: usize = 1024 * 1024; // the contract's "reads at most 1 MiB"

/// Every private route, with a method it answers.
const PRIVATE: [(&str, &str); 21] = [
    ("GET", "/status"),
    ("GET", "/doctor"),
    ("GET", "/releases/latest"),
    ("GET", "/releases/latest?channel=nonsense"),
    ("GET", "/check"),
    ("POST", "/update"),
    ("GET", "/update/job_00000000000000a1"),
    ("GET", "/update/job_00000000000000a1/log"),
    ("POST", "/update/job_00000000000000a1/abort"),
    ("GET", "/update/job_00000000000000a1/settle"),
    ("POST", "/update/job_00000000000000a1/settle"),
    ("GET", "/history"),
    ("GET", "/snapshots"),
    ("POST", "/snapshots"),
    ("POST", "/snapshots/prune"),
    ("GET", "/snapshots/gen-1/verify"),
    ("GET", "/snapshots/gen-1/export"),
    ("POST", "/snapshots/gen-1/restore"),
    ("GET", "/rollback"),
    ("POST", "/rollback"),
    ("GET", "/there/is/no/such/route"),
];

struct Answer {
    status: u16,
    headers: reqwest::header::HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        assert_eq!(self.headers["content-type"], "application/json");
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The text, when this is the contract's error with `status`.
    fn error(&self, status: u16) -> String {
        let json = self.json();
        assert_eq!((self.status, json["code"].as_u64()), (status, Some(status.into())), "{json}");
        assert_eq!(json.as_object().unwrap().len(), 2, "error and code, nothing else: {json}");
        json["error"].as_str().filter(|text| !text.is_empty()).unwrap().to_owned()
    }
}

async fn send(
    server: &Server,
    build: impl FnOnce(&reqwest::Client, String) -> reqwest::RequestBuilder,
    path: &str,
) -> Answer {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let response = build(&client, format!("{}{path}", server.url)).send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Answer { status, headers, body: response.bytes().await.unwrap().to_vec() }
}

async fn get(server: &Server, path: &str) -> Answer {
    send(server, |client, url| client.get(url).bearer_auth(TOKEN), path).await
}

/// Without a content type, as older clients do.
async fn post(server: &Server, body: impl Into<reqwest::Body>) -> Answer {
    send(server, |client, url| client.post(url).bearer_auth(TOKEN).body(body), "/update").await
}

#[tokio::test]
async fn healthz_needs_no_token() {
    let server = Server::start(Script::default());
    let answer = send(&server, |client, url| client.get(url), "/healthz").await;
    let json = answer.json();
    assert_eq!((answer.status, &json["status"], &json["version"]), (200, &json!("ok"), &json!(api::VERSION)));
    json["time"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
}

#[tokio::test]
async fn everything_else_needs_the_token() {
    let wrong = ["Bearer wrong", "Basic Y29ycmVjdA==", "Bearer ", TOKEN];
    for (method, path) in PRIVATE {
        // One server each: a dozen wrong tokens are slowed.
        let server = Server::start(Script::default());
        let ask = |client: &reqwest::Client, url| client.request(method.parse::<Method>().unwrap(), url);
        let answer = send(&server, ask, path).await;
        answer.error(401);
        assert_eq!(answer.headers["www-authenticate"], "Bearer", "{method} {path}");
        for value in wrong {
            let answer = send(&server, |c, url| ask(c, url).header("authorization", value), path).await;
            assert!(!answer.error(401).contains(TOKEN), "{method} {path} with {value:?}");
        }
        let in_url = format!("{path}{}token={TOKEN}", if path.contains('?') { '&' } else { '?' });
        send(&server, ask, &in_url).await.error(401);
        assert!(server.script.orders.lock().unwrap().is_empty(), "{method} {path}");
    }
}

#[tokio::test]
async fn the_doctors_report() {
    let bad = Finding::bad("engine", Refusal::new(Code::EngineUnreachable, "no answer").text("start the engine"));
    let server = Server::start(Script { findings: vec![Finding::ok("stub", "off"), bad], ..Script::default() });
    let json = get(&server, "/doctor").await.json();
    let findings = json!([
        {"check": "stub", "verdict": "ok", "seen": "off"},
        {"check": "engine", "verdict": "bad", "seen": "no answer", "code": "engine_unreachable",
         "remedy": "start the engine", "remedy_kind": "text"},
    ]);
    assert_eq!((&json["ok"], &json["version"], &json["findings"]), (&json!(false), &json!(api::VERSION), &findings));
}

#[tokio::test]
async fn unknown_routes_and_methods_have_the_shape_too() {
    let server = Server::start(Script::default());
    for (method, path, status) in [
        ("GET", "/", 404),
        ("GET", "/there/is/no/such/route", 404),
        ("GET", "/status/", 404),
        ("GET", "//status", 404),
        ("GET", "/update/a/b", 404),
        ("GET", "/update/", 404),
        ("POST", "/status", 405),
        ("DELETE", "/healthz", 405),
        ("GET", "/update", 405),
        ("PUT", "/update", 405),
        ("POST", "/update/job_00000000000000a1", 405),
        ("GET", "/update/job_00000000000000a1/abort", 405),
        ("DELETE", "/update/job_00000000000000a1/settle", 405),
        ("POST", "/update/a/settle", 404),
        ("DELETE", "/history", 405),
        ("BREW", "/check", 405),
        ("GET", "/snapshots/gen-1", 404),
        ("GET", "/snapshots/prune", 405),
        ("DELETE", "/snapshots", 405),
        ("POST", "/snapshots/gen-1/verify", 405),
        ("GET", "/snapshots/gen-1/restore", 405),
        ("DELETE", "/rollback", 405),
        ("GET", "/update/%ff%fe", 400),
        ("GET", "/update/a/log?offset=-1", 400),
        ("GET", "/update/a/log?offset=many", 400),
    ] {
        let method: Method = method.parse().unwrap();
        let answer = send(&server, |c, url| c.request(method.clone(), url).bearer_auth(TOKEN), path).await;
        let text = answer.error(status);
        assert_eq!(answer.headers.contains_key("allow"), status == 405, "{method} {path}: {text}");
    }
}

#[tokio::test]
async fn status_with_and_without_a_job() {
    let server = Server::start(Script::default());
    let json = get(&server, "/status").await.json();
    assert_eq!(json["active_job"], Value::Null);
    assert!(json["started_at"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
    assert_eq!(
        (&json["version"], &json["recent_jobs_count"], &json["stub"], &json["trust"]),
        (&json!(api::VERSION), &json!(0), &json!(true), &json!("keyless: https://issuer.example"))
    );

    let active = Arc::new(job("v0.1.2", &[(State::Planning, "looking")]));
    *server.script.active.lock().unwrap() = Some(active.clone());
    *server.script.history.lock().unwrap() = vec![active];
    let json = get(&server, "/status").await.json();
    assert_eq!(json["active_job"]["id"], JOB);
    assert_eq!(json["active_job"]["steps"][0]["output"], "looking\n");
    assert_eq!(json["recent_jobs_count"], 1);
}

#[tokio::test]
async fn latest_release_by_channel() {
    for (query, status, asked) in [
        ("", 200, Some(Channel::Stable)),
        ("?channel=", 200, Some(Channel::Stable)),
        ("?channel=stable", 200, Some(Channel::Stable)),
        ("?channel=prerelease", 200, Some(Channel::Prerelease)),
        ("?channel=Stable", 400, None),
        ("?channel=beta", 400, None),
        ("?channel=stable&channel=stable", 400, None),
        ("?other=1", 200, Some(Channel::Stable)),
    ] {
        let server = Server::start(Script::default());
        let answer = get(&server, &format!("/releases/latest{query}")).await;
        if status == 200 {
            let expected = json!({
                "tag": "v0.1.2", "name": "Release v0.1.2", "prerelease": false,
                "html_url": "https://git.example/releases/v0.1.2", "published_at": "2026-01-02T02:04:05Z",
            });
            assert_eq!(answer.json(), expected, "{query}");
        } else {
            answer.error(status);
        }
        assert_eq!(server.script.channels.lock().unwrap().first().copied(), asked, "{query}");
    }
}

#[tokio::test]
async fn a_source_that_has_nothing_is_told_from_one_that_fails() {
    for (fault, status) in [
        (SourceError::not_found("no release in channel stable"), 404),
        (SourceError::timeout("api.github.com: timed out"), 502),
        (SourceError::new(SourceFault::TooLarge, "the answer exceeds 8 MiB"), 502),
    ] {
        let server = Server::start(Script { latest: Some(Err(fault.clone())), ..Script::default() });
        assert_eq!(get(&server, "/releases/latest").await.error(status), fault.told());
    }
}

#[tokio::test]
async fn an_accepted_update() {
    let server = Server::start(Script::default());
    for content_type in [None, Some("application/json"), Some("text/plain"), Some("nonsense")] {
        let answer = send(
            &server,
            |client, url| {
                let request = client.post(url).bearer_auth(TOKEN).body(r#"{"target_tag":"v0.1.2"}"#);
                content_type.into_iter().fold(request, |r, value| r.header("content-type", value))
            },
            "/update",
        )
        .await;
        let json = answer.json();
        assert_eq!(answer.status, 202, "{content_type:?}");
        assert_eq!(json["job_id"], JOB);
        assert_eq!(json["status_url"], format!("/update/{JOB}"));
        assert_eq!((&json["job"]["id"], &json["job"]["target_tag"]), (&json!(JOB), &json!("v0.1.2")));
    }
}

#[tokio::test]
async fn bodies_of_an_update() {
    let plain = Request { target_tag: "v1".into(), ..Request::default() };
    for (body, expected) in [
        (r#"{"target_tag":"v1"}"#, Ok(plain.clone())),
        (r#" {"target_tag" : "v1", "unknown": [1, {"x": null}]} "#, Ok(plain.clone())),
        (r#"{"target_tag":"v1","allow_downgrade":true}"#, Ok(Request { allow_downgrade: true, ..plain.clone() })),
        (r#"{"target_tag":"v1","accept_drift":true}"#, Ok(Request { accept_drift: true, ..plain.clone() })),
        (r#"{"target_tag":"v1","retry":true}"#, Ok(Request { retry: true, ..plain.clone() })),
        (r#"{"target_tag":"v1","accept_unwell":true}"#, Ok(Request { accept_unwell: true, ..plain.clone() })),
        ("", Err(400)),
        ("nonsense", Err(400)),
        ("{", Err(400)),
        ("{} {}", Err(400)),
        ("null", Err(400)),
        ("[\"v1\"]", Err(400)),
        ("\"v1\"", Err(400)),
        ("{}", Err(400)),
        (r#"{"target_tag":null}"#, Err(400)),
        (r#"{"target_tag":""}"#, Err(400)),
        (r#"{"target_tag":1}"#, Err(400)),
        (r#"{"target_tag":["v1"]}"#, Err(400)),
        (r#"{"target_tag":"v1","retry":"yes"}"#, Err(400)),
        (r#"{"TARGET_TAG":"v1"}"#, Err(400)),
    ] {
        let server = Server::start(Script::default());
        let answer = post(&server, body).await;
        let asked = server.script.requests().pop();
        match expected {
            Ok(request) => assert_eq!((answer.status, asked), (202, Some(request)), "{body}"),
            Err(status) => {
                answer.error(status);
                assert_eq!(asked, None, "{body}");
            }
        }
    }
    let server = Server::start(Script::default());
    post(&server, b"{\"target_tag\":\"\xff\"}".to_vec()).await.error(400);
    post(&server, "[".repeat(10_000)).await.error(400);
}

#[tokio::test]
async fn tags() {
    let longest = "v".repeat(128);
    let too_long = "v".repeat(129);
    for (tag, valid) in [
        ("v0.1.2", true),
        ("0.1.2", true),
        ("v1.0.0-rc.1+build_5", true),
        ("A", true),
        ("9..", true),
        (longest.as_str(), true),
        (too_long.as_str(), false),
        (" v1", false),
        ("v1 ", false),
        ("v1\n", false),
        (".v1", false),
        ("-v1", false),
        ("_v1", false),
        ("+1", false),
        ("v1/../../etc", false),
        ("v1%2e", false),
        ("v1:latest", false),
        ("v1@sha256", false),
        ("$(reboot)", false),
        ("vé", false),
        ("v\0", false),
        ("ѵ1", false),
    ] {
        let server = Server::start(Script::default());
        let answer = post(&server, json!({ "target_tag": tag }).to_string()).await;
        if valid {
            assert_eq!(answer.status, 202, "{tag:?}");
        } else {
            answer.error(400);
        }
        assert_eq!(server.script.requests().len(), usize::from(valid), "{tag:?}");
    }
}

#[tokio::test]
async fn oversize_bodies_are_refused() {
    let padded = |bytes: usize| {
        let head = r#"{"target_tag":"v1","pad":""#;
        format!("{head}{}\"}}", "x".repeat(bytes - head.len() - 2))
    };
    let server = Server::start(Script::default());
    for (bytes, status) in [(api::BODY_CAP, 202), (api::BODY_CAP + 1, 413), (MIB, 413)] {
        let body = padded(bytes);
        assert_eq!(body.len(), bytes);
        assert_eq!(post(&server, body.clone()).await.status, status, "{bytes} announced bytes");
        let chunks = body.into_bytes().chunks(1000).map(|c| Ok::<_, std::io::Error>(c.to_vec())).collect::<Vec<_>>();
        let stream = reqwest::Body::wrap_stream(futures_util::stream::iter(chunks));
        // A server that has answered need not read the rest: hyper may then report a broken pipe.
        if bytes < MIB {
            assert_eq!(post(&server, stream).await.status, status, "{bytes} bytes in chunks");
        }
    }
    post(&server, padded(api::BODY_CAP + 1)).await.error(413);
    assert_eq!(server.script.requests().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_comes_is_given_up() {
    let router = api::router(Arc::new(Script::default()), Arc::new(Script::default()), TOKEN.into());
    let never = Body::from_stream(futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>());
    let request = axum::http::Request::post("/update").header("authorization", format!("Bearer {TOKEN}"));
    let response = router.oneshot(request.body(never).unwrap()).await.unwrap();
    assert_eq!(response.status(), 408);
}

#[tokio::test]
async fn refused_jobs() {
    let busy = job("v0.1.1", &[(State::Pulling, "")]);
    for (refusal, status, text) in [
        (SubmitError::Busy(Box::new(busy)), 409, JOB),
        (SubmitError::Stopping, 503, "stopping"),
        (SubmitError::Journal("no space left".into()), 500, "no space left"),
    ] {
        let script = Script { submits: Mutex::new([Err(refusal)].into()), ..Script::default() };
        let server = Server::start(script);
        let error = post(&server, r#"{"target_tag":"v1"}"#).await.error(status);
        assert!(error.contains(text), "{error}");
    }
}

#[tokio::test]
async fn of_twenty_at_once_one_is_accepted() {
    let busy = || Err(SubmitError::Busy(Box::new(job("v1", &[(State::Planning, "")]))));
    let mut submits = vec![Ok(job("v1", &[]))];
    submits.extend((1..20).map(|_| busy()));
    let server = Server::start(Script { submits: Mutex::new(submits.into()), ..Script::default() });
    let posts = (0..20).map(|_| post(&server, r#"{"target_tag":"v1"}"#));
    let mut statuses: Vec<u16> = futures_util::future::join_all(posts).await.iter().map(|a| a.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [vec![202], vec![409; 19]].concat());
    assert_eq!(server.script.requests().len(), 20);
}

#[tokio::test]
async fn a_job_and_its_log() {
    let full = ended(job("v0.1.2", &[(State::Planning, "found"), (State::Pulling, "pulled")]), State::Committed, None);
    let log = "first\nsecond ä\n".repeat(60_000).into_bytes();
    let script = Script { frames: Mutex::new([full.clone()].into()), log: log.clone(), ..Script::default() };
    let server = Server::start(script);

    let json = get(&server, &format!("/update/{JOB}")).await.json();
    assert_eq!(serde_json::from_value::<Job>(json).unwrap(), full);
    get(&server, "/update/job_0000000000000000").await.error(404);
    get(&server, "/update/job_0000000000000000/log").await.error(404);
    get(&server, "/update/..%2f..%2fetc%2fpasswd").await.error(404);

    let (mut read, mut offset) = (Vec::new(), "0".to_owned());
    loop {
        let answer = get(&server, &format!("/update/{JOB}/log?offset={offset}")).await;
        assert_eq!(answer.headers["content-type"], "text/plain; charset=utf-8");
        assert!(answer.body.len() <= api::LOG_CHUNK);
        let next = answer.headers["x-next-offset"].to_str().unwrap().to_owned();
        read.extend_from_slice(&answer.body);
        if next == offset {
            break;
        }
        offset = next;
    }
    assert!(read == log, "the parts make the whole");
    assert_eq!(get(&server, &format!("/update/{JOB}/log?offset={}", u64::MAX)).await.body, b"");
}

#[tokio::test]
async fn history_is_newest_first() {
    let jobs = (0..60).map(|n| {
        let mut job = job("v1", &[]);
        job.id.0 = format!("job_{n:016x}");
        Arc::new(job)
    });
    let server = Server::start(Script { history: Mutex::new(jobs.collect()), ..Script::default() });
    let json = get(&server, "/history").await.json();
    let jobs = json["jobs"].as_array().unwrap();
    assert_eq!(
        (jobs.len(), &jobs[0]["id"], &jobs[49]["id"]),
        (50, &json!("job_0000000000000000"), &json!("job_0000000000000031"))
    );
}

#[tokio::test]
async fn no_answer_exceeds_a_mebibyte() {
    let mut active = maximal(0);
    active.id.0 = JOB.into();
    let script = Script {
        history: Mutex::new((0..50).map(|n| Arc::new(maximal(n))).collect()),
        frames: Mutex::new([active.clone()].into()),
        active: Mutex::new(Some(Arc::new(active))),
        log: vec![b'x'; 5 * MIB],
        ..Script::default()
    };
    let server = Server::start(script);
    for path in ["/history", "/status", &format!("/update/{JOB}"), &format!("/update/{JOB}/log")] {
        let answer = get(&server, path).await;
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.body.len() <= MIB, "{path}: {} bytes", answer.body.len());
        if path == "/history" {
            let json = answer.json();
            assert_eq!(json["jobs"].as_array().unwrap().len(), 50);
            assert!(answer.body.len() > MIB / 4, "shortened no more than needed: {}", answer.body.len());
        }
    }
}

#[tokio::test]
async fn checks() {
    let check =
        Check { release: Some(release("v0.1.2")), allowed: true, changes: vec!["image".into()], ..Check::default() };
    for (query, expected) in [
        ("", Ok(CheckRequest::default())),
        ("?tag=&channel=&allow_downgrade=&accept_drift=", Ok(CheckRequest::default())),
        ("?tag=v1.0.0", Ok(CheckRequest { tag: Some("v1.0.0".into()), ..CheckRequest::default() })),
        ("?channel=prerelease", Ok(CheckRequest { channel: Channel::Prerelease, ..CheckRequest::default() })),
        (
            "?allow_downgrade=true&accept_drift=YES",
            Ok(CheckRequest { allow_downgrade: true, accept_drift: true, ..CheckRequest::default() }),
        ),
        ("?tag=a%2Fb", Err(400)),
        ("?channel=beta", Err(400)),
        ("?accept_drift=maybe", Err(400)),
    ] {
        let server = Server::start(Script { check: check.clone(), ..Script::default() });
        let answer = get(&server, &format!("/check{query}")).await;
        let asked = server.script.checks.lock().unwrap().pop();
        match expected {
            Ok(request) => {
                assert_eq!(asked, Some(request), "{query}");
                assert_eq!(serde_json::from_value::<Check>(answer.json()).unwrap(), check);
            }
            Err(status) => {
                answer.error(status);
                assert_eq!(asked, None, "{query}");
            }
        }
    }
}

#[tokio::test]
async fn a_panic_is_a_500_and_the_server_lives_on() {
    let server = Server::start(Script { panics: true, ..Script::default() });
    let error = get(&server, "/status").await.error(500);
    assert!(!error.contains("script"), "what a panic says stays inside: {error}");
    assert_eq!(get(&server, "/history").await.status, 200);
}

#[test]
fn several_requests_on_one_connection() {
    let server = Server::start(Script::default());
    let mut stream = TcpStream::connect(server.url.trim_start_matches("http://")).unwrap();
    let one = format!("GET /status HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\n\r\n");
    write!(stream, "{one}{one}GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).unwrap();
    assert_eq!(answers.matches("200 OK").count(), 3);
}

#[test]
fn without_the_token_a_connection_is_good_for_one_answer() {
    let server = Server::start(Script::default());
    for (path, status) in [("/healthz", "200 OK"), ("/status", "401 Unauthorized")] {
        let mut stream = TcpStream::connect(server.url.trim_start_matches("http://")).unwrap();
        write!(stream, "{}", format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").repeat(3)).unwrap();
        let mut answers = String::new();
        stream.read_to_string(&mut answers).unwrap();
        assert_eq!(answers.matches(status).count(), 1, "{answers}");
    }
}

#[test]
fn a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("updater.sock");
    let listen = Listen::Unix(path.clone());
    let healthz = || {
        let mut stream = UnixStream::connect(&path).unwrap();
        write!(stream, "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.contains("200 OK")
    };
    let bind = |path| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { api::Listener::bind(&Listen::Unix(path)).map(|_| ()) })
    };

    // What a killed process leaves behind is replaced.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let server = Server::on(&listen, Arc::new(Script::default()));
    let found = std::fs::symlink_metadata(&path).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o777, 0o660);
    assert!(healthz());

    assert!(matches!(bind(path.clone()), Err(api::BindError::Answered(_))), "a living one is not");
    assert!(healthz());
    server.stop();
    assert!(!path.exists(), "it takes its file along");

    let file = folder.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    assert!(matches!(bind(file.clone()), Err(api::BindError::NoSocket(_))));
    assert_eq!(std::fs::read_to_string(file).unwrap(), "precious");
}

#[test]
fn all_interfaces_mean_both_families() {
    let server = Server::on(&Listen::Tcp("[::]:0".parse().unwrap()), Arc::new(Script::default()));
    let port: u16 = server.url.rsplit(':').next().unwrap().parse().unwrap();
    assert!(TcpStream::connect(("127.0.0.1", port)).is_ok());
    // Where the machine has IPv6 at all.
    if std::net::TcpListener::bind("[::1]:0").is_ok() {
        assert!(TcpStream::connect(("::1", port)).is_ok());
    }
}

#[test]
fn a_taken_address_says_how_to_choose_another() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let error = runtime.block_on(async { api::Listener::bind(&Listen::Tcp(address)).map(|_| ()) }).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&address.to_string()) && text.contains("PROCESSGIT_UPDATER_LISTEN"), "{text}");
}

/// Paused time runs on when nothing else does, so the deadline passes at once.
#[tokio::test(start_paused = true)]
async fn headers_that_never_end_are_cut_off() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = api::Listener::bind(&Listen::Tcp("127.0.0.1:0".parse().unwrap())).unwrap();
    let address = listener.address().to_owned();
    let router = api::router(Arc::new(Script::default()), Arc::new(Script::default()), TOKEN.into());
    let shutdown = tokio_util::sync::CancellationToken::new();
    let stop = shutdown.clone();
    let server = tokio::spawn(async move { api::serve(listener, router, &TOKEN.into(), stop).await });
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ").await.unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert!(!String::from_utf8_lossy(&rest).contains("200"));
    shutdown.cancel();
    server.await.unwrap();
}
