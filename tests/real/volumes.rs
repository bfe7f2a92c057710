//! Data that the application sees and a path on the host does not show: volumes that the engine mounts only while
//! a container uses them, and file systems that are mounted below a folder. What counts is read through the
//! application's container, after a bad release has damaged it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use lab::engine::must_run;
use lab::publish::ReleaseSpec;
use lab::sidecar::{Network, Sees};
use serde_json::{Value, json};

use crate::case::Leaves::{Restored, Untouched, Whatever};
use crate::case::{Case, Stage, case};
use crate::data::{data, has_data};
use crate::disk::{Mount, run};

/// A folder for one test, and a block device over a file in it.
struct Device {
    folder: tempfile::TempDir,
    device: Option<String>,
}

impl Device {
    fn none() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), device: None }
    }

    /// With a file system of this kind.
    fn new(make: &[&str]) -> Self {
        let mut this = Self::none();
        let image = this.folder.path().join("image");
        fs::File::create(&image).unwrap().set_len(120 << 20).unwrap();
        run(make[0], &make[1..], &image);
        let device = must_run(Command::new("losetup").args(["--find", "--show"]).arg(&image)).trim().to_owned();
        this.device = Some(device);
        this
    }

    fn subfolder(&self, name: &str) -> String {
        let path = self.folder.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path.display().to_string()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if let Some(device) = &self.device {
            let _ = Command::new("losetup").args(["--detach", device]).status();
        }
    }
}

/// The data is in a volume with these options of the driver.
fn in_volume(behaviour: &'static str, (kind, options, device): (&str, &str, &str)) -> Case {
    let options = format!("driver_opts: {{ type: \"{kind}\", o: \"{options}\", device: \"{device}\" }}");
    has_data(behaviour, "data:/data", Some(format!("volumes: {{ data: {{ {options} }} }}")))
}

/// On the host, and as a service of the project.
fn both(case: impl Fn() -> Case, check: impl Fn(Case, &str)) {
    check(case(), "on the host");
    check(case().sidecar(Sees::Deploy, |s| s.network = Network::Host), "in a container");
}

/// Each is damaged by a release that migrates at its start and dies, put back, and then updated for good.
fn is_put_back(options: (&str, &str, &str), prepare: impl Fn()) {
    let bad = || in_volume("crash-late:0.2", options);
    both(bad, |case, place| {
        prepare();
        let (stage, job) = case.ends("rolled_back", &["crashes again and again"], Restored);
        assert_eq!(data(&stage), json!({"counter": 2, "schema": 1}), "{place}: {options:?}");
        let snapshot = job.0["snapshot"].as_str().unwrap();
        let restore = stage.updater.post(&format!("/snapshots/{snapshot}/restore"), &json!({}));
        let restore = restore.expect_status(&[202], "a restore").json();
        stage.updater.wait_for_end(restore["job_id"].as_str().unwrap()).assert_end("committed", &[]);
        assert_eq!(data(&stage), json!({"counter": 2, "schema": 1}), "{place}: {options:?}, by hand");
        let good = stage.lab.publish(ReleaseSpec::new("1.2.0").image(|i| {
            i.env.extend([("DATA_DIR".into(), "/data".into()), ("SCHEMA".into(), "2".into())]);
        }));
        stage.updater.update(&good.tag).assert_end("committed", &[]);
        assert_eq!(data(&stage)["schema"], 2, "{place}: {options:?}");
    });
}

#[test]
fn a_folder_by_options() {
    let place = Device::none();
    let folder = place.subfolder("data");
    let empty = || {
        fs::remove_dir_all(&folder).unwrap();
        fs::create_dir(&folder).unwrap();
    };
    is_put_back(("none", "bind", &folder), empty);
}

#[test]
fn a_link_to_a_folder_by_options() {
    let place = Device::none();
    let (folder, link) = (place.subfolder("data"), place.folder.path().join("link"));
    std::os::unix::fs::symlink(&folder, &link).unwrap();
    let empty = || {
        fs::remove_dir_all(&folder).unwrap();
        fs::create_dir(&folder).unwrap();
    };
    is_put_back(("none", "rbind,rw", link.to_str().unwrap()), empty);
}

