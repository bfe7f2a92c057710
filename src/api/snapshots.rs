//! `/snapshots`: copies of the data, made, shown, checked, fetched, put back.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, HeaderMap};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::timeout;

use super::answer::{ANSWER_CAP, json, serialized};
use super::errors::{ApiError, Id};
use super::long::LongAnswers;
use super::router::App;
use super::updates::accept;
use super::{body, export};
use crate::update::Order;
use crate::update::ports::SnapshotInfo;

/// Where a volume is only reached by a helper, a look at the repository takes a moment.
const LIST_TIMEOUT: Duration = Duration::from_secs(120);

#[derive(Deserialize)]
struct Wanted {
    hot: Option<bool>,
}

/// `POST /snapshots` `{"hot": false}`
pub async fn create(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Result<Response, ApiError> {
    let wanted: Wanted = body::optional(&headers, body, r#"{"hot":false}"#).await?;
    accept(&app, Order::Snapshot { hot: wanted.hot.unwrap_or_default() }).await
}

#[derive(Serialize)]
struct Snapshots<'a> {
    snapshots: &'a [SnapshotInfo],
}

/// `GET /snapshots`: newest first; the oldest are left out where they would make the answer too large.
pub async fn list(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let mut snapshots = found(&app).await?;
    while serialized(&Snapshots { snapshots: &snapshots }).len() > ANSWER_CAP {
        snapshots.truncate(snapshots.len() / 2);
    }
    Ok(json(StatusCode::OK, &Snapshots { snapshots: &snapshots }))
}

async fn found(app: &App) -> Result<Vec<SnapshotInfo>, ApiError> {
    let listed = timeout(LIST_TIMEOUT, app.face.snapshots()).await;
    let late = |_| ApiError::Upstream(format!("the snapshots were not found within {} s", LIST_TIMEOUT.as_secs()));
    Ok(listed.map_err(late)??)
}

/// An id that names a snapshot: nothing else reaches the disk.
async fn known(app: &App, id: &str) -> Result<(), ApiError> {
    valid_id(id)?;
    if found(app).await?.iter().any(|snapshot| snapshot.id == id) {
        return Ok(());
    }
    Err(ApiError::NotFound(format!("there is no snapshot {id:?}: /snapshots lists them")))
}

/// `[A-Za-z0-9._-]{1,128}`, and no folder's name for itself: an id becomes part of paths.
fn valid_id(id: &str) -> Result<(), ApiError> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if (1..=128).contains(&id.len()) && id.bytes().all(good) && id != "." && id != ".." {
        return Ok(());
    }
    let shown: String = id.chars().take(128).collect();
    Err(ApiError::BadRequest(format!("{shown:?} is no snapshot's id: at most 128 of A-Z a-z 0-9 . _ -")))
}

/// `GET /snapshots/{id}/verify`: all of it is read, however long that takes.
pub async fn verify(State(app): State<Arc<App>>, Id(id): Id, long: LongAnswers) -> Result<Response, ApiError> {
    let _long = long.begin();
    known(&app, &id).await?;
    let answer = match app.face.verify_snapshot(&id).await {
        Ok(()) => json!({ "ok": true }),
        Err(error) => json!({ "ok": false, "error": error.to_string() }),
    };
    Ok(json(StatusCode::OK, &answer))
}

/// `GET /snapshots/{id}/export`: a `tar.zst`, which GNU tar restores exactly.
pub async fn export(State(app): State<Arc<App>>, Id(id): Id, long: LongAnswers) -> Result<Response, ApiError> {
    known(&app, &id).await?;
    let headers = [
        (CONTENT_TYPE, "application/zstd".to_owned()),
        (CONTENT_DISPOSITION, format!("attachment; filename=\"{id}.tar.zst\"")),
    ];
    let body = export::body(app.face.clone(), id, long.begin()).await?;
    Ok((headers, body).into_response())
}

#[derive(Deserialize)]
struct Restore {
    accept_drift: Option<bool>,
    accept_partial: Option<bool>,
}

/// `POST /snapshots/{id}/restore` `{"accept_drift": false, "accept_partial": false}`
pub async fn restore(
    State(app): State<Arc<App>>,
    Id(id): Id,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let wanted: Restore = body::optional(&headers, body, r#"{"accept_drift":false}"#).await?;
    known(&app, &id).await?;
    let order = Order::Restore {
        snapshot: id,
        accept_drift: wanted.accept_drift.unwrap_or_default(),
        accept_partial: wanted.accept_partial.unwrap_or_default(),
    };
    accept(&app, order).await
}

/// `POST /snapshots/prune`: retention, now.
pub async fn prune(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let face = app.face.clone();
    // A client that hangs up must not leave half of it undone.
    let pruned = tokio::spawn(async move { face.prune_snapshots().await }).await;
    let left = pruned.map_err(|_| ApiError::Internal("the updater has a fault: its log says where".into()))??;
    Ok(json(StatusCode::OK, &json!({ "left": left })))
}
