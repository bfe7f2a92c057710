//! What `docker compose up` would do to anything but the containers that are moved: nothing, or there is no
//! update. Pure.
//!
//! Compose compares a network with its definition by a hash in the network's label. Where they differ, `up` of
//! any one service stops every container of the project in that network, removes the network and makes it
//! anew; it fails in the middle where others use it too.

use std::collections::BTreeSet;

use super::Deployment;
use super::compose::Resolved;
use crate::command::line;
use crate::engine::{Container, Touch, label};
use crate::update::refusal::{Code, Refusal};

/// One refusal for each thing that would be touched.
pub fn refusals(resolved: &Resolved, deployment: &Deployment, accept_drift: bool) -> Vec<Refusal> {
    let touches: BTreeSet<&Touch> = resolved.dry_runs.iter().flat_map(|(_, dry_run)| &dry_run.touches).collect();
    touches.into_iter().filter_map(|touch| refusal(touch, deployment, accept_drift)).collect()
}

fn refusal(touch: &Touch, deployment: &Deployment, accept_drift: bool) -> Option<Refusal> {
    let new = |what| Refusal::new(Code::TouchesOthers, what);
    let is_made = |action: &str| matches!(action, "Creating" | "Created");
    match touch {
        Touch::Container { name, action } => {
            let other = deployment.containers.iter().find(|c| c.name == *name).filter(|c| !deployment.moves(c))?;
            let what = format!(
                "`docker compose up` would not only make the application anew, it would also touch container {} ({action})",
                other.name
            );
            Some(new(what).text("bring it about beforehand with `docker compose up -d`, or undo the edit of the Compose files that asks for it"))
        }
        Touch::Network { name, action } if !is_made(action) => Some(network(name, action, deployment)),
        _ if accept_drift => None,
        Touch::Network { name, .. } => {
            let what = format!("network {name} does not exist, and `docker compose up` would make it");
            Some(new(what).command(up(deployment)))
        }
        Touch::Volume { name, action } if is_made(action) => {
            let what = format!("volume {name} does not exist, and `docker compose up` would make an empty one");
            let remedy =
                format!("correct the volume's name, if the data is elsewhere; otherwise `{}` first", up(deployment));
            Some(new(what).text(remedy))
        }
        Touch::Volume { name, action } => {
            let what = format!(
                "the definition of volume {name} in the Compose files is not the one it was made from ({action})"
            );
            Some(new(what).text("Undo the edit; or say \"accept_drift\": true to have the volume used as it is. To have it made anew, copy its data elsewhere, remove it by hand and bring it up again"))
        }
    }
}

fn up(deployment: &Deployment) -> String {
    line(["docker", "compose", "up", "-d"].into_iter().chain(deployment.project.moved()))
}

fn network(name: &str, action: &str, deployment: &Deployment) -> Refusal {
    let in_it = |c: &&Container| c.networks.contains_key(name);
    let others = deployment.containers.iter().filter(|c| !deployment.moves(c)).filter(in_it);
    let is_of_project = |c: &&Container| c.label(label::PROJECT) == Some(&deployment.project.name);
    let (own, foreign): (Vec<&Container>, Vec<&Container>) = others.partition(is_of_project);
    let names = |list: &[&Container]| list.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(" ");
    let stopped = match own.is_empty() {
        true => String::new(),
        false => format!(" and stop what else is in it ({})", names(&own)),
    };
    // `down` cannot remove a network in which others are.
    let disconnect = foreign.iter().map(|c| line(["docker", "network", "disconnect", name, &c.name]) + " && ");
    let disconnect: String = disconnect.collect();
    let reconnect = match foreign.is_empty() {
        true => String::new(),
        false => format!(", and then restart what is not of this project: {}", names(&foreign)),
    };
    let what = format!(
        "the definition of network {name} in the Compose files is not the one it was made from, so `docker compose up` would remove it ({action}){stopped}, which an update must not"
    );
    Refusal::new(Code::TouchesOthers, what).text(format!(
        "Undo the edit; or bring the whole project down and up once, when it may be away: `{disconnect}docker compose down && docker compose up -d` (without -v, so that all data stays){reconnect}"
    ))
}
