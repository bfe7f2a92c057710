//! The `.env` editor: sets one key the way Compose will read it, and leaves every other byte alone.
//!
//! The core is pure and works on bytes; [`file`] puts the result on disk, atomically and durably.
//! What a value *means* is decided by Compose's own reader (compose-go's `dotenv`), whose rules are
//! kept in `scan`. Interpolation is the one thing not done here: `${OTHER}` is told as it is written.

mod deployed;
pub mod file;
mod scan;

pub use deployed::DeployedEnv;
pub use file::{aio, get_file, read, set_file, unset_file, write_atomic};

use std::borrow::Cow;
use std::ops::Range;

use scan::{Statement, decode, line_end, scan};
use serde::{Deserialize, Serialize};

use crate::update::ports::IoCause;

/// The largest `.env` that is read, in bytes.
pub const CAP: usize = 1024 * 1024;

/// Put before an assignment that Compose would have let win over the one that was set.
const DUPLICATE: &[u8] = b"# duplicate, disabled by processgit-updater: ";

/// Why a `.env` could not be read or changed. The texts are complete and go to the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EnvFileError {
    /// Nothing to look for.
    #[error("the key is empty: name the variable to set, such as PROCESSGIT_VERSION")]
    EmptyKey,
    /// Compose would not read a line with this key.
    #[error("the key {0:?} cannot stand in a .env file: use letters, digits and _ . - only")]
    BadKey(String),
    /// No line of a `.env` can carry it.
    #[error("the value for {0} holds a NUL character, which no .env file can carry")]
    BadValue(String),
    /// Compose refuses the file, and whatever were appended would be inside the quotes.
    #[error("line {line}: the quoted value never ends, so Compose cannot read this file: close the {quote} quote")]
    Unterminated { line: usize, quote: char },
    /// A mount point cannot be replaced by rename.
    #[error(
        "{path} is itself a mount, so it cannot be replaced atomically (EBUSY): mount the folder that holds it \
         instead of the file"
    )]
    Mounted { path: String },
    /// It was made by somebody else, and stays theirs.
    #[error("cannot keep {path} owned by {uid}:{gid}: run the updater as root or as that user ({source})")]
    Owner { path: String, uid: u32, gid: u32, source: IoCause },
    /// An attribute of the file or of its folder forbids it, for root too.
    #[error("{path} has the attribute {flag}, so nothing can replace it: `chattr -{flag} {}` takes it away", shell_words::quote(.path))]
    Flagged { path: String, flag: char },
    /// In a sticky folder, and somebody else's.
    #[error(
        "{path} belongs to user {owner} and is in a folder with the sticky bit, so user {us} cannot replace it: run the updater as that user or as root"
    )]
    Sticky { path: String, owner: u32, us: u32 },
    /// A link that leads to nothing.
    #[error(
        "{path} is a link to {target}, which does not exist here: mount the folder that holds it at the same path, or make {path} a file"
    )]
    Dangling { path: String, target: String },
    /// A folder, a pipe, a device.
    #[error("{path} is not a regular file: point PROCESSGIT_UPDATER_ENV_FILE at the deployment's .env")]
    NotAFile { path: String },
    /// More than [`CAP`].
    #[error("{path} is larger than {CAP} bytes, which no .env is: point PROCESSGIT_UPDATER_ENV_FILE at the right file")]
    TooLarge { path: String },
    /// Anything else the system said.
    #[error("cannot {action} {path}: {source}")]
    Io { action: Cow<'static, str>, path: String, source: IoCause },
}

/// What [`set`] made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edited {
    /// The whole new file.
    pub bytes: Vec<u8>,
    /// What Compose read before; of several assignments that is the last one.
    pub previous: Option<String>,
    /// The key stood in the file, with a value or (`KEY` alone: taken from the environment) without.
    pub had_key: bool,
}

/// The value Compose reads for `key`: of several assignments the last. Bytes that are no UTF-8 come
/// back as `U+FFFD`. `None`: absent, or only named without a value.
pub fn get(bytes: &[u8], key: &str) -> Option<String> {
    let statements = scan(bytes).statements;
    let value = statements.iter().rev().filter(|s| s.is(bytes, key)).find_map(|s| s.value.clone())?;
    Some(String::from_utf8_lossy(&decode(&bytes[value])).into_owned())
}

