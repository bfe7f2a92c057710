//! The product, running: started, asked, killed, started again. As a process of this machine, or as a
//! container beside the application.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use serde_json::{Value, json};

use crate::deployment::Deployment;
use crate::http::{self, Answer};
use crate::process::Process;
use crate::releases::REPO;
use crate::sidecar::{Container, Sidecar};
use crate::{Lab, eventually, free_port};

pub const TOKEN: &str = "laboratory-token";
/// The longest any job of a test may take.
const PATIENCE: Duration = Duration::from_secs(100);

/// As environment variables.
pub type Settings = BTreeMap<String, String>;

/// How the product lives and dies.
pub(crate) trait Life: Send + Sync {
    /// Starts it with more in its environment; it does not answer yet.
    fn spawn(&mut self, variables: &Settings);
    /// Ends it at once, if it runs.
    fn kill9(&mut self);
    /// Removes what is left of it, as an operator removes a container.
    fn remove(&mut self);
    /// Asks it to end, and waits until it has.
    fn sigterm(&mut self) -> ExitStatus;
    /// Why it runs no more.
    fn ended(&mut self) -> Option<String>;
    fn pid(&self) -> u32;
    /// The program, for the commands that talk to it.
    fn command(&self) -> Command;
    /// The same, as one types it.
    fn command_text(&self) -> &'static str;
    /// Everything it has logged since its first start.
    fn log_text(&self) -> String;
}

pub struct Updater {
    life: Box<dyn Life>,
    /// `http://127.0.0.1:PORT`
    pub base: String,
    settings: Settings,
    /// In its environment from the next start on, beside the settings.
    pub variables: Settings,
}

impl Updater {
    /// Starts `program` beside the deployment: in a container if the deployment has a place for it, as a
    /// process otherwise. `settings` are names without the prefix and beat ours.
    pub fn start(program: &Path, lab: &Lab, app: &Deployment, settings: &[(&str, &str)]) -> Self {
        let sidecar = app.spec.sidecar.as_ref();
        let address = sidecar.map_or_else(|| format!("127.0.0.1:{}", free_port()), Sidecar::address);
        let own = [
            ("TOKEN", TOKEN.to_owned()),
            ("REPO", REPO.to_owned()),
            ("GITHUB_API", lab.releases.url()),
            ("APP_NAME", app.spec.app_name.clone()),
            ("APP_CONTAINER", app.container.clone()),
            ("APP_SERVICE", app.spec.service.clone()),
            ("VERSION_KEY", app.spec.version_key.clone()),
            ("HEALTH_TIMEOUT", "20s".to_owned()),
            ("HEALTH_INTERVAL", "1s".to_owned()),
            ("HEALTH_STABLE", "1s".to_owned()),
            ("STUB", "false".to_owned()),
            ("DEBUG", "true".to_owned()),
        ];
        let of_its_place =
            sidecar.map_or_else(|| Process::settings(lab, app, &address), |sidecar| sidecar.settings(app));
        let given = settings.iter().map(|(name, value)| (*name, (*value).to_owned()));
        let settings: Settings = own
            .into_iter()
            .chain(of_its_place)
            .chain(given)
            .map(|(name, value)| (format!("PROCESSGIT_UPDATER_{name}"), value))
            .collect();
        let life: Box<dyn Life> = match sidecar {
            Some(_) => Box::new(Container::new(program, lab, app, &settings)),
            None => Box::new(Process::new(program, lab, &settings)),
        };
        let mut updater = Self { life, base: format!("http://{address}"), settings, variables: Settings::new() };
        updater.restart();
        updater
    }

    /// Starts it anew, ending the one that runs, and waits until it answers.
    pub fn restart(&mut self) {
        self.kill9();
        self.spawn();
        self.await_answer();
    }

    /// Waits until it answers.
    pub fn await_answer(&mut self) {
        eventually("an answer of /healthz", Duration::from_secs(20), || {
            let ended = self.life.ended();
            assert!(ended.is_none(), "the updater ended at its start ({ended:?}):\n{}", self.log_text());
            http::get(&format!("{}/healthz", self.base)).ok().filter(|answer| answer.status == 200)
        });
    }

    /// Starts it; it does not answer yet.
    pub fn spawn(&mut self) {
        self.life.spawn(&self.variables);
    }

    /// Why it runs no more; `None` while it does.
    pub fn ended(&mut self) -> Option<String> {
        self.life.ended()
    }

    /// The program with the settings of this updater, for the commands that talk to it.
    pub fn command(&self) -> Command {
        self.life.command()
    }

    /// The same, as one types it.
    pub fn command_text(&self) -> &'static str {
        self.life.command_text()
    }

    /// Its settings, as environment variables.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The process's number.
    pub fn pid(&self) -> u32 {
        self.life.pid()
    }

    pub fn kill9(&mut self) {
        self.life.kill9();
    }

    /// Kills it and removes its container; it is made anew at the next start.
    pub fn remove(&mut self) {
        self.kill9();
        self.life.remove();
    }

    /// Asks it to end, and waits until it has.
    pub fn sigterm(&mut self) -> ExitStatus {
        self.life.sigterm()
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

    /// As [`Self::wait_for_end`], of a job in which the updater itself is away for a while.
    pub fn wait_out(&self, id: &str) -> Job {
        eventually(&format!("the end of job {id}"), PATIENCE, || {
            let request = http::client().get(format!("{}/update/{id}", self.base)).bearer_auth(TOKEN);
            let answer = http::send(request).ok().filter(|answer| answer.status == 200)?;
            Some(Job(answer.json())).filter(Job::has_ended)
        })
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
        self.life.log_text()
    }

    /// The lines that are JSON.
    pub fn log(&self) -> Vec<Value> {
        self.log_text().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Memory in use: all that is resident, and of it what is no part of a file (the program itself is
    /// one, and its pages can be had again).
    pub fn memory(&self) -> Memory {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
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
