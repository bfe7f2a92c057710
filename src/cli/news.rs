//! What a job says that it did not say when it was last looked at.

use std::time::Duration;

use jiff::Timestamp;

use super::text;
use crate::update::job::{Job, State, Step};

/// One thing worth a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    Began(State),
    /// A line that a step printed, safe for a terminal.
    Said(String),
    Ended {
        state: State,
        took: Duration,
        error: Option<String>,
    },
    Warned(String),
}

/// What has been told of a job so far. End states are not told: they are the verdict.
#[derive(Default)]
pub struct Seen {
    steps: Vec<SeenStep>,
    warnings: Vec<String>,
}

struct SeenStep {
    state: State,
    started_at: Timestamp,
    /// As much of the step's output as was in the last look at it.
    output: String,
    ended: bool,
}

impl Seen {
    /// What is new in `job`, in the order in which it happened.
    pub fn news(&mut self, job: &Job) -> Vec<News> {
        let mut news = Vec::new();
        for step in job.steps.iter().filter(|step| !step.state.is_end()) {
            self.step(step, &mut news);
        }
        for warning in &job.warnings {
            if !self.warnings.contains(warning) {
                self.warnings.push(warning.clone());
                news.push(News::Warned(text::clean(warning).into_owned()));
            }
        }
        news
    }

    fn step(&mut self, step: &Step, news: &mut Vec<News>) {
        let known = |seen: &SeenStep| (seen.state, seen.started_at) == (step.state, step.started_at);
        let at = self.steps.iter().position(known).unwrap_or_else(|| {
            news.push(News::Began(step.state));
            let (state, started_at) = (step.state, step.started_at);
            self.steps.push(SeenStep { state, started_at, output: String::new(), ended: false });
            self.steps.len() - 1
        });
        let seen = &mut self.steps[at];
        let output = step.output.as_deref().unwrap_or_default();
        if seen.output != output {
            news.extend(fresh(&seen.output, output).lines().map(|line| News::Said(text::clean(line).into_owned())));
            output.clone_into(&mut seen.output);
        }
        if let (Some(end), false) = (step.completed_at, seen.ended) {
            seen.ended = true;
            let error = step.error.as_deref().map(|error| text::clean(error).into_owned());
            news.push(News::Ended { state: step.state, took: text::between(step.started_at, end), error });
        }
    }
}

/// The part of `new` that follows what is in `old`. An output is a tail that loses lines at its front, so
/// what both have in common is the end of the one and the beginning of the other.
fn fresh<'a>(old: &str, new: &'a str) -> &'a str {
    let line_starts = std::iter::once(0).chain(old.match_indices('\n').map(|(at, _)| at + 1));
    line_starts.filter_map(|at| new.strip_prefix(&old[at..])).next().unwrap_or(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_follows_is_fresh() {
        for (old, new, expected) in [
            ("", "", ""),
            ("", "a\n", "a\n"),
            ("a\n", "a\n", ""),
            ("a\n", "a\nb\n", "b\n"),
            ("a\nb\n", "b\nc\n", "c\n"),
            ("a\nb\n", "b\n", ""),
            ("a\nb\n", "x\ny\n", "x\ny\n"),
            (".\n.\n", ".\n.\n.\n", ".\n"),
            ("a\nb", "b and c", " and c"),
        ] {
            assert_eq!(fresh(old, new), expected, "{old:?} then {new:?}");
        }
    }

    #[test]
    fn a_job_is_told_once_and_in_order() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut job = Job::new(crate::update::job::JobId("job_1".into()), "v1".into(), at(0), false);
        let mut seen = Seen::default();
        assert_eq!(seen.news(&job), []);

        job.enter(State::Planning, at(0));
        job.say("one", at(1));
        assert_eq!(seen.news(&job), [News::Began(State::Planning), News::Said("one".into())]);
        assert_eq!(seen.news(&job), []);

        job.say("two\u{1b}[2J", at(2));
        job.warnings.push("careful".into());
        job.enter(State::Pulling, at(3));
        job.fail_step("no route", at(5));
        job.enter(State::RolledBack, at(5));
        let took = Duration::from_secs;
        assert_eq!(
            seen.news(&job),
            [
                News::Said("two\u{fffd}[2J".into()),
                News::Ended { state: State::Planning, took: took(3), error: None },
                News::Began(State::Pulling),
                News::Ended { state: State::Pulling, took: took(2), error: Some("no route".into()) },
                News::Warned("careful".into()),
            ]
        );
        assert_eq!(seen.news(&job), []);
    }
}
