//! A small client of the OCI distribution protocol: just what reading signatures needs. Every manifest
//! and blob is hashed again, every answer is capped, and credentials never follow a redirect to another
//! host.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LINK, WWW_AUTHENTICATE};
use reqwest::{Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;
use url::{Host, Url};

use crate::engine::credentials::{self, Credential};
use crate::https::{Authorities, LazyClient, Ready};
use crate::reference::{DOCKER_HUB, DOCKER_HUB_HOST, Reference, is_sha256, is_tag};
use crate::update::refusal::{Code, Explained, Remedy};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TOTAL_TIMEOUT: Duration = Duration::from_secs(30);
const REDIRECTS: usize = 5;
/// Pages of a referrers list that are read.
const PAGES: usize = 8;
/// Bytes of a token service's answer; real ones are a few KiB.
const TOKEN_CAP: usize = 256 * 1024;

/// The media types of manifests and indexes we understand.
const MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Why a registry did not give what was asked for. The texts are complete.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RegistryError {
    /// A name, tag or digest that no registry could have.
    #[error("{0}")]
    Name(String),
    /// Unreachable, an error of its own, or an answer that is none. Trying later may help.
    #[error("{0}")]
    Unavailable(String),
    /// It wants other credentials than we have.
    #[error("{0}")]
    Denied(String),
    /// Larger than its cap, other bytes than the digest promises, or gone although something names it.
    #[error("{0}")]
    Corrupt(String),
}

impl Explained for RegistryError {
    fn code(&self) -> Code {
        match self {
            Self::Denied(_) => Code::RegistryDenied,
            Self::Name(_) | Self::Unavailable(_) | Self::Corrupt(_) => Code::RegistryFailed,
        }
    }

    fn remedy(&self) -> Option<Remedy> {
        None
    }
}

type Result<T> = std::result::Result<T, RegistryError>;

/// A reference to content, as manifests and indexes hold it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: String,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// An image manifest or an index: the parts that signatures are found by.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    #[serde(default)]
    pub layers: Vec<Descriptor>,
    #[serde(default)]
    pub manifests: Vec<Descriptor>,
}

/// Makes [`Repository`]s. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    /// Honours the proxy variables, as Docker does.
    http: LazyClient,
    /// For loopback registries: no proxy could reach them.
    direct: LazyClient,
    docker_config: Option<PathBuf>,
}

/// One repository in one registry, with the authorization it granted us.
#[derive(Debug)]
pub struct Repository {
    http: LazyClient,
    /// `https://host/v2/name/`
    base: Url,
    registry: String,
    name: String,
    docker_config: Option<PathBuf>,
    authorization: Mutex<Option<HeaderValue>>,
}

struct Answer {
    status: StatusCode,
    media_type: String,
    next: Option<Url>,
    body: Bytes,
}

