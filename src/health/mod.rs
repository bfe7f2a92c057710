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
