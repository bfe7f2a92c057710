//! What another value of the version key changes in the resolved configuration, and what of it an update may
//! bring about. Pure.
//!
//! The whole of both configurations is compared. An update moves some services to another image and takes
//! everything else as it is: their data, the names and addresses by which others know them, what they run. A
//! version key that decides any of that would part the new version from its data, or others from the
//! application.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::engine::compose_config::{Difference, Service, differences};
use crate::engine::{ComposeConfig, Project};

/// What the version key changes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct VersionChanges {
    /// In variables, labels and the like of what is moved: the update brings it about, and says so.
    pub told: Vec<Difference>,
    /// Must not be.
    pub refused: Vec<Difference>,
    /// In services that are not moved: the operator's next `up` brings it about.
    pub followed: Vec<Difference>,
}

impl VersionChanges {
    /// Compares the configuration as it is with the one that would be. `versions` are the texts of the version
    /// in both, as far as they are known.
    pub fn between(old: &ComposeConfig, new: &ComposeConfig, project: &Project, versions: (&str, &str)) -> Self {
        let mut changes = Self::default();
        for difference in differences(old, new) {
            let list = match (difference.place.first().map(String::as_str), difference.place.get(1)) {
                (Some("services"), Some(name)) if !project.moves(name) => &mut changes.followed,
                (Some("services"), Some(name)) => {
                    match judge(&difference, old.service(name).zip(new.service(name)), project, versions) {
                        Verdict::Nothing => continue,
                        Verdict::Told => &mut changes.told,
                        Verdict::Refused => &mut changes.refused,
                    }
                }
                // An extension field is a note of the operator's.
                (Some(top), _) if top.starts_with("x-") => continue,
                _ => &mut changes.refused,
            };
            list.push(difference);
        }
        changes
    }

    /// Services that are not moved and change too.
    pub fn followers(&self) -> Vec<String> {
        let names: BTreeSet<_> = self.followed.iter().filter_map(|d| d.place.get(1).cloned()).collect();
        names.into_iter().collect()
    }

    /// What becomes of the followers beyond their image and their variables.
    pub fn followed_beyond_image(&self) -> impl Iterator<Item = &Difference> {
        self.followed.iter().filter(|d| d.place.len() > 2 && !decides_nothing(attribute(d)) && attribute(d) != "image")
    }
}

enum Verdict {
    Nothing,
    Told,
    Refused,
}

/// The attribute of a service: `volumes`.
fn attribute(difference: &Difference) -> &str {
    difference.place.get(2).map_or("", String::as_str)
}

/// What an attribute says to the application, to people and to programs that read labels: it neither holds
/// data nor is a name that others use.
fn decides_nothing(attribute: &str) -> bool {
    matches!(attribute, "environment" | "labels" | "annotations" | "healthcheck" | "logging")
}

fn judge(
    difference: &Difference,
    service: Option<(&Service, &Service)>,
    project: &Project,
    versions: (&str, &str),
) -> Verdict {
    let Some((old, new)) = service else { return Verdict::Refused };
    match attribute(difference) {
        // Which image it is, is asked by itself.
        "image" => Verdict::Nothing,
        // Nothing is built here, and nothing watches sources.
        "build" | "develop" => Verdict::Nothing,
        extension if extension.starts_with("x-") => Verdict::Nothing,
        "environment" if difference.place.get(3) == Some(&project.version_key) => Verdict::Nothing,
        "environment" => {
            let names_data = |value: &Option<Value>, service: &Service| {
                value.as_ref().and_then(Value::as_str).is_some_and(|text| names_data(text, service))
            };
            let moves_data = names_data(&difference.old, old) || names_data(&difference.new, new);
            if moves_data { Verdict::Refused } else { Verdict::Told }
        }
        harmless if decides_nothing(harmless) => Verdict::Told,
        "command" | "entrypoint" if is_version_alone(difference, versions) => Verdict::Told,
        _ => Verdict::Refused,
    }
}

/// The value leads to data: into one of the service's mounts, or to a database (`postgres://db/app-1.0`).
fn names_data(text: &str, service: &Service) -> bool {
    let mut targets = service.volumes.iter().map(|mount| mount.target.trim_end_matches('/'));
    let is_database = text.split_once("://").is_some_and(|(scheme, _)| !matches!(scheme, "http" | "https"));
    is_database || targets.any(|target| !target.is_empty() && text.contains(&format!("{target}/")))
}

/// An argument that is the version: `1.0`, `v1.0`, `--release=1.0`.
fn is_version_alone(difference: &Difference, (old_version, new_version): (&str, &str)) -> bool {
    let text = |value: &Option<Value>| value.as_ref().and_then(Value::as_str).map(str::to_owned);
    let (Some(old), Some(new)) = (text(&difference.old), text(&difference.new)) else { return false };
    let split = |argument: &str| match argument.rsplit_once('=') {
        Some((option, value)) => (option.to_owned(), value.to_owned()),
        None => (String::new(), argument.to_owned()),
    };
    let ((old_option, old), (new_option, new)) = (split(&old), split(&new));
    let is = |value: &str, version: &str| value == version || value.strip_prefix('v') == Some(version);
    old_option == new_option && is(&old, old_version) && is(&new, new_version)
}
