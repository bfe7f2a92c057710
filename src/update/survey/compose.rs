//! Asks Compose whether the wish changes what it names, and nothing else.

use std::collections::BTreeMap;

use super::wish::Wish;
use super::{Deployment, Refused, replicas};
use crate::command::line;
use crate::engine::compose_config::Service;
use crate::engine::{ComposeConfig, Container, DryRun, EngineError, Image};
use crate::reference::{self, Reference};
use crate::update::drift;
use crate::update::plan::{self, Target};
use crate::update::ports::Ports;
use crate::update::refusal::{Code, Refusal};

/// The project as Compose resolves it now and with the wanted version, and what `up` would do now with each
/// of the services that are moved.
pub struct Resolved {
    pub old: ComposeConfig,
    pub new: ComposeConfig,
    pub dry_runs: Vec<(String, DryRun)>,
}

impl Resolved {
    /// Services that Compose would make anew, where nothing material differs.
    pub fn unexplained(&self) -> impl Iterator<Item = String> {
        self.dry_runs.iter().filter(|(_, dry_run)| !dry_run.unchanged).map(|(service, dry_run)| {
            format!(
                "Compose would not leave service {service} as it is even without this update, although nothing material differs; it says: {}",
                dry_run.actions.join(", ")
            )
        })
    }
}

pub async fn resolve(ports: &Ports, deployment: &Deployment, wish: &Wish) -> Result<Resolved, Refused> {
    let (project, compose) = (&deployment.project, &ports.compose);
    let wanted = wish.env_value.as_deref().unwrap_or_default();
    let dry_runs = project.moved().map(|service| async move {
        Ok::<_, EngineError>((service.to_owned(), compose.dry_run(project, service).await?))
    });
    let (old, new, dry_runs) = tokio::join!(
        compose.config(project, None),
        compose.config(project, Some(wanted)),
        futures_util::future::try_join_all(dry_runs)
    );
    let compose = |e: EngineError| match e.is_unreachable() {
        true => Refusal::from(e),
        false => Refusal {
            code: Code::ComposeUnreadable,
            ..Refusal::of("Compose cannot read the deployment: ", &e).command("docker compose config --quiet")
        },
    };
    Ok(Resolved { old: old.map_err(compose)?, new: new.map_err(compose)?, dry_runs: dry_runs.map_err(compose)? })
}

/// What differs between files and containers, whatever Compose thinks of it; by service.
pub fn differences(resolved: &Resolved, deployment: &Deployment, ours: &str) -> BTreeMap<String, Vec<String>> {
    let of = |(service, container, image): (&str, &Container, &Image)| {
        (service.to_owned(), drift::differences(&resolved.old, service, container, image, ours))
    };
    deployment.moved().map(of).collect()
}

/// What differs between files and containers; asked of Compose first, because another Compose version
/// hashes differently without any material difference. `ours` is a variable that the updater writes.
pub fn drift(resolved: &Resolved, deployment: &Deployment, ours: &str) -> Vec<String> {
    let mut found = Vec::new();
    for ((service, container, image), (_, dry_run)) in deployment.moved().zip(&resolved.dry_runs) {
        let mut differs = match dry_run.unchanged {
            true => Vec::new(),
            false => drift::differences(&resolved.old, service, container, image, ours),
        };
        // Compose compares names of images; the way back is to one image.
        if container.image_id != deployment.container.image_id
            && reference::is_same(&container.image_ref, &deployment.container.image_ref)
        {
            differs.push(format!(
                "image: {} means another one than {} runs",
                container.image_ref, deployment.container.name
            ));
        }
        let of = if deployment.crew.is_empty() { String::new() } else { format!("{service}: ") };
        found.extend(differs.into_iter().map(|line| format!("{of}{line}")));
    }
    found
}

