//! Where the health answer names the version that runs. Pure.

use std::fmt;

use regex::bytes::Regex;

/// The longest version that is looked for, in bytes: an answer is not quoted beyond it.
const LONGEST: usize = 128;

/// Where an answer names the version: what `PROCESSGIT_UPDATER_HEALTH_VERSION` says.
#[derive(Debug, Clone)]
pub enum VersionAt {
    /// JSON pointer (RFC 6901); the empty one is the whole answer.
    Pointer(String),
    /// The answer is plain text: the version and nothing else.
    Text,
    /// The first group of the expression's first match, or all of the match where it has no group.
    Match(Regex),
}

impl VersionAt {
    /// `/version` and the like, `/` for the whole answer, `text`, `re:REGEX`.
    ///
    /// # Errors
    /// What would be accepted.
    pub fn parse(text: &str) -> Result<Self, String> {
        let escapes = text.split('~').skip(1).all(|after| after.starts_with(['0', '1']));
        match text {
            "/" => Ok(Self::Pointer(String::new())),
            "text" => Ok(Self::Text),
            _ if text.starts_with('/') && escapes => Ok(Self::Pointer(text.to_owned())),
            _ => match text.strip_prefix("re:").map(Regex::new) {
                Some(Ok(regex)) => Ok(Self::Match(regex)),
                Some(Err(e)) => {
                    let why = e.to_string();
                    let why = why.lines().last().unwrap_or_default().trim().trim_start_matches("error: ");
                    Err(format!("a regular expression is accepted after re: ({why})"))
                }
                None => Err("a JSON pointer such as /version, / for a JSON string as the whole answer, text for plain text, or re: and a regular expression is accepted".to_owned()),
            },
        }
    }

    /// The version that an answer names, without a leading `v`.
    ///
    /// # Errors
    /// Why it names none.
    pub fn find(&self, body: &[u8]) -> Result<String, String> {
        let found = match self {
            Self::Pointer(pointer) => {
                let answer: serde_json::Value = serde_json::from_slice(body)
                    .map_err(|e| format!("the health answer is no JSON, but a version was expected at {self}: {e}"))?;
                match answer.pointer(pointer) {
                    Some(serde_json::Value::String(text)) => text.clone(),
                    Some(other) => other.to_string(),
                    None => return Err(format!("the health answer has nothing at {self}")),
                }
            }
            Self::Text => String::from_utf8_lossy(body).into_owned(),
            Self::Match(regex) => {
                let found =
                    regex.captures(body).ok_or_else(|| format!("nothing in the health answer matches {self}"))?;
                let group = found.get(1).or_else(|| found.get(0)).map_or(&b""[..], |group| group.as_bytes());
                String::from_utf8_lossy(group).into_owned()
            }
        };
        let found = found.trim();
        match found.strip_prefix('v').unwrap_or(found) {
            "" => Err(format!("the health answer is empty at {self}")),
            long if long.len() > LONGEST || long.contains(char::is_control) => {
                Err(format!("the health answer holds {} bytes at {self}, which is no version", long.len()))
            }
            version => Ok(version.to_owned()),
        }
    }
}

/// As the setting has it.
impl fmt::Display for VersionAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pointer(pointer) if pointer.is_empty() => f.write_str("/"),
            Self::Pointer(pointer) => f.write_str(pointer),
            Self::Text => f.write_str("text"),
            Self::Match(regex) => write!(f, "re:{}", regex.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_setting_accepts() {
        for text in ["/version", "/", "/a/b~1c/0", "text", "re:v([0-9.]+)", "re:."] {
            assert_eq!(VersionAt::parse(text).unwrap().to_string(), text);
        }
        for (text, says) in [
            ("version", "/version"),
            ("/a~2", "/version"),
            ("Text", "text for plain text"),
            ("re:(", "unclosed group"),
            ("re:*", "after re:"),
        ] {
            let error = VersionAt::parse(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn what_answers_name() {
        let long = "x".repeat(1000);
        for (at, body, expected) in [
            ("/version", r#"{"version":"1.2.0"}"#, Ok("1.2.0")),
            ("/version", r#"{"version":"v1.2.0"}"#, Ok("1.2.0")),
            ("/version", r#"{"version":12}"#, Ok("12")),
            ("/app/0", r#"{"app":["1.2.0"]}"#, Ok("1.2.0")),
            ("/version", r#"{"other":1}"#, Err("nothing at /version")),
            ("/version", "1.2.0", Err("no JSON, but a version was expected at /version")),
            ("/version", "data: x", Err("no JSON, but a version was expected at /version")),
            ("/version", r#"{"version":""}"#, Err("empty at /version")),
            ("/", r#""v1.2.0""#, Ok("1.2.0")),
            ("/", "1.2.0\n", Err("no JSON, but a version was expected at /")),
            ("text", "1.2.0", Ok("1.2.0")),
            ("text", " v1.2.0\r\n", Ok("1.2.0")),
            ("text", "", Err("empty at text")),
            ("text", &long, Err("1000 bytes at text")),
            ("text", &long[..LONGEST], Ok(&long[..LONGEST])),
            ("text", &long[..=LONGEST], Err("129 bytes at text")),
            ("text", "a\nb", Err("no version")),
            ("re:version ([0-9.]+)", "app, version 1.2.0, built today", Ok("1.2.0")),
            ("re:v[0-9.]+", "app v1.2.0 (amd64)", Ok("1.2.0")),
            ("re:version ([0-9.]+)", "app v1.2.0", Err("matches re:version")),
        ] {
            let found = VersionAt::parse(at).unwrap().find(body.as_bytes());
            match expected {
                Ok(version) => assert_eq!(found.as_deref(), Ok(version), "{at} {body}"),
                Err(says) => assert!(found.as_ref().is_err_and(|why| why.contains(says)), "{at} {body}: {found:?}"),
            }
        }
    }
}
