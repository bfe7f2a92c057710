//! The updater updates itself: the job is handed to a deputy, a container that outlives this one, which runs
//! the very same machine with the updater's own container as its application. Here the job is only begun,
//! waited for, and given the deputy's verdict, by this process or by the one that the deputy puts in its
//! place.

use tokio_util::sync::CancellationToken;

use super::Request;
use super::context::Context;
use super::door::AbortError;
use super::job::{Job, State};
use super::ports::Entry;
use super::record::Record;
use super::refusal::{Explained, Refusal};
use super::run::{end, enter, save};
use super::transition::Verdict;

/// Runs the job to the deputy's verdict, or until `stop`: then the next start waits on.
pub async fn run(cx: &Context, record: Record, request: &Request, stop: &CancellationToken) {
    enter(cx, State::Planning);
    cx.door.shut(AbortError::TooLate("too late to abort: a deputy carries the job out".into()));
    let carried_out = async {
        let mut request = request.clone();
        if request.target_tag.is_empty() {
            request.target_tag = cx.ports.deputy.latest().await?;
            cx.change(|job| job.target_tag.clone_from(&request.target_tag));
        }
        // The deputy's own journal has the job from its first moment; this one only has to know of it.
        let noted = save(cx, &record, Entry::Note("handed to a deputy".into())).await;
        noted?;
        cx.say("handed to a deputy: a container that outlives this one");
        cx.ports.deputy.carry_out(&cx.job, &request, cx.sealed).await
    };
    let ended = tokio::select! {
        ended = carried_out => ended,
        () = stop.cancelled() => return,
    };
    let mut record = record;
    let verdict = match ended {
        Ok(job) => {
            record.code = job.reason.as_ref().map(|reason| reason.code);
            adopt(cx, job)
        }
        Err(error) => {
            let state = if error.not_begun() { State::RolledBack } else { State::Failed };
            record.code = Some(error.code());
            Verdict { state, error: Some(Refusal::from(error).to_string()) }
        }
    };
    end(cx, &record, verdict).await;
    cx.ports.deputy.dismiss(&cx.job, cx.sealed).await;
}

/// What the deputy did becomes part of the job.
fn adopt(cx: &Context, done: Job) -> Verdict {
    let verdict = Verdict { state: done.state, error: done.error };
    cx.change(|job| {
        job.target_version = done.target_version;
        job.target_image = done.target_image;
        job.target_digest = done.target_digest;
        job.previous_image = done.previous_image;
        job.previous_version = done.previous_version;
        job.verified = done.verified;
        job.warnings.extend(done.warnings);
        // Its last step is the end, which this job gets by itself.
        job.steps.extend(done.steps.into_iter().filter(|step| !step.state.is_end()));
    });
    verdict
}
