//! Variables and home folders that only the operator's shell has. Compose replaces `${UID}` by what its environment
//! says; the updater runs elsewhere, so there the files mean something else. What they say, and what the
//! container shows, tell the values that are missing. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::Deployment;
use crate::command::{line, word};
use crate::engine::compose_config::Written;
use crate::engine::compose_config::template::{Otherwise, Template, Variable};
use crate::engine::{Container, label};
use crate::envfile;
use crate::update::drift::Difference;
use crate::update::plan::strings;
use crate::update::refusal::{Code, Refusal};

/// Every login has its own of these, and a shell's beats `.env`: no line there would help.
const OF_A_LOGIN: [&str; 6] = ["HOME", "PWD", "OLDPWD", "USER", "LOGNAME", "SHELL"];

/// A text of a service in the files, and the attribute it belongs to, as drift names it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Use {
    service: String,
    attribute: String,
    text: String,
    /// One of several texts, and which one of the container's it became is not known.
    is_one_of_many: bool,
}

/// One reason why an attribute is not what the operator's shell made of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cause {
    used: Use,
    /// What the container has there, where it can be compared.
    runs: Option<String>,
    /// Without a value; empty: the text begins with, or is made of, a folder of a login.
    variables: Vec<String>,
    /// Those whose values the container shows.
    values: BTreeMap<String, String>,
}

/// Why Compose cannot read the files, if it is for want of a variable.
pub fn unreadable(written: &Written, deployment: &Deployment, error: &str) -> Vec<Refusal> {
    let services = written.files["services"].as_object();
    let uses = services.into_iter().flat_map(|services| services.keys()).flat_map(|name| uses(&written.files, name));
    let wanting = |is: fn(&Variable) -> bool| {
        let cause = move |used: Use| cause_of(used, written, deployment, is);
        uses.clone().filter_map(cause).filter(|cause| !cause.variables.is_empty()).collect::<Vec<_>>()
    };
    // One that is not demanded leaves a text that may be no port or path any more.
    let causes = wanting(|variable| matches!(variable.otherwise, Otherwise::Refused | Otherwise::Nothing));
    let before = format!("Compose cannot read the deployment ({error})");
    refusals(&causes, deployment, &before)
}

/// The reasons for these differences, one refusal each, and the differences that have none of these reasons.
pub fn drifted(
    written: &Written,
    deployment: &Deployment,
    drift: Vec<(String, Difference)>,
) -> (Vec<Refusal>, Vec<(String, Difference)>) {
    let (mut causes, mut rest) = (Vec::new(), Vec::new());
    for (service, difference) in drift {
        let of_it = uses(&written.files, &service).into_iter().filter(|used| used.attribute == difference.attribute);
        let found: Vec<Cause> = of_it.filter_map(|used| cause_of(used, written, deployment, |_| true)).collect();
        if found.is_empty() {
            rest.push((service, difference));
        }
        causes.extend(found);
    }
    let before = "the files mean something else to the updater than to the shell that started the application";
    (refusals(&causes, deployment, before), rest)
}

/// Anything of the moved services that depends on the operator's shell; for a difference that is not known.
pub fn anything(written: &Written, deployment: &Deployment) -> Vec<Refusal> {
    let uses = deployment.project.moved().flat_map(|service| uses(&written.files, service));
    let without = |variable: &Variable| variable.otherwise == Otherwise::Nothing;
    let causes: Vec<Cause> = uses.filter_map(|used| cause_of(used, written, deployment, without)).collect();
    let before = "Compose would make the application anew, and its files mean something else to the updater than to the shell that started it";
    refusals(&causes, deployment, before)
}

/// Variables of the moved services that stand at their default here, and that a shell may have set.
pub fn at_default(written: &Written, deployment: &Deployment) -> BTreeSet<String> {
    let uses = deployment.project.moved().flat_map(|service| uses(&written.files, service));
    let of_text = |used: Use| {
        let template = Template::parse(&used.text);
        let has_default = |v: &&&Variable| matches!(v.otherwise, Otherwise::Default(_) | Otherwise::Replaced(_));
        template.variables().iter().filter(has_default).map(|v| v.name.clone()).collect::<Vec<_>>()
    };
    uses.flat_map(of_text).filter(|name| !written.assigned.contains(name)).collect()
}

