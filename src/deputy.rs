//! The deputy's side of a self-update, and the second composition root: the machine of every update, with
//! the updater's own container as the application, the updater's journal as its data, and the
//! container's HEALTHCHECK as the gate. Made by [`crate::helper::deputy`].

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use crate::daemon::{self, GRACE, Hand, ServeError};
use crate::engine::RestartPolicy;
use crate::engine::seal::Seal;
use crate::health::gate::GateSettings;
use crate::health::{HealthTarget, HealthcheckAlone};
use crate::helper::deputy::{NoDeputy, state_dir};
use crate::helper::own;
use crate::settings::Settings;
use crate::store::own_data::OwnData;
use crate::store::secret::Secret;
use crate::store::{Store, StoreError};
use crate::trust::Trust as _;
use crate::update::job::JobId;
use crate::update::ports::{Options, Owner};
use crate::update::{Order, Request, Updater};

/// What a deputy is told.
#[derive(Debug, Clone)]
pub struct Mission {
    /// As the updater knows it.
    pub job: JobId,
    pub request: Request,
    /// The updater's container.
    pub container: String,
}

/// Carries it out, or goes on where an earlier life was; ends when it has a verdict.
///
/// # Errors
/// The state folder, the policy or the engine's address cannot be used.
pub async fn serve(settings: Settings, mission: Mission) -> Result<(), ServeError> {
    let updaters_state = settings.state_dir.clone();
    let settings = as_of_the_updater(settings, &mission.container);
    let (folder, of_updater) = (settings.state_dir.clone(), updaters_state.clone());
    // The updater recognises what its deputy has made: both use the updater's secret.
    let opened = tokio::task::spawn_blocking(move || Ok((Secret::of(&of_updater), Store::open(&folder)?))).await;
    let opened: Result<_, StoreError> =
        opened.map_err(|e| ServeError::Io { what: "the journal", source: std::io::Error::other(e) })?;
    let (secret, store) = opened?;
    let seal = secret.map_err(|source| ServeError::Io { what: "the updater's secret", source })?.seal();
    let authorities = daemon::authorities(&settings).await?;
    let judge = daemon::judge(&settings, &authorities).await?;
    tracing::info!(job = %mission.job, trust = judge.describe(), "a deputy begins");
    let owner = store.installation().to_owned();
    let mut ports =
        daemon::ports(&settings, Arc::new(store), Arc::new(judge), &authorities, Hand::Serving(seal.clone()))?;
    ports.data = Arc::new(OwnData::new(updaters_state.clone(), settings.state_dir.clone()));
    ports.probe = Arc::new(HealthcheckAlone);
    ports.deputy = Arc::new(NoDeputy("a deputy has none of its own"));
    let engine = ports.engine.clone();
    let options = options(&settings, &owner, &seal);
    let updater = Updater::start(ports, options).await?;
    if updater.job(&mission.job.0).await.is_none() {
        let submitted = updater.submit_as(mission.job.clone(), Order::Update(mission.request)).await;
        // Another job of its own journal is still being recovered: after it, this one.
        if let Err(e) = submitted {
            tracing::warn!(job = %mission.job, "{e}");
        }
    }
    let term = async {
        if let Ok(mut term) = signal(SignalKind::terminate()) {
            term.recv().await;
        }
    };
    tokio::select! {
        () = updater.finish() => {}
        // The engine stops everything; it starts this one again.
        () = term => {
            updater.stop(GRACE).await;
            return Ok(());
        }
    }
    if let Some(id) = own::container_id()
        && let Err(e) = engine.set_restart_policy(&id, &RestartPolicy::never()).await
    {
        tracing::warn!("the engine will start this deputy again, for nothing: {e}");
    }
    Ok(())
}

/// What the machine is told for a self-update.
fn options(settings: &Settings, owner: &str, seal: &Seal) -> Options {
    let options = daemon::options(settings, owner, seal);
    // Below the updater's own state folder is the deputy's.
    let of_updater = settings.state_dir.parent().unwrap_or(&settings.state_dir);
    Options {
        // Not every image of the updater has one.
        health: GateSettings { healthcheck_decides: false, ..options.health.clone() },
        command: "self-update",
        data_in: Some(of_updater.display().to_string()),
        own_container: own::container_id(),
        // The deputy is made from the image of the updater that runs.
        runs_as: semver::Version::parse(env!("CARGO_PKG_VERSION")).ok(),
        ..options
    }
}

/// The options with which a deputy of this updater would look at the updater's container.
pub fn options_for(settings: &Settings, container: &str, owner: &Owner) -> Options {
    options(&as_of_the_updater(settings.clone(), container), &owner.id, &owner.seal)
}

/// The settings of an updater whose application is the updater.
fn as_of_the_updater(settings: Settings, container: &str) -> Settings {
    let mut own = settings.own.clone();
    let mut signing = settings.signing.clone();
    signing.identity_regex = own.identity_regex.clone();
    let version_key = std::mem::replace(&mut own.version_key, settings.version_key.clone());
    let mut settings = Settings {
        state_dir: state_dir(&settings.state_dir),
        app_name: own.name.clone(),
        app_container: container.to_owned(),
        app_service: None,
        version_key,
        repo: own.repo.clone(),
        own,
        hooks: Default::default(),
        move_services: Vec::new(),
        stop_services: Vec::new(),
        data_services: Vec::new(),
        data_elsewhere: Vec::new(),
        signing,
        ..settings
    };
    settings.health.version = None;
    // Asked of another container, and by the deputy's own probe.
    settings.health.target = HealthTarget::Healthcheck;
    settings.snapshot.exclude = Vec::new();
    settings
}
