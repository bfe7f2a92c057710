//! Pulling an image by its digest.

use std::collections::HashMap;
use std::pin::pin;
use std::time::Duration;

use bollard::auth::DockerCredentials;
use bollard::models::CreateImageInfo;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures_util::StreamExt;
use secrecy::ExposeSecret;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::super::credentials::{self, Credential};
use super::super::{EngineError, Result};
use super::connect::Client;
use super::error::engine_error;
use crate::reference::{Reference, is_sha256};
use crate::retry::{Backoff, Pauses};
use crate::update::job::Layer;

/// A pull that says nothing for this long has stalled.
const STALLED: Duration = Duration::from_secs(5 * 60);
/// Between two tries.
const PAUSES: Pauses = Pauses { first: Duration::from_secs(1), longest: Duration::from_secs(8), tries: 3 };
/// No try begins later than this after the first.
const TRIES_BEGIN: Duration = Duration::from_secs(10 * 60);
/// Between two reports of progress.
const REPORT_PAUSE: Duration = Duration::from_millis(100);
/// How long the last report waits for a slow receiver.
const LAST_REPORT: Duration = Duration::from_secs(1);

pub(super) async fn pull(client: &Client, reference: &str, layers: mpsc::Sender<Vec<Layer>>) -> Result<()> {
    let (image, digest) = split(reference)?;
    let found = credentials::for_repository(&image).await;
    let login = found.credential.map(|credential| login(image.registry(), credential));
    let mut backoff = Backoff::new(PAUSES, Instant::now() + TRIES_BEGIN);
    loop {
        let pulled = pull_once(client, reference, (&image, &digest), login.clone(), &layers).await;
        match pulled {
            Err(failure) if failure.may_pass && backoff.wait(None).await => {
                tracing::warn!("{}; trying again", failure.error);
            }
            Err(Failure { error: EngineError::Failed(text), .. }) => {
                let fault = found.fault.map_or_else(String::new, |fault| format!("; {fault}: {}", fault.remedy()));
                return Err(EngineError::Failed(text + &fault));
            }
            other => return other.map_err(|failure| failure.error),
        }
    }
}

/// Why a pull did not work out, and whether another may.
struct Failure {
    error: EngineError,
    may_pass: bool,
}

async fn pull_once(
    client: &Client,
    reference: &str,
    (image, digest): (&Reference, &str),
    login: Option<DockerCredentials>,
    layers: &mpsc::Sender<Vec<Layer>>,
) -> std::result::Result<(), Failure> {
    let options = CreateImageOptionsBuilder::new().from_image(image.written_name()).tag(digest).build();
    let mut messages = pin!(client.docker.create_image(Some(options), None, login));
    let mut progress = Progress::default();
    loop {
        let stalled = |_| Failure { error: stalled(reference), may_pass: true };
        let message = timeout(STALLED, messages.next()).await.map_err(stalled)?;
        let Some(message) = message else { break };
        let failed = |error| Failure { may_pass: may_pass(&error), error: explained(reference, error) };
        progress.note(message.map_err(failed)?);
        progress.report(layers);
    }
    let _ = layers.send_timeout(progress.layers, LAST_REPORT).await;
    Ok(())
}

/// `repository@sha256:…` in its two parts.
fn split(reference: &str) -> Result<(Reference, String)> {
    let parsed = Reference::parse(reference).map_err(|error| error.to_string()).and_then(|image| {
        let digest = image.digest().filter(|digest| is_sha256(digest)).map(str::to_owned);
        let expected = "expected repository@sha256: and 64 hex digits, because a tag may mean another image by now";
        digest.map(|digest| (image, digest)).ok_or_else(|| format!("{reference:?}: {expected}"))
    });
    parsed.map_err(|why| EngineError::Failed(format!("pulling {why}")))
}

/// The engine tells the registry's answer by a sentence only. A pull that failed may be tried again whatever the
/// sentence is, but not after a status by which the engine says that the request itself is wrong, or that the
/// registry does not give the image.
fn may_pass(error: &bollard::errors::Error) -> bool {
    use bollard::errors::Error::{DockerResponseServerError, DockerStreamError};
    match error {
        DockerResponseServerError { status_code, .. } => !(400..500).contains(status_code) || *status_code == 429,
        DockerStreamError { .. } => true,
        // An engine that is away is waited for elsewhere.
        _ => false,
    }
}

fn stalled(reference: &str) -> EngineError {
    let minutes = STALLED.as_secs() / 60;
    EngineError::Failed(format!("pulling {reference}: no progress for {minutes} minutes; is the registry reachable?"))
}

