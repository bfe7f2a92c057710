//! The engine's answers in our words, and our requests in the engine's. Engine 29 leaves empty fields
//! out, older ones send them empty: both are read alike.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, ContainerState, ContainerStateStatusEnum, EndpointSettings,
    HealthConfig, HealthStatusEnum, HostConfig, HostConfigLogConfig, ImageInspect, Mount as MountRequest, MountPoint,
    MountType, MountVolumeOptions, NetworkingConfig, RestartPolicy as EnginePolicy, RestartPolicyNameEnum, SystemInfo,
    SystemVersion, Volume as EngineVolume,
};
use jiff::Timestamp;

use super::super::{
    Container, ContainerSpec, EngineError, EngineInfo, Healthcheck, Image, Mount, MountKind, RestartPolicy, Result,
    RunState, Volume,
};
use super::connect::Version;
use crate::platform;

/// What the engine assumes where a HEALTHCHECK names no interval, in seconds.
const DEFAULT_HEALTH_INTERVAL: i64 = 30;
/// And between two checks within the start period, where none is named.
const DEFAULT_START_INTERVAL: i64 = 5;
/// The first API version whose engine checks more often within the start period.
const START_INTERVAL_VERSION: Version = (1, 44);
const NANOSECONDS: i64 = 1_000_000_000;

pub(super) fn info(version: SystemVersion, info: SystemInfo, api: Version) -> EngineInfo {
    let (os, arch) = (version.os.unwrap_or_default(), version.arch.unwrap_or_default());
    let machine = info.architecture.unwrap_or_default();
    EngineInfo {
        version: version.version.unwrap_or_default(),
        api_version: format!("{}.{}", api.0, api.1),
        platform: platform::of_engine(&os, &arch, &machine),
        containerd_store: containerd_store(info.driver_status.unwrap_or_default()),
    }
}

/// `[["driver-type", "io.containerd.snapshotter.v1"]]` is how the engine says that images live in
/// containerd.
fn containerd_store(driver_status: Vec<Vec<String>>) -> bool {
    driver_status.iter().flatten().any(|text| text.starts_with("io.containerd.snapshotter"))
}

pub(super) fn image(image: ImageInspect) -> Image {
    let raw = serde_json::to_value(&image).unwrap_or_default();
    let (os, arch) = (image.os.unwrap_or_default(), image.architecture.unwrap_or_default());
    Image {
        id: image.id.unwrap_or_default(),
        repo_digests: image.repo_digests.unwrap_or_default(),
        repo_tags: image.repo_tags.unwrap_or_default(),
        labels: image.config.and_then(|config| config.labels).unwrap_or_default().into_iter().collect(),
        platform: platform::named(&os, &arch, &image.variant.unwrap_or_default()),
        raw,
    }
}

pub(super) fn volume(volume: EngineVolume) -> Volume {
    Volume {
        name: volume.name,
        driver: volume.driver,
        mountpoint: volume.mountpoint,
        options: volume.options.into_iter().collect(),
        labels: volume.labels.into_iter().collect(),
        created_at: volume.created_at.as_deref().and_then(timestamp),
    }
}

pub(super) fn container(inspect: ContainerInspectResponse, api: Version) -> Result<Container> {
    let id = inspect.id.clone().unwrap_or_default();
    let raw = serde_json::to_value(&inspect)
        .map_err(|error| EngineError::Failed(format!("reading container {id}: {error}")))?;
    let state = inspect.state.unwrap_or_default();
    let config = inspect.config.unwrap_or_default();
    let host = inspect.host_config.unwrap_or_default();
    let asked_mounts = host.mounts.unwrap_or_default();
    let mounts = inspect.mounts.unwrap_or_default().into_iter().map(|point| mount(point, &asked_mounts)).collect();
    let networks = inspect.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
    let healthcheck_seconds = config.healthcheck.as_ref().map_or(0, |config| healthcheck_seconds(config, api));
    Ok(Container {
        id,
        name: inspect.name.unwrap_or_default().trim_start_matches('/').to_owned(),
        image_ref: config.image.unwrap_or_default(),
        image_id: inspect.image.unwrap_or_default(),
        state: run_state(&state),
        exit_code: state.exit_code.unwrap_or_default(),
        started_at: state.started_at.as_deref().and_then(timestamp),
        created_at: inspect.created.as_deref().and_then(timestamp),
        restart_count: inspect.restart_count.unwrap_or_default(),
        healthcheck: state.health.and_then(|health| health.status).map_or(Healthcheck::None, healthcheck),
        healthcheck_seconds,
        restart_policy: host.restart_policy.map_or_else(RestartPolicy::never, restart_policy),
        labels: config.labels.unwrap_or_default().into_iter().collect(),
        mounts,
        networks: networks.into_iter().map(|(name, endpoint)| (name, address(endpoint))).collect(),
        network_mode: host.network_mode.map_or_else(String::new, network_mode),
        raw,
    })
}