#[test]
fn a_block_device() {
    let device = Device::new(&["mkfs.ext4", "-q", "-F"]);
    let again = || run("mkfs.ext4", &["-q", "-F"], Path::new(device.device.as_ref().unwrap()));
    is_put_back(("ext4", "noatime,data=ordered", device.device.as_ref().unwrap()), again);
}

/// Its device is numbered anew at each mount.
#[test]
fn a_file_system_without_a_device_of_its_own() {
    let place = Device::none();
    let [lower, upper, work] = ["lower", "upper", "work"].map(|name| place.subfolder(name));
    let empty = || {
        for folder in [&upper, &work] {
            fs::remove_dir_all(folder).unwrap();
            fs::create_dir(folder).unwrap();
        }
    };
    is_put_back(("overlay", &format!("lowerdir={lower},upperdir={upper},workdir={work}"), "overlay"), empty);
}

#[test]
fn memory_is_refused_by_name_and_may_be_left_out() {
    both(
        || in_volume("good", ("tmpfs", "size=10m", "tmpfs")),
        |case, _| {
            let says = ["/data is the volume", "in memory", "PROCESSGIT_UPDATER_SNAPSHOT_EXCLUDE=/data"];
            case.ends("rolled_back", &says, Untouched);
        },
    );
    let (_, job) = in_volume("good", ("tmpfs", "size=10m", "tmpfs")).setting("SNAPSHOT_EXCLUDE", "/data").ends(
        "committed",
        &[],
        Whatever,
    );
    assert!(job.0["warnings"].to_string().contains("NOT copied: /data"), "{:#}", job.0);
}

/// A file system that the host has mounted below the folder that the application is given.
#[test]
fn what_is_mounted_below_a_folder_is_put_back_too() {
    let place = Device::none();
    let (folder, other) = (place.subfolder("data"), place.subfolder("other"));
    let below = PathBuf::from(&folder).join("below/here");
    fs::create_dir_all(&below).unwrap();
    both(
        || {
            let mount = format!("\"{folder}:/data\"");
            has_data("crash-late:0.2", &mount, None).app(|a| {
                a.environment.push("DATA_DIR: /data/below/here".into());
            })
        },
        |case, at| {
            fs::remove_dir_all(&other).unwrap();
            fs::create_dir(&other).unwrap();
            let _mount = Mount::new(&["--bind", &other], &below);
            let (stage, job) = case
                .release(|r| {
                    r.behaviour("crash-late:0.2").image(|i| {
                        i.env.extend([("DATA_DIR".into(), "/data/below/here".into()), ("SCHEMA".into(), "2".into())]);
                    })
                })
                .ends("rolled_back", &["crashes again and again"], Restored);
            assert_eq!(data(&stage), json!({"counter": 2, "schema": 1}), "{at}");
            let listed = stage.updater.get("/snapshots").expect_status(&[200], "GET /snapshots").json();
            let taken = listed["snapshots"].as_array().unwrap().iter().find(|s| s["id"] == job.0["snapshot"]).unwrap();
            assert_eq!(taken["mounts"], json!(["/data", "/data/below/here"]), "{at}");
        },
    );
}

/// The folder that the application holds is no longer the one at its path.
#[test]
fn a_folder_that_was_replaced_under_the_application_is_refused() {
    let place = Device::none();
    let folder = place.subfolder("data");
    let (path, moved) = (PathBuf::from(&folder), place.folder.path().join("moved"));
    has_data("good", &format!("\"{folder}:/data\""), None)
        .before(move |_| {
            fs::rename(&path, &moved).unwrap();
            fs::create_dir(&path).unwrap();
        })
        .ends("rolled_back", &["sees at /data is not what is at", "docker restart"], Untouched);
}