pub fn drift_refusal(drift: &[String], wish: &Wish, deployment: &Deployment) -> Option<Refusal> {
    (!drift.is_empty() && !wish.accept_drift).then(|| {
        Refusal::new(
            Code::Drift,
            format!(
                "the deployment has drifted from what runs, and the update would change more than the version: {}",
                drift.join("; ")
            ),
        )
        .command(line(["docker", "compose", "up", "-d"].into_iter().chain(deployment.project.moved())))
    })
}

/// The images of all services that are moved must follow the version key, and nothing else may.
pub fn resolution_refusals(resolved: &Resolved, deployment: &Deployment, wish: &Wish) -> Vec<Refusal> {
    let moved = deployment.project.moved();
    moved.flat_map(|service| resolution_refusals_of(service, resolved, deployment, wish)).collect()
}

fn resolution_refusals_of(service: &str, resolved: &Resolved, deployment: &Deployment, wish: &Wish) -> Vec<Refusal> {
    let key = &deployment.project.version_key;
    let image = |config: &ComposeConfig| config.service(service).and_then(|s| s.image.clone()).unwrap_or_default();
    let (old, new) = (image(&resolved.old), image(&resolved.new));
    let wanted = wish.env_value.as_deref().unwrap_or_default();
    let mut refusals = Vec::new();
    refusals.extend(image_refusal(service, key, wanted, &new, &wish.target));
    let old_version = deployment.env_value.clone().or_else(|| reference::version_of(&old).map(str::to_owned));
    let none = Service::default();
    let of = |config| ComposeConfig::service(config, service).unwrap_or(&none);
    let (a, b) = (of(&resolved.old), of(&resolved.new));
    let beyond = plan::changes_beyond_version(a, b, &old_version.unwrap_or_default(), wanted);
    if !beyond.is_empty() {
        refusals.push(
            Refusal::new(
                Code::KeyChangesMore,
                format!(
                    "{key} changes more of service {service} than its image and the version itself: {}",
                    beyond.join(", ")
                ),
            )
            .text(format!("use {key} in the Compose file for the image only")),
        );
    }
    refusals
}

/// The image that Compose resolves with the wanted version is the wanted one, by a tag that the key selects.
fn image_refusal(service: &str, key: &str, wanted: &str, resolved: &str, target: &Target) -> Option<Refusal> {
    let expected = target.reference();
    if reference::is_same(resolved, &expected) {
        return None;
    }
    let (found, needed) = (Reference::parse(resolved).ok(), Reference::parse(&expected).ok());
    // Where the name is right, it stays as the operator wrote it.
    let named = found.as_ref().zip(needed.as_ref()).filter(|(found, needed)| found.is_same_repository(needed));
    let name = named.map(|(found, _)| found).or(needed.as_ref()).map_or(expected.as_str(), Reference::written_name);
    let remedy = format!("image: {name}:${{{key}}}");
    if found.as_ref().is_some_and(|found| found.digest().is_some()) {
        let what = format!(
            "service {service} is pinned to a digest (with {key}={wanted} Compose resolves its image to {resolved:?}), so {key} cannot select another version"
        );
        return Some(Refusal::new(Code::NotSelected, what).text(format!(
            "the Compose file must say {remedy}, without @sha256:…; the updater itself makes sure that exactly the digest of the signed release runs"
        )));
    }
    let what = format!(
        "with {key}={wanted} Compose resolves the image of service {service} to {resolved:?}, expected {expected:?}"
    );
    Some(Refusal::new(Code::NotSelected, what).text(format!("the Compose file must say {remedy}")))
}

/// The name of the image as the Compose file spells it.
pub fn spelled(resolved: &Resolved, deployment: &Deployment) -> Option<String> {
    let service = deployment.project.service.as_str();
    let image = Reference::parse(resolved.new.service(service)?.image.as_deref()?).ok()?;
    Some(image.written_name().to_owned())
}

