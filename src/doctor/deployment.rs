//! Compose, what follows the version key, and whether files and containers agree: planning's own rules, with
//! a version that exists nowhere.

use super::{Doctor, Finding, WORK, asked};
use crate::command::line;
use crate::engine::Written;
use crate::reference;
use crate::update::refusal::{Code, Refusal, Refused};
use crate::update::running::{self, Running};
use crate::update::survey::compose::{self, Resolved};
use crate::update::survey::wish::{self, Wish};
use crate::update::survey::{Deployment, unset};

/// No release has this tag.
const PRETENDED: &str = "0.0.0-doctor";
/// The version of Compose that made a container.
const COMPOSE_VERSION: &str = "com.docker.compose.version";

/// What Compose says.
pub struct Seen {
    pub version: Result<String, Refused>,
    pub resolved: Result<(Wish, Resolved), Refused>,
    /// The version key has a value in an environment file that is not the one that wins.
    elsewhere: bool,
}

pub async fn resolve(doctor: &Doctor, deployment: &Deployment, has_env: bool) -> Seen {
    let wish = wish::pretended(deployment, PRETENDED);
    let version = asked(WORK, doctor.ports.compose.version()).await;
    let resolved = match &version {
        // What would become of a file that cannot be read, nobody knows.
        Ok(_) if !has_env => asked(WORK, compose::resolve_as_it_is(&doctor.ports, deployment)).await,
        Ok(_) => asked(WORK, compose::resolve(&doctor.ports, deployment, &wish)).await,
        Err(why) => Err(why.clone()),
    };
    let project = &deployment.project;
    let is_elsewhere = |written: Written| written.assigned.contains(&project.version_key);
    let elsewhere = match has_env && deployment.env_value.is_none() && project.env_files.len() > 1 {
        true => asked(WORK, doctor.ports.compose.written(project)).await.is_ok_and(is_elsewhere),
        false => false,
    };
    Seen { version, resolved: resolved.map(|resolved| (wish, resolved)), elsewhere }
}

pub fn check(doctor: &Doctor, deployment: &Deployment, seen: &Seen, has_env: bool) -> Vec<Finding> {
    let up = line(["docker", "compose", "up", "-d"].into_iter().chain(deployment.project.moved()));
    let (wish, resolved) = match (&seen.version, &seen.resolved) {
        (Ok(_), Ok(resolved)) => (&resolved.0, &resolved.1),
        (Err(why), _) => {
            return unresolved(why.clone().or_text("install Docker Compose v2: apt-get install docker-compose-plugin"));
        }
        (_, Err(why)) => return unresolved(why.clone().or_command("docker compose config --quiet")),
    };
    let drift = compose::drift(resolved, deployment, wish, &doctor.options.others_version_key);
    let mut findings = vec![version_of(seen.version.as_deref().unwrap_or_default(), deployment)];
    if drift.found.is_empty() {
        findings.extend(unexplained(resolved, deployment, &up));
    }
    findings.extend(services(resolved, deployment));
    match in_another_file(doctor, deployment, seen.elsewhere) {
        Some(finding) => findings.push(finding),
        None => findings.extend(version_key(doctor, deployment, wish, resolved, has_env)),
    }
    let disagreements = compose::disagreements(drift, resolved, deployment, &doctor.ports.env.path());
    if disagreements.is_empty() {
        findings.push(Finding::ok("drift", "files and containers agree"));
    }
    // An update to that version would work.
    let finding = |refusal: Refusal| match refusal.code {
        Code::NotApplied => Finding::warning("drift", refusal),
        _ => Finding::bad("drift", refusal),
    };
    findings.extend(disagreements.into_iter().map(finding));
    findings.push(followers(resolved, has_env));
    findings
}

fn unresolved(why: Refused) -> Vec<Finding> {
    let rest = ["version key", "services", "drift", "followers"];
    let skipped = rest.map(|check| Finding::skipped(check, "Compose cannot be asked"));
    super::bad("compose", why).chain(skipped).collect()
}

/// Compose would make a container anew, and it cannot be seen what for.
fn unexplained(resolved: &Resolved, deployment: &Deployment, up: &str) -> Vec<Finding> {
    let unexplained: Vec<String> = resolved.unexplained().collect();
    if unexplained.is_empty() {
        return Vec::new();
    }
    let written = resolved.written.as_ref();
    let of_shell = written.map(|written| unset::anything(written, deployment)).unwrap_or_default();
    if !of_shell.is_empty() {
        return of_shell.into_iter().map(|refusal| Finding::warning("compose", refusal)).collect();
    }
    let at_default = written.map(|written| unset::at_default(written, deployment)).unwrap_or_default();
    let finding = |text| {
        let why = Refusal::new(Code::ComposeRecreates, text);
        let names: Vec<&str> = at_default.iter().map(String::as_str).collect();
        Finding::warning(
            "compose",
            match names.is_empty() {
                true => why.command(up),
                // With another value it would be made anew with what is not wanted.
                false => why.text(format!(
                    "`{}` in the shell that starts the application: what it has belongs into {}, because the updater does not have that shell; if it has none of them, `{up}`",
                    line(["printenv"].into_iter().chain(names)),
                    deployment.project.environment_files().pop().unwrap_or_default()
                )),
            },
        )
    };
    unexplained.into_iter().map(finding).collect()
}

