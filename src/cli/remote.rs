//! The commands that ask a running updater.

use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{Access, Client, ClientError, Status};
use super::confirm::confirm;
use super::jobs::{self, Following};
use super::{CliError, Outcome, say, show};
use crate::command::word;
use crate::engine::docker::DockerEngine;
use crate::engine::label;
use crate::helper::own::{self, Own};
use crate::release::Release;
use crate::text::clean_lines;
use crate::update::job::Job;
use crate::update::settle::Settlement;
use crate::update::{Check, Request};

/// How long a healthy updater takes to say so, at most; below Docker's default for a HEALTHCHECK.
const HEALTHZ_TIMEOUT: Duration = Duration::from_secs(5);

/// Which releases are offered.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Channel {
    Stable,
    Prerelease,
}

impl Channel {
    fn name(self) -> &'static str {
        match self {
            Self::Stable => "stable",
            Self::Prerelease => "prerelease",
        }
    }
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    access: Access,
    /// Print the updater's answer as it is
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    wanted: Wanted,
    /// Ask the release server anew, whatever is remembered of the last minute
    #[arg(long)]
    fresh: bool,
    /// Print the updater's answer as it is
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Wanted {
    /// The release, such as v0.1.2; without it the newest of the channel
    tag: Option<String>,
    /// Where the newest release is looked for: without pre-releases, or with them
    #[arg(long, value_enum, default_value = "stable", conflicts_with = "tag")]
    channel: Channel,
    /// Also to a version older than the one that runs
    #[arg(long)]
    allow_downgrade: bool,
    /// Also if the files differ from what runs in more than the version
    #[arg(long)]
    accept_drift: bool,
    /// Also if the application is not well now: to repair it
    #[arg(long)]
    accept_unwell: bool,
}

#[derive(Debug, Args)]
pub struct UpdateArgs {
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    wanted: Wanted,
    /// Also if this very image was started and rolled back before
    #[arg(long)]
    retry: bool,
    #[command(flatten)]
    following: Following,
}

#[derive(Debug, Args)]
pub struct SelfUpdateArgs {
    #[command(flatten)]
    access: Access,
    /// The release's tag [default: the newest]
    tag: Option<String>,
    /// Also to a version older than the one that runs
    #[arg(long)]
    allow_downgrade: bool,
    /// Also if the files differ from what runs in more than the version
    #[arg(long)]
    accept_drift: bool,
    /// Also if the application is not well now: to repair it
    #[arg(long)]
    accept_unwell: bool,
    /// Also if this very image was started and rolled back before
    #[arg(long)]
    retry: bool,
    #[command(flatten)]
    following: Following,
}

