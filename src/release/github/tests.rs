//! Against a real server on this machine that answers as each test says.

mod list;
mod refusals;

use std::future::pending;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use serde_json::{Value, json};

use super::*;
use crate::https::Authorities;
use crate::https::fault::Fault;

/// What the server was asked: path with query, and headers.
#[derive(Clone)]
struct Asked {
    path: String,
    headers: HeaderMap,
}

impl Asked {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// A server that records what it is asked.
struct Upstream {
    base: Url,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Upstream {
    /// `answer` is given the number of the request, from 0, and what was asked.
    async fn start<F>(answer: impl Fn(usize, Asked) -> F + Clone + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Response> + Send + 'static,
    {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = Url::parse(&format!("http://{}/api/v3", listener.local_addr().unwrap())).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        let app = axum::Router::new().fallback(move |request: Request| {
            let path = request.uri().path_and_query().unwrap().to_string();
            let asked = Asked { path, headers: request.headers().clone() };
            let number = {
                let mut log = log.lock().unwrap();
                log.push(asked.clone());
                log.len() - 1
            };
            answer(number, asked)
        });
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { base, asked }
    }

    async fn json(value: Value) -> Self {
        Self::start(move |_, _| std::future::ready(axum::Json(value.clone()).into_response())).await
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    fn count(&self) -> usize {
        self.asked().len()
    }

    fn source(&self) -> GithubReleases {
        self.source_with(None)
    }

    fn source_with(&self, token: Option<&str>) -> GithubReleases {
        self.source_for(token, &[])
    }

    /// With these hosts as those that may see the token too.
    fn source_for(&self, token: Option<&str>, hosts: &[String]) -> GithubReleases {
        let repo = Repo { owner: "o".into(), name: "n".into() };
        let limits = Limits {
            call: Duration::from_millis(1500),
            asset: Duration::from_millis(1500),
            pause: Duration::from_millis(1),
            ..Limits::default()
        };
        GithubReleases::with_limits(
            self.base.clone(),
            repo,
            token.map(SecretString::from),
            hosts,
            &Authorities::default(),
            limits,
        )
        .unwrap()
    }

    /// The base as it stands in messages.
    fn shown(&self) -> &str {
        self.base.as_str()
    }
}

fn told(tag: &str, prerelease: bool) -> Value {
    json!({
        "tag_name": tag, "name": format!("Release {tag}"), "draft": false, "prerelease": prerelease, "id": 7,
        "html_url": format!("https://github.com/o/n/releases/tag/{tag}"), "published_at": "2026-01-31T12:00:00Z",
        "assets": [{"name": "release.json", "size": 12, "url": "https://api/assets/1", "state": "uploaded"}],
    })
}

fn draft(tag: &str) -> Value {
    let mut value = told(tag, false);
    value["draft"] = json!(true);
    value
}

fn text(result: Result<impl std::fmt::Debug, SourceError>) -> String {
    result.unwrap_err().to_string()
}

fn fault<T: std::fmt::Debug>(result: &Result<T, SourceError>) -> SourceFault {
    result.as_ref().unwrap_err().fault.clone()
}

/// Lets the answers in memory age, without waiting. Nothing else may be under way meanwhile.
async fn age(seconds: u64) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(seconds)).await;
    tokio::time::resume();
}

#[tokio::test]
async fn the_latest_is_the_highest_semver_of_the_channel() {
    let upstream = Upstream::json(json!([
        told("v0.9.0", false),
        told("v0.10.0", false),
        draft("v9.0.0"),
        told("v0.11.0-rc.1", true),
        told("v0.12.0-rc.1", false),
        told("0.10.1", false),
        told("nightly", false),
        told("v2", false),
        told("v2026.01.1", false),
        told("v99.0.0/../..", false),
    ]))
    .await;
    let source = upstream.source();
    let stable = source.latest(Channel::Stable).await.unwrap();
    assert_eq!((stable.tag.as_str(), stable.prerelease), ("v0.10.0", false));
    let others =
        "4 releases are not offered, because a tag must be `v` and a SemVer version: 0.10.1, nightly, v2, v2026.01.1";
    assert_eq!(stable.remarks, [others]);
    let pre = source.latest(Channel::Prerelease).await.unwrap();
    assert_eq!((pre.tag.as_str(), pre.prerelease), ("v0.12.0-rc.1", false));
    assert_eq!(pre.name, "Release v0.12.0-rc.1");
    assert_eq!(pre.html_url, "https://github.com/o/n/releases/tag/v0.12.0-rc.1");
    assert_eq!(pre.published_at.unwrap().to_string(), "2026-01-31T12:00:00Z");
    assert!(pre.assets.is_empty(), "they are asked for when one release is wanted");
    let asked = upstream.asked();
    assert_eq!(asked.len(), 1, "both channels from one answer");
    assert_eq!(asked[0].path, "/api/v3/repos/o/n/releases?per_page=100&page=1");
    assert_eq!(asked[0].header("accept"), Some("application/vnd.github+json"));
    assert!(asked[0].header("user-agent").unwrap().starts_with("processgit-updater/"));
    assert_eq!(asked[0].header("authorization"), None);
}

#[tokio::test]
async fn a_channel_without_releases_says_so() {
    let upstream = Upstream::json(json!([told("v1.0.0-rc.1", true), draft("v1.0.0")])).await;
    let result = upstream.source().latest(Channel::Stable).await;
    assert_eq!(fault(&result), SourceFault::NotFound);
    let expected =
        format!("there is no stable release with a tag of `v` and a SemVer version in o/n at {}", upstream.shown());
    assert_eq!(text(result), expected);
}

#[tokio::test]
async fn what_an_api_may_leave_out_is_left_out() {
    let gitea = json!({
        "tag_name": "v1.0.0", "name": "", "html_url": "javascript:alert(1)", "published_at": "soon",
        "assets": [
            {"name": "release.json", "size": 1, "browser_download_url": "https://gitea/a"},
            {"name": "release.json.sig"},
            {"name": "app-linux-amd64", "size": 9, "browser_download_url": "https://gitea/b"},
            {"name": "release.json.bundle", "size": 2, "url": "https://gitea/c", "state": "starter"},
        ],
    });
    let release = Upstream::json(gitea).await.source().by_tag("v1.0.0").await.unwrap();
    assert_eq!(release.name, "v1.0.0");
    assert_eq!((release.html_url.as_str(), release.published_at), ("", None));
    let kept = |name: &str, size, url: &str, uploaded| Asset { name: name.into(), size, url: url.into(), uploaded };
    let expected =
        [kept("release.json", 1, "https://gitea/a", true), kept("release.json.bundle", 2, "https://gitea/c", false)];
    assert_eq!(release.assets, expected, "only what concerns an updater, and whether it is all there");
}

#[tokio::test]
async fn one_release_is_found_by_its_tag() {
    let upstream = Upstream::start(async |_, asked: Asked| match asked.path.as_str() {
        "/api/v3/repos/o/n/releases/tags/v1.0.0" => axum::Json(told("v1.0.0", false)).into_response(),
        "/api/v3/repos/o/n/releases/tags/v2.0.0" => axum::Json(draft("v2.0.0")).into_response(),
        "/api/v3/repos/o/n/releases/tags/v3.0.0" => axum::Json(told("v1.0.0", false)).into_response(),
        _ => (StatusCode::NOT_FOUND, "{}").into_response(),
    })
    .await;
    let source = upstream.source_with(Some("t"));
    assert_eq!(source.by_tag("v1.0.0").await.unwrap().tag, "v1.0.0");
    let place = format!("o/n at {}", upstream.shown());
    for absent in ["v2.0.0", "v4.0.0", "..", "a/b", "", "v1 0"] {
        let result = source.by_tag(absent).await;
        assert_eq!(fault(&result), SourceFault::NotFound, "{absent}");
        assert_eq!(text(result), format!("there is no release {absent:?} in {place}"));
    }
    assert_eq!(
        text(source.by_tag("v3.0.0").await),
        format!(
            "{}/repos/o/n/releases/tags/v3.0.0 answers with release \"v1.0.0\" where \"v3.0.0\" was asked for",
            upstream.shown()
        )
    );
    assert_eq!(upstream.count(), 4, "what is no tag is not asked for");
}

#[tokio::test]
async fn pages_are_followed_but_never_to_another_host() {
    let upstream = Upstream::start(async |_, asked: Asked| {
        let page = |tag, next: &str| {
            let link = format!("<{next}>; rel=\"next\", </last>; rel=\"last\"");
            ([(header::LINK, link)], axum::Json(json!([told(tag, false)]))).into_response()
        };
        match asked.path.as_str() {
            "/api/v3/repos/o/n/releases?per_page=100&page=1" => page("v1.0.0", "/second"),
            "/second" => page("v3.0.0", "https://evil.example/steal"),
            "/api/v3/repos/o/n/releases?per_page=100&page=3" => {
                axum::Json(json!([told("v2.0.0", false)])).into_response()
            }
            _ => StatusCode::IM_A_TEAPOT.into_response(),
        }
    })
    .await;
    let latest = upstream.source_with(Some("hush")).latest(Channel::Stable).await.unwrap();
    assert_eq!(latest.tag, "v3.0.0");
    let asked = upstream.asked();
    assert_eq!(asked.len(), 3, "the third page is asked for at our own address");
    assert!(asked.iter().all(|asked| asked.header("authorization") == Some("Bearer hush")));
}

#[tokio::test]
async fn young_answers_come_from_memory_and_old_ones_are_revalidated() {
    let upstream = Upstream::start(async |number, asked: Asked| {
        let changed = number >= 3;
        let etag = if changed { "\"two\"" } else { "\"one\"" };
        if asked.header("if-none-match") == Some(etag) {
            return StatusCode::NOT_MODIFIED.into_response();
        }
        let tag = if changed { "v2.0.0" } else { "v1.0.0" };
        ([(header::ETAG, etag)], axum::Json(json!([told(tag, false)]))).into_response()
    })
    .await;
    let source = upstream.source();
    // seconds that pass before, requests seen afterwards, what is the latest
    for (seconds, count, tag) in [
        (0, 1, "v1.0.0"),
        (59, 1, "v1.0.0"),
        (2, 2, "v1.0.0"), // 304, which makes it young again
        (59, 2, "v1.0.0"),
        (2, 3, "v1.0.0"),
        (61, 4, "v2.0.0"), // changed
        (61, 5, "v2.0.0"),
    ] {
        age(seconds).await;
        assert_eq!(source.latest(Channel::Stable).await.unwrap().tag, tag);
        assert_eq!(upstream.count(), count);
    }
    assert_eq!(upstream.asked()[0].header("if-none-match"), None);
}

#[tokio::test]
async fn a_release_by_tag_is_kept_too() {
    let upstream = Upstream::json(told("v1.0.0", false)).await;
    let source = upstream.source();
    for (seconds, count) in [(0, 1), (59, 1), (2, 2)] {
        age(seconds).await;
        source.by_tag("v1.0.0").await.unwrap();
        assert_eq!(upstream.count(), count);
    }
}

#[tokio::test]
async fn an_old_answer_is_never_passed_off_as_a_young_one() {
    let upstream = Upstream::start(async |number, _| match number {
        0 => axum::Json(json!([told("v1.0.0", false)])).into_response(),
        1 => StatusCode::FORBIDDEN.into_response(),
        _ => axum::Json(json!([told("v2.0.0", false)])).into_response(),
    })
    .await;
    let source = upstream.source();
    source.latest(Channel::Stable).await.unwrap();
    age(61).await;
    assert!(matches!(fault(&source.latest(Channel::Stable).await), SourceFault::Forbidden { .. }));
    assert_eq!(source.latest(Channel::Stable).await.unwrap().tag, "v2.0.0", "a failure is not kept");
}

#[tokio::test]
async fn callers_at_the_same_time_share_one_request() {
    for status in [StatusCode::OK, StatusCode::FORBIDDEN] {
        let upstream = Upstream::start(move |_, _| async move {
            tokio::time::sleep(Duration::from_millis(30)).await;
            (status, axum::Json(json!([told("v1.0.0", false)]))).into_response()
        })
        .await;
        let source = upstream.source();
        let answers = join_all((0..20).map(|_| source.latest(Channel::Stable))).await;
        assert_eq!(upstream.count(), 1, "{status}");
        assert!(answers.iter().all(|answer| answer.is_ok() == status.is_success()));
    }
}

#[tokio::test]
async fn a_caller_that_gives_up_leaves_nothing_stuck() {
    let upstream = Upstream::start(async |number, _| {
        if number == 0 {
            pending::<()>().await;
        }
        axum::Json(json!([told("v1.0.0", false)])).into_response()
    })
    .await;
    let source = upstream.source();
    let gone = tokio::time::timeout(Duration::from_millis(30), source.latest(Channel::Stable)).await;
    assert!(gone.is_err());
    assert_eq!(source.latest(Channel::Stable).await.unwrap().tag, "v1.0.0");
}

#[tokio::test]
async fn one_stumble_is_not_noticed() {
    let upstream = Upstream::start(async |number, _| match number {
        0 => StatusCode::BAD_GATEWAY.into_response(),
        1 => cut_off(),
        _ => axum::Json(json!([told("v1.0.0", false)])).into_response(),
    })
    .await;
    assert_eq!(upstream.source().latest(Channel::Stable).await.unwrap().tag, "v1.0.0");
    assert_eq!(upstream.count(), 3);
}

/// Promises a hundred bytes, sends five and breaks the connection.
fn cut_off() -> Response {
    let begun = stream::once(std::future::ready(Ok("[{\"ta")));
    // A moment later, so that what was begun is on its way.
    let cut = stream::once(async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Err(std::io::Error::other("cut"))
    });
    Response::builder().header(header::CONTENT_LENGTH, 100).body(Body::from_stream(begun.chain(cut))).unwrap()
}

#[tokio::test]
async fn a_connection_that_always_breaks_is_told() {
    let upstream = Upstream::start(async |_, _| cut_off()).await;
    let message = text(upstream.source().latest(Channel::Stable).await);
    assert!(message.contains("breaks off") && message.ends_with("(tried 3 times)"), "{message}");
}

#[tokio::test]
async fn nobody_listens() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
    drop(listener);
    let upstream = Upstream { base, asked: Arc::default() };
    let message = text(upstream.source().latest(Channel::Stable).await);
    assert!(message.contains("cannot be asked: ") && message.ends_with("(tried 3 times)"), "{message}");
}