/// `None`: nothing in this text is missing.
fn cause_of(used: Use, written: &Written, deployment: &Deployment, counts: fn(&Variable) -> bool) -> Option<Cause> {
    let template = Template::parse(&used.text);
    let all = template.variables();
    let is_of_login = |name: &str| OF_A_LOGIN.contains(&name);
    let container = container_of(deployment, &used.service);
    let shown = container.map(|c| shows(c, &used)).unwrap_or_default();
    if used.text == "~" || used.text.starts_with("~/") || all.iter().any(|v| is_of_login(&v.name)) {
        return Some(Cause { runs: shown.into_iter().next(), variables: Vec::new(), values: BTreeMap::new(), used });
    }
    let is_missing = |v: &&&Variable| counts(v) && !written.assigned.contains(&v.name);
    let mut variables: Vec<String> = all.iter().filter(is_missing).map(|v| v.name.clone()).collect();
    variables.dedup();
    let solution = shown.iter().find_map(|shown| Some((shown.clone(), template.solve(shown)?)));
    let (runs, mut values) = match solution {
        Some((runs, values)) => {
            (Some(runs), values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
        }
        None => (shown.into_iter().next(), BTreeMap::new()),
    };
    // What has a default differs from it only where the container shows that.
    let has_default = |name: &String| {
        all.iter().any(|v| v.name == *name && matches!(v.otherwise, Otherwise::Default(_) | Otherwise::Replaced(_)))
    };
    variables.retain(|name| !has_default(name) || values.contains_key(name));
    values.retain(|name, _| variables.contains(name));
    if variables.is_empty() {
        return None;
    }
    Some(Cause { used, runs, variables, values })
}

fn container_of<'a>(deployment: &'a Deployment, service: &'a str) -> Option<&'a Container> {
    let moved = deployment.moved().find(|(name, ..)| *name == service).map(|(_, container, _)| container);
    moved.or_else(|| deployment.of_service(service).next())
}

/// One refusal for all variables that one command sets, and one for each that a person has to write.
fn refusals(causes: &[Cause], deployment: &Deployment, before: &str) -> Vec<Refusal> {
    let file = deployment.project.environment_files().pop().unwrap_or_default();
    let mut refusals = Vec::new();
    let mut values: BTreeMap<&str, Option<&String>> = BTreeMap::new();
    // What several attributes say differently is not known.
    for cause in causes.iter().filter(|cause| !is_secret(&cause.used.attribute)) {
        for (name, value) in &cause.values {
            let known = values.entry(name).or_insert(Some(value));
            *known = known.filter(|known| *known == value);
        }
    }
    let (mut lines, mut commands) = (Vec::new(), Vec::new());
    let (mut told, mut seen) = (Vec::new(), BTreeSet::new());
    for cause in causes.iter().filter(|cause| !cause.variables.is_empty()) {
        let mut is_told = false;
        for name in &cause.variables {
            let is_new = seen.insert(name.as_str());
            if let Some(Some(value)) = values.get(name.as_str()) {
                is_told = true;
                if is_new {
                    lines.push(env_line(name, value));
                }
            } else if let Some(command) = of_environment(cause, name, deployment, &file) {
                is_told = true;
                if is_new {
                    commands.push(command);
                }
            } else if is_new {
                let what = format!("{before}: {}", says(cause, &file));
                let remedy = format!(
                    "write {name}=VALUE into {}, with the value that your shell has ({})",
                    word(&file),
                    line(["printenv", name])
                );
                refusals.push(Refusal::new(Code::ShellVariable, what).text(remedy));
            }
        }
        if is_told {
            told.push(says(cause, &file));
        }
    }
    if !told.is_empty() {
        if !lines.is_empty() {
            let words = ["printf", r"%s\n"].into_iter().chain(lines.iter().map(String::as_str));
            commands.insert(0, format!("{} >> {}", line(words), word(&file)));
        }
        // A last line without its end would be continued.
        if deployment.env.as_ref().is_some_and(|env| !env.is_empty() && !env.ends_with(b"\n")) {
            commands.insert(0, format!("echo >> {}", word(&file)));
        }
        let what = format!("{before}: {}", told.join("; "));
        refusals.insert(0, Refusal::new(Code::ShellVariable, what).command(commands.join(" && ")));
    }
    refusals.extend(causes.iter().filter(|cause| cause.variables.is_empty()).map(|cause| login(cause, before)));
    refusals
}

/// A folder of a login, written out, is the same for everybody.
fn login(cause: &Cause, before: &str) -> Refusal {
    let Use { service, attribute, text, .. } = &cause.used;
    let files = "the Compose file";
    let (runs, remedy) = match cause.runs.as_ref().filter(|_| !is_secret(attribute)) {
        Some(runs) => (
            format!("; the container has {runs}"),
            format!("write {} in the place of {} in {files}", word(runs), word(text)),
        ),
        None => (String::new(), format!("write the value out in the place of {} in {files}", word(text))),
    };
    let what = format!(
        "{before}: service {service}: {attribute}: the files say {text}, which differs from user to user{runs}"
    );
    Refusal::new(Code::ShellVariable, what).text(remedy)
}

/// `service app: user: the files say ${UID}:${GID} and the container has 1000:1000, but …`
fn says(cause: &Cause, file: &str) -> String {
    let Use { service, attribute, text, .. } = &cause.used;
    let runs = match cause.runs.as_ref().filter(|_| !is_secret(attribute)) {
        Some(runs) => format!(" and the container has {runs}"),
        None => String::new(),
    };
    let names = cause.variables.join(" and ");
    format!(
        "service {service}: {attribute}: the files say {text}{runs}, but {names} {} only set in that shell, which the updater does not have: such a value belongs into {file}",
        if cause.variables.len() == 1 { "is" } else { "are" }
    )
}

/// Variables and labels may hold passwords.
fn is_secret(attribute: &str) -> bool {
    attribute.starts_with("environment ")
}

/// A line of `.env` that Compose reads as this value.
fn env_line(name: &str, value: &str) -> String {
    let made =
        envfile::set(b"", name, value).map(|edited| String::from_utf8_lossy(&edited.bytes).trim_end().to_owned());
    made.unwrap_or_else(|_| format!("{name}={value}"))
}

/// The command that takes the value from the container's environment, without anybody seeing it.
fn of_environment(cause: &Cause, name: &str, deployment: &Deployment, file: &str) -> Option<String> {
    let variable = cause.used.attribute.strip_prefix("environment ")?;
    let is_whole = Template::parse(&cause.used.text).is_only().is_some_and(|only| only.name == name);
    let is_word = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let can_be_quoted = cause.runs.as_ref().is_some_and(|value| !value.contains(['\'', '\\', '\n', '\r']));
    if !is_whole || !is_word(variable) || !is_word(name) || !can_be_quoted {
        return None;
    }
    let container = container_of(deployment, &cause.used.service)?;
    let all = "{{range .Config.Env}}{{println .}}{{end}}";
    let look = line(["docker", "inspect", "--format", all, &container.name]);
    let take = format!("s/^{variable}=\\(.*\\)$/{name}='\\1'/p");
    Some(format!("{look} | {} >> {}", line(["sed", "-n", &take]), word(file)))
}

/// The texts of a service, by the attributes that drift names.
fn uses(files: &Value, service: &str) -> Vec<Use> {
    let mut found = Vec::new();
    let Some(written) = files["services"][service].as_object() else { return found };
    let mut add = |attribute: String, text: &str| {
        let is_one_of_many = written.get(&attribute).is_some_and(|value| value.is_array() && attribute != "ports");
        found.push(Use { service: service.to_owned(), attribute, text: text.to_owned(), is_one_of_many });
    };
    for (key, value) in written {
        match (key.as_str(), value) {
            ("environment", _) => pairs(value, |name, text| {
                // Named without a value it is taken from the shell.
                let own = format!("${{{name}}}");
                add(format!("environment {name}"), text.unwrap_or(&own));
            }),
            ("labels", _) => pairs(value, |name, text| add(format!("label {name}"), text.unwrap_or_default())),
            ("volumes", Value::Array(mounts)) => {
                for mount in mounts.iter().filter_map(Value::as_object) {
                    let target = format!("mount {}", text_of(mount, "target").trim_end_matches('/'));
                    let source = text_of(mount, "source");
                    let named = files["volumes"][source]["name"].as_str();
                    add(target, named.unwrap_or(source));
                }
            }
            ("ports", Value::Array(ports)) => {
                for port in ports {
                    match port {
                        Value::Object(long) => add("ports".to_owned(), &short_port(long)),
                        other => texts(other, &mut |text| add("ports".to_owned(), text)),
                    }
                }
            }
            ("networks", _) => {
                let names: Vec<&str> = match value {
                    Value::Object(map) => map.keys().map(String::as_str).collect(),
                    Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
                    _ => Vec::new(),
                };
                for name in names {
                    texts(&files["networks"][name]["name"], &mut |text| add("networks".to_owned(), text));
                }
                texts(value, &mut |text| add("networks".to_owned(), text));
            }
            _ => texts(value, &mut |text| add(key.clone(), text)),
        }
    }
    found
}

/// Every text in it.
fn texts(value: &Value, found: &mut dyn FnMut(&str)) {
    match value {
        Value::String(text) => found(text),
        Value::Array(items) => items.iter().for_each(|item| texts(item, found)),
        Value::Object(map) => map.values().for_each(|item| texts(item, found)),
        _ => {}
    }
}

/// `[A=1, B]` and `{A: 1, B: null}`
fn pairs(value: &Value, mut found: impl FnMut(&str, Option<&str>)) {
    match value {
        Value::Array(items) => {
            for item in items.iter().filter_map(Value::as_str) {
                match item.split_once('=') {
                    Some((name, text)) => found(name, Some(text)),
                    None => found(item, None),
                }
            }
        }
        Value::Object(map) => {
            for (name, value) in map {
                match value {
                    Value::String(text) => found(name, Some(text)),
                    Value::Null => found(name, None),
                    _ => {}
                }
            }
        }
        _ => {}
    }
}

fn text_of<'a>(map: &'a Map<String, Value>, key: &str) -> &'a str {
    map.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// As one writes it: `127.0.0.1:8080:80/tcp`.
