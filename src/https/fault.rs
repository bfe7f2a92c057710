//! Why a server could not be asked, by kind: whoever has to say what helps decides by the kind, never by a text.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;

use hyper_util::client::proxy::matcher::Matcher;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::Url;

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
    /// The server's certificate is for other names, or has ended.
    Certificate,
    /// The server does not speak TLS at that port.
    PlainHttp,
    /// Another failure of TLS.
    Tls,
    /// It took too long.
    Timeout,
    /// The connection ended in the middle.
    BrokenOff,
    /// The proxy that this variable of the environment names was asked.
    Proxy { variable: &'static str },
    /// Anything else.
    Other,
}

impl Fault {
    /// What kept `url` from answering.
    pub fn of(error: &reqwest::Error, url: &Url) -> Self {
        match proxy(url) {
            Some((variable, _)) if error.is_connect() => Self::Proxy { variable },
            _ => Self::by_chain(error),
        }
    }

    fn by_chain(error: &reqwest::Error) -> Self {
        let mut next: Option<&(dyn Error + 'static)> = error.source();
        while let Some(error) = next {
            if error.is::<NoAddress>() {
                return Self::Dns;
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
        match error {
            rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer) => Self::UnknownAuthority,
            rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => Self::Certificate,
            rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType) => Self::PlainHttp,
            _ => Self::Tls,
        }
    }
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
        use rustls::{CertificateError, Error, InvalidMessage};
        for (error, expected) in [
            (Error::InvalidCertificate(CertificateError::UnknownIssuer), Fault::UnknownAuthority),
            (Error::InvalidCertificate(CertificateError::Expired), Fault::Certificate),
            (Error::InvalidCertificate(CertificateError::NotValidForName), Fault::Certificate),
            (Error::InvalidMessage(InvalidMessage::InvalidContentType), Fault::PlainHttp),
            (Error::DecryptError, Fault::Tls),
        ] {
            assert_eq!(Fault::by_io(&io::Error::other(error)), Some(expected));
        }
    }
}
