//! One careful GET: credentials for the API's own host only, redirects by hand and without them, sizes
//! and times capped, broken connections tried again.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use reqwest::header::{
    ACCEPT, AUTHORIZATION, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH, LINK, LOCATION, RETRY_AFTER,
};
use reqwest::{Client, Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, sleep, timeout_at};
use url::{Host, Url};

use super::Limits;
use crate::https::{Authorities, LazyClient, cause};
use crate::release::SourceError;
use crate::settings::name::{GITHUB_API, GITHUB_TOKEN};

/// Redirects that are followed for one request; GitHub needs one for an asset, two for a moved
/// repository.
const REDIRECTS: usize = 5;
/// Tries after the first one, on broken connections and 5xx.
const RETRIES: u32 = 2;

/// What to get, and how much of it.
pub(super) struct Get {
    pub url: Url,
    pub accept: &'static str,
    /// What is there already: an answer of 304 is welcome.
    pub etag: Option<HeaderValue>,
    /// Bytes.
    pub cap: usize,
    pub deadline: Instant,
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
    Again(String),
    Final(SourceError),
}

impl Failure {
    fn unavailable(text: String) -> Self {
        Self::Final(SourceError::Unavailable(text))
    }
}

pub(super) struct Http {
    client: LazyClient,
    api: Url,
    authorization: Option<HeaderValue>,
    pause: Duration,
}

impl Http {
    pub fn new(
        api: &Url,
        token: Option<&SecretString>,
        authorities: &Authorities,
        limits: &Limits,
    ) -> Result<Self, SourceError> {
        let connect = limits.connect;
        let client = LazyClient::new(authorities, move || {
            Client::builder()
                // GitHub refuses clients without a name.
                .user_agent(concat!("processgit-updater/", env!("CARGO_PKG_VERSION")))
                .redirect(reqwest::redirect::Policy::none())
                .referer(false)
                .connect_timeout(connect)
        });
        let authorization = match token {
            Some(token) => Some(bearer(token)?),
            None => None,
        };
        Ok(Self { client, api: api.clone(), authorization, pause: limits.pause })
    }

    /// Gets it before the deadline, however often it is tried.
    pub async fn get(&self, get: &Get) -> Result<Answer, SourceError> {
        let begun = Instant::now();
        let mut last = String::new();
        match timeout_at(get.deadline, self.tried(get, &mut last)).await {
            Ok(done) => done,
            Err(_) => {
                let waited = begun.elapsed().as_secs_f32();
                let last = if last.is_empty() { last } else { format!("; before that: {last}") };
                Err(SourceError::Unavailable(format!("{} did not answer within {waited:.1} s{last}", shown(&get.url))))
            }
        }
    }

