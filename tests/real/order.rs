//! A database that is stopped with the application, and takes its time: it is ready before what depends on it is
//! started, on the way forward and on the way back.

use lab::image::ImageSpec;
use serde_json::{Value, json};

use crate::case::{Case, Stage, case};
use crate::data::data;

/// How long the database takes, in seconds. The application waits five for it, and then crashes.
const TAKES: u64 = 8;

fn with_slow_database(behaviour: &'static str) -> Case {
    let uses = |image: &mut ImageSpec| {
        image.env.extend([("DATA_DIR".into(), "/data/app".into()), ("DATABASE".into(), "database".into())]);
    };
    case()
        .app(move |a| {
            uses(&mut a.image);
            a.depends_on = "{ database: { condition: service_healthy } }".into();
            a.service_lines.push("volumes: [data:/data]".into());
            a.database_lines = vec![
                "volumes: [data:/data]".into(),
                format!("environment: {{ DATA_DIR: /data/database, BEHAVIOUR: \"slow:{TAKES}\" }}"),
                "healthcheck: { test: [CMD, /demo-app, check], interval: 300ms, retries: 100 }".into(),
            ];
            a.file_lines.push("volumes: { data: {} }".into());
        })
        .setting("SNAPSHOT", "on")
        .setting("STOP_SERVICES", "database")
        .release(move |r| {
            r.behaviour(behaviour).image(|i| {
                uses(i);
                i.env.push(("SCHEMA".into(), "2".into()));
            })
        })
}

fn database(stage: &Stage) -> Value {
    stage.lab.engine.container(&format!("{}-database-1", stage.app.project)).expect("the database")
}

/// Both were started anew, the database first, and the application only when that was ready: it has never crashed.
fn assert_order(stage: &Stage, before: &Value) {
    let started = |container: &Value| -> jiff::Timestamp {
        container["State"]["StartedAt"].as_str().and_then(|at| at.parse().ok()).expect("a time")
    };
    let (app, database) = (stage.app.app().expect("the application"), database(stage));
    assert_eq!(database["Id"], before["Id"], "the database is the same container");
    assert!(started(&database) > started(before), "the database was stopped");
    let later = started(&app).duration_since(started(&database));
    assert!(later.as_secs() >= TAKES.cast_signed(), "the application was started {later:?} after the database");
    assert_eq!(app["RestartCount"], json!(0), "the application has crashed");
}

#[test]
fn a_database_that_takes_its_time_is_ready_before_the_new_version_starts() {
    let stage = with_slow_database("good").stage();
    let before = database(&stage);
    let job = stage.update();
    job.assert_end("committed", &[]);
    assert_order(&stage, &before);
    assert!(job.output("swapping").contains("waiting for service database"), "{:#}", job.0);
    assert_eq!(stage.app.running_version().as_deref(), Some("1.1.0"));
    assert_eq!(data(&stage)["schema"], json!(2));
}

#[test]
fn and_before_the_old_version_starts_again() {
    let stage = with_slow_database("crash-late:0.2").stage();
    let before = database(&stage);
    stage.update().assert_end("rolled_back", &["crashes again and again"]);
    assert_order(&stage, &before);
    assert_eq!(stage.app.running_version().as_deref(), Some("1.0.0"));
    // What each has counted and written is that of the snapshot, and one start more.
    let database = json!({ "counter": 4, "schema": 1 });
    assert_eq!(data(&stage), json!({ "counter": 2, "schema": 1, "database": database }));
}
