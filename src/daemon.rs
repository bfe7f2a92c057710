//! The composition root: the only place where real adapters are built, and the life of `serve`.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::api::{self, Listener};
use crate::clock::{Clock, SystemClock};
use crate::doctor::Doctor;
use crate::doctor::here::Here as Around;
use crate::engine::Engine;
use crate::engine::compose::ComposeCli;
use crate::engine::docker::DockerEngine;
use crate::engine::planned_files::PlannedFiles;
use crate::engine::seal::Seal;
use crate::engine::simulated::{NoFaults, Seed, Simulated, SimulatedTrust};
use crate::envfile;
use crate::failpoint;
use crate::health::gate::GateSettings;
use crate::health::http::HttpProbe;
use crate::health::tcp::TcpProbe;
use crate::health::{HealthTarget, HealthcheckAlone, Probe, VersionAt};
use crate::helper::compose::PlacedCompose;
use crate::helper::data::PlacedData;
use crate::helper::deputy::{ContainerDeputy, NoDeputy};
use crate::helper::env::PlacedEnv;
use crate::helper::own::{self, Own};
use crate::helper::place::Here;
use crate::helper::session::{HelperOptions, Helpers};
use crate::https::{Authorities, AuthoritiesError};
use crate::registry;
use crate::release::github::GithubReleases;
use crate::settings::{Fault, Health, Hook, ServeArgs, Settings, name};
use crate::snapshot::host::{HostData, Retention};
use crate::snapshot::{Limits, NoSnapshots};
use crate::store::Store;
use crate::trust::Trust;
use crate::trust::judge::{Judge, JudgeError, Unjudged};
use crate::update::ports::{DataStore, HookSetting, Journal, Options, Owner, Ports};
use crate::update::{Updater, running};

/// On SIGTERM what is in the middle of something gets this long. Docker itself waits ten seconds.
pub(crate) const GRACE: Duration = Duration::from_secs(8);
/// What doctor spends on a look at a registry: less than it gives to any look outside.
const LOOK: Duration = Duration::from_secs(20);
/// How long one call of the simulated engine takes: long enough to watch.
const SIMULATED_LATENCY: Duration = Duration::from_millis(50);

