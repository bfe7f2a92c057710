//! One updater at a time works on an application, whatever state folders there are: a container that is
//! never started, under a name that depends on the application alone. The engine gives a name once. Its label
//! tells the way back if the journal is lost, see [`crate::update::note`].

use super::{EffectError, Result};
use crate::command::line;
use crate::engine::seal::{CLAIM, CLAIM_NAME, Seal};
use crate::engine::{Container, ContainerSpec, EngineError, Project, label};
use crate::update::context::Context;
use crate::update::job::JobId;
use crate::update::note::Note;
use crate::update::plan::Plan;
use crate::update::record::Record;

/// The most of a claim's place that is shown, characters.
const LONGEST_PLACE: usize = 200;
const PLACE: &str = "io.processgit.updater.place";
/// Stale claims of our own may lie in the way; nobody makes more of them meanwhile.
const TRIES: u32 = 4;

/// The name that every updater of this application wants. A project's name holds no dot.
pub fn name(project: &Project) -> String {
    format!("{CLAIM_NAME}{}.{}", project.name, project.service)
}

/// Who holds it, for people.
pub fn holder(claim: &Container) -> String {
    let place = claim.label(PLACE).map_or_else(|| "an unknown place".into(), plain);
    let since = claim.created_at.map(|at| format!(", since {}", at.strftime("%Y-%m-%d %H:%M:%S UTC")));
    let job = claim.label(label::JOB).and_then(|id| id.parse::<JobId>().ok());
    format!("{place} ({}{})", job.map_or_else(|| "no job".into(), |job| job.0), since.unwrap_or_default())
}

/// A label of unknown origin, fit to be printed.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(LONGEST_PLACE).collect()
}

/// Takes the application, or finds that this job has it. A claim of this very state folder that is another
/// job's is a leftover: one job works at a time here.
pub async fn claim(cx: &Context, record: &Record, plan: &Plan) -> Result {
    let (engine, name) = (&cx.ports.engine, name(&plan.project));
    for _ in 0..TRIES {
        match engine.container(&name).await? {
            Some(c) if cx.owns(&c).is_some() => return Ok(()),
            Some(c) if cx.options.owner.seal.read(&c).is_none() => {
                return Err(EffectError::Refused(taken(&c, &plan.project)));
            }
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
        "another updater works on service {}: {}. Wait for its end; if it is gone for good, see that the application runs, and remove its claim: {}",
        project.service,
        holder(claim),
        line(["docker", "rm", &claim.name])
    )
}

/// Why a job of `owner` would be refused: this container is another updater's claim on the project.
pub fn taken_by_another(claim: &Container, project: &Project, seal: &Seal) -> Option<String> {
    (claim.name == name(project) && seal.read(claim).is_none()).then(|| taken(claim, project))
}

fn specification(cx: &Context, record: &Record, plan: &Plan, name: &str) -> Result<ContainerSpec> {
    let owner = &cx.options.owner;
    let note = serde_json::to_string(&Note::of(&owner.id, record, plan)).map_err(EffectError::other)?;
    let labels = [(label::NOTE, note.as_str()), (label::OWNER, &owner.id), (PLACE, &owner.place)];
    let spec = ContainerSpec {
        name: name.to_owned(),
        image: plan.previous.image_id.clone(),
        // Never started; an image without any command could not be created otherwise.
        entrypoint: Some(vec!["/claim".into()]),
        command: Some(Vec::new()),
        labels: labels.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
        networks: vec!["none".into()],
        ..ContainerSpec::default()
    };
    Ok(cx.sealed(spec, CLAIM))
}
