//! A journal in memory: quick, and its state can be looked at and copied at any moment. The real one has
//! its own tests; the stories run on it.

use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;
use processgit_updater::update::job::{Job, JobId, Kind, State};
use processgit_updater::update::ports::{Entry, Journal, JournalError, VerifiedDigest};
use processgit_updater::update::record::Record;
use semver::Version;

/// What is on the disk.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    /// Oldest first.
    pub jobs: Vec<(Job, Record)>,
    pub known_bad: Vec<(String, String)>,
    pub highest: Option<Version>,
}

#[derive(Default)]
pub struct Memory(Mutex<Disk>);

impl Memory {
    pub fn of(disk: Disk) -> Self {
        Self(Mutex::new(disk))
    }

    pub fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap()
    }
}

#[async_trait]
impl Journal for Memory {
    async fn save(&self, job: &Job, record: &Record, entry: Entry) -> Result<(), JournalError> {
        let mut disk = self.disk();
        let saved = (job.clone(), record.clone());
        match disk.jobs.iter_mut().find(|(known, _)| known.id == job.id) {
            Some(known) => *known = saved,
            None => disk.jobs.push(saved),
        }
        if let Entry::Ended { bad_digest, committed } = entry {
            disk.known_bad.extend(bad_digest.map(|digest| (digest, job.error.clone().unwrap_or_default())));
            if committed.is_some() {
                disk.known_bad.retain(|(digest, _)| Some(digest) != job.target_digest.as_ref());
            }
            disk.highest = disk.highest.take().max(committed);
        }
        Ok(())
    }
    async fn settle(&self, job: &Job) -> Result<(), JournalError> {
        let mut disk = self.disk();
        disk.jobs.iter_mut().filter(|(known, _)| known.id == job.id).for_each(|(known, _)| *known = job.clone());
        Ok(())
    }
    async fn waiting(&self) -> Result<Vec<Job>, JournalError> {
        Ok(self.disk().jobs.iter().rev().filter(|(job, _)| job.needs_you).map(|(job, _)| job.clone()).collect())
    }
    async fn record(&self, id: &str) -> Result<Option<Record>, JournalError> {
        Ok(self.disk().jobs.iter().find(|(job, _)| job.id.0 == id).map(|(_, record)| record.clone()))
    }
    async fn unfinished(&self) -> Result<Vec<(Job, Record)>, JournalError> {
        Ok(self.disk().jobs.iter().filter(|(job, _)| !job.state.is_end()).cloned().collect())
    }
    async fn job(&self, id: &str) -> Result<Option<Job>, JournalError> {
        Ok(self.disk().jobs.iter().find(|(job, _)| job.id.0 == id).map(|(job, _)| job.clone()))
    }
    async fn recent(&self, limit: usize) -> Result<Vec<Job>, JournalError> {
        Ok(self.disk().jobs.iter().rev().take(limit).map(|(job, _)| job.clone()).collect())
    }
    async fn count(&self) -> Result<usize, JournalError> {
        Ok(self.disk().jobs.len())
    }
    async fn known_bad(&self, digest: &str) -> Result<Option<String>, JournalError> {
        Ok(self.disk().known_bad.iter().find(|(bad, _)| bad == digest).map(|(_, why)| why.clone()))
    }
    async fn last_committed(&self) -> Result<Option<(Job, Record)>, JournalError> {
        let disk = self.disk();
        let moved = |(job, record): &&(Job, Record)| {
            job.state == State::Committed && record.plan.as_ref().is_some_and(|plan| !plan.no_op && !plan.stays)
        };
        Ok(disk.jobs.iter().rev().find(moved).filter(|(job, _)| job.kind == Kind::Update).cloned())
    }
    async fn verified(&self, digest: &str) -> Result<Vec<VerifiedDigest>, JournalError> {
        let disk = self.disk();
        Ok(disk.jobs.iter().rev().filter_map(|(job, _)| VerifiedDigest::of(job, digest)).collect())
    }
    async fn highest_committed(&self) -> Result<Option<Version>, JournalError> {
        Ok(self.disk().highest.clone())
    }
    fn log(&self, _: &JobId, _: &str) {}
    async fn read_log(&self, _: &str, _: u64, _: usize) -> Result<Vec<u8>, JournalError> {
        Ok(Vec::new())
    }
}