    async fn tried(&self, get: &Get, last: &mut String) -> Result<Answer, SourceError> {
        let mut pause = self.pause;
        for _ in 0..RETRIES {
            match self.followed(get).await {
                Ok(answer) => return Ok(answer),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Again(reason)) => *last = reason,
            }
            sleep(pause).await;
            pause *= 3;
        }
        match self.followed(get).await {
            Ok(answer) => Ok(answer),
            Err(Failure::Final(error)) => Err(error),
            Err(Failure::Again(reason)) => {
                Err(SourceError::Unavailable(format!("{reason} (tried {} times)", RETRIES + 1)))
            }
        }
    }

    async fn followed(&self, get: &Get) -> Result<Answer, Failure> {
        let mut url = get.url.clone();
        // Only the address we were given may see the token, never one that an answer sent us to.
        let mut authorization = self.authorization.as_ref().filter(|_| url.origin() == self.api.origin());
        for _ in 0..=REDIRECTS {
            let response = self.sent(&url, get, authorization).await?;
            if !is_redirect(response.status()) {
                return self.read(get, &url, response).await;
            }
            url = redirected(&url, response.headers()).map_err(Failure::unavailable)?;
            authorization = None;
        }
        Err(Failure::unavailable(format!("{} redirects more than {REDIRECTS} times", shown(&get.url))))
    }

    /// The head of whatever it answers.
    pub async fn head_of_answer(&self, get: &Get) -> Result<HeaderMap, SourceError> {
        let authorization = self.authorization.as_ref().filter(|_| get.url.origin() == self.api.origin());
        match timeout_at(get.deadline, self.sent(&get.url, get, authorization)).await {
            Ok(Ok(response)) => Ok(response.headers().clone()),
            Ok(Err(Failure::Again(why))) => Err(SourceError::Unavailable(why)),
            Ok(Err(Failure::Final(error))) => Err(error),
            Err(_) => Err(SourceError::Unavailable(format!("{} did not answer in time", shown(&get.url)))),
        }
    }

    async fn sent(&self, url: &Url, get: &Get, authorization: Option<&HeaderValue>) -> Result<Response, Failure> {
        let ready = self.client.get().await.map_err(Failure::unavailable)?;
        let mut request = ready.client.get(url.clone()).header(ACCEPT, get.accept);
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if let Some(etag) = &get.etag {
            request = request.header(IF_NONE_MATCH, etag);
        }
        let unreachable = |e| Failure::Again(format!("{} is unreachable: {}", shown(url), ready.explain(&e)));
        request.send().await.map_err(unreachable)
    }

    async fn read(&self, get: &Get, url: &Url, response: Response) -> Result<Answer, Failure> {
        let status = response.status();
        if let Some(limited) = self.rate_limited(status, response.headers()) {
            return Err(Failure::unavailable(limited));
        }
        match status {
            StatusCode::OK => {
                let (etag, next) = (response.headers().get(ETAG).cloned(), next_link(response.headers()));
                Ok(Answer::Body { bytes: body(get.cap, url, response).await?, etag, next })
            }
            StatusCode::NOT_MODIFIED if get.etag.is_some() => Ok(Answer::Unchanged),
            StatusCode::NOT_FOUND | StatusCode::GONE => Ok(Answer::Absent),
            StatusCode::UNAUTHORIZED => {
                Err(Failure::unavailable(format!("{} refuses our credentials (401): check {GITHUB_TOKEN}", shown(url))))
            }
            status if status.is_server_error() => Err(Failure::Again(format!("{} answers {status}", shown(url)))),
            status => Err(Failure::unavailable(format!(
                "{} answers {status}, expected was 200: check {GITHUB_API} and the rights of {GITHUB_TOKEN}",
                shown(url)
            ))),
        }
    }

    /// GitHub says 403 or 429 with one of two headers; Gitea and proxies say 429.
    fn rate_limited(&self, status: StatusCode, headers: &HeaderMap) -> Option<String> {
        let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<i64>().ok();
        let spent = number("x-ratelimit-remaining") == Some(0);
        let wait = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let limited =
            status == StatusCode::TOO_MANY_REQUESTS || (status == StatusCode::FORBIDDEN && (spent || wait.is_some()));
        if !limited {
            return None;
        }
        let reset = number("x-ratelimit-reset").and_then(|at| Timestamp::from_second(at).ok());
        let until = match (wait.map(|wait| (wait, wait.parse::<u64>().is_ok())), reset) {
            (Some((seconds, true)), _) => format!("try again in {seconds} s"),
            (Some((date, false)), _) => format!("try again after {date}"),
            (None, Some(reset)) => format!("the limit resets at {reset}"),
            (None, None) => "try again later".to_owned(),
        };
        let remedy = match self.authorization {
            Some(_) => String::new(),
            None => format!("; set {GITHUB_TOKEN} to raise the limit"),
        };
        Some(format!("{} limits our requests ({}): {until}{remedy}", shown(&self.api), status.as_u16()))
    }
}

async fn body(cap: usize, url: &Url, mut response: Response) -> Result<Bytes, Failure> {
    let too_large = |found: u64| {
        let text = format!("{} sends {found} bytes or more; at most {cap} are accepted", shown(url));
        Failure::Final(SourceError::TooLarge(text))
    };
    if let Some(claimed) = response.content_length().filter(|claimed| *claimed > cap as u64) {
        return Err(too_large(claimed));
    }
    let mut bytes = BytesMut::new();
    loop {
        let chunk = response.chunk().await;
        let chunk =
            chunk.map_err(|e| Failure::Again(format!("the answer of {} breaks off: {}", shown(url), cause(&e))))?;
        let Some(chunk) = chunk else { return Ok(bytes.freeze()) };
        if bytes.len() + chunk.len() > cap {
            return Err(too_large((bytes.len() + chunk.len()) as u64));
        }
        bytes.extend_from_slice(&chunk);
    }
}

fn bearer(token: &SecretString) -> Result<HeaderValue, SourceError> {
    let unfit = |_| SourceError::Unavailable(format!("{GITHUB_TOKEN} cannot stand in an HTTP header: check it"));
    let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose_secret())).map_err(unfit)?;
    value.set_sensitive(true);
    Ok(value)
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Where a redirect leads.
fn redirected(from: &Url, headers: &HeaderMap) -> Result<Url, String> {
    let location = headers.get(LOCATION).and_then(|value| value.to_str().ok());
    let to = location.and_then(|location| from.join(location).ok());
    let to = to.ok_or_else(|| format!("{} redirects to no address", shown(from)))?;
    match may_lead(from, &to) {
        true => Ok(to),
        false => Err(format!("{} redirects to {}, which is not https: refused", shown(from), shown(&to))),
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
            let to = redirected(&Url::parse(from).unwrap(), &headers);
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
