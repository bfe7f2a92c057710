//! `/healthz` and `/status`: asked often, so they touch neither a lock for long nor the disk. `/doctor`: asked
//! by a person, and it takes its time.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use jiff::Timestamp;
use serde::Serialize;

use super::router::App;
use super::{VERSION, answer};
use crate::update::job::{Job, JobId};

#[derive(Serialize)]
struct Healthz {
    status: &'static str,
    version: &'static str,
    time: Timestamp,
}

/// `GET /healthz`: the process answers. Says nothing about the application.
pub async fn healthz() -> Response {
    answer::json(StatusCode::OK, &Healthz { status: "ok", version: VERSION, time: Timestamp::now() })
}

#[derive(Serialize)]
struct Status<'a> {
    version: &'static str,
    active_job: Option<&'a Job>,
    recent_jobs_count: usize,
    stub: bool,
    trust: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notices: Vec<String>,
    /// Failed jobs that no person has settled.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    needs_you: Vec<NeedsYou>,
    started_at: Timestamp,
}

/// A failed job, as far as it fits into every status.
#[derive(Serialize)]
struct NeedsYou {
    job: JobId,
    since: Timestamp,
    error: String,
}

impl NeedsYou {
    fn of(job: &Arc<Job>) -> Self {
        let error: String = job.error.iter().flat_map(|error| error.chars()).take(MOST_OF_AN_ERROR).collect();
        Self { job: job.id.clone(), since: job.completed_at.unwrap_or(job.updated_at), error }
    }
}

/// Characters; the whole error is in the job.
const MOST_OF_AN_ERROR: usize = 4096;
/// The newest of them; no answer is larger than 1 MiB.
const MOST_WAITING: usize = 10;

/// `GET /doctor`: every check has a deadline of its own.
pub async fn doctor(State(app): State<Arc<App>>) -> Response {
    let _turn = app.looking.lock().await;
    answer::json(StatusCode::OK, &app.doctor.examine().await)
}

/// `GET /status`
pub async fn status(State(app): State<Arc<App>>) -> Response {
    let count = app.face.count();
    let active = app.face.active();
    answer::json_of_jobs(StatusCode::OK, active.as_slice(), |jobs| {
        answer::serialized(&Status {
            version: VERSION,
            active_job: jobs.first().map(Arc::as_ref),
            recent_jobs_count: count,
            stub: app.stub,
            trust: app.face.trust(),
            notices: app.face.notices(),
            needs_you: app.face.needs_you().iter().take(MOST_WAITING).map(NeedsYou::of).collect(),
            started_at: app.started_at,
        })
    })
}
