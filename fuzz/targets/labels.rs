//! A container's Compose labels, one a line in the order of [`LABELS`]; what follows is a Compose file.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use processgit_updater::engine::label;
use processgit_updater::helper::paths;
use processgit_updater::update::survey::labels::{Named, project};

const LABELS: [&str; 5] =
    [label::PROJECT, label::SERVICE, label::WORKING_DIR, label::CONFIG_FILES, label::ENVIRONMENT_FILE];

/// Never mounted into a helper: it would not find itself any more.
const SYSTEM: [&str; 8] = ["/", "/bin", "/etc", "/lib", "/proc", "/sys", "/usr", "/var/lib"];

/// Whatever stands in the labels, a helper sees folders of the host that are no system folders, each at its own
/// path.
pub fn fuzz(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.splitn(LABELS.len() + 1, '\n');
    let given = LABELS.iter().zip(lines.by_ref().take(LABELS.len()));
    let labels: BTreeMap<String, String> =
        given.filter(|(_, value)| *value != "-").map(|(name, value)| ((*name).to_owned(), value.to_owned())).collect();
    let named = Named { version_key: "APP_VERSION", ..Named::default() };
    let project = match project("shop-app", &labels, named) {
        Ok(project) => project,
        Err(error) => return assert!(error.what.contains("has no label"), "{error}"),
    };
    assert!(project.config_files.iter().chain(&project.env_files).all(|file| !file.is_empty()));
    let more = paths::env_files_in(lines.next().unwrap_or_default(), &project.working_dir);
    let Ok(mounts) = paths::of_project(&project, &more) else { return };
    assert!(!mounts.is_empty());
    for mount in &mounts {
        let path = Path::new(&mount.destination);
        assert_eq!(mount.source, mount.destination, "a path that is not true");
        assert!(path.is_absolute(), "{path:?} is nowhere");
        assert!(!path.components().any(|part| part == Component::ParentDir), "{path:?} is somewhere else");
        assert!(!SYSTEM.iter().any(|system| Path::new(system) == path), "{path:?} hides the helper itself");
    }
    let complaint = format!("open {}: no such file or directory", project.working_dir);
    assert!(paths::named_in(&complaint).iter().all(|path| paths::can_be_shown(path)));
}
