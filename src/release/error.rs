//! Why a release could not be had: a kind that code decides by, a sentence, and what helps. Pure.

use crate::https::fault::Fault;
use crate::settings::name::{CA_FILE, GITHUB_API, GITHUB_TOKEN, GITHUB_TOKEN_HOSTS, REPO};

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceFault {
    /// There is no such release, or none in this channel.
    NotFound,
    /// The repository is not there, or is hidden from us.
    NoRepository { has_token: bool },
    /// The token is wrong (401).
    Unauthorized { has_token: bool },
    /// 403 for a reason that the server's message tells.
    Forbidden { has_token: bool },
    /// The hourly limit of requests.
    RateLimit { has_token: bool },
    /// GitHub's second limit, against too many requests at once.
    SecondaryLimit,
    /// The organisation wants the token to be authorised for its single sign-on.
    SingleSignOn,
    /// The organisation lets only some addresses in.
    AllowList,
    /// A server that got no token, because it is not the API's host, refuses or shows its login page.
    NoTokenThere { host: String },
    /// A web page where a file or JSON was expected.
    WebPage,
    /// A way from https to http.
    Insecure,
    /// More redirects than are followed.
    Redirects,
    /// No answer at all.
    Unanswered(Fault),
    /// 5xx
    Server,
    /// An asset or an answer exceeds its cap.
    TooLarge,
    /// The answer is no list of releases, or of another release.
    Nonsense,
    /// The token of the settings cannot stand in a header.
    Token,
}

/// Why a release could not be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct SourceError {
    pub fault: SourceFault,
    /// What happened; a sentence without its period, and clean.
    text: String,
}

impl SourceError {
    pub fn new(fault: SourceFault, text: impl Into<String>) -> Self {
        Self { fault, text: text.into() }
    }

    pub fn not_found(text: impl Into<String>) -> Self {
        Self::new(SourceFault::NotFound, text)
    }

    /// It took too long.
    pub fn timeout(text: impl Into<String>) -> Self {
        Self::new(SourceFault::Unanswered(Fault::Timeout), text)
    }

    pub fn is_not_found(&self) -> bool {
        self.fault == SourceFault::NotFound
    }

    /// Another try may help, and one for less even more.
    pub fn may_pass(&self) -> bool {
        match &self.fault {
            SourceFault::TooLarge | SourceFault::Server => true,
            SourceFault::Unanswered(fault) => {
                !matches!(fault, Fault::UnknownAuthority | Fault::Certificate | Fault::PlainHttp)
            }
            _ => false,
        }
    }

    /// What helps, as an imperative sentence without its period; the same for every error of a kind.
    pub fn advice(&self) -> Option<String> {
        let later = "try again later; the release server is at fault";
        Some(match &self.fault {
            SourceFault::NotFound => return None,
            SourceFault::NoRepository { has_token: true } => {
                format!("check {REPO}, and that {GITHUB_TOKEN} may read it")
            }
            SourceFault::NoRepository { has_token: false } => {
                format!("check {REPO}, or set {GITHUB_TOKEN} if the repository is private")
            }
            SourceFault::Unauthorized { has_token: true } => {
                format!("check {GITHUB_TOKEN}: it is wrong, or has expired")
            }
            SourceFault::Unauthorized { has_token: false } => format!("set {GITHUB_TOKEN}"),
            SourceFault::Forbidden { has_token: true } => format!("check the rights of {GITHUB_TOKEN}"),
            SourceFault::Forbidden { has_token: false } => {
                format!("set {GITHUB_TOKEN}, if the server wants to know who asks")
            }
            SourceFault::RateLimit { has_token: true } => "wait until the limit resets".to_owned(),
            SourceFault::RateLimit { has_token: false } => {
                format!("set {GITHUB_TOKEN} to raise the limit, or wait until it resets")
            }
            SourceFault::SecondaryLimit => {
                "wait, and let fewer programs ask at the same time with this token or from this address".to_owned()
            }
            SourceFault::SingleSignOn => {
                format!("authorise {GITHUB_TOKEN} for the organisation's single sign-on, at the address that is named")
            }
            SourceFault::AllowList => {
                "add this machine's address to the organisation's list of allowed addresses".to_owned()
            }
            SourceFault::NoTokenThere { host } => format!(
                "set {GITHUB_TOKEN_HOSTS}={host} if the token may go there too, or name the API's address in {GITHUB_API} as the server itself does"
            ),
            SourceFault::WebPage | SourceFault::Nonsense => {
                format!("check {GITHUB_API}: it must be the base of a GitHub, Gitea or Forgejo API")
            }
            SourceFault::Insecure => {
                "let the release server redirect to https only; if it has no TLS at all, say http in PROCESSGIT_UPDATER_GITHUB_API".to_owned()
            }
            SourceFault::Redirects => format!("check {GITHUB_API}: its server redirects in a circle"),
            SourceFault::Unanswered(fault) => unanswered(fault),
            SourceFault::Server => later.to_owned(),
            SourceFault::TooLarge => "tell the publisher of the release".to_owned(),
            SourceFault::Token => format!("check {GITHUB_TOKEN} for a line break or another stray character"),
        })
    }

