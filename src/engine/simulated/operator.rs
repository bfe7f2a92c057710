//! What people, and the machine, do to the world while an updater works on it.

use jiff::Timestamp;

use super::World;
use super::compose::{OWN_FILE, is_edited};
use crate::engine::{Container, RestartPolicy, RunState, label};

/// The name of a container that nobody has planned with.
pub const STRANGER: &str = "stranger";

impl World {
    /// The application was started from `.env` as it is: its image has the tag that the file selects.
    pub fn runs_what_env_selects(&mut self) {
        let reference = self.reference(None);
        let application = &mut self.containers[0];
        let former = std::mem::replace(&mut application.image_ref, reference.clone());
        if let Some(image) = self.tags.remove(&former) {
            self.tags.insert(reference, image);
        }
    }

    /// `docker run -v DATA:/data …`: a container that nobody has planned with writes to the application's data, and
    /// goes on or has ended.
    pub fn run_stranger(&mut self, goes_on: bool, now: Timestamp) {
        let Some(application) = self.container_of(&self.seed.service).cloned() else { return };
        let (id, name) = (format!("{:064x}", self.serial()), STRANGER.to_owned());
        let state = if goes_on { RunState::Running } else { RunState::Exited };
        let labels = Default::default();
        let policy = RestartPolicy::never();
        self.containers.push(Container {
            id,
            name,
            state,
            labels,
            started_at: Some(now),
            restart_policy: policy,
            network_mode: "none".into(),
            image_id: "sha256:stranger".into(),
            image_ref: STRANGER.into(),
            ..application
        });
    }

    /// `docker compose up -d`, as `.env` is now; interrupted after so many of its steps. `force`: as with
    /// `--force-recreate`, or after an edit of the Compose file.
    pub fn compose_up(&mut self, force: bool, steps: usize, now: Timestamp) {
        self.by_hand = true;
        let _ = self.some_steps(force, steps, now);
        self.by_hand = false;
    }

    /// `None` where it breaks off.
    fn some_steps(&mut self, force: bool, steps: usize, now: Timestamp) -> Option<()> {
        let mut left = steps;
        let mut step = move || {
            left = left.checked_sub(1)?;
            Some(())
        };
        let reference = self.reference(None);
        // It would pull what is not there; the simulated registry gives nothing to strangers.
        let image = self.resolve(&reference)?;
        let mut started = Vec::new();
        for service in self.in_order() {
            let is_current = |c: &Container| self.is_current(c, &reference) && is_edited(c) == self.edited;
            let old = self.container_of(&service).map(|c| (c.id.clone(), is_current(c)));
            let old = match old {
                Some((id, true)) if !force => {
                    started.push(id);
                    continue;
                }
                other => other.map(|(id, _)| id),
            };
            step()?;
            let id = self.create_beside(&service, &reference, &image, old.as_deref()).ok()?;
            self.mark(&id, self.edited, OWN_FILE);
            if let Some(old) = &old {
                step()?;
                self.stop_container(old);
                step()?;
                self.containers.retain(|c| c.id != *old);
                step()?;
                self.rename_container(&id, &self.name_of(&service)).ok()?;
            }
            started.push(id);
        }
        for id in started {
            step()?;
            if let Some(at) = self.find(&id).filter(|at| self.can_start(*at)) {
                self.start_at(at, now);
            }
        }
        Some(())
    }

    /// `docker rm -f` of the application's container.
    pub fn remove_application(&mut self) {
        let service = self.seed.service.clone();
        self.containers.retain(|c| c.label(label::SERVICE) != Some(&service));
    }

    /// `docker container prune`: whatever does not run, never started or stopped.
    pub fn prune_containers(&mut self) {
        self.containers.retain(|c| matches!(c.state, RunState::Running | RunState::Restarting));
    }

    /// `docker image prune -a`: whatever no container was made from.
    pub fn prune_images(&mut self) {
        let containers = &self.containers;
        self.images.retain(|id, _| containers.iter().any(|c| c.image_id == *id));
        let images = &self.images;
        self.tags.retain(|_, id| images.contains_key(id));
    }
}
