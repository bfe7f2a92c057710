//! Compose, as a child process. Its binary is the CLI's plugin, which also runs by itself: that saves the
//! start of the CLI.

mod environment;
mod trial;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{env, io};

use async_trait::async_trait;
use serde::Deserialize;
use tokio::sync::{Mutex, OnceCell, OwnedMutexGuard, mpsc};

use super::memory_file::MemoryFile;
use super::spawner::{self, Finished, Program};
use super::{Compose, ComposeConfig, DryRun, EngineError, Project, Result, Touch, Written};
use crate::envfile;
use environment::{DOCKER_HOST, environment};

/// Deadline of a call that only looks.
const LOOK: Duration = Duration::from_secs(60);
/// Deadline of a swap. The application's own stop timeout is part of it.
const SWAP: Duration = Duration::from_secs(10 * 60);
/// The most that a resolved configuration may be, in bytes.
const LARGEST_CONFIG: usize = 16 * 1024 * 1024;
/// The most that the other commands may print, in bytes.
const MOST_TALK: usize = 1024 * 1024;
/// How many of the last lines go into an error.
const LINES_IN_ERROR: usize = 5;

/// Where plugins of the Docker CLI are installed, after the user's own folder.
const PLUGIN_FOLDERS: [&str; 4] = [
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
];

/// What a dry run says of a container that stays as it is, or is only started again: one that was stopped,
/// or that runs once and had ended.
const UNTOUCHED: [&str; 7] = ["Running", "Waiting", "Healthy", "Exists", "Starting", "Started", "Exited"];

/// Nothing but the services that are named is made, of images that are at hand.
const UP: [&str; 7] = ["up", "-d", "--no-deps", "--no-build", "--remove-orphans=false", "--pull", "never"];

/// Options of `config` with which it prints the files as they are, only merged.
const AS_WRITTEN: [&str; 4] = ["--no-interpolate", "--no-normalize", "--no-path-resolution", "--no-env-resolution"];
/// As [`UP`], and what is there is only started.
const START: [&str; 8] =
    ["up", "-d", "--no-deps", "--no-build", "--no-recreate", "--remove-orphans=false", "--pull", "never"];

/// As [`START`], and nothing is started.
const CREATE: [&str; 6] = ["create", "--no-build", "--no-recreate", "--remove-orphans=false", "--pull", "never"];

/// Compose v2 or later, run where the project's paths are true.
pub struct ComposeCli {
    candidates: Vec<PathBuf>,
    found: OnceCell<Binary>,
    /// Two `up` at once fail with a conflict of names.
    swap: Arc<Mutex<()>>,
    /// The last project that was asked about, and the profiles it has to be read with.
    profiles: Mutex<Option<(Project, Profiles)>>,
}

/// Which profiles are enabled. `up SERVICE` enables that service's own, but not those of what it depends on;
/// which ones the operator's shell had when the containers were made is recorded nowhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Profiles {
    /// Those that the project's environment selects.
    #[default]
    Selected,
    /// The project is not whole without others. With `--no-deps` no service is made for that.
    All,
}

impl Profiles {
    fn options(self) -> &'static [&'static str] {
        match self {
            Profiles::Selected => &[],
            Profiles::All => &["--profile", "*"],
        }
    }
}

#[derive(Debug, Clone)]
struct Binary {
    path: PathBuf,
    version: String,
}

impl ComposeCli {
    /// Looks where Docker's CLI would look: `docker-compose` in `PATH`, then the plugin folders.
    pub fn from_environment() -> Self {
        Self::new(candidates(env::var_os("PATH"), env::var_os("DOCKER_CONFIG"), env::var_os("HOME")))
    }

    /// Uses the first of these files that is Compose v2 or later. It is looked for at the first use.
    pub fn new(candidates: Vec<PathBuf>) -> Self {
        Self { candidates, found: OnceCell::new(), swap: Arc::default(), profiles: Mutex::default() }
    }

    async fn binary(&self) -> Result<&Binary> {
        self.found.get_or_try_init(|| self.find()).await
    }

    async fn find(&self) -> Result<Binary> {
        let mut seen = Vec::new();
        for path in &self.candidates {
            match version_of(path).await {
                Ok(Some(version)) if is_v2(&version) => return Ok(Binary { path: path.clone(), version }),
                Ok(Some(version)) => seen.push(format!("{} is version {version}", path.display())),
                Ok(None) => seen.push(format!("{} is not there", path.display())),
                Err(error) => seen.push(error),
            }
        }
        Err(EngineError::Failed(format!(
            "no Docker Compose v2 or later was found ({}): install the docker-compose-plugin package, or put docker-compose v2 into PATH",
            seen.join("; ")
        )))
    }

