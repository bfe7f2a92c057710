use serde_json::{Value, json};

use super::transition;
use crate::engine::{ComposeConfig, Project};
use crate::update::version_changes::VersionChanges;

/// A project whose service `app` is moved, in which `{}` stands for the version.
fn between(lines: &Value, (old, new): (&str, &str)) -> VersionChanges {
    let config = |version: &str| -> ComposeConfig {
        let mut config = json!({
            "name": "p",
            "services": {
                "app": {"image": "r/a:{}", "volumes": [{"type": "volume", "source": "data", "target": "/data"}]},
                "db": {"image": "pg:1"}
            },
            "volumes": {"data": {"name": "p_data"}}, "networks": {"default": {"name": "p_default"}}
        });
        merge(&mut config, lines);
        serde_json::from_str(&config.to_string().replace("{}", version)).unwrap()
    };
    let service = "app".to_owned();
    let project = Project { service, version_key: "V".into(), crew: vec![], ..transition::plan().project };
    VersionChanges::between(&config(old), &config(new), &project, (old, new))
}

fn merge(into: &mut Value, more: &Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            more.iter().for_each(|(key, value)| merge(into.entry(key.clone()).or_insert(Value::Null), value));
        }
        (into, more) => into.clone_from(more),
    }
}

/// In a service that is moved: what is told, and what is refused.
#[test]
fn what_the_version_may_decide() {
    let app = |attribute: Value| json!({"services": {"app": attribute}});
    let rows: &[(&str, Value, &[&str], &[&str])] = &[
        ("the image alone", json!({}), &[], &[]),
        ("the version variable itself", app(json!({"environment": {"V": "{}"}})), &[], &[]),
        (
            "another variable",
            app(json!({"environment": {"RELEASE": "app@{}", "DOCS": "https://docs.example/{}/"}})),
            &["services.app.environment.DOCS changes", "services.app.environment.RELEASE changes"],
            &[],
        ),
        (
            "a variable that leads into a mount",
            app(json!({"environment": {"DIR": "/data/{}"}})),
            &[],
            &["services.app.environment.DIR changes"],
        ),
        (
            "a file in a mount",
            app(json!({"environment": {"DB": "sqlite:////data/{}.db"}})),
            &[],
            &["services.app.environment.DB changes"],
        ),
        (
            "a database",
            app(json!({"environment": {"DB": "postgres://u:secret@db/app_{}"}})),
            &[],
            &["services.app.environment.DB changes"],
        ),
        (
            "a folder of the image",
            app(json!({"environment": {"STATIC": "/srv/static/{}"}})),
            &["services.app.environment.STATIC changes"],
            &[],
        ),
        (
            "a label",
            app(json!({"labels": {"org.opencontainers.image.version": "{}"}})),
            &["services.app.labels.org.opencontainers.image.version changes"],
            &[],
        ),
        (
            "a label whose name it is",
            app(json!({"labels": {"at-{}": "x"}})),
            &["services.app.labels.at-1.0.0 disappears", "services.app.labels.at-1.1.0 appears"],
            &[],
        ),
        (
            "a healthcheck",
            app(json!({"healthcheck": {"test": ["CMD", "check", "/{}/"]}})),
            &["services.app.healthcheck.test[2] changes"],
            &[],
        ),
        (
            "where its log goes",
            app(json!({"logging": {"options": {"tag": "app-{}"}}})),
            &["services.app.logging.options.tag changes"],
            &[],
        ),
        ("how it is built", app(json!({"build": {"context": "/x", "args": {"V": "{}"}}})), &[], &[]),
        (
            "the version as an argument",
            app(json!({"command": ["serve", "--release=v{}", "{}"]})),
            &[
                "services.app.command[1]: --release=v1.0.0 -> --release=v1.1.0",
                "services.app.command[2]: 1.0.0 -> 1.1.0",
            ],
            &[],
        ),
        (
            "an argument that is a path",
            app(json!({"command": ["serve", "--dir=/var/{}"]})),
            &[],
            &["services.app.command[1]: --dir=/var/1.0.0 -> --dir=/var/1.1.0"],
        ),
        (
            "a file's name as an argument",
            app(json!({"command": ["serve", "--db=app-{}.sqlite"]})),
            &[],
            &["services.app.command[1]: --db=app-1.0.0.sqlite -> --db=app-1.1.0.sqlite"],
        ),
        (
            "a folder of the host",
            app(json!({"volumes": [{"type": "bind", "source": "/srv/data/{}", "target": "/data"}]})),
            &[],
            &["services.app.volumes[0].source: /srv/data/1.0.0 -> /srv/data/1.1.0"],
        ),
        (
            "where it is mounted",
            app(json!({"volumes": [{"type": "volume", "source": "data", "target": "/data/{}"}]})),
            &[],
            &["services.app.volumes[0].target: /data/1.0.0 -> /data/1.1.0"],
        ),
        (
            "a folder of the volume",
            app(
                json!({"volumes": [{"type": "volume", "source": "data", "target": "/data", "volume": {"subpath": "{}"}}]}),
            ),
            &[],
            &["services.app.volumes[0].volume.subpath: 1.0.0 -> 1.1.0"],
        ),
        (
            "another volume",
            app(json!({"volumes": [{"type": "volume", "source": "data-{}", "target": "/data"}]})),
            &[],
            &["services.app.volumes[0].source: data-1.0.0 -> data-1.1.0"],
        ),
        (
            "the container's name",
            app(json!({"container_name": "app-{}"})),
            &[],
            &["services.app.container_name: app-1.0.0 -> app-1.1.0"],
        ),
        (
            "its host's name",
            app(json!({"hostname": "app-{}"})),
            &[],
            &["services.app.hostname: app-1.0.0 -> app-1.1.0"],
        ),
        (
            "an alias",
            app(json!({"networks": {"default": {"aliases": ["app-{}"]}}})),
            &[],
            &["services.app.networks.default.aliases[0]: app-1.0.0 -> app-1.1.0"],
        ),
        (
            "a port",
            app(json!({"ports": [{"target": 80, "published": "{}", "host_ip": "127.0.0.1"}]})),
            &[],
            &["services.app.ports[0].published: 1.0.0 -> 1.1.0"],
        ),
        ("a user", app(json!({"user": "u{}"})), &[], &["services.app.user: u1.0.0 -> u1.1.0"]),
        ("what nobody knows", app(json!({"later": ["{}"]})), &[], &["services.app.later[0]: 1.0.0 -> 1.1.0"]),
        (
            "a volume's name",
            json!({"volumes": {"data": {"name": "data-{}"}}}),
            &[],
            &["volumes.data.name: data-1.0.0 -> data-1.1.0"],
        ),
        (
            "a volume's device",
            json!({"volumes": {"data": {"driver_opts": {"device": "/srv/{}", "o": "password=x"}}}}),
            &[],
            &["volumes.data.driver_opts.device changes"],
        ),
        (
            "a network's name",
            json!({"networks": {"default": {"name": "net-{}"}}}),
            &[],
            &["networks.default.name: net-1.0.0 -> net-1.1.0"],
        ),
        (
            "a network's label",
            json!({"networks": {"default": {"labels": {"v": "{}"}}}}),
            &[],
            &["networks.default.labels.v changes"],
        ),
        (
            "a secret's file",
            json!({"secrets": {"key": {"file": "/srv/{}/key"}}}),
            &[],
            &["secrets.key.file: /srv/1.0.0/key -> /srv/1.1.0/key"],
        ),
        (
            "a config's content",
            json!({"configs": {"c": {"content": "dir=/data/{}"}}}),
            &[],
            &["configs.c.content changes"],
        ),
        ("the project's name", json!({"name": "p{}"}), &[], &["name: p1.0.0 -> p1.1.0"]),
        ("a note of the operator's", json!({"x-note": "{}", "services": {"app": {"x-note": "{}"}}}), &[], &[]),
    ];
    for (what, lines, told, refused) in rows {
        let changes = between(lines, ("1.0.0", "1.1.0"));
        let shown = |list: &[crate::engine::compose_config::Difference]| -> Vec<String> {
            list.iter().map(ToString::to_string).collect()
        };
        assert_eq!(shown(&changes.told), *told, "{what}");
        assert_eq!(shown(&changes.refused), *refused, "{what}");
        assert_eq!(changes.followers(), [""; 0], "{what}");
        let text = [shown(&changes.told), shown(&changes.refused)].concat().join(" ");
        assert!(!text.contains("secret@") && !text.contains("password"), "{what}: {text}");
    }
}

