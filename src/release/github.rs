//! Releases from GitHub's API, or whatever speaks it: GitHub Enterprise, Gitea, Forgejo.
//! Protocol: `GET {api}/repos/{owner}/{name}/releases` and `…/releases/tags/{tag}` of the GitHub REST API.
//!
//! `http` makes one careful request, `list` reads the list as far as it can be had, `cache` keeps and shares answers;
//! here stands what is asked and how the answer is judged.

mod cache;
mod http;
mod list;
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

use super::{Asset, Channel, MANIFEST, Release, ReleaseSource, SourceError, SourceFault};
use crate::https::Authorities;
use crate::settings::Repo;
use crate::text;
use cache::Slot;
use http::{Answer, Get, Http, shown};
use list::{Listing, nonsense};

/// The largest answer of the API that is read, in bytes: a hundred releases with long notes.
const PAGE_CAP: usize = 8 * 1024 * 1024;
/// The most single releases whose answers are kept.
const TAGS: usize = 64;
/// The most assets of one release that are kept.
const ASSETS: usize = 32;
/// The most tags that are named when they are not offered.
const NAMED: usize = 5;
/// So long after its publication the files of a release may still be on their way; it is asked for anew each time.
const YOUNG: jiff::SignedDuration = jiff::SignedDuration::from_hours(1);
/// The longest name of a release that is shown, characters.
const NAME: usize = 200;
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
    list: Slot<Listing>,
    tags: Mutex<HashMap<String, Arc<Slot<Single>>>>,
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

/// One release, and what it takes to ask whether it has changed.
#[derive(Clone)]
struct Single {
    etag: Option<HeaderValue>,
    release: Release,
}

impl Single {
    /// Nothing of it is expected to change soon.
    fn is_settled(&self) -> bool {
        let age = self.release.published_at.map(|at| Timestamp::now().duration_since(at));
        age.is_some_and(|age| age > YOUNG) && self.release.assets.iter().all(|asset| asset.uploaded)
    }
}

impl GithubReleases {
    /// Fails on a token that no HTTP header can carry.
    pub fn new(
        api: Url,
        repo: Repo,
        token: Option<SecretString>,
        token_hosts: &[String],
        authorities: &Authorities,
    ) -> Result<Self, SourceError> {
        Self::with_limits(api, repo, token, token_hosts, authorities, Limits::default())
    }

