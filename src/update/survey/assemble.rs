//! The Plan, or every reason why there is none.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::compose::{self, Resolved};
use super::data_beside::{self, Covers, Stakes, Store};
use super::unwell::{self, Unwell};
use super::wish::{Wish, repo_digest};
use super::{Deployment, Mate, Refused, beside, data, data_services, named, sources};
use crate::command::line;
use crate::engine::compose_config::Service;
use crate::engine::{ComposeConfig, Container, EngineError, Healthcheck, Image, Project, Reach};
use crate::envfile;
use crate::reference::is_same;
use crate::update::one_shot::{self, Around, OneShot};
use crate::update::plan::{
    Baseline, Commands, Companion, Configuration, DataPlan, EnvChange, Hooks, Member, Partial, Plan, Previous, Purpose,
    StartOrder, Target, Was,
};
use crate::update::ports::{Options, Ports};
use crate::update::refusal::{Code, Refusal};
use crate::update::running::Running;

/// The manifest's own estimate extends the gate to this at most.
const LONGEST_GATE_SECONDS: u64 = 3600;

/// Makes the Plan for the wish. `refusals` are those that are known already: all are told at once.
pub async fn plan(
    ports: &Ports,
    options: &Options,
    deployment: &Deployment,
    mut wish: Wish,
    mut refusals: Vec<Refusal>,
) -> Result<Plan, Refused> {
    // Side by side: an application that does not answer costs no time beyond that.
    let (resolved, unwell) =
        tokio::join!(compose::resolve(ports, deployment, &wish), unwell::look(ports, &deployment.container));
    let resolved = resolved?;
    if options.health.healthcheck_decides && deployment.container.healthcheck == Healthcheck::None {
        refusals.push(unwell::no_healthcheck(&deployment.container));
    }
    let drift = compose::drift(&resolved, deployment, &wish, &options.others_version_key);
    let drifted = drift.lines();
    // Without another version nothing is made anew, so nothing can differ from what is made.
    if !wish.stays {
        refusals.extend(compose::resolution_refusals(&resolved, deployment, &wish));
        wish.target.spelled = compose::spelled(&resolved, deployment).or(wish.target.spelled);
        refusals.extend(compose::replica_refusals(&resolved, deployment));
        if wish.accept_drift {
            refusals.extend(beside::refusals(&resolved, deployment, true));
        } else {
            refusals.extend(compose::disagreements(drift, &resolved, deployment, &ports.env.path()));
        }
    }
    if !wish.hot_only {
        refusals.extend(compose::namespace_refusals(deployment));
        let own = options.own_container.as_deref();
        refusals.extend(named::stop_refusals(&options.stop_services, own, deployment, &resolved.old));
    }
    let unknown = named::Known::of(deployment, &resolved.old).unknown(data_services::SETTING, &options.data_services);
    refusals.extend(unknown.map_or_else(|| deployment.no_data_services.clone(), |refusal| vec![refusal]));
    if !refusals.is_empty() {
        return Err(Refused(refusals));
    }
    let data = data::data_plan(ports, options, deployment).await?;
    if data.copied.is_empty() && wish.purpose != Purpose::Update {
        let what = "the application has no data to copy: no writable mount, or all are left out";
        return Err(Refused::because(Code::NoData, what));
    }
    partial_refusal(&wish, &data)?;
    assemble(ports, options, deployment, wish, Seen { resolved, data, drift: drifted, unwell }).await
}

/// What was found beside the deployment itself.
struct Seen {
    resolved: Resolved,
    data: DataPlan,
    drift: Vec<String>,
    unwell: Option<Unwell>,
}

/// A snapshot that has other mounts than the application is put back as far as it goes, if a person says so.
fn partial_refusal(wish: &Wish, data: &DataPlan) -> Result<(), Refused> {
    let Purpose::Restore { generation } = &wish.purpose else { return Ok(()) };
    let partial = Partial::between(&data.copied, &wish.snapshot_mounts);
    let lines = partial.lines().join("; ");
    if partial.stays.len() == data.copied.len() {
        return Err(Refused::because(
            Code::PartialSnapshot,
            format!(
                "snapshot {generation} has no mount of the application's: {lines}. `snapshot export` gives you what is in it"
            ),
        ));
    }
    if partial.is_empty() || wish.accept_partial {
        return Ok(());
    }
    Err(Refused::because(
        Code::PartialSnapshot,
        format!(
            "snapshot {generation} has other mounts than the application: {lines}. Say `--accept-partial` (`\"accept_partial\": true`) to put back the rest"
        ),
    ))
}

