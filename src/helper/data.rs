//! The application's data, where it can be seen.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use serde::de::DeserializeOwned;

use super::own::OwnContainer;
use super::session::{Ear, Helpers, Kind};
use super::wire::Call;
use crate::engine::{EngineError, LOCAL_DRIVER, Mount, MountKind, Volume};
use crate::snapshot::host::HostData;
use crate::update::job::JobId;
use crate::update::ports::{
    CopyLabel, CopyReport, DataError, DataMount, DataStore, Distance, ExportSink, Generation, Kept, Look, Looked, Room,
    SnapshotInfo, Standing,
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

    /// The volumes that are mounted only while they are used, by name.
    async fn on_use<'a>(&self, mounts: impl Iterator<Item = &'a Mount>) -> Result<HashMap<&'a str, Volume>, DataError> {
        let volumes = mounts.filter(|m| m.kind == MountKind::Volume && !m.name.is_empty()).map(|mount| async move {
            let volume = self.helpers.engine().volume(&mount.name).await?;
            let gone = || EngineError::NotFound(format!("the volume {} of {}", mount.name, mount.destination));
            Ok::<_, DataError>((mount.name.as_str(), volume.ok_or_else(gone)?))
        });
        let found: Vec<(&str, Volume)> = futures_util::future::try_join_all(volumes).await?;
        Ok(found.into_iter().filter(|(_, volume)| volume.is_mounted_on_use()).collect())
    }

    /// The mounts as this process has to open them.
    async fn here(&self, mounts: &[DataMount]) -> Result<Vec<DataMount>, DataError> {
        let on_use = self.on_use(mounts.iter().map(|data| &data.mount)).await?;
        let volume = |data: &DataMount| on_use.get(data.mount.name.as_str()).cloned();
        let with = |data: &DataMount| DataMount { volume: volume(data), ..data.clone() };
        Ok(mounts.iter().map(with).collect())
    }

    /// The repository in the data would copy itself; seen from a helper they are two places.
    fn require_apart<'a>(
        &self,
        own: &OwnContainer,
        mounts: impl IntoIterator<Item = &'a DataMount>,
    ) -> Result<(), DataError> {
        let folder = &self.helpers.options().snapshots;
        let Some(repository) = own.on_host(folder) else { return Ok(()) };
        let (repository, shown) = (&repository.path, folder.display());
        for DataMount { mount, .. } in mounts {
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
    told: Vec<DataMount>,
}

impl Seen {
    fn new<'a>(mounts: impl IntoIterator<Item = &'a DataMount> + Clone) -> Self {
        let path = |m: &Mount| {
            let hash = blake3::hash(format!("{}\0{}\0{}", m.source, m.subpath, m.destination).as_bytes()).to_hex();
            format!("{DATA}/{}", &hash[..12])
        };
        let given =
            |DataMount { mount, .. }: &DataMount| Mount { destination: path(mount), writable: true, ..mount.clone() };
        let told = |DataMount { mount, root, .. }: &DataMount| DataMount {
            mount: Mount { source: path(mount), subpath: String::new(), ..mount.clone() },
            root: root.clone(),
            volume: None,
        };
        Self { mounts: mounts.clone().into_iter().map(given).collect(), told: mounts.into_iter().map(told).collect() }
    }
}

/// Why a volume's content cannot be copied while the application is stopped; `None`: it can.
fn not_to_be_had(mount: &Mount, on_use: &HashMap<&str, Volume>, in_container: bool) -> Option<String> {
    let volume = on_use.get(mount.name.as_str())?;
    let (path, name) = (&mount.destination, &volume.name);
    let leave_out = format!("PROCESSGIT_UPDATER_SNAPSHOT_EXCLUDE={}", shell_words::quote(path));
    if matches!(volume.option("type"), "tmpfs" | "ramfs") {
        return Some(format!(
            "{path} is the volume {name}, whose content is in memory (type {}) and is lost whenever the last container that uses it stops, at every update too: keep what is needed in another volume, or say with {leave_out} that it may be lost",
            volume.option("type")
        ));
    }
    if volume.driver == LOCAL_DRIVER || in_container {
        return None;
    }
    Some(format!(
        "{path} is the volume {name} of the driver {}, which only the engine can mount, and only while a container uses it: run the updater in a container, where the engine mounts it for the copy, or leave it out with {leave_out}",
        volume.driver
    ))
}

#[async_trait]
impl DataStore for PlacedData {
    fn off(&self) -> Option<String> {
        None
    }

