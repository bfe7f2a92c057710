//! Data of the application that is not in its own mounts: a database in another container, or on another host. Pure.
//!
//! | evidence | what follows |
//! |---|---|
//! | the application depends on a service that holds data | certain |
//! | its variables or arguments name the container, by whichever of its names, in a way that is no mere web address | certain |
//! | they name a host that no container has, and say that it is a database | certain |
//! | a web address names a container that holds data | possible |
//! | a service of its project is in a network with it, holds data, serves nobody on the host and is no client of it | possible |
//!
//! A container holds data if it has a writable volume or folder that is not one of the application's own, and that is no
//! place for configuration, logs or temporary files. A cache whose only volume has no name holds none: nobody has given
//! it a place to keep anything. A database without any volume holds its data in the container itself.
//!
//! What is certain and not covered makes a failed update `failed`; what is possible is only told.

mod kept;
mod told;

use std::collections::{BTreeMap, BTreeSet};

use self::kept::{DATABASE_FOLDERS, holds};
pub use self::told::{Stakes, covered, noted, told, unknown};
use super::Deployment;
use super::data::{is_data, is_socket, overlaps};
use super::hosts::{self, Named, Nature};
use super::named::service_in;
use super::reach::{Reach, Reached, published};
use crate::engine::{ComposeConfig, Container, Mount, RunState, label};
use crate::update::plan::Was;
use crate::update::ports::{HookSetting, Options};

/// Where something is kept beside the application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// As settings name it: a service, a container of another project, or a host.
    pub name: String,
    /// By which settings and hooks may mean it: its aliases, too.
    names: BTreeSet<String>,
    pub holds: Holds,
    /// What leads to it, each as `the application depends on it`.
    because: Vec<String>,
    /// Others that use it too.
    used_by: Vec<String>,
    pub is_certain: bool,
    pub cover: Cover,
}

/// What would have to be copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holds {
    /// `volume shop_db`, `folder /srv/db`
    Mounts(Vec<String>),
    /// It has no volume: what it writes is in the container's own file system.
    Container,
    /// No container of this engine.
    Elsewhere,
}

/// Who looks after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cover {
    Nobody,
    /// It is copied and put back with the application.
    DataServices,
    /// The operator's commands dump and load it.
    Hooks,
    /// The operator has said that it is not the job's business.
    Declared,
}

/// What the operator has set.
#[derive(Debug, Clone, Copy)]
pub struct Covers<'a> {
    pub data_services: &'a [String],
    pub elsewhere: &'a [String],
    pub before_copy: Option<&'a HookSetting>,
    pub after_restore: Option<&'a HookSetting>,
    /// The hooks are run: they are where something of the application's own is copied.
    pub hooks_run: bool,
}

impl<'a> Covers<'a> {
    pub fn of(options: &'a Options, is_copied: bool) -> Self {
        Self {
            data_services: &options.data_services,
            elsewhere: &options.data_elsewhere,
            before_copy: options.hook_before_copy.as_ref(),
            after_restore: options.hook_after_restore.as_ref(),
            hooks_run: is_copied,
        }
    }
}

/// Everything that the application may keep data in, beside its own mounts. `is_ours`: a container of the updater's.
pub fn find(
    config: &ComposeConfig,
    deployment: &Deployment,
    covers: Covers<'_>,
    is_ours: impl Fn(&Container) -> bool,
) -> Vec<Store> {
    let look = Look { config, deployment, is_ours: &is_ours };
    let reached = look.reached();
    let mut stores = look.containers(&reached, covers);
    stores.extend(look.elsewhere(&reached, covers));
    stores.sort_by(|a, b| (b.is_certain, &a.name).cmp(&(a.is_certain, &b.name)));
    stores
}

/// Who else uses this container: others that depend on it, or name it.
pub fn users(
    config: &ComposeConfig,
    deployment: &Deployment,
    is_ours: impl Fn(&Container) -> bool,
    of: &Container,
) -> Vec<String> {
    Look { config, deployment, is_ours: &is_ours }.clients(&[of])
}

/// A host that is named, and by what.
struct Mention {
    by: String,
    named: Named,
    /// In the project's files. An image brings defaults of its own, for what may not be there.
    is_set: bool,
}

/// What leads from the application to others.
#[derive(Default)]
struct Found<'a> {
    /// Services that it depends on, and those that they depend on.
    needed: BTreeSet<&'a str>,
    /// By container id: which variables name it, and what they say of it.
    named: BTreeMap<&'a str, Vec<(String, Nature)>>,
    /// By host.
    hosts: BTreeMap<String, BTreeSet<String>>,
}

