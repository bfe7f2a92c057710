//! Looks at the release and at the deployment, and makes the Plan. No effects: whatever is wrong is found
//! here, before anything is touched, and all of it is told at once.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::Value;

use super::Request;
use super::drift;
use super::job::Verified;
use super::plan::{self, Baseline, DataPlan, EnvChange, Migration, Plan, Previous, Target};
use super::policy;
use super::ports::{Options, Ports};
use crate::engine::{
    Container, DryRun, EngineError, EngineInfo, Healthcheck, Image, Mount, MountKind, Project, RunState, label,
};
use crate::envfile;
use crate::health::Answer;
use crate::release::manifest::{MANIFEST_CAP, Manifest};
use crate::release::{Asset, Release, reference};
use crate::trust::{CARRIER_CAP, TrustError};

/// The asset that is the manifest.
pub const MANIFEST: &str = "release.json";
/// The baseline is asked once; a hanging application must not hold the planning up.
const BASELINE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(2);
/// The manifest's own estimate extends the gate to this at most.
const LONGEST_GATE_SECONDS: u64 = 3600;

/// The update is refused; each line says what was found and what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct Refused(pub Vec<String>);

impl Refused {
    fn because(why: impl std::fmt::Display) -> Self {
        Self(vec![why.to_string()])
    }
}

/// A release whose manifest is genuine.
#[derive(Debug, Clone)]
pub struct Candidate {
    pub release: Release,
    pub manifest: Manifest,
    pub verified: Verified,
}

/// What runs, and how it was made.
#[derive(Debug, Clone)]
pub struct Deployment {
    pub engine: EngineInfo,
    pub container: Container,
    pub image: Image,
    pub project: Project,
    pub env: Option<Vec<u8>>,
    /// The key's value in `.env`.
    pub env_value: Option<String>,
    pub running_version: Option<semver::Version>,
}

impl Deployment {
    /// For people: the version where it is known, else the words of `.env`.
    pub fn version_text(&self) -> Option<String> {
        self.running_version.as_ref().map(ToString::to_string).or_else(|| self.env_value.clone())
    }
}

/// Fetches the release, has its manifest judged, and only then reads what it says.
pub async fn candidate(ports: &Ports, tag: &str) -> Result<Candidate, Refused> {
    let release = ports.releases.by_tag(tag).await.map_err(Refused::because)?;
    let Some(asset) = release.assets.iter().find(|a| a.name == MANIFEST) else {
        return Err(Refused::because(format!(
            "release {tag} has no asset {MANIFEST}: it was not published for this updater"
        )));
    };
    let manifest = fetch(ports, asset, MANIFEST_CAP).await?;
    let carriers = carriers(ports, &release).await?;
    let verified = ports.trust.manifest(&manifest, &carriers).await.map_err(|e| match e {
        TrustError::Refused(why) => Refused::because(format!("the manifest of {tag} is not trusted: {why}")),
        TrustError::Unavailable(why) => Refused::because(format!("the manifest of {tag} cannot be verified: {why}")),
    })?;
    let manifest =
        Manifest::parse(&manifest).map_err(|e| Refused::because(format!("the manifest of {tag} is refused: {e}")))?;
    let signing = &manifest.signing;
    ports
        .trust
        .agrees(&signing.method, &signing.issuer)
        .map_err(|e| Refused::because(format!("the manifest of {tag} is refused: {e}")))?;
    Ok(Candidate { release, manifest, verified })
}

async fn carriers(ports: &Ports, release: &Release) -> Result<BTreeMap<String, Bytes>, Refused> {
    let wanted = release.assets.iter().filter(|a| ports.trust.carriers().contains(&a.name.as_str()));
    let fetched =
        wanted.map(|asset| async { Ok::<_, Refused>((asset.name.clone(), fetch(ports, asset, CARRIER_CAP).await?)) });
    futures_util::future::try_join_all(fetched).await.map(|list| list.into_iter().collect())
}

