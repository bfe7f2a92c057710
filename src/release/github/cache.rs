//! Keeps an answer while it is young, and lets callers that come at the same time share one request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::release::SourceError;

/// The last answer to one question.
pub(super) struct Slot<T> {
    kept: Mutex<Kept<T>>,
    /// Counts finished requests.
    round: AtomicU64,
    /// Whatever is kept is to be asked for anew.
    stale: AtomicBool,
}

struct Kept<T> {
    /// The last good answer and when it came; old ones are revalidated, never handed out unasked.
    good: Option<(Instant, Arc<T>)>,
    /// How the last request ended, when it failed.
    failure: Option<SourceError>,
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self {
            kept: Mutex::new(Kept { good: None, failure: None }),
            round: AtomicU64::new(0),
            stale: AtomicBool::new(false),
        }
    }
}

impl<T> Slot<T> {
    /// The next caller asks anew, however young the answer is.
    pub fn expire(&self) {
        self.stale.store(true, Ordering::Release);
    }

    /// The answer, at most `fresh` old unless it is not `whole`; `fetch` is given the one there was before. Whoever
    /// waited while another caller asked gets what that one got, success or failure.
    pub async fn get<F>(&self, fresh: Duration, whole: fn(&T) -> bool, fetch: F) -> Result<Arc<T>, SourceError>
    where
        F: AsyncFnOnce(Option<Arc<T>>) -> Result<T, SourceError>,
    {
        let round = self.round.load(Ordering::Acquire);
        let mut kept = self.kept.lock().await;
        let asked_meanwhile = self.round.load(Ordering::Acquire) != round;
        if asked_meanwhile && let Some(error) = &kept.failure {
            return Err(error.clone());
        }
        let stale = self.stale.swap(false, Ordering::AcqRel);
        if let Some((at, good)) = &kept.good
            && (asked_meanwhile || !stale && at.elapsed() <= fresh && whole(good))
        {
            return Ok(good.clone());
        }
        let before = kept.good.as_ref().map(|(_, good)| good.clone());
        // A caller that gives up here leaves everything as it was; the next one asks anew.
        let asked = Instant::now();
        let answer = fetch(before).await;
        self.round.fetch_add(1, Ordering::Release);
        match answer {
            Ok(answer) => {
                let answer = Arc::new(answer);
                *kept = Kept { good: Some((asked, answer.clone())), failure: None };
                Ok(answer)
            }
            Err(error) => {
                kept.failure = Some(error.clone());
                Err(error)
            }
        }
    }
}
