//! Why something is not trusted, or could not be judged: a kind that code decides by, a sentence, and what helps. Pure.

use sigstore_verify::{CertificateError, Error, TimestampError, TransparencyLogError};

use crate::https::fault::{Fault, Server};
use crate::registry::{RegistryError, RegistryFault};
use crate::settings::name::{
    SIGNING_IDENTITY_REGEX, SIGNING_ISSUER, SIGNING_KEY, TRUSTED_ROOT, TRUSTED_ROOT_REFRESH, VERIFY_IMAGE,
};
use crate::update::refusal::{Code, Explained, Remedy};

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustFault {
    // Checked, and not genuine.
    /// There is no signature at all.
    Unsigned(Signed),
    /// What should carry a signature holds something else, or cannot be read.
    NoSignature,
    /// Signed in the other way: without a key although one is set, or with one although none is.
    Method { key_is_set: bool },
    /// It proves nothing about these bytes, or contradicts itself.
    Invalid,
    /// Signed by somebody else than this setting says. With a key, other bytes cannot be told from another key.
    Signer(Rule),
    /// Nothing proves when it was made.
    Undated,
    /// It was made with a Sigstore that the trusted root does not know, or not any more.
    Root,
    /// It was made in the future, or in another time than its certificate.
    Clock,
    /// The manifest names another way to sign, or another issuer, than the settings.
    Differs,
    // Could not be checked.
    /// Because of the registry.
    Registry(Box<RegistryError>),
    /// The transparency log at this host could not be asked.
    Log { host: String, fault: LogFault },
    /// A file of this machine cannot be read.
    File,
    /// A setting makes no policy.
    NoPolicy,
    /// A fault of this program.
    Broken,
}

/// What a signature is to be about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signed {
    Manifest,
    Image,
}

/// The settings that say whose signature counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    Key,
    Issuer,
    Identity,
}

/// Why a transparency log did not say what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogFault {
    /// No answer at all.
    Unanswered(Fault),
    /// 429 or 5xx
    Busy,
    /// No answer of a log.
    Nonsense,
}

/// Why something is not trusted. The text says what was found and what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct TrustError {
    pub fault: TrustFault,
    /// What happened; a sentence without its period.
    text: String,
}

impl TrustError {
    pub fn new(fault: TrustFault, text: impl Into<String>) -> Self {
        Self { fault, text: text.into() }
    }

    /// What the library found wrong. `signer` is who must have signed by the policy, if a wrong signature may as well
    /// be another's.
    pub(super) fn of_library(error: &Error, signer: Option<Rule>, text: String) -> Self {
        use CertificateError as Certificate;
        use TimestampError as Stamp;
        use TransparencyLogError as Log;
        let invalid = signer.map_or(TrustFault::Invalid, TrustFault::Signer);
        let fault = match error {
            Error::IdentityMismatch { .. } => TrustFault::Signer(Rule::Identity),
            Error::IssuerMismatch { .. } => TrustFault::Signer(Rule::Issuer),
            Error::SignatureInvalid(_) | Error::ArtifactMismatch(_) => invalid,
            Error::Certificate(Certificate::Malformed(_)) | Error::TransparencyLog(Log::MalformedEntry(_)) => {
                TrustFault::NoSignature
            }
            Error::Certificate(Certificate::NotYetValid { .. } | Certificate::Expired { .. }) => TrustFault::Invalid,
            Error::Certificate(_) => TrustFault::Root,
            Error::TransparencyLog(Log::UnknownLog { .. } | Log::Checkpoint(_)) => TrustFault::Root,
            Error::TransparencyLog(Log::IntegratedTime(_)) => TrustFault::Clock,
            Error::TransparencyLog(_) => TrustFault::Invalid,
            Error::Timestamp(Stamp::NoVerifiedTimestamp(_)) => TrustFault::Undated,
            Error::Timestamp(_) => TrustFault::Root,
            Error::InvalidTrustRoot(_) | Error::TrustRoot(_) | Error::TrustedCertificate(_) => TrustFault::Root,
            Error::ArtifactRead(_) => TrustFault::Broken,
            Error::UnsupportedArtifact(_)
            | Error::InvalidBundle(_)
            | Error::UnsupportedBundle(_)
            | Error::Types(_)
            | Error::Crypto(_)
            | Error::Bundle(_) => TrustFault::NoSignature,
            // The library may learn further ones.
            _ => TrustFault::Invalid,
        };
        Self::new(fault, text)
    }

