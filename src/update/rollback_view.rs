//! What a rollback by hand would do, as people and the API see it.

use serde::{Deserialize, Serialize};

use super::ports;

/// What a rollback by hand would do: what a person is told before confirming.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollbackView {
    pub from_version: Option<String>,
    pub to_version: Option<String>,
    pub to_image: String,
    /// The snapshot of that moment.
    pub snapshot: Option<String>,
    /// What was written since, and would be kept as a snapshot of its own.
    pub written_since: Option<ports::Distance>,
    /// What the count leaves out: services and hosts beside the application whose data is no mount that is copied.
    #[serde(default)]
    pub not_counted: Vec<String>,
    /// Some mounts would stay as they are, or are only in the snapshot; `changes` names them.
    #[serde(default)]
    pub is_partial: bool,
    pub changes: Vec<String>,
    pub warnings: Vec<String>,
}
