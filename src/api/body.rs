//! Bodies of requests: bounded in size and in time, then JSON.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, HeaderMap};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio::time::timeout;

use super::errors::ApiError;

/// The largest body of a request, in bytes.
pub const BODY_CAP: usize = 16 * 1024;
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The request in the body; unknown fields are ignored, so that newer clients may ask older updaters. The
/// content type is not looked at: older clients send none.
pub async fn required<T: DeserializeOwned>(headers: &HeaderMap, body: Body, example: &str) -> Result<T, ApiError> {
    parse(&whole(headers, body).await?, example)
}

/// As [`required`], where no body at all is as good as `{}`.
pub async fn optional<T: DeserializeOwned>(headers: &HeaderMap, body: Body, example: &str) -> Result<T, ApiError> {
    let bytes = whole(headers, body).await?;
    parse(if bytes.trim_ascii().is_empty() { b"{}" } else { &bytes }, example)
}

async fn whole(headers: &HeaderMap, body: Body) -> Result<Vec<u8>, ApiError> {
    timeout(BODY_TIMEOUT, read(headers, body)).await.map_err(|_| ApiError::Slow(BODY_TIMEOUT.as_secs()))?
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

fn parse<T: DeserializeOwned>(body: &[u8], example: &str) -> Result<T, ApiError> {
    let bad = |error: serde_json::Error| ApiError::BadRequest(format!("the body must be JSON like {example}: {error}"));
    // By way of a map: serde would also take a list for the fields in their order.
    let object: Map<String, Value> = serde_json::from_slice(body).map_err(bad)?;
    serde_json::from_value(Value::Object(object)).map_err(bad)
}
