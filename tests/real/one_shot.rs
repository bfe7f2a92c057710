//! A migration's container beside the one that `docker compose run` makes: what one has, the other has.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use lab::engine::must_run;
use lab::eventually;
use lab::publish::ReleaseSpec;
use serde_json::{Value, json};

use crate::case::Leaves::{Restored, Updated};
use crate::case::{Case, Stage, case};
use crate::data::with_data;

/// Where the two may differ, and why.
const MAY_DIFFER: [(&str, &str); 18] = [
    ("/Config/AttachStdin", "nobody answers"),
    ("/Config/AttachStdout", "`run -d` attaches nobody; neither do we"),
    ("/Config/AttachStderr", "`run -d` attaches nobody; neither do we"),
    ("/Config/ExposedPorts", "`expose` is how proxies find containers"),
    ("/Config/Healthcheck", "it is judged by its exit code"),
    ("/Config/Image", "an image id, no tag that may have moved"),
    ("/Config/Labels", "ours; the service's own may route"),
    ("/HostConfig/AutoRemove", "its exit code and last words are read first"),
    ("/HostConfig/Binds", "another call of the engine for the same mounts: see Mounts"),
    ("/HostConfig/Mounts", "another call of the engine for the same mounts: see Mounts"),
    ("/HostConfig/ConsoleSize", "of whoever typed the command"),
    ("/HostConfig/LogConfig", "bounded, and of a kind that can be read"),
    ("/Config/OpenStdin", "nobody answers"),
    ("/Config/StdinOnce", "nobody answers"),
    ("/Config/Tty", "its output is read"),
    ("/HostConfig/PortBindings", "nobody asks it"),
    ("/HostConfig/VolumesFrom", "told as mounts"),
    ("/HostConfig/Links", "always empty in networks of one's own"),
];

/// A service with whatever this machine's engine can give, and that decides how a container is made.
const ATTRIBUTES: &str = r#"
volumes_from: [ "worker:ro" ]
volumes:
  - data:/data
  - { type: volume, source: data, target: /part, volume: { nocopy: true } }
  - { type: bind, source: ./conf, target: /conf, read_only: true, bind: { propagation: rprivate } }
  - ./short:/short
  - { type: tmpfs, target: /t, tmpfs: { size: 1000000, mode: 1023 } }
  - /anonymous
secrets:
  - of_env
  - { source: of_file, target: named }
configs:
  - { source: of_content, target: /etc/app.conf, uid: "103", gid: "104", mode: 0440 }
  - of_env
networks:
  default: { aliases: [www], priority: 10 }
  back: { mac_address: "02:42:ac:11:65:43" }
links: [ "database:base" ]
user: "0:0"
working_dir: /conf
group_add: ["100", "2000"]
hostname: shop
domainname: example.org
dns: [ 8.8.8.8 ]
dns_opt: [ use-vc ]
dns_search: [ a.b ]
extra_hosts: [ "db=10.0.0.1", "six=::1", "host.docker.internal=host-gateway" ]
tmpfs: [ /run, "/tmp:size=1m,mode=1777" ]
devices: [ "/dev/null:/dev/xnull", "/dev/zero:/dev/zero:r" ]
device_cgroup_rules: [ "c 1:3 mr" ]
ulimits: { nofile: { soft: 2000, hard: 4000 }, nproc: 65535 }
shm_size: 32m
sysctls: { net.core.somaxconn: 1024, net.ipv4.ip_forward: 0 }
cap_add: [ NET_ADMIN ]
cap_drop: [ MKNOD ]
security_opt: [ "no-new-privileges:true", "seccomp:unconfined" ]
ipc: shareable
pid: host
userns_mode: host
cgroup: private
runtime: runc
stop_signal: SIGINT
stop_grace_period: 3s
oom_score_adj: 10
cpu_shares: 100
pids_limit: 100
annotations: { a: b }
expose: [ "9000" ]
labels: { traefik.enable: "true" }
healthcheck: { disable: true }
logging: { driver: json-file, options: { max-size: 1m } }
stdin_open: true
"#;

const SHARED: &str = r#"
volumes: { data: {}, lent: {} }
networks: { back: { internal: true } }
secrets:
  of_env: { environment: SECRET }
  of_file: { file: ./secret.txt }
configs:
  of_content: { content: "shop = ${SHOP}, price = 5$$\n" }
  of_env: { environment: SECRET }
"#;

fn with_everything() -> Case {
    case()
        .app(|a| {
            a.image.env.push(("DATA_DIR".into(), "/data".into()));
            a.environment.extend(["PASSWORD: pa$$word".into(), "UNSET:".into()]);
            a.service_lines.extend(ATTRIBUTES.lines().filter(|line| !line.is_empty()).map(str::to_owned));
            a.worker_lines = vec!["volumes: [\"lent:/lent:ro\"]".into()];
            a.file_lines.extend(SHARED.lines().map(str::to_owned));
            a.files.extend([
                ("secret.txt".into(), "of a file".into()),
                ("conf/x".into(), String::new()),
                ("short/x".into(), String::new()),
                (".env".into(), format!("SHOP=demo\nSECRET='top # secret'\nAPP_VERSION={}\n", a.image_tag)),
            ]);
        })
        .setting("SNAPSHOT", "on")
}

