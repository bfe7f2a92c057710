use serde_json::{Value, json};

use crate::engine::{Container, Healthcheck, Image, Mount, MountKind, RestartPolicy, RunState};
use crate::update::drift::differences;

fn config() -> Value {
    json!({
        "services": {"app": {
            "image": "r/a:1", "command": null, "entrypoint": null, "restart": "unless-stopped",
            "environment": {"DB": "db", "SECRET": "s3cret"},
            "labels": {"team": "x"},
            "ports": [{"target": 80, "published": "8080", "protocol": "tcp", "host_ip": "127.0.0.1"}],
            "networks": {"default": null},
            "volumes": [
                {"type": "volume", "source": "data", "target": "/data"},
                {"type": "bind", "source": "/srv/conf", "target": "/conf", "read_only": true}
            ],
            "secrets": [{"source": "key"}]
        }},
        "networks": {"default": {"name": "p_default"}},
        "volumes": {"data": {"name": "p_data"}},
        "secrets": {"key": {"file": "/srv/key"}}
    })
}

fn mount(kind: MountKind, name: &str, source: &str, destination: &str, writable: bool) -> Mount {
    Mount {
        kind,
        name: name.into(),
        source: source.into(),
        destination: destination.into(),
        writable,
        subpath: String::new(),
    }
}

pub fn container() -> Container {
    Container {
        id: "c".into(),
        name: "app".into(),
        image_ref: "r/a:1".into(),
        image_id: "sha256:1".into(),
        state: RunState::Running,
        exit_code: 0,
        started_at: None,
        created_at: None,
        restart_count: 0,
        healthcheck: Healthcheck::None,
        healthcheck_seconds: 0,
        restart_policy: RestartPolicy { name: "unless-stopped".into(), maximum_retry_count: 0 },
        labels: [("team", "x"), ("com.docker.compose.project", "p"), ("org.opencontainers.image.version", "1")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into(),
        mounts: vec![
            mount(MountKind::Volume, "p_data", "/var/lib/docker/volumes/p_data/_data", "/data", true),
            mount(MountKind::Bind, "", "/srv/conf", "/conf", false),
            mount(MountKind::Bind, "", "/srv/key", "/run/secrets/key", false),
            mount(MountKind::Volume, &"ab".repeat(32), "/x", "/cache", true),
        ],
        networks: [("p_default".to_owned(), "10.0.0.2".to_owned())].into(),
        network_mode: "p_default".into(),
        raw: json!({
            "Config": {"Env": ["DB=db", "SECRET=s3cret", "PATH=/bin"], "Cmd": ["serve"], "Entrypoint": ["/app"], "User": "git"},
            "HostConfig": {"PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]}}
        }),
    }
}

pub fn image() -> Image {
    Image {
        id: "sha256:1".into(),
        repo_digests: vec![],
        repo_tags: vec![],
        labels: [("org.opencontainers.image.version".to_owned(), "1".to_owned())].into(),
        platform: "linux/amd64".into(),
        raw: json!({"Config": {"Env": ["PATH=/bin"], "Cmd": ["serve"], "Entrypoint": ["/app"], "User": "git"}}),
    }
}

type Change = fn(&mut Value, &mut Container);

#[test]
fn what_differs_is_named_and_values_are_not_shown() {
    let rows: &[(&str, Change, &[&str])] = &[
        ("nothing", |_, _| {}, &[]),
        (
            "another image",
            |f, _| f["services"]["app"]["image"] = json!("r/a:2"),
            &["image: the files say r/a:2, the container has r/a:1"],
        ),
        (
            "a command",
            |f, _| f["services"]["app"]["command"] = json!(["serve", "--x y"]),
            &["command: the files say serve '--x y', the container has serve"],
        ),
        (
            "a user",
            |f, _| f["services"]["app"]["user"] = json!("root"),
            &["user: the files say root, the container has git"],
        ),
        (
            "a capability",
            |f, _| f["services"]["app"]["cap_add"] = json!(["NET_ADMIN"]),
            &["cap_add: the files say NET_ADMIN, the container has nothing"],
        ),
        (
            "a capability, spelled otherwise",
            |f, c| {
                f["services"]["app"]["cap_add"] = json!(["net_admin"]);
                c.raw["HostConfig"]["CapAdd"] = json!(["CAP_NET_ADMIN"]);
            },
            &[],
        ),
        (
            "a port",
            |f, _| f["services"]["app"]["ports"][0]["published"] = json!("9090"),
            &["ports: the files say 127.0.0.1:9090->80/tcp, the container has 127.0.0.1:8080->80/tcp"],
        ),
        (
            "a port less",
            |f, _| f["services"]["app"]["ports"] = json!([]),
            &["ports: the files say nothing, the container has 127.0.0.1:8080->80/tcp"],
        ),
        (
            "a network",
            |f, _| f["services"]["app"]["networks"] = json!({"other": null}),
            &["networks: the files say other, the container has p_default"],
        ),
        (
            "a mount more",
            |f, _| {
                let new = json!({"type": "bind", "source": "/n", "target": "/new"});
                f["services"]["app"]["volumes"].as_array_mut().unwrap().push(new);
            },
            &["mount /new: in the files, not in the container"],
        ),
        (
            "another source",
            |f, _| f["services"]["app"]["volumes"][1]["source"] = json!("/other"),
            &["mount /conf: the files say /other (read-only), the container has /srv/conf (read-only)"],
        ),
        (
            "writable now",
            |f, _| f["services"]["app"]["volumes"][1]["read_only"] = json!(false),
            &["mount /conf: the files say /srv/conf, the container has /srv/conf (read-only)"],
        ),
        (
            "a mount less",
            |f, _| f["services"]["app"]["volumes"] = json!([{"type": "volume", "source": "data", "target": "/data"}]),
            &["mount /conf: in the container, not in the files"],
        ),
        (
            "a variable more",
            |f, _| f["services"]["app"]["environment"]["NEW"] = json!("v4lue"),
            &["environment NEW: in the files, not in the container"],
        ),
        (
            "a variable that the updater itself has written",
            |f, _| f["services"]["app"]["environment"]["OTHERS_VERSION"] = json!("2"),
            &[],
        ),
        (
            "a variable less",
            |f, _| f["services"]["app"]["environment"] = json!({"DB": "db"}),
            &["environment SECRET: in the container, not in the files"],
        ),
        (
            "another value",
            |f, _| f["services"]["app"]["environment"]["SECRET"] = json!("0ther"),
            &["environment SECRET: has another value in the files than in the container"],
        ),
        (
            "another label",
            |f, _| f["services"]["app"]["labels"]["team"] = json!("y"),
            &["label team: has another value in the files than in the container"],
        ),
        (
            "another restart policy",
            |f, _| f["services"]["app"]["restart"] = json!("on-failure:3"),
            &["restart: the files say on-failure, the container has unless-stopped"],
        ),
        (
            "privileged",
            |f, _| f["services"]["app"]["privileged"] = json!(true),
            &["privileged: the files say true, the container has false"],
        ),
    ];
    for (name, change, expected) in rows {
        let (mut files, mut runs) = (config(), container());
        change(&mut files, &mut runs);
        let files = serde_json::from_value(files).unwrap();
        let found = differences(&files, "app", &runs, &image(), "OTHERS_VERSION");
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found, *expected, "{name}");
        let text = found.join("\n");
        for secret in ["s3cret", "0ther", "v4lue"] {
            assert!(!text.contains(secret), "{name}: {text}");
        }
    }
}
