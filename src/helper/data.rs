//! The application's data, where it can be seen.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use serde::de::DeserializeOwned;

use super::own::OwnContainer;
use super::session::{Ear, Helpers, Kind};
use super::wire::Call;
use crate::engine::Mount;
use crate::snapshot::host::HostData;
use crate::update::job::JobId;
use crate::update::ports::{
    CopyLabel, CopyReport, DataError, DataStore, Distance, ExportSink, Generation, Kept, Room, SnapshotInfo,
};

/// Where a helper has the application's mounts. Never at the application's own paths: those could shadow
/// the helper's.
const DATA: &str = "/data";

/// In process on the host; in a container by a helper that has the application's mounts.
pub struct PlacedData {
    helpers: Arc<Helpers>,
    local: HostData,
}

impl PlacedData {
    pub fn new(helpers: Arc<Helpers>, local: HostData) -> Self {
        Self { helpers, local }
    }

    async fn own(&self) -> Result<Option<Arc<OwnContainer>>, DataError> {
        Ok(self.helpers.own().await?)
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        own: &OwnContainer,
        mounts: &[Mount],
        call: Call,
        ear: Ear<'_>,
    ) -> Result<T, DataError> {
        self.helpers.call(own, Kind::Data, mounts, &call, ear).await
    }

    /// Of one that copies: progress is told.
    async fn copy<T: DeserializeOwned>(
        &self,
        own: &OwnContainer,
        seen: &Seen,
        call: Call,
        report: CopyReport,
    ) -> Result<T, DataError> {
        self.ask(own, &seen.mounts, call, Ear::Copying(&report)).await
    }

    /// The repository in the data would copy itself; seen from a helper they are two places.
    fn require_apart(&self, own: &OwnContainer, mounts: &[Mount]) -> Result<(), DataError> {
        let folder = &self.helpers.options().snapshots;
        let Some(repository) = own.on_host(folder) else { return Ok(()) };
        let (repository, shown) = (&repository.path, folder.display());
        for mount in mounts {
            let data = Path::new(&mount.source);
            if repository.starts_with(data) || data.starts_with(repository) {
                return Err(DataError::Inside {
                    folder: shown.to_string(),
                    repository: repository.display().to_string(),
                    destination: mount.destination.clone(),
                    data: data.display().to_string(),
                });
            }
        }
        Ok(())
    }
}

/// The application's mounts as a helper has them.
struct Seen {
    /// What the helper is given.
    mounts: Vec<Mount>,
    /// What the copy is told: the application's destination, and the helper's path as the source.
    told: Vec<Mount>,
}

impl Seen {
    fn new(mounts: &[Mount]) -> Self {
        let path = |m: &Mount| {
            let hash = blake3::hash(format!("{}\0{}\0{}", m.source, m.subpath, m.destination).as_bytes()).to_hex();
            format!("{DATA}/{}", &hash[..12])
        };
        let given = |m: &Mount| Mount { destination: path(m), writable: true, ..m.clone() };
        let told = |m: &Mount| Mount { source: path(m), subpath: String::new(), ..m.clone() };
        Self { mounts: mounts.iter().map(given).collect(), told: mounts.iter().map(told).collect() }
    }
}

#[async_trait]
impl DataStore for PlacedData {
    fn off(&self) -> Option<String> {
        None
    }

    async fn preflight(&self, mounts: &[Mount]) -> Result<(), DataError> {
        let Some(own) = self.own().await? else { return self.local.preflight(mounts).await };
        self.require_apart(&own, mounts)?;
        let seen = Seen::new(mounts);
        self.ask(&own, &seen.mounts, Call::DataPreflight { mounts: seen.told.clone() }, Ear::Nobody).await
    }

    async fn room(&self, mounts: &[Mount]) -> Result<Room, DataError> {
        let Some(own) = self.own().await? else { return self.local.room(mounts).await };
        self.require_apart(&own, mounts)?;
        let seen = Seen::new(mounts);
        self.ask(&own, &seen.mounts, Call::DataRoom { mounts: seen.told.clone() }, Ear::Nobody).await
    }

    async fn hot(&self, label: &CopyLabel, mounts: &[Mount], report: CopyReport) -> Result<(), DataError> {
        let Some(own) = self.own().await? else { return self.local.hot(label, mounts, report).await };
        let seen = Seen::new(mounts);
        let call = Call::DataHot { label: label.clone(), mounts: seen.told.clone() };
        self.copy::<()>(&own, &seen, call, report).await?;
        // It holds the pass that the cold copy ends.
        self.helpers.hold(Kind::Data, true).await;
        self.helpers.warm_up(&own).await;
        Ok(())
    }

