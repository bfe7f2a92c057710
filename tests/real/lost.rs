//! The journal is damaged while the updater is dead: what the job left on the engine is enough to have the
//! application again.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use lab::eventually;
use serde_json::{Value, json};

use crate::advice::{commands, with_worker};
use crate::case::Stage;
use crate::data::with_data;

impl Stage {
    fn state(&self) -> PathBuf {
        self.updater.settings()["PROCESSGIT_UPDATER_STATE_DIR"].clone().into()
    }

    /// It is killed, its journal is garbage, and it is started again. Returns how the job ended then.
    fn killed_and_journal_lost(&mut self, id: &str) -> lab::updater::Job {
        self.updater.kill9();
        self.updater.variables.clear();
        for file in ["journal.db", "journal.db-wal"] {
            fs::write(self.state().join(file), [0x2a; 40_000]).unwrap();
        }
        self.updater.restart();
        let job = self.updater.wait_for_end(id);
        let kept: Vec<_> = fs::read_dir(self.state()).unwrap().map(|e| e.unwrap().path()).collect();
        let kept = kept.iter().filter(|path| path.display().to_string().contains("journal.db.damaged-")).count();
        assert!(kept >= 2, "database and log are kept aside");
        let status = self.updater.get("/status").expect_status(&[200], "GET /status").json();
        assert!(status["notices"][0].as_str().unwrap_or_default().contains("the journal was damaged"), "{status:#}");
        let history = self.updater.get("/history").expect_status(&[200], "GET /history").json();
        assert_eq!(history["jobs"].as_array().map(Vec::len), Some(1), "{history:#}");
        job
    }
}

#[test]
fn while_the_cold_copy_runs() {
    // The hook makes much that the cold copy has to copy.
    let mut stage = with_worker(with_data("good")).setting("HOOK_BEFORE_COPY", "app: fill 100").stage();
    stage.updater.variables.insert("UPDATER_FAILPOINT".into(), "wait ColdCopy/bytes#80".into());
    stage.updater.restart();
    let id = stage.updater.begin(&json!({ "target_tag": stage.release.tag }));
    // The hot copy had nothing to tell of.
    eventually("the cold copy telling how it comes on", Duration::from_secs(60), || {
        let job = stage.updater.job(&id).0;
        let copied = &job["steps"].as_array()?.last()?["progress"]["copy"];
        (copied["bytes"].as_u64()? > 1 << 20 && copied["rate"].as_u64()? > 0).then_some(())
    });
    assert_eq!(stage.app.running_version(), None, "the application is stopped");
    let job = stage.killed_and_journal_lost(&id);
    job.assert_end("rolled_back", &["the journal was lost in the middle of this job, before the data was touched"]);
    assert_eq!(job.0["target_version"], json!("1.1.0"), "{:#}", job.0);
    stage.assert_all_is_as_before();
}

#[test]
fn while_the_new_version_is_being_proven() {
    let mut stage = with_worker(with_data("slow:3")).stage();
    let id = stage.updater.begin(&json!({ "target_tag": stage.release.tag }));
    stage.updater.wait_for(&id, "healthchecking");
    let job = stage.killed_and_journal_lost(&id);
    job.assert_end("failed", &["whether the data was changed is not known", "To keep what runs now"]);
    stage.app.await_version("1.1.0");
    assert_eq!(stage.updater.get("/status").json()["active_job"], Value::Null);
    stage.type_in(&commands(job.error()));
    stage.assert_all_is_as_before();
}
