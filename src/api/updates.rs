//! `/update`, `/update/{id}`, its log, and `/history`.

use std::slice;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, HeaderMap, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::answer::{json_of_jobs, serialized};
use super::body;
use super::errors::{ApiError, Asked, Id};
use super::router::App;
use crate::update::job::{Job, JobId};
use crate::update::settle::Settlement;
use crate::update::{Order, Request};

/// The most of a log in one answer, in bytes.
pub const LOG_CHUNK: usize = 512 * 1024;
/// How many jobs `/history` shows.
const HISTORY: usize = 50;
/// Where the next part of a log begins.
const X_NEXT_OFFSET: HeaderName = HeaderName::from_static("x-next-offset");

#[derive(Serialize)]
struct Accepted<'a> {
    job_id: &'a JobId,
    status_url: String,
    job: &'a Job,
}

/// `POST /update`
pub async fn submit(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Result<Response, ApiError> {
    let wanted: Wanted = body::required(&headers, body, r#"{"target_tag":"v0.1.2"}"#).await?;
    accept(&app, Order::Update(wanted.request()?)).await
}

/// `POST /self-update`: as an update, of the updater itself; without a tag, to the newest.
pub async fn submit_own(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Result<Response, ApiError> {
    let wanted: Wanted = body::optional(&headers, body, r#"{"target_tag":"v0.1.2"}"#).await?;
    let request = match wanted.target_tag.as_deref().unwrap_or_default() {
        "" => wanted.unchecked(),
        _ => wanted.request()?,
    };
    accept(&app, Order::SelfUpdate(request)).await
}

/// Begins a job of any kind; it is followed at `/update/{id}`.
pub async fn accept(app: &App, order: Order) -> Result<Response, ApiError> {
    // A client that hangs up drops this future; a job that is half accepted must not be dropped with it.
    let face = app.face.clone();
    let job = tokio::spawn(async move { face.submit(order).await })
        .await
        .map_err(|_| ApiError::Internal("the updater has a fault: its log says where".into()))??;
    Ok(accepted(&job))
}

/// Jobs are small when they begin; later their texts are bounded as everywhere.
fn accepted(job: &Job) -> Response {
    json_of_jobs(StatusCode::ACCEPTED, &[Arc::new(job.clone())], |jobs| {
        let job = jobs.first().map_or(job, Arc::as_ref);
        serialized(&Accepted { job_id: &job.id, status_url: format!("/update/{}", job.id), job })
    })
}

/// `POST /update/{id}/abort`: 202 when it is recorded that the job ends `aborted`; no body is read.
pub async fn abort(State(app): State<Arc<App>>, Id(id): Id) -> Result<Response, ApiError> {
    Ok(accepted(&app.face.abort(&id).await?))
}

/// `GET /update/{id}/settle`: what settling would do.
pub async fn settlement(State(app): State<Arc<App>>, Id(id): Id) -> Result<Response, ApiError> {
    Ok(settled(&app.face.settlement(&id).await?))
}

/// `POST /update/{id}/settle`: 200 when the failed job is settled, also when it was before; no body is read.
pub async fn settle(State(app): State<Arc<App>>, Id(id): Id) -> Result<Response, ApiError> {
    let face = app.face.clone();
    // A client that hangs up drops this future; what is half settled is asked for again.
    let done = tokio::spawn(async move { face.settle(&id).await }).await;
    Ok(settled(&done.map_err(|_| ApiError::Internal("the updater has a fault: its log says where".into()))??))
}

fn settled(settlement: &Settlement) -> Response {
    json_of_jobs(StatusCode::OK, &[Arc::new(settlement.job.clone())], |jobs| {
        let job = jobs.first().map_or_else(|| settlement.job.clone(), |job| (**job).clone());
        serialized(&Settlement { job, ..settlement.clone() })
    })
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
    #[serde(default)]
    accept_unwell: bool,
}

impl Wanted {
    fn request(self) -> Result<Request, ApiError> {
        valid_tag(self.target_tag.as_deref().unwrap_or_default())?;
        Ok(self.unchecked())
    }

    fn unchecked(self) -> Request {
        let Self { target_tag, allow_downgrade, accept_drift, retry, accept_unwell } = self;
        let target_tag = target_tag.unwrap_or_default();
        Request { target_tag, allow_downgrade, accept_drift, retry, accept_unwell }
    }
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
