//! Releases from GitHub's API, or whatever speaks it: GitHub Enterprise, Gitea, Forgejo.
//! Protocol: `GET {api}/repos/{owner}/{name}/releases` and `…/releases/tags/{tag}` of the GitHub REST API.
//!
//! `http` makes one careful request, `cache` keeps and shares answers; here stands what is asked and how
//! the answer is judged.

mod cache;
mod http;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use reqwest::header::HeaderValue;
use secrecy::SecretString;
use semver::Version;
use serde::Deserialize;
use tokio::time::Instant;
use url::Url;

use super::{Asset, Channel, Release, ReleaseSource, SourceError};
use crate::https::Authorities;
use crate::settings::Repo;
use crate::settings::name::{GITHUB_API, GITHUB_TOKEN, REPO};
use cache::Slot;
use http::{Answer, Get, Http, shown};

/// The largest answer of the API that is read, in bytes: a hundred releases with long notes.
const PAGE_CAP: usize = 8 * 1024 * 1024;
/// The most pages of a hundred releases that are read.
const PAGES: usize = 10;
/// The most single releases whose answers are kept.
const TAGS: usize = 64;
/// The longest tag, in bytes: what `POST /update` accepts.
const TAG: usize = 128;

const JSON: &str = "application/vnd.github+json";
const BINARY: &str = "application/octet-stream";

/// How long things may take and last.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Until a connection stands.
    pub connect: Duration,
    /// One question to the API, tries and pages included. The admin page waits 10 s for its answer.
    pub call: Duration,
    /// One asset, tries included.
    pub asset: Duration,
    /// Before the second try; before the third it is three times as long.
    pub pause: Duration,
    /// So long an answer is given again without asking.
    pub fresh: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            call: Duration::from_secs(8),
            asset: Duration::from_secs(20),
            pause: Duration::from_millis(200),
            fresh: Duration::from_secs(60),
        }
    }
}

/// The releases of one repository.
pub struct GithubReleases {
    http: Http,
    api: Url,
    repo: Repo,
    limits: Limits,
    has_token: bool,
    list: Slot<Vec<Page>>,
    tags: Mutex<HashMap<String, Arc<Slot<Page>>>>,
}

/// What the API says of itself.
#[derive(Debug, Clone, Default)]
pub struct Reach {
    /// Its clock.
    pub date: Option<Timestamp>,
    /// Questions that it will still answer; only some count.
    pub remaining: Option<i64>,
    pub limit: Option<i64>,
    pub resets: Option<Timestamp>,
}

/// One answer of the API, understood.
#[derive(Clone)]
struct Page {
    url: Url,
    etag: Option<HeaderValue>,
    releases: Vec<Release>,
    next: Option<Url>,
}

impl GithubReleases {
    /// Fails on a token that no HTTP header can carry.
    pub fn new(
        api: Url,
        repo: Repo,
        token: Option<SecretString>,
        authorities: &Authorities,
    ) -> Result<Self, SourceError> {
        Self::with_limits(api, repo, token, authorities, Limits::default())
    }

    /// As [`GithubReleases::new`], with other limits.
    pub fn with_limits(
        api: Url,
        repo: Repo,
        token: Option<SecretString>,
        authorities: &Authorities,
        limits: Limits,
    ) -> Result<Self, SourceError> {
        let http = Http::new(&api, token.as_ref(), authorities, &limits)?;
        let (list, tags, has_token) = (Slot::default(), Mutex::default(), token.is_some());
        Ok(Self { http, api, repo, limits, has_token, list, tags })
    }