    /// As [`GithubReleases::new`], with other limits.
    pub fn with_limits(
        api: Url,
        repo: Repo,
        token: Option<SecretString>,
        token_hosts: &[String],
        authorities: &Authorities,
        limits: Limits,
    ) -> Result<Self, SourceError> {
        let http = Http::new(&api, token.as_ref(), token_hosts, authorities, &limits)?;
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
        let get = Get::new(url, JSON, 0, Instant::now() + self.limits.call);
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

    /// The release with this tag, unless there is none; the old one again where the API says so.
    async fn single(&self, tag: &str, old: Option<&Single>) -> Result<Option<Single>, SourceError> {
        let url = self.address(&["releases", "tags", tag], None);
        let mut get = Get::new(url, JSON, PAGE_CAP, Instant::now() + self.limits.call);
        get.etag = old.and_then(|old| old.etag.clone());
        match (self.http.get(&get).await?, old) {
            (Answer::Body { bytes, etag, .. }, _) => {
                let told: Told<Vec<ToldAsset>> = serde_json::from_slice(&bytes).map_err(|e| nonsense(&get.url, &e))?;
                let files = |told: Vec<ToldAsset>| told.into_iter().filter_map(asset).take(ASSETS).collect();
                let Some(release) = told.release(files) else { return Ok(None) };
                if release.tag != tag {
                    let found = &release.tag;
                    let text =
                        format!("{} answers with release {found:?} where {tag:?} was asked for", shown(&get.url));
                    return Err(SourceError::new(SourceFault::Nonsense, text));
                }
                Ok(Some(Single { etag, release }))
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

    fn slot(&self, tag: &str) -> Arc<Slot<Single>> {
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
        let fault = SourceFault::NoRepository { has_token: self.has_token };
        SourceError::new(fault, format!("there is no repository {} (404)", self.place()))
    }

    /// What should be known of an answer from this list.
    fn remarks(&self, listing: &Listing) -> Vec<String> {
        let mut remarks = Vec::new();
        if let Some(cut) = listing.cut() {
            remarks.push(format!(
                "only the newest {} releases of {} were read: {cut}. A higher version among the older ones is not offered; name its tag to have it",
                listing.count(),
                self.place()
            ));
        }
        let others: Vec<&str> =
            listing.releases().map(|r| r.tag.as_str()).filter(|tag| version(tag).is_none()).collect();
        if !others.is_empty() {
            let more = if others.len() > NAMED { ", …" } else { "" };
            let named = others[..others.len().min(NAMED)].join(", ");
            remarks.push(format!(
                "{} not offered, because a tag must be `v` and a SemVer version: {named}{more}",
                if others.len() == 1 { "1 release is".to_owned() } else { format!("{} releases are", others.len()) },
            ));
        }
        remarks
    }
}

#[async_trait]
impl ReleaseSource for GithubReleases {
    async fn latest(&self, channel: Channel) -> Result<Release, SourceError> {
        let whole = Listing::is_whole;
        let listing = self.list.get(self.limits.fresh, whole, async |before| self.listing(before).await).await?;
        let remarks = self.remarks(&listing);
        if let Some(release) = highest(listing.releases(), channel) {
            return Ok(Release { remarks, ..release.clone() });
        }
        let kind = if channel == Channel::Stable { "stable release" } else { "release" };
        let why = remarks.iter().map(|remark| format!("; {remark}")).collect::<String>();
        let text = format!("there is no {kind} with a tag of `v` and a SemVer version in {}{why}", self.place());
        Err(match listing.cut() {
            Some(cut) if !listing.is_whole() => SourceError::new(cut.fault.clone(), text),
            _ => SourceError::not_found(text),
        })
    }

    async fn by_tag(&self, tag: &str) -> Result<Release, SourceError> {
        let absent = || {
            let private = match self.has_token {
                true => String::new(),
                false => " (a private repository needs PROCESSGIT_UPDATER_GITHUB_TOKEN)".to_owned(),
            };
            SourceError::not_found(format!("there is no release {tag:?} in {}{private}", self.place()))
        };
        if !is_tag(tag) {
            return Err(absent());
        }
        let slot = self.slot(tag);
        let single = slot.get(self.limits.fresh, Single::is_settled, async |before: Option<Arc<Single>>| {
            self.single(tag, before.as_deref()).await?.ok_or_else(absent)
        });
        Ok(single.await?.release.clone())
    }

    fn forget(&self) {
        self.list.expire();
        self.tags.lock().unwrap_or_else(PoisonError::into_inner).values().for_each(|slot| slot.expire());
    }

    async fn fetch(&self, asset: &Asset, cap: usize) -> Result<Bytes, SourceError> {
        let name = &asset.name;
        if asset.size > cap as u64 {
            let text = format!("{name} has {} bytes; at most {cap} are accepted", asset.size);
            return Err(SourceError::new(SourceFault::TooLarge, text));
        }
        let url = Url::parse(&asset.url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let Some(url) = url else {
            let text = format!("{name} has the address {:?}, which is none", asset.url);
            return Err(SourceError::new(SourceFault::Nonsense, text));
        };
        if !http::may_lead(&self.api, &url) {
            let text = format!("{name} is at {}, which is not https: refused", shown(&url));
            return Err(SourceError::new(SourceFault::Insecure, text));
        }
        match self.http.get(&Get::new(url, BINARY, cap, Instant::now() + self.limits.asset)).await? {
            Answer::Body { bytes, .. } => Ok(bytes),
            Answer::Absent | Answer::Unchanged => {
                let text = format!("the release names {name}, and its server does not have it (404)");
                Err(SourceError::new(SourceFault::NoFile, text))
            }
        }
    }
}

/// The highest SemVer of the channel. A version that calls itself a pre-release (`1.0.0-rc.1`) is one,
/// whatever the publisher ticked.
fn highest<'a>(releases: impl Iterator<Item = &'a Release>, channel: Channel) -> Option<&'a Release> {
    releases
        .filter_map(|release| Some((version(&release.tag)?, release)))
        .filter(|(version, release)| channel == Channel::Prerelease || (!release.prerelease && version.pre.is_empty()))
        .max_by(|(a, _), (b, _)| a.cmp(b))
        .map(|(_, release)| release)
}

/// The version that a tag stands for, where a manifest can have this tag: `v` and a SemVer version.
pub fn version(tag: &str) -> Option<Version> {
    Version::parse(tag.strip_prefix('v')?).ok()
}

/// `[A-Za-z0-9][A-Za-z0-9._+-]{0,127}`, as `POST /update` has it.
fn is_tag(tag: &str) -> bool {
    tag.len() <= TAG
        && tag.starts_with(|c: char| c.is_ascii_alphanumeric())
        && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"._+-".contains(&b))
}

/// One release as the API tells it; whatever else it tells is passed over. `A`: how its files are read.
#[derive(Deserialize)]
struct Told<A> {
    tag_name: String,
    name: Option<String>,
    #[serde(default)]
    draft: bool,
    #[serde(default)]
    prerelease: bool,
    html_url: Option<String>,
    published_at: Option<String>,
    #[serde(default)]
    assets: A,
}

impl<A> Told<A> {
    /// None of a draft, and none with a tag that nobody could ask for.
    fn release(self, files: impl FnOnce(A) -> Vec<Asset>) -> Option<Release> {
        (!self.draft && is_tag(&self.tag_name)).then(|| Release {
            name: named(self.name.as_deref(), &self.tag_name),
            tag: self.tag_name,
            prerelease: self.prerelease,
            html_url: link(self.html_url),
            published_at: moment(self.published_at.as_deref()),
            remarks: Vec::new(),
            assets: files(self.assets),
        })
    }
}

#[derive(Deserialize)]
struct ToldAsset {
    name: String,
    #[serde(default)]
    size: u64,
    /// The API's own address of it, which GitHub has and Gitea has not.
    url: Option<String>,
    browser_download_url: Option<String>,
    /// Of GitHub: `uploaded`, or what it is before.
    state: Option<String>,
}

/// The name for people, or the tag.
fn named(name: Option<&str>, tag: &str) -> String {
    match text::line(name.unwrap_or_default(), NAME) {
        name if name.is_empty() => tag.to_owned(),
        name => name,
    }
}

/// Shown as a link, so no other scheme will do.
fn link(url: Option<String>) -> String {
    let url = url.and_then(|url| Url::parse(&url).ok()).filter(|url| matches!(url.scheme(), "https" | "http"));
    url.map(Into::into).unwrap_or_default()
}

fn moment(text: Option<&str>) -> Option<Timestamp> {
    text.and_then(|at| at.parse().ok())
}

/// The manifest, or one of its signatures: a release may have hundreds of other files.
fn asset(told: ToldAsset) -> Option<Asset> {
    let url = told.url.or(told.browser_download_url)?;
    let uploaded = told.state.is_none_or(|state| state == "uploaded");
    told.name.starts_with(MANIFEST).then_some(Asset { name: told.name, size: told.size, url, uploaded })
}
