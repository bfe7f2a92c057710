//! The jobs as readers see them: in memory, never waiting for the disk or for the running job.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, RwLock};

use super::job::Job;

/// How many jobs the history shows.
pub const HISTORY: usize = 50;

/// The last jobs and all that wait for a person, newest first, and how many there ever were.
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
    /// `recent` and `waiting` are newest first; a job may be in both.
    pub fn new(recent: Vec<Job>, waiting: Vec<Job>, count: usize) -> Self {
        let older = waiting.into_iter().filter(|job| recent.iter().all(|known| known.id != job.id));
        let jobs = older.collect::<Vec<_>>();
        Self { pages: RwLock::new(Pages { jobs: recent.into_iter().chain(jobs).map(Arc::new).collect(), count }) }
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
            let mut place = 0;
            pages.jobs.retain(|job| {
                place += 1;
                place <= HISTORY || job.needs_you
            });
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

    /// Newest first, at most [`HISTORY`].
    pub fn recent(&self, limit: usize) -> Vec<Arc<Job>> {
        self.read(|pages| pages.jobs.iter().take(limit.min(HISTORY)).cloned().collect())
    }

    /// Failed jobs that no person has settled, newest first; however many jobs there have been since.
    pub fn waiting(&self) -> Vec<Arc<Job>> {
        self.read(|pages| pages.jobs.iter().filter(|job| job.needs_you).cloned().collect())
    }

    pub fn count(&self) -> usize {
        self.read(|pages| pages.count)
    }
}
