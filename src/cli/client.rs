//! A thin client of the HTTP API, over TCP or a Unix socket.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use reqwest::{Method, Response, StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::update::job::{Job, JobId};

/// Where to find the updater when nothing says so.
const DEFAULT_URL: &str = "http://127.0.0.1:9000";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longer than the server's own longest deadline, that of a check.
const TIMEOUT: Duration = Duration::from_secs(150);
/// For what reads or sends all of a snapshot: as long as it takes, as long as something comes.
const PATIENT: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long a download may stand still.
const STALLED: Duration = Duration::from_secs(300);
/// The largest answer that is read, in bytes; the contract's is 1 MiB.
const ANSWER_CAP: usize = 4 * 1024 * 1024;

/// How every command that asks a running updater finds it and proves itself.
#[derive(Debug, Args)]
pub struct Access {
    /// Address of the updater: http://HOST:PORT, https://HOST or unix:/PATH
    ///
    /// Without it, PROCESSGIT_UPDATER_LISTEN tells where the updater of this environment listens; without
    /// that, it is http://127.0.0.1:9000. Proxies in the environment are not used.
    #[arg(long, env = "PROCESSGIT_UPDATER_URL", value_name = "URL")]
    url: Option<String>,

    /// File that holds the token; otherwise PROCESSGIT_UPDATER_TOKEN or PROCESSGIT_UPDATER_TOKEN_FILE
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// Why the updater could not be asked, or what it said instead of an answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(
        "cannot reach the updater at {url}: {reason}\n  \
         is it running? name its address with --url or PROCESSGIT_UPDATER_URL"
    )]
    Unreachable { url: String, reason: String },
    #[error(
        "the updater at {url} refuses the token\n  \
         PROCESSGIT_UPDATER_TOKEN (or its _FILE, or --token-file) must be what the updater was started with"
    )]
    Unauthorized { url: String },
    /// The updater's own words, or a proxy's status.
    #[error("{text}")]
    Refused { status: StatusCode, text: String },
    #[error("what answers at {url} is no updater: {reason}")]
    Nonsense { url: String, reason: String },
    #[error("{0:?} is no address of an updater: use http://HOST:PORT, https://HOST or unix:/PATH")]
    Address(String),
    #[error("no token: set PROCESSGIT_UPDATER_TOKEN or PROCESSGIT_UPDATER_TOKEN_FILE, or name a --token-file")]
    NoToken,
    #[error("PROCESSGIT_UPDATER_TOKEN and PROCESSGIT_UPDATER_TOKEN_FILE are both set: unset one of them")]
    TwoTokens,
    #[error("cannot read the token from {path}: {reason}")]
    TokenFile { path: String, reason: String },
    #[error("no HTTP client can be made: {0}")]
    Client(String),
    #[error("the download broke off: {0}")]
    Broken(String),
    #[error("cannot write {to}: {reason}")]
    Write { to: String, reason: std::io::Error },
}

/// The longest refusal that is shown, characters.
const REFUSAL: usize = 16 * 1024;

impl ClientError {
    /// The updater, or a proxy before it, may be restarting: the same question may be answered later.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { status, .. } => matches!(status.as_u16(), 502..=504),
            _ => false,
        }
    }
}

/// What `GET /status` says.
#[derive(Debug, Deserialize)]
pub struct Status {
    pub version: String,
    pub active_job: Option<Job>,
    pub recent_jobs_count: usize,
    #[serde(default)]
    pub stub: bool,
    #[serde(default)]
    pub trust: String,
    #[serde(default)]
    pub notices: Vec<String>,
    #[serde(default)]
    pub needs_you: Vec<NeedsYou>,
    pub started_at: Option<jiff::Timestamp>,
}

/// A failed job that waits for a person.
#[derive(Debug, Deserialize)]
pub struct NeedsYou {
    pub job: JobId,
}

#[derive(Deserialize)]
struct Fault {
    error: String,
}

/// Asks one updater.
pub struct Client {
    http: reqwest::Client,
    /// As the operator wrote it.
    url: String,
    base: String,
    token: Option<SecretString>,
}

impl Access {
    /// As if named on the command line; `None` leaves it to the environment.
    pub fn new(url: Option<String>, token_file: Option<PathBuf>) -> Self {
        Self { url, token_file }
    }

    /// A client that proves itself.
    ///
    /// # Errors
    /// The address is none, or there is no token.
    pub fn client(self) -> Result<Client, ClientError> {
        let token = token(self.token_file.as_deref(), variable)?;
        Client::new(address(self.url, variable), Some(token))
    }

    /// A client for what needs no token.
    pub fn anonymous(self) -> Result<Client, ClientError> {
        Client::new(address(self.url, variable), None)
    }
}

