//! The engine, its socket, a proxy before it, and where the updater itself runs.

use std::path::Path;

use super::around::Socket;
use super::{Doctor, Finding, LOOK, asked};
use crate::engine::{EngineFacts, EngineInfo};
use crate::helper::own::OwnContainer;
use crate::update::refusal::{Code, Refusal, Refused};

/// What the engine says of itself.
pub struct Seen {
    pub info: Result<EngineInfo, Refused>,
    pub facts: Option<EngineFacts>,
}

impl Seen {
    pub async fn look(doctor: &Doctor) -> Self {
        let (info, facts) = tokio::join!(asked(LOOK, doctor.ports.engine.info()), asked(LOOK, doctor.around.engine()));
        match facts {
            Ok(facts) => Self { info, facts: Some(facts) },
            // Then what the ports tell is not of this engine, or not for long.
            Err(why) => Self { info: info.and(Err(why)), facts: None },
        }
    }
}

/// `unlisted`: why the containers could not be listed.
pub async fn check(doctor: &Doctor, seen: &Seen, unlisted: Option<&Refused>) -> Vec<Finding> {
    let socket = doctor.around.socket().await;
    let mut findings = engine(seen, socket.as_ref());
    findings.push(socket_of(seen, socket.as_ref()));
    if seen.info.is_err() {
        findings.extend(["engine calls", "place"].map(|check| Finding::skipped(check, "the engine does not answer")));
        return findings;
    }
    let (refused, place) = tokio::join!(asked(LOOK, doctor.around.refused_calls()), place(doctor));
    match refused {
        Ok(refused) => match unlisted.filter(|_| refused.is_empty()) {
            Some(why) => findings.extend(super::bad("engine calls", why.clone().or_command("docker ps -a"))),
            None => findings.push(calls(&refused)),
        },
        Err(why) => findings.extend(super::bad("engine calls", why.or_command("docker info"))),
    }
    findings.extend(place);
    findings
}

fn engine(seen: &Seen, socket: Option<&Socket>) -> Vec<Finding> {
    match (&seen.info, socket) {
        (Ok(info), _) => {
            let facts = seen.facts.clone().unwrap_or_default();
            let mut said = vec![info.version.clone(), format!("API {}", info.api_version), info.platform.clone()];
            said.extend(Some(facts.storage).filter(|storage| !storage.is_empty()));
            said.extend(info.containerd_store.then(|| "containerd's store".to_owned()));
            said.extend(facts.rootless.then(|| "rootless".to_owned()));
            vec![Finding::ok("engine", said.join(", "))]
        }
        (Err(why), Some(socket)) if socket.file.is_some() && !socket.opens() => {
            vec![Finding::skipped("engine", format!("its socket cannot be opened: {why}"))]
        }
        (Err(why), _) => {
            let remedy =
                "start Docker (systemctl start docker), mount /var/run/docker.sock, or name the engine in DOCKER_HOST";
            super::bad("engine", why.clone().or_text(remedy)).collect()
        }
    }
}

fn socket_of(seen: &Seen, socket: Option<&Socket>) -> Finding {
    let Some(socket) = socket else { return Finding::skipped("socket", "the engine is reached over TCP") };
    let path = socket.path.display();
    let Some(file) = socket.file else { return Finding::skipped("socket", format!("there is no {path}")) };
    let (owner, group, mode, user) = (file.owner, file.group, file.mode, socket.user);
    let text = format!("{path} is of user {owner} and group {group}, mode {mode:04o}; this process is user {user}");
    match seen.info.is_ok() || socket.opens() {
        true => Finding::ok("socket", text),
        false => Finding::bad(
            "socket",
            Refusal::new(
                Code::SocketDenied,
                format!("{text} in the groups {:?}, which may not open it", socket.groups),
            )
            .text(format!(
                "run it as root, or in that group: user: \"{user}:{group}\" or group_add: [\"{group}\"] in the Compose file, usermod -aG {group} on the host"
            )),
        ),
    }
}