    /// What the API says of itself beside its answers.
    ///
    /// # Errors
    /// It cannot be reached.
    pub async fn reach(&self) -> Result<Reach, SourceError> {
        let mut url = self.api.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            // GitHub does not count this question; who does not know it answers 404, with the same head.
            segments.pop_if_empty().push("rate_limit");
        }
        let get = Get { url, accept: JSON, etag: None, cap: 0, deadline: Instant::now() + self.limits.call };
        let head = self.http.head_of_answer(&get).await?;
        let text = |name: &str| head.get(name)?.to_str().ok().map(str::to_owned);
        let number = |name: &str| text(name)?.trim().parse::<i64>().ok();
        Ok(Reach {
            date: text("date").and_then(|date| jiff::fmt::rfc2822::parse(&date).ok()).map(|date| date.timestamp()),
            remaining: number("x-ratelimit-remaining"),
            limit: number("x-ratelimit-limit"),
            resets: number("x-ratelimit-reset").and_then(|at| Timestamp::from_second(at).ok()),
        })
    }

    /// Every release, from the first page to the last.
    async fn all(&self, before: Option<Arc<Vec<Page>>>) -> Result<Vec<Page>, SourceError> {
        let deadline = Instant::now() + self.limits.call;
        let mut pages: Vec<Page> = Vec::new();
        let mut url = self.list_address(1);
        for number in 1..=PAGES {
            let old = before.as_ref().and_then(|pages| pages.get(number - 1)).filter(|old| old.url == url);
            let page = self.page(url, old, deadline, many).await?.ok_or_else(|| self.no_repository())?;
            let next = page.next.clone();
            pages.push(page);
            match next {
                Some(next) if next.origin() == self.api.origin() => url = next,
                // Behind a proxy an API may not know its own name. Elsewhere we never go.
                Some(_) => url = self.list_address(number + 1),
                None => return Ok(pages),
            }
        }
        tracing::warn!(pages = PAGES, "the repository has more releases than are read; older ones are not seen");
        Ok(pages)
    }

    /// One page, unless there is none; the old one again where the API says so.
    async fn page(
        &self,
        url: Url,
        old: Option<&Page>,
        deadline: Instant,
        understand: fn(&[u8]) -> serde_json::Result<Vec<Release>>,
    ) -> Result<Option<Page>, SourceError> {
        let etag = old.and_then(|old| old.etag.clone());
        let get = Get { url, accept: JSON, etag, cap: PAGE_CAP, deadline };
        match (self.http.get(&get).await?, old) {
            (Answer::Body { bytes, etag, next }, _) => {
                let releases = understand(&bytes).map_err(|reason| {
                    let at = shown(&get.url);
                    let text = format!("{at} answers something else than releases ({reason}): check {GITHUB_API}");
                    SourceError::Unavailable(text)
                })?;
                let next = next.and_then(|next| get.url.join(&next).ok());
                Ok(Some(Page { url: get.url, etag, releases, next }))
            }
            (Answer::Unchanged, Some(old)) => Ok(Some(old.clone())),
            (Answer::Unchanged | Answer::Absent, _) => Ok(None),
        }
    }

    /// `{api}/repos/{owner}/{name}/…`
    fn address(&self, path: &[&str], query: Option<&str>) -> Url {
        let mut url = self.api.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["repos", &self.repo.owner, &self.repo.name]).extend(path);
        }
        url.set_query(query);
        url
    }

    fn list_address(&self, page: usize) -> Url {
        self.address(&["releases"], Some(&format!("per_page=100&page={page}")))
    }

    fn slot(&self, tag: &str) -> Arc<Slot<Page>> {
        let mut tags = self.tags.lock().unwrap_or_else(PoisonError::into_inner);
        if tags.len() >= TAGS && !tags.contains_key(tag) {
            tags.clear();
        }
        tags.entry(tag.to_owned()).or_default().clone()
    }

    /// ` OWNER/NAME at https://…`, and what may be wrong when something is not there.
    fn place(&self) -> String {
        let Repo { owner, name } = &self.repo;
        format!("{owner}/{name} at {}", shown(&self.api))
    }

    fn no_repository(&self) -> SourceError {
        let private = match self.has_token {
            true => format!("the rights of {GITHUB_TOKEN}"),
            false => format!("set {GITHUB_TOKEN} if it is private"),
        };
        SourceError::Unavailable(format!("there is no repository {} (404): check {REPO}, {private}", self.place()))
    }
}

#[async_trait]
impl ReleaseSource for GithubReleases {
    async fn latest(&self, channel: Channel) -> Result<Release, SourceError> {
        let pages = self.list.get(self.limits.fresh, async |before| self.all(before).await).await?;
        let releases = pages.iter().flat_map(|page| &page.releases);
        highest(releases, channel).cloned().ok_or_else(|| {
            let kind = if channel == Channel::Stable { "stable release" } else { "release" };
            SourceError::NotFound(format!("there is no {kind} with a SemVer tag in {}", self.place()))
        })
    }

    async fn by_tag(&self, tag: &str) -> Result<Release, SourceError> {
        let absent = || {
            let private = match self.has_token {
                true => String::new(),
                false => format!(" (a private repository needs {GITHUB_TOKEN})"),
            };
            SourceError::NotFound(format!("there is no release {tag:?} in {}{private}", self.place()))
        };
        if !is_tag(tag) {
            return Err(absent());
        }
        let slot = self.slot(tag);
        let page = slot.get(self.limits.fresh, async |before: Option<Arc<Page>>| {
            let deadline = Instant::now() + self.limits.call;
            let url = self.address(&["releases", "tags", tag], None);
            let page = self.page(url, before.as_deref(), deadline, one).await?;
            page.filter(|page| !page.releases.is_empty()).ok_or_else(absent)
        });
        let page = page.await?;
        let release = page.releases.first().ok_or_else(absent)?;
        if release.tag != tag {
            let text =
                format!("{} answers with release {:?} where {tag:?} was asked for", shown(&page.url), release.tag);
            return Err(SourceError::Unavailable(text));
        }
        Ok(release.clone())
    }

