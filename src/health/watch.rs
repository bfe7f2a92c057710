//! Notices when this process did not run: stopped, paused with its container, on a machine that stalled or slept.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::{Instant, timeout};

/// How often the clocks are looked at.
const TICK: Duration = Duration::from_millis(500);
/// Later than this by a tick no runtime comes that is only busy.
const GAP: Duration = Duration::from_secs(2);

/// A moment by both clocks: tokio's stands still while the machine sleeps (`CLOCK_MONOTONIC`), and tests move it;
/// the other one goes on (`CLOCK_BOOTTIME`).
struct Moment {
    running: Instant,
    since_boot: Duration,
}

impl Moment {
    fn now() -> Self {
        let since_boot = clock_gettime(ClockId::Boottime);
        let since_boot = Duration::try_from(since_boot).unwrap_or_default();
        Self { running: Instant::now(), since_boot }
    }

    /// How much more than `expected` has passed since.
    fn late(&self, expected: Duration) -> Away {
        let now = Self::now();
        let running = (now.running - self.running).saturating_sub(expected);
        let asleep = now.since_boot.saturating_sub(self.since_boot).saturating_sub(expected);
        Away { time: running.max(asleep), counted: running }
    }
}

/// For how long this process did not run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Away {
    pub time: Duration,
    /// So much of it the deadlines of this process have counted.
    pub counted: Duration,
}

impl Away {
    /// It ran all the time.
    pub fn is_never(&self) -> bool {
        self.time.is_zero()
    }

    pub fn and(self, other: Self) -> Self {
        Self { time: self.time + other.time, counted: self.counted + other.counted }
    }
}

/// The work's result, and for how long this process did not run meanwhile.
pub async fn watched<T>(work: impl Future<Output = T>) -> (T, Away) {
    let mut work = pin!(work);
    let mut away = Away::default();
    loop {
        let begun = Moment::now();
        let done = timeout(TICK, &mut work).await;
        let late = begun.late(TICK);
        if late.time > GAP {
            away = away.and(late);
        }
        if let Ok(result) = done {
            return (result, away);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_time_that_was_not_lived_is_a_gap() {
        let stopped = |seconds| async move {
            sleep(Duration::from_secs(1)).await;
            advance(Duration::from_secs(seconds)).await;
            sleep(Duration::from_secs(1)).await;
        };
        assert_eq!(watched(sleep(Duration::from_secs(3600))).await.1, Away::default(), "long work is no gap");
        assert_eq!(watched(stopped(1)).await.1, Away::default(), "nor is a busy machine");
        let (_, away) = watched(stopped(30)).await;
        assert!((Duration::from_secs(29)..=Duration::from_secs(30)).contains(&away.time), "{away:?}");
        assert_eq!(away.counted, away.time, "this clock does not stand still");
    }
}