impl Client {
    /// A client that believes the system's CA certificates and these.
    pub fn new(authorities: &Authorities) -> Self {
        fn configured() -> reqwest::ClientBuilder {
            reqwest::Client::builder()
                .user_agent(concat!("processgit-updater/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(CONNECT_TIMEOUT)
                .timeout(TOTAL_TIMEOUT)
                .redirect(reqwest::redirect::Policy::custom(redirect))
        }
        let direct = LazyClient::new(authorities, || configured().no_proxy());
        Self { http: LazyClient::new(authorities, configured), direct, docker_config: None }
    }

    /// Takes credentials from this file instead of Docker's own `config.json`.
    #[must_use]
    pub fn with_docker_config(self, file: PathBuf) -> Self {
        Self { docker_config: Some(file), ..self }
    }

    /// `registry` and `repository` as they stand in an image reference: `ghcr.io`, `foo/bar`.
    ///
    /// # Errors
    /// [`RegistryError::Name`] for what cannot be a registry or a repository.
    pub fn repository(&self, registry: &str, repository: &str) -> Result<Repository> {
        let place = Reference::of(registry, repository).map_err(|error| RegistryError::Name(error.to_string()))?;
        let place = place.unified();
        let (base, loopback) = base_url(place.registry())?;
        let name = place.repository().to_owned();
        let base = join(&base, &format!("v2/{name}/"))?;
        let http = if loopback { &self.direct } else { &self.http }.clone();
        Ok(Repository {
            http,
            base,
            registry: registry.to_owned(),
            name,
            docker_config: self.docker_config.clone(),
            authorization: Mutex::default(),
        })
    }
}

impl Repository {
    /// A manifest or index by tag or digest, at most `cap` bytes; `None` when there is none.
    ///
    /// # Errors
    /// See [`RegistryError`]; bytes that do not hash to the digest asked for are [`RegistryError::Corrupt`].
    pub async fn manifest(&self, reference: &str, cap: usize) -> Result<Option<Manifest>> {
        if !is_sha256(reference) && !is_tag(reference) {
            return Err(RegistryError::Name(format!("{reference:?} is neither a tag nor a sha256 digest")));
        }
        let url = join(&self.base, &format!("manifests/{reference}"))?;
        let answer = self.get(&url, MANIFESTS, cap).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        self.expect_ok(&url, answer.status)?;
        if is_sha256(reference) {
            self.check_digest(reference, &answer.body)?;
        }
        self.parse(&url, &answer.body).map(Some)
    }

    /// A blob of at most `cap` bytes, hashed again.
    ///
    /// # Errors
    /// See [`RegistryError`]; a blob that is missing is [`RegistryError::Corrupt`]: a manifest named it.
    pub async fn blob(&self, digest: &str, cap: usize) -> Result<Bytes> {
        if !is_sha256(digest) {
            return Err(RegistryError::Name(format!("{digest:?} is no digest: expected sha256: and 64 hex digits")));
        }
        let url = join(&self.base, &format!("blobs/{digest}"))?;
        let answer = self.get(&url, "*/*", cap).await?;
        if answer.status == StatusCode::NOT_FOUND {
            let text = format!("{}/{} names the blob {digest}, but does not hold it", self.registry, self.name);
            return Err(RegistryError::Corrupt(text));
        }
        self.expect_ok(&url, answer.status)?;
        self.check_digest(digest, &answer.body)?;
        Ok(answer.body)
    }

    /// What refers to `digest`, by the referrers API of OCI 1.1; `None` when the registry has no such API
    /// (whatever it answers instead: some answer 404, some 400, some a page for people).
    ///
    /// # Errors
    /// See [`RegistryError`]; an error of the registry itself (5xx, 429) is not taken for a missing API.
    pub async fn referrers(&self, digest: &str, cap: usize) -> Result<Option<Vec<Descriptor>>> {
        if !is_sha256(digest) {
            return Err(RegistryError::Name(format!("{digest:?} is no digest: expected sha256: and 64 hex digits")));
        }
        let mut found = Vec::new();
        let mut next = Some(join(&self.base, &format!("referrers/{digest}"))?);
        for page in 0..PAGES {
            let Some(url) = next.take() else { break };
            let answer = self.get(&url, INDEX, cap).await?;
            let broken = answer.status.is_server_error() || answer.status == StatusCode::TOO_MANY_REQUESTS;
            if page > 0 || broken {
                self.expect_ok(&url, answer.status)?;
            } else if !answer.status.is_success() || !answer.media_type.starts_with(INDEX) {
                return Ok(None);
            }
            found.extend(self.parse(&url, &answer.body)?.manifests);
            next = answer.next;
        }
        Ok(Some(found))
    }

    async fn get(&self, url: &Url, accept: &str, cap: usize) -> Result<Answer> {
        let ready = self.http().await?;
        let mut response = self.send(url, accept).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            let granted = self.authorize(response.headers()).await?;
            *self.authorization.lock().await = Some(granted);
            response = self.send(url, accept).await?;
        }
        let status = response.status();
        let media_type = header(response.headers(), CONTENT_TYPE.as_str());
        let next = next_page(url, &header(response.headers(), LINK.as_str()));
        let body = if status.is_success() { read(response, url, ready, cap).await? } else { Bytes::new() };
        Ok(Answer { status, media_type, next, body })
    }

    async fn send(&self, url: &Url, accept: &str) -> Result<Response> {
        let ready = self.http().await?;
        let mut request = ready.client.get(url.clone()).header(ACCEPT, accept);
        if let Some(authorization) = &*self.authorization.lock().await {
            request = request.header(AUTHORIZATION, authorization);
        }
        request.send().await.map_err(|error| unreachable(url, ready, error))
    }

    async fn http(&self) -> Result<&Ready> {
        self.http.get().await.map_err(RegistryError::Unavailable)
    }

    /// Answers the registry's challenge: a header that will be accepted, with luck.
    async fn authorize(&self, headers: &HeaderMap) -> Result<HeaderValue> {
        let credential = match &self.docker_config {
            Some(file) => credentials::in_file(file.clone(), &self.registry).await,
            None => credentials::for_registry(&self.registry).await,
        };
        let challenges: Vec<Challenge> = headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .filter_map(Challenge::parse)
            .collect();
        if let Some(bearer) = challenges.iter().find(|c| c.scheme == "bearer") {
            return self.token(bearer, credential).await;
        }
        match credential {
            Some(Credential::Login { username, password }) if challenges.iter().any(|c| c.scheme == "basic") => {
                use base64::prelude::{BASE64_STANDARD, Engine as _};
                let pair = BASE64_STANDARD.encode(format!("{username}:{}", password.expose_secret()));
                secret_header(&format!("Basic {pair}"))
            }
            _ => Err(RegistryError::Denied(format!(
                "{} wants credentials to read {}: `docker login {}` where the updater finds the configuration",
                self.registry, self.name, self.registry
            ))),
        }
    }

    /// Fetches a bearer token (distribution's token protocol; OAuth2 for an identity token).
    async fn token(&self, bearer: &Challenge, credential: Option<Credential>) -> Result<HeaderValue> {
        let bad_realm =
            |why: &str| RegistryError::Unavailable(format!("{} names a token service that {why}", self.registry));
        let mut realm = Url::parse(bearer.get("realm")).map_err(|_| bad_realm("is no address"))?;
        if realm.scheme() != "https" && !is_loopback(&realm) {
            return Err(bad_realm(&format!("is not https ({realm}), so it gets no credentials")));
        }
        let scope = match bearer.get("scope") {
            "" => format!("repository:{}:pull", self.name),
            scope => scope.to_owned(),
        };
        let ready = self.http().await?;
        let request = match &credential {
            Some(Credential::IdentityToken(refresh)) => ready.client.post(realm.clone()).body(form(&[
                ("grant_type", "refresh_token"),
                ("service", bearer.get("service")),
                ("scope", &scope),
                ("client_id", "processgit-updater"),
                ("refresh_token", refresh.expose_secret()),
            ])),
            login => {
                realm.query_pairs_mut().append_pair("service", bearer.get("service")).append_pair("scope", &scope);
                match login {
                    Some(Credential::Login { username, password }) => {
                        ready.client.get(realm.clone()).basic_auth(username, Some(password.expose_secret()))
                    }
                    _ => ready.client.get(realm.clone()),
                }
            }
        };
        let request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        let response = request.send().await.map_err(|error| unreachable(&realm, ready, error))?;
        if !response.status().is_success() {
            let text = format!("{} gives no token for {scope}: {}", origin(&realm), response.status());
            return Err(if response.status().is_client_error() {
                RegistryError::Denied(format!("{text}; `docker login {}` may help", self.registry))
            } else {
                RegistryError::Unavailable(text)
            });
        }
        let body = read(response, &realm, ready, TOKEN_CAP).await?;
        let granted: Token = serde_json::from_slice(&body).map_err(|error| bad_realm(&format!("answers {error}")))?;
        let token = granted.token.or(granted.access_token).ok_or_else(|| bad_realm("answers without a token"))?;
        secret_header(&format!("Bearer {}", token.expose_secret()))
    }

    fn expect_ok(&self, url: &Url, status: StatusCode) -> Result<()> {
        if status == StatusCode::OK {
            return Ok(());
        }
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(RegistryError::Denied(format!(
                "{} refuses to let us read {} ({status}): `docker login {}` where the updater finds the configuration",
                self.registry, self.name, self.registry
            )));
        }
        Err(RegistryError::Unavailable(format!("{} answers {status} for {}", self.registry, url.path())))
    }

