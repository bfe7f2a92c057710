//! A service: everything that decides how its container is made.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::resources::is_false;
use super::shapes;

/// A service, resolved.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Service {
    #[serde(deserialize_with = "shapes::text", skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    #[serde(deserialize_with = "shapes::text", skip_serializing_if = "Option::is_none")]
    pub container_name: Option<String>,
    /// `None` is the image's.
    #[serde(deserialize_with = "shapes::maybe_list", skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// `None` is the image's.
    #[serde(deserialize_with = "shapes::maybe_list", skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// `None`: a variable that is named and that nobody has set.
    #[serde(deserialize_with = "shapes::pairs", skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, Option<String>>,
    /// Only in a configuration whose environment was not resolved.
    #[serde(deserialize_with = "shapes::or_default", skip_serializing_if = "Vec::is_empty")]
    pub env_file: Vec<EnvFile>,
    #[serde(deserialize_with = "shapes::texts", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "shapes::texts", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    #[serde(deserialize_with = "shapes::text", skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(deserialize_with = "shapes::text", skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    #[serde(deserialize_with = "shapes::list", skip_serializing_if = "Vec::is_empty")]
    pub group_add: Vec<String>,
    #[serde(deserialize_with = "shapes::text", skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    #[serde(deserialize_with = "shapes::text", skip_serializing_if = "Option::is_none")]
    pub restart: Option<String>,
    #[serde(deserialize_with = "shapes::text", skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// `1m30s`
    #[serde(deserialize_with = "shapes::text", skip_serializing_if = "Option::is_none")]
    pub stop_grace_period: Option<String>,
    #[serde(deserialize_with = "shapes::maybe_flag", skip_serializing_if = "Option::is_none")]
    pub init: Option<bool>,
    #[serde(deserialize_with = "shapes::flag", skip_serializing_if = "is_false")]
    pub tty: bool,
    #[serde(deserialize_with = "shapes::flag", skip_serializing_if = "is_false")]
    pub stdin_open: bool,
    #[serde(deserialize_with = "shapes::number", skip_serializing_if = "Option::is_none")]
    pub scale: Option<i64>,
    #[serde(deserialize_with = "shapes::list", skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<String>,
    /// Services that are started first.
    #[serde(deserialize_with = "shapes::map_or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub depends_on: BTreeMap<String, Dependency>,
    #[serde(deserialize_with = "shapes::or_default", skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthcheckSpec>,
    /// Commands that Compose runs in the container itself.
    #[serde(deserialize_with = "shapes::or_default", skip_serializing_if = "Vec::is_empty")]
    pub post_start: Vec<Hook>,
    #[serde(deserialize_with = "shapes::or_default", skip_serializing_if = "Vec::is_empty")]
    pub pre_stop: Vec<Hook>,

    // What it has: files, devices, networks.
    #[serde(deserialize_with = "shapes::or_default", skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<ServiceMount>,
    #[serde(deserialize_with = "shapes::list", skip_serializing_if = "Vec::is_empty")]
    pub volumes_from: Vec<String>,
    /// `/run`, `/tmp:size=1m`
    #[serde(deserialize_with = "shapes::list", skip_serializing_if = "Vec::is_empty")]
    pub tmpfs: Vec<String>,
    #[serde(deserialize_with = "shapes::or_default", skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<FileReference>,
    #[serde(deserialize_with = "shapes::or_default", skip_serializing_if = "Vec::is_empty")]
    pub configs: Vec<FileReference>,
    #[serde(deserialize_with = "shapes::or_default", skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Device>,
    #[serde(deserialize_with = "shapes::list", skip_serializing_if = "Vec::is_empty")]
    pub device_cgroup_rules: Vec<String>,
    #[serde(deserialize_with = "shapes::or_default", skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<DeviceRequest>,
    /// Network key → what the service wants there.
    #[serde(deserialize_with = "shapes::map_or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub networks: BTreeMap<String, ServiceNetwork>,
    #[serde(deserialize_with = "shapes::text", skip_serializing_if = "Option::is_none")]
    pub network_mode: Option<String>,
    #[serde(deserialize_with = "shapes::or_default", skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
    #[serde(deserialize_with = "shapes::list", skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<String>,
    #[serde(deserialize_with = "shapes::text", skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    #[serde(deserialize_with = "shapes::text", skip_serializing_if = "Option::is_none")]
    pub domainname: Option<String>,
    #[serde(deserialize_with = "shapes::list", skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<String>,
    #[serde(deserialize_with = "shapes::list", skip_serializing_if = "Vec::is_empty")]
    pub dns_search: Vec<String>,
    #[serde(deserialize_with = "shapes::list", skip_serializing_if = "Vec::is_empty")]
    pub dns_opt: Vec<String>,
    /// As the engine wants it: `db:10.0.0.1`.
    #[serde(deserialize_with = "shapes::hosts", skip_serializing_if = "Vec::is_empty")]
    pub extra_hosts: Vec<String>,

    // What it may do.
    #[serde(deserialize_with = "shapes::flag", skip_serializing_if = "is_false")]
    pub privileged: bool,
    #[serde(deserialize_with = "shapes::flag", skip_serializing_if = "is_false")]
    pub read_only: bool,
    #[serde(deserialize_with = "shapes::list", skip_serializing_if = "Vec::is_empty")]
    pub cap_add: Vec<String>,
    #[serde(deserialize_with = "shapes::list", skip_serializing_if = "Vec::is_empty")]
    pub cap_drop: Vec<String>,
    #[serde(deserialize_with = "shapes::list", skip_serializing_if = "Vec::is_empty")]
    pub security_opt: Vec<String>,
    #[serde(deserialize_with = "shapes::texts", skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<String, String>,
    #[serde(deserialize_with = "shapes::text", skip_serializing_if = "Option::is_none")]
    pub ipc: Option<String>,
    #[serde(deserialize_with = "shapes::text", skip_serializing_if = "Option::is_none")]
    pub pid: Option<String>,
    #[serde(deserialize_with = "shapes::text", skip_serializing_if = "Option::is_none")]
    pub uts: Option<String>,
    #[serde(deserialize_with = "shapes::text", skip_serializing_if = "Option::is_none")]
    pub userns_mode: Option<String>,
    #[serde(deserialize_with = "shapes::text", skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    #[serde(deserialize_with = "shapes::text", skip_serializing_if = "Option::is_none")]
    pub cgroup_parent: Option<String>,
    #[serde(deserialize_with = "shapes::text", skip_serializing_if = "Option::is_none")]
    pub isolation: Option<String>,
    #[serde(deserialize_with = "shapes::text", skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    #[serde(deserialize_with = "shapes::texts", skip_serializing_if = "BTreeMap::is_empty")]
    pub storage_opt: BTreeMap<String, String>,

    // What it may use. Sizes in bytes.
    #[serde(deserialize_with = "shapes::number", skip_serializing_if = "Option::is_none")]
    pub mem_limit: Option<i64>,
    #[serde(deserialize_with = "shapes::number", skip_serializing_if = "Option::is_none")]
    pub mem_reservation: Option<i64>,
    #[serde(deserialize_with = "shapes::number", skip_serializing_if = "Option::is_none")]
    pub memswap_limit: Option<i64>,
    #[serde(deserialize_with = "shapes::number", skip_serializing_if = "Option::is_none")]
    pub mem_swappiness: Option<i64>,
    #[serde(deserialize_with = "shapes::number", skip_serializing_if = "Option::is_none")]
    pub shm_size: Option<i64>,
    #[serde(deserialize_with = "shapes::number", skip_serializing_if = "Option::is_none")]
    pub pids_limit: Option<i64>,
    #[serde(deserialize_with = "shapes::fraction", skip_serializing_if = "Option::is_none")]
    pub cpus: Option<f64>,
    #[serde(deserialize_with = "shapes::number", skip_serializing_if = "Option::is_none")]
    pub cpu_count: Option<i64>,
    #[serde(deserialize_with = "shapes::fraction", skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<f64>,
    #[serde(deserialize_with = "shapes::number", skip_serializing_if = "Option::is_none")]
    pub cpu_shares: Option<i64>,
    #[serde(deserialize_with = "shapes::number", skip_serializing_if = "Option::is_none")]
    pub cpu_quota: Option<i64>,
    #[serde(deserialize_with = "shapes::number", skip_serializing_if = "Option::is_none")]
    pub cpu_period: Option<i64>,
    #[serde(deserialize_with = "shapes::number", skip_serializing_if = "Option::is_none")]
    pub cpu_rt_period: Option<i64>,
    #[serde(deserialize_with = "shapes::number", skip_serializing_if = "Option::is_none")]
    pub cpu_rt_runtime: Option<i64>,
    #[serde(deserialize_with = "shapes::text", skip_serializing_if = "Option::is_none")]
    pub cpuset: Option<String>,
    #[serde(deserialize_with = "shapes::flag", skip_serializing_if = "is_false")]
    pub oom_kill_disable: bool,
    #[serde(deserialize_with = "shapes::number", skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i64>,
    #[serde(deserialize_with = "shapes::map_or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub ulimits: BTreeMap<String, Ulimit>,
    #[serde(deserialize_with = "shapes::or_default", skip_serializing_if = "Option::is_none")]
    pub blkio_config: Option<Blkio>,
    #[serde(deserialize_with = "shapes::or_default", skip_serializing_if = "Option::is_none")]
    pub deploy: Option<Deploy>,

    /// `build`, `develop`, `logging`, `expose` and whatever later versions add.
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

