//! The image: pulled by digest, proven; and tags put back.

use std::collections::BTreeSet;

use super::{EffectError, Result, data};
use crate::engine::{EngineError, Image};
use crate::platform;
use crate::reference::{Reference, is_same};
use crate::update::context::Context;
use crate::update::job::{Kind, State};
use crate::update::plan::{Plan, Target};
use crate::update::record::Learned;
use crate::update::refusal::Refusal;

/// Pulls exactly the digest and makes the tag that Compose will resolve to mean it. An image that ran here
/// before is taken as it is, if it is still at hand.
pub async fn pull(cx: &Context, plan: &Plan, learned: &mut Learned) -> Result {
    let (pinned, handle) = (plan.target.pinned(), plan.target.handle());
    if cx.ports.engine.image(&handle).await?.is_some() {
        cx.say(&format!("{handle} is at hand"));
    } else if plan.target.digest.is_empty() {
        return Err(EffectError::other(format!(
            "image {handle} ({}) was removed, and it has no repository digest by which it could be pulled again",
            plan.target.reference()
        )));
    } else {
        cx.say(&format!("pulling {pinned}"));
        let (layers, shown) = cx.layers();
        let pulled = cx.ports.engine.pull(&pinned, layers).await;
        let _ = shown.await;
        pulled?;
    }
    let image = at_hand(cx, plan).await?;
    cx.ports.engine.tag(&image.id, &plan.target.reference()).await?;
    learned.new_image_id = Some(image.id);
    Ok(())
}

async fn at_hand(cx: &Context, plan: &Plan) -> Result<Image> {
    let pinned = plan.target.handle();
    let image = cx.ports.engine.image(&pinned).await?;
    image.ok_or_else(|| EngineError::NotFound(format!("image {pinned}, although it was just pulled,")).into())
}

/// The signature on the image itself, its platform, and that the engine holds it under its digest.
///
/// Never compare an image's id with the digest: on the classic store it is the digest of the config.
pub async fn verify(cx: &Context, plan: &Plan, learned: &Learned) -> Result {
    let image = at_hand(cx, plan).await?;
    let target = &plan.target;
    if learned.new_image_id.as_ref() != Some(&image.id) {
        return Err(EffectError::other(format!(
            "{} now means image {}, another one than was pulled",
            target.pinned(),
            image.id
        )));
    }
    if target.known_image.is_some() {
        cx.say("this image ran here before: its signature was demanded then");
        return Ok(());
    }
    let is_held = |pinned: &String| Reference::parse(pinned).is_ok_and(|r| r.digest() == Some(&target.digest));
    if !image.repo_digests.iter().any(is_held) {
        return Err(EffectError::other(format!(
            "the engine does not hold image {} under {}; it knows it as: {}",
            image.id,
            target.digest,
            image.repo_digests.join(", ")
        )));
    }
    let engine = cx.ports.engine.info().await?;
    if !platform::runs(&engine.platform, &image.platform) {
        return Err(EffectError::other(format!(
            "the image pulled is for {}, this engine runs {}",
            image.platform, engine.platform
        )));
    }
    if !cx.options.verify_image {
        cx.warn("PROCESSGIT_UPDATER_VERIFY_IMAGE is off: the image's own signature was not demanded (its digest is in the signed manifest)");
        return Ok(());
    }
    let verified = cx.ports.trust.image(&target.registry, &target.repository, &target.digest).await.map_err(|e| {
        let before = match e.is_refusal() {
            true => "the image's signature is refused: ",
            false => "the image's signature cannot be checked: ",
        };
        EffectError::Port(Refusal::of(before, &e))
    })?;
    cx.say(&format!("image signed by {} ({})", verified.identity, verified.carrier));
    cx.change(|job| {
        job.verified.retain(|v| v.subject != "image");
        job.verified.push(verified);
    });
    Ok(())
}

/// Tags mean again what they meant before, and the reference that the old configuration resolves to
/// means the image that ran, whatever was pulled or moved since; an old image that was removed is
/// pulled again.
pub async fn restore_tags(cx: &Context, plan: &Plan, _learned: &Learned) -> Result {
    let engine = &cx.ports.engine;
    let (target, previous) = (plan.target.reference(), &plan.previous);
    if !is_same(&target, &previous.image_ref) {
        match &plan.tag_meant {
            Some(image) if engine.image(image).await?.is_some() => engine.tag(image, &target).await?,
            // What it meant, somebody has removed meanwhile.
            _ if plan.had_image => {}
            _ => untag_unless_used(cx, &target).await?,
        }
    }
    if engine.image(&previous.image_id).await?.is_none() {
        pull_old_again(cx, plan).await?;
    }
    let means = engine.image(&previous.image_ref).await?.map(|i| i.id);
    if is_tagged(&previous.image_ref) && means.as_ref() != Some(&previous.image_id) {
        engine.tag(&previous.image_id, &previous.image_ref).await?;
    }
    Ok(())
}