    fn check_digest(&self, digest: &str, body: &[u8]) -> Result<()> {
        let got = format!("sha256:{}", hex::encode(Sha256::digest(body)));
        if got == digest {
            return Ok(());
        }
        let text = format!("{}/{} was asked for {digest} and sent {got}", self.registry, self.name);
        Err(RegistryError::Corrupt(text))
    }

    fn parse(&self, url: &Url, body: &[u8]) -> Result<Manifest> {
        serde_json::from_slice(body).map_err(|error| {
            RegistryError::Corrupt(format!("{} sends no manifest for {}: {error}", self.registry, url.path()))
        })
    }
}

#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    token: Option<SecretString>,
    #[serde(default)]
    access_token: Option<SecretString>,
}

/// One `WWW-Authenticate` header (RFC 9110, 11.6.1).
#[derive(Debug, PartialEq, Eq)]
struct Challenge {
    /// Lower case.
    scheme: String,
    parameters: BTreeMap<String, String>,
}

impl Challenge {
    fn parse(value: &str) -> Option<Self> {
        let (scheme, mut rest) = value.trim().split_once(' ').unwrap_or((value.trim(), ""));
        let mut parameters = BTreeMap::new();
        while let Some((key, after)) = rest.split_once('=') {
            let key = key.trim_matches([' ', ',']).to_ascii_lowercase();
            let after = after.trim_start();
            let (value, remainder) = match after.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"')?,
                None => after.split_once(',').unwrap_or((after, "")),
            };
            parameters.insert(key, value.trim().to_owned());
            rest = remainder;
        }
        (!scheme.is_empty()).then(|| Self { scheme: scheme.to_ascii_lowercase(), parameters })
    }

    fn get(&self, key: &str) -> &str {
        self.parameters.get(key).map_or("", String::as_str)
    }
}