async fn assemble(
    ports: &Ports,
    options: &Options,
    deployment: &Deployment,
    wish: Wish,
    Seen { resolved, data, drift, unwell }: Seen,
) -> Result<Plan, Refused> {
    let (container, project, target) = (&deployment.container, &deployment.project, &wish.target);
    let held = |reference: String| async move { ports.engine.image(&reference).await };
    let (handle, tagged) = tokio::try_join!(held(target.handle()), held(target.reference()))?;
    let old_image = resolved.old.service(&project.service).and_then(|service| service.image.as_deref());
    let previous = previous(deployment, old_image.unwrap_or(&container.image_ref), unwell.as_ref());
    let no_op = !wish.stays
        && wish.purpose == Purpose::Update
        && runs_already(deployment, target, handle.as_ref())?
        && deployment.env_value == wish.env_value
        && container.is_running();
    if let Some(unwell) = unwell.as_ref().filter(|_| !no_op && !wish.accept_unwell) {
        return Err(unwell::refusal(options, deployment, &target.tag, unwell).into());
    }
    let migration = migration(&wish, &resolved.new, deployment)?.filter(|_| !no_op);
    let companions = match no_op || wish.hot_only {
        true => Vec::new(),
        false => {
            let touched = Some(&data).filter(|data| migration.is_some() || data.is_copied());
            data::companions(options, deployment, touched, &resolved.old)?
        }
    };
    if !no_op && !wish.hot_only {
        let new = (!wish.stays).then_some(&resolved.new);
        let gone = sources::refusals(ports, options, deployment, &companions, new).await?;
        if !gone.is_empty() {
            return Err(Refused(gone));
        }
    }
    let hooks = if data.copied.is_empty() || wish.hot_only {
        Hooks::default()
    } else {
        data::hooks(options, &resolved.old, deployment)?
    };
    let stores = if no_op { Vec::new() } else { stores(options, deployment, &resolved.old, &data) };
    let one_shots = [&migration, &hooks.before_copy, &hooks.after_restore].into_iter().flatten();
    let homeless: Vec<_> = one_shots.filter_map(|one_shot| homeless(one_shot, deployment, &companions)).collect();
    if !homeless.is_empty() {
        return Err(Refused(homeless));
    }
    let commands = commands(project, &companions, &resolved.old);
    if !no_op && !wish.hot_only {
        let given_files = resolved.new.part_of(project.moved());
        let one_shots = [&migration, &hooks.before_copy, &hooks.after_restore].into_iter().flatten();
        let configs = one_shots.map(|one_shot| &one_shot.config).chain([&given_files]);
        let has_files = configs.into_iter().any(ComposeConfig::has_copied_files);
        require_reach(ports, !commands.is_empty(), has_files).await?;
    }
    let mut plan = Plan {
        changes: Vec::new(),
        warnings: Vec::new(),
        partial: match wish.purpose {
            Purpose::Restore { .. } => Partial::between(&data.copied, &wish.snapshot_mounts),
            Purpose::Update | Purpose::Snapshot => Partial::default(),
        },
        health_timeout_seconds: target.estimated_downtime_seconds.unwrap_or(0).min(LONGEST_GATE_SECONDS),
        had_image: handle.is_some(),
        tag_meant: tagged.map(|i| i.id),
        configuration: Some(Arc::new(Configuration {
            old: resolved.old.part_of(project.moved()),
            new: resolved.new.part_of(project.moved()),
            differences: compose::differences(&resolved, deployment, &options.others_version_key),
        })),
        env: env_change(deployment, &project.version_key, &wish)?,
        project: project.clone(),
        purpose: wish.purpose,
        stays: wish.stays,
        hot_only: wish.hot_only,
        target: wish.target,
        previous,
        migration,
        hooks,
        post_start: resolved
            .old
            .services
            .iter()
            .any(|(name, service)| project.moves(name) && !service.post_start.is_empty()),
        commands,
        waits: data::waits(deployment, &companions, &resolved.old),
        companions,
        crew: crew(deployment, &resolved.old),
        beside: data_beside::noted(&stores),
        data,
        no_op,
        // A deputy does not outlive its job.
        updater: options.own_container.clone().filter(|_| options.data_in.is_none()),
        of_updater: options.data_in.is_some(),
        drift,
    };
    plan.changes = changes(&plan, deployment, &resolved);
    plan.warnings = warnings(&plan, options, deployment, &resolved);
    plan.warnings.extend(beside_warnings(&plan, options, deployment, &resolved.old, &stores));
    plan.warnings.extend(deployment.place_warnings.iter().cloned());
    Ok(plan)
}

