//! The application: its container, its health, its project.

use super::{APPLICATION, Doctor, Finding, LOOK, WORK, asked, data, deployment, projects};
use crate::command::line;
use crate::engine::{Container, EngineInfo, Healthcheck, RunState};
use crate::envfile;
use crate::health::{Answer, HealthTarget};
use crate::update::refusal::{Code, Refusal, Refused};
use crate::update::survey::assemble;
use crate::update::survey::unwell::{self, Place, Unwell};
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
            findings.extend(super::bad("application", why.or_command("docker ps -a")));
            return Err("the application's container was not found");
        }
    };
    findings.push(state(&container));
    let health = async {
        match container.is_running() {
            true => health(doctor, containers, &container, ports.probe.ask(&container, ANSWER).await),
            false => Finding::skipped("health", "the application does not run"),
        }
    };
    findings.push(health.await);
    findings.push(healthcheck(doctor, &container));
    let project = match survey::project_of(&doctor.ports, &container, options).await {
        Ok(project) => project,
        Err(why) => {
            findings.extend(super::bad("project", why));
            return Err("the project is not known");
        }
    };
    findings.push(Finding::ok(
        "project",
        format!("{}, service {}, {}", project.name, project.service, project.config_files.join(", ")),
    ));
    let image = match asked(LOOK, survey::image_of(ports, &container)).await {
        Ok(image) => image,
        Err(why) => {
            findings.extend(super::bad("services", why.or_command("docker ps -a")));
            return Err("the image that runs is not at hand");
        }
    };
    let crew = match asked(LOOK, survey::crew(ports, &project, containers)).await {
        Ok(crew) => crew,
        Err(why) => {
            findings.extend(super::bad("services", why.or_command("docker ps -a")));
            return Err("not all services that are moved have their container");
        }
    };
    let running = match asked(LOOK, survey::running(ports, options, &container, &image, None)).await {
        Ok(running) => running,
        Err(why) => {
            findings.extend(super::bad("version key", why));
            return Err("which version runs cannot be looked up");
        }
    };
    let (data_services, no_data_services) = survey::data_services::find(ports, options, &project, containers).await;
    findings.extend(no_data_services.iter().map(|refusal| Finding::bad("data services", refusal.clone())));
    let mut deployment = Deployment {
        engine: engine.clone(),
        container,
        image,
        project,
        crew,
        data_services,
        no_data_services,
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
            "data beside",
            "writers",
            "hooks",
            "room",
            "snapshots",
        ];
        findings.extend(rest.map(|check| Finding::unseen(check, busy)));
        return Ok(deployment);
    }
    let env = read_env(doctor, &mut deployment).await;
    let has_env = env.is_ok();
    findings.extend(env_findings(doctor, &deployment, env));
    findings.extend(both(doctor, &deployment, has_env).await);
    Ok(deployment)
}

/// Compose and the walk through the data take longest, and do not need each other.
async fn both(doctor: &Doctor, deployment: &Deployment, has_env: bool) -> Vec<Finding> {
    let data = async {
        let looked = data::look(doctor, deployment).await;
        let room = match &looked {
            Ok(plan) => data::room(doctor, plan).await,
            Err(_) => vec![Finding::skipped("room", "the data cannot be looked at")],
        };
        (looked, room)
    };
    let resolve = deployment::resolve(doctor, deployment, has_env);
    let (resolved, (looked, room), behind) = tokio::join!(resolve, data, projects::check(doctor, deployment));
    let mut findings = deployment::check(doctor, deployment, &resolved, has_env);
    let config = resolved.resolved.as_ref().ok().map(|(_, resolved)| &resolved.old);
    findings.extend(data::check(doctor, deployment, looked, config).await);
    findings.extend(room);
    findings.extend(behind);
    findings
}

/// Whether an update could write it, and what is in it.
async fn read_env(doctor: &Doctor, deployment: &mut Deployment) -> Result<(), Refused> {
    let (env, options) = (&doctor.ports.env, &doctor.options);
    let project_env = deployment.project.environment_files();
    let read = async {
        env.preflight(&project_env).await?;
        env.read().await
    };
    deployment.env = asked(WORK, read).await?;
    deployment.env_value = deployment.env.as_deref().and_then(|bytes| envfile::get(bytes, &options.version_key));
    let Deployment { container, image, env_value, .. } = &*deployment;
    let running = survey::running(&doctor.ports, options, container, image, env_value.as_deref());
    deployment.running = asked(LOOK, running).await?;
    Ok(())
}