    async fn look(&self, mounts: &[Look]) -> Result<Vec<Looked>, DataError> {
        let own = self.own().await?;
        let on_use = self.on_use(mounts.iter().map(|look| &look.source.mount)).await?;
        let refusals: Vec<String> =
            mounts.iter().filter_map(|look| not_to_be_had(&look.source.mount, &on_use, own.is_some())).collect();
        if !refusals.is_empty() {
            return Err(DataError::VolumeUnavailable(refusals.join("; ")));
        }
        let Some(own) = own else {
            let here = |look: &Look| {
                let volume = on_use.get(look.source.mount.name.as_str()).cloned();
                Look { source: DataMount { volume, ..look.source.clone() }, ..look.clone() }
            };
            return self.local.look(&mounts.iter().map(here).collect::<Vec<_>>()).await;
        };
        self.require_apart(&own, mounts.iter().map(|look| &look.source))?;
        let seen = Seen::new(mounts.iter().map(|look| &look.source));
        // A helper has a process namespace of its own: it asks no witness.
        let told = seen.told.into_iter().map(|source| Look { source, seen_by: None }).collect();
        let looked: Vec<Looked> = self.ask(&own, &seen.mounts, Call::DataLook { mounts: told }, Ear::Nobody).await?;
        let noted = |(look, mut looked): (&Look, Looked)| {
            looked.root.mounted_on_use |= on_use.contains_key(look.source.mount.name.as_str());
            looked
        };
        Ok(mounts.iter().zip(looked).map(noted).collect())
    }

    async fn preflight(&self, mounts: &[DataMount]) -> Result<(), DataError> {
        let Some(own) = self.own().await? else { return self.local.preflight(&self.here(mounts).await?).await };
        self.require_apart(&own, mounts)?;
        let seen = Seen::new(mounts);
        self.ask(&own, &seen.mounts, Call::DataPreflight { mounts: seen.told.clone() }, Ear::Nobody).await
    }

    async fn room(&self, mounts: &[DataMount]) -> Result<Room, DataError> {
        let Some(own) = self.own().await? else { return self.local.room(&self.here(mounts).await?).await };
        self.require_apart(&own, mounts)?;
        let seen = Seen::new(mounts);
        self.ask(&own, &seen.mounts, Call::DataRoom { mounts: seen.told.clone() }, Ear::Nobody).await
    }

    async fn hot(&self, label: &CopyLabel, mounts: &[DataMount], report: CopyReport) -> Result<(), DataError> {
        let Some(own) = self.own().await? else {
            return self.local.hot(label, &self.here(mounts).await?, report).await;
        };
        let seen = Seen::new(mounts);
        let call = Call::DataHot { label: label.clone(), mounts: seen.told.clone() };
        self.copy::<()>(&own, &seen, call, report).await?;
        // It holds the pass that the cold copy ends.
        self.helpers.hold(Kind::Data, true).await;
        self.helpers.warm_up(&own).await;
        Ok(())
    }

    async fn cold(&self, label: &CopyLabel, mounts: &[DataMount], report: CopyReport) -> Result<Generation, DataError> {
        let Some(own) = self.own().await? else {
            return self.local.cold(label, &self.here(mounts).await?, report).await;
        };
        let seen = Seen::new(mounts);
        let call = Call::DataCold { label: label.clone(), mounts: seen.told.clone() };
        let copied = self.copy(&own, &seen, call, report).await;
        self.helpers.hold(Kind::Data, false).await;
        copied
    }

    async fn running(
        &self,
        label: &CopyLabel,
        mounts: &[DataMount],
        report: CopyReport,
    ) -> Result<Generation, DataError> {
        let Some(own) = self.own().await? else {
            return self.local.running(label, &self.here(mounts).await?, report).await;
        };
        self.require_apart(&own, mounts)?;
        let seen = Seen::new(mounts);
        let call = Call::DataRunning { label: label.clone(), mounts: seen.told.clone() };
        self.copy(&own, &seen, call, report).await
    }

    async fn restore(
        &self,
        label: &CopyLabel,
        generation: &str,
        mounts: &[DataMount],
        pinned: &[String],
        report: CopyReport,
    ) -> Result<Kept, DataError> {
        let Some(own) = self.own().await? else {
            return self.local.restore(label, generation, &self.here(mounts).await?, pinned, report).await;
        };
        let seen = Seen::new(mounts);
        let (label, generation, pinned) = (label.clone(), generation.to_owned(), pinned.to_vec());
        let call = Call::DataRestore { label, generation, mounts: seen.told.clone(), pinned };
        self.copy(&own, &seen, call, report).await
    }

    async fn load(&self, generation: &str, mounts: &[DataMount], report: CopyReport) -> Result<(), DataError> {
        let Some(own) = self.own().await? else {
            return self.local.load(generation, &self.here(mounts).await?, report).await;
        };
        let seen = Seen::new(mounts);
        let call = Call::DataLoad { generation: generation.to_owned(), mounts: seen.told.clone() };
        self.copy(&own, &seen, call, report).await
    }

    async fn tidy(&self, job: &JobId, standing: &Standing) -> Result<(), DataError> {
        let Some(own) = self.own().await? else { return self.local.tidy(job, standing).await };
        let call = Call::DataTidy { job: job.clone(), standing: standing.clone() };
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

    async fn distance(&self, generation: &str, mounts: &[DataMount]) -> Result<Distance, DataError> {
        let Some(own) = self.own().await? else {
            return self.local.distance(generation, &self.here(mounts).await?).await;
        };
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