    /// Runs `docker-compose` for the project to its end.
    async fn execute(&self, project: &Project, command: Command<'_>) -> Result<Finished> {
        check_paths(project).await?;
        let in_env = variables_in_env(project).await;
        let program = Program {
            path: self.binary().await?.path.clone(),
            args: arguments(project, environment::host(env::var_os(DOCKER_HOST)), &command),
            env: environment(env::vars_os(), Some(project), &in_env),
            folder: Some(project.working_dir.clone().into()),
            deadline: command.deadline,
            most_output: command.most_output,
            stdout_is_data: command.stdout_is_data,
            files: [command.env, command.file].into_iter().flatten().cloned().collect(),
        };
        let doing = format!("compose {} for {}", command.name, project.service);
        let finished = spawner::run(program, command.lines, command.held).await;
        let finished = finished.map_err(|error| EngineError::Failed(format!("{doing}: {error}")))?;
        if finished.status.success() {
            return Ok(finished);
        }
        Err(EngineError::Failed(format!("{doing} ended with {}: {}", finished.status, last_words(&finished.tail))))
    }

    /// Resolves the project, and finds out with which profiles it can be.
    async fn resolve(&self, project: &Project, env: Option<&MemoryFile>) -> Result<(ComposeConfig, Profiles)> {
        let selected = self.resolve_with(project, env, Profiles::Selected).await;
        let is_whole = |config: &ComposeConfig| project.moved().all(|service| config.service(service).is_some());
        let resolved = match selected {
            Ok(config) if is_whole(&config) => (config, Profiles::Selected),
            // What it says without other profiles is what the operator knows.
            Err(error) => match self.resolve_with(project, env, Profiles::All).await {
                Ok(config) => (config, Profiles::All),
                Err(_) => return Err(error),
            },
            Ok(_) => (self.resolve_with(project, env, Profiles::All).await?, Profiles::All),
        };
        *self.profiles.lock().await = Some((project.clone(), resolved.1));
        Ok(resolved)
    }

    /// As the last look at this project has found; `None`: there was none.
    async fn known_profiles(&self, project: &Project) -> Option<Profiles> {
        self.profiles.lock().await.as_ref().filter(|(of, _)| of == project).map(|(_, profiles)| *profiles)
    }

    async fn profiles(&self, project: &Project) -> Result<Profiles> {
        match self.known_profiles(project).await {
            Some(profiles) => Ok(profiles),
            None => self.resolve(project, None).await.map(|(_, profiles)| profiles),
        }
    }

    async fn dry_run_with(&self, project: &Project, service: &str, profiles: Profiles) -> Result<DryRun> {
        let command = Command {
            name: "up --dry-run",
            profiles,
            global: &["--progress", "json", "--dry-run"],
            args: &[UP.as_slice(), &[service]].concat(),
            deadline: LOOK,
            most_output: MOST_TALK,
            stdout_is_data: false,
            env: None,
            file: None,
            lines: None,
            held: None,
        };
        let finished = self.execute(project, command).await?;
        // Which stream carries the progress differs between versions.
        let said = [finished.stdout, b"\n".to_vec(), finished.stderr].concat();
        Ok(read_dry_run(&String::from_utf8_lossy(&said)))
    }

    async fn resolve_with(
        &self,
        project: &Project,
        env: Option<&MemoryFile>,
        profiles: Profiles,
    ) -> Result<ComposeConfig> {
        self.read(project, Ask { env, profiles, ..Ask::default() }).await
    }

    /// With a configuration of its own, which no file on the disk has.
    async fn alone(
        &self,
        project: &Project,
        config: &ComposeConfig,
        env: Option<&[u8]>,
        name: &str,
        args: &[&str],
    ) -> Result<()> {
        let project = Project { name: config.name.clone(), service: config.name.clone(), ..project.clone() };
        let in_memory = || Ok((MemoryFile::new(&config.as_file()?)?, env.map(MemoryFile::new).transpose()?));
        let (file, env) = in_memory().map_err(|error: io::Error| {
            EngineError::Failed(format!("compose {name} for {}: its configuration: {error}", project.service))
        })?;
        let args: Vec<&str> = args.iter().copied().chain([config.name.as_str()]).collect();
        let change = Change { name, args: &args, file: Some(&file), env: env.as_ref(), ..Change::default() };
        // What Compose says of it is of interest only in an error, which holds the end of it.
        let (lines, _) = mpsc::channel(1);
        self.change(&project, change, lines).await
    }

