//! The layout is kept: dependencies point one way, pure files do no I/O, files stay short.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut found = Vec::new();
    let mut open = vec![root.clone()];
    if root.is_file() {
        return vec![(root.clone(), fs::read_to_string(&root).unwrap())];
    }
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap().flatten() {
            let path = entry.path();
            match path.extension() {
                _ if path.is_dir() => open.push(path),
                Some(ext) if ext == "rs" => found.push((path.clone(), fs::read_to_string(&path).unwrap())),
                _ => {}
            }
        }
    }
    assert!(!found.is_empty(), "{folder} has no sources");
    found
}

/// Code without comments and without its own tests.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

#[test]
fn dependencies_point_one_way() {
    let adapters = [
        "crate::daemon",
        "crate::cli",
        "crate::api",
        "crate::settings",
        "crate::store",
        "crate::registry",
        "crate::helper",
        "crate::deputy",
    ];
    let real = [
        "engine::docker",
        "engine::compose::",
        "engine::compose;",
        "engine::simulated",
        "engine::spawner",
        "health::http",
        "release::github",
        "snapshot::",
        "trust::judge",
        "bollard",
        "rusqlite",
        "reqwest",
        "axum",
    ];
    let rows: Vec<(&str, Vec<&str>)> = vec![
        ("src/update", adapters.iter().chain(&real).copied().collect()),
        (
            "src/api",
            vec![
                "crate::engine",
                "crate::store",
                "crate::trust",
                "crate::daemon",
                "crate::cli",
                "update::run",
                "update::effects",
                "update::transition",
                "update::record",
                "update::plan",
            ],
        ),
        ("src/doctor", vec!["crate::daemon", "crate::cli", "crate::api"]),
        ("src/engine", vec!["crate::daemon", "crate::cli", "crate::api", "crate::store", "crate::settings"]),
        ("src/release", vec!["crate::daemon", "crate::cli", "crate::api", "crate::store", "crate::engine"]),
        ("src/trust", vec!["crate::daemon", "crate::cli", "crate::api", "crate::store"]),
    ];
    for (folder, forbidden) in rows {
        for (path, text) in sources(folder) {
            if path.components().any(|c| c.as_os_str() == "tests") {
                continue;
            }
            for name in &forbidden {
                assert!(!code(&text).contains(name), "{} must not know {name}", path.display());
            }
        }
    }
}

#[test]
fn only_one_module_knows_the_docker_client() {
    for (path, text) in sources("src") {
        let allowed = path.components().any(|c| c.as_os_str() == "docker");
        assert!(allowed || !code(&text).contains("bollard"), "{} must not know bollard", path.display());
    }
}

#[test]
fn pure_files_do_no_io() {
    let pure = ["plan", "policy", "running", "drift", "transition", "record", "advice", "job"]
        .map(|f| format!("src/update/{f}.rs"));
    let others =
        ["src/release/manifest.rs", "src/reference.rs", "src/platform.rs", "src/envfile.rs", "src/envfile/scan.rs"]
            .map(String::from);
    let survey =
        ["data_beside.rs", "data_beside", "hosts.rs", "named.rs", "reach.rs"].map(|f| format!("src/update/survey/{f}"));
    let doctor = ["finding", "show", "settings"].map(|f| format!("src/doctor/{f}.rs"));
    for file in pure.iter().chain(&others).chain(&survey).chain(&doctor) {
        for (path, text) in sources(file) {
            for io in ["std::fs", "tokio::", "std::net::Tcp", "std::process", "std::env", "async fn", "Timestamp::now"]
            {
                assert!(!code(&text).contains(io), "{} is pure and must not use {io}", path.display());
            }
        }
    }
}

#[test]
fn files_stay_short() {
    for folder in ["src", "tests", "lab"] {
        for (path, text) in sources(folder) {
            let lines = text.lines().count();
            assert!(lines <= 620, "{} has {lines} lines", path.display());
        }
    }
}

/// What `docs/recovery.md` says is proven has a test of that name.
#[test]
fn every_rule_has_the_tests_that_the_page_names() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/recovery.md")).unwrap();
    let (_, rules) = page.split_once("## What is proven").unwrap();
    let all: String = ["src", "tests", "lab"].iter().flat_map(|f| sources(f)).map(|(_, text)| text).collect();
    let rows: Vec<&str> = rules.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| rule")).collect();
    assert_eq!(rows.len(), 27);
    for row in rows {
        let tests: Vec<&str> = row.rsplit('|').nth(1).unwrap().split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "{row}");
        for test in tests {
            assert!(all.contains(&format!("fn {test}(")), "there is no test {test}: {row}");
        }
    }
}
