//! Does the application work? One probe here; the gate that judges many is [`gate`].

pub mod gate;
pub mod http;

use std::time::Duration;

use async_trait::async_trait;

use crate::engine::Container;

/// What one question to the application brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It answered: the status, and the body (at most 64 KiB of it).
    Http { status: u16, body: Vec<u8> },
    /// It did not: refused, timed out, cut off.
    Silent(String),
}

/// The version that an answer names at a JSON pointer, without a leading `v`.
///
/// # Errors
/// It names none; the text says what was found instead.
pub fn version_at(body: &[u8], pointer: &str) -> Result<String, String> {
    let json: serde_json::Value = serde_json::from_slice(body)
        .map_err(|e| format!("the health answer is no JSON, but a version was expected at {pointer}: {e}"))?;
    match json.pointer(pointer) {
        Some(serde_json::Value::String(text)) => Ok(text.strip_prefix('v').unwrap_or(text).to_owned()),
        Some(other) => Ok(other.to_string()),
        None => Err(format!("the health answer has nothing at {pointer}")),
    }
}

/// Where nothing but the container's own HEALTHCHECK is asked.
pub struct HealthcheckAlone;

#[async_trait]
impl Probe for HealthcheckAlone {
    async fn ask(&self, _container: &Container, _timeout: Duration) -> Answer {
        Answer::Http { status: 200, body: Vec::new() }
    }
}

/// Asks the application. No redirects, no proxy of the environment.
#[async_trait]
pub trait Probe: Send + Sync {
    /// One `GET`; never longer than `timeout`. Where the URL's host is the container's own name, the
    /// container itself is asked, whoever else answers to that name.
    async fn ask(&self, container: &Container, timeout: Duration) -> Answer;
}