impl Client {
    fn new(url: String, token: Option<SecretString>) -> Result<Self, ClientError> {
        // Neither a proxy in the environment nor a redirect shall see the token.
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT);
        let (http, base) = match url.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') => (http.unix_socket(path), "http://updater".to_owned()),
            _ => match Url::parse(&url) {
                Ok(parsed) if parsed.scheme() == "https" => (http, url.trim_end_matches('/').to_owned()),
                // Without TLS there is no need to read the machine's certificates first.
                Ok(parsed) if parsed.scheme() == "http" && parsed.has_host() => {
                    (http.tls_certs_only([]), url.trim_end_matches('/').to_owned())
                }
                _ => return Err(ClientError::Address(url)),
            },
        };
        let http = http.build().map_err(|error| ClientError::Client(root_cause(&error)))?;
        Ok(Self { http, url, base, token })
    }

    /// The address, as the operator wrote it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The answer to `GET path`, as it came.
    pub async fn get(&self, path: &str) -> Result<Vec<u8>, ClientError> {
        self.ask(Method::GET, path, None, TIMEOUT).await
    }

    /// The answer to `GET path`, understood, however long it takes.
    pub async fn get_patiently<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.understood(&self.ask(Method::GET, path, None, PATIENT).await?)
    }

    /// Writes what `GET path` sends to `out`, which is called `name`; returns how many bytes it was.
    pub async fn download(
        &self,
        path: &str,
        out: &mut (impl AsyncWrite + Unpin),
        name: &str,
    ) -> Result<u64, ClientError> {
        let mut response = self.answered(self.send(Method::GET, path, None, PATIENT).await?).await?;
        let unwritable = |reason| ClientError::Write { to: name.to_owned(), reason };
        let mut bytes = 0;
        loop {
            let chunk = timeout(STALLED, response.chunk()).await;
            let chunk = chunk.map_err(|_| ClientError::Broken(format!("nothing came for {} s", STALLED.as_secs())))?;
            let Some(chunk) = chunk.map_err(|error| ClientError::Broken(root_cause(&error)))? else { break };
            out.write_all(&chunk).await.map_err(unwritable)?;
            bytes += chunk.len() as u64;
        }
        out.flush().await.map_err(unwritable)?;
        Ok(bytes)
    }

    /// The answer to `GET path`, understood.
    pub async fn get_as<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.understood(&self.get(path).await?)
    }

    /// The answer to `POST path` with `body`, understood.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: Vec<u8>) -> Result<T, ClientError> {
        self.understood(&self.ask(Method::POST, path, Some(body), TIMEOUT).await?)
    }

    /// `answer` as what it must be.
    pub fn understood<T: DeserializeOwned>(&self, answer: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(answer).map_err(|error| self.nonsense(error))
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        limit: Duration,
    ) -> Result<Vec<u8>, ClientError> {
        let response = self.send(method, path, body, limit).await?;
        let response = self.answered(response).await?;
        self.whole(response).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        limit: Duration,
    ) -> Result<Response, ClientError> {
        let mut request = self.http.request(method, format!("{}{path}", self.base)).timeout(limit);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose_secret());
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        request.send().await.map_err(|error| self.unreachable(&error))
    }

    /// A success, or the refusal in the updater's own words.
    async fn answered(&self, response: Response) -> Result<Response, ClientError> {
        match response.status() {
            status if status.is_success() => Ok(response),
            StatusCode::UNAUTHORIZED => Err(ClientError::Unauthorized { url: self.url.clone() }),
            status => {
                let answer = self.whole(response).await?;
                let said = serde_json::from_slice(&answer).map(|fault: Fault| fault.error);
                let text = said.unwrap_or_else(|_| format!("{} answers {status}", self.url));
                // Something else than an updater may answer there.
                let text = crate::text::line(&text, REFUSAL);
                Err(ClientError::Refused { status, text })
            }
        }
    }

    async fn whole(&self, mut response: Response) -> Result<Vec<u8>, ClientError> {
        let mut answer = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(&error))? {
            if answer.len() + chunk.len() > ANSWER_CAP {
                return Err(self.nonsense(format!("its answer exceeds {ANSWER_CAP} bytes")));
            }
            answer.extend_from_slice(&chunk);
        }
        Ok(answer)
    }

    fn unreachable(&self, error: &reqwest::Error) -> ClientError {
        ClientError::Unreachable { url: self.url.clone(), reason: root_cause(error) }
    }

    fn nonsense(&self, reason: impl ToString) -> ClientError {
        ClientError::Nonsense { url: self.url.clone(), reason: reason.to_string() }
    }
}

/// A variable of the environment; an empty one counts as unset, as Compose passes them on.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Where the updater answers: as asked for, or where the updater of this environment listens.
fn address(flag: Option<String>, variable: impl Fn(&str) -> Option<String>) -> String {
    let flag = flag.filter(|url| !url.is_empty());
    flag.or_else(|| variable("PROCESSGIT_UPDATER_LISTEN").map(|listen| reachable(&listen)))
        .unwrap_or_else(|| DEFAULT_URL.to_owned())
}