/// The engine answers 404 for everything the registry would not give, so its own words are needed.
fn explained(reference: &str, error: bollard::errors::Error) -> EngineError {
    use bollard::errors::Error::DockerResponseServerError;
    let what = format!("image {reference}");
    match error {
        DockerResponseServerError { status_code: 404, message } => {
            let remedy = if message.contains("denied") || message.contains("unauthorized") {
                "; does the Docker configuration (DOCKER_CONFIG) hold a login for this registry?"
            } else {
                ""
            };
            EngineError::Failed(format!("pulling {what}: {message}{remedy}"))
        }
        error => engine_error("pulling", &what, error),
    }
}

/// As the engine wants it.
fn login(registry: &str, credential: Credential) -> DockerCredentials {
    let blank = DockerCredentials { serveraddress: Some(registry.to_owned()), ..DockerCredentials::default() };
    match credential {
        Credential::Login { username, password } => {
            DockerCredentials { username: Some(username), password: Some(password.expose_secret().to_owned()), ..blank }
        }
        Credential::IdentityToken(token) => {
            DockerCredentials { identitytoken: Some(token.expose_secret().to_owned()), ..blank }
        }
    }
}

/// The layers as far as they have come, in the order in which they appeared.
#[derive(Default)]
struct Progress {
    layers: Vec<Layer>,
    index: HashMap<String, usize>,
    reported: Option<Instant>,
}

impl Progress {
    fn note(&mut self, message: CreateImageInfo) {
        let (Some(id), Some(status)) = (message.id, message.status) else { return };
        // Said of the image: here the id is its tag or digest.
        if status.starts_with("Pulling from") {
            return;
        }
        let at = *self.index.entry(id.clone()).or_insert_with(|| {
            self.layers.push(Layer { id, status: String::new(), current: 0, total: 0 });
            self.layers.len() - 1
        });
        let layer = &mut self.layers[at];
        let detail = message.progress_detail.unwrap_or_default();
        let number = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok()).unwrap_or_default();
        // Without a total, the number may count seconds (extraction with containerd's store).
        if number(detail.total) > 0 {
            (layer.current, layer.total) = (number(detail.current), number(detail.total));
        } else if matches!(status.as_str(), "Download complete" | "Pull complete") {
            layer.current = layer.total;
        }
        layer.status = status;
    }

    /// Sends the state, unless the last report is recent or still lies unread.
    fn report(&mut self, to: &mpsc::Sender<Vec<Layer>>) {
        if self.layers.is_empty() || self.reported.is_some_and(|at| at.elapsed() < REPORT_PAUSE) {
            return;
        }
        if to.try_send(self.layers.clone()).is_ok() {
            self.reported = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_digests_are_pulled() {
        let digest = format!("sha256:{}", "a1".repeat(32));
        let good = format!("localhost:5000/app@{digest}");
        let (image, found) = split(&good).unwrap();
        assert_eq!((image.written_name(), image.registry(), &found), ("localhost:5000/app", "localhost:5000", &digest));
        for bad in ["app", "app:1.0", "app@sha256:abc", &format!("@{digest}"), "app@md5:00"] {
            let error = split(bad).unwrap_err().to_string();
            assert!(error.contains(bad), "{error}");
        }
    }

    #[test]
    fn layers_advance() {
        let mut progress = Progress::default();
        let messages = [
            json!({"status": "Pulling from foo", "id": "sha256:00"}),
            json!({"status": "Pulling fs layer", "id": "aa"}),
            json!({"status": "Already exists", "id": "bb"}),
            json!({"status": "Downloading", "id": "aa", "progressDetail": {"current": 5, "total": 10}}),
            json!({"status": "Download complete", "id": "aa", "progressDetail": {}}),
            json!({"status": "Extracting", "id": "aa", "progressDetail": {"current": 3, "units": "s"}}),
            json!({"status": "Digest: sha256:00"}),
        ];
        for message in messages {
            progress.note(serde_json::from_value(message).unwrap());
        }
        let told: Vec<_> =
            progress.layers.iter().map(|l| (l.id.as_str(), l.status.as_str(), l.current, l.total)).collect();
        assert_eq!(told, [("aa", "Extracting", 10, 10), ("bb", "Already exists", 0, 0)]);
    }

    #[test]
    fn a_receiver_that_does_not_read_holds_up_nothing() {
        let (sender, mut receiver) = mpsc::channel(1);
        let mut progress = Progress::default();
        for at in 0..1000 {
            let detail = json!({"status": "Downloading", "id": "aa", "progressDetail": {"current": at, "total": 1000}});
            progress.note(serde_json::from_value(detail).unwrap());
            progress.report(&sender);
        }
        assert_eq!(receiver.try_recv().unwrap()[0].current, 0);
        assert!(receiver.try_recv().is_err());
    }
}
