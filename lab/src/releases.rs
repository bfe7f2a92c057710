//! A server that answers like GitHub's releases API, or misbehaves on request.
//!
//! As with GitHub, the API and the storage of the assets are different hosts: a download is redirected.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Json, Response};
use axum::{Router, routing::get};
use futures_util::stream::{self, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::http;

/// How a host misbehaves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Trouble {
    #[default]
    None,
    /// Every answer is this status.
    Status(u16),
    /// GitHub's 403 with no requests remaining.
    RateLimited,
    /// Every answer comes that late.
    Late(Duration),
    /// Half of the body, then silence.
    Stalls,
    /// Half of the body, then the end of the connection.
    CutOff,
}

/// A release on offer.
#[derive(Debug, Clone, Default)]
pub struct Offer {
    pub tag: String,
    pub prerelease: bool,
    pub draft: bool,
    /// Name and content.
    pub assets: Vec<(String, Bytes)>,
}

/// A request that came in.
#[derive(Debug, Clone)]
pub struct Call {
    pub path: String,
    pub authorization: Option<String>,
}

#[derive(Default)]
struct Shop {
    /// Oldest first.
    offers: Vec<Offer>,
    api_trouble: Trouble,
    storage_trouble: Trouble,
    api_calls: Vec<Call>,
    storage_calls: Vec<Call>,
}

#[derive(Clone)]
struct Shared {
    shop: Arc<Mutex<Shop>>,
    /// `HOST:PORT`
    api: String,
    storage: String,
}

pub struct ReleaseServer {
    shared: Shared,
}

/// The one repository it knows: `OWNER/NAME`.
pub const REPO: &str = "demo/app";

impl ReleaseServer {
    /// Serves on loopback until the process ends, and says that it is `host`.
    pub fn start(host: &str) -> Self {
        let listen = || http::runtime().block_on(TcpListener::bind("127.0.0.1:0")).expect("a loopback port");
        let (api, storage) = (listen(), listen());
        let address = |listener: &TcpListener| format!("{host}:{}", listener.local_addr().expect("an address").port());
        let shared = Shared { shop: Arc::default(), api: address(&api), storage: address(&storage) };
        let api_routes = Router::new()
            .route("/repos/demo/app/releases", get(list))
            .route("/repos/demo/app/releases/tags/{tag}", get(by_tag))
            .route("/repos/demo/app/releases/assets/{id}", get(asset))
            .layer(middleware::from_fn_with_state(shared.clone(), api_desk))
            .with_state(shared.clone());
        let storage_routes = Router::new()
            .route("/{id}", get(stored))
            .layer(middleware::from_fn_with_state(shared.clone(), storage_desk))
            .with_state(shared.clone());
        http::runtime().spawn(async move { axum::serve(api, api_routes).await });
        http::runtime().spawn(async move { axum::serve(storage, storage_routes).await });
        Self { shared }
    }

    /// What goes into the setting of the API's address.
    pub fn url(&self) -> String {
        format!("http://{}", self.shared.api)
    }

    /// `HOST:PORT` of the API and of the storage.
    pub(crate) fn addresses(&self) -> [&str; 2] {
        [&self.shared.api, &self.shared.storage]
    }

    fn shop(&self) -> MutexGuard<'_, Shop> {
        lock(&self.shared)
    }

    /// Offers a release; one with the same tag is replaced.
    pub fn offer(&self, offer: Offer) {
        let mut shop = self.shop();
        shop.offers.retain(|known| known.tag != offer.tag);
        shop.offers.push(offer);
    }

    /// Withdraws everything.
    pub fn clear(&self) {
        self.shop().offers.clear();
    }

    /// From now on the API misbehaves so.
    pub fn api_trouble(&self, trouble: Trouble) {
        self.shop().api_trouble = trouble;
    }

    /// From now on downloads misbehave so.
    pub fn storage_trouble(&self, trouble: Trouble) {
        self.shop().storage_trouble = trouble;
    }

    /// What the API was asked so far.
    pub fn api_calls(&self) -> Vec<Call> {
        self.shop().api_calls.clone()
    }

    /// What was downloaded so far.
    pub fn storage_calls(&self) -> Vec<Call> {
        self.shop().storage_calls.clone()
    }
}

fn lock(shared: &Shared) -> MutexGuard<'_, Shop> {
    shared.shop.lock().expect("nobody panics while holding the shop")
}

fn call(request: &Request) -> Call {
    let authorization = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    Call { path: request.uri().to_string(), authorization: authorization.map(str::to_owned) }
}

async fn api_desk(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let trouble = {
        let mut shop = lock(&shared);
        shop.api_calls.push(call(&request));
        shop.api_trouble
    };
    misbehave(trouble, request, next).await
}

async fn storage_desk(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let trouble = {
        let mut shop = lock(&shared);
        shop.storage_calls.push(call(&request));
        shop.storage_trouble
    };
    misbehave(trouble, request, next).await
}

