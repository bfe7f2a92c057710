//! Several services of one image: an application, an init service it waits for, a worker on the same data,
//! and one that lives in the application's namespaces. They move together, or not at all.

use std::time::Duration;

use lab::image::ImageSpec;
use lab::publish::ReleaseSpec;
use lab::sidecar::Sees;
use lab::world::{Container, World};
use serde_json::{Value, json};

use crate::case::Leaves::{Restored, Untouched, Updated};
use crate::case::{Case, Stage, case};
use crate::data::data;

/// A release that behaves so; the application itself always behaves well, what the image says goes for the
/// others. The data is of schema 1, and the release makes it schema 2.
fn crew(behaviour: &'static str) -> Case {
    case()
        .gate_for(behaviour)
        .app(|a| {
            a.image.env.push(("DATA_DIR".into(), "/data".into()));
            a.image.healthcheck = Some(check(&[]));
            a.environment.push("BEHAVIOUR: good".into());
            a.service_lines.push("volumes: [data:/data]".into());
            a.depends_on =
                "{ database: { condition: service_started }, init: { condition: service_completed_successfully } }"
                    .into();
            let elsewhere = "environment: { BEHAVIOUR: good, PORT: 3001, DATA_DIR: \"\" }";
            a.crew = vec![
                ("init", vec!["restart: \"no\"", "command: [migrate]", "volumes: [data:/data]"]),
                (
                    "boot",
                    vec![
                        "restart: \"no\"",
                        "command: [migrate]",
                        "depends_on: { app: { condition: service_healthy } }",
                    ],
                ),
                ("jobs", vec!["restart: always", "depends_on: [app]", "volumes: [data:/data]"]),
                ("side", vec!["restart: always", "network_mode: service:app", elsewhere]),
            ];
            a.file_lines.push("volumes: { data: {} }".into());
        })
        .setting("MOVE_SERVICES", "init,boot,jobs,side")
        .release(move |r| {
            r.behaviour(behaviour).image(|i| {
                i.healthcheck = Some(check(&[]));
                i.env.push(("DATA_DIR".into(), "/data".into()));
                i.env.push(("SCHEMA".into(), "2".into()));
            })
        })
}

/// Asks the server beside it, or fails.
fn check(more: &[&str]) -> Value {
    let test = [&["CMD", "/demo-app", "check"], more].concat();
    json!({ "Test": test, "Interval": 300_000_000_u64, "Retries": 1, "StartInterval": 100_000_000_u64 })
}

/// What lives in the application's namespaces lives in those of the container that runs, of its present
/// life; and the operator's own `up` leaves everything as it is. (What has run to its end it starts once
/// more, in the same container.)
fn assert_together(stage: &Stage) {
    let app = stage.app.app().expect("the application");
    let side = stage.lab.engine.container(&format!("{}-side-1", stage.app.project)).expect("the one beside it");
    assert_eq!(side["HostConfig"]["NetworkMode"], json!(format!("container:{}", app["Id"].as_str().unwrap())));
    assert!(side["State"]["StartedAt"].as_str() >= app["State"]["StartedAt"].as_str(), "{side:#}");
    let lives = || {
        let world = World::of(&stage.app);
        let life = |c: &Container| {
            (c.id.clone(), if ["init", "boot"].contains(&&*c.service) { String::new() } else { c.started_at.clone() })
        };
        world.app.iter().chain(world.crew.values()).map(life).collect::<Vec<_>>()
    };
    let before = lives();
    stage.app.compose(&["up", "-d"]);
    assert_eq!(before, lives(), "`docker compose up -d` makes nothing anew");
}

fn assert_next_update_works(stage: &Stage) {
    let next = stage.lab.publish(ReleaseSpec::new("1.2.0").image(|i| i.healthcheck = Some(check(&[]))));
    stage.updater.update(&next.tag).assert_end("committed", &[]);
    assert_eq!(stage.app.running_version().as_deref(), Some("1.2.0"));
}

#[test]
fn they_move_together() {
    let (stage, job) = crew("good").sidecar(Sees::Deploy, |_| {}).ends("committed", &[], Updated);
    assert!(job.output("planning").contains("moved with it: init, boot, jobs, side"), "{:#}", job.0);
    let stopping = job.output("snapshotting");
    let at = |name: &str| stopping.find(&format!("stopping {}-{name}\n", stage.app.project));
    assert!(at("app") > at("side-1") && at("app") > at("jobs-1") && at("jobs-1").is_some(), "{stopping}");
    assert_together(&stage);
    assert_next_update_works(&stage);
}

#[test]
fn a_worker_that_crashes_takes_all_back() {
    let says = ["the container of service jobs", "crashing at the start"];
    let (stage, _job) = crew("crash").ends("rolled_back", &says, Restored);
    assert_together(&stage);
    assert_eq!(data(&stage)["schema"], json!(1), "the data too");
}

#[test]
fn an_init_service_that_fails_takes_all_back() {
    let says = ["service init of version 1.1.0 exited with code 1", "the migration failed, as it was asked to"];
    let (stage, _job) = crew("migrate-fails").ends("rolled_back", &says, Restored);
    assert_together(&stage);
    assert_eq!(data(&stage)["schema"], json!(1), "the data too");
}

/// Compose itself waits for the application to be healthy, and gives up: the version is bad all the same.
#[test]
fn one_that_waits_for_an_application_that_never_gets_healthy() {
    let sick = |i: &mut ImageSpec| i.healthcheck = Some(check(&["--fail"]));
    let (stage, _job) = crew("good").release(move |r| r.image(sick)).ends(
        "rolled_back",
        &["of version 1.1.0 is not healthy: its HEALTHCHECK says so"],
        Restored,
    );
    assert_together(&stage);
    stage.update().assert_end("rolled_back", &["was started before and rolled back"]);
}

#[test]
fn killed_while_they_move() {
    let mut stage = crew("good").stage();
    let id = stage.updater.begin(&json!({ "target_tag": stage.release.tag }));
    stage.updater.wait_for(&id, "swapping");
    // Into the middle of `compose up`, as good as can be told from outside.
    std::thread::sleep(Duration::from_millis(500));
    stage.updater.kill9();
    stage.updater.restart();
    let job = stage.updater.wait_for_end(&id);
    let leaves = if job.state() == "committed" { Updated } else { Restored };
    assert!(["committed", "rolled_back"].contains(&job.state()), "{:#}", job.0);
    stage.assert_leaves(leaves, Duration::ZERO);
    assert_together(&stage);
    assert_next_update_works(&stage);
}

#[test]
fn what_would_lose_its_namespaces_is_told_before() {
    let says = ["side-1 lives in the namespaces of", "PROCESSGIT_UPDATER_MOVE_SERVICES"];
    crew("good").setting("MOVE_SERVICES", "init,jobs").ends("rolled_back", &says, Untouched);
}
