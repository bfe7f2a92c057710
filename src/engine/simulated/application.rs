//! The rest of the simulated world: the application that answers, its `.env`, its data, and a judge of
//! images that exist nowhere.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::json;

use super::{Behaviour, Simulated, World};
use crate::engine::{Container, RunState};
use crate::health::{Answer, Probe, Silence};
use crate::release::manifest::Manifest;
use crate::trust::{Trust, TrustError};
use crate::update::job::{CopyProgress, JobId, Verified};
use crate::update::ports::{
    CopyLabel, CopyReport, DataError, DataMount, DataStore, Distance, EnvError, EnvStore, ExportSink, Generation, Kept,
    Place, PlaceError, SnapshotInfo, Standing,
};

impl From<String> for EnvError {
    fn from(why: String) -> Self {
        Self::Broken(why)
    }
}

impl From<String> for DataError {
    fn from(why: String) -> Self {
        Self::Refused(why)
    }
}

#[async_trait]
impl Probe for Simulated {
    async fn accepts(&self, container: &Container, _port: u16, _timeout: Duration) -> bool {
        self.call("probe.accepts", |w| Ok::<_, String>(w.find(&container.id).is_some())).await.unwrap_or(false)
    }

    async fn ask(&self, container: &Container, timeout: Duration) -> Answer {
        let asked = self.call("probe.ask", |w| {
            let c = w.find(&container.id).map(|at| &w.containers[at]).filter(|c| c.state == RunState::Running);
            let image = c.and_then(|c| w.images.get(&c.image_id)).ok_or_else(|| "connection refused".to_owned())?;
            let body = json!({"version": image.version}).to_string().into_bytes();
            match image.behaviour {
                Behaviour::Crashes => Err("connection refused".to_owned()),
                Behaviour::Answers500 => Ok(Answer::Http { status: 500, body: Vec::new() }),
                _ => Ok(Answer::Http { status: 200, body }),
            }
        });
        let answer = tokio::time::timeout(timeout, asked).await.unwrap_or_else(|_| Err("no answer".into()));
        answer.unwrap_or_else(|why| Answer::Silent(Silence::Other(why)))
    }
}

/// Nowhere in particular.
#[async_trait]
impl Place for Simulated {
    async fn check(&self) -> Result<Vec<String>, PlaceError> {
        Ok(Vec::new())
    }

    async fn settle(&self) -> Result<(), PlaceError> {
        Ok(())
    }
}

#[async_trait]
impl EnvStore for Simulated {
    async fn read(&self) -> Result<Option<Vec<u8>>, EnvError> {
        self.call("env.read", |w| Ok(w.env.clone())).await
    }

    async fn write(&self, bytes: Option<&[u8]>) -> Result<(), EnvError> {
        let bytes = bytes.map(<[u8]>::to_vec);
        self.call("env.write", |w| {
            w.env = bytes;
            Ok(())
        })
        .await
    }

    async fn preflight(&self, project_env: &[String]) -> Result<(), EnvError> {
        let is_other = project_env.iter().any(|file| file.starts_with('/') && file != "/simulated/.env");
        self.call("env.preflight", |_| match project_env {
            [file] if is_other => Err(EnvError::Broken(format!("the project reads {file}, which is not simulated"))),
            _ => Ok(()),
        })
        .await
    }

    fn path(&self) -> String {
        ".env (simulated)".into()
    }
}

#[async_trait]
impl DataStore for Simulated {
    fn off(&self) -> Option<String> {
        None
    }

    async fn preflight(&self, _mounts: &[DataMount]) -> Result<(), DataError> {
        self.call("data.preflight", |_| Ok(())).await
    }

    async fn hot(&self, _label: &CopyLabel, _mounts: &[DataMount], report: CopyReport) -> Result<(), DataError> {
        report(CopyProgress { files: 1, bytes: 1, rate: 1, ..CopyProgress::default() });
        self.call("data.hot", |_| Ok(())).await
    }

    async fn cold(
        &self,
        label: &CopyLabel,
        mounts: &[DataMount],
        _report: CopyReport,
    ) -> Result<Generation, DataError> {
        let now = self.clock.now();
        self.call("data.cold", |w| {
            w.require_nobody_writes(mounts)?;
            Ok(w.keep(&format!("gen-{}", label.job), label, mounts, (now, true)))
        })
        .await
    }

    async fn running(
        &self,
        label: &CopyLabel,
        mounts: &[DataMount],
        _report: CopyReport,
    ) -> Result<Generation, DataError> {
        let now = self.clock.now();
        self.call("data.running", |w| Ok(w.keep(&format!("hot-{}", label.job), label, mounts, (now, false)))).await
    }

    async fn restore(
        &self,
        label: &CopyLabel,
        generation: &str,
        mounts: &[DataMount],
        _pinned: &[String],
        _report: CopyReport,
    ) -> Result<Kept, DataError> {
        let now = self.clock.now();
        self.call("data.restore", |w| {
            w.require_nobody_writes(mounts)?;
            let kept = format!("failed-{}", label.job);
            // Restoring a second time must not overwrite what was kept with what was restored.
            if !w.generations.contains_key(&kept) {
                w.keep(&kept, label, mounts, (now, true));
            }
            w.load(generation, mounts)?;
            Ok(Kept { id: kept, pruned: Vec::new() })
        })
        .await
    }

