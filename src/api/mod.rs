//! The HTTP contract: routes in, JSON out. Knows the domain only by its public face.
//!
//! ```text
//! socket ── server ── router ── auth ── status | releases | updates ── Face (update::Updater)
//!           limits    404, 405  401     one file per noun                 │
//!                     panics → 500      answer: the 1 MiB bound      errors: {"error","code"}
//! ```
//! Protocol faults below HTTP's semantics (a malformed request line, headers over 64 KiB) are answered by
//! hyper itself, with a status and no body: there is no request yet that a route could answer.

mod answer;
mod auth;
mod errors;
mod releases;
mod router;
mod server;
mod status;
mod updates;

use std::sync::Arc;

use async_trait::async_trait;

pub use answer::ANSWER_CAP;
pub use router::router;
pub use server::{BindError, Listener, serve};
pub use updates::{BODY_CAP, LOG_CHUNK};

use crate::release::{Channel, Release, SourceError};
use crate::update::job::Job;
use crate::update::{Check, CheckRequest, Order, Request, SubmitError, Updater};

/// The version of this program, as `/healthz`, `/status` and `--version` tell it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What the routes ask of the domain: exactly the public methods of [`Updater`], which documents them.
/// It exists so that the routes can be tested against a script.
#[async_trait]
pub trait Face: Send + Sync {
    async fn submit(&self, request: Request) -> Result<Job, SubmitError>;
    async fn job(&self, id: &str) -> Option<Arc<Job>>;
    fn active(&self) -> Option<Arc<Job>>;
    fn history(&self, limit: usize) -> Vec<Arc<Job>>;
    fn count(&self) -> usize;
    async fn log(&self, id: &str, offset: u64) -> Option<Vec<u8>>;
    async fn check(&self, request: CheckRequest) -> Check;
    async fn latest(&self, channel: Channel) -> Result<Release, SourceError>;
    fn stub(&self) -> bool;
    fn trust(&self) -> String;
}

#[async_trait]
impl Face for Updater {
    async fn submit(&self, request: Request) -> Result<Job, SubmitError> {
        Updater::submit(self, Order::Update(request)).await
    }
    async fn job(&self, id: &str) -> Option<Arc<Job>> {
        Updater::job(self, id).await
    }
    fn active(&self) -> Option<Arc<Job>> {
        Updater::active(self)
    }
    fn history(&self, limit: usize) -> Vec<Arc<Job>> {
        Updater::history(self, limit)
    }
    fn count(&self) -> usize {
        Updater::count(self)
    }
    async fn log(&self, id: &str, offset: u64) -> Option<Vec<u8>> {
        Updater::log(self, id, offset).await
    }
    async fn check(&self, request: CheckRequest) -> Check {
        Updater::check(self, request).await
    }
    async fn latest(&self, channel: Channel) -> Result<Release, SourceError> {
        Updater::latest(self, channel).await
    }
    fn stub(&self) -> bool {
        Updater::stub(self)
    }
    fn trust(&self) -> String {
        Updater::trust(self)
    }
}
