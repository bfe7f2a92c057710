use semver::Version;

use super::Store;
use crate::update::Request;
use crate::update::job::{Job, JobId, State};
use crate::update::ports::{Entry, Journal};
use crate::update::record::Record;

/// Ends a job about `digest`; gives back why the digest is known to be bad, and the highest version.
async fn end(store: &Store, digest: &str, bad: bool, committed: Option<&str>) -> (Option<String>, Option<String>) {
    let now = "2026-01-02T03:04:05Z".parse().unwrap();
    let mut job = Job::new(JobId(format!("job_{digest}")), "v1".into(), now, false);
    job.target_digest = Some(digest.into());
    job.error = bad.then(|| "it crashed".into());
    job.enter(if bad { State::RolledBack } else { State::Committed }, now);
    let request = Request { target_tag: "v1".into(), allow_downgrade: false, accept_drift: false, retry: false };
    let committed = committed.map(|version| Version::parse(version).unwrap());
    let entry = Entry::Ended { bad_digest: bad.then(|| digest.to_owned()), committed };
    store.save(&job, &Record::new(job.id.clone(), crate::update::Order::Update(request)), entry).await.unwrap();
    let highest = store.highest_committed().await.unwrap().map(|version| version.to_string());
    (store.known_bad(digest).await.unwrap(), highest)
}

#[tokio::test]
async fn what_an_end_teaches() {
    let store = Store::in_memory().unwrap();
    let crashed = "it crashed (job_a, 2026-01-02T03:04:05Z)";
    // digest, rolled back after its start, committed as, then known to be bad because, then highest
    for (digest, bad, committed, known_bad, highest) in [
        ("a", true, None, Some(crashed), None),
        ("b", false, Some("1.2.0"), None, Some("1.2.0")),
        ("c", false, Some("1.10.0"), None, Some("1.10.0")),
        ("d", false, Some("1.9.0"), None, Some("1.10.0")),
        ("e", false, Some("1.10.0-rc.1"), None, Some("1.10.0")),
        ("f", false, None, None, Some("1.10.0")),
        ("a", false, Some("1.3.0"), None, Some("1.10.0")),
        ("a", true, None, Some(crashed), Some("1.10.0")),
    ] {
        let (found, best) = end(&store, digest, bad, committed).await;
        assert_eq!((found.as_deref(), best.as_deref()), (known_bad, highest), "{digest} {committed:?}");
    }
}

#[test]
fn a_second_updater_on_one_state_folder_is_told_who_holds_it() {
    let folder = tempfile::tempdir().unwrap();
    let first = Store::open(folder.path()).unwrap();
    let error = Store::open(folder.path()).err().expect("it is held").to_string();
    let holder = format!("is in use by another updater (process {}): only one may run on it", std::process::id());
    assert!(error.contains(&holder), "{error}");
    drop(first);
    Store::open(folder.path()).unwrap();
}

#[tokio::test]
async fn a_state_folder_keeps_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let first = Store::open(folder.path()).unwrap().installation().await.unwrap();
    assert_eq!((first.len(), Store::open(folder.path()).unwrap().installation().await.unwrap()), (16, first.clone()));
    assert_ne!(Store::in_memory().unwrap().installation().await.unwrap(), first);
}
