//! The commands: thin clients of the API, except `serve` and those that only touch files.
//!
//! ```text
//! main ── serve                          → daemon
//!      ├─ deputy                         → deputy (a self-update), helper → helper::serve
//!      ├─ status, check, update, abort … → remote    ┐
//!      ├─ doctor                         → doctor     │ (or, where none answers, crate::doctor here)
//!      ├─ snapshot …                     → snapshots ├ client ── HTTP
//!      ├─ rollback                       → rollback  ┘   └ jobs ── follow ── news ── view (plain | live)
//!      └─ env, manifest, completions     → local
//! ```
//! Answers go to stdout, progress of a live view and errors to stderr.

mod client;
mod confirm;
mod doctor;
mod follow;
mod jobs;
mod local;
mod news;
mod remote;
mod rollback;
mod show;
mod snapshots;
mod text;
mod view;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

pub use follow::exit_code;

use crate::api::VERSION;
use client::ClientError;

const EXAMPLES: &str = "\
Examples:
  Run the updater; without arguments it is the same
    processgit-updater serve

  Would an update work? What would go wrong?
    processgit-updater doctor

  What would the newest release change?
    processgit-updater check

  Install the newest release and wait for the verdict
    processgit-updater update

  Install one release, from a script, and keep the job as JSON
    processgit-updater update v0.1.2 --json > job.json

  Back to the version before, with the data of that moment
    processgit-updater rollback

  In the running container
    docker compose exec updater processgit-updater status

Exit codes:
  0 done   1 error   2 usage or configuration
  of a job: 0 committed   3 rolled back   4 failed, a person is needed   5 aborted   6 not started   130 interrupted";

/// Updates a Docker Compose application as one transaction
///
/// The image that runs, the configuration that selects it and the data in its volumes become the new
/// version's together, and only if the application then proves healthy; otherwise all three are what they
/// were before. `serve` is the sidecar that does it; the other commands ask a running one.
#[derive(Debug, Parser)]
#[command(name = "processgit-updater", version = VERSION, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the updater (also without any argument)
    Serve(Box<crate::settings::ServeArgs>),
    /// How the updater is, and what it does right now
    Status(remote::StatusArgs),
    /// What an update would do, without doing it
    ///
    /// Exit code 0 if the update would begin or the release runs already, 1 if it would be refused; `doctor`
    /// looks at more than one release needs.
    Check(remote::CheckArgs),
    /// Look for everything that would make an update fail, and change nothing
    ///
    /// A running updater is asked; where none answers, this process looks by itself, with the settings of
    /// its own environment. Exit code 0 if nothing is bad, 1 otherwise.
    #[command(after_help = doctor::EXAMPLES)]
    Doctor(doctor::DoctorArgs),
    /// Install a release and follow the job to its verdict
    ///
    /// Interrupting it (Ctrl-C) stops the following, not the job.
    Update(remote::UpdateArgs),
    /// Install another version of the updater itself, in its place
    ///
    /// A container that outlives it does the work, with the gate and the way back of every update. Without a
    /// tag: the newest release.
    SelfUpdate(remote::SelfUpdateArgs),
    /// Leave a job that has not touched the application yet
    ///
    /// Works until the application is stopped for it; afterwards the answer says why it is too late. Exit
    /// code 0 when the job has ended aborted.
    Abort(remote::AbortArgs),
    /// Declare a failed job done, when the application runs as it should again
    ///
    /// Until then what the job's commands need is kept, and no update is begun. Shows what will be removed and
    /// asks first.
    Settle(remote::SettleArgs),
    /// Copies of the data: make, list, check, put back, take along
    #[command(subcommand, after_help = snapshots::EXAMPLES)]
    Snapshot(snapshots::SnapshotCommand),
    /// Go back to the version before the last committed update
    ///
    /// With the data of that moment, unless told otherwise; what was written since is kept as a snapshot.
    /// Shows what would happen and asks first.
    #[command(after_help = rollback::EXAMPLES)]
    Rollback(rollback::RollbackArgs),
    /// The last jobs, newest first; or one of them in full
    History(remote::HistoryArgs),
    /// Read or set a variable of the .env file
    #[command(subcommand)]
    Env(local::EnvCommand),
    /// Work with release manifests
    #[command(subcommand)]
    Manifest(local::ManifestCommand),
    /// Does the updater answer? For a container's HEALTHCHECK
    Healthz(remote::HealthzArgs),
    /// The work of `serve` that must be done where the host's paths are true; made by it, not by hand
    #[command(hide = true)]
    Helper(local::HelperArgs),
    /// The container that `self-update` makes; not by hand
    #[command(hide = true)]
    Deputy(local::DeputyArgs),
    /// Completions for a shell, to stdout
    ///
    /// For bash: source <(processgit-updater completions bash)
    Completions { shell: clap_complete::Shell },
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("cannot write the answer: {0}")]
    Output(#[from] io::Error),
    #[error("{0}")]
    Failed(String),
}

