//! Credentials for registries, from Docker's own configuration file (`$DOCKER_CONFIG/config.json`, else
//! `~/.docker/config.json`), credential helpers included. What `docker login` stored is what we use.

use std::fs::File;
use std::io::{BufReader, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use docker_credential::{CredentialRetrievalError, DockerCredential};
use secrecy::SecretString;

/// How long a credential helper may take; then we go on without credentials.
const HELPER_TIMEOUT: Duration = Duration::from_secs(10);
/// Docker Hub's key in the configuration file, since before registries had host names there.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// What a registry is told about who we are. Never printed: the secrets are redacted in `Debug`.
#[derive(Debug, Clone)]
pub enum Credential {
    /// User and password, or user and personal access token.
    Login { username: String, password: SecretString },
    /// An OAuth2 refresh token, exchanged at the registry's token service.
    IdentityToken(SecretString),
}

/// The credential for a registry as it stands in an image reference (`ghcr.io`, `registry:5000`,
/// `docker.io`). `None` when nothing is configured; what is configured but cannot be read is said in the
/// log, and the registry is then asked anonymously.
pub async fn for_registry(registry: &str) -> Option<Credential> {
    in_file(config_file()?, registry).await
}

/// Like [`for_registry`], from another configuration file than Docker's own.
pub async fn in_file(config: PathBuf, registry: &str) -> Option<Credential> {
    let registry = registry.to_owned();
    let asked = registry.clone();
    let lookup = tokio::task::spawn_blocking(move || from_file(&config, &registry));
    match tokio::time::timeout(HELPER_TIMEOUT, lookup).await {
        Ok(Ok(credential)) => credential,
        Ok(Err(panicked)) => {
            tracing::warn!(registry = asked, "reading Docker's credentials failed: {panicked}");
            None
        }
        Err(_) => {
            tracing::warn!(registry = asked, "the credential helper did not answer within {HELPER_TIMEOUT:?}");
            None
        }
    }
}

fn config_file() -> Option<PathBuf> {
    let folder = std::env::var_os("DOCKER_CONFIG").filter(|v| !v.is_empty()).map(PathBuf::from).or_else(|| {
        let home = std::env::var_os("HOME").filter(|v| !v.is_empty())?;
        Some(PathBuf::from(home).join(".docker"))
    })?;
    Some(folder.join("config.json"))
}

fn from_file(config: &Path, registry: &str) -> Option<Credential> {
    let file = match File::open(config) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!("{} cannot be read, registries are asked anonymously: {error}", config.display());
            return None;
        }
    };
    match docker_credential::get_credential_from_reader(BufReader::new(file), key_of(registry)) {
        Ok(DockerCredential::UsernamePassword(username, password)) => {
            (!username.is_empty()).then(|| Credential::Login { username, password: password.into() })
        }
        Ok(DockerCredential::IdentityToken(token)) => {
            (!token.is_empty()).then(|| Credential::IdentityToken(token.into()))
        }
        Err(CredentialRetrievalError::NoCredentialConfigured) => None,
        // A helper's own output is not repeated: nobody knows what it prints.
        Err(CredentialRetrievalError::HelperFailure { helper, .. }) => {
            tracing::debug!(registry, "{helper} knows no credential");
            None
        }
        Err(error) => {
            tracing::warn!(registry, "{} gives no credential: {error}", config.display());
            None
        }
    }
}

fn key_of(registry: &str) -> &str {
    match registry {
        "docker.io" | "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    #[test]
    fn what_docker_login_stored_is_found() {
        // alice:s3cret, bob:hub
        let config = r#"{"auths":{
            "ghcr.io":{"auth":"YWxpY2U6czNjcmV0"},
            "registry:5000":{"auth":"YWxpY2U6czNjcmV0"},
            "https://index.docker.io/v1/":{"auth":"Ym9iOmh1Yg=="},
            "tokens.example":{"identitytoken":"refresh"},
            "empty.example":{},
            "broken.example":{"auth":"%%%"}}}"#;
        let table = [
            ("ghcr.io", "alice s3cret"),
            ("registry:5000", "alice s3cret"),
            ("docker.io", "bob hub"),
            ("registry-1.docker.io", "bob hub"),
            ("tokens.example", "token refresh"),
            ("empty.example", "none"),
            ("broken.example", "none"),
            ("unknown.example", "none"),
        ];
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.json");
        std::fs::write(&file, config).unwrap();
        for (registry, expected) in table {
            let found = match from_file(&file, registry) {
                Some(Credential::Login { username, password }) => format!("{username} {}", password.expose_secret()),
                Some(Credential::IdentityToken(token)) => format!("token {}", token.expose_secret()),
                None => "none".into(),
            };
            assert_eq!(found, expected, "{registry}");
        }
    }

    #[test]
    fn a_missing_or_broken_file_is_no_credential() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.json");
        assert!(from_file(&file, "ghcr.io").is_none());
        std::fs::write(&file, "no json").unwrap();
        assert!(from_file(&file, "ghcr.io").is_none());
    }

    #[test]
    fn secrets_are_not_printed() {
        let login = Credential::Login { username: "alice".into(), password: "s3cret".into() };
        assert!(!format!("{login:?}").contains("s3cret"));
    }
}