fn env_findings(doctor: &Doctor, deployment: &Deployment, read: Result<(), Refused>) -> Vec<Finding> {
    let path = doctor.ports.env.path();
    match (read, &deployment.env) {
        (Err(why), _) => {
            let folder = doctor.settings.env_file.parent().unwrap_or(std::path::Path::new("/")).display().to_string();
            super::bad(".env", why.or_command(&line(["ls", "-la", &folder]))).collect()
        }
        (Ok(()), None) => {
            let set = line(["processgit-updater", "env", "set", &doctor.options.version_key, "VERSION"]);
            let why = Refusal::new(Code::NoEnv, format!("there is no {path}: the first update will make it"));
            vec![Finding::warning(".env", why.text(format!("`{set}` makes it, with the version that runs")))]
        }
        (Ok(()), Some(bytes)) => vec![Finding::ok(".env", format!("{path}, {} bytes, can be replaced", bytes.len()))],
    }
}

fn state(c: &Container) -> Finding {
    let name = &c.name;
    let state = format!("{:?}", c.state).to_lowercase();
    let logs = line(["docker", "logs", "--tail", "50", name]);
    match (c.state, c.healthcheck) {
        (RunState::Running, Healthcheck::Unhealthy) => {
            let seen = format!("container {name} runs and its HEALTHCHECK says unhealthy");
            Finding::bad("application", Refusal::new(Code::Unhealthy, seen).command(logs))
        }
        (RunState::Running, _) if c.restart_policy.name == "no" => {
            let seen = format!(
                "container {name} runs {} with restart policy `no`: nothing starts it after a reboot",
                c.image_ref
            );
            let remedy = "write `restart: unless-stopped` into the Compose file, then run `docker compose up -d`";
            Finding::warning("application", Refusal::new(Code::NoRestart, seen).text(remedy))
        }
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
            Refusal::new(Code::NotRunning, format!("container {name} is {state} (exit code {})", c.exit_code))
                .command(format!("{logs}; {}", line(["docker", "start", name]))),
        ),
    }
}

fn health(doctor: &Doctor, containers: &[Container], c: &Container, answer: Answer) -> Finding {
    let url = &doctor.options.health_target;
    let bad = |unwell: Unwell| {
        let (seen, remedy) = Place::among(&doctor.options, c, containers).explain(&unwell);
        Finding::bad("health", Refusal::new(Code::HealthWrong, seen).text(remedy))
    };
    match answer {
        Answer::Accepted if *url == HealthTarget::Healthcheck && c.healthcheck == Healthcheck::None => {
            Finding::bad("health", unwell::no_healthcheck(c))
        }
        Answer::Accepted if *url == HealthTarget::Healthcheck => {
            Finding::ok("health", "the container's HEALTHCHECK decides")
        }
        Answer::Accepted => Finding::ok("health", format!("{url} accepts connections")),
        Answer::Http { status: 200, body } => match &doctor.options.health.version {
            None => Finding::ok("health", format!("{url} answers 200")),
            Some(at) => match at.find(&body) {
                Ok(version) => Finding::ok("health", format!("{url} answers 200, version {version}")),
                Err(why) => {
                    let seen = format!("{url} answers 200, but {why} (PROCESSGIT_UPDATER_HEALTH_VERSION)");
                    let look = line(["curl", "-s", &url.to_string()]);
                    let remedy = format!("look at the answer with `{look}`, then name where the version stands");
                    Finding::bad("health", Refusal::new(Code::HealthWrong, seen).text(remedy))
                }
            },
        },
        Answer::Http { status, .. } => bad(Unwell::Status(status)),
        Answer::Silent(why) => bad(Unwell::Silent(why)),
    }
}

fn healthcheck(doctor: &Doctor, c: &Container) -> Finding {
    let timeout = doctor.options.health.timeout;
    match (assemble::late_healthcheck(c, &doctor.options), c.healthcheck) {
        (Some(late), _) => Finding::warning(
            "healthcheck",
            Refusal::new(Code::HealthcheckLate, late)
                .setting(format!("PROCESSGIT_UPDATER_HEALTH_TIMEOUT={}s", c.healthcheck_seconds * 2)),
        ),
        (None, Healthcheck::None) => Finding::ok("healthcheck", "the container has none: the health URL decides"),
        (None, _) => {
            let seconds = c.healthcheck_seconds;
            Finding::ok("healthcheck", format!("speaks within {seconds} s, the gate lasts {timeout:?}"))
        }
    }
}