fn previous(deployment: &Deployment, old_image: &str, unwell: Option<&Unwell>) -> Previous {
    let c = &deployment.container;
    Previous {
        container_id: c.id.clone(),
        container_name: c.name.clone(),
        image_id: c.image_id.clone(),
        image_ref: old_image.to_owned(),
        repo_digest: repo_digest(&deployment.image, &c.image_ref),
        version: deployment.running.version().map(ToString::to_string),
        restart_policy: c.restart_policy.clone(),
        baseline: Baseline { running: c.is_alive(), answered_ok: unwell.is_none(), healthcheck: c.healthcheck },
    }
}

/// All that is moved runs the wanted image already. Some of it is none of an update's business: which
/// version would it go back to?
fn runs_already(deployment: &Deployment, target: &Target, image: Option<&Image>) -> Result<bool, Refused> {
    let Some(image) = image else { return Ok(false) };
    let (there, elsewhere): (Vec<_>, Vec<_>) =
        deployment.moved().partition(|(_, c, _)| c.image_id == image.id && is_same(&c.image_ref, &target.reference()));
    let is_there = |(service, ..): &(&str, _, _)| *service == deployment.project.service;
    if !there.iter().any(is_there) || elsewhere.is_empty() {
        return Ok(elsewhere.is_empty());
    }
    let names: Vec<_> = elsewhere.iter().map(|(service, ..)| *service).collect();
    let what = format!("{} runs already, but not in all that is moved with it", target.reference());
    let up = line(["docker", "compose", "up", "-d"].into_iter().chain(names));
    Err(Refusal::new(Code::PartlyUpdated, what).command(up).into())
}

/// In the order in which they are started.
fn crew(deployment: &Deployment, config: &ComposeConfig) -> Vec<Member> {
    let order = StartOrder::new(config, &deployment.project.service);
    let mut crew: Vec<&Mate> = deployment.crew.iter().collect();
    crew.sort_by_key(|mate| order.place(Some(&mate.service)));
    let member = |mate: &Mate| Member {
        service: mate.service.clone(),
        container_id: mate.container.id.clone(),
        container_name: mate.container.name.clone(),
        was: Was::of(&mate.container),
        needed: order.comes_before_the_first(Some(&mate.service)),
    };
    crew.into_iter().map(member).collect()
}

/// What becomes of `.env`.
pub fn env_change(deployment: &Deployment, key: &str, wish: &Wish) -> Result<EnvChange, Refused> {
    let before = deployment.env.clone();
    let bytes = before.as_deref().unwrap_or_default();
    let after = match &wish.env_value {
        Some(value) => envfile::set(bytes, key, value).map(|edited| edited.bytes),
        // As if from a file without the key.
        None => envfile::set_back(bytes, b"", key),
    };
    Ok(EnvChange {
        key: key.to_owned(),
        after: Some(after?),
        before,
        value_before: deployment.env_value.clone(),
        value_after: wish.env_value.clone(),
    })
}

fn migration(wish: &Wish, new: &ComposeConfig, deployment: &Deployment) -> Result<Option<OneShot>, Refused> {
    let Some(command) = wish.migration.clone() else { return Ok(None) };
    let (project, container) = (&deployment.project, &deployment.container);
    let around = Around { container, beside: &[], of_services: deployment.of_services(new), is_alone: true };
    let Some((config, lacks)) = one_shot::derived(new, &project.service, &around) else {
        return Err(Refused::because(
            Code::ServiceMissing,
            format!("the Compose files have no service {}", project.service),
        ));
    };
    Ok(Some(OneShot { image: None, command, config, lacks }))
}

/// It is to live in the namespaces of a container that is stopped when it runs.
fn homeless(one_shot: &OneShot, deployment: &Deployment, companions: &[Companion]) -> Option<Refusal> {
    let moved = deployment.moved().map(|(_, container, _)| (&container.id, &container.name));
    let mut stopped = moved.chain(companions.iter().map(|companion| (&companion.container_id, &companion.name)));
    let (_, host) = stopped.find(|(id, _)| one_shot.lives_in().any(|host| host == id.as_str()))?;
    let what = format!(
        "`{}` is to run in the namespaces of container {host}, as its service does, and that is stopped at the time",
        one_shot.text()
    );
    Some(Refusal::new(Code::Lodger, what).text("run it in the surroundings of a service that has a network of its own"))
}

