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

use super::super::credentials::{self, Credential, Lookup};
use super::super::{EngineError, Result};
use super::connect::Client;
use super::error::{engine_error, is_404};
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
    let login = found.credential.clone().map(|credential| login(image.registry(), credential));
    let mut backoff = Backoff::new(PAUSES, Instant::now() + TRIES_BEGIN);
    loop {
        let pulled = pull_once(client, reference, (&image, &digest), login.clone(), &layers).await;
        match pulled {
            Err(failure) if failure.may_pass && backoff.wait(None).await => {
                tracing::warn!("{}; trying again", failure.error);
            }
            Err(Failure { error: EngineError::Failed(text), is_404, .. }) => {
                // A login helps only where the registry was asked and gave nothing.
                let is_worth_telling = is_404 || found.fault.is_some();
                let known = is_worth_telling.then(|| format!("; {}", asked_as(image.registry(), &found)));
                return Err(EngineError::Failed(text + &known.unwrap_or_default()));
            }
            other => return other.map_err(|failure| failure.error),
        }
    }
}

/// Why a pull did not work out, and whether another may.
struct Failure {
    error: EngineError,
    may_pass: bool,
    /// The registry did not give it, for whatever reason.
    is_404: bool,
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
    let mut progress = Progress::of(digest);
    loop {
        let stalled = |_| Failure { error: stalled(reference), may_pass: true, is_404: false };
        let message = timeout(STALLED, messages.next()).await.map_err(stalled)?;
        let Some(message) = message else { break };
        let failed = |error| Failure {
            may_pass: may_pass(&error),
            is_404: is_404(&error),
            error: engine_error("pulling", &format!("image {reference}"), error),
        };
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

/// The engine answers 404 for everything that a registry does not give, and has the reason in a sentence only. So what is
/// known here is added: with which login it was asked.
fn asked_as(registry: &str, found: &Lookup) -> String {
    match (&found.credential, &found.fault) {
        (Some(_), _) => format!("{registry} was asked with the login that the Docker configuration holds for it"),
        (None, Some(fault)) => format!("{registry} was asked without a login, because {fault}: {}", fault.remedy()),
        (None, None) => format!(
            "{registry} was asked without a login: if the image is private, run docker login {} where the updater finds the configuration (DOCKER_CONFIG names its folder)",
            shell_words::quote(registry)
        ),
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
struct Progress {
    /// Of the image: lines about it are no layer's.
    digest: String,
    layers: Vec<Layer>,
    index: HashMap<String, usize>,
    reported: Option<Instant>,
}

impl Progress {
    fn of(digest: &str) -> Self {
        Self { digest: digest.to_owned(), layers: Vec::new(), index: HashMap::new(), reported: None }
    }

    fn note(&mut self, message: CreateImageInfo) {
        let (Some(id), Some(status)) = (message.id, message.status) else { return };
        // By its digest alone, or with the repository before it.
        if id.ends_with(&self.digest) {
            return;
        }
        let at = *self.index.entry(id.clone()).or_insert_with(|| {
            self.layers.push(Layer { id, status: String::new(), current: 0, total: 0 });
            self.layers.len() - 1
        });
        let layer = &mut self.layers[at];
        let detail = message.progress_detail.unwrap_or_default();
        let number = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok()).unwrap_or_default();
        match (number(detail.current), number(detail.total)) {
            // What is said without numbers comes between two phases, or after the last.
            (0, 0) => layer.current = layer.total,
            // Without a total, the number counts seconds (extraction with containerd's store).
            (_, 0) => {}
            numbers => (layer.current, layer.total) = numbers,
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
    use crate::engine::credentials::CredentialFault;

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

    /// With which login the registry was asked, and what that suggests.
    #[test]
    fn how_it_was_asked() {
        let login = Credential::Login { username: "u".into(), password: "p".into() };
        let helper = CredentialFault::HelperMissing { file: "config.json".into(), helper: "pass".into() };
        for (credential, fault, expected, logs_in) in [
            (Some(login), None, "r:5000 was asked with the login", false),
            (None, Some(helper), "without a login, because config.json wants the credential helper", false),
            (None, None, "run docker login r:5000 where", true),
        ] {
            let told = asked_as("r:5000", &Lookup { credential, fault });
            assert!(told.contains(expected), "{told}");
            assert_eq!(told.contains("docker login"), logs_in, "{told}");
        }
    }

    #[test]
    fn layers_advance() {
        let mut progress = Progress::of("sha256:00");
        let messages = [
            json!({"status": "Pulling from foo", "id": "sha256:00"}),
            json!({"status": "Pulling from foo", "id": "r:5000/foo@sha256:00"}),
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
        let mut progress = Progress::of("sha256:00");
        for at in 0..1000 {
            let detail = json!({"status": "Downloading", "id": "aa", "progressDetail": {"current": at, "total": 1000}});
            progress.note(serde_json::from_value(detail).unwrap());
            progress.report(&sender);
        }
        assert_eq!(receiver.try_recv().unwrap()[0].current, 0);
        assert!(receiver.try_recv().is_err());
    }
}
