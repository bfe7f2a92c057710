//! What only the doctor asks of the world, beside what the domain's ports tell. [`super::here`] asks it for
//! real.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;

use crate::engine::{EngineError, EngineFacts, Volume};
use crate::helper::own::OwnContainer;
use crate::registry::RegistryError;
use crate::release::SourceError;
use crate::release::github::Reach;
use crate::store::StoreError;
use crate::trust::judge::TrustState;

/// The engine's socket, and who wants to open it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Socket {
    pub path: PathBuf,
    /// `None`: there is none.
    pub file: Option<SocketFile>,
    /// The effective user of this process, and all its groups.
    pub user: u32,
    pub groups: Vec<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketFile {
    pub owner: u32,
    pub group: u32,
    /// The permission bits.
    pub mode: u32,
}

impl Socket {
    /// Writing to it is what it takes.
    pub fn opens(&self) -> bool {
        let Some(file) = self.file else { return false };
        let bits = match () {
            () if self.user == 0 => return true,
            () if self.user == file.owner => file.mode >> 6,
            () if self.groups.contains(&file.group) => file.mode >> 3,
            () => file.mode,
        };
        bits & 0o2 != 0
    }
}

/// Who works on the state folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    Nobody,
    /// The process that looks.
    Us,
    /// `process 7`
    Other(String),
}

#[derive(Debug, Clone)]
pub struct StateFolder {
    pub exists: bool,
    /// Why it cannot be written.
    pub unwritable: Option<String>,
    pub holder: Holder,
    /// Why the journal cannot be read.
    pub unreadable: Option<Arc<StoreError>>,
    /// Bytes.
    pub free: Option<u64>,
}

#[async_trait]
pub trait Around: Send + Sync {
    /// `None`: the engine is reached over TCP.
    async fn socket(&self) -> Option<Socket>;
    async fn engine(&self) -> Result<EngineFacts, EngineError>;
    /// Calls that an update needs and that are refused.
    async fn refused_calls(&self) -> Result<Vec<String>, EngineError>;
    /// The volumes that Compose files call `key`, of every project.
    async fn volumes_called(&self, key: &str) -> Result<Vec<Volume>, EngineError>;
    /// The container of this process; `None` on the host, or in a container that the engine does not know.
    async fn own(&self) -> Result<Option<Arc<OwnContainer>>, EngineError>;
    /// Files that are mounted one by one and that the host has replaced since.
    fn orphans(&self) -> Vec<PathBuf>;
    async fn state(&self) -> StateFolder;
    /// How signatures are judged, or why they cannot be.
    fn trust(&self) -> Result<TrustState, String>;
    /// What the release source says of itself.
    async fn reach(&self) -> Result<Reach, SourceError>;
    /// Whether the registry has this manifest; with the credentials that an update has.
    async fn has_image(&self, registry: &str, repository: &str, digest: &str) -> Result<bool, RegistryError>;
}
