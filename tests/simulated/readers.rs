//! What may be asked beside jobs: history, logs, snapshots, checks, what a rollback would do.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use processgit_updater::engine::simulated::{Fate, NoFaults};
use processgit_updater::release::{Asset, Channel, Release, ReleaseSource, SourceError};
use processgit_updater::update::door::AbortError;
use processgit_updater::update::job::State;
use processgit_updater::update::{CheckRequest, SubmitError, Updater};
use tokio::time::{Instant, sleep};

use crate::bench::{At, Installation, Scene, rollback};
use crate::death::ended;
use crate::invariants::assert_invariants;

#[tokio::test(start_paused = true)]
async fn jobs_are_told_newest_first() {
    let installation = Installation::ready(Scene::default()).await;
    let (updater, _) = installation.process(Arc::new(NoFaults)).await;
    let first = installation.submit_and_wait(&updater, installation.order()).await;
    let back = rollback(&installation.world.world());
    let second = installation.submit_and_wait(&updater, back).await;
    let told: Vec<String> = updater.history(50).iter().map(|job| job.id.0.clone()).collect();
    assert_eq!(told, [second.id.0.as_str(), &first.id.0]);
    assert_eq!((updater.history(1).len(), updater.count()), (1, 2));
    assert!(updater.stub(), "the scene says so");
    assert_eq!((&*updater.trust(), &*updater.check(CheckRequest::default()).await.trust), ("test", "test"));
    let real = Installation::new(Scene { options: |options| options.stub = false, ..Scene::default() });
    assert!(!real.process(Arc::new(NoFaults)).await.0.stub());

    // This journal keeps no logs, but knows its jobs.
    assert_eq!(updater.log(&first.id.0, 0).await, Some(vec![]));
    assert_eq!(updater.log("job_ffffffffffffffff", 0).await, None);

    let ended = updater.abort(&first.id.0).await.unwrap_err();
    assert!(matches!(&ended, AbortError::TooLate(text) if text.contains("has ended, committed")), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn snapshots_are_told_and_read() {
    let installation = Installation::ready(Scene::default()).await;
    let (updater, _) = installation.process(Arc::new(NoFaults)).await;
    let job = installation.submit_and_wait(&updater, installation.order()).await;
    let told: Vec<String> = updater.snapshots().await.unwrap().into_iter().map(|snapshot| snapshot.id).collect();
    assert_eq!(told, [job.snapshot.unwrap()]);
    updater.verify_snapshot(&told[0]).await.unwrap();
    updater.verify_snapshot("20200101T000000Z-job_ffffffffffffffff").await.unwrap_err();
    let written = Written::default();
    updater.export_snapshot(&told[0], Box::new(written.clone())).await.unwrap();
    assert_eq!(&*written.0.lock().unwrap(), b"written by 1.0.0");
    updater.export_snapshot("20200101T000000Z-job_ffffffffffffffff", Box::new(written)).await.unwrap_err();

    let view = updater.rollback_view(true).await.unwrap();
    assert_eq!((view.snapshot.as_deref(), view.is_partial), (Some(told[0].as_str()), false));
    let view = updater.rollback_view(false).await.unwrap();
    assert_eq!((view.snapshot, view.written_since, view.is_partial), (None, None, false));
}

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What may be left in the middle is left at once; the rest is waited for, as long as there is time. Either way the next
/// start ends the job.
#[tokio::test(start_paused = true)]
async fn a_stop_leaves_the_job_to_the_next_start() {
    for (call, seconds) in [("engine.pull", 0), ("engine.stop", 20)] {
        let installation = Installation::new(Scene::default());
        let (updater, _) = installation.process(At::nth(call, 1, Fate::Hang)).await;
        let job = installation.submit(&updater, installation.order()).await.unwrap();
        assert_eq!(job.target_tag, "v1.1.0", "told from the beginning");
        sleep(Duration::from_secs(5)).await;
        let begun = Instant::now();
        updater.stop(Duration::from_secs(20)).await;
        assert_eq!(begun.elapsed().as_secs(), seconds, "{call}");
        assert!(!updater.job(&job.id.0).await.unwrap().state.is_end(), "{call}");
        let refused = updater.submit(installation.order()).await;
        assert!(matches!(refused, Err(SubmitError::Stopping)), "{call}: {refused:?}");
        let job = ended(&installation, Arc::new(NoFaults)).await;
        assert_eq!(job.state, State::RolledBack, "{call}: {:?}", job.error);
        assert_invariants(&installation, &job, call);
    }
}

/// Says what it remembers until it is told to forget.
struct Remembering {
    remembered: Mutex<Option<&'static str>>,
    source: Arc<dyn ReleaseSource>,
}

#[async_trait]
impl ReleaseSource for Remembering {
    async fn latest(&self, _: Channel) -> Result<Release, SourceError> {
        let tag = self.remembered.lock().unwrap().unwrap_or("v1.1.0");
        self.source.by_tag(tag).await
    }
    async fn by_tag(&self, tag: &str) -> Result<Release, SourceError> {
        self.source.by_tag(tag).await
    }
    async fn fetch(&self, asset: &Asset, cap: usize) -> Result<Bytes, SourceError> {
        self.source.fetch(asset, cap).await
    }
    fn forget(&self) {
        self.remembered.lock().unwrap().take();
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_remembered_counts_unless_it_is_older_than_what_runs() {
    // 1.0.0 runs.
    for (remembered, told) in [("v0.9.0", "v1.1.0"), ("v1.0.0", "v1.0.0"), ("v1.1.0", "v1.1.0")] {
        let installation = Installation::ready(Scene::default()).await;
        let (mut ports, options, _) = installation.ports(Arc::new(NoFaults));
        let remembering = Remembering { remembered: Mutex::new(Some(remembered)), source: ports.releases.clone() };
        ports.releases = Arc::new(remembering);
        let updater = Updater::start(ports, options).await.unwrap();
        let check = updater.check(CheckRequest::default()).await;
        assert_eq!(check.release.as_ref().map(|release| release.tag.as_str()), Some(told), "{remembered} {check:?}");
        updater.forget_releases();
        assert_eq!(updater.latest(Channel::Stable).await.unwrap().tag, "v1.1.0");
    }
}