    /// One at a time.
    async fn change(&self, project: &Project, change: Change<'_>, lines: mpsc::Sender<String>) -> Result<()> {
        let one_at_a_time = self.swap.clone().lock_owned().await;
        let command = Command {
            name: change.name,
            profiles: change.profiles,
            global: &["--progress", "plain"],
            args: change.args,
            deadline: SWAP,
            most_output: MOST_TALK,
            stdout_is_data: false,
            env: change.env,
            file: change.file,
            lines: Some(lines),
            held: Some(one_at_a_time),
        };
        self.execute(project, command).await.map(|_| ())
    }

    async fn read(&self, project: &Project, ask: Ask<'_>) -> Result<ComposeConfig> {
        let answer = self.print(project, ask).await?;
        ComposeConfig::from_compose(&answer).map_err(|error| {
            EngineError::Failed(format!("compose config for {}: the answer cannot be read: {error}", project.service))
        })
    }

    /// What `config` prints.
    async fn print(&self, project: &Project, ask: Ask<'_>) -> Result<Vec<u8>> {
        let args = [&["config", "--format", "json"], ask.more].concat();
        let command = Command {
            name: "config",
            profiles: ask.profiles,
            global: &[],
            args: &args,
            deadline: LOOK,
            most_output: LARGEST_CONFIG,
            stdout_is_data: true,
            env: ask.env,
            file: ask.file,
            lines: None,
            held: None,
        };
        Ok(self.execute(project, command).await?.stdout)
    }
}

/// How the project is to be resolved.
#[derive(Debug, Clone, Copy, Default)]
struct Ask<'a> {
    profiles: Profiles,
    /// Options after `config`.
    more: &'a [&'a str],
    /// As [`Command`] has them.
    env: Option<&'a MemoryFile>,
    file: Option<&'a MemoryFile>,
}

/// One run of `docker-compose`.
struct Command<'a> {
    /// For errors: `up`.
    name: &'a str,
    profiles: Profiles,
    /// Options before the command.
    global: &'a [&'a str],
    args: &'a [&'a str],
    deadline: Duration,
    most_output: usize,
    stdout_is_data: bool,
    /// In the place of the environment file that selects the version.
    env: Option<&'a MemoryFile>,
    /// In the place of the Compose files.
    file: Option<&'a MemoryFile>,
    lines: Option<mpsc::Sender<String>>,
    /// Released when the child has ended, also when nobody waits for it any more.
    held: Option<OwnedMutexGuard<()>>,
}

#[async_trait]
impl Compose for ComposeCli {
    async fn version(&self) -> Result<String> {
        Ok(self.binary().await?.version.clone())
    }

    async fn config(&self, project: &Project, env: Option<&[u8]>) -> Result<ComposeConfig> {
        let in_memory = env.map(MemoryFile::new).transpose().map_err(|error| {
            EngineError::Failed(format!("compose config for {}: a copy of .env: {error}", project.service))
        })?;
        let (mut config, profiles) = self.resolve(project, in_memory.as_ref()).await?;
        if in_memory.is_some() {
            let ask = Ask { env: in_memory.as_ref(), profiles, ..Ask::default() };
            trial::complete(self, project, ask, &mut config).await?;
        }
        Ok(config)
    }

    async fn written(&self, project: &Project) -> Result<Written> {
        // With all profiles: Compose replaces the variables of every service, also of one that is not enabled.
        let answer = self.print(project, Ask { more: &AS_WRITTEN, profiles: Profiles::All, ..Ask::default() }).await?;
        let files = serde_json::from_slice(&answer).map_err(|error| {
            EngineError::Failed(format!("compose config for {}: the answer cannot be read: {error}", project.service))
        })?;
        Ok(Written { files, assigned: variables_in_env(project).await })
    }

