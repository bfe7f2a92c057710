//! placeholder
pub fn version_of(_r: &str) -> Option<&str> {
    None
}