fn calls(refused: &[String]) -> Finding {
    if refused.is_empty() {
        return Finding::ok("engine calls", "all that an update needs are let through");
    }
    Finding::bad(
        "engine calls",
        Refusal::new(Code::CallsRefused, format!("refused before they reach the engine: {}", refused.join(", ")))
            .text("allow them in the socket proxy, as deploy/socket-proxy.yml does"),
    )
}

/// May a job run where this process is? And are paths what they seem?
async fn place(doctor: &Doctor) -> Vec<Finding> {
    let (place, own) = tokio::join!(asked(LOOK, doctor.ports.place.check()), asked(LOOK, doctor.around.own()));
    let own = own.ok().flatten();
    let warnings = match place {
        Ok(warnings) => warnings,
        Err(why) => return super::bad("place", why.or_command("docker info")).collect(),
    };
    if !warnings.is_empty() {
        let name = own.as_ref().map_or_else(String::new, |own| own.container.name.clone());
        let remedy = format!("docker update --restart unless-stopped {}", shell_words::quote(&name));
        let finding = |text| Finding::warning("place", Refusal::new(Code::NoRestart, text).command(remedy.clone()));
        return warnings.into_iter().map(finding).collect();
    }
    vec![match own {
        None if doctor.options.own_container.is_some() => {
            Finding::ok("place", "in a container of another engine, which counts as the host")
        }
        None => Finding::ok("place", "on the host"),
        Some(own) => in_container(&own, &doctor.settings.env_file, &doctor.settings.state_dir, doctor),
    }]
}

fn in_container(own: &OwnContainer, env_file: &Path, state: &Path, doctor: &Doctor) -> Finding {
    let name = &own.container.name;
    let folder = env_file.parent().unwrap_or(Path::new("/"));
    let on_host = |path: &Path| own.on_host(path).map_or("nowhere".into(), |there| there.path.display().to_string());
    let is_single = own.on_host(env_file).is_some_and(|there| there.is_mount);
    if is_single {
        let orphaned = doctor.around.orphans().iter().any(|orphan| orphan == env_file);
        let since =
            if orphaned { ", and the host has replaced it since: what is seen here is an old file" } else { "" };
        let seen = format!("{} is mounted by itself{since}; an editor replaces files", env_file.display());
        let why = Refusal::new(Code::EnvSingleFile, seen);
        let remedy = format!("mount the folder instead: volumes: [\".:{}\"]", folder.display());
        return Finding::warning("place", why.text(remedy));
    }
    let mounts = format!(
        "container {name}; {} is {} on the host, {} is {}",
        folder.display(),
        on_host(folder),
        state.display(),
        on_host(state)
    );
    Finding::ok("place", mounts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;
    use crate::doctor::around::SocketFile;

    #[test]
    fn who_may_open_the_socket() {
        for (user, groups, mode, opens) in [
            (0, vec![], 0o660, true),
            (1000, vec![113], 0o660, true),
            (1000, vec![1000], 0o660, false),
            (1000, vec![113], 0o640, false),
            (1000, vec![1000], 0o666, true),
            (7, vec![113], 0o060, false),
        ] {
            let file = Some(SocketFile { owner: 7, group: 113, mode });
            let socket = Socket { path: "/s".into(), file, user, groups };
            assert_eq!(socket.opens(), opens, "{socket:?}");
            let unseen = Seen { info: Err(Refused::because(Code::EngineUnreachable, "denied")), facts: None };
            let finding = socket_of(&unseen, Some(&socket));
            assert_eq!(finding.verdict == Verdict::Bad, !opens, "{finding:?}");
            assert_eq!(engine(&unseen, Some(&socket))[0].verdict == Verdict::Bad, opens, "one fault is one finding");
            assert!(opens || finding.remedy.unwrap().words().contains("group_add: [\"113\"]"));
        }
    }
}
