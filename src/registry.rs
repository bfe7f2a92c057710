//! A small client of the OCI distribution protocol: just what reading signatures needs. Every manifest
//! and blob is hashed again, every answer is capped, and credentials go to the registry and its own token
//! service only.
//!
//! What a registry holds for one image is looked through within one time and one number of bytes, whatever it
//! answers; a failure that may pass is asked again within that time.

mod auth;
pub mod error;
mod links;
mod login;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{RequestBuilder, Response, StatusCode};
use serde::{Deserialize, Deserializer};
use sha2::{Digest as _, Sha256, Sha512};
use tokio::sync::{Mutex, OnceCell};
use tokio::time::{Instant, timeout_at};
use url::{Host, Url};

pub use self::error::{Login, RegistryError, RegistryFault};
pub use self::links::Next;
use crate::engine::credentials::Lookup;
use crate::engine::insecure::{EngineRegistries, InsecureRegistries};
use crate::https::fault::{Fault, SystemResolver, proxy};
use crate::https::{Authorities, LazyClient};
use crate::reference::{DOCKER_HUB, DOCKER_HUB_HOST, Reference, is_digest, is_tag};
use crate::retry::{Backoff, Pauses, is_transient, wanted_pause};
use crate::text;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// One request, its body included.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a token service's answer; real ones are a few KiB.
const TOKEN_CAP: usize = 256 * 1024;
/// Bytes of a refusal that are read, and characters of it that are shown.
const REFUSAL_CAP: usize = 4 * 1024;
const REFUSAL_SHOWN: usize = 300;

/// The media types of manifests and indexes we understand.
const MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

type Result<T> = std::result::Result<T, RegistryError>;

/// What may be spent on one image.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub time: Duration,
    pub bytes: usize,
    pub pauses: Pauses,
}

impl Default for Limits {
    fn default() -> Self {
        let pauses = Pauses { first: Duration::from_millis(300), longest: Duration::from_secs(8), tries: 3 };
        Self { time: Duration::from_secs(180), bytes: 64 << 20, pauses }
    }
}

/// A reference to content, as manifests and indexes hold it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    #[serde(default, deserialize_with = "null_is_nothing")]
    pub media_type: String,
    #[serde(default, deserialize_with = "null_is_nothing")]
    pub artifact_type: String,
    pub digest: String,
    #[serde(default, deserialize_with = "null_is_nothing")]
    pub annotations: BTreeMap<String, String>,
}

/// An image manifest or an index: the parts that signatures are found by.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    #[serde(default, deserialize_with = "null_is_nothing")]
    pub layers: Vec<Descriptor>,
    #[serde(default, deserialize_with = "null_is_nothing")]
    pub manifests: Vec<Descriptor>,
}

/// Registries written in Go say `null` for an empty list.
fn null_is_nothing<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> std::result::Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// One page of what refers to an image.
#[derive(Debug, Clone)]
pub struct Page {
    pub manifests: Vec<Descriptor>,
    /// Where the list goes on.
    pub next: Option<Next>,
}

/// Makes [`Repository`]s. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    /// Honours the proxy variables, as Docker does.
    proxied: Clients,
    /// The same without checking certificates: for registries that the engine takes as insecure.
    unchecked: Clients,
    /// For loopback registries, which no proxy could reach; certificates are not checked, as by the engine.
    loopback: Clients,
    docker_config: Option<PathBuf>,
    engine: Option<Arc<dyn EngineRegistries>>,
    limits: Limits,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// One that follows redirects, and one for token services, which get secrets in bodies and may not send them on.
#[derive(Debug, Clone)]
struct Clients {
    following: LazyClient,
    staying: LazyClient,
}

impl Clients {
    fn new(authorities: &Authorities, configure: fn(reqwest::ClientBuilder) -> reqwest::ClientBuilder) -> Self {
        let configured = move || {
            let builder = reqwest::Client::builder()
                .user_agent(concat!("processgit-updater/", env!("CARGO_PKG_VERSION")))
                .dns_resolver(SystemResolver::shared())
                .connect_timeout(CONNECT_TIMEOUT)
                .timeout(TOTAL_TIMEOUT);
            configure(builder)
        };
        let following = move || configured().redirect(reqwest::redirect::Policy::custom(links::redirect));
        let staying = move || configured().redirect(reqwest::redirect::Policy::none());
        Self { following: LazyClient::new(authorities, following), staying: LazyClient::new(authorities, staying) }
    }
}

