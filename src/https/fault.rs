//! Why a server could not be asked, by kind: whoever has to say what helps decides by the kind, never by a text.
//! Sentence and remedy of every kind stand here, in one place.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;

use hyper_util::client::proxy::matcher::Matcher;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::Url;

use crate::settings::name::{CA_FILE, GITHUB_API};

/// What kept a request from being answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The host's name has no address.
    Dns,
    /// No server listens at that port.
    Refused,
    /// There is no way to the host.
    Unreachable,
    /// The server's certificate is by a CA that is not believed here.
    UnknownAuthority,
    /// This machine has no CA certificates at all.
    NoAuthorities,
    /// The server shows the certificate of a CA (`CA:TRUE`) as its own, as `openssl req -x509` makes it. The TLS
    /// library refuses such a one even where it is named as a CA.
    OwnAuthority,
    /// The server's certificate has ended, or has not begun yet.
    CertificateDates,
    /// The server's certificate is for other names.
    CertificateNames,
    /// Another fault of the server's certificate.
    Certificate,
    /// The server does not speak TLS at that port.
    PlainHttp,
    /// The server speaks TLS at that port, and was asked without.
    OnlyTls,
    /// Another failure of TLS.
    Tls,
    /// It took too long.
    Timeout,
    /// The connection ended in the middle.
    BrokenOff,
    /// The server sends us from https to http.
    RedirectInsecure,
    /// The server sends us on and on.
    RedirectLoop,
    /// The proxy that this variable of the environment names was asked.
    Proxy { variable: &'static str },
    /// Anything else.
    Other,
}

