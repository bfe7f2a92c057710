//! Every route in one place.

use std::sync::Arc;

use axum::routing::{get, post};
use axum::{Router, middleware};
use jiff::Timestamp;
use secrecy::SecretString;

use super::auth::{self, Keeper};
use super::{Face, errors, releases, rollback, snapshots, status, updates};
use crate::doctor::Examine;

/// What the handlers share.
pub struct App {
    pub face: Arc<dyn Face>,
    pub keeper: Keeper,
    /// When this process began to answer.
    pub started_at: Timestamp,
    pub doctor: Arc<dyn Examine>,
    /// One look at a time: it starts helpers and walks through the data.
    pub looking: tokio::sync::Mutex<()>,
    /// Asked once: it does not change while the process lives, and `/status` is asked often.
    pub stub: bool,
}

/// The HTTP contract over `face` and `doctor`, for clients that know `token`. Panics in handlers become a 500.
pub fn router(face: Arc<dyn Face>, doctor: Arc<dyn Examine>, token: SecretString) -> Router {
    let (keeper, started_at, stub) = (Keeper::new(&token), Timestamp::now(), face.stub());
    let app = Arc::new(App { face, keeper, started_at, doctor, looking: tokio::sync::Mutex::default(), stub });
    let public =
        Router::new().route("/healthz", get(status::healthz)).method_not_allowed_fallback(errors::unknown_method);
    let private = Router::new()
        .route("/status", get(status::status))
        .route("/doctor", get(status::doctor))
        .route("/releases/latest", get(releases::latest))
        .route("/check", get(releases::check))
        .route("/update", post(updates::submit))
        .route("/update/{id}", get(updates::show))
        .route("/update/{id}/abort", post(updates::abort))
        .route("/update/{id}/settle", get(updates::settlement).post(updates::settle))
        .route("/update/{id}/log", get(updates::log))
        .route("/self-update", post(updates::submit_own))
        .route("/history", get(updates::history))
        .route("/snapshots", get(snapshots::list).post(snapshots::create))
        .route("/snapshots/prune", post(snapshots::prune))
        .route("/snapshots/{id}/verify", get(snapshots::verify))
        .route("/snapshots/{id}/export", get(snapshots::export))
        .route("/snapshots/{id}/restore", post(snapshots::restore))
        .route("/rollback", get(rollback::view).post(rollback::submit))
        .method_not_allowed_fallback(errors::unknown_method)
        .fallback(errors::unknown_route)
        .layer(middleware::from_fn_with_state(app.clone(), auth::gate));
    public.merge(private).with_state(app)
}