impl Service {
    /// The services whose namespaces, volumes or names it uses.
    pub fn uses(&self) -> impl Iterator<Item = &str> {
        let modes = [&self.network_mode, &self.ipc, &self.pid].into_iter().flatten();
        let of_modes = modes.filter_map(|mode| mode.strip_prefix("service:"));
        let volumes = self.volumes_from.iter().filter(|from| !from.starts_with("container:"));
        let named = volumes.chain(&self.links).filter_map(|text| text.split(':').next());
        of_modes.chain(named)
    }

    /// How many containers there are to be.
    pub fn replicas(&self) -> i64 {
        self.scale.or_else(|| self.deploy.as_ref()?.replicas).unwrap_or(1)
    }

    /// The variables that are set.
    pub fn variables(&self) -> BTreeMap<String, String> {
        self.environment.iter().filter_map(|(key, value)| Some((key.clone(), value.clone()?))).collect()
    }
}

/// `env_file`; a text is a path that is required.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "EnvFileShape")]
pub struct EnvFile {
    pub path: String,
    pub required: bool,
    /// `raw`: without interpolation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum EnvFileShape {
    Path(String),
    Long { path: String, required: Option<bool>, format: Option<String> },
}

impl From<EnvFileShape> for EnvFile {
    fn from(shape: EnvFileShape) -> Self {
        match shape {
            EnvFileShape::Path(path) => Self { path, required: true, format: None },
            EnvFileShape::Long { path, required, format } => {
                Self { path, required: required.unwrap_or(true), format: format.filter(|f| !f.is_empty()) }
            }
        }
    }
}

