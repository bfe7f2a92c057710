//! What only the operator's shell has, found out from what is written and what runs.

use serde_json::{Value, json};

use super::beside::deployment;
use crate::engine::compose_config::Written;
use crate::engine::{Container, Mount, MountKind, Project, label};
use crate::update::drift::Difference;
use crate::update::refusal::Refusal;
use crate::update::survey::Deployment;
use crate::update::survey::unset;

fn runs() -> Deployment {
    let mut deployment = deployment(&["app"]);
    deployment.project = Project { working_dir: "/srv/app".into(), env_files: vec![], ..deployment.project };
    let bind = |source: &str, destination: &str| Mount {
        kind: MountKind::Bind,
        name: String::new(),
        source: source.into(),
        destination: destination.into(),
        writable: true,
        subpath: String::new(),
    };
    let container = &mut deployment.container;
    container.image_ref = "r/a:1.0.0".into();
    container.labels.insert(label::WORKING_DIR.into(), "/srv/app".into());
    container.mounts =
        vec![bind("/home/alice/data", "/data"), bind("/mnt/a b", "/big"), bind("/srv/app/it's", "/beside")];
    container.raw = json!({
        "Config": {
            "User": "1000:1001", "Hostname": "web", "Domainname": "lan", "WorkingDir": "/work", "StopSignal": "SIGINT",
            "Entrypoint": ["/app", "fast"], "Cmd": ["serve", "--port", "9"],
            "Env": ["TOKEN=s3cret", "ODD=it's s3cret", "PLAIN=x"],
        },
        "HostConfig": {"Runtime": "runc", "CgroupParent": "apps", "PortBindings": {
            "80/tcp": [{"HostIp": "", "HostPort": "9090"}],
            "81/tcp": [{"HostIp": "127.0.0.1", "HostPort": "9091"}],
        }},
    });
    deployment
}

fn written(app: Value) -> Written {
    let files = json!({"services": {"app": app}, "volumes": {"v": {"name": "${VOL}_v"}}});
    Written { files, assigned: ["KNOWN".to_owned()].into() }
}

fn shown(refusals: &[Refusal]) -> String {
    refusals.iter().map(|refusal| format!("{}: {refusal}", refusal.code)).collect::<Vec<_>>().join("\n")
}

/// What is written, the attribute that differs, and what is said of it; nothing: it has another reason.
#[test]
fn a_difference_is_explained() {
    let take = r#"docker inspect --format '{{range .Config.Env}}{{println .}}{{end}}' app | sed -n "#;
    let take = format!("{take}{}", shell_words::quote(r"s/^TOKEN=\(.*\)$/TOKEN='\1'/p"));
    let append = " >> /srv/app/.env`";
    for (app, attribute, expected) in [
        (
            json!({"user": "${UID}:${GID}"}),
            "user",
            vec![
                "user: the files say ${UID}:${GID} and the container has 1000:1001, but UID and GID are only set in that shell",
                r"Run `printf '%s\n' 'UID=1000' 'GID=1001' >> /srv/app/.env`",
            ],
        ),
        (json!({"user": "${UID:-0}:${GID:-0}"}), "user", vec![r"printf '%s\n' 'UID=1000' 'GID=1001'"]),
        (json!({"user": "${UID:?set UID}:${GID?}"}), "user", vec![r"printf '%s\n' 'UID=1000' 'GID=1001'"]),
        (json!({"user": "$UID:1001"}), "user", vec![r"printf '%s\n' 'UID=1000'"]),
        (json!({"user": "${KNOWN}:${GID}"}), "user", vec![r"printf '%s\n' 'GID=1001'"]),
        // Another reason: all have a value, or stand at their default.
        (json!({"user": "${KNOWN}"}), "user", vec![]),
        (json!({"user": "${X:-1000:1001}"}), "user", vec![]),
        (json!({"user": "root"}), "user", vec![]),
        (json!({"user": "${UID}"}), "working_dir", vec![]),
        (json!({"image": "r/a:${TAG}"}), "image", vec![r"printf '%s\n' 'TAG=1.0.0'"]),
        (json!({"ports": ["${PORT:-8080}:80"]}), "ports", vec![r"printf '%s\n' 'PORT=9090'"]),
        (json!({"ports": ["${IP:-0.0.0.0}:9091:81"]}), "ports", vec![r"printf '%s\n' 'IP=127.0.0.1'"]),
        (json!({"ports": [{"target": 80, "published": "${PORT}", "protocol": "tcp"}]}), "ports", vec!["PORT=9090"]),
        // The line is new.
        (json!({"ports": ["${PORT:-8080}:443"]}), "ports", vec![]),
        (
            json!({"volumes": [{"type": "bind", "source": "${DATA}", "target": "/big"}]}),
            "mount /big",
            vec![
                "service app: mount /big: the files say ${DATA} and the container has /mnt/a b",
                r"printf '%s\n' 'DATA=",
            ],
        ),
        (
            json!({"volumes": [{"type": "bind", "source": "./${NAME:-data}", "target": "/beside/"}]}),
            "mount /beside",
            vec!["NAME=", ">> /srv/app/.env"],
        ),
        (
            json!({"volumes": [{"type": "bind", "source": "~/data", "target": "/data"}]}),
            "mount /data",
            vec![
                "the files say ~/data, which differs from user to user; the container has /home/alice/data",
                "Write /home/alice/data in the place of '~/data' in the Compose file",
            ],
        ),
        (
            json!({"volumes": [{"type": "bind", "source": "${HOME}/data", "target": "/data"}]}),
            "mount /data",
            vec!["Write /home/alice/data in the place of '${HOME}/data'"],
        ),
        (
            json!({"volumes": [{"type": "bind", "source": "$PWD/it's", "target": "/beside"}]}),
            "mount /beside",
            vec!["in the place of"],
        ),
        // Each attribute is found in the container under a name of its own.
        (json!({"container_name": "${N}"}), "container_name", vec!["'N=app'"]),
        (json!({"working_dir": "${N}"}), "working_dir", vec!["'N=/work'"]),
        (json!({"hostname": "${N}"}), "hostname", vec!["'N=web'"]),
        (json!({"domainname": "${N}"}), "domainname", vec!["'N=lan'"]),
        (json!({"stop_signal": "${N}"}), "stop_signal", vec!["'N=SIGINT'"]),
        (json!({"entrypoint": "/app ${N}"}), "entrypoint", vec!["'N=fast'"]),
        (json!({"runtime": "${N}"}), "runtime", vec!["'N=runc'"]),
        (json!({"cgroup_parent": "${N}"}), "cgroup_parent", vec!["'N=apps'"]),
        (json!({"restart": "${N}"}), "restart", vec!["'N=unless-stopped'"]),
        (json!({"network_mode": "${N}"}), "network_mode", vec!["'N=p_default'"]),
        (json!({"labels": {"team": "${N}"}}), "label team", vec!["label team: the files say ${N}"]),
        (json!({"labels": ["team=${N}"]}), "label team", vec!["label team: the files say ${N}"]),
        // Secrets are never shown.
        (json!({"environment": ["TOKEN"]}), "environment TOKEN", vec!["the files say ${TOKEN}, but", &take, append]),
        (json!({"environment": {"TOKEN": "${TOKEN}"}}), "environment TOKEN", vec![&take]),
        (json!({"environment": {"TOKEN": null}}), "environment TOKEN", vec![&take]),
        (
            json!({"environment": {"ODD": "${ODD}"}}),
            "environment ODD",
            vec!["Write ODD=VALUE into /srv/app/.env", "printenv ODD"],
        ),
        (json!({"environment": {"TOKEN": "a${TOKEN}"}}), "environment TOKEN", vec!["Write TOKEN=VALUE into"]),
        (json!({"command": "serve --port ${P}"}), "command", vec![r"printf '%s\n' 'P=9'"]),
        (json!({"command": ["serve", "--port", "${P}"]}), "command", vec!["Write P=VALUE into /srv/app/.env"]),
    ] {
        let deployment = runs();
        let drift = vec![("app".to_owned(), Difference::new(attribute, "differs"))];
        let (found, rest) = unset::drifted(&written(app.clone()), &deployment, drift);
        let text = shown(&found);
        assert_eq!(found.is_empty(), expected.is_empty(), "{app}: {text}");
        assert_eq!(rest.len(), usize::from(expected.is_empty()), "{app}: {text}");
        for part in expected {
            assert!(text.contains(part), "{app}: it does not say {part:?}: {text}");
        }
        assert!(!text.contains("s3cret") && !text.contains("compose up"), "{text}");
    }
}

