//! The swap: `.env` selects the version, Compose makes the container; and back.

use std::collections::{BTreeMap, BTreeSet};

use super::app::{containers, copy_in_the_way, is_half_swapped, is_moved, of_moved, rearm, require_stopped};
use super::image::restore_tags;
use super::order::{Patience, start_needed};
use super::{EffectError, Result};
use crate::engine::{ComposeConfig, Container, Healthcheck, Project, label};
use crate::envfile;
use crate::health::Evidence;
use crate::update::context::Context;
use crate::update::drift;
use crate::update::plan::{Configuration, Plan, Was};
use crate::update::record::{Learned, Record};
use crate::update::refusal::{Code, Refusal};
use crate::update::transition::Effect;

/// The version key, atomically and durably.
pub async fn write_env(cx: &Context, record: &Record, plan: &Plan) -> Result {
    if !plan.stops_first() {
        // The first touch of this job; `docker container prune` takes what was never started.
        super::claim::claim(cx, record, plan).await?;
    }
    let change = &plan.env;
    let value = change.value_after.as_deref().unwrap_or("(absent)");
    cx.say(&format!("{}: {}={value}", cx.ports.env.path(), change.key));
    Ok(cx.ports.env.write(change.after.as_deref()).await?)
}

/// The very bytes, if the file is still what we wrote. Somebody's edits are kept: then only the key goes
/// back.
pub async fn restore_env(cx: &Context, plan: &Plan) -> Result {
    let (env, change) = (&cx.ports.env, &plan.env);
    let now = env.read().await?;
    if now == change.before {
        return Ok(());
    }
    if now == change.after {
        return Ok(env.write(change.before.as_deref()).await?);
    }
    cx.warn(&format!(
        "{} was edited during the update: the edits are kept, only {} was set back",
        env.path(),
        change.key
    ));
    let before = change.before.as_deref().unwrap_or_default();
    let bytes = envfile::set_back(&now.unwrap_or_default(), before, &change.key)?;
    Ok(env.write(Some(&bytes)).await?)
}

/// Compose makes all that is moved anew; then the new containers must be there, of the right image.
pub async fn swap(cx: &Context, plan: &Plan, learned: &mut Learned) -> Result {
    let stopped = async {
        match plan.stops_first() {
            true => require_stopped(cx, plan, learned, "the update").await,
            false => Ok(()),
        }
    };
    // Compose reads the files only when it is asked: whatever was written into them since the job was planned
    // would be made, too.
    let (stopped, changed) = tokio::join!(stopped, changes_since(cx, plan, |planned| &planned.new));
    stopped?;
    if let Some(changed) = changed? {
        return Err(meddled(format!("the deployment's files were changed since the job was planned: {changed}")));
    }
    if plan.stops_first() {
        start_needed(cx, plan, Patience::Demands).await?;
    }
    if let Err(e) = up(cx, plan, &plan.project).await {
        return Err(verdict(cx, plan, learned).await.unwrap_or(e));
    }
    let expected = learned.new_image_id.clone().unwrap_or_default();
    let containers = containers(cx, plan).await?;
    learned.new_containers = made(plan, &containers, &expected, &plan.target.pinned())?;
    require_as_planned(cx, plan, &containers, &expected, |planned| &planned.new).await
}

/// Compose gives up when a service that others wait for fails or is not well: then it is the new version's
/// fault, and not that of an address in use or a missing network.
async fn verdict(cx: &Context, plan: &Plan, learned: &Learned) -> Option<EffectError> {
    let containers = containers(cx, plan).await.ok()?;
    let may_fail = |service: &str| {
        plan.crew.iter().any(|member| member.service == service && member.was == Was::Ended { well: false })
    };
    let has_failed = |c: &&Container| {
        let is_new = learned.new_image_id.as_ref() == Some(&c.image_id) && c.started_at.is_some();
        // A HEALTHCHECK says nothing of one that has ended.
        let is_bad = if c.is_running() { c.healthcheck == Healthcheck::Unhealthy } else { c.exit_code != 0 };
        is_new && is_bad && !c.label(label::SERVICE).is_some_and(may_fail)
    };
    let failed = containers.iter().find(has_failed)?;
    let service = failed.label(label::SERVICE).unwrap_or_default();
    let code = (!failed.is_running()).then_some(failed.exit_code);
    let what = match code {
        None => "is not healthy: its HEALTHCHECK says so".to_owned(),
        Some(code) => format!("exited with code {code}"),
    };
    let engine = &*cx.ports.engine;
    let evidence = Evidence::read(engine, &failed.id, &failed.name, code, failed.restart_count).await;
    cx.keep_evidence(&evidence);
    let (version, words) = (&plan.target.version, evidence.words());
    Some(EffectError::Bad(format!("service {service} of version {version} {what}{words}")))
}