/// A way to the registry.
#[derive(Debug, Clone)]
struct Route {
    /// `https://host/v2/name/`
    base: Url,
    clients: Clients,
}

/// One repository in one registry, with the authorization it granted us, and what is left of the limits.
#[derive(Debug)]
pub struct Repository {
    client: Client,
    name: Reference,
    /// Tried in this order until one answers.
    routes: OnceCell<Vec<Route>>,
    /// The one that answered.
    settled: OnceCell<usize>,
    login: OnceCell<Lookup>,
    authorization: Mutex<Option<HeaderValue>>,
    until: Instant,
    bytes_left: AtomicUsize,
}

struct Answer {
    url: Url,
    status: StatusCode,
    headers: HeaderMap,
    /// What was sent with a refusal, for people.
    said: String,
    body: Bytes,
}

/// Why a request did not work out, and how long the server wants us to wait, if another may.
struct Failure {
    error: RegistryError,
    wanted: Option<Duration>,
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        Self { error, wanted: None }
    }
}

impl Client {
    /// A client that believes the system's CA certificates and these.
    pub fn new(authorities: &Authorities) -> Self {
        Self {
            proxied: Clients::new(authorities, |builder| builder),
            unchecked: Clients::new(authorities, |builder| builder.tls_danger_accept_invalid_certs(true)),
            loopback: Clients::new(authorities, |builder| builder.tls_danger_accept_invalid_certs(true).no_proxy()),
            docker_config: None,
            engine: None,
            limits: Limits::default(),
        }
    }

    /// Takes credentials from this file instead of Docker's own `config.json`.
    #[must_use]
    pub fn with_docker_config(self, file: PathBuf) -> Self {
        Self { docker_config: Some(file), ..self }
    }

    /// Takes the registries as insecure that this engine takes so.
    #[must_use]
    pub fn like(self, engine: Arc<dyn EngineRegistries>) -> Self {
        Self { engine: Some(engine), ..self }
    }

    /// Other limits than the usual ones.
    #[must_use]
    pub fn within(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// `registry` and `repository` as they stand in an image reference: `ghcr.io`, `foo/bar`. The limits count
    /// from here.
    ///
    /// # Errors
    /// [`RegistryFault::Name`] for what cannot be a registry or a repository.
    pub fn repository(&self, registry: &str, repository: &str) -> Result<Repository> {
        let name = Reference::of(registry, repository);
        let name = name.map_err(|error| RegistryError::new(RegistryFault::Name, registry, error.to_string()))?;
        Ok(Repository {
            client: self.clone(),
            name: name.unified(),
            routes: OnceCell::new(),
            settled: OnceCell::new(),
            login: OnceCell::new(),
            authorization: Mutex::default(),
            until: Instant::now() + self.limits.time,
            bytes_left: AtomicUsize::new(self.limits.bytes),
        })
    }

    /// The ways to a registry: https; for one that the engine takes as insecure, https without checking the
    /// certificate and then plain http, as the engine does; on this machine, plain http first.
    async fn routes(&self, name: &Reference) -> std::result::Result<Vec<Route>, url::ParseError> {
        let host = if name.registry() == DOCKER_HUB { DOCKER_HUB_HOST } else { name.registry() };
        let base = |scheme: &str| Url::parse(&format!("{scheme}://{host}/v2/{}/", name.repository()));
        let (tls, plain) = (base("https")?, base("http")?);
        if is_loopback(&tls) {
            return Ok(vec![
                Route { base: plain, clients: self.loopback.clone() },
                Route { base: tls, clients: self.loopback.clone() },
            ]);
        }
        let told = match &self.engine {
            Some(engine) => engine.insecure().await.unwrap_or_default(),
            None => InsecureRegistries::default(),
        };
        if told.has(&tls).await {
            return Ok(vec![
                Route { base: tls, clients: self.unchecked.clone() },
                Route { base: plain, clients: self.proxied.clone() },
            ]);
        }
        Ok(vec![Route { base: tls, clients: self.proxied.clone() }])
    }
}

impl Repository {
    /// A manifest or index by tag or digest, at most `cap` bytes; `None` when there is none.
    ///
    /// # Errors
    /// See [`RegistryFault`]; bytes that do not hash to the digest asked for are [`RegistryFault::WrongDigest`].
    pub async fn manifest(&self, reference: &str, cap: usize) -> Result<Option<Manifest>> {
        if !is_digest(reference) && !is_tag(reference) {
            return Err(self.error(RegistryFault::Name, format!("{reference:?} is neither a tag nor a digest")));
        }
        let answer = self.get(&format!("manifests/{reference}"), MANIFESTS, cap).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        self.expect_ok(&answer).await?;
        if is_digest(reference) {
            self.check_digest(reference, &answer.body)?;
        }
        self.parse(&answer).map(Some)
    }

