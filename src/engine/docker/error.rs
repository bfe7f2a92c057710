//! The client library's errors in our words.

use std::error::Error as _;

use bollard::errors::Error;

use super::super::EngineError;

/// What the engine says of a bind whose source it does not have, before the path.
const NO_SUCH_SOURCE: &str = "bind source path does not exist: ";

/// `doing` and `subject` say what was asked: `starting`, `container processgit`.
pub(super) fn engine_error(doing: &str, subject: &str, error: Error) -> EngineError {
    let what = format!("{doing} {subject}");
    match error {
        Error::DockerResponseServerError { status_code, message } => answered(&what, subject, status_code, &message),
        Error::DockerStreamError { error } => EngineError::Failed(format!("{what}: {error}")),
        Error::SocketNotFoundError(path) => EngineError::Unreachable(format!(
            "{what}: there is no socket {path}; is Docker running, is the socket mounted, does DOCKER_HOST name it?"
        )),
        error if connection(&error) => {
            let causes = causes(&error);
            let remedy = if causes.contains("Permission denied") {
                "; run as root or in the group that owns the socket"
            } else {
                ""
            };
            EngineError::Unreachable(format!("{what}: {causes}{remedy}"))
        }
        error => EngineError::Failed(format!("{what}: the answer cannot be read: {}", causes(&error))),
    }
}

/// The engine, or a proxy before it, said no.
fn answered(what: &str, subject: &str, status: u16, message: &str) -> EngineError {
    let message = message.trim();
    if let Some((_, path)) = message.rsplit_once(NO_SUCH_SOURCE) {
        return EngineError::SourceGone { doing: what.to_owned(), path: path.trim().to_owned() };
    }
    match status {
        404 if names_what_is_missing(message) => EngineError::NotFound(subject.to_owned()),
        409 => EngineError::Conflict(format!("{what}: {message}")),
        // A socket proxy whose engine is away.
        502..=504 => EngineError::Unreachable(format!("{what}: {status} {message}")),
        403 => {
            EngineError::Failed(format!("{what}: refused with 403 {message}; does the socket proxy allow this call?"))
        }
        _ => EngineError::Failed(format!("{what}: {message}")),
    }
}

/// The engine also says 404 when a container is there and its mount's folder is not; a proxy or an old
/// engine says it of calls that it does not know.
fn names_what_is_missing(message: &str) -> bool {
    let message = message.to_lowercase();
    let missing = ["no such container", "no such image", "no such volume", "not found"];
    let other = ["page not found", "executable file not found"];
    missing.iter().any(|text| message.contains(text)) && !other.iter().any(|text| message.contains(text))
}

/// No answer at all: nothing was said about the request itself.
fn connection(error: &Error) -> bool {
    use Error::{HyperLegacyError, HyperResponseError, IOError, RequestTimeoutError};
    matches!(error, HyperLegacyError { .. } | HyperResponseError { .. } | IOError { .. } | RequestTimeoutError)
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
            (404, "No such container: a", r#"NotFound("container a")"#),
            (404, "page not found", r#"Failed("starting container a: page not found")"#),
            (
                404,
                "failed to fulfil mount request: open /x: no such file or directory",
                r#"Failed("starting container a: failed to fulfil mount request: open /x: no such file or directory")"#,
            ),
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
        assert!(error.is_unreachable());
        let gone = engine_error("listing", "containers", Error::SocketNotFoundError("/run/x.sock".into()));
        assert!(gone.is_unreachable() && gone.to_string().contains("/run/x.sock"), "{gone}");
    }
}
