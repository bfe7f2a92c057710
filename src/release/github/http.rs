//! One careful GET: credentials for the API's own host only, redirects by hand, sizes and times capped, broken
//! connections tried again, and every failure told by its kind.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH, LINK, LOCATION, RETRY_AFTER,
};
use reqwest::{Client, Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout_at};
use url::{Host, Url};

use super::Limits;
use crate::https::fault::{self, Fault, SystemResolver};
use crate::https::{Authorities, LazyClient};
use crate::release::{SourceError, SourceFault};
use crate::settings::name::GITHUB_TOKEN;
use crate::text;

/// Redirects that are followed for one request; GitHub needs one for an asset, two for a moved
/// repository.
const REDIRECTS: usize = 5;
/// Tries after the first one, on broken connections and 5xx.
const RETRIES: u32 = 2;
/// The longest `Retry-After` that is waited for, if the deadline allows it.
const SHORT_WAIT: Duration = Duration::from_secs(5);
/// How long a server is asked whether it speaks TLS.
const TLS_LOOK: Duration = Duration::from_secs(2);
/// The most of a refusal's body that is read, bytes.
const REFUSAL_CAP: usize = 16 * 1024;
/// The most of a server's message that is shown, characters.
const MESSAGE: usize = 300;

/// What to get, and how much of it.
#[derive(Debug, Clone)]
pub(super) struct Get {
    pub url: Url,
    pub accept: &'static str,
    /// What is there already: an answer of 304 is welcome.
    pub etag: Option<HeaderValue>,
    /// Bytes.
    pub cap: usize,
    pub deadline: Instant,
    /// Tries after the first one.
    pub retries: u32,
}

impl Get {
    pub fn new(url: Url, accept: &'static str, cap: usize, deadline: Instant) -> Self {
        Self { url, accept, etag: None, cap, deadline, retries: RETRIES }
    }
}

/// How far a request has come.
struct Way {
    /// Who is asked at the moment.
    url: Url,
    /// Why an earlier try failed.
    last: Option<SourceError>,
}

/// What came back.
pub(super) enum Answer {
    Body {
        bytes: Bytes,
        etag: Option<HeaderValue>,
        /// `Link: …; rel="next"`
        next: Option<String>,
    },
    /// 304
    Unchanged,
    /// 404
    Absent,
}

/// Whether another try may help.
enum Failure {
    /// After a pause of ours, or after the one that the server has asked for.
    Again(SourceError, Option<Duration>),
    Final(SourceError),
}

impl Failure {
    fn new(fault: SourceFault, text: String) -> Self {
        Self::Final(SourceError::new(fault, text))
    }
}

pub(super) struct Http {
    client: LazyClient,
    api: Url,
    authorization: Option<HeaderValue>,
    /// Further hosts that may see the token: `host` or `host:port`.
    token_hosts: Vec<String>,
    pause: Duration,
}

impl Http {
    pub fn new(
        api: &Url,
        token: Option<&SecretString>,
        token_hosts: &[String],
        authorities: &Authorities,
        limits: &Limits,
    ) -> Result<Self, SourceError> {
        let connect = limits.connect;
        let client = LazyClient::new(authorities, move || {
            Client::builder()
                // GitHub refuses clients without a name.
                .user_agent(concat!("processgit-updater/", env!("CARGO_PKG_VERSION")))
                .redirect(reqwest::redirect::Policy::none())
                .dns_resolver(SystemResolver::shared())
                .referer(false)
                .connect_timeout(connect)
        });
        let authorization = match token {
            Some(token) => Some(bearer(token)?),
            None => None,
        };
        Ok(Self { client, api: api.clone(), authorization, token_hosts: token_hosts.to_vec(), pause: limits.pause })
    }

    /// Gets it before the deadline, however often it is tried.
    pub async fn get(&self, get: &Get) -> Result<Answer, SourceError> {
        let begun = Instant::now();
        let mut way = Way { url: get.url.clone(), last: None };
        match timeout_at(get.deadline, self.tried(get, &mut way)).await {
            Ok(done) => done,
            Err(_) => {
                let (waited, Way { url, last }) = (begun.elapsed().as_secs_f32(), way);
                let before = last.map_or_else(String::new, |last| format!("; before that: {last}"));
                let text = format!("{} did not answer within {waited:.1} s{before}", shown_way(&url));
                Err(SourceError::new(self.unanswered(Fault::Timeout, &url), text))
            }
        }
    }

