//! Keeps the public Sigstore root current, over TUF (The Update Framework), where the operator wants it.
//!
//! What comes is signed, step by step, from the keys built in here. It is kept and verified from the same
//! keys again whenever it is read, so the disk need not be believed:
//!
//! ```text
//! trusted-root/refreshed_at                      2026-11-23T13:07:08.5Z
//! trusted-root/2026-11-23T13:07:08.5Z/…          TUF's own files of that moment
//! ```

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use sigstore_verify::trust_root::tuf::{TufBootstrap, TufConfig};
use sigstore_verify::trust_root::{SigstoreInstance, TrustedRoot};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::root::Root;
use crate::https::{Authorities, LazyClient};

/// A root changes a few times a year; TUF's own timestamps live for a week.
pub const PERIOD: Duration = Duration::from_secs(24 * 3600);
/// After a failure.
pub const RETRY: Duration = Duration::from_secs(3600);
/// One refresh, all its files together; they have some hundred KiB.
const LIMIT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TOTAL_TIMEOUT: Duration = Duration::from_secs(20);
/// Names the generation that is whole by the time it was fetched at, as of which it is judged again.
const STAMP: &str = "refreshed_at";

/// A TUF repository that publishes a `trusted_root.json`.
#[derive(Debug, Clone)]
pub struct Refresh {
    url: String,
    /// TUF's `root.json` that trust begins with.
    anchor: Vec<u8>,
    folder: PathBuf,
    http: LazyClient,
}

/// Why there is no fresher root. The text says where it was looked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefreshError {
    #[error("the Sigstore root could not be refreshed from {url}: {why}")]
    Fetch { url: String, why: String },
    #[error("the Sigstore root kept in {folder} cannot be used: {why}")]
    Kept { folder: String, why: String },
}

impl Refresh {
    /// The public Sigstore's, kept in `folder`.
    pub fn public(folder: PathBuf, authorities: &Authorities) -> Self {
        let public = SigstoreInstance::PublicGood;
        Self::of(public.tuf_url(), public.tuf_root(), folder, authorities)
    }

    /// Another repository's, whose own `root.json` is `anchor`.
    pub fn of(url: &str, anchor: &[u8], folder: PathBuf, authorities: &Authorities) -> Self {
        let http = LazyClient::new(authorities, || {
            reqwest::Client::builder()
                .user_agent(concat!("processgit-updater/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(CONNECT_TIMEOUT)
                .timeout(TOTAL_TIMEOUT)
        });
        Self { url: url.to_owned(), anchor: anchor.to_owned(), folder, http }
    }

    /// What an earlier refresh left, verified anew as of then; `None` before the first one.
    ///
    /// # Errors
    /// The files are damaged, or were not signed by whom trust begins with.
    pub async fn kept(&self) -> Result<Option<Root>, RefreshError> {
        let this = self.clone();
        let kept = in_background(async move {
            let Some(since) = this.newest()? else { return Ok(None) };
            root(this.config(since).offline(), since).await.map(Some)
        });
        kept.await.map_err(|why| RefreshError::Kept { folder: self.folder.display().to_string(), why })
    }

    /// Fetches and verifies the root that is valid now, and keeps it. Bounded in time; ends early on `stop`.
    /// What was kept before stays, whole, until the new one is.
    ///
    /// # Errors
    /// Unreachable, too slow, not signed as it must be, older than what was seen before, or `stop`.
    pub async fn fetch(&self, stop: &CancellationToken) -> Result<Root, RefreshError> {
        let failed = |why: String| RefreshError::Fetch { url: self.url.clone(), why };
        let client = self.http.get().await.map_err(failed)?.client.clone();
        let (this, stop) = (self.clone(), stop.clone());
        let fetched = in_background(async move {
            let since = Timestamp::now();
            let written = |error: std::io::Error| format!("{} cannot be written: {error}", this.folder.display());
            this.begin(since).map_err(written)?;
            let root = tokio::select! {
                root = root(this.config(since).with_http_client(client), since) => root?,
                () = tokio::time::sleep(LIMIT) => return Err(format!("it took longer than {LIMIT:?}")),
                () = stop.cancelled() => return Err("the updater is stopping".to_owned()),
            };
            this.commit(since).map_err(written)?;
            Ok(root)
        });
        fetched.await.map_err(failed)
    }

    fn config(&self, generation: Timestamp) -> TufConfig {
        let anchor = TufBootstrap::trusted(&self.anchor);
        TufConfig::custom(&self.url, anchor).with_cache_dir(self.generation(generation))
    }

    fn generation(&self, since: Timestamp) -> PathBuf {
        self.folder.join(since.to_string())
    }

    /// The generation that the stamp names.
    fn newest(&self) -> Result<Option<Timestamp>, String> {
        match std::fs::read_to_string(self.folder.join(STAMP)) {
            Ok(stamp) => stamp.trim().parse().map(Some).map_err(|_| format!("{STAMP} says {stamp:?}")),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("{STAMP} cannot be read: {error}")),
        }
    }

    /// A new generation begins as a copy of the one before: what was seen once is the least that is
    /// accepted again. What broken attempts left goes away.
    fn begin(&self, since: Timestamp) -> std::io::Result<()> {
        let before = self.newest().ok().flatten().map(|newest| self.generation(newest));
        self.sweep(before.as_deref())?;
        match before.filter(|folder| folder.is_dir()) {
            Some(before) => copy(&before, &self.generation(since)),
            None => std::fs::create_dir_all(self.generation(since)),
        }
    }

    /// The stamp is replaced whole or not at all; a loss of power costs one refresh at most.
    fn commit(&self, since: Timestamp) -> std::io::Result<()> {
        let new = self.folder.join("refreshed_at.new");
        std::fs::write(&new, format!("{since}\n"))?;
        std::fs::rename(new, self.folder.join(STAMP))?;
        self.sweep(Some(&self.generation(since)))
    }

    fn sweep(&self, keep: Option<&Path>) -> std::io::Result<()> {
        let entries = match std::fs::read_dir(&self.folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() && Some(entry.path().as_path()) != keep {
                std::fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (kind, to) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy(&entry.path(), &to)?;
        } else if kind.is_file() {
            std::fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

/// The library reads and writes its files in between: not on the threads that answer requests.
async fn in_background<T: Send + 'static>(
    work: impl Future<Output = Result<T, String>> + Send + 'static,
) -> Result<T, String> {
    let runtime = Handle::current();
    tokio::task::spawn_blocking(move || runtime.block_on(work)).await.map_err(|panicked| panicked.to_string())?
}

async fn root(config: TufConfig, as_of: Timestamp) -> Result<Root, String> {
    // As text, because the library counts time with an older version of jiff.
    let time = as_of.to_string().parse().map_err(|_| format!("{as_of} is no time"))?;
    let trusted = TrustedRoot::from_tuf_at(config, time).await.map_err(|error| error.to_string())?;
    Root::refreshed(trusted, as_of)
}
