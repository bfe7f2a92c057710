//! The deputy, from the updater's side: a container of the image that runs now, which updates the
//! updater's own container and outlives it. Its side is [`crate::deputy`].
//!
//! It is looked for before it is made, so that the updater that the deputy has put in place, or brought
//! back, waits for the same one.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tokio::time::sleep;

use super::own::OwnContainer;
use super::session::Helpers;
use crate::command::line;
use crate::engine::seal::name_of;
use crate::engine::{Container, ContainerSpec, Engine, EngineError, RestartPolicy, RunState, label};
use crate::release::{Channel, ReleaseSource};
use crate::store::Store;
use crate::update::Request;
use crate::update::job::{Job, JobId};
use crate::update::ports::{Deputy, DeputyError, Journal};

const ROLE: &str = "deputy";
/// Between two looks at a deputy that the engine restarts, or at an engine that is away.
const PAUSE: Duration = Duration::from_millis(500);
/// A deputy that has vanished without a verdict is made anew so often.
const MOST_DEPUTIES: u32 = 5;

/// Where the deputy keeps its own journal, below the updater's state folder.
pub fn state_dir(of_updater: &std::path::Path) -> PathBuf {
    of_updater.join("self")
}

/// Makes deputies.
pub struct ContainerDeputy {
    engine: Arc<dyn Engine>,
    helpers: Arc<Helpers>,
    releases: Arc<dyn ReleaseSource>,
}

impl ContainerDeputy {
    /// `releases` are the updater's own.
    pub fn new(engine: Arc<dyn Engine>, helpers: Arc<Helpers>, releases: Arc<dyn ReleaseSource>) -> Self {
        Self { engine, helpers, releases }
    }

    /// The own container, if somebody else can put another one in its place.
    async fn replaceable(&self) -> Result<Arc<OwnContainer>, DeputyError> {
        let Some(own) = self.helpers.own().await? else { return Err(DeputyError::OnHost) };
        if own.container.label(label::SERVICE).is_none() {
            return Err(DeputyError::NotByCompose { container: own.container.name.clone() });
        }
        Ok(own)
    }

    /// What the deputy's journal says of the job; `None` while it has not ended.
    async fn verdict(&self, job: &JobId) -> Result<Option<Job>, DeputyError> {
        let folder = state_dir(&self.helpers.options().state_dir);
        if !tokio::fs::try_exists(&folder).await.unwrap_or_default() {
            return Ok(None);
        }
        let opened = tokio::task::spawn_blocking(move || Store::open(&folder)).await;
        let store = match opened.map_err(|e| DeputyError::Lost(e.to_string()))? {
            Ok(store) => store,
            // It is at work again.
            Err(crate::store::StoreError::Locked { .. }) => return Ok(None),
            Err(e) => return Err(DeputyError::Lost(format!("the deputy's journal: {e}"))),
        };
        let found = store.job(&job.0).await.map_err(|e| DeputyError::Lost(e.to_string()))?;
        Ok(found.filter(|job| job.state.is_end()))
    }

    fn is_ours(&self, deputy: &Container, job: &JobId, sealed: bool) -> bool {
        self.helpers.options().seal.read_of(deputy, job, sealed).is_some()
    }

    async fn make(&self, own: &OwnContainer, job: &JobId, request: &Request) -> Result<(), EngineError> {
        let spec = self.helpers.options().seal.put_on(specification(own, job, request)?);
        let id = self.engine.create(&spec).await?;
        // Before it is started: what dies in between is found `created` and started.
        self.engine.set_restart_policy(&id, &RestartPolicy::unless_stopped()).await?;
        self.engine.start(&id).await
    }
}

fn name(job: &JobId) -> String {
    name_of(ROLE, job)
}

