//! What the containers that run and those that will be made need of the host: every kind of source.

use serde_json::{Value, json};

use super::beside::{deployment, of};
use crate::engine::{ComposeConfig, Container, Mount, MountKind, RestartPolicy};
use crate::update::plan::Companion;
use crate::update::survey::sources::needed;

/// Kind and source of each.
type Mounts<'a> = &'a [(MountKind, &'a str)];

/// A container with these mounts and devices.
fn with(container: &Container, mounts: Mounts<'_>, devices: &[&str]) -> Container {
    let mount = |(kind, source): &(MountKind, &str)| Mount {
        kind: kind.clone(),
        name: String::new(),
        source: (*source).to_owned(),
        destination: "/there".into(),
        writable: true,
        subpath: String::new(),
    };
    let devices: Vec<Value> = devices.iter().map(|path| json!({ "PathOnHost": path })).collect();
    let raw = json!({ "HostConfig": { "Devices": devices } });
    Container { mounts: mounts.iter().map(mount).collect(), raw, ..container.clone() }
}

#[test]
fn what_runs_needs_what_it_has() {
    use MountKind::{Bind, Tmpfs, Volume};
    let rows: [(&str, Mounts, &[&str], &[&str]); 7] = [
        ("nothing", &[], &[], &[]),
        ("a bind, short or long", &[(Bind, "/srv/data")], &[], &["/srv/data"]),
        ("a secret or a config from a file", &[(Bind, "/srv/key.txt")], &[], &["/srv/key.txt"]),
        ("a volume is the engine's", &[(Volume, "/var/lib/docker/volumes/data/_data"), (Tmpfs, "")], &[], &[]),
        ("a socket is made by who listens", &[(Bind, "/var/run/docker.sock")], &[], &[]),
        ("a device", &[], &["/dev/ttyUSB0"], &["/dev/ttyUSB0"]),
        ("a device that is no path", &[], &["vendor.com/gpu=all"], &[]),
    ];
    for (what, mounts, devices, expected) in rows {
        let mut deployment = deployment(&["p-app-1"]);
        deployment.container = with(&deployment.container, mounts, devices);
        let found = needed(&deployment, &[], None);
        assert_eq!(found.keys().collect::<Vec<_>>(), expected, "{what}");
        assert!(found.values().all(|who| who.starts_with("container p-app-1 has it ")), "{what}: {found:?}");
    }
}

/// What is stopped with the application has to start again too; what only stands beside it has not.
#[test]
fn what_is_stopped_with_it_needs_its_own() {
    let mut deployment = deployment(&["p-app-1"]);
    deployment.container = with(&deployment.container, &[], &[]);
    let db = with(&of("p-db-1", "p", "db"), &[(MountKind::Bind, "/srv/db")], &[]);
    deployment.containers = vec![db.clone()];
    let companion = Companion {
        container_id: db.id.clone(),
        name: db.name,
        service: Some("db".into()),
        restart_policy: RestartPolicy { name: "always".into(), maximum_retry_count: 0 },
        needed: true,
        holds_data: false,
    };
    assert!(needed(&deployment, &[], None).is_empty());
    let found = needed(&deployment, &[companion], None);
    assert_eq!(found.get("/srv/db").map(String::as_str), Some("container p-db-1 has it mounted at /there"));
}

/// Of the new configuration, as Compose prints it: `app` is moved, `other` is not.
#[test]
fn what_will_be_made_needs_what_its_files_name() {
    let mount =
        |bind: Value| json!({ "volumes": [{ "type": "bind", "source": "/srv/x", "target": "/x", "bind": bind }] });
    let plain = json!({ "volumes": [{ "type": "bind", "source": "/srv/x", "target": "/x" }] });
    let secret = json!({ "secrets": [{ "source": "key" }] });
    let config = json!({ "configs": [{ "source": "key", "target": "/etc/key" }] });
    let objects = |kind: &str, object: Value| json!({ kind: { "key": object } });
    let file = json!({ "name": "p_key", "file": "/srv/key" });
    let volume = json!({ "volumes": [{ "type": "volume", "source": "data", "target": "/data" }] });
    let volumes = |options: Value| json!({ "volumes": { "data": { "name": "p_data", "driver_opts": options } } });
    let none = || json!({});
    let rows: Vec<(&str, Value, Value, &str)> = vec![
        ("a short form: the engine makes it", mount(json!({ "create_host_path": true })), none(), ""),
        ("a long form without options: the engine makes it", plain, none(), ""),
        (
            "create_host_path: false",
            mount(json!({ "create_host_path": false })),
            none(),
            "/srv/x: service app mounts it at /x",
        ),
        ("the same, as Compose 2.40 prints it", mount(none()), none(), "/srv/x: service app mounts it at /x"),
        ("other options", mount(json!({ "propagation": "rslave" })), none(), "/srv/x: service app mounts it at /x"),
        ("a secret", secret.clone(), objects("secrets", file.clone()), "/srv/key: service app has it as secret key"),
        ("a config", config.clone(), objects("configs", file.clone()), "/srv/key: service app has it as config key"),
        ("a secret from a variable", secret, objects("secrets", json!({ "environment": "KEY" })), ""),
        ("a config with its content", config, objects("configs", json!({ "content": "x" })), ""),
        ("a secret that no service uses", none(), objects("secrets", file), ""),
        (
            "a device",
            json!({ "devices": [{ "source": "/dev/x", "target": "/dev/x" }] }),
            none(),
            "/dev/x: service app has it as a device",
        ),
        (
            "a volume that is a folder",
            volume.clone(),
            volumes(json!({ "type": "none", "o": "rw,bind", "device": "/srv/data" })),
            "/srv/data: the volume data of service app is this folder",
        ),
        ("a volume elsewhere", volume.clone(), volumes(json!({ "type": "nfs", "o": "addr=h", "device": ":/srv" })), ""),
        ("a volume of the engine", volume, volumes(none()), ""),
        ("memory", json!({ "volumes": [{ "type": "tmpfs", "target": "/run" }], "tmpfs": ["/tmp"] }), none(), ""),
    ];
    let mut deployment = deployment(&["p-app-1"]);
    deployment.container = with(&deployment.container, &[], &[]);
    for (what, service, top, expected) in rows {
        for (name, expected) in [("app", expected), ("other", "")] {
            let mut whole = top.clone();
            whole["services"] = json!({ name: service });
            let new = ComposeConfig::from_compose(whole.to_string().as_bytes()).unwrap();
            let found = needed(&deployment, &[], Some(&new));
            let told: Vec<String> = found.iter().map(|(path, who)| format!("{path}: {who}")).collect();
            assert_eq!(told.join("; "), expected, "{what}, service {name}");
        }
    }
}
