//! Waits for a job's verdict, whatever happens to the updater meanwhile.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::client::ClientError;
use super::text;
use super::view::View;
use crate::update::job::{Job, State};

/// The pause between two looks at the job.
const PACE: Duration = Duration::from_millis(250);
/// The longest pause between two attempts to reach an updater that does not answer.
const SLOWEST: Duration = Duration::from_secs(5);
/// How long an updater may be away: it restarts, is itself replaced, or the machine reboots.
const PATIENCE: Duration = Duration::from_secs(300);

/// The exit code that tells how a job ended; 1 for one that has not.
pub fn exit_code(job: &Job) -> u8 {
    match job.state {
        State::Committed => 0,
        State::RolledBack if job.touched == Some(false) => 6,
        State::RolledBack => 3,
        State::Failed => 4,
        State::Aborted => 5,
        _ => 1,
    }
}

/// Asks `fetch` for the job until it has ended, and shows it. An updater that goes away is waited for, up
/// to five minutes at a time; every other fault ends the wait.
pub async fn follow(
    fetch: impl AsyncFn() -> Result<Job, ClientError>,
    view: &mut dyn View,
) -> Result<Job, ClientError> {
    let mut away: Option<Instant> = None;
    let mut pause = PACE;
    loop {
        match fetch().await {
            Ok(job) => {
                if away.take().is_some() {
                    view.note("the updater is back");
                }
                pause = PACE;
                view.show(&job);
                if job.state.is_end() {
                    return Ok(job);
                }
            }
            Err(error) if error.may_pass() => {
                let since = *away.get_or_insert_with(|| {
                    let patience = text::duration(PATIENCE);
                    view.note(&format!(
                        "the updater does not answer, waiting for it up to {patience}; the job goes on by itself"
                    ));
                    Instant::now()
                });
                if since.elapsed() >= PATIENCE {
                    return Err(error);
                }
                pause = (pause * 2).min(SLOWEST);
            }
            Err(error) => return Err(error),
        }
        sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::update::job::JobId;

    /// What happens when the job is asked for.
    #[derive(Clone, Copy)]
    enum Look {
        At(State),
        Away,
        Denied,
    }
    use Look::{At, Away, Denied};

    #[derive(Default)]
    struct Notes(Vec<String>);
    impl View for Notes {
        fn show(&mut self, job: &Job) {
            self.0.push(job.state.to_string());
        }
        fn note(&mut self, text: &str) {
            self.0.push(text.split(',').next().unwrap_or_default().to_owned());
        }
    }

    /// Follows a script whose last look is repeated; what was shown, how it ended, and after how long.
    async fn run(script: &[Look]) -> (Vec<String>, Result<State, String>, Duration) {
        let looks = RefCell::new(script.iter().copied());
        let start = Instant::now();
        let fetch = async || {
            let look = looks.borrow_mut().next().or(script.last().copied()).unwrap();
            let url = "http://updater".to_owned();
            match look {
                At(state) => {
                    let mut job = Job::new(JobId("job_1".into()), "v1".into(), jiff::Timestamp::UNIX_EPOCH, false);
                    job.state = state;
                    Ok(job)
                }
                Away => Err(ClientError::Unreachable { url, reason: "refused".into() }),
                Denied => Err(ClientError::Unauthorized { url }),
            }
        };
        let mut notes = Notes::default();
        let end = follow(fetch, &mut notes).await.map(|job| job.state).map_err(|error| error.to_string());
        (notes.0, end, start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn to_the_end_and_no_further() {
        let (shown, end, _) = run(&[At(State::Idle), At(State::Planning), At(State::Aborted)]).await;
        assert_eq!((shown.join(" "), end), ("idle planning aborted".into(), Ok(State::Aborted)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_updater_that_restarts_is_waited_for_and_that_is_said_once() {
        let (shown, end, _) = run(&[At(State::Swapping), Away, Away, Away, At(State::Committed)]).await;
        assert_eq!(shown, ["swapping", "the updater does not answer", "the updater is back", "committed"]);
        assert_eq!(end, Ok(State::Committed));
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends_after_five_minutes_away() {
        let (shown, end, took) = run(&[At(State::Swapping), Away]).await;
        assert_eq!(shown, ["swapping", "the updater does not answer"]);
        assert!(end.unwrap_err().contains("cannot reach"));
        assert!(took >= PATIENCE && took < PATIENCE + 2 * SLOWEST, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn each_absence_has_its_own_patience() {
        let away = [Away; 50];
        let script = [&away[..], &[At(State::Pulling)], &away, &[At(State::Committed)]].concat();
        assert_eq!(run(&script).await.1, Ok(State::Committed));
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_pass_ends_the_wait() {
        let (_, end, _) = run(&[At(State::Planning), Denied]).await;
        assert!(end.unwrap_err().contains("refuses the token"));
    }

    #[test]
    fn exit_codes() {
        let (refused, began, unknown) = (Some(false), Some(true), None);
        for (state, touched, code) in [
            (State::Committed, began, 0),
            (State::Committed, refused, 0),
            (State::RolledBack, began, 3),
            (State::RolledBack, unknown, 3),
            (State::RolledBack, refused, 6),
            (State::Failed, began, 4),
            (State::Aborted, refused, 5),
            (State::Planning, refused, 1),
            (State::RollingBack, refused, 1),
        ] {
            let job = Job {
                state,
                touched,
                ..Job::new(JobId("job_1".into()), "v1".into(), jiff::Timestamp::UNIX_EPOCH, false)
            };
            assert_eq!(exit_code(&job), code, "{state} {touched:?}");
        }
    }
}
