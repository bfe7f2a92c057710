//! Containers that are never started: they keep images from being pruned, and their labels tell the way
//! back if the journal is lost. See [`crate::update::note`].

use super::{EffectError, Result};
use crate::engine::{ContainerSpec, label};
use crate::update::context::Context;
use crate::update::note::{Note, may_lose_data};
use crate::update::plan::Plan;
use crate::update::record::Record;
use crate::update::transition::Effect;

/// Both images are kept from `docker image prune -a`: a tag does not do that.
pub async fn guard(cx: &Context, record: &Record, plan: &Plan) -> Result {
    let new = record.learned.new_image_id.as_deref().unwrap_or_default();
    let note = note_of(cx, record, plan);
    let old = &plan.previous.image_id;
    let (old, new) = tokio::join!(leave(cx, "old", old, &note), leave(cx, "new", new, &note));
    old.and(new)
}

/// Before the application is stopped, where no guard was needed.
pub async fn before_stop(cx: &Context, record: &Record, plan: &Plan) -> Result {
    if record.has_begun(Effect::Guard) {
        return Ok(());
    }
    leave(cx, "old", &plan.previous.image_id, &note_of(cx, record, plan)).await
}

/// Before the first effect that may change data.
pub async fn before_data_changes(cx: &Context, effect: Effect, record: &Record, plan: &Plan) -> Result {
    let first = record.begun.iter().find(|e| e.changes_data());
    if first != Some(&effect) || !may_lose_data(plan) {
        return Ok(());
    }
    let generation = record.learned.generation.clone();
    let note = Note { data_may_differ: true, generation, ..note_of(cx, record, plan) };
    leave(cx, "data", &plan.previous.image_id, &note).await
}

fn note_of(cx: &Context, record: &Record, plan: &Plan) -> Note {
    Note::of(&cx.options.installation, record, plan)
}

async fn leave(cx: &Context, which: &str, image: &str, note: &Note) -> Result {
    let name = format!("processgit-updater-guard-{which}-{}", cx.job.0.trim_start_matches("job_"));
    if cx.ports.engine.container(&name).await?.is_some() {
        return Ok(());
    }
    let labels = [
        (label::JOB, cx.job.0.clone()),
        (label::ROLE, format!("{}-{which}", label::GUARD)),
        (label::NOTE, serde_json::to_string(note).map_err(EffectError::other)?),
    ];
    let spec = ContainerSpec {
        name,
        image: image.to_owned(),
        // Never started; an image without any command could not be created otherwise.
        entrypoint: Some(vec!["/guard".into()]),
        command: Some(Vec::new()),
        labels: labels.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        networks: vec!["none".into()],
        ..ContainerSpec::default()
    };
    cx.ports.engine.create(&spec).await?;
    Ok(())
}