/// Who was asked, for a remedy that fits.
#[derive(Debug, Clone, Copy)]
pub enum Server<'a> {
    /// A registry, as `host` or `host:port`.
    Registry(&'a str),
    /// The releases API of the settings.
    Releases,
    /// A host to which the releases API or the registry sends us: a storage, a token service.
    Elsewhere(&'a str),
    /// A transparency log.
    Log(&'a str),
}

impl Server<'_> {
    /// How its address is named, after `check `.
    fn named(&self) -> String {
        match self {
            Self::Releases => format!("host and port in {GITHUB_API}"),
            Self::Registry(host) | Self::Elsewhere(host) | Self::Log(host) => format!("the name {host}"),
        }
    }

    /// `of `, after `the certificate`.
    fn owner(&self) -> String {
        match self {
            Self::Releases => format!("the server in {GITHUB_API}"),
            Self::Registry(host) | Self::Elsewhere(host) | Self::Log(host) => (*host).to_owned(),
        }
    }

    /// Registries that the engine takes as insecure we take so too.
    fn insecure(&self) -> Option<String> {
        match self {
            Self::Registry(host) => Some(format!(
                "add {host} to insecure-registries of the engine (/etc/docker/daemon.json), which the updater follows"
            )),
            _ => None,
        }
    }
}

impl Fault {
    /// What kept `url` from answering.
    pub fn of(error: &reqwest::Error, url: &Url) -> Self {
        Self::through(proxy(url).map(|(variable, _)| variable), error.is_connect(), Self::by_chain(error))
    }

    /// Through a proxy whatever fails before there is a connection is the proxy's, but TLS, which the server itself
    /// speaks, or somebody between who shows a certificate of his own.
    fn through(proxy: Option<&'static str>, while_connecting: bool, found: Self) -> Self {
        match proxy {
            Some(variable) if while_connecting && !found.is_tls() => Self::Proxy { variable },
            _ => found,
        }
    }

    /// Another try may help. A wrong certificate stays wrong.
    pub fn may_pass(&self) -> bool {
        !self.is_tls() && !matches!(self, Self::RedirectInsecure | Self::RedirectLoop)
    }

    /// The server has shown a certificate, so it speaks TLS.
    pub fn is_of_a_certificate(&self) -> bool {
        use Fault::{Certificate, CertificateDates, CertificateNames, NoAuthorities, OwnAuthority, UnknownAuthority};
        matches!(
            self,
            UnknownAuthority | NoAuthorities | OwnAuthority | CertificateDates | CertificateNames | Certificate
        )
    }

    fn is_tls(&self) -> bool {
        self.is_of_a_certificate() || matches!(self, Self::PlainHttp | Self::OnlyTls | Self::Tls)
    }

    /// What happened. `cause` is the innermost reason that the libraries give.
    pub fn says(&self, cause: &str) -> String {
        match self {
            Self::UnknownAuthority => format!("its certificate is by a CA that is not trusted here ({cause})"),
            Self::NoAuthorities => "this machine has no CA certificates, so no https server can be trusted".to_owned(),
            Self::OwnAuthority => {
                format!("its certificate is that of a CA, which no server may show as its own ({cause})")
            }
            Self::PlainHttp => "it does not speak TLS at that port".to_owned(),
            Self::OnlyTls => "it speaks TLS at that port, and was asked over plain http".to_owned(),
            _ => cause.to_owned(),
        }
    }

    /// What helps, as an imperative sentence without its period.
    pub fn remedy(&self, server: Server<'_>) -> String {
        let (named, owner) = (server.named(), server.owner());
        let or = |other: Option<String>| other.map_or_else(String::new, |other| format!(", or {other}"));
        match (self, server) {
            (Self::Dns | Self::Refused | Self::Unreachable | Self::Timeout, Server::Elsewhere(host)) => {
                format!("let this machine reach {host} too: look at firewall, name server and HTTPS_PROXY")
            }
            (Self::Dns | Self::Refused | Self::Unreachable | Self::Timeout, Server::Log(host)) => format!(
                "let this machine reach {host}, or ask the publisher to attach release.json.sigstore.json, which holds what the log would say"
            ),
            (Self::Dns, _) => format!("check {named}, and this machine's name server"),
            (Self::Refused, Server::Registry(host)) => {
                format!("check host and port of {host}, and that the registry runs")
            }
            (Self::Refused, _) => format!("check {named}, and that the server runs"),
            (Self::Unreachable, _) => "check this machine's network and firewall".to_owned(),
            (Self::UnknownAuthority, _) => {
                format!("name the CA that signed the certificate of {owner} with {CA_FILE}{}", or(server.insecure()))
            }
            (Self::NoAuthorities, _) => {
                format!("install CA certificates (the package ca-certificates), or name them with {CA_FILE}")
            }
            (Self::OwnAuthority, _) => format!(
                "give {owner} a certificate that a CA has signed (or a self-signed one without CA:TRUE), and name that CA or certificate with {CA_FILE}{}",
                or(server.insecure())
            ),
            (Self::CertificateDates, _) => {
                format!("check this machine's clock (`date`); if it is right, renew the certificate of {owner}")
            }
            (Self::CertificateNames, Server::Releases) => {
                format!("write a name that the certificate is for into {GITHUB_API}, or have it issued for this one")
            }
            (Self::CertificateNames, _) => format!("have the certificate of {owner} issued for this name"),
            (Self::Certificate, _) => format!("replace the certificate of {owner}"),
            (Self::PlainHttp, Server::Releases) => {
                format!("write http:// into {GITHUB_API} if that server has no TLS, or give it TLS")
            }
            (Self::PlainHttp, _) => format!("give {owner} TLS{}", or(server.insecure())),
            (Self::OnlyTls, Server::Releases) => {
                format!("write https:// into {GITHUB_API}, or the port at which that server speaks plain http")
            }
            (Self::OnlyTls, _) => format!("use https for {owner}"),
            (Self::Tls, _) => format!("check the TLS of {owner}, and proxies between"),
            (Self::Timeout, _) => format!("try again; if it stays slow, look at the network and at {owner}"),
            (Self::RedirectInsecure, _) => format!("let {owner} redirect to https only"),
            (Self::RedirectLoop, _) => format!("look at {owner}: it redirects in a circle"),
            (Self::Proxy { variable }, _) => {
                format!("correct {variable}, or name the host in NO_PROXY if it is reached without the proxy")
            }
            (Self::BrokenOff | Self::Other, _) => "try again; if it stays so, look at proxies between".to_owned(),
        }
    }

    fn by_chain(error: &reqwest::Error) -> Self {
        let mut next: Option<&(dyn Error + 'static)> = error.source();
        while let Some(error) = next {
            if error.is::<NoAddress>() {
                return Self::Dns;
            }
            if let Some(refused) = error.downcast_ref::<RedirectRefused>() {
                return match refused {
                    RedirectRefused::Insecure => Self::RedirectInsecure,
                    RedirectRefused::TooMany => Self::RedirectLoop,
                };
            }
            if let Some(found) = error.downcast_ref::<io::Error>().and_then(Self::by_io) {
                return found;
            }
            next = error.source();
        }
        match () {
            () if error.is_timeout() => Self::Timeout,
            // It ended while the head or the body was awaited.
            () if error.is_body() || error.is_decode() || error.is_request() && !error.is_connect() => Self::BrokenOff,
            () => Self::Other,
        }
    }

    fn by_io(error: &io::Error) -> Option<Self> {
        // An `io::Error` hides what it holds from `source`.
        let inner = error.get_ref();
        if let Some(tls) = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return Some(Self::by_tls(tls));
        }
        if let Some(found) = inner.and_then(|inner| inner.downcast_ref::<io::Error>()).and_then(Self::by_io) {
            return Some(found);
        }
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Some(Self::Refused),
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Some(Self::Unreachable),
            io::ErrorKind::TimedOut => Some(Self::Timeout),
            io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::UnexpectedEof => {
                Some(Self::BrokenOff)
            }
            _ => None,
        }
    }

    fn by_tls(error: &rustls::Error) -> Self {
        use rustls::{CertificateError, InvalidMessage};
        match error {
            rustls::Error::InvalidCertificate(error) => match error {
                CertificateError::UnknownIssuer => Self::UnknownAuthority,
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. } => Self::CertificateDates,
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                    Self::CertificateNames
                }
                CertificateError::Other(other) => match other.0.downcast_ref::<webpki::Error>() {
                    Some(webpki::Error::CaUsedAsEndEntity) => Self::OwnAuthority,
                    _ => Self::Certificate,
                },
                _ => Self::Certificate,
            },
            rustls::Error::NoCertificatesPresented => Self::Certificate,
            rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => Self::PlainHttp,
            _ => Self::Tls,
        }
    }
}

