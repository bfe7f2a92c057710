//! What a person has to type when a job says `failed`. Pure.

use super::plan::Plan;
use super::record::Record;
use super::transition::{App, Effect, Seen, lost, may_differ};
use crate::command::{line, word};
use crate::engine::RestartPolicy;
use crate::reference::Reference;

/// The commands that bring the old version back by hand, with its data, and what to know before. They stand
/// at the end of the text, numbered; the last one declares the job done. `seen` is `None` where nothing could be
/// seen: then they fit every state.
pub fn by_hand(record: &Record, plan: &Plan, seen: Option<&Seen>) -> String {
    let disarmed = record.has_begun(Effect::Disarm);
    let stands = matches!(seen.map(|s| s.app), Some(App::Untouched { .. }));
    let data = data_to_put_back(record, plan);
    let mut commands = Vec::new();
    if !plan.stays || !stands {
        commands.extend(version(record, plan, stands, data.is_none()));
    }
    if disarmed {
        commands.extend(rearmed(&plan.previous.container_name, &plan.previous.restart_policy));
    }
    commands.extend(companions(record, plan, true, data.is_none()));
    match data {
        // It starts the application, and proves it.
        Some(generation) => {
            commands.push(format!("{} snapshot restore {} --yes", program(plan), word(generation)));
            commands.extend((!plan.stays && !plan.crew.is_empty()).then(|| up(plan, "-d")));
        }
        None if stands && plan.previous.baseline.running => {
            commands.push(line(["docker", "start", &plan.previous.container_name]));
        }
        None => {}
    }
    commands.extend(companions(record, plan, false, true));
    let settle = settle(record, plan);
    commands.push(settle.clone());
    let mut text = String::new();
    if runs_anew(plan, seen) {
        let needed = companions(record, plan, true, true);
        let keep: Vec<_> = needed.into_iter().chain(companions(record, plan, false, true)).chain([settle]).collect();
        text.push_str(&format!("To keep what runs now: {}. ", keep.join(" && ")));
    }
    text.push_str(&about_data(record, plan, data));
    let commands: Vec<String> = commands.iter().enumerate().map(|(n, c)| format!("({}) {c}", n + 1)).collect();
    text + "To have the old version back by hand: " + &commands.join("  ")
}

/// Declares the job done, when the application is well again.
pub fn settle(record: &Record, plan: &Plan) -> String {
    let program = match plan.of_updater {
        true => in_container(&plan.previous.container_name),
        false => program(plan),
    };
    format!("{program} settle {} --yes", word(&record.job.0))
}

/// The generation whose data the old version needs, if it may not find it there.
fn data_to_put_back<'a>(record: &'a Record, plan: &Plan) -> Option<&'a str> {
    let hooked = plan.hooks.after_restore.is_some();
    let is_back = record.has_done(Effect::RestoreData) && (!hooked || record.has_done(Effect::HookRestored));
    record.learned.generation.as_deref().filter(|_| may_differ(record, plan) && !is_back)
}

fn about_data(record: &Record, plan: &Plan, data: Option<&str>) -> String {
    let mut text = String::new();
    if let Some(generation) = data {
        text.push_str(&format!(
            "The data may have been changed, and must be put back before the old version starts: snapshot {generation} has it, and what is there now is kept. "
        ));
    } else if let Some(generation) = record.learned.generation.as_ref().filter(|_| may_differ(record, plan)) {
        text.push_str(&format!("The data is back as it was (snapshot {generation}). "));
    }
    if let Some(lost) = lost(record, plan) {
        text.push_str(&format!(
            "There is no copy of {lost}, which may have been changed: put a backup of your own back before the old version starts. "
        ));
    }
    text
}

/// Another version, or other data, is what runs.
fn runs_anew(plan: &Plan, seen: Option<&Seen>) -> bool {
    match seen.map(|s| s.app) {
        Some(App::New { running, .. }) => running,
        Some(App::Untouched { running }) => running && plan.stays && plan.restores().is_some(),
        _ => false,
    }
}

