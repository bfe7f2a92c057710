//! The configuration as it would be if the environment file had other bytes.
//!
//! Compose is given the bytes in the place of the file (`--env-file`), and replaces variables by them. But a
//! service that names the very file under `env_file` reads what is on the disk. Which services do, Compose
//! tells only without replacing variables; their environment is then asked for once more, with the bytes in
//! the place of the file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Ask, ComposeCli};
use crate::engine::compose_config::Service;
use crate::engine::compose_config::service::EnvFile;
use crate::engine::memory_file::MemoryFile;
use crate::engine::{ComposeConfig, EngineError, Project, Result};
use crate::envfile;

/// A project without its variables replaced: nothing of it can be relied on but these.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Raw {
    services: BTreeMap<String, RawService>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawService {
    env_file: Option<Vec<EnvFile>>,
    environment: Value,
}

impl RawService {
    /// Variables that the service sets itself, whatever its files say.
    fn own_variables(&self) -> BTreeSet<&str> {
        match &self.environment {
            Value::Object(map) => map.keys().map(String::as_str).collect(),
            Value::Array(items) => {
                let texts = items.iter().filter_map(Value::as_str);
                texts.map(|item| item.split_once('=').map_or(item, |(key, _)| key)).collect()
            }
            _ => BTreeSet::new(),
        }
    }

    fn env_files(&self) -> &[EnvFile] {
        self.env_file.as_deref().unwrap_or_default()
    }
}

/// Puts into `config`, which was resolved with other bytes in the place of the file, what services read from
/// the file itself.
pub(super) async fn complete(
    cli: &ComposeCli,
    project: &Project,
    ask: Ask<'_>,
    config: &mut ComposeConfig,
) -> Result<()> {
    let (Some(file), Some(trial)) = (project.environment_files().pop(), ask.env) else { return Ok(()) };
    let key = &project.version_key;
    let now = envfile::aio::read(PathBuf::from(&file)).await.ok().flatten().unwrap_or_default();
    let before = envfile::get(&now, key);
    // Whoever reads the file has all of its variables.
    let may_read = |service: &Service| before.is_none() || service.environment.contains_key(key);
    if !config.services.values().any(may_read) {
        return Ok(());
    }
    let raw = cli.print(project, Ask { more: &["--no-interpolate"], ..ask }).await;
    let Some(raw) = raw.ok().and_then(|answer| serde_json::from_slice::<Raw>(&answer).ok()) else {
        // Some projects are none before their variables are replaced.
        return guess(cli, project, ask, &file, config).await;
    };
    let readers = readers(&raw, &file, &trial.path()).await;
    if readers.is_empty() {
        return Ok(());
    }
    let files_alone = in_memory(project, &json!({ "services": readers }))?;
    let files_alone = cli.read(project, Ask { file: Some(&files_alone), ..ask }).await?;
    for (name, read) in files_alone.services {
        let (Some(service), Some(raw)) = (config.services.get_mut(&name), raw.services.get(&name)) else { continue };
        let own = raw.own_variables();
        service.environment.retain(|variable, _| own.contains(variable.as_str()));
        let of_files = read.environment.into_iter().filter(|(variable, _)| !own.contains(variable.as_str()));
        service.environment.extend(of_files);
    }
    Ok(())
}

/// The services that read the file, each with nothing but its environment, and `trial` in the file's place.
async fn readers(raw: &Raw, file: &str, trial: &str) -> BTreeMap<String, Value> {
    let real = real(file).await;
    let mut readers = BTreeMap::new();
    for (name, service) in &raw.services {
        let (mut env_files, mut reads) = (service.env_files().to_vec(), false);
        for env_file in &mut env_files {
            if self::real(&env_file.path).await == real {
                trial.clone_into(&mut env_file.path);
                reads = true;
            }
        }
        if reads {
            // Its own variables may stand in the files.
            let own = if service.environment.is_null() { json!({}) } else { service.environment.clone() };
            let reader = json!({ "image": "none", "env_file": env_files, "environment": own });
            readers.insert(name.clone(), reader);
        }
    }
    readers
}

/// As far as it can be known without the list of files: a service that has all variables of the file, and some
/// with the file's very value, reads it.
async fn guess(
    cli: &ComposeCli,
    project: &Project,
    ask: Ask<'_>,
    file: &str,
    config: &mut ComposeConfig,
) -> Result<()> {
    let Some(trial) = ask.env else { return Ok(()) };
    let reader = |path: &str| json!({ "image": "none", "env_file": [{ "path": path, "required": false }] });
    let both = json!({ "services": { "now": reader(file), "then": reader(&trial.path()) } });
    let mut both = cli.read(project, Ask { file: Some(&in_memory(project, &both)?), ..ask }).await?;
    let mut variables = |name: &str| both.services.remove(name).unwrap_or_default().environment;
    let (now, then) = (variables("now"), variables("then"));
    for service in config.services.values_mut() {
        let has_all = now.keys().all(|variable| service.environment.contains_key(variable));
        let of_file = |(variable, value): &(&String, &Option<String>)| now.get(*variable) == Some(value);
        let same: Vec<String> =
            service.environment.iter().filter(of_file).map(|(variable, _)| variable.clone()).collect();
        if !has_all || same.is_empty() {
            continue;
        }
        service.environment.retain(|variable, _| !same.contains(variable));
        for (variable, value) in &then {
            service.environment.entry(variable.clone()).or_insert_with(|| value.clone());
        }
    }
    Ok(())
}

fn in_memory(project: &Project, file: &Value) -> Result<MemoryFile> {
    MemoryFile::new(file.to_string().as_bytes())
        .map_err(|error| EngineError::Failed(format!("compose config for {}: {error}", project.service)))
}

/// Links followed as far as there is something.
async fn real(path: &str) -> PathBuf {
    tokio::fs::canonicalize(path).await.unwrap_or_else(|_| PathBuf::from(path))
}