fn waits(release: ReleaseSpec) -> ReleaseSpec {
    release.image(|i| i.env.push(("DATA_DIR".into(), "/data".into()))).migration("migrate --hang")
}

#[test]
fn a_migration_has_what_docker_compose_run_would_give_it() {
    with_everything().release(waits).during("migrating", compared).ends(
        "rolled_back",
        &["the migration failed", "exited with code 137"],
        Restored,
    );
}

/// Both run, and are looked at.
fn compared(stage: &Stage) {
    let ours = eventually("the migration", Duration::from_secs(20), || {
        let all = stage.lab.engine.containers("io.processgit.updater.role=migration");
        let inspected = all.iter().filter_map(|c| stage.lab.engine.container(c["Id"].as_str()?));
        inspected.into_iter().find(|c| c["State"]["Running"] == true && is_of(stage, c))
    });
    let name = format!("{}-by-hand", stage.app.project);
    let run = ["run", "-d", "-T", "--no-deps", "--name", &name, "app", "migrate", "--hang"];
    must_run(stage.app.compose_command(&run).env("APP_VERSION", "1.1.0"));
    let theirs = stage.lab.engine.container(&name).expect("a container by hand");

    let differences: Vec<_> = ["Config", "HostConfig", "Args", "Path", "Platform"]
        .iter()
        .flat_map(|part| differences(&format!("/{part}"), &theirs[*part], &ours[*part]))
        .filter(|(path, ..)| !MAY_DIFFER.iter().any(|(may, _)| path.starts_with(may)))
        .collect();
    assert_eq!(differences, [], "by hand, and ours");
    assert_eq!(ours["Image"], theirs["Image"]);
    assert_eq!(mounts(&ours), mounts(&theirs));
    assert_eq!(networks(&ours), networks(&theirs));
    for path in ["/run/secrets/of_env", "/run/secrets/named", "/etc/app.conf", "/of_env"] {
        assert_eq!(inside(&ours, path), inside(&theirs, path), "{path}");
    }
    assert!(inside(&ours, "/run/secrets/of_env").1.contains("top # secret"));
    assert!(inside(&ours, "/etc/app.conf").1.contains("shop = demo, price = 5$"));

    stage.lab.engine.kill(&name);
    stage.lab.engine.remove("containers", &name);
    stage.lab.engine.kill(ours["Id"].as_str().expect("an id"));
}

fn is_of(stage: &Stage, container: &Value) -> bool {
    let mounts = container["Mounts"].to_string();
    mounts.contains(&format!("{}_data", stage.app.project))
}

type Difference = (String, Value, Value);

fn differences(path: &str, theirs: &Value, ours: &Value) -> Vec<Difference> {
    match (theirs, ours) {
        (Value::Object(a), Value::Object(b)) => {
            let keys = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key)));
            keys.flat_map(|key| differences(&format!("{path}/{key}"), &theirs[key], &ours[key])).collect()
        }
        _ if sorted(theirs) == sorted(ours) || (is_nothing(theirs) && is_nothing(ours)) => Vec::new(),
        _ => vec![(path.to_owned(), theirs.clone(), ours.clone())],
    }
}

/// The order of variables and the like means nothing.
fn sorted(value: &Value) -> Value {
    let Value::Array(items) = value else { return value.clone() };
    let mut items = items.clone();
    items.sort_by_key(Value::to_string);
    Value::Array(items)
}

fn is_nothing(value: &Value) -> bool {
    matches!(value, Value::Null | Value::Bool(false)) || *value == json!([]) || *value == json!({}) || *value == ""
}

/// By path in the container; an anonymous volume is the container's own.
fn mounts(container: &Value) -> BTreeMap<String, Value> {
    let of = |mount: &Value| {
        let mut mount = mount.clone();
        let is_anonymous = mount["Name"].as_str().is_some_and(|name| name.len() == 64);
        if is_anonymous {
            (mount["Name"], mount["Source"]) = (json!("anonymous"), json!("anonymous"));
        }
        // `rw`, `z` or nothing: how it was asked for.
        mount["Mode"] = Value::Null;
        (mount["Destination"].as_str().unwrap_or_default().to_owned(), mount)
    };
    container["Mounts"].as_array().into_iter().flatten().map(of).collect()
}

/// What was asked for in each network, without aliases and what the engine has chosen. `run` counts its containers from
/// -1, also in the names of links: `database--1`.
fn networks(container: &Value) -> BTreeMap<String, Value> {
    let asked = |network: &Value| {
        let part = ["DriverOpts", "GwPriority", "Links"].map(|key| (key.to_owned(), sorted(&network[key])));
        let text = Value::Object(part.into_iter().collect()).to_string().replace("--1", "-1");
        serde_json::from_str::<Value>(&text).expect("JSON")
    };
    let networks = container["NetworkSettings"]["Networks"].as_object().into_iter().flatten();
    networks.map(|(name, network)| (name.clone(), asked(network))).collect()
}

