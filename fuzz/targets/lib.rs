//! What strangers may send, and what must hold whatever they send. Each target takes any bytes and panics when
//! a promise is broken.
//!
//! | target | bytes are | whose |
//! |---|---|---|
//! | [`manifest`] | a `release.json` | whoever answers for the release server |
//! | [`carriers`] | a file that carries a signature, or a signed payload | the same, or a registry |
//! | [`env`]      | a `.env`, and a value to set | the operator |
//! | [`api`]      | a route, and the body of a request | whoever has the token, or guesses |
//! | [`labels`]   | a container's Compose labels, and a Compose file | whoever may start containers |
//! | [`journal`]  | a row of the journal | a disk that forgets |
//!
//! `./fuzz` runs them with coverage, `tests/fuzz.rs` with a little arithmetic over the same corpus.

pub mod api;
pub mod carriers;
pub mod env;
pub mod journal;
pub mod labels;
pub mod manifest;

/// A name, which is its corpus's too, and what takes the bytes.
pub type Target = (&'static str, fn(&[u8]));

pub const ALL: [Target; 6] = [
    ("api", api::fuzz),
    ("carriers", carriers::fuzz),
    ("env", env::fuzz),
    ("journal", journal::fuzz),
    ("labels", labels::fuzz),
    ("manifest", manifest::fuzz),
];
