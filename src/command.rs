//! Commands that are printed for a person to paste. Names in them come from labels, Compose files and settings, so
//! every word is quoted for the shell: whatever a name holds, it stays one word.

use std::path::Path;

/// The words as one line of a POSIX shell.
pub fn line<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    shell_words::join(words)
}

/// One word of such a line.
pub fn word(text: &str) -> String {
    shell_words::quote(text).into_owned()
}

/// A path as one word of such a line.
pub fn path(path: &Path) -> String {
    word(&path.display().to_string())
}