/// Mode, owner and size of a file as the container sees it, and what is in it.
fn inside(container: &Value, path: &str) -> (String, String) {
    let from = format!("{}:{path}", container["Id"].as_str().unwrap_or_default());
    let copied = Command::new("docker").args(["cp", "-L", &from, "-"]).output().expect("docker cp");
    assert!(copied.status.success(), "{path}: {}", String::from_utf8_lossy(&copied.stderr));
    let tar = String::from_utf8_lossy(&copied.stdout).into_owned();
    // A tar header: mode, owner, group and size stand from byte 100 to 136.
    (tar[100..136].to_owned(), tar[512..].trim_end_matches('\0').to_owned())
}

/// It could not succeed without the socket, which it is not given: nobody can tell whether the version is bad.
#[test]
fn a_migration_that_lacks_something_does_not_make_the_release_bad() {
    let lacking = || {
        with_data("good").app(|a| {
            a.service_lines.retain(|line| !line.starts_with("volumes:"));
            a.service_lines.push("volumes: [\"data:/data\", \"/var/run/docker.sock:/var/run/docker.sock\"]".into());
        })
    };
    let (stage, job) = lacking()
        .release(|r| r.image(|i| i.env.push(("DATA_DIR".into(), "/data".into()))).migration("migrate --fail"))
        .ends("rolled_back", &["it ran without /var/run/docker.sock"], Restored);
    let warnings = job.0["warnings"].to_string();
    assert!(warnings.contains("migrate --fail runs without /var/run/docker.sock"), "{warnings}");
    let job = stage.updater.update(&stage.release.tag);
    job.assert_end("rolled_back", &["the migration failed"]);
}

/// Commands that Compose runs in the container. Each leaves a file of a mebibyte there.
fn with_commands(behaviour: &'static str) -> Case {
    let fill = |at: &str| format!("[ {{ command: [/demo-app, fill, \"1\"], environment: [\"DATA_DIR={at}\"] }} ]");
    with_data(behaviour).app(|a| {
        a.service_lines.extend([format!("post_start: {}", fill("/")), format!("pre_stop: {}", fill("/etc"))]);
    })
}

const STARTED: &str = "/fill";
const STOPPING: &str = "/etc/fill";

/// It has run in this container, since [`forget`] if that was called.
fn has_run(stage: &Stage, file: &str) -> bool {
    let from = format!("{}:{file}", stage.app.container);
    let copied = Command::new("docker").args(["cp", &from, "-"]).output().expect("docker cp");
    copied.stdout.len() > 1 << 20
}

/// As if it had not run.
fn forget(stage: &Stage) {
    assert!(has_run(stage, STARTED) && !has_run(stage, STOPPING), "so Compose has started it");
    let empty = tempfile::NamedTempFile::new().expect("a file");
    let to = format!("{}:{STARTED}", stage.app.container);
    must_run(Command::new("docker").arg("cp").arg(empty.path()).arg(&to));
    assert!(!has_run(stage, STARTED));
}

#[test]
fn composes_own_commands_run_when_a_snapshot_stops_and_starts() {
    let stage = with_commands("good").before(forget).stage();
    let before = stage.app.app().expect("the application");
    let accepted = stage.updater.post("/snapshots", &json!({})).expect_status(&[202], "POST /snapshots").json();
    let job = stage.updater.wait_for_end(accepted["job_id"].as_str().expect("an id"));
    job.assert_end("committed", &[]);
    assert_eq!(stage.app.app().expect("the application")["Id"], before["Id"], "the very container");
    assert!(has_run(&stage, STOPPING) && has_run(&stage, STARTED));
}

#[test]
fn composes_own_commands_run_when_the_old_version_is_started_again() {
    let fails =
        |r: ReleaseSpec| r.image(|i| i.env.push(("DATA_DIR".into(), "/data".into()))).migration("migrate --fail");
    let (stage, _) =
        with_commands("good").before(forget).release(fails).ends("rolled_back", &["the migration failed"], Restored);
    assert!(has_run(&stage, STOPPING) && has_run(&stage, STARTED));
}

#[test]
fn composes_own_commands_run_in_what_is_made_anew() {
    let (stage, _) = with_commands("good").ends("committed", &[], Updated);
    assert!(has_run(&stage, STARTED));
    let (stage, _) = with_commands("crash-late:0.2").ends("rolled_back", &["crashes again and again"], Restored);
    assert!(has_run(&stage, STARTED));
}

/// Somebody has written a command that fails: by hand, too, the service could not be stopped.
#[test]
fn a_command_before_the_stop_that_fails_leaves_everything_running() {
    with_data("good")
        .app(|a| a.service_lines.push("pre_stop: [ { command: [/demo-app, check, --fail] } ]".into()))
        .ends("rolled_back", &["stopping service app with its pre_stop commands"], Restored);
}