fn changes(plan: &Plan, deployment: &Deployment, resolved: &Resolved) -> Vec<String> {
    let target = &plan.target;
    if plan.no_op {
        return vec![format!("nothing: {} runs already, by this very digest", target.reference())];
    }
    let mut changes = Vec::new();
    if !plan.stays {
        let digest = if target.digest.is_empty() { &plan.previous.image_id } else { &target.digest };
        changes.push(format!("image: {} -> {} ({digest})", deployment.container.image_ref, target.reference()));
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "(absent)".into());
        let env = &plan.env;
        changes.push(format!("{}: {} -> {}", env.key, shown(&env.value_before), shown(&env.value_after)));
        changes.extend(resolved.changes.told.iter().map(|difference| format!("with {}: {difference}", env.key)));
        if !plan.crew.is_empty() {
            let list: Vec<_> = plan.crew.iter().map(|member| member.service.as_str()).collect();
            changes.push(format!("moved with it: {}", list.join(", ")));
        }
    }
    if plan.data.is_copied() {
        let list: Vec<_> = plan.data.copied.iter().map(|m| m.destination.as_str()).collect();
        changes.push(format!("snapshot: of {}", list.join(", ")));
    }
    changes.extend(plan.migration.as_ref().map(|m| format!("migration: {}", m.text())));
    changes.extend(plan.restores().map(|generation| format!("data: of snapshot {generation}")));
    changes.extend(plan.partial.lines());
    let is_moved = |c: &&Companion| plan.crew.iter().any(|member| member.container_id == c.container_id);
    let stopped: Vec<_> = plan.companions.iter().filter(|c| !is_moved(c) || plan.stays).collect();
    if !stopped.is_empty() {
        let list: Vec<_> = stopped.iter().map(|c| c.name.as_str()).collect();
        changes.push(format!("stopped with it: {}", list.join(", ")));
    }
    changes
}

fn warnings(plan: &Plan, options: &Options, deployment: &Deployment, resolved: &Resolved) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(uncovered) = plan.data.uncovered() {
        let what =
            if plan.migration.is_some() { "the migration or the new version has" } else { "the new version has" };
        warnings.push(format!(
            "this data is NOT copied: {uncovered}. A rollback after {what} begun cannot put it back and ends `failed`"
        ));
    }
    let mounts = || deployment.moved().flat_map(|(_, container, _)| &container.mounts).chain(&plan.data.uncovered);
    let is_mount = |path: &String| mounts().any(|m| Path::new(&m.destination) == Path::new(path));
    for path in options.snapshot_exclude.iter().filter(|path| !is_mount(path)) {
        warnings
            .push(format!("PROCESSGIT_UPDATER_SNAPSHOT_EXCLUDE names {path}, but the application has no mount there"));
    }
    if let (false, Running::Unknown(why)) = (plan.stays, &deployment.running) {
        warnings.push(format!("which version runs is not known, so this may be a downgrade: {why}"));
    }
    if plan.hot_only {
        warnings.push("the application is not stopped while it is copied: the snapshot is not consistent".into());
    }
    if !plan.stays {
        warnings.extend(compose::followers_warning(resolved, &plan.env.key));
    }
    if plan.drift.is_empty() {
        warnings.extend(resolved.unexplained());
    }
    warnings.extend(lacking(plan));
    warnings.extend(left_without_data(plan, options, deployment, &resolved.old));
    warnings.extend(health_warnings(plan, options, deployment));
    warnings
}

/// Whoever else uses a database that is stopped with the application.
fn left_without_data(
    plan: &Plan,
    options: &Options,
    deployment: &Deployment,
    config: &ComposeConfig,
) -> Option<String> {
    let is_stopped = |name: &String| plan.companions.iter().any(|c| c.handle() == name || c.name == *name);
    let mut told = Vec::new();
    for data in plan.companions.iter().filter(|companion| companion.holds_data) {
        let container = deployment.containers.iter().find(|c| c.id == data.container_id)?;
        let mut users = data_beside::users(config, deployment, |c| options.is_ours(c), container);
        users.retain(|name| !is_stopped(name));
        if !users.is_empty() {
            told.push(format!("{} (without {})", users.join(", "), data.handle()));
        }
    }
    (!told.is_empty()).then(|| {
        format!(
            "these go on while the database that they use is stopped, and what they write to it before the verdict may be taken back: {}. Name them in PROCESSGIT_UPDATER_STOP_SERVICES to have them stopped as well",
            told.join(", ")
        )
    })
}

/// Where else the application keeps data. The updater keeps its own in its state folder.
pub fn stores(options: &Options, deployment: &Deployment, config: &ComposeConfig, data: &DataPlan) -> Vec<Store> {
    if options.data_in.is_some() {
        return Vec::new();
    }
    data_beside::find(config, deployment, Covers::of(options, data.is_copied()), |c| options.is_ours(c))
}