/// A redirect that is not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RedirectRefused {
    #[error("redirected from https to plain http")]
    Insecure,
    #[error("too many redirects")]
    TooMany,
}

/// The variable of the environment whose proxy is asked for `url`, and that proxy's `host:port`.
pub fn proxy(url: &Url) -> Option<(&'static str, String)> {
    let uri = url.as_str().parse().ok()?;
    let intercepted = Matcher::from_env().intercept(&uri)?;
    let address = intercepted.uri().authority()?.as_str();
    // Before the `@` there may be a password.
    let address = address.rsplit_once('@').map_or(address, |(_, address)| address).to_owned();
    let names: [&str; 4] = match url.scheme() {
        "https" => ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"],
        _ => ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"],
    };
    let set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    Some((names.into_iter().find(set)?, address))
}

/// Looks names up as the system does, and says so when there is no address.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

impl SystemResolver {
    pub fn shared() -> Arc<Self> {
        Arc::new(Self)
    }
}

impl Resolve for SystemResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let name = name.as_str().to_owned();
            let found = tokio::net::lookup_host((name.as_str(), 0)).await.map(Iterator::collect::<Vec<_>>);
            match found {
                Ok(addresses) => Ok(Box::new(addresses.into_iter()) as Addrs),
                Err(cause) => Err(Box::new(NoAddress { name, cause }) as Box<dyn Error + Send + Sync>),
            }
        })
    }
}

