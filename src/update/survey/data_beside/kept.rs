//! What a container keeps beside the application's own data, if it keeps anything.

use std::path::Path;

use super::super::data::{OF_THE_SYSTEM, is_data, is_socket, overlaps};
use super::super::hosts::Nature;
use super::Holds;
use crate::engine::{Container, Mount, MountKind};

/// Where the images of databases keep their data.
pub const DATABASE_FOLDERS: [&str; 16] = [
    "/var/lib/postgresql",
    "/var/lib/mysql",
    "/var/lib/mariadb",
    "/data/db",
    "/bitnami",
    "/var/opt/mssql",
    "/opt/oracle/oradata",
    "/var/lib/clickhouse",
    "/var/lib/cassandra",
    "/var/lib/scylla",
    "/opt/couchdb/data",
    "/var/lib/influxdb",
    "/var/lib/neo4j",
    "/usr/share/elasticsearch/data",
    "/usr/share/opensearch/data",
    "/var/lib/rabbitmq",
];

/// Whatever is there may go.
const TEMPORARY: [&str; 7] = ["/tmp", "/var/tmp", "/run", "/var/run", "/var/log", "/var/cache", "/dev"];
/// What is mounted from the host to there is read, whatever the mount allows.
const CONFIGURATION: [&str; 4] = ["/etc", "/usr/local/etc", "/docker-entrypoint-initdb.d", "/config.d"];
/// A file of the host with such an end is configuration.
const CONFIGURATION_FILES: [&str; 21] = [
    ".conf",
    ".cnf",
    ".cfg",
    ".ini",
    ".yml",
    ".yaml",
    ".toml",
    ".json",
    ".xml",
    ".properties",
    ".env",
    ".sh",
    ".sql",
    ".acl",
    ".pem",
    ".crt",
    ".cert",
    ".key",
    ".hcl",
    ".lua",
    ".tmpl",
];
/// Names of images that are caches.
const CACHE_IMAGES: [&str; 5] = ["redis", "valkey", "memcached", "keydb", "dragonfly"];

/// What the container keeps beside the application's own data, if it keeps anything.
pub fn holds(c: &Container, own: &[Mount], nature: Option<Nature>) -> Option<Holds> {
    let writable = c.mounts.iter().filter(|m| is_content(m) && is_data(m) && !overlaps(m, own));
    let is_cache = match nature {
        Some(nature) if nature > Nature::Web => nature == Nature::Cache,
        _ => is_cache_image(&c.image_ref),
    };
    let kept: Vec<String> = writable.filter(|m| !is_cache || !is_anonymous(m)).map(shown_mount).collect();
    if !kept.is_empty() {
        return Some(Holds::Mounts(kept));
    }
    let host = &c.raw["HostConfig"];
    let has_memory = host["Tmpfs"].as_object().is_some_and(|mounts| mounts.keys().any(|path| is_lasting(path)));
    let is_read_only = host["ReadonlyRootfs"].as_bool() == Some(true);
    // A read-only volume, or one in memory, or one that the application has too.
    let has_place = has_memory || c.mounts.iter().any(is_content);
    (!has_place && !is_read_only && !is_cache).then_some(Holds::Container)
}

/// Something is kept there.
fn is_content(mount: &Mount) -> bool {
    let is_below = |folders: &[&str], path: &str| folders.iter().any(|folder| Path::new(path).starts_with(folder));
    let is_configuration = mount.kind == MountKind::Bind
        && (is_below(&OF_THE_SYSTEM, &mount.source)
            || is_below(&CONFIGURATION, &mount.destination)
            || CONFIGURATION_FILES.iter().any(|end| mount.destination.ends_with(end)));
    is_lasting(&mount.destination) && !is_configuration && !is_socket(mount)
}

fn is_lasting(path: &str) -> bool {
    !TEMPORARY.iter().any(|folder| Path::new(path).starts_with(folder))
}

fn is_anonymous(mount: &Mount) -> bool {
    mount.kind == MountKind::Volume && mount.name.len() == 64 && mount.name.bytes().all(|b| b.is_ascii_hexdigit())
}

fn is_cache_image(reference: &str) -> bool {
    let name = reference.split('@').next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
    CACHE_IMAGES.iter().any(|cache| name.starts_with(cache))
}

fn shown_mount(mount: &Mount) -> String {
    match mount.kind {
        MountKind::Volume if is_anonymous(mount) => format!("an unnamed volume at {}", mount.destination),
        MountKind::Volume => format!("volume {}", mount.name),
        _ => format!("folder {}", mount.source),
    }
}
