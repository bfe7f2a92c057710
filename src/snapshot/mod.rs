//! Copies of the data, exact restore.

mod off;

pub use off::NoSnapshots;
