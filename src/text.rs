//! Text from outside: release names, servers' refusals, what containers print. Cleaned where it comes in or goes
//! out, so that it can neither command a terminal nor look like something else. Pure.

use std::borrow::Cow;

/// What stands in the place of a character that is not shown.
const REPLACEMENT: char = '\u{fffd}';

/// `text` without what could command a terminal or reorder what is shown: control characters but the tab, marks and
/// overrides of writing direction, characters of no width, line and paragraph separators.
pub fn clean(text: &str) -> Cow<'_, str> {
    if text.contains(is_hidden) { Cow::Owned(text.replace(is_hidden, "\u{fffd}")) } else { Cow::Borrowed(text) }
}

/// As [`clean`], for a text of several lines.
pub fn clean_lines(text: &str) -> Cow<'_, str> {
    let is_bad = |c: char| is_hidden(c) && c != '\n';
    if text.contains(is_bad) { Cow::Owned(text.replace(is_bad, "\u{fffd}")) } else { Cow::Borrowed(text) }
}

/// JSON in which hidden characters stand as `\\uXXXX`: the same value, and nothing for a terminal to obey.
pub fn escaped_json(json: &str) -> Cow<'_, str> {
    // White space between values is not hidden; everything else that is, stands in a string.
    let is_bad = |c: char| is_hidden(c) && !matches!(c, '\n' | '\r');
    if !json.contains(is_bad) {
        return Cow::Borrowed(json);
    }
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        match is_bad(c) {
            true => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| escaped.push_str(&format!("\\u{unit:04x}"))),
            false => escaped.push(c),
        }
    }
    Cow::Owned(escaped)
}

/// One clean line of at most `most` characters: white space is one blank, and what is left out is shown as `…`.
pub fn line(text: &str, most: usize) -> String {
    let mut line = String::new();
    for word in text.split(|c: char| c.is_whitespace()).filter(|word| !word.is_empty()) {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
        if line.len() > most * 4 {
            break;
        }
    }
    let line = clean(&line);
    match line.char_indices().nth(most) {
        None => line.into_owned(),
        Some((end, _)) => format!("{}…", &line[..end]),
    }
}

/// What a terminal obeys, or what is there without being seen.
fn is_hidden(c: char) -> bool {
    match c {
        '\t' => false,
        // Soft hyphen; Arabic letter mark; Mongolian vowel separator.
        '\u{ad}' | '\u{61c}' | '\u{180e}' => true,
        // Zero width, left-to-right and right-to-left marks; separators, embeddings and overrides.
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' => true,
        // Invisible operators, isolates, deprecated format characters.
        '\u{2060}'..='\u{206f}' => true,
        // Byte order mark; interlinear annotations; tags.
        '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}' => true,
        c => c.is_control() && c != REPLACEMENT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_hidden_is_shown() {
        for (text, expected) in [
            ("plain ä\tx 日本 👍", "plain ä\tx 日本 👍"),
            ("עברית", "עברית"),
            ("\u{1b}[2Jgone", "\u{fffd}[2Jgone"),
            ("a\rb\u{9b}c\u{7f}", "a\u{fffd}b\u{fffd}c\u{fffd}"),
            ("two\nlines", "two\u{fffd}lines"),
            ("v1\u{202e}0.2v\u{202c}", "v1\u{fffd}0.2v\u{fffd}"),
        ] {
            assert_eq!(clean(text), expected);
        }
        let hidden = [0x61c, 0x200b, 0x200c, 0x200d, 0x200e, 0x200f, 0x2028, 0x2029, 0x202a, 0x202b, 0x202c, 0x202d]
            .into_iter()
            .chain([0x202e, 0x2060, 0x2066, 0x2067, 0x2068, 0x2069, 0xfeff, 0xad, 0xe0041])
            .chain(0..0x09)
            .chain(0x0b..0x20)
            .chain(0x7f..0xa0);
        for c in hidden.map(|code| char::from_u32(code).unwrap()) {
            let text = format!("a{c}b");
            assert_eq!(clean(&text), "a\u{fffd}b", "{c:?}");
            assert_eq!(clean_lines(&text), "a\u{fffd}b", "{c:?}");
        }
        assert_eq!(clean_lines("a\n\u{1b}b\r\n"), "a\n\u{fffd}b\u{fffd}\n");
    }

    #[test]
    fn json_stays_what_it_is() {
        for text in ["plain", "a\u{202e}b", "tags \u{e0041}", "\u{9b}31m", "two\nlines"] {
            let json = serde_json::json!({ "name": text }).to_string();
            let escaped = escaped_json(&json);
            assert!(!escaped.contains(is_hidden), "{escaped}");
            let read: serde_json::Value = serde_json::from_str(&escaped).unwrap();
            assert_eq!(read["name"], text);
        }
        assert_eq!(escaped_json("{\n}\n"), "{\n}\n");
    }

    #[test]
    fn a_line_is_one_short_line() {
        for (text, most, expected) in [
            ("", 5, ""),
            ("  a \n\n b\t\tc ", 9, "a b c"),
            ("abcdef", 6, "abcdef"),
            ("abcdefg", 6, "abcdef…"),
            ("ääääää b", 3, "äää…"),
            ("\u{1b}]0;title\u{7}", 30, "\u{fffd}]0;title\u{fffd}"),
        ] {
            assert_eq!(line(text, most), expected);
        }
        assert!(line(&"x ".repeat(1_000_000), 10).len() < 40);
    }

    proptest::proptest! {
        #[test]
        fn cleaning_twice_changes_nothing_more(text in ".*") {
            let once = clean(&text).into_owned();
            proptest::prop_assert_eq!(clean(&once).into_owned(), once.clone());
            proptest::prop_assert!(!once.contains(is_hidden));
            proptest::prop_assert_eq!(once.chars().count(), text.chars().count());
        }
    }
}