async fn pull_old_again(cx: &Context, plan: &Plan) -> Result {
    let previous = &plan.previous;
    let Some(pinned) = &previous.repo_digest else {
        return Err(EffectError::other(format!(
            "image {} ({}) was removed meanwhile, and it has no repository digest by which it could be pulled again",
            previous.image_id, previous.image_ref
        )));
    };
    cx.say(&format!("the old image is gone; pulling {pinned} again"));
    let (layers, shown) = cx.layers();
    let pulled = cx.ports.engine.pull(pinned, layers).await;
    let _ = shown.await;
    Ok(pulled?)
}

/// The last tag of an image that a container still uses cannot be removed; it goes with the sweep.
async fn untag_unless_used(cx: &Context, reference: &str) -> Result {
    match cx.ports.engine.untag(reference).await {
        Err(EngineError::Conflict(_)) | Ok(()) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// After a rollback: guards go, and the image that only this job wanted.
pub async fn sweep(cx: &Context, plan: &Plan, learned: &Learned) -> Result {
    remove_ours(cx).await?;
    super::volumes::remove_brought(cx, learned).await;
    data::prune(cx, learned).await?;
    if brought(plan, learned) { untag_brought(cx, plan).await } else { Ok(()) }
}

/// The image came with this job, and nothing else wanted it.
pub fn brought(plan: &Plan, learned: &Learned) -> bool {
    let moves = !plan.stays && !plan.hot_only && !plan.had_image;
    moves && learned.new_image_id.as_ref() != Some(&plan.previous.image_id)
}

/// Its names go, and it with them, unless a container uses it.
pub async fn untag_brought(cx: &Context, plan: &Plan) -> Result {
    if plan.tag_meant.is_none() && !is_same(&plan.target.reference(), &plan.previous.image_ref) {
        untag_unless_used(cx, &plan.target.reference()).await?;
    }
    untag_unless_used(cx, &plan.target.pinned()).await?;
    Ok(())
}

/// A guard that cannot be removed is no reason to undo a healthy update, but worth some tries.
const TIDY_TRIES: u32 = 3;
const TIDY_PAUSE: std::time::Duration = std::time::Duration::from_millis(500);

/// After the gate: guards go, and images that earlier jobs pulled, but for the one before.
pub async fn tidy(cx: &Context, plan: &Plan, learned: &Learned) -> Result {
    let mut removed = remove_ours(cx).await;
    for _ in 1..TIDY_TRIES {
        if removed.is_err() {
            tokio::time::sleep(TIDY_PAUSE).await;
            removed = remove_ours(cx).await;
        }
    }
    if let Err(e) = removed {
        cx.warn(&format!("a container of this job could not be removed; it goes at the next start: {e}"));
    }
    if let Err(e) = data::prune(cx, learned).await {
        cx.warn(&format!("old snapshots could not be pruned: {e}"));
    }
    if !plan.stays && !plan.hot_only {
        retire_images(cx, plan).await;
    }
    Ok(())
}

/// Every container that this job has made.
async fn remove_ours(cx: &Context) -> Result {
    for container in cx.own_containers().await? {
        cx.ports.engine.remove(&container.id).await?;
    }
    Ok(())
}

/// The names that an earlier job gave an image: its tag, as the manifest and as the Compose file spell it, and
/// its digest.
fn names(reference: &str, digest: &str, target: &Target) -> BTreeSet<String> {
    let Ok(image) = Reference::parse(reference) else { return BTreeSet::from([reference.to_owned()]) };
    let spelled = Reference::parse(&target.reference()).ok().filter(|now| now.is_same_repository(&image));
    let spelled = spelled.zip(image.tag()).map(|(now, tag)| now.with_tag(tag).familiar());
    [image.familiar(), image.unified().with_digest(digest).to_string()].into_iter().chain(spelled).collect()
}

/// A tag can be made to mean an image; a digest or an id cannot, and cannot have moved either.
fn is_tagged(reference: &str) -> bool {
    Reference::parse(reference).is_ok_and(|reference| reference.digest().is_none())
}

/// Images that committed jobs brought here, older than the previous one. One that is still in use stays.
async fn retire_images(cx: &Context, plan: &Plan) {
    for job in cx.book.recent(super::super::book::HISTORY) {
        let (Some(reference), Some(digest)) = (&job.target_image, &job.target_digest) else { continue };
        // A job by hand brings nothing here that an update had not brought before.
        let brought = job.kind == Kind::Update && job.state == State::Committed;
        let kept = is_same(reference, &plan.target.reference())
            || is_same(reference, &plan.previous.image_ref)
            || *digest == plan.target.digest;
        if !brought || kept || job.id == cx.job {
            continue;
        }
        for name in names(reference, digest, &plan.target) {
            if let Err(e) = cx.ports.engine.untag(&name).await {
                tracing::info!(job = %cx.job, "image {name} stays: {e}");
            }
        }
    }
}
