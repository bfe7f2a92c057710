//! Which data is copied, who else writes to it, and the operator's hooks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::named::{means, service_in};
use super::{Deployment, Refused, compose, data_services};
use crate::engine::{ComposeConfig, Container, Healthcheck, Mount, MountKind};
use crate::update::one_shot::{self, Around, OneShot};
use crate::update::plan::{Companion, DataPlan, Hooks, Root, StartOrder, Until, Wait};
use crate::update::ports::{DataMount, HookSetting, Look, Options, Ports, SeenBy};
use crate::update::refusal::{Code, Refusal};

/// The engine's socket is no data.
pub fn is_socket(mount: &Mount) -> bool {
    one_shot::is_socket(&mount.source)
}

/// Which data there is. Room and rights are checked here, before anything is stopped.
pub async fn data_plan(ports: &Ports, options: &Options, deployment: &Deployment) -> Result<DataPlan, Refused> {
    let plan = looked_at(ports, options, deployment).await?;
    if plan.is_copied() {
        ports.data.preflight(&plan.sources()).await?;
    }
    Ok(plan)
}

/// Every writable mount of what is moved is copied, with the file systems below it that the application sees, but
/// what the operator leaves out; or none, where snapshots are off. What is found at each root is noted.
pub async fn looked_at(ports: &Ports, options: &Options, deployment: &Deployment) -> Result<DataPlan, Refused> {
    let mut plan = mounts(ports, options, deployment);
    let mut unseen = plan.copied.clone();
    while !unseen.is_empty() {
        let asked: Vec<Look> = unseen.iter().map(|mount| asked(mount, deployment)).collect();
        let looked = ports.data.look(&asked).await?;
        let mut nested = Vec::new();
        for (mount, found) in unseen.iter().zip(looked) {
            if found.root.mounted_on_use && !found.nested.is_empty() {
                return Err(Refused::because(
                    Code::MountsBelow,
                    format!(
                        "other file systems are mounted below {} ({}), which is the volume {}: give each of them a volume of its own",
                        mount.destination,
                        found.nested.join(", "),
                        mount.name
                    ),
                ));
            }
            nested.extend(found.nested.iter().map(|path| below(mount, path)));
            // A store that does not look has nothing to note.
            if found.root != Root::default() {
                plan.roots.insert(mount.destination.clone(), found.root);
            }
        }
        // Each answer has all that is below, at any depth.
        nested.retain(|mount| {
            plan.copied.iter().chain(&plan.uncovered).all(|known| known.host_path() != mount.host_path())
        });
        let (left_out, copied) = nested.into_iter().partition(|mount| is_excluded(options, &mount.destination));
        plan.uncovered.extend::<Vec<Mount>>(left_out);
        plan.copied.extend_from_slice(&copied);
        unseen = copied;
    }
    Ok(plan)
}

/// What is mounted at `path` below a mount, as a mount of its own.
fn below(mount: &Mount, path: &str) -> Mount {
    Mount {
        kind: MountKind::Bind,
        name: String::new(),
        source: mount.host_path().join(path).display().to_string(),
        destination: format!("{}/{path}", mount.destination.trim_end_matches('/')),
        writable: true,
        subpath: String::new(),
    }
}

