//! What is wanted, in terms of the Plan: the order, the release or snapshot it names, and what runs.

use super::{Candidate, Deployment, Refused};
use crate::engine::Image;
use crate::reference::{self, Reference};
use crate::release::manifest::Manifest;
use crate::update::plan::{Purpose, Target};
use crate::update::policy;
use crate::update::ports::{CopyLabel, DataError, Options, Ports};
use crate::update::record::Record;
use crate::update::refusal::{Code, Refusal};
use crate::update::{Order, Request};

/// What the Plan is made from, beside what runs.
#[derive(Debug, Clone)]
pub struct Wish {
    pub purpose: Purpose,
    /// No other version is wanted.
    pub stays: bool,
    pub hot_only: bool,
    pub target: Target,
    /// The version key's value afterwards; `None`: absent.
    pub env_value: Option<String>,
    pub migration: Option<Vec<String>>,
    pub accept_drift: bool,
    /// The application need not be well. What a person does by hand is done to repair it, as a rule.
    pub accept_unwell: bool,
    /// The mounts of the snapshot that shall be put back; empty where that is not known.
    pub snapshot_mounts: Vec<String>,
    pub accept_partial: bool,
}

/// Another version: the release must be allowed to replace what runs. All refusals at once.
pub async fn update(
    ports: &Ports,
    options: &Options,
    request: &Request,
    candidate: &Candidate,
    deployment: &Deployment,
) -> Result<(Wish, Vec<Refusal>), Refused> {
    let manifest = &candidate.manifest;
    let refusals = judge(ports, options, request, manifest, deployment).await?;
    let migration = manifest.migration.command.clone().filter(|_| manifest.migration.required);
    let wish = Wish {
        purpose: Purpose::Update,
        stays: false,
        hot_only: false,
        target: target(manifest),
        env_value: Some(manifest.image.tag.clone()),
        migration,
        accept_drift: request.accept_drift,
        accept_unwell: request.accept_unwell,
        snapshot_mounts: Vec::new(),
        accept_partial: false,
    };
    Ok((wish, refusals))
}

async fn judge(
    ports: &Ports,
    options: &Options,
    request: &Request,
    manifest: &Manifest,
    deployment: &Deployment,
) -> Result<Vec<Refusal>, Refused> {
    let highest = ports.journal.highest_committed().await?;
    let known_bad = ports.journal.known_bad(&manifest.image.digest).await?;
    let facts = policy::Facts {
        app_name: &options.app_name,
        asked_tag: &request.target_tag,
        running: &deployment.running,
        version_key: &options.version_key,
        platform: &deployment.engine.platform,
        highest_committed: highest.as_ref(),
        known_bad: known_bad.as_deref(),
        allow_downgrade: request.allow_downgrade,
        retry: request.retry,
        command: options.command,
    };
    Ok(policy::judge(manifest, &facts))
}

fn target(manifest: &Manifest) -> Target {
    Target {
        tag: manifest.tag.clone(),
        version: manifest.version.to_string(),
        registry: manifest.image.registry.clone(),
        repository: manifest.image.repository.clone(),
        spelled: None,
        image_tag: manifest.image.tag.clone(),
        digest: manifest.image.digest.clone(),
        known_image: None,
        estimated_downtime_seconds: manifest.migration.estimated_downtime_seconds,
    }
}

/// What an order by hand wants: a snapshot, earlier data, the version before.
pub async fn by_hand(ports: &Ports, order: &Order, deployment: &Deployment) -> Result<Wish, Refused> {
    if let Some(why) = ports.data.off()
        && !matches!(order, Order::Rollback { with_data: false, .. })
    {
        let what = format!("no data is copied here: {why}");
        return Err(Refusal::new(Code::SnapshotsOff, what).setting("PROCESSGIT_UPDATER_SNAPSHOT=on").into());
    }
    match order {
        Order::Update(_) | Order::SelfUpdate(_) => {
            Err(Refused::because(Code::Internal, "an update is wanted by its release"))
        }
        Order::Snapshot { hot } => Ok(Wish { hot_only: *hot, ..staying(Purpose::Snapshot, deployment) }),
        Order::Restore { snapshot, accept_drift, accept_partial } => {
            let wish = restore(ports, snapshot, *accept_drift, deployment).await?;
            Ok(Wish { accept_partial: *accept_partial, ..wish })
        }
        Order::Rollback { with_data, accept_drift, accept_partial } => {
            let wish = rollback(ports, *with_data, *accept_drift, deployment).await?;
            Ok(Wish { accept_partial: *accept_partial, ..wish })
        }
    }
}

/// The version that runs goes on running.
fn staying(purpose: Purpose, deployment: &Deployment) -> Wish {
    let label = of_running(deployment);
    Wish {
        purpose,
        stays: true,
        hot_only: false,
        target: known(&label, &deployment.container.image_ref),
        env_value: label.env_value,
        migration: None,
        accept_drift: false,
        accept_unwell: true,
        snapshot_mounts: Vec::new(),
        accept_partial: false,
    }
}

/// Another version of what runs, which there need not be: what would follow the version key?
pub fn pretended(deployment: &Deployment, tag: &str) -> Wish {
    let running = staying(Purpose::Update, deployment);
    let image = Reference::parse(&deployment.container.image_ref);
    let spelled = image.map_or(running.target.spelled, |image| Some(image.written_name().to_owned()));
    Wish {
        stays: false,
        target: Target { spelled, image_tag: tag.to_owned(), known_image: None, ..running.target },
        env_value: Some(tag.to_owned()),
        ..running
    }
}

