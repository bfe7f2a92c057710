//! The updater as operators run it: a container of its own image, a service of the application's project.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lab::engine::{Engine, must_run};
use lab::publish::ReleaseSpec;
use lab::sidecar::{self, Network, Sees};
use lab::socket_proxy::{Filter, SocketProxy};
use lab::world::is_helper;
use lab::{Lab, eventually, free_port};
use serde_json::{Value, json};

use crate::case::Leaves::{Restored, Untouched, Updated};
use crate::case::{Case, case};
use crate::data::with_data;
use crate::examples::example;

/// What the examples in `deploy/` take away from it.
const LEAST: [&str; 3] = ["read_only: true", "cap_drop: [ALL]", "security_opt: [\"no-new-privileges:true\"]"];

/// By itself, before there is anything to update.
#[test]
fn the_image() {
    let lab = Lab::new();
    let image = sidecar::image(&lab, Path::new(env!("CARGO_BIN_EXE_processgit-updater")));
    let least = ["--rm", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"];
    let run = |options: &[&str], command: &[&str]| {
        let mut docker = Command::new("docker");
        must_run(docker.arg("run").args(least).args(options).arg(&image).args(command)).trim().to_owned()
    };
    assert_eq!(run(&[], &["--version"]), concat!("processgit-updater ", env!("CARGO_PKG_VERSION")));
    let compose = "--entrypoint=/usr/libexec/docker/cli-plugins/docker-compose";
    let ours = run(&[compose], &["version", "--short"]);
    let hosts = must_run(Command::new("docker").args(["compose", "version", "--short"]));
    assert_eq!(ours, hosts.trim(), "the Compose of this machine");

    let inspected = lab.engine.image(&image).expect("the image");
    assert_eq!(inspected["Config"]["Entrypoint"], json!(["/processgit-updater"]), "no shell");
    assert_eq!(inspected["Config"]["Volumes"], Value::Null);
    for label in ["title", "source", "licenses", "version", "revision"] {
        let value = &inspected["Config"]["Labels"][format!("org.opencontainers.image.{label}")];
        assert!(value.as_str().is_some_and(|value| !value.is_empty()), "the label {label}: {value}");
    }

    let container = run(&["--detach", "--tmpfs=/var/lib/processgit-updater", "--env=PROCESSGIT_UPDATER_TOKEN=t"], &[]);
    eventually("its own verdict that it is healthy", Duration::from_secs(10), || {
        (lab.engine.container(&container)?["State"]["Health"]["Status"] == "healthy").then_some(())
    });
    let status = must_run(Command::new("docker").args(["exec", &container, "processgit-updater", "status"]));
    assert!(status.contains("every Docker operation is simulated"), "the default: {status}");
}

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

/// The list that `deploy/socket-proxy.yml` gives to a proxy is long enough for an update with data and a
/// migration, and for the way back. As there, no socket is mounted.
#[test]
fn behind_a_socket_proxy() {
    let (stage, _) = with_data("good")
        .sidecar(Sees::Deploy, |s| {
            s.network = Network::Project;
            s.behind = Some(Filter { rules: example("socket-proxy.yml"), tcp: Some(free_port()) });
            s.lines.extend(LEAST.map(str::to_owned));
        })
        .app(|a| {
            a.service_lines.push("configs: [told]".into());
            a.file_lines.push("configs: { told: { content: something } }".into());
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

/// With one call too few nothing is touched, and it says at what.
#[test]
fn behind_a_socket_proxy_that_allows_too_little() {
    let folder = tempfile::tempdir().expect("a folder");
    let rules = folder.path().join("rules.yml");
    let text = fs::read_to_string(example("socket-proxy.yml")).expect("the example");
    fs::write(&rules, text.replace("images/(create|", "images/(")).expect("writing");
    beside(Sees::Deploy, Network::Host)
        .app(|a| a.sidecar.as_mut().expect("a sidecar").behind = Some(Filter { rules, tcp: None }))
        .ends("rolled_back", &["pulling image", "does the socket proxy allow this call?"], Untouched);
}

/// Compose would need calls that the list does not have, for the way back too.
#[test]
fn behind_a_socket_proxy_that_does_not_let_compose_run_commands() {
    beside(Sees::Deploy, Network::Host)
        .app(|a| {
            let behind = Filter { rules: example("socket-proxy.yml"), tcp: None };
            a.sidecar.as_mut().expect("a sidecar").behind = Some(behind);
            a.service_lines.push("post_start: [ { command: [/demo-app, check] } ]".into());
        })
        .ends("rolled_back", &["post_start and pre_stop commands", "socket proxy allow this call"], Untouched);
}

/// … and no longer.
#[test]
fn a_socket_proxy_refuses_what_no_update_needs() {
    let lab = Lab::new();
    let proxy = SocketProxy::start(&lab, &Filter { rules: example("socket-proxy.yml"), tcp: None });
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
    let stage = as_nobody(NOBODY).stage();
    let answer = stage.updater.post("/update", &json!({ "target_tag": stage.release.tag }));
    let said = answer.expect_status(&[503], "an update without an engine").text();
    for part in ["Permission denied", "/var/run/docker.sock", "in the group that owns the socket"] {
        assert!(said.contains(part), "it does not say {part:?}: {said}");
    }
    stage.assert_leaves(Untouched, Duration::ZERO);
}