/// With the container that sees it as its witness.
fn asked(mount: &Mount, deployment: &Deployment) -> Look {
    let named = mount.destination.split_once(':').filter(|_| !mount.destination.starts_with('/'));
    let (service, path) = named.unwrap_or((deployment.project.service.as_str(), &mount.destination));
    let container = deployment.with_data().find(|(name, _)| *name == service).map(|(_, container)| container);
    let seen_by = container.filter(|c| c.is_running()).map(|c| SeenBy {
        name: c.name.clone(),
        container_id: c.id.clone(),
        pid: c.raw["State"]["Pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).unwrap_or_default(),
        path: path.to_owned(),
        beside: c.mounts.iter().map(|m| m.destination.clone()).filter(|other| is_inside(other, path)).collect(),
    });
    Look { source: DataMount::new(mount.clone()), seen_by }
}

fn is_inside(path: &str, folder: &str) -> bool {
    Path::new(path).strip_prefix(folder).is_ok_and(|rest| !rest.as_os_str().is_empty())
}

fn is_excluded(options: &Options, destination: &str) -> bool {
    options.snapshot_exclude.iter().any(|e| Path::new(destination) == Path::new(e))
}

/// As [`looked_at`], as far as it is known without a look at the data.
pub fn mounts(ports: &Ports, options: &Options, deployment: &Deployment) -> DataPlan {
    let holds = |m: &Mount| options.data_in.as_ref().is_none_or(|path| Path::new(path).starts_with(&m.destination));
    let (mut copied, mut uncovered) = (Vec::new(), Vec::new());
    for (service, container) in deployment.with_data() {
        for mount in container.mounts.iter().filter(|m| is_data(m) && holds(m)) {
            let list = if ports.data.off().is_some() || is_excluded(options, &mount.destination) {
                &mut uncovered
            } else {
                &mut copied
            };
            if !list.iter().any(|known| covers(known, mount)) {
                list.push(mount_of(service, mount, deployment));
            }
        }
    }
    let why = ports.data.off().unwrap_or_else(|| "PROCESSGIT_UPDATER_SNAPSHOT_EXCLUDE leaves it out".into());
    DataPlan { copied, uncovered, why, roots: BTreeMap::new() }
}

pub fn is_data(mount: &Mount) -> bool {
    mount.writable && matches!(mount.kind, MountKind::Volume | MountKind::Bind) && !is_socket(mount)
}

/// The other is the same, or in it.
fn covers(mount: &Mount, other: &Mount) -> bool {
    other.host_path().starts_with(mount.host_path())
}

/// As [`DataPlan`] has it: copies are known by the paths at which the application sees them, and another
/// service may see something else there.
fn mount_of(service: &str, mount: &Mount, deployment: &Deployment) -> Mount {
    let is_own = service == deployment.project.service;
    let destination = if is_own { String::new() } else { format!("{service}:") } + &mount.destination;
    Mount { destination, ..mount.clone() }
}

/// Containers that are stopped with the application, in the order in which they are started: those that
/// write to the same data, those that the operator names, and those of the crew that live in its namespaces. Writers
/// that the operator did not name are a reason to refuse, because the copy would not be consistent.
///
/// `data`: `None` where it is neither copied nor migrated. Then nobody is stopped but for somebody's name.
pub fn companions<'a>(
    options: &Options,
    deployment: &'a Deployment,
    data: Option<&DataPlan>,
    config: &ComposeConfig,
) -> Result<Vec<Companion>, Refused> {
    // What is left out is nobody's business; but where nothing is copied, a migration still writes.
    let written = data.map_or(&[][..], |data| if data.is_copied() { &data.copied } else { &data.uncovered });
    let is_wanted = |c: &Container| options.stop_services.iter().any(|name| means(name, c, &deployment.project));
    let holds_data = |c: &Container| deployment.data_services.iter().any(|service| service.container.id == c.id);
    let stops = |c: &&Container| {
        // A helper of ours writes only when it is told to.
        let is_ours = options.is_ours(c) || options.is_for_one_command(c, &deployment.project);
        let concerned = c.mounts.iter().any(|m| overlaps(m, written)) || compose::host_of(c, deployment).is_some();
        let is_held = data.is_some() && holds_data(c);
        let is_other = c.id != deployment.container.id && !is_ours;
        is_other && (is_held || (c.is_alive() && (concerned || is_wanted(c))))
    };
    let service = |c: &'a Container| service_in(&deployment.project, c);
    let is_named = |c: &&'a Container| deployment.moves(c) || holds_data(c) || is_wanted(c);
    let (mut named, others): (Vec<&Container>, Vec<&Container>) =
        deployment.containers.iter().filter(stops).partition(is_named);
    if data.is_none() && !named.iter().any(|c| is_wanted(c)) {
        return Ok(Vec::new());
    }
    if !others.is_empty() {
        return Err(writers(options, &others, written).into());
    }
    let order = StartOrder::new(config, &deployment.project.service);
    let needs_the_application = |c: &'a Container| {
        let needed = service(c).map(|own| config.needed_by(own)).unwrap_or_default();
        deployment.project.moved().any(|other| needed.contains(other))
    };
    let companion = |c: &'a Container| Companion {
        container_id: c.id.clone(),
        name: c.name.clone(),
        service: service(c).map(str::to_owned),
        restart_policy: c.restart_policy.clone(),
        needed: order.comes_before_the_first(service(c)) || (holds_data(c) && !needs_the_application(c)),
        holds_data: holds_data(c),
    };
    named.sort_by_key(|c| order.place(service(c)));
    Ok(named.into_iter().map(companion).collect())
}

