//! Why a release could not be had: a kind that code decides by, a sentence, and what helps. Pure.

use crate::https::fault::{Fault, Server};
use crate::settings::name::{GITHUB_API, GITHUB_TOKEN, GITHUB_TOKEN_HOSTS, REPO};

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceFault {
    /// There is no such release, or none in this channel.
    NotFound,
    /// The repository is not there, or is hidden from us.
    NoRepository { has_token: bool },
    /// The token is wrong (401).
    Unauthorized { has_token: bool },
    /// 403 for a reason that only the server's message tells: rights, a list of allowed addresses, a proxy's rule.
    Forbidden { has_token: bool },
    /// The hourly limit of requests.
    RateLimit { has_token: bool },
    /// GitHub's second limit, against too many requests at once.
    SecondaryLimit,
    /// The organisation wants the token to be authorised for its single sign-on.
    SingleSignOn,
    /// A server that got no token, because it is not the API's host, refuses or shows its login page.
    NoTokenThere { host: String },
    /// A web page where a file or JSON was expected.
    WebPage,
    /// A way from https to http.
    Insecure,
    /// More redirects than are followed.
    Redirects,
    /// No answer at all, by the host to which we were sent if that is not the API's.
    Unanswered { fault: Fault, elsewhere: Option<String> },
    /// The file is not there any more, although the release names it.
    NoFile,
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
        Self::new(SourceFault::Unanswered { fault: Fault::Timeout, elsewhere: None }, text)
    }

    pub fn is_not_found(&self) -> bool {
        self.fault == SourceFault::NotFound
    }

    /// Another try may help, and one for less even more.
    pub fn may_pass(&self) -> bool {
        match &self.fault {
            SourceFault::TooLarge | SourceFault::Server => true,
            SourceFault::Unanswered { fault, .. } => fault.may_pass(),
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
            SourceFault::Forbidden { has_token: true } => format!(
                "check the rights of {GITHUB_TOKEN}, and that its organisation and the proxies between let this machine's address in"
            ),
            SourceFault::Forbidden { has_token: false } => format!(
                "set {GITHUB_TOKEN} if the server wants to know who asks, and check that it and the proxies between let this machine's address in"
            ),
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
            SourceFault::Unanswered { fault, elsewhere: None } => fault.remedy(Server::Releases),
            SourceFault::Unanswered { fault, elsewhere: Some(host) } => fault.remedy(Server::Elsewhere(host)),
            SourceFault::NoFile => {
                "try again in a few minutes; if it stays so, tell the publisher that the release lacks the file".to_owned()
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_the_remedy_that_fits() {
        let no_answer =
            |fault, elsewhere: Option<&str>| SourceFault::Unanswered { fault, elsewhere: elsewhere.map(str::to_owned) };
        for (fault, remedy) in [
            (SourceFault::NoRepository { has_token: true }, "Check PROCESSGIT_UPDATER_REPO, and that "),
            (SourceFault::NoRepository { has_token: false }, "Check PROCESSGIT_UPDATER_REPO, or set "),
            (
                SourceFault::Unauthorized { has_token: true },
                "Check PROCESSGIT_UPDATER_GITHUB_TOKEN: it is wrong, or has expired",
            ),
            (SourceFault::Unauthorized { has_token: false }, "Set PROCESSGIT_UPDATER_GITHUB_TOKEN"),
            (
                SourceFault::Forbidden { has_token: true },
                "Check the rights of PROCESSGIT_UPDATER_GITHUB_TOKEN, and that ",
            ),
            (SourceFault::Forbidden { has_token: false }, "Set PROCESSGIT_UPDATER_GITHUB_TOKEN if the server wants"),
            (SourceFault::RateLimit { has_token: true }, "Wait until the limit resets"),
            (SourceFault::RateLimit { has_token: false }, "Set PROCESSGIT_UPDATER_GITHUB_TOKEN to raise the limit"),
            (SourceFault::SecondaryLimit, "Wait, and let fewer programs ask"),
            (SourceFault::SingleSignOn, "Authorise PROCESSGIT_UPDATER_GITHUB_TOKEN for the organisation's"),
            (
                SourceFault::NoTokenThere { host: "git.example:3000".into() },
                "Set PROCESSGIT_UPDATER_GITHUB_TOKEN_HOSTS=git.example:3000",
            ),
            (SourceFault::WebPage, "Check PROCESSGIT_UPDATER_GITHUB_API: it must be the base"),
            (SourceFault::Nonsense, "Check PROCESSGIT_UPDATER_GITHUB_API: it must be the base"),
            (SourceFault::Insecure, "Let the release server redirect to https only"),
            (SourceFault::Redirects, "Check PROCESSGIT_UPDATER_GITHUB_API: its server redirects in a circle"),
            (no_answer(Fault::UnknownAuthority, None), "PROCESSGIT_UPDATER_CA_FILE"),
            (no_answer(Fault::PlainHttp, None), "Write http:// into PROCESSGIT_UPDATER_GITHUB_API"),
            (no_answer(Fault::OnlyTls, None), "Write https:// into PROCESSGIT_UPDATER_GITHUB_API"),
            (no_answer(Fault::Dns, Some("files.example")), "Let this machine reach files.example"),
            (SourceFault::NoFile, "Try again in a few minutes"),
            (SourceFault::Server, "Try again later"),
            (SourceFault::TooLarge, "Tell the publisher"),
            (SourceFault::Token, "Check PROCESSGIT_UPDATER_GITHUB_TOKEN for a line break"),
        ] {
            let told = SourceError::new(fault.clone(), "it happened").told();
            assert!(told.starts_with("it happened. ") && told.contains(remedy), "{fault:?}: {told}");
            let is_no_answer = !matches!(fault, SourceFault::TooLarge | SourceFault::NoFile);
            assert!(!is_no_answer || !told.contains("publisher"), "{fault:?}: {told}");
            assert!(!told.contains("docker login") && !told.contains("SIGNING"), "{fault:?}: {told}");
        }
        assert_eq!(SourceError::not_found("there is none").told(), "there is none");
    }
}
