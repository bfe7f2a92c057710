//! The product as a process: started, asked, killed, started again.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::deployment::Deployment;
use crate::http::{self, Answer};
use crate::releases::REPO;
use crate::{Lab, eventually, free_port};

pub const TOKEN: &str = "laboratory-token";
/// The longest any job of a test may take.
const PATIENCE: Duration = Duration::from_secs(100);

pub struct Updater {
    process: Option<Child>,
    program: PathBuf,
    /// `http://127.0.0.1:PORT`
    pub base: String,
    settings: BTreeMap<String, String>,
    folder: PathBuf,
    log: PathBuf,
}

impl Updater {
    /// Starts `program` beside the deployment. `settings` are names without the prefix and beat ours.
    pub fn start(program: &Path, lab: &Lab, app: &Deployment, settings: &[(&str, &str)]) -> Self {
        let folder = lab.run.subfolder("updater");
        let listen = format!("127.0.0.1:{}", free_port());
        let text = |path: PathBuf| path.display().to_string();
        let own = [
            ("TOKEN", TOKEN.to_owned()),
            ("LISTEN", listen.clone()),
            ("STATE_DIR", text(lab.run.subfolder("state"))),
            ("REPO", REPO.to_owned()),
            ("GITHUB_API", lab.releases.url()),
            ("APP_NAME", app.spec.app_name.clone()),
            ("APP_CONTAINER", app.container.clone()),
            ("APP_SERVICE", app.spec.service.clone()),
            ("VERSION_KEY", app.spec.version_key.clone()),
            ("COMPOSE_FILE", text(app.compose_file())),
            ("ENV_FILE", text(app.env_file())),
            ("HEALTH_URL", app.health_url.clone()),
            ("HEALTH_TIMEOUT", "20s".to_owned()),
            ("HEALTH_INTERVAL", "1s".to_owned()),
            ("HEALTH_STABLE", "1s".to_owned()),
            ("SIGNING_KEY", text(lab.signer.public_key())),
            ("STUB", "false".to_owned()),
            ("DEBUG", "true".to_owned()),
        ];
        let given = settings.iter().map(|(name, value)| (*name, (*value).to_owned()));
        let settings = own.into_iter().chain(given).map(|(name, value)| (format!("PROCESSGIT_UPDATER_{name}"), value));
        let mut updater = Self {
            process: None,
            program: program.to_owned(),
            base: format!("http://{listen}"),
            settings: settings.collect(),
            log: folder.join("log"),
            folder,
        };
        updater.restart();
        updater
    }

    /// Starts the process anew, ending the one that runs, and waits until it answers.
    pub fn restart(&mut self) {
        self.kill9();
        self.spawn();
        eventually("an answer of /healthz", Duration::from_secs(20), || {
            let ended = self.process.as_mut().and_then(|process| process.try_wait().ok().flatten());
            assert!(ended.is_none(), "the updater ended at its start ({ended:?}):\n{}", self.log_text());
            http::get(&format!("{}/healthz", self.base)).ok().filter(|answer| answer.status == 200)
        });
    }

    /// Starts the process; it does not answer yet.
    pub fn spawn(&mut self) {
        let log = || File::options().create(true).append(true).open(&self.log).expect("the updater's log");
        let process = self
            .command()
            .arg("serve")
            .stdin(Stdio::null())
            .stdout(log())
            .stderr(log())
            .spawn()
            .unwrap_or_else(|e| panic!("{} cannot be started: {e}", self.program.display()));
        self.process = Some(process);
    }