    async fn dry_run(&self, project: &Project, service: &str) -> Result<DryRun> {
        // While planning it runs beside the looks that find the profiles out.
        let known = self.known_profiles(project).await;
        let first = self.dry_run_with(project, service, known.unwrap_or(Profiles::Selected)).await;
        match first {
            Err(error) if known.is_none() => match self.profiles(project).await {
                Ok(Profiles::All) => self.dry_run_with(project, service, Profiles::All).await,
                _ => Err(error),
            },
            done => done,
        }
    }

    async fn up(&self, project: &Project, lines: mpsc::Sender<String>) -> Result<()> {
        let args: Vec<&str> = UP.into_iter().chain(project.moved()).collect();
        let profiles = self.profiles(project).await?;
        self.change(project, Change { name: "up", profiles, args: &args, ..Change::default() }, lines).await
    }

    async fn create(&self, project: &Project, config: &ComposeConfig) -> Result<()> {
        self.alone(project, config, None, "create", &CREATE).await
    }

    async fn run(&self, project: &Project, config: &ComposeConfig, env: Option<&[u8]>) -> Result<()> {
        self.alone(project, config, env, "up", &START).await
    }

    async fn stop(&self, project: &Project, service: &str, lines: mpsc::Sender<String>) -> Result<()> {
        let profiles = self.profiles(project).await?;
        self.change(project, Change { name: "stop", profiles, args: &["stop", service], ..Change::default() }, lines)
            .await
    }

    async fn start(&self, project: &Project, service: &str, lines: mpsc::Sender<String>) -> Result<()> {
        let args: Vec<&str> = START.into_iter().chain([service]).collect();
        let profiles = self.profiles(project).await?;
        self.change(project, Change { name: "start", profiles, args: &args, ..Change::default() }, lines).await
    }
}

/// A command that changes containers.
#[derive(Default)]
struct Change<'a> {
    /// As [`Command`] has them.
    name: &'a str,
    profiles: Profiles,
    args: &'a [&'a str],
    env: Option<&'a MemoryFile>,
    file: Option<&'a MemoryFile>,
}

/// The files that may be Compose, in the order in which they are tried.
fn candidates(path: Option<OsString>, docker_config: Option<OsString>, home: Option<OsString>) -> Vec<PathBuf> {
    let in_path: Vec<PathBuf> = path.iter().flat_map(env::split_paths).collect();
    let users = docker_config.map(PathBuf::from).or_else(|| home.map(|home| Path::new(&home).join(".docker")));
    let users = users.map(|folder| folder.join("cli-plugins"));
    let folders = in_path.into_iter().chain(users).chain(PLUGIN_FOLDERS.map(PathBuf::from));
    let mut files: Vec<PathBuf> = Vec::new();
    for file in folders.filter(|folder| folder.is_absolute()).map(|folder| folder.join("docker-compose")) {
        if !files.contains(&file) {
            files.push(file);
        }
    }
    files
}

/// What the file says its version is; `None` when there is no such file.
async fn version_of(path: &Path) -> std::result::Result<Option<String>, String> {
    match tokio::fs::metadata(path).await {
        Ok(file) if file.is_file() => {}
        Ok(_) => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("{}: {error}", path.display())),
    }
    let program = Program {
        path: path.to_owned(),
        args: ["version", "--short"].map(OsString::from).to_vec(),
        env: environment(env::vars_os(), None, &BTreeSet::new()),
        folder: None,
        deadline: LOOK,
        most_output: MOST_TALK,
        stdout_is_data: false,
        files: Vec::new(),
    };
    let finished = spawner::run(program, None, ()).await.map_err(|error| error.to_string())?;
    let version = String::from_utf8_lossy(&finished.stdout).trim().trim_start_matches('v').to_owned();
    if finished.status.success() && !version.is_empty() {
        return Ok(Some(version));
    }
    Err(format!("{} told no version: {}", path.display(), last_words(&finished.tail)))
}

fn is_v2(version: &str) -> bool {
    version.split('.').next().and_then(|major| major.parse::<u32>().ok()).is_some_and(|major| major >= 2)
}

