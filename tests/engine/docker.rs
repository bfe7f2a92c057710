//! The real engine behind the trait.

use std::time::Duration;

use processgit_updater::engine::docker::DockerEngine;
use processgit_updater::engine::{
    ContainerSpec, Engine, EngineError, Event, Healthcheck, MountKind, RestartPolicy, RunState,
};
use processgit_updater::update::job::Layer;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::lab::{HELPER, Lab, PATIENCE, Registry, again, bind, docker, run, until, volume, write};

/// Pulls and gives back every report of the layers.
async fn pull(engine: &DockerEngine, reference: &str) -> Result<Vec<Vec<Layer>>, EngineError> {
    let (sender, mut receiver) = mpsc::channel(1000);
    engine.pull(reference, sender).await?;
    let mut reports = Vec::new();
    while let Some(report) = receiver.recv().await {
        reports.push(report);
    }
    Ok(reports)
}

/// Creates, starts, waits: the exit code and everything printed.
async fn run_once(engine: &DockerEngine, spec: &ContainerSpec) -> (i64, Vec<String>) {
    let id = engine.create(spec).await.unwrap();
    engine.start(&id).await.unwrap();
    let (sender, mut receiver) = mpsc::channel(1000);
    let (code, logs) = tokio::join!(engine.wait(&id), engine.logs(&id, sender));
    logs.unwrap();
    let mut lines = Vec::new();
    while let Some(line) = receiver.recv().await {
        lines.push(line);
    }
    (code.unwrap(), lines)
}

#[tokio::test]
async fn the_engine_tells_what_an_update_needs_to_know() {
    let info = Lab::new().engine.info().await.unwrap();
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    assert_eq!(info.platform, format!("linux/{arch}"));
    assert_eq!(info.version, docker(&["version", "--format", "{{.Server.Version}}"]));
    let minor: usize = info.api_version.strip_prefix("1.").unwrap().parse().unwrap();
    assert!((41..=53).contains(&minor), "{}", info.api_version);
    let status = docker(&["info", "--format", "{{.DriverStatus}}"]);
    assert_eq!(info.containerd_store, status.contains("io.containerd.snapshotter"));
}

#[tokio::test]
async fn an_image_is_pulled_by_digest_with_its_progress() {
    let lab = Lab::new();
    let registry = Registry::start(lab.folder.path(), None);
    let reference = registry.take(&lab.image("1.0", 30_000_000), None);
    assert_eq!(lab.engine.image(&reference).await.unwrap(), None);

    let reports = pull(&lab.engine, &reference).await.unwrap();
    let last = reports.last().unwrap();
    assert!(last.iter().all(|layer| layer.status == "Pull complete" && layer.id.len() == 12), "{last:?}");
    assert!(last[0].total > 25_000_000 && last[0].current == last[0].total, "{last:?}");

    let image = lab.engine.image(&reference).await.unwrap().unwrap();
    assert!(image.id.starts_with("sha256:"), "{image:?}");
    assert_eq!(image.repo_digests, [reference.as_str()]);
    assert_eq!(image.labels["test.tag"], "1.0");
    assert_eq!(image.platform, lab.engine.info().await.unwrap().platform);

    // Again, with nobody listening: nothing to do, and nothing to wait for.
    let (sender, receiver) = mpsc::channel(1);
    drop(receiver);
    lab.engine.pull(&reference, sender).await.unwrap();
}

#[tokio::test]
async fn a_pull_that_fails_says_why() {
    let lab = Lab::new();
    let registry = Registry::start(lab.folder.path(), None);
    let absent = format!("{}/{}@sha256:{}", registry.address, lab.name, "0".repeat(64));
    let error = pull(&lab.engine, &absent).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("pulling image {absent}: ")) && error.contains("not found"), "{error}");

    let nobody = absent.replace(&registry.address, "127.0.0.1:1");
    let error = pull(&lab.engine, &nobody).await.unwrap_err();
    assert!(!error.is_unreachable() && error.to_string().contains("connection refused"), "{error}");

    let by_tag = pull(&lab.engine, "busybox:latest").await.unwrap_err().to_string();
    assert!(by_tag.contains("expected repository@sha256:"), "{by_tag}");
}

