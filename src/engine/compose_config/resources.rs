//! What services share.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::shapes;

/// A network of the project.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Network {
    /// As the engine knows it.
    #[serde(deserialize_with = "shapes::text", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The project uses it and never makes it.
    #[serde(deserialize_with = "shapes::flag", skip_serializing_if = "is_false")]
    pub external: bool,
    /// Driver, addresses, labels: what Compose compares by a hash.
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

/// A volume of the project.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Volume {
    /// As the engine knows it.
    #[serde(deserialize_with = "shapes::text", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The project uses it and never makes it.
    #[serde(deserialize_with = "shapes::flag", skip_serializing_if = "is_false")]
    pub external: bool,
    #[serde(deserialize_with = "shapes::text", skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// `type`, `o`, `device` of the local driver; may hold passwords.
    #[serde(deserialize_with = "shapes::texts", skip_serializing_if = "BTreeMap::is_empty")]
    pub driver_opts: BTreeMap<String, String>,
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

/// A secret or a config: a file for containers, from one of these sources.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FileObject {
    #[serde(deserialize_with = "shapes::text", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A file of the host, which is mounted.
    #[serde(deserialize_with = "shapes::text", skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The name of a variable, whose value is copied into the container.
    #[serde(deserialize_with = "shapes::text", skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// Text that is copied into the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// Of a swarm; Compose refuses it.
    #[serde(deserialize_with = "shapes::flag", skip_serializing_if = "is_false")]
    pub external: bool,
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
pub(super) fn is_false(flag: &bool) -> bool {
    !flag
}