/// One command for all variables, and a last line that has no end is not continued.
#[test]
fn one_command_for_all() {
    let mut deployment = runs();
    deployment.env = Some(b"A=1".to_vec());
    let drift = ["user", "ports", "image"].map(|name| ("app".to_owned(), Difference::new(name, "differs")));
    let app = json!({"user": "${UID}", "ports": ["${PORT}:80"], "image": "r/a:1.0.0"});
    let (found, rest) = unset::drifted(&written(app), &deployment, drift.into());
    let text = shown(&found);
    assert_eq!((found.len(), rest.len()), (1, 1), "{text}");
    let expected = r"Run `echo >> /srv/app/.env && printf '%s\n' 'UID=1000:1001' 'PORT=9090' >> /srv/app/.env`";
    assert!(text.ends_with(expected), "{text}");

    let of_secret = vec![("app".to_owned(), Difference::new("environment TOKEN", "differs"))];
    let (found, _) = unset::drifted(&written(json!({"environment": ["TOKEN"]})), &deployment, of_secret);
    assert!(shown(&found).contains("Run `echo >> /srv/app/.env && docker inspect "), "{}", shown(&found));
}

/// What is written, and which variables are named; nothing: Compose has another complaint.
#[test]
fn files_that_compose_refuses() {
    for (app, expected) in [
        (
            json!({"user": "${UID:?}", "ports": ["${PORT}:80"]}),
            r"printf '%s\n' 'PORT=9090' 'UID=1000:1001' >> /srv/app/.env",
        ),
        (json!({"ports": ["${PORT}:80"]}), r"printf '%s\n' 'PORT=9090' >> /srv/app/.env"),
        (json!({"mem_limit": "${MEM}"}), "Write MEM=VALUE into /srv/app/.env"),
        (json!({"mem_limit": "${MEM:-1g}", "user": "${KNOWN:?}"}), ""),
    ] {
        let found = unset::unreadable(&written(app.clone()), &runs(), "exit status: 1");
        let text = shown(&found);
        assert_eq!(found.is_empty(), expected.is_empty(), "{app}: {text}");
        assert!(text.contains(expected), "{app}: {text}");
    }
    // Of a sibling, from its own container.
    let sibling = |c: &mut Container| c.raw = json!({"Config": {"User": "33"}});
    let mut deployment = runs();
    deployment.containers.iter_mut().filter(|c| c.name == "p-db-1").for_each(sibling);
    let files = json!({"services": {"db": {"user": "${DB_UID:?}"}}});
    let text = shown(&unset::unreadable(&Written { files, ..Written::default() }, &deployment, "exit status: 1"));
    assert!(text.contains("service db: user") && text.contains("DB_UID=33"), "{text}");
}
