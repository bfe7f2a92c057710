//! The product as its operators run it: a container of its own image, a service of the application's project.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::io::IsTerminal;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus};

use serde_json::Value;

use crate::deployment::Deployment;
use crate::engine::{Engine, must_run};
use crate::registry::Pushed;
use crate::shared::{self, build};
use crate::socket_proxy::{Filter, Place};
use crate::updater::{Life, Settings};
use crate::{Lab, free_port};

/// The repository of its images, where they come from the registry.
const REPOSITORY: &str = "demo/updater";
/// The version it begins with there.
pub const FIRST_VERSION: &str = "1.0.0";
/// Its service.
const SERVICE: &str = "updater";
/// The file with its settings, in the deployment's folder.
pub(crate) const ENV_FILE: &str = "updater.env";
/// Where it listens in a network of its own.
const PORT: u16 = 9000;
const STATE: &str = "/var/lib/processgit-updater";
const KEY: &str = "/run/cosign.pub";

/// What it sees of the deployment's folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sees {
    /// The folder, at the very path that it has on the host.
    SamePath,
    /// The folder, at `/deploy`.
    Deploy,
    /// Its two files one by one, at `/deploy`.
    SingleFiles,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// The host's own.
    Host,
    /// The project's. Laboratories whose servers containers can reach: [`Lab::for_containers`].
    Project,
}

/// How the updater is put beside the application.
#[derive(Debug, Clone)]
pub struct Sidecar {
    pub sees: Sees,
    pub network: Network,
    /// Where it is asked on this machine, 127.0.0.1.
    pub port: u16,
    /// Compose names its container.
    pub generated_name: bool,
    /// Between it and the engine.
    pub behind: Option<Filter>,
    /// User and group; root unless given.
    pub user: Option<(u32, u32)>,
    /// More lines of its service, as in the Compose file (`read_only: true`).
    pub lines: Vec<String>,
    /// Its image comes from the registry, and this key in `.env` selects its version.
    pub version_key: Option<String>,
}

impl Sidecar {
    pub fn new(sees: Sees) -> Self {
        Self {
            sees,
            network: Network::Host,
            port: free_port(),
            generated_name: false,
            behind: None,
            user: None,
            lines: Vec::new(),
            version_key: None,
        }
    }

    /// `127.0.0.1:PORT`
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn container(&self, project: &str) -> String {
        if self.generated_name { format!("{project}-{SERVICE}-1") } else { format!("{project}-{SERVICE}") }
    }

    /// Where it finds a file of the deployment.
    fn path(&self, app: &Deployment, file: &Path) -> String {
        let inside = file.strip_prefix(app.folder()).ok().filter(|_| self.sees != Sees::SamePath);
        inside.map_or_else(|| file.to_owned(), |name| Path::new("/deploy").join(name)).display().to_string()
    }

    /// Its service in the Compose file.
    pub(crate) fn service(&self, lab: &Lab, folder: &Path) -> String {
        let project = &lab.run.id;
        let name =
            if self.generated_name { None } else { Some(format!("container_name: {}", self.container(project))) };
        let folder = folder.display();
        let seen = match self.sees {
            Sees::SamePath => vec![format!("{folder}:{folder}")],
            Sees::Deploy => vec![".:/deploy".to_owned()],
            Sees::SingleFiles => {
                vec!["./.env:/deploy/.env".into(), "./docker-compose.yml:/deploy/docker-compose.yml".into()]
            }
        };
        let mut lines = self.lines.clone();
        let socket = match self.behind.as_ref().map(|filter| filter.place(lab)) {
            None => Some(lab.engine.socket().to_owned()),
            Some(Place::Socket(path)) => Some(path),
            Some(Place::Tcp(address)) => {
                lines.push(format!("environment: {{ DOCKER_HOST: \"tcp://{address}\" }}"));
                None
            }
        };
        let socket = socket.map(|path| format!("{}:/var/run/docker.sock", path.display()));
        let rest = [
            format!("{}:{STATE}", lab.run.subfolder("state").display()),
            format!("{}:{KEY}:ro", lab.signer.public_key().display()),
        ];
        let hosts = lab.gateway.as_ref().map(|gateway| {
            let hosts = lab.run.folder().join("hosts");
            fs::write(&hosts, format!("{gateway} localhost\n")).expect("writing the sidecar's /etc/hosts");
            format!("{}:/etc/hosts:ro", hosts.display())
        });
        let volumes: Vec<String> =
            seen.into_iter().chain(socket).chain(rest).chain(hosts).map(|mount| format!("    - {mount}")).collect();
        let network = match self.network {
            Network::Host => Some("network_mode: host".to_owned()),
            Network::Project => Some(format!("ports: [\"127.0.0.1:{}:{PORT}\"]", self.port)),
        };
        let user = self.user.map(|(user, group)| {
            chown(lab.run.subfolder("state"), Some(user), Some(group)).expect("giving away the state folder");
            format!("user: \"{user}:{group}\"")
        });
        let lines: String =
            name.iter().chain(&network).chain(&user).chain(&lines).map(|line| format!("    {line}\n")).collect();
        format!(
            "
  {SERVICE}:
    image: {}
    restart: unless-stopped
    pull_policy: never
    env_file: {ENV_FILE}
    volumes:
{}
{lines}",
            match &self.version_key {
                Some(key) => format!("{}/{REPOSITORY}:${{{key}:?}}", lab.registry.host),
                None => image_name(lab),
            },
            volumes.join("\n")
        )
    }

