//! Which container this process runs in, if it does, and what is mounted there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::OnceCell;

use crate::engine::{Container, Engine, EngineError, Mount, MountKind};

/// Digits of a container's id.
const ID_LENGTH: usize = 64;

/// Finds the own container when it is first asked for, because the engine may not be there yet.
pub struct Own {
    engine: Arc<dyn Engine>,
    id: Option<String>,
    found: OnceCell<Option<Arc<OwnContainer>>>,
}

impl Own {
    /// `id` is what [`container_id`] said at the start.
    pub fn new(engine: Arc<dyn Engine>, id: Option<String>) -> Self {
        Self { engine, id, found: OnceCell::new() }
    }

    /// `None`: this process runs on the host, or in a container of another engine.
    ///
    /// # Errors
    /// The engine cannot be asked.
    pub async fn container(&self) -> Result<Option<Arc<OwnContainer>>, EngineError> {
        let find = || async {
            let Some(id) = &self.id else { return Ok(None) };
            let container = self.engine.container(id).await?;
            Ok(container.map(|container| Arc::new(OwnContainer { container })))
        };
        self.found.get_or_try_init(find).await.cloned()
    }
}

/// The container of this process.
#[derive(Debug, Clone)]
pub struct OwnContainer {
    pub container: Container,
}

/// Where a path of this container is on the engine's host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnHost {
    pub path: PathBuf,
    /// The mount is this very path, perhaps a single file: it may hold an inode that the host has replaced.
    pub is_mount: bool,
}

impl OwnContainer {
    /// The mount in which `path` lies: the innermost one.
    pub fn mount_of(&self, path: &Path) -> Option<&Mount> {
        let mounts = self.container.mounts.iter().filter(|m| path.starts_with(&m.destination));
        mounts.max_by_key(|m| Path::new(&m.destination).components().count())
    }

    /// The host's path of a path in this container; `None` where it belongs to the container alone.
    pub fn on_host(&self, path: &Path) -> Option<OnHost> {
        let mount = self.mount_of(path).filter(|m| matches!(m.kind, MountKind::Bind | MountKind::Volume))?;
        let within = path.strip_prefix(&mount.destination).ok()?;
        let is_mount = within.as_os_str().is_empty();
        let source = Path::new(&mount.source);
        Some(OnHost { path: if is_mount { source.to_owned() } else { source.join(within) }, is_mount })
    }

    /// Options such as `label=disable`, without which the engine's socket may be out of reach, and
    /// `no-new-privileges`, which costs nothing.
    pub fn security_options(&self) -> Vec<String> {
        let own = self.container.raw["HostConfig"]["SecurityOpt"].as_array().into_iter().flatten();
        let mut options: Vec<String> = own.filter_map(|option| option.as_str().map(str::to_owned)).collect();
        if !options.iter().any(|option| option.starts_with("no-new-privileges")) {
            options.push("no-new-privileges".into());
        }
        options
    }
}

/// The id of the container this process runs in. The engine mounts three files of its own folder for the
/// container (`/etc/hostname` and two more), whatever host name and network it was given; where it does
/// not, the control group's name has the id, and failing that the host name its beginning.
pub fn container_id() -> Option<String> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    id_in_mounts(&read("/proc/self/mountinfo"))
        .or_else(|| id_in_cgroup(&read("/proc/self/cgroup")))
        .or_else(|| id_in_host_name(&read("/etc/hostname")))
}

/// Field 4 of a line is the path on its file system, field 5 where it is mounted (proc(5)).
fn id_in_mounts(mountinfo: &str) -> Option<String> {
    let of_container = |line: &str| {
        let mut fields = line.split(' ').skip(3);
        let (root, target) = (fields.next()?, fields.next()?);
        let ours = ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"].contains(&target);
        let (_, after) = root.split_once("containers/").filter(|_| ours)?;
        leading_id(after)
    };
    mountinfo.lines().find_map(of_container)
}

