//! What the operator configured: environment and flags, validated, all faults told at once.
//!
//! [`ServeArgs`] (text) → [`ServeArgs::settings`] → [`Settings`] (validated) or every [`Fault`].

mod args;
mod duration;
mod parse;
#[cfg(test)]
mod tests;
mod value;

pub use args::{ServeArgs, default, name, names};
pub use parse::Fault;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use url::Url;

use crate::health::{HealthTarget, VersionAt};

/// Where the HTTP API listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// `:9000` is `[::]:9000`, which means all interfaces of both families; `127.0.0.1:9000`, `[::1]:9000`.
    /// `localhost:9000` is `127.0.0.1:9000`.
    Tcp(SocketAddr),
    /// `unix:/path`
    Unix(PathBuf),
}

/// `OWNER/NAME`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repo {
    pub owner: String,
    pub name: String,
}

#[derive(Debug, Clone)]
pub struct Health {
    /// What is asked.
    pub target: HealthTarget,
    /// Deadline of the gate.
    pub timeout: Duration,
    /// Longest pause between two probes.
    pub interval: Duration,
    /// How long it must stay healthy, unbroken.
    pub stable: Duration,
    /// Where the answer names the version, which must equal the new one.
    pub version: Option<VersionAt>,
}

#[derive(Debug, Clone)]
pub struct Signing {
    /// File with a PEM public key; `None` means keyless.
    pub key: Option<PathBuf>,
    pub issuer: String,
    /// As configured; it is always anchored when used.
    pub identity_regex: String,
    pub trusted_root: Option<PathBuf>,
    /// Where the public Sigstore root is kept that is refreshed by TUF; `None`: it is not refreshed.
    pub refreshed_root: Option<PathBuf>,
    pub verify_image: bool,
}

#[derive(Debug, Clone)]
pub struct Snapshot {
    pub on: bool,
    pub dir: PathBuf,
    pub keep: u32,
    /// `None`: age does not matter.
    pub max_age: Option<Duration>,
    /// Folders inside each other, and entries in one mount, beyond which a copy is refused.
    pub max_depth: u32,
    pub max_entries: u32,
    /// Absolute paths in the application's container that are not copied.
    pub exclude: Vec<String>,
}

/// A command in the surroundings of a service: `SERVICE: COMMAND WORDS`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    pub service: String,
    /// Argument vector; no shell runs it.
    pub command: Vec<String>,
}

/// Commands for data that lives elsewhere, a database in another container for example.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hooks {
    pub before_copy: Option<Hook>,
    pub after_restore: Option<Hook>,
}

/// The updater as an application of its own.
#[derive(Debug, Clone)]
pub struct Own {
    /// The `name` its manifests carry.
    pub name: String,
    pub repo: Repo,
    /// The key in `.env` that selects its version.
    pub version_key: String,
    /// Who must have signed it, where signatures are keyless.
    pub identity_regex: String,
}

/// Everything `serve` is told. A flag beats the environment, every secret also comes from
/// `<NAME>_FILE`.
#[derive(Debug, Clone)]
pub struct Settings {
    pub token: SecretString,
    pub listen: Listen,
    pub state_dir: PathBuf,
    pub repo: Repo,
    pub github_api: Url,
    pub github_token: Option<SecretString>,
    /// Hosts beside the API's own that may see the token: `host` or `host:port`.
    pub github_token_hosts: Vec<String>,
    pub app_name: String,
    pub app_container: String,
    /// `None`: read from the container's labels.
    pub app_service: Option<String>,
    pub version_key: String,
    pub compose_file: PathBuf,
    pub env_file: PathBuf,
    pub health: Health,
    pub signing: Signing,
    pub snapshot: Snapshot,
    /// Services of the same image that are moved together with the application's.
    pub move_services: Vec<String>,
    /// Services or containers that are stopped with the application.
    pub stop_services: Vec<String>,
    /// Services or containers whose own data is copied and put back with the application's
    /// (`PROCESSGIT_UPDATER_DATA_SERVICES`, default none).
    pub data_services: Vec<String>,
    /// Services, containers or hosts whose data is the operator's own business
    /// (`PROCESSGIT_UPDATER_DATA_ELSEWHERE`, default none).
    pub data_elsewhere: Vec<String>,
    pub hooks: Hooks,
    /// Ours: how long a migration, or a hook, may take (`PROCESSGIT_UPDATER_MIGRATION_TIMEOUT`, default
    /// 30m).
    pub migration_timeout: Duration,
    /// Ours: CA certificates in PEM, believed beside the system's (`PROCESSGIT_UPDATER_CA_FILE`).
    pub ca_file: Option<PathBuf>,
    /// The updater's own releases.
    pub own: Own,
    pub stub: bool,
    pub debug: bool,
}

impl Signing {
    /// The policy alone, for judging files. `identity_regex` defaults to the release workflow of `repo`.
    ///
    /// # Errors
    /// `repo` is not `OWNER/NAME`, or the expression is none.
    pub fn new(
        key: Option<PathBuf>,
        repo: &str,
        issuer: String,
        identity_regex: Option<String>,
        trusted_root: Option<PathBuf>,
    ) -> Result<Self, String> {
        let wrong = |name: &str, value: &str, accepted: String| format!("{name}={value:?}: {accepted}");
        let repo = value::repo(repo).map_err(|accepted| wrong(name::REPO, repo, accepted))?;
        let identity_regex = match identity_regex.filter(|text| !text.is_empty()) {
            Some(text) => {
                value::regex(&text).map_err(|accepted| wrong(name::SIGNING_IDENTITY_REGEX, &text, accepted))?
            }
            None => value::default_identity(&repo),
        };
        Ok(Self { key, issuer, identity_regex, trusted_root, refreshed_root: None, verify_image: true })
    }
}

impl std::fmt::Display for Repo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)
    }
}
