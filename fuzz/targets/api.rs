//! A request: the first digit chooses the route, the rest is the body.

use std::sync::{Arc, LazyLock, Mutex};

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use processgit_updater::api::{ANSWER_CAP, BODY_CAP, Face, router};
use processgit_updater::doctor::{Examine, Report};
use processgit_updater::release::{Channel, Release, SourceError};
use processgit_updater::update::door::AbortError;
use processgit_updater::update::job::Job;
use processgit_updater::update::ports::{DataError, ExportSink, SnapshotInfo};
use processgit_updater::update::settle::{SettleError, Settlement};
use processgit_updater::update::{Check, CheckRequest, Order, RollbackView, SubmitError};
use serde_json::Value;
use tokio::runtime::Runtime;
use tower::ServiceExt;

const TOKEN: &str = "the token";
/// Every route that reads a body.
const ROUTES: [&str; 6] =
    ["/update", "/self-update", "/snapshots", "/snapshots/gen-1/restore", "/snapshots/prune", "/rollback"];

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime"));
static DOMAIN: LazyLock<Arc<Domain>> = LazyLock::new(Arc::default);
static ROUTER: LazyLock<Router> = LazyLock::new(|| router(DOMAIN.clone(), DOMAIN.clone(), TOKEN.to_owned().into()));

/// Every answer is JSON with the right status, what is refused has not begun, and what begins names a tag that
/// can stand in an address.
pub fn fuzz(bytes: &[u8]) {
    let Some((route, body)) = bytes.split_first() else { return };
    let route = ROUTES[usize::from(route.wrapping_sub(b'0')) % ROUTES.len()];
    let request = Request::post(route).header("Authorization", format!("Bearer {TOKEN}"));
    let request = request.body(Body::from(body.to_vec())).expect("a request");
    let (status, answer) = RUNTIME.block_on(async {
        let answer = ROUTER.clone().oneshot(request).await.expect("an answer");
        let status = answer.status().as_u16();
        (status, to_bytes(answer.into_body(), ANSWER_CAP).await.expect("an answer that is not too large"))
    });
    let answer: Value = serde_json::from_slice(&answer).expect("JSON");
    let orders = std::mem::take(&mut *DOMAIN.orders());
    // The domain is stopping, so what comes to it is refused with 503; pruning is no job.
    let expected = match status {
        503 => 1,
        200 | 400 | 413 => 0,
        other => panic!("{route}: status {other}: {answer}"),
    };
    assert_eq!(orders.len(), expected, "{route}: status {status}");
    assert!(body.len() <= BODY_CAP || matches!(status, 200 | 413), "{route} has read {} bytes", body.len());
    if status != 200 {
        assert_eq!(answer["code"], status, "{answer}");
        assert!(answer["error"].as_str().is_some_and(|error| !error.is_empty()), "{answer}");
    }
    for order in orders {
        let (Order::Update(request) | Order::SelfUpdate(request)) = &order else { continue };
        let tag = &request.target_tag;
        let newest = tag.is_empty() && matches!(order, Order::SelfUpdate(_));
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._+-".contains(&b);
        assert!(newest || (!tag.is_empty() && tag.len() <= 128 && tag.bytes().all(plain)), "a tag like {tag:?}");
    }
}

/// Remembers what it was asked, and refuses.
#[derive(Default)]
struct Domain(Mutex<Vec<Order>>);

impl Domain {
    fn orders(&self) -> std::sync::MutexGuard<'_, Vec<Order>> {
        self.0.lock().expect("nobody panics while holding the orders")
    }
}

#[async_trait]
impl Examine for Domain {
    async fn examine(&self) -> Report {
        unreachable!("no route of ours")
    }
}

#[async_trait]
impl Face for Domain {
    async fn submit(&self, order: Order) -> Result<Job, SubmitError> {
        self.orders().push(order);
        Err(SubmitError::Stopping)
    }
    async fn settlement(&self, id: &str) -> Result<Settlement, SettleError> {
        Err(SettleError::Unknown(id.into()))
    }
    async fn settle(&self, id: &str) -> Result<Settlement, SettleError> {
        Err(SettleError::Unknown(id.into()))
    }
    fn needs_you(&self) -> Vec<Arc<Job>> {
        vec![]
    }
    async fn abort(&self, _: &str) -> Result<Job, AbortError> {
        unreachable!("no route of ours")
    }
    async fn job(&self, _: &str) -> Option<Arc<Job>> {
        None
    }
    fn active(&self) -> Option<Arc<Job>> {
        None
    }
    fn history(&self, _: usize) -> Vec<Arc<Job>> {
        Vec::new()
    }
    fn count(&self) -> usize {
        0
    }
    async fn log(&self, _: &str, _: u64) -> Option<Vec<u8>> {
        None
    }
    async fn check(&self, _: CheckRequest) -> Check {
        Check::default()
    }
    fn forget_releases(&self) {}
    async fn latest(&self, _: Channel) -> Result<Release, SourceError> {
        unreachable!("no route of ours")
    }
    async fn rollback_view(&self, _: bool) -> Result<RollbackView, String> {
        unreachable!("no route of ours")
    }
    async fn snapshots(&self) -> Result<Vec<SnapshotInfo>, DataError> {
        let created_at = "2026-01-01T00:00:00Z".parse().expect("a time");
        Ok(vec![SnapshotInfo {
            id: "gen-1".into(),
            created_at,
            consistent: true,
            reason: String::new(),
            bytes: 0,
            own_bytes: 0,
            entries: 0,
            mounts: Vec::new(),
            label: None,
        }])
    }
    async fn verify_snapshot(&self, _: &str) -> Result<(), DataError> {
        Ok(())
    }
    async fn export_snapshot(&self, _: &str, _: ExportSink) -> Result<(), DataError> {
        Ok(())
    }
    async fn prune_snapshots(&self) -> Result<usize, DataError> {
        Ok(0)
    }
    fn stub(&self) -> bool {
        true
    }
    fn trust(&self) -> String {
        String::new()
    }
    fn notices(&self) -> Vec<String> {
        Vec::new()
    }
}
