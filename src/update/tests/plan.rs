use serde_json::{Value, json};

use crate::engine::ComposeConfig;
use crate::update::plan::{StartOrder, surroundings};

fn config(json: Value) -> ComposeConfig {
    serde_json::from_value(json).unwrap()
}

#[test]
fn a_migration_gets_the_new_environment_and_nothing_that_routes() {
    let config = config(json!({"services": {"app": {
        "image": "a:2", "container_name": "app", "ports": [{"target": 80}], "user": "1000:1000", "restart": "always",
        "environment": {"PROCESSGIT_VERSION": "1.1", "DB": "db", "EMPTY": null},
        "entrypoint": ["/init", "--"], "extra_hosts": ["db=10.0.0.1"], "tmpfs": ["/tmp:size=1m", "/run"], "cap_drop": ["ALL"]
    }}}));
    let service = surroundings(&config.services["app"], vec!["net".into()]);
    assert_eq!(service.environment.get("PROCESSGIT_VERSION").map(String::as_str), Some("1.1"));
    assert_eq!(service.environment.keys().collect::<Vec<_>>(), ["DB", "PROCESSGIT_VERSION"]);
    assert_eq!(service.user.as_deref(), Some("1000:1000"));
    assert_eq!(service.entrypoint, Some(vec!["/init".into(), "--".into()]));
    assert_eq!(service.extra_hosts, ["db:10.0.0.1"]);
    assert_eq!(
        service.tmpfs.into_iter().collect::<Vec<_>>(),
        [("/run".into(), String::new()), ("/tmp".into(), "size=1m".into())]
    );
    assert_eq!(service.cap_drop, ["ALL"]);
    assert_eq!(service.networks, ["net"]);
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