async fn fetch(ports: &Ports, asset: &Asset, cap: usize) -> Result<Bytes, Refused> {
    let fetched = ports.releases.fetch(asset, cap).await;
    fetched.map_err(|e| Refused::because(format!("{} cannot be fetched: {e}", asset.name)))
}

/// Looks at the application's container and how Compose made it.
pub async fn deployment(ports: &Ports, options: &Options) -> Result<Deployment, Refused> {
    let name = &options.app_container;
    let (engine, container) = tokio::join!(ports.engine.info(), ports.engine.container(name));
    let engine = engine.map_err(Refused::because)?;
    let container = container.map_err(Refused::because)?.ok_or_else(|| {
        Refused::because(format!(
            "there is no container {name:?} (PROCESSGIT_UPDATER_APP_CONTAINER): start the application with `docker compose up -d`, or name its container"
        ))
    })?;
    let project = project(&container, options)?;
    let image = ports.engine.image(&container.image_id).await.map_err(Refused::because)?.ok_or_else(|| {
        Refused::because(format!("the image that {name} runs ({}) was removed from the engine; there would be no way back: `docker compose up -d` first", container.image_id))
    })?;
    ports.env.preflight(&project_env(&project)).await.map_err(Refused::because)?;
    let env = ports.env.read().await.map_err(Refused::because)?;
    let env_value = env.as_deref().and_then(|bytes| envfile::get(bytes, &options.version_key));
    let label = image.labels.get("org.opencontainers.image.version").map(String::as_str);
    let running_version = policy::running_version(env_value.as_deref(), label);
    Ok(Deployment { engine, container, image, project, env, env_value, running_version })
}

/// The environment files that Compose reads for this project.
fn project_env(project: &Project) -> Vec<String> {
    if project.env_files.is_empty() { vec![format!("{}/.env", project.working_dir)] } else { project.env_files.clone() }
}