/// What `depends_on` says of another service.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dependency {
    /// `service_started`, `service_healthy`, `service_completed_successfully`
    #[serde(deserialize_with = "shapes::text", skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// `false`: the project may lack it.
    #[serde(deserialize_with = "shapes::maybe_flag", skip_serializing_if = "Option::is_none")]
    pub required: Option<bool>,
    /// It is restarted when the other one is.
    #[serde(deserialize_with = "shapes::flag", skip_serializing_if = "is_false")]
    pub restart: bool,
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

/// `healthcheck`; times as Compose prints them: `10s`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthcheckSpec {
    #[serde(deserialize_with = "shapes::list", skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    #[serde(deserialize_with = "shapes::flag", skip_serializing_if = "is_false")]
    pub disable: bool,
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

/// `post_start`, `pre_stop`: a command that Compose runs by exec in the container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hook {
    #[serde(deserialize_with = "shapes::list", skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    #[serde(deserialize_with = "shapes::text", skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

/// An item of `volumes`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceMount {
    /// `volume`, `bind`, `tmpfs`, `npipe`, `cluster`, `image`
    #[serde(rename = "type")]
    pub kind: String,
    /// A key of the project's volumes, or a path of the host; none: an anonymous volume.
    #[serde(deserialize_with = "shapes::text", skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    #[serde(deserialize_with = "shapes::or_default")]
    pub target: String,
    #[serde(deserialize_with = "shapes::flag", skip_serializing_if = "is_false")]
    pub read_only: bool,
    #[serde(deserialize_with = "bind_options", skip_serializing_if = "is_default")]
    pub bind: BindOptions,
    #[serde(deserialize_with = "shapes::or_default", skip_serializing_if = "is_default")]
    pub volume: VolumeOptions,
    #[serde(deserialize_with = "shapes::or_default", skip_serializing_if = "is_default")]
    pub tmpfs: TmpfsOptions,
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