struct Look<'a> {
    config: &'a ComposeConfig,
    deployment: &'a Deployment,
    is_ours: &'a dyn Fn(&Container) -> bool,
}

impl<'a> Look<'a> {
    fn service(&self, c: &'a Container) -> Option<&'a str> {
        service_in(&self.deployment.project, c)
    }

    fn reached(&self) -> Found<'a> {
        let mut found = Found::default();
        for (service, container, _) in self.deployment.moved() {
            found.needed.extend(self.config.needed_by(service));
            let reach = Reach::of(container, self.config, self.deployment);
            for mention in self.mentions(container) {
                let (containers, nature) = match reach.find(&mention.named) {
                    Reached::Containers(containers) => (containers, mention.named.nature),
                    // Which of them is the database is not known.
                    Reached::Mates(containers) => (containers, mention.named.nature.min(Nature::Server)),
                    Reached::Elsewhere if is_database_elsewhere(&mention) => {
                        found.hosts.entry(mention.named.host).or_default().insert(mention.by);
                        continue;
                    }
                    Reached::Nobody | Reached::Elsewhere => continue,
                };
                for container in containers {
                    found.named.entry(&container.id).or_default().push((mention.by.clone(), nature));
                }
            }
        }
        found
    }

    /// The hosts that a container's variables and arguments name.
    fn mentions(&self, c: &'a Container) -> Vec<Mention> {
        let service = self.service(c).and_then(|service| self.config.service(service));
        let set = service.map(|service| service.variables()).unwrap_or_default();
        let of_engine = texts(&c.raw["Config"]["Env"]).into_iter().filter_map(|line| {
            let (key, value) = line.split_once('=')?;
            (!set.contains_key(key)).then(|| (key.to_owned(), value.to_owned()))
        });
        let of_engine: Vec<(String, String)> = of_engine.collect();
        let mut mentions = Vec::new();
        let variables = set
            .iter()
            .map(|(key, value)| (key, value, true))
            .chain(of_engine.iter().map(|(key, value)| (key, value, false)));
        for (key, value, is_set) in variables {
            let named = hosts::of_variable(key, value).into_iter();
            mentions.extend(named.map(|named| Mention { by: key.clone(), named, is_set }));
        }
        for (list, by) in [("Entrypoint", "its entrypoint"), ("Cmd", "its command")] {
            let written = service
                .and_then(|service| if list == "Cmd" { service.command.clone() } else { service.entrypoint.clone() });
            let is_set = written.is_some();
            let words = written.unwrap_or_else(|| texts(&c.raw["Config"][list]));
            let named = hosts::of_words(&words).into_iter();
            mentions.extend(named.map(|named| Mention { by: by.to_owned(), named, is_set }));
        }
        mentions
    }

