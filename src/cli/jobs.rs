//! A job that a command has begun: followed to its verdict, whatever it is for.

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{Client, ClientError};
use super::{Outcome, complain, follow, say, show, view};
use crate::update::job::{Job, JobId, State};

/// The exit code of a command that SIGINT ended, as shells have it.
const INTERRUPTED: u8 = 130;

/// How the job is watched.
#[derive(Debug, Args)]
pub struct Following {
    /// Print the job as JSON and nothing else
    #[arg(long)]
    pub json: bool,
    /// Return as soon as the job is accepted
    #[arg(long)]
    no_follow: bool,
}

impl Following {
    /// Nobody waits for the verdict.
    pub fn returns_at_once(&self) -> bool {
        self.no_follow
    }
}

/// Asks for a job.
pub async fn begin(client: &Client, path: &str, request: &Value) -> Result<Job, ClientError> {
    #[derive(Deserialize)]
    struct Accepted {
        job: Job,
    }
    Ok(client.post::<Accepted>(path, request.to_string().into_bytes()).await?.job)
}

/// Shows `job` until it has ended; the exit code tells how.
pub async fn to_the_end(client: &Client, job: Job, following: &Following) -> Outcome {
    let aim = show::aim(&job);
    if following.no_follow {
        return match following.json {
            true => say(format!("{}\n", json!(job))),
            false => say(format!("{}: {aim}; see it with: processgit-updater status\n", job.id)),
        };
    }
    if !following.json {
        say(format!("{}: {aim}\n", job.id))?;
    }
    let Some(job) = followed(client, &job.id, following.json).await? else { return Ok(INTERRUPTED) };
    match following.json {
        true => say(format!("{}\n", json!(job)))?,
        false => say(show::trusted(&job))?,
    };
    match show::verdict(&job) {
        Ok(_) if following.json => {}
        Ok(text) => {
            say(format!("{text}\n"))?;
        }
        Err(text) => complain(&text),
    }
    Ok(follow::exit_code(&job))
}

/// Follows a job that was told to end, and shows that it has.
pub async fn aborted(client: &Client, job: Job, json: bool) -> Outcome {
    let Some(job) = followed(client, &job.id, true).await? else { return Ok(INTERRUPTED) };
    match json {
        true => say(format!("{}\n", json!(job)))?,
        false => say(format!("{}: {}\n", job.id, job.state))?,
    };
    Ok(u8::from(job.state != State::Aborted))
}

/// The job with its verdict, or nothing when the person in front did not want to wait for it.
async fn followed(client: &Client, id: &JobId, json: bool) -> Result<Option<Job>, ClientError> {
    let path = format!("/update/{id}");
    let mut view = view::choose(json);
    let outcome = tokio::select! {
        ended = follow::follow(async || client.get_as::<Job>(&path).await, view.as_mut()) => ended.map(Some),
        _ = tokio::signal::ctrl_c() => Ok(None),
    };
    drop(view);
    if let Ok(None) = outcome {
        eprintln!("\nno longer following: {id} goes on by itself; see it with: processgit-updater status");
    }
    outcome
}