    async fn load(&self, generation: &str, mounts: &[DataMount], _report: CopyReport) -> Result<(), DataError> {
        self.call("data.load", |w| {
            w.require_nobody_writes(mounts)?;
            w.load(generation, mounts)
        })
        .await
    }

    /// As strict as retention can be: only the newest and what is pinned stays.
    async fn tidy(&self, _job: &JobId, standing: &Standing) -> Result<(), DataError> {
        self.call("data.tidy", |w| {
            let newest = w.generations.values().map(|(info, _)| info.created_at).max();
            w.generations.retain(|id, (info, _)| standing.needed.contains(id) || Some(info.created_at) == newest);
            Ok(())
        })
        .await
    }

    async fn list(&self) -> Result<Vec<SnapshotInfo>, DataError> {
        self.call("data.list", |w| {
            let mut list: Vec<SnapshotInfo> = w.generations.values().map(|(info, _)| info.clone()).collect();
            list.sort_by_key(|info| std::cmp::Reverse(info.created_at));
            Ok(list)
        })
        .await
    }

    async fn verify(&self, generation: &str) -> Result<(), DataError> {
        self.call("data.verify", |w| w.generation(generation).map(|_| ())).await
    }

    async fn distance(&self, generation: &str, _mounts: &[DataMount]) -> Result<Distance, DataError> {
        self.call("data.distance", |w| {
            let same = *w.generation(generation)? == w.data;
            Ok(if same { Distance::default() } else { Distance { files: 1, bytes: 1 } })
        })
        .await
    }

    async fn export(&self, generation: &str, mut sink: ExportSink) -> Result<(), DataError> {
        let data = self.call("data.export", |w| w.generation(generation).cloned()).await?;
        // Writing to the sink blocks.
        let written = tokio::task::spawn_blocking(move || sink.write_all(data.as_bytes())).await;
        written.map_err(|e| DataError::Broken(e.to_string()))?.map_err(|e| DataError::Broken(e.to_string()))
    }
}

impl World {
    fn keep(
        &mut self,
        id: &str,
        label: &CopyLabel,
        mounts: &[DataMount],
        (now, consistent): (jiff::Timestamp, bool),
    ) -> Generation {
        let bytes = self.data.len() as u64;
        let info = SnapshotInfo {
            id: id.to_owned(),
            created_at: now,
            consistent,
            reason: "simulated".into(),
            bytes,
            own_bytes: bytes,
            entries: 1,
            mounts: mounts.iter().map(|copied| copied.mount.destination.clone()).collect(),
            label: Some(label.clone()),
        };
        self.generations.insert(id.to_owned(), (info, self.data.clone()));
        self.keep_stores(id, mounts);
        Generation { id: id.to_owned(), files: 1, bytes }
    }

    fn generation(&self, id: &str) -> Result<&String, DataError> {
        let known = || self.generations.keys().cloned().collect();
        let missing = || DataError::NoSuchSnapshot { id: id.to_owned(), known: known() };
        self.generations.get(id).map(|(_, data)| data).ok_or_else(missing)
    }

    fn load(&mut self, id: &str, mounts: &[DataMount]) -> Result<(), DataError> {
        self.data = self.generation(id)?.clone();
        self.load_stores(id, mounts);
        Ok(())
    }
}

/// Judges manifests for real, and images not at all: a simulated image has no registry. It also tells
/// the world which repository the verified manifest names, so that any application can be tried.
pub struct SimulatedTrust {
    judge: Arc<dyn Trust>,
    world: Simulated,
}

impl SimulatedTrust {
    pub fn new(judge: Arc<dyn Trust>, world: Simulated) -> Self {
        Self { judge, world }
    }
}

#[async_trait]
impl Trust for SimulatedTrust {
    fn carriers(&self) -> &'static [&'static str] {
        self.judge.carriers()
    }

    async fn manifest(&self, manifest: &Bytes, carriers: &BTreeMap<String, Bytes>) -> Result<Verified, TrustError> {
        let verified = self.judge.manifest(manifest, carriers).await?;
        if let Ok(manifest) = Manifest::parse(manifest) {
            let repository = format!("{}/{}", manifest.image.registry, manifest.image.repository);
            self.world.world().expect(&repository, &manifest.version.to_string());
        }
        Ok(verified)
    }

    async fn image(&self, _registry: &str, _repository: &str, _digest: &str) -> Result<Verified, TrustError> {
        Ok(Verified {
            subject: "image".into(),
            carrier: "simulated".into(),
            identity: "nobody: the image was not checked, every Docker operation is simulated".into(),
            issuer: None,
            log_index: None,
            integrated_time: None,
        })
    }

    fn agrees(&self, method: &str, issuer: &str) -> Result<(), TrustError> {
        self.judge.agrees(method, issuer)
    }

    fn describe(&self) -> String {
        self.judge.describe()
    }
}
