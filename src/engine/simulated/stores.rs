//! Data beside the application: services that hold data of their own, in volumes of their own.

use std::time::Duration;

use jiff::Timestamp;

use super::World;
use crate::engine::{Container, Mount, MountKind, RunState, label};
use crate::update::ports::{DataError, DataMount};

impl World {
    /// A database that the application needs, which has been started, and takes so long until it is ready.
    pub fn add_store(&mut self, service: &str, takes: Duration, now: Timestamp) {
        let mut container = self.containers[0].clone();
        container.id = format!("{:064x}", self.serial());
        container.name = self.name_of(service);
        container.image_ref = format!("docker.io/library/{service}:1");
        container.image_id = format!("sha256:{}", blake3::hash(service.as_bytes()).to_hex());
        container.labels.insert(label::SERVICE.to_owned(), service.to_owned());
        container.started_at = now.checked_sub(jiff::SignedDuration::from_hours(1)).ok();
        container.mounts = vec![Mount {
            kind: MountKind::Volume,
            name: service.to_owned(),
            source: format!("/simulated/volumes/{service}"),
            destination: "/var/lib/store".into(),
            writable: true,
            subpath: String::new(),
        }];
        self.containers.push(container);
        self.needs.insert(service.to_owned(), takes);
        self.stores.insert(service.to_owned(), self.data.clone());
    }

    /// Another version, or a migration, writes to all of them.
    pub(super) fn change_stores(&mut self, what: &str) {
        self.stores.values_mut().for_each(|store| store.push_str(what));
    }

    /// The copied ones become part of a snapshot.
    pub(super) fn keep_stores(&mut self, snapshot: &str, mounts: &[DataMount]) {
        let kept = self.stores.iter().filter(|(service, _)| is_of(service, mounts));
        let kept = kept.map(|(service, data)| (service.clone(), data.clone())).collect();
        self.kept_stores.insert(snapshot.to_owned(), kept);
    }

    /// As far as the snapshot has them.
    pub(super) fn load_stores(&mut self, snapshot: &str, mounts: &[DataMount]) {
        let kept = self.kept_stores.get(snapshot).cloned().unwrap_or_default();
        self.stores.extend(kept.into_iter().filter(|(service, _)| is_of(service, mounts)));
    }

    /// Whoever runs with the data mounted writes to it: no copy made meanwhile is one.
    pub(super) fn require_nobody_writes(&self, mounts: &[DataMount]) -> Result<(), DataError> {
        let is_copied = |m: &Mount| m.writable && mounts.iter().any(|copied| copied.mount.source == m.source);
        let writes = |c: &&Container| c.state == RunState::Running && c.mounts.iter().any(is_copied);
        match self.containers.iter().find(writes) {
            Some(c) => Err(DataError::Changed(format!("{} runs, and writes to the data", c.name))),
            None => Ok(()),
        }
    }
}

fn is_of(service: &str, mounts: &[DataMount]) -> bool {
    mounts.iter().any(|copied| copied.mount.source == format!("/simulated/volumes/{service}"))
}
