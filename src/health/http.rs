//! The probe over HTTP.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder};
use tokio::sync::Mutex;
use url::{Host, Url};

use super::{Answer, Probe};
use crate::engine::{Container, label};
use crate::https::Authorities;

/// The most of a health answer that is read, bytes.
const BODY_CAP: usize = 64 * 1024;

/// The time for all connections that are tried: of several addresses one may lie in a network that cannot
/// be reached from here, and answers nothing.
const CONNECT: Duration = Duration::from_secs(2);

/// Asks the configured URL.
pub struct HttpProbe {
    url: Url,
    authorities: Authorities,
    /// The client for the addresses asked last: building one costs milliseconds.
    client: Mutex<Option<(Vec<SocketAddr>, Client)>>,
}

impl HttpProbe {
    pub fn new(url: Url, authorities: Authorities) -> Self {
        Self { url, authorities, client: Mutex::new(None) }
    }

    /// The container's own addresses, where the URL names the container or its service: on a shared
    /// network another container may answer to the same name. Empty: the name is looked up as usual.
    fn addresses(&self, container: &Container) -> Vec<SocketAddr> {
        let (Some(Host::Domain(host)), Some(port)) = (self.url.host(), self.url.port_or_known_default()) else {
            return Vec::new();
        };
        if host != container.name && Some(host) != container.label(label::SERVICE) {
            return Vec::new();
        }
        let ips = container.networks.values().filter_map(|ip| ip.parse::<IpAddr>().ok());
        ips.map(|ip| SocketAddr::new(ip, port)).collect()
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
        let ask = async {
            let client = self.client(self.addresses(container)).await?;
            let response = client.get(self.url.clone()).timeout(timeout).send().await?;
            let status = response.status().as_u16();
            let mut body = Vec::new();
            let mut chunks = response.bytes_stream();
            while let Some(chunk) = chunks.next().await {
                body.extend_from_slice(&chunk?);
                if body.len() >= BODY_CAP {
                    body.truncate(BODY_CAP);
                    break;
                }
            }
            Ok::<_, reqwest::Error>(Answer::Http { status, body })
        };
        ask.await.unwrap_or_else(|e| Answer::Silent(chain(&e)))
    }
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
mod tests;
