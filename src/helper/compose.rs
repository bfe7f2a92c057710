//! Compose, where the project's paths are true.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;

use super::own::OwnContainer;
use super::paths;
use super::session::{Ear, Helpers, Kind};
use super::wire::Call;
use crate::engine::compose::ComposeCli;
use crate::engine::planned_files::PlannedFiles;
use crate::engine::{Compose, ComposeConfig, DryRun, EngineError, Mount, PlannedProjects, Project, Result, Written};
use crate::update::ports::EnvError;

/// So many files outside of the project's folders are looked for before Compose's complaint is believed.
const MOST_FILES: usize = 64;
/// The calls of one planning share what was found out.
const FRESH: Duration = Duration::from_secs(5);

/// In process on the host; in a container by a helper.
pub struct PlacedCompose {
    helpers: Arc<Helpers>,
    local: ComposeCli,
    planned: PlannedFiles,
    known: Mutex<Known>,
}

/// What was found out about a project's files.
#[derive(Default)]
struct Known {
    /// Files of the host, outside of the project's folders, that its Compose files name.
    outside: Vec<PathBuf>,
    /// For which project, with what result, and when.
    last: Option<(Project, Vec<Mount>, Instant)>,
}

impl Known {
    fn mounts(&self, project: &Project, oldest: Option<Duration>) -> Option<Vec<Mount>> {
        let (of, mounts, at) = self.last.as_ref()?;
        (of == project && oldest.is_none_or(|oldest| at.elapsed() < oldest)).then(|| mounts.clone())
    }
}

impl PlacedCompose {
    pub fn new(helpers: Arc<Helpers>, local: ComposeCli, planned: PlannedFiles) -> Self {
        Self { helpers, local, planned, known: Mutex::default() }
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        own: &OwnContainer,
        project: &Project,
        call: Call,
        lines: Option<mpsc::Sender<String>>,
    ) -> Result<T> {
        // A swap goes by what the planning has found: the application may be down.
        let is_look =
            matches!(call, Call::ComposeConfig { .. } | Call::ComposeWritten { .. } | Call::ComposeDryRun { .. });
        let oldest = is_look.then_some(FRESH);
        // A planned configuration lies in the state folder, which every helper sees.
        let project = self.planned.original(project.clone()).await;
        let mounts = self.mounts(own, &project, oldest).await?;
        let ear = lines.as_ref().map_or(Ear::Nobody, Ear::Lines);
        self.helpers.call(own, Kind::Deployment, &mounts, &call, ear).await
    }

    /// Everything that the Compose files name must be seen, wherever the host has it. What Compose demands
    /// it names when it is missing; what is optional it passes over in silence, so that is looked for first.
    async fn mounts(&self, own: &OwnContainer, project: &Project, oldest: Option<Duration>) -> Result<Vec<Mount>> {
        let mut known = self.known.lock().await;
        if let Some(mounts) = known.mounts(project, oldest) {
            return Ok(mounts);
        }
        let mut absent: Vec<PathBuf> = Vec::new();
        // The host may not have these (any more). If it lacks one of several, they are tried one by one.
        let (mut doubtful, mut queue): (Vec<PathBuf>, Vec<PathBuf>) = (known.outside.clone(), Vec::new());
        for _ in 0..MOST_FILES {
            let mounts = paths::of_project(project, &known.outside).map_err(EngineError::Failed)?;
            let is_shown = |file: &PathBuf| mounts.iter().any(|m| file.starts_with(&m.destination));
            let named = match self.look(own, project, &mounts).await {
                Look::NotMade(error) if error.is_unreachable() => return Err(error),
                Look::NotMade(EngineError::SourceGone { path, .. }) if doubtful.is_empty() => {
                    return Err(EngineError::ProjectGone { path });
                }
                Look::NotMade(error) if doubtful.is_empty() => return Err(error),
                Look::NotMade(_) => {
                    known.outside.retain(|file| !doubtful.contains(file));
                    match &mut *doubtful {
                        [one] => absent.push(std::mem::take(one)),
                        several => queue.extend(several.iter().cloned()),
                    }
                    Vec::new()
                }
                Look::Names(named) => named,
                Look::Complains(error) => {
                    let named = paths::named_in(&error.to_string());
                    if error.is_unreachable() || !named.iter().any(|file| !is_shown(file) && !absent.contains(file)) {
                        return Err(error);
                    }
                    named
                }
            };
            doubtful = named.into_iter().filter(|file| !is_shown(file) && !absent.contains(file)).collect();
            if doubtful.is_empty() {
                doubtful.extend(queue.pop());
            }
            if doubtful.is_empty()
                && mounts == paths::of_project(project, &known.outside).map_err(EngineError::Failed)?
            {
                known.last = Some((project.clone(), mounts.clone(), Instant::now()));
                return Ok(mounts);
            }
            known.outside.extend(doubtful.iter().cloned());
        }
        Err(EngineError::Failed(format!("the Compose files name more than {MOST_FILES} files outside of the project")))
    }

