//! Proof of health, on the way there and on the way back.

use super::app::{candidate, of_service};
use super::{EffectError, Result};
use crate::engine::Healthcheck;
use crate::health::gate::{self, Demands, GateSettings};
use crate::update::context::Context;
use crate::update::plan::{Plan, Purpose};
use crate::update::record::Learned;

/// Does the new version work?
pub async fn gate(cx: &Context, plan: &Plan, learned: &Learned) -> Result {
    let target = &plan.target;
    let (container, image) = if plan.stays {
        (plan.previous.container_id.as_str(), plan.previous.image_id.as_str())
    } else if plan.no_op {
        cx.say(&format!("{} is what runs already: nothing is changed, only proven", target.reference()));
        (plan.previous.container_id.as_str(), plan.previous.image_id.as_str())
    } else {
        (learned.new_container.as_deref().unwrap_or_default(), learned.new_image_id.as_deref().unwrap_or_default())
    };
    // A snapshot may not know which version wrote it.
    let version = Some(target.version.as_str()).filter(|v| !plan.stays && !v.is_empty());
    let candidate = candidate(container, image, version);
    let settings = settings(cx, plan);
    let (engine, probe) = (&*cx.ports.engine, &*cx.ports.probe);
    gate::pass(engine, probe, &settings, &candidate, demands(plan))
        .await
        .map_err(|why| EffectError::other(format!("version {} is not healthy: {why}", target.version)))
}

/// Is the application as well as it was before? A rollback must reach that, not more.
pub async fn prove(cx: &Context, plan: &Plan) -> Result {
    let previous = &plan.previous;
    let containers = of_service(cx, plan).await?;
    let Some(container) = containers.iter().find(|c| c.image_id == previous.image_id) else {
        return Err(EffectError::other("no container of the old image is there"));
    };
    if !previous.baseline.is_well() {
        cx.warn(
            "the application was not well before the update either: the way back was asked to reach that, not more",
        );
    }
    let candidate = candidate(&container.id, &previous.image_id, None);
    let settings = settings(cx, plan);
    gate::pass(&*cx.ports.engine, &*cx.ports.probe, &settings, &candidate, as_before(plan))
        .await
        .map_err(|why| EffectError::other(format!("the old version runs again, but is not healthy: {why}")))
}

/// Another version, or other data, must work; a snapshot must leave the application as it was.
fn demands(plan: &Plan) -> Demands {
    if plan.purpose == Purpose::Snapshot { as_before(plan) } else { Demands::ALL }
}

fn as_before(plan: &Plan) -> Demands {
    let baseline = &plan.previous.baseline;
    Demands {
        running: baseline.running,
        http: baseline.answered_ok,
        healthcheck: baseline.healthcheck == Healthcheck::Healthy,
    }
}

/// The manifest's own estimate may extend the deadline; it never shortens it.
fn settings(cx: &Context, plan: &Plan) -> GateSettings {
    let planned = std::time::Duration::from_secs(plan.health_timeout_seconds);
    GateSettings { timeout: cx.options.health.timeout.max(planned), ..cx.options.health.clone() }
}
