//! The shapes of deployments that operators have, the updater beside the application with nothing but the
//! deployment's folder at `/deploy`. Each goes through a commit, a rollback and a kill; afterwards the
//! operator's own `docker compose up -d` has nothing to do, and the data is that of the host.

use lab::publish::ReleaseSpec;
use lab::sidecar::Sees;
use serde_json::json;

use crate::case::Leaves::Updated;
use crate::case::{Case, Stage, case};
use crate::data::data;

/// An application with data in a folder beside its Compose file: relative, so that whoever makes its
/// container from elsewhere gives it an empty one.
fn shape(sees: Sees) -> Case {
    case()
        .sidecar(sees, |s| s.lines.extend(["read_only: true", "cap_drop: [ALL]"].map(str::to_owned)))
        .app(|a| {
            a.image.env.push(("DATA_DIR".into(), "/data".into()));
            a.service_lines.push("volumes: [\"./data:/data\"]".into());
        })
        .setting("SNAPSHOT", "on")
        .setting("HEALTH_TIMEOUT", "10s")
        .release(with_data)
}

fn with_data(release: ReleaseSpec) -> ReleaseSpec {
    release.image(|i| i.env.push(("DATA_DIR".into(), "/data".into())))
}

/// Through a commit, a rollback and a kill.
fn holds(shape: Case) {
    let (mut stage, _) = shape.ends("committed", &[], Updated);
    assert_as_the_host_would(&stage, "1.1.0", 2);

    let bad = stage.lab.publish(with_data(ReleaseSpec::new("1.2.0").behaviour("crash-late:0.1")));
    stage.updater.update(&bad.tag).assert_end("rolled_back", &["crashes again and again"]);
    assert_as_the_host_would(&stage, "1.1.0", 3);

    let next = stage.lab.publish(with_data(ReleaseSpec::new("1.3.0")));
    let id = stage.updater.begin(&json!({ "target_tag": next.tag }));
    stage.updater.wait_for(&id, "swapping");
    stage.updater.kill9();
    stage.updater.restart();
    let job = stage.updater.wait_for_end(&id);
    let version = match job.state() {
        "committed" => "1.3.0",
        "rolled_back" => "1.1.0",
        _ => panic!("neither: {:#}", job.0),
    };
    assert_as_the_host_would(&stage, version, 4);
}

/// The version answers, from the data of the host, and the operator's own Compose would leave it alone.
fn assert_as_the_host_would(stage: &Stage, version: &str, starts: u64) {
    assert_eq!(stage.app.running_version().as_deref(), Some(version));
    assert_eq!(data(stage)["counter"], starts, "starts that the data remembers");
    assert_eq!(stage.app.would_change(), [""; 0], "`docker compose up -d` on the host");
}

#[test]
fn the_folder_alone() {
    holds(shape(Sees::Deploy));
}

#[test]
fn the_files_one_by_one() {
    // Edited in place by an operator's editor, which writes another file and renames it.
    let replaced = |stage: &Stage| {
        let (file, new) = (stage.app.env_file(), stage.app.folder().join(".env.new"));
        std::fs::copy(&file, &new).unwrap();
        std::fs::rename(&new, &file).unwrap();
    };
    holds(shape(Sees::SingleFiles).before(replaced));
}

#[test]
fn files_outside_of_the_folder() {
    holds(shape(Sees::Deploy).app(|a| {
        a.service_lines.extend(
            [
                "env_file:",
                "  - ../app.env",
                "  - { path: ../more/optional.env, required: false }",
                "secrets: [password]",
            ]
            .map(str::to_owned),
        );
        a.file_lines.push("secrets: { password: { file: ../more/password } }".into());
        for (file, content) in [
            ("../app.env", "FLAVOUR=vanilla\n"),
            ("../more/optional.env", "TOPPING=none\n"),
            ("../more/password", "secret\n"),
        ] {
            a.files.push((file.into(), content.into()));
        }
    }));
}

#[test]
fn several_compose_files_and_another_project() {
    holds(shape(Sees::Deploy).app(|a| {
        let over =
            "services:\n  app:\n    labels: { over: ride }\n    extends: { file: ../over/base.yml, service: base }\n";
        a.files.push(("../over/override.yml".into(), over.into()));
        a.files.push(("../over/base.yml".into(), "services:\n  base:\n    hostname: based\n".into()));
        a.options = ["-f", "docker-compose.yml", "-f", "../over/override.yml"].map(str::to_owned).to_vec();
    }));
}

#[test]
fn another_environment_file_and_names_by_compose() {
    holds(shape(Sees::Deploy).app(|a| {
        a.env_file = "production.env".into();
        a.options = ["--env-file", "production.env"].map(str::to_owned).to_vec();
        a.generated_name = true;
        if let Some(sidecar) = &mut a.sidecar {
            sidecar.generated_name = true;
            // A host name that says nothing.
            sidecar.lines.push("hostname: nobody".into());
        }
    }));
}

/// Killed, and removed and made anew, in every state that a job can be in.
#[test]
fn killed_or_removed_in_any_state() {
    let mut stage = shape(Sees::Deploy).stage();
    let states = ["planning", "pulling", "snapshotting", "swapping", "healthchecking", "rolling_back"];
    for (n, state) in states.into_iter().enumerate() {
        let version = format!("1.{}.0", n + 2);
        let behaviour = if state == "rolling_back" { "crash" } else { "good" };
        let release = stage.lab.publish(with_data(ReleaseSpec::new(&version).behaviour(behaviour)));
        let before = stage.app.running_version().expect("the application answers");
        let id = stage.updater.begin(&json!({ "target_tag": release.tag }));
        stage.updater.wait_for(&id, state);
        if n % 2 == 0 {
            stage.updater.kill9()
        } else {
            stage.updater.remove()
        }
        stage.updater.restart();
        let job = stage.updater.wait_for_end(&id);
        let runs = match job.state() {
            "committed" => version,
            "rolled_back" => before,
            _ => panic!("neither: {:#}", job.0),
        };
        assert_eq!(stage.app.running_version(), Some(runs), "in {state}: {:#}", job.0);
        assert_eq!(stage.app.would_change(), [""; 0], "in {state}: `docker compose up -d` on the host");
    }
    assert!(data(&stage)["counter"].as_u64() >= Some(2), "the data of the host");
}

/// The included file has a value of its own for the key; the deployment's `.env` wins, before and after.
#[test]
fn the_service_in_an_included_file_with_an_environment_of_its_own() {
    let included = |stage: &Stage| {
        let (app, folder) = (&stage.app, stage.app.folder());
        std::fs::rename(app.compose_file(), folder.join("app.yml")).unwrap();
        let main = format!("name: {}\ninclude:\n  - path: app.yml\n    env_file: app.env\n", app.project);
        app.write("docker-compose.yml", &main);
        app.write("app.env", "PROCESSGIT_VERSION=0.0.1\nTOPPING=none\n");
        app.compose(&["up", "-d"]);
        app.await_version("1.0.0");
    };
    let (stage, _) = case().before(included).ends("committed", &[], Updated);
    assert_eq!(stage.app.would_change(), [""; 0], "`docker compose up -d` on the host");
    assert!(std::fs::read_to_string(stage.app.folder().join("app.env")).unwrap().contains("=0.0.1"));
    let bad = stage.lab.publish(ReleaseSpec::new("1.2.0").behaviour("error500"));
    stage.updater.update(&bad.tag).assert_end("rolled_back", &[]);
    assert_eq!(stage.app.running_version().as_deref(), Some("1.1.0"));
    assert_eq!(stage.app.would_change(), [""; 0]);
}
