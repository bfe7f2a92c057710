//! A database beside the application that nothing covers: told beforehand, and never `rolled_back` once a new version
//! may have changed it.

use lab::image::ImageSpec;
use serde_json::json;

use crate::case::Leaves::{Restored, Whatever};
use crate::case::{Case, Stage};
use crate::data::{data, with_data};
use crate::doctor::troubles;

/// The database counts each start of the application, in a volume of its own. The release crashes after it was
/// counted.
fn with_database(depends_on: &'static str) -> Case {
    let uses = |image: &mut ImageSpec| image.env.push(("DATABASE".into(), "database".into()));
    with_data("crash-late:0.2")
        .app(move |a| {
            uses(&mut a.image);
            a.depends_on = depends_on.into();
            a.database_lines = vec!["volumes: [db:/db]".into(), "environment: { DATA_DIR: /db }".into()];
            a.file_lines = vec!["volumes: { data: {}, db: {} }".into()];
        })
        .release(move |r| {
            r.behaviour("crash-late:0.2").image(|i| {
                i.env.push(("DATA_DIR".into(), "/data".into()));
                uses(i);
            })
        })
}

/// The volume as the engine calls it.
fn volume(stage: &Stage) -> String {
    format!("volume {}_db", stage.app.project)
}

#[test]
fn it_is_told_and_the_job_fails_until_a_person_has_looked() {
    // Nothing but the variable in its image leads to it.
    let (stage, job) = with_database("{}").ends(
        "failed",
        &["crashes again and again", "the data of database (beside the application, and not copied)"],
        Whatever,
    );
    let told = job.0["warnings"].to_string();
    for part in ["database (", &volume(&stage), "DATABASE names it", "PROCESSGIT_UPDATER_DATA_SERVICES=database"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    // The old version runs on its own data; the database has counted a start of the new one.
    assert_eq!(stage.app.running_version().as_deref(), Some("1.0.0"));
    assert_eq!(data(&stage)["counter"], json!(2));
    assert!(data(&stage)["database"]["counter"].as_u64() >= Some(4), "{}", data(&stage));
    let (told, _) = troubles(&mut stage.updater.command());
    assert!(told.iter().any(|line| line.starts_with("data beside: ") && line.contains(&volume(&stage))), "{told:?}");
    let settle = format!("/update/{}/settle", job.0["id"].as_str().expect("an id"));
    stage.updater.post(&settle, &json!({})).expect_status(&[200], "POST settle");
    stage.assert_next_update_works();
}

#[test]
fn what_the_operator_looks_after_is_only_told() {
    let (stage, job) = with_database("[database]").setting("DATA_ELSEWHERE", "database").ends(
        "rolled_back",
        &["crashes again and again"],
        Restored,
    );
    let told = job.0["warnings"].to_string();
    assert!(told.contains("the data of database was not put back: PROCESSGIT_UPDATER_DATA_ELSEWHERE"), "{told}");
    assert!(!told.contains("NOT copied"), "{told}");
    let (told, code) = troubles(&mut stage.updater.command());
    assert!(told.iter().all(|line| !line.starts_with("data beside")) && code == Some(0), "{told:?}");
}
