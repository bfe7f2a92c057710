//! When restarts are a verdict. Pure.
//!
//! The engine restarts a container that has ended after 0.1 s, then 0.2, 0.4 … up to a minute. An application that
//! waits for its database by dying has restarted many times before the database is up, so their number says little:
//! what counts is for how long it goes on.

use std::time::Duration;

use crate::engine::{Container, RunState};

/// Fewer are no loop, however far apart they are.
const LOOP: i64 = 3;

/// Restarts that go on for less are never a verdict, unless the gate itself is shorter.
const LEAST_PATIENCE: Duration = Duration::from_secs(15);

/// For how long a container may go on crashing within a gate of this length.
pub fn patience(gate: Duration) -> Duration {
    (gate / 4).max(LEAST_PATIENCE).min(gate)
}

/// The restarts of one container, as one gate has seen them. Times are those of the gate's own clock.
#[derive(Debug, Clone, Default)]
pub struct Crashes {
    /// The engine's count at the first look: those restarts are not this gate's. `None` before it.
    before: Option<i64>,
    /// The engine's count at the last look.
    count: i64,
    /// It has crashed between the last two looks, or waits for its next run.
    crashing: bool,
    first: Option<Duration>,
    last: Option<Duration>,
}

impl Crashes {
    /// Of a container that was made for this gate: every restart counts.
    pub fn of_fresh() -> Self {
        Self { before: Some(0), ..Self::default() }
    }

    /// What a look has shown.
    pub fn see(&mut self, container: &Container, now: Duration) {
        let count = container.restart_count;
        if self.before.is_none() || count < self.count {
            // The engine counts anew when somebody starts it.
            *self = Self { before: Some(count), count, ..Self::default() };
        }
        let has_restarted = count > self.count;
        let waits = container.state == RunState::Restarting;
        self.crashing = has_restarted || waits;
        if has_restarted || (waits && self.last.is_none()) {
            self.first.get_or_insert(now);
            self.last = Some(now);
        }
        self.count = count;
    }

    /// How often the engine has restarted it.
    pub fn restarts(&self) -> i64 {
        self.count - self.before.unwrap_or(self.count)
    }

    /// It was seen to crash, now or before.
    pub fn any(&self) -> bool {
        self.last.is_some()
    }

    /// It has crashed between the last two looks, or waits for its next run.
    pub fn goes_on(&self) -> bool {
        self.crashing
    }

    /// So many that one speaks of a loop.
    pub fn is_loop(&self) -> bool {
        self.restarts() >= LOOP
    }

    /// No waiting helps: it crashes now, and has done so for `patience`, or is not even tried again for as long.
    pub fn are_a_verdict(&self, now: Duration, patience: Duration) -> bool {
        let lasts = |since: Option<Duration>| since.is_some_and(|since| now.saturating_sub(since) >= patience);
        self.crashing && ((self.is_loop() && lasts(self.first)) || lasts(self.last))
    }
}

#[cfg(test)]
mod tests;
