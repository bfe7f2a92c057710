//! Is the application well before the update? The gate asks the same of the new version: where it cannot pass now, it
//! cannot pass then, and a good version would be rolled back.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Deployment;
use crate::command::{line, word};
use crate::engine::{Container, Healthcheck, RunState, label};
use crate::health::{Answer, HealthTarget, Silence};
use crate::update::ports::{Options, Ports};
use crate::update::refusal::{Code, Refusal};

/// One question waits so long; a hanging application must not hold the planning up.
const ASKED: Duration = Duration::from_secs(2);
/// A moment without an answer is no fault: so long it is asked again.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(300);

/// Why it is not well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unwell {
    NotRunning(RunState, i64),
    /// Its own HEALTHCHECK says so.
    Unhealthy,
    /// It answers with another status than 200.
    Status(u16),
    Silent(Silence),
}

/// What is wrong with the application; `None`: it is well.
pub async fn look(ports: &Ports, container: &Container) -> Option<Unwell> {
    if !container.is_alive() {
        return Some(Unwell::NotRunning(container.state, container.exit_code));
    }
    if container.healthcheck == Healthcheck::Unhealthy {
        return Some(Unwell::Unhealthy);
    }
    let begun = Instant::now();
    loop {
        let why = match ports.probe.ask(container, ASKED).await {
            Answer::Accepted | Answer::Http { status: 200, .. } => return None,
            Answer::Http { status, .. } => Unwell::Status(status),
            Answer::Silent(why) => Unwell::Silent(why),
        };
        if begun.elapsed() + PAUSE > PATIENCE {
            return Some(why);
        }
        sleep(PAUSE).await;
    }
}

/// Where the health URL is asked from, and what is known there.
#[derive(Debug)]
pub struct Place<'a> {
    pub target: &'a HealthTarget,
    pub container: &'a Container,
    /// The updater's own container.
    pub own: Option<&'a Container>,
}

impl<'a> Place<'a> {
    pub fn new(options: &'a Options, deployment: &'a Deployment) -> Self {
        Self::among(options, &deployment.container, &deployment.containers)
    }

    /// `containers`: all that the engine has.
    pub fn among(options: &'a Options, container: &'a Container, containers: &'a [Container]) -> Self {
        let own = options.own_container.as_ref().and_then(|id| containers.iter().find(|c| c.id.starts_with(id)));
        Self { target: &options.health_target, container, own }
    }

    /// What is wrong, and what helps.
    pub fn explain(&self, unwell: &Unwell) -> (String, String) {
        let (name, target) = (&self.container.name, self.target);
        match unwell {
            Unwell::NotRunning(state, code) => (
                format!("container {name} does not run ({}, exit code {code})", format!("{state:?}").to_lowercase()),
                format!("start it: `{}`", line(["docker", "start", name])),
            ),
            Unwell::Unhealthy => (
                format!("the HEALTHCHECK of container {name} says unhealthy"),
                format!("see what it says: `docker inspect --format '{{{{json .State.Health}}}}' {}`", word(name)),
            ),
            Unwell::Status(status) => (
                format!("{target} answers {status}, expected 200"),
                "set PROCESSGIT_UPDATER_HEALTH_URL to a path that answers 200 while the application is well".to_owned(),
            ),
            Unwell::Silent(why) => (format!("{target} does not answer: {why}"), self.remedy(why)),
        }
    }