/// `registry` → the root of its API, and whether it is a loopback registry (plain http, like Docker).
fn base_url(registry: &str) -> Result<(Url, bool)> {
    let host = if registry == DOCKER_HUB { DOCKER_HUB_HOST } else { registry };
    let bad = || RegistryError::Name(format!("{registry:?} is no registry: expected host or host:port"));
    if host.is_empty() || host.contains(['/', '@', '?', '#', '\\', ' ']) {
        return Err(bad());
    }
    let plain = Url::parse(&format!("http://{host}/")).map_err(|_| bad())?;
    if is_loopback(&plain) {
        return Ok((plain, true));
    }
    Ok((Url::parse(&format!("https://{host}/")).map_err(|_| bad())?, false))
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => IpAddr::V4(ip).is_loopback(),
        Some(Host::Ipv6(ip)) => IpAddr::V6(ip).is_loopback(),
        None => false,
    }
}

/// Follows a redirect unless it leaves https or goes on for too long. Credentials are dropped by the
/// client when the host or the port changes.
fn redirect(attempt: reqwest::redirect::Attempt) -> reqwest::redirect::Action {
    let downgrade =
        attempt.previous().last().is_some_and(|p| p.scheme() == "https") && attempt.url().scheme() != "https";
    if downgrade {
        return attempt.error("redirected from https to plain http");
    }
    if attempt.previous().len() > REDIRECTS {
        return attempt.error("too many redirects");
    }
    attempt.follow()
}

