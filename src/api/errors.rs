//! What goes wrong, as a client sees it: always `{"error": "<text>", "code": <status>}`.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::header::{CONNECTION, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::answer;
use crate::release::SourceError;
use crate::text;
use crate::update::SubmitError;
use crate::update::door::AbortError;
use crate::update::ports::DataError;
use crate::update::settle::SettleError;

/// Every answer that is no success. The texts are for the client's operator: they name the thing, the
/// value and the remedy, and never a secret.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("{0}")]
    BadRequest(String),
    #[error("send \"Authorization: Bearer <token>\" with the value of PROCESSGIT_UPDATER_TOKEN")]
    NoToken,
    #[error("the token is wrong: it must equal PROCESSGIT_UPDATER_TOKEN of the updater")]
    WrongToken,
    #[error("{0}")]
    NotFound(String),
    #[error("there is no {0}: this path answers other methods")]
    Method(String),
    #[error("the body did not arrive within {0} s")]
    Slow(u64),
    #[error("{0}")]
    Conflict(String),
    #[error("the body exceeds {0} bytes")]
    TooLarge(usize),
    #[error("too many wrong tokens at once: try again in a minute")]
    TooManyLogins,
    #[error("{0}")]
    Internal(String),
    #[error("{0}")]
    Upstream(String),
    #[error("{0}")]
    Stopping(String),
}

impl ApiError {
    fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::NoToken | Self::WrongToken => StatusCode::UNAUTHORIZED,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Slow(_) => StatusCode::REQUEST_TIMEOUT,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooManyLogins => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Upstream(_) => StatusCode::BAD_GATEWAY,
            Self::Stopping(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

#[derive(Serialize)]
struct Body {
    error: String,
    code: u16,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.status();
        let mut response = answer::json(
            status,
            &Body { error: text::clean_lines(&self.to_string()).into_owned(), code: status.as_u16() },
        );
        let headers = response.headers_mut();
        match self {
            Self::NoToken | Self::WrongToken => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::TooManyLogins => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("60"));
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Self::Slow(_) | Self::TooLarge(_) => {
                // The rest of the body may still come; it must not be taken for a request.
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        response
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        let text = error.to_string();
        match error {
            SubmitError::Busy(_) | SubmitError::Unsettled(_) => Self::Conflict(text),
            SubmitError::Stopping | SubmitError::Looking(_) => Self::Stopping(text),
            SubmitError::Journal(_) => Self::Internal(text),
        }
    }
}

impl From<AbortError> for ApiError {
    fn from(error: AbortError) -> Self {
        let text = error.to_string();
        match error {
            AbortError::Unknown(_) => Self::NotFound(text),
            AbortError::TooLate(_) => Self::Conflict(text),
            AbortError::Journal(_) => Self::Internal(text),
            AbortError::Stopping => Self::Stopping(text),
        }
    }
}

impl From<SettleError> for ApiError {
    fn from(error: SettleError) -> Self {
        let text = error.to_string();
        match error {
            SettleError::Unknown(_) => Self::NotFound(text),
            SettleError::NotFailed { .. } | SettleError::Busy { .. } => Self::Conflict(text),
            SettleError::Looking => Self::Stopping(text),
            SettleError::Unseen { .. } | SettleError::Left { .. } => Self::Upstream(text),
            SettleError::Journal { .. } => Self::Internal(text),
        }
    }
}

impl From<SourceError> for ApiError {
    fn from(error: SourceError) -> Self {
        match error.is_not_found() {
            true => Self::NotFound(error.told()),
            false => Self::Upstream(error.told()),
        }
    }
}

/// Snapshots are off, a job is active, or the repository is not what it should be: the text says which, and
/// asking again changes nothing before somebody has acted.
impl From<DataError> for ApiError {
    fn from(error: DataError) -> Self {
        Self::Conflict(error.to_string())
    }
}

/// Any path that no route has.
pub async fn unknown_route(uri: Uri) -> ApiError {
    ApiError::NotFound(format!("there is no {}", uri.path()))
}

/// A known path, asked with another method.
pub async fn unknown_method(method: Method, uri: Uri) -> ApiError {
    ApiError::Method(format!("{method} {}", uri.path()))
}

/// The path's only variable; a fault in it is a 400 in our shape.
pub struct Id(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path: Result<Path<String>, PathRejection> = Path::from_request_parts(parts, state).await;
        path.map(|Path(id)| Self(id)).map_err(|fault| ApiError::BadRequest(fault.body_text()))
    }
}

/// The query string; a fault in it is a 400 in our shape.
pub struct Asked<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query: Result<Query<T>, QueryRejection> = Query::from_request_parts(parts, state).await;
        query.map(|Query(asked)| Self(asked)).map_err(|fault| ApiError::BadRequest(fault.body_text()))
    }
}

/// A boolean of the query string, as the contract has them, any case; `otherwise` without a value.
pub fn flag(name: &str, value: Option<&str>, otherwise: bool) -> Result<bool, ApiError> {
    match value.unwrap_or_default().to_ascii_lowercase().as_str() {
        "" => Ok(otherwise),
        "1" | "t" | "true" | "yes" | "on" => Ok(true),
        "0" | "f" | "false" | "no" | "off" => Ok(false),
        other => Err(ApiError::BadRequest(format!("{name} is {other:?}: use true or false"))),
    }
}