    /// The same error, said of `name`.
    #[must_use]
    pub(super) fn of(self, name: &str) -> Self {
        match self.fault {
            TrustFault::Registry(_) => self,
            fault => Self { fault, text: format!("{name}: {}", self.text) },
        }
    }

    /// It was checked, and is not genuine: never try again. Otherwise it could not be checked.
    pub fn is_refusal(&self) -> bool {
        use RegistryFault::{Missing, Name, TooLarge, WrongDigest};
        use TrustFault::{Broken, File, Log, NoPolicy, Registry};
        match &self.fault {
            Registry(why) => matches!(why.fault, Name | Missing | TooLarge | WrongDigest),
            Log { .. } | File | NoPolicy | Broken => false,
            _ => true,
        }
    }

    /// Of several signatures that do not count, the one that comes nearest says what helps: the highest.
    pub(super) fn nearness(&self) -> u8 {
        use TrustFault::{Clock, Invalid, Method, NoSignature, Root, Signer, Undated, Unsigned};
        match self.fault {
            Clock | Root | Undated => 5,
            Signer(_) => 4,
            Invalid => 3,
            Method { .. } => 2,
            NoSignature | Unsigned(_) => 0,
            _ => 1,
        }
    }
}

impl From<RegistryError> for TrustError {
    fn from(error: RegistryError) -> Self {
        Self { text: error.to_string(), fault: TrustFault::Registry(Box::new(error)) }
    }
}

impl Explained for TrustError {
    fn code(&self) -> Code {
        match &self.fault {
            _ if self.is_refusal() => Code::NotTrusted,
            TrustFault::Registry(why) => why.code(),
            TrustFault::NoPolicy => Code::PolicyInvalid,
            TrustFault::Broken => Code::Internal,
            _ => Code::NotVerifiable,
        }
    }