#[derive(Debug, Args)]
pub struct AbortArgs {
    #[command(flatten)]
    access: Access,
    /// The job; without it the one that is active
    job: Option<String>,
    /// Print the job as JSON and nothing else
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub struct SettleArgs {
    #[command(flatten)]
    access: Access,
    /// The failed job
    job: String,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Print what was done as JSON and nothing else; needs --yes
    #[arg(long, requires = "yes")]
    json: bool,
}

#[derive(Debug, Args)]
pub struct HistoryArgs {
    #[command(flatten)]
    access: Access,
    /// Only this one, in full: what it did, and whose signatures it trusted
    job: Option<String>,
    /// How many jobs
    #[arg(short, value_name = "N", default_value = "50", conflicts_with = "job", value_parser = clap::value_parser!(u16).range(1..))]
    number: u16,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub struct HealthzArgs {
    #[command(flatten)]
    access: Access,
}

/// `status`
pub async fn status(args: StatusArgs) -> Outcome {
    let client = args.access.client()?;
    let answer = client.get("/status").await?;
    if args.json {
        return as_it_is(answer);
    }
    let status: Status = client.understood(&answer)?;
    say(show::status(&status, client.url(), jiff::Timestamp::now()))
}

/// `check`
pub async fn check(args: CheckArgs) -> Outcome {
    let client = args.access.client()?;
    let wanted = &args.wanted;
    let mut query = format!(
        "channel={}&allow_downgrade={}&accept_drift={}&accept_unwell={}&fresh={}",
        wanted.channel.name(),
        wanted.allow_downgrade,
        wanted.accept_drift,
        wanted.accept_unwell,
        args.fresh
    );
    if let Some(tag) = &wanted.tag {
        query.push_str("&tag=");
        query.extend(url::form_urlencoded::byte_serialize(tag.as_bytes()));
    }
    let answer = client.get(&format!("/check?{query}")).await?;
    let check: Check = client.understood(&answer)?;
    if args.json {
        as_it_is(answer)?;
    } else {
        say(show::check(&check))?;
    }
    Ok(u8::from(!check.allowed && !check.up_to_date))
}

/// `history`
pub async fn history(args: HistoryArgs) -> Outcome {
    let client = args.access.client()?;
    if let Some(id) = args.job {
        let id: String = url::form_urlencoded::byte_serialize(id.as_bytes()).collect();
        let answer = client.get(&format!("/update/{id}")).await?;
        return if args.json { as_it_is(answer) } else { say(show::job(&client.understood(&answer)?)) };
    }
    let answer = client.get("/history").await?;
    let number = usize::from(args.number);
    if args.json {
        let mut history: Value = client.understood(&answer)?;
        if let Some(jobs) = history["jobs"].as_array_mut() {
            jobs.truncate(number);
        }
        return say(format!("{history}\n"));
    }
    #[derive(Deserialize)]
    struct History {
        jobs: Vec<Job>,
    }
    let mut history: History = client.understood(&answer)?;
    history.jobs.truncate(number);
    say(show::history(&history.jobs))
}

/// `healthz`
pub async fn healthz(args: HealthzArgs) -> Outcome {
    let client = args.access.anonymous()?;
    let answer = tokio::time::timeout(HEALTHZ_TIMEOUT, client.get_as::<Value>("/healthz"));
    let answer = answer.await.map_err(|_| {
        CliError::Failed(format!("{} did not answer within {} s", client.url(), HEALTHZ_TIMEOUT.as_secs()))
    })??;
    match answer["status"].as_str() {
        Some("ok") => say("ok\n"),
        other => Err(CliError::Failed(format!("{} says {other:?} instead of \"ok\"", client.url()))),
    }
}

/// `update`
pub async fn update(args: UpdateArgs) -> Outcome {
    let client = args.access.client()?;
    let job = submit(&client, args.wanted, args.retry).await?;
    jobs::to_the_end(&client, job, &args.following).await
}

/// `self-update`
pub async fn self_update(args: SelfUpdateArgs) -> Outcome {
    let client = args.access.client()?;
    let SelfUpdateArgs { tag, allow_downgrade, accept_drift, retry, accept_unwell, .. } = args;
    let target_tag = tag.unwrap_or_default();
    let request = Request { target_tag, allow_downgrade, accept_drift, retry, accept_unwell };
    let job = jobs::begin(&client, "/self-update", &json!(request)).await?;
    if !args.following.returns_at_once()
        && let Some(note) = ends_with_the_updater(&client, &job).await
    {
        eprintln!("{}", clean_lines(&note));
    }
    jobs::to_the_end(&client, job, &args.following).await
}

/// What is said where this very process ends with the updater's container, so that nobody waits for a verdict here.
async fn ends_with_the_updater(client: &Client, job: &Job) -> Option<String> {
    let id = own::container_id()?;
    let own = match DockerEngine::from_environment() {
        Ok(engine) => Own::new(Arc::new(engine), Some(id)).container().await.ok().flatten(),
        Err(_) => None,
    };
    let own = own.as_ref().map(|own| &own.container);
    // One of its own goes on.
    if own.is_some_and(|own| own.label(label::ONEOFF) == Some("True")) {
        return None;
    }
    let service = word(own.and_then(|own| own.label(label::SERVICE)).unwrap_or("processgit-updater"));
    let id = &job.id;
    let port = url::Url::parse(client.url()).ok().and_then(|url| url.port_or_known_default()).unwrap_or(9000);
    // In the host's network both have the same address.
    let url = match own.is_some_and(|own| own.network_mode == "host") {
        true => String::new(),
        false => format!(" --url http://{service}:{port}"),
    };
    Some(format!(
        "this command runs in the container that is replaced, and ends with it (exit code 137); {id} goes on. Its verdict: docker compose exec {service} /processgit-updater history {id}\nNext time a container of its own follows to the end: docker compose run --rm --no-deps {service} self-update{url}"
    ))
}

/// `abort`
pub async fn abort(args: AbortArgs) -> Outcome {
    let client = args.access.client()?;
    let id = match args.job {
        Some(id) => url::form_urlencoded::byte_serialize(id.as_bytes()).collect(),
        None => match client.get_as::<Status>("/status").await?.active_job {
            Some(job) => job.id.0,
            None => return Err(CliError::Failed("no job is active: there is nothing to abort".into())),
        },
    };
    let job = jobs::begin(&client, &format!("/update/{id}/abort"), &json!({})).await?;
    jobs::aborted(&client, job, args.json).await
}

/// `settle`
pub async fn settle(args: SettleArgs) -> Outcome {
    let client = args.access.client()?;
    let id: String = url::form_urlencoded::byte_serialize(args.job.as_bytes()).collect();
    let path = format!("/update/{id}/settle");
    if !args.json {
        let view: Settlement = client.get_as(&path).await?;
        say(show::settlement(&view))?;
    }
    confirm("Remove this, and declare the job done?", args.yes).await?;
    let settled: Settlement = client.post(&path, Vec::new()).await?;
    if args.json {
        let text = serde_json::to_string_pretty(&settled).map_err(|e| CliError::Failed(e.to_string()))?;
        return say(text + "\n");
    }
    say(format!("{}: settled\n", settled.job.id))
}

async fn submit(client: &Client, wanted: Wanted, retry: bool) -> Result<Job, ClientError> {
    let target_tag = match wanted.tag {
        Some(tag) => tag,
        None => {
            let newest = format!("/releases/latest?channel={}&fresh=true", wanted.channel.name());
            client.get_as::<Release>(&newest).await?.tag
        }
    };
    let Wanted { allow_downgrade, accept_drift, accept_unwell, .. } = wanted;
    let request = Request { target_tag, allow_downgrade, accept_drift, retry, accept_unwell };
    jobs::begin(client, "/update", &json!(request)).await
}

/// The updater's JSON, every value as it is, and an end of line.
pub fn as_it_is(answer: Vec<u8>) -> Outcome {
    let text = String::from_utf8_lossy(&answer);
    say(format!("{}\n", crate::text::escaped_json(&text)))
}
