//! Registries that the engine takes as insecure (`insecure-registries` in its `daemon.json`): it talks to them
//! without checking certificates, or over plain http, and so do we. Pure but for looking a name up.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use url::{Host, Url};

/// How long a host's name is looked up to compare its addresses.
const LOOKUP: Duration = Duration::from_secs(2);

/// What the engine says of registries (`RegistryConfig` of `GET /info`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InsecureRegistries {
    /// Host, or host and port → whether it is secure.
    pub hosts: BTreeMap<String, bool>,
    /// `10.0.0.0/8`
    pub networks: Vec<String>,
}

/// Knows what the engine says.
#[async_trait]
pub trait EngineRegistries: Send + Sync {
    /// `None` when it does not answer.
    async fn insecure(&self) -> Option<InsecureRegistries>;
}

impl InsecureRegistries {
    /// As the engine decides it: by the entry for host and port, else by the host's addresses.
    pub async fn has(&self, registry: &Url) -> bool {
        let Some(host) = registry.host() else { return false };
        let name = match registry.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_string(),
        };
        if let Some(secure) = self.hosts.get(&name) {
            return !secure;
        }
        let addresses = match host {
            Host::Ipv4(address) => vec![IpAddr::V4(address)],
            Host::Ipv6(address) => vec![IpAddr::V6(address)],
            Host::Domain(_) if self.networks.is_empty() => Vec::new(),
            Host::Domain(name) => {
                let found = tokio::time::timeout(LOOKUP, tokio::net::lookup_host((name, 0))).await;
                found.ok().and_then(Result::ok).map_or_else(Vec::new, |found| found.map(|at| at.ip()).collect())
            }
        };
        addresses.iter().any(|address| self.networks.iter().any(|network| contains(network, *address)))
    }
}

/// `network` (`10.0.0.0/8`, `::1/128`) holds this address.
fn contains(network: &str, address: IpAddr) -> bool {
    let Some((base, length)) = network.split_once('/') else { return false };
    let (Ok(base), Ok(length)) = (base.parse::<IpAddr>(), length.parse::<u32>()) else { return false };
    match (base, address) {
        (IpAddr::V4(base), IpAddr::V4(address)) if length <= 32 => {
            let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
            base.to_bits() & mask == address.to_bits() & mask
        }
        (IpAddr::V6(base), IpAddr::V6(address)) if length <= 128 => {
            let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
            base.to_bits() & mask == address.to_bits() & mask
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn as_the_engine_decides() {
        let told = InsecureRegistries {
            hosts: [("nas.lan:5000", false), ("plain.lan", false), ("docker.io", true), ("10.1.2.3:5000", true)]
                .map(|(host, secure)| (host.to_owned(), secure))
                .into(),
            networks: ["10.0.0.0/8", "::1/128", "127.0.0.0/8", "nonsense", "1.2.3.4/99"].map(String::from).into(),
        };
        for (registry, insecure) in [
            ("nas.lan:5000", true),
            ("nas.lan:5001", false),
            ("plain.lan", true),
            ("docker.io", false),
            ("10.9.9.9:5000", true),
            // Its own entry comes before its network.
            ("10.1.2.3:5000", false),
            ("11.0.0.1", false),
            ("1.2.3.4", false),
            ("127.0.0.1:5000", true),
            ("[::1]:5000", true),
            ("[::2]:5000", false),
            ("localhost:5000", true),
        ] {
            let url = Url::parse(&format!("https://{registry}/")).unwrap();
            assert_eq!(told.has(&url).await, insecure, "{registry}");
        }
        let url = Url::parse("https://nas.lan:5000/").unwrap();
        assert!(!InsecureRegistries::default().has(&url).await);
    }
}