/// Of the engine, whoever uses it; `None` when there is none.
fn mountpoint(volume: &str) -> Option<PathBuf> {
    let mut inspect = Command::new("docker");
    let output = inspect.args(["volume", "inspect", "--format", "{{.Mountpoint}}", volume]).output().unwrap();
    output.status.success().then(|| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

/// The anonymous volumes of the application's container, by path.
fn anonymous(stage: &Stage) -> BTreeMap<String, String> {
    let app = stage.app.app().unwrap();
    let mounts = app["Mounts"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    mounts.iter().map(|mount| (text(&mount["Destination"]), text(&mount["Name"]))).collect()
}

/// The image of a bad release declares a volume more. It goes with that version; the one that was there before stays,
/// with what is in it.
#[test]
fn anonymous_volumes_of_a_failed_version_go_with_it() {
    let seen = Arc::new(Mutex::new((BTreeMap::new(), BTreeMap::new())));
    let (before, during) = (seen.clone(), seen.clone());
    let (stage, _) = case()
        .app(|a| a.image.volumes = vec!["/old".into()])
        .setting("SNAPSHOT", "on")
        .gate_for("crash")
        .release(|r| r.behaviour("crash-late:0.3").image(|i| i.volumes = vec!["/old".into(), "/new".into()]))
        .before(move |stage| {
            let volumes = anonymous(stage);
            fs::write(mountpoint(&volumes["/old"]).unwrap().join("kept"), "by the old version").unwrap();
            before.lock().unwrap().0 = volumes;
        })
        .during("healthchecking", move |stage| during.lock().unwrap().1 = anonymous(stage))
        .ends("rolled_back", &["crashes again and again"], Whatever);
    assert_eq!(stage.app.running_version().as_deref(), Some("1.0.0"));
    let (before, during) = seen.lock().unwrap().clone();
    assert_eq!(during["/old"], before["/old"], "handed on to the new version");
    assert_eq!(mountpoint(&during["/new"]), None, "what came with the new version");
    assert_eq!(anonymous(&stage), before, "handed back to the old version");
    let kept = mountpoint(&before["/old"]).unwrap().join("kept");
    assert_eq!(fs::read_to_string(kept).unwrap(), "by the old version");
}

/// A folder was added since the snapshot, and one was taken away: what both have is put back, the rest is left alone, and
/// it is said.
#[test]
fn a_restore_goes_as_far_as_the_snapshot_and_the_application_agree() {
    let stage =
        has_data("good", "data:/data, gone:/gone", Some("volumes: { data: {}, gone: {}, more: {} }".into())).stage();
    let job = |path: &str, body: &Value| {
        let accepted = stage.updater.post(path, body).expect_status(&[202], path).json();
        stage.updater.wait_for_end(accepted["job_id"].as_str().unwrap())
    };
    let snapshot = job("/snapshots", &json!({})).0["snapshot"].as_str().unwrap().to_owned();
    stage.app.edit(&stage.app.compose_file(), |text| text.replace("gone:/gone", "more:/more"));
    stage.app.compose(&["up", "-d"]);
    stage.app.await_version("1.0.0");
    let file = |volume: &str| mountpoint(&format!("{}_{volume}", stage.app.project)).unwrap().join("file");
    for volume in ["gone", "more"] {
        fs::write(file(volume), "written since").unwrap();
    }

    let restore = format!("/snapshots/{snapshot}/restore");
    let stays = "/more: not in the snapshot, stays as it is now";
    let missing = "/gone: in the snapshot, but no mount of the application that is copied: not put back";
    job(&restore, &json!({})).assert_end("rolled_back", &[stays, missing, "--accept-partial"]);
    assert_eq!(data(&stage)["counter"], 3, "nothing was done");

    let done = job(&restore, &json!({ "accept_partial": true }));
    done.assert_end("committed", &[]);
    let planning = done.output("planning");
    assert!(planning.contains(stays) && planning.contains(missing), "{planning}");
    assert_eq!(data(&stage)["counter"], 2, "as the snapshot has it, and one start more");
    for volume in ["gone", "more"] {
        assert_eq!(fs::read_to_string(file(volume)).unwrap(), "written since", "{volume}");
    }
}
