//! The client library's errors in our words.

use std::error::Error as _;

use bollard::errors::Error;

use super::super::EngineError;

/// What the engine says of a bind whose source it does not have, before the path. It has no other sign of it than these
/// words, and so they are read here and nowhere else. Where an engine says it in other words the call fails all the same, with
/// its own words instead of ours.
const NO_SUCH_SOURCE: &str = "bind source path does not exist: ";

/// `doing` and `subject` say what was asked: `starting`, `container processgit`.
pub(super) fn engine_error(doing: &str, subject: &str, error: Error) -> EngineError {
    let what = format!("{doing} {subject}");
    match error {
        Error::DockerResponseServerError { status_code, message } => answered(&what, status_code, &message),
        Error::DockerStreamError { error } => EngineError::Failed(format!("{what}: {error}")),
        Error::SocketNotFoundError(path) => EngineError::Unreachable(format!(
            "{what}: there is no socket {path}; is Docker running, is the socket mounted, does DOCKER_HOST name it?"
        )),
        error if connection(&error) => {
            let causes = causes(&error);
            let denied = match &error {
                Error::IOError { err } => is_denied(err),
                error => is_denied(error),
            };
            let remedy = match denied {
                true => "; run as root or in the group that owns the socket",
                false => "",
            };
            EngineError::Unreachable(format!("{what}: {causes}{remedy}"))
        }
        error => EngineError::Failed(format!("{what}: the answer cannot be read: {}", causes(&error))),
    }
}

/// The engine, or a proxy before it, said no.
fn answered(what: &str, status: u16, message: &str) -> EngineError {
    let message = message.trim();
    if let Some((_, path)) = message.rsplit_once(NO_SUCH_SOURCE) {
        return EngineError::SourceGone { doing: what.to_owned(), path: path.trim().to_owned() };
    }
    match status {
        409 => EngineError::Conflict(format!("{what}: {message}")),
        // A socket proxy whose engine is away.
        502..=504 => EngineError::Unreachable(format!("{what}: {status} {message}")),
        403 => {
            EngineError::Failed(format!("{what}: refused with 403 {message}; does the socket proxy allow this call?"))
        }
        _ => EngineError::Failed(format!("{what}: {message}")),
    }
}

/// The answer is 404. Of a look it means that the thing does not exist. Of an act it may as well mean that something else is
/// missing, such as the source of a mount, or that a proxy or an old engine does not know the call: then a look decides
/// ([`super::DockerEngine::acted`]).
pub(super) fn is_404(error: &Error) -> bool {
    matches!(error, Error::DockerResponseServerError { status_code: 404, .. })
}

/// No answer at all: nothing was said about the request itself.
fn connection(error: &Error) -> bool {
    use Error::{HyperLegacyError, HyperResponseError, IOError, RequestTimeoutError};
    matches!(error, HyperLegacyError { .. } | HyperResponseError { .. } | IOError { .. } | RequestTimeoutError)
}

/// The system does not let this user open the socket.
fn is_denied(error: &(dyn std::error::Error + 'static)) -> bool {
    let found = error.downcast_ref::<std::io::Error>();
    // An `io::Error` hides what it holds from `source`.
    let inner = found.and_then(|error| error.get_ref()).map(|inner| inner as &(dyn std::error::Error + 'static));
    found.is_some_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
        || inner.into_iter().chain(error.source()).any(is_denied)
}

/// The library's wrappers (`client error (Connect)`) say little: the cause is at the bottom.
fn causes(error: &Error) -> String {
    let mut texts = vec![error.to_string()];
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !texts.iter().any(|said| said.contains(&text)) {
            texts.push(text);
        }
        next = cause.source();
    }
    texts.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_become_our_errors() {
        let said = |status, message: &str| {
            let error = Error::DockerResponseServerError { status_code: status, message: message.into() };
            format!("{:?}", engine_error("starting", "container a", error))
        };
        let cases = [
            (409, "is in use", r#"Conflict("starting container a: is in use")"#),
            (500, "driver failed\n", r#"Failed("starting container a: driver failed")"#),
            (503, "Service Unavailable", r#"Unreachable("starting container a: 503 Service Unavailable")"#),
            (
                403,
                "Forbidden",
                r#"Failed("starting container a: refused with 403 Forbidden; does the socket proxy allow this call?")"#,
            ),
        ];
        for (status, message, expected) in cases {
            assert_eq!(said(status, message), expected);
        }
    }

    #[test]
    fn a_lost_connection_names_its_cause() {
        let denied = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let error = engine_error("listing", "containers", Error::IOError { err: std::io::Error::other(denied) });
        assert!(error.is_unreachable() && error.to_string().contains("run as root or in the group"), "{error}");
        let gone = engine_error("listing", "containers", Error::SocketNotFoundError("/run/x.sock".into()));
        assert!(gone.is_unreachable() && gone.to_string().contains("/run/x.sock"), "{gone}");
    }
}