/// Compose would resolve a path that is not true here against the wrong folder, and succeed. It runs where all that
/// the container's labels name can be seen, if the host has it.
async fn check_paths(project: &Project) -> Result<()> {
    let gone = |path: &str| EngineError::ProjectGone { path: path.to_owned() };
    if project.config_files.is_empty() {
        let service = &project.service;
        return Err(EngineError::Failed(format!("compose for {service}: the project names no Compose file")));
    }
    if !tokio::fs::metadata(&project.working_dir).await.is_ok_and(|folder| folder.is_dir()) {
        return Err(gone(&project.working_dir));
    }
    for file in project.config_files.iter().chain(&project.env_files) {
        if !Path::new(file).is_absolute() {
            let service = &project.service;
            return Err(EngineError::Failed(format!(
                "compose for {service}: the project was started with {file:?}, which is no absolute path: start it from a file"
            )));
        }
        if tokio::fs::metadata(file).await.is_err() {
            return Err(gone(file));
        }
    }
    Ok(())
}

/// The variables to which the project's environment files give a value. What cannot be read Compose will
/// complain of itself.
async fn variables_in_env(project: &Project) -> BTreeSet<String> {
    let mut variables = BTreeSet::new();
    for file in project.environment_files() {
        if let Ok(Some(bytes)) = envfile::aio::read(file.into()).await {
            variables.extend(envfile::assigned(&bytes));
        }
    }
    variables
}

fn arguments(project: &Project, host: OsString, command: &Command<'_>) -> Vec<OsString> {
    let mut args: Vec<&str> = command.global.to_vec();
    args.extend(command.profiles.options());
    args.extend(["-p", &project.name, "--project-directory", &project.working_dir]);
    let memory = |file: Option<&MemoryFile>| file.map(MemoryFile::path);
    let (file, env) = (memory(command.file), memory(command.env));
    match &file {
        Some(file) => args.extend(["-f", file]),
        None => args.extend(project.config_files.iter().flat_map(|file| ["-f", file])),
    }
    let mut env_files = project.env_files.clone();
    if let Some(env) = env {
        // The last one selects the version.
        env_files.pop();
        env_files.push(env);
    }
    args.extend(env_files.iter().flat_map(|file| ["--env-file", file]));
    args.extend(command.args);
    ["--host".into(), host].into_iter().chain(args.into_iter().map(OsString::from)).collect()
}

/// A line of `--progress json`. Compose 2 says what it does in `status`; Compose 5 in `text`, with a mere
/// `Working` or `Done` in `status`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Said {
    id: String,
    status: String,
    text: String,
    message: String,
}

fn read_dry_run(output: &str) -> DryRun {
    let (mut actions, mut touches) = (Vec::new(), Vec::new());
    let mut left_alone = false;
    for line in output.lines().map(str::trim) {
        let Ok(said) = serde_json::from_str::<Said>(line) else {
            // With no one to ask, Compose prints its question and takes no for an answer.
            if line.ends_with('?') {
                actions.push(line.to_owned());
                touches.extend(volume_in(line).and_then(|name| Touch::of(&format!("Volume {name}"), line)));
            }
            continue;
        };
        let action = if said.text.is_empty() { said.status } else { said.text };
        let of_container = said.id.starts_with("Container ");
        if !action.is_empty() && !UNTOUCHED.contains(&action.as_str()) {
            touches.extend(Touch::of(&said.id, &action));
        }
        match (UNTOUCHED.contains(&action.as_str()), of_container) {
            (true, _) => left_alone |= of_container,
            (false, true) => actions.push(action),
            (false, false) => actions.push(format!("{} {action}", said.id).trim().to_owned()),
        }
    }
    actions.retain(|action| !action.is_empty());
    DryRun { unchanged: left_alone && actions.is_empty(), actions, touches }
}

/// `Volume "shop_data" exists but doesn't match configuration …`
fn volume_in(question: &str) -> Option<&str> {
    question.split_once("Volume \"")?.1.split_once('"').map(|(name, _)| name)
}

/// The end of what Compose said, for an error.
fn last_words(tail: &[String]) -> String {
    let mut words: Vec<String> = Vec::new();
    for line in tail.iter().map(|line| plain(line)).filter(|line| !line.is_empty()) {
        // The error comes twice: with the container's name in the progress, and at the end.
        words.retain(|said| !line.contains(said.as_str()) && !said.ends_with(&line));
        words.push(line);
    }
    words.drain(..words.len().saturating_sub(LINES_IN_ERROR));
    if words.is_empty() { "it said nothing".into() } else { words.join("; ") }
}

/// A line of progress as a person would write it.
fn plain(line: &str) -> String {
    let Ok(said) = serde_json::from_str::<Said>(line) else { return line.trim().to_owned() };
    let parts = [said.id, if said.text.is_empty() { said.status } else { said.text }, said.message];
    parts.iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