    fn remedy(&self, why: &Silence) -> String {
        let set = |target: HealthTarget| format!("set PROCESSGIT_UPDATER_HEALTH_URL={target}");
        let Some((host, port)) = self.target.host_and_port() else { return self.logs() };
        let inside = self.container.label(label::SERVICE).unwrap_or(&self.container.name);
        match self.own {
            Some(own) if is_loopback(&host) && !self.shares_network(own) => format!(
                "{host} is the updater's own container here: {}",
                set(self.target.moved_to(inside, self.inner_port(port)))
            ),
            Some(own) if !self.is_reachable(own) => {
                let networks: Vec<_> = self.container.networks.keys().map(String::as_str).collect();
                format!(
                    "the updater's container shares no network with {}: add it to network {}",
                    self.container.name,
                    networks.join(" or ")
                )
            }
            Some(_) if matches!(why, Silence::NoSuchName { .. }) => set(self.target.moved_to(inside, port)),
            None if matches!(why, Silence::NoSuchName { .. }) => match self.published(port) {
                Some((ip, published)) => format!("on the host, {}", set(self.target.moved_to(&ip, published))),
                None => format!("publish the port of service {inside}, or name an address that resolves on the host"),
            },
            _ if matches!(why, Silence::Refused(_)) => match &self.exposed()[..] {
                [other] if *other != port && !is_loopback(&host) => {
                    format!("its image exposes port {other}: {}", set(self.target.moved_to(&host, *other)))
                }
                _ => format!("{}, or correct port and host in PROCESSGIT_UPDATER_HEALTH_URL", self.logs()),
            },
            _ => format!("{}, or correct PROCESSGIT_UPDATER_HEALTH_URL", self.logs()),
        }
    }

    fn logs(&self) -> String {
        format!("see `{}`", line(["docker", "logs", "--tail", "50", &self.container.name]))
    }

    /// Loopback addresses mean the same to both.
    fn shares_network(&self, own: &Container) -> bool {
        let lives_in = |a: &Container, b: &Container| {
            a.network_mode.strip_prefix("container:").is_some_and(|of| b.id.starts_with(of) || b.name == of)
        };
        own.network_mode == "host" || lives_in(own, self.container) || lives_in(self.container, own)
    }

    fn is_reachable(&self, own: &Container) -> bool {
        self.shares_network(own)
            || self.container.network_mode == "host"
            || self.container.networks.is_empty()
            || self.container.networks.keys().any(|network| own.networks.contains_key(network))
    }

    /// Where the host reaches the container's port.
    fn published(&self, port: u16) -> Option<(String, u16)> {
        let binding = &self.container.raw["NetworkSettings"]["Ports"][format!("{port}/tcp")][0];
        let published = binding["HostPort"].as_str()?.parse().ok()?;
        let ip = binding["HostIp"].as_str().filter(|ip| !matches!(*ip, "" | "0.0.0.0" | "::"));
        Some((ip.unwrap_or("127.0.0.1").to_owned(), published))
    }

    /// The container's port behind the published one: who wrote a URL for the host names that.
    fn inner_port(&self, published: u16) -> u16 {
        let ports = self.container.raw["NetworkSettings"]["Ports"].as_object().into_iter().flatten();
        let behind = |bindings: &serde_json::Value| {
            let mut bindings = bindings.as_array().into_iter().flatten();
            bindings.any(|b| b["HostPort"].as_str().and_then(|p| p.parse().ok()) == Some(published))
        };
        let found = ports.filter(|(_, bindings)| behind(bindings)).find_map(|(inner, _)| port_of(inner));
        found.unwrap_or(published)
    }

    fn exposed(&self) -> Vec<u16> {
        let ports = self.container.raw["Config"]["ExposedPorts"].as_object().into_iter().flatten();
        ports.filter_map(|(port, _)| port_of(port)).collect()
    }
}

