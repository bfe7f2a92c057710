//! One run: its name, its folder, and its removal.
//!
//! Everything a run makes carries its name: containers and images by label, networks and volumes by the
//! name of their Compose project, processes by their working folder. So a run leaves nothing behind, and
//! the next one clears away what a killed one left.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::engine::Engine;
use crate::random_hex;

/// On every image of the laboratory, and so on every container made of one, whoever makes it. Not one of the
/// updater's own labels: those prove that a container is its own.
pub const LABEL: &str = "io.processgit.lab";
const PROJECT: &str = "com.docker.compose.project";
const PREFIX: &str = "updater-lab-";

pub struct Run {
    /// `updater-lab-PID-START-RANDOM`: it lives as long as that process.
    pub id: String,
    engine: Engine,
    folder: PathBuf,
}

impl Run {
    /// Sweeps, then begins.
    pub fn begin(engine: &Engine) -> Self {
        sweep(engine);
        let pid = std::process::id();
        let start = start_of(pid).expect("this process is alive");
        let id = format!("{PREFIX}{pid}-{start}-{}", &random_hex()[..8]);
        let folder = std::env::temp_dir().join(&id);
        fs::DirBuilder::new().mode(0o700).create(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        Self { id, engine: engine.clone(), folder }
    }

    /// The run's own folder; what is started in it is ended with the run.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A new folder inside it.
    pub fn subfolder(&self, name: &str) -> PathBuf {
        let folder = self.folder.join(name);
        fs::create_dir_all(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        folder
    }

    /// `NAME=VALUE`, to list what belongs to this run.
    pub fn label(&self) -> String {
        format!("{LABEL}={}", self.id)
    }

    /// The Compose project of this run, likewise.
    pub fn project_label(&self) -> String {
        format!("{PROJECT}={}", self.id)
    }
}

/// The owner of what every test of the program that started this one may use: it lives as long as that.
pub(crate) fn shared_owner() -> String {
    let pid = std::os::unix::process::parent_id();
    format!("{PREFIX}{pid}-{}-shared", start_of(pid).unwrap_or_default())
}

impl Drop for Run {
    fn drop(&mut self) {
        remove_runs(&self.engine, |id| id == self.id);
    }
}

/// Removes what runs left whose process is gone.
pub fn sweep(engine: &Engine) {
    remove_runs(engine, |id| !is_alive(id));
}

/// The same, and what the program that started this one may have used: it is about to end.
pub fn sweep_at_the_end(engine: &Engine) {
    let own = shared_owner();
    remove_runs(engine, |id| id == own || !is_alive(id));
}

fn remove_runs(engine: &Engine, chosen: impl Fn(&str) -> bool) {
    let mine = |thing: &Value| owner(thing).is_some_and(&chosen);
    end_processes(&chosen);
    let containers = [LABEL, PROJECT].map(|label| engine.containers(label)).concat();
    let mine_only = || containers.iter().filter(|c| mine(c));
    // Those that Compose takes over from one container to the next do not go with the container.
    let anonymous: Vec<&str> = mine_only().flat_map(anonymous_volumes).collect();
    // Each takes the engine a third of a second, whether alone or together with others.
    std::thread::scope(|scope| {
        for container in mine_only() {
            scope.spawn(|| engine.remove("containers", container["Id"].as_str().unwrap_or_default()));
        }
    });
    for volume in anonymous {
        engine.remove("volumes", volume);
    }
    for network in engine.networks(PROJECT).iter().filter(|n| mine(n)) {
        engine.remove("networks", network["Id"].as_str().unwrap_or_default());
    }
    for volume in engine.volumes(PROJECT).iter().filter(|v| mine(v)) {
        engine.remove("volumes", volume["Name"].as_str().unwrap_or_default());
    }
    for image in engine.images(LABEL).iter().filter(|i| mine(i)) {
        remove_image(engine, image);
    }
    for folder in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        if folder.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX) && chosen(name)) {
            let _ = fs::remove_dir_all(folder.path());
        }
    }
}

/// The engine names them by 64 hex digits.
fn anonymous_volumes(container: &Value) -> impl Iterator<Item = &str> {
    let mounts = container["Mounts"].as_array().into_iter().flatten();
    let names = mounts.filter_map(|mount| mount["Name"].as_str());
    names.filter(|name| name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Every name of an image, then the image.
fn remove_image(engine: &Engine, image: &Value) {
    let names = ["RepoTags", "RepoDigests"].iter().filter_map(|key| image[key].as_array()).flatten();
    for name in names.chain([&image["Id"]]).filter_map(Value::as_str) {
        engine.remove("images", name);
    }
}

/// The run that a container, image, network or volume belongs to.
fn owner(thing: &Value) -> Option<&str> {
    let labels = &thing["Labels"];
    [LABEL, PROJECT].iter().find_map(|label| labels[label].as_str()).filter(|id| id.starts_with(PREFIX))
}

fn is_alive(id: &str) -> bool {
    let mut parts = id.trim_start_matches(PREFIX).split('-');
    let pid = parts.next().and_then(|pid| pid.parse().ok());
    pid.and_then(start_of).is_some_and(|start| parts.next() == Some(start.as_str()))
}

/// When a process began, in the kernel's ticks: with the number, it names a process for ever.
fn start_of(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name is in parentheses and may hold spaces; `starttime` is the 20th field after it.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19).map(str::to_owned)
}

/// Ends the processes that were started in a run's folder.
fn end_processes(chosen: &impl Fn(&str) -> bool) {
    let temporary = std::env::temp_dir();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        let (Some(pid), Ok(cwd)) = (pid, fs::read_link(entry.path().join("cwd"))) else { continue };
        let id = cwd.strip_prefix(&temporary).ok().and_then(|rest| rest.iter().next()).and_then(|name| name.to_str());
        if id.is_some_and(|id| id.starts_with(PREFIX) && chosen(id)) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}
