//! Snapshots against real file systems. They need root, as the updater's helper has it: owners, devices
//! and capabilities are the point.

// Helpers of tests may panic like tests; the lint's exception only knows functions marked as such.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod deep;
#[path = "../support/disk.rs"]
mod disk;
mod env;
mod export;
mod full;
mod mutations;
mod passes;
mod places;
mod random;
mod sqlite;
mod tree;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use processgit_updater::snapshot::{Counts, Generation, Label, Quiet, Repository, Source};

/// A source and a repository in one temporary folder.
struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    /// On the disk.
    fn new() -> Self {
        Self::within(&std::env::temp_dir())
    }

    /// Where flushing costs nothing: for tests that take many snapshots.
    fn in_memory() -> Self {
        Self::within(Path::new("/dev/shm"))
    }

    fn within(parent: &Path) -> Self {
        assert!(rustix::process::geteuid().is_root(), "these tests need root");
        let bench = Self { folder: tempfile::tempdir_in(parent).unwrap() };
        std::fs::create_dir(bench.source()).unwrap();
        bench
    }

    fn source(&self) -> PathBuf {
        self.folder.path().join("source")
    }

    fn sources(&self) -> Vec<Source> {
        sources(&self.source())
    }

    fn repository(&self) -> Repository {
        Repository::open(&self.folder.path().join("repository")).unwrap()
    }
}

fn sources(path: &Path) -> Vec<Source> {
    vec![Source::new("data", path)]
}

/// Hot pass and cold pass.
fn snapshot(repository: &Repository, sources: Vec<Source>) -> Generation {
    let mut pass = repository.begin(sources, Label::default()).unwrap();
    pass.hot(&mut Quiet).unwrap();
    pass.cold(&mut Quiet).unwrap()
}

/// Where the generation's copy of the source is.
fn copy(generation: &Generation) -> PathBuf {
    generation.path().join("tree/data")
}

/// Stops the action at its `n`th entry.
fn until(n: u64) -> impl FnMut(&Counts) -> ControlFlow<()> {
    move |counts| if counts.entries >= n { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}