async fn misbehave(trouble: Trouble, request: Request, next: Next) -> Response {
    match trouble {
        Trouble::None => next.run(request).await,
        Trouble::Status(status) => {
            let status = StatusCode::from_u16(status).expect("a status");
            (status, Json(json!({ "message": "in trouble, as the test asked" }))).into_response()
        }
        Trouble::RateLimited => {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let reset = (now.as_secs() + 1800).to_string();
            let headers = [("x-ratelimit-limit", "60"), ("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", &reset)];
            (StatusCode::FORBIDDEN, headers, Json(json!({ "message": "API rate limit exceeded" }))).into_response()
        }
        Trouble::Late(pause) => {
            tokio::time::sleep(pause).await;
            next.run(request).await
        }
        Trouble::Stalls => halve(next.run(request).await, stream::pending().boxed()).await,
        Trouble::CutOff => {
            let end = stream::once(async { Err(std::io::Error::other("cut off, as the test asked")) });
            halve(next.run(request).await, end.boxed()).await
        }
    }
}

/// Announces the whole body, sends half of it, then what `rest` says.
async fn halve(answer: Response, rest: stream::BoxStream<'static, std::io::Result<Bytes>>) -> Response {
    let (mut head, body) = answer.into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
    head.headers.insert(header::CONTENT_LENGTH, bytes.len().max(2).into());
    let half = bytes.slice(..bytes.len() / 2);
    Response::from_parts(head, Body::from_stream(stream::once(async { Ok(half) }).chain(rest)))
}

/// Newest first, in pages, the next of which the `Link` header names.
async fn list(State(shared): State<Shared>, Query(query): Query<Vec<(String, usize)>>) -> Response {
    let asked = |name: &str, default| query.iter().find(|(key, _)| key == name).map_or(default, |(_, value)| *value);
    let (size, page) = (asked("per_page", 30).clamp(1, 100), asked("page", 1).max(1));
    let shop = lock(&shared);
    let visible: Vec<&Offer> = shop.offers.iter().rev().filter(|offer| !offer.draft).collect();
    let shown: Vec<Value> =
        visible.iter().skip((page - 1) * size).take(size).map(|offer| describe(&shared, &shop, offer)).collect();
    let mut headers = HeaderMap::new();
    let last = visible.len().div_ceil(size).max(1);
    if page < last {
        let address = |page| format!("http://{}/repos/{REPO}/releases?per_page={size}&page={page}", shared.api);
        let link = format!("<{}>; rel=\"next\", <{}>; rel=\"last\"", address(page + 1), address(last));
        headers.insert(header::LINK, link.parse().expect("an address is a header value"));
    }
    (headers, Json(shown)).into_response()
}

async fn by_tag(State(shared): State<Shared>, Path(tag): Path<String>) -> Response {
    let shop = lock(&shared);
    match shop.offers.iter().find(|offer| offer.tag == tag && !offer.draft) {
        Some(offer) => Json(describe(&shared, &shop, offer)).into_response(),
        None => not_found(),
    }
}

fn not_found() -> Response {
    (StatusCode::NOT_FOUND, Json(json!({ "message": "Not Found" }))).into_response()
}

/// Release number times this, plus asset number: an asset's identity.
const ASSETS: usize = 1000;

fn describe(shared: &Shared, shop: &Shop, offer: &Offer) -> Value {
    let number = shop.offers.iter().position(|known| known.tag == offer.tag).unwrap_or_default();
    let describe_asset = |(index, (name, bytes)): (usize, &(String, Bytes))| {
        let id = number * ASSETS + index;
        json!({
            "id": id,
            "name": name,
            "size": bytes.len(),
            "state": "uploaded",
            "content_type": "application/octet-stream",
            "url": format!("http://{}/repos/{REPO}/releases/assets/{id}", shared.api),
            "browser_download_url": format!("http://{}/{id}", shared.storage),
        })
    };
    json!({
        "id": number,
        "tag_name": offer.tag,
        "name": format!("Release {}", offer.tag),
        "prerelease": offer.prerelease,
        "draft": offer.draft,
        "html_url": format!("http://{}/{REPO}/releases/tag/{}", shared.api, offer.tag),
        "published_at": format!("2026-01-01T{:02}:{:02}:00Z", number / 60 % 24, number % 60),
        "assets": offer.assets.iter().enumerate().map(describe_asset).collect::<Vec<_>>(),
    })
}

fn content(shop: &Shop, id: usize) -> Option<Bytes> {
    shop.offers.get(id / ASSETS)?.assets.get(id % ASSETS).map(|(_, bytes)| bytes.clone())
}

/// What the API says of an asset: a description, or to those who ask for the bytes, where they are.
async fn asset(State(shared): State<Shared>, Path(id): Path<usize>, headers: HeaderMap) -> Response {
    let wants_bytes = headers.get(header::ACCEPT).is_some_and(|accept| accept == "application/octet-stream");
    match content(&lock(&shared), id) {
        None => not_found(),
        Some(_) if wants_bytes => {
            (StatusCode::FOUND, [(header::LOCATION, format!("http://{}/{id}", shared.storage))]).into_response()
        }
        Some(bytes) => Json(json!({ "id": id, "size": bytes.len() })).into_response(),
    }
}

async fn stored(State(shared): State<Shared>, Path(id): Path<usize>) -> Response {
    content(&lock(&shared), id).map_or_else(not_found, IntoResponse::into_response)
}
