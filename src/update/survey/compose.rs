//! Asks Compose whether the wish changes what it names, and nothing else.

use std::collections::BTreeMap;
use std::path::Path;

use super::wish::Wish;
use super::{Deployment, Refused, assemble, beside, replicas, scale_to_one, unset};
use crate::command::line;
use crate::engine::compose_config::Service;
use crate::engine::{ComposeConfig, Container, DryRun, EngineError, Image, Project, Written};
use crate::reference::{self, Reference};
use crate::update::drift::{self, Difference};
use crate::update::plan::Target;
use crate::update::ports::Ports;
use crate::update::refusal::{Code, Refusal};
use crate::update::running;
use crate::update::version_changes::VersionChanges;

/// The project as Compose resolves it now and with the wanted version, and what `up` would do now with each
/// of the services that are moved.
pub struct Resolved {
    pub old: ComposeConfig,
    pub new: ComposeConfig,
    /// What differs between the two.
    pub changes: VersionChanges,
    pub dry_runs: Vec<(String, DryRun)>,
    /// The files with their variables, where Compose would make a container anew.
    pub written: Option<Written>,
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
    let (old, new, dry_runs) = match (old, new, dry_runs) {
        (Ok(old), Ok(new), Ok(dry_runs)) => (old, new, dry_runs),
        (Err(error), ..) | (_, Err(error), _) | (.., Err(error)) => {
            return Err(unreadable(ports, deployment, error).await);
        }
    };
    let image_version = old.service(&project.service).and_then(|s| s.image.as_deref()).and_then(reference::version_of);
    let old_version = deployment.env_value.as_deref().or(image_version).unwrap_or_default();
    let new_version = wish.env_value.as_deref().unwrap_or(&wish.target.image_tag);
    let changes = VersionChanges::between(&old, &new, project, (old_version, new_version));
    let written = written(ports, deployment, &dry_runs).await;
    Ok(Resolved { old, new, changes, dry_runs, written })
}

/// The same without a wish: nothing changes.
pub async fn resolve_as_it_is(ports: &Ports, deployment: &Deployment) -> Result<Resolved, Refused> {
    let (old, dry_runs) = tokio::join!(ports.compose.config(&deployment.project, None), dry_runs(ports, deployment));
    let (old, dry_runs) = match (old, dry_runs) {
        (Ok(old), Ok(dry_runs)) => (old, dry_runs),
        (Err(error), _) | (_, Err(error)) => return Err(unreadable(ports, deployment, error).await),
    };
    let written = written(ports, deployment, &dry_runs).await;
    Ok(Resolved { new: old.clone(), old, changes: VersionChanges::default(), dry_runs, written })
}

/// Asked for only where something is to be explained. Where Compose cannot tell it, that stays unexplained.
async fn written(ports: &Ports, deployment: &Deployment, dry_runs: &[(String, DryRun)]) -> Option<Written> {
    if dry_runs.iter().all(|(_, dry_run)| dry_run.unchanged) {
        return None;
    }
    ports.compose.written(&deployment.project).await.ok()
}

async fn dry_runs(ports: &Ports, deployment: &Deployment) -> Result<Vec<(String, DryRun)>, EngineError> {
    let (project, compose) = (&deployment.project, &ports.compose);
    let of = |service: &str| {
        let service = service.to_owned();
        async move { Ok((service.clone(), compose.dry_run(project, &service).await?)) }
    };
    futures_util::future::try_join_all(project.moved().map(of)).await
}

async fn unreadable(ports: &Ports, deployment: &Deployment, error: EngineError) -> Refused {
    if error.is_unreachable() {
        return error.into();
    }
    if let EngineError::ProjectGone { path } = &error {
        return moved(ports, deployment, path, &error).await.into();
    }
    let written = ports.compose.written(&deployment.project).await.unwrap_or_default();
    let wanting = unset::unreadable(&written, deployment, &error.to_string());
    if !wanting.is_empty() {
        return Refused(wanting);
    }
    let what = format!("Compose cannot read the deployment: {error}");
    Refusal::new(Code::ComposeUnreadable, what).command("docker compose config --quiet").into()
}

/// The names under which Compose looks for its file, as it prefers them.
const FILE_NAMES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];

/// The labels of a container keep the paths of the files that it was made from: only a container that is made anew
/// has others. Where the file was renamed to another of Compose's own names, that one is found.
async fn moved(ports: &Ports, deployment: &Deployment, path: &str, error: &EngineError) -> Refusal {
    let project = &deployment.project;
    let typed = |files: &[String]| {
        let options = files.iter().flat_map(|file| ["-f", file]);
        let env_files = project.env_files.iter().filter(|_| !files.is_empty()).flat_map(|file| ["--env-file", file]);
        let anew = ["up", "-d", "--no-deps", "--force-recreate"].into_iter().chain(project.moved());
        line(["docker", "compose", "-p", &project.name].into_iter().chain(options).chain(env_files).chain(anew))
    };
    let is_file = project.config_files.iter().any(|file| file == path);
    let folder = Path::new(path).parent().unwrap_or(Path::new("/"));
    for name in FILE_NAMES.iter().filter(|_| is_file) {
        let renamed = folder.join(name).display().to_string();
        let instead = |file: &String| if file == path { renamed.clone() } else { file.clone() };
        let tried = Project { config_files: project.config_files.iter().map(instead).collect(), ..project.clone() };
        if renamed == path
            || !ports.compose.config(&tried, None).await.is_ok_and(|c| c.service(&project.service).is_some())
        {
            continue;
        }
        let what = format!(
            "{error}. {renamed} is there and has the service: it seems to be the same file, renamed. The container's labels name the old path until the container is made anew"
        );
        return Refusal::new(Code::ProjectMoved, what).command(typed(&tried.config_files));
    }
    let what = format!(
        "{error}: it was renamed, moved or removed. The container's labels name the old path until the container is made anew"
    );
    Refusal::new(Code::ProjectMoved, what).text(format!(
        "put it back, or make the container anew from where the files are now: `{}` in that folder",
        typed(&[])
    ))
}