#[tokio::test]
async fn a_silent_upstream_costs_the_deadline_and_no_more() {
    let upstream = Upstream::start(async |_, _| pending().await).await;
    let mut source = upstream.source();
    source.limits.call = Duration::from_millis(200);
    let begun = Instant::now();
    let result = source.latest(Channel::Stable).await;
    assert!(begun.elapsed() < Duration::from_millis(800), "{:?}", begun.elapsed());
    assert_eq!(fault(&result), SourceFault::Unanswered { fault: Fault::Timeout, elsewhere: None });
    assert!(text(result).starts_with(&format!("{}/repos/o/n/releases did not answer within ", upstream.shown())));
}

fn asset(url: &str, size: u64) -> Asset {
    Asset { name: "release.json".into(), size, url: url.into(), uploaded: true }
}

#[tokio::test]
async fn an_asset_is_fetched_through_redirects_that_see_the_token_at_the_apis_own_host_only() {
    let storage = Upstream::start(async |_, _| "manifest".into_response()).await;
    let to = storage.base.join("/signed?secret=1").unwrap().to_string();
    let upstream = Upstream::start(move |number, _| {
        let to = if number == 0 { "/hop".to_owned() } else { to.clone() };
        std::future::ready((StatusCode::FOUND, [(header::LOCATION, to)]).into_response())
    })
    .await;
    let source = upstream.source_with(Some("hush"));
    let bytes = source.fetch(&asset(&format!("{}/assets/1", upstream.shown()), 8), 100).await.unwrap();
    assert_eq!(bytes, "manifest");
    let tokens: Vec<_> =
        upstream.asked().iter().map(|asked| asked.header("authorization").map(str::to_owned)).collect();
    assert_eq!(tokens, [Some("Bearer hush".to_owned()), Some("Bearer hush".to_owned())]);
    assert_eq!(upstream.asked()[0].header("accept"), Some("application/octet-stream"));
    let stored = &storage.asked()[0];
    assert_eq!((stored.path.as_str(), stored.header("authorization")), ("/signed?secret=1", None));
    assert_eq!(stored.header("referer"), None);
}