    /// A blob of at most `cap` bytes, hashed again.
    ///
    /// # Errors
    /// See [`RegistryFault`]; a blob that is missing is [`RegistryFault::Missing`]: a manifest named it.
    pub async fn blob(&self, digest: &str, cap: usize) -> Result<Bytes> {
        if !is_digest(digest) {
            return Err(self.error(RegistryFault::Name, format!("{digest:?} is no digest")));
        }
        let answer = self.get(&format!("blobs/{digest}"), "*/*", cap).await?;
        if answer.status == StatusCode::NOT_FOUND {
            let text = format!("{} names the blob {digest}, but does not hold it", self.name);
            return Err(self.error(RegistryFault::Missing, text));
        }
        self.expect_ok(&answer).await?;
        self.check_digest(digest, &answer.body)?;
        Ok(answer.body)
    }

    /// The first page of what refers to `digest`, by the referrers API of OCI 1.1; `None` when the registry has
    /// no such API (whatever it answers instead: some 404, some 400, 405 or 501, some a page for people).
    ///
    /// # Errors
    /// See [`RegistryFault`]; an error of the registry itself is not taken for a missing API.
    pub async fn referrers(&self, digest: &str, cap: usize) -> Result<Option<Page>> {
        if !is_digest(digest) {
            return Err(self.error(RegistryFault::Name, format!("{digest:?} is no digest")));
        }
        let answer = self.get(&format!("referrers/{digest}"), INDEX, cap).await?;
        if is_transient(answer.status) {
            self.expect_ok(&answer).await?;
        }
        let media_type = answer.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let is_index = media_type.starts_with(INDEX);
        match (answer.status, self.parse(&answer)) {
            (StatusCode::OK, Ok(list)) => Ok(Some(page(list, &answer))),
            (StatusCode::OK, Err(error)) if is_index => Err(error),
            _ => Ok(None),
        }
    }

    /// A further page of a list.
    ///
    /// # Errors
    /// See [`RegistryFault`]; a page that only another host would have names that host.
    pub async fn further(&self, next: &Next, cap: usize) -> Result<Page> {
        let answer = self.patiently(|| self.once(next.url.clone(), INDEX, cap)).await?;
        match (&next.elsewhere, self.expect_ok(&answer).await) {
            (_, Ok(())) => Ok(page(self.parse(&answer)?, &answer)),
            (None, Err(error)) => Err(error),
            (Some(host), Err(_)) => Err(self.error(
                RegistryFault::Nonsense,
                format!(
                    "{} says that its list of signatures goes on at {host}, which is not asked because it is another origin, and does not have the page itself ({})",
                    self.name.registry(),
                    answer.status
                ),
            )),
        }
    }

    /// By a path below the repository.
    async fn get(&self, path: &str, accept: &str, cap: usize) -> Result<Answer> {
        let asked = || async {
            let routes = self.routes().await?;
            let url = |route: &Route| {
                let joined = route.base.join(path);
                joined.map_err(|error| self.error(RegistryFault::Name, format!("{path:?} makes no address: {error}")))
            };
            if let Some(at) = self.settled.get() {
                return self.ask(&routes[*at], url(&routes[*at])?, accept, cap).await;
            }
            let mut first = None;
            for (at, route) in routes.iter().enumerate() {
                let answer = self.ask(route, url(route)?, accept, cap).await;
                let is_wrong_way = match &answer {
                    Err(failure) => matches!(failure.error.fault, RegistryFault::Unanswered { .. }),
                    // How a server with TLS answers plain http.
                    Ok(answer) => answer.status == StatusCode::BAD_REQUEST && route.base.scheme() == "http",
                };
                if !is_wrong_way {
                    let _ = self.settled.set(at);
                    return answer;
                }
                first.get_or_insert(answer);
            }
            first.unwrap_or_else(|| Err(self.error(RegistryFault::Name, "there is no way to the registry").into()))
        };
        self.patiently(asked).await
    }

    /// By an address on the origin that has answered before.
    async fn once(&self, url: Url, accept: &str, cap: usize) -> std::result::Result<Answer, Failure> {
        let routes = self.routes().await?;
        let route = &routes[self.settled.get().copied().unwrap_or_default()];
        self.ask(route, url, accept, cap).await
    }

