//! A command that runs once in a service's surroundings, a migration or a hook, as a Compose project of its
//! own with one service. Pure.
//!
//! Compose makes the container, so it has what `docker compose run` would give it: secrets, devices, limits,
//! also an attribute that this program does not know. Here only that is changed which belongs to the service's
//! own container: by what others find it, when Compose starts it, and what it shares with services that this
//! project does not have. The table in the tests has every attribute of a service.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::engine::compose_config::service::{Deploy, HealthcheckSpec};
use crate::engine::compose_config::{Network, Service, ServiceMount, ServiceNetwork, Volume};
use crate::engine::{ComposeConfig, Container, Mount, MountKind, label};

/// Its service, until the container's name is known.
const SERVICE: &str = "one-shot";

/// Attributes that [`Service`] has no field for, and that the container does not get: they build or pull an
/// image, publish ports, or are replaced.
const NOT_GIVEN: [&str; 9] = [
    "attach",
    "build",
    "develop",
    "expose",
    "label_file",
    "logging",
    "pull_policy",
    "pull_refresh_after",
    USE_API_SOCKET,
];
/// Mounts the engine's socket.
const USE_API_SOCKET: &str = "use_api_socket";
/// What makes an endpoint of a network the service's own, beside its IP addresses.
const ADDRESSES: [&str; 2] = ["mac_address", "link_local_ips"];

/// A command that runs once, in a service's surroundings: a migration, a hook.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "Shape")]
pub struct OneShot {
    /// An image id; `None`: the new image, which is not at hand while planning.
    pub image: Option<String>,
    /// Argument vector; no shell runs it.
    pub command: Vec<String>,
    /// Empty where nothing but the command is known: in what is left on the engine.
    pub config: ComposeConfig,
    /// What the service's own container has, and this one is deliberately not given.
    pub lacks: Vec<String>,
}

impl OneShot {
    /// For people, quoted as a shell would need it.
    pub fn text(&self) -> String {
        shell_words::join(&self.command)
    }

    /// The containers in whose namespaces it is to live, by id.
    pub fn lives_in(&self) -> impl Iterator<Item = &str> {
        let modes = self.config.services.values().flat_map(|s| [&s.network_mode, &s.ipc, &s.pid]).flatten();
        modes.filter_map(|mode| mode.strip_prefix("container:"))
    }

    /// It has secrets or configs that are no files of the host: Compose puts them into the container.
    pub fn is_given_files(&self) -> bool {
        self.config.has_copied_files()
    }

    /// The project of the container `name`; `None` where the surroundings are not known.
    pub fn project(&self, name: &str, image: &str, labels: &BTreeMap<String, String>) -> Option<ComposeConfig> {
        let mut config = self.config.clone();
        let mut service = config.services.remove(SERVICE)?;
        service.image = Some(image.to_owned());
        service.command = Some(self.command.clone());
        service.container_name = Some(name.to_owned());
        service.labels.clone_from(labels);
        // Compose makes an alias of the service's name.
        config.services.insert(name.to_owned(), service);
        name.clone_into(&mut config.name);
        Some(config)
    }
}

/// What the containers that there are say of a one-shot container.
pub struct Around<'a> {
    /// The service's own.
    pub container: &'a Container,
    /// Further mounts, where the service has none.
    pub beside: &'a [Mount],
    /// One container of each service of the project.
    pub of_services: BTreeMap<&'a str, &'a Container>,
    /// The service's own container does not run meanwhile: its addresses are free.
    pub is_alone: bool,
}

