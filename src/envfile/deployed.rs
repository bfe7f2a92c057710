//! The `.env` of the deployment, as the update uses it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use rustix::fs::{Access, AtFlags, CWD, StatxFlags, accessat, statx};

use super::aio;
use super::file::rehearse;
use crate::update::ports::{EnvError, EnvStore};

/// The file named by `PROCESSGIT_UPDATER_ENV_FILE`.
pub struct DeployedEnv {
    path: PathBuf,
}

impl DeployedEnv {
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }
}

#[async_trait]
impl EnvStore for DeployedEnv {
    async fn read(&self) -> Result<Option<Vec<u8>>, EnvError> {
        Ok(aio::read(self.path.clone()).await?)
    }

    async fn write(&self, bytes: Option<&[u8]>) -> Result<(), EnvError> {
        let path = self.path.clone();
        match bytes {
            Some(bytes) => Ok(aio::write_atomic(path, bytes.to_vec()).await?),
            None => blocking(move || remove(&path)).await,
        }
    }

    async fn preflight(&self, project_env: &[String]) -> Result<(), EnvError> {
        let (path, project_env) = (self.path.clone(), project_env.to_vec());
        blocking(move || check(&path, &project_env)).await
    }

    fn path(&self) -> String {
        self.path.display().to_string()
    }
}

async fn blocking(work: impl FnOnce() -> Result<(), EnvError> + Send + 'static) -> Result<(), EnvError> {
    tokio::task::spawn_blocking(work).await.map_err(|e| EnvError::Broken(e.to_string()))?
}

/// Removed, and the folder flushed: the file did not exist before the update.
fn remove(path: &Path) -> Result<(), EnvError> {
    let wrong = |e: std::io::Error| EnvError::NotRemoved { path: path.display().to_string(), cause: e.into() };
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(wrong(e)),
        _ => {}
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::File::open(folder).and_then(|f| f.sync_all()).map_err(wrong)
}

/// A write must reach the file that Compose reads.
fn check(path: &Path, project_env: &[String]) -> Result<(), EnvError> {
    let text = |path: &Path| path.display().to_string();
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (path_text, folder_text) = (text(path), text(folder));
    let Some(here) = identity(path) else {
        let project_env = project_env.to_vec();
        return Err(EnvError::NoFolder { path: path_text, folder: folder_text, project_env });
    };
    // The last file wins where several set the key; with one, that is the one.
    let Some(selecting) = project_env.last() else { return Ok(()) };
    match identity(Path::new(selecting)) {
        Some(theirs) if theirs == here => {}
        Some(_) => return Err(EnvError::Other { path: path_text, theirs: selecting.clone() }),
        None => return Err(EnvError::Unseen { path: path_text, theirs: selecting.clone() }),
    }
    if is_mountpoint(path, folder) {
        return Err(EnvError::SingleFile { path: path_text, folder: folder_text });
    }
    if let Err(e) = accessat(CWD, folder, Access::WRITE_OK, AtFlags::EACCESS) {
        return Err(EnvError::Unwritable { path: path_text, folder: folder_text, cause: e.into() });
    }
    Ok(rehearse(path)?)
}

/// Device and inode of the folder, and the name in it; links followed. The file itself may be absent.
fn identity(path: &Path) -> Option<(u64, u64, std::ffi::OsString)> {
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = fs::metadata(real.parent()?).ok()?;
    Some((folder.dev(), folder.ino(), real.file_name()?.to_owned()))
}

fn is_mountpoint(path: &Path, folder: &Path) -> bool {
    let mount = |p: &Path| statx(CWD, p, AtFlags::empty(), StatxFlags::MNT_ID).ok().map(|s| s.stx_mnt_id);
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    match (mount(&real), mount(real.parent().unwrap_or(folder))) {
        (Some(file), Some(folder)) => file != folder,
        // There is no file yet.
        _ => false,
    }
}

#[cfg(test)]
mod tests;
