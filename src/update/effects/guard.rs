//! Containers that are never started: they keep images from being pruned, and one of them says that from
//! then on the data may have changed.

use super::{EffectError, Result};
use crate::engine::seal::name_of;
use crate::engine::{ContainerSpec, label};
use crate::update::context::Context;
use crate::update::note::{Note, may_lose_data};
use crate::update::plan::Plan;
use crate::update::record::Record;
use crate::update::transition::Effect;

/// Both images are kept from `docker image prune -a`: a tag does not do that.
pub async fn guard(cx: &Context, record: &Record, plan: &Plan) -> Result {
    let new = record.learned.new_image_id.as_deref().unwrap_or_default();
    let (old, new) = tokio::join!(leave(cx, "old", &plan.previous.image_id, None), leave(cx, "new", new, None));
    old.and(new)
}

/// The commands of a failed job need the old image. It has no guard yet where no other version was wanted, and has
/// lost it where the job was tidied up before.
pub async fn keep_old(cx: &Context, plan: &Plan) -> Result {
    leave(cx, "old", &plan.previous.image_id, None).await
}

/// Before the first effect that may change data, a note that says so: if the journal is lost, only a person
/// can decide.
pub async fn before_data_changes(cx: &Context, effect: Effect, record: &Record, plan: &Plan) -> Result {
    let first = record.begun.iter().find(|e| e.changes_data());
    if first != Some(&effect) || !may_lose_data(plan) {
        return Ok(());
    }
    let generation = record.learned.generation.clone();
    let note = Note { data_may_differ: true, generation, ..Note::of(&cx.options.owner.id, record, plan) };
    leave(cx, "data", &plan.previous.image_id, Some(&note)).await
}

async fn leave(cx: &Context, which: &str, image: &str, note: Option<&Note>) -> Result {
    let role = format!("guard-{which}");
    let name = name_of(&role, &cx.job);
    if let Some(there) = cx.ports.engine.container(&name).await? {
        return if cx.owns(&there).is_some() { Ok(()) } else { Err(EffectError::in_the_way(&there)) };
    }
    let note = note.map(serde_json::to_string).transpose().map_err(EffectError::other)?;
    let spec = ContainerSpec {
        name,
        image: image.to_owned(),
        // Never started; an image without any command could not be created otherwise.
        entrypoint: Some(vec!["/guard".into()]),
        command: Some(Vec::new()),
        labels: note.map(|note| (label::NOTE.to_owned(), note)).into_iter().collect(),
        networks: vec!["none".into()],
        ..ContainerSpec::default()
    };
    cx.ports.engine.create(&cx.sealed(spec, &role)).await?;
    Ok(())
}