/// One container of the service is moved, not several.
pub fn replica_refusal(deployment: &Deployment) -> Option<Refusal> {
    let service = &deployment.project.service;
    let containers: Vec<&Container> = deployment.of_service(service).collect();
    (containers.len() != 1).then(|| replicas(service, &containers))
}

/// Nothing that stays may live inside of what is stopped or made anew.
pub fn namespace_refusals(deployment: &Deployment) -> Vec<Refusal> {
    let stay = deployment.containers.iter().filter(|c| !deployment.moves(c));
    let lodgers = stay.filter_map(|c| host_of(c, deployment).map(|host| (c, host)));
    let refusal = |(c, host): (&Container, &str)| {
        let what = format!("container {} lives in the namespaces of {host} and would lose them", c.name);
        Refusal::new(Code::Lodger, what).text(
            "name its service in PROCESSGIT_UPDATER_MOVE_SERVICES to have it moved too, or remove it for the time of the update",
        )
    };
    lodgers.map(refusal).collect()
}

/// The name of the moved container in whose namespaces this one lives.
pub fn host_of<'a>(container: &Container, deployment: &'a Deployment) -> Option<&'a str> {
    let hosts = container.lives_in();
    deployment.moved().find(|(_, moved, _)| hosts.contains(&moved.id.as_str())).map(|(_, moved, _)| moved.name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(registry: &str, repository: &str) -> Target {
        Target {
            tag: "v2".into(),
            version: "2.0.0".into(),
            registry: registry.into(),
            repository: repository.into(),
            spelled: None,
            image_tag: "2".into(),
            digest: String::new(),
            known_image: None,
            estimated_downtime_seconds: None,
        }
    }

    /// What Compose resolves, the manifest's registry and repository, and the line that the remedy names;
    /// empty: there is nothing to refuse.
    #[test]
    fn the_remedy_keeps_the_name_that_is_right() {
        let digest = format!("@sha256:{}", "0".repeat(64));
        for (resolved, registry, repository, remedy) in [
            ("acme/app:2", "docker.io", "acme/app", ""),
            ("docker.io/acme/app:2", "docker.io", "acme/app", ""),
            ("acme/app:2", "registry-1.docker.io", "acme/app", ""),
            ("app:2", "docker.io", "library/app", ""),
            ("[::1]:5000/app:2", "[::1]:5000", "app", ""),
            ("acme/app:1", "docker.io", "acme/app", "image: acme/app:${KEY}"),
            ("acme/app", "index.docker.io", "acme/app", "image: acme/app:${KEY}"),
            ("registry:5000/app", "registry:5000", "app", "image: registry:5000/app:${KEY}"),
            ("[::1]:5000/app", "[::1]:5000", "app", "image: [::1]:5000/app:${KEY}"),
            ("ghcr.io/acme/app:2", "docker.io", "acme/app", "image: docker.io/acme/app:${KEY}"),
            ("acme/other:2", "docker.io", "acme/app", "image: docker.io/acme/app:${KEY}"),
            ("acme/app:2@", "docker.io", "acme/app", "image: acme/app:${KEY}, without @sha256:…"),
            ("acme/app@", "docker.io", "acme/app", "image: acme/app:${KEY}, without @sha256:…"),
            ("ghcr.io/acme/app@", "docker.io", "acme/app", "image: docker.io/acme/app:${KEY}, without @sha256:…"),
            ("acme/app:", "docker.io", "acme/app", "image: docker.io/acme/app:${KEY}"),
            ("", "docker.io", "acme/app", "image: docker.io/acme/app:${KEY}"),
        ] {
            let resolved = resolved.replace('@', &digest);
            let refusal = image_refusal("app", "KEY", "2", &resolved, &target(registry, repository));
            match refusal {
                None => assert_eq!(remedy, "", "{resolved}"),
                Some(text) => assert!(!remedy.is_empty() && text.to_string().contains(remedy), "{resolved}: {text}"),
            }
        }
    }
}
