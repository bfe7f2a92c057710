//! What the updater remembers, what it has not ended, and what it left behind.

use super::around::{Holder, StateFolder};
use super::{Doctor, Finding, LOOK, asked};
use crate::command::{self, line};
use crate::engine::{Container, label, seal};
use crate::helper::session;
use crate::store::StoreError;
use crate::update::effects::taken_by_another;
use crate::update::job::{Job, JobId};
use crate::update::note::Note;
use crate::update::refusal::{Code, Refusal, Refused};
use crate::update::survey;

/// The journal's reserve, its logs and a job's record need some; bytes.
const LITTLE: u64 = 64 << 20;

pub async fn check(
    doctor: &Doctor,
    state: &StateFolder,
    unfinished: &Result<Vec<Job>, Refused>,
    containers: Option<&[Container]>,
) -> Vec<Finding> {
    let mut findings = vec![folder(doctor, state)];
    findings.extend(journal(doctor, state));
    findings.push(jobs(state, unfinished));
    findings.extend(match containers {
        Some(containers) => leftovers(doctor, state, unfinished, containers).await,
        None => vec![Finding::skipped("leftovers", "the engine does not answer, or is simulated")],
    });
    findings
}

fn folder(doctor: &Doctor, state: &StateFolder) -> Finding {
    let folder = &doctor.settings.state_dir;
    let path = folder.display();
    if let Some(why) = &state.unwritable {
        return Finding::bad(
            "state folder",
            Refusal::new(
                Code::StateUnwritable,
                format!("{path} (PROCESSGIT_UPDATER_STATE_DIR) cannot be written: {why}"),
            )
            .text(format!("`install -d -m 0700 {}`, as the user that runs the updater", command::path(folder))),
        );
    }
    if let Some(free) = state.free.filter(|free| *free < LITTLE) {
        let seen = format!("{path} has {} MiB free, needed are {}", free >> 20, LITTLE >> 20);
        let look = format!("df -h {}", command::path(folder));
        return Finding::warning("state folder", Refusal::new(Code::StateNoRoom, seen).command(look));
    }
    let holder = match &state.holder {
        Holder::Us => "in use by this updater".to_owned(),
        Holder::Other(who) if who.is_empty() => "in use by an updater".to_owned(),
        Holder::Other(who) => format!("in use by {who}"),
        Holder::Nobody if state.exists => "no updater works on it right now".to_owned(),
        Holder::Nobody => "`serve` will make it".to_owned(),
    };
    Finding::ok("state folder", format!("{path}, {holder}"))
}

fn journal(doctor: &Doctor, state: &StateFolder) -> Vec<Finding> {
    if let Some(why) = &state.unreadable {
        let path = doctor.settings.state_dir.join("journal.db");
        let seen = why.to_string();
        return vec![Finding::bad(
            "journal",
            match &**why {
                StoreError::Newer { .. } => {
                    Refusal::new(Code::JournalNewer, seen).text("install the version of the updater that ran last")
                }
                StoreError::Damaged { .. } => Refusal::new(Code::JournalDamaged, seen)
                    .text(format!("start the updater: it keeps {} aside and ends what was lost", path.display())),
                _ => Refusal::new(Code::JournalFailed, seen)
                    .command(format!("df -h {0}; ls -l {0}", command::path(&path))),
            },
        )];
    }
    let troubles = doctor.ports.journal.troubles();
    if troubles.is_empty() {
        return vec![Finding::ok("journal", "whole")];
    }
    let remedy = format!("ls -l {}/journal.db.damaged-*", command::path(&doctor.settings.state_dir));
    let finding =
        |text: String| Finding::warning("journal", Refusal::new(Code::JournalDamaged, text).command(remedy.clone()));
    troubles.into_iter().map(finding).collect()
}

fn jobs(state: &StateFolder, unfinished: &Result<Vec<Job>, Refused>) -> Finding {
    match (unfinished, &state.holder) {
        (Err(why), _) => Finding::bad(
            "jobs",
            Refusal::new(why.code(), why.to_string()).text("`processgit-updater history` shows what can be read"),
        ),
        (Ok(jobs), holder) => match (jobs.first(), holder) {
            (None, _) => Finding::ok("jobs", "none is unfinished"),
            (Some(job), Holder::Nobody) => Finding::bad(
                "jobs",
                Refusal::new(
                    Code::JobUnfinished,
                    format!("{} has not ended ({}), and no updater works on it", job.id, job.state),
                )
                .text(
                    "start the updater, which takes the job up: `docker compose up -d processgit-updater`, or `processgit-updater serve`",
                ),
            ),
            (Some(job), _) => Finding::ok("jobs", format!("{} is at work: {}", job.id, job.state)),
        },
    }
}

