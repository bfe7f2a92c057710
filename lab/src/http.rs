//! Blocking requests over one shared runtime, without proxies and redirects.

use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::HeaderMap;
use reqwest::{Client, RequestBuilder};
use serde_json::Value;
use tokio::runtime::Runtime;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
});
static CLIENT: LazyLock<Client> = LazyLock::new(|| {
    Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(Duration::from_secs(60))
        .build()
        .expect("an HTTP client")
});

/// Where servers and pollers of the laboratory run.
pub fn runtime() -> &'static Runtime {
    &RUNTIME
}

pub fn client() -> &'static Client {
    &CLIENT
}

/// A complete answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON; panics with the body when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: no JSON: {}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The answer itself when its status is one of `wanted`; panics naming `what` otherwise.
    pub fn expect_status(self, wanted: &[u16], what: &str) -> Self {
        assert!(wanted.contains(&self.status), "{what}: status {}, not {wanted:?}: {}", self.status, self.text());
        self
    }
}

/// Sends and reads everything; the error names the address.
pub fn send(request: RequestBuilder) -> Result<Answer, reqwest::Error> {
    RUNTIME.block_on(async {
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Answer { status, headers, body: response.bytes().await? })
    })
}

/// `GET url`
pub fn get(url: &str) -> Result<Answer, reqwest::Error> {
    send(CLIENT.get(url))
}