async fn read(mut response: Response, url: &Url, ready: &Ready, cap: usize) -> Result<Bytes> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(url, ready, error))? {
        if body.len() + chunk.len() > cap {
            let text = format!("{}{} is larger than the {cap} bytes that are read", origin(url), url.path());
            return Err(RegistryError::Corrupt(text));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// The `rel="next"` of a Link header, if it stays on the same host.
fn next_page(url: &Url, link: &str) -> Option<Url> {
    let entry = link.split(',').find(|entry| entry.contains(r#"rel="next""#) || entry.contains("rel=next"))?;
    let target = entry.trim().strip_prefix('<')?.split_once('>')?.0;
    url.join(target).ok().filter(|next| next.origin() == url.origin())
}

fn unreachable(url: &Url, ready: &Ready, error: reqwest::Error) -> RegistryError {
    RegistryError::Unavailable(format!("{} is unreachable: {}", origin(url), ready.explain(&error.without_url())))
}

fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

fn header(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

fn secret_header(value: &str) -> Result<HeaderValue> {
    let mut header = HeaderValue::from_str(value)
        .map_err(|_| RegistryError::Unavailable("a credential cannot be sent in a header".into()))?;
    header.set_sensitive(true);
    Ok(header)
}

fn form(pairs: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

fn join(base: &Url, path: &str) -> Result<Url> {
    base.join(path).map_err(|error| RegistryError::Name(format!("{path:?} makes no address: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_have_one_address() {
        for (registry, expected) in [
            ("docker.io", Some(("https://registry-1.docker.io/", false))),
            ("ghcr.io", Some(("https://ghcr.io/", false))),
            ("registry:5000", Some(("https://registry:5000/", false))),
            ("10.0.0.7:5000", Some(("https://10.0.0.7:5000/", false))),
            ("localhost", Some(("http://localhost/", true))),
            ("localhost:5000", Some(("http://localhost:5000/", true))),
            ("127.0.0.1:5000", Some(("http://127.0.0.1:5000/", true))),
            ("127.9.9.9:5000", Some(("http://127.9.9.9:5000/", true))),
            ("[::1]:5000", Some(("http://[::1]:5000/", true))),
            ("localhost.evil.example", Some(("https://localhost.evil.example/", false))),
            ("127.0.0.1.evil.example", Some(("https://127.0.0.1.evil.example/", false))),
            ("a b", None),
            ("", None),
        ] {
            let got = base_url(registry).ok().map(|(url, loopback)| (url.to_string(), loopback));
            assert_eq!(got, expected.map(|(url, loopback)| (url.to_owned(), loopback)), "{registry}");
        }
    }

    #[test]
    fn challenges_are_read() {
        type Row<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)]);
        let table: [Row<'_>; 7] = [
            (
                r#"Bearer realm="https://a/t",service="s",scope="x:y:pull,push""#,
                "bearer",
                &[("realm", "https://a/t"), ("service", "s"), ("scope", "x:y:pull,push")],
            ),
            (
                r#"bearer realm="r", service=plain, scope="c""#,
                "bearer",
                &[("realm", "r"), ("service", "plain"), ("scope", "c")],
            ),
            (r#"Basic realm="Registry Realm""#, "basic", &[("realm", "Registry Realm")]),
            ("Basic", "basic", &[]),
            (r#"Bearer realm="open"#, "", &[]),
            ("", "", &[]),
            ("Bearer =,=", "bearer", &[("", "=")]),
        ];
        for (header, scheme, parameters) in table {
            let got = Challenge::parse(header);
            let scheme_got = got.as_ref().map_or("", |c| &c.scheme);
            assert_eq!(scheme_got, scheme, "{header}");
            for (key, value) in parameters.iter().filter(|(key, _)| !key.is_empty()) {
                assert_eq!(got.as_ref().map(|c| c.get(key)), Some(*value), "{header}: {key}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(text: String) {
            let _ = Challenge::parse(&text);
            let _ = Challenge::parse(&format!("Bearer {text}"));
            let _ = base_url(&text);
            let url = Url::parse("https://a.example/v2/").map_err(|e| proptest::test_runner::TestCaseError::fail(e.to_string()))?;
            if let Some(next) = next_page(&url, &format!("<{text}>; rel=\"next\"")) {
                proptest::prop_assert_eq!(next.origin(), url.origin());
            }
        }
    }
}
