//! A Compose project on disk and on the engine: the application, two siblings, `.env` with comments.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::engine::{Engine, must_run};
use crate::image::ImageSpec;
use crate::publish::REPOSITORY;
use crate::registry::Pushed;
use crate::{Lab, eventually, free_port, http};

/// A deployment to be.
#[derive(Debug, Clone)]
pub struct AppSpec {
    /// What runs at first.
    pub image: ImageSpec,
    /// Its tag, and the value in `.env`: a version, or `latest`.
    pub image_tag: String,
    /// What manifests must call it.
    pub app_name: String,
    pub service: String,
    /// The container's name is this run's, then this.
    pub container_suffix: String,
    pub version_key: String,
    /// What the application listens on, in its container.
    pub port: u16,
    pub version_path: String,
    /// The Compose file names the first version itself instead of asking `.env`.
    pub ignores_version_key: bool,
    /// More lines of the application's service, as in the Compose file (`tmpfs: [/data]`).
    pub service_lines: Vec<String>,
    /// The same of its siblings.
    pub database_lines: Vec<String>,
    pub worker_lines: Vec<String>,
    /// More lines at the end of the Compose file.
    pub file_lines: Vec<String>,
}

impl AppSpec {
    pub fn new(version: &str) -> Self {
        Self {
            image: ImageSpec::new(version),
            image_tag: version.to_owned(),
            app_name: "demo".to_owned(),
            service: "app".to_owned(),
            container_suffix: "app".to_owned(),
            version_key: "APP_VERSION".to_owned(),
            port: 3000,
            version_path: "/api/v1/version".to_owned(),
            ignores_version_key: false,
            service_lines: Vec::new(),
            database_lines: Vec::new(),
            worker_lines: Vec::new(),
            file_lines: Vec::new(),
        }
    }
}

/// A deployment that runs.
pub struct Deployment {
    pub spec: AppSpec,
    /// The application's container.
    pub container: String,
    /// The image that ran at first.
    pub image: Pushed,
    /// The version's address from outside.
    pub health_url: String,
    folder: PathBuf,
    run_label: String,
    project_label: String,
    engine: Engine,
}

impl Deployment {
    pub(crate) fn up(lab: &Lab, spec: AppSpec) -> Self {
        let folder = lab.run.subfolder("deployment");
        let port = free_port();
        let container = format!("{}-{}", lab.run.id, spec.container_suffix);
        let image = lab.registry.push(REPOSITORY, &spec.image_tag, &spec.image);
        let sibling = lab.registry.push("demo/sibling", "7", &ImageSpec::new("7.0.0"));
        let compose = compose_file(&spec, &lab.run.id, &container, port, &image, &sibling);
        let deployment = Self {
            container,
            image,
            health_url: format!("http://127.0.0.1:{port}{}", spec.version_path),
            folder,
            run_label: lab.run.label(),
            project_label: lab.run.project_label(),
            engine: lab.engine.clone(),
            spec,
        };
        fs::write(deployment.compose_file(), compose).expect("writing the Compose file");
        fs::write(deployment.env_file(), env_file(&deployment.spec)).expect("writing .env");
        deployment.compose(&["up", "-d", "--quiet-pull"]);
        deployment.await_version(&deployment.spec.image.version);
        deployment
    }

    pub fn compose_file(&self) -> PathBuf {
        self.folder.join("docker-compose.yml")
    }

    pub fn env_file(&self) -> PathBuf {
        self.folder.join(".env")
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// `docker compose …` in the deployment's folder, as an operator types it.
    pub fn compose(&self, arguments: &[&str]) -> String {
        must_run(Command::new("docker").arg("compose").args(arguments).current_dir(&self.folder))
    }

    /// Changes a file as an editor does.
    pub fn edit(&self, file: &Path, change: impl FnOnce(&str) -> String) {
        let text = fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let changed = change(&text);
        assert_ne!(changed, text, "an edit of {} that changes nothing", file.display());
        fs::write(file, changed).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    }

    /// The value of the version key.
    pub fn version_in_env(&self) -> Option<String> {
        let text = fs::read_to_string(self.env_file()).ok()?;
        let start = format!("{}=", self.spec.version_key);
        text.lines().find_map(|line| line.strip_prefix(&start)).map(str::to_owned)
    }

    /// What the application says it is, when it answers 200.
    pub fn running_version(&self) -> Option<String> {
        let answer = http::get(&self.health_url).ok().filter(|answer| answer.status == 200)?;
        answer.json()["version"].as_str().map(str::to_owned)
    }

    pub fn await_version(&self, version: &str) {
        eventually(&format!("version {version} at {}", self.health_url), Duration::from_secs(30), || {
            self.running_version().filter(|found| found == version)
        });
    }

    /// The application's container, as inspected.
    pub fn app(&self) -> Option<Value> {
        self.engine.container(&self.container)
    }

    /// The id of the image that the application runs.
    pub fn running_image(&self) -> Option<String> {
        self.app()?["Image"].as_str().map(str::to_owned)
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Labels by which everything of this run is found: containers of its images, containers of Compose.
    pub(crate) fn labels(&self) -> [&str; 2] {
        [&self.run_label, &self.project_label]
    }
}

fn compose_file(spec: &AppSpec, project: &str, container: &str, port: u16, image: &Pushed, sibling: &Pushed) -> String {
    let AppSpec { service, version_key, version_path, port: inner, .. } = spec;
    let tag = if spec.ignores_version_key { spec.image_tag.clone() } else { format!("${{{version_key}:?}}") };
    let (name, sibling) = (image.name(), format!("{}:7", sibling.name()));
    let indented = |lines: &[String]| lines.iter().map(|line| format!("    {line}\n")).collect::<String>();
    let service_lines = indented(&spec.service_lines);
    let (database_lines, worker_lines) = (indented(&spec.database_lines), indented(&spec.worker_lines));
    let file_lines: String = spec.file_lines.iter().map(|line| format!("{line}\n")).collect();
    format!(
        "# The demonstration deployment.
name: {project}
services:
  {service}:
    image: {name}:{tag}
    container_name: {container}
    restart: unless-stopped
    ports: [\"127.0.0.1:{port}:{inner}\"]
    environment:
      PORT: \"{inner}\"
      VERSION_PATH: {version_path}
    depends_on: [database]
{service_lines}
  database:
    image: {sibling}
    restart: unless-stopped
{database_lines}
  worker:
    image: {sibling}
    restart: always
{worker_lines}
{file_lines}"
    )
}

/// With everything an editor of such files may stumble over.
fn env_file(spec: &AppSpec) -> String {
    let (key, value) = (&spec.version_key, &spec.image_tag);
    format!(
        "# Settings of the deployment.\n\nTITLE=\"a title # with a hash\"\n{key}={value}\n  # indented\nLAST='no newline'"
    )
}
