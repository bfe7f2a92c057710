use jiff::Timestamp;
use serde_json::json;

use crate::update::job::{Job, JobId, OUTPUT_TAIL, State};

fn job() -> Job {
    Job::new(JobId("job_0123456789abcdef".into()), "v1".into(), Timestamp::UNIX_EPOCH, false)
}

#[test]
fn the_end_is_itself_the_last_step() {
    let mut job = job();
    let now = Timestamp::UNIX_EPOCH;
    for state in [State::Planning, State::Planning, State::Pulling, State::Committed] {
        job.enter(state, now);
    }
    let steps: Vec<_> = job.steps.iter().map(|s| (s.state, s.completed_at.is_some())).collect();
    assert_eq!(steps, [(State::Planning, true), (State::Pulling, true), (State::Committed, true)]);
    assert_eq!(job.completed_at, Some(now));
}

#[test]
fn output_is_a_bounded_tail_of_whole_lines() {
    let mut job = job();
    job.enter(State::Migrating, Timestamp::UNIX_EPOCH);
    for n in 0..10_000 {
        job.say(&format!("line {n} ü"), Timestamp::UNIX_EPOCH);
    }
    let output = job.steps[0].output.as_deref().unwrap();
    assert!(output.len() <= OUTPUT_TAIL);
    assert!(output.starts_with("line ") && output.ends_with("line 9999 ü\n"), "{}", &output[..20]);
    job.say(&"ü".repeat(OUTPUT_TAIL), Timestamp::UNIX_EPOCH);
    assert!(job.steps[0].output.as_deref().unwrap().len() <= OUTPUT_TAIL);
}

#[test]
fn the_contract_fixes_the_shape() {
    let mut job = job();
    job.enter(State::RollingBack, Timestamp::UNIX_EPOCH);
    assert_eq!(
        serde_json::to_value(&job).unwrap(),
        json!({
            "id": "job_0123456789abcdef", "kind": "update", "state": "rolling_back", "target_tag": "v1",
            "started_at": "1970-01-01T00:00:00Z", "updated_at": "1970-01-01T00:00:00Z",
            "steps": [{"state": "rolling_back", "started_at": "1970-01-01T00:00:00Z"}], "stub": false,
            "touched": false
        })
    );
}

#[test]
fn identifiers_have_sixteen_digits() {
    let id = JobId::random().0;
    let digits = id.strip_prefix("job_").unwrap();
    assert!(digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
}