    async fn tried(&self, get: &Get, way: &mut Way) -> Result<Answer, SourceError> {
        let mut pause = self.pause;
        for tries in 1.. {
            let (error, asked_for) = match self.followed(get, &mut way.url).await {
                Ok(answer) => return Ok(answer),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Again(error, asked_for)) => (error, asked_for),
            };
            if tries > get.retries {
                let times = if tries > 1 { format!(" (tried {tries} times)") } else { String::new() };
                return Err(SourceError::new(error.fault.clone(), format!("{error}{times}")));
            }
            way.last = Some(error);
            sleep(asked_for.unwrap_or(pause)).await;
            pause *= 3;
        }
        unreachable!("the loop has no end of its own")
    }

    async fn followed(&self, get: &Get, url: &mut Url) -> Result<Answer, Failure> {
        url.clone_from(&get.url);
        for _ in 0..=REDIRECTS {
            let response = self.sent(url, get).await?;
            if !is_redirect(response.status()) {
                return self.read(get, url, response).await;
            }
            *url = redirected(url, response.headers())?;
        }
        let text = format!("{} redirects more than {REDIRECTS} times", shown(&get.url));
        Err(Failure::new(SourceFault::Redirects, text))
    }

    /// The head of whatever it answers.
    pub async fn head_of_answer(&self, get: &Get) -> Result<HeaderMap, SourceError> {
        match timeout_at(get.deadline, self.sent(&get.url, get)).await {
            Ok(Ok(response)) => Ok(response.headers().clone()),
            Ok(Err(Failure::Again(error, _) | Failure::Final(error))) => Err(error),
            Err(_) => Err(SourceError::timeout(format!("{} did not answer in time", shown_way(&get.url)))),
        }
    }

    /// The token goes to the API's own origin, to the same host when the API sends us from http to https, and to the
    /// hosts that the operator has named.
    pub(super) fn token_for(&self, url: &Url) -> Option<&HeaderValue> {
        let upgraded = self.api.scheme() == "http"
            && url.scheme() == "https"
            && self.api.port().is_none()
            && url.port().is_none()
            && url.host() == self.api.host();
        let named = || url.scheme() == "https" || url.scheme() == self.api.scheme();
        let listed = self.token_hosts.iter().any(|host| *host == place(url)) && named();
        self.authorization.as_ref().filter(|_| url.origin() == self.api.origin() || upgraded || listed)
    }

    /// The host that got no token although there is one.
    fn without_token(&self, url: &Url) -> Option<String> {
        (self.authorization.is_some() && self.token_for(url).is_none()).then(|| place(url))
    }

    /// As [`Http::without_token`], where the address has no query: signed links to a storage carry their own secret
    /// there, and need no token.
    fn missed_the_token(&self, url: &Url) -> Option<String> {
        self.without_token(url).filter(|_| url.query().is_none())
    }

    async fn sent(&self, url: &Url, get: &Get) -> Result<Response, Failure> {
        let other = |why| Failure::new(self.unanswered(Fault::Other, url), why);
        let ready = self.client.get().await.map_err(other)?;
        let mut request = ready.client.get(url.clone()).header(ACCEPT, get.accept);
        if let Some(authorization) = self.token_for(url) {
            request = request.header(AUTHORIZATION, authorization);
        }
        if let Some(etag) = &get.etag {
            request = request.header(IF_NONE_MATCH, etag);
        }
        match request.send().await {
            // How servers with TLS answer plain http: with a 400, with an alert of TLS, or not at all.
            Ok(response) if response.status() != StatusCode::BAD_REQUEST || !speaks_tls(&ready.client, url).await => {
                Ok(response)
            }
            Ok(_) => Err(self.silent(Fault::OnlyTls, "", url)),
            Err(e) => match ready.explain(&e, url) {
                (Fault::BrokenOff | Fault::Other, _) if speaks_tls(&ready.client, url).await => {
                    Err(self.silent(Fault::OnlyTls, "", url))
                }
                (fault, says) => Err(self.silent(fault, &says, url)),
            },
        }
    }

    fn silent(&self, fault: Fault, says: &str, url: &Url) -> Failure {
        let text = format!("{} cannot be asked: {}", shown_way(url), fault.says(says));
        let may_pass = fault.may_pass();
        let error = SourceError::new(self.unanswered(fault, url), text);
        if may_pass { Failure::Again(error, None) } else { Failure::Final(error) }
    }

    fn unanswered(&self, fault: Fault, url: &Url) -> SourceFault {
        let is_api = (url.host(), url.port_or_known_default()) == (self.api.host(), self.api.port_or_known_default());
        SourceFault::Unanswered { fault, elsewhere: (!is_api).then(|| place(url)) }
    }

    async fn read(&self, get: &Get, url: &Url, response: Response) -> Result<Answer, Failure> {
        let status = response.status();
        match status {
            StatusCode::OK if is_web_page(response.headers()) => Err(self.web_page(url)),
            StatusCode::OK => {
                let (etag, next) = (response.headers().get(ETAG).cloned(), next_link(response.headers()));
                Ok(Answer::Body { bytes: self.body(get.cap, url, response).await?, etag, next })
            }
            StatusCode::NOT_MODIFIED if get.etag.is_some() => Ok(Answer::Unchanged),
            StatusCode::NOT_FOUND | StatusCode::GONE => match self.missed_the_token(url) {
                Some(host) => Err(Failure::Final(no_token_there(host, url, status, ""))),
                None => Ok(Answer::Absent),
            },
            status if status.is_server_error() => {
                let text = format!("{} answers {status}", shown_way(url));
                Err(Failure::Again(SourceError::new(SourceFault::Server, text), None))
            }
            status => Err(self.refused(status, url, response).await),
        }
    }

    async fn body(&self, cap: usize, url: &Url, mut response: Response) -> Result<Bytes, Failure> {
        let too_large = |found: u64| {
            let text = format!("{} sends {found} bytes or more; at most {cap} are accepted", shown(url));
            Failure::new(SourceFault::TooLarge, text)
        };
        if let Some(claimed) = response.content_length().filter(|claimed| *claimed > cap as u64) {
            return Err(too_large(claimed));
        }
        let mut bytes = BytesMut::new();
        loop {
            let chunk = response.chunk().await.map_err(|e| {
                let text = format!("the answer of {} breaks off: {}", shown(url), crate::https::cause(&e));
                Failure::Again(SourceError::new(self.unanswered(Fault::BrokenOff, url), text), None)
            })?;
            let Some(chunk) = chunk else { return Ok(bytes.freeze()) };
            if bytes.len() + chunk.len() > cap {
                return Err(too_large((bytes.len() + chunk.len()) as u64));
            }
            bytes.extend_from_slice(&chunk);
        }
    }

    /// What a server says instead of answering.
    async fn refused(&self, status: StatusCode, url: &Url, response: Response) -> Failure {
        let headers = response.headers().clone();
        let told = Told::read(response).await;
        let has_token = self.authorization.is_some();
        let says = told.says();
        if let Some((limit, until)) = limit(status, &headers, &told) {
            let fault =
                if limit == Limit::Second { SourceFault::SecondaryLimit } else { SourceFault::RateLimit { has_token } };
            let text = format!("{} limits our requests ({}): {}{says}", shown(&self.api), status.as_u16(), until.text);
            let error = SourceError::new(fault, text);
            return match until.wait.filter(|wait| *wait <= SHORT_WAIT) {
                Some(wait) => Failure::Again(error, Some(wait)),
                None => Failure::Final(error),
            };
        }
        if let (Some(host), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) = (self.missed_the_token(url), status) {
            return Failure::Final(no_token_there(host, url, status, &says));
        }
        let at = shown_way(url);
        match status {
            StatusCode::PROXY_AUTHENTICATION_REQUIRED if let Some((variable, _)) = fault::proxy(url) => {
                Failure::new(self.unanswered(Fault::Proxy { variable }, url), format!("{at} is refused (407){says}"))
            }
            StatusCode::UNAUTHORIZED if has_token => Failure::new(
                SourceFault::Unauthorized { has_token },
                format!("{at} does not accept the token ({GITHUB_TOKEN}) (401){says}"),
            ),
            StatusCode::UNAUTHORIZED => {
                Failure::new(SourceFault::Unauthorized { has_token }, format!("{at} wants a token (401){says}"))
            }
            StatusCode::FORBIDDEN => match headers.get("x-github-sso").and_then(|value| value.to_str().ok()) {
                Some(sso) => {
                    let sso = text::line(sso, MESSAGE);
                    Failure::new(SourceFault::SingleSignOn, format!("{at} wants single sign-on (403; {sso}){says}"))
                }
                None => Failure::new(SourceFault::Forbidden { has_token }, format!("{at} refuses us (403){says}")),
            },
            status => Failure::new(SourceFault::Nonsense, format!("{at} answers {status}, expected 200{says}")),
        }
    }

    /// A login page or a portal where a file or JSON was expected.
    fn web_page(&self, url: &Url) -> Failure {
        match self.without_token(url) {
            Some(host) => {
                Failure::Final(no_token_there(host, url, StatusCode::OK, ": it shows a web page (text/html)"))
            }
            None => {
                let text = format!("{} shows a web page (text/html) instead of what was asked for", shown(url));
                Failure::new(SourceFault::WebPage, text)
            }
        }
    }
}

