//! The environment that Compose runs in.
//!
//! Compose takes behaviour from its environment, and every `COMPOSE_…` of the project's `.env` becomes a
//! part of that environment unless the process has the variable already. So three kinds are told apart:
//!
//! | kind | example | treated |
//! |---|---|---|
//! | changes what a command *does* | `COMPOSE_REMOVE_ORPHANS` | [`PINNED`] to one value |
//! | changes what the files *mean* | `COMPOSE_PROFILES`, `DOCKER_DEFAULT_PLATFORM` | left to `.env`, as for the operator's own `up` |
//! | selects files and project | `COMPOSE_FILE` | the container's labels decide, by options that beat both |

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::Path;

use crate::engine::{DEFAULT_HOST, Project};

pub(super) const DOCKER_HOST: &str = "DOCKER_HOST";

/// What Compose needs of our environment: to find itself, its settings and the way out. Anything else would
/// beat `.env` in the interpolation of the project's files, and where `.env` has one of these, `.env` wins.
const PASSED_ON: [&str; 12] = [
    "PATH",
    "HOME",
    "DOCKER_CONFIG",
    // Even a dry run makes this folder, `~/.docker/buildx` unless told otherwise.
    "BUILDX_CONFIG",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
];
const PASSED_ON_PREFIXES: [&str; 2] = ["XDG_", "SSL_"];
/// How the engine is reached, with the address (which is an option, [`host`]): whatever `.env` says, Compose
/// must talk to the engine that is watched here.
const OF_THE_ENGINE: [&str; 2] = ["DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"];

/// Variables that change what Compose does, each with the value that it has for us. Found in Compose 2.0 to
/// 5.5; `tests/engine/compose_variables.txt` lists all that are known, with what a `.env` may say.
pub(super) const PINNED: [(&str, &str); 11] = [
    // `always` is refused together with a progress that is not a terminal's.
    ("COMPOSE_ANSI", "never"),
    // Whatever is built is built by the default builder; nothing is, here.
    ("COMPOSE_BAKE", "true"),
    // The version is in `.env`.
    ("COMPOSE_DISABLE_ENV_FILE", "false"),
    // The container's label says which files they are.
    ("COMPOSE_ENV_FILES", ""),
    ("COMPOSE_EXPERIMENTAL", "false"),
    // Containers of the project that the files do not name: neither removed nor complained of.
    ("COMPOSE_IGNORE_ORPHANS", "true"),
    ("COMPOSE_REMOVE_ORPHANS", "false"),
    ("COMPOSE_MENU", "false"),
    ("COMPOSE_PARALLEL_LIMIT", "-1"),
    ("COMPOSE_PROGRESS", "plain"),
    ("COMPOSE_STATUS_STDOUT", "false"),
];
/// Names containers `shop_app_1` instead of `shop-app-1`: they keep the names that they have.
const COMPATIBILITY: &str = "COMPOSE_COMPATIBILITY";

/// The engine's address, as the option `--host`. As a variable it would stand for `${DOCKER_HOST}` in the
/// project's files. Without either, Compose would follow the current context of the Docker CLI.
pub(super) fn host(ours: Option<OsString>) -> OsString {
    ours.filter(|host| !host.is_empty()).unwrap_or_else(|| DEFAULT_HOST.into())
}

