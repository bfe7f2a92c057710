//! How far it is, and the way to stop it.

use std::ops::ControlFlow;

use super::error::{Error, Site};
use crate::failpoint;

/// What was done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Counts {
    /// Entries looked at.
    pub entries: u64,
    /// Entries made anew.
    pub copied: u64,
    /// Bytes of content read or written.
    pub bytes: u64,
    /// Entries removed.
    pub removed: u64,
}

/// Hears of every entry and of every stretch of a large file. `Break` ends the action with
/// [`Error::Interrupted`]; what is on disk then is what a power failure at that moment would leave.
pub trait Progress {
    fn update(&mut self, counts: &Counts) -> ControlFlow<()>;
}

impl<F: FnMut(&Counts) -> ControlFlow<()>> Progress for F {
    fn update(&mut self, counts: &Counts) -> ControlFlow<()> {
        self(counts)
    }
}

/// Nobody listens.
pub struct Quiet;

impl Progress for Quiet {
    fn update(&mut self, _counts: &Counts) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// Counts, and asks whether to go on.
pub(super) struct Meter<'a> {
    progress: &'a mut dyn Progress,
    pub counts: Counts,
}

impl<'a> Meter<'a> {
    pub fn new(progress: &'a mut dyn Progress) -> Self {
        Self { progress, counts: Counts::default() }
    }

    pub fn entry(&mut self, site: Site<'_>) -> Result<(), Error> {
        self.counts.entries += 1;
        failpoint::reach(format_args!("entry"));
        self.ask(site)
    }

    pub fn bytes(&mut self, bytes: u64, site: Site<'_>) -> Result<(), Error> {
        self.counts.bytes += bytes;
        failpoint::reach(format_args!("bytes"));
        self.ask(site)
    }

    fn ask(&mut self, site: Site<'_>) -> Result<(), Error> {
        match self.progress.update(&self.counts) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Interrupted { path: site.text() }),
        }
    }
}
