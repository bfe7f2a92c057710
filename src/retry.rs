//! Asking again: pauses that grow, a wish of the server's (`Retry-After`), one deadline for all tries.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use tokio::time::{Instant, sleep};

/// The pauses between tries.
#[derive(Debug, Clone, Copy)]
pub struct Pauses {
    pub first: Duration,
    /// Each is twice the one before, up to this.
    pub longest: Duration,
    /// Tries after the first one.
    pub tries: u32,
}

/// What is left of them.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
    longest: Duration,
    left: u32,
    until: Instant,
}

impl Backoff {
    /// No try begins after `until`.
    pub fn new(pauses: Pauses, until: Instant) -> Self {
        Self { next: pauses.first, longest: pauses.longest, left: pauses.tries, until }
    }

    /// Waits for the next try: for as long as the server wants, else for the next pause. `false` at once when
    /// there is no other try, or it would come too late.
    pub async fn wait(&mut self, wanted: Option<Duration>) -> bool {
        let pause = wanted.unwrap_or(self.next).max(self.next);
        if self.left == 0 || Instant::now() + pause >= self.until {
            return false;
        }
        self.left -= 1;
        self.next = (self.next * 2).min(self.longest);
        sleep(pause).await;
        true
    }
}

/// The same request may be answered a moment later.
pub fn is_transient(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

/// `Retry-After` (RFC 9110, 10.2.3): seconds, or a date.
pub fn wanted_pause(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::parse(value).ok()?.timestamp();
    // A date that has passed: now.
    Some(Duration::try_from(at.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_may_say_when() {
        let now: Timestamp = "2026-11-26T12:00:00Z".parse().unwrap();
        for (value, expected) in [
            ("1", Some(1)),
            (" 120 ", Some(120)),
            ("0", Some(0)),
            ("Thu, 26 Nov 2026 12:00:30 GMT", Some(30)),
            ("Thu, 26 Nov 2026 11:59:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
            ("1.5", None),
            ("", None),
        ] {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())]);
            assert_eq!(wanted_pause(&headers, now), expected.map(Duration::from_secs), "{value:?}");
        }
        assert_eq!(wanted_pause(&HeaderMap::new(), now), None);
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_and_end() {
        let pauses = Pauses { first: Duration::from_secs(1), longest: Duration::from_secs(3), tries: 4 };
        let begun = Instant::now();
        let mut backoff = Backoff::new(pauses, begun + Duration::from_secs(100));
        let mut waited = Vec::new();
        while backoff.wait(None).await {
            waited.push(begun.elapsed().as_secs());
        }
        assert_eq!(waited, [1, 3, 6, 9], "1, 2, 3 and 3 seconds after each other");

        let begun = Instant::now();
        let mut backoff = Backoff::new(pauses, begun + Duration::from_secs(10));
        assert!(backoff.wait(Some(Duration::from_secs(5))).await);
        assert_eq!(begun.elapsed().as_secs(), 5, "as the server wants");
        assert!(!backoff.wait(Some(Duration::from_secs(60))).await, "that would be too late");
        assert_eq!(begun.elapsed().as_secs(), 5, "and is known at once");
        assert!(backoff.wait(Some(Duration::ZERO)).await);
        assert_eq!(begun.elapsed().as_secs(), 7, "never less than our own pause");
    }
}
