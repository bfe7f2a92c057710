//! What a `failed` job prints brings the old version back, with its data: the commands are typed as they
//! stand.

use std::process::Command;

use serde_json::json;

use crate::case::{Leaves::Whatever, Stage};
use crate::data::{data, with_data};
use crate::disk::Disk;

/// The numbered commands at the end of the error.
pub fn commands(error: &str) -> Vec<String> {
    let (_, mut rest) = error.rsplit_once("by hand: (1) ").unwrap_or_else(|| panic!("no commands in {error:?}"));
    let mut commands = Vec::new();
    loop {
        let next = format!("  ({}) ", commands.len() + 2);
        let (command, more) = rest.split_once(&next).map_or((rest, None), |(command, more)| (command, Some(more)));
        commands.push(command.to_owned());
        match more {
            Some(more) => rest = more,
            None => return commands,
        }
    }
}

impl Stage {
    /// A person types them on the host, one after the other; each must succeed.
    pub fn type_in(&self, commands: &[String]) {
        let folder = std::path::Path::new(env!("CARGO_BIN_EXE_processgit-updater")).parent().unwrap();
        let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
        for command in commands {
            let mut shell = Command::new("sh");
            shell.args(["-c", command]);
            if !command.contains("docker exec") {
                shell.envs(self.updater.settings()).env("PATH", &path);
            }
            let output = shell.output().expect("a shell");
            assert!(output.status.success(), "{command}: {output:?}");
        }
    }

    /// The old version runs as it did before, on the data it had; and a next update works.
    pub fn assert_all_is_as_before(&self) {
        self.app.await_version("1.0.0");
        let (before, after) = (&self.before, lab::world::World::of(&self.app));
        let (old, new) = (before.app.as_ref().unwrap(), after.app.as_ref().unwrap());
        assert_eq!((&old.image, &old.restart_policy, &old.shape), (&new.image, &new.restart_policy, &new.shape));
        assert_eq!(before.env, after.env);
        for (name, sibling) in &before.others {
            let now = &after.others[name];
            assert_eq!((&now.id, &*now.state, &now.restart_policy), (&sibling.id, "running", &sibling.restart_policy));
        }
        // One start before, one after the way back.
        assert_eq!(data(self), json!({"counter": 2, "schema": 1}));
        self.assert_next_update_works();
    }
}

/// The worker writes to the same data, and is stopped with the application.
pub fn with_worker(case: crate::case::Case) -> crate::case::Case {
    case.app(|a| a.worker_lines.push("volumes: [data:/data]".into())).setting("STOP_SERVICES", "worker")
}

#[test]
fn compose_does_not_work_on_the_way_back() {
    compose_breaks(with_worker(with_data("error500")));
}

#[test]
fn compose_does_not_work_on_the_way_back_and_the_updater_is_a_sidecar() {
    compose_breaks(with_worker(with_data("error500")).sidecar(lab::sidecar::Sees::Deploy, |_| {}));
}

/// A file that every container of the application needs is gone: no configuration can be made anew.
fn compose_breaks(case: crate::case::Case) {
    let case = case.app(|a| {
        a.service_lines.push("secrets: [password]".into());
        a.file_lines.push("secrets: { password: { file: ./password } }".into());
        a.files.push(("password".into(), "secret".into()));
    });
    let (stage, job) = case
        .setting("HEALTH_TIMEOUT", "2s")
        .during("healthchecking", |s| std::fs::remove_file(s.app.folder().join("password")).expect("the file"))
        .ends("failed", &["500", "password", "The data is back as it was", "docker start"], Whatever);
    assert_eq!(stage.app.running_version(), None, "nobody runs");
    stage.app.write("password", "secret");
    stage.type_in(&commands(job.error()));
    stage.assert_all_is_as_before();
}

/// What the failed version wrote cannot be kept for lack of room, so nothing is restored over it. The old
/// container stands still, or the swap has taken its place.
#[test]
fn no_room_for_the_copy_of_what_the_failed_version_wrote() {
    for migration in [Some("fill 40 --fail"), None] {
        let disk = Disk::ext4(80);
        let folder = disk.root().join("snapshots").display().to_string();
        let case = with_data("error500").setting("SNAPSHOT_DIR", folder.leak()).setting("HEALTH_TIMEOUT", "2s");
        let case = with_worker(case).offers(move |lab, _| {
            let mut release = lab::publish::ReleaseSpec::new("1.1.0").behaviour("error500");
            release = release.image(|i| {
                i.env.extend([("DATA_DIR".into(), "/data".into()), ("SCHEMA".into(), "2".into())]);
                i.env.extend(migration.is_none().then(|| ("FILL".into(), "40".into())));
            });
            lab.publish(match migration {
                Some(migration) => release.migration(migration),
                None => release,
            })
        });
        disk.fill(24);
        let says = ["No space left on device", "free room there or prune snapshots", "must be put back before"];
        let (stage, job) = case.ends("failed", &says, Whatever);
        assert_eq!(stage.app.running_version(), None, "it is not started on data that may be damaged");
        let source = stage.app.app().unwrap()["Mounts"][0]["Source"].as_str().unwrap().to_owned();
        let damaged = std::path::Path::new(&source).join("fill");
        assert_eq!(damaged.metadata().unwrap().len(), 40 << 20, "nothing was restored");
        std::fs::remove_file(disk.filler()).unwrap();
        stage.type_in(&commands(job.error()));
        assert!(!damaged.exists());
        stage.assert_all_is_as_before();
    }
}
