//! Whom the operator trusts. Every fault is an error that names the setting: nothing here falls back to
//! trusting more than was asked for.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use regex::Regex;

use super::key::PinnedKey;
use crate::settings::Signing;

/// Bytes of a key file or a trusted root that are read; the public root is 10 KiB.
pub(crate) const FILE_CAP: u64 = 1024 * 1024;

pub(crate) const KEY: &str = "PROCESSGIT_UPDATER_SIGNING_KEY";
const ISSUER: &str = "PROCESSGIT_UPDATER_SIGNING_ISSUER";
const IDENTITY: &str = "PROCESSGIT_UPDATER_SIGNING_IDENTITY_REGEX";

/// A setting that makes no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting}={value}: {problem}")]
pub struct PolicyError {
    /// The variable's name.
    pub setting: &'static str,
    /// What it is set to.
    pub value: String,
    /// What is wrong with it, and what would be accepted.
    pub problem: String,
}

/// Whom the operator trusts.
#[derive(Debug)]
pub enum Policy {
    /// The holder of this key.
    Key(PinnedKey),
    /// Whoever `issuer` vouches for under an identity that matches.
    Keyless { issuer: String, identity: Identity },
}

/// The identity that must have signed: the operator's expression, anchored at both ends.
#[derive(Debug)]
pub struct Identity {
    configured: String,
    anchored: Regex,
}

impl Policy {
    /// Reads the policy from the settings. Blocking: a key is read from its file.
    ///
    /// # Errors
    /// An empty issuer or expression, an expression that does not compile, a key file that is unreadable,
    /// empty or holds anything but one usable public key.
    pub fn from_settings(signing: &Signing) -> Result<Self, PolicyError> {
        if let Some(path) = &signing.key {
            let error = |problem| PolicyError { setting: KEY, value: path.display().to_string(), problem };
            let pem = read_text(path)
                .map_err(|why| error(format!("{why}; expected a file with a PEM public key (cosign.pub)")))?;
            let key = PinnedKey::from_pem(&pem).map_err(error)?;
            if signing.verify_image && !key.signs_images() {
                return Err(error(
                    "is an Ed25519 key, which cannot sign images (cosign signs them with a variant nobody else \
                     checks): use an ECDSA P-256 key, or set PROCESSGIT_UPDATER_VERIFY_IMAGE=false"
                        .into(),
                ));
            }
            return Ok(Self::Key(key));
        }
        if signing.issuer.trim().is_empty() {
            let problem = "is empty: expected the address of the OIDC issuer that must have vouched for the signer, \
                 like https://token.actions.githubusercontent.com"
                .into();
            return Err(PolicyError { setting: ISSUER, value: signing.issuer.clone(), problem });
        }
        let identity = Identity::new(&signing.identity_regex).map_err(|problem| PolicyError {
            setting: IDENTITY,
            value: signing.identity_regex.clone(),
            problem,
        })?;
        Ok(Self::Keyless { issuer: signing.issuer.trim().to_owned(), identity })
    }
}

impl Identity {
    /// # Errors
    /// An empty expression, or one that does not compile on its own.
    pub fn new(expression: &str) -> Result<Self, String> {
        if expression.trim().is_empty() {
            return Err("is empty: expected a regular expression for the identity that must have signed".into());
        }
        // Compiled alone first: `a)|(?:b` would be valid, and no longer anchored, between our brackets.
        Regex::new(expression).map_err(|error| format!("is no regular expression: {error}"))?;
        let anchored = Regex::new(&format!("^(?:{expression})$"))
            .map_err(|error| format!("cannot be anchored at both ends: {error}"))?;
        Ok(Self { configured: expression.to_owned(), anchored })
    }

    /// The whole of `identity` matches.
    pub fn matches(&self, identity: &str) -> bool {
        self.anchored.is_match(identity)
    }

    /// As the operator wrote it.
    pub fn configured(&self) -> &str {
        &self.configured
    }
}

