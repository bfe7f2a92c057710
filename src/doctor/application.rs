//! The application: its container, its health, its project.

use super::{APPLICATION, Doctor, Finding, LOOK, WORK, asked, data, deployment};
use crate::command::{line, word};
use crate::engine::{Container, EngineInfo, Healthcheck, RunState};
use crate::envfile;
use crate::health::Answer;
use crate::update::ports::EnvError;
use crate::update::survey::assemble;
use crate::update::survey::{self, Deployment};

/// So long the application may take to answer.
const ANSWER: std::time::Duration = std::time::Duration::from_secs(5);

/// All that depends on the container, as far as it can be looked at; and the deployment, if it was
/// understood. `busy`: why nothing that takes long may be begun now.
pub async fn check(
    doctor: &Doctor,
    engine: &EngineInfo,
    containers: &[Container],
    busy: Option<&str>,
) -> (Vec<Finding>, Option<Deployment>) {
    let mut findings = Vec::new();
    let looked = look(doctor, engine, containers, busy, &mut findings).await;
    let (deployment, rest) = match looked {
        Ok(deployment) => (Some(deployment), "it was not looked at"),
        Err(why) => (None, why),
    };
    for check in APPLICATION {
        if !findings.iter().any(|finding| finding.check == *check) {
            findings.push(Finding::skipped(check, rest));
        }
    }
    let place = |finding: &Finding| APPLICATION.iter().position(|check| *check == finding.check);
    findings.sort_by_key(place);
    (findings, deployment)
}

/// From one thing to the next; an error is why the rest cannot be looked at.
async fn look(
    doctor: &Doctor,
    engine: &EngineInfo,
    containers: &[Container],
    busy: Option<&str>,
    findings: &mut Vec<Finding>,
) -> Result<Deployment, &'static str> {
    let (ports, options) = (&doctor.ports, &doctor.options);
    let container = match asked(LOOK, survey::application(ports, options)).await {
        Ok(container) => container,
        Err(why) => {
            findings.push(Finding::bad("application", why, "docker compose up -d"));
            return Err("the application's container was not found");
        }
    };
    findings.push(state(&container));
    let health = async {
        match container.is_running() {
            true => health(doctor, &container, ports.probe.ask(&container, ANSWER).await),
            false => Finding::skipped("health", "the application does not run"),
        }
    };
    findings.push(health.await);
    findings.push(healthcheck(doctor, &container));
    let project = match survey::project_of(&doctor.ports, &container, options).await {
        Ok(project) => project,
        Err(why) => {
            findings.push(Finding::bad("project", why.to_string(), "docker compose up -d"));
            return Err("the project is not known");
        }
    };
    findings.push(Finding::ok(
        "project",
        format!("{}, service {}, {}", project.name, project.service, project.config_files.join(", ")),
    ));
    let again = line(["docker", "compose", "up", "-d"].into_iter().chain(project.moved()));
    let image = match asked(LOOK, survey::image_of(ports, &container)).await {
        Ok(image) => image,
        Err(why) => {
            findings.push(Finding::bad("services", why, again));
            return Err("the image that runs is not at hand");
        }
    };
    let crew = match asked(LOOK, survey::crew(ports, &project, containers)).await {
        Ok(crew) => crew,
        Err(why) => {
            findings.push(Finding::bad("services", why, again));
            return Err("not all services that are moved have their container");
        }
    };
    let running = match asked(LOOK, survey::running(ports, options, &container, &image, None)).await {
        Ok(running) => running,
        Err(why) => {
            findings.push(Finding::bad("version key", why, "processgit-updater doctor"));
            return Err("which version runs cannot be looked up");
        }
    };
    let mut deployment = Deployment {
        engine: engine.clone(),
        container,
        image,
        project,
        crew,
        containers: containers.to_vec(),
        env: None,
        env_value: None,
        running,
        place_warnings: Vec::new(),
    };
    if let Some(busy) = busy {
        let rest = [
            ".env",
            "compose",
            "version key",
            "services",
            "drift",
            "followers",
            "data",
            "writers",
            "hooks",
            "room",
            "snapshots",
        ];
        findings.extend(rest.map(|check| Finding::skipped(check, busy)));
        return Ok(deployment);
    }
    let env = read_env(doctor, &mut deployment).await;
    findings.push(env_finding(doctor, &deployment, &env));
    findings.extend(both(doctor, &deployment, env.is_ok()).await);
    Ok(deployment)
}

/// Compose and the walk through the data take longest, and do not need each other.
async fn both(doctor: &Doctor, deployment: &Deployment, has_env: bool) -> Vec<Finding> {
    let plan = survey::data::mounts(&doctor.ports, &doctor.options, deployment);
    let (resolved, room) = tokio::join!(deployment::resolve(doctor, deployment), data::room(doctor, &plan));
    let mut findings = deployment::check(doctor, deployment, &resolved, has_env);
    let config = resolved.resolved.as_ref().ok().map(|(_, resolved)| &resolved.old);
    findings.extend(data::check(doctor, deployment, &plan, config).await);
    findings.push(room);
    findings
}