/// `0001-01-01T00:00:00Z` is how the engine says never.
fn timestamp(text: &str) -> Option<Timestamp> {
    text.parse().ok().filter(|time: &Timestamp| time.as_second() > 0)
}

fn run_state(state: &ContainerState) -> RunState {
    use ContainerStateStatusEnum as Status;
    match state.status.unwrap_or(Status::EMPTY) {
        Status::CREATED => RunState::Created,
        // It has been asked to stop and still runs.
        Status::RUNNING | Status::STOPPING => RunState::Running,
        Status::PAUSED => RunState::Paused,
        Status::RESTARTING => RunState::Restarting,
        Status::REMOVING => RunState::Removing,
        Status::EXITED => RunState::Exited,
        Status::DEAD => RunState::Dead,
        Status::EMPTY if state.running == Some(true) => RunState::Running,
        Status::EMPTY => RunState::Exited,
    }
}

fn healthcheck(status: HealthStatusEnum) -> Healthcheck {
    match status {
        HealthStatusEnum::STARTING => Healthcheck::Starting,
        HealthStatusEnum::HEALTHY => Healthcheck::Healthy,
        HealthStatusEnum::UNHEALTHY => Healthcheck::Unhealthy,
        HealthStatusEnum::EMPTY | HealthStatusEnum::NONE => Healthcheck::None,
    }
}

/// When the first check is made, counted from the start; 0 where none is made. A check that succeeds counts at once,
/// also within the start period. In it the engine checks more often, since its version 25, whatever the interval is.
fn healthcheck_seconds(config: &HealthConfig, api: Version) -> u64 {
    let test = config.test.as_deref().unwrap_or_default();
    if test.first().is_none_or(|kind| kind == "NONE") {
        return 0;
    }
    let set = |time: Option<i64>| time.filter(|time| *time > 0);
    let interval = set(config.interval).unwrap_or(DEFAULT_HEALTH_INTERVAL * NANOSECONDS);
    let starts = set(config.start_period).is_some() && api >= START_INTERVAL_VERSION;
    let first =
        if starts { set(config.start_interval).unwrap_or(DEFAULT_START_INTERVAL * NANOSECONDS) } else { interval };
    u64::try_from(first.div_euclid(NANOSECONDS)).unwrap_or_default()
}

fn restart_policy(policy: EnginePolicy) -> RestartPolicy {
    let name = policy.name.unwrap_or(RestartPolicyNameEnum::EMPTY).to_string();
    RestartPolicy {
        name: if name.is_empty() { "no".into() } else { name },
        maximum_retry_count: policy.maximum_retry_count.unwrap_or_default(),
    }
}

/// The policy as the engine wants it; `None` for a name it does not know.
pub(super) fn engine_policy(policy: &RestartPolicy) -> Option<EnginePolicy> {
    let name = match policy.name.as_str() {
        "no" | "" => RestartPolicyNameEnum::NO,
        "always" => RestartPolicyNameEnum::ALWAYS,
        "unless-stopped" => RestartPolicyNameEnum::UNLESS_STOPPED,
        "on-failure" => RestartPolicyNameEnum::ON_FAILURE,
        _ => return None,
    };
    Some(EnginePolicy { name: Some(name), maximum_retry_count: Some(policy.maximum_retry_count) })
}

