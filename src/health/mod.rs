//! Does the application work? One probe here; the gate that judges many is [`gate`].

pub mod gate;
pub mod http;

use async_trait::async_trait;
use std::time::Duration;

/// What one question to the application brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It answered: the status, and the body (at most 64 KiB of it).
    Http { status: u16, body: Vec<u8> },
    /// It did not: refused, timed out, cut off.
    Silent(String),
}

/// Asks the application. No redirects, no proxy of the environment (HAZARDS 7).
#[async_trait]
pub trait Probe: Send + Sync {
    /// One `GET`; never longer than `timeout`.
    async fn ask(&self, timeout: Duration) -> Answer;
}