    /// The settings that depend on where it runs.
    pub(crate) fn settings(&self, app: &Deployment) -> Vec<(&'static str, String)> {
        let (listen, health) = match self.network {
            Network::Host => (self.address(), app.health_url.clone()),
            Network::Project => {
                let spec = &app.spec;
                (format!(":{PORT}"), format!("http://{}:{}{}", spec.service, spec.port, spec.version_path))
            }
        };
        vec![
            ("LISTEN", listen),
            ("COMPOSE_FILE", self.path(app, &app.compose_file())),
            ("ENV_FILE", self.path(app, &app.env_file())),
            ("HEALTH_URL", health),
            ("SIGNING_KEY", KEY.to_owned()),
        ]
    }
}

/// It runs, or did, or will.
pub(crate) struct Container {
    engine: Engine,
    app: Deployment,
    name: String,
    /// What containers that are gone had logged.
    earlier_log: String,
}

impl Container {
    pub fn new(program: &Path, lab: &Lab, app: &Deployment, settings: &Settings) -> Self {
        image(lab, program);
        if app.spec.sidecar.as_ref().is_some_and(|s| s.version_key.is_some()) {
            publish(lab, FIRST_VERSION, "");
        }
        // In single quotes nothing is replaced.
        let lines: String = settings.iter().map(|(name, value)| format!("{name}='{value}'\n")).collect();
        app.write(ENV_FILE, &lines);
        let name = app.updater_container().expect("the deployment has a place for the updater");
        Self { engine: lab.engine.clone(), app: app.clone(), name, earlier_log: String::new() }
    }

    fn state(&self) -> Value {
        self.engine.container(&self.name).map_or(Value::Null, |inspected| inspected["State"].clone())
    }
}

impl Life for Container {
    fn spawn(&mut self, variables: &Settings) {
        assert!(variables.is_empty(), "a container's environment is in its file");
        if self.engine.container(&self.name).is_some() {
            self.engine.start(&self.name);
        } else {
            self.app.compose(&["up", "-d", "--no-deps", "--pull", "never", SERVICE]);
        }
    }

    fn kill9(&mut self) {
        self.engine.kill(&self.name);
    }

    fn remove(&mut self) {
        self.earlier_log = self.log_text();
        self.engine.remove("containers", &self.name);
    }

    fn sigterm(&mut self) -> ExitStatus {
        self.engine.stop(&self.name);
        ExitStatus::from_raw((self.state()["ExitCode"].as_i64().expect("an exit code") as i32) << 8)
    }

    fn ended(&mut self) -> Option<String> {
        let state = self.state();
        (state["Status"] != "running").then(|| state.to_string())
    }

    fn pid(&self) -> u32 {
        self.state()["Pid"].as_u64().map_or(0, |pid| pid as u32)
    }

    fn command(&self) -> Command {
        let mut command = Command::new("docker");
        let terminal = if std::io::stdout().is_terminal() { "-it" } else { "-i" };
        command.args(["exec", terminal, &self.name, "processgit-updater"]);
        command
    }

    fn command_text(&self) -> &'static str {
        "docker compose exec updater processgit-updater"
    }

    fn log_text(&self) -> String {
        let logs = Command::new("docker").args(["logs", &self.name]).output().expect("docker");
        let said = if logs.status.success() { [logs.stdout, logs.stderr].concat() } else { Vec::new() };
        format!("{}{}", self.earlier_log, String::from_utf8_lossy(&said))
    }
}

/// Pushes the updater's image under this version, with more lines of a Dockerfile.
pub fn publish(lab: &Lab, version: &str, more: &str) -> Pushed {
    let name = format!("{}/{REPOSITORY}:{version}", lab.registry.host);
    build(lab, &name, &format!("FROM {}\nLABEL lab.version={version}\n{more}\n", image_name(lab)));
    let said = must_run(Command::new("docker").args(["push", &name]));
    let digest = said.split_whitespace().find(|word| word.starts_with("sha256:")).expect("a digest").to_owned();
    Pushed { registry: lab.registry.host.clone(), repository: REPOSITORY.to_owned(), digest }
}

/// The image of this run's updater.
fn image_name(lab: &Lab) -> String {
    format!("updater-lab:{}", lab.run.id)
}

/// Makes it: `./image` builds it once for all tests of a program, then it gets this run's label, so that
/// whatever is made of it is found.
pub fn image(lab: &Lab, program: &Path) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut hasher = DefaultHasher::new();
    for file in [program, &root.join("image"), &root.join("Dockerfile")] {
        let known = fs::metadata(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        (file, known.len(), known.mtime(), known.mtime_nsec()).hash(&mut hasher);
    }
    let base = shared::image(lab, &format!("{:016x}", hasher.finish()), |name, label| {
        must_run(Command::new(root.join("image")).arg("--program").arg(program).args([name, "--label", label]));
    });
    build(lab, &image_name(lab), &format!("FROM {base}\n"));
    image_name(lab)
}