/// How a command ended: its exit code, or why it failed.
type Outcome = Result<u8, CliError>;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    match run(Cli::parse_from(arguments())) {
        Ok(code) => ExitCode::from(code),
        // Whoever read our output has seen enough, as `head` has.
        Err(CliError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// Containers made for the earlier program start it without arguments.
fn arguments() -> Vec<OsString> {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    if arguments.len() < 2 {
        arguments.push("serve".into());
    }
    arguments
}

fn run(cli: Cli) -> Outcome {
    match cli.command {
        Command::Serve(args) => local::serve(*args),
        Command::Status(args) => block_on(remote::status(args)),
        Command::Check(args) => block_on(remote::check(args)),
        Command::Doctor(args) => doctor::run(args),
        Command::Update(args) => block_on(remote::update(args)),
        Command::SelfUpdate(args) => block_on(remote::self_update(args)),
        Command::Abort(args) => block_on(remote::abort(args)),
        Command::Settle(args) => block_on(remote::settle(args)),
        Command::Snapshot(command) => block_on(snapshots::run(command)),
        Command::Rollback(args) => block_on(rollback::run(args)),
        Command::History(args) => block_on(remote::history(args)),
        Command::Healthz(args) => block_on(remote::healthz(args)),
        Command::Deputy(args) => local::deputy(args),
        Command::Helper(args) => local::helper(args),
        Command::Env(command) => local::env(command),
        Command::Manifest(command) => local::manifest(command),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "processgit-updater", &mut script);
            say(&script)
        }
    }
}

/// A client needs no more than this thread.
fn block_on(command: impl Future<Output = Outcome>) -> Outcome {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(command)
}

/// Writes an answer to stdout.
fn say(answer: impl AsRef<[u8]>) -> Outcome {
    let mut out = io::stdout().lock();
    out.write_all(answer.as_ref())?;
    out.flush()?;
    Ok(0)
}

/// Tells a fault, once.
fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "error: {}", text::clean_lines(text));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn usage() {
        for (line, good) in [
            ("serve", true),
            ("status", true),
            ("status --json --url unix:/run/u.sock", true),
            ("check", true),
            ("check v0.1.2 --allow-downgrade --accept-drift --json", true),
            ("check --channel prerelease", true),
            ("check --channel beta", false),
            ("check v0.1.2 --channel stable", false),
            ("doctor", true),
            ("doctor --here --json --stub=false --app-container app", true),
            ("doctor v0.1.2", false),
            ("update", true),
            ("update v0.1.2 --retry --no-follow", true),
            ("update v0.1.2 v0.1.3", false),
            ("self-update", true),
            ("self-update v0.2.0 --retry --json", true),
            ("self-update v0.2.0 v0.3.0", false),
            ("update --token secret", false),
            ("abort", true),
            ("settle job_00000000000000a1 --yes --json", true),
            ("settle job_00000000000000a1 --json", false),
            ("settle", false),
            ("abort job_00000000000000a1 --json", true),
            ("abort job_00000000000000a1 job_00000000000000a2", false),
            ("snapshot create --hot --no-follow", true),
            ("snapshot list --json", true),
            ("snapshot verify gen-1", true),
            ("snapshot verify", false),
            ("snapshot restore gen-1 --yes --accept-drift", true),
            ("snapshot restore --yes", false),
            ("snapshot export gen-1 -", true),
            ("snapshot export gen-1", false),
            ("snapshot prune", true),
            ("snapshot", false),
            ("rollback", true),
            ("rollback --without-data --yes --json", true),
            ("rollback v0.1.1", false),
            ("history -n 3", true),
            ("history -n 0", false),
            ("history job_00000000000000a1 --json", true),
            ("history job_00000000000000a1 -n 3", false),
            ("history -n many", false),
            ("env get PROCESSGIT_VERSION", true),
            ("env get", false),
            ("env set PROCESSGIT_VERSION 0.1.2 --file /tmp/.env", true),
            ("env set PROCESSGIT_VERSION", false),
            ("env unset PROCESSGIT_VERSION --file /tmp/.env", true),
            ("env unset", false),
            ("manifest verify release.json other.json", true),
            ("manifest verify", false),
            ("healthz", true),
            ("completions fish", true),
            ("completions cmd", false),
            ("nonsense", false),
        ] {
            let arguments = std::iter::once("processgit-updater").chain(line.split(' '));
            assert_eq!(Cli::try_parse_from(arguments).is_ok(), good, "{line}");
        }
    }
}
