//! `doctor`: a running updater is asked, because it sees what it will act on; where none answers, this
//! process looks by itself.

use clap::Args;

use super::client::{Access, ClientError};
use super::remote::as_it_is;
use super::{CliError, Outcome, say};
use crate::daemon;
use crate::doctor::{Examine, Finding, Report, show};
use crate::settings::ServeArgs;
use crate::update::refusal::{Code, Refusal};

/// What answers 404 is an updater of an earlier version.
const UNKNOWN: u16 = 404;

pub const EXAMPLES: &str = "\
Examples:
  In the running container
    docker compose exec processgit-updater /processgit-updater doctor

  Before the updater is started, or when it does not start
    docker compose run --rm processgit-updater doctor

  The real deployment, while the updater still simulates
    processgit-updater doctor --here --stub=false";

#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Address of the updater: http://HOST:PORT, https://HOST or unix:/PATH
    #[arg(long, env = "PROCESSGIT_UPDATER_URL", value_name = "URL")]
    url: Option<String>,
    /// Look from this process, also if an updater answers
    #[arg(long)]
    here: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten, next_help_heading = "Settings, as of `serve`; for a look from here")]
    serve: Box<ServeArgs>,
}

/// `doctor`
pub fn run(args: DoctorArgs) -> Outcome {
    // Compose and the walk through the data run beside each other.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let outcome = runtime.block_on(examine(args));
    // A look that took too long is not waited for.
    runtime.shutdown_background();
    outcome
}

async fn examine(args: DoctorArgs) -> Outcome {
    let DoctorArgs { url, here, json, serve } = args;
    let first = match here {
        true => Finding::skipped("updater", "not asked: --here"),
        false => {
            let access = Access::new(url, serve.token_file());
            match ask(access).await {
                Ok((answer, report)) if json => return as_it_is(answer).map(|_| u8::from(!report.ok)),
                Ok((_, report)) => return print(&report),
                Err(unanswered) => unanswered,
            }
        }
    };
    let doctor = daemon::doctor(*serve).await.map_err(|e| CliError::Failed(e.to_string()))?;
    let report = doctor.examine().await.after(first);
    if !json {
        return print(&report);
    }
    let text = serde_json::to_string_pretty(&report).map_err(|e| CliError::Failed(e.to_string()))?;
    say(text + "\n").map(|_| u8::from(!report.ok))
}

/// The report of the updater that runs, or what came instead.
async fn ask(access: Access) -> Result<(Vec<u8>, Report), Finding> {
    let from_here = |seen: String, remedy: &str| {
        let why = Refusal::new(Code::UpdaterSilent, format!("{seen}; looked from here"));
        Finding::warning("updater", why.text(remedy))
    };
    let start = "start it: `docker compose up -d processgit-updater`, or `processgit-updater serve`";
    let client = match access.client() {
        Ok(client) => client,
        // A fault of the settings, which is told there.
        Err(why) => return Err(Finding::skipped("updater", format!("not asked: {why}"))),
    };
    let asked = async {
        let answer = client.get("/doctor").await?;
        let report = client.understood::<Report>(&answer)?;
        Ok::<_, ClientError>((answer, report))
    };
    match asked.await {
        Ok((answer, report)) => {
            let seen = format!("{} answers at {}, and these are its findings", report.version, client.url());
            Ok((answer, report.after(Finding::ok("updater", seen))))
        }
        Err(ClientError::Unreachable { url, reason }) => {
            Err(from_here(format!("none answers at {url} ({reason})"), start))
        }
        Err(ClientError::Refused { status, .. }) if status.as_u16() == UNKNOWN => Err(from_here(
            format!("the one at {} is too old to be asked", client.url()),
            "`processgit-updater self-update`",
        )),
        Err(why) => {
            Err(from_here(why.to_string(), "PROCESSGIT_UPDATER_TOKEN must be what the updater was started with"))
        }
    }
}

fn print(report: &Report) -> Outcome {
    let terminal = terminal_size::terminal_size_of(std::io::stdout());
    say(show::report(report, terminal.map(|(width, _)| usize::from(width.0))))?;
    Ok(u8::from(!report.ok))
}
