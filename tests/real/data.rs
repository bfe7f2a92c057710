//! The data: put back exactly when an update is rolled back, and brought back by hand.

use lab::http;
use lab::publish::ReleaseSpec;
use serde_json::{Value, json};

use crate::case::{Case, Leaves::*, Stage, case};

/// An application that keeps a schema and a counter of its starts in a volume, and refuses data of a
/// newer version; a release that knows schema 2.
pub fn with_data(behaviour: &'static str) -> Case {
    has_data(behaviour, "data:/data", Some("volumes: { data: {} }".into()))
}

/// The same with the data in this mount, and this at the end of the Compose file.
pub fn has_data(behaviour: &'static str, mount: &str, volumes: Option<String>) -> Case {
    case()
        .app(|a| {
            a.image.env.push(("DATA_DIR".into(), "/data".into()));
            a.service_lines.push(format!("volumes: [{mount}]"));
            a.file_lines.extend(volumes);
        })
        .setting("SNAPSHOT", "on")
        .gate_for(behaviour)
        .release(move |r| {
            r.behaviour(behaviour).image(|i| {
                i.env.push(("DATA_DIR".into(), "/data".into()));
                i.env.push(("SCHEMA".into(), "2".into()));
            })
        })
}

/// What the running application says of its data: `{"counter": starts, "schema": n}`.
pub fn data(stage: &Stage) -> Value {
    let base = stage.app.health_url.trim_end_matches(&stage.app.spec.version_path);
    http::get(&format!("{base}/data")).expect("an answer").expect_status(&[200], "GET /data").json()
}

#[test]
fn a_version_that_migrates_at_its_start_and_dies_leaves_no_trace_in_the_data() {
    let (stage, job) = with_data("crash-late:0.2").ends("rolled_back", &["crashes again and again"], Restored);
    // One start before the update, one after the way back: whatever the bad version counted is gone.
    assert_eq!(data(&stage), json!({"counter": 2, "schema": 1}));
    assert!(job.output("rolling_back").contains("is kept as snapshot failed-job_"), "{:#}", job.0);
    let listed = stage.updater.get("/snapshots").expect_status(&[200], "GET /snapshots").json();
    let ids: Vec<&str> = listed["snapshots"].as_array().unwrap().iter().filter_map(|s| s["id"].as_str()).collect();
    assert_eq!(ids.len(), 2, "the data before, and what the bad version wrote: {ids:?}");
    assert_eq!(job.0["snapshot"].as_str(), ids.iter().copied().find(|id| !id.starts_with("failed-")));
}

#[test]
fn a_migration_that_fails_leaves_no_trace_in_the_data() {
    let (stage, _job) = with_data("good")
        .release(|r| {
            r.image(|i| {
                i.env.push(("DATA_DIR".into(), "/data".into()));
                i.env.push(("SCHEMA".into(), "2".into()));
            })
            .migration("migrate --fail")
        })
        .ends("rolled_back", &["the migration failed"], Restored);
    assert_eq!(data(&stage), json!({"counter": 2, "schema": 1}));
}

/// The hook runs in the surroundings of the service it names: its image, its environment, its mounts.
#[test]
fn a_hook_runs_before_the_copy_and_its_failure_is_the_jobs() {
    let (_stage, job) = with_data("good").setting("HOOK_BEFORE_COPY", "app: migrate").ends("committed", &[], Whatever);
    let output = job.output("snapshotting");
    assert!(output.contains("hook: migrate\n") && output.contains("schema 1 is in place"), "{output}");

    let (stage, _job) = with_data("good").setting("HOOK_BEFORE_COPY", "app: migrate --fail").ends(
        "rolled_back",
        &["the hook failed: \"migrate --fail\" exited with code 1"],
        Restored,
    );
    assert_eq!(data(&stage), json!({"counter": 2, "schema": 1}));
}

/// Half of the data is in another container, with a volume of its own, as a database keeps it. The release
/// moves both to schema 2 at its start.
fn with_database(behaviour: &'static str) -> Case {
    let uses = |image: &mut lab::image::ImageSpec| image.env.push(("DATABASE".into(), "database".into()));
    with_data(behaviour)
        .app(move |a| {
            uses(&mut a.image);
            a.database_lines = vec!["volumes: [db:/db]".into(), "environment: { DATA_DIR: /db }".into()];
            a.file_lines = vec!["volumes: { data: {}, db: {} }".into()];
        })
        .release(move |r| {
            r.behaviour(behaviour).image(|i| {
                i.env.extend([("DATA_DIR".into(), "/data".into()), ("SCHEMA".into(), "2".into())]);
                uses(i);
            })
        })
        .setting("HOOK_AFTER_RESTORE", "database: load database /data/database.dump")
}

