//! `/rollback`: back to the version before the last committed update.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::HeaderMap;
use axum::response::Response;
use serde::Deserialize;
use tokio::time::timeout;

use super::body;
use super::errors::{ApiError, Asked, flag};
use super::router::App;
use super::{answer, updates};
use crate::update::Order;

/// What was written since is counted, which walks the data.
const VIEW_TIMEOUT: Duration = Duration::from_secs(120);

#[derive(Deserialize)]
pub struct ViewQuery {
    with_data: Option<String>,
}

/// `GET /rollback?with_data=true`: what it would do, without any effect; 409 says why it cannot be.
pub async fn view(State(app): State<Arc<App>>, Asked(query): Asked<ViewQuery>) -> Result<Response, ApiError> {
    let with_data = flag("with_data", query.with_data.as_deref(), true)?;
    let view = timeout(VIEW_TIMEOUT, app.face.rollback_view(with_data)).await.map_err(|_| {
        ApiError::Upstream(format!("what was written since was not counted within {} s", VIEW_TIMEOUT.as_secs()))
    })?;
    Ok(answer::json(StatusCode::OK, &view.map_err(ApiError::Conflict)?))
}

#[derive(Deserialize)]
struct Wanted {
    with_data: Option<bool>,
    accept_drift: Option<bool>,
    accept_partial: Option<bool>,
}

/// `POST /rollback` `{"with_data": true, "accept_drift": false, "accept_partial": false}`
pub async fn submit(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Result<Response, ApiError> {
    let wanted: Wanted = body::optional(&headers, body, r#"{"with_data":true}"#).await?;
    let order = Order::Rollback {
        with_data: wanted.with_data.unwrap_or(true),
        accept_drift: wanted.accept_drift.unwrap_or_default(),
        accept_partial: wanted.accept_partial.unwrap_or_default(),
    };
    updates::accept(&app, order).await
}
