//! The deployment's `.env`, where the host has it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;

use super::own::{OnHost, OwnContainer};
use super::session::{Ear, Helpers, Kind};
use super::wire::Call;
use crate::engine::{EngineError, Mount, MountKind};
use crate::envfile::DeployedEnv;
use crate::update::ports::{EnvError, EnvStore};

/// On the host it is simply the file. In a container it is written by a helper that has the host's folder,
/// because a file that is mounted by itself may be an inode that the host has long replaced.
pub struct PlacedEnv {
    helpers: Arc<Helpers>,
    path: PathBuf,
    local: DeployedEnv,
}

impl PlacedEnv {
    pub fn new(helpers: Arc<Helpers>, path: PathBuf) -> Self {
        Self { helpers, local: DeployedEnv::new(path.clone()), path }
    }

    /// The own container and the file's place on the host; `None` where this process is on the host.
    async fn on_host(&self) -> Result<Option<(Arc<OwnContainer>, OnHost)>, EnvError> {
        let Some(own) = self.helpers.own().await? else { return Ok(None) };
        let on_host = own.on_host(&self.path).ok_or_else(|| {
            let folder = self.path.parent().unwrap_or(Path::new("/"));
            EnvError::NotMounted { path: self.path.display().to_string(), folder: folder.display().to_string() }
        })?;
        Ok(Some((own, on_host)))
    }

    async fn ask<T: serde::de::DeserializeOwned>(
        &self,
        own: &OwnContainer,
        file: &OnHost,
        call: Call,
    ) -> Result<T, EnvError> {
        let folder = file.path.parent().unwrap_or(Path::new("/")).display().to_string();
        let mount = Mount {
            kind: MountKind::Bind,
            name: String::new(),
            source: folder.clone(),
            destination: folder,
            writable: true,
            subpath: String::new(),
        };
        self.helpers.call(own, Kind::Deployment, &[mount], &call, Ear::Nobody).await
    }
}

#[async_trait]
impl EnvStore for PlacedEnv {
    async fn read(&self) -> Result<Option<Vec<u8>>, EnvError> {
        let Some((own, file)) = self.on_host().await? else { return self.local.read().await };
        // Through a mounted folder the path leads to the host's file, whatever happened to it.
        if !file.is_mount
            && let Ok(bytes) = self.local.read().await
        {
            return Ok(bytes);
        }
        let path = file.path.display().to_string();
        self.ask(&own, &file, Call::Read { path }).await
    }

    async fn write(&self, bytes: Option<&[u8]>) -> Result<(), EnvError> {
        let Some((own, file)) = self.on_host().await? else { return self.local.write(bytes).await };
        let path = file.path.display().to_string();
        self.ask(&own, &file, Call::EnvWrite { path, bytes: bytes.map(<[u8]>::to_vec) }).await
    }

    async fn preflight(&self, project_env: &[String]) -> Result<(), EnvError> {
        let Some((own, file)) = self.on_host().await? else { return self.local.preflight(project_env).await };
        let path = file.path.display().to_string();
        let call = Call::EnvPreflight { path, project_env: project_env.to_vec() };
        match self.ask(&own, &file, call).await {
            // The helper has the folder of our file alone.
            Err(EnvError::Unseen { path, theirs }) => {
                let elsewhere = OnHost { path: theirs.clone().into(), is_mount: false };
                match self.ask::<Option<Vec<u8>>>(&own, &elsewhere, Call::Read { path: theirs.clone() }).await {
                    Err(EnvError::Engine(EngineError::SourceGone { .. })) => Err(EnvError::Unseen { path, theirs }),
                    _ => Err(EnvError::Other { path, theirs }),
                }
            }
            Err(EnvError::Engine(EngineError::SourceGone { .. })) => {
                let theirs = project_env.last().cloned().unwrap_or_default();
                Err(EnvError::Unseen { path: self.path(), theirs })
            }
            done => done,
        }
    }

    fn path(&self) -> String {
        self.path.display().to_string()
    }
}