/// Containers of ours although their job has ended, or nobody works who could need them. Of another updater on
/// this engine only its claim to this application matters. What says to be ours and is not sealed is named.
async fn leftovers(
    doctor: &Doctor,
    state: &StateFolder,
    unfinished: &Result<Vec<Job>, Refused>,
    containers: &[Container],
) -> Vec<Finding> {
    let options = &doctor.options;
    let application = containers.iter().find(|c| c.name == options.app_container);
    let project = match application {
        Some(c) => survey::project_of(&doctor.ports, c, options).await.ok(),
        None => None,
    };
    let works = |id: &str| unfinished.as_ref().is_ok_and(|jobs| jobs.iter().any(|job| job.id.0 == id));
    let mut findings = Vec::new();
    let (mut forged, mut others, mut kept) = (Vec::new(), Vec::new(), Vec::new());
    let helpers_owner = helpers_owner(doctor).await;
    for c in containers.iter().filter(|c| seal::says_to_be_ours(c)) {
        let name = &c.name;
        let claimed = project.as_ref().and_then(|project| taken_by_another(c, project, &options.owner.seal));
        if let Some(text) = claimed {
            let why = Refusal::new(Code::Claimed, text).command(line(["docker", "inspect", name]));
            findings.push(Finding::bad("leftovers", why));
            continue;
        }
        let Some(ours) = options.owner.seal.read(c) else {
            let is_forged = names_this_updater(doctor, c, helpers_owner.as_deref()).await;
            if is_forged { &mut forged } else { &mut others }.push(c);
            continue;
        };
        let (role, remove) = (ours.role(), line(["docker", "rm", "-f", name]));
        match ours.label(label::JOB).or(ours.label(label::DEPUTY_OF)) {
            Some(id) if works(id) => {}
            Some(id) => {
                let job = asked(LOOK, doctor.ports.journal.job(id)).await.ok().flatten();
                if job.as_ref().is_some_and(|job| job.needs_you) {
                    kept.push(name.as_str());
                } else if job.is_some() {
                    let text = format!("container {name} ({role}) is left of {id}, which has ended");
                    findings.push(Finding::warning("leftovers", Refusal::new(Code::Leftover, text).command(remove)));
                }
            }
            None if state.holder == Holder::Nobody && !is_young(doctor, c) => {
                let running = if c.is_alive() { "still runs" } else { "is left" };
                let text = format!("container {name} ({role}) {running}, although no updater works here");
                let remedy = format!("`{}` shows what it ends; then `{remove}`", line(["docker", "logs", name]));
                findings.push(Finding::warning("leftovers", Refusal::new(Code::Leftover, text).text(remedy)));
            }
            None => {}
        }
    }
    if !forged.is_empty() {
        let text = format!(
            "these containers say that they belong to this updater, and do not carry its seal: {}. They are left alone; their labels were copied or inherited from an image, or an earlier version or another secret has made them",
            seal::few(&forged)
        );
        let look = line(["docker", "inspect", &forged[0].name]);
        findings.push(Finding::warning("leftovers", Refusal::new(Code::NotOurs, text).command(look)));
    }
    if findings.is_empty() {
        let also = match others.is_empty() {
            true => String::new(),
            false => format!("; left alone, as labelled by another updater: {}", seal::few(&others)),
        };
        let text = match kept.is_empty() {
            true => "no container of an ended job".to_owned(),
            false => format!("kept until you are done with the failed job: {}", kept.join(", ")),
        };
        findings.push(Finding::ok("leftovers", text + &also));
    }
    findings
}

/// As the helpers of this updater are labelled; `None` on the host, where it has none.
async fn helpers_owner(doctor: &Doctor) -> Option<String> {
    let own = asked(LOOK, doctor.around.own()).await.ok().flatten()?;
    session::owner(&own, &doctor.settings.state_dir)
}

/// Its labels name this updater or one of its jobs.
async fn names_this_updater(doctor: &Doctor, c: &Container, helpers_owner: Option<&str>) -> bool {
    let note = c.label(label::NOTE).and_then(|text| serde_json::from_str::<Note>(text).ok());
    let id = doctor.options.owner.id.as_str();
    if note.as_ref().is_some_and(|note| note.installation == id) {
        return true;
    }
    if c.label(label::OWNER).is_some_and(|owner| owner == id || Some(owner) == helpers_owner) {
        return true;
    }
    let job = c.label(label::JOB).or(c.label(label::DEPUTY_OF)).and_then(|id| id.parse::<JobId>().ok());
    let Some(job) = note.map(|note| note.job).or(job) else { return false };
    asked(LOOK, doctor.ports.journal.job(&job.0)).await.is_ok_and(|known| known.is_some())
}

/// A helper outlives its updater for a moment, and then ends by itself.
fn is_young(doctor: &Doctor, helper: &Container) -> bool {
    let age = helper.started_at.map(|at| doctor.ports.clock.now().duration_since(at).as_secs());
    helper.is_alive() && age.is_some_and(|age| age < 120)
}