    fn remedy(&self) -> Option<Remedy> {
        let bundle = "release.json.sigstore.json";
        Some(Remedy::Text(match &self.fault {
            TrustFault::Unsigned(Signed::Manifest) => format!(
                "ask the publisher to sign release.json and to attach {bundle} (cosign sign-blob --bundle {bundle} release.json)"
            ),
            TrustFault::Unsigned(Signed::Image) => format!(
                "ask the publisher to sign the image (cosign sign); where the signed manifest, which names the image's digest, is enough, set {VERIFY_IMAGE}=false"
            ),
            TrustFault::NoSignature => format!(
                "ask the publisher to sign anew as cosign does it: the manifest with cosign sign-blob --bundle {bundle}, the image with cosign sign"
            ),
            TrustFault::Method { key_is_set: true } => format!(
                "if the publisher confirms that releases are signed without a key, remove {SIGNING_KEY}, and say with {SIGNING_ISSUER} and {SIGNING_IDENTITY_REGEX} who must have signed"
            ),
            TrustFault::Method { key_is_set: false } => format!(
                "if the publisher confirms that releases are signed with a key, get its public key (cosign.pub) and name the file with {SIGNING_KEY}"
            ),
            TrustFault::Invalid => {
                "do not install this release: it is not what was signed. Tell its publisher".to_owned()
            }
            TrustFault::Signer(Rule::Key) => format!(
                "do not install it unless the publisher confirms another key; then name the file of that key with {SIGNING_KEY}"
            ),
            TrustFault::Signer(Rule::Issuer) => {
                format!("do not install it unless the publisher confirms that issuer; then correct {SIGNING_ISSUER}")
            }
            TrustFault::Signer(Rule::Identity) => format!(
                "do not install it unless the publisher confirms that identity; then correct {SIGNING_IDENTITY_REGEX}"
            ),
            TrustFault::Undated => format!("ask the publisher to attach {bundle}, which proves when it was signed"),
            TrustFault::Root => format!(
                "if the publisher signs with a Sigstore of its own, name its trusted_root.json with {TRUSTED_ROOT}; with the public one, set {TRUSTED_ROOT_REFRESH}=true, because its keys change"
            ),
            TrustFault::Clock => {
                "check this machine's clock (`date`); if it is right, do not install this, and tell its publisher"
                    .to_owned()
            }
            TrustFault::Differs => {
                format!("ask the publisher which of both is right; if it is the manifest, correct {SIGNING_ISSUER}")
            }
            TrustFault::Registry(why) => return Explained::remedy(&**why),
            TrustFault::Log { host, fault: LogFault::Unanswered(fault) } => fault.remedy(Server::Log(host)),
            TrustFault::Log { fault: LogFault::Busy, .. } => {
                format!("try again later, or ask the publisher to attach {bundle}, with which no log is asked")
            }
            TrustFault::Log { host, fault: LogFault::Nonsense } => format!(
                "look at what stands between here and {host}, or ask the publisher to attach {bundle}, with which no log is asked"
            ),
            TrustFault::File => "correct the path, or let this program read the file".to_owned(),
            TrustFault::NoPolicy => "correct the setting that is named".to_owned(),
            TrustFault::Broken => return None,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Login;
    use crate::update::refusal::Refusal;

    fn registry(fault: RegistryFault) -> TrustFault {
        TrustFault::Registry(Box::new(RegistryError::new(fault, "r:5000", "it happened")))
    }

    /// Every kind: its code, and the remedy that fits it alone.
    #[test]
    fn each_kind_has_the_code_and_the_remedy_that_fit() {
        use TrustFault::*;
        let log = |fault| Log { host: "rekor.example".into(), fault };
        let silent = |fault| registry(RegistryFault::Unanswered { fault, elsewhere: None });
        let (trusted, verifiable) = (Code::NotTrusted, Code::NotVerifiable);
        let rows: Vec<(TrustFault, Code, &str)> = vec![
            (Unsigned(Signed::Manifest), trusted, "Ask the publisher to sign release.json and to attach"),
            (Unsigned(Signed::Image), trusted, "Ask the publisher to sign the image (cosign sign); where"),
            (NoSignature, trusted, "Ask the publisher to sign anew"),
            (Method { key_is_set: true }, trusted, "remove PROCESSGIT_UPDATER_SIGNING_KEY, and say with"),
            (Method { key_is_set: false }, trusted, "name the file with PROCESSGIT_UPDATER_SIGNING_KEY"),
            (Invalid, trusted, "Do not install this release"),
            (Signer(Rule::Key), trusted, "confirms another key; then name the file of that key with"),
            (Signer(Rule::Issuer), trusted, "then correct PROCESSGIT_UPDATER_SIGNING_ISSUER"),
            (Signer(Rule::Identity), trusted, "then correct PROCESSGIT_UPDATER_SIGNING_IDENTITY_REGEX"),
            (Undated, trusted, "Ask the publisher to attach release.json.sigstore.json, which proves when"),
            (
                Root,
                trusted,
                "with PROCESSGIT_UPDATER_TRUSTED_ROOT; with the public one, set PROCESSGIT_UPDATER_TRUSTED_ROOT_REFRESH=true",
            ),
            (Clock, trusted, "Check this machine's clock"),
            (Differs, trusted, "if it is the manifest, correct PROCESSGIT_UPDATER_SIGNING_ISSUER"),
            (
                log(LogFault::Unanswered(Fault::UnknownAuthority)),
                verifiable,
                "the certificate of rekor.example with PROCESSGIT_UPDATER_CA_FILE",
            ),
            (log(LogFault::Unanswered(Fault::Dns)), verifiable, "Let this machine reach rekor.example"),
            (log(LogFault::Unanswered(Fault::Proxy { variable: "HTTPS_PROXY" })), verifiable, "Correct HTTPS_PROXY"),
            (log(LogFault::Busy), verifiable, "Try again later"),
            (log(LogFault::Nonsense), verifiable, "Look at what stands between here and rekor.example"),
            (silent(Fault::UnknownAuthority), Code::RegistryFailed, "with PROCESSGIT_UPDATER_CA_FILE"),
            (silent(Fault::PlainHttp), Code::RegistryFailed, "insecure-registries"),
            (registry(RegistryFault::RateLimit { anonymous: false }), Code::RegistryFailed, "Try again later"),
            (registry(RegistryFault::Denied(Login::None)), Code::RegistryDenied, "Run `docker login r:5000`"),
            (registry(RegistryFault::Missing), trusted, "Look at r:5000: what it holds is damaged"),
            (File, verifiable, "Correct the path"),
            (NoPolicy, Code::PolicyInvalid, "Correct the setting that is named"),
        ];
        for (fault, code, remedy) in rows {
            let refusal = Refusal::from(TrustError::new(fault.clone(), "it happened"));
            let told = refusal.to_string();
            assert_eq!(refusal.code, code, "{fault:?}");
            assert!(told.starts_with("it happened. ") && told.contains(remedy), "{fault:?}: {told}");
            let is_of_a_signer = matches!(fault, Signer(_) | Method { .. } | Differs);
            assert_eq!(told.contains("SIGNING_"), is_of_a_signer, "{fault:?}: {told}");
            let is_login = matches!(&fault, Registry(why) if why.is_denied());
            assert_eq!(told.contains("docker login"), is_login, "{fault:?}: {told}");
            assert_eq!(TrustError::new(fault, "").is_refusal(), code == trusted);
        }
        assert_eq!(TrustError::new(Broken, "").code(), Code::Internal, "and nobody can help");
    }

    /// Of several signatures the one that comes nearest says what helps.
    #[test]
    fn the_nearest_fault_is_told() {
        use TrustFault::*;
        let from_far = [
            vec![NoSignature, Unsigned(Signed::Image)],
            vec![Differs, File],
            vec![Method { key_is_set: true }],
            vec![Invalid],
            vec![Signer(Rule::Key), Signer(Rule::Identity)],
            vec![Undated, Clock, Root],
        ];
        for (farther, nearer) in from_far.iter().zip(&from_far[1..]) {
            for (a, b) in farther.iter().flat_map(|a| nearer.iter().map(move |b| (a, b))) {
                let nearness = |fault: &TrustFault| TrustError::new(fault.clone(), "").nearness();
                assert!(nearness(a) < nearness(b), "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn the_library_has_kinds_too() {
        let text = String::new;
        let (key, time) = (Some(Rule::Key), "2026-01-01T00:00:00Z".parse().unwrap());
        for (error, signer, expected) in [
            (Error::SignatureInvalid(text()), None, TrustFault::Invalid),
            (Error::SignatureInvalid(text()), key, TrustFault::Signer(Rule::Key)),
            (Error::ArtifactMismatch(text()), None, TrustFault::Invalid),
            (Error::IssuerMismatch { expected: text(), actual: None }, None, TrustFault::Signer(Rule::Issuer)),
            (CertificateError::ChainInvalid(text()).into(), None, TrustFault::Root),
            (CertificateError::Expired { time, not_after: time }.into(), None, TrustFault::Invalid),
            (CertificateError::NotYetValid { time, not_before: time }.into(), key, TrustFault::Invalid),
            (Error::ArtifactRead(std::io::ErrorKind::Other.into()), None, TrustFault::Broken),
            (CertificateError::Malformed(text()).into(), None, TrustFault::NoSignature),
            (CertificateError::Sct(text()).into(), None, TrustFault::Root),
            (TransparencyLogError::UnknownLog { log_id: text() }.into(), None, TrustFault::Root),
            (TransparencyLogError::IntegratedTime(text()).into(), None, TrustFault::Clock),
            (TransparencyLogError::EntryMismatch(text()).into(), key, TrustFault::Invalid),
            (TimestampError::Invalid(text()).into(), None, TrustFault::Root),
            (TimestampError::NoVerifiedTimestamp(text()).into(), None, TrustFault::Undated),
            (Error::InvalidBundle(text()), None, TrustFault::NoSignature),
            (Error::UnsupportedBundle(text()), None, TrustFault::NoSignature),
            (Error::InvalidTrustRoot(text()), None, TrustFault::Root),
        ] {
            assert_eq!(TrustError::of_library(&error, signer, text()).fault, expected, "{error:?}");
        }
    }
}
