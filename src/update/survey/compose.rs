//! Asks Compose whether the wish changes what it names, and nothing else.

use std::collections::BTreeMap;

use super::wish::Wish;
use super::{Deployment, Refused, assemble, replicas, scale_to_one};
use crate::command::line;
use crate::engine::compose_config::Service;
use crate::engine::{ComposeConfig, Container, DryRun, EngineError, Image};
use crate::reference::{self, Reference};
use crate::update::drift;
use crate::update::plan::Target;
use crate::update::ports::Ports;
use crate::update::refusal::{Code, Refusal};
use crate::update::version_changes::VersionChanges;

/// The project as Compose resolves it now and with the wanted version, and what `up` would do now with each
/// of the services that are moved.
pub struct Resolved {
    pub old: ComposeConfig,
    pub new: ComposeConfig,
    /// What differs between the two.
    pub changes: VersionChanges,
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

/// Asks Compose: with `.env` as it is, and as it would be with the wish fulfilled.
pub async fn resolve(ports: &Ports, deployment: &Deployment, wish: &Wish) -> Result<Resolved, Refused> {
    let (project, compose) = (&deployment.project, &ports.compose);
    let env = assemble::env_change(deployment, &project.version_key, wish)?.after.unwrap_or_default();
    let (old, new, dry_runs) =
        tokio::join!(compose.config(project, None), compose.config(project, Some(&env)), dry_runs(ports, deployment));
    let (old, new) = (old.map_err(unreadable)?, new.map_err(unreadable)?);
    let image_version = old.service(&project.service).and_then(|s| s.image.as_deref()).and_then(reference::version_of);
    let old_version = deployment.env_value.as_deref().or(image_version).unwrap_or_default();
    let new_version = wish.env_value.as_deref().unwrap_or(&wish.target.image_tag);
    let changes = VersionChanges::between(&old, &new, project, (old_version, new_version));
    Ok(Resolved { old, new, changes, dry_runs: dry_runs? })
}

/// The same without a wish: nothing changes.
pub async fn resolve_as_it_is(ports: &Ports, deployment: &Deployment) -> Result<Resolved, Refused> {
    let (old, dry_runs) = tokio::join!(ports.compose.config(&deployment.project, None), dry_runs(ports, deployment));
    let old = old.map_err(unreadable)?;
    Ok(Resolved { new: old.clone(), old, changes: VersionChanges::default(), dry_runs: dry_runs? })
}

async fn dry_runs(ports: &Ports, deployment: &Deployment) -> Result<Vec<(String, DryRun)>, Refusal> {
    let (project, compose) = (&deployment.project, &ports.compose);
    let of = |service: &str| {
        let service = service.to_owned();
        async move { Ok::<_, EngineError>((service.clone(), compose.dry_run(project, &service).await?)) }
    };
    futures_util::future::try_join_all(project.moved().map(of)).await.map_err(unreadable)
}

fn unreadable(error: EngineError) -> Refusal {
    match error.is_unreachable() {
        true => Refusal::from(error),
        false => Refusal {
            code: Code::ComposeUnreadable,
            ..Refusal::of("Compose cannot read the deployment: ", &error).command("docker compose config --quiet")
        },
    }
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
                "the deployment has drifted from what runs, and the update would change more than the version, which needs your consent (--accept-drift, \"accept_drift\": true): {}",
                drift.join("; ")
            ),
        )
        .command(line(["docker", "compose", "up", "-d"].into_iter().chain(deployment.project.moved())))
    })
}

/// The images of all services that are moved must follow the version key, and nothing else may.
pub fn resolution_refusals(resolved: &Resolved, deployment: &Deployment, wish: &Wish) -> Vec<Refusal> {
    let key = &deployment.project.version_key;
    let wanted = wish.env_value.as_deref().unwrap_or_default();
    let image = |service| resolved.new.service(service).and_then(|s| s.image.as_deref()).unwrap_or_default();
    let moved = deployment.project.moved();
    let images = moved.filter_map(|service| image_refusal(service, key, wanted, image(service), &wish.target));
    images.chain(version_refusal(resolved, key)).collect()
}

/// Where data is, what others know the application by, what it runs: none of it may depend on the version.
fn version_refusal(resolved: &Resolved, key: &str) -> Option<Refusal> {
    let list: Vec<_> = resolved.changes.refused.iter().map(ToString::to_string).collect();
    (!list.is_empty()).then(|| {
        let what = format!(
            "{key} changes more than the image and the version, which would part the new version from its data or from other services: {}",
            list.join("; ")
        );
        Refusal::new(Code::KeyChangesMore, what).text(format!(
            "write the present value there in the Compose file (or in .env, as a variable of its own) instead of ${{{key}}}"
        ))
    })
}

/// Services that are not moved, and change too.
pub fn followers_warning(resolved: &Resolved, key: &str) -> Option<String> {
    let followers = resolved.changes.followers();
    let beyond: Vec<_> = resolved.changes.followed_beyond_image().map(ToString::to_string).collect();
    let beyond = if beyond.is_empty() { String::new() } else { format!("; then also {}", beyond.join("; ")) };
    (!followers.is_empty()).then(|| {
        format!(
            "these services follow {key} too and are made anew by your next `docker compose up`, not by this update: {}{beyond}",
            followers.join(", ")
        )
    })
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

/// One container of each service is moved, not several: there must be one, and the files must ask for one.
pub fn replica_refusals(resolved: &Resolved, deployment: &Deployment) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    for service in deployment.project.moved() {
        let containers: Vec<&Container> = deployment.of_service(service).collect();
        let asked = resolved.old.service(service).map_or(1, Service::replicas);
        if asked != 1 {
            let what = format!(
                "the Compose files ask for {asked} containers of service {service} (`scale` or `deploy.replicas`), and an update moves one"
            );
            let remedy = format!("set it to 1 there, then `{}`", scale_to_one(service));
            refusals.push(Refusal::new(Code::Replicas, what).text(remedy));
        } else if containers.len() != 1 {
            refusals.push(replicas(service, &containers));
        }
    }
    refusals
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
