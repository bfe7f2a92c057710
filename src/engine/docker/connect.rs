//! Reaching the engine: its address, and the API version both sides speak.

use std::time::Duration;

use bollard::{BollardRequest, ClientVersion, Docker};

use super::super::{DEFAULT_HOST, EngineError, Result};
use super::error::engine_error;

/// The newest API version whose answers this program knows (that of the client library).
const NEWEST_KNOWN: Version = (1, 53);
/// The port Docker uses for plain TCP when the address names none.
const DEFAULT_PORT: u16 = 2375;
/// The client library's own limit for response headers, seconds. Every call has a deadline of ours, and
/// a stop with a long grace may rightly take longer than the library's default.
const NO_LIMIT: u64 = 7 * 24 * 3600;

/// Major, minor: 1.51.
pub(super) type Version = (usize, usize);

/// `DOCKER_HOST` names no address that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error(
        "DOCKER_HOST is {0:?}, which is no address of an engine: expected unix:///path/to/docker.sock or tcp://host:port"
    )]
    NotUnderstood(String),
    #[error(
        "DOCKER_TLS_VERIFY is set, but this program reaches {0} without TLS only: use unix:///path/to/docker.sock, or a socket proxy on a private network, and unset DOCKER_TLS_VERIFY"
    )]
    Tls(String),
}

/// Where the engine listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    /// Absolute path of the socket.
    Unix(String),
    /// `host:port`
    Tcp(String),
}

impl Address {
    /// The value of `DOCKER_HOST`; empty is the default. `tls` tells whether `DOCKER_TLS_VERIFY` is set.
    pub fn parse(host: &str, tls: bool) -> std::result::Result<Self, AddressError> {
        let host = if host.is_empty() { DEFAULT_HOST } else { host };
        let bad = || AddressError::NotUnderstood(host.to_owned());
        if let Some(path) = host.strip_prefix("unix://") {
            return if path.starts_with('/') { Ok(Self::Unix(path.to_owned())) } else { Err(bad()) };
        }
        let rest = host.strip_prefix("tcp://").ok_or_else(bad)?;
        let url = url::Url::parse(&format!("http://{rest}")).map_err(|_| bad())?;
        let plain = url.path() == "/" && url.query().is_none() && url.username().is_empty();
        let name = url.host_str().filter(|_| plain).ok_or_else(bad)?;
        if tls {
            return Err(AddressError::Tls(host.to_owned()));
        }
        // The parser drops a port 80, http's own default: then the text says whether one was meant.
        let port = url.port().unwrap_or(if rest.trim_end_matches('/').ends_with(":80") { 80 } else { DEFAULT_PORT });
        Ok(Self::Tcp(format!("{name}:{port}")))
    }
}

/// A connection and what was agreed on.
#[derive(Clone)]
pub(super) struct Client {
    pub docker: Docker,
    pub version: Version,
}

/// Connects and agrees on a version.
pub(super) async fn connect(address: &Address, deadline: Duration) -> Result<Client> {
    let what = "connecting to";
    let docker = open(address).map_err(|error| engine_error(what, &name(address), error))?;
    let answer = tokio::time::timeout(deadline, docker.version()).await;
    let answer = answer
        .map_err(|_| {
            EngineError::Unreachable(format!("{what} {}: no answer within {} s", name(address), deadline.as_secs()))
        })?
        .map_err(|error| engine_error(what, &name(address), error))?;
    let newest = answer.api_version.as_deref().and_then(parse_version);
    let newest = newest.ok_or_else(|| {
        let said = answer.api_version.unwrap_or_default();
        EngineError::Failed(format!("{}: its API version {said:?} cannot be read", name(address)))
    })?;
    let oldest = answer.min_api_version.as_deref().and_then(parse_version).unwrap_or(newest);
    let version = NEWEST_KNOWN.min(newest).max(oldest);
    Ok(Client { docker: docker.with_request_modifier(move |request| adjusted(request, version)), version })
}

fn open(address: &Address) -> std::result::Result<Docker, bollard::errors::Error> {
    let version = &ClientVersion { major_version: NEWEST_KNOWN.0, minor_version: NEWEST_KNOWN.1 };
    match address {
        Address::Unix(path) => Docker::connect_with_unix(path, NO_LIMIT, version),
        Address::Tcp(host) => Docker::connect_with_http(&format!("tcp://{host}"), NO_LIMIT, version),
    }
}

fn name(address: &Address) -> String {
    match address {
        Address::Unix(path) => format!("the engine at {path}"),
        Address::Tcp(host) => format!("the engine at tcp://{host}"),
    }
}

fn parse_version(text: &str) -> Option<Version> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Two things the client library leaves out: the version in the path (without it the engine answers in
/// its newest form, which may be newer than what can be read here), and the URL alphabet of base64 in
/// `X-Registry-Auth` (the engine reads no other: a password with `?` or `~` in it could fail).
fn adjusted(mut request: BollardRequest, version: Version) -> BollardRequest {
    let (major, minor) = version;
    let uri = request.uri();
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    if !path.starts_with("/v1.") {
        let scheme = uri.scheme_str().unwrap_or("http");
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        if let Ok(versioned) = format!("{scheme}://{authority}/v{major}.{minor}{path}").parse() {
            *request.uri_mut() = versioned;
        }
    }
    if let Some(auth) = request.headers_mut().get_mut("X-Registry-Auth") {
        let url_safe = auth.to_str().map(|text| text.replace('+', "-").replace('/', "_"));
        if let Some(value) = url_safe.ok().and_then(|text| text.parse().ok()) {
            *auth = value;
        }
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let unix = |path: &str| Some(Address::Unix(path.into()));
        let tcp = |host: &str| Some(Address::Tcp(host.into()));
        let cases = [
            ("", unix("/var/run/docker.sock")),
            ("unix:///run/user/1000/docker.sock", unix("/run/user/1000/docker.sock")),
            ("unix://docker.sock", None),
            ("tcp://proxy:2375", tcp("proxy:2375")),
            ("tcp://proxy", tcp("proxy:2375")),
            ("tcp://proxy:80/", tcp("proxy:80")),
            ("tcp://[::1]:2376", tcp("[::1]:2376")),
            ("tcp://proxy/path", None),
            ("tcp://", None),
            ("ssh://root@host", None),
            ("/var/run/docker.sock", None),
            ("npipe:////./pipe/docker_engine", None),
        ];
        for (host, expected) in cases {
            assert_eq!(Address::parse(host, false).ok(), expected, "{host}");
        }
        let error = Address::parse("ssh://host", false).unwrap_err().to_string();
        assert!(error.contains("\"ssh://host\"") && error.contains("tcp://host:port"), "{error}");
        assert_eq!(Address::parse("tcp://a:1", true), Err(AddressError::Tls("tcp://a:1".into())));
        assert!(Address::parse("", true).is_ok(), "a socket needs no TLS");
    }

    #[test]
    fn versions() {
        assert_eq!(parse_version("1.51"), Some((1, 51)));
        for bad in ["", "1", "x.y", "1.51.2"] {
            assert_eq!(parse_version(bad), None, "{bad}");
        }
    }
}
