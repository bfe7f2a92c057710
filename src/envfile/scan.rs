//! Finds the statements of a `.env` file as Compose's reader does (compose-go, `dotenv/parser.go`):
//! byte-wise, not line-wise, because a quoted value may span lines and may be followed by the next
//! statement on its last one.

use std::ops::Range;

/// Editors on Windows put it first; Compose skips it.
pub(super) const BOM: &[u8] = b"\xef\xbb\xbf";

/// `[export ]KEY=value`, `KEY: value`, or `KEY` alone, as ranges of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statement {
    /// Where `export` or the key begins.
    pub start: usize,
    pub key: Range<usize>,
    /// Quotes included, inline comment not. `None`: taken from the environment.
    pub value: Option<Range<usize>>,
    /// Where Compose goes on reading: after the closing quote, or at the end of the line.
    pub end: usize,
}

impl Statement {
    pub fn is(&self, bytes: &[u8], key: &str) -> bool {
        &bytes[self.key.clone()] == key.as_bytes()
    }
}

#[derive(Debug, Default)]
pub(super) struct Scanned {
    pub statements: Vec<Statement>,
    /// The first quote that is never closed: where, and which.
    pub unterminated: Option<(usize, u8)>,
}

/// Reads the whole file. A line that Compose would refuse is stepped over: refusing is Compose's part.
pub(super) fn scan(bytes: &[u8]) -> Scanned {
    let mut scanned = Scanned::default();
    let mut at = if bytes.starts_with(BOM) { BOM.len() } else { 0 };
    while at < bytes.len() {
        if is_space(bytes[at]) || bytes[at] == b'\n' {
            at += 1;
            continue;
        }
        let statement = if bytes[at] == b'#' { None } else { statement(bytes, at, &mut scanned.unterminated) };
        match statement {
            Some(found) => {
                at = found.end;
                scanned.statements.push(found);
            }
            None => at = line_end(bytes, at),
        }
    }
    scanned
}

fn statement(bytes: &[u8], start: usize, unterminated: &mut Option<(usize, u8)>) -> Option<Statement> {
    let mut at = start;
    if let Some(rest) = bytes[start..].strip_prefix(b"export")
        && rest.first().is_some_and(|b| is_space(*b))
    {
        at = skip_space(bytes, start + b"export".len());
    }
    let (key, separator) = key(bytes, at)?;
    let Some(separator) = separator else {
        let end = line_end(bytes, at);
        return Some(Statement { start, key, value: None, end });
    };
    let from = skip_space(bytes, separator + 1);
    let (value, end) = match bytes.get(from) {
        Some(quote @ (b'"' | b'\'')) => match closing_quote(bytes, from, *quote) {
            Some(close) => (from..close + 1, close + 1),
            None => {
                unterminated.get_or_insert((from, *quote));
                return None;
            }
        },
        _ => bare(bytes, from),
    };
    Some(Statement { start, key, value: Some(value), end })
}

/// The key and where its `=` or `:` is; no separator: the line ended first.
fn key(bytes: &[u8], from: usize) -> Option<(Range<usize>, Option<usize>)> {
    let end = line_end(bytes, from);
    let separator = bytes[from..end].iter().position(|b| matches!(b, b'=' | b':')).map(|n| from + n);
    let text = bytes[from..separator.unwrap_or(end)].trim_ascii_end();
    // Compose also takes letters outside ASCII; `scan` only has to recognise them.
    let good = |b: &u8| b.is_ascii_alphanumeric() || b"_.-[]".contains(b) || !b.is_ascii();
    (!text.is_empty() && text.iter().all(good)).then(|| (from..from + text.len(), separator))
}

fn closing_quote(bytes: &[u8], open: usize, quote: u8) -> Option<usize> {
    let mut escaped = false;
    for (at, b) in bytes.iter().enumerate().skip(open + 1) {
        if *b == quote && !escaped {
            return Some(at);
        }
        escaped = *b == b'\\' && !escaped;
    }
    None
}

/// Up to ` #` or the end of the line, without white space at its end.
fn bare(bytes: &[u8], from: usize) -> (Range<usize>, usize) {
    let end = line_end(bytes, from);
    let line = &bytes[from..end];
    let text = line.windows(2).position(|w| w == b" #").map_or(line, |n| &line[..n]);
    let text = trim_end(text);
    (from..from + text.len(), end)
}

/// What Compose makes of a value's text, but for interpolation.
pub(super) fn decode(text: &[u8]) -> Vec<u8> {
    match text {
        [b'\'', inner @ .., b'\''] => unescape_quote(inner, b'\''),
        [b'"', inner @ .., b'"'] => unescape(&unescape_quote(inner, b'"')),
        bare => unescape_dollar(bare),
    }
}

/// A backslash before the quote goes; every other one stays. A pair of them is never before a quote: that one would have
/// closed the value.
fn unescape_quote(inner: &[u8], quote: u8) -> Vec<u8> {
    let mut out = Vec::with_capacity(inner.len());
    let mut at = 0;
    while at < inner.len() {
        match inner[at..] {
            [b'\\', next, ..] if next == quote => {
                out.push(quote);
                at += 2;
            }
            _ => {
                out.push(inner[at]);
                at += 1;
            }
        }
    }
    out
}

/// The escapes of double quotes: `\a \b \f \n \r \t \v \\ \" \$`, `\0` with three octal digits, and `$$`.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    loop {
        let (byte, length) = match &text[at..] {
            [b'\\', b'0', digits @ ..] if let Some(byte) = octal(digits) => (byte, 5),
            [b'\\', next, ..] if let Some(byte) = escape(*next) => (byte, 2),
            [b'$', b'$', ..] => (b'$', 2),
            [byte, ..] => (*byte, 1),
            [] => return out,
        };
        out.push(byte);
        at += length;
    }
}

fn escape(letter: u8) -> Option<u8> {
    Some(match letter {
        b'a' => 0x07,
        b'b' => 0x08,
        b'f' => 0x0c,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 0x0b,
        b'\\' | b'"' | b'$' => letter,
        _ => return None,
    })
}

fn octal(digits: &[u8]) -> Option<u8> {
    let digits = digits.get(..3)?.iter().map(|b| char::from(*b).to_digit(8));
    let value = digits.collect::<Option<Vec<_>>>()?.iter().fold(0, |sum, digit| sum * 8 + digit);
    u8::try_from(value).ok()
}

fn unescape_dollar(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for b in text {
        let second = *b == b'$' && out.last() == Some(&b'$');
        if !second {
            out.push(*b);
        }
    }
    out
}

/// White space that does not end a line.
fn is_space(b: u8) -> bool {
    matches!(b, b' ' | b'\t' | b'\r' | 0x0b | 0x0c)
}

fn skip_space(bytes: &[u8], from: usize) -> usize {
    from + bytes[from..].iter().take_while(|b| is_space(**b)).count()
}

fn trim_end(text: &[u8]) -> &[u8] {
    let kept = text.iter().rposition(|b| !is_space(*b)).map_or(0, |n| n + 1);
    &text[..kept]
}

/// Where the line of `from` ends, its newline not included.
pub(super) fn line_end(bytes: &[u8], from: usize) -> usize {
    bytes[from..].iter().position(|b| *b == b'\n').map_or(bytes.len(), |n| from + n)
}
