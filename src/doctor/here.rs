//! The world around this process, asked for real.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use rustix::fs::{Access, AtFlags, CWD, accessat, statvfs};

use super::around::{Around, Holder, Socket, SocketFile, StateFolder};
use crate::engine::docker::DockerEngine;
use crate::engine::{EngineError, EngineFacts, Volume};
use crate::helper::own::{self, Own, OwnContainer};
use crate::registry::{self, RegistryError};
use crate::release::SourceError;
use crate::release::github::{GithubReleases, Reach};
use crate::store::{Store, StoreError};
use crate::trust::judge::{Judge, TrustState};

/// Bytes of an image's manifest or index; real ones are a few KiB.
const MANIFEST_CAP: usize = 4 << 20;

/// What it takes to ask.
pub struct Here {
    /// `None`: `DOCKER_HOST` names none; the text says so.
    pub engine: Result<Arc<DockerEngine>, String>,
    pub own: Option<Arc<Own>>,
    pub judge: Result<Judge, String>,
    pub releases: Arc<GithubReleases>,
    pub registry: registry::Client,
    pub state_dir: PathBuf,
    /// This process has the state folder's lock.
    pub serves: bool,
    /// Why the journal could not be read.
    pub unreadable: Option<Arc<StoreError>>,
}

impl Here {
    fn engine_at(&self) -> Result<&DockerEngine, EngineError> {
        self.engine.as_deref().map_err(|why| EngineError::Unreachable(why.clone()))
    }
}

#[async_trait]
impl Around for Here {
    async fn socket(&self) -> Option<Socket> {
        let path = self.engine.as_ref().ok()?.socket()?.to_owned();
        let file = tokio::fs::metadata(&path).await.ok();
        let groups = rustix::process::getgroups().unwrap_or_default();
        let own = rustix::process::getegid();
        Some(Socket {
            path,
            file: file.map(|f| SocketFile { owner: f.uid(), group: f.gid(), mode: f.mode() & 0o777 }),
            user: rustix::process::geteuid().as_raw(),
            groups: std::iter::once(own).chain(groups.into_iter().filter(|g| *g != own)).map(|g| g.as_raw()).collect(),
        })
    }

    async fn engine(&self) -> Result<EngineFacts, EngineError> {
        self.engine_at()?.facts().await
    }

    async fn refused_calls(&self) -> Result<Vec<String>, EngineError> {
        self.engine_at()?.refused_calls().await
    }

    async fn volumes_called(&self, key: &str) -> Result<Vec<Volume>, EngineError> {
        self.engine_at()?.volumes_called(key).await
    }

    async fn own(&self) -> Result<Option<Arc<OwnContainer>>, EngineError> {
        match &self.own {
            Some(own) => own.container().await,
            None => Ok(None),
        }
    }

    fn orphans(&self) -> Vec<PathBuf> {
        own::orphans()
    }

    async fn state(&self) -> StateFolder {
        let (folder, serves) = (self.state_dir.clone(), self.serves);
        let unreadable = self.unreadable.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let holder = match serves {
                true => Holder::Us,
                false => Store::holder(&folder).map_or(Holder::Nobody, Holder::Other),
            };
            let (unwritable, free) = folder_of(&folder);
            StateFolder { exists: folder.is_dir(), unwritable, holder, unreadable: None, free }
        });
        let looked = looked.await.unwrap_or(StateFolder {
            exists: false,
            unwritable: None,
            holder: Holder::Nobody,
            unreadable: None,
            free: None,
        });
        StateFolder { unreadable, ..looked }
    }

    fn trust(&self) -> Result<TrustState, String> {
        self.judge.as_ref().map(Judge::state).map_err(Clone::clone)
    }

    async fn reach(&self) -> Result<Reach, SourceError> {
        self.releases.reach().await
    }

    async fn has_image(&self, registry: &str, repository: &str, digest: &str) -> Result<bool, RegistryError> {
        let repository = self.registry.repository(registry, repository)?;
        let found = repository.manifest(digest, MANIFEST_CAP).await?;
        Ok(found.is_some())
    }
}

/// Why it cannot be written, and the bytes that are free. Where there is none yet, the one it would be made
/// in tells. Blocking.
fn folder_of(folder: &Path) -> (Option<String>, Option<u64>) {
    let there = folder.ancestors().find(|path| path.exists()).unwrap_or(folder);
    let unwritable = match there.is_dir() {
        false => Some(format!("{} is no folder", there.display())),
        true => accessat(CWD, there, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS).err().map(|e| e.to_string()),
    };
    (unwritable, statvfs(there).ok().map(|free| free.f_bavail * free.f_frsize))
}