    async fn cold(&self, label: &CopyLabel, mounts: &[Mount], report: CopyReport) -> Result<Generation, DataError> {
        let Some(own) = self.own().await? else { return self.local.cold(label, mounts, report).await };
        let seen = Seen::new(mounts);
        let call = Call::DataCold { label: label.clone(), mounts: seen.told.clone() };
        let copied = self.copy(&own, &seen, call, report).await;
        self.helpers.hold(Kind::Data, false).await;
        copied
    }

    async fn running(&self, label: &CopyLabel, mounts: &[Mount], report: CopyReport) -> Result<Generation, DataError> {
        let Some(own) = self.own().await? else { return self.local.running(label, mounts, report).await };
        self.require_apart(&own, mounts)?;
        let seen = Seen::new(mounts);
        let call = Call::DataRunning { label: label.clone(), mounts: seen.told.clone() };
        self.copy(&own, &seen, call, report).await
    }

    async fn restore(
        &self,
        label: &CopyLabel,
        generation: &str,
        mounts: &[Mount],
        pinned: &[String],
        report: CopyReport,
    ) -> Result<Kept, DataError> {
        let Some(own) = self.own().await? else {
            return self.local.restore(label, generation, mounts, pinned, report).await;
        };
        let seen = Seen::new(mounts);
        let (label, generation, pinned) = (label.clone(), generation.to_owned(), pinned.to_vec());
        let call = Call::DataRestore { label, generation, mounts: seen.told.clone(), pinned };
        self.copy(&own, &seen, call, report).await
    }

    async fn load(&self, generation: &str, mounts: &[Mount], report: CopyReport) -> Result<(), DataError> {
        let Some(own) = self.own().await? else { return self.local.load(generation, mounts, report).await };
        let seen = Seen::new(mounts);
        let call = Call::DataLoad { generation: generation.to_owned(), mounts: seen.told.clone() };
        self.copy(&own, &seen, call, report).await
    }

    async fn tidy(&self, job: &JobId, pinned: &[String]) -> Result<(), DataError> {
        let Some(own) = self.own().await? else { return self.local.tidy(job, pinned).await };
        let call = Call::DataTidy { job: job.clone(), pinned: pinned.to_vec() };
        let tidied = self.ask(&own, &[], call, Ear::Nobody).await;
        self.helpers.hold(Kind::Data, false).await;
        tidied
    }

    async fn list(&self) -> Result<Vec<SnapshotInfo>, DataError> {
        let Some(own) = self.own().await? else { return self.local.list().await };
        self.ask(&own, &[], Call::DataList, Ear::Nobody).await
    }

    async fn verify(&self, generation: &str) -> Result<(), DataError> {
        let Some(own) = self.own().await? else { return self.local.verify(generation).await };
        self.ask(&own, &[], Call::DataVerify { generation: generation.to_owned() }, Ear::Nobody).await
    }

    async fn distance(&self, generation: &str, mounts: &[Mount]) -> Result<Distance, DataError> {
        let Some(own) = self.own().await? else { return self.local.distance(generation, mounts).await };
        let seen = Seen::new(mounts);
        let call = Call::DataDistance { generation: generation.to_owned(), mounts: seen.told.clone() };
        self.ask(&own, &seen.mounts, call, Ear::Nobody).await
    }

    async fn export(&self, generation: &str, mut sink: ExportSink) -> Result<(), DataError> {
        let Some(own) = self.own().await? else { return self.local.export(generation, sink).await };
        // The sink blocks, so it has a thread of its own; the short queue is what slows the helper down.
        let (pieces, mut queue) = tokio::sync::mpsc::channel::<Vec<u8>>(4);
        let writing = tokio::task::spawn_blocking(move || -> std::io::Result<()> {
            while let Some(piece) = queue.blocking_recv() {
                sink.write_all(&piece)?;
            }
            sink.flush()
        });
        let call = Call::DataExport { generation: generation.to_owned() };
        let exported: Result<(), DataError> = self.ask(&own, &[], call, Ear::Bytes(&pieces)).await;
        drop(pieces);
        let written = writing.await.map_err(|e| DataError::Broken(e.to_string()))?;
        exported.and(written.map_err(|e| DataError::Io {
            doing: "write".into(),
            path: "the export".into(),
            cause: e.into(),
            remedy: String::new(),
        }))
    }
}