fn of_running(deployment: &Deployment) -> CopyLabel {
    CopyLabel {
        job: crate::update::job::JobId(String::new()),
        version: deployment.version_text(),
        image: deployment.container.image_ref.clone(),
        image_id: deployment.container.image_id.clone(),
        repo_digest: repo_digest(&deployment.image, &deployment.container.image_ref),
        env_value: deployment.env_value.clone(),
        by_hand: false,
    }
}

async fn restore(ports: &Ports, id: &str, accept_drift: bool, deployment: &Deployment) -> Result<Wish, Refused> {
    let snapshots = ports.data.list().await?;
    let Some(snapshot) = snapshots.iter().find(|s| s.id == id) else {
        let known = snapshots.iter().map(|s| s.id.clone()).collect();
        return Err(DataError::NoSuchSnapshot { id: id.to_owned(), known }.into());
    };
    let purpose = Purpose::Restore { generation: id.to_owned() };
    let wish = match &snapshot.label {
        Some(label) if label.image_id != deployment.container.image_id => moving(purpose, label, accept_drift)?,
        // The version that wrote it runs, or nobody knows which one wrote it.
        _ => staying(purpose, deployment),
    };
    Ok(Wish { snapshot_mounts: snapshot.mounts.clone(), ..wish })
}

async fn rollback(
    ports: &Ports,
    with_data: bool,
    accept_drift: bool,
    deployment: &Deployment,
) -> Result<Wish, Refused> {
    let last = ports.journal.last_committed().await?;
    let Some((job, Record { plan: Some(plan), learned, .. })) = last else {
        return Err(Refused::because(
            Code::NothingToRollBack,
            "there is nothing to go back to: no update has been committed here since the last rollback",
        ));
    };
    if !reference::is_same(&deployment.container.image_ref, &plan.target.reference()) {
        let what = format!(
            "the last committed update ({}) installed {}, but {} runs: somebody has changed the version since, and going back is a matter of judgement; `snapshot restore` brings data back",
            job.id,
            plan.target.reference(),
            deployment.container.image_ref
        );
        return Err(Refusal::new(Code::VersionChanged, what).command("processgit-updater snapshot list").into());
    }
    let previous = &plan.previous;
    let label = CopyLabel {
        job: job.id,
        version: previous.version.clone(),
        image: previous.image_ref.clone(),
        image_id: previous.image_id.clone(),
        repo_digest: previous.repo_digest.clone(),
        env_value: plan.env.value_before.clone(),
        by_hand: false,
    };
    let purpose = match (with_data, learned.generation) {
        (false, _) => Purpose::Update,
        (true, Some(generation)) => Purpose::Restore { generation },
        (true, None) if plan.data.is_empty() => Purpose::Update,
        (true, None) => {
            let what = "the last update took no snapshot, so its data cannot be had again; without it, going back works only if the old version can read what the new one wrote";
            let without = "processgit-updater rollback --without-data";
            return Err(Refusal::new(Code::NoSnapshotOfUpdate, what).command(without).into());
        }
    };
    let wish = moving(purpose, &label, accept_drift)?;
    let Purpose::Restore { generation } = &wish.purpose else { return Ok(wish) };
    let snapshots = ports.data.list().await?;
    let snapshot_mounts = snapshots.into_iter().find(|s| s.id == *generation).map(|s| s.mounts).unwrap_or_default();
    Ok(Wish { snapshot_mounts, ..wish })
}

/// Another version, one that ran here before.
fn moving(purpose: Purpose, label: &CopyLabel, accept_drift: bool) -> Result<Wish, Refused> {
    if !Reference::parse(&label.image).is_ok_and(|image| image.digest().is_none()) {
        let what = format!("{} names a digest, which no version key selects", label.image);
        return Err(Refusal::new(Code::PinnedByDigest, what).text("go back by hand").into());
    }
    Ok(Wish {
        purpose,
        stays: false,
        hot_only: false,
        target: known(label, &label.image),
        env_value: label.env_value.clone(),
        migration: None,
        accept_drift,
        accept_unwell: true,
        snapshot_mounts: Vec::new(),
        accept_partial: false,
    })
}

/// An image that ran here, by the reference it was run under.
fn known(label: &CopyLabel, image: &str) -> Target {
    let parsed = Reference::parse(image).ok();
    // What a digest or an id names has no tag that could select it.
    let selected = parsed.as_ref().filter(|parsed| parsed.digest().is_none());
    let tag = selected.and_then(Reference::effective_tag).unwrap_or_default().to_owned();
    let digest = label.repo_digest.as_deref().and_then(|d| Reference::parse(d).ok());
    let digest = digest.and_then(|pinned| pinned.digest().map(str::to_owned));
    let (registry, repository) = match &parsed {
        Some(parsed) => (parsed.registry().to_owned(), parsed.repository().to_owned()),
        None => (String::new(), image.to_owned()),
    };
    Target {
        tag: label.version.clone().unwrap_or_else(|| tag.clone()),
        version: label.version.clone().unwrap_or_default(),
        registry,
        repository,
        spelled: Some(selected.map_or(image, Reference::written_name).to_owned()),
        image_tag: tag,
        digest: digest.unwrap_or_default(),
        known_image: Some(label.image_id.clone()),
        estimated_downtime_seconds: None,
    }
}

/// How the image could be pulled again: by the digest it has in the repository it was run from, else in any.
pub fn repo_digest(image: &Image, run_as: &str) -> Option<String> {
    let run_as = Reference::parse(run_as).ok();
    let is_from = |pinned: &&String| {
        let pinned = Reference::parse(pinned).ok();
        run_as.as_ref().zip(pinned).is_some_and(|(run_as, pinned)| run_as.is_same_repository(&pinned))
    };
    image.repo_digests.iter().find(is_from).or(image.repo_digests.first()).cloned()
}