/// The keys that are given a value, in the order of the file. Bytes that are no UTF-8 come back as `U+FFFD`.
pub fn assigned(bytes: &[u8]) -> Vec<String> {
    let statements = scan(bytes).statements.into_iter().filter(|s| s.value.is_some());
    statements.map(|s| String::from_utf8_lossy(&bytes[s.key]).into_owned()).collect()
}

/// Sets `key`. The first assignment is replaced, later ones are commented out and marked, a missing key
/// is appended. Comments, other keys, line endings and a missing last newline stay.
pub fn set(bytes: &[u8], key: &str, value: &str) -> Result<Edited, EnvFileError> {
    if value.contains('\0') {
        return Err(EnvFileError::BadValue(key.to_owned()));
    }
    let statements = statements_of(bytes, key)?;
    let new = put(bytes, &statements, key, New::Value(value));
    Ok(Edited { bytes: new, previous: get(bytes, key), had_key: !statements.is_empty() })
}

/// Puts `key` back to what it was in `before`, in a file that somebody else has changed since: the very
/// text of its value, interpolation and quotes included, or no assignment at all.
pub fn set_back(now: &[u8], before: &[u8], key: &str) -> Result<Vec<u8>, EnvFileError> {
    let statements = statements_of(now, key)?;
    let old = scan(before).statements.into_iter().rev().filter(|s| s.is(before, key)).find_map(|s| s.value);
    match old {
        Some(value) => Ok(put(now, &statements, key, New::Raw(&before[value]))),
        // Absent, or taken from the environment, which beats the file anyway: no assignment.
        None => {
            let edits = statements.iter().flat_map(|s| remove(now, s)).collect();
            Ok(apply(now, edits))
        }
    }
}

/// What takes the old value's place.
#[derive(Clone, Copy)]
enum New<'a> {
    /// Gets quotes where it needs them.
    Value(&'a str),
    /// Text as it stood in a `.env`.
    Raw(&'a [u8]),
}

impl New<'_> {
    /// The text to write; `bare`: what follows on the line lets an unquoted value end where it should.
    fn text(self, bare: bool) -> Vec<u8> {
        match self {
            New::Value(value) => encode(value, bare),
            New::Raw(raw) if bare || matches!(raw.first(), Some(b'"' | b'\'')) => raw.to_vec(),
            New::Raw(raw) => encode(&String::from_utf8_lossy(&decode(raw)), false),
        }
    }

    /// `text` already says this. A `$` may be meant for interpolation, so it never counts as equal.
    fn is(self, text: &[u8]) -> bool {
        match self {
            New::Value(value) => !value.contains('$') && decode(text) == value.as_bytes(),
            New::Raw(raw) => text == raw,
        }
    }
}

/// Every statement about `key`; the key is checked, and so is that the file can be appended to.
fn statements_of(bytes: &[u8], key: &str) -> Result<Vec<Statement>, EnvFileError> {
    if key.is_empty() {
        return Err(EnvFileError::EmptyKey);
    }
    if !key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)) {
        return Err(EnvFileError::BadKey(key.to_owned()));
    }
    let scanned = scan(bytes);
    if let Some((at, quote)) = scanned.unterminated {
        let line = 1 + bytes[..at].iter().filter(|b| **b == b'\n').count();
        return Err(EnvFileError::Unterminated { line, quote: char::from(quote) });
    }
    Ok(scanned.statements.into_iter().filter(|s| s.is(bytes, key)).collect())
}

fn put(bytes: &[u8], statements: &[Statement], key: &str, new: New) -> Vec<u8> {
    let Some((first, duplicates)) = statements.split_first() else {
        return append(bytes, key, new);
    };
    let mut edits = vec![replace(bytes, first, new)];
    edits.extend(duplicates.iter().flat_map(|s| comment_out(bytes, s)));
    apply(bytes, edits)
}

/// One splice: these bytes become those.
type Edit = (Range<usize>, Vec<u8>);

/// Does the edits, which are in order and apart.
fn apply(bytes: &[u8], edits: Vec<Edit>) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 256);
    let mut at = 0;
    for (range, text) in edits {
        out.extend_from_slice(&bytes[at..range.start]);
        out.extend(text);
        at = range.end;
    }
    out.extend_from_slice(&bytes[at..]);
    out
}

