//! What `deploy/` offers to be copied: Compose understands it, it is as careful as the documentation says, and
//! the release workflow writes what the updater reads.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lab::engine::must_run;
use processgit_updater::release::manifest::Manifest;
use serde_json::{Value, json};

pub fn example(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(file)
}

/// A deployment as its operator has it: `.env.example` and what stands in `env`, resolved by Compose.
fn resolved(folder: &str, files: &[&str], env: &[(&str, &str)]) -> Value {
    let mut command = Command::new("docker");
    command.current_dir(example(folder)).args(["compose", "--env-file", ".env.example"]);
    command.args(files.iter().flat_map(|file| ["-f", file])).args(["config", "--format", "json"]);
    command.envs(env.iter().copied());
    serde_json::from_str(&must_run(&mut command)).expect("a resolved configuration")
}

/// It has no more rights than it needs, no port, and its state outlives `docker compose down -v`.
fn assert_careful(updater: &Value) {
    assert_eq!(updater["read_only"], true);
    assert_eq!(updater["cap_drop"], json!(["ALL"]));
    assert_eq!(updater["security_opt"], json!(["no-new-privileges:true"]));
    assert_eq!(updater["restart"], "unless-stopped");
    assert_eq!(updater["ports"], Value::Null);
    assert_eq!(mount(updater, "/var/lib/processgit-updater")["type"], "bind");
    assert_eq!(mount(updater, "/deploy")["type"], "bind");
    let help = Command::new(env!("CARGO_BIN_EXE_processgit-updater")).args(["serve", "--help"]).output().expect("help");
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    let names = updater["environment"].as_object().expect("settings").keys();
    for name in names.filter(|name| *name != "DOCKER_HOST") {
        let known = ["=", "]"].map(|end| format!(" {}{end}", name.trim_end_matches("_FILE")));
        assert!(known.iter().any(|known| help.contains(known)), "{name} is no setting");
    }
}

fn mount<'a>(service: &'a Value, target: &str) -> &'a Value {
    let mounts = service["volumes"].as_array().expect("mounts");
    mounts.iter().find(|mount| mount["target"] == target).unwrap_or(&Value::Null)
}

/// What an operator of ProcessGit writes into `.env`.
const OPERATORS: [(&str, &str); 4] = [
    ("PROCESSGIT_UPDATER_TOKEN", "secret"),
    ("PROCESSGIT_VERSION", "1.2.3"),
    ("PROCESSGIT_UPDATER_VERSION", "4.5.6"),
    ("PROCESSGIT_UPDATER_STUB", "false"),
];

#[test]
fn processgit() {
    let services = &resolved(".", &["docker-compose.yml"], &OPERATORS)["services"];
    for service in ["processgit", "processgit-init-perms"] {
        assert_eq!(services[service]["image"], "ghcr.io/algomation-ai/processgit:1.2.3", "{service}");
    }
    let (application, updater) = (&services["processgit"], &services["processgit-updater"]);
    assert_careful(updater);
    assert_eq!(updater["image"], "ghcr.io/algomation-ai/processgit-updater:4.5.6");
    assert_eq!(updater["environment"]["PROCESSGIT_UPDATER_STUB"], "false");
    for service in [application, updater] {
        assert_eq!(service["environment"]["PROCESSGIT_UPDATER_TOKEN"], "secret");
    }
    assert_eq!(application["environment"]["PROCESSGIT_UPDATER_URL"], "http://processgit-updater:9000");
    assert_eq!(application["container_name"], "processgit", "the updater's default");
    let of_the_updater = application["environment"].to_string().contains("4.5.6");
    assert!(!of_the_updater, "an update of the updater would change the application");
}