/// The answer of a server that got no token.
fn no_token_there(host: String, url: &Url, status: StatusCode, says: &str) -> SourceError {
    let text = format!(
        "{} answers {}{says}; it got no token, because {host} is not the API's host",
        shown(url),
        status.as_u16()
    );
    SourceError::new(SourceFault::NoTokenThere { host }, text)
}

/// A server's own words for a refusal.
#[derive(Debug, Default, Deserialize)]
struct Told {
    #[serde(default)]
    message: String,
    #[serde(default)]
    documentation_url: String,
}

impl Told {
    /// From a body of JSON, or of text.
    async fn read(mut response: Response) -> Self {
        let is_page = is_web_page(response.headers());
        let mut bytes = BytesMut::new();
        // What does not come quickly is left out: the status has said enough.
        let read = async {
            while let Ok(Some(chunk)) = response.chunk().await {
                let room = REFUSAL_CAP.saturating_sub(bytes.len());
                bytes.extend_from_slice(&chunk[..chunk.len().min(room)]);
                if bytes.len() >= REFUSAL_CAP {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), read).await;
        match serde_json::from_slice::<Self>(&bytes) {
            Ok(told) => told,
            Err(_) if is_page || bytes.starts_with(b"{") => Self::default(),
            Err(_) => Self { message: String::from_utf8_lossy(&bytes).into_owned(), ..Self::default() },
        }
    }

    /// `: "…"`, or nothing.
    fn says(&self) -> String {
        match text::line(&self.message, MESSAGE) {
            message if message.is_empty() => String::new(),
            message => format!(": \"{message}\""),
        }
    }

    /// Beside `Retry-After`, the page of the documentation that GitHub links to is the sign of this limit.
    fn is_second_limit(&self) -> bool {
        ["secondary-rate-limit", "abuse-rate-limit"].iter().any(|page| self.documentation_url.contains(page))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limit {
    /// So many requests an hour.
    First,
    /// Too many at once.
    Second,
}

/// When a limit ends.
struct Until {
    text: String,
    wait: Option<Duration>,
}

/// GitHub says 403 or 429 with one of two headers; Gitea and proxies say 429.
fn limit(status: StatusCode, headers: &HeaderMap, told: &Told) -> Option<(Limit, Until)> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<i64>().ok();
    let spent = number("x-ratelimit-remaining") == Some(0);
    let wait = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::trim);
    let limited = match status {
        StatusCode::TOO_MANY_REQUESTS => true,
        StatusCode::FORBIDDEN => spent || wait.is_some() || told.is_second_limit(),
        _ => false,
    };
    if !limited {
        return None;
    }
    let second = !spent && (told.is_second_limit() || (status == StatusCode::FORBIDDEN && wait.is_some()));
    let reset = number("x-ratelimit-reset").and_then(|at| Timestamp::from_second(at).ok());
    let seconds = wait.and_then(|wait| wait.parse::<u64>().ok());
    let text = match (wait, seconds, reset) {
        (_, Some(seconds), _) => format!("try again in {seconds} s"),
        (Some(date), None, _) => format!("try again after {}", text::line(date, 40)),
        (None, None, Some(reset)) if !second => format!("the limit resets at {reset}"),
        (None, None, _) => "try again in some minutes".to_owned(),
    };
    let limit = if second { Limit::Second } else { Limit::First };
    Some((limit, Until { text, wait: seconds.map(Duration::from_secs) }))
}

/// Whether the server that was asked over plain http speaks TLS at that port. No secret is sent.
async fn speaks_tls(client: &Client, url: &Url) -> bool {
    let mut url = url.clone();
    let port = url.port_or_known_default();
    if url.scheme() != "http" || url.set_scheme("https").is_err() || url.set_port(port).is_err() {
        return false;
    }
    url.set_path("/");
    url.set_query(None);
    match tokio::time::timeout(TLS_LOOK, client.head(url.clone()).send()).await {
        Ok(Ok(_)) => true,
        // It has shown a certificate.
        Ok(Err(error)) => Fault::of(&error, &url).is_of_a_certificate(),
        Err(_) => false,
    }
}

/// The address, and the proxy if there is one: ` through the proxy HOST:PORT (HTTPS_PROXY)`.
fn shown_way(url: &Url) -> String {
    let through = |(variable, proxy)| format!(" through the proxy {proxy} ({variable})");
    shown(url) + &fault::proxy(url).map_or_else(String::new, through)
}

/// `host`, or `host:port` where the port is not the scheme's own.
pub(super) fn place(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn is_web_page(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("text/html") || kind.eq_ignore_ascii_case("application/xhtml+xml")
}

fn bearer(token: &SecretString) -> Result<HeaderValue, SourceError> {
    let unfit = |_| SourceError::new(SourceFault::Token, format!("{GITHUB_TOKEN} cannot stand in an HTTP header"));
    let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose_secret())).map_err(unfit)?;
    value.set_sensitive(true);
    Ok(value)
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Where a redirect leads.
fn redirected(from: &Url, headers: &HeaderMap) -> Result<Url, Failure> {
    let location = headers.get(LOCATION).and_then(|value| value.to_str().ok());
    let to = location.and_then(|location| from.join(location).ok());
    let nowhere = || Failure::new(SourceFault::Nonsense, format!("{} redirects to no address", shown(from)));
    let to = to.ok_or_else(nowhere)?;
    match may_lead(from, &to) {
        true => Ok(to),
        false => {
            let text = format!("{} redirects to {}, which is not https: refused", shown(from), shown(&to));
            Err(Failure::new(SourceFault::Insecure, text))
        }
    }
}

/// Whether an answer of `from` may send us to `to`: never from https to http, but for this very machine.
pub(super) fn may_lead(from: &Url, to: &Url) -> bool {
    match to.scheme() {
        "https" => true,
        "http" => from.scheme() == "http" || is_loopback(to),
        _ => false,
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// The target of `rel="next"` (RFC 8288), in whichever of several links it is.
fn next_link(headers: &HeaderMap) -> Option<String> {
    let links = headers.get_all(LINK).into_iter().filter_map(|value| value.to_str().ok());
    for link in links.flat_map(|value| value.split('<').skip(1)) {
        let (target, parameters) = link.split_once('>')?;
        let next = |parameter: &str| {
            let (name, value) = parameter.split_once('=').unwrap_or_default();
            let value = value.trim().trim_end_matches(',').trim_matches('"');
            name.trim().eq_ignore_ascii_case("rel") && value.split(' ').any(|rel| rel.eq_ignore_ascii_case("next"))
        };
        if parameters.split(';').any(|parameter| next(parameter.trim_end_matches([' ', ',']))) {
            return Some(target.to_owned());
        }
    }
    None
}

/// An address without its query: signed links carry a secret there.
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_redirects_may_lead() {
        let table: &[(&str, &str, Result<&str, &str>)] = &[
            ("https://a/x?y", "https://b/z", Ok("https://b/z")),
            ("https://a/x", "/z", Ok("https://a/z")),
            ("http://a/x", "http://b/z", Ok("http://b/z")),
            ("https://a/x", "http://127.0.0.1:1/z", Ok("http://127.0.0.1:1/z")),
            ("https://a/x", "http://[::1]/z", Ok("http://[::1]/z")),
            (
                "https://a/x?t=1",
                "http://b/z?t=2",
                Err("https://a/x redirects to http://b/z, which is not https: refused"),
            ),
            ("http://a/x", "file:///etc/x", Err("http://a/x redirects to file:///etc/x, which is not https: refused")),
            ("http://a/x", "http://[", Err("http://a/x redirects to no address")),
        ];
        for (from, location, expected) in table {
            let headers = HeaderMap::from_iter([(LOCATION, HeaderValue::from_static(location))]);
            let to = redirected(&Url::parse(from).unwrap(), &headers).map_err(|failure| match failure {
                Failure::Again(error, _) | Failure::Final(error) => error.to_string(),
            });
            assert_eq!(to.as_ref().map(Url::as_str).map_err(String::as_str), *expected);
        }
        assert!(redirected(&Url::parse("http://a/").unwrap(), &HeaderMap::new()).is_err());
    }

    #[test]
    fn links_to_the_next_page() {
        let table: &[(&str, Option<&str>)] = &[
            ("<http://a/?page=2>; rel=\"next\", <http://a/?page=9>; rel=\"last\"", Some("http://a/?page=2")),
            ("<http://a/?page=1>; rel=\"prev\", <http://a/?page=3>; rel=\"next\"", Some("http://a/?page=3")),
            ("<http://a/,b>; title=x; rel=next", Some("http://a/,b")),
            ("<http://a/>; rel=\"last next\"", Some("http://a/")),
            ("<http://a/>; rel=\"last\"", None),
            ("<http://a/", None),
            ("next", None),
            ("", None),
        ];
        for (link, next) in table {
            let headers = HeaderMap::from_iter([(LINK, HeaderValue::from_static(link))]);
            assert_eq!(next_link(&headers).as_deref(), *next, "{link}");
        }
    }
}
