//! Why a registry did not give what was asked for: a kind that code decides by, a sentence, and what helps.
//! Pure.

use crate::engine::credentials::CredentialFault;
use crate::https::fault::{Fault, Server};
use crate::update::refusal::{Code, Explained, Remedy};

impl Explained for RegistryError {
    fn code(&self) -> Code {
        if self.is_denied() { Code::RegistryDenied } else { Code::RegistryFailed }
    }

    fn remedy(&self) -> Option<Remedy> {
        Some(match &self.fault {
            RegistryFault::Denied(Login::None) => {
                Remedy::Command(shell_words::join(["docker", "login", &self.registry]))
            }
            _ => Remedy::Text(Self::remedy(self)),
        })
    }
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistryFault {
    /// A name, tag or digest that no registry could have.
    Name,
    /// No answer at all, by the host to which the registry sent us if that is another.
    Unanswered { fault: Fault, elsewhere: Option<String> },
    /// It wants to know who asks, or somebody else than us (401, 403).
    Denied(Login),
    /// The token service that the registry names is on another host: it got no credentials.
    Realm { host: String },
    /// 429
    RateLimit { anonymous: bool },
    /// 5xx
    Server,
    /// Something else than a registry's answer.
    Nonsense,
    /// Gone, although something names it.
    Missing,
    /// An answer exceeds its cap.
    TooLarge,
    /// Other bytes than the digest promises.
    WrongDigest,
    /// The time or the bytes for one verification are used up.
    Budget,
}

/// What the registry was told about who we are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    /// Nothing is configured.
    None,
    /// It was refused.
    Refused,
    /// What is configured could not be used.
    Unusable(CredentialFault),
}

/// Why a registry did not give what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct RegistryError {
    pub fault: RegistryFault,
    registry: String,
    /// What happened; a sentence without its period, and clean.
    text: String,
}

impl RegistryError {
    pub fn new(fault: RegistryFault, registry: &str, text: impl Into<String>) -> Self {
        let text = match &fault {
            RegistryFault::Denied(Login::Unusable(why)) => format!("{}; {why}", text.into()),
            _ => text.into(),
        };
        Self { fault, registry: registry.to_owned(), text }
    }

    /// Other credentials are what is missing.
    pub fn is_denied(&self) -> bool {
        matches!(self.fault, RegistryFault::Denied(_) | RegistryFault::Realm { .. })
    }

    /// Asking for something else there would end in the same way.
    pub fn is_final(&self) -> bool {
        use RegistryFault::{Budget, Denied, RateLimit, Realm, Unanswered};
        matches!(self.fault, Budget | Denied(_) | RateLimit { .. } | Realm { .. } | Unanswered { .. })
    }

    /// What helps, as an imperative sentence without its period.
    pub fn remedy(&self) -> String {
        let registry = &self.registry;
        match &self.fault {
            RegistryFault::Name => "tell the publisher of the release".to_owned(),
            RegistryFault::Unanswered { fault, elsewhere: None } => fault.remedy(Server::Registry(registry)),
            RegistryFault::Unanswered { fault, elsewhere: Some(host) } => fault.remedy(Server::Elsewhere(host)),
            RegistryFault::Denied(Login::Unusable(fault)) => fault.remedy(),
            RegistryFault::Denied(Login::None | Login::Refused) => format!(
                "log in with an account that may read it, where the updater finds the configuration (DOCKER_CONFIG names its folder): docker login {registry}"
            ),
            RegistryFault::Realm { host } => format!(
                "if {host} is the registry's own token service, give it a login of its own in the same config.json: docker login {host}"
            ),
            RegistryFault::RateLimit { anonymous: true } => {
                format!("log in, which raises the limit (docker login {registry}), or try again later")
            }
            RegistryFault::RateLimit { anonymous: false } => "try again later".to_owned(),
            RegistryFault::Server => "try again later; the registry is at fault".to_owned(),
            RegistryFault::Nonsense => {
                format!("check that {registry} is a registry, and look at proxies between")
            }
            RegistryFault::Missing | RegistryFault::WrongDigest => {
                format!("look at {registry}: what it holds is damaged, or something between changes it")
            }
            RegistryFault::TooLarge => "tell the publisher of the release".to_owned(),
            RegistryFault::Budget => {
                format!(
                    "try again; if it stays so, remove what is attached to the image in {registry} and no longer needed"
                )
            }
        }
    }

    /// All of it: what happened, and what helps.
    pub fn told(&self) -> String {
        let remedy = self.remedy();
        let mut letters = remedy.chars();
        let first = letters.next().into_iter().flat_map(char::to_uppercase);
        format!("{}. {}", self.text, first.chain(letters).collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `docker login` stands only where credentials are what is missing.
    #[test]
    fn each_kind_has_the_remedy_that_fits() {
        use RegistryFault::*;
        let missing =
            CredentialFault::HelperMissing { file: "/root/.docker/config.json".into(), helper: "pass".into() };
        let no_answer = |fault| Unanswered { fault, elsewhere: None };
        let no_files = Unanswered { fault: Fault::Dns, elsewhere: Some("files.example".into()) };
        for (fault, remedy, logs_in) in [
            (Denied(Login::None), "docker login r:5000", true),
            (Denied(Login::Refused), "an account that may read it", true),
            (Denied(Login::Unusable(missing)), "Install docker-credential-pass", false),
            (Realm { host: "tokens.example".into() }, "docker login tokens.example", true),
            (RateLimit { anonymous: true }, "docker login r:5000", true),
            (RateLimit { anonymous: false }, "Try again later", false),
            (Server, "the registry is at fault", false),
            (no_answer(Fault::UnknownAuthority), "PROCESSGIT_UPDATER_CA_FILE", false),
            (no_answer(Fault::PlainHttp), "insecure-registries", false),
            (no_answer(Fault::Proxy { variable: "HTTPS_PROXY" }), "Correct HTTPS_PROXY", false),
            (no_answer(Fault::Dns), "Check the name r:5000", false),
            (no_answer(Fault::Refused), "Check host and port of r:5000", false),
            (no_answer(Fault::CertificateDates), "clock", false),
            (no_files, "Let this machine reach files.example", false),
            (WrongDigest, "damaged", false),
            (Budget, "Try again", false),
        ] {
            let error = RegistryError::new(fault, "r:5000", "it happened");
            let told = error.told();
            assert!(told.starts_with("it happened") && told.contains(remedy), "{told}");
            assert_eq!(told.contains("docker login"), logs_in, "{told}");
        }
    }
}