/// Why `serve` could not go on.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    #[error(transparent)]
    Trust(#[from] JudgeError),
    #[error(transparent)]
    Authorities(#[from] AuthoritiesError),
    #[error(transparent)]
    Engine(#[from] crate::engine::docker::AddressError),
    #[error(transparent)]
    Journal(#[from] crate::update::ports::JournalError),
    #[error(transparent)]
    Bind(#[from] crate::api::BindError),
    #[error(transparent)]
    Source(#[from] crate::release::SourceError),
    #[error("{what}: {source}")]
    Io { what: &'static str, source: std::io::Error },
}

impl ServeError {
    /// Exit code 2 instead of 1: the operator has to change a setting.
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::Trust(JudgeError::Policy(_)) | Self::Authorities(_) | Self::Engine(_))
    }
}

/// Serves until SIGTERM or SIGINT. An unfinished job is left to the next start.
///
/// # Errors
/// The state folder, the policy, the engine's address or the listening address cannot be used.
pub async fn serve(settings: Settings) -> Result<(), ServeError> {
    let state_dir = settings.state_dir.clone();
    let opened = tokio::task::spawn_blocking(move || Store::open(&state_dir)).await;
    let store = opened.map_err(|e| ServeError::Io { what: "the journal", source: std::io::Error::other(e) })??;
    failpoint::reach(format_args!("state opened"));
    let authorities = authorities(&settings).await?;
    let judge = judge(&settings, &authorities).await?;
    tracing::info!(trust = judge.describe(), stub = settings.stub, repo = %settings.repo, "starting");
    let listener = Listener::bind(&settings.listen)?;
    let options = options(&settings, store.installation(), store.seal());
    let seal = store.seal().clone();
    let ports = ports(&settings, Arc::new(store), Arc::new(judge.clone()), &authorities, Hand::Serving(seal))?;
    let around = Around { serves: true, ..around(&settings, Ok(judge.clone()), &authorities)? };
    let doctor = Doctor {
        settings: settings.clone(),
        faults: Vec::new(),
        names: variables(),
        ports: ports.clone(),
        options: options.clone(),
        around: Arc::new(around),
    };
    let updater = Updater::start(ports, options).await?;

    let shutdown = CancellationToken::new();
    let router = api::router(Arc::new(updater.clone()), Arc::new(doctor), settings.token.clone());
    tracing::info!(version = api::VERSION, address = listener.address(), "listening");
    let (token, stop) = (settings.token.clone(), shutdown.clone());
    let serving = tokio::spawn(async move { api::serve(listener, router, &token, stop).await });
    let stop = shutdown.clone();
    let refreshing = tokio::spawn(async move { judge.keep_root_fresh(stop).await });
    wait_for_signal().await?;
    tracing::info!("stopping");
    updater.stop(GRACE).await;
    shutdown.cancel();
    let _ = tokio::join!(serving, refreshing);
    Ok(())
}

/// A doctor beside whoever serves, with the settings as far as they go. Nothing is opened for writing.
///
/// # Errors
/// Not even the defaults can be used.
pub async fn doctor(args: ServeArgs) -> Result<Doctor, ServeError> {
    let unusable = || ServeError::Io { what: "the settings", source: std::io::Error::other("not even the defaults") };
    let (settings, faults) = args.settings_as_far_as_they_go().ok_or_else(unusable)?;
    let loaded = authorities(&settings).await;
    let (authorities, mut faults) = match loaded {
        Ok(authorities) => (authorities, faults),
        Err(e) => (Authorities::default(), with(faults, name::CA_FILE, &e)),
    };
    let judge = judge(&settings, &authorities).await.map_err(|e| e.to_string());
    let state_dir = settings.state_dir.clone();
    let peeked = tokio::task::spawn_blocking(move || Store::peek(&state_dir)).await;
    let peeked = peeked.map_err(|e| ServeError::Io { what: "the journal", source: std::io::Error::other(e) })?;
    let (store, unreadable) = match peeked {
        Ok(store) => (store, None),
        Err(e) => (Store::in_memory()?, Some(Arc::new(e))),
    };
    let options = options(&settings, store.installation(), store.seal());
    let trust: Arc<dyn Trust> = match &judge {
        Ok(judge) => Arc::new(judge.clone()),
        Err(why) => Arc::new(Unjudged(why.clone())),
    };
    let (hand, journal) = (Hand::Looking(store.seal().clone()), Arc::new(store));
    let ports = match ports(&settings, journal.clone(), trust.clone(), &authorities, hand.clone()) {
        // Without an address of the engine: the simulated one, which nobody is told about.
        Err(e @ ServeError::Engine(_)) => {
            faults = with(faults, "DOCKER_HOST", &e);
            ports(&Settings { stub: true, ..settings.clone() }, journal, trust, &authorities, hand)?
        }
        other => other?,
    };
    let around = Around { unreadable, ..around(&settings, judge, &authorities)? };
    Ok(Doctor { settings, faults, names: variables(), ports, options, around: Arc::new(around) })
}

fn with(mut faults: Vec<Fault>, variable: &'static str, error: &ServeError) -> Vec<Fault> {
    faults.push(Fault { variable, value: None, accepted: error.to_string() });
    faults
}

/// The variables of this process that are meant for the updater, by name.
fn variables() -> Vec<String> {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let mut names: Vec<String> = names.filter(|name| name.starts_with("PROCESSGIT_UPDATER_")).collect();
    names.sort();
    names
}

fn around(settings: &Settings, judge: Result<Judge, String>, authorities: &Authorities) -> Result<Around, ServeError> {
    let engine = DockerEngine::from_environment().map(Arc::new).map_err(|e| e.to_string());
    let own = engine.as_ref().ok().map(|engine| Arc::new(Own::new(engine.clone(), own::container_id())));
    let registry = registry::Client::new(authorities).within(registry::Limits { time: LOOK, ..Default::default() });
    let registry = match &engine {
        Ok(engine) => registry.like(engine.clone()),
        Err(_) => registry,
    };
    let (api, repo, token) = (settings.github_api.clone(), settings.repo.clone(), settings.github_token.clone());
    Ok(Around {
        engine,
        own,
        judge,
        releases: Arc::new(GithubReleases::new(api, repo, token, &settings.github_token_hosts, authorities)?),
        registry,
        state_dir: settings.state_dir.clone(),
        serves: false,
        unreadable: None,
    })
}

/// The judge of the settings. It takes the registries as insecure that the engine takes so.
pub(crate) async fn judge(settings: &Settings, authorities: &Authorities) -> Result<Judge, JudgeError> {
    let judge = Judge::from_settings(&settings.signing, authorities).await?;
    Ok(match DockerEngine::from_environment() {
        Ok(engine) if !settings.stub => judge.with_engine(Arc::new(engine)),
        // Without an address of the engine others say so.
        _ => judge,
    })
}

pub(crate) async fn authorities(settings: &Settings) -> Result<Authorities, ServeError> {
    let ca_file = settings.ca_file.clone();
    let loaded = tokio::task::spawn_blocking(move || Authorities::load(ca_file.as_deref())).await;
    let failed = |e| ServeError::Io { what: "the CA certificates", source: std::io::Error::other(e) };
    Ok(loaded.map_err(failed)??)
}

async fn wait_for_signal() -> Result<(), ServeError> {
    let io = |source| ServeError::Io { what: "signals cannot be caught", source };
    let mut term = signal(SignalKind::terminate()).map_err(io)?;
    let mut int = signal(SignalKind::interrupt()).map_err(io)?;
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}

pub(crate) fn options(settings: &Settings, installation: &str, seal: &Seal) -> Options {
    let health = &settings.health;
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let place = format!("host {host}, state folder {}", settings.state_dir.display());
    Options {
        command: "update",
        owner: Owner { id: installation.to_owned(), place, seal: seal.clone() },
        data_in: None,
        snapshot_exclude: settings.snapshot.exclude.clone(),
        move_services: settings.move_services.clone(),
        stop_services: settings.stop_services.clone(),
        data_services: settings.data_services.clone(),
        data_elsewhere: settings.data_elsewhere.clone(),
        hook_before_copy: settings.hooks.before_copy.clone().map(hook),
        hook_after_restore: settings.hooks.after_restore.clone().map(hook),
        own_container: own::container_id(),
        app_name: settings.app_name.clone(),
        app_container: settings.app_container.clone(),
        app_service: settings.app_service.clone(),
        runs_as: None,
        version_key: settings.version_key.clone(),
        others_version_key: settings.own.version_key.clone(),
        verify_image: settings.signing.verify_image,
        migration_timeout: settings.migration_timeout,
        health: GateSettings {
            timeout: health.timeout,
            interval: health.interval,
            stable: health.stable,
            // The simulated application says its version in one way, and has no HEALTHCHECK.
            version: match &health.version {
                Some(_) if settings.stub => Some(VersionAt::Pointer("/version".to_owned())),
                version => version.clone(),
            },
            healthcheck_decides: health.target == HealthTarget::Healthcheck && !settings.stub,
            to_the_end: false,
        },
        health_target: health.target.clone(),
        stub: settings.stub,
    }
}

fn hook(Hook { service, command }: Hook) -> HookSetting {
    HookSetting { service, command }
}

/// What the ports are for, and the seal of all that is made through them.
#[derive(Debug, Clone)]
pub(crate) enum Hand {
    /// This process has the state folder.
    Serving(Seal),
    /// It looks, perhaps beside one that has.
    Looking(Seal),
}

pub(crate) fn ports(
    settings: &Settings,
    journal: Arc<dyn Journal>,
    judge: Arc<dyn Trust>,
    authorities: &Authorities,
    hand: Hand,
) -> Result<Ports, ServeError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (api, repo, token) = (settings.github_api.clone(), settings.repo.clone(), settings.github_token.clone());
    let hosts = &settings.github_token_hosts;
    let releases = Arc::new(GithubReleases::new(api.clone(), repo, token.clone(), hosts, authorities)?);
    let own_releases = Arc::new(GithubReleases::new(api, settings.own.repo.clone(), token, hosts, authorities)?);
    if settings.stub {
        let world = Simulated::new(seed(settings), clock.clone(), Arc::new(NoFaults));
        let trust = Arc::new(SimulatedTrust::new(judge, world.clone()));
        let world = Arc::new(world);
        return Ok(Ports {
            engine: world.clone(),
            compose: world.clone(),
            planned: world.clone(),
            probe: world.clone(),
            env: world.clone(),
            data: world.clone(),
            place: world,
            deputy: Arc::new(NoDeputy("stub mode simulates the application; there is no updater to replace")),
            releases,
            trust,
            journal,
            clock,
        });
    }
    let engine: Arc<dyn Engine> = Arc::new(DockerEngine::from_environment()?);
    let own = Arc::new(Own::new(engine.clone(), own::container_id()));
    let retention = retention(settings);
    let planned = PlannedFiles::new(settings.state_dir.join("planned"));
    let helpers = Helpers::new(
        engine.clone(),
        own,
        HelperOptions {
            state_dir: settings.state_dir.clone(),
            snapshots: settings.snapshot.dir.clone(),
            retention,
            limits: limits(settings),
            docker_host: std::env::var("DOCKER_HOST").unwrap_or_default(),
            looks_only: matches!(hand, Hand::Looking(_)),
            seal: match hand {
                Hand::Serving(seal) | Hand::Looking(seal) => seal,
            },
        },
    );
    let data: Arc<dyn DataStore> = match settings.snapshot.on {
        true => Arc::new(PlacedData::new(helpers.clone(), host_data(settings))),
        false => Arc::new(NoSnapshots),
    };
    Ok(Ports {
        engine: engine.clone(),
        compose: Arc::new(PlacedCompose::new(helpers.clone(), ComposeCli::from_environment(), planned.clone())),
        planned: Arc::new(planned),
        probe: probe(&settings.health, authorities),
        env: Arc::new(PlacedEnv::new(helpers.clone(), settings.env_file.clone())),
        data,
        deputy: Arc::new(ContainerDeputy::new(engine.clone(), helpers.clone(), own_releases)),
        place: Arc::new(Here::new(helpers)),
        releases,
        trust: judge,
        journal,
        clock,
    })
}

fn probe(health: &Health, authorities: &Authorities) -> Arc<dyn Probe> {
    match &health.target {
        HealthTarget::Http(url) => Arc::new(HttpProbe::new(url.clone(), health.version.is_some(), authorities.clone())),
        HealthTarget::Tcp { host, port } => Arc::new(TcpProbe { host: host.clone(), port: *port }),
        HealthTarget::Healthcheck => Arc::new(HealthcheckAlone),
    }
}

fn host_data(settings: &Settings) -> HostData {
    HostData::new(settings.snapshot.dir.clone(), retention(settings)).within(limits(settings))
}

fn limits(settings: &Settings) -> Limits {
    let snapshot = &settings.snapshot;
    Limits { depth: snapshot.max_depth.into(), entries: snapshot.max_entries.into() }
}

fn retention(settings: &Settings) -> Retention {
    let snapshot = &settings.snapshot;
    Retention { keep: snapshot.keep as usize, max_age: snapshot.max_age }
}

/// The simulated deployment says the version that the real `.env` says, if there is one.
fn seed(settings: &Settings) -> Seed {
    let real = envfile::get_file(&settings.env_file, &settings.version_key).ok().flatten();
    let version = real.filter(|v| running::version(v).is_some()).unwrap_or_else(|| "0.0.0".into());
    Seed {
        container: settings.app_container.clone(),
        service: settings.app_service.clone().unwrap_or_else(|| settings.app_container.clone()),
        project: "simulated".into(),
        repository: format!("ghcr.io/{}", settings.repo).to_lowercase(),
        version_key: settings.version_key.clone(),
        env: format!("{}={version}\n", settings.version_key).into_bytes(),
        version,
        has_data: settings.snapshot.on,
        latency: SIMULATED_LATENCY,
    }
}