#[tokio::test]
#[ignore = "run by the test below, with a Docker configuration of its own"]
async fn pull_with_login() {
    let Some(reference) = std::env::var_os(HELPER).and_then(|_| std::env::var("REFERENCE").ok()) else { return };
    pull(&DockerEngine::from_environment().unwrap(), &reference).await.unwrap();
}

#[tokio::test]
async fn a_private_registry_gets_the_login_of_dockers_configuration() {
    let lab = Lab::new();
    // The password `p?>~~secret` makes base64 with the two characters in which the alphabets differ.
    let hash = "lab:$2b$04$9In7ZrLJjmWCn.AeaMkhh.1CBZte9XJhzgGvYL/aZ4./ReWDD3Tqu\n";
    let accounts = write(lab.folder.path().join("htpasswd"), hash);
    let registry = Registry::start(lab.folder.path(), Some(&accounts));
    let login = "bGFiOnA/Pn5+c2VjcmV0";
    let config = format!(r#"{{"auths":{{"{}":{{"auth":"{login}"}}}}}}"#, registry.address);
    write(lab.folder.path().join("config.json"), &config);
    let reference = registry.take(&lab.image("1.0", 0), Some(lab.folder.path()));

    let anonymous = pull(&lab.engine, &reference).await.unwrap_err().to_string();
    assert!(anonymous.contains("no basic auth credentials"), "{anonymous}");

    let folder = lab.folder.path().to_str().unwrap();
    let mut with_login = again("docker::pull_with_login", &[("DOCKER_CONFIG", folder), ("REFERENCE", &reference)]);
    let output = with_login.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(lab.engine.image(&reference).await.unwrap().is_some());
}

#[tokio::test]
async fn tags_are_moved_and_taken_away() {
    let lab = Lab::new();
    let (one, two) = (lab.image("1", 0), lab.image("2", 1));
    let latest = format!("{}:latest", lab.name);
    let id = async |reference: &str| lab.engine.image(reference).await.unwrap().map(|image| image.id);
    let (id_one, id_two) = (id(&one).await.unwrap(), id(&two).await.unwrap());

    lab.engine.tag(&id_one, &latest).await.unwrap();
    assert_eq!(id(&latest).await, Some(id_one.clone()));
    lab.engine.tag(&two, &latest).await.unwrap();
    assert_eq!(id(&latest).await, Some(id_two.clone()));

    lab.engine.untag(&latest).await.unwrap();
    lab.engine.untag(&latest).await.unwrap();
    assert_eq!(id(&latest).await, None);
    assert_eq!(id(&two).await, Some(id_two), "only the tag went");

    // A guard, though never started, keeps the image and its last tag.
    let guard = lab.engine.create(&lab.spec("guard", &id_one, "")).await.unwrap();
    let used = lab.engine.untag(&one).await.unwrap_err();
    assert!(matches!(used, EngineError::Conflict(_)), "{used}");
    lab.engine.remove(&guard).await.unwrap();
    lab.engine.untag(&one).await.unwrap();
    assert_eq!(id(&id_one).await, None);

    let gone = lab.engine.tag(&id_one, &latest).await.unwrap_err();
    assert!(gone.is_not_found() && gone.to_string().contains(&id_one), "{gone}");
}

#[tokio::test]
async fn a_missing_source_is_refused_and_not_made() {
    let lab = Lab::new();
    let image = lab.image("1", 0);
    let (missing, no_volume) = (lab.folder.path().join("missing"), lab.named("no-volume"));
    let spec = ContainerSpec { mounts: vec![bind(&missing, "/data")], ..lab.spec("bind", &image, "") };
    let error = lab.engine.create(&spec).await.unwrap_err().to_string();
    assert!(error.contains(missing.to_str().unwrap()) && error.contains("does not exist"), "{error}");
    assert!(!missing.exists());

    let spec = ContainerSpec { mounts: vec![volume(&no_volume, "/data", "", true)], ..lab.spec("volume", &image, "") };
    let error = lab.engine.create(&spec).await.unwrap_err();
    assert!(error.is_not_found() && error.to_string().contains(&no_volume), "{error}");
    assert!(!docker(&["volume", "ls", "-q"]).contains(&no_volume));

    let spec = ContainerSpec { image: format!("{}:none", lab.name), ..lab.spec("image", "", "") };
    let error = lab.engine.create(&spec).await.unwrap_err();
    assert!(error.is_not_found() && error.to_string().contains(&spec.image), "{error}");

    lab.engine.create(&lab.spec("twice", &image, "")).await.unwrap();
    let error = lab.engine.create(&lab.spec("twice", &image, "")).await.unwrap_err();
    assert!(matches!(&error, EngineError::Conflict(text) if text.contains("already in use")), "{error}");
}

#[tokio::test]
async fn mounts_are_made_and_recorded_as_asked() {
    let lab = Lab::new();
    let (image, data) = (lab.image("1", 0), lab.named("data"));
    docker(&["volume", "create", &data]);
    let folder = lab.folder.path().join("host");
    std::fs::create_dir(&folder).unwrap();
    write(folder.join("file"), "from the host");

    let whole = ContainerSpec {
        mounts: vec![volume(&data, "/all", "", true), bind(&folder, "/host")],
        tmpfs: [("/scratch".to_owned(), "size=1m".to_owned())].into(),
        ..lab.spec(
            "whole",
            &image,
            "cat /host/file; echo; mkdir -p /all/sub/dir && echo deep > /all/sub/dir/file; echo x > /scratch/x",
        )
    };
    let (code, lines) =
        run_once(&lab.engine, &ContainerSpec { command: whole.command.clone().map(with_busybox), ..whole }).await;
    assert_eq!((code, lines), (0, vec!["from the host".to_owned()]));

    let part = ContainerSpec {
        mounts: vec![volume(&data, "/part", "sub/dir", false)],
        ..lab.spec("part", &image, "cat /part/file; echo no > /part/new")
    };
    let (code, lines) = run_once(&lab.engine, &part).await;
    assert_eq!((code, lines.contains(&"deep".to_owned())), (1, true), "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("Read-only file system")), "{lines:?}");
    let container = lab.engine.container(&part.name).await.unwrap().unwrap();
    let mount = &container.mounts[0];
    let told =
        (mount.kind.clone(), mount.name.as_str(), mount.destination.as_str(), mount.subpath.as_str(), mount.writable);
    assert_eq!(told, (MountKind::Volume, data.as_str(), "/part", "sub/dir", false));
    assert_eq!(container.raw["HostConfig"]["Binds"], serde_json::Value::Null);

    let astray =
        ContainerSpec { mounts: vec![volume(&data, "/part", "not/there", true)], ..lab.spec("astray", &image, "") };
    let id = lab.engine.create(&astray).await.unwrap();
    let error = lab.engine.start(&id).await.unwrap_err().to_string();
    assert!(error.contains("no such file or directory"), "{error}");
}

/// The image has no `mkdir` of its own.
fn with_busybox(command: Vec<String>) -> Vec<String> {
    command.into_iter().map(|part| part.replace("mkdir", "busybox mkdir")).collect()
}

#[tokio::test]
async fn a_one_shot_tells_its_lines_and_its_code() {
    let lab = Lab::new();
    let image = lab.image("1", 0);
    let script = "echo out; echo err >&2; busybox printf '%020000d\\n' 0; echo $KEY $(id -u) $(busybox pwd); exit 7";
    let spec = ContainerSpec {
        env: vec!["KEY=value".into()],
        user: Some("1234".into()),
        working_dir: Some("/tmp".into()),
        cap_drop: vec!["ALL".into()],
        security_opt: vec!["no-new-privileges".into()],
        read_only: true,
        ..lab.spec("once", &image, script)
    };
    let (code, lines) = run_once(&lab.engine, &spec).await;
    assert_eq!(code, 7);
    assert!(lines.contains(&"out".to_owned()) && lines.contains(&"err".to_owned()), "{lines:?}");
    let zeros: Vec<usize> = lines.iter().filter(|line| line.starts_with('0')).map(String::len).collect();
    assert_eq!(zeros, [8192, 8192, 20_000 - 2 * 8192]);
    assert_eq!(lines.last().unwrap(), "value 1234 /tmp");

    let container = lab.engine.container(&spec.name).await.unwrap().unwrap();
    assert_eq!((container.state, container.exit_code), (RunState::Exited, 7));
    assert_eq!(lab.engine.wait(&container.id).await.unwrap(), 7, "waiting again is harmless");
    assert_eq!(lab.engine.log_tail(&container.id, 1).await.unwrap(), ["value 1234 /tmp"]);

    // A terminal mixes both streams and ends its lines otherwise.
    let name = lab.named("terminal");
    docker(&[
        "run",
        "-d",
        "-t",
        "--name",
        &name,
        "--network",
        "none",
        &image,
        "/bin/sh",
        "-c",
        "echo a; echo b >&2; echo c",
    ]);
    assert_eq!(lab.engine.wait(&name).await.unwrap(), 0);
    assert_eq!(lab.engine.log_tail(&name, 2).await.unwrap(), ["b", "c"]);
}

#[tokio::test]
async fn logs_come_while_the_container_runs() {
    let lab = Lab::new();
    let image = lab.image("1", 0);
    let id = lab.engine.create(&lab.spec("talks", &image, "echo now; sleep 1000")).await.unwrap();
    lab.engine.start(&id).await.unwrap();
    let (sender, mut receiver) = mpsc::channel(1);
    let following = lab.engine.logs(&id, sender);
    let first = async {
        let first = timeout(PATIENCE, receiver.recv()).await.unwrap();
        lab.engine.stop(&id, Some(0)).await.unwrap();
        first
    };
    let (ended, first) = tokio::join!(following, first);
    ended.unwrap();
    assert_eq!(first.as_deref(), Some("now"));
}

#[tokio::test]
async fn a_container_is_started_stopped_renamed_and_removed_twice() {
    let lab = Lab::new();
    let (engine, image) = (&lab.engine, lab.image("1", 0));
    let name = lab.named("app");
    docker(&["create", "--name", &name, "--restart", "on-failure:3", "--stop-timeout", "1", &image]);
    let look = async || engine.container(&name).await.unwrap().unwrap();

    let created = look().await;
    assert_eq!((created.state, created.started_at, created.name.as_str()), (RunState::Created, None, name.as_str()));
    assert_eq!(created.image_ref, image);
    assert_eq!(created.image_id, engine.image(&image).await.unwrap().unwrap().id);
    assert_eq!((created.network_mode.as_str(), created.healthcheck), ("bridge", Healthcheck::None));
    assert_eq!(created.restart_policy, RestartPolicy { name: "on-failure".into(), maximum_retry_count: 3 });
    assert_eq!(created.raw["Config"]["Cmd"][0], "/bin/sleep");

    for _ in 0..2 {
        engine.start(&created.id).await.unwrap();
    }
    let running = look().await;
    assert!(running.is_running() && running.started_at > running.created_at, "{:?}", running.started_at);
    assert!(running.networks["bridge"].contains('.'), "{:?}", running.networks);

    engine.set_restart_policy(&created.id, &RestartPolicy::never()).await.unwrap();
    assert_eq!(look().await.restart_policy, RestartPolicy::never());
    engine.set_restart_policy(&created.id, &created.restart_policy).await.unwrap();
    assert_eq!(look().await.restart_policy, created.restart_policy);
    let bad = RestartPolicy { name: "sometimes".into(), maximum_retry_count: 0 };
    assert!(engine.set_restart_policy(&created.id, &bad).await.unwrap_err().to_string().contains("\"sometimes\""));

    for grace in [None, Some(0)] {
        engine.stop(&created.id, grace).await.unwrap();
    }
    assert_eq!((look().await.state, look().await.exit_code), (RunState::Exited, 137));

    let other = lab.named("other");
    engine.rename(&created.id, &other).await.unwrap();
    assert_eq!(engine.container(&name).await.unwrap(), None);
    assert_eq!(engine.container(&other).await.unwrap().unwrap().id, created.id);

    for _ in 0..2 {
        engine.remove(&created.id).await.unwrap();
    }
    let gone = engine.start(&created.id).await.unwrap_err();
    assert_eq!(gone.to_string(), format!("container {} does not exist", &created.id[..12]));
    assert!(engine.stop(&created.id, None).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn containers_are_listed_by_label_and_networks_joined() {
    let lab = Lab::new();
    let image = lab.image("1", 0);
    let (first, second) = (lab.named("net1"), lab.named("net2"));
    for network in [&first, &second] {
        docker(&["network", "create", network]);
    }
    let joined =
        ContainerSpec { networks: vec![first.clone(), second.clone()], ..lab.spec("joined", &image, "sleep 1000") };
    let joined_id = lab.engine.create(&joined).await.unwrap();
    let container = lab.engine.container(&joined_id).await.unwrap().unwrap();
    assert_eq!(container.state, RunState::Created, "joined before the start");
    lab.engine.start(&joined_id).await.unwrap();
    let container = lab.engine.container(&joined_id).await.unwrap().unwrap();
    assert_eq!(container.network_mode, first);
    assert_eq!(container.networks.keys().collect::<Vec<_>>(), [&first, &second]);
    assert!(container.networks.values().all(|address| !address.is_empty()), "{:?}", container.networks);

    let guest = ContainerSpec { networks: vec![format!("container:{joined_id}")], ..lab.spec("guest", &image, "") };
    lab.engine.create(&guest).await.unwrap();
    let guest = lab.engine.container(&guest.name).await.unwrap().unwrap();
    assert_eq!(guest.network_mode, format!("container:{joined_id}"));
    lab.engine.create(&lab.spec("alone", &image, "")).await.unwrap();

    let missing = lab.named("no-net");
    for networks in [vec![missing.clone()], vec![first, missing.clone()]] {
        let nowhere = ContainerSpec { networks, ..lab.spec("nowhere", &image, "") };
        let error = lab.engine.create(&nowhere).await.unwrap_err();
        assert_eq!(error.to_string(), format!("network {missing} does not exist"));
    }

    let mut names: Vec<String> =
        lab.engine.containers(&[("test.run", &lab.name)]).await.unwrap().into_iter().map(|c| c.name).collect();
    names.sort();
    assert_eq!(names, ["alone", "guest", "joined"].map(|name| lab.named(name)));
    let both = lab.engine.containers(&[("test.run", &lab.name), ("absent", "x")]).await.unwrap();
    assert!(both.is_empty());
}

#[tokio::test]
async fn events_of_one_container_are_told_until_nobody_listens() {
    let lab = Lab::new();
    let image = lab.image("1", 0);
    let id = lab.engine.create(&lab.spec("watched", &image, "exit 3")).await.unwrap();
    let other = lab.engine.create(&lab.spec("other", &image, "")).await.unwrap();
    let (sender, mut receiver) = mpsc::channel(100);
    let listening = lab.engine.events(&id, sender);
    let acting = async {
        // Nothing tells when the subscription has begun: act until it is noticed.
        let mut seen: Vec<Event> = Vec::new();
        until("a die event", async || {
            lab.engine.start(&other).await.unwrap();
            lab.engine.start(&id).await.unwrap();
            lab.engine.wait(&id).await.unwrap();
            while let Ok(Some(event)) = timeout(Duration::from_millis(50), receiver.recv()).await {
                seen.push(event);
            }
            seen.iter().any(|event| event.action == "die")
        })
        .await;
        drop(receiver);
        seen
    };
    let (ended, seen) = timeout(PATIENCE, async { tokio::join!(listening, acting) }).await.unwrap();
    ended.unwrap();
    assert!(seen.iter().all(|event| event.container_id == id), "{seen:?}");
    assert!(seen.iter().any(|event| event.action == "start"), "{seen:?}");
}

#[tokio::test]
async fn anonymous_volumes_go_with_their_container() {
    let lab = Lab::new();
    let (image, name) = (lab.image("1", 0), lab.named("app"));
    docker(&["create", "--name", &name, "-v", "/data", &image]);
    let container = lab.engine.container(&name).await.unwrap().unwrap();
    let volume = container.mounts[0].name.clone();
    lab.engine.start(&container.id).await.unwrap();
    lab.engine.remove(&container.id).await.unwrap();
    assert!(!run("docker", &["volume", "ls", "-q"]).contains(&volume));
}
