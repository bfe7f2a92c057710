//! Compose as operators use it: what `.env` and their shell tell it, and what their files name.

use lab::sidecar::Sees;

use crate::case::Leaves::{Restored, Untouched, Updated};
use crate::case::{Case, Stage, case};

/// With this line in `.env`, beside the version.
fn env_says(case: Case, line: &'static str) -> Case {
    case.before(move |s: &Stage| s.app.edit(&s.app.env_file(), |text| format!("{line}\n{text}")))
}

/// A container of the project that the application's Compose file does not name.
fn with_a_sibling_of_another_file(case: Case, line: &'static str) -> Case {
    case.before(move |s: &Stage| {
        let image =
            s.lab.engine.container(&format!("{}-worker-1", s.app.project)).expect("a sibling")["Config"]["Image"]
                .as_str()
                .expect("its image")
                .to_owned();
        s.app.write("other.yml", &format!("services:\n  other:\n    image: {image}\n    restart: always\n"));
        s.app.compose(&["-p", &s.app.project, "-f", "other.yml", "up", "-d"]);
        s.app.edit(&s.app.env_file(), |text| format!("{line}\n{text}"));
    })
}

#[test]
fn compose_would_remove_what_the_file_does_not_name() {
    with_a_sibling_of_another_file(case(), "COMPOSE_REMOVE_ORPHANS=true").ends("committed", &[], Updated);
}

#[test]
fn the_way_back_removes_nobody_either() {
    with_a_sibling_of_another_file(case(), "COMPOSE_REMOVE_ORPHANS=1")
        .release(|r| r.behaviour("crash-late:0.1"))
        .gate_for("crash")
        .ends("rolled_back", &["crashes again and again"], Restored);
}

/// The updater itself is what the application's file does not name.
#[test]
fn the_updater_has_a_file_of_its_own() {
    let apart = |s: &Stage| {
        let file = s.app.compose_file();
        s.app.edit(&file, |text| text.split("\n  updater:\n").next().unwrap_or_default().to_owned());
        s.app.edit(&s.app.env_file(), |text| format!("COMPOSE_REMOVE_ORPHANS=true\n{text}"));
    };
    case().sidecar(Sees::Deploy, |_| {}).before(apart).ends("committed", &[], Updated);
}

#[test]
fn compose_would_print_colours() {
    env_says(case(), "COMPOSE_ANSI=always").ends("committed", &[], Updated);
}

#[test]
fn the_application_is_in_a_profile_that_env_selects() {
    case()
        .app(|a| {
            a.files.push((
                ".env".into(),
                format!("COMPOSE_PROFILES=full\nAPP_VERSION={}\nLAST='no newline'", a.image_tag),
            ));
            a.service_lines.push("profiles: [full]".into());
        })
        .ends("committed", &[], Updated);
}

/// The container goes on without the file; no other could be started.
#[test]
fn a_secret_is_gone_since_the_application_was_started() {
    case()
        .app(|a| {
            a.files.push(("secret.txt".into(), "s".into()));
            a.service_lines.push("secrets: [key]".into());
            a.file_lines.extend(["secrets:".into(), "  key: { file: ./secret.txt }".into()]);
        })
        .before(|s| std::fs::remove_file(s.app.folder().join("secret.txt")).unwrap())
        .ends("rolled_back", &["secret.txt does not exist", "Put it back"], Untouched);
}

/// The engine would make an empty folder, and the new version would run on it.
#[test]
fn the_source_of_a_mount_is_gone() {
    case()
        .app(|a| a.service_lines.push("volumes: [\"./conf:/conf:ro\"]".into()))
        .before(|s| std::fs::remove_dir_all(s.app.folder().join("conf")).unwrap())
        .ends("rolled_back", &["conf does not exist", "mounted at /conf"], Untouched);
}

#[test]
fn everything_that_is_mounted_is_there() {
    case()
        .app(|a| {
            a.files.push(("secret.txt".into(), "s".into()));
            a.service_lines.extend(["volumes: [\"./conf:/conf:ro\"]".into(), "secrets: [key]".into()]);
            a.file_lines.extend(["secrets:".into(), "  key: { file: ./secret.txt }".into()]);
        })
        .ends("committed", &[], Updated);
}
