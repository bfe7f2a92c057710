//! The project as Compose resolves it, as types: what `docker compose config --format json` prints is read
//! here and nowhere else.
//!
//! | file | holds |
//! |---|---|
//! | this one      | the whole project, and how Compose's answer becomes one |
//! | [`service`]   | a service, with everything that decides how its container is made |
//! | [`resources`] | what services share: networks, volumes, secrets, configs |
//! | [`shapes`]    | the several ways in which Compose prints one thing |
//! | [`compare`]   | where two projects differ |
//! | [`template`]  | text with variables, as the files have it |
//!
//! The types follow the Compose specification. An attribute that they do not know is kept in `rest`, so that
//! two configurations can be compared as a whole.

mod compare;
pub mod resources;
pub mod service;
mod shapes;
pub mod template;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::compare::{Difference, differences};
pub use self::resources::{FileObject, Network, Volume};
pub use self::service::{Dependency, FileReference, Port, Service, ServiceMount, ServiceNetwork};

/// A resolved project: every variable replaced, every path absolute.
///
/// It is serialised as Compose would print it, but without Compose's `$$`: what is read back with
/// [`serde`] is the same configuration. Compose's own answer is read with [`ComposeConfig::from_compose`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ComposeConfig {
    pub name: String,
    #[serde(deserialize_with = "shapes::or_default")]
    pub services: BTreeMap<String, Service>,
    #[serde(deserialize_with = "shapes::map_or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub networks: BTreeMap<String, Network>,
    #[serde(deserialize_with = "shapes::map_or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Volume>,
    #[serde(deserialize_with = "shapes::map_or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, FileObject>,
    #[serde(deserialize_with = "shapes::map_or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub configs: BTreeMap<String, FileObject>,
    /// `x-…`, `models` and whatever later versions add.
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

impl ComposeConfig {
    /// Reads what `docker compose config --format json` has printed.
    ///
    /// Compose prints `$` as `$$`, so that its answer can be used as a Compose file again
    /// (`runConfig` in its `cmd/compose/config.go`: every dollar of the whole document is doubled, unless
    /// `--no-interpolate` was given). That is undone here.
    ///
    /// # Errors
    /// The bytes are no JSON, or not of the shape that the Compose specification gives.
    pub fn from_compose(answer: &[u8]) -> serde_json::Result<Self> {
        if is_escaped(answer) { serde_json::from_slice(&unescaped(answer)) } else { serde_json::from_slice(answer) }
    }

    /// There are secrets or configs that Compose copies into containers, because they are no files of the host.
    pub fn has_copied_files(&self) -> bool {
        let mut files = self.secrets.values().chain(self.configs.values());
        files.any(|file| file.content.is_some() || file.environment.is_some())
    }

    /// The bytes of a Compose file that means this very configuration. Compose replaces variables in whatever it
    /// reads: a dollar stays one when it is doubled.
    ///
    /// # Errors
    /// None is known; serialising says that it may fail.
    pub fn as_file(&self) -> serde_json::Result<Vec<u8>> {
        Ok(serde_json::to_string(self)?.replace('$', "$$").into_bytes())
    }

    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.get(name)
    }

    /// All that the service depends on, and that those depend on. Compose counts shared namespaces, volumes and links as
    /// dependencies.
    pub fn needed_by(&self, service: &str) -> BTreeSet<&str> {
        let (mut needed, mut rest) = (BTreeSet::new(), vec![service]);
        while let Some(one) = rest.pop() {
            let Some(service) = self.service(one) else { continue };
            for other in service.depends_on.keys().map(String::as_str).chain(service.uses()) {
                if needed.insert(other) {
                    rest.push(other);
                }
            }
        }
        needed
    }

    /// What decides how the containers of these services are made: the services, those whose namespaces or
    /// volumes they use, and the shared things that they name. As a Compose file of its own it makes the same
    /// containers, because Compose is given these services alone and counts no dependency into them.
    #[must_use]
    pub fn part_of<'a>(&self, services: impl IntoIterator<Item = &'a str>) -> Self {
        let mut part = Self { name: self.name.clone(), ..Self::default() };
        let mut wanted: Vec<String> = services.into_iter().map(str::to_owned).collect();
        while let Some(name) = wanted.pop() {
            let Some(service) = self.services.get(&name).filter(|_| !part.services.contains_key(&name)) else {
                continue;
            };
            wanted.extend(service.uses().map(str::to_owned));
            part.services.insert(name, service.clone());
        }
        let names: BTreeSet<String> = part.services.keys().cloned().collect();
        for service in part.services.values_mut() {
            service.depends_on.retain(|needed, _| names.contains(needed));
        }
        let all = || part.services.values();
        part.networks = named(&self.networks, all().flat_map(|s| s.networks.keys()));
        part.volumes = named(&self.volumes, all().flat_map(|s| s.volumes.iter().filter_map(|v| v.source.as_ref())));
        part.secrets = named(&self.secrets, all().flat_map(|s| s.secrets.iter().map(|r| &r.source)));
        part.configs = named(&self.configs, all().flat_map(|s| s.configs.iter().map(|r| &r.source)));
        part
    }

    /// The engine's name of a network that services know by `key`.
    pub fn network_name<'a>(&'a self, key: &'a str) -> &'a str {
        self.networks.get(key).and_then(|network| network.name.as_deref()).unwrap_or(key)
    }

    /// The engine's name of a volume that services know by `key`.
    pub fn volume_name<'a>(&'a self, key: &'a str) -> &'a str {
        self.volumes.get(key).and_then(|volume| volume.name.as_deref()).unwrap_or(key)
    }
}

fn named<'a, T: Clone>(all: &BTreeMap<String, T>, keys: impl Iterator<Item = &'a String>) -> BTreeMap<String, T> {
    keys.filter_map(|key| Some((key.clone(), all.get(key)?.clone()))).collect()
}

/// Every dollar is doubled. Where one stands alone the answer comes from a version that doubles none.
fn is_escaped(answer: &[u8]) -> bool {
    answer.split(|byte| *byte != b'$').all(|dollars| dollars.len() % 2 == 0)
}

fn unescaped(answer: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(answer.len());
    let mut bytes = answer.iter();
    while let Some(byte) = bytes.next() {
        plain.push(*byte);
        if *byte == b'$' {
            bytes.next();
        }
    }
    plain
}

/// The project's files as they are written, with no variable replaced and no path made absolute.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Written {
    /// As one JSON document, several files merged into it.
    pub files: Value,
    /// The variables to which the project's environment files give a value.
    pub assigned: BTreeSet<String>,
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