fn beside_warnings(
    plan: &Plan,
    options: &Options,
    deployment: &Deployment,
    config: &ComposeConfig,
    stores: &[Store],
) -> Vec<String> {
    let covers = Covers::of(options, plan.data.is_copied() && !plan.hot_only);
    let known = named::Known::of(deployment, config);
    let told = data_beside::told(stores, covers, Stakes::of(plan));
    told.iter().chain(&data_beside::unknown(stores, covers, known)).map(ToString::to_string).collect()
}

/// A migration or a hook that fails for want of these is no fault of the version.
fn lacking(plan: &Plan) -> Option<String> {
    let one_shots = [&plan.migration, &plan.hooks.before_copy, &plan.hooks.after_restore].into_iter().flatten();
    let lacking: Vec<_> = one_shots.filter(|one_shot| !one_shot.lacks.is_empty()).collect();
    let mut lacks: Vec<&str> = lacking.iter().flat_map(|one_shot| &one_shot.lacks).map(String::as_str).collect();
    lacks.dedup();
    (!lacks.is_empty()).then(|| {
        let commands: Vec<_> = lacking.iter().map(|one_shot| one_shot.text()).collect();
        format!(
            "{} runs without {}, which its service has: a container that runs once gets no socket of the host. If it fails, the version is not remembered as bad",
            commands.join(", "),
            lacks.join(", ")
        )
    })
}

/// Compose must be let through to do for containers what only it does. Noticed at the swap, it would be too late: the
/// way back needs the same.
async fn require_reach(ports: &Ports, has_commands: bool, has_files: bool) -> Result<(), Refused> {
    let may = |how, needed| async move { if needed { ports.engine.may_reach(how).await } else { Ok(()) } };
    let (commands, files) = tokio::join!(may(Reach::Exec, has_commands), may(Reach::Archive, has_files));
    let refusal = |what: &str, error: EngineError| match error.is_unreachable() {
        true => Refusal::from(error),
        false => Refusal::of(format_args!("{what}, and the engine's socket does not let it: "), &error)
            .text("have the socket proxy allow this call, as deploy/socket-proxy.yml shows"),
    };
    let commands =
        commands.err().map(|e| refusal("Compose runs the post_start and pre_stop commands in containers", e));
    let files = files.err().map(|e| refusal("Compose puts secrets and configs into containers", e));
    let refusals: Vec<Refusal> = commands.into_iter().chain(files).collect();
    if refusals.is_empty() { Ok(()) } else { Err(Refused(refusals)) }
}

/// The services, among all that is stopped and started, that have commands which only Compose runs.
fn commands(project: &Project, companions: &[Companion], config: &ComposeConfig) -> Commands {
    let stopped = companions.iter().filter_map(|companion| companion.service.as_deref());
    let services: BTreeSet<&str> = project.moved().chain(stopped).collect();
    let having = |has: fn(&Service) -> bool| {
        let with = services.iter().filter(|name| config.service(name).is_some_and(has));
        with.map(|name| (*name).to_owned()).collect()
    };
    Commands { pre_stop: having(|s| !s.pre_stop.is_empty()), post_start: having(|s| !s.post_start.is_empty()) }
}

/// Its HEALTHCHECK may say nothing until the gate has ended.
pub fn late_healthcheck(c: &Container, options: &Options) -> Option<String> {
    let is_late = c.healthcheck != Healthcheck::None && c.healthcheck_seconds >= options.health.timeout.as_secs();
    is_late.then(|| {
        format!(
            "the HEALTHCHECK of container {} says nothing for its first {} s, but the gate ends after {:?}: set PROCESSGIT_UPDATER_HEALTH_TIMEOUT higher, or give the HEALTHCHECK a start_interval",
            c.name, c.healthcheck_seconds, options.health.timeout
        )
    })
}

fn health_warnings(plan: &Plan, options: &Options, deployment: &Deployment) -> Vec<String> {
    let mut warnings = Vec::new();
    warnings.extend(deployment.moved().filter_map(|(_, c, _)| late_healthcheck(c, options)));
    for member in plan.crew.iter().filter(|member| member.was.demands_nothing()) {
        warnings.push(format!(
            "service {} neither runs now nor has it ended well: a rollback can only bring that back",
            member.service
        ));
    }
    let c = &deployment.container;
    let baseline = &plan.previous.baseline;
    if !baseline.is_well() {
        let answers = if baseline.answered_ok { "answers 200" } else { "does not answer 200" };
        let state = format!("{:?}", c.state).to_lowercase();
        warnings.push(format!(
            "the application is not well now ({state}, health URL {answers}): a rollback can only bring that back"
        ));
    }
    warnings
}
