//! The probe over HTTP.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::target::addresses;
use super::{Answer, HealthTarget, Probe, Silence};
use crate::engine::Container;
use crate::https::Authorities;

/// The most of a health answer that is read, bytes.
const BODY_CAP: usize = 64 * 1024;

/// The time for all connections that are tried: of several addresses one may lie in a network that cannot
/// be reached from here, and answers nothing.
const CONNECT: Duration = Duration::from_secs(2);

/// Asks the configured URL.
pub struct HttpProbe {
    url: Url,
    /// A version is looked for in the body. Otherwise status line and headers decide: a body may never end, as that
    /// of server-sent events does.
    reads_body: bool,
    authorities: Authorities,
    /// The client for the addresses asked last: building one costs milliseconds.
    client: Mutex<Option<(Vec<SocketAddr>, Client)>>,
}

impl HttpProbe {
    pub fn new(url: Url, reads_body: bool, authorities: Authorities) -> Self {
        Self { url, reads_body, authorities, client: Mutex::new(None) }
    }

    async fn answer(&self, container: &Container, deadline: Instant) -> Result<Answer, Silence> {
        let addresses = match HealthTarget::Http(self.url.clone()).host_and_port() {
            Some((host, port)) => addresses(&host, port, container).await?,
            None => Vec::new(),
        };
        let client = self.client(addresses).await.map_err(|e| silence(&e, &self.url))?;
        let response = client.get(self.url.clone()).send().await.map_err(|e| silence(&e, &self.url))?;
        let status = response.status().as_u16();
        let mut body = Vec::new();
        let mut chunks = response.bytes_stream();
        // What has come when the time is over counts.
        while self.reads_body && body.len() < BODY_CAP {
            let Ok(Some(Ok(chunk))) = timeout_at(deadline, chunks.next()).await else { break };
            body.extend_from_slice(&chunk);
        }
        body.truncate(BODY_CAP);
        Ok(Answer::Http { status, body })
    }

    async fn client(&self, addresses: Vec<SocketAddr>) -> Result<Client, reqwest::Error> {
        let mut cached = self.client.lock().await;
        if let Some((known, client)) = &*cached
            && *known == addresses
        {
            return Ok(client.clone());
        }
        let client = self.build(&addresses)?;
        *cached = Some((addresses, client.clone()));
        Ok(client)
    }

    fn build(&self, addresses: &[SocketAddr]) -> Result<Client, reqwest::Error> {
        // No connection is kept: one that an old container left behind proves nothing about the new one.
        let builder =
            ClientBuilder::new().connect_timeout(CONNECT).no_proxy().redirect(Policy::none()).pool_max_idle_per_host(0);
        // Reading CA certificates takes milliseconds of downtime; plain http needs none.
        let builder = match self.url.scheme() {
            "http" => builder.tls_certs_only(Vec::new()),
            _ => self.authorities.added_to(builder),
        };
        match (addresses, self.url.host_str()) {
            ([_, ..], Some(host)) => builder.resolve_to_addrs(host, addresses).build(),
            _ => builder.build(),
        }
    }
}

#[async_trait]
impl Probe for HttpProbe {
    async fn ask(&self, container: &Container, timeout: Duration) -> Answer {
        // A body that never ends is cut off before the time is over, so that it is an answer all the same.
        let (deadline, last) = (Instant::now() + timeout.mul_f32(0.9), Instant::now() + timeout);
        let answer = timeout_at(last, self.answer(container, deadline)).await;
        answer.unwrap_or(Err(Silence::TimedOut(timeout))).unwrap_or_else(Answer::Silent)
    }
}

fn silence(error: &reqwest::Error, url: &Url) -> Silence {
    let mut cause = std::error::Error::source(error);
    while let Some(source) = cause {
        if let Some(io) = source.downcast_ref::<std::io::Error>()
            && io.kind() == std::io::ErrorKind::ConnectionRefused
        {
            return Silence::of_io(io, url.authority());
        }
        cause = source.source();
    }
    Silence::Other(chain(error))
}

/// reqwest's own text hides the cause.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = cause.to_string();
        source = cause.source();
    }
    text
}

#[cfg(test)]
pub(super) mod tests;