fn replace(bytes: &[u8], statement: &Statement, new: New) -> Edit {
    let Some(value) = statement.value.clone() else {
        let text = [b"=".as_slice(), &new.text(true)].concat();
        return (statement.key.end..statement.key.end, text);
    };
    if new.is(&bytes[value.clone()]) {
        return (value.start..value.start, Vec::new());
    }
    // `KEY= # note`: Compose takes the note for the value, but a note is what was meant. It stays one.
    let note = bytes[value.clone()].starts_with(b"#") && matches!(bytes[value.start - 1], b' ' | b'\t');
    if note {
        let text = [new.text(true).as_slice(), b" "].concat();
        let text = if text == b" " { b"'' ".to_vec() } else { text };
        return (value.start..value.start, text);
    }
    let rest = &bytes[value.end..line_end(bytes, value.end)];
    let gap = rest.iter().take_while(|b| b.is_ascii_whitespace()).count();
    let bare = gap == rest.len() || (rest[gap] == b'#' && gap > 0 && rest[gap - 1] == b' ');
    let text = new.text(bare);
    // An empty bare value would make the note the value.
    let text = if text.is_empty() && gap < rest.len() { b"''".to_vec() } else { text };
    (value, text)
}

/// Turns a statement into a comment, on each of its lines, without taking anything else with it.
fn comment_out(bytes: &[u8], statement: &Statement) -> Vec<Edit> {
    let mut edits = vec![(statement.start..statement.start, DUPLICATE.to_vec())];
    let breaks = (statement.start..statement.end).filter(|at| bytes[*at] == b'\n');
    edits.extend(breaks.map(|at| (at + 1..at + 1, b"# ".to_vec())));
    let rest = bytes[statement.end..line_end(bytes, statement.end)].trim_ascii_start();
    if !rest.is_empty() && !rest.starts_with(b"#") {
        edits.push((statement.end..statement.end, line_ending(bytes).to_vec()));
    }
    edits
}

/// Takes a statement's lines away, or makes a comment of it where it shares them with something else.
fn remove(bytes: &[u8], statement: &Statement) -> Vec<Edit> {
    let line_start = bytes[..statement.start].iter().rposition(|b| *b == b'\n').map_or(0, |n| n + 1);
    let end = line_end(bytes, statement.end);
    let blank = |range: Range<usize>| bytes[range].trim_ascii().is_empty();
    let text_end = statement.value.as_ref().map_or(statement.key.end, |value| value.end);
    if !blank(line_start..statement.start) || !blank(text_end..end) {
        return comment_out(bytes, statement);
    }
    if end < bytes.len() {
        return vec![(line_start..end + 1, Vec::new())];
    }
    // The last line had no newline; the one before it shall have none either.
    let before = bytes[..line_start].strip_suffix(b"\n").unwrap_or(b"");
    let before = before.strip_suffix(b"\r").unwrap_or(before);
    vec![(before.len()..end, Vec::new())]
}

fn append(bytes: &[u8], key: &str, new: New) -> Vec<u8> {
    let ending = line_ending(bytes);
    let body = bytes.strip_prefix(scan::BOM).unwrap_or(bytes);
    let open = !body.is_empty() && !body.ends_with(b"\n");
    let mut out = bytes.to_vec();
    if open {
        out.extend_from_slice(ending);
    }
    out.extend_from_slice(key.as_bytes());
    out.push(b'=');
    out.extend(new.text(true));
    if !open {
        out.extend_from_slice(ending);
    }
    out
}

/// As the last line ends.
fn line_ending(bytes: &[u8]) -> &'static [u8] {
    match bytes.iter().rposition(|b| *b == b'\n') {
        Some(at) if at > 0 && bytes[at - 1] == b'\r' => b"\r\n",
        _ => b"\n",
    }
}

/// A value as Compose reads it back: bare where possible, literal in single quotes, escaped in double.
fn encode(value: &str, bare: bool) -> Vec<u8> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_./:@+,%=-~^".contains(&b);
    if bare && value.bytes().all(plain) {
        return value.as_bytes().to_vec();
    }
    // In single quotes `\'` is an escape and a line break is kept; what would need either is escaped.
    if !value.contains(['\'', '\\', '\n', '\r']) {
        return format!("'{value}'").into_bytes();
    }
    let mut text = String::from("\"");
    for c in value.chars() {
        match c {
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '"' | '\\' | '$' => text.extend(['\\', c]),
            c => text.push(c),
        }
    }
    text.push('"');
    text.into_bytes()
}

#[cfg(test)]
mod tests;