    /// Asks again what may pass, within the time that is left.
    async fn patiently<F>(&self, mut asked: impl FnMut() -> F) -> Result<Answer>
    where
        F: Future<Output = std::result::Result<Answer, Failure>>,
    {
        let mut backoff = Backoff::new(self.client.limits.pauses, self.until);
        loop {
            let answer = timeout_at(self.until, asked()).await;
            let (wanted, answer) = match answer.unwrap_or_else(|_| Err(self.out_of_time().into())) {
                Ok(answer) if is_transient(answer.status) => {
                    (wanted_pause(&answer.headers, Timestamp::now()), Ok(answer))
                }
                Err(failure) if may_pass(&failure.error.fault) => (failure.wanted, Err(failure.error)),
                other => return other.map_err(|failure| failure.error),
            };
            if !backoff.wait(wanted).await {
                return answer;
            }
        }
    }

    async fn routes(&self) -> Result<&Vec<Route>> {
        let made = self.routes.get_or_try_init(|| self.client.routes(&self.name)).await;
        made.map_err(|error| {
            self.error(RegistryFault::Name, format!("{:?} is no registry: {error}", self.name.registry()))
        })
    }

    async fn ask(&self, route: &Route, url: Url, accept: &str, cap: usize) -> std::result::Result<Answer, Failure> {
        let mut response = self.send(route, &url, accept).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            let granted = self.authorize(route, response.headers()).await?;
            *self.authorization.lock().await = Some(granted);
            response = self.send(route, &url, accept).await?;
        }
        let (status, headers) = (response.status(), response.headers().clone());
        if status.is_success() {
            let body = self.read(response, &url, cap).await?;
            return Ok(Answer { url, status, headers, said: String::new(), body });
        }
        let said = self.refusal(response).await;
        Ok(Answer { url, status, headers, said, body: Bytes::new() })
    }

    async fn send(&self, route: &Route, url: &Url, accept: &str) -> Result<Response> {
        let ready = self.made(&route.clients.following).await?;
        let mut request = ready.client.get(url.clone()).header(ACCEPT, accept);
        if let Some(authorization) = &*self.authorization.lock().await {
            request = request.header(AUTHORIZATION, authorization);
        }
        self.sent(request, url, ready).await
    }

    async fn sent(&self, request: RequestBuilder, url: &Url, ready: &crate::https::Ready) -> Result<Response> {
        request.send().await.map_err(|error| self.unanswered(&error, url, Some(ready)))
    }