/// Image, configuration, container; the container is only made where its data must be put back first.
fn version(record: &Record, plan: &Plan, stands: bool, start: bool) -> Vec<String> {
    let previous = &plan.previous;
    let (image, reference) = (&previous.image_id, &previous.image_ref);
    let tag = line(["docker", "tag", image, reference]);
    if stands {
        // The very container can be started again.
        return select(plan).into_iter().collect();
    }
    let names: Vec<_> = plan.crew.iter().map(|member| &member.container_name).collect();
    let names =
        [vec![&previous.container_name], names].concat().iter().map(|n| n.as_str()).collect::<Vec<_>>().join("|");
    let half = record.has_begun(Effect::Swap) && (!record.has_done(Effect::Swap) || record.has_begun(Effect::StartOld));
    let filter = word(&format!("name=^/[0-9a-f]{{12}}_({names})$"));
    let leftovers = format!("docker ps -aq --filter {filter} | xargs -r docker rm -f");
    let start = if start && previous.baseline.running { "-d" } else { "--no-start" };
    let up = up(plan, start);
    // A reference by digest cannot be tagged, and cannot have moved either.
    let tag = Some(tag).filter(|_| Reference::parse(reference).is_ok_and(|image| image.digest().is_none()));
    [tag, select(plan), Some(leftovers).filter(|_| half), Some(up)].into_iter().flatten().collect()
}

/// `.env` selects the old version.
fn select(plan: &Plan) -> Option<String> {
    let (env, project) = (&plan.env, &plan.project);
    let file = project.env_files.last().cloned().unwrap_or_else(|| format!("{}/.env", project.working_dir));
    let (key, program) = (word(&env.key), program(plan));
    // In its container it knows where the file is; the host's path leads nowhere there.
    let file = if plan.updater.is_some() { String::new() } else { format!(" --file {}", word(&file)) };
    Some(match &env.value_before {
        Some(value) => format!("{program} env set {key} {}{file}", word(value)),
        None => format!("{program} env unset {key}{file}"),
    })
    .filter(|_| !plan.stays)
}

/// Of all that is moved.
fn up(plan: &Plan, start: &str) -> String {
    let services: Vec<_> = plan.project.moved().map(word).collect();
    format!("{} up {start} --no-deps --no-build --pull never {}", compose(plan), services.join(" "))
}

/// How a person starts this program.
fn program(plan: &Plan) -> String {
    match &plan.updater {
        Some(container) => in_container(container),
        None => "processgit-updater".into(),
    }
}

fn in_container(container: &str) -> String {
    format!("docker exec {} processgit-updater", word(container))
}

fn compose(plan: &Plan) -> String {
    let project = &plan.project;
    let (name, folder) = (word(&project.name), word(&project.working_dir));
    let files = project.config_files.iter().map(|file| format!(" -f {}", word(file)));
    let env_files = project.env_files.iter().map(|file| format!(" --env-file {}", word(file)));
    format!("docker compose -p {name} --project-directory {folder}{}", files.chain(env_files).collect::<String>())
}

/// Those that the application needs, or the others. Where data is put back by a job of its own, `starts_data` is
/// false: that job starts the services whose data it is.
fn companions(record: &Record, plan: &Plan, needed: bool, starts_data: bool) -> Vec<String> {
    // Putting data back stops them once more.
    let resumed = record.has_done(Effect::Resume) && !record.has_begun(Effect::RestoreData);
    let is_back = resumed || record.has_done(Effect::Rearm);
    let of_them = plan.companions.iter().filter(|companion| companion.needed == needed);
    let stopped = of_them.filter(|_| record.has_begun(Effect::Disarm) && !is_back);
    let commands = |c: &super::plan::Companion| {
        let start = Some(line(["docker", "start", &c.name])).filter(|_| starts_data || !c.holds_data);
        rearmed(&c.name, &c.restart_policy).into_iter().chain(start).collect::<Vec<_>>()
    };
    stopped.flat_map(commands).collect()
}

/// The restart policy that it had; nothing where it had none.
fn rearmed(name: &str, policy: &RestartPolicy) -> Option<String> {
    let retries = policy.maximum_retry_count;
    let retries = if retries > 0 { format!(":{retries}") } else { String::new() };
    (*policy != RestartPolicy::never())
        .then(|| format!("docker update --restart={}{retries} {}", word(&policy.name), word(name)))
}
