use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::drift::container;
use crate::engine::{ComposeConfig, Container, Mount, MountKind};
use crate::update::one_shot::{Around, OneShot, derived};

/// What becomes of an attribute of the service.
enum Becomes {
    /// The one-shot container has it as the service's container has it.
    Given,
    /// It is the service's own container's, for this reason.
    NotGiven(&'static str),
    /// It means the same, told in another way.
    Told(Value),
}
use Becomes::{Given, NotGiven, Told};

/// Every attribute that a service may have (Compose 2.40, `services.*` of the Compose specification), with a
/// value as `docker compose config` prints it.
fn table() -> Vec<(&'static str, Value, Becomes)> {
    vec![
        ("annotations", json!({"a": "b"}), Given),
        ("attach", json!(false), NotGiven("nobody is attached")),
        ("blkio_config", json!({"weight": 300}), Given),
        ("build", json!({"context": "."}), NotGiven("the image is there")),
        ("cap_add", json!(["NET_ADMIN"]), Given),
        ("cap_drop", json!(["ALL"]), Given),
        ("cgroup", json!("private"), Given),
        ("cgroup_parent", json!("/m"), Given),
        ("command", json!(["serve"]), Told(json!(["migrate", "--to", "a$b"]))),
        ("configs", json!([{"source": "c", "target": "/c", "uid": "1", "mode": "0400"}]), Given),
        ("container_name", json!("app"), Told(json!("processgit-updater-migration-1"))),
        ("cpu_count", json!(2), Given),
        ("cpu_percent", json!(50.0), Given),
        ("cpu_period", json!(100_000), Given),
        ("cpu_quota", json!(50_000), Given),
        ("cpu_rt_period", json!(1000), Given),
        ("cpu_rt_runtime", json!(500), Given),
        ("cpu_shares", json!(10), Given),
        ("cpus", json!(0.5), Given),
        ("cpuset", json!("0"), Given),
        ("credential_spec", json!({"file": "x.json"}), Given),
        ("depends_on", json!({"db": {"condition": "service_started"}}), NotGiven("only the job knows what runs")),
        (
            "deploy",
            json!({"replicas": 1, "labels": {"a": "b"}, "restart_policy": {"condition": "any"},
                   "resources": {"limits": {"memory": 64}, "reservations": {"devices": [{"capabilities": ["gpu"]}]}}}),
            Told(json!({"resources":
                {"limits": {"memory": 64}, "reservations": {"devices": [{"capabilities": ["gpu"]}]}}})),
        ),
        ("develop", json!({"watch": []}), NotGiven("it is not developed")),
        ("device_cgroup_rules", json!(["c 1:3 mr"]), Given),
        ("devices", json!([{"source": "/dev/null", "target": "/dev/x", "permissions": "r"}]), Given),
        ("dns", json!(["8.8.8.8"]), Given),
        ("dns_opt", json!(["use-vc"]), Given),
        ("dns_search", json!(["a.b"]), Given),
        ("domainname", json!("foo.com"), Given),
        ("entrypoint", json!(["/init", "--"]), Given),
        ("env_file", json!([{"path": "/a", "required": true}]), NotGiven("its variables are in the environment")),
        ("environment", json!({"PW": "pa$word", "SET": "1", "UNSET": null}), Given),
        ("expose", json!(["80"]), NotGiven("proxies find containers by it")),
        ("extends", json!({"service": "x"}), Given), // Resolved long before.
        ("external_links", json!(["x:y"]), Given),
        ("extra_hosts", json!(["db:10.0.0.1", "six:::1"]), Given),
        ("gpus", json!([{"capabilities": ["compute"], "count": -1}]), Given),
        ("group_add", json!(["staff"]), Given),
        ("healthcheck", json!({"test": ["CMD", "true"]}), Told(json!({"disable": true}))),
        ("hostname", json!("h"), Given),
        ("image", json!("r/app:1"), Told(json!("sha256:new"))),
        ("init", json!(true), Given),
        ("ipc", json!("service:db"), Told(json!("container:id-of-db"))),
        ("isolation", json!("default"), Given),
        ("label_file", json!(["/l"]), NotGiven("labels route")),
        ("labels", json!({"traefik.enable": "true"}), Told(json!({"ours": "1"}))),
        ("links", json!(["db:base"]), NotGiven("told as external_links")),
        (
            "logging",
            json!({"driver": "gelf"}),
            Told(json!({"driver": "json-file", "options": {"max-size": "20m", "max-file": "3"}})),
        ),
        ("mac_address", json!("02:42:ac:11:65:43"), Given),
        ("mem_limit", json!(64), Given),
        ("mem_reservation", json!(32), Given),
        ("mem_swappiness", json!(10), Given),
        ("memswap_limit", json!(128), Given),
        ("models", json!({"llm": null}), Given),
        ("network_mode", json!("service:db"), Told(json!("container:id-of-db"))),
        (
            "networks",
            json!({"back": {"aliases": ["www"], "ipv4_address": "10.1.0.4", "mac_address": "02:42:ac:11:65:43",
                            "driver_opts": {"a": "b"}, "priority": 100}}),
            Told(json!({"back": {"ipv4_address": "10.1.0.4", "mac_address": "02:42:ac:11:65:43",
                                 "driver_opts": {"a": "b"}, "priority": 100}})),
        ),
        ("oom_kill_disable", json!(true), Given),
        ("oom_score_adj", json!(10), Given),
        ("pid", json!("service:db"), Told(json!("container:id-of-db"))),
        ("pids_limit", json!(100), Given),
        ("platform", json!("linux/amd64"), Given),
        ("ports", json!([{"target": 80, "published": "8080"}]), NotGiven("nobody asks it")),
        ("post_start", json!([{"command": ["x"]}]), NotGiven("made for what goes on running")),
        ("pre_stop", json!([{"command": ["x"]}]), NotGiven("made for what goes on running")),
        ("privileged", json!(true), Given),
        ("profiles", json!(["full"]), NotGiven("it is enabled")),
        ("provider", json!({"type": "x"}), Given), // Such a service has no container.
        ("pull_policy", json!("always"), NotGiven("the image is there")),
        ("pull_refresh_after", json!("1d"), NotGiven("the image is there")),
        ("read_only", json!(true), Given),
        ("restart", json!("always"), Told(json!("no"))),
        ("runtime", json!("runc"), Given),
        ("scale", json!(1), NotGiven("there is one")),
        ("secrets", json!([{"source": "s", "target": "/run/secrets/s", "gid": "5"}]), Given),
        ("security_opt", json!(["seccomp:unconfined"]), Given),
        ("shm_size", json!(64), Given),
        ("stdin_open", json!(true), NotGiven("nobody answers")),
        ("stop_grace_period", json!("1m30s"), Given),
        ("stop_signal", json!("SIGINT"), Given),
        ("storage_opt", json!({"size": "1G"}), Given),
        ("sysctls", json!({"net.core.somaxconn": "1024"}), Given),
        ("tmpfs", json!(["/run", "/tmp:size=1m"]), Given),
        ("tty", json!(true), NotGiven("its output is read")),
        ("ulimits", json!({"nofile": {"soft": 1, "hard": 2}}), Given),
        ("use_api_socket", json!(true), NotGiven("the engine's socket")),
        ("user", json!("1000:1000"), Given),
        ("userns_mode", json!("host"), Given),
        ("uts", json!("host"), Given),
        (
            "volumes",
            json!([
                {"type": "tmpfs", "target": "/t", "tmpfs": {"size": 1000, "mode": 1023}},
                {"type": "image", "source": "r/files:1", "target": "/i", "image": {"subpath": "x"}}
            ]),
            Given,
        ),
        ("volumes_from", json!(["db:ro"]), NotGiven("told as volumes")),
        ("working_dir", json!("/w"), Given),
        ("an_attribute_of_a_later_version", json!({"a": [1]}), Given),
    ]
}

fn project(service: &Value) -> ComposeConfig {
    serde_json::from_value(json!({
        "name": "shop", "services": {"app": service, "db": {"image": "db"}},
        "networks": {"back": {"name": "shop_back", "internal": true}},
        "volumes": {"data": {"name": "shop_data", "driver_opts": {"o": "secret"}}, "other": {"name": "x"}},
        "secrets": {"s": {"environment": "S"}, "unused": {"file": "/u"}}, "configs": {"c": {"content": "a$b"}},
        "models": {"llm": {"model": "m"}}
    }))
    .unwrap()
}

fn named(name: &str) -> Container {
    Container { id: format!("id-of-{name}"), name: format!("shop-{name}-1"), mounts: Vec::new(), ..container() }
}

fn mount(kind: MountKind, name: &str, source: &str, destination: &str) -> Mount {
    let (name, source, destination) = (name.into(), source.into(), destination.into());
    Mount { kind, name, source, destination, writable: true, subpath: String::new() }
}

/// The one-shot container's service, its project, and what it lacks.
fn derive(service: &Value, own: &Container, beside: &[Mount], is_alone: bool) -> (Value, ComposeConfig, Vec<String>) {
    let (config, db) = (project(service), named("db"));
    let of_services = BTreeMap::from([("app", own), ("db", &db)]);
    let around = Around { container: own, beside, of_services, is_alone };
    let (config, lacks) = derived(&config, "app", &around).unwrap();
    let command = vec!["migrate".into(), "--to".into(), "a$b".into()];
    let one_shot = OneShot { image: None, command, config, lacks: lacks.clone() };
    let name = "processgit-updater-migration-1";
    let labels = BTreeMap::from([("ours".to_owned(), "1".to_owned())]);
    let config = one_shot.project(name, "sha256:new", &labels).unwrap();
    assert_eq!((config.name.as_str(), config.services.len()), (name, 1));
    (serde_json::to_value(&config.services[name]).unwrap(), config, lacks)
}

#[test]
fn every_attribute_of_a_service_is_given_or_it_is_said_why_not() {
    for (attribute, value, becomes) in table() {
        let (service, ..) = derive(&json!({ attribute: value }), &named("app"), &[], true);
        let found = service.get(attribute).cloned().unwrap_or_default();
        match becomes {
            Given => assert_eq!(found, value, "{attribute} is given"),
            Told(expected) => assert_eq!(found, expected, "{attribute}"),
            NotGiven(why) => assert_eq!(found, Value::Null, "{attribute} is not given: {why}"),
        }
    }
}

#[test]
fn what_is_shared_with_the_project_is_never_made() {
    let service = json!({"networks": {"back": null}, "volumes": [{"type": "volume", "source": "data", "target": "/d"}],
                         "secrets": [{"source": "s"}], "models": {"llm": null}});
    let (_, config, _) = derive(&service, &named("app"), &[], true);
    let config = serde_json::to_value(config).unwrap();
    assert_eq!(config["networks"], json!({"back": {"name": "shop_back", "external": true}}));
    assert_eq!(config["volumes"], json!({"shop_data": {"name": "shop_data", "external": true}}));
    assert_eq!(config["secrets"], json!({"s": {"environment": "S"}}));
    assert_eq!((&config["configs"], &config["models"]["llm"]["model"]), (&Value::Null, &json!("m")));
}

#[test]
fn mounts_are_those_of_the_container() {
    let anonymous = "a".repeat(64);
    let own = Container {
        mounts: vec![
            mount(MountKind::Volume, "shop_data", "/v/shop_data", "/d/"),
            mount(MountKind::Volume, &anonymous, "/v/a", "/anonymous"),
            mount(MountKind::Volume, &"b".repeat(64), "/v/b", "/of-the-image"),
            Mount { writable: false, subpath: "x".into(), ..mount(MountKind::Volume, "lent", "/v/lent", "/from") },
            mount(MountKind::Bind, "", "/srv/s", "/run/secrets/s"),
            mount(MountKind::Bind, "", "/var/run/docker.sock", "/var/run/docker.sock"),
            mount(MountKind::Tmpfs, "", "", "/t"),
        ],
        ..named("app")
    };
    let beside = [mount(MountKind::Bind, "", "/srv/dumps", "/dumps"), mount(MountKind::Bind, "", "/other", "/d")];
    let service = json!({
        "secrets": [{"source": "s"}], "volumes_from": ["db"],
        "volumes": [
            {"type": "volume", "source": "data", "target": "/d", "volume": {"nocopy": true, "subpath": "p"}},
            {"type": "volume", "target": "/anonymous"},
            {"type": "volume", "target": "/new"},
            {"type": "bind", "source": "/srv/x", "target": "/x", "bind": {"create_host_path": true, "propagation": "rslave"}},
            {"type": "bind", "source": "/srv/z", "target": "/z", "bind": {"create_host_path": true, "selinux": "Z"}},
            {"type": "bind", "source": "/run/podman.sock", "target": "/s"}
        ]
    });
    let (service, config, lacks) = derive(&service, &own, &beside, true);
    assert_eq!(
        service["volumes"],
        json!([
            {"type": "volume", "source": "shop_data", "target": "/d", "volume": {"nocopy": true, "subpath": "p"}},
            {"type": "volume", "source": anonymous, "target": "/anonymous"},
            {"type": "volume", "target": "/new"},
            {"type": "bind", "source": "/srv/x", "target": "/x", "bind": {"create_host_path": false, "propagation": "rslave"}},
            {"type": "bind", "source": "/srv/z", "target": "/z", "bind": {"create_host_path": true, "selinux": "Z"}},
            {"type": "volume", "source": "b".repeat(64), "target": "/of-the-image"},
            {"type": "volume", "source": "lent", "target": "/from", "read_only": true, "volume": {"subpath": "x"}},
            {"type": "bind", "source": "/srv/dumps", "target": "/dumps", "bind": {"create_host_path": false}}
        ])
    );
    assert!(config.volumes.values().all(|volume| volume.external), "{:?}", config.volumes);
    assert_eq!(lacks, ["/run/podman.sock", "/var/run/docker.sock"]);
}

#[test]
fn links_lead_to_the_containers_that_there_are() {
    for (links, expected) in [
        (json!(["db"]), json!(["x:y", "shop-db-1:db", "shop-db-1:db-1", "shop-db-1:p-db-1"])),
        (json!(["db:base", "gone"]), json!(["x:y", "shop-db-1:base", "shop-db-1:db-1", "shop-db-1:p-db-1"])),
    ] {
        let service = json!({"links": links, "external_links": ["x:y"]});
        assert_eq!(derive(&service, &named("app"), &[], true).0["external_links"], expected);
    }
}

/// The service goes on running beside a hook: an address is given once.
#[test]
fn addresses_are_given_where_they_are_free() {
    let service = json!({"mac_address": "02:42:ac:11:65:43", "networks": {"back":
        {"ipv4_address": "10.1.0.4", "ipv6_address": "fd00::4", "link_local_ips": ["169.254.8.8"], "priority": 1}}});
    let (service, ..) = derive(&service, &named("app"), &[], false);
    assert_eq!(service["networks"], json!({"back": {"priority": 1}}));
    assert_eq!(service["mac_address"], Value::Null);
}

#[test]
fn a_socket_of_the_engine_is_told_as_lacking() {
    let (_, _, lacks) = derive(&json!({"use_api_socket": true}), &named("app"), &[], true);
    assert_eq!(lacks, ["use_api_socket"]);
    assert!(derive(&json!({}), &named("app"), &[], true).2.is_empty());
}

/// A job may have been planned by an earlier version, which noted a choice of attributes.
#[test]
fn a_one_shot_of_an_earlier_version_is_read() {
    let earlier = |networks: Value| {
        let one_shot: OneShot = serde_json::from_value(json!({
            "image": "sha256:1", "command": ["dump"],
            "surroundings": {
                "entrypoint": ["/e"], "environment": {"A": "1"}, "user": "5", "working_dir": null, "networks": networks,
                "extra_hosts": ["db:10.0.0.1"], "cap_add": [], "cap_drop": ["ALL"], "security_opt": [],
                "privileged": false, "tmpfs": {"/run": "", "/tmp": "size=1m"}, "read_only": true
            },
            "mounts": [{"kind": "volume", "name": "v", "source": "/v", "destination": "/d", "writable": true, "subpath": "s"},
                       {"kind": "bind", "name": "", "source": "/b", "destination": "/b", "writable": false}]
        }))
        .unwrap();
        let again: OneShot = serde_json::from_value(serde_json::to_value(&one_shot).unwrap()).unwrap();
        assert_eq!(again, one_shot);
        serde_json::to_value(one_shot.project("n", "i", &BTreeMap::new()).unwrap()).unwrap()
    };
    let found = earlier(json!(["net", "other"]));
    assert_eq!(
        found["services"]["n"],
        json!({
            "image": "i", "container_name": "n", "command": ["dump"], "entrypoint": ["/e"], "environment": {"A": "1"},
            "user": "5", "restart": "no", "extra_hosts": ["db:10.0.0.1"], "cap_drop": ["ALL"], "read_only": true,
            "tmpfs": ["/run", "/tmp:size=1m"], "networks": {"net": {}, "other": {}},
            "volumes": [
                {"type": "volume", "source": "v", "target": "/d", "volume": {"subpath": "s"}},
                {"type": "bind", "source": "/b", "target": "/b", "read_only": true, "bind": {"create_host_path": false}}
            ]
        })
    );
    assert_eq!(found["networks"]["net"], json!({"name": "net", "external": true}));
    assert_eq!(earlier(json!([]))["services"]["n"]["network_mode"], "none");
    assert_eq!(earlier(json!(["container:x"]))["services"]["n"]["network_mode"], "container:x");
}