fn short_port(long: &Map<String, Value>) -> String {
    let text = |key: &str| long.get(key).map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    let parts = [text("host_ip"), text("published"), text("target")];
    let port = parts.into_iter().flatten().collect::<Vec<_>>().join(":");
    match text("protocol") {
        Some(protocol) => format!("{port}/{protocol}"),
        None => port,
    }
}

/// What the container has for an attribute, in the spellings that a file may use, the likeliest first. Nothing where
/// it cannot be compared with what is written.
fn shows(container: &Container, used: &Use) -> Vec<String> {
    let (config, host) = (&container.raw["Config"], &container.raw["HostConfig"]);
    if used.is_one_of_many {
        return Vec::new();
    }
    let one = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned).into_iter().collect();
    if let Some(target) = used.attribute.strip_prefix("mount ") {
        let mount = container.mounts.iter().find(|mount| mount.destination == target);
        let source = mount.map(|m| if m.name.is_empty() { m.source.clone() } else { m.name.clone() });
        let folder = container.label(label::WORKING_DIR).unwrap_or_default();
        let relative = source.as_ref().and_then(|source| source.strip_prefix(folder)?.strip_prefix('/'));
        let relative = relative.filter(|_| used.text.starts_with("./")).map(|path| format!("./{path}"));
        return relative.into_iter().chain(source).collect();
    }
    if let Some(name) = used.attribute.strip_prefix("environment ") {
        let all = strings(&config["Env"]);
        let value = all.iter().find_map(|text| text.strip_prefix(name)?.strip_prefix('='));
        return value.map(str::to_owned).into_iter().collect();
    }
    if let Some(name) = used.attribute.strip_prefix("label ") {
        return container.labels.get(name).cloned().into_iter().collect();
    }
    match used.attribute.as_str() {
        "image" => vec![container.image_ref.clone()],
        "container_name" => vec![container.name.clone()],
        "user" => one(&config["User"]),
        "working_dir" => one(&config["WorkingDir"]),
        "hostname" => one(&config["Hostname"]),
        "domainname" => one(&config["Domainname"]),
        "stop_signal" => one(&config["StopSignal"]),
        "command" => vec![strings(&config["Cmd"]).join(" ")],
        "entrypoint" => vec![strings(&config["Entrypoint"]).join(" ")],
        "runtime" => one(&host["Runtime"]),
        "cgroup_parent" => one(&host["CgroupParent"]),
        "restart" => {
            let policy = &container.restart_policy;
            vec![policy.name.clone(), format!("{}:{}", policy.name, policy.maximum_retry_count)]
        }
        "networks" => container.networks.keys().cloned().collect(),
        "network_mode" => vec![container.network_mode.clone()],
        "ports" => ports(&host["PortBindings"]),
        _ => Vec::new(),
    }
}

/// Each in the ways in which one may write it.
fn ports(bindings: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for (target, hosts) in bindings.as_object().into_iter().flatten() {
        let short = target.strip_suffix("/tcp").unwrap_or(target);
        for host in hosts.as_array().into_iter().flatten() {
            let (ip, published) = (host["HostIp"].as_str().unwrap_or_default(), host["HostPort"].as_str());
            let published = published.unwrap_or_default();
            for target in [short, target.as_str()] {
                if matches!(ip, "" | "0.0.0.0" | "::") {
                    found.push(format!("{published}:{target}"));
                }
                found.push(format!("{ip}:{published}:{target}"));
            }
        }
    }
    found
}
