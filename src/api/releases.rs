//! `/releases/latest` and `/check`: what could be installed, and what that would do.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use tokio::time::timeout;

use super::errors::{ApiError, Asked, flag};
use super::router::App;
use super::{answer, updates};
use crate::release::Channel;
use crate::update::CheckRequest;

/// The admin page waits 10 s for any answer.
const LATEST_TIMEOUT: Duration = Duration::from_secs(9);
/// A check fetches a release, verifies it and resolves the deployment; it is not the admin page that asks.
const CHECK_TIMEOUT: Duration = Duration::from_secs(120);

#[derive(Deserialize)]
pub struct LatestQuery {
    channel: Option<String>,
    fresh: Option<String>,
}

/// `GET /releases/latest?channel=stable|prerelease&fresh=…`
pub async fn latest(State(app): State<Arc<App>>, Asked(query): Asked<LatestQuery>) -> Result<Response, ApiError> {
    let channel = channel(query.channel.as_deref())?;
    if flag("fresh", query.fresh.as_deref(), false)? {
        app.face.forget_releases();
    }
    let release = timeout(LATEST_TIMEOUT, app.face.latest(channel)).await.map_err(|_| {
        ApiError::Upstream(format!("the releases API did not answer within {} s", LATEST_TIMEOUT.as_secs()))
    })??;
    Ok(answer::json(StatusCode::OK, &release))
}

#[derive(Deserialize)]
pub struct CheckQuery {
    tag: Option<String>,
    channel: Option<String>,
    allow_downgrade: Option<String>,
    accept_drift: Option<String>,
    accept_unwell: Option<String>,
    fresh: Option<String>,
}

/// `GET /check?tag=…&channel=…&allow_downgrade=…&accept_drift=…&accept_unwell=…&fresh=…`: the plan, without any
/// effect.
pub async fn check(State(app): State<Arc<App>>, Asked(query): Asked<CheckQuery>) -> Result<Response, ApiError> {
    let tag = query.tag.filter(|tag| !tag.is_empty());
    if let Some(tag) = &tag {
        updates::valid_tag(tag)?;
    }
    let request = CheckRequest {
        tag,
        channel: channel(query.channel.as_deref())?,
        allow_downgrade: flag("allow_downgrade", query.allow_downgrade.as_deref(), false)?,
        accept_drift: flag("accept_drift", query.accept_drift.as_deref(), false)?,
        accept_unwell: flag("accept_unwell", query.accept_unwell.as_deref(), false)?,
        fresh: flag("fresh", query.fresh.as_deref(), false)?,
    };
    let check = timeout(CHECK_TIMEOUT, app.face.check(request))
        .await
        .map_err(|_| ApiError::Upstream(format!("the check did not end within {} s", CHECK_TIMEOUT.as_secs())))?;
    Ok(answer::json(StatusCode::OK, &check))
}

fn channel(value: Option<&str>) -> Result<Channel, ApiError> {
    match value.unwrap_or_default() {
        "" | "stable" => Ok(Channel::Stable),
        "prerelease" => Ok(Channel::Prerelease),
        other => Err(ApiError::BadRequest(format!("there is no channel {other:?}: use stable or prerelease"))),
    }
}
