use super::{drift, transition};
use crate::engine::{Container, Healthcheck, RestartPolicy, RunState, label};
use crate::update::observe::{app, env_seen};
use crate::update::plan::{EnvChange, Member, Plan, Was};
use crate::update::record::Learned;
use crate::update::transition::App::{self, *};
use crate::update::transition::Env;

/// An application, a worker and an init service, of the image `sha256:1`, to be moved to `sha256:2`.
fn plan() -> Plan {
    let member = |service: &str, was| Member {
        service: service.into(),
        container_id: format!("old-{service}"),
        container_name: format!("p-{service}-1"),
        was,
        needed: false,
    };
    let mut plan = transition::plan();
    plan.previous.container_id = "old-app".into();
    plan.crew = vec![
        member("worker", Was::Running { healthcheck: Healthcheck::None }),
        member("init", Was::Ended { well: true }),
    ];
    plan
}

fn learned() -> Learned {
    let made = ["app", "worker", "init"].map(|service| (service.to_owned(), format!("new-{service}")));
    Learned { new_image_id: Some("sha256:2".into()), new_containers: made.into(), ..Learned::default() }
}

/// `old app`: the very container that ran. `old* app`: another one of the old image. `new app`, `other new
/// app`: one that the swap made, one that somebody else made. `foreign app`: neither. A `~` after it: under
/// a temporary name. Then its state, where it is not `up`: `down` (exit code 0), `failed` (exit code 1).
fn container(text: &str) -> Container {
    let (text, state, exit_code) = match text.rsplit_once(' ') {
        Some((text, "down")) => (text, RunState::Exited, 0),
        Some((text, "failed")) => (text, RunState::Exited, 1),
        _ => (text, RunState::Running, 0),
    };
    let (kind, service) = text.trim_end_matches('~').rsplit_once(' ').unwrap();
    let (id, image_id, image_ref) = match kind {
        "old" => ("old-", "sha256:1", "r/a:1"),
        "old*" => ("again-", "sha256:1", "r/a:1"),
        "new" => ("new-", "sha256:2", "r/a:2"),
        "other new" => ("other-", "sha256:2", "r/a:2"),
        "foreign" => ("foreign-", "sha256:3", "r/a:2"),
        other => panic!("{other}"),
    };
    let name = if text.ends_with('~') { "0123456789ab_p-x-1" } else { "p-x-1" };
    Container {
        id: format!("{id}{service}"),
        name: name.into(),
        image_id: image_id.into(),
        image_ref: image_ref.into(),
        state,
        exit_code,
        labels: [(label::SERVICE.to_owned(), service.to_owned())].into(),
        ..drift::container()
    }
}

#[test]
fn services_that_are_moved_together_are_seen_as_one() {
    let (runs, stands) = (true, false);
    let ours = true;
    let rows: &[(&[&str], App)] = &[
        (&["old app", "old worker", "old init down"], Untouched { running: runs }),
        (&["old app down", "old worker", "old init down"], Untouched { running: stands }),
        (&["old app", "old worker down", "old init down"], Untouched { running: stands }),
        (&["old app", "old worker", "old init failed"], Untouched { running: stands }),
        (&["old app", "old worker", "old init"], Untouched { running: runs }),
        (&["old* app", "old* worker", "old* init down"], OldAnew { running: runs }),
        (&["old* app", "old worker", "old init down"], OldAnew { running: runs }),
        (&["old app", "old worker", "old* init failed"], OldAnew { running: stands }),
        (&["new app", "new worker", "new init down"], New { running: runs, ours }),
        (&["new app", "new worker down", "new init down"], New { running: stands, ours }),
        (&["new app", "new worker", "new init failed"], New { running: stands, ours }),
        (&["new app", "other new worker", "new init down"], New { running: runs, ours: false }),
        // An interrupted `compose up`.
        (&["old app down", "new app~", "old worker", "new init down"], Mixed),
        (&["new app~", "old worker", "new init down"], Gone),
        (&["new app", "old worker", "new init down"], Mixed),
        (&["new app", "new worker~", "new init down"], Mixed),
        (&["old app", "old worker down", "new worker~", "old init down"], Untouched { running: stands }),
        // Somebody else's doing.
        (&["old app", "old worker"], Mixed),
        (&["new app", "foreign worker", "new init down"], Mixed),
        (&["foreign app", "new worker", "new init down"], Foreign),
        (&["old worker", "old init down"], Gone),
        (&[], Gone),
    ];
    for (containers, expected) in rows {
        let seen: Vec<Container> = containers.iter().map(|text| container(text)).collect();
        assert_eq!(app(&seen, &plan(), &learned()), *expected, "{containers:?}");
    }
}

#[test]
fn what_was_down_before_is_not_missed() {
    for was in [Was::Stopped, Was::Ended { well: false }] {
        let mut plan = plan();
        plan.crew[0].was = was;
        for (containers, expected) in [
            (["old app", "old worker failed", "old init down"], Untouched { running: true }),
            (["old* app", "old* worker failed", "old* init down"], OldAnew { running: true }),
            (["new app", "new worker failed", "new init down"], New { running: was != Was::Stopped, ours: true }),
        ] {
            let seen = containers.map(container);
            assert_eq!(app(&seen, &plan, &learned()), expected, "{was:?} {containers:?}");
        }
    }
}

#[test]
fn what_a_container_was() {
    let unknown = Healthcheck::None;
    for (state, exit_code, policy, expected) in [
        (RunState::Running, 0, "no", Was::Running { healthcheck: unknown }),
        (RunState::Restarting, 1, "always", Was::Running { healthcheck: unknown }),
        (RunState::Exited, 0, "no", Was::Ended { well: true }),
        (RunState::Exited, 0, "on-failure", Was::Ended { well: true }),
        (RunState::Exited, 1, "no", Was::Ended { well: false }),
        (RunState::Exited, 0, "unless-stopped", Was::Stopped),
        (RunState::Created, 0, "no", Was::Stopped),
    ] {
        let restart_policy = RestartPolicy { name: policy.into(), maximum_retry_count: 0 };
        let container = Container { state, exit_code, restart_policy, ..drift::container() };
        assert_eq!(Was::of(&container), expected, "{state:?} {exit_code} {policy}");
    }
}

/// The very bytes, or else the key: somebody may edit the file at any time.
#[test]
fn what_env_selects() {
    let bytes = |text: &str| Some(text.as_bytes().to_vec());
    let value = |text: &str| Some(text.to_owned());
    let change = EnvChange {
        key: "V".into(),
        before: bytes("A=1\nV=1\n"),
        after: bytes("A=1\nV=2\n"),
        value_before: value("1"),
        value_after: value("2"),
    };
    let made = EnvChange { before: None, after: bytes("V=2\n"), value_before: None, ..change.clone() };
    for (now, change, expected) in [
        (bytes("A=1\nV=1\n"), &change, Env::Before),
        (bytes("A=1\nV=2\n"), &change, Env::After),
        (bytes("V=1\n"), &change, Env::KeyBefore),
        (bytes("V=2\n# mine\n"), &change, Env::KeyAfter),
        (bytes("V=3\n"), &change, Env::Other),
        (bytes("A=1\n"), &change, Env::Other),
        (None, &change, Env::Other),
        (None, &made, Env::Before),
        (bytes("B=1\n"), &made, Env::KeyBefore),
        (bytes("B=1\nV=2\n"), &made, Env::KeyAfter),
    ] {
        assert_eq!(env_seen(&now, change), expected, "{now:?}");
    }
}