    /// Does Compose find what it needs? Then the optional files that the Compose files name.
    async fn look(&self, own: &OwnContainer, project: &Project, mounts: &[Mount]) -> Look {
        let mut named = Vec::new();
        for file in &project.config_files {
            let call = Call::Read { path: file.clone() };
            let bytes: std::result::Result<Option<Vec<u8>>, EnvError> =
                self.helpers.call(own, Kind::Deployment, mounts, &call, Ear::Nobody).await;
            let bytes = match bytes {
                Err(EnvError::Engine(error)) => return Look::NotMade(error),
                // Compose will say it better.
                other => other.unwrap_or_default(),
            };
            let text = String::from_utf8_lossy(bytes.as_deref().unwrap_or_default()).into_owned();
            named.extend(paths::env_files_in(&text, &project.working_dir));
        }
        let call = Call::ComposeConfig { project: project.clone(), env: None };
        let config: Result<ComposeConfig> = self.helpers.call(own, Kind::Deployment, mounts, &call, Ear::Nobody).await;
        let config = match config {
            Ok(config) => config,
            Err(error) => return Look::Complains(error),
        };
        let files = config.secrets.values().chain(config.configs.values()).filter_map(|object| object.file.as_ref());
        named.extend(files.map(PathBuf::from));
        named.retain(|file| paths::can_be_shown(file));
        Look::Names(named)
    }
}

/// What came of a look through a helper.
enum Look {
    /// There is no helper with these mounts: the host lacks one of them, or the engine cannot be asked.
    NotMade(EngineError),
    /// Compose does not find what it demands.
    Complains(EngineError),
    /// It does; further files that are named.
    Names(Vec<PathBuf>),
}

#[async_trait]
impl Compose for PlacedCompose {
    async fn version(&self) -> Result<String> {
        let Some(own) = self.helpers.own().await? else { return self.local.version().await };
        self.helpers.call(&own, Kind::Deployment, &[], &Call::ComposeVersion, Ear::Nobody).await
    }

    async fn config(&self, project: &Project, env: Option<&[u8]>) -> Result<ComposeConfig> {
        let Some(own) = self.helpers.own().await? else { return self.local.config(project, env).await };
        let call = Call::ComposeConfig { project: project.clone(), env: env.map(<[u8]>::to_vec) };
        self.ask(&own, project, call, None).await
    }

    async fn written(&self, project: &Project) -> Result<Written> {
        let Some(own) = self.helpers.own().await? else { return self.local.written(project).await };
        // It is asked for where the files cannot be resolved, too: what they name outside of the project's folders is
        // not looked for.
        let mounts = paths::of_project(project, &[]).map_err(EngineError::Failed)?;
        let call = Call::ComposeWritten { project: project.clone() };
        self.helpers.call(&own, Kind::Deployment, &mounts, &call, Ear::Nobody).await
    }

    async fn dry_run(&self, project: &Project, service: &str) -> Result<DryRun> {
        let Some(own) = self.helpers.own().await? else { return self.local.dry_run(project, service).await };
        let call = Call::ComposeDryRun { project: project.clone(), service: service.to_owned() };
        self.ask(&own, project, call, None).await
    }

    async fn up(&self, project: &Project, lines: mpsc::Sender<String>) -> Result<()> {
        let Some(own) = self.helpers.own().await? else { return self.local.up(project, lines).await };
        self.ask(&own, project, Call::ComposeUp { project: project.clone() }, Some(lines)).await
    }

    async fn create(&self, project: &Project, config: &ComposeConfig) -> Result<()> {
        let Some(own) = self.helpers.own().await? else { return self.local.create(project, config).await };
        let call = Call::ComposeCreate { project: project.clone(), config: config.clone() };
        self.ask(&own, project, call, None).await
    }

    async fn run(&self, project: &Project, config: &ComposeConfig, env: Option<&[u8]>) -> Result<()> {
        let Some(own) = self.helpers.own().await? else { return self.local.run(project, config, env).await };
        let (config, env) = (config.clone(), env.map(<[u8]>::to_vec));
        self.ask(&own, project, Call::ComposeRun { project: project.clone(), config, env }, None).await
    }

    async fn stop(&self, project: &Project, service: &str, lines: mpsc::Sender<String>) -> Result<()> {
        let Some(own) = self.helpers.own().await? else { return self.local.stop(project, service, lines).await };
        let call = Call::ComposeStop { project: project.clone(), service: service.to_owned() };
        self.ask(&own, project, call, Some(lines)).await
    }

    async fn start(&self, project: &Project, service: &str, lines: mpsc::Sender<String>) -> Result<()> {
        let Some(own) = self.helpers.own().await? else { return self.local.start(project, service, lines).await };
        let call = Call::ComposeStart { project: project.clone(), service: service.to_owned() };
        self.ask(&own, project, call, Some(lines)).await
    }
}
