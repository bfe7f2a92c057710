//! Bytes as they arrive, cut into lines.

/// The longest line that is passed on, in bytes. What is longer comes in pieces, so that nothing is lost
/// and nothing grows without bound.
pub const LONGEST_LINE: usize = 8 * 1024;

/// Collects bytes and gives back whole lines, without their line ending. Bytes that are no UTF-8 are
/// replaced.
#[derive(Debug, Default)]
pub struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// Takes the next bytes; the lines that are complete now.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        self.rest.extend_from_slice(bytes);
        let mut lines = Vec::new();
        let mut from = 0;
        while let Some((line, next)) = next_line(&self.rest[from..]) {
            lines.push(text(line));
            from += next;
        }
        self.rest.drain(..from);
        lines
    }

    /// What is left when nothing more will come: a last line without an ending.
    pub fn finish(&mut self) -> Option<String> {
        let rest = std::mem::take(&mut self.rest);
        (!rest.is_empty()).then(|| text(&rest))
    }
}

/// The first line of `bytes` and where the one after it begins; `None` while it is incomplete.
fn next_line(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let within = &bytes[..bytes.len().min(LONGEST_LINE + 1)];
    match within.iter().position(|byte| *byte == b'\n') {
        Some(end) => Some((&bytes[..end], end + 1)),
        None if bytes.len() > LONGEST_LINE => {
            let end = character_boundary(bytes, LONGEST_LINE);
            Some((&bytes[..end], end))
        }
        None => None,
    }
}

/// The last place at or before `at` that is not inside a UTF-8 character (at most three bytes earlier).
fn character_boundary(bytes: &[u8], at: usize) -> usize {
    (at.saturating_sub(3)..=at).rev().find(|place| bytes[*place] & 0xC0 != 0x80).unwrap_or(at)
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(chunks: &[&[u8]]) -> Vec<String> {
        let mut lines = Lines::default();
        let mut out: Vec<String> = chunks.iter().flat_map(|chunk| lines.push(chunk)).collect();
        out.extend(lines.finish());
        out
    }

    #[test]
    fn lines_are_put_together_and_taken_apart() {
        let cases: &[(&[&[u8]], &[&str])] = &[
            (&[], &[]),
            (&[b"a\nb\n"], &["a", "b"]),
            (&[b"a", b"b\n", b"c"], &["ab", "c"]),
            (&[b"a\r\n\n"], &["a", ""]),
            (&[b"\xff\n"], &["\u{fffd}"]),
            (&["ä".as_bytes().split_at(1).0, "ä".as_bytes().split_at(1).1], &["ä"]),
        ];
        for (chunks, expected) in cases {
            assert_eq!(all(chunks), *expected, "{chunks:?}");
        }
    }

    #[test]
    fn a_line_without_end_comes_in_pieces() {
        let long = format!("x{}\n", "ä".repeat(LONGEST_LINE));
        let pieces = all(&[long.as_bytes()]);
        assert!(pieces.iter().all(|piece| piece.len() <= LONGEST_LINE && !piece.contains('\u{fffd}')));
        assert_eq!(pieces.concat(), long.trim_end());
        let exact = "y".repeat(LONGEST_LINE);
        assert_eq!(all(&[exact.as_bytes(), b"\n"]), [exact]);
    }
}