/// Files that are mounted one by one and that the host has replaced since, as an editor does: what is seen
/// here is no longer what the host has.
pub fn orphans() -> Vec<PathBuf> {
    orphans_in(&std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
}

/// The kernel says of a root that nothing leads to any more that it is deleted.
fn orphans_in(mountinfo: &str) -> Vec<PathBuf> {
    let orphan = |line: &str| {
        let mut fields = line.split(' ').skip(3);
        let (root, target) = (fields.next()?, fields.next()?);
        root.ends_with("//deleted").then(|| PathBuf::from(target))
    };
    mountinfo.lines().filter_map(orphan).collect()
}

/// `…/docker/<id>` or `…/docker-<id>.scope`.
fn id_in_cgroup(cgroup: &str) -> Option<String> {
    let last = |line: &str| line.rsplit(['/', '-']).next().and_then(leading_id);
    cgroup.lines().find_map(last)
}

fn id_in_host_name(name: &str) -> Option<String> {
    let name = name.trim();
    let is_id = name.len() == 12 && name.bytes().all(is_digit);
    is_id.then(|| name.to_owned())
}

fn leading_id(text: &str) -> Option<String> {
    let digits = text.bytes().take_while(|b| is_digit(*b)).count();
    (digits == ID_LENGTH).then(|| text[..ID_LENGTH].to_owned())
}

fn is_digit(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f2a9c0b1d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8";

    #[test]
    fn the_id_is_found_where_the_engine_leaves_it() {
        let mount = |root: &str, at: &str| format!("612 590 254:1 {root} {at} rw,relatime - ext4 /dev/vda rw\n");
        let rows = [
            (mount(&format!("/var/lib/docker/containers/{ID}/hostname"), "/etc/hostname"), Some(ID)),
            (mount(&format!("/docker/containers/{ID}/resolv.conf"), "/etc/resolv.conf"), Some(ID)),
            (mount(&format!("/x/overlay-containers/{ID}/userdata/hosts"), "/etc/hosts"), Some(ID)),
            // Another container's folder, mounted for a reason of its own.
            (mount(&format!("/var/lib/docker/containers/{ID}"), "/logs"), None),
            (mount("/var/lib/docker/containers/3f2a9c0b1d4e/hostname", "/etc/hostname"), None),
            (String::new(), None),
        ];
        for (text, id) in rows {
            assert_eq!(id_in_mounts(&text).as_deref(), id, "{text}");
        }
        for (text, id) in [
            (format!("0::/system.slice/docker-{ID}.scope\n"), Some(ID)),
            (format!("12:pids:/docker/{ID}\n"), Some(ID)),
            ("0::/\n".to_owned(), None),
            ("0::/user.slice/user-1000.slice\n".to_owned(), None),
        ] {
            assert_eq!(id_in_cgroup(&text).as_deref(), id, "{text}");
        }
        for (name, id) in [
            ("3f2a9c0b1d4e\n", Some("3f2a9c0b1d4e")),
            ("updater\n", None),
            ("3F2A9C0B1D4E", None),
            ("3f2a9c0b1d4", None),
            ("3f2a9c0b1d4e5", None),
            ("", None),
        ] {
            assert_eq!(id_in_host_name(name).as_deref(), id, "{name:?}");
        }
    }

    #[test]
    fn a_file_that_the_host_has_replaced() {
        let line = |root: &str, at: &str| format!("612 590 254:1 {root} {at} rw,relatime - ext4 /dev/vda rw\n");
        let text = line("/srv/app/.env//deleted", "/deploy/.env") + &line("/srv/app/a.yml", "/deploy/a.yml");
        assert_eq!(orphans_in(&text), [PathBuf::from("/deploy/.env")]);
    }

    #[test]
    fn paths_on_the_host() {
        let own = OwnContainer { container: container(&[("/srv/app", "/deploy"), ("/etc/app.env", "/deploy/.env")]) };
        for (path, host, is_mount) in [
            ("/deploy/docker-compose.yml", Some("/srv/app/docker-compose.yml"), false),
            ("/deploy", Some("/srv/app"), true),
            ("/deploy/.env", Some("/etc/app.env"), true),
            ("/deployed/.env", None, false),
            ("/tmp/x", None, false),
        ] {
            let found = own.on_host(Path::new(path));
            assert_eq!(found, host.map(|p| OnHost { path: p.into(), is_mount }), "{path}");
        }
    }

    #[test]
    fn a_container_that_would_not_outlive_a_death_is_told() {
        use crate::helper::place::outlives_its_process;
        let mut own = OwnContainer { container: container(&[("/srv/state", "/state")]) };
        let refused = outlives_its_process(&own, Path::new("/elsewhere")).unwrap_err().to_string();
        assert!(refused.starts_with("the state folder /elsewhere") && refused.contains("is no mount"), "{refused}");
        let warned = outlives_its_process(&own, Path::new("/state/updater")).unwrap().concat();
        assert!(warned.contains("updater has restart policy `no`"), "{warned}");
        own.container.restart_policy = crate::engine::RestartPolicy::unless_stopped();
        assert_eq!(outlives_its_process(&own, Path::new("/state")).unwrap(), [""; 0]);
    }

    fn container(binds: &[(&str, &str)]) -> Container {
        let mount = |(source, destination): &(&str, &str)| Mount {
            kind: MountKind::Bind,
            name: String::new(),
            source: (*source).into(),
            destination: (*destination).into(),
            writable: true,
            subpath: String::new(),
        };
        Container {
            id: ID.into(),
            name: "updater".into(),
            image_ref: String::new(),
            image_id: String::new(),
            state: crate::engine::RunState::Running,
            exit_code: 0,
            started_at: None,
            created_at: None,
            restart_count: 0,
            healthcheck: crate::engine::Healthcheck::None,
            healthcheck_seconds: 0,
            restart_policy: crate::engine::RestartPolicy::never(),
            labels: Default::default(),
            mounts: binds.iter().map(mount).collect(),
            networks: Default::default(),
            network_mode: "bridge".into(),
            raw: serde_json::Value::Null,
        }
    }
}
