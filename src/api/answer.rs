//! Answers with a body, and the bound on those that hold jobs.
//!
//! The admin page reads at most 1 MiB of any answer, whatever a migration printed and however many jobs
//! there are. Jobs are sent whole where they fit; otherwise every text in them is shortened, evenly, until
//! the answer does. The whole log is a route of its own.

use std::sync::Arc;

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::response::Response;
use serde::Serialize;

use crate::update::job::{Job, OUTPUT_TAIL, Step};

/// The largest body of an answer that holds jobs, in bytes: the admin page's 1 MiB, less 1 KiB in case it
/// counts the headers too.
pub const ANSWER_CAP: usize = 1024 * 1024 - 1024;

/// The most entries of a job's lists in a shortened answer: the last steps, the first warnings.
const LIST_CAP: usize = 32;

/// An answer with `body` as JSON.
pub fn json(status: StatusCode, body: &impl Serialize) -> Response {
    with_bytes(status, serialized(body))
}

/// An answer with the JSON that `render` makes of `jobs`, of at most [`ANSWER_CAP`] bytes.
pub fn json_of_jobs(status: StatusCode, jobs: &[Arc<Job>], render: impl Fn(&[Arc<Job>]) -> Vec<u8>) -> Response {
    with_bytes(status, fitted(jobs, render))
}

/// Our own types always serialize: no map has keys other than strings, no float is among them.
pub fn serialized(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).unwrap_or_default()
}

fn with_bytes(status: StatusCode, json: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(json));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn fitted(jobs: &[Arc<Job>], render: impl Fn(&[Arc<Job>]) -> Vec<u8>) -> Vec<u8> {
    // Fifty jobs with full outputs would be rendered for nothing; JSON is never shorter than the texts.
    if jobs.iter().map(|job| texts(job)).sum::<usize>() <= ANSWER_CAP {
        let whole = render(jobs);
        if whole.len() <= ANSWER_CAP {
            return whole;
        }
    }
    let mut cap = OUTPUT_TAIL;
    let mut jobs: Vec<Arc<Job>> = jobs.to_vec();
    loop {
        jobs = jobs.iter().map(|job| Arc::new(shortened(job, cap))).collect();
        if jobs.iter().map(|job| texts(job)).sum::<usize>() <= ANSWER_CAP {
            let short = render(&jobs);
            if short.len() <= ANSWER_CAP || (cap == 0 && jobs.len() <= 1) {
                return short;
            }
        }
        // Without any text in them, fewer jobs is all that is left: the newest.
        if cap == 0 {
            jobs.truncate(jobs.len() / 2);
        }
        cap /= 2;
    }
}

/// Bytes of all the texts that grow with what others print.
fn texts(job: &Job) -> usize {
    let len = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let steps: usize = job.steps.iter().map(|step| len(&step.output) + len(&step.error)).sum();
    let reason = job.reason.as_ref().map_or(0, |reason| reason.text.len());
    let evidence: usize = job.evidence.iter().flat_map(|evidence| &evidence.tail).map(String::len).sum();
    steps + reason + evidence + len(&job.error) + job.warnings.iter().map(String::len).sum::<usize>()
}

/// `job` with at most `cap` bytes in each text. What a step does right now is left out.
fn shortened(job: &Job, cap: usize) -> Job {
    let mut job = job.clone();
    job.steps.drain(..job.steps.len().saturating_sub(LIST_CAP));
    job.warnings.truncate(LIST_CAP);
    job.verified.truncate(LIST_CAP);
    for Step { output, error, progress, .. } in &mut job.steps {
        *progress = None;
        if let Some(output) = output {
            *output = tail(output, cap).to_owned();
        }
        if let Some(error) = error {
            cut_middle(error, cap);
        }
    }
    let reason = job.reason.as_mut().map(|reason| &mut reason.text);
    let evidence = job.evidence.iter_mut().flat_map(|evidence| &mut evidence.tail);
    let texts = job.error.iter_mut().chain(reason).chain(&mut job.warnings).chain(evidence);
    texts.for_each(|text| cut_middle(text, cap));
    job
}

