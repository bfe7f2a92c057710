//! Drift: what differs between the files and the container that runs. Pure.
//!
//! Compared is what `compose up` would change and a person would notice; names of environment variables
//! and labels are shown, never their values.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

use super::plan::strings;
use crate::engine::compose_config::{FileObject, FileReference, Port, Service, ServiceMount};
use crate::engine::{ComposeConfig, Container, Image};
use crate::reference::is_same;

/// The attribute that selects the image.
pub const IMAGE: &str = "image";

/// Something that the files say and the container is not, or the other way round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// `user`, `mount /data`, `environment TOKEN`
    pub attribute: String,
    /// What differs, for people; of variables and labels without the values.
    pub text: String,
}

impl Difference {
    pub fn new(attribute: impl Into<String>, says: impl fmt::Display) -> Self {
        let attribute = attribute.into();
        Self { text: format!("{attribute}: {says}"), attribute }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Empty when the container is what the resolved configuration describes.
/// `image` is the image that the container runs; the variable `ours` has changed because we changed it.
pub fn differences(
    config: &ComposeConfig,
    service: &str,
    container: &Container,
    image: &Image,
    ours: &str,
) -> Vec<Difference> {
    let Some(wanted) = config.service(service) else {
        return vec![Difference::new(format!("service {service}"), "in the container, not in the files")];
    };
    let (raw, image_config) = (&container.raw, &image.raw["Config"]);
    let mut found = Vec::new();
    let mut differs = |what: &str, files: String, runs: String| {
        if files != runs {
            let says = format_args!("the files say {}, the container has {}", shown(&files), shown(&runs));
            found.push(Difference::new(what, says));
        }
    };

    let files = wanted.image.clone().unwrap_or_default();
    if !is_same(&files, &container.image_ref) {
        differs(IMAGE, files, container.image_ref.clone());
    }
    differs("user", or_image(wanted.user.as_ref(), &image_config["User"]), plain(&raw["Config"]["User"]));
    differs(
        "working_dir",
        or_image(wanted.working_dir.as_ref(), &image_config["WorkingDir"]),
        plain(&raw["Config"]["WorkingDir"]),
    );
    differs(
        "entrypoint",
        words(wanted.entrypoint.as_ref(), &image_config["Entrypoint"]),
        words(None, &raw["Config"]["Entrypoint"]),
    );
    // Compose drops the image's CMD when the service has an entrypoint of its own.
    let image_command = if wanted.entrypoint.is_some() { &Value::Null } else { &image_config["Cmd"] };
    differs("command", words(wanted.command.as_ref(), image_command), words(None, &raw["Config"]["Cmd"]));
    differs("cap_add", capabilities(&wanted.cap_add), capabilities(&strings(&raw["HostConfig"]["CapAdd"])));
    differs("cap_drop", capabilities(&wanted.cap_drop), capabilities(&strings(&raw["HostConfig"]["CapDrop"])));
    differs("privileged", wanted.privileged.to_string(), truth(&raw["HostConfig"]["Privileged"]));
    differs("read_only", wanted.read_only.to_string(), truth(&raw["HostConfig"]["ReadonlyRootfs"]));
    differs("restart", restart(wanted), container.restart_policy.name.clone());
    differs("ports", join(wanted_ports(wanted)), join(actual_ports(raw)));
    let (files, runs) = networks(config, wanted, container);
    differs("networks", files, runs);

    let mounts = mount_differences(config, wanted, container);
    found.extend(mounts);
    found.extend(environment_differences(wanted, raw, image_config, ours));
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

fn or_image(wanted: Option<&String>, image: &Value) -> String {
    wanted.cloned().unwrap_or_else(|| plain(image))
}

fn words(wanted: Option<&Vec<String>>, otherwise: &Value) -> String {
    shell_words::join(wanted.cloned().unwrap_or_else(|| strings(otherwise)))
}

fn join(set: BTreeSet<String>) -> String {
    set.into_iter().collect::<Vec<_>>().join(", ")
}

fn capabilities(list: &[String]) -> String {
    let name = |c: &String| {
        let upper = c.to_uppercase();
        upper.strip_prefix("CAP_").unwrap_or(&upper).to_owned()
    };
    join(list.iter().map(name).collect())
}

fn restart(wanted: &Service) -> String {
    let text = wanted.restart.as_deref().unwrap_or("no");
    text.split_once(':').map_or(text, |(name, _)| name).to_owned()
}

fn wanted_ports(wanted: &Service) -> BTreeSet<String> {
    let one = |p: &Port| {
        let target = format!("{}/{}", p.target.unwrap_or_default(), p.protocol.as_deref().unwrap_or("tcp"));
        port(p.host_ip.as_deref(), p.published.as_deref(), &target)
    };
    wanted.ports.iter().map(one).collect()
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

fn networks(config: &ComposeConfig, wanted: &Service, container: &Container) -> (String, String) {
    if let Some(mode) = wanted.network_mode.as_deref() {
        // `service:x` becomes `container:<id>`: which one is the engine's business.
        let kind = |m: &str| m.split_once(':').map_or(m, |_| "shared").to_owned();
        return (kind(mode), kind(&container.network_mode));
    }
    let files = wanted.networks.keys().map(|key| config.network_name(key).to_owned()).collect();
    (join(files), join(container.networks.keys().cloned().collect()))
}

fn mount_differences(config: &ComposeConfig, wanted: &Service, container: &Container) -> Vec<Difference> {
    let files = wanted_mounts(config, wanted);
    let mut runs = BTreeMap::new();
    for m in &container.mounts {
        let source = if m.name.is_empty() { &m.source } else { &m.name };
        runs.insert(m.destination.clone(), (source.clone(), m.writable));
    }
    let mut found = Vec::new();
    let mut differs =
        |target: &str, says: &dyn fmt::Display| found.push(Difference::new(format!("mount {target}"), says));
    for (target, wanted) in &files {
        match (runs.get(target), wanted) {
            (None, _) => differs(target, &"in the files, not in the container"),
            (Some(_), None) => {}
            (Some(have), Some(want)) if have == want => {}
            (Some((source, rw)), Some((want_source, want_rw))) => differs(
                target,
                &format_args!("the files say {want_source}{}, the container has {source}{}", mode(*want_rw), mode(*rw)),
            ),
        }
    }
    for m in container.mounts.iter().filter(|m| !files.contains_key(&m.destination) && !m.is_anonymous()) {
        differs(&m.destination, &"in the container, not in the files");
    }
    found
}

fn mode(writable: bool) -> &'static str {
    if writable { "" } else { " (read-only)" }
}

/// Target → (volume name or host path, writable); `None` where any source will do.
fn wanted_mounts(config: &ComposeConfig, wanted: &Service) -> BTreeMap<String, Option<(String, bool)>> {
    let mut mounts = BTreeMap::new();
    let one = |mount: &ServiceMount| {
        let source = match (mount.kind.as_str(), mount.source.as_deref()) {
            ("volume", Some(key)) => Some(config.volume_name(key).to_owned()),
            ("bind", Some(path)) => Some(path.to_owned()),
            _ => None,
        };
        (mount.target.trim_end_matches('/').to_owned(), source.map(|source| (source, !mount.read_only)))
    };
    // tmpfs mounts are not among the container's recorded mounts.
    mounts.extend(wanted.volumes.iter().filter(|mount| mount.kind != "tmpfs").map(one));
    let files = |references: &[FileReference], objects: &BTreeMap<String, FileObject>, folder: &str| {
        // Those made from the environment or from text are copied in, not mounted.
        let is_mounted = |r: &&FileReference| objects.get(&r.source).is_some_and(|object| object.file.is_some());
        references.iter().filter(is_mounted).map(|r| (r.path(folder), None)).collect::<Vec<_>>()
    };
    mounts.extend(files(&wanted.secrets, &config.secrets, "/run/secrets"));
    mounts.extend(files(&wanted.configs, &config.configs, ""));
    mounts
}

fn environment_differences(wanted: &Service, raw: &Value, image_config: &Value, ours: &str) -> Vec<Difference> {
    let mut files = wanted.variables();
    let split = |list: &Value| -> BTreeMap<String, String> {
        strings(list).iter().filter_map(|kv| kv.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    };
    let (mut runs, image) = (split(&raw["Config"]["Env"]), split(&image_config["Env"]));
    files.remove(ours);
    runs.remove(ours);
    named_differences("environment", &files, &runs, |key, value| image.get(key) == Some(value))
}

fn label_differences(wanted: &Service, container: &Container, image: &Image) -> Vec<Difference> {
    named_differences("label", &wanted.labels, &container.labels, |key, value| {
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
) -> Vec<Difference> {
    let differs = |key: &String, says: &str| Difference::new(format!("{what} {key}"), says);
    let changed = files.iter().filter_map(|(key, value)| match runs.get(key) {
        None => Some(differs(key, "in the files, not in the container")),
        Some(other) if other != value => Some(differs(key, "has another value in the files than in the container")),
        Some(_) => None,
    });
    let extra = runs.iter().filter(|(key, value)| !files.contains_key(*key) && !by_itself(key, value));
    changed.chain(extra.map(|(key, _)| differs(key, "in the container, not in the files"))).collect()
}
