//! `release.json`, schema version 1: what a release says of itself. Pure: bytes in, manifest or the
//! first broken rule out. Whether it is genuine, meant for us and wanted is decided elsewhere.

mod fields;
#[cfg(test)]
mod tests;

use std::str::FromStr;

use jiff::Timestamp;
use semver::Version;
use serde_json::Value;

use crate::platform::is_platform;
use crate::reference::{is_registry, is_repository, is_sha256, is_tag};
use fields::{Fields, Strict, texts_in, wrong};

/// The largest manifest that is read, in bytes.
pub const MANIFEST_CAP: usize = 1024 * 1024;

/// The longest short text, in bytes: a name, an issuer, an address.
const SHORT: usize = 2048;
/// The longest entry of a list of texts, in bytes, and the most entries.
const ENTRY: usize = 4096;
const ENTRIES: usize = 100;
/// The longest release notes, in bytes.
const NOTES: usize = 256 * 1024;
/// The longest version or tag, in bytes: what `POST /update` accepts.
const VERSION: usize = 128;
/// The longest downtime that is believed, in seconds: a week.
const DOWNTIME: u64 = 7 * 24 * 3600;

/// Why a manifest is refused. The text names the field, what it holds and what is accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    #[error("release.json has {found} bytes; at most {MANIFEST_CAP} are accepted")]
    TooLarge { found: usize },
    #[error("release.json is not UTF-8: byte {at} is none; publish it as UTF-8")]
    NotUtf8 { at: usize },
    #[error("release.json begins with a byte order mark; publish it without")]
    ByteOrderMark,
    #[error("release.json is not the JSON that is accepted: {0}")]
    NotJson(String),
    #[error("release.json: {field} is missing")]
    Missing { field: String },
    #[error("release.json: {field} is not known; schema version 1 has {known} there")]
    Unknown { field: String, known: String },
    #[error("release.json: {field} has {found} {unit}; at most {most} are accepted")]
    TooLong { field: String, found: usize, unit: &'static str, most: usize },
    #[error("release.json: {field} is {found}; accepted is {accepted}")]
    Wrong { field: String, found: String, accepted: String },
}

/// A manifest that keeps every rule of schema version 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// The application.
    pub name: String,
    pub version: Version,
    /// `v` and the version.
    pub tag: String,
    pub released_at: Timestamp,
    pub prerelease: bool,
    /// The oldest version that may be updated directly.
    pub min_upgrade_from: Option<Version>,
    pub image: Image,
    pub signing: Signing,
    /// `http(s)://…`, or empty.
    pub release_notes_url: String,
    pub release_notes_markdown: Option<String>,
    pub migration: Migration,
    pub breaking_changes: Vec<String>,
    pub deprecations: Vec<String>,
}

/// The image of a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// `host[:port]`
    pub registry: String,
    pub repository: String,
    /// What is written to `.env`.
    pub tag: String,
    /// `sha256:` and 64 lowercase hexadecimal digits: what is pulled.
    pub digest: String,
    /// At least one `os/arch[/variant]`.
    pub platforms: Vec<String>,
    pub additional_tags: Vec<String>,
}

/// What the publisher says of its signing. It never decides who is trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signing {
    /// `cosign-keyless`
    pub method: String,
    pub issuer: String,
    pub identity_regex: String,
    pub rekor_log_index: Option<u64>,
}

/// What has to run, with the new image, before the new version starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migration {
    pub required: bool,
    /// Argument vector, never given to a shell. Always there when required.
    pub command: Option<Vec<String>>,
    pub estimated_downtime_seconds: Option<u64>,
}

impl Manifest {
    /// Reads and checks a manifest.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > MANIFEST_CAP {
            return Err(ManifestError::TooLarge { found: bytes.len() });
        }
        let text = std::str::from_utf8(bytes).map_err(|e| ManifestError::NotUtf8 { at: e.valid_up_to() })?;
        if text.starts_with('\u{feff}') {
            return Err(ManifestError::ByteOrderMark);
        }
        let Strict(value) = serde_json::from_str(text).map_err(|e| ManifestError::NotJson(e.to_string()))?;
        Self::from_fields(Fields::new("", value)?)
    }

    /// `registry/repository:tag`
    pub fn image_reference(&self) -> String {
        format!("{}/{}:{}", self.image.registry, self.image.repository, self.image.tag)
    }

    /// `registry/repository@digest`
    pub fn digest_reference(&self) -> String {
        format!("{}/{}@{}", self.image.registry, self.image.repository, self.image.digest)
    }

    fn from_fields(mut top: Fields) -> Result<Self, ManifestError> {
        // First, because another schema would break other rules in misleading ways.
        top.required("schema_version", "1", |value| (value.as_u64() == Some(1)).then_some(()))?;
        let name = top.text("name", VERSION, "the application's name", |text| !text.is_empty())?;
        let version = top.required("version", "a SemVer version without v, such as 0.1.2", semver)?;
        let tag = format!("v{version}");
        top.required("tag", &format!("{tag:?}, which is v and the version"), |value| {
            (value.as_str() == Some(tag.as_str())).then_some(())
        })?;
        let manifest = Self {
            name,
            version,
            tag,
            released_at: top.required("released_at", "an RFC 3339 time, such as 2026-01-31T12:00:00Z", rfc3339)?,
            prerelease: top.required("prerelease", "true or false", Value::as_bool)?,
            min_upgrade_from: top.required("min_upgrade_from", "a SemVer version without v, or null", |value| {
                if value.is_null() { Some(None) } else { semver(value).map(Some) }
            })?,
            image: image(top.object("image")?)?,
            signing: signing(top.object("signing")?)?,
            release_notes_url: top.text("release_notes_url", SHORT, "an http or https address, or \"\"", is_address)?,
            release_notes_markdown: notes(&mut top)?,
            migration: migration(top.object("migration")?)?,
            breaking_changes: top.texts("breaking_changes", ENTRIES, ENTRY)?,
            deprecations: top.texts("deprecations", ENTRIES, ENTRY)?,
        };
        for informative in ["binaries", "source", "build"] {
            top.optional(informative, "anything", |_| Some(()))?;
        }
        top.finish()?;
        Ok(manifest)
    }
}

