use super::drift::{container, image};
use super::transition;
use crate::engine::compose_config::Service;
use crate::engine::{ComposeConfig, Container, DryRun, EngineInfo, Touch, label};
use crate::update::refusal::Refusal;
use crate::update::running::{Running, Unknown};
use crate::update::survey::compose::{Resolved, replica_refusals};
use crate::update::survey::{Deployment, beside};
use crate::update::version_changes::VersionChanges;

pub fn of(name: &str, project: &str, service: &str) -> Container {
    let labels =
        [(label::PROJECT, project), (label::SERVICE, service), (label::ONEOFF, "False"), (label::CONFIG_HASH, "1")];
    Container {
        id: name.into(),
        name: name.into(),
        labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        ..container()
    }
}

/// The application, a sibling, and a container of another project, all in the network `p_default`.
pub fn deployment(applications: &[&str]) -> Deployment {
    let project =
        crate::engine::Project { name: "p".into(), service: "app".into(), crew: vec![], ..transition::plan().project };
    let mut containers: Vec<Container> = applications.iter().map(|name| of(name, "p", "app")).collect();
    containers.extend([of("p-db-1", "p", "db"), of("other-1", "other", "x")]);
    Deployment {
        engine: EngineInfo {
            version: String::new(),
            api_version: String::new(),
            platform: String::new(),
            containerd_store: false,
        },
        container: containers[0].clone(),
        image: image(),
        project,
        crew: vec![],
        data_services: vec![],
        no_data_services: vec![],
        containers,
        env: None,
        env_value: None,
        running: Running::Unknown(Unknown::default()),
        place_warnings: vec![],
    }
}

fn resolved(touches: &[(&str, &str)], app: Service) -> Resolved {
    let touches = touches.iter().filter_map(|(id, action)| Touch::of(id, action)).collect();
    let old = ComposeConfig { services: [("app".to_owned(), app)].into(), ..ComposeConfig::default() };
    let dry_run = DryRun { unchanged: false, actions: vec![], touches };
    let changes = VersionChanges::default();
    Resolved { new: old.clone(), old, changes, dry_runs: vec![("app".into(), dry_run)], written: None }
}

fn shown(refusals: &[Refusal]) -> String {
    refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

type Row = (&'static [(&'static str, &'static str)], &'static [&'static str], bool);

/// What a dry run says it would touch; what the refusals name; whether consent to drift changes nothing.
#[test]
fn nothing_but_what_is_moved_may_be_touched() {
    const QUESTION: &str =
        "Volume \"p_data\" exists but doesn't match configuration in compose file. Recreate (data will be lost)?";
    let rows: &[Row] = &[
        (&[], &[], false),
        (&[("Container p-app-1", "Recreate"), ("Container p-app-1", "Recreated")], &[], false),
        (&[("Container abcdefabcdef_p-app-1", "Starting")], &[], false),
        (
            &[("Container p-app-1", "Stopping"), ("Network p_default", "Removed")],
            &[
                "network p_default",
                "(Removed)",
                "p-db-1",
                "docker network disconnect p_default other-1 && docker compose down && docker compose up -d",
                "Undo the edit",
            ],
            true,
        ),
        (&[("Network p_back", "Removed")], &["network p_back", "docker compose down && docker compose up -d"], true),
        (&[("Network p_new", "Creating")], &["network p_new does not exist", "`docker compose up -d app`"], false),
        (&[("Container p-db-1", "Recreate")], &["container p-db-1", "(Recreate)"], true),
        (&[("Volume p_data", QUESTION)], &["volume p_data", "Undo the edit"], false),
        (&[("Volume p_data", "Removed")], &["volume p_data", "Removed"], false),
        (&[("Volume p_new", "Creating")], &["volume p_new does not exist"], false),
    ];
    for (touches, says, even_with_consent) in rows {
        let (resolved, deployment) = (resolved(touches, Service::default()), deployment(&["p-app-1"]));
        let refusals = shown(&beside::refusals(&resolved, &deployment, false));
        assert_eq!(refusals.is_empty(), says.is_empty(), "{touches:?}: {refusals}");
        for said in *says {
            assert!(refusals.contains(said), "{touches:?}: {said:?} is not in {refusals}");
        }
        let consented = beside::refusals(&resolved, &deployment, true);
        assert_eq!(!consented.is_empty(), *even_with_consent, "{touches:?}: {consented:?}");
    }
}

#[test]
fn one_container_of_a_service_and_the_files_ask_for_one() {
    let scaled = |scale: Option<i64>, replicas: Option<i64>| -> Service {
        serde_json::from_value(serde_json::json!({ "scale": scale, "deploy": { "replicas": replicas } })).unwrap()
    };
    for (applications, scale, replicas, says) in [
        (&["p-app-1"][..], None, None, ""),
        // Whatever its number is.
        (&["p-app-2"], Some(1), Some(3), ""),
        (&["p-app-1", "p-app-2"], None, None, "2 containers (p-app-1, p-app-2), and an update moves one"),
        (&["p-app-1", "p-app-2"], None, Some(2), "ask for 2 containers of service app"),
        (&["p-app-1"], Some(3), None, "ask for 3 containers of service app"),
        (&["p-app-1"], Some(0), None, "ask for 0 containers of service app"),
    ] {
        let refusals = replica_refusals(&resolved(&[], scaled(scale, replicas)), &deployment(applications));
        let refusals = shown(&refusals);
        assert_eq!(refusals.is_empty(), says.is_empty(), "{applications:?}: {refusals}");
        assert!(refusals.contains(says), "{applications:?}: {refusals}");
    }
}