/// The last whole lines of `text` that fit into `cap` bytes; of a longer line its end.
fn tail(text: &str, cap: usize) -> &str {
    if text.len() <= cap {
        return text;
    }
    let end = &text[text.ceil_char_boundary(text.len() - cap)..];
    match end.find('\n') {
        Some(at) if at + 1 < end.len() => &end[at + 1..],
        _ => end,
    }
}

/// An error says first what failed and last what to do: both ends stay.
fn cut_middle(text: &mut String, cap: usize) {
    const GAP: &str = " … ";
    if text.len() <= cap {
        return;
    }
    let side = cap.saturating_sub(GAP.len()) / 2;
    if side == 0 {
        text.truncate(text.floor_char_boundary(cap));
        return;
    }
    let end = text.ceil_char_boundary(text.len() - side);
    text.replace_range(text.floor_char_boundary(side)..end, GAP);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::update::job::{JobId, State};

    #[test]
    fn tails_begin_at_a_line_where_there_is_one() {
        for (text, cap, expected) in [
            ("one\ntwo\n", 100, "one\ntwo\n"),
            ("one\ntwo\n", 6, "two\n"),
            ("onetwo", 3, "two"),
            ("one\n", 2, "e\n"),
            ("ääää", 3, "ä"),
            ("one", 0, ""),
        ] {
            assert_eq!(tail(text, cap), expected, "{text:?} in {cap}");
        }
    }

    #[test]
    fn long_errors_keep_both_ends() {
        for (text, cap, expected) in [
            ("short", 10, "short"),
            ("what failed, and what to do", 19, "what fa … t to do"),
            ("äääääääääääää", 13, "ää … ää"),
            ("abcdef", 4, "abcd"),
            ("abcdef", 0, ""),
        ] {
            let mut cut = text.to_owned();
            cut_middle(&mut cut, cap);
            assert!(cut.len() <= text.len().min(cap.max(5)), "{cut:?}");
            assert_eq!(cut, expected, "{text:?} in {cap}");
        }
    }

    fn job(number: u64, steps: usize, output: &str) -> Arc<Job> {
        let now = jiff::Timestamp::UNIX_EPOCH;
        let mut job = Job::new(JobId(format!("job_{number:016x}")), "v1.0.0".into(), now, false);
        for _ in 0..steps {
            job.state = State::Idle;
            job.enter(State::Migrating, now);
            job.steps.last_mut().unwrap().output = Some(output.to_owned());
        }
        Arc::new(job)
    }

    #[test]
    fn an_answer_fits_whatever_is_in_it() {
        let escaped = "\u{1}".repeat(OUTPUT_TAIL);
        let huge = "x".repeat(4 << 20);
        for (what, jobs) in [
            ("nothing", vec![]),
            ("one small job", vec![job(1, 3, "done\n")]),
            ("fifty jobs of escapes", (0..50).map(|n| job(n, 13, &escaped)).collect()),
            ("an unbounded output", vec![job(1, 1, &huge)]),
            ("a job of too many steps", vec![job(1, 20_000, "")]),
            ("too many jobs", (0..8_000).map(|n| job(n, 1, "")).collect()),
        ] {
            let body = fitted(&jobs, |jobs| serialized(&jobs));
            assert!(body.len() <= ANSWER_CAP, "{what}: {} bytes", body.len());
            let back: Vec<Job> = serde_json::from_slice(&body).unwrap();
            assert_eq!(back.first().map(|job| &job.id), jobs.first().map(|job| &job.id), "{what}: newest stays");
        }
    }

    #[test]
    fn what_fits_is_not_touched() {
        let jobs = vec![job(1, 10, &"line\n".repeat(3000))];
        assert_eq!(fitted(&jobs, |jobs| serialized(&jobs)), serialized(&jobs));
    }
}
