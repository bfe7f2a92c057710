//! The HTTP contract: routes in, JSON out. Knows the domain only by its public face.
//!
//! ```text
//! socket ── server ── router ── auth ── status | releases | updates | snapshots | rollback ── Face
//!           limits    404, 405  401     one file per noun                                (update::Updater)
//!           seats               500     body: bounds on requests       errors: {"error","code"}
//!           head                        answer: the 1 MiB bound        export: an answer without one
//! ```
//! `seats` bounds how many connections there are and whose; `head` reads the first request's head, which decides it.
//! Protocol faults below HTTP's semantics (a malformed request line, headers over 64 KiB) are answered by
//! hyper itself, with a status and no body: there is no request yet that a route could answer.

mod answer;
mod auth;
mod body;
mod errors;
mod export;
mod head;
mod long;
mod releases;
mod rollback;
mod router;
mod seats;
mod server;
mod snapshots;
mod status;
mod updates;

use std::sync::Arc;

use async_trait::async_trait;

pub use answer::ANSWER_CAP;
pub use body::BODY_CAP;
pub use router::router;
pub use server::{BindError, Listener, serve};
pub use updates::LOG_CHUNK;

use crate::release::{Channel, Release, SourceError};
use crate::update::door::AbortError;
use crate::update::job::Job;
use crate::update::ports::{DataError, ExportSink, SnapshotInfo};
use crate::update::settle::{SettleError, Settlement};
use crate::update::{Check, CheckRequest, Order, RollbackView, SubmitError, Updater};

/// The version of this program, as `/healthz`, `/status` and `--version` tell it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What the routes ask of the domain: exactly the public methods of [`Updater`], which documents them.
/// It exists so that the routes can be tested against a script.
#[async_trait]
pub trait Face: Send + Sync {
    async fn submit(&self, order: Order) -> Result<Job, SubmitError>;
    async fn abort(&self, id: &str) -> Result<Job, AbortError>;
    async fn settlement(&self, id: &str) -> Result<Settlement, SettleError>;
    async fn settle(&self, id: &str) -> Result<Settlement, SettleError>;
    fn needs_you(&self) -> Vec<Arc<Job>>;
    async fn job(&self, id: &str) -> Option<Arc<Job>>;
    fn active(&self) -> Option<Arc<Job>>;
    fn history(&self, limit: usize) -> Vec<Arc<Job>>;
    fn count(&self) -> usize;
    async fn log(&self, id: &str, offset: u64) -> Option<Vec<u8>>;
    async fn check(&self, request: CheckRequest) -> Check;
    fn forget_releases(&self);
    async fn latest(&self, channel: Channel) -> Result<Release, SourceError>;
    async fn rollback_view(&self, with_data: bool) -> Result<RollbackView, String>;
    async fn snapshots(&self) -> Result<Vec<SnapshotInfo>, DataError>;
    async fn verify_snapshot(&self, id: &str) -> Result<(), DataError>;
    async fn export_snapshot(&self, id: &str, sink: ExportSink) -> Result<(), DataError>;
    async fn prune_snapshots(&self) -> Result<usize, DataError>;
    fn stub(&self) -> bool;
    fn trust(&self) -> String;
    fn notices(&self) -> Vec<String>;
}

#[async_trait]
impl Face for Updater {
    async fn submit(&self, order: Order) -> Result<Job, SubmitError> {
        Updater::submit(self, order).await
    }
    async fn abort(&self, id: &str) -> Result<Job, AbortError> {
        Updater::abort(self, id).await
    }
    async fn settlement(&self, id: &str) -> Result<Settlement, SettleError> {
        Updater::settlement(self, id).await
    }
    async fn settle(&self, id: &str) -> Result<Settlement, SettleError> {
        Updater::settle(self, id).await
    }
    fn needs_you(&self) -> Vec<Arc<Job>> {
        Updater::needs_you(self)
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
    fn forget_releases(&self) {
        Updater::forget_releases(self);
    }
    async fn latest(&self, channel: Channel) -> Result<Release, SourceError> {
        Updater::latest(self, channel).await
    }
    async fn rollback_view(&self, with_data: bool) -> Result<RollbackView, String> {
        Updater::rollback_view(self, with_data).await
    }
    async fn snapshots(&self) -> Result<Vec<SnapshotInfo>, DataError> {
        Updater::snapshots(self).await
    }
    async fn verify_snapshot(&self, id: &str) -> Result<(), DataError> {
        Updater::verify_snapshot(self, id).await
    }
    async fn export_snapshot(&self, id: &str, sink: ExportSink) -> Result<(), DataError> {
        Updater::export_snapshot(self, id, sink).await
    }
    async fn prune_snapshots(&self) -> Result<usize, DataError> {
        Updater::prune_snapshots(self).await
    }
    fn stub(&self) -> bool {
        Updater::stub(self)
    }
    fn trust(&self) -> String {
        Updater::trust(self)
    }
    fn notices(&self) -> Vec<String> {
        Updater::notices(self)
    }
}