/// Folders that belong to the host's system: what is mounted from there is hardly ever an application's data.
pub const OF_THE_SYSTEM: [&str; 9] = ["/etc", "/usr", "/lib", "/bin", "/sbin", "/dev", "/proc", "/sys", "/run"];

/// Nobody has named them: each with the paths that it shares.
fn writers(options: &Options, others: &[&Container], written: &[Mount]) -> Refusal {
    let mut shared: Vec<&Mount> = Vec::new();
    let mut shown = Vec::new();
    for container in others {
        let mut paths = Vec::new();
        for mount in container.mounts.iter().filter(|mount| overlaps(mount, written)) {
            paths.push(format!("{} at {}", mount.host_path().display(), mount.destination));
            let of_application = written.iter().filter(|w| overlaps(mount, std::slice::from_ref(*w)));
            shared.extend(of_application);
        }
        shown.push(match paths.is_empty() {
            true => container.name.clone(),
            false => format!("{} ({})", container.name, paths.join(", ")),
        });
    }
    let what = format!(
        "these containers write to the application's data too, which must not change meanwhile: {}",
        shown.join(", ")
    );
    let is_of_system = |mount: &&Mount| {
        let path = mount.host_path();
        mount.kind == MountKind::Bind && OF_THE_SYSTEM.iter().any(|folder| path.starts_with(folder))
    };
    let joined = |had: &[String], more: Vec<String>| {
        let mut all = had.to_vec();
        all.extend(more.into_iter().filter(|one| !had.contains(one)));
        all.dedup();
        crate::command::word(&all.join(","))
    };
    if !shared.is_empty() && shared.iter().all(is_of_system) {
        let excluded = shared.iter().map(|mount| mount.destination.clone()).collect();
        let excluded = joined(&options.snapshot_exclude, excluded);
        return Refusal::new(Code::Writers, what).text(format!(
            "mount it read-only in the Compose file (`:ro`), because nobody has to write there; or set PROCESSGIT_UPDATER_SNAPSHOT_EXCLUDE={excluded}"
        ));
    }
    let stopped = joined(&options.stop_services, others.iter().map(|c| c.name.clone()).collect());
    let what = format!(
        "{what}. Where one of them only reads, mount it read-only there (`:ro`); what needs no copy is left out by PROCESSGIT_UPDATER_SNAPSHOT_EXCLUDE"
    );
    Refusal::new(Code::Writers, what).setting(format!("PROCESSGIT_UPDATER_STOP_SERVICES={stopped}"))
}

