//! The product as a process of this machine, as root, with the host's own paths.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::deployment::Deployment;
use crate::updater::{Life, Settings};
use crate::{Lab, eventually};

pub(crate) struct Process {
    child: Option<Child>,
    program: PathBuf,
    settings: Settings,
    folder: PathBuf,
    log: PathBuf,
}

impl Process {
    /// The settings that depend on where it runs.
    pub fn settings(lab: &Lab, app: &Deployment, address: &str) -> Vec<(&'static str, String)> {
        let text = |path: PathBuf| path.display().to_string();
        vec![
            ("LISTEN", address.to_owned()),
            ("STATE_DIR", text(lab.run.subfolder("state"))),
            ("COMPOSE_FILE", text(app.compose_file())),
            ("ENV_FILE", text(app.env_file())),
            ("HEALTH_URL", app.health_url.clone()),
            ("SIGNING_KEY", text(lab.signer.public_key())),
        ]
    }

    pub fn new(program: &Path, lab: &Lab, settings: &Settings) -> Self {
        let folder = lab.run.subfolder("updater");
        let (program, log) = (program.to_owned(), folder.join("log"));
        Self { child: None, program, settings: settings.clone(), folder, log }
    }
}

impl Life for Process {
    fn spawn(&mut self, variables: &Settings) {
        let log = || File::options().create(true).append(true).open(&self.log).expect("the updater's log");
        let child = self
            .command()
            .envs(variables)
            .arg("serve")
            .stdin(Stdio::null())
            .stdout(log())
            .stderr(log())
            .spawn()
            .unwrap_or_else(|e| panic!("{} cannot be started: {e}", self.program.display()));
        self.child = Some(child);
    }

    fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn remove(&mut self) {}

    fn sigterm(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("the updater runs");
        kill_process(Pid::from_child(&child), Signal::TERM).expect("sending SIGTERM");
        eventually("the end of the updater after SIGTERM", Duration::from_secs(60), || {
            child.try_wait().expect("waiting for the updater")
        })
    }

    fn ended(&mut self) -> Option<String> {
        self.child.as_mut()?.try_wait().ok()?.map(|status| status.to_string())
    }

    fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        let path = std::env::var("PATH").unwrap_or_default();
        command.current_dir(&self.folder).env_clear().env("PATH", path).env("HOME", &self.folder);
        // The engine that the laboratory uses is the one to be updated on.
        command.envs(std::env::var("DOCKER_HOST").map(|host| ("DOCKER_HOST", host)));
        command.envs(&self.settings);
        command
    }

    fn command_text(&self) -> &'static str {
        "processgit-updater"
    }

    fn log_text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}