    /// The program with the settings of this updater: for `serve` and for the commands that talk to it.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        let path = std::env::var("PATH").unwrap_or_default();
        command.current_dir(&self.folder).env_clear().env("PATH", path).env("HOME", &self.folder);
        // The engine that the laboratory uses is the one to be updated on.
        command.envs(std::env::var("DOCKER_HOST").map(|host| ("DOCKER_HOST", host)));
        command.envs(&self.settings);
        command
    }

    /// Its settings, as environment variables.
    pub fn settings(&self) -> &BTreeMap<String, String> {
        &self.settings
    }

    /// The process's number.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().map_or(0, Child::id)
    }

    pub fn kill9(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Asks it to end, and waits until it has.
    pub fn sigterm(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("the updater runs");
        let pid = Pid::from_child(&process);
        kill_process(pid, Signal::TERM).expect("sending SIGTERM");
        eventually("the end of the updater after SIGTERM", Duration::from_secs(60), || {
            process.try_wait().expect("waiting for the updater")
        })
    }

    /// Asks the API as its operator does.
    pub fn get(&self, path: &str) -> Answer {
        let request = http::client().get(format!("{}{path}", self.base)).bearer_auth(TOKEN);
        http::send(request).unwrap_or_else(|e| panic!("GET {path}: {e:?}\n{}", self.log_text()))
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        let request = http::client().post(format!("{}{path}", self.base)).bearer_auth(TOKEN).body(body.to_string());
        http::send(request).unwrap_or_else(|e| panic!("POST {path}: {e:?}\n{}", self.log_text()))
    }

    /// Begins a job; the request must be accepted.
    pub fn begin(&self, request: &Value) -> String {
        let answer = self.post("/update", request).expect_status(&[202], "POST /update").json();
        answer["job_id"].as_str().unwrap_or_else(|| panic!("no job_id in {answer}")).to_owned()
    }

    pub fn job(&self, id: &str) -> Job {
        Job(self.get(&format!("/update/{id}")).expect_status(&[200], "GET /update/{id}").json())
    }

    /// Waits until the job has entered `state` at least once, or has ended.
    pub fn wait_for(&self, id: &str, state: &str) -> Job {
        eventually(&format!("job {id} in state {state}"), PATIENCE, || {
            Some(self.job(id)).filter(|job| job.states().contains(&state) || job.has_ended())
        })
    }

    pub fn wait_for_end(&self, id: &str) -> Job {
        eventually(&format!("the end of job {id}"), PATIENCE, || Some(self.job(id)).filter(Job::has_ended))
    }

    /// A whole update to `tag`.
    pub fn update(&self, tag: &str) -> Job {
        self.update_with(json!({ "target_tag": tag }))
    }

    pub fn update_with(&self, request: Value) -> Job {
        self.wait_for_end(&self.begin(&request))
    }

    /// Everything it has logged since its first start.
    pub fn log_text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The lines that are JSON.
    pub fn log(&self) -> Vec<Value> {
        self.log_text().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Memory in use: all that is resident, and of it what is no part of a file (the program itself is
    /// one, and its pages can be had again).
    pub fn memory(&self) -> Memory {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
        };
        Memory { resident_kib: kib("VmRSS:"), anonymous_kib: kib("RssAnon:") }
    }
}

/// What the kernel says of a process.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    pub resident_kib: u64,
    pub anonymous_kib: u64,
}

impl Drop for Updater {
    /// A failing test shows what the updater had to say.
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking() {
            eprintln!("--- the updater's log ---\n{}", self.log_text());
        }
    }
}

/// A job, as the API shows it.
#[derive(Debug, Clone)]
pub struct Job(pub Value);

impl Job {
    pub fn state(&self) -> &str {
        self.0["state"].as_str().unwrap_or_default()
    }

    /// The states it has been in.
    pub fn states(&self) -> Vec<&str> {
        self.0["steps"].as_array().into_iter().flatten().filter_map(|step| step["state"].as_str()).collect()
    }

    /// Why it ended as it did.
    pub fn error(&self) -> &str {
        self.0["error"].as_str().unwrap_or_default()
    }

    /// What the steps in `state` have put out.
    pub fn output(&self, state: &str) -> String {
        let steps = self.0["steps"].as_array().into_iter().flatten().filter(|step| step["state"] == state);
        steps.filter_map(|step| step["output"].as_str()).collect()
    }

    pub fn has_ended(&self) -> bool {
        ["committed", "rolled_back", "failed", "aborted"].contains(&self.state())
    }

    /// It ended as `state`, and its reason contains every one of `says`, whatever the case.
    pub fn assert_end(&self, state: &str, says: &[&str]) {
        let story = format!("{:#}", self.0);
        assert_eq!(self.state(), state, "the end of {story}");
        let error = self.error().to_lowercase();
        for text in says {
            assert!(error.contains(&text.to_lowercase()), "the reason does not say {text:?}: {story}");
        }
        assert_eq!(error.is_empty(), state == "committed", "a reason, and only without success: {story}");
    }
}
