//! `/update`, `/update/{id}`, its log, and `/history`.

use std::slice;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::time::timeout;

use super::answer::{json, json_of_jobs, serialized};
use super::errors::{ApiError, Asked, Id};
use super::router::App;
use crate::update::Request;
use crate::update::job::{Job, JobId};

/// The largest body of `POST /update`, in bytes.
pub const BODY_CAP: usize = 16 * 1024;
/// The most of a log in one answer, in bytes.
pub const LOG_CHUNK: usize = 512 * 1024;
/// How many jobs `/history` shows.
const HISTORY: usize = 50;
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Where the next part of a log begins.
const X_NEXT_OFFSET: HeaderName = HeaderName::from_static("x-next-offset");

#[derive(Serialize)]
struct Accepted<'a> {
    job_id: &'a JobId,
    status_url: String,
    job: &'a Job,
}

/// `POST /update`. The content type is not looked at: older clients send none.
pub async fn submit(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Result<Response, ApiError> {
    let body =
        timeout(BODY_TIMEOUT, read(&headers, body)).await.map_err(|_| ApiError::Slow(BODY_TIMEOUT.as_secs()))??;
    let request = parse(&body)?;
    // A client that hangs up drops this future; a job that is half accepted must not be dropped with it.
    let face = app.face.clone();
    let job = tokio::spawn(async move { face.submit(request).await })
        .await
        .map_err(|_| ApiError::Internal("the updater has a fault: its log says where".into()))??;
    let accepted = Accepted { job_id: &job.id, status_url: format!("/update/{}", job.id), job: &job };
    Ok(json(StatusCode::ACCEPTED, &accepted))
}

/// The whole body, at most [`BODY_CAP`] bytes.
async fn read(headers: &HeaderMap, body: Body) -> Result<Vec<u8>, ApiError> {
    let announced = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > BODY_CAP as u64) {
        return Err(ApiError::TooLarge(BODY_CAP));
    }
    let mut whole = Vec::new();
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| ApiError::BadRequest(format!("the body broke off: {error}")))?;
        if whole.len() + chunk.len() > BODY_CAP {
            return Err(ApiError::TooLarge(BODY_CAP));
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole)
}

#[derive(Deserialize)]
struct Wanted {
    target_tag: Option<String>,
    #[serde(default)]
    allow_downgrade: bool,
    #[serde(default)]
    accept_drift: bool,
    #[serde(default)]
    retry: bool,
}

/// The request in `body`; unknown fields are ignored, so that newer clients may ask older updaters.
fn parse(body: &[u8]) -> Result<Request, ApiError> {
    let bad = |error: serde_json::Error| {
        ApiError::BadRequest(format!("the body must be JSON like {{\"target_tag\":\"v0.1.2\"}}: {error}"))
    };
    // By way of a map: serde would also take a list for the fields in their order.
    let object: Map<String, Value> = serde_json::from_slice(body).map_err(bad)?;
    let wanted: Wanted = serde_json::from_value(Value::Object(object)).map_err(bad)?;
    let target_tag = wanted.target_tag.unwrap_or_default();
    valid_tag(&target_tag)?;
    Ok(Request {
        target_tag,
        allow_downgrade: wanted.allow_downgrade,
        accept_drift: wanted.accept_drift,
        retry: wanted.retry,
    })
}

/// `[A-Za-z0-9][A-Za-z0-9._+-]{0,127}`: a tag becomes part of addresses and file names.
pub fn valid_tag(tag: &str) -> Result<(), ApiError> {
    if tag.is_empty() {
        return Err(ApiError::BadRequest("target_tag is missing or empty: name a release, as v0.1.2".into()));
    }
    let inner = |b: u8| b.is_ascii_alphanumeric() || b"._+-".contains(&b);
    let valid = tag.len() <= 128 && tag.as_bytes()[0].is_ascii_alphanumeric() && tag.bytes().all(inner);
    if valid {
        return Ok(());
    }
    let shown: String = tag.chars().take(128).collect();
    Err(ApiError::BadRequest(format!(
        "{shown:?} is no tag: at most 128 of A-Z a-z 0-9 . _ + -, the first a letter or a digit"
    )))
}

/// `GET /update/{id}`
pub async fn show(State(app): State<Arc<App>>, Id(id): Id) -> Result<Response, ApiError> {
    let job = app.face.job(&id).await.ok_or_else(|| unknown_job(&id))?;
    Ok(json_of_jobs(StatusCode::OK, slice::from_ref(&job), |jobs| serialized(&jobs.first())))
}

#[derive(Deserialize)]
pub struct LogQuery {
    #[serde(default)]
    offset: u64,
}

/// `GET /update/{id}/log?offset=N`: the log from byte N on, as it is; `X-Next-Offset` is the N to ask for
/// next, and equals the offset when there is nothing new.
pub async fn log(State(app): State<Arc<App>>, Id(id): Id, Asked(query): Asked<LogQuery>) -> Result<Response, ApiError> {
    let mut text = app.face.log(&id, query.offset).await.ok_or_else(|| unknown_job(&id))?;
    text.truncate(LOG_CHUNK);
    let next = query.offset.saturating_add(text.len() as u64);
    let headers = [
        (CONTENT_TYPE, "text/plain; charset=utf-8".to_owned()),
        // It holds what a migration printed: no browser shall guess that it is a page.
        (X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (X_NEXT_OFFSET, next.to_string()),
    ];
    Ok((headers, text).into_response())
}

#[derive(Serialize)]
struct History<'a> {
    jobs: &'a [Arc<Job>],
}

/// `GET /history`: the last fifty, newest first.
pub async fn history(State(app): State<Arc<App>>) -> Response {
    json_of_jobs(StatusCode::OK, &app.face.history(HISTORY), |jobs| serialized(&History { jobs }))
}

fn unknown_job(id: &str) -> ApiError {
    let shown: String = id.chars().take(64).collect();
    ApiError::NotFound(format!("there is no job {shown:?}: /history lists the last ones"))
}