/// The project of one service that a one-shot container in the surroundings of service `name` is made from, and
/// what it lacks. `None`: there is no such service.
pub fn derived(config: &ComposeConfig, name: &str, around: &Around<'_>) -> Option<(ComposeConfig, Vec<String>)> {
    let service = config.service(name)?;
    let mut lacks = Vec::new();
    if service.rest.contains_key(USE_API_SOCKET) {
        lacks.push(USE_API_SOCKET.to_owned());
    }
    let in_namespace = |mode: &Option<String>| {
        let other = mode.as_deref().and_then(|mode| mode.strip_prefix("service:"));
        let container = other.and_then(|other| around.of_services.get(other));
        container.map(|container| format!("container:{}", container.id)).or_else(|| mode.clone())
    };
    let (volumes, named) = mounts(config, service, around, &mut lacks);
    let mut derived = Service {
        // Its own container's.
        container_name: None,
        labels: BTreeMap::new(),
        ports: Vec::new(),
        healthcheck: Some(HealthcheckSpec { disable: true, ..HealthcheckSpec::default() }),
        restart: Some("no".into()),
        post_start: Vec::new(),
        pre_stop: Vec::new(),
        stdin_open: false,
        tty: false,
        // Which containers there are, and when.
        depends_on: BTreeMap::new(),
        profiles: Vec::new(),
        scale: None,
        deploy: service.deploy.as_ref().map(|d| Deploy { resources: d.resources.clone(), ..Deploy::default() }),
        env_file: Vec::new(),
        // Other services are known by their containers.
        network_mode: in_namespace(&service.network_mode),
        ipc: in_namespace(&service.ipc),
        pid: in_namespace(&service.pid),
        links: Vec::new(),
        volumes_from: Vec::new(),
        networks: service.networks.iter().map(|(key, n)| (key.clone(), endpoint(n, around.is_alone))).collect(),
        volumes,
        ..service.clone()
    };
    derived.rest.retain(|key, _| !NOT_GIVEN.contains(&key.as_str()) && (around.is_alone || !is_address(key)));
    // The host's default may be a driver that cannot be read back, or one without bounds.
    let bounded = json!({"driver": "json-file", "options": {"max-size": "20m", "max-file": "3"}});
    derived.rest.insert("logging".into(), bounded);
    link(&mut derived, service, around);

    let mut project = ComposeConfig { services: [(name.to_owned(), derived)].into(), ..config.clone() }.part_of([name]);
    let external = |name: &str| Network { name: Some(name.to_owned()), external: true, rest: BTreeMap::new() };
    project.networks = service.networks.keys().map(|key| (key.clone(), external(config.network_name(key)))).collect();
    project.volumes = named;
    let models = config.rest.get_key_value("models").filter(|_| service.rest.contains_key("models"));
    project.rest.extend(models.map(|(key, value)| (key.clone(), value.clone())));
    project.services = project.services.into_values().map(|service| (SERVICE.to_owned(), service)).collect();
    Some((project, lacks))
}

fn is_address(key: &str) -> bool {
    ADDRESSES.contains(&key)
}

fn endpoint(network: &ServiceNetwork, with_addresses: bool) -> ServiceNetwork {
    let mut endpoint = ServiceNetwork { aliases: Vec::new(), ..network.clone() };
    if !with_addresses {
        (endpoint.ipv4_address, endpoint.ipv6_address) = (None, None);
        endpoint.rest.retain(|key, _| !is_address(key));
    }
    endpoint
}

/// Other services' containers under the names that the service gives them, and those that Compose adds
/// (`getLinks` in its `pkg/compose/create.go`).
fn link(derived: &mut Service, service: &Service, around: &Around<'_>) {
    let links = service.links.iter().filter_map(|link| {
        let (other, alias) = link.split_once(':').unwrap_or((link, link));
        let container = around.of_services.get(other)?;
        let number = container.label(label::NUMBER).unwrap_or("1");
        let project = container.label(label::PROJECT).unwrap_or_default();
        let names = [alias.to_owned(), format!("{other}-{number}"), format!("{project}-{other}-{number}")];
        Some(names.map(|name| json!(format!("{}:{name}", container.name))))
    });
    let links: Vec<Value> = links.flatten().collect();
    if !links.is_empty() {
        let all = derived.rest.entry("external_links".into()).or_insert_with(|| json!([]));
        all.as_array_mut().into_iter().for_each(|all| all.extend(links.iter().cloned()));
    }
}

/// The service's mounts, with every volume by the engine's name, and those that its container has beside them:
/// of `volumes_from`, of the image. A missing source is refused, never made.
fn mounts(
    config: &ComposeConfig,
    service: &Service,
    around: &Around<'_>,
    lacks: &mut Vec<String>,
) -> (Vec<ServiceMount>, BTreeMap<String, Volume>) {
    let recorded = |target: &str| around.container.mounts.iter().find(|m| is_same_path(&m.destination, target));
    let mut mounts: Vec<ServiceMount> = Vec::new();
    for mount in &service.volumes {
        let mut mount = mount.clone();
        match (mount.kind.as_str(), mount.source.as_deref()) {
            ("bind", Some(source)) if is_socket(source) => {
                lacks.push(source.to_owned());
                continue;
            }
            // The engine relabels for SELinux only where it may make the source, too.
            ("bind", _) if mount.bind.selinux.is_none() => mount.bind.create_host_path = Some(false),
            ("volume", Some(key)) => mount.source = Some(config.volume_name(key).to_owned()),
            ("volume", None) => {
                let same = recorded(&mount.target).filter(|m| m.kind == MountKind::Volume && m.is_anonymous());
                mount.source = same.map(|m| m.name.clone());
            }
            _ => {}
        }
        mounts.push(mount);
    }
    let files = service.secrets.iter().map(|file| file.path("/run/secrets"));
    let mut taken: Vec<String> = files.chain(service.configs.iter().map(|file| file.path(""))).collect();
    taken.extend(service.tmpfs.iter().map(|tmpfs| tmpfs.split(':').next().unwrap_or_default().to_owned()));
    taken.extend(service.volumes.iter().map(|mount| mount.target.clone()));
    for mount in around.container.mounts.iter().chain(around.beside) {
        if is_socket(&mount.source) && !lacks.contains(&mount.source) {
            lacks.push(mount.source.clone());
        }
        if !taken.iter().any(|path| is_same_path(path, &mount.destination)) {
            mounts.extend(as_recorded(mount));
            taken.push(mount.destination.clone());
        }
    }
    let volumes = mounts.iter().filter(|mount| mount.kind == "volume").filter_map(|mount| mount.source.as_ref());
    let external = |name: &String| Volume { name: Some(name.clone()), external: true, ..Volume::default() };
    let volumes = volumes.map(|name| (name.clone(), external(name))).collect();
    (mounts, volumes)
}

