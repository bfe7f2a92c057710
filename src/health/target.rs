//! Whom the probe asks: what `PROCESSGIT_UPDATER_HEALTH_URL` says, and at which addresses that is found.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use url::{Host, Url};

use super::Silence;
use crate::engine::{Container, label};
use crate::update::plan::strings;

/// What is asked whether the application works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HealthTarget {
    /// Must answer 200.
    Http(Url),
    /// Must accept connections. The host is a name or an address, IPv6 without brackets.
    Tcp { host: String, port: u16 },
    /// Nothing but the container's own HEALTHCHECK decides.
    Healthcheck,
}

impl HealthTarget {
    /// The host and port that are connected to.
    pub fn host_and_port(&self) -> Option<(String, u16)> {
        match self {
            Self::Http(url) => {
                let host = match url.host()? {
                    Host::Domain(name) => name.to_owned(),
                    Host::Ipv4(ip) => ip.to_string(),
                    Host::Ipv6(ip) => ip.to_string(),
                };
                Some((host, url.port_or_known_default()?))
            }
            Self::Tcp { host, port } => Some((host.clone(), *port)),
            Self::Healthcheck => None,
        }
    }

    /// The same at another host and port.
    #[must_use]
    pub fn moved_to(&self, host: &str, port: u16) -> Self {
        match self {
            Self::Http(url) => {
                let mut url = url.clone();
                // Both are names that the engine knows; where the URL cannot hold them, it stays as it is.
                let _ = url
                    .set_host(Some(host))
                    .and_then(|()| url.set_port(Some(port)).map_err(|()| url::ParseError::InvalidPort));
                Self::Http(url)
            }
            Self::Tcp { .. } => Self::Tcp { host: host.to_owned(), port },
            Self::Healthcheck => Self::Healthcheck,
        }
    }
}

/// As the setting has it.
impl fmt::Display for HealthTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(url) => url.fmt(f),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
            Self::Healthcheck => f.write_str("none"),
        }
    }
}

/// Where `host` is found. Where it is the container's name, its service or an alias, these are the container's own
/// addresses: on a shared network another container may answer to the same name. Otherwise the name is looked up.
pub(super) async fn addresses(host: &str, port: u16, container: &Container) -> Result<Vec<SocketAddr>, Silence> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    if host == container.name || Some(host) == container.label(label::SERVICE) || is_alias(host, container) {
        let own = container.networks.values().filter_map(|ip| ip.parse::<IpAddr>().ok());
        let own: Vec<_> = own.map(|ip| SocketAddr::new(ip, port)).collect();
        if !own.is_empty() {
            return Ok(own);
        }
    }
    match tokio::net::lookup_host((host, port)).await {
        Ok(found) => Ok(found.collect()),
        Err(why) => Err(Silence::NoSuchName { host: host.to_owned(), why: why.to_string() }),
    }
}

/// Another name that the engine gives it in one of its networks.
fn is_alias(host: &str, container: &Container) -> bool {
    let networks = container.raw["NetworkSettings"]["Networks"].as_object().into_iter().flatten();
    networks.flat_map(|(_, network)| strings(&network["Aliases"])).any(|alias| alias == host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_and_where() {
        let tcp = |host: &str, port| HealthTarget::Tcp { host: host.into(), port };
        let http = |url: &str| HealthTarget::Http(url.parse().unwrap());
        for (target, shown, at, moved) in [
            (http("http://app:3000/healthz"), "http://app:3000/healthz", Some(("app", 3000)), "http://web:81/healthz"),
            (http("http://app/"), "http://app/", Some(("app", 80)), "http://web:81/"),
            (http("https://[::1]/x"), "https://[::1]/x", Some(("::1", 443)), "https://web:81/x"),
            (http("http://127.0.0.1:1/"), "http://127.0.0.1:1/", Some(("127.0.0.1", 1)), "http://web:81/"),
            (tcp("db", 5432), "tcp://db:5432", Some(("db", 5432)), "tcp://web:81"),
            (tcp("::1", 5432), "tcp://[::1]:5432", Some(("::1", 5432)), "tcp://web:81"),
            (HealthTarget::Healthcheck, "none", None, "none"),
        ] {
            assert_eq!(target.to_string(), shown);
            assert_eq!(target.host_and_port(), at.map(|(host, port)| (host.to_owned(), port)), "{shown}");
            assert_eq!(target.moved_to("web", 81).to_string(), moved, "{shown}");
        }
    }
}