/// The child's environment. A variable of the process beats `.env`, so the version key is never passed on.
/// `in_env` are the variables to which the project's environment files give a value.
pub(super) fn environment(
    ours: impl Iterator<Item = (OsString, OsString)>,
    project: Option<&Project>,
    in_env: &BTreeSet<String>,
) -> Vec<(OsString, OsString)> {
    let version_key = project.map_or("", |project| project.version_key.as_str());
    let passed_on = |name: &OsStr| {
        let name = name.to_str().unwrap_or_default();
        let is_wanted = PASSED_ON.contains(&name) || PASSED_ON_PREFIXES.iter().any(|start| name.starts_with(start));
        name != version_key && (OF_THE_ENGINE.contains(&name) || (is_wanted && !in_env.contains(name)))
    };
    let (mut env, mut home) = (Vec::new(), None);
    for (name, value) in ours.filter(|(_, value)| !value.is_empty()) {
        if name == "HOME" {
            home = Some(value.clone());
        }
        if passed_on(&name) {
            env.push((name, value));
        }
    }
    // Where `.env` has a HOME of its own, the CLI's settings are still ours.
    if let Some(home) = home.filter(|_| in_env.contains("HOME") && !env.iter().any(|(name, _)| name == "DOCKER_CONFIG"))
    {
        env.push(("DOCKER_CONFIG".into(), Path::new(&home).join(".docker").into()));
    }
    let pinned = PINNED.into_iter().filter(|(name, _)| *name != version_key);
    env.extend(pinned.map(|(name, value)| (name.into(), value.into())));
    if let Some(underscores) = project.and_then(|project| project.underscores) {
        env.push((COMPATIBILITY.into(), underscores.to_string().into()));
    }
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(underscores: Option<bool>) -> Project {
        Project { underscores, version_key: "VERSION".into(), ..super::super::tests::project() }
    }

    fn given(ours: &[&str], in_env: &[&str], project: &Project) -> Vec<String> {
        let ours = ours.iter().map(|name| (OsString::from(name), OsString::from("x")));
        let in_env = in_env.iter().map(|name| (*name).to_owned()).collect();
        let env = environment(ours, Some(project), &in_env);
        let pinned = |name: &OsStr| PINNED.iter().any(|(pinned, _)| *pinned == name);
        let rest = env.iter().filter(|(name, _)| !pinned(name));
        rest.map(|(name, value)| format!("{}={}", name.display(), value.display())).collect()
    }

    #[test]
    fn only_what_compose_needs_is_passed_on() {
        for (ours, in_env, expected) in [
            (
                "PATH VERSION COMPOSE_FILE DOCKER_HOST DOCKER_CONTEXT XDG_RUNTIME_DIR LANG no_proxy UID",
                "",
                "PATH=x XDG_RUNTIME_DIR=x no_proxy=x",
            ),
            ("VERSION", "", ""),
            // What `.env` says is what the files get.
            ("PATH HOME HTTP_PROXY", "HOME HTTP_PROXY", "PATH=x DOCKER_CONFIG=x/.docker"),
            ("HOME DOCKER_CONFIG", "HOME", "DOCKER_CONFIG=x"),
            // The engine is the one that is watched.
            ("DOCKER_TLS_VERIFY DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY", "DOCKER_TLS_VERIFY=x DOCKER_CERT_PATH=x"),
        ] {
            let words = |text: &'static str| text.split_whitespace().collect::<Vec<_>>();
            let env = given(&words(ours), &words(in_env), &project(None));
            assert_eq!(env, words(expected), "{ours} | {in_env}");
        }
        let key = Project { version_key: "HOME".into(), ..project(None) };
        assert_eq!(given(&["HOME"], &[], &key), [""; 0], "the version key is never ours");
    }

    #[test]
    fn names_of_containers_stay() {
        for (underscores, expected) in [
            (None, vec![]),
            (Some(true), vec!["COMPOSE_COMPATIBILITY=true"]),
            (Some(false), vec!["COMPOSE_COMPATIBILITY=false"]),
        ] {
            assert_eq!(given(&[], &[], &project(underscores)), expected);
        }
    }

    #[test]
    fn what_changes_a_command_has_one_value() {
        let hostile = PINNED.iter().map(|(name, _)| (OsString::from(name), OsString::from("hostile")));
        let env = environment(hostile, Some(&project(None)), &BTreeSet::new());
        let mut names: Vec<_> = env.iter().map(|(name, _)| name).collect();
        names.dedup();
        assert_eq!(names.len(), PINNED.len(), "each once");
        assert!(env.iter().all(|(_, value)| value != "hostile"), "{env:?}");
    }

    #[test]
    fn the_engine_is_the_one_that_is_watched() {
        assert_eq!(host(None), DEFAULT_HOST);
        assert_eq!(host(Some("".into())), DEFAULT_HOST);
        assert_eq!(host(Some("tcp://proxy:2375".into())), "tcp://proxy:2375");
    }
}