    async fn fetch(&self, asset: &Asset, cap: usize) -> Result<Bytes, SourceError> {
        if asset.size > cap as u64 {
            let (name, size) = (&asset.name, asset.size);
            return Err(SourceError::TooLarge(format!("{name} has {size} bytes; at most {cap} are accepted")));
        }
        let url = Url::parse(&asset.url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let url = url.ok_or_else(|| {
            SourceError::Unavailable(format!("{} has the address {:?}, which is none", asset.name, asset.url))
        })?;
        if !http::may_lead(&self.api, &url) {
            let text = format!("{} is at {}, which is not https: refused", asset.name, shown(&url));
            return Err(SourceError::Unavailable(text));
        }
        let deadline = Instant::now() + self.limits.asset;
        match self.http.get(&Get { url, accept: BINARY, etag: None, cap, deadline }).await? {
            Answer::Body { bytes, .. } => Ok(bytes),
            Answer::Absent | Answer::Unchanged => {
                Err(SourceError::NotFound(format!("the release's {} is not there any more (404)", asset.name)))
            }
        }
    }
}

/// The highest SemVer of the channel. A version that calls itself a pre-release (`1.0.0-rc.1`) is one,
/// whatever the publisher ticked.
fn highest<'a>(releases: impl Iterator<Item = &'a Release>, channel: Channel) -> Option<&'a Release> {
    releases
        .filter_map(|release| Some((semver(&release.tag)?, release)))
        .filter(|(version, release)| channel == Channel::Prerelease || (!release.prerelease && version.pre.is_empty()))
        .max_by(|(a, _), (b, _)| a.cmp(b))
        .map(|(_, release)| release)
}

fn semver(tag: &str) -> Option<Version> {
    Version::parse(tag.strip_prefix('v').unwrap_or(tag)).ok()
}

/// `[A-Za-z0-9][A-Za-z0-9._+-]{0,127}`, as `POST /update` has it.
fn is_tag(tag: &str) -> bool {
    tag.len() <= TAG
        && tag.starts_with(|c: char| c.is_ascii_alphanumeric())
        && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"._+-".contains(&b))
}

/// A release as the API tells it; whatever else it tells is passed over.
#[derive(Deserialize)]
struct Told {
    tag_name: String,
    name: Option<String>,
    #[serde(default)]
    draft: bool,
    #[serde(default)]
    prerelease: bool,
    html_url: Option<String>,
    published_at: Option<String>,
    #[serde(default)]
    assets: Vec<ToldAsset>,
}

#[derive(Deserialize)]
struct ToldAsset {
    name: String,
    #[serde(default)]
    size: u64,
    /// The API's own address of it, which GitHub has and Gitea has not.
    url: Option<String>,
    browser_download_url: Option<String>,
}

fn many(bytes: &[u8]) -> serde_json::Result<Vec<Release>> {
    Ok(offered(serde_json::from_slice::<Vec<Told>>(bytes)?))
}

fn one(bytes: &[u8]) -> serde_json::Result<Vec<Release>> {
    Ok(offered(vec![serde_json::from_slice::<Told>(bytes)?]))
}

/// Without drafts and without tags that nobody could ask for.
fn offered(told: Vec<Told>) -> Vec<Release> {
    told.into_iter().filter(|told| !told.draft && is_tag(&told.tag_name)).map(release).collect()
}

fn release(told: Told) -> Release {
    Release {
        name: told.name.filter(|name| !name.is_empty()).unwrap_or_else(|| told.tag_name.clone()),
        tag: told.tag_name,
        prerelease: told.prerelease,
        // Shown as a link, so no other scheme will do.
        html_url: told
            .html_url
            .filter(|url| url.starts_with("https://") || url.starts_with("http://"))
            .unwrap_or_default(),
        published_at: told.published_at.and_then(|at| at.parse::<Timestamp>().ok()),
        assets: told.assets.into_iter().filter_map(asset).collect(),
    }
}

fn asset(told: ToldAsset) -> Option<Asset> {
    let url = told.url.or(told.browser_download_url)?;
    Some(Asset { name: told.name, size: told.size, url })
}
