//! The updater as operators run it: a container of its own image, a service of the application's project.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use lab::engine::Engine;
use lab::publish::ReleaseSpec;
use lab::sidecar::{Network, Sees};
use lab::socket_proxy::SocketProxy;
use lab::world::is_helper;
use lab::{Lab, eventually};
use serde_json::json;

use crate::case::Leaves::{Restored, Untouched, Updated};
use crate::case::{Case, case};
use crate::data::with_data;
use crate::death::assert_proven;
use crate::examples::example;

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

/// The list that `deploy/socket-proxy.yml` gives to a proxy is long enough for an update with data and a
/// migration, and for the way back.
#[test]
fn behind_a_socket_proxy() {
    let (stage, _) = with_data("good")
        .sidecar(Sees::Deploy, |s| {
            s.behind = Some(example("socket-proxy.yml"));
            s.lines.extend(LEAST.map(str::to_owned));
        })
        .release(|r| r.image(|i| i.env.push(("DATA_DIR".into(), "/data".into()))).migration("migrate"))
        .ends("committed", &[], Updated);
    stage.lab.publish(ReleaseSpec::new("1.2.0").behaviour("crash"));
    stage.updater.update("v1.2.0").assert_end("rolled_back", &["crashing at the start"]);
    let proxy = stage.proxy.as_ref().expect("a proxy");
    assert_eq!(proxy.refused(), [], "calls that an update needs");
    // A network or a volume is made only where the Compose file has got a new one.
    let unusual = ["/(networks|volumes)/create", "/networks/[^/]+/(connect|disconnect)"];
    let idle = proxy.idle_rules();
    let rest: Vec<_> = idle.iter().filter(|rule| !unusual.iter().any(|end| rule.contains(end))).collect();
    assert_eq!(rest, [""; 0], "rules that no update needs");
}

/// … and no longer.
#[test]
fn a_socket_proxy_refuses_what_no_update_needs() {
    let lab = Lab::new();
    let proxy = SocketProxy::start(&lab.run, &lab.engine, &example("socket-proxy.yml"));
    let refused = "POST containers/a/exec
        POST exec/1/start
        POST containers/a/attach
        GET containers/a/attach/ws
        POST containers/a/kill
        POST containers/a/restart
        POST containers/prune
        POST commit
        GET containers/a/export
        GET containers/a/archive
        PUT containers/a/archive
        GET containers/a/top
        GET images/get
        POST images/load
        POST images/a/push
        POST images/prune
        POST build
        POST build/prune
        POST auth
        POST volumes/prune
        DELETE volumes/a
        DELETE networks/a
        POST networks/prune
        GET system/df
        GET secrets
        POST swarm/init
        POST services/create
        POST plugins/pull
        POST session
        POST grpc";
    for line in refused.lines() {
        let (method, path) = line.trim().split_once(' ').expect("a method and a path");
        let path = format!("/v1.51/{path}");
        let answer = proxy.ask(method, &path);
        assert_eq!(answer.status, 403, "{method} {path}: {}", answer.text());
    }
    assert_eq!(proxy.ask("GET", "/v1.51/info").status, 200, "what is allowed comes through");
}

/// A user without any rights of its own.
const NOBODY: u32 = 65534;

fn as_nobody(group: u32) -> Case {
    with_data("crash").sidecar(Sees::Deploy, |s| {
        s.user = Some((NOBODY, group));
        s.lines.extend(LEAST.map(str::to_owned));
    })
}

#[test]
fn as_nobody_in_the_group_of_the_socket() {
    let group = fs::metadata(Engine::connect().socket()).expect("the engine's socket").gid();
    let (stage, _) = as_nobody(group).ends("rolled_back", &["crashing at the start"], Restored);
    stage.assert_next_update_works();
}

#[test]
fn as_nobody_in_no_group_it_says_what_is_missing() {
    as_nobody(NOBODY).ends("rolled_back", &["Permission denied", "/var/run/docker.sock", "group"], Untouched);
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
