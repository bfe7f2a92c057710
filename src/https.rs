//! HTTP clients for the world outside: whom they believe, and when they are made.
//!
//! Over TLS the system's CA certificates are believed (`SSL_CERT_FILE` and `SSL_CERT_DIR` choose others),
//! and beside them those in the operator's `PROCESSGIT_UPDATER_CA_FILE`.

pub mod fault;

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use reqwest::{Certificate, Client, ClientBuilder};
use tokio::sync::OnceCell;
use url::Url;

use crate::settings::name::CA_FILE;
use fault::Fault;

/// The largest file of certificates that is read, in bytes; the public ones together are a quarter of it.
const CAP: u64 = 1024 * 1024;

/// The operator's own CA certificates, believed beside the system's. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Authorities(Arc<[Certificate]>);

/// The file holds no certificates.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{CA_FILE}={file:?}: {problem}; expected a readable file with CA certificates in PEM")]
pub struct AuthoritiesError {
    file: String,
    problem: String,
}

impl Authorities {
    /// Reads the PEM bundle; no file means no further authorities. Blocking.
    ///
    /// # Errors
    /// The file is unreadable, too large, or holds anything but certificates.
    pub fn load(file: Option<&Path>) -> Result<Self, AuthoritiesError> {
        let Some(path) = file else { return Ok(Self::default()) };
        let error = |problem: String| AuthoritiesError { file: path.display().to_string(), problem };
        let pem = read(path).map_err(error)?;
        let found = Certificate::from_pem_bundle(&pem).map_err(|e| error(format!("it is no PEM ({})", cause(&e))))?;
        if found.is_empty() {
            return Err(error("it holds no certificate".into()));
        }
        let authorities = Self(found.into());
        // What a certificate holds shows only when it is put to use.
        let only = Client::builder().tls_certs_only(authorities.0.iter().cloned()).build();
        only.map_err(|e| error(format!("it holds a certificate that cannot be used ({})", cause(&e))))?;
        Ok(authorities)
    }

    /// `builder`, believing these authorities beside the system's.
    pub fn added_to(&self, builder: ClientBuilder) -> ClientBuilder {
        builder.tls_certs_merge(self.0.iter().cloned())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    use std::io::Read as _;
    let failed = |error: std::io::Error| format!("it cannot be read ({error})");
    let mut pem = Vec::new();
    std::fs::File::open(path).map_err(failed)?.take(CAP + 1).read_to_end(&mut pem).map_err(failed)?;
    if pem.len() as u64 > CAP { Err(format!("it is larger than {CAP} bytes")) } else { Ok(pem) }
}

/// A client that is made when it is first used: reading the system's certificates takes milliseconds
/// that a start does not have. Cheap to clone; clones share the client.
#[derive(Clone)]
pub struct LazyClient {
    made: Arc<OnceCell<Ready>>,
    configure: Arc<dyn Fn() -> ClientBuilder + Send + Sync>,
    authorities: Authorities,
}

/// A client.
#[derive(Debug, Clone)]
pub struct Ready {
    pub client: Client,
    /// It believes some CA.
    believes: bool,
}

impl LazyClient {
    /// `configure` says everything but whom to believe.
    pub fn new(authorities: &Authorities, configure: impl Fn() -> ClientBuilder + Send + Sync + 'static) -> Self {
        Self { made: Arc::default(), configure: Arc::new(configure), authorities: authorities.clone() }
    }

    /// The client.
    ///
    /// # Errors
    /// The text says why this machine cannot have one.
    pub async fn get(&self) -> Result<&Ready, String> {
        self.made
            .get_or_try_init(|| async {
                let this = self.clone();
                let made = tokio::task::spawn_blocking(move || this.make()).await;
                made.map_err(|panicked| panicked.to_string())?
            })
            .await
    }

    fn make(&self) -> Result<Ready, String> {
        // Without any CA certificate there is no client at all. Plain http needs none, so then there is
        // one that believes nobody, and says so when it is asked for more.
        match self.authorities.added_to((self.configure)()).build() {
            Ok(client) => Ok(Ready { client, believes: true }),
            Err(error) => match (self.configure)().tls_certs_only(Vec::new()).build() {
                Ok(client) => Ok(Ready { client, believes: false }),
                Err(_) => Err(format!("no HTTP client can be made: {}", cause(&error))),
            },
        }
    }
}

impl std::fmt::Debug for LazyClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LazyClient").finish_non_exhaustive()
    }
}

impl Ready {
    /// Why `url` did not answer: the kind, and a sentence without an address, which may carry a secret.
    pub fn explain(&self, error: &reqwest::Error, url: &Url) -> (Fault, String) {
        let fault = match Fault::of(error, url) {
            Fault::UnknownAuthority if !self.believes => Fault::NoAuthorities,
            fault => fault,
        };
        let says = fault.says(&cause(error));
        (fault, says)
    }
}

/// The innermost reason ("connection refused"): the outer ones repeat the address, which may carry a
/// secret.
pub fn cause(error: &reqwest::Error) -> String {
    let Some(mut cause) = error.source() else { return error.to_string() };
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_certificates_are_authorities() {
        let folder = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = rcgen::CertificateParams::new([]).unwrap().self_signed(&key).unwrap().pem();
        let broken = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
        for (name, text, problem) in [
            ("one", pem.clone(), ""),
            ("two, and words between", format!("ours:\n{pem}\ntheirs:\r\n{pem}"), ""),
            ("empty", String::new(), "it holds no certificate"),
            ("words", "hello".into(), "it holds no certificate"),
            ("a key", key.serialize_pem(), "it holds no certificate"),
            ("broken base64", pem.replace('M', "~"), "it is no PEM"),
            ("no certificate inside", broken.into(), "cannot be used"),
            ("huge", " ".repeat(1024 * 1024 + 1), "larger than 1048576 bytes"),
        ] {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            let loaded = Authorities::load(Some(&path)).map(drop).map_err(|e| e.to_string());
            assert_eq!(loaded.is_ok(), problem.is_empty(), "{name}: {loaded:?}");
            assert!(loaded.err().unwrap_or_default().contains(problem), "{name}");
        }
        let absent = Authorities::load(Some(&folder.path().join("absent"))).unwrap_err().to_string();
        assert!(absent.starts_with("PROCESSGIT_UPDATER_CA_FILE=\"") && absent.contains("cannot be read"), "{absent}");
        assert!(Authorities::load(None).is_ok());
    }
}
