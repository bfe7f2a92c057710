//! May a job run here at all? And what has an earlier life left under way?

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;

use super::own::OwnContainer;
use super::session::{Helpers, Kind};
use crate::engine::label;
use crate::update::ports::{Place, PlaceError};

/// The host, or a container of the engine.
pub struct Here {
    helpers: Arc<Helpers>,
}

impl Here {
    pub fn new(helpers: Arc<Helpers>) -> Self {
        Self { helpers }
    }
}

/// The state is kept when the container is gone, and the container is started again when the process is.
pub(super) fn outlives_its_process(own: &OwnContainer, state: &Path) -> Result<Vec<String>, PlaceError> {
    if own.on_host(state).is_none() {
        return Err(PlaceError::StateNotMounted { state: state.display().to_string() });
    }
    // A one-off run, to look or to try, is not what has to be there at midnight.
    if own.container.restart_policy.name != "no" || own.container.label(label::ONEOFF) == Some("True") {
        return Ok(Vec::new());
    }
    Ok(vec![format!(
        "the updater's own container {} has restart policy `no`: if it dies in the middle of a job nobody ends it; give it `restart: unless-stopped`",
        own.container.name
    )])
}

#[async_trait]
impl Place for Here {
    async fn check(&self) -> Result<Vec<String>, PlaceError> {
        let Some(own) = self.helpers.own().await? else { return Ok(Vec::new()) };
        // Its restart policy may have been changed since.
        let now = self.helpers.engine().container(&own.container.id).await?;
        let own = now.map_or_else(|| own.clone(), |container| Arc::new(OwnContainer { container }));
        outlives_its_process(&own, &self.helpers.options().state_dir)
    }

    async fn settle(&self) -> Result<(), PlaceError> {
        let Some(own) = self.helpers.own().await? else { return Ok(()) };
        for kind in [Kind::Deployment, Kind::Data] {
            self.helpers.farewell(&own, kind).await?;
        }
        Ok(())
    }
}
