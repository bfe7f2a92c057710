//! What must not change: looked at before and after an update, and compared.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::Value;

use crate::deployment::Deployment;

/// Everything of one run on the engine and on disk.
#[derive(Debug, Clone, PartialEq)]
pub struct World {
    /// The application; `None` when its container is gone.
    pub app: Option<Container>,
    /// Those of the services that are moved with it, by name.
    pub crew: BTreeMap<String, Container>,
    /// All other containers, by name: siblings, and whatever was left behind.
    pub others: BTreeMap<String, Container>,
    pub env: String,
    pub compose: String,
    /// All tags and digests on images of this run; the bare id of an image without any.
    pub images: BTreeSet<String>,
    pub volumes: BTreeSet<String>,
}

/// A container, as far as it must not change.
#[derive(Debug, Clone, PartialEq)]
pub struct Container {
    pub id: String,
    /// Compose's; empty for a container that it did not make.
    pub service: String,
    pub image: String,
    pub state: String,
    pub started_at: String,
    pub restart_policy: String,
    /// What its operator configured: environment, mounts, ports, networks, labels but Compose's hashes.
    pub shape: Value,
}

impl World {
    pub fn of(deployment: &Deployment) -> Self {
        let engine = deployment.engine();
        let list = |find: &dyn Fn(&str) -> Vec<Value>| deployment.labels().map(find).concat();
        let mut containers: BTreeMap<String, Container> = list(&|label| engine.containers(label))
            .iter()
            .filter_map(|listed| engine.container(listed["Id"].as_str()?))
            .filter(|inspected| !is_helper(inspected))
            .map(|inspected| (text(&inspected["Name"]).trim_start_matches('/').to_owned(), Container::of(&inspected)))
            .collect();
        // The updater itself is not what it must not change: tests kill it.
        deployment.updater_container().map(|name| containers.remove(&name));
        let app = containers.remove(&deployment.container);
        let is_moved = |c: &Container| deployment.spec.crew.iter().any(|(mate, _)| *mate == c.service);
        let (crew, others) = containers.into_iter().partition(|(_, c)| is_moved(c));
        Self {
            app,
            crew,
            others,
            env: fs::read_to_string(deployment.env_file()).unwrap_or_default(),
            compose: fs::read_to_string(deployment.compose_file()).unwrap_or_default(),
            images: list(&|label| engine.images(label)).iter().flat_map(names).collect(),
            volumes: list(&|label| engine.volumes(label)).iter().map(|volume| text(&volume["Name"])).collect(),
        }
    }

    /// Without what becomes of everybody else when the engine starts again. (One that was killed does not
    /// start all that it should.)
    pub fn without_starts(mut self) -> Self {
        for other in self.others.values_mut() {
            (other.started_at, other.state) = (String::new(), String::new());
        }
        self
    }

    /// Nothing at all has happened.
    pub fn assert_untouched(&self, after: &Self) {
        assert_eq!(self, after, "left: before, right: after; nothing should have changed");
    }

    /// What is moved may be new containers, but they are the same as before; nothing else has changed.
    pub fn assert_restored(&self, after: &Self) {
        assert_eq!(self.moved(None), after.moved(None), "left: before, right: after the rollback");
        let forgiving = Self { app: after.app.clone(), crew: after.crew.clone(), ..self.clone() };
        forgiving.assert_untouched(after);
    }

    /// The application and its crew without their identities; as if they ran `image`, if one is given.
    fn moved(&self, image: Option<&str>) -> BTreeMap<&str, Container> {
        let app = self.app.as_ref().unwrap_or_else(|| panic!("the application is gone: {self:#?}"));
        let crew = self.crew.iter().map(|(name, c)| (name.as_str(), c));
        let with = |c: &Container| Container { image: image.unwrap_or(&c.image).to_owned(), ..c.without_identity() };
        crew.chain([("the application", app)]).map(|(name, c)| (name, with(c))).collect()
    }

    /// What is moved runs `image` (an id), `.env` is now `env`; nothing else has changed, and the engine
    /// knows the new image by `names` alone.
    pub fn assert_updated(&self, after: &Self, image: &str, env: &str, names: &[String]) {
        assert_eq!(self.moved(Some(image)), after.moved(None), "left: wanted, right: after the update");
        let (app, crew, env) = (after.app.clone(), after.crew.clone(), env.to_owned());
        let mut forgiving = Self { app, crew, env, ..self.clone() };
        forgiving.images.extend(names.iter().cloned());
        forgiving.assert_untouched(after);
    }
}

impl Container {
    fn of(inspected: &Value) -> Self {
        Self {
            id: text(&inspected["Id"]),
            service: text(&inspected["Config"]["Labels"]["com.docker.compose.service"]),
            image: text(&inspected["Image"]),
            state: text(&inspected["State"]["Status"]),
            started_at: text(&inspected["State"]["StartedAt"]),
            restart_policy: inspected["HostConfig"]["RestartPolicy"].to_string(),
            shape: shape(inspected),
        }
    }

    fn without_identity(&self) -> Self {
        Self { id: String::new(), started_at: String::new(), ..self.clone() }
    }
}

/// The updater's helpers stay a while, in case there is more to do.
pub fn is_helper(container: &Value) -> bool {
    text(&container["Config"]["Labels"]["io.processgit.updater.role"]).starts_with("helper-")
}

/// The environment without what the image itself brings (its version), ports, mounts, networks, labels.
fn shape(inspected: &Value) -> Value {
    let mut env: Vec<String> = inspected["Config"]["Env"].as_array().into_iter().flatten().map(text).collect();
    env.retain(|line| {
        !["APP_VERSION=", "BEHAVIOUR=", "SCHEMA="].iter().any(|of_the_image| line.starts_with(of_the_image))
    });
    env.sort();
    let mut labels = inspected["Config"]["Labels"].clone();
    if let Some(labels) = labels.as_object_mut() {
        // These differ by nature between two containers of one service.
        labels.retain(|name, _| {
            !["config-hash", "depends_on", "image", "replace", "version"]
                .iter()
                .any(|end| name.ends_with(&format!(".{end}")))
        });
    }
    let networks = inspected["NetworkSettings"]["Networks"].as_object();
    serde_json::json!({
        "env": env,
        "labels": labels,
        "ports": inspected["HostConfig"]["PortBindings"],
        "binds": inspected["HostConfig"]["Binds"],
        "mounts": inspected["HostConfig"]["Mounts"],
        "tmpfs": inspected["HostConfig"]["Tmpfs"],
        "user": inspected["Config"]["User"],
        "command": inspected["Config"]["Cmd"],
        "networks": networks.map(|networks| networks.keys().collect::<Vec<_>>()),
    })
}

/// Everything by which an image can be named.
fn names(image: &Value) -> BTreeSet<String> {
    let lists = ["RepoTags", "RepoDigests"].iter().filter_map(|key| image[key].as_array()).flatten();
    let names: BTreeSet<String> = lists.map(text).filter(|name| !name.contains("<none>")).collect();
    if names.is_empty() { [text(&image["Id"])].into() } else { names }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