#[tokio::test]
async fn an_asset_elsewhere_never_sees_the_token() {
    let elsewhere = Upstream::start(async |_, _| "manifest".into_response()).await;
    let upstream = Upstream::json(json!([])).await;
    let source = upstream.source_with(Some("hush"));
    source.fetch(&asset(&format!("{}/x", elsewhere.shown()), 8), 100).await.unwrap();
    assert_eq!(elsewhere.asked()[0].header("authorization"), None);
}

#[tokio::test]
async fn redirects_end() {
    let upstream =
        Upstream::start(async |_, _| (StatusCode::FOUND, [(header::LOCATION, "/again")]).into_response()).await;
    let message = text(upstream.source().fetch(&asset(&format!("{}/x", upstream.shown()), 1), 100).await);
    assert_eq!(message, format!("{}/x redirects more than 5 times", upstream.shown()));
    assert_eq!(upstream.count(), 6);
}

#[tokio::test]
async fn an_asset_has_its_cap() {
    let upstream = Upstream::start(async |_, asked: Asked| match asked.path.as_str() {
        "/api/v3/claimed" => "x".repeat(101).into_response(),
        "/api/v3/endless" => {
            Body::from_stream(stream::repeat_with(|| Ok::<_, std::io::Error>("x".repeat(60)))).into_response()
        }
        "/api/v3/exact" => "x".repeat(100).into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    })
    .await;
    let source = upstream.source();
    let fetch = async |path: &str, size| source.fetch(&asset(&format!("{}/{path}", upstream.shown()), size), 100).await;
    assert_eq!(fetch("exact", 100).await.unwrap().len(), 100);
    assert_eq!(
        text(fetch("claimed", 5).await),
        format!("{}/claimed sends 101 bytes or more; at most 100 are accepted", upstream.shown())
    );
    let endless = fetch("endless", 5).await;
    assert_eq!(fault(&endless), SourceFault::TooLarge);
    let before = upstream.count();
    assert_eq!(text(fetch("exact", 101).await), "release.json has 101 bytes; at most 100 are accepted");
    assert_eq!(upstream.count(), before, "not even asked for");
    let gone = fetch("gone", 1).await;
    assert_eq!(fault(&gone), SourceFault::NoFile);
    assert_eq!(text(gone), "the release names release.json, and its server does not have it (404)");
}

#[tokio::test]
async fn an_asset_at_no_decent_address_is_refused() {
    let repo = Repo { owner: "o".into(), name: "n".into() };
    let api = Url::parse("https://api.example").unwrap();
    let source = GithubReleases::new(api, repo, None, &[], &Authorities::default()).unwrap();
    let table = [
        ("file:///etc/passwd", "release.json has the address \"file:///etc/passwd\", which is none"),
        ("release.json", "release.json has the address \"release.json\", which is none"),
        ("http://elsewhere/x?t=1", "release.json is at http://elsewhere/x, which is not https: refused"),
    ];
    for (url, message) in table {
        assert_eq!(text(source.fetch(&asset(url, 1), 100).await), message);
    }
}