/// The old version runs again: the very containers, where they still stand and the swap has not begun;
/// otherwise Compose makes them anew from the old configuration.
pub async fn start_old(cx: &Context, record: &Record, plan: &Plan) -> Result {
    let engine = &cx.ports.engine;
    let previous = &plan.previous;
    if !previous.baseline.running {
        cx.say("the application did not run before the update");
    }
    if !record.has_begun(Effect::Swap) && still_stand(plan, &containers(cx, plan).await?) {
        return rearm(cx, plan).await;
    }
    cx.say(&format!("starting the old version ({})", previous.image_ref));
    if plan.stays {
        // Nothing was pulled, but Compose has to make of the old image what somebody has removed.
        restore_tags(cx, plan, &record.learned).await?;
    }
    // Compose would leave one running in the namespaces of a life that has ended.
    for lodger in containers(cx, plan).await?.iter().filter(|c| !c.lives_in().is_empty()) {
        engine.stop(&lodger.id, None).await?;
    }
    if record.has_begun(Effect::Disarm) {
        start_needed(cx, plan, Patience::Hopes).await?;
    }
    let project = as_planned(cx, plan).await?;
    up(cx, plan, project.as_ref().unwrap_or(&plan.project)).await?;
    let containers = containers(cx, plan).await?;
    made(plan, &containers, &previous.image_id, &previous.image_ref)?;
    require_as_planned(cx, plan, &containers, &previous.image_id, |planned| &planned.old).await
}

fn meddled(what: String) -> EffectError {
    EffectError::Port(Refusal::new(Code::Meddled, what))
}

/// What the files say of all that is moved, other than planned; `None`: nothing, or the plan knows nothing.
async fn changes_since(
    cx: &Context,
    plan: &Plan,
    planned: impl Fn(&Configuration) -> &ComposeConfig,
) -> Result<Option<String>> {
    let Some(configuration) = plan.configuration.as_deref() else { return Ok(None) };
    let now = cx.ports.compose.config(&plan.project, None).await?.part_of(plan.project.moved());
    let planned = planned(configuration);
    if now == *planned {
        return Ok(None);
    }
    let services = plan.project.moved().filter(|name| now.service(name) != planned.service(name));
    let mut changed: Vec<String> = services.map(|name| format!("service {name}")).collect();
    if changed.is_empty() {
        changed.push("networks, volumes, secrets or configs".into());
    }
    Ok(Some(changed.join(", ")))
}

/// Compose has read the files once more after we did. What it made of them is what was planned, or it goes back.
async fn require_as_planned(
    cx: &Context,
    plan: &Plan,
    containers: &[Container],
    image: &str,
    planned: impl Fn(&Configuration) -> &ComposeConfig,
) -> Result {
    let Some(configuration) = plan.configuration.as_deref() else { return Ok(()) };
    let Some(image) = cx.ports.engine.image(image).await? else { return Ok(()) };
    let ours = &cx.options.others_version_key;
    let is_new = |c: &&Container| !is_moved(plan, &c.id);
    for container in containers.iter().filter(is_new) {
        let service = container.label(label::SERVICE).unwrap_or_default();
        let known = configuration.differences.get(service).map(Vec::as_slice).unwrap_or_default();
        let differs = drift::differences(planned(configuration), service, container, &image, ours);
        let mut differs: Vec<String> = differs.into_iter().map(|difference| difference.text).collect();
        differs.retain(|line| !known.contains(line));
        if !differs.is_empty() {
            return Err(meddled(format!(
                "the deployment's files were changed while Compose read them; the container it made of service {service} is not what was planned: {}",
                differs.join("; ")
            )));
        }
    }
    Ok(())
}