fn network_mode(mode: String) -> String {
    if mode == "default" { "bridge".into() } else { mode }
}

fn address(endpoint: EndpointSettings) -> String {
    let v4 = endpoint.ip_address.filter(|address| !address.is_empty());
    v4.or(endpoint.global_ipv6_address).unwrap_or_default()
}

/// The sub-folder of a volume is told only in the request that the engine recorded.
fn mount(point: MountPoint, asked: &[MountRequest]) -> Mount {
    let destination = point.destination.unwrap_or_default();
    let request = asked.iter().find(|request| same_path(request.target.as_deref().unwrap_or_default(), &destination));
    let subpath = request.and_then(|request| request.volume_options.as_ref()?.subpath.clone()).unwrap_or_default();
    Mount {
        kind: match point.typ.as_deref() {
            Some("volume") => MountKind::Volume,
            Some("bind") => MountKind::Bind,
            Some("tmpfs") => MountKind::Tmpfs,
            _ => MountKind::Other,
        },
        name: point.name.unwrap_or_default(),
        source: point.source.unwrap_or_default(),
        destination,
        writable: point.rw.unwrap_or_default(),
        subpath,
    }
}

fn same_path(a: &str, b: &str) -> bool {
    a.trim_end_matches('/') == b.trim_end_matches('/')
}

/// The request that creates a container of ours. Its further networks are joined afterwards.
pub(super) fn create_body(spec: &ContainerSpec) -> Result<ContainerCreateBody> {
    // No network is the safe reading of none named.
    let network = spec.networks.first().map_or("none", String::as_str);
    let host = HostConfig {
        mounts: Some(spec.mounts.iter().map(|mount| mount_request(mount, &spec.name)).collect::<Result<_>>()?),
        network_mode: Some(network.to_owned()),
        restart_policy: engine_policy(&RestartPolicy::never()),
        extra_hosts: some(&spec.extra_hosts),
        group_add: some(&spec.group_add),
        cap_add: some(&spec.cap_add),
        cap_drop: some(&spec.cap_drop),
        security_opt: some(&spec.security_opt),
        privileged: Some(spec.privileged),
        tmpfs: (!spec.tmpfs.is_empty()).then(|| map(&spec.tmpfs)),
        readonly_rootfs: Some(spec.read_only),
        log_config: Some(log_config()),
        auto_remove: Some(spec.auto_remove),
        memory: spec.memory,
        ..HostConfig::default()
    };
    let endpoints =
        is_named_network(network).then(|| HashMap::from([(network.to_owned(), EndpointSettings::default())]));
    Ok(ContainerCreateBody {
        image: Some(spec.image.clone()),
        entrypoint: spec.entrypoint.clone(),
        cmd: spec.command.clone(),
        env: some(&spec.env),
        user: spec.user.clone(),
        working_dir: spec.working_dir.clone(),
        labels: Some(map(&spec.labels)),
        stop_timeout: spec.stop_grace_seconds,
        // The image's own check would only make noise: a one-shot is judged by its exit code.
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".into()]), ..HealthConfig::default() }),
        host_config: Some(host),
        networking_config: endpoints.map(|endpoints| NetworkingConfig { endpoints_config: Some(endpoints) }),
        ..ContainerCreateBody::default()
    })
}

