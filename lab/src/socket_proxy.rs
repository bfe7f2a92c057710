//! A filter before the engine's socket, as operators use one. It understands the patterns of
//! wollomatic/socket-proxy, so the list that the product's example gives to that is the list that is tested.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures_util::TryStreamExt;
use regex::Regex;
use tokio::net::{TcpListener, UnixListener};

use crate::Lab;
use crate::http::{self, Answer, runtime};

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
    place: Place,
}

/// Where it listens.
#[derive(Debug, Clone)]
pub enum Place {
    /// A socket, which is mounted where the engine's would be.
    Socket(PathBuf),
    Tcp(SocketAddr),
}

/// A filter to be.
#[derive(Debug, Clone)]
pub struct Filter {
    /// A Compose file whose text has arguments like `-allowGET=PATTERN`.
    pub rules: PathBuf,
    /// It is reached over TCP, at this port, as one in a container of its own is.
    pub tcp: Option<u16>,
}

impl Filter {
    pub(crate) fn place(&self, lab: &Lab) -> Place {
        match self.tcp {
            Some(port) => Place::Tcp((lab.gateway.unwrap_or(Ipv4Addr::LOCALHOST), port).into()),
            None => Place::Socket(lab.run.folder().join("filtered.sock")),
        }
    }
}

impl SocketProxy {
    /// Listens until the process ends.
    pub fn start(lab: &Lab, filter: &Filter) -> Self {
        let file = filter.rules.display();
        let text = std::fs::read_to_string(&filter.rules).unwrap_or_else(|e| panic!("{file}: {e}"));
        let rules: Vec<Rule> = text.lines().filter_map(|line| rule(line.trim())).collect();
        assert!(!rules.is_empty(), "{file} allows nothing");
        let client = reqwest::Client::builder().unix_socket(lab.engine.socket()).build();
        let engine = client.expect("a client of the engine");
        let shared = Shared { rules: rules.into(), engine, calls: Arc::default() };
        let router = Router::new().fallback(pass).with_state(shared.clone());
        let place = filter.place(lab);
        let _inside = runtime().enter();
        match &place {
            Place::Socket(path) => {
                let listener = UnixListener::bind(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
                runtime().spawn(async move { axum::serve(listener, router).await });
            }
            Place::Tcp(address) => {
                let listener = std::net::TcpListener::bind(address).and_then(|listener| {
                    listener.set_nonblocking(true)?;
                    TcpListener::from_std(listener)
                });
                let listener = listener.unwrap_or_else(|e| panic!("{address}: {e}"));
                runtime().spawn(async move { axum::serve(listener, router).await });
            }
        }
        Self { shared, place }
    }

    /// Asks through its socket.
    pub fn ask(&self, method: &str, path: &str) -> Answer {
        let Place::Socket(socket) = &self.place else { panic!("it has no socket: {:?}", self.place) };
        let client = reqwest::Client::builder().unix_socket(socket.as_path()).build().expect("a client of the proxy");
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