    async fn made<'a>(&self, client: &'a LazyClient) -> Result<&'a crate::https::Ready> {
        let unanswered = RegistryFault::Unanswered { fault: Fault::Other, elsewhere: None };
        client.get().await.map_err(|why| self.error(unanswered, why))
    }

    async fn expect_ok(&self, answer: &Answer) -> Result<()> {
        let (status, said) = (answer.status, &answer.said);
        let (registry, repository) = (self.name.registry(), self.name.repository());
        let (fault, text) = match status.as_u16() {
            200 => return Ok(()),
            401 | 403 => (
                RegistryFault::Denied(self.known_login().await),
                format!("{registry} does not let us read {repository} ({status}{said})"),
            ),
            429 => {
                let anonymous = self.lookup().await.credential.is_none();
                (RegistryFault::RateLimit { anonymous }, format!("{registry} limits our requests ({status}{said})"))
            }
            500.. => (RegistryFault::Server, format!("{registry} answers {status}{said} for {}", answer.url.path())),
            _ => (RegistryFault::Nonsense, format!("{registry} answers {status}{said} for {}", answer.url.path())),
        };
        Err(self.error(fault, text))
    }

    fn check_digest(&self, digest: &str, body: &[u8]) -> Result<()> {
        let got = match digest.split_once(':') {
            Some(("sha512", _)) => format!("sha512:{}", hex::encode(Sha512::digest(body))),
            Some(("sha384", _)) => format!("sha384:{}", hex::encode(sha2::Sha384::digest(body))),
            _ => format!("sha256:{}", hex::encode(Sha256::digest(body))),
        };
        if got == digest {
            return Ok(());
        }
        Err(self.error(RegistryFault::WrongDigest, format!("{} was asked for {digest} and sent {got}", self.name)))
    }

    fn parse(&self, answer: &Answer) -> Result<Manifest> {
        serde_json::from_slice(&answer.body).map_err(|error| {
            let text = format!("{} sends no manifest for {}: {error}", self.name.registry(), answer.url.path());
            self.error(RegistryFault::Nonsense, text)
        })
    }

    async fn read(&self, mut response: Response, url: &Url, cap: usize) -> Result<Bytes> {
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unanswered(&error, url, None))? {
            if body.len() + chunk.len() > cap {
                let text = format!("{} is larger than the {cap} bytes that are read", shown(url));
                return Err(self.error(RegistryFault::TooLarge, text));
            }
            let spent = |left: usize| left.checked_sub(chunk.len());
            if self.bytes_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spent).is_err() {
                let most = self.client.limits.bytes >> 20;
                let text =
                    format!("{} holds more for this image than the {most} MiB that are looked through", self.name);
                return Err(self.error(RegistryFault::Budget, text));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }

    /// What was sent with a refusal, with `: ` before it; nothing where it cannot be read.
    async fn refusal(&self, mut response: Response) -> String {
        let mut body = Vec::new();
        while body.len() < REFUSAL_CAP
            && let Ok(Some(chunk)) = response.chunk().await
        {
            body.extend_from_slice(&chunk);
        }
        body.truncate(REFUSAL_CAP);
        let told = match serde_json::from_slice::<Refusals>(&body) {
            Ok(Refusals { errors }) if !errors.is_empty() => {
                let texts = errors.into_iter().take(3).map(|error| format!("{} {}", error.code, error.message));
                texts.collect::<Vec<_>>().join("; ")
            }
            // A page for people says nothing that fits here.
            _ if body.trim_ascii_start().starts_with(b"<") => String::new(),
            _ => String::from_utf8_lossy(&body).into_owned(),
        };
        let told = text::line(&told, REFUSAL_SHOWN);
        if told.is_empty() { told } else { format!(": {told}") }
    }

    fn out_of_time(&self) -> RegistryError {
        let seconds = self.client.limits.time.as_secs();
        let text = format!("{} was not looked through within {seconds} s", self.name);
        self.error(RegistryFault::Budget, text)
    }

    fn unanswered(&self, error: &reqwest::Error, url: &Url, ready: Option<&crate::https::Ready>) -> RegistryError {
        // The registry may have sent us on to a storage, or to its token service.
        let at = error.url().unwrap_or(url);
        let own = self.routes.get().and_then(|routes| routes.first()).and_then(|route| route.base.host());
        let elsewhere = (at.host() != own).then(|| at.host_str().unwrap_or_default().to_owned());
        let (fault, why) = match ready {
            Some(ready) => ready.explain(error, at),
            None => (Fault::of(error, at), crate::https::cause(error)),
        };
        let by = match (&fault, proxy(at)) {
            (Fault::Proxy { variable }, Some((_, address))) => format!(" through the proxy {address} ({variable})"),
            _ => String::new(),
        };
        let origin = at.origin().ascii_serialization();
        self.error(RegistryFault::Unanswered { fault, elsewhere }, format!("{origin} is unreachable{by}: {why}"))
    }

    fn secret_header(&self, value: &str) -> Result<HeaderValue> {
        let unfit = |_| self.error(RegistryFault::Nonsense, "a credential cannot be sent in a header");
        let mut header = HeaderValue::from_str(value).map_err(unfit)?;
        header.set_sensitive(true);
        Ok(header)
    }

    fn error(&self, fault: RegistryFault, text: impl Into<String>) -> RegistryError {
        RegistryError::new(fault, self.name.registry(), text)
    }
}

fn page(list: Manifest, answer: &Answer) -> Page {
    Page { manifests: list.manifests, next: links::next(&answer.url, &answer.headers) }
}

/// Another try may help. A wrong certificate stays wrong.
fn may_pass(fault: &RegistryFault) -> bool {
    match fault {
        RegistryFault::Server | RegistryFault::RateLimit { .. } => true,
        RegistryFault::Unanswered { fault, .. } => fault.may_pass(),
        _ => false,
    }
}

/// How registries say what is wrong (OCI distribution specification, Error Codes).
#[derive(Deserialize)]
struct Refusals {
    errors: Vec<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => IpAddr::V4(ip).is_loopback(),
        Some(Host::Ipv6(ip)) => IpAddr::V6(ip).is_loopback(),
        None => false,
    }
}

/// An address without its query.
fn shown(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}

#[cfg(test)]
mod tests;