/// A mount as the engine recorded it. A socket is none.
fn as_recorded(mount: &Mount) -> Option<ServiceMount> {
    let (kind, source) = match mount.kind {
        MountKind::Volume => ("volume", &mount.name),
        MountKind::Bind if !is_socket(&mount.source) => ("bind", &mount.source),
        MountKind::Bind | MountKind::Tmpfs | MountKind::Other => return None,
    };
    let mut request = ServiceMount {
        kind: kind.into(),
        source: Some(source.clone()),
        target: mount.destination.clone(),
        read_only: !mount.writable,
        ..ServiceMount::default()
    };
    match mount.kind {
        MountKind::Volume => request.volume.subpath = Some(mount.subpath.clone()).filter(|path| !path.is_empty()),
        _ => request.bind.create_host_path = Some(false),
    }
    Some(request)
}

fn is_same_path(a: &str, b: &str) -> bool {
    a.trim_end_matches('/') == b.trim_end_matches('/')
}

/// The engine's socket is no data, and never reaches a one-shot container.
pub fn is_socket(source: &str) -> bool {
    source.ends_with(".sock")
}

/// As a journal may have it. Earlier versions noted a choice of attributes, and the recorded mounts.
#[derive(Deserialize)]
struct Shape {
    image: Option<String>,
    command: Vec<String>,
    #[serde(default)]
    config: ComposeConfig,
    #[serde(default)]
    lacks: Vec<String>,
    surroundings: Option<Surroundings>,
    #[serde(default)]
    mounts: Vec<Mount>,
}

#[derive(Default, Deserialize)]
struct Surroundings {
    entrypoint: Option<Vec<String>>,
    environment: BTreeMap<String, String>,
    user: Option<String>,
    working_dir: Option<String>,
    networks: Vec<String>,
    extra_hosts: Vec<String>,
    cap_add: Vec<String>,
    cap_drop: Vec<String>,
    security_opt: Vec<String>,
    privileged: bool,
    tmpfs: BTreeMap<String, String>,
    read_only: bool,
}

impl From<Shape> for OneShot {
    fn from(shape: Shape) -> Self {
        let Shape { image, command, config, lacks, surroundings, mounts } = shape;
        let config = surroundings.map_or(config, |around| around.project(&mounts));
        Self { image, command, config, lacks }
    }
}

impl Surroundings {
    fn project(self, mounts: &[Mount]) -> ComposeConfig {
        let is_mode = |network: &&String| {
            matches!(network.as_str(), "none" | "host" | "bridge" | "default") || network.starts_with("container:")
        };
        let mode = match self.networks.first() {
            None => Some("none".to_owned()),
            Some(first) => Some(first).filter(is_mode).cloned(),
        };
        let joined = self.networks.iter().filter(|_| mode.is_none());
        let volumes: Vec<ServiceMount> = mounts.iter().filter_map(as_recorded).collect();
        let named = volumes.iter().filter(|mount| mount.kind == "volume").filter_map(|mount| mount.source.clone());
        let volume = |name: String| (name.clone(), Volume { name: Some(name), external: true, ..Volume::default() });
        let network =
            |name: &String| (name.clone(), Network { name: Some(name.clone()), external: true, rest: BTreeMap::new() });
        let tmpfs = |(path, options): (String, String)| match options.is_empty() {
            true => path,
            false => format!("{path}:{options}"),
        };
        let networks: BTreeMap<String, Network> = joined.map(network).collect();
        ComposeConfig {
            volumes: named.map(volume).collect(),
            services: [(
                SERVICE.to_owned(),
                Service {
                    entrypoint: self.entrypoint,
                    environment: self.environment.into_iter().map(|(key, value)| (key, Some(value))).collect(),
                    user: self.user,
                    working_dir: self.working_dir,
                    network_mode: mode,
                    networks: networks.keys().map(|key| (key.clone(), ServiceNetwork::default())).collect(),
                    extra_hosts: self.extra_hosts,
                    cap_add: self.cap_add,
                    cap_drop: self.cap_drop,
                    security_opt: self.security_opt,
                    privileged: self.privileged,
                    tmpfs: self.tmpfs.into_iter().map(tmpfs).collect(),
                    read_only: self.read_only,
                    restart: Some("no".into()),
                    volumes,
                    ..Service::default()
                },
            )]
            .into(),
            networks,
            ..ComposeConfig::default()
        }
    }
}