/// Whether an update could write it, and what is in it.
async fn read_env(doctor: &Doctor, deployment: &mut Deployment) -> Result<(), String> {
    let (env, options) = (&doctor.ports.env, &doctor.options);
    let project_env = deployment.project.environment_files();
    let read = async {
        env.preflight(&project_env).await?;
        env.read().await
    };
    deployment.env = asked::<_, EnvError>(WORK, read).await?;
    deployment.env_value = deployment.env.as_deref().and_then(|bytes| envfile::get(bytes, &options.version_key));
    let Deployment { container, image, env_value, .. } = &*deployment;
    let running = survey::running(&doctor.ports, options, container, image, env_value.as_deref());
    deployment.running = asked(LOOK, running).await?;
    Ok(())
}

fn env_finding(doctor: &Doctor, deployment: &Deployment, read: &Result<(), String>) -> Finding {
    let path = doctor.ports.env.path();
    match (read, &deployment.env) {
        (Err(why), _) => Finding::bad(".env", why.clone(), env_remedy(doctor, deployment, why)),
        (Ok(()), None) => Finding::warning(
            ".env",
            format!("there is no {path}: the first update will make it"),
            line(["processgit-updater", "env", "set", &doctor.options.version_key, "VERSION"]),
        ),
        (Ok(()), Some(bytes)) => Finding::ok(".env", format!("{path}, {} bytes, can be replaced", bytes.len())),
    }
}

fn env_remedy(doctor: &Doctor, deployment: &Deployment, why: &str) -> String {
    let folder = doctor.settings.env_file.parent().unwrap_or(std::path::Path::new("/")).display().to_string();
    let theirs = deployment.project.environment_files();
    match theirs.last() {
        Some(theirs) if why.contains("instead; name that file") => format!("PROCESSGIT_UPDATER_ENV_FILE={theirs}"),
        _ if why.contains("cannot be written") => {
            let folder = word(&folder);
            format!("findmnt -T {folder} shows what is mounted read-only; mount -o remount,rw, or take `:ro` away")
        }
        _ if why.contains("mounted as a single file") => format!("volumes: [\".:{folder}\"]"),
        _ => format!("ls -la {}, and look at PROCESSGIT_UPDATER_ENV_FILE", word(&folder)),
    }
}

fn state(c: &Container) -> Finding {
    let name = &c.name;
    let state = format!("{:?}", c.state).to_lowercase();
    let logs = line(["docker", "logs", "--tail", "50", name]);
    match (c.state, c.healthcheck) {
        (RunState::Running, Healthcheck::Unhealthy) => {
            Finding::bad("application", format!("container {name} runs and its HEALTHCHECK says unhealthy"), logs)
        }
        (RunState::Running, _) if c.restart_policy.name == "no" => Finding::warning(
            "application",
            format!("container {name} runs {} with restart policy `no`: nothing starts it after a reboot", c.image_ref),
            "restart: unless-stopped in the Compose file, then docker compose up -d",
        ),
        (RunState::Running, health) => {
            let health = match health {
                Healthcheck::None => "",
                Healthcheck::Starting => ", its HEALTHCHECK is starting",
                _ => ", healthy",
            };
            let policy = &c.restart_policy.name;
            Finding::ok("application", format!("container {name} runs {}{health}, restart {policy}", c.image_ref))
        }
        _ => Finding::bad(
            "application",
            format!("container {name} is {state} (exit code {})", c.exit_code),
            format!("{logs}; {}", line(["docker", "start", name])),
        ),
    }
}

fn health(doctor: &Doctor, c: &Container, answer: Answer) -> Finding {
    let url = &doctor.settings.health.url;
    let remedy =
        format!("{}; or correct PROCESSGIT_UPDATER_HEALTH_URL", line(["docker", "logs", "--tail", "50", &c.name]));
    match answer {
        Answer::Http { status: 200, body } => match doctor.options.health.version.as_deref() {
            None => Finding::ok("health", format!("{url} answers 200")),
            Some(pointer) => match version_at(&body, pointer) {
                Some(version) => Finding::ok("health", format!("{url} answers 200, version {version}")),
                None => Finding::bad(
                    "health",
                    format!("{url} answers 200, but there is nothing at {pointer} (PROCESSGIT_UPDATER_HEALTH_VERSION)"),
                    format!("curl -s {url}; then name where the version stands"),
                ),
            },
        },
        Answer::Http { status, .. } => Finding::bad("health", format!("{url} answers {status}, expected 200"), remedy),
        Answer::Silent(why) => Finding::bad("health", format!("{url} does not answer: {why}"), remedy),
    }
}

fn version_at(body: &[u8], pointer: &str) -> Option<String> {
    let answer: serde_json::Value = serde_json::from_slice(body).ok()?;
    let version = answer.pointer(pointer)?;
    Some(version.as_str().map_or_else(|| version.to_string(), str::to_owned))
}

fn healthcheck(doctor: &Doctor, c: &Container) -> Finding {
    let timeout = doctor.options.health.timeout;
    match (assemble::late_healthcheck(c, &doctor.options), c.healthcheck) {
        (Some(late), _) => Finding::warning(
            "healthcheck",
            late,
            format!("PROCESSGIT_UPDATER_HEALTH_TIMEOUT={}s", c.healthcheck_seconds * 2),
        ),
        (None, Healthcheck::None) => Finding::ok("healthcheck", "the container has none: the health URL decides"),
        (None, _) => {
            let seconds = c.healthcheck_seconds;
            Finding::ok("healthcheck", format!("speaks within {seconds} s, the gate lasts {timeout:?}"))
        }
    }
}