/// The host's default may be a driver that cannot be read back, or one without bounds.
fn log_config() -> HostConfigLogConfig {
    let bounds = [("max-size", "20m"), ("max-file", "3")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    HostConfigLogConfig { typ: Some("json-file".into()), config: Some(HashMap::from(bounds)) }
}

/// A network that is joined, in contrast to a mode of the container.
pub(super) fn is_named_network(network: &str) -> bool {
    !matches!(network, "none" | "host" | "bridge" | "default") && !network.starts_with("container:")
}

fn mount_request(mount: &Mount, container: &str) -> Result<MountRequest> {
    let refuse = |why: &str| {
        let at = &mount.destination;
        Err(EngineError::Failed(format!("creating container {container}: the mount at {at} {why}")))
    };
    let (typ, source, volume_options) = match mount.kind {
        MountKind::Volume if mount.name.is_empty() => return refuse("is a volume without a name"),
        MountKind::Volume => (MountType::VOLUME, Some(mount.name.clone()), Some(volume_options(mount))),
        MountKind::Bind if mount.source.is_empty() => return refuse("is a bind without a source"),
        MountKind::Bind => (MountType::BIND, Some(mount.source.clone()), None),
        MountKind::Tmpfs => (MountType::TMPFS, None, None),
        MountKind::Other => return refuse("is neither volume, bind nor tmpfs: leave it out"),
    };
    Ok(MountRequest {
        target: Some(mount.destination.clone()),
        source,
        typ: Some(typ),
        read_only: Some(!mount.writable),
        volume_options,
        ..MountRequest::default()
    })
}

fn volume_options(mount: &Mount) -> MountVolumeOptions {
    MountVolumeOptions {
        // An empty volume is filled from the image at creation, even one that is mounted to be read.
        no_copy: (!mount.writable).then_some(true),
        subpath: (!mount.subpath.is_empty()).then(|| mount.subpath.clone()),
        ..MountVolumeOptions::default()
    }
}

fn some(list: &[String]) -> Option<Vec<String>> {
    (!list.is_empty()).then(|| list.to_vec())
}

fn map(pairs: &BTreeMap<String, String>) -> HashMap<String, String> {
    pairs.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: serde_json::Value) -> Container {
        container(serde_json::from_value(value).unwrap(), (1, 51)).unwrap()
    }

    #[test]
    fn an_almost_empty_inspect_is_read() {
        let read = read(
            json!({"Id": "abc", "Name": "/app", "State": {"Status": "created", "StartedAt": "0001-01-01T00:00:00Z"}}),
        );
        assert_eq!((read.name.as_str(), read.state), ("app", RunState::Created));
        assert_eq!((read.started_at, read.healthcheck, read.healthcheck_seconds), (None, Healthcheck::None, 0));
        assert_eq!(read.restart_policy, RestartPolicy::never());
        assert!(read.mounts.is_empty() && read.networks.is_empty() && read.labels.is_empty());
    }

    #[test]
    fn a_full_inspect_is_read() {
        let read = read(json!({
            "Id": "abc", "Name": "/app", "Image": "sha256:1", "Created": "2025-01-02T03:04:05.6Z", "RestartCount": 2,
            "State": {"Status": "running", "Running": true, "StartedAt": "2025-01-02T03:04:06Z", "Health": {"Status": "starting"}},
            "Config": {"Image": "repo:1", "Labels": {"a": "b"},
                       "Healthcheck": {"Test": ["CMD", "true"], "Interval": 5_000_000_000_i64, "StartPeriod": 90_000_000_000_i64}},
            "HostConfig": {"NetworkMode": "default", "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3},
                           "Mounts": [{"Type": "volume", "Source": "data", "Target": "/data/", "VolumeOptions": {"Subpath": "sub/dir"}}]},
            "Mounts": [{"Type": "volume", "Name": "data", "Source": "/v/data/_data", "Destination": "/data", "RW": true},
                       {"Type": "bind", "Source": "/srv", "Destination": "/srv", "RW": false},
                       {"Type": "image", "Destination": "/x"}],
            "NetworkSettings": {"Networks": {"four": {"IPAddress": "10.0.0.2"}, "six": {"IPAddress": "", "GlobalIPv6Address": "fd00::2"}}},
        }));
        assert_eq!(read.created_at, Some("2025-01-02T03:04:05.6Z".parse().unwrap()));
        assert_eq!((read.healthcheck, read.healthcheck_seconds), (Healthcheck::Starting, 5));
        assert_eq!(read.restart_policy, RestartPolicy { name: "on-failure".into(), maximum_retry_count: 3 });
        assert_eq!(read.network_mode, "bridge");
        let mounts: Vec<_> = read.mounts.iter().map(|m| (m.kind.clone(), m.subpath.as_str(), m.writable)).collect();
        let expected =
            [(MountKind::Volume, "sub/dir", true), (MountKind::Bind, "", false), (MountKind::Other, "", false)];
        assert_eq!(mounts, expected);
        let networks: Vec<_> = read.networks.iter().map(|(name, at)| (name.as_str(), at.as_str())).collect();
        assert_eq!(networks, [("four", "10.0.0.2"), ("six", "fd00::2")]);
        assert_eq!(read.raw["Config"]["Labels"]["a"], "b");
        assert_eq!(read.raw["HostConfig"]["Mounts"][0]["VolumeOptions"]["Subpath"], "sub/dir");
    }

    #[test]
    fn health_intervals() {
        let cases = [
            (json!({}), 0),
            (json!({"Test": ["NONE"], "Interval": 9_000_000_000_i64}), 0),
            (json!({"Test": ["CMD-SHELL", "x"]}), 30),
            (json!({"Test": ["CMD-SHELL", "x"], "Interval": 2_000_000_000}), 2),
            (json!({"Test": ["CMD-SHELL", "x"], "Interval": 0, "StartPeriod": 40_000_000_000_i64}), 5),
            (json!({"Test": ["CMD", "x"], "StartPeriod": 40_000_000_000_i64, "StartInterval": 1_000_000_000}), 1),
            (json!({"Test": ["CMD", "x"], "StartPeriod": 0, "StartInterval": 1_000_000_000}), 30),
        ];
        for (config, expected) in cases {
            let config: HealthConfig = serde_json::from_value(config).unwrap();
            assert_eq!(healthcheck_seconds(&config, (1, 44)), expected, "{config:?}");
        }
        let older = json!({"Test": ["CMD", "x"], "Interval": 20_000_000_000_i64, "StartPeriod": 40_000_000_000_i64});
        assert_eq!(healthcheck_seconds(&serde_json::from_value(older).unwrap(), (1, 43)), 20);
    }

    #[test]
    fn a_32_bit_engine_on_a_64_bit_kernel_is_known() {
        let version = SystemVersion { os: Some("linux".into()), arch: Some("arm".into()), ..SystemVersion::default() };
        let system = SystemInfo { architecture: Some("aarch64".into()), ..SystemInfo::default() };
        assert_eq!(info(version, system, (1, 51)).platform, "linux/arm/v8");
    }

    #[test]
    fn the_store_is_recognized() {
        let status = |pairs: &[[&str; 2]]| pairs.iter().map(|pair| pair.map(String::from).to_vec()).collect::<Vec<_>>();
        assert!(containerd_store(status(&[["driver-type", "io.containerd.snapshotter.v1"]])));
        assert!(!containerd_store(status(&[["Backing Filesystem", "extfs"], ["userxattr", "false"]])));
    }

    #[test]
    fn a_container_of_ours_asks_for_nothing_it_was_not_given() {
        let body =
            create_body(&ContainerSpec { name: "x".into(), image: "sha256:1".into(), ..Default::default() }).unwrap();
        let body = serde_json::to_value(body).unwrap();
        assert_eq!(body["HostConfig"]["NetworkMode"], "none");
        assert_eq!(body["HostConfig"]["RestartPolicy"]["Name"], "no");
        assert_eq!(body["HostConfig"]["Mounts"], json!([]));
        assert_eq!(body["Healthcheck"]["Test"], json!(["NONE"]));
        for absent in ["Cmd", "Entrypoint", "Env", "User", "NetworkingConfig"] {
            assert_eq!(body[absent], json!(null), "{absent}");
        }
    }

    #[test]
    fn mounts_that_cannot_be_asked_for_are_refused() {
        let mount = |kind, name: &str, source: &str| Mount {
            kind,
            name: name.into(),
            source: source.into(),
            destination: "/d".into(),
            writable: true,
            subpath: String::new(),
        };
        let cases = [
            (mount(MountKind::Volume, "", "/v"), "volume without a name"),
            (mount(MountKind::Bind, "", ""), "bind without a source"),
            (mount(MountKind::Other, "", "/x"), "neither volume"),
        ];
        for (mount, expected) in cases {
            let error = mount_request(&mount, "c").unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("/d"), "{error}");
        }
    }
}