/// Compose 2.40 prints `create_host_path` where it is true, and leaves it out where it is false: `bind: {}`. Only a mount
/// without `bind` has neither.
fn bind_options<'de, D: Deserializer<'de>>(d: D) -> Result<BindOptions, D::Error> {
    let options = Option::<BindOptions>::deserialize(d)?;
    Ok(options.map_or_else(BindOptions::default, |options| BindOptions {
        create_host_path: Some(options.create_host_path.unwrap_or(false)),
        ..options
    }))
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BindOptions {
    /// Whether the engine makes the source where there is none. Nothing is said where the mount has no options at all:
    /// then it does.
    #[serde(deserialize_with = "shapes::maybe_flag", skip_serializing_if = "Option::is_none")]
    pub create_host_path: Option<bool>,
    #[serde(deserialize_with = "shapes::text", skip_serializing_if = "Option::is_none")]
    pub propagation: Option<String>,
    #[serde(deserialize_with = "shapes::text", skip_serializing_if = "Option::is_none")]
    pub selinux: Option<String>,
    #[serde(deserialize_with = "shapes::text", skip_serializing_if = "Option::is_none")]
    pub recursive: Option<String>,
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeOptions {
    #[serde(deserialize_with = "shapes::flag", skip_serializing_if = "is_false")]
    pub nocopy: bool,
    #[serde(deserialize_with = "shapes::text", skip_serializing_if = "Option::is_none")]
    pub subpath: Option<String>,
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TmpfsOptions {
    /// Bytes.
    #[serde(deserialize_with = "shapes::number", skip_serializing_if = "Option::is_none")]
    pub size: Option<i64>,
    #[serde(deserialize_with = "shapes::number", skip_serializing_if = "Option::is_none")]
    pub mode: Option<i64>,
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

/// An item of `secrets` or `configs`: which one, and as what file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FileReference {
    pub source: String,
    #[serde(deserialize_with = "shapes::text", skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    #[serde(deserialize_with = "shapes::text", skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    #[serde(deserialize_with = "shapes::text", skip_serializing_if = "Option::is_none")]
    pub gid: Option<String>,
    /// `"0440"`: octal as text; a number is the mode itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Value>,
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

impl FileReference {
    /// Where the file is in the container. A name alone is one in `folder`: `/run/secrets` for a secret,
    /// the root for a config.
    pub fn path(&self, folder: &str) -> String {
        let name = self.target.as_deref().unwrap_or(&self.source);
        if name.starts_with('/') { name.to_owned() } else { format!("{folder}/{name}") }
    }
}

/// An item of `devices`; a text is `HOST[:CONTAINER[:PERMISSIONS]]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "DeviceShape")]
pub struct Device {
    pub source: String,
    pub target: String,
    pub permissions: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum DeviceShape {
    Short(String),
    Long { source: String, target: Option<String>, permissions: Option<String> },
}

impl From<DeviceShape> for Device {
    fn from(shape: DeviceShape) -> Self {
        let (source, target, permissions) = match shape {
            DeviceShape::Short(text) => {
                let mut parts = text.split(':').map(str::to_owned);
                (parts.next().unwrap_or_default(), parts.next(), parts.next())
            }
            DeviceShape::Long { source, target, permissions } => (source, target, permissions),
        };
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        Self {
            target: given(target).unwrap_or_else(|| source.clone()),
            permissions: given(permissions).unwrap_or_else(|| "rwm".into()),
            source,
        }
    }
}

/// A graphics card or the like, in `gpus` and in `deploy.resources.reservations.devices`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceRequest {
    #[serde(deserialize_with = "shapes::list", skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    #[serde(deserialize_with = "shapes::text", skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// -1 is all.
    #[serde(deserialize_with = "shapes::number", skip_serializing_if = "Option::is_none")]
    pub count: Option<i64>,
    #[serde(deserialize_with = "shapes::list", skip_serializing_if = "Vec::is_empty")]
    pub device_ids: Vec<String>,
    #[serde(deserialize_with = "shapes::texts", skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

/// What the service wants in one of its networks.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceNetwork {
    #[serde(deserialize_with = "shapes::list", skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    #[serde(deserialize_with = "shapes::text", skip_serializing_if = "Option::is_none")]
    pub ipv4_address: Option<String>,
    #[serde(deserialize_with = "shapes::text", skip_serializing_if = "Option::is_none")]
    pub ipv6_address: Option<String>,
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

/// An item of `ports`, in its long form.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Port {
    #[serde(deserialize_with = "shapes::number", skip_serializing_if = "Option::is_none")]
    pub target: Option<i64>,
    /// A port or a range; none: any free one.
    #[serde(deserialize_with = "shapes::text", skip_serializing_if = "Option::is_none")]
    pub published: Option<String>,
    #[serde(deserialize_with = "shapes::text", skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<String>,
    #[serde(deserialize_with = "shapes::text", skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

/// One number is both.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "UlimitShape")]
pub struct Ulimit {
    pub soft: i64,
    pub hard: i64,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum UlimitShape {
    Both(i64),
    Each { soft: Option<i64>, hard: Option<i64> },
}

impl From<UlimitShape> for Ulimit {
    fn from(shape: UlimitShape) -> Self {
        match shape {
            UlimitShape::Both(both) => Self { soft: both, hard: both },
            UlimitShape::Each { soft, hard } => {
                Self { soft: soft.or(hard).unwrap_or_default(), hard: hard.or(soft).unwrap_or_default() }
            }
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Blkio {
    #[serde(deserialize_with = "shapes::number", skip_serializing_if = "Option::is_none")]
    pub weight: Option<i64>,
    #[serde(deserialize_with = "shapes::or_default", skip_serializing_if = "Vec::is_empty")]
    pub weight_device: Vec<BlkioWeight>,
    #[serde(deserialize_with = "shapes::or_default", skip_serializing_if = "Vec::is_empty")]
    pub device_read_bps: Vec<BlkioRate>,
    #[serde(deserialize_with = "shapes::or_default", skip_serializing_if = "Vec::is_empty")]
    pub device_write_bps: Vec<BlkioRate>,
    #[serde(deserialize_with = "shapes::or_default", skip_serializing_if = "Vec::is_empty")]
    pub device_read_iops: Vec<BlkioRate>,
    #[serde(deserialize_with = "shapes::or_default", skip_serializing_if = "Vec::is_empty")]
    pub device_write_iops: Vec<BlkioRate>,
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BlkioWeight {
    pub path: String,
    #[serde(deserialize_with = "shapes::number")]
    pub weight: Option<i64>,
}

/// Bytes, or operations, a second.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BlkioRate {
    pub path: String,
    #[serde(deserialize_with = "shapes::number")]
    pub rate: Option<i64>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Deploy {
    #[serde(deserialize_with = "shapes::number", skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i64>,
    #[serde(deserialize_with = "shapes::or_default", skip_serializing_if = "is_default")]
    pub resources: Resources,
    #[serde(deserialize_with = "shapes::or_default", skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<DeployRestart>,
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeployRestart {
    /// `none`, `on-failure`, `any`
    #[serde(deserialize_with = "shapes::text", skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    #[serde(deserialize_with = "shapes::or_default", skip_serializing_if = "is_default")]
    pub limits: Resource,
    #[serde(deserialize_with = "shapes::or_default", skip_serializing_if = "is_default")]
    pub reservations: Resource,
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resource {
    #[serde(deserialize_with = "shapes::fraction", skip_serializing_if = "Option::is_none")]
    pub cpus: Option<f64>,
    /// Bytes.
    #[serde(deserialize_with = "shapes::number", skip_serializing_if = "Option::is_none")]
    pub memory: Option<i64>,
    #[serde(deserialize_with = "shapes::number", skip_serializing_if = "Option::is_none")]
    pub pids: Option<i64>,
    #[serde(deserialize_with = "shapes::or_default", skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<DeviceRequest>,
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
