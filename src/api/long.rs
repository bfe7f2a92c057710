//! Answers that may take as long as they need: all of a snapshot is read, or sent.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use tokio::sync::watch;

/// How many of one connection's answers may take long right now. The server leaves an old connection
/// alone as long as there is one.
#[derive(Clone, Default)]
pub struct LongAnswers(Arc<watch::Sender<usize>>);

/// A long answer, until it is dropped.
pub struct LongAnswer(LongAnswers);

impl LongAnswers {
    /// From here on an answer may take long.
    pub fn begin(&self) -> LongAnswer {
        self.0.send_modify(|count| *count += 1);
        LongAnswer(self.clone())
    }

    /// Returns when there is none.
    pub async fn none(&self) {
        // The sender is in `self`, so the channel cannot close meanwhile.
        let _ = self.0.subscribe().wait_for(|count| *count == 0).await;
    }
}

impl Drop for LongAnswer {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| *count -= 1);
    }
}

/// Of the connection that the request came over.
impl<S: Send + Sync> FromRequestParts<S> for LongAnswers {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}