/// The updater's own container, under another command and name, without its ports and labels.
fn specification(own: &OwnContainer, job: &JobId, request: &Request) -> Result<ContainerSpec, EngineError> {
    let container = &own.container;
    let program = std::env::current_exe().map_err(|e| EngineError::Failed(format!("the own program: {e}")))?;
    let (config, host) = (&container.raw["Config"], &container.raw["HostConfig"]);
    let list = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
    };
    let flags = [
        ("--allow-downgrade", request.allow_downgrade),
        ("--accept-drift", request.accept_drift),
        ("--retry", request.retry),
        ("--accept-unwell", request.accept_unwell),
    ];
    let flags = flags.into_iter().filter(|(_, set)| *set).map(|(flag, _)| flag.to_owned());
    let mut command = vec!["deputy".to_owned()];
    command.extend(flags);
    command.extend([job.0.clone(), request.target_tag.clone(), container.name.clone()]);
    // Settings that were given as flags of `serve`.
    command.extend(list(&config["Cmd"]).into_iter().filter(|word| word != "serve"));
    let tmpfs = host["Tmpfs"].as_object().into_iter().flatten();
    Ok(ContainerSpec {
        name: name(job),
        image: container.image_id.clone(),
        entrypoint: Some(vec![program.display().to_string()]),
        command: Some(command),
        env: list(&config["Env"]),
        user: config["User"].as_str().filter(|user| !user.is_empty()).map(str::to_owned),
        labels: [
            (label::DEPUTY_OF, job.0.clone()),
            (label::ROLE, ROLE.to_owned()),
            (label::OWNER, container.name.clone()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into(),
        mounts: container.mounts.clone(),
        networks: container.reachable_networks(),
        extra_hosts: list(&host["ExtraHosts"]),
        group_add: list(&host["GroupAdd"]),
        cap_add: list(&host["CapAdd"]),
        cap_drop: list(&host["CapDrop"]),
        security_opt: own.security_options(),
        privileged: host["Privileged"].as_bool().unwrap_or_default(),
        read_only: host["ReadonlyRootfs"].as_bool().unwrap_or_default(),
        tmpfs: tmpfs.filter_map(|(path, o)| Some((path.clone(), o.as_str()?.to_owned()))).collect(),
        ..ContainerSpec::default()
    })
}

#[async_trait]
impl Deputy for ContainerDeputy {
    async fn latest(&self) -> Result<String, DeputyError> {
        Ok(self.releases.latest(Channel::Stable).await?.tag)
    }

    async fn possible(&self) -> Result<Container, DeputyError> {
        self.replaceable().await.map(|own| own.container.clone())
    }

    async fn carry_out(&self, job: &JobId, request: &Request, sealed: bool) -> Result<Job, DeputyError> {
        let own = self.replaceable().await?;
        let mut made = 0;
        loop {
            let found = match self.engine.container(&name(job)).await {
                Ok(found) => found,
                Err(error) => {
                    tracing::warn!(%job, "looking for the deputy: {error}");
                    sleep(PAUSE).await;
                    continue;
                }
            };
            match found {
                Some(other) if !self.is_ours(&other, job, sealed) => {
                    return match self.verdict(job).await? {
                        Some(verdict) => Ok(verdict),
                        None => Err(DeputyError::Lost(format!(
                            "a container named {} exists that this updater has not made, so the deputy of this job is gone or was never made: look at it with `{}`",
                            other.name,
                            line(["docker", "inspect", &other.name])
                        ))),
                    };
                }
                Some(deputy) if is_at_work(&deputy) => {
                    // Over a restart of the engine too.
                    if let Err(error) = self.engine.wait(&deputy.id).await {
                        tracing::warn!(%job, "waiting for the deputy: {error}");
                    }
                    sleep(PAUSE).await;
                }
                other => {
                    if let Some(verdict) = self.verdict(job).await? {
                        return Ok(verdict);
                    }
                    if made == MOST_DEPUTIES {
                        return Err(lost(&own, other.as_ref()));
                    }
                    made += 1;
                    let begun = match &other {
                        Some(deputy) => self.engine.start(&deputy.id).await,
                        None => self.make(&own, job, request).await,
                    };
                    match begun {
                        Ok(()) => {}
                        Err(error) if made == 1 && other.is_none() && !error.is_unreachable() => {
                            self.dismiss(job, sealed).await;
                            return Err(error.into());
                        }
                        Err(error) => tracing::warn!(%job, "starting the deputy: {error}"),
                    }
                    sleep(PAUSE).await;
                }
            }
        }
    }

    async fn dismiss(&self, job: &JobId, sealed: bool) {
        let dismissed = async {
            match self.engine.container(&name(job)).await? {
                Some(deputy) if self.is_ours(&deputy, job, sealed) => self.engine.remove(&deputy.id).await,
                _ => Ok(()),
            }
        };
        if let Err(error) = dismissed.await {
            tracing::warn!(%job, "the deputy's container goes at the next start: {error}");
        }
    }
}

fn is_at_work(deputy: &Container) -> bool {
    matches!(deputy.state, RunState::Running | RunState::Restarting | RunState::Paused)
}

fn lost(own: &OwnContainer, deputy: Option<&Container>) -> DeputyError {
    let service = own.container.label(label::SERVICE).unwrap_or_default();
    let exit = deputy.map_or("it was removed".to_owned(), |d| {
        format!("it ended with exit code {} ({})", d.exit_code, line(["docker", "logs", &d.name]))
    });
    DeputyError::Lost(format!(
        "the deputy that should have updated this updater has left no verdict: {exit}. This updater runs; to be sure of its version, look at .env and run `{}`",
        line(["docker", "compose", "up", "-d", service])
    ))
}

/// Where nobody can be replaced: in the simulation, and for the deputy itself.
pub struct NoDeputy(pub &'static str);

#[async_trait]
impl Deputy for NoDeputy {
    async fn latest(&self) -> Result<String, DeputyError> {
        Err(DeputyError::None(self.0))
    }

    async fn possible(&self) -> Result<Container, DeputyError> {
        Err(DeputyError::None(self.0))
    }

    async fn carry_out(&self, _job: &JobId, _request: &Request, _sealed: bool) -> Result<Job, DeputyError> {
        Err(DeputyError::None(self.0))
    }

    async fn dismiss(&self, _job: &JobId, _sealed: bool) {}
}
