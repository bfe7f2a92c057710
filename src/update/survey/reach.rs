//! Whom a name reaches that a container connects to: the engine's name service, links, the host's own ports. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::Value;

use super::Deployment;
use super::hosts::Named;
use super::named::service_in;
use crate::engine::compose_config::Service;
use crate::engine::{ComposeConfig, Container};

/// The network mode of a container that has the host's own network.
const ON_HOST: &str = "host";
/// How containers name the machine that they run on.
const MACHINE: [&str; 3] = ["host.docker.internal", "gateway.docker.internal", "host-gateway"];

/// What is there.
#[derive(Debug)]
pub enum Reached<'a> {
    /// The service's replicas, or several containers with one alias.
    Containers(Vec<&'a Container>),
    /// One of those that share its `localhost`, and which one is not known.
    Mates(Vec<&'a Container>),
    /// The container itself, or a service of the project that has no container.
    Nobody,
    /// No container of this engine.
    Elsewhere,
}

/// One container's view of the others.
pub struct Reach<'a> {
    config: &'a ComposeConfig,
    deployment: &'a Deployment,
    from: &'a Container,
    service: Option<&'a Service>,
    /// By the engine's names.
    pub networks: BTreeSet<&'a str>,
}

impl<'a> Reach<'a> {
    pub fn of(from: &'a Container, config: &'a ComposeConfig, deployment: &'a Deployment) -> Self {
        // Who lives in another one's namespace has its networks.
        let host = from.network_mode.strip_prefix("container:");
        let host = host.and_then(|id| deployment.containers.iter().find(|c| c.id == id)).unwrap_or(from);
        Self {
            config,
            deployment,
            from,
            service: service_in(&deployment.project, from).and_then(|service| config.service(service)),
            networks: host.networks.keys().map(String::as_str).collect(),
        }
    }

    /// They can talk to each other.
    pub fn shares_network(&self, other: &Container) -> bool {
        let both_on_host = self.is_on_host() && other.network_mode == ON_HOST;
        both_on_host
            || self.is_mate(other)
            || other.networks.keys().any(|network| self.networks.contains(network.as_str()))
    }