/// A name has no address.
#[derive(Debug)]
struct NoAddress {
    name: String,
    cause: io::Error,
}

impl fmt::Display for NoAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the name {} cannot be resolved: {}", self.name, self.cause)
    }
}

impl Error for NoAddress {}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncWriteExt;

    use super::*;

    async fn fault(url: &str) -> Fault {
        let client = reqwest::Client::builder()
            .no_proxy()
            .dns_resolver(SystemResolver::shared())
            .tls_certs_only(Vec::new())
            .timeout(Duration::from_secs(5))
            .build()
            .unwrap();
        let url = Url::parse(url).unwrap();
        Fault::by_chain(&client.get(url).send().await.unwrap_err())
    }

    /// A server that writes this to every connection and ends it.
    async fn says(text: &'static [u8]) -> u16 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.write_all(text).await;
            }
        });
        port
    }

    #[tokio::test]
    async fn a_fault_has_its_kind() {
        let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let (plain, silent) = (says(b"HTTP/1.1 400 Bad Request\r\n\r\n").await, says(b"").await);
        for (url, expected) in [
            ("http://no-such-host.invalid/".to_owned(), Fault::Dns),
            (format!("http://127.0.0.1:{nobody}/"), Fault::Refused),
            (format!("https://127.0.0.1:{nobody}/"), Fault::Refused),
            (format!("https://127.0.0.1:{plain}/"), Fault::PlainHttp),
            (format!("http://127.0.0.1:{silent}/"), Fault::BrokenOff),
        ] {
            assert_eq!(fault(&url).await, expected, "{url}");
        }
    }

    #[test]
    fn tls_has_its_kinds() {
        use rustls::{CertificateError, Error, InvalidMessage, OtherError};
        let certificate = Error::InvalidCertificate;
        let of_a_ca = CertificateError::Other(OtherError(Arc::new(webpki::Error::CaUsedAsEndEntity)));
        for (error, expected) in [
            (certificate(CertificateError::UnknownIssuer), Fault::UnknownAuthority),
            (certificate(CertificateError::Expired), Fault::CertificateDates),
            (certificate(CertificateError::NotValidYet), Fault::CertificateDates),
            (certificate(CertificateError::NotValidForName), Fault::CertificateNames),
            (certificate(of_a_ca), Fault::OwnAuthority),
            (certificate(CertificateError::Revoked), Fault::Certificate),
            (Error::InvalidMessage(InvalidMessage::InvalidContentType), Fault::PlainHttp),
            (Error::DecryptError, Fault::Tls),
        ] {
            assert_eq!(Fault::by_io(&io::Error::other(error)), Some(expected));
        }
    }

    /// A proxy that opens TLS shows a certificate of its own: the proxy is found, its CA is not believed.
    #[test]
    fn what_a_proxy_is_blamed_for() {
        let proxy = Fault::Proxy { variable: "HTTPS_PROXY" };
        for (named, while_connecting, found, expected) in [
            (true, true, Fault::Refused, proxy.clone()),
            (true, true, Fault::Dns, proxy.clone()),
            (true, true, Fault::Other, proxy),
            (true, true, Fault::UnknownAuthority, Fault::UnknownAuthority),
            (true, true, Fault::PlainHttp, Fault::PlainHttp),
            (true, false, Fault::BrokenOff, Fault::BrokenOff),
            (false, true, Fault::Refused, Fault::Refused),
        ] {
            assert_eq!(Fault::through(named.then_some("HTTPS_PROXY"), while_connecting, found), expected);
        }
    }

    /// Every kind, whoever was asked: the sentence, and the remedy that fits.
    #[test]
    fn each_kind_has_its_sentence_and_its_remedy() {
        use Fault::*;
        let (registry, log) = (Server::Registry("r:5000"), Server::Log("rekor.example"));
        let (api, files) = (Server::Releases, Server::Elsewhere("files.example"));
        let insecure =
            "add r:5000 to insecure-registries of the engine (/etc/docker/daemon.json), which the updater follows";
        let reach = "let this machine reach files.example too: look at firewall, name server and HTTPS_PROXY";
        let reach_log = "let this machine reach rekor.example, or ask the publisher to attach release.json.sigstore.json, which holds what the log would say";
        let again = "try again; if it stays so, look at proxies between";
        let ca = "name the CA that signed the certificate of";
        let rows: Vec<(Fault, Server<'_>, &str, String)> = vec![
            (Dns, api, "cause", format!("check host and port in {GITHUB_API}, and this machine's name server")),
            (Dns, registry, "cause", "check the name r:5000, and this machine's name server".into()),
            (Dns, files, "cause", reach.into()),
            (Dns, log, "cause", reach_log.into()),
            (Refused, api, "cause", format!("check host and port in {GITHUB_API}, and that the server runs")),
            (Refused, registry, "cause", "check host and port of r:5000, and that the registry runs".into()),
            (Refused, files, "cause", reach.into()),
            (Unreachable, api, "cause", "check this machine's network and firewall".into()),
            (Unreachable, files, "cause", reach.into()),
            (
                UnknownAuthority,
                api,
                "its certificate is by a CA that is not trusted here (cause)",
                format!("{ca} the server in {GITHUB_API} with {CA_FILE}"),
            ),
            (
                UnknownAuthority,
                registry,
                "its certificate is by a CA that is not trusted here (cause)",
                format!("{ca} r:5000 with {CA_FILE}, or {insecure}"),
            ),
            (
                NoAuthorities,
                api,
                "this machine has no CA certificates, so no https server can be trusted",
                format!("install CA certificates (the package ca-certificates), or name them with {CA_FILE}"),
            ),
            (
                OwnAuthority,
                api,
                "its certificate is that of a CA, which no server may show as its own (cause)",
                format!(
                    "give the server in {GITHUB_API} a certificate that a CA has signed (or a self-signed one without CA:TRUE), and name that CA or certificate with {CA_FILE}"
                ),
            ),
            (
                CertificateDates,
                registry,
                "cause",
                "check this machine's clock (`date`); if it is right, renew the certificate of r:5000".into(),
            ),
            (
                CertificateNames,
                api,
                "cause",
                format!("write a name that the certificate is for into {GITHUB_API}, or have it issued for this one"),
            ),
            (CertificateNames, registry, "cause", "have the certificate of r:5000 issued for this name".into()),
            (Certificate, registry, "cause", "replace the certificate of r:5000".into()),
            (
                PlainHttp,
                api,
                "it does not speak TLS at that port",
                format!("write http:// into {GITHUB_API} if that server has no TLS, or give it TLS"),
            ),
            (PlainHttp, registry, "it does not speak TLS at that port", format!("give r:5000 TLS, or {insecure}")),
            (
                OnlyTls,
                api,
                "it speaks TLS at that port, and was asked over plain http",
                format!("write https:// into {GITHUB_API}, or the port at which that server speaks plain http"),
            ),
            (Tls, registry, "cause", "check the TLS of r:5000, and proxies between".into()),
            (Timeout, registry, "cause", "try again; if it stays slow, look at the network and at r:5000".into()),
            (Timeout, log, "cause", reach_log.into()),
            (RedirectInsecure, registry, "cause", "let r:5000 redirect to https only".into()),
            (RedirectLoop, registry, "cause", "look at r:5000: it redirects in a circle".into()),
            (
                Proxy { variable: "HTTPS_PROXY" },
                api,
                "cause",
                "correct HTTPS_PROXY, or name the host in NO_PROXY if it is reached without the proxy".into(),
            ),
            (BrokenOff, api, "cause", again.into()),
            (Other, registry, "cause", again.into()),
        ];
        for (fault, server, says, remedy) in rows {
            assert_eq!(fault.says("cause"), says, "{fault:?}");
            assert_eq!(fault.remedy(server), remedy, "{fault:?} of {server:?}");
            assert!(!remedy.contains("docker login"), "{fault:?}");
        }
    }
}