fn port_of(port: &str) -> Option<u16> {
    port.strip_suffix("/tcp")?.parse().ok()
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Why an update is refused.
pub fn refusal(options: &Options, deployment: &Deployment, tag: &str, unwell: &Unwell) -> Refusal {
    let (what, remedy) = Place::new(options, deployment).explain(unwell);
    let code = if matches!(unwell, Unwell::NotRunning(..)) { Code::NotRunning } else { Code::HealthWrong };
    let again = line(["processgit-updater", options.command, tag, "--accept-unwell"]);
    let why = "the application is not well before the update, so the gate could not tell a good version from a bad one";
    Refusal::new(code, format!("{why}: {what}")).text(format!(
        "{remedy}. To repair the application by this very update, `{again}` (or \"accept_unwell\": true)"
    ))
}

/// A gate that asks nothing but a HEALTHCHECK needs one.
pub fn no_healthcheck(container: &Container) -> Refusal {
    let what = format!(
        "PROCESSGIT_UPDATER_HEALTH_URL=none leaves the verdict to the container's HEALTHCHECK, but container {} has none",
        container.name
    );
    let remedy = "give its service a `healthcheck` and run `docker compose up -d`, or name a URL or tcp://HOST:PORT";
    Refusal::new(Code::HealthWrong, what).text(remedy)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::health::HealthTarget::Tcp;

    fn container(id: &str, network: &str) -> Container {
        let raw = json!({
            "NetworkSettings": {"Ports": {"3000/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]}},
            "Config": {"ExposedPorts": {"3000/tcp": {}}},
        });
        let labels = [(label::SERVICE.to_owned(), "web".to_owned())].into();
        Container {
            id: id.into(),
            name: "shop-web-1".into(),
            labels,
            networks: [(network.to_owned(), "10.0.0.2".to_owned())].into(),
            network_mode: network.into(),
            raw,
            ..crate::update::tests::drift::container()
        }
    }

    #[test]
    fn each_fault_has_its_own_remedy() {
        let (app, beside, elsewhere) = (container("a", "shop"), container("u", "shop"), container("u", "other"));
        let mut lodger = container("u", "shop");
        lodger.network_mode = "container:a".into();
        let no_name = || Silence::NoSuchName { host: "app".into(), why: "unknown".into() };
        let refused = || Silence::Refused("x".into());
        for (url, own, why, remedy) in [
            ("http://127.0.0.1:8080/health", Some(&beside), refused(), "HEALTH_URL=http://web:3000/health"),
            ("http://localhost:3000/health", Some(&beside), refused(), "HEALTH_URL=http://web:3000/health"),
            ("http://[::1]:9/x", Some(&beside), refused(), "HEALTH_URL=http://web:9/x"),
            ("http://127.0.0.1:3000/", Some(&lodger), refused(), "docker logs"),
            ("http://app:3000/x", Some(&beside), no_name(), "HEALTH_URL=http://web:3000/x"),
            (
                "http://web:3000/x",
                Some(&elsewhere),
                no_name(),
                "shares no network with shop-web-1: add it to network shop",
            ),
            (
                "http://app:3000/x",
                None,
                no_name(),
                "on the host, set PROCESSGIT_UPDATER_HEALTH_URL=http://127.0.0.1:8080/x",
            ),
            ("http://app:4000/x", None, no_name(), "publish the port of service web"),
            (
                "http://web:80/x",
                Some(&beside),
                refused(),
                "exposes port 3000: set PROCESSGIT_UPDATER_HEALTH_URL=http://web:3000/x",
            ),
            ("http://web:3000/x", Some(&beside), refused(), "docker logs --tail 50 shop-web-1"),
            ("http://web:3000/x", Some(&beside), Silence::TimedOut(ASKED), "docker logs --tail 50 shop-web-1"),
        ] {
            let target = HealthTarget::Http(url.parse().unwrap());
            let place = Place { target: &target, container: &app, own };
            let (what, found) = place.explain(&Unwell::Silent(why));
            assert!(found.contains(remedy) && what.contains("does not answer"), "{url}: {what}; {found}");
        }
        let target = Tcp { host: "127.0.0.1".into(), port: 5432 };
        let place = Place { target: &target, container: &app, own: Some(&beside) };
        let (_, remedy) = place.explain(&Unwell::Silent(refused()));
        assert!(remedy.ends_with("PROCESSGIT_UPDATER_HEALTH_URL=tcp://web:5432"), "{remedy}");
        for (unwell, says) in [
            (Unwell::NotRunning(RunState::Exited, 1), "does not run (exited, exit code 1)"),
            (Unwell::Unhealthy, "HEALTHCHECK of container shop-web-1 says unhealthy"),
            (Unwell::Status(404), "answers 404, expected 200"),
        ] {
            assert!(place.explain(&unwell).0.contains(says), "{unwell:?}");
        }
    }
}
