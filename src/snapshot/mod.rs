//! Copies of the data, exact restore.

use async_trait::async_trait;

use crate::engine::Mount;
use crate::update::job::JobId;
use crate::update::ports::{CopyReport, DataError, DataStore, Generation};

/// No data is copied; the Plan says so, and a rollback that would need it ends `failed`.
pub struct NoSnapshots {
    why: &'static str,
}

impl NoSnapshots {
    pub fn new(wanted: bool) -> Self {
        let why = if wanted {
            "this version of the updater does not copy data yet"
        } else {
            "PROCESSGIT_UPDATER_SNAPSHOT is off"
        };
        Self { why }
    }

    fn refuse<T>(&self) -> Result<T, DataError> {
        Err(DataError(self.why.to_owned()))
    }
}

#[async_trait]
impl DataStore for NoSnapshots {
    fn off(&self) -> Option<String> {
        Some(self.why.to_owned())
    }
    async fn preflight(&self, _mounts: &[Mount]) -> Result<(), DataError> {
        Ok(())
    }
    async fn hot(&self, _job: &JobId, _mounts: &[Mount], _report: CopyReport) -> Result<(), DataError> {
        self.refuse()
    }
    async fn cold(&self, _job: &JobId, _mounts: &[Mount], _report: CopyReport) -> Result<Generation, DataError> {
        self.refuse()
    }
    async fn restore(
        &self,
        _job: &JobId,
        _generation: &str,
        _mounts: &[Mount],
        _report: CopyReport,
    ) -> Result<String, DataError> {
        self.refuse()
    }
    async fn tidy(&self, _job: &JobId) -> Result<(), DataError> {
        Ok(())
    }
}
