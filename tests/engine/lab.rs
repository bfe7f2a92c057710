//! A corner of the real engine for one test: everything in it carries the corner's name and is gone
//! afterwards, also when the test fails. What a killed test left behind goes at the next start.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use processgit_updater::engine::docker::DockerEngine;
use processgit_updater::engine::{ContainerSpec, Mount, MountKind};

/// What every name in the laboratory contains, followed by the test's process id.
const PREFIX: &str = "pgu-engine-test";
/// Longer than anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Lab {
    pub engine: DockerEngine,
    pub folder: tempfile::TempDir,
    /// Of containers, volumes, networks, projects and image repositories alike.
    pub name: String,
}

impl Lab {
    pub fn new() -> Self {
        sweep(is_stale);
        let name = format!("{PREFIX}-{}-{:08x}", std::process::id(), rand::random::<u32>());
        let engine = DockerEngine::from_environment().unwrap();
        Self { engine, folder: tempfile::tempdir().unwrap(), name }
    }

    /// A name of this corner.
    pub fn named(&self, what: &str) -> String {
        format!("{}-{what}", self.name)
    }

    /// Imports an image that holds busybox and, for each number of bytes, nothing of use.
    pub fn image(&self, tag: &str, padding: usize) -> String {
        let root = self.folder.path().join("root");
        let bin = root.join("bin");
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::create_dir_all(root.join("tmp")).unwrap();
        std::fs::copy("/bin/busybox", bin.join("busybox")).unwrap();
        for tool in ["sh", "sleep", "cat", "echo", "ls", "id"] {
            let _ = std::os::unix::fs::symlink("busybox", bin.join(tool));
        }
        let noise: Vec<u8> = (0..padding).map(|_| rand::random()).collect();
        std::fs::write(root.join("padding"), noise).unwrap();
        let reference = format!("{}:{tag}", self.name);
        let archive = Command::new("tar").arg("-C").arg(&root).args(["-c", "."]).output().unwrap().stdout;
        let changes = ["CMD [\"/bin/sleep\",\"1000\"]", "STOPSIGNAL SIGKILL", &format!("LABEL test.tag={tag}")];
        let changes = changes.iter().flat_map(|change| ["--change", change]);
        let mut import = Command::new("docker");
        feed(import.arg("import").args(changes).args(["-", &reference]), &archive);
        reference
    }

    /// A container of ours in this corner.
    pub fn spec(&self, name: &str, image: &str, script: &str) -> ContainerSpec {
        ContainerSpec {
            name: self.named(name),
            image: image.to_owned(),
            command: Some(["/bin/sh", "-c", script].map(String::from).to_vec()),
            labels: [("test.run".to_owned(), self.name.clone())].into(),
            stop_grace_seconds: Some(0),
            ..ContainerSpec::default()
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        sweep(|name| name.contains(&self.name));
    }
}

pub fn volume(name: &str, destination: &str, subpath: &str, writable: bool) -> Mount {
    Mount {
        kind: MountKind::Volume,
        name: name.into(),
        source: String::new(),
        destination: destination.into(),
        writable,
        subpath: subpath.into(),
    }
}

pub fn bind(source: &Path, destination: &str) -> Mount {
    Mount {
        kind: MountKind::Bind,
        name: String::new(),
        source: source.to_str().unwrap().into(),
        destination: destination.into(),
        writable: true,
        subpath: String::new(),
    }
}

/// Runs a command; its stdout. Panics with its stderr when it fails.
pub fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {error}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

pub fn docker(args: &[&str]) -> String {
    run("docker", args)
}

fn feed(command: &mut Command, input: &[u8]) {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    assert!(child.wait().unwrap().success(), "{command:?}");
}

/// Its process is gone.
fn is_stale(name: &str) -> bool {
    let owner = name.split_once(PREFIX).and_then(|(_, rest)| rest.split('-').nth(1));
    owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists())
}

/// Removes everything whose name is chosen. Failures stay silent: another test may sweep the same.
fn sweep(chosen: impl Fn(&str) -> bool) {
    let kinds: [(&[&str], &[&str]); 4] = [
        (&["ps", "-a", "--no-trunc", "--format", "{{.ID}} {{.Names}}"], &["rm", "-f", "-v"]),
        (&["volume", "ls", "--format", "{{.Name}} {{.Name}}"], &["volume", "rm", "-f"]),
        (&["network", "ls", "--no-trunc", "--format", "{{.ID}} {{.Name}}"], &["network", "rm"]),
        (&["images", "-a", "--no-trunc", "--format", "{{.ID}} {{.Repository}}"], &["rmi", "-f"]),
    ];
    for (list, remove) in kinds {
        let listed = docker(list);
        let pairs = listed.lines().filter_map(|line| line.split_once(' '));
        let mut ids: Vec<&str> = pairs.filter(|(_, name)| chosen(name)).map(|(id, _)| id).collect();
        ids.sort_unstable();
        ids.dedup();
        if !ids.is_empty() {
            let _ = Command::new("docker").args(remove).args(ids).output();
        }
    }
}

/// Asks until the answer is yes. For what nothing announces.
pub async fn until(what: &str, mut answer: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !answer().await {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A real registry on a port of its own. It dies with the test.
pub struct Registry {
    process: Child,
    /// `127.0.0.1:port`
    pub address: String,
}

impl Registry {
    /// `accounts` is an htpasswd file; without it everybody may push and pull.
    pub fn start(folder: &Path, accounts: Option<&Path>) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let config = folder.join("registry.yml");
        std::fs::write(&config, "version: 0.1\nstorage: {filesystem: {}}\n").unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "docker-registry", "serve"]).arg(config);
        command.env("REGISTRY_HTTP_ADDR", &address);
        command.env("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", folder.join("registry"));
        if let Some(accounts) = accounts {
            command.env("REGISTRY_AUTH", "htpasswd").env("REGISTRY_AUTH_HTPASSWD_REALM", "lab");
            command.env("REGISTRY_AUTH_HTPASSWD_PATH", accounts);
        }
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(&address).is_err() {
            assert!(Instant::now() < deadline, "docker-registry does not listen on {address}");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { process, address }
    }

    /// Pushes a local image and forgets it; its digest reference.
    pub fn take(&self, image: &str, docker_config: Option<&Path>) -> String {
        let repository = format!("{}/{}", self.address, image.split(':').next().unwrap());
        let tagged = format!("{repository}:pushed");
        docker(&["tag", image, &tagged]);
        let mut push = Command::new("docker");
        if let Some(folder) = docker_config {
            push.env("DOCKER_CONFIG", folder);
        }
        let pushed = push.args(["push", &tagged]).output().unwrap();
        let (said, error) = (String::from_utf8_lossy(&pushed.stdout), String::from_utf8_lossy(&pushed.stderr));
        let digest = said.split_whitespace().find(|word| word.starts_with("sha256:"));
        let digest = digest.unwrap_or_else(|| panic!("pushing {tagged}: {said}{error}")).to_owned();
        docker(&["rmi", "-f", &tagged, image]);
        format!("{repository}@{digest}")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs one ignored test of this program in a process of its own, with its own environment.
pub fn again(test: &str, environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture", "--test-threads", "1"]);
    command.env(HELPER, "1").envs(environment.iter().copied());
    command
}

/// Set in processes that [`again`] starts.
pub const HELPER: &str = "PGU_ENGINE_TEST_HELPER";

pub fn write(path: PathBuf, text: &str) -> PathBuf {
    std::fs::write(&path, text).unwrap();
    path
}
