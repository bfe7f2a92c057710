//! The list of releases, newest first, as far as it can be had: page by page, with smaller pages where large ones
//! are too slow, too large or refused, and with what an earlier look has read already.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use reqwest::header::HeaderValue;
use serde::de::IgnoredAny;
use tokio::time::{Instant, sleep};
use url::Url;

use super::http::{Answer, Get, shown};
use super::{GithubReleases, JSON, PAGE_CAP};
use crate::release::{Release, SourceError, SourceFault};

/// How many releases a page has. Where it cannot be had, the next smaller is asked for.
const SIZES: [usize; 4] = [100, 30, 10, 1];
/// The most requests of one look.
const REQUESTS: usize = 40;
/// The most releases that are read.
const RELEASES: usize = 1000;
/// So long a size that works is kept, and pages are added to those that an earlier look could read.
const KEPT: Duration = Duration::from_secs(600);

/// The newest releases.
pub(super) struct Listing {
    pages: Vec<Page>,
    /// Why older ones were not read.
    cut: Option<SourceError>,
    /// What the API itself calls the latest, where the list was cut.
    flagged: Option<Release>,
    /// The size of a page that could be had, in [`SIZES`], and since when that is known.
    size: (usize, Instant),
}

#[derive(Clone)]
struct Page {
    url: Url,
    etag: Option<HeaderValue>,
    /// Which page it was, in [`SIZES`] and from 1.
    place: (usize, usize),
    /// How many releases it had, drafts included. A server may give fewer at once than were asked for.
    count: usize,
    releases: Vec<Release>,
    next: Option<Url>,
    at: Instant,
}

impl Listing {
    /// Everything was read, or as much as is ever read.
    pub fn is_whole(&self) -> bool {
        self.cut.as_ref().is_none_or(SourceError::is_not_found)
    }

    pub fn cut(&self) -> Option<&SourceError> {
        self.cut.as_ref()
    }

    pub fn releases(&self) -> impl Iterator<Item = &Release> {
        self.pages.iter().flat_map(|page| &page.releases).chain(&self.flagged)
    }

    /// How many releases were looked at.
    pub fn count(&self) -> usize {
        self.pages.iter().map(|page| page.count).sum()
    }

    /// The page after `pages`, if this earlier look has it and nothing has changed in front of it.
    fn page_after(&self, pages: &[Page]) -> Option<&Page> {
        let same = |(old, new): (&Page, &Page)| old.url == new.url && old.releases == new.releases;
        let unchanged = self.cut.is_some() && !pages.is_empty() && self.pages.iter().zip(pages).all(same);
        self.pages.get(pages.len()).filter(|page| unchanged && page.at.elapsed() < KEPT)
    }
}

impl GithubReleases {
    /// From the newest page on, until all are there, the time is over, or a page cannot be had even in small pieces.
    ///
    /// # Errors
    /// Nothing could be had at all.
    pub(super) async fn listing(&self, before: Option<Arc<Listing>>) -> Result<Listing, SourceError> {
        let begun = Instant::now();
        // A part of the time is left for the release that the API itself calls the latest.
        let (deadline, end) = (begun + self.limits.call * 4 / 5, begun + self.limits.call);
        let known = before.as_ref().map(|before| before.size).filter(|(_, since)| since.elapsed() < KEPT);
        let mut size = known.unwrap_or((0, begun));
        let (mut pages, mut requests): (Vec<Page>, usize) = (Vec::new(), 0);
        let mut url = self.list_address(size.0, 1);
        let mut number = 1;
        let cut = loop {
            if let Some(kept) = before.as_ref().and_then(|before| before.page_after(&pages)) {
                pages.push(kept.clone());
            } else {
                let old = before.as_ref().and_then(|before| before.pages.get(pages.len()));
                let offset = pages.iter().map(|page| page.count).sum();
                let was = size.0;
                let first = (url.clone(), number);
                match self.a_page(first, &mut size.0, offset, old, deadline, &mut requests).await {
                    Ok(Some(page)) => pages.push(page),
                    Ok(None) if pages.is_empty() => return Err(self.no_repository()),
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                }
                if size.0 != was {
                    size.1 = begun;
                }
            }
            let read: usize = pages.iter().map(|page| page.count).sum();
            number = match pages.last() {
                Some(Page { place: (of, number), .. }) if *of == size.0 => number + 1,
                _ => read / SIZES[size.0] + 1,
            };
            match pages.last().and_then(|page| page.next.clone()) {
                None => break None,
                Some(_) if read >= RELEASES || requests >= REQUESTS => {
                    break Some(SourceError::not_found("no more are read"));
                }
                Some(next) if next.origin() == self.api.origin() => url = next,
                // Behind a proxy an API may not know its own name. Elsewhere we never go.
                Some(_) => url = self.list_address(size.0, number),
            }
        };
        let flagged = match &cut {
            Some(error) if error.may_pass() || error.is_not_found() => self.flagged(end).await,
            _ => None,
        };
        match cut {
            Some(error) if pages.is_empty() && flagged.is_none() => Err(error),
            cut => Ok(Listing { pages, cut, flagged, size }),
        }
    }

