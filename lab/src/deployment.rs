//! A Compose project on disk and on the engine: the application, two siblings, `.env` with comments.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::databases::Server;
use crate::engine::{Engine, must_run};
use crate::image::ImageSpec;
use crate::publish::REPOSITORY;
use crate::registry::Pushed;
use crate::sidecar::Sidecar;
use crate::{Lab, eventually, free_port, http, sidecar};

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
    /// Compose names the container instead.
    pub generated_name: bool,
    pub version_key: String,
    /// What the application listens on, in its container.
    pub port: u16,
    pub version_path: String,
    /// The Compose file names the first version itself instead of asking `.env`.
    pub ignores_version_key: bool,
    /// More of the application's environment, as in the Compose file.
    pub environment: Vec<String>,
    /// What the application depends on, as in the Compose file.
    pub depends_on: String,
    /// Services of the same image that are moved together with the application's: name and lines.
    pub crew: Vec<(&'static str, Vec<&'static str>)>,
    /// What the sibling called `database` is, if it is to be a real one.
    pub database: Option<Server>,
    /// More lines of the application's service, as in the Compose file (`tmpfs: [/data]`).
    pub service_lines: Vec<String>,
    /// The same of its siblings.
    pub database_lines: Vec<String>,
    pub worker_lines: Vec<String>,
    /// More lines at the end of the Compose file.
    pub file_lines: Vec<String>,
    /// More files, as seen from the deployment's folder (`../app.env`), and what is in them.
    pub files: Vec<(String, String)>,
    /// The file with the version, as seen from there.
    pub env_file: String,
    /// What stands between `docker compose` and its command, always: `-f`, `--env-file`, `-p`.
    pub options: Vec<String>,
    /// The updater is a service of the same project.
    pub sidecar: Option<Sidecar>,
}

impl AppSpec {
    pub fn new(version: &str) -> Self {
        Self {
            image: ImageSpec::new(version),
            image_tag: version.to_owned(),
            app_name: "demo".to_owned(),
            service: "app".to_owned(),
            container_suffix: "app".to_owned(),
            generated_name: false,
            version_key: "APP_VERSION".to_owned(),
            port: 3000,
            version_path: "/api/v1/version".to_owned(),
            ignores_version_key: false,
            environment: Vec::new(),
            depends_on: "[database]".to_owned(),
            crew: Vec::new(),
            database: None,
            service_lines: Vec::new(),
            database_lines: Vec::new(),
            worker_lines: Vec::new(),
            file_lines: Vec::new(),
            files: Vec::new(),
            env_file: ".env".to_owned(),
            options: Vec::new(),
            sidecar: None,
        }
    }

    fn container(&self, project: &str) -> String {
        match self.generated_name {
            true => format!("{project}-{}-1", self.service),
            false => format!("{project}-{}", self.container_suffix),
        }
    }
}

/// A deployment that runs.
#[derive(Clone)]
pub struct Deployment {
    pub spec: AppSpec,
    /// The application's container.
    pub container: String,
    /// The image that ran at first.
    pub image: Pushed,
    /// The version's address from outside.
    pub health_url: String,
    /// Its Compose project, which is named after the run.
    pub project: String,
    folder: PathBuf,
    run_label: String,
    project_label: String,
    engine: Engine,
}

impl Deployment {
    pub(crate) fn up(lab: &Lab, spec: AppSpec) -> Self {
        let folder = lab.run.subfolder("deployment");
        let port = free_port();
        let project = lab.run.id.clone();
        let container = spec.container(&project);
        let image = lab.registry.push(REPOSITORY, &spec.image_tag, &spec.image);
        let sibling = lab.registry.push("demo/sibling", "7", &ImageSpec::new("7.0.0"));
        let sibling = format!("{}:7", sibling.name());
        let database = spec.database.map_or_else(|| sibling.clone(), |server| server.image(lab));
        let mut compose = compose_file(&spec, &project, port, &image, [&database, &sibling]);
        if let Some(sidecar) = &spec.sidecar {
            compose.push_str(&sidecar.service(lab, &folder));
        }
        compose.extend(spec.file_lines.iter().map(|line| format!("{line}\n")));
        let deployment = Self {
            container,
            image,
            health_url: format!("http://127.0.0.1:{port}{}", spec.version_path),
            project,
            folder,
            run_label: lab.run.label(),
            project_label: lab.run.project_label(),
            engine: lab.engine.clone(),
            spec,
        };
        deployment.write("docker-compose.yml", &compose);
        deployment.write(&deployment.spec.env_file, &env_file(&deployment.spec));
        if deployment.spec.sidecar.is_some() {
            deployment.write(sidecar::ENV_FILE, "");
        }
        for (path, content) in &deployment.spec.files {
            deployment.write(path, content);
        }
        // The updater is started later, when its settings are known.
        let but_the_updater = deployment.spec.sidecar.as_ref().map(|_| ["--scale", "updater=0"]);
        deployment.compose(&[&["up", "-d", "--quiet-pull"], but_the_updater.as_slice().as_flattened()].concat());
        deployment.await_version(&deployment.spec.image.version);
        deployment
    }