    /// Who answers there.
    pub fn find(&self, named: &Named) -> Reached<'a> {
        let host = self.mapped(&named.host).unwrap_or(&named.host).to_ascii_lowercase();
        let address = host.parse::<IpAddr>().ok();
        if host == "localhost" || address.is_some_and(|address| address.is_loopback() || address.is_unspecified()) {
            return match self.is_on_host() {
                true => self.on_machine(named.port),
                false => Reached::Mates(self.others(|other| self.is_mate(other))),
            };
        }
        if MACHINE.contains(&host.as_str()) || self.is_gateway(&host) {
            return self.on_machine(named.port);
        }
        if let Some(service) = self.linked(&host) {
            return found(self.others(|other| self.is_called(other, service))).unwrap_or(Reached::Nobody);
        }
        if address.is_some() {
            let has_it = |other: &Container| {
                other.networks.iter().any(|(network, at)| *at == host && self.networks.contains(network.as_str()))
            };
            return self.but_itself(has_it).unwrap_or(Reached::Elsewhere);
        }
        let answers = |other: &Container| self.networks.iter().any(|network| self.is_named(other, network, &host));
        let without_container = || match self.config.services.contains_key(&host) {
            true => Reached::Nobody,
            false => Reached::Elsewhere,
        };
        self.but_itself(answers).unwrap_or_else(without_container)
    }

    fn is_on_host(&self) -> bool {
        self.from.network_mode == ON_HOST
    }

    /// They have one network namespace, and so one `localhost`.
    fn is_mate(&self, other: &Container) -> bool {
        let home = |c: &'a Container| c.network_mode.strip_prefix("container:").unwrap_or(&c.id);
        let other_home = other.network_mode.strip_prefix("container:").unwrap_or(&other.id);
        other.id != self.from.id && home(self.from) == other_home
    }

    fn others(&self, is_it: impl Fn(&Container) -> bool) -> Vec<&'a Container> {
        self.deployment.containers.iter().filter(|c| c.id != self.from.id && is_it(c)).collect()
    }

    /// A name that only the container itself has reaches nobody else.
    fn but_itself(&self, is_it: impl Fn(&Container) -> bool) -> Option<Reached<'a>> {
        found(self.others(&is_it)).or_else(|| is_it(self.from).then_some(Reached::Nobody))
    }

    /// Whoever has published the port on the host, or has the host's network and may listen there.
    fn on_machine(&self, port: Option<u16>) -> Reached<'a> {
        let Some(port) = port else { return Reached::Elsewhere };
        let serves = |c: &Container| {
            published(c).contains(&port) || (c.network_mode == ON_HOST && c.exposed_ports().contains(&port))
        };
        found(self.others(serves)).unwrap_or(Reached::Elsewhere)
    }

    /// `extra_hosts`
    fn mapped(&self, host: &str) -> Option<&str> {
        let of_files = self.service.into_iter().flat_map(|service| &service.extra_hosts).map(String::as_str);
        let of_engine =
            self.from.raw["HostConfig"]["ExtraHosts"].as_array().into_iter().flatten().filter_map(Value::as_str);
        of_files
            .chain(of_engine)
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case(host))
            .map(|(_, address)| address)
    }

    /// `links: ["db:database"]`, `external_links: ["other-db-1:database"]`: whom the alias means.
    fn linked(&self, host: &str) -> Option<&'a str> {
        let service = self.service?;
        let external = service
            .rest
            .get("external_links")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str);
        let links = service.links.iter().map(String::as_str).chain(external).filter_map(|link| link.split_once(':'));
        links.into_iter().find(|(_, alias)| alias.eq_ignore_ascii_case(host)).map(|(of, _)| of)
    }

    fn is_called(&self, other: &Container, name: &str) -> bool {
        other.name == name || service_in(&self.deployment.project, other) == Some(name)
    }

    /// The address at which containers of its networks find the host.
    fn is_gateway(&self, host: &str) -> bool {
        let networks = self.from.raw["NetworkSettings"]["Networks"].as_object();
        networks.into_iter().flatten().any(|(_, network)| network["Gateway"].as_str() == Some(host))
    }

    /// The other one answers to the name in this network. The engine also knows `name.network`.
    fn is_named(&self, other: &Container, network: &str, host: &str) -> bool {
        if !other.networks.contains_key(network) {
            return false;
        }
        let short = host.strip_suffix(network).and_then(|host| host.strip_suffix('.')).unwrap_or(host);
        let is_it = |name: &str| name.eq_ignore_ascii_case(short) || name.eq_ignore_ascii_case(host);
        let endpoint = &other.raw["NetworkSettings"]["Networks"][network];
        let of_engine =
            ["Aliases", "DNSNames"].iter().flat_map(|list| endpoint[*list].as_array().into_iter().flatten());
        // Compose gives each container its service's name as an alias in all of its networks.
        let service = other.label(crate::engine::label::SERVICE);
        let written = service_in(&self.deployment.project, other).and_then(|service| self.config.service(service));
        let in_network = written.into_iter().flat_map(|service| {
            let there = service.networks.iter().filter(|(key, _)| self.config.network_name(key) == network);
            there.flat_map(|(_, wants)| &wants.aliases)
        });
        let hostname =
            other.raw["Config"]["Hostname"].as_str().or(written.and_then(|service| service.hostname.as_deref()));
        let names = [Some(other.name.as_str()), service, hostname].into_iter().flatten();
        names.chain(of_engine.filter_map(Value::as_str)).chain(in_network.map(String::as_str)).any(is_it)
    }
}

fn found(containers: Vec<&Container>) -> Option<Reached<'_>> {
    (!containers.is_empty()).then_some(Reached::Containers(containers))
}

/// Its ports on the host.
pub fn published(c: &Container) -> BTreeSet<u16> {
    let bindings = c.raw["HostConfig"]["PortBindings"].as_object().into_iter().flatten();
    // The engine chooses a port where none is named.
    let now = c.raw["NetworkSettings"]["Ports"].as_object().into_iter().flatten();
    let ports = bindings.chain(now).flat_map(|(_, places)| places.as_array().into_iter().flatten());
    ports.filter_map(|place| place["HostPort"].as_str()?.parse().ok()).filter(|port| *port > 0).collect()
}