/// Who waits for whom among all that is stopped and started, as `depends_on` says it: what the application needs must
/// be as ready as it was, or it would crash. What is moved needs the services that hold its data, whether it says so
/// or not.
pub fn waits(deployment: &Deployment, companions: &[Companion], config: &ComposeConfig) -> Vec<Wait> {
    let moved = || deployment.moved().map(|(service, container, _)| (service, container, false));
    let stopped = companions.iter().filter_map(|companion| {
        let container = deployment.containers.iter().find(|c| c.id == companion.container_id)?;
        Some((companion.handle(), container, companion.needed))
    });
    let all: Vec<(&str, &Container, bool)> = moved().chain(stopped).collect();
    let names: BTreeSet<&str> = all.iter().map(|(name, ..)| *name).collect();
    let mut waits = Vec::new();
    for service in names {
        let depends_on = config.service(service).into_iter().flat_map(|service| &service.depends_on);
        for (on, dependency) in depends_on {
            let Some((_, container, needed)) = all.iter().find(|(other, ..)| other == on) else { continue };
            let wait = |until| Wait {
                service: service.to_owned(),
                on: on.clone(),
                until,
                required: dependency.required.unwrap_or(true),
            };
            let data_service = deployment.data_services.iter().find(|known| known.container.id == container.id);
            // Compose's own business: the job does not start what had ended.
            if !container.is_alive() && data_service.is_none() {
                continue;
            }
            let was_well = matches!(container.healthcheck, Healthcheck::Healthy | Healthcheck::Starting);
            waits.push(wait(match (dependency.condition.as_deref(), data_service) {
                (_, Some(data_service)) => data_services::until(data_service),
                (Some("service_completed_successfully"), _) => Until::Completed,
                _ if *needed && was_well => Until::Healthy,
                (Some("service_healthy"), _) if !needed && container.healthcheck != Healthcheck::None => Until::Healthy,
                _ => Until::Started,
            }));
        }
    }
    let of_data = companions.iter().filter(|companion| companion.holds_data && companion.needed);
    for (companion, service) in of_data.flat_map(|c| deployment.project.moved().map(move |service| (c, service))) {
        let is_known = |wait: &Wait| wait.service == service && wait.on == companion.handle();
        let held = deployment.data_services.iter().find(|known| known.container.id == companion.container_id);
        if let Some(held) = held.filter(|_| !waits.iter().any(is_known)) {
            let (service, on) = (service.to_owned(), companion.handle().to_owned());
            waits.push(Wait { service, on, until: data_services::until(held), required: true });
        }
    }
    waits
}

/// A writable mount of the same volume, or of a folder in, at or above one of them.
pub fn overlaps(mount: &Mount, copied: &[Mount]) -> bool {
    let path = Path::new(&mount.source);
    mount.writable
        && !is_socket(mount)
        && copied.iter().any(|c| {
            let same_volume = !mount.name.is_empty() && mount.name == c.name;
            let nested =
                !mount.source.is_empty() && (path.starts_with(&c.source) || Path::new(&c.source).starts_with(path));
            same_volume || nested
        })
}

/// The hooks that are set, each in the surroundings of the service it names.
pub fn hooks(options: &Options, config: &ComposeConfig, deployment: &Deployment) -> Result<Hooks, Refused> {
    let one = |setting: &Option<HookSetting>| match setting {
        Some(setting) => hook(setting, config, deployment).map(Some),
        None => Ok(None),
    };
    Ok(Hooks { before_copy: one(&options.hook_before_copy)?, after_restore: one(&options.hook_after_restore)? })
}

/// The service's own mounts, and the application's data beside them, so that a dump finds a place that
/// is copied.
fn hook(setting: &HookSetting, config: &ComposeConfig, deployment: &Deployment) -> Result<OneShot, Refused> {
    let Some(container) = deployment.of_service(&setting.service).next() else {
        let what = format!(
            "the hook {:?} is to run in the surroundings of service {}, which has no container",
            setting.text(),
            setting.service
        );
        let start = format!("docker compose up -d {}", shell_words::quote(&setting.service));
        return Err(Refusal::new(Code::ServiceMissing, what).command(start).into());
    };
    let around = Around {
        container,
        beside: &deployment.container.mounts,
        of_services: deployment.of_services(config),
        is_alone: container.id == deployment.container.id,
    };
    let Some((config, lacks)) = one_shot::derived(config, &setting.service, &around) else {
        let what = format!(
            "the hook {:?} is to run in the surroundings of service {}, which the Compose files do not have",
            setting.text(),
            setting.service
        );
        return Err(Refusal::new(Code::ServiceMissing, what).text("name another service").into());
    };
    Ok(OneShot { image: Some(container.image_id.clone()), command: setting.command.clone(), config, lacks })
}