    fn containers(&self, found: &Found<'a>, covers: Covers<'_>) -> Vec<Store> {
        let own: Vec<Mount> =
            self.deployment.moved().flat_map(|(_, c, _)| &c.mounts).filter(|mount| is_data(mount)).cloned().collect();
        let mut stores: Vec<(Store, Vec<&'a Container>)> = Vec::new();
        for c in self.deployment.containers.iter().filter(|c| self.is_beside(c)) {
            let by = found.named.get(c.id.as_str()).map(Vec::as_slice).unwrap_or_default();
            let is_needed = self.service(c).is_some_and(|service| found.needed.contains(service));
            let nature = by.iter().map(|(_, nature)| *nature).max();
            let holds = match holds(c, &own, nature) {
                // A cache that nobody called one.
                Some(Holds::Container) if nature != Some(Nature::Database) => None,
                holds => holds,
            };
            let Some(holds) = holds else { continue };
            let is_named = nature.is_some_and(|nature| nature != Nature::Passing);
            if !is_needed && !is_named && (nature.is_some() || !self.is_near(c, found, &holds)) {
                continue;
            }
            let is_certain = is_needed || nature.is_some_and(|nature| nature >= Nature::Server);
            if !is_certain && manages_containers(c) {
                continue;
            }
            let name = self.service(c).unwrap_or(&c.name).to_owned();
            if let Some((known, containers)) = stores.iter_mut().find(|(known, _)| known.name == name) {
                known.is_certain |= is_certain;
                containers.push(c);
                continue;
            }
            let because = because(is_needed, by, || self.shared_network(c));
            let store = Store { holds, because, is_certain, ..Store::of(name) };
            stores.push((store, vec![c]));
        }
        let finished = stores.into_iter().map(|(store, containers)| {
            let used_by = self.clients(&containers);
            Store { names: self.names(&containers), used_by, ..store }.covered_by(covers)
        });
        finished.collect()
    }

    /// It belongs neither to what is moved nor to the updater, and it has not run to its end as it should.
    fn is_beside(&self, c: &Container) -> bool {
        let has_ended = !c.is_alive() && matches!(Was::of(c), Was::Ended { .. });
        let never_ran = c.state == RunState::Created;
        let is_one_off = c.label(label::ONEOFF) == Some("True");
        !self.deployment.moves(c) && !(self.is_ours)(c) && !has_ended && !never_ran && !is_one_off
    }

    /// Nothing leads to it but a network.
    fn is_near(&self, c: &'a Container, found: &Found<'a>, holds: &Holds) -> bool {
        let Some(service) = self.service(c) else { return false };
        let mut moved = self.deployment.moved();
        let shares = moved.any(|(_, own, _)| Reach::of(own, self.config, self.deployment).shares_network(c));
        let is_known_place =
            c.mounts.iter().any(|m| DATABASE_FOLDERS.iter().any(|folder| m.destination.starts_with(folder)));
        let is_public = self.is_public(c) && !is_known_place;
        // What a public service has mounted too is that one's business: certificates, pages.
        let others = || self.deployment.containers.iter().filter(|other| other.id != c.id && self.is_public(other));
        let is_of_public = || others().any(|other| c.mounts.iter().any(|m| overlaps(m, &other.mounts)));
        let holds = matches!(holds, Holds::Mounts(_));
        shares
            && holds
            && c.is_alive()
            && !is_public
            && (is_known_place || !is_of_public())
            && !self.is_client(c, service, found)
    }

    /// It serves somebody outside of the engine's networks.
    fn is_public(&self, c: &'a Container) -> bool {
        let has_ports =
            self.service(c).and_then(|service| self.config.service(service)).is_some_and(|s| !s.ports.is_empty());
        has_ports || c.network_mode == "host" || !published(c).is_empty()
    }

    /// It uses the application, or what the application uses: a proxy, a worker, an exporter.
    fn is_client(&self, c: &'a Container, service: &str, found: &Found<'a>) -> bool {
        let is_used = |other: &str| self.deployment.project.moves(other) || found.needed.contains(other);
        self.config.needed_by(service).into_iter().any(is_used)
            || self.uses(c, |other| {
                let is_needed = self.service(other).is_some_and(|service| found.needed.contains(service));
                self.deployment.moves(other) || is_needed || found.named.contains_key(other.id.as_str())
            })
    }

    /// Its variables or arguments name one of those.
    fn uses(&self, c: &'a Container, is_it: impl Fn(&'a Container) -> bool) -> bool {
        let reach = Reach::of(c, self.config, self.deployment);
        self.mentions(c).iter().any(|mention| match reach.find(&mention.named) {
            Reached::Containers(containers) | Reached::Mates(containers) => containers.into_iter().any(&is_it),
            Reached::Nobody | Reached::Elsewhere => false,
        })
    }

    /// Others that depend on it, or name it.
    fn clients(&self, containers: &[&'a Container]) -> Vec<String> {
        let is_it = |c: &Container| containers.iter().any(|known| known.id == c.id);
        let services: Vec<&str> = containers.iter().filter_map(|c| self.service(c)).collect();
        let depends = |c: &'a Container| {
            let service = self.service(c).and_then(|service| self.config.service(service));
            service.is_some_and(|service| services.iter().any(|one| service.depends_on.contains_key(*one)))
        };
        let others = self.deployment.containers.iter().filter(|c| c.is_alive() && self.is_beside(c) && !is_it(c));
        let used_by: BTreeSet<&str> =
            others.filter(|c| depends(c) || self.uses(c, is_it)).map(|c| self.service(c).unwrap_or(&c.name)).collect();
        used_by.into_iter().map(str::to_owned).collect()
    }

    fn shared_network(&self, c: &Container) -> String {
        let networks: BTreeSet<&str> = self
            .deployment
            .moved()
            .flat_map(|(_, own, _)| Reach::of(own, self.config, self.deployment).networks)
            .filter(|network| c.networks.contains_key(*network))
            .collect();
        networks.into_iter().collect::<Vec<_>>().join(", ")
    }

