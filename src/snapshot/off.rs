//! No data is copied.

use async_trait::async_trait;

use crate::update::job::JobId;
use crate::update::ports::{
    CopyLabel, CopyReport, DataError, DataMount, DataStore, Distance, ExportSink, Generation, Kept, SnapshotInfo,
    Standing,
};

/// The operator has turned snapshots off: the Plan says so, and a rollback that would need one ends
/// `failed`.
pub struct NoSnapshots;

fn refuse<T>() -> Result<T, DataError> {
    Err(DataError::Off)
}

#[async_trait]
impl DataStore for NoSnapshots {
    fn off(&self) -> Option<String> {
        Some(DataError::Off.to_string())
    }
    async fn preflight(&self, _: &[DataMount]) -> Result<(), DataError> {
        Ok(())
    }
    async fn hot(&self, _: &CopyLabel, _: &[DataMount], _: CopyReport) -> Result<(), DataError> {
        refuse()
    }
    async fn cold(&self, _: &CopyLabel, _: &[DataMount], _: CopyReport) -> Result<Generation, DataError> {
        refuse()
    }
    async fn running(&self, _: &CopyLabel, _: &[DataMount], _: CopyReport) -> Result<Generation, DataError> {
        refuse()
    }
    async fn restore(
        &self,
        _: &CopyLabel,
        _: &str,
        _: &[DataMount],
        _: &[String],
        _: CopyReport,
    ) -> Result<Kept, DataError> {
        refuse()
    }
    async fn load(&self, _: &str, _: &[DataMount], _: CopyReport) -> Result<(), DataError> {
        refuse()
    }
    async fn tidy(&self, _: &JobId, _: &Standing) -> Result<(), DataError> {
        Ok(())
    }
    async fn list(&self) -> Result<Vec<SnapshotInfo>, DataError> {
        refuse()
    }
    async fn verify(&self, _: &str) -> Result<(), DataError> {
        refuse()
    }
    async fn distance(&self, _: &str, _: &[DataMount]) -> Result<Distance, DataError> {
        refuse()
    }
    async fn export(&self, _: &str, _: ExportSink) -> Result<(), DataError> {
        refuse()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// Whoever relies on a copy that there is not must hear of it.
    #[tokio::test]
    async fn nothing_is_copied_and_nothing_is_put_back() {
        let label = CopyLabel::default();
        let report: CopyReport = Arc::new(|_| {});
        let off = NoSnapshots;
        assert!(off.off().is_some() && off.preflight(&[]).await.is_ok());
        assert_eq!(off.tidy(&JobId("j".into()), &Standing::default()).await, Ok(()));
        for refused in [
            off.hot(&label, &[], report.clone()).await,
            off.cold(&label, &[], report.clone()).await.map(drop),
            off.running(&label, &[], report.clone()).await.map(drop),
            off.restore(&label, "g", &[], &[], report.clone()).await.map(drop),
            off.load("g", &[], report).await,
            off.list().await.map(drop),
            off.verify("g").await,
            off.distance("g", &[]).await.map(drop),
            off.export("g", Box::new(std::io::sink())).await,
        ] {
            assert_eq!(refused, Err(DataError::Off));
        }
    }
}
