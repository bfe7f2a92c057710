use serde_json::{Value, json};

use crate::engine::ComposeConfig;
use crate::update::plan::StartOrder;

fn config(json: Value) -> ComposeConfig {
    serde_json::from_value(json).unwrap()
}

#[test]
fn services_are_started_after_those_they_need() {
    let needs = |names: &[&str]| {
        let one = |name: &&str| ((*name).to_owned(), json!({"condition": "service_started"}));
        json!({"depends_on": names.iter().map(one).collect::<serde_json::Map<_, _>>()})
    };
    let project = config(json!({"services": {
        "app": needs(&["init", "db"]), "init": needs(&["db"]), "db": {}, "a-worker": needs(&["app"]),
        "lodger": needs(&["app"]), "watcher": needs(&["a-worker"]), "beside": {}
    }}));
    let order = StartOrder::new(&project, "app");
    let mut services = ["watcher", "stranger", "lodger", "app", "beside", "init", "a-worker", "db"];
    services.sort_by_key(|service| order.place(Some(service)));
    assert_eq!(services, ["db", "init", "app", "a-worker", "beside", "lodger", "watcher", "stranger"]);
    let before: Vec<_> = services.into_iter().filter(|s| order.comes_before_the_first(Some(s))).collect();
    assert_eq!(before, ["db", "init"]);
    let in_a_circle = config(json!({"services": {"app": needs(&["b"]), "b": needs(&["app"])}}));
    assert!(
        StartOrder::new(&in_a_circle, "app").comes_before_the_first(Some("b")),
        "Compose refuses it; we do not hang"
    );
}

/// A job may have been planned by the program as it was before.
#[test]
fn a_plan_without_the_spelling_is_read() {
    let mut plan = serde_json::to_value(super::transition::plan()).unwrap();
    plan["target"].as_object_mut().unwrap().remove("spelled");
    let plan: crate::update::plan::Plan = serde_json::from_value(plan).unwrap();
    assert_eq!(plan.target.reference(), "r/a:2");
}