    /// By which settings and hooks may mean it.
    fn names(&self, containers: &[&'a Container]) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for c in containers {
            names.extend([Some(c.name.clone()), self.service(c).map(str::to_owned)].into_iter().flatten());
            let endpoints = c.raw["NetworkSettings"]["Networks"].as_object().into_iter().flatten();
            names.extend(endpoints.flat_map(|(_, endpoint)| texts(&endpoint["Aliases"])));
            let written = self.service(c).and_then(|service| self.config.service(service));
            names.extend(written.into_iter().flat_map(|s| s.networks.values()).flat_map(|n| n.aliases.iter().cloned()));
        }
        names
    }

    fn elsewhere(&self, found: &Found<'a>, covers: Covers<'_>) -> Vec<Store> {
        let store = |(host, by): (&String, &BTreeSet<String>)| {
            let by: Vec<(String, Nature)> = by.iter().map(|by| (by.clone(), Nature::Database)).collect();
            let because = because(false, &by, String::new);
            Store { because, is_certain: true, ..Store::of(host.clone()) }.covered_by(covers)
        };
        found.hosts.iter().map(store).collect()
    }
}

/// Only what can be nothing else: told, not guessed. A host without a dot may be the name of a cache that this
/// deployment does not have; a database is needed.
fn is_database_elsewhere(mention: &Mention) -> bool {
    let Named { host, nature, is_certain, .. } = &mention.named;
    let is_full = host.contains('.') || host.contains(':');
    mention.is_set && *is_certain && (*nature == Nature::Database || (*nature == Nature::Cache && is_full))
}

fn because(is_needed: bool, by: &[(String, Nature)], network: impl FnOnce() -> String) -> Vec<String> {
    let names: BTreeSet<&str> = by.iter().map(|(by, _)| by.as_str()).collect();
    let names: Vec<&str> = names.into_iter().collect();
    let named = match names[..] {
        [] => None,
        [one] => Some(format!("{one} names it")),
        [ref most @ .., last] if most.len() < 3 => Some(format!("{} and {last} name it", most.join(", "))),
        [ref first @ .., _, _] => Some(format!("{} and others name it", first[..2].join(", "))),
    };
    let needed = is_needed.then(|| "the application depends on it".to_owned());
    let mut because: Vec<String> = needed.into_iter().chain(named).collect();
    if because.is_empty() {
        because.push(format!("it is in network {} with the application", network()));
    }
    because
}

/// A tool that starts and stops containers: nothing in it is an application's data.
fn manages_containers(c: &Container) -> bool {
    let is_updater = texts(&c.raw["Config"]["Env"]).iter().any(|line| line.starts_with("PROCESSGIT_UPDATER_TOKEN"));
    is_updater || c.mounts.iter().any(is_socket)
}

/// A word of a command has the name as a word of its own: `db`, `--host=db`, `postgres://x@db:5432/app`.
fn names_one(word: &str, names: &BTreeSet<String>) -> bool {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let parts = || word.split(|c| !is_of_name(c));
    names.iter().any(|name| parts().any(|part| part.eq_ignore_ascii_case(name)))
}

/// A list of texts in what the engine has answered.
fn texts(value: &serde_json::Value) -> Vec<String> {
    crate::update::plan::strings(value)
}

impl Store {
    /// Of which nothing is known but its name.
    fn of(name: String) -> Self {
        Self {
            names: BTreeSet::from([name.clone()]),
            name,
            holds: Holds::Elsewhere,
            because: Vec::new(),
            used_by: Vec::new(),
            is_certain: false,
            cover: Cover::Nobody,
        }
    }

    fn covered_by(self, covers: Covers<'_>) -> Self {
        let is_among =
            |list: &[String]| list.iter().any(|one| self.names.iter().any(|name| name.eq_ignore_ascii_case(one)));
        let concerns = |hook: &HookSetting| {
            self.names.contains(&hook.service) || hook.command.iter().any(|word| names_one(word, &self.names))
        };
        let is_hooked = [covers.before_copy, covers.after_restore].into_iter().all(|hook| hook.is_some_and(concerns));
        let cover = match () {
            // There is nothing of it that could be copied, unless it has mounts.
            () if is_among(covers.data_services) && matches!(self.holds, Holds::Mounts(_)) => Cover::DataServices,
            () if is_hooked && covers.hooks_run => Cover::Hooks,
            () if is_among(covers.elsewhere) => Cover::Declared,
            () => Cover::Nobody,
        };
        Self { cover, ..self }
    }

    /// It may be changed, and nobody puts it back.
    fn is_uncovered(&self) -> bool {
        self.cover == Cover::Nobody
    }
}
