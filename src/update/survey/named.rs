//! Services and containers that the operator's settings name: is there anything of that name? Pure.

use std::collections::BTreeSet;

use super::Deployment;
use crate::command::word;
use crate::engine::{ComposeConfig, Container, Project, label};
use crate::update::refusal::{Code, Refusal};

/// So many letters may be added, left out, changed or swapped in a misspelt name.
const SLIP: usize = 2;

/// A container is meant by its own name, or by that of its service in the application's project.
pub fn means(name: &str, container: &Container, project: &Project) -> bool {
    name == container.name || Some(name) == service_in(project, container)
}

/// The container's service, if it is one of this project.
pub fn service_in<'a>(project: &Project, container: &'a Container) -> Option<&'a str> {
    container.label(label::SERVICE).filter(|_| container.label(label::PROJECT) == Some(&project.name))
}

/// Names in `PROCESSGIT_UPDATER_STOP_SERVICES` that cannot be stopped: nothing has the name, or it is the updater
/// itself.
///
/// `own_container`: the id, or its beginning, of the container this process runs in.
pub fn stop_refusals(
    named: &[String],
    own_container: Option<&str>,
    deployment: &Deployment,
    config: &ComposeConfig,
) -> Vec<Refusal> {
    const SETTING: &str = "PROCESSGIT_UPDATER_STOP_SERVICES";
    let is_own = |c: &&Container| own_container.is_some_and(|own| c.id.starts_with(own));
    let own = deployment.containers.iter().find(is_own);
    let is_updater = |name: &&String| own.is_some_and(|own| means(name, own, &deployment.project));
    let updater = named.iter().find(is_updater).map(|name| {
        let rest: Vec<&str> = named.iter().filter(|other| !is_updater(other)).map(String::as_str).collect();
        let what = format!("{SETTING} names {name}, which is this updater: a job cannot stop the updater that runs it");
        match rest.is_empty() {
            true => Refusal::new(Code::NameWrong, what).text(format!("take {SETTING} out")),
            false => Refusal::new(Code::NameWrong, what).setting(setting(SETTING, rest)),
        }
    });
    let unknown = Known::of(deployment, config).unknown(SETTING, named);
    unknown.into_iter().chain(updater).collect()
}

/// The names that a setting may use.
#[derive(Debug, Default)]
pub struct Known<'a> {
    project: &'a str,
    services: BTreeSet<&'a str>,
    /// All of the engine's.
    containers: BTreeSet<&'a str>,
    others: BTreeSet<&'a str>,
}

impl<'a> Known<'a> {
    pub fn of(deployment: &'a Deployment, config: &'a ComposeConfig) -> Self {
        let resolved = config.services.keys().map(String::as_str);
        // Compose does not resolve a service of a profile that is not active, which may have a container all the same.
        let made = deployment.containers.iter().filter_map(|c| service_in(&deployment.project, c));
        Self {
            project: &deployment.project.name,
            services: resolved.chain(made).collect(),
            containers: deployment.containers.iter().map(|c| c.name.as_str()).collect(),
            others: BTreeSet::new(),
        }
    }

    /// These too.
    #[must_use]
    pub fn and(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        self.others.extend(names);
        self
    }

    /// What is said of names that nothing has. The remedy is the whole setting with the names that were probably
    /// meant, or the names there are.
    pub fn unknown(&self, variable: &str, named: &[String]) -> Option<Refusal> {
        let unknown: Vec<&str> = named.iter().map(String::as_str).filter(|name| !self.has(name)).collect();
        if unknown.is_empty() {
            return None;
        }
        let what = format!(
            "{variable} names {}, but project {} has no such service, and the engine no such container",
            unknown.join(", "),
            self.project
        );
        let refusal = Refusal::new(Code::NameWrong, what);
        let corrected: Option<Vec<&str>> =
            named.iter().map(|name| if self.has(name) { Some(name.as_str()) } else { self.nearest(name) }).collect();
        Some(match corrected {
            Some(corrected) => refusal.setting(setting(variable, corrected)),
            None => {
                let services: Vec<&str> = self.services.iter().copied().collect();
                refusal.text(format!("name a service ({}) or a container, or take it out", services.join(", ")))
            }
        })
    }

    fn has(&self, name: &str) -> bool {
        [&self.services, &self.containers, &self.others].iter().any(|names| names.contains(name))
    }

    /// The name that was probably meant: one with a slip, or one of which the other is a part.
    fn nearest(&self, name: &str) -> Option<&'a str> {
        let all = || self.services.iter().chain(&self.containers).chain(&self.others).copied();
        let distance = |other: &&str| strsim::damerau_levenshtein(name, other);
        let slip = all().min_by_key(distance).filter(|other| distance(other) <= SLIP.min(name.len() / 2));
        let holds = |other: &&str| name.len() > SLIP && (other.contains(name) || name.contains(*other));
        slip.or_else(|| all().filter(holds).min_by_key(|other| other.len()))
    }
}

/// `NAME=value` with each name once.
pub fn setting<'a>(variable: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    let mut all: Vec<&str> = Vec::new();
    for name in names {
        if !all.contains(&name) {
            all.push(name);
        }
    }
    format!("{variable}={}", word(&all.join(",")))
}