    /// The first page or a smaller one, all of which begin after `offset` releases. When it is slow, a smaller one is asked for beside it,
    /// and whichever comes first is taken; when it fails, a smaller one is asked for at once.
    async fn a_page(
        &self,
        (url, number): (Url, usize),
        size: &mut usize,
        offset: usize,
        old: Option<&Page>,
        deadline: Instant,
        requests: &mut usize,
    ) -> Result<Option<Page>, SourceError> {
        let step = self.limits.call / 5;
        let mut asked = FuturesUnordered::new();
        let mut at = *size;
        let ask = |at: usize, number: usize, url: Url| async move {
            (at, self.one_page((at, number), url, old, deadline).await)
        };
        asked.push(ask(at, number, url));
        *requests += 1;
        loop {
            let failed = tokio::select! {
                Some((which, answer)) = asked.next() => match answer {
                    Ok(page) => {
                        *size = which;
                        return Ok(page);
                    }
                    Err(error) if !error.may_pass() => return Err(error),
                    Err(error) => Some(error),
                },
                () = sleep(step), if at + 1 < SIZES.len() => None,
            };
            if at + 1 < SIZES.len() && Instant::now() < deadline {
                at += 1;
                let number = offset / SIZES[at] + 1;
                asked.push(ask(at, number, self.list_address(at, number)));
                *requests += 1;
            } else if let Some(error) = failed.filter(|_| asked.is_empty()) {
                return Err(error);
            }
        }
    }

    /// One request for one page; the old one again where the API says that it is the same.
    async fn one_page(
        &self,
        place: (usize, usize),
        url: Url,
        old: Option<&Page>,
        deadline: Instant,
    ) -> Result<Option<Page>, SourceError> {
        let old = old.filter(|old| old.url == url);
        let mut get = Get::new(url, JSON, PAGE_CAP, deadline);
        get.etag = old.and_then(|old| old.etag.clone());
        if place.0 + 1 < SIZES.len() {
            // The next try is for less.
            get.retries = 0;
        }
        match (self.http.get(&get).await?, old) {
            (Answer::Body { bytes, etag, next }, _) => {
                let told: Vec<Told> = serde_json::from_slice(&bytes).map_err(|e| nonsense(&get.url, &e))?;
                let next = next.and_then(|next| get.url.join(&next).ok());
                let count = told.len();
                let releases = told.into_iter().filter_map(release).collect();
                Ok(Some(Page { url: get.url, etag, place, count, releases, next, at: Instant::now() }))
            }
            (Answer::Unchanged, Some(old)) => Ok(Some(Page { at: Instant::now(), ..old.clone() })),
            (Answer::Unchanged | Answer::Absent, _) => Ok(None),
        }
    }

    /// The release that the API itself calls the latest, if it says one.
    async fn flagged(&self, deadline: Instant) -> Option<Release> {
        let get = Get::new(self.address(&["releases", "latest"], None), JSON, PAGE_CAP, deadline);
        let Ok(Answer::Body { bytes, .. }) = self.http.get(&get).await else { return None };
        serde_json::from_slice::<Told>(&bytes).ok().and_then(release)
    }

    /// The page with this number, from 1, of pages of this size.
    fn list_address(&self, size: usize, number: usize) -> Url {
        self.address(&["releases"], Some(&format!("per_page={}&page={number}", SIZES[size])))
    }
}

/// The answer is no list of releases.
pub(super) fn nonsense(url: &Url, reason: &serde_json::Error) -> SourceError {
    let text = format!("{} answers something else than releases ({reason})", shown(url));
    SourceError::new(SourceFault::Nonsense, text)
}

/// A release as the list tells it. Its files are passed over: hundreds of releases may have hundreds each, and they
/// are asked for when one release is wanted.
type Told = super::Told<IgnoredAny>;

fn release(told: Told) -> Option<Release> {
    told.release(|_| Vec::new())
}
