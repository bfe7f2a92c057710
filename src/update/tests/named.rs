//! Names in settings: what has the name, and what is said of one that nothing has.

use super::beside::{deployment, of};
use crate::engine::ComposeConfig;
use crate::engine::compose_config::Service;
use crate::update::refusal::Code;
use crate::update::survey::named::stop_refusals;

/// Services `app`, `db`, `redis-cache` and `worker` of project `p`, the last without a container; a container of a
/// profile that is not active; one of another project; this updater.
fn told(named: &[&str]) -> String {
    let mut deployment = deployment(&["p-app-1"]);
    deployment.containers.extend([of("p-debug-1", "p", "debug"), of("shared-postgres", "other", "db2")]);
    deployment.containers.push(of("the-updater", "p", "updater"));
    let services = ["app", "db", "redis-cache", "worker", "updater"].map(|name| (name.to_owned(), Service::default()));
    let config = ComposeConfig { services: services.into(), ..ComposeConfig::default() };
    let named: Vec<String> = named.iter().map(|name| (*name).to_owned()).collect();
    let refusals = stop_refusals(&named, Some("the-updater"), &deployment, &config);
    assert!(refusals.iter().all(|refusal| refusal.code == Code::NameWrong), "{refusals:?}");
    refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[test]
fn what_has_the_name_may_be_stopped() {
    for named in [
        &[][..],
        &["db"],
        &["p-db-1"],
        // It has no container now: there is nothing to stop.
        &["worker"],
        // Compose does not resolve its service.
        &["debug"],
        &["p-debug-1"],
        // Of another project by its own name.
        &["shared-postgres", "db"],
        // It is stopped anyway.
        &["app", "p-app-1"],
    ] {
        assert_eq!(told(named), "", "{named:?}");
    }
}

#[test]
fn a_name_that_nothing_has_is_told_with_what_was_meant() {
    const LIST: &str = "name a service (app, db, debug, redis-cache, updater, worker) or a container, or take it out";
    for (named, unknown, remedy) in [
        (&["wroker"][..], "wroker", "STOP_SERVICES=worker"),
        (&["db", "wroker", "workers"], "wroker, workers", "STOP_SERVICES=db,worker"),
        (&["bd"], "bd", "STOP_SERVICES=db"),
        (&["cache"], "cache", "STOP_SERVICES=redis-cache"),
        (&["p_db_1"], "p_db_1", "STOP_SERVICES=p-db-1"),
        (&["postgres"], "postgres", "STOP_SERVICES=shared-postgres"),
        // The service of another project is none here.
        (&["db2"], "db2", "STOP_SERVICES=db"),
        (&["queue"], "queue", LIST),
        (&["wroker", "queue"], "wroker, queue", LIST),
        (&["x"], "x", LIST),
    ] {
        let told = told(named);
        let what = format!(
            "PROCESSGIT_UPDATER_STOP_SERVICES names {unknown}, but project p has no such service, and the engine no such container. "
        );
        let told = told.strip_prefix(&what).unwrap_or_else(|| panic!("{named:?}: {told}")).to_lowercase();
        let remedy = remedy.to_lowercase();
        assert!(told == remedy || told == format!("set processgit_updater_{remedy}"), "{named:?}: {told}");
    }
}

#[test]
fn the_updater_cannot_stop_itself() {
    for named in ["updater", "the-updater"] {
        let told = told(&[named]);
        assert!(told.contains(&format!("names {named}, which is this updater")), "{told}");
        assert!(told.ends_with("Take PROCESSGIT_UPDATER_STOP_SERVICES out"), "{told}");
    }
    assert!(told(&["updater", "db"]).ends_with("Set PROCESSGIT_UPDATER_STOP_SERVICES=db"));
}
