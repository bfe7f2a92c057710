//! Proof of health, on the way there and on the way back.

use super::app::{containers, is_half_swapped};
use super::swap::{made, start_old};
use super::{EffectError, Result};
use crate::engine::{Container, Healthcheck, label};
use crate::health::gate::{self, Candidate, Demands, GateError, GateSettings};
use crate::update::context::Context;
use crate::update::plan::{Baseline, Member, Plan, Purpose, Was};
use crate::update::record::{Learned, Record};
use crate::update::transition::beside_was_exposed;

/// Does the new version work?
pub async fn gate(cx: &Context, plan: &Plan, learned: &Learned) -> Result {
    let target = &plan.target;
    let stays = plan.stays || plan.no_op;
    if plan.no_op {
        cx.say(&format!("{} is what runs already: nothing is changed, only proven", target.reference()));
    }
    let image = if stays { Some(&plan.previous.image_id) } else { learned.new_image_id.as_ref() };
    let container = |service: &str, before: &String| {
        if stays { before.clone() } else { learned.new_containers.get(service).cloned().unwrap_or_default() }
    };
    // A snapshot may not know which version wrote it.
    let version = Some(target.version.as_str()).filter(|v| !plan.stays && !v.is_empty());
    // A job without effects proves only that nothing has changed.
    let as_before = plan.purpose == Purpose::Snapshot || plan.no_op;
    let candidates = candidates(plan, container, image.map_or("", String::as_str), version, as_before, !stays);
    pass(cx, &settings(cx, plan), &candidates).await.map_err(|e| match e {
        GateError::Unhealthy(why) | GateError::Ended { why, .. } => {
            EffectError::Bad(format!("version {} is not healthy: {why}", target.version))
        }
        GateError::NoVerdict(why) => EffectError::other(format!("version {} was not proven: {why}", target.version)),
    })
}

/// Is all that was moved as well as it was before? A rollback must reach that, not more.
///
/// What it waits for may be slow to come, and nobody helps until a person does: before the answer is no, it is looked
/// at for the length of the gate once more.
pub async fn prove(cx: &Context, record: &Record, plan: &Plan) -> Result {
    if !plan.previous.baseline.is_well() {
        cx.warn(
            "the application was not well before the update either: the way back was asked to reach that, not more",
        );
    }
    let declared = &plan.beside.declared;
    if !declared.is_empty() && beside_was_exposed(record) {
        cx.warn(&format!(
            "the data of {} was not put back: PROCESSGIT_UPDATER_DATA_ELSEWHERE says that you look after it, and the new version may have changed it",
            declared.join(", ")
        ));
    }
    match look_at_old(cx, record, plan, &settings(cx, plan)).await {
        Err(EffectError::Bad(why)) => {
            cx.say(&format!("{why}; the updater looks at it for the length of the gate once more"));
            let settings = GateSettings { to_the_end: true, ..settings(cx, plan) };
            look_at_old(cx, record, plan, &settings).await
        }
        proven => proven,
    }
}

async fn look_at_old(cx: &Context, record: &Record, plan: &Plan, settings: &GateSettings) -> Result {
    let previous = &plan.previous;
    let mut found = containers(cx, plan).await?;
    if !stands(plan, &found) {
        cx.say("the old version, which was started, does not run or is gone: starting it again");
        start_old(cx, record, plan).await?;
        found = containers(cx, plan).await?;
    }
    let made = made(plan, &found, &previous.image_id, &previous.image_ref)?;
    let container = |service: &str, _: &String| made.get(service).cloned().unwrap_or_default();
    let candidates = candidates(plan, container, &previous.image_id, None, true, false);
    pass(cx, settings, &candidates).await.map_err(|e| match e {
        GateError::Unhealthy(why) | GateError::Ended { why, .. } => {
            EffectError::Bad(format!("the old version runs again, but is not healthy: {why}"))
        }
        GateError::NoVerdict(why) => EffectError::other(format!("the old version was not proven to run again: {why}")),
    })
}

/// All that was moved is there again, as far as it was there before, and nothing half-made is.
fn stands(plan: &Plan, found: &[Container]) -> bool {
    let of_old = |service: &str| {
        let is_old = |c: &&Container| c.image_id == plan.previous.image_id;
        found.iter().filter(|c| c.label(label::SERVICE) == Some(service)).find(is_old)
    };
    let application = of_old(&plan.project.service).is_some_and(|c| c.is_alive() || !plan.previous.baseline.running);
    let is_back = |m: &Member| of_old(&m.service).is_some_and(|c| m.was.is_fulfilled_by(c) || m.was.demands_nothing());
    application && plan.crew.iter().all(is_back) && !found.iter().any(is_half_swapped)
}

async fn pass(cx: &Context, settings: &GateSettings, candidates: &[Candidate]) -> std::result::Result<(), GateError> {
    let passed = gate::pass(&*cx.ports.engine, &*cx.ports.probe, settings, candidates).await;
    if let Err(GateError::Ended { evidence, .. }) = &passed {
        cx.keep_evidence(evidence);
    }
    passed
}

/// The application's container and those of its crew. `container` knows a service's container, given the
/// one before; `as_before`: what was is asked for, not what a good version is.
fn candidates(
    plan: &Plan,
    container: impl Fn(&str, &String) -> String,
    image: &str,
    version: Option<&str>,
    as_before: bool,
    fresh: bool,
) -> Vec<Candidate> {
    let candidate = |called: String, container_id: String, version: Option<&str>, demands: Demands| Candidate {
        called,
        container_id,
        image_id: image.to_owned(),
        version: version.map(str::to_owned),
        demands,
        fresh,
    };
    let (service, previous) = (&plan.project.service, &plan.previous);
    let demanded = if as_before { of_before(&previous.baseline) } else { Demands::ALL };
    let id = container(service, &previous.container_id);
    let application = candidate("its container".into(), id, version, demanded);
    let crew = plan.crew.iter().map(|member| {
        let Member { service, container_id, was, .. } = member;
        let called = format!("the container of service {service}");
        candidate(called, container(service, container_id), None, of_member(*was, as_before))
    });
    std::iter::once(application).chain(crew).collect()
}

fn of_before(baseline: &Baseline) -> Demands {
    Demands {
        running: baseline.running,
        http: baseline.answered_ok,
        healthcheck: baseline.healthcheck == Healthcheck::Healthy,
        ended: false,
    }
}

/// Only the application answers at the health URL.
fn of_member(was: Was, as_before: bool) -> Demands {
    match was {
        _ if as_before && was.demands_nothing() => Demands::NOTHING,
        Was::Running { healthcheck } => {
            let healthcheck = !as_before || healthcheck == Healthcheck::Healthy;
            Demands { http: false, healthcheck, ..Demands::ALL }
        }
        Was::Stopped => Demands { http: false, ..Demands::ALL },
        Was::Ended { well: true } => Demands { ended: true, ..Demands::NOTHING },
        Was::Ended { well: false } => Demands::NOTHING,
    }
}

/// The manifest's own estimate may extend the deadline; it never shortens it.
fn settings(cx: &Context, plan: &Plan) -> GateSettings {
    let planned = std::time::Duration::from_secs(plan.health_timeout_seconds);
    GateSettings { timeout: cx.options.health.timeout.max(planned), ..cx.options.health.clone() }
}