fn image(mut fields: Fields) -> Result<Image, ManifestError> {
    let image = Image {
        registry: fields.text(
            "registry",
            SHORT,
            "host[:port] with a dot or a port in it, such as ghcr.io",
            is_registry,
        )?,
        repository: fields.text("repository", SHORT, "lowercase path components, such as owner/name", is_repository)?,
        tag: fields.text("tag", SHORT, "letters, digits and _ . -, at most 128", is_tag)?,
        digest: fields.text("digest", SHORT, "sha256: and 64 lowercase hexadecimal digits", is_sha256)?,
        platforms: fields.required("platforms", "at least one os/arch[/variant], such as linux/amd64", |value| {
            let platforms = texts_in(value)?;
            let good = (1..=ENTRIES).contains(&platforms.len()) && platforms.iter().all(|text| is_platform(text));
            good.then_some(platforms)
        })?,
        additional_tags: fields
            .optional("additional_tags", "a list of at most 100 tags", |value| {
                texts_in(value).filter(|tags| tags.len() <= ENTRIES && tags.iter().all(|tag| is_tag(tag)))
            })?
            .unwrap_or_default(),
    };
    fields.finish()?;
    Ok(image)
}

fn signing(mut fields: Fields) -> Result<Signing, ManifestError> {
    let signing = Signing {
        method: fields.text("method", SHORT, "\"cosign-keyless\"", |text| text == "cosign-keyless")?,
        issuer: fields.text("issuer", SHORT, "the OIDC issuer", |text| !text.is_empty())?,
        identity_regex: fields.text("identity_regex", SHORT, "a regular expression", |text| !text.is_empty())?,
        rekor_log_index: fields.optional("rekor_log_index", "a whole number", Value::as_u64)?,
    };
    fields.finish()?;
    Ok(signing)
}

fn migration(mut fields: Fields) -> Result<Migration, ManifestError> {
    let required = fields.required("required", "true or false", Value::as_bool)?;
    let accepted = "a command of at most 4096 bytes, as one text or as a list of arguments";
    let command = fields.optional("command", accepted, command)?.filter(|argv| !argv.is_empty());
    let seconds = format!("whole seconds, at most {DOWNTIME}");
    let estimated_downtime_seconds = fields.optional("estimated_downtime_seconds", &seconds, |value| {
        value.as_u64().filter(|seconds| *seconds <= DOWNTIME)
    })?;
    fields.finish()?;
    if required && command.is_none() {
        return Err(wrong("migration.command", &Value::Null, "a command, because migration.required is true"));
    }
    Ok(Migration { required, command, estimated_downtime_seconds })
}

fn notes(top: &mut Fields) -> Result<Option<String>, ManifestError> {
    let accepted = format!("a text of at most {NOTES} bytes");
    top.optional("release_notes_markdown", &accepted, |value| {
        value.as_str().filter(|text| text.len() <= NOTES).map(str::to_owned)
    })
}

fn semver(value: &Value) -> Option<Version> {
    value.as_str().filter(|text| text.len() < VERSION).and_then(|text| Version::parse(text).ok())
}

/// A text is split into arguments as a shell would, but nothing is expanded.
fn command(value: &Value) -> Option<Vec<String>> {
    let argv = match value {
        Value::String(text) => shell_words::split(text).ok()?,
        list => texts_in(list)?,
    };
    let size: usize = argv.iter().map(|argument| argument.len() + 1).sum();
    let good = size <= ENTRY && argv.iter().all(|argument| !argument.contains('\0'));
    let named = argv.first().is_none_or(|program| !program.is_empty());
    (good && named).then_some(argv)
}

/// `2026-01-31T12:00:00.5+01:00`: jiff alone would also take dates without seconds and zone names.
fn rfc3339(value: &Value) -> Option<Timestamp> {
    let text = value.as_str()?;
    let (seconds, rest) = text.split_at_checked("2026-01-31T12:00:00".len())?;
    let shape = seconds.bytes().zip(b"dddd-dd-ddTdd:dd:dd").all(|(found, wanted)| match wanted {
        b'd' => found.is_ascii_digit(),
        wanted => found.eq_ignore_ascii_case(wanted),
    });
    let zone = rest.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    let zoned = zone.eq_ignore_ascii_case("z") || (zone.len() == 6 && zone.as_bytes()[3] == b':');
    (shape && zoned).then(|| Timestamp::from_str(text).ok())?
}

/// Shown as a link, so no other scheme will do.
fn is_address(text: &str) -> bool {
    let parsed = url::Url::parse(text);
    text.is_empty() || parsed.is_ok_and(|url| matches!(url.scheme(), "http" | "https"))
}
