//! The jobs as readers see them: in memory, never waiting for the disk or for the running job.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, RwLock};

use super::job::Job;

/// How many jobs the history shows.
pub const HISTORY: usize = 50;

/// The last jobs, newest first, and how many there ever were.
#[derive(Default)]
pub struct Book {
    pages: RwLock<Pages>,
}

#[derive(Default)]
struct Pages {
    jobs: VecDeque<Arc<Job>>,
    count: usize,
}

impl Book {
    /// `recent` is newest first.
    pub fn new(recent: Vec<Job>, count: usize) -> Self {
        Self { pages: RwLock::new(Pages { jobs: recent.into_iter().map(Arc::new).collect(), count }) }
    }

    fn read<T>(&self, look: impl FnOnce(&Pages) -> T) -> T {
        look(&self.pages.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, change: impl FnOnce(&mut Pages) -> T) -> T {
        change(&mut self.pages.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// A new job, on top.
    pub fn add(&self, job: Job) {
        self.write(|pages| {
            pages.count += 1;
            pages.jobs.push_front(Arc::new(job));
            pages.jobs.truncate(HISTORY);
        });
    }

    /// Changes a job; readers that hold it keep what they have.
    pub fn change(&self, id: &str, change: impl FnOnce(&mut Job)) {
        self.write(|pages| {
            if let Some(job) = pages.jobs.iter_mut().find(|j| j.id.0 == id) {
                change(Arc::make_mut(job));
            }
        });
    }

    pub fn get(&self, id: &str) -> Option<Arc<Job>> {
        self.read(|pages| pages.jobs.iter().find(|j| j.id.0 == id).cloned())
    }

    /// The job that has not ended.
    pub fn active(&self) -> Option<Arc<Job>> {
        self.read(|pages| pages.jobs.iter().find(|j| !j.state.is_end()).cloned())
    }

    pub fn recent(&self, limit: usize) -> Vec<Arc<Job>> {
        self.read(|pages| pages.jobs.iter().take(limit).cloned().collect())
    }

    pub fn count(&self) -> usize {
        self.read(|pages| pages.count)
    }
}
