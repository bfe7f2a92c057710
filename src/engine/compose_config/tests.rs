use serde_json::json;

use super::*;

fn read(answer: &str) -> ComposeConfig {
    ComposeConfig::from_compose(answer.as_bytes()).unwrap()
}

/// What Compose 2.40 printed for a project in which every attribute is used.
const EVERYTHING: &str = include_str!("everything.json");

#[test]
fn nothing_that_compose_prints_is_lost() {
    let config = read(EVERYTHING);
    let again: ComposeConfig = serde_json::from_value(serde_json::to_value(&config).unwrap()).unwrap();
    assert_eq!(config, again, "serialised and read back");

    let app = config.service("app").unwrap();
    // Whatever is left is known to decide nothing about how a one-shot container is made.
    let rest: Vec<_> = app.rest.keys().map(String::as_str).collect();
    assert_eq!(rest, ["attach", "logging"]);
    assert_eq!(app.ports.len(), 6);
    assert_eq!(
        (app.mem_limit, app.memswap_limit, app.mem_swappiness),
        (Some(104_857_600), Some(209_715_200), Some(10))
    );
    assert_eq!(app.ulimits["nproc"], service::Ulimit { soft: 65_535, hard: 65_535 });
    assert_eq!(app.ulimits["nofile"], service::Ulimit { soft: 20_000, hard: 40_000 });
    assert_eq!(app.volumes[3].tmpfs.mode, Some(0o1777));
    assert_eq!(app.volumes[4].volume.subpath.as_deref(), Some("a$b"));
    assert_eq!(app.secrets[1].path("/run/secrets"), "/abs/p");
    assert_eq!(app.configs[0].path(""), "/c_content");
    assert_eq!(app.devices[1].target, "/dev/zero");
    assert_eq!(app.deploy.as_ref().unwrap().resources.reservations.devices[0].count, Some(-1));
    assert_eq!(app.networks["back"], ServiceNetwork::default());
    assert_eq!(app.extra_hosts[4], "six:::1");
    assert!(app.environment["NUL"].is_none() && !app.variables().contains_key("NUL"));
    assert_eq!(config.service("other").unwrap().command, None);
    assert_eq!((config.volume_name("data"), config.volume_name("absent")), ("data-1.0.0", "absent"));
    assert_eq!(config.network_name("back"), "h_back");
    assert_eq!(config.secrets["s_env"].environment.as_deref(), Some("SECRET_X"));
}

#[test]
fn dollars_are_as_the_files_mean_them() {
    let config = read(EVERYTHING);
    let app = config.service("app").unwrap();
    assert_eq!(app.environment["PW"].as_deref(), Some("pa$word"));
    assert_eq!(app.command.as_ref().unwrap()[2], "echo $HOME pa$$x");
    assert_eq!(app.labels["x"], "a$b");
    assert_eq!(app.user.as_deref(), Some("u$x"));
    assert_eq!(app.working_dir.as_deref(), Some("/a$b"));
    assert_eq!(app.volumes[5].source.as_deref(), Some("/srv/h/y$z"));
    assert_eq!(config.configs["c_content"].content.as_deref(), Some("a=$b 1.0.0"));

    for (printed, meant) in [
        ("", ""),
        ("$$", "$"),
        ("$$$$", "$$"),
        ("a$$b$$$$c", "a$b$$c"),
        // A version that doubles no dollars.
        ("pa$word", "pa$word"),
        ("a$b$$c", "a$b$$c"),
    ] {
        let answer = json!({"services": {"app": {"environment": {"X": printed}}}}).to_string();
        assert_eq!(read(&answer).services["app"].environment["X"].as_deref(), Some(meant), "{printed}");
    }
    let key = read(r#"{"services": {"app": {"labels": {"a$$b": "1"}}}}"#);
    assert!(key.services["app"].labels.contains_key("a$b"), "keys too");
}

#[test]
fn every_shape_of_one_thing_is_read_alike() {
    let service =
        |printed: serde_json::Value| read(&json!({"services": {"app": printed}}).to_string()).services["app"].clone();
    for (one, other) in [
        (json!({"environment": {"A": "1", "B": null}}), json!({"environment": ["A=1", "B"]})),
        (json!({"environment": {"A": "1", "B": "true"}}), json!({"environment": {"A": 1, "B": true}})),
        (json!({"labels": {"a": "b=c"}}), json!({"labels": ["a=b=c"]})),
        (json!({"command": ["serve"]}), json!({"command": "serve"})),
        (json!({"dns": ["8.8.8.8"]}), json!({"dns": "8.8.8.8"})),
        (json!({"depends_on": {"db": {}}}), json!({"depends_on": ["db"]})),
        (json!({"networks": {"back": null}}), json!({"networks": ["back"]})),
        (json!({"ulimits": {"nproc": 5}}), json!({"ulimits": {"nproc": {"soft": 5, "hard": 5}}})),
        (
            json!({"devices": ["/dev/a:/dev/b"]}),
            json!({"devices": [{"source": "/dev/a", "target": "/dev/b", "permissions": "rwm"}]}),
        ),
        (
            json!({"ports": [{"target": 80, "published": 8080}]}),
            json!({"ports": [{"target": "80", "published": "8080"}]}),
        ),
        (json!({"cpus": 0.5, "shm_size": 64}), json!({"cpus": "0.5", "shm_size": "64"})),
        (json!({"env_file": [{"path": "/a", "required": true}]}), json!({"env_file": ["/a"]})),
        (
            json!({}),
            json!({"environment": null, "labels": null, "ports": null, "volumes": null, "deploy": null, "init": null,
                   "networks": null, "depends_on": null, "user": "", "mem_limit": null, "privileged": null}),
        ),
    ] {
        assert_eq!(service(one.clone()), service(other.clone()), "{one} {other}");
    }
    assert_ne!(service(json!({"entrypoint": []})), service(json!({"entrypoint": null})), "none is not the image's");
    let empty = read(r#"{"name": "p", "services": null, "networks": null, "volumes": {"a": null}}"#);
    assert_eq!(empty.volumes["a"], Volume::default());
}

/// An attribute that nobody knows here is compared all the same.
#[test]
fn what_is_not_known_is_kept() {
    let config = read(r#"{"services": {"app": {"later": {"x": "pa$$t"}}}, "models": {"m": 1}}"#);
    assert_eq!(config.services["app"].rest["later"]["x"], "pa$t");
    assert_eq!(config.rest["models"]["m"], 1);
    assert_ne!(config, read(r#"{"services": {"app": {"later": {"x": "other"}}}, "models": {"m": 1}}"#));
}