#[test]
fn a_database_in_another_container_is_dumped_before_and_loaded_after() {
    let (stage, job) = with_database("crash-late:0.2")
        .setting("HOOK_BEFORE_COPY", "database: dump database /data/database.dump")
        .ends("rolled_back", &["crashes again and again"], Restored);
    assert!(job.output("snapshotting").contains("hook: dump database /data/database.dump\ndumped 2 1\n"), "{job:?}");
    assert!(job.output("rolling_back").contains("hook: load database /data/database.dump\nloaded 2 1\n"), "{job:?}");
    // One start before the update, one after the way back; the database counts its own as well.
    assert_eq!(data(&stage), json!({"counter": 2, "schema": 1, "database": {"counter": 3, "schema": 1}}));
}

#[test]
fn a_dump_that_fails_fails_the_job_and_leaves_both_as_they_were() {
    let (stage, _job) = with_database("good")
        .setting("HOOK_BEFORE_COPY", "database: dump database /data/database.dump --fail")
        .ends("rolled_back", &["the hook failed", "dump database /data/database.dump --fail"], Restored);
    assert_eq!(data(&stage), json!({"counter": 2, "schema": 1, "database": {"counter": 3, "schema": 1}}));
}

#[test]
fn a_good_version_keeps_its_data_and_the_way_back_by_hand_brings_the_old() {
    let (stage, _job) = with_data("good").ends("committed", &[], Whatever);
    assert_eq!(data(&stage), json!({"counter": 2, "schema": 2}));

    let view = stage.updater.get("/rollback?with_data=true").expect_status(&[200], "GET /rollback").json();
    assert_eq!((view["from_version"].as_str(), view["to_version"].as_str()), (Some("1.1.0"), Some("1.0.0")));
    assert!(view["written_since"]["files"].as_u64() >= Some(2), "{view}");
    let accepted = stage.updater.post("/rollback", &json!({})).expect_status(&[202], "POST /rollback").json();
    let back = stage.updater.wait_for_end(accepted["job_id"].as_str().unwrap());
    back.assert_end("committed", &[]);
    stage.app.await_version("1.0.0");
    assert_eq!(data(&stage), json!({"counter": 2, "schema": 1}));
    assert_eq!(stage.app.version_in_env().as_deref(), Some("1.0.0"));

    // What was written since is a snapshot of its own, and brings the new version with it.
    let kept = back.0["snapshot"].as_str().expect("the state before going back").to_owned();
    let path = format!("/snapshots/{kept}/restore");
    let accepted = stage.updater.post(&path, &json!({})).expect_status(&[202], "POST restore").json();
    stage.updater.wait_for_end(accepted["job_id"].as_str().unwrap()).assert_end("committed", &[]);
    stage.app.await_version("1.1.0");
    assert_eq!(data(&stage), json!({"counter": 3, "schema": 2}));
}

#[test]
fn a_snapshot_by_hand_stops_and_starts_the_same_container() {
    let stage = with_data("good").stage();
    let before = stage.app.app().unwrap();
    let accepted = stage.updater.post("/snapshots", &json!({})).expect_status(&[202], "POST /snapshots").json();
    let job = stage.updater.wait_for_end(accepted["job_id"].as_str().unwrap());
    job.assert_end("committed", &[]);
    let after = stage.app.app().unwrap();
    assert_eq!(before["Id"], after["Id"]);
    assert_eq!(before["HostConfig"]["RestartPolicy"], after["HostConfig"]["RestartPolicy"]);
    assert_eq!(data(&stage), json!({"counter": 2, "schema": 1}), "it was started a second time");
    let id = job.0["snapshot"].as_str().unwrap();
    let verified = stage.updater.get(&format!("/snapshots/{id}/verify")).expect_status(&[200], "verify").json();
    assert_eq!(verified["ok"], json!(true), "{verified}");
    stage.assert_next_update_works_from_scratch();
}

impl Stage {
    fn assert_next_update_works_from_scratch(&self) {
        let next = self.lab.publish(ReleaseSpec::new("1.2.0"));
        self.updater.update(&next.tag).assert_end("committed", &[]);
    }
}