    /// Writes a file of the deployment, whose path is as seen from its folder.
    pub fn write(&self, path: &str, content: &str) {
        let path = self.folder.join(path);
        let folder = path.parent().unwrap_or(&self.folder);
        let written = fs::create_dir_all(folder).and_then(|()| fs::write(&path, content));
        written.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }

    pub fn compose_file(&self) -> PathBuf {
        self.folder.join("docker-compose.yml")
    }

    pub fn env_file(&self) -> PathBuf {
        self.folder.join(&self.spec.env_file)
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// `docker compose …` in the deployment's folder, as an operator types it.
    pub fn compose(&self, arguments: &[&str]) -> String {
        must_run(&mut self.compose_command(arguments))
    }

    /// The same, not run yet.
    pub fn compose_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.arg("compose").args(&self.spec.options).args(arguments).current_dir(&self.folder);
        command
    }

    /// What the operator's own `docker compose up -d` would do: nothing, if every container is as the files
    /// say.
    pub fn would_change(&self) -> Vec<String> {
        let mut command = self.compose_command(&["--progress", "json", "up", "-d", "--dry-run"]);
        let output = command.output().expect("docker compose");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success() && said.contains("\"Running\""), "a dry run: {said}");
        said.lines().filter(|line| !line.contains("\"Running\"")).map(str::to_owned).collect()
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

    /// The name of the updater's container, if it is a service here.
    pub fn updater_container(&self) -> Option<String> {
        self.spec.sidecar.as_ref().map(|sidecar| sidecar.container(&self.project))
    }

    /// Labels by which everything of this run is found: containers of its images, containers of Compose.
    pub(crate) fn labels(&self) -> [&str; 2] {
        [&self.run_label, &self.project_label]
    }
}

/// Up to the end of the services.
fn compose_file(spec: &AppSpec, project: &str, port: u16, image: &Pushed, siblings: [&str; 2]) -> String {
    let AppSpec { service, version_key, version_path, port: inner, depends_on, .. } = spec;
    let tag = if spec.ignores_version_key { spec.image_tag.clone() } else { format!("${{{version_key}:?}}") };
    let (name, [database, worker]) = (image.name(), siblings);
    let indented = |lines: &[String]| lines.iter().map(|line| format!("    {line}\n")).collect::<String>();
    let service_lines = indented(&spec.service_lines);
    let (database_lines, worker_lines) = (indented(&spec.database_lines), indented(&spec.worker_lines));
    let environment: String = spec.environment.iter().map(|line| format!("      {line}\n")).collect();
    let mate = |(mate, lines): &(&str, Vec<&str>)| {
        let lines: String = lines.iter().map(|line| format!("    {line}\n")).collect();
        format!("\n  {mate}:\n    image: {name}:{tag}\n{lines}")
    };
    let crew: String = spec.crew.iter().map(mate).collect();
    let named = |line: String, given: bool| if given { line } else { String::new() };
    let project_line = named(format!("name: {project}\n"), !spec.options.iter().any(|option| option == "-p"));
    let name_line = named(format!("    container_name: {}\n", spec.container(project)), !spec.generated_name);
    format!(
        "# The demonstration deployment.
{project_line}services:
  {service}:
    image: {name}:{tag}
{name_line}    restart: unless-stopped
    ports: [\"127.0.0.1:{port}:{inner}\"]
    environment:
      PORT: \"{inner}\"
      VERSION_PATH: {version_path}
{environment}    depends_on: {depends_on}
{service_lines}
  database:
    image: {database}
    restart: unless-stopped
{database_lines}
  worker:
    image: {worker}
    restart: always
{worker_lines}{crew}"
    )
}

/// With everything an editor of such files may stumble over.
fn env_file(spec: &AppSpec) -> String {
    let (key, value) = (&spec.version_key, &spec.image_tag);
    let updater = spec.sidecar.as_ref().and_then(|s| s.version_key.as_ref());
    let updater = updater.map(|key| format!("{key}={}\n", sidecar::FIRST_VERSION)).unwrap_or_default();
    format!(
        "# Settings of the deployment.\n\nTITLE=\"a title # with a hash\"\n{updater}{key}={value}\n  # indented\nLAST='no newline'"
    )
}
