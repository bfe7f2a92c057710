//! Credentials for registries, from Docker's own configuration file (`$DOCKER_CONFIG/config.json`, else
//! `~/.docker/config.json`), credential helpers included. What `docker login` stored is what we use.
//!
//! Nothing here ends an update by itself: an image may be public. What is configured and cannot be used is
//! kept, and said when the registry wants to know who asks.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::reference::{DOCKER_HUB, Reference};
use crate::text;

/// How long a credential helper may take; then it is ended.
const HELPER_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a helper's answer, and of the configuration file, that are read.
const HELPER_CAP: u64 = 64 * 1024;
const CONFIG_CAP: u64 = 1024 * 1024;
/// Docker Hub's key in the configuration file, since before registries had host names there.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";
/// Other keys under which Docker Hub is found.
const DOCKER_HUB_NAMES: [&str; 3] = ["index.docker.io", DOCKER_HUB, "registry-1.docker.io"];
/// The user name by which a helper says that the secret is an identity token.
const TOKEN_USER: &str = "<token>";

/// What a registry is told about who we are. Never printed: the secrets are redacted in `Debug`.
#[derive(Debug, Clone)]
pub enum Credential {
    /// User and password, or user and personal access token.
    Login { username: String, password: SecretString },
    /// An OAuth2 refresh token, exchanged at the registry's token service.
    IdentityToken(SecretString),
}

/// Why what is configured cannot be used. The sentence names file or helper.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialFault {
    #[error("{file} cannot be read ({cause})")]
    Unreadable { file: String, cause: String },
    #[error("{file} is not JSON as Docker writes it (line {line}, column {column})")]
    Broken { file: String, line: usize, column: usize },
    #[error("{file} holds an entry for {key} whose auth is not base64 of user:password")]
    BrokenEntry { file: String, key: String },
    #[error("{file} names the credential helper {helper:?}, which is no name of a program")]
    HelperName { file: String, helper: String },
    #[error("{file} wants the credential helper docker-credential-{helper}, which is not installed here")]
    HelperMissing { file: String, helper: String },
    #[error("the credential helper docker-credential-{helper} did not answer within {seconds} s")]
    HelperHangs { helper: String, seconds: u64 },
    #[error("the credential helper docker-credential-{helper} failed: {said}")]
    HelperFailed { helper: String, said: String },
    #[error("the credential helper docker-credential-{helper} answers with something else than a login")]
    HelperNonsense { helper: String },
}

