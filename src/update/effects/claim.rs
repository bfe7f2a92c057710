//! One updater at a time works on an application, whatever state folders there are: a container that is
//! never started, under a name that depends on the application alone. The engine gives a name once. Its label
//! tells the way back if the journal is lost, see [`crate::update::note`].

use super::{EffectError, Result};
use crate::engine::{Container, ContainerSpec, EngineError, Project, label};
use crate::update::context::Context;
use crate::update::note::Note;
use crate::update::plan::Plan;
use crate::update::record::Record;

const OWNER: &str = "io.processgit.updater.owner";
const PLACE: &str = "io.processgit.updater.place";
/// Stale claims of our own may lie in the way; nobody makes more of them meanwhile.
const TRIES: u32 = 4;

/// The name that every updater of this application wants. A project's name holds no dot.
pub fn name(project: &Project) -> String {
    format!("processgit-updater-claim-{}.{}", project.name, project.service)
}

/// Who holds it, for people.
pub fn holder(claim: &Container) -> String {
    let place = claim.label(PLACE).unwrap_or("an unknown place");
    let since = claim.created_at.map(|at| format!(", since {}", at.strftime("%Y-%m-%d %H:%M:%S UTC")));
    format!("{place} ({}{})", claim.label(label::JOB).unwrap_or("no job"), since.unwrap_or_default())
}

/// Takes the application, or finds that this job has it. A claim of this very state folder that is another
/// job's is a leftover: one job works at a time here.
pub async fn claim(cx: &Context, record: &Record, plan: &Plan) -> Result {
    let (engine, name) = (&cx.ports.engine, name(&plan.project));
    for _ in 0..TRIES {
        match engine.container(&name).await? {
            Some(c) if c.label(OWNER) != Some(&cx.options.owner.id) => {
                return Err(EffectError::Refused(taken(&c, &plan.project)));
            }
            Some(c) if c.label(label::JOB) == Some(&cx.job.0) => return Ok(()),
            Some(leftover) => engine.remove(&leftover.id).await?,
            None => match engine.create(&specification(cx, record, plan, &name)?).await {
                Ok(_) => return Ok(()),
                // Somebody was quicker, or an answer was lost: the next look tells.
                Err(EngineError::Conflict(_)) => {}
                Err(e) => return Err(e.into()),
            },
        }
    }
    Err(EffectError::other(format!("the container {name}, by which one updater at a time works here, cannot be made")))
}

fn taken(claim: &Container, project: &Project) -> String {
    format!(
        "another updater works on service {}: {}. Wait for its end; if it is gone for good, see that the application runs, and remove its claim: docker rm {}",
        project.service,
        holder(claim),
        claim.name
    )
}

/// Why a job of `owner` would be refused: this container is another updater's claim on the project.
pub fn taken_by_another(claim: &Container, project: &Project, owner: &str) -> Option<String> {
    (claim.name == name(project) && claim.label(OWNER) != Some(owner)).then(|| taken(claim, project))
}

fn specification(cx: &Context, record: &Record, plan: &Plan, name: &str) -> Result<ContainerSpec> {
    let owner = &cx.options.owner;
    let note = serde_json::to_string(&Note::of(&owner.id, record, plan)).map_err(EffectError::other)?;
    let labels = [
        (label::JOB, cx.job.0.as_str()),
        (label::ROLE, "claim"),
        (label::NOTE, &note),
        (OWNER, &owner.id),
        (PLACE, &owner.place),
    ];
    Ok(ContainerSpec {
        name: name.to_owned(),
        image: plan.previous.image_id.clone(),
        // Never started; an image without any command could not be created otherwise.
        entrypoint: Some(vec!["/claim".into()]),
        command: Some(Vec::new()),
        labels: labels.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
        networks: vec!["none".into()],
        ..ContainerSpec::default()
    })
}
