//! The probe for what does not speak HTTP: a port that accepts connections.

use std::time::Duration;

use async_trait::async_trait;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::target::addresses;
use super::{Answer, Probe, Silence};
use crate::engine::Container;

/// Asks whether a port accepts connections. All addresses are tried one after the other.
pub struct TcpProbe {
    pub host: String,
    pub port: u16,
}

#[async_trait]
impl Probe for TcpProbe {
    async fn ask(&self, container: &Container, limit: Duration) -> Answer {
        let connect = async {
            let mut last = Silence::Other(format!("{} has no address", self.host));
            for address in addresses(&self.host, self.port, container).await? {
                match TcpStream::connect(address).await {
                    Ok(_) => return Ok(Answer::Accepted),
                    Err(e) => last = Silence::of_io(&e, &address.to_string()),
                }
            }
            Err(last)
        };
        timeout(limit, connect).await.unwrap_or(Err(Silence::TimedOut(limit))).unwrap_or_else(Answer::Silent)
    }
}

#[cfg(test)]
mod tests {
    use super::super::http::tests::container;
    use super::*;

    #[tokio::test]
    async fn a_port_accepts_or_not() {
        let listener = tokio::net::TcpListener::bind("127.0.0.2:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        for (host, expected) in [
            ("127.0.0.2", "Accepted"),
            // The container's own addresses, as for a URL.
            ("app", "Accepted"),
            ("127.0.0.3", "Refused"),
            ("no-such-name.invalid", "NoSuchName"),
        ] {
            let probe = TcpProbe { host: host.into(), port };
            let answer = probe.ask(&container("shop-app-1", &["127.0.0.2"]), Duration::from_secs(5)).await;
            assert!(format!("{answer:?}").contains(expected), "{host}: {answer:?}");
        }
    }
}