/// Reads a whole text file of at most [`FILE_CAP`] bytes, or says why not.
pub(crate) fn read_text(path: &Path) -> Result<String, String> {
    let file = File::open(path).map_err(|error| format!("cannot be read: {error}"))?;
    if !file.metadata().map_err(|error| format!("cannot be read: {error}"))?.is_file() {
        return Err("is no regular file".into());
    }
    let mut text = String::new();
    file.take(FILE_CAP + 1).read_to_string(&mut text).map_err(|error| format!("cannot be read: {error}"))?;
    if text.len() as u64 > FILE_CAP {
        return Err(format!("is larger than {FILE_CAP} bytes"));
    }
    if text.trim().is_empty() {
        return Err("is empty".into());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signing() -> Signing {
        Signing {
            key: None,
            issuer: "https://issuer.example".into(),
            identity_regex: "^https://example/.*$".into(),
            trusted_root: None,
            refreshed_root: None,
            verify_image: true,
        }
    }

    #[test]
    fn identities_match_as_a_whole_only() {
        let table = [
            ("https://a/b", "https://a/b", true),
            ("https://a/b", "https://a/bc", false),
            ("https://a/b", "xhttps://a/b", false),
            ("^https://a/.*$", "https://a/anything", true),
            ("^https://a/.*$", "https://evil/?https://a/x", false),
            ("one|two", "one", true),
            ("one|two", "two", true),
            ("one|two", "one!", false),
            ("one|two", "!two", false),
            ("one", "one\n", false),
            ("(?m)one", "one\ntwo", false),
            ("(?m)^one$", "zero\none", false),
            ("(?i)ONE", "one", true),
            ("o.e", "o\ne", false),
            (r"https://github\.com/o/r", "https://githubXcom/o/r", false),
        ];
        for (expression, identity, expected) in table {
            let matches = Identity::new(expression).unwrap().matches(identity);
            assert_eq!(matches, expected, "{expression:?} against {identity:?}");
        }
    }

    #[test]
    fn expressions_that_would_loosen_the_anchors_are_no_policy() {
        for expression in ["", "  \t", "a)|(?:b", "(", "(?x)one # comment", "a{9999}{9999}"] {
            assert!(Identity::new(expression).is_err(), "{expression:?}");
        }
    }

    #[test]
    fn a_fault_names_its_setting() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            Some(path)
        };
        let private = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        let ed25519 = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
        let table = [
            (Signing { issuer: String::new(), ..signing() }, ISSUER, "is empty"),
            (Signing { issuer: "  ".into(), ..signing() }, ISSUER, "is empty"),
            (Signing { identity_regex: String::new(), ..signing() }, IDENTITY, "is empty"),
            (Signing { identity_regex: "(".into(), ..signing() }, IDENTITY, "no regular expression"),
            (Signing { key: Some(folder.path().join("absent")), ..signing() }, KEY, "cannot be read"),
            (Signing { key: Some(folder.path().into()), ..signing() }, KEY, "no regular file"),
            (Signing { key: file("empty", "\n"), ..signing() }, KEY, "is empty"),
            (Signing { key: file("text", "hello"), ..signing() }, KEY, "PEM public key"),
            (Signing { key: file("private", private), ..signing() }, KEY, "PRIVATE KEY"),
            (Signing { key: file("ed25519", ed25519), ..signing() }, KEY, "cannot sign images"),
        ];
        for (signing, setting, problem) in table {
            let error = Policy::from_settings(&signing).unwrap_err();
            assert_eq!(error.setting, setting, "{error}");
            assert!(error.to_string().contains(problem), "{error} should say {problem:?}");
        }
        let files_only = Signing { key: file("ed", ed25519), verify_image: false, ..signing() };
        assert!(Policy::from_settings(&files_only).is_ok());
    }

    proptest::proptest! {
        #[test]
        fn no_expression_panics_and_anchors_hold(expression: String, identity: String) {
            let _ = PinnedKey::from_pem(&expression);
            let _ = PinnedKey::from_pem(&format!("-----BEGIN PUBLIC KEY-----\n{expression}\n-----END PUBLIC KEY-----"));
            if let Ok(policy) = Identity::new(&expression) {
                let _ = policy.matches(&identity);
            }
            // What stands for itself matches itself and nothing around it.
            let literal = format!("x{}", regex::escape(&identity));
            let policy = Identity::new(&literal).map_err(proptest::test_runner::TestCaseError::fail)?;
            let whole = format!("x{identity}");
            let (after, before) = (format!("{whole}y"), format!("y{whole}"));
            proptest::prop_assert!(policy.matches(&whole));
            proptest::prop_assert!(!policy.matches(&after) && !policy.matches(&before));
        }
    }
}