impl CredentialFault {
    /// What helps, as an imperative sentence without its period.
    pub fn remedy(&self) -> String {
        match self {
            Self::Unreadable { file, .. } => format!("let the updater read {file}"),
            Self::Broken { file, .. } | Self::BrokenEntry { file, .. } => {
                format!("correct {file}, or remove it and log in again")
            }
            Self::HelperName { file, .. } => format!("correct credsStore and credHelpers in {file}"),
            Self::HelperMissing { file, helper } => format!(
                "install docker-credential-{helper} where the updater runs; in its container, give it a config.json with a login of its own, without credsStore and credHelpers (DOCKER_CONFIG names its folder, {file} is the one that was read)"
            ),
            Self::HelperHangs { helper, .. } | Self::HelperFailed { helper, .. } | Self::HelperNonsense { helper } => {
                format!(
                    "unlock the store behind docker-credential-{helper} (`docker-credential-{helper} list` shows whether it answers), or give the updater a config.json with a login of its own (DOCKER_CONFIG names its folder)"
                )
            }
        }
    }
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Lookup {
    pub credential: Option<Credential>,
    /// What is configured and cannot be used.
    pub fault: Option<CredentialFault>,
}

/// The credential for a repository: the most specific entry counts (`ghcr.io/acme` before `ghcr.io`).
pub async fn for_repository(name: &Reference) -> Lookup {
    match config_file() {
        Some(file) => in_file(&file, name).await,
        None => Lookup::default(),
    }
}

/// Like [`for_repository`], from another configuration file than Docker's own.
pub async fn in_file(file: &Path, name: &Reference) -> Lookup {
    found(name.registry(), lookup(file, None, &keys(name)).await)
}

fn found(registry: &str, found: Result<Option<Credential>, CredentialFault>) -> Lookup {
    match found {
        Ok(credential) => Lookup { credential, fault: None },
        Err(fault) => {
            tracing::warn!(registry, "{fault}; it is asked anonymously");
            Lookup { credential: None, fault: Some(fault) }
        }
    }
}

/// The credential of a host that is no registry of images itself: a token service that has an entry.
pub async fn for_host(file: Option<&Path>, host: &str) -> Lookup {
    let file = file.map(Path::to_owned).or_else(config_file);
    match file {
        Some(file) => found(host, lookup(&file, None, &[host.to_owned()]).await),
        None => Lookup::default(),
    }
}

fn config_file() -> Option<PathBuf> {
    let folder = std::env::var_os("DOCKER_CONFIG").filter(|v| !v.is_empty()).map(PathBuf::from).or_else(|| {
        let home = std::env::var_os("HOME").filter(|v| !v.is_empty())?;
        Some(PathBuf::from(home).join(".docker"))
    })?;
    Some(folder.join("config.json"))
}

/// The parts of `config.json` that matter here.
#[derive(Default, Deserialize)]
struct Config {
    #[serde(default)]
    auths: Option<BTreeMap<String, Option<Auth>>>,
    #[serde(default, rename = "credHelpers")]
    cred_helpers: Option<BTreeMap<String, String>>,
    #[serde(default, rename = "credsStore")]
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
struct Auth {
    #[serde(default)]
    auth: Option<SecretString>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<SecretString>,
    #[serde(default)]
    identitytoken: Option<SecretString>,
}

/// The keys that a repository may have an entry under, the most specific first; of Docker Hub all names.
fn keys(name: &Reference) -> Vec<String> {
    let unified = name.unified();
    let hosts: Vec<&str> =
        if unified.registry() == DOCKER_HUB { DOCKER_HUB_NAMES.into() } else { vec![unified.registry()] };
    let mut paths = Vec::new();
    let mut path = Some(unified.repository());
    while let Some(some) = path {
        paths.push(some);
        path = some.rsplit_once('/').map(|(parent, _)| parent);
    }
    let specific = paths.iter().flat_map(|path| hosts.iter().map(move |host| format!("{host}/{path}")));
    specific.chain(hosts.iter().map(|host| (*host).to_owned())).collect()
}

/// A key of the file as [`keys`] makes them: older ones are addresses.
fn normal(key: &str) -> String {
    let key = key.trim();
    let (scheme, rest) = match key.split_once("://") {
        Some((_, rest)) => (true, rest),
        None => (false, key),
    };
    let rest = rest.trim_end_matches('/');
    // What follows the host of an address is a version of the API, not an owner.
    let rest = if scheme { rest.split('/').next().unwrap_or_default() } else { rest };
    let (host, path) = rest.split_once('/').map_or((rest, None), |(host, path)| (host, Some(path)));
    let host = host.to_ascii_lowercase();
    match path {
        Some(path) if !matches!(path, "v1" | "v2") => format!("{host}/{path}"),
        _ => host,
    }
}

/// `path`: where helpers are looked for, instead of in `PATH`.
async fn lookup(file: &Path, path: Option<&OsStr>, keys: &[String]) -> Result<Option<Credential>, CredentialFault> {
    let Some(config) = read(file).await? else { return Ok(None) };
    let shown = || file.display().to_string();
    let helpers = config.cred_helpers.unwrap_or_default();
    let own = keys.iter().find_map(|key| helpers.iter().find(|(of, _)| normal(of) == *key));
    let host = keys.last().map_or("", String::as_str);
    // The store answers for whole registries; a helper for what its entry names.
    let asked = match (own, &config.creds_store) {
        (Some((of, helper)), _) => Some((helper, of.clone())),
        (None, Some(helper)) if !helper.is_empty() => Some((helper, server_of(host))),
        _ => None,
    };
    let helped = match &asked {
        Some((helper, server)) => ask(helper, path, server, &shown()).await,
        None => Ok(None),
    };
    if let Ok(Some(credential)) = helped {
        return Ok(Some(credential));
    }
    // Beside a store, the file may still hold a login that was written by hand.
    let auths = config.auths.unwrap_or_default();
    let entries = keys.iter().flat_map(|key| auths.iter().filter(move |(of, _)| normal(of) == *key));
    for (key, auth) in entries {
        let Some(auth) = auth else { continue };
        match stored(auth) {
            Ok(Some(credential)) => return Ok(Some(credential)),
            Ok(None) => {}
            Err(()) => return Err(CredentialFault::BrokenEntry { file: shown(), key: key.clone() }),
        }
    }
    helped
}

/// The name by which `docker login` gives a registry to a credential store.
fn server_of(host: &str) -> String {
    if DOCKER_HUB_NAMES.contains(&host) { DOCKER_HUB_KEY.to_owned() } else { host.to_owned() }
}

async fn read(file: &Path) -> Result<Option<Config>, CredentialFault> {
    let shown = || file.display().to_string();
    let unreadable = |cause: std::io::Error| CredentialFault::Unreadable { file: shown(), cause: cause.to_string() };
    let opened = match tokio::fs::File::open(file).await {
        Ok(opened) => opened,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let mut bytes = Vec::new();
    opened.take(CONFIG_CAP).read_to_end(&mut bytes).await.map_err(unreadable)?;
    if bytes.trim_ascii().is_empty() {
        return Ok(None);
    }
    let config = serde_json::from_slice(&bytes);
    config.map(Some).map_err(|e| CredentialFault::Broken { file: shown(), line: e.line(), column: e.column() })
}

/// The login in the file itself; none in the empty entry that a store leaves there.
fn stored(auth: &Auth) -> Result<Option<Credential>, ()> {
    let is_set = |secret: &&SecretString| !secret.expose_secret().is_empty();
    if let Some(token) = auth.identitytoken.as_ref().filter(is_set) {
        return Ok(Some(Credential::IdentityToken(token.clone())));
    }
    if let Some(encoded) = auth.auth.as_ref().filter(is_set) {
        let bytes = BASE64_STANDARD.decode(encoded.expose_secret().trim()).map_err(drop)?;
        let text = String::from_utf8(bytes).map_err(drop)?;
        let (username, password) = text.split_once(':').ok_or(())?;
        // Docker pads with zero bytes.
        let password = password.trim_end_matches('\0').to_owned();
        return Ok(Some(Credential::Login { username: username.to_owned(), password: password.into() }));
    }
    let login = auth.username.as_ref().filter(|name| !name.is_empty()).zip(auth.password.as_ref().filter(is_set));
    Ok(login.map(|(username, password)| Credential::Login { username: username.clone(), password: password.clone() }))
}

#[derive(Deserialize)]
struct Helped {
    #[serde(rename = "Username", default)]
    username: String,
    #[serde(rename = "Secret", default)]
    secret: SecretString,
}

/// Asks a helper (<https://github.com/docker/docker-credential-helpers>); `None` when it knows no login.
async fn ask(
    helper: &str,
    path: Option<&OsStr>,
    server: &str,
    file: &str,
) -> Result<Option<Credential>, CredentialFault> {
    let is_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if helper.is_empty() || !helper.bytes().all(is_name) {
        return Err(CredentialFault::HelperName { file: file.to_owned(), helper: helper.to_owned() });
    }
    let name = || helper.to_owned();
    let hangs = |_| CredentialFault::HelperHangs { helper: name(), seconds: HELPER_TIMEOUT.as_secs() };
    let (ended_well, said) =
        match tokio::time::timeout(HELPER_TIMEOUT, run(helper, path, server)).await.map_err(hangs)? {
            Ok(answer) => answer,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(CredentialFault::HelperMissing { file: file.to_owned(), helper: name() });
            }
            Err(error) => return Err(CredentialFault::HelperFailed { helper: name(), said: error.to_string() }),
        };
    if said.len() as u64 >= HELPER_CAP {
        return Err(CredentialFault::HelperNonsense { helper: name() });
    }
    if !ended_well {
        // The protocol's words for "there is none".
        let said = String::from_utf8_lossy(&said);
        if said.trim() == "credentials not found in native keychain" {
            return Ok(None);
        }
        return Err(CredentialFault::HelperFailed { helper: name(), said: text::line(&said, 200) });
    }
    let Ok(Helped { username, secret }) = serde_json::from_slice(&said) else {
        return Err(CredentialFault::HelperNonsense { helper: name() });
    };
    Ok(match (username.as_str(), secret.expose_secret().is_empty()) {
        (_, true) => None,
        (TOKEN_USER, false) => Some(Credential::IdentityToken(secret)),
        _ => Some(Credential::Login { username, password: secret }),
    })
}

/// Whether it ended well, and what it said. It ends with this future.
async fn run(helper: &str, path: Option<&OsStr>, server: &str) -> std::io::Result<(bool, Vec<u8>)> {
    let mut child = tokio::process::Command::new(format!("docker-credential-{helper}"))
        .arg("get")
        .envs(path.map(|path| ("PATH", path)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read its question answers all the same.
        let _ = stdin.write_all(server.as_bytes()).await;
    }
    let mut said = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(HELPER_CAP).read_to_end(&mut said).await?;
    }
    Ok((child.wait().await?.success(), said))
}

#[cfg(test)]
mod tests;