/// The address by which something that listens on `listen` is reached from the same machine.
fn reachable(listen: &str) -> String {
    if listen.starts_with("unix:") {
        return listen.to_owned();
    }
    match listen.rsplit_once(':') {
        Some(("" | "0.0.0.0" | "[::]", port)) => format!("http://127.0.0.1:{port}"),
        _ => format!("http://{listen}"),
    }
}

/// The token: a flag beats the environment, and a variable or its file, but not both.
fn token(flag: Option<&Path>, variable: impl Fn(&str) -> Option<String>) -> Result<SecretString, ClientError> {
    let value = variable("PROCESSGIT_UPDATER_TOKEN");
    let file = variable("PROCESSGIT_UPDATER_TOKEN_FILE").map(PathBuf::from);
    let token = match (flag, value, file.as_deref()) {
        (None, Some(_), Some(_)) => return Err(ClientError::TwoTokens),
        (None, Some(value), None) => value,
        (Some(file), ..) | (None, None, Some(file)) => std::fs::read_to_string(file)
            .map_err(|error| ClientError::TokenFile { path: file.display().to_string(), reason: error.to_string() })?,
        (None, None, None) => return Err(ClientError::NoToken),
    };
    match token.trim() {
        "" => Err(ClientError::NoToken),
        token => Ok(SecretString::from(token)),
    }
}

/// The innermost error: `Connection refused (os error 111)` says more than what is wrapped around it.
fn root_cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "it did not answer in time".to_owned();
    }
    let mut cause: &dyn Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (flag, listen, expected) in [
            (None, None, DEFAULT_URL),
            (Some(""), Some(""), DEFAULT_URL),
            (Some("http://updater:1"), Some(":2"), "http://updater:1"),
            (Some("unix:/run/u.sock"), None, "unix:/run/u.sock"),
            (None, Some(":9001"), "http://127.0.0.1:9001"),
            (None, Some("0.0.0.0:9001"), "http://127.0.0.1:9001"),
            (None, Some("[::]:9001"), "http://127.0.0.1:9001"),
            (None, Some("[::1]:9001"), "http://[::1]:9001"),
            (None, Some("10.0.0.1:9001"), "http://10.0.0.1:9001"),
            (None, Some("unix:/run/u.sock"), "unix:/run/u.sock"),
        ] {
            let variable = |name: &str| {
                assert_eq!(name, "PROCESSGIT_UPDATER_LISTEN");
                listen.map(str::to_owned).filter(|value| !value.is_empty())
            };
            assert_eq!(address(flag.map(str::to_owned), variable), expected, "{flag:?} {listen:?}");
        }
    }

    #[test]
    fn what_is_no_address() {
        for (url, good) in [
            ("http://127.0.0.1:9000", true),
            ("http://127.0.0.1:9000/updater/", true),
            ("https://updater.example", true),
            ("unix:/run/u.sock", true),
            ("unix:u.sock", false),
            ("127.0.0.1:9000", false),
            ("localhost:9000", false),
            ("ftp://updater", false),
            ("", false),
        ] {
            assert_eq!(Client::new(url.to_owned(), None).is_ok(), good, "{url:?}");
        }
    }

    #[test]
    fn tokens() {
        let folder = tempfile::tempdir().unwrap();
        let (flag, env, empty) = (folder.path().join("flag"), folder.path().join("env"), folder.path().join("empty"));
        std::fs::write(&flag, "from flag\n").unwrap();
        std::fs::write(&env, "from file\n").unwrap();
        std::fs::write(&empty, "\n").unwrap();
        let missing = folder.path().join("missing");
        for (flag, value, file, expected) in [
            (None, Some("from value"), None, Ok("from value")),
            (None, None, Some(&env), Ok("from file")),
            (Some(&flag), None, None, Ok("from flag")),
            (Some(&flag), Some("from value"), Some(&env), Ok("from flag")),
            (None, None, None, Err("no token")),
            (None, None, Some(&empty), Err("no token")),
            (None, Some("from value"), Some(&env), Err("both set")),
            (None, None, Some(&missing), Err("missing")),
        ] {
            let variable = |name: &str| match name {
                "PROCESSGIT_UPDATER_TOKEN" => value.map(str::to_owned),
                "PROCESSGIT_UPDATER_TOKEN_FILE" => file.map(|path| path.display().to_string()),
                other => panic!("{other}"),
            };
            match (token(flag.map(PathBuf::as_path), variable), expected) {
                (Ok(token), Ok(expected)) => assert_eq!(token.expose_secret(), expected),
                (Err(error), Err(text)) => assert!(error.to_string().contains(text), "{error}"),
                (other, expected) => panic!("{other:?} instead of {expected:?}"),
            }
        }
    }
}