/// The texts of a version may stand anywhere without meaning it: only what differs counts.
#[test]
fn short_and_common_versions() {
    let many = json!({
        "services": {"app": {
            "command": ["serve", "--workers=1", "--release", "v1"],
            "environment": {"LEVEL": "1", "CHANNEL": "release", "V1": "v1"},
            "ports": [{"target": 1, "published": "11"}]
        }},
        "volumes": {"data": {"name": "v1-release-1"}}
    });
    for (old, new) in [("1", "2"), ("v1", "v2"), ("release", "1"), ("", "1")] {
        let changes = between(&many, (old, new));
        assert_eq!(changes, VersionChanges::default(), "{old} -> {new}");
    }
}

/// `${V:-dev}` in one place and `${V:-1.0}` in another, while the key is absent.
#[test]
fn defaults_that_differ() {
    let config = |image: &str, channel: &str, volume: &str| -> ComposeConfig {
        serde_json::from_value(json!({
            "services": {"app": {"image": format!("r/a:{image}"), "environment": {"CHANNEL": channel}}},
            "volumes": {"data": {"name": volume}}
        }))
        .unwrap()
    };
    let project = Project { service: "app".into(), crew: vec![], ..transition::plan().project };
    let (old, new) = (config("1.0", "dev", "data"), config("1.1", "1.1", "data"));
    let changes = VersionChanges::between(&old, &new, &project, ("1.0", "1.1"));
    assert_eq!((changes.told.len(), changes.refused.len()), (1, 0));
    let changes = VersionChanges::between(&old, &config("1.1", "1.1", "1.1"), &project, ("1.0", "1.1"));
    assert_eq!(changes.refused[0].to_string(), "volumes.data.name: data -> 1.1");
}

#[test]
fn services_that_follow_are_named_with_what_becomes_of_them() {
    let lines = json!({"services": {
        "init": {"image": "r/a:{}"},
        "reader": {"image": "x:1", "environment": {"V": "{}"}},
        "cache": {"image": "x:1", "volumes": [{"type": "bind", "source": "/srv/{}", "target": "/c"}]}
    }});
    let changes = between(&lines, ("1.0", "1.1"));
    assert_eq!(changes.followers(), ["cache", "init", "reader"]);
    let beyond: Vec<_> = changes.followed_beyond_image().map(ToString::to_string).collect();
    assert_eq!(beyond, ["services.cache.volumes[0].source: /srv/1.0 -> /srv/1.1"]);
    assert!(changes.refused.is_empty());
}