/// The old version is made of the files as long as they say what they said when the job was planned; otherwise
/// of the configuration that was kept with the job.
pub async fn as_planned(cx: &Context, plan: &Plan) -> Result<Option<Project>> {
    let Some(configuration) = plan.configuration.as_deref() else { return Ok(None) };
    let why = match changes_since(cx, plan, |planned| &planned.old).await {
        Ok(None) => return Ok(None),
        Ok(Some(changed)) => format!("the deployment's files were changed since the job was planned ({changed})"),
        Err(EffectError::Engine(e)) if e.is_unreachable() => return Err(e.into()),
        Err(e) => format!("the deployment's files cannot be read any more ({e})"),
    };
    cx.warn(&format!(
        "{why}: the old version was made from the configuration that was planned; look at the changes, then `docker compose up -d` applies them"
    ));
    Ok(Some(cx.ports.planned.keep(&plan.project, &configuration.old).await?))
}

fn still_stand(plan: &Plan, containers: &[Container]) -> bool {
    let mut before = plan.crew.iter().map(|member| &member.container_id).chain([&plan.previous.container_id]);
    before.all(|id| containers.iter().any(|c| c.id == *id))
}

/// What an interrupted `compose up` left behind, whosever it was.
pub async fn tidy_half_swapped(cx: &Context, plan: &Plan) -> Result {
    tidy(cx, containers(cx, plan).await?).await
}

async fn tidy(cx: &Context, containers: Vec<Container>) -> Result {
    let (half, whole): (Vec<_>, Vec<_>) = containers.iter().partition(|c| is_half_swapped(c));
    let mut services: BTreeSet<_> = whole.iter().map(|c| c.label(label::SERVICE)).collect();
    for container in half {
        tidy_up(cx, container, services.insert(container.label(label::SERVICE))).await?;
    }
    Ok(())
}

/// `compose up` of all that is moved.
async fn up(cx: &Context, plan: &Plan, project: &Project) -> Result {
    let (own, copies) = of_moved(cx, plan).await?;
    if let Some(copy) = copies.first() {
        return Err(EffectError::Refused(copy_in_the_way(copy)));
    }
    tidy(cx, own).await?;
    let (lines, said) = cx.lines("compose: ");
    let up = cx.ports.compose.up(project, lines).await;
    let _ = said.await;
    Ok(up?)
}

/// A container that has kept its temporary name: `up` would leave it so for ever, or stumble over it. The
/// only one of its service is given its name, because what Compose makes anew takes over anonymous volumes
/// from the container there was, and would begin with empty ones.
async fn tidy_up(cx: &Context, container: &Container, is_only_one: bool) -> Result {
    let engine = &cx.ports.engine;
    match container.name.split_once('_').filter(|_| is_only_one) {
        Some((_, name)) => {
            cx.say(&format!(
                "{} was left behind by an interrupted `compose up`: renaming it to {name}",
                container.name
            ));
            engine.rename(&container.id, name).await?;
        }
        None => {
            cx.say(&format!("removing {}, left behind by an interrupted `compose up`", container.name));
            engine.remove(&container.id).await?;
        }
    }
    Ok(())
}

/// The containers that Compose has made, by service: exactly one of each, of the expected image, on the
/// volumes there were.
pub fn made(plan: &Plan, containers: &[Container], expected: &str, known_as: &str) -> Result<BTreeMap<String, String>> {
    let mut made = BTreeMap::new();
    for service in plan.project.moved() {
        let of_service: Vec<_> = containers.iter().filter(|c| c.label(label::SERVICE) == Some(service)).collect();
        let [one] = of_service[..] else {
            return Err(EffectError::other(format!(
                "after `compose up` service {service} has {} containers, expected one",
                of_service.len()
            )));
        };
        if one.image_id != expected {
            return Err(EffectError::other(format!(
                "Compose started image {} for service {service}, expected {expected} ({known_as})",
                one.image_id
            )));
        }
        require_same_volumes(plan, service, one)?;
        made.insert(service.to_owned(), one.id.clone());
    }
    Ok(made)
}

/// A container that is gone took its anonymous volumes along: then the application would run, healthy, on an
/// empty folder.
fn require_same_volumes(plan: &Plan, service: &str, container: &Container) -> Result {
    let member = Some(service).filter(|s| *s != plan.project.service);
    for (path, before) in plan.data.of(member).filter(|(_, mount)| mount.is_anonymous()) {
        let now = container.mounts.iter().find(|m| m.destination == path && m.is_anonymous());
        if let Some(now) = now.filter(|now| now.name != before.name) {
            return Err(EffectError::other(format!(
                "service {service} has a new, empty volume at {path} ({}); its data is in the volume {}",
                now.name, before.name
            )));
        }
    }
    Ok(())
}