fn project(container: &Container, options: &Options) -> Result<Project, Refused> {
    let need = |name: &str| {
        container.label(name).map(str::to_owned).ok_or_else(|| {
            Refused::because(format!("container {} has no label {name}: it was not made by Docker Compose, and only Compose can make it anew", container.name))
        })
    };
    let list = |text: &str| text.split(',').filter(|f| !f.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    let service = options.app_service.clone().or_else(|| container.label(label::SERVICE).map(str::to_owned));
    Ok(Project {
        name: need(label::PROJECT)?,
        service: service.unwrap_or_else(|| container.name.clone()),
        working_dir: need(label::WORKING_DIR)?,
        config_files: list(&need(label::CONFIG_FILES)?),
        env_files: container.label(label::ENVIRONMENT_FILE).map(list).unwrap_or_default(),
        version_key: options.version_key.clone(),
    })
}

/// The Plan, or every reason why there is none.
pub async fn plan(
    ports: &Ports,
    options: &Options,
    request: &Request,
    candidate: &Candidate,
    deployment: &Deployment,
) -> Result<Plan, Refused> {
    let mut refusals = judge(ports, options, request, candidate, deployment).await?;
    let target = target(&candidate.manifest);
    let resolved = resolve(ports, deployment, &target).await?;
    refusals.extend(resolution_refusals(&resolved, deployment, &target));
    let drift = if resolved.dry_run.unchanged {
        Vec::new()
    } else {
        drift::differences(&resolved.old, &deployment.project.service, &deployment.container, &deployment.image)
    };
    if !drift.is_empty() && !request.accept_drift {
        refusals.push(format!(
            "the deployment has drifted from what runs, and the update would change more than the version: {}. Run `docker compose up -d {}` first, or say \"accept_drift\": true",
            drift.join("; "),
            deployment.project.service
        ));
    }
    refusals.extend(sibling_refusals(ports, deployment).await?);
    if !refusals.is_empty() {
        return Err(Refused(refusals));
    }
    assemble(ports, options, candidate, deployment, target, resolved, drift).await
}

async fn judge(
    ports: &Ports,
    options: &Options,
    request: &Request,
    candidate: &Candidate,
    deployment: &Deployment,
) -> Result<Vec<String>, Refused> {
    let manifest = &candidate.manifest;
    let highest = ports.journal.highest_committed().await.map_err(Refused::because)?;
    let known_bad = ports.journal.known_bad(&manifest.image.digest).await.map_err(Refused::because)?;
    let facts = policy::Facts {
        app_name: &options.app_name,
        asked_tag: &request.target_tag,
        running: deployment.running_version.as_ref(),
        running_as: deployment.env_value.as_deref().unwrap_or_default(),
        platform: &deployment.engine.platform,
        highest_committed: highest.as_ref(),
        known_bad: known_bad.as_deref(),
        allow_downgrade: request.allow_downgrade,
        retry: request.retry,
    };
    Ok(policy::judge(manifest, &facts).iter().map(ToString::to_string).collect())
}

fn target(manifest: &Manifest) -> Target {
    Target {
        tag: manifest.tag.clone(),
        version: manifest.version.to_string(),
        registry: manifest.image.registry.clone(),
        repository: manifest.image.repository.clone(),
        image_tag: manifest.image.tag.clone(),
        digest: manifest.image.digest.clone(),
        estimated_downtime_seconds: manifest.migration.estimated_downtime_seconds,
    }
}

/// The project as Compose resolves it now and with the new version, and what `up` would do now.
struct Resolved {
    old: Value,
    new: Value,
    dry_run: DryRun,
}

async fn resolve(ports: &Ports, deployment: &Deployment, target: &Target) -> Result<Resolved, Refused> {
    let project = &deployment.project;
    let (old, new, dry_run) = tokio::join!(
        ports.compose.config(project, None),
        ports.compose.config(project, Some(&target.image_tag)),
        ports.compose.dry_run(project)
    );
    let compose = |e: EngineError| Refused::because(format!("Compose cannot read the deployment: {e}"));
    Ok(Resolved { old: old.map_err(compose)?, new: new.map_err(compose)?, dry_run: dry_run.map_err(compose)? })
}

/// The service's image must follow the version key, and nothing else may.
fn resolution_refusals(resolved: &Resolved, deployment: &Deployment, target: &Target) -> Vec<String> {
    let Project { service, version_key: key, .. } = &deployment.project;
    let image = |config: &Value| config["services"][service.as_str()]["image"].as_str().unwrap_or_default().to_owned();
    let (old, new, expected) = (image(&resolved.old), image(&resolved.new), target.reference());
    let mut refusals = Vec::new();
    if new != expected {
        refusals.push(format!(
            "with {key}={} Compose resolves the image of service {service} to {new:?}, expected {expected:?}: the Compose file must say image: {}/{}:${{{key}}}",
            target.image_tag, target.registry, target.repository
        ));
    }
    let old_version =
        deployment.env_value.clone().or_else(|| reference::version_of(&old).map(str::to_owned)).unwrap_or_default();
    let (a, b) = (&resolved.old["services"][service.as_str()], &resolved.new["services"][service.as_str()]);
    let beyond = plan::changes_beyond_version(a, b, &old_version, &target.image_tag);
    if !beyond.is_empty() {
        refusals.push(format!(
            "{key} changes more of service {service} than its image and the version itself: {}",
            beyond.join(", ")
        ));
    }
    refusals
}

/// The other containers of the project: one container is moved, and nothing may live inside of it.
async fn sibling_refusals(ports: &Ports, deployment: &Deployment) -> Result<Vec<String>, Refused> {
    let project = &deployment.project;
    let siblings = ports.engine.containers(&[(label::PROJECT, &project.name)]).await.map_err(Refused::because)?;
    let name = &deployment.container.name;
    let shared = format!("container:{}", deployment.container.id);
    let shares = |c: &&Container| {
        let host = &c.raw["HostConfig"];
        c.network_mode == shared || host["PidMode"] == *shared || host["IpcMode"] == *shared
    };
    let mut refusals: Vec<String> = siblings
        .iter()
        .filter(shares)
        .map(|c| {
            format!(
                "container {} lives in the namespaces of {name} and would lose them: such services are not moved yet",
                c.name
            )
        })
        .collect();
    let is_replica =
        |c: &&Container| c.label(label::SERVICE) == Some(&project.service) && c.label(label::ONEOFF) != Some("True");
    let replicas: Vec<_> = siblings.iter().filter(is_replica).map(|c| c.name.as_str()).collect();
    if replicas.len() != 1 {
        refusals.push(format!(
            "service {} has {} containers ({}), expected one: remove the leftovers, or scale it to one",
            project.service,
            replicas.len(),
            replicas.join(", ")
        ));
    }
    Ok(refusals)
}

async fn assemble(
    ports: &Ports,
    options: &Options,
    candidate: &Candidate,
    deployment: &Deployment,
    target: Target,
    resolved: Resolved,
    drift: Vec<String>,
) -> Result<Plan, Refused> {
    let (container, project, manifest) = (&deployment.container, &deployment.project, &candidate.manifest);
    let held = |reference: String| async move { ports.engine.image(&reference).await.map_err(Refused::because) };
    let (pinned, tagged) = tokio::try_join!(held(target.pinned()), held(target.reference()))?;
    let old_image =
        resolved.old["services"][project.service.as_str()]["image"].as_str().unwrap_or(&container.image_ref).to_owned();
    let previous = previous(ports, options, deployment, &old_image).await;
    let no_op = pinned.as_ref().is_some_and(|i| i.id == container.image_id)
        && container.image_ref == target.reference()
        && deployment.env_value.as_deref() == Some(&target.image_tag)
        && container.is_running();
    let env = env_change(deployment, &options.version_key, &target.image_tag)?;
    let migration = migration(manifest, &resolved.new, deployment, options).filter(|_| !no_op);
    let data = data_plan(ports, &container.mounts).await?;
    let followers = plan::followers(&resolved.old, &resolved.new, &project.service);
    let warnings = warnings(options, deployment, &previous, &data, &followers, migration.is_some());
    let plan = Plan {
        changes: changes(deployment, &target, migration.as_ref(), no_op),
        health_timeout_seconds: target.estimated_downtime_seconds.unwrap_or(0).min(LONGEST_GATE_SECONDS),
        had_image: pinned.is_some(),
        tag_meant: tagged.map(|i| i.id),
        mounts: container.mounts.iter().filter(|m| !is_socket(m)).cloned().collect(),
        project: project.clone(),
        target,
        previous,
        env,
        migration,
        data,
        no_op,
        drift,
        warnings,
    };
    Ok(plan)
}

async fn previous(ports: &Ports, options: &Options, deployment: &Deployment, old_image: &str) -> Previous {
    let c = &deployment.container;
    let answered_ok = matches!(ports.probe.ask(c, BASELINE_TIMEOUT).await, Answer::Http { status: 200, .. });
    let baseline = Baseline { running: is_alive(c), answered_ok, healthcheck: c.healthcheck };
    tracing::debug!(?baseline, gate = ?options.health, "baseline");
    Previous {
        container_id: c.id.clone(),
        container_name: c.name.clone(),
        image_id: c.image_id.clone(),
        image_ref: old_image.to_owned(),
        repo_digest: deployment.image.repo_digests.first().cloned(),
        version: deployment.running_version.as_ref().map(ToString::to_string),
        restart_policy: c.restart_policy.clone(),
        started_at: c.started_at,
        baseline,
    }
}

/// It runs, or its restart policy is at work.
pub fn is_alive(container: &Container) -> bool {
    matches!(container.state, RunState::Running | RunState::Restarting | RunState::Paused)
}

fn env_change(deployment: &Deployment, key: &str, image_tag: &str) -> Result<EnvChange, Refused> {
    let before = deployment.env.clone();
    let edited = envfile::set(before.as_deref().unwrap_or_default(), key, image_tag).map_err(Refused::because)?;
    Ok(EnvChange {
        key: key.to_owned(),
        before,
        after: Some(edited.bytes),
        value_before: deployment.env_value.clone(),
        value_after: image_tag.to_owned(),
    })
}

fn migration(manifest: &Manifest, new: &Value, deployment: &Deployment, options: &Options) -> Option<Migration> {
    let command = manifest.migration.command.clone().filter(|_| manifest.migration.required)?;
    let c = &deployment.container;
    let networks = match c.network_mode.as_str() {
        mode @ ("host" | "none") => vec![mode.to_owned()],
        mode if mode.starts_with("container:") => vec![mode.to_owned()],
        _ => c.networks.keys().cloned().collect(),
    };
    let service =
        plan::migration_service(new, &deployment.project.service, networks, &options.version_key, &manifest.image.tag);
    Some(Migration { command, service })
}

/// The engine's socket is no data, and never reaches a migration.
fn is_socket(mount: &Mount) -> bool {
    mount.source.ends_with(".sock")
}

async fn data_plan(ports: &Ports, mounts: &[Mount]) -> Result<DataPlan, Refused> {
    let is_data = |m: &&Mount| m.writable && matches!(m.kind, MountKind::Volume | MountKind::Bind) && !is_socket(m);
    let mounts: Vec<Mount> = mounts.iter().filter(is_data).cloned().collect();
    if mounts.is_empty() {
        return Ok(DataPlan::None);
    }
    if let Some(why) = ports.data.off() {
        return Ok(DataPlan::NotCopied { mounts, why });
    }
    ports.data.preflight(&mounts).await.map_err(Refused::because)?;
    Ok(DataPlan::Copied(mounts))
}

fn warnings(
    options: &Options,
    deployment: &Deployment,
    previous: &Previous,
    data: &DataPlan,
    followers: &[String],
    migrates: bool,
) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(uncovered) = data.uncovered() {
        let what = if migrates { "the migration or the new version has" } else { "the new version has" };
        warnings.push(format!(
            "the data is NOT copied: {uncovered}. A rollback after {what} begun cannot put it back and ends `failed`"
        ));
    }
    if !followers.is_empty() {
        warnings.push(format!(
            "these services follow {} too and are made anew by your next `docker compose up`, not by this update: {}",
            options.version_key,
            followers.join(", ")
        ));
    }
    let c = &deployment.container;
    if c.healthcheck != Healthcheck::None && c.healthcheck_seconds >= options.health.timeout.as_secs() {
        warnings.push(format!(
            "the container's HEALTHCHECK says nothing for its first {} s, but the gate ends after {:?}: set PROCESSGIT_UPDATER_HEALTH_TIMEOUT higher, or give the HEALTHCHECK a start_interval",
            c.healthcheck_seconds, options.health.timeout
        ));
    }
    if !previous.baseline.is_well() {
        let state = format!("{:?}", c.state).to_lowercase();
        warnings.push(format!(
            "the application is not well now ({state}, health URL {}): a rollback can only bring that back",
            if previous.baseline.answered_ok { "answers 200" } else { "does not answer 200" }
        ));
    }
    warnings
}

fn changes(deployment: &Deployment, target: &Target, migration: Option<&Migration>, no_op: bool) -> Vec<String> {
    if no_op {
        return vec![format!("nothing: {} runs already, by this very digest", target.reference())];
    }
    let before = deployment.env_value.as_deref().unwrap_or("(absent)");
    let mut changes = vec![
        format!("image: {} -> {} ({})", deployment.container.image_ref, target.reference(), target.digest),
        format!("{}: {before} -> {}", deployment.project.version_key, target.image_tag),
    ];
    changes.extend(migration.map(|m| format!("migration: {}", m.text())));
    changes
}