/// What ProcessGit's own `deploy/docker-compose.yml` says of its two services, as of its commit 73ed69a. A path that
/// differs here on purpose has its reason beside it in our file.
const PROCESSGITS_OWN: &[(&str, &str, &str)] = &[
    ("processgit", "/container_name", r#""processgit""#),
    ("processgit", "/restart", r#""unless-stopped""#),
    ("processgit", "/environment/USER_UID", r#""1000""#),
    ("processgit", "/environment/USER_GID", r#""1000""#),
    ("processgit", "/environment/APP_NAME", r#""ProcessGit: Git for Processes""#),
    ("processgit", "/environment/PROCESSGIT_SEED_STRICT", r#""false""#),
    ("processgit", "/ports/0/published", r#""18080""#),
    ("processgit", "/ports/0/target", "3000"),
    ("processgit", "/ports/1/published", r#""12222""#),
    ("processgit", "/ports/1/target", "22"),
    ("processgit", "/volumes/0/source", r#""processgit-data""#),
    ("processgit", "/volumes/0/target", r#""/data""#),
    (
        "processgit",
        "/healthcheck/test",
        r#"["CMD-SHELL","wget -qO- http://localhost:3000/api/v1/version >/dev/null 2>&1 || exit 1"]"#,
    ),
    ("processgit", "/healthcheck/interval", r#""5s""#),
    ("processgit", "/healthcheck/timeout", r#""3s""#),
    ("processgit", "/healthcheck/retries", "30"),
    ("processgit-init-perms", "/user", r#""0:0""#),
    ("processgit-init-perms", "/entrypoint", r#"["/bin/sh","-lc"]"#),
    (
        "processgit-init-perms",
        "/command",
        r#"["mkdir -p /data /data/.processgit /data/gitea && chown -R 1000:1000 /data"]"#,
    ),
    ("processgit-init-perms", "/restart", r#""no""#),
    ("processgit-init-perms", "/volumes/0/source", r#""processgit-data""#),
];

#[test]
fn processgit_runs_as_its_own_file_says() {
    let services = &resolved(".", &["docker-compose.yml"], &OPERATORS)["services"];
    for (service, path, own) in PROCESSGITS_OWN {
        let own: Value = serde_json::from_str(own).expect("JSON");
        assert_eq!(services[service].pointer(path), Some(&own), "{service}{path}");
    }
    let names: Vec<_> = services.as_object().expect("services").keys().collect();
    assert_eq!(names, ["processgit", "processgit-init-perms", "processgit-updater"]);
}

#[test]
fn an_existing_installation_keeps_its_data_in_any_folder() {
    let volume = |env: &[(&str, &str)]| {
        let resolved = resolved(".", &["docker-compose.yml"], &[&OPERATORS[..], env].concat());
        resolved["volumes"]["processgit-data"]["name"].as_str().expect("a name").to_owned()
    };
    // ProcessGit's own file stands in a folder `deploy`; ours is copied to /srv/processgit, say.
    assert_eq!(volume(&[("COMPOSE_PROJECT_NAME", "deploy")]), "deploy_processgit-data");
    assert_eq!(volume(&[("COMPOSE_PROJECT_NAME", "processgit")]), "processgit_processgit-data");
    let example = fs::read_to_string(example(".env.example")).expect(".env.example");
    assert!(example.lines().any(|line| line == "# COMPOSE_PROJECT_NAME=deploy"), "it is not told how");
}

#[test]
fn processgit_behind_a_socket_proxy() {
    let env = [&OPERATORS[..], &[("DOCKER_GROUP", "999")]].concat();
    let services = &resolved(".", &["docker-compose.yml", "socket-proxy.yml"], &env)["services"];
    let updater = &services["processgit-updater"];
    assert_careful(updater);
    assert_eq!(mount(updater, "/var/run/docker.sock"), &Value::Null);
    assert_eq!(updater["environment"]["DOCKER_HOST"], "tcp://socket-proxy:2375");
    assert_eq!(services["socket-proxy"]["networks"], json!({ "engine": null }));
}

#[test]
fn any_application() {
    let env = [("APP_VERSION", "1.2.3"), ("UPDATER_VERSION", "4.5.6")];
    let services = &resolved("generic", &["docker-compose.yml"], &env)["services"];
    assert_eq!(services["my-app"]["image"], "registry.example.com/my-team/my-app:1.2.3");
    let updater = &services["updater"];
    assert_careful(updater);
    let settings = &updater["environment"];
    assert_eq!(settings["PROCESSGIT_UPDATER_APP_CONTAINER"], services["my-app"]["container_name"]);
    assert_eq!(settings["PROCESSGIT_UPDATER_VERSION_KEY"], "APP_VERSION");
    assert_eq!(settings["PROCESSGIT_UPDATER_SELF_VERSION_KEY"], "UPDATER_VERSION");
    assert!(updater["image"].as_str().is_some_and(|image| image.ends_with(":4.5.6")), "{}", updater["image"]);
    assert_eq!(updater["secrets"][0]["source"], "updater-token");
}

/// The workflow. Compose has a reader of YAML, and lets extensions be what they like.
fn workflow() -> Value {
    let text = fs::read_to_string(example("release-workflow.yml")).expect("the workflow");
    let indented: String = text.lines().map(|line| format!("  {line}\n")).collect();
    let mut compose = Command::new("docker")
        .args(["compose", "-f", "-", "config", "--no-interpolate", "--format", "json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("docker compose");
    let wrapped = format!("name: x\nservices: {{x: {{image: x}}}}\nx-workflow:\n{indented}");
    compose.stdin.take().expect("its input").write_all(wrapped.as_bytes()).expect("writing");
    let output = compose.wait_with_output().expect("docker compose");
    let parsed: Value = serde_json::from_slice(&output.stdout).expect("YAML");
    parsed["x-workflow"].clone()
}

fn steps(workflow: &Value) -> Vec<Value> {
    workflow["jobs"]["release"]["steps"].as_array().expect("steps").clone()
}

fn script<'a>(steps: &'a [Value], name: &str) -> &'a str {
    let step = steps.iter().find(|step| step["name"] == name).unwrap_or_else(|| panic!("no step {name:?}"));
    step["run"].as_str().expect("a script")
}

#[test]
fn the_release_workflow_writes_a_manifest_that_is_understood() {
    let steps = steps(&workflow());
    let folder = tempfile::tempdir().expect("a folder");
    let digest = format!("sha256:{}", "a".repeat(64));
    let names = folder.path().join("names");
    let mut bash = Command::new("bash");
    // As GitHub runs them: what a step writes into GITHUB_ENV is in the environment of the next.
    bash.args(["-euo", "pipefail", "-c"])
        .arg(format!(
            "{}\nset -a; . \"$GITHUB_ENV\"; set +a\n{}",
            script(&steps, "Names"),
            script(&steps, "Write release.json")
        ))
        .current_dir(folder.path())
        .envs([("GITHUB_REF_NAME", "v1.2.3-rc.1"), ("GITHUB_REPOSITORY", "My-Team/My-App"), ("DIGEST", &digest)])
        .envs([("APP", "my-app"), ("PLATFORMS", "linux/amd64,linux/arm64")])
        .env("GITHUB_ENV", names);
    must_run(&mut bash);
    let bytes = fs::read(folder.path().join("release.json")).expect("release.json");
    let manifest = Manifest::parse(&bytes).expect("a manifest");
    assert_eq!(manifest.image_reference(), "ghcr.io/my-team/my-app:1.2.3-rc.1");
    assert_eq!((manifest.name.as_str(), manifest.image.digest.as_str()), ("my-app", digest.as_str()));
    assert!(manifest.prerelease && manifest.image.platforms.len() == 2);
}

/// ProcessGit's image is `deploy/Dockerfile.processgit`, built in the root of its repository, and its base image has a
/// version label of its own.
#[test]
fn the_release_workflow_builds_processgit_as_it_is() {
    let workflow = workflow();
    let env = &workflow["env"];
    assert_eq!((env["APP"].as_str(), env["CONTEXT"].as_str()), (Some("processgit"), Some(".")));
    assert_eq!(env["DOCKERFILE"], "deploy/Dockerfile.processgit");
    let steps = steps(&workflow);
    let build = &steps.iter().find(|step| step["id"] == "build").expect("a build")["with"];
    assert_eq!(
        (build["file"].as_str(), build["context"].as_str()),
        (Some("${{ env.DOCKERFILE }}"), Some("${{ env.CONTEXT }}"))
    );
    let labels = build["labels"].as_str().expect("labels");
    assert!(labels.lines().any(|line| line == "org.opencontainers.image.version=${{ env.VERSION }}"), "{labels}");
}

#[test]
fn the_release_workflow_signs_as_the_documentation_says() {
    let readme =
        include_str!("../../README.md").replace("ghcr.io/algomation-ai/processgit@sha256:…", "\"$IMAGE@$DIGEST\"");
    let steps = steps(&workflow());
    let commands = steps.iter().filter_map(|step| step["run"].as_str()).flat_map(str::lines);
    let signing: Vec<&str> = commands.filter(|line| line.starts_with("cosign ")).collect();
    assert_eq!(signing.len(), 2, "the image and release.json: {signing:?}");
    for command in signing {
        assert!(readme.lines().any(|line| line == command), "README.md does not say: {command}");
    }
}
