//! The Sigstore that keyless signatures are checked against: the public one, built in as a snapshot, or
//! the operator's `trusted_root.json`.

use std::path::Path;

use jiff::Timestamp;
use sigstore_verify::Verifier;
use sigstore_verify::trust_root::{SIGSTORE_PRODUCTION_TRUSTED_ROOT, TimeRange, TrustedRoot};
use sigstore_verify::types::LogId;

use super::policy::{PolicyError, read_text};

const SETTING: &str = "PROCESSGIT_UPDATER_TRUSTED_ROOT";
const BUILT_IN: &str = "the built-in public Sigstore root";

/// When the built-in root was published: sigstore-trust-root 0.15.1 on crates.io (`pubtime` of its index).
pub const BUILT_IN_SINCE: Timestamp = Timestamp::constant(1_792_742_354, 0);

/// Certificate authorities, logs and timestamp authorities, ready to check with.
pub struct Root {
    pub(super) verifier: Verifier,
    trusted: TrustedRoot,
    source: String,
    since: Option<Timestamp>,
}

impl Root {
    /// The root in `file`, or the built-in public one. Blocking.
    ///
    /// # Errors
    /// A file that is unreadable, no trusted root, or one that no keyless signature could ever satisfy.
    pub fn load(file: Option<&Path>) -> Result<Self, PolicyError> {
        let (json, name, since) = match file {
            None => (SIGSTORE_PRODUCTION_TRUSTED_ROOT.to_owned(), BUILT_IN.to_owned(), Some(BUILT_IN_SINCE)),
            Some(path) => {
                let json = read_text(path).map_err(|why| {
                    error(file, format!("{why}; expected a Sigstore trusted_root.json, or nothing for the public one"))
                })?;
                (json, format!("the trusted root {}", path.display()), modified(path))
            }
        };
        let trusted =
            TrustedRoot::from_json(&json).map_err(|e| error(file, format!("is no trusted_root.json: {e}")))?;
        Self::new(trusted, &name, since).map_err(|problem| error(file, problem))
    }

    /// The public root as a refresh brought it at `since`.
    pub(super) fn refreshed(trusted: TrustedRoot, since: Timestamp) -> Result<Self, String> {
        Self::new(trusted, "the refreshed public Sigstore root", Some(since))
    }

    fn new(trusted: TrustedRoot, name: &str, since: Option<Timestamp>) -> Result<Self, String> {
        for (part, count) in [
            ("certificateAuthorities", trusted.certificate_authorities.len()),
            ("tlogs", trusted.tlogs.len()),
            ("ctlogs", trusted.ctlogs.len()),
        ] {
            if count == 0 {
                return Err(format!("has no {part}: no signature could ever be checked with it"));
            }
        }
        let verifier = Verifier::new(&trusted).map_err(|error| format!("cannot be used: {error}"))?;
        let source = match since {
            Some(since) => format!("{name} of {}", since.strftime("%Y-%m-%d")),
            None => name.to_owned(),
        };
        Ok(Self { verifier, trusted, source, since })
    }

    /// Since when it is as it is: published, last changed, or refreshed.
    pub fn since(&self) -> Option<Timestamp> {
        self.since
    }

    /// The base URLs of the transparency logs.
    pub fn logs(&self) -> impl Iterator<Item = &str> {
        self.trusted.tlogs.iter().map(|log| log.base_url.as_str())
    }

    /// The log is one of the root's.
    pub fn knows_log(&self, id: &LogId) -> bool {
        self.trusted.tlogs.iter().any(|log| log.log_id == *id)
    }

    /// Which root it is, and of which day.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Set when no authority of some kind is valid at `now` any more: what has been signed since cannot
    /// hold, and the operator should be told why.
    pub fn ended(&self, now: Timestamp) -> Option<String> {
        let windows: [(&str, Vec<Option<TimeRange>>); 4] = [
            ("certificate authority", self.trusted.certificate_authorities.iter().map(|ca| ca.valid_for).collect()),
            ("transparency log", self.trusted.tlogs.iter().map(|log| log.public_key.valid_for).collect()),
            ("certificate log", self.trusted.ctlogs.iter().map(|log| log.public_key.valid_for).collect()),
            ("timestamp authority", self.trusted.timestamp_authorities.iter().map(|tsa| tsa.valid_for).collect()),
        ];
        windows.iter().find_map(|(kind, windows)| {
            // An instance without an end never ends.
            let ends: Vec<i64> = windows.iter().map(|w| Some(w.as_ref()?.end?.as_second())).collect::<Option<_>>()?;
            let last = Timestamp::from_second(ends.into_iter().max()?).ok().filter(|end| *end < now)?;
            Some(format!("every {kind} of {} ended by {last}", self.source))
        })
    }
}

impl std::fmt::Debug for Root {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Root").field("source", &self.source).finish_non_exhaustive()
    }
}

fn modified(file: &Path) -> Option<Timestamp> {
    Timestamp::try_from(std::fs::metadata(file).ok()?.modified().ok()?).ok()
}

fn error(file: Option<&Path>, problem: String) -> PolicyError {
    PolicyError { setting: SETTING, value: file.map(|f| f.display().to_string()).unwrap_or_default(), problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_public_root_is_usable() {
        let root = Root::load(None).unwrap();
        assert!(root.logs().any(|log| log == "https://rekor.sigstore.dev"));
        assert_eq!(root.ended("2026-11-01T00:00:00Z".parse().unwrap()), None);
        assert_eq!(root.source(), "the built-in public Sigstore root of 2026-10-23");
        // Another version brings another root: its date belongs here, and in BUILT_IN_SINCE.
        let lock = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock")).unwrap();
        assert!(lock.contains("name = \"sigstore-trust-root\"\nversion = \"0.15.1\""));
    }

    #[test]
    fn a_root_that_could_never_hold_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("root.json");
        let table = [
            ("", "is empty"),
            ("{", "is no trusted_root.json"),
            (r#"{"mediaType":"x"}"#, "no certificateAuthorities"),
            (r#"{"mediaType":"x","certificateAuthorities":[{"uri":"u","certChain":{"certificates":[]}}]}"#, "no tlogs"),
        ];
        for (json, problem) in table {
            std::fs::write(&path, json).unwrap();
            let error = Root::load(Some(&path)).unwrap_err().to_string();
            assert!(error.contains(problem) && error.contains(SETTING), "{error} should say {problem:?}");
        }
        assert!(Root::load(Some(&folder.path().join("absent"))).is_err());
    }

    #[test]
    fn an_aged_root_says_so() {
        let mut json: serde_json::Value = serde_json::from_str(SIGSTORE_PRODUCTION_TRUSTED_ROOT).unwrap();
        for log in json["tlogs"].as_array_mut().unwrap() {
            log["publicKey"]["validFor"] =
                serde_json::json!({"start": "2021-01-12T11:53:27Z", "end": "2031-01-01T00:00:00Z"});
        }
        let trusted = TrustedRoot::from_json(&json.to_string()).unwrap();
        let aged = Root::new(trusted, "the test root", None).unwrap();
        assert_eq!(aged.ended("2030-01-01T00:00:00Z".parse().unwrap()), None);
        let said = aged.ended("2032-01-01T00:00:00Z".parse().unwrap()).unwrap();
        assert!(said.starts_with("every transparency log of the test root ended by 2031-01-01"), "{said}");
    }
}
