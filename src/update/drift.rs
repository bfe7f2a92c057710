//! Drift: what differs between the files and the container that runs. Pure.
//!
//! Compared is what `compose up` would change and a person would notice; names of environment variables
//! and labels are shown, never their values.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::plan::{string_map, strings};
use crate::engine::{Container, Image};

/// One line a difference; empty when the container is what the resolved configuration describes.
/// `image` is the image that the container runs.
pub fn differences(config: &Value, service: &str, container: &Container, image: &Image) -> Vec<String> {
    let wanted = &config["services"][service];
    let (raw, image_config) = (&container.raw, &image.raw["Config"]);
    let mut found = Vec::new();
    let mut differs = |what: &str, files: String, runs: String| {
        if files != runs {
            found.push(format!("{what}: the files say {}, the container has {}", shown(&files), shown(&runs)));
        }
    };

    differs("image", wanted["image"].as_str().unwrap_or_default().into(), container.image_ref.clone());
    differs("user", or_image(&wanted["user"], &image_config["User"]), plain(&raw["Config"]["User"]));
    differs(
        "working_dir",
        or_image(&wanted["working_dir"], &image_config["WorkingDir"]),
        plain(&raw["Config"]["WorkingDir"]),
    );
    let own_entrypoint = wanted["entrypoint"].is_array();
    differs(
        "entrypoint",
        words(&wanted["entrypoint"], &image_config["Entrypoint"]),
        words(&raw["Config"]["Entrypoint"], &Value::Null),
    );
    // Compose drops the image's CMD when the service has an entrypoint of its own.
    let image_command = if own_entrypoint { &Value::Null } else { &image_config["Cmd"] };
    differs("command", words(&wanted["command"], image_command), words(&raw["Config"]["Cmd"], &Value::Null));
    differs("cap_add", capabilities(&wanted["cap_add"]), capabilities(&raw["HostConfig"]["CapAdd"]));
    differs("cap_drop", capabilities(&wanted["cap_drop"]), capabilities(&raw["HostConfig"]["CapDrop"]));
    differs("privileged", truth(&wanted["privileged"]), truth(&raw["HostConfig"]["Privileged"]));
    differs("read_only", truth(&wanted["read_only"]), truth(&raw["HostConfig"]["ReadonlyRootfs"]));
    differs("restart", restart(wanted), container.restart_policy.name.clone());
    differs("ports", join(wanted_ports(wanted)), join(actual_ports(raw)));
    let (files, runs) = networks(config, wanted, container);
    differs("networks", files, runs);

    let mounts = mount_differences(config, wanted, container);
    found.extend(mounts);
    found.extend(environment_differences(wanted, raw, image_config));
    found.extend(label_differences(wanted, container, image));
    found
}

fn shown(value: &str) -> String {
    if value.is_empty() { "nothing".into() } else { value.into() }
}

