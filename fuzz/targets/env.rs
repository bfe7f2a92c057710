//! `.env`: the first line is the value to set, the rest is the file.

use processgit_updater::envfile::{EnvFileError, get, set, set_back};

const KEY: &str = "APP_VERSION";
/// Keys that are not ours.
const OTHERS: [&str; 4] = ["TITLE", "A", "LAST", "_x.y-z"];

/// What was set is read back, other keys keep their value, a second time changes nothing, and the way back
/// leads back.
pub fn fuzz(bytes: &[u8]) {
    let (value, file) = match bytes.iter().position(|b| *b == b'\n') {
        Some(end) => (&bytes[..end], &bytes[end + 1..]),
        None => (bytes, &b""[..]),
    };
    let value = String::from_utf8_lossy(value).into_owned();
    let before = get(file, KEY);
    let edited = match set(file, KEY, &value) {
        Ok(edited) => edited,
        Err(EnvFileError::BadValue(_)) => return assert!(value.contains('\0')),
        Err(EnvFileError::Unterminated { .. }) => return,
        Err(other) => panic!("{other}"),
    };
    assert_eq!(edited.previous, before, "what was there");
    assert_eq!(get(&edited.bytes, KEY).as_deref(), Some(value.as_str()), "what was set");
    for other in OTHERS {
        assert_eq!(get(&edited.bytes, other), get(file, other), "{other} is not ours");
    }
    let again = set(&edited.bytes, KEY, &value).expect("it could be set once");
    assert_eq!(get(&again.bytes, KEY).as_deref(), Some(value.as_str()));
    assert!(value.contains('$') || again.bytes == edited.bytes, "a second time changes nothing");
    let back = set_back(&edited.bytes, file, KEY).expect("it could be set");
    assert_eq!(get(&back, KEY), before, "back again");
}
