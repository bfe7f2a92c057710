//! A filter before the engine's socket, as operators use one. It understands the patterns of
//! wollomatic/socket-proxy, so the list that the product's example gives to that is the list that is tested.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures_util::TryStreamExt;
use regex::Regex;
use tokio::net::UnixListener;

use crate::engine::Engine;
use crate::http::{self, Answer, runtime};
use crate::run::Run;

/// A method, and paths that are let through.
struct Rule {
    method: String,
    path: Regex,
}

#[derive(Clone)]
struct Shared {
    rules: Arc<[Rule]>,
    engine: reqwest::Client,
    calls: Arc<Mutex<Vec<Call>>>,
}

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    pub allowed: bool,
    pub method: String,
    pub path: String,
}

pub struct SocketProxy {
    shared: Shared,
    socket: PathBuf,
}

/// Where it listens.
pub(crate) fn socket(run: &Run) -> PathBuf {
    run.folder().join("filtered.sock")
}

impl SocketProxy {
    /// Listens in the run's folder until the process ends. `file` is a Compose file whose text has
    /// arguments like `-allowGET=PATTERN`.
    pub fn start(run: &Run, engine: &Engine, file: &Path) -> Self {
        let text = std::fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let rules: Vec<Rule> = text.lines().filter_map(|line| rule(line.trim())).collect();
        assert!(!rules.is_empty(), "{} allows nothing", file.display());
        let client = reqwest::Client::builder().unix_socket(engine.socket()).build().expect("a client of the engine");
        let shared = Shared { rules: rules.into(), engine: client, calls: Arc::default() };
        let socket = socket(run);
        let listener = {
            let _inside = runtime().enter();
            UnixListener::bind(&socket).unwrap_or_else(|e| panic!("{}: {e}", socket.display()))
        };
        let router = Router::new().fallback(pass).with_state(shared.clone());
        runtime().spawn(async move { axum::serve(listener, router).await });
        Self { shared, socket }
    }

    /// Asks through it.
    pub fn ask(&self, method: &str, path: &str) -> Answer {
        let client =
            reqwest::Client::builder().unix_socket(self.socket.as_path()).build().expect("a client of the proxy");
        let method = method.parse().expect("a method");
        http::send(client.request(method, format!("http://engine{path}"))).expect("an answer of the proxy")
    }

    /// Everything that was asked so far, once each.
    pub fn calls(&self) -> Vec<Call> {
        let mut calls = self.shared.calls.lock().expect("the calls").clone();
        calls.sort();
        calls.dedup();
        calls
    }

    pub fn refused(&self) -> Vec<Call> {
        self.calls().into_iter().filter(|call| !call.allowed).collect()
    }

    /// The rules that let nothing through so far.
    pub fn idle_rules(&self) -> Vec<String> {
        let calls = self.calls();
        let used = |rule: &Rule| calls.iter().any(|call| rule.method == call.method && rule.path.is_match(&call.path));
        let idle = self.shared.rules.iter().filter(|rule| !used(rule));
        idle.map(|rule| format!("{} {}", rule.method, rule.path)).collect()
    }
}

/// `- -allowGET=PATTERN`; the pattern is for the whole path.
fn rule(line: &str) -> Option<Rule> {
    let (method, pattern) = line.strip_prefix("- -allow")?.split_once('=')?;
    let method = method.to_owned();
    method.bytes().all(|b| b.is_ascii_uppercase()).then(|| {
        let path = Regex::new(&format!("^(?:{pattern})$")).unwrap_or_else(|e| panic!("{line}: {e}"));
        Rule { method, path }
    })
}

async fn pass(State(shared): State<Shared>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let (method, path) = (head.method.to_string(), head.uri.path().to_owned());
    let allowed = shared.rules.iter().any(|rule| rule.method == method && rule.path.is_match(&path));
    shared.calls.lock().expect("the calls").push(Call { allowed, method, path });
    if !allowed {
        return (StatusCode::FORBIDDEN, "not allowed by the socket proxy").into_response();
    }
    let target = format!("http://engine{}", head.uri.path_and_query().map_or("/", |path| path.as_str()));
    let mut request = shared.engine.request(head.method, target).headers(head.headers);
    if !body.is_end_stream() {
        request = request.body(reqwest::Body::wrap_stream(body.into_data_stream()));
    }
    match request.send().await {
        Ok(answer) => {
            let (status, headers) = (answer.status(), answer.headers().clone());
            let body = Body::from_stream(answer.bytes_stream().map_err(std::io::Error::other));
            (status, headers, body).into_response()
        }
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}