fn plain(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn truth(value: &Value) -> String {
    value.as_bool().unwrap_or(false).to_string()
}

fn or_image(wanted: &Value, image: &Value) -> String {
    match wanted.as_str() {
        Some(text) if !text.is_empty() => text.to_owned(),
        _ => plain(image),
    }
}

fn words(value: &Value, otherwise: &Value) -> String {
    let list = if value.is_null() { strings(otherwise) } else { strings(value) };
    shell_words::join(list)
}

fn join(set: BTreeSet<String>) -> String {
    set.into_iter().collect::<Vec<_>>().join(", ")
}

fn capabilities(value: &Value) -> String {
    let name = |c: String| {
        let upper = c.to_uppercase();
        upper.strip_prefix("CAP_").unwrap_or(&upper).to_owned()
    };
    join(strings(value).into_iter().map(name).collect())
}

fn restart(wanted: &Value) -> String {
    let text = wanted["restart"].as_str().unwrap_or("no");
    text.split_once(':').map_or(text, |(name, _)| name).to_owned()
}

fn wanted_ports(wanted: &Value) -> BTreeSet<String> {
    let ports = wanted["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    ports
        .iter()
        .map(|p| {
            let published =
                p["published"].as_str().map(str::to_owned).or_else(|| p["published"].as_u64().map(|n| n.to_string()));
            port(
                p["host_ip"].as_str(),
                published.as_deref(),
                &format!("{}/{}", p["target"], p["protocol"].as_str().unwrap_or("tcp")),
            )
        })
        .collect()
}

fn actual_ports(raw: &Value) -> BTreeSet<String> {
    let Some(bindings) = raw["HostConfig"]["PortBindings"].as_object() else { return BTreeSet::new() };
    bindings
        .iter()
        .flat_map(|(target, hosts)| {
            let hosts = hosts.as_array().cloned().unwrap_or_default();
            hosts.into_iter().map(move |h| port(h["HostIp"].as_str(), h["HostPort"].as_str(), target))
        })
        .collect()
}

/// One way to write it; `0.0.0.0` and no address mean the same, and so do port 0 and none.
fn port(ip: Option<&str>, published: Option<&str>, target: &str) -> String {
    let ip = ip.filter(|ip| !ip.is_empty() && *ip != "0.0.0.0").map(|ip| format!("{ip}:")).unwrap_or_default();
    let published = published.filter(|p| !p.is_empty() && *p != "0").unwrap_or("any");
    format!("{ip}{published}->{target}")
}

fn networks(config: &Value, wanted: &Value, container: &Container) -> (String, String) {
    if let Some(mode) = wanted["network_mode"].as_str() {
        // `service:x` becomes `container:<id>`: which one is the engine's business.
        let kind = |m: &str| m.split_once(':').map_or(m, |_| "shared").to_owned();
        return (kind(mode), kind(&container.network_mode));
    }
    let name = |key: &String| config["networks"][key]["name"].as_str().unwrap_or(key).to_owned();
    let files = wanted["networks"].as_object().map(|n| n.keys().map(name).collect()).unwrap_or_default();
    (join(files), join(container.networks.keys().cloned().collect()))
}

fn mount_differences(config: &Value, wanted: &Value, container: &Container) -> Vec<String> {
    let files = wanted_mounts(config, wanted);
    let mut runs = BTreeMap::new();
    for m in &container.mounts {
        let source = if m.name.is_empty() { &m.source } else { &m.name };
        runs.insert(m.destination.clone(), (source.clone(), m.writable));
    }
    let mut found = Vec::new();
    for (target, wanted) in &files {
        match (runs.get(target), wanted) {
            (None, _) => found.push(format!("mount {target}: in the files, not in the container")),
            (Some(_), None) => {}
            (Some(have), Some(want)) if have == want => {}
            (Some((source, rw)), Some((want_source, want_rw))) => found.push(format!(
                "mount {target}: the files say {want_source}{}, the container has {source}{}",
                mode(*want_rw),
                mode(*rw)
            )),
        }
    }
    for m in container.mounts.iter().filter(|m| !files.contains_key(&m.destination) && !m.is_anonymous()) {
        found.push(format!("mount {}: in the container, not in the files", m.destination));
    }
    found
}

fn mode(writable: bool) -> &'static str {
    if writable { "" } else { " (read-only)" }
}

/// Target → (volume name or host path, writable); `None` where any source will do.
fn wanted_mounts(config: &Value, wanted: &Value) -> BTreeMap<String, Option<(String, bool)>> {
    let mut mounts = BTreeMap::new();
    for v in wanted["volumes"].as_array().map(Vec::as_slice).unwrap_or_default() {
        let target = v["target"].as_str().unwrap_or_default().trim_end_matches('/');
        let source = match (v["type"].as_str(), v["source"].as_str()) {
            (Some("volume"), Some(key)) => Some(config["volumes"][key]["name"].as_str().unwrap_or(key).to_owned()),
            (Some("bind"), Some(path)) => Some(path.to_owned()),
            // tmpfs mounts are not among the container's recorded mounts.
            (Some("tmpfs"), _) => continue,
            _ => None,
        };
        let writable = !v["read_only"].as_bool().unwrap_or(false);
        mounts.insert(target.to_owned(), source.map(|s| (s, writable)));
    }
    for (section, folder) in [("secrets", "/run/secrets"), ("configs", "")] {
        for s in wanted[section].as_array().map(Vec::as_slice).unwrap_or_default() {
            let source = s["source"].as_str().unwrap_or_default();
            let target = match s["target"].as_str() {
                Some(absolute) if absolute.starts_with('/') => absolute.to_owned(),
                Some(name) => format!("{folder}/{name}"),
                None => format!("{folder}/{source}"),
            };
            // Those made from the environment or from text are copied in, not mounted.
            if config[section][source]["file"].is_string() {
                mounts.insert(target, None);
            }
        }
    }
    mounts
}

fn environment_differences(wanted: &Value, raw: &Value, image_config: &Value) -> Vec<String> {
    let files = string_map(&wanted["environment"]);
    let split = |list: &Value| -> BTreeMap<String, String> {
        strings(list).iter().filter_map(|kv| kv.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    };
    let (runs, image) = (split(&raw["Config"]["Env"]), split(&image_config["Env"]));
    named_differences("environment", &files, &runs, |key, value| image.get(key) == Some(value))
}

fn label_differences(wanted: &Value, container: &Container, image: &Image) -> Vec<String> {
    let files = string_map(&wanted["labels"]);
    named_differences("label", &files, &container.labels, |key, value| {
        key.starts_with("com.docker.compose.")
            || key.starts_with("desktop.docker.io/")
            || image.labels.get(key) == Some(value)
    })
}

/// Names only: values may be secrets.
fn named_differences(
    what: &str,
    files: &BTreeMap<String, String>,
    runs: &BTreeMap<String, String>,
    by_itself: impl Fn(&str, &String) -> bool,
) -> Vec<String> {
    let changed = files.iter().filter_map(|(key, value)| match runs.get(key) {
        None => Some(format!("{what} {key}: in the files, not in the container")),
        Some(other) if other != value => {
            Some(format!("{what} {key}: has another value in the files than in the container"))
        }
        Some(_) => None,
    });
    let extra = runs.iter().filter(|(key, value)| !files.contains_key(*key) && !by_itself(key, value));
    changed.chain(extra.map(|(key, _)| format!("{what} {key}: in the container, not in the files"))).collect()
}
