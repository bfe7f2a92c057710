//! Who may ask: everybody who knows the token.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::errors::ApiError;
use super::router::App;

/// Wrong tokens that are answered at once, in each [`WINDOW`]: a person who mistypes is not punished.
const FREE_FAILURES: u32 = 10;
/// How long wrong tokens are counted together.
const WINDOW: Duration = Duration::from_secs(60);
/// How long each further wrong token waits for its answer.
const DELAY: Duration = Duration::from_secs(1);
/// How many wait at once; beyond it the refusal comes at once, so that whoever guesses cannot occupy the seats of
/// others without a token.
const HELD: usize = 16;

/// The token. Only its hash is kept: equal length for the comparison, and no secret in a core dump.
#[derive(Clone)]
pub struct Token([u8; 32]);

impl Token {
    pub fn new(token: &SecretString) -> Self {
        Self(Sha256::digest(token.expose_secret()).into())
    }

    /// In constant time.
    pub fn is(&self, given: &[u8]) -> bool {
        let given: [u8; 32] = Sha256::digest(given).into();
        given.ct_eq(&self.0).into()
    }
}

/// Knows the token, and slows those down who do not. The right token is never slowed: many clients share
/// an address behind Docker's network, so addresses say nothing about who guesses.
pub struct Keeper {
    token: Token,
    failures: Mutex<Failures>,
    held: Semaphore,
}

struct Failures {
    since: Instant,
    count: u32,
}

impl Keeper {
    /// Admits those who send `token`.
    pub fn new(token: &SecretString) -> Self {
        Self {
            token: Token::new(token),
            failures: Mutex::new(Failures { since: Instant::now(), count: 0 }),
            held: Semaphore::new(HELD),
        }
    }

    async fn admit(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let given = headers.get(AUTHORIZATION).and_then(|value| bearer(value.as_bytes())).ok_or(ApiError::NoToken)?;
        if self.token.is(given) {
            return Ok(());
        }
        if self.count_failure() <= FREE_FAILURES {
            return Err(ApiError::WrongToken);
        }
        let Ok(_held) = self.held.try_acquire() else { return Err(ApiError::TooManyLogins) };
        tokio::time::sleep(DELAY).await;
        Err(ApiError::WrongToken)
    }

    /// Failures in the running window, this one included.
    fn count_failure(&self) -> u32 {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.since.elapsed() > WINDOW {
            *failures = Failures { since: Instant::now(), count: 0 };
        }
        failures.count = failures.count.saturating_add(1);
        if failures.count == FREE_FAILURES + 1 {
            tracing::warn!("more than {FREE_FAILURES} wrong tokens within a minute: answers to them are slowed");
        }
        failures.count
    }
}

/// The token of the header `Authorization: Bearer <token>`, given its value; the scheme's case does not matter (RFC 9110 §11.1).
pub fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"Bearer ") && !token.is_empty()).then_some(token)
}

/// Stands before every private route: the token, and a 500 in our shape if a handler panics. One layer for
/// both, because each layer costs a box per request.
pub async fn gate(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if let Err(refusal) = app.keeper.admit(request.headers()).await {
        return refusal.into_response();
    }
    AssertUnwindSafe(next.run(request)).catch_unwind().await.unwrap_or_else(|_| {
        // The panic hook has already written where it was; what a panic says is not for clients.
        ApiError::Internal("the updater has a fault: its log says where".into()).into_response()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())])
    }

    #[test]
    fn bearer_tokens() {
        for (value, expected) in [
            ("Bearer secret", Some("secret")),
            ("bearer secret", Some("secret")),
            ("BEARER   secret ", Some("secret")),
            ("Bearer ", None),
            ("Bearer", None),
            ("Basic c2VjcmV0", None),
            ("secret", None),
            ("", None),
        ] {
            assert_eq!(bearer(value.as_bytes()), expected.map(str::as_bytes), "{value:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn wrong_tokens_are_slowed_and_right_ones_are_not() {
        let keeper = Keeper::new(&"right".into());
        let start = Instant::now();
        for _ in 0..FREE_FAILURES {
            assert!(matches!(keeper.admit(&headers("Bearer wrong")).await, Err(ApiError::WrongToken)));
        }
        assert_eq!(start.elapsed(), Duration::ZERO, "the first ones are free");
        assert!(matches!(keeper.admit(&headers("Bearer wrong")).await, Err(ApiError::WrongToken)));
        assert!(start.elapsed() >= DELAY, "then each one waits");

        let start = Instant::now();
        assert!(keeper.admit(&headers("Bearer right")).await.is_ok());
        assert_eq!(start.elapsed(), Duration::ZERO, "the right one never waits");

        tokio::time::advance(WINDOW).await;
        let start = Instant::now();
        assert!(keeper.admit(&headers("Bearer wrong")).await.is_err());
        assert_eq!(start.elapsed(), Duration::ZERO, "a new window");
    }

    #[tokio::test(start_paused = true)]
    async fn too_many_at_once_are_turned_away() {
        let keeper = Keeper::new(&"right".into());
        let wrong = headers("Bearer wrong");
        let guesses = (0..FREE_FAILURES as usize + HELD + 5).map(|_| keeper.admit(&wrong));
        let answers = futures_util::future::join_all(guesses).await;
        let turned_away = answers.iter().filter(|a| matches!(a, Err(ApiError::TooManyLogins))).count();
        assert_eq!(turned_away, 5);
        assert!(answers.iter().all(Result::is_err));
    }
}