/// What differs between files and containers, whatever Compose thinks of it; by service.
pub fn differences(resolved: &Resolved, deployment: &Deployment, ours: &str) -> BTreeMap<String, Vec<String>> {
    let of = |(service, container, image): (&str, &Container, &Image)| {
        let differs = drift::differences(&resolved.old, service, container, image, ours);
        (service.to_owned(), differs.into_iter().map(|difference| difference.text).collect())
    };
    deployment.moved().map(of).collect()
}

/// What files and containers disagree in, each with its service.
#[derive(Debug, Clone, Default)]
pub struct Drift {
    pub found: Vec<(String, Difference)>,
    /// Several services are moved.
    of_several: bool,
}

impl Drift {
    /// One line each.
    pub fn lines(&self) -> Vec<String> {
        let line = |(service, difference): &(String, Difference)| match self.of_several {
            true => format!("{service}: {difference}"),
            false => difference.to_string(),
        };
        self.found.iter().map(line).collect()
    }
}

/// What differs between files and containers; asked of Compose first, because another Compose version
/// hashes differently without any material difference. `ours` is a variable that the updater writes.
pub fn drift(resolved: &Resolved, deployment: &Deployment, wish: &Wish, ours: &str) -> Drift {
    let mut found = Vec::new();
    for ((service, container, image), (_, dry_run)) in deployment.moved().zip(&resolved.dry_runs) {
        let mut differs = match dry_run.unchanged {
            true => Vec::new(),
            false => drift::differences(&resolved.old, service, container, image, ours),
        };
        // Somebody has written the very version into `.env` that is wanted.
        let wanted = resolved.old.service(service).and_then(|service| service.image.as_deref()).unwrap_or_default();
        if reference::is_same(wanted, &wish.target.reference()) {
            differs.retain(|difference| difference.attribute != drift::IMAGE);
        }
        // Compose compares names of images; the way back is to one image.
        if container.image_id != deployment.container.image_id
            && reference::is_same(&container.image_ref, &deployment.container.image_ref)
        {
            let says = format!("{} means another one than {} runs", container.image_ref, deployment.container.name);
            differs.push(Difference::new(drift::IMAGE, says));
        }
        found.extend(differs.into_iter().map(|difference| (service.to_owned(), difference)));
    }
    Drift { found, of_several: !deployment.crew.is_empty() }
}

/// Why files and containers disagree, and what brings them together again. `env_file`: the path of `.env`, as the
/// updater sees it. Empty where nothing has drifted.
pub fn drift_refusals(drift: Drift, resolved: &Resolved, deployment: &Deployment, env_file: &str) -> Vec<Refusal> {
    let of_several = drift.of_several;
    let (mut refusals, rest) = match &resolved.written {
        Some(written) => unset::drifted(written, deployment, drift.found),
        None => (Vec::new(), drift.found),
    };
    let (images, rest): (Vec<_>, Vec<_>) =
        rest.into_iter().partition(|(_, difference)| difference.attribute == drift::IMAGE);
    let images = Drift { found: images, of_several };
    let rest = match not_applied(&images, deployment, env_file) {
        Some(refusal) => {
            refusals.push(refusal);
            Drift { found: rest, of_several }
        }
        None => Drift { found: images.found.into_iter().chain(rest).collect(), of_several },
    };
    if rest.found.is_empty() {
        return refusals;
    }
    let what = format!(
        "the deployment has drifted from what runs, and an update would change more than the version, which needs your consent (--accept-drift, \"accept_drift\": true): {}",
        rest.lines().join("; ")
    );
    let why = Refusal::new(Code::Drift, what);
    refusals.push(match refusals.is_empty() {
        true => why.command(line(["docker", "compose", "up", "-d"].into_iter().chain(deployment.project.moved()))),
        // Before the rest is in order it would make the application anew from the wrong files.
        false => why.text("bring the rest in order first, then look again"),
    });
    refusals
}

/// All that files and engine disagree in, which an update must not bring about without consent.
pub fn disagreements(drift: Drift, resolved: &Resolved, deployment: &Deployment, env_file: &str) -> Vec<Refusal> {
    let drifted = drift_refusals(drift, resolved, deployment, env_file);
    let is_of_shell = drifted.iter().any(|refusal| refusal.code == Code::ShellVariable);
    // What Compose would make beside it may come of the same, and `up` would make it.
    let beside = if is_of_shell { Vec::new() } else { beside::refusals(resolved, deployment, false) };
    drifted.into_iter().chain(beside).collect()
}

/// `.env` selects another version than the one that runs. To bring it about without the updater would be an update
/// without a copy of the data and without a way back.
fn not_applied(images: &Drift, deployment: &Deployment, env_file: &str) -> Option<Refusal> {
    let runs = &deployment.container.image_ref;
    let value = running::not_applied(runs, deployment.env_value.as_deref())?;
    let tag = reference::version_of(runs)?;
    if images.found.is_empty() {
        return None;
    }
    let key = &deployment.project.version_key;
    let what = format!(
        "{key}={value} in .env has not been applied: {}. An update to exactly that version brings it about; any other needs your consent (--accept-drift, \"accept_drift\": true), or .env must name the version that runs",
        images.lines().join("; ")
    );
    let set = line(["processgit-updater", "env", "set", "--file", env_file, key, tag]);
    Some(Refusal::new(Code::NotApplied, what).command(set))
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