fn version_of(version: &str, deployment: &Deployment) -> Finding {
    // A distribution puts its own number behind.
    let number = |version: &str| version.split(['-', '+']).next().unwrap_or_default().to_owned();
    match deployment.container.label(COMPOSE_VERSION) {
        Some(made_by) if number(made_by) != number(version) => {
            Finding::ok("compose", format!("{version}; the container was made by {made_by}"))
        }
        _ => Finding::ok("compose", format!("{version}, which made the container too")),
    }
}

fn services(resolved: &Resolved, deployment: &Deployment) -> Vec<Finding> {
    let replicas = compose::replica_refusals(resolved, deployment).into_iter();
    let refusals = replicas.chain(compose::namespace_refusals(deployment));
    let found: Vec<Finding> = refusals.map(|refusal| Finding::bad("services", refusal)).collect();
    if !found.is_empty() {
        return found;
    }
    let moved: Vec<&str> = deployment.project.moved().collect();
    vec![Finding::ok("services", format!("moved: {}, one container each", moved.join(", ")))]
}

fn version_key(
    doctor: &Doctor,
    deployment: &Deployment,
    wish: &Wish,
    resolved: &Resolved,
    has_env: bool,
) -> Vec<Finding> {
    if !has_env {
        return vec![Finding::skipped("version key", ".env was not read")];
    }
    let key = &doctor.options.version_key;
    let refusals = compose::resolution_refusals(resolved, deployment, wish);
    if !refusals.is_empty() {
        let image = wish.target.reference();
        let repository = image.strip_suffix(&format!(":{PRETENDED}")).unwrap_or(&image);
        let remedy = format!(
            "image: {repository}:${{{key}:-latest}} in the Compose file, or PROCESSGIT_UPDATER_VERSION_KEY={key} is the wrong key"
        );
        let finding = |refusal: Refusal| Finding::bad("version key", refusal.text(remedy.clone()));
        return refusals.into_iter().map(finding).collect();
    }
    let value = match &deployment.env_value {
        Some(value) => format!("{key}={value}"),
        None => format!("{key} is absent"),
    };
    let image = &deployment.container.image_ref;
    let not_applied = running::not_applied(image, deployment.env_value.as_deref()).is_some();
    vec![match &deployment.running {
        Running::Unknown(why) => Finding::warning(
            "version key",
            Refusal::new(
                Code::VersionUnknown,
                format!(
                    "which version runs is not known: {why}. The first update needs consent, because a downgrade cannot be excluded"
                ),
            )
            .text("`processgit-updater update --allow-downgrade`, if the newest release is no older than what runs; or set PROCESSGIT_UPDATER_HEALTH_VERSION to where the health answer names the version"),
        ),
        Running::Known { version, .. } if deployment.env_value.is_none() => {
            Finding::ok("version key", format!("{value}, {image} is version {version}; an update sets it"))
        }
        // It is drift, and that check has the remedy.
        Running::Known { version, .. } if not_applied => Finding::ok(
            "version key",
            format!("{value} has not been applied: the container was made from {image} and runs version {version}"),
        ),
        Running::Known { version, .. } => {
            Finding::ok("version key", format!("{value} selects {image}, version {version}"))
        }
    }]
}

/// Of several environment files the last one wins, and an update writes into that one.
fn in_another_file(doctor: &Doctor, deployment: &Deployment, elsewhere: bool) -> Option<Finding> {
    let (key, project) = (&doctor.options.version_key, &deployment.project);
    let (last, others) = project.env_files.split_last().filter(|_| elsewhere)?;
    let tag = reference::version_of(&deployment.container.image_ref)?;
    let env = |words: &[&str], file: &str| {
        line(["processgit-updater", "env"].iter().chain(words).chain(&["--file", file]).copied())
    };
    let set = env(&["set", key, tag], last);
    let unset = others.iter().map(|file| env(&["unset", key], file));
    let seen = format!(
        "{key} is absent from {last}, which wins over the project's other environment files, and stands in {}: an update would write it into {last}, and it would stand in both",
        others.join(" or ")
    );
    let command = std::iter::once(set).chain(unset).collect::<Vec<_>>().join(" && ");
    Some(Finding::warning("version key", Refusal::new(Code::EnvOtherFile, seen).command(command)))
}

fn followers(resolved: &Resolved, has_env: bool) -> Finding {
    if !has_env {
        return Finding::skipped("followers", ".env was not read");
    }
    let followers = resolved.changes.followers();
    if followers.is_empty() {
        return Finding::ok("followers", "no other service follows the version key");
    }
    let list = followers.join(",");
    Finding::warning(
        "followers",
        Refusal::new(
            Code::Followers,
            format!(
                "{list} follow the version key too, and are made anew by your next `docker compose up`, not by an update"
            ),
        )
        .setting(format!("PROCESSGIT_UPDATER_MOVE_SERVICES={list}")),
    )
}
