//! The updater as operators run it: a container of its own image, a service of the application's project.

use std::time::Duration;

use lab::eventually;
use lab::sidecar::{Network, Sees};
use lab::world::is_helper;
use serde_json::json;

use crate::case::Leaves::{Restored, Updated};
use crate::case::{Case, case};
use crate::death::assert_proven;

/// What the examples in `deploy/` take away from it.
const LEAST: [&str; 3] = ["read_only: true", "cap_drop: [ALL]", "security_opt: [\"no-new-privileges:true\"]"];

fn beside(sees: Sees, network: Network) -> Case {
    case().sidecar(sees, |s| {
        s.network = network;
        s.lines.extend(LEAST.map(str::to_owned));
    })
}

#[test]
fn the_folder_at_its_own_path() {
    let (mut stage, _) = beside(Sees::SamePath, Network::Host).ends("committed", &[], Updated);
    assert_eq!(stage.app.would_change(), [""; 0], "the operator's own `up` has nothing to do");
    stage.updater.sigterm();
    let (engine, label) = (&stage.lab.engine, stage.lab.run.label());
    eventually("the end of the helpers", Duration::from_secs(10), || {
        let listed = engine.containers(&label);
        let inspected = listed.iter().filter_map(|container| engine.container(container["Id"].as_str()?));
        (!inspected.collect::<Vec<_>>().iter().any(is_helper)).then_some(())
    });
}

#[test]
fn in_the_network_of_the_project() {
    beside(Sees::SamePath, Network::Project).ends("committed", &[], Updated);
}

#[test]
fn a_bad_release_is_rolled_back() {
    beside(Sees::SamePath, Network::Host).release(|r| r.behaviour("crash")).ends(
        "rolled_back",
        &["crashing at the start"],
        Restored,
    );
}

#[test]
fn killed_removed_and_made_anew_while_swapping() {
    let mut stage = beside(Sees::SamePath, Network::Host).stage();
    let id = stage.updater.begin(&json!({ "target_tag": stage.release.tag }));
    stage.updater.wait_for(&id, "swapping");
    stage.updater.remove();
    stage.updater.restart();
    assert_proven(&stage, &id, &["committed", "rolled_back"]);
}