    /// All of it: what happened, and what helps.
    pub fn told(&self) -> String {
        match self.advice() {
            None => self.text.clone(),
            Some(remedy) => {
                let mut letters = remedy.chars();
                let first = letters.next().into_iter().flat_map(char::to_uppercase);
                format!("{}. {}", self.text, first.chain(letters).collect::<String>())
            }
        }
    }
}

fn unanswered(fault: &Fault) -> String {
    match fault {
        Fault::Dns => format!("check the host in {GITHUB_API}, and this machine's name server"),
        Fault::Refused => format!("check host and port in {GITHUB_API}, and that the server runs"),
        Fault::Unreachable => "check this machine's network and firewall".to_owned(),
        Fault::UnknownAuthority => {
            format!(
                "name the CA that signed the server's certificate with {CA_FILE}, or install the system's CA certificates"
            )
        }
        Fault::Certificate => {
            "renew the server's certificate, or use the name that it is for; check this machine's clock".to_owned()
        }
        Fault::PlainHttp => format!("say http:// in {GITHUB_API} if that server has no TLS"),
        Fault::Tls => "check the server's TLS, and proxies between".to_owned(),
        Fault::Timeout => "try again; if it stays slow, look at the network or the release server".to_owned(),
        Fault::BrokenOff | Fault::Other => "try again; if it stays so, look at proxies between".to_owned(),
        Fault::Proxy { variable } => {
            format!("correct {variable}, or name the host in NO_PROXY if it is reached without the proxy")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_the_remedy_that_fits() {
        let token = |has_token| (SourceFault::Unauthorized { has_token }, SourceFault::RateLimit { has_token });
        let no_answer = SourceFault::Unanswered;
        for (fault, remedy) in [
            (token(true).0, "Check PROCESSGIT_UPDATER_GITHUB_TOKEN: it is wrong, or has expired"),
            (token(false).0, "Set PROCESSGIT_UPDATER_GITHUB_TOKEN"),
            (token(true).1, "Wait until the limit resets"),
            (token(false).1, "Set PROCESSGIT_UPDATER_GITHUB_TOKEN to raise the limit"),
            (
                SourceFault::NoTokenThere { host: "git.example:3000".into() },
                "Set PROCESSGIT_UPDATER_GITHUB_TOKEN_HOSTS=git.example:3000",
            ),
            (no_answer(Fault::UnknownAuthority), "PROCESSGIT_UPDATER_CA_FILE"),
            (no_answer(Fault::Proxy { variable: "HTTPS_PROXY" }), "Correct HTTPS_PROXY, or name the host in NO_PROXY"),
            (no_answer(Fault::PlainHttp), "Say http:// in PROCESSGIT_UPDATER_GITHUB_API"),
            (no_answer(Fault::Dns), "Check the host in PROCESSGIT_UPDATER_GITHUB_API"),
        ] {
            let told = SourceError::new(fault.clone(), "it happened").told();
            assert!(told.starts_with("it happened. ") && told.contains(remedy), "{fault:?}: {told}");
        }
        assert_eq!(SourceError::not_found("there is none").told(), "there is none");
    }
}
