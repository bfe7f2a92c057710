//! The commands that ask nobody: they serve, or touch files of this machine.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use super::text::clean;
use super::{CliError, Outcome, block_on, complain, say, show};
use crate::daemon::{self, ServeError};
use crate::deputy::{self, Mission};
use crate::envfile;
use crate::helper::serve::{self, HelperSettings};
use crate::https::Authorities;
use crate::release::manifest::Manifest;
use crate::settings::{ServeArgs, Settings, Signing, default, name};
use crate::snapshot::Limits;
use crate::snapshot::host::Retention;
use crate::trust::judge::Judge;
use crate::trust::{Trust as _, TrustError, TrustFault};
use crate::update::Request;
use crate::update::job::JobId;
use crate::update::refusal::Refusal;

/// The exit code of a faulty configuration.
const CONFIGURATION: u8 = 2;

/// Which `.env` is meant.
#[derive(Debug, Args)]
pub struct EnvFile {
    /// The file
    #[arg(long, env = "PROCESSGIT_UPDATER_ENV_FILE", default_value = "/deploy/.env", value_name = "PATH")]
    file: PathBuf,
}

#[derive(Debug, Subcommand)]
pub enum EnvCommand {
    /// Print the value of KEY; exit code 1 if it is not set
    Get {
        /// The variable's name
        key: String,
        #[command(flatten)]
        file: EnvFile,
    },
    /// Set KEY to VALUE, atomically; comments, other keys, owner and mode stay
    Set {
        /// The variable's name
        key: String,
        /// Its new value, without quotes
        value: String,
        #[command(flatten)]
        file: EnvFile,
    },
    /// Take KEY out, atomically; comments, other keys, owner and mode stay
    Unset {
        /// The variable's name
        key: String,
        #[command(flatten)]
        file: EnvFile,
    },
}

#[derive(Debug, Subcommand)]
pub enum ManifestCommand {
    /// Check release manifests and the signatures beside them
    ///
    /// Looks for the files that carry a signature (such as release.json.sigstore.json) in the same folder.
    Verify(VerifyArgs),
}

/// By which policy files are judged: the settings of `serve`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// A release.json
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// PEM public key that must have signed; without it the signature must be keyless
    #[arg(long, env = name::SIGNING_KEY, value_name = "FILE")]
    signing_key: Option<PathBuf>,
    /// OWNER/NAME whose release workflow must have signed
    #[arg(long, env = name::REPO, default_value = default::REPO)]
    repo: String,
    /// OIDC issuer that must have vouched
    #[arg(long, env = name::SIGNING_ISSUER, default_value = default::SIGNING_ISSUER, value_name = "URL")]
    signing_issuer: String,
    /// Identity that must have signed; default: the release workflow of --repo
    #[arg(long, env = name::SIGNING_IDENTITY_REGEX, value_name = "REGEX")]
    signing_identity_regex: Option<String>,
    /// trusted_root.json of a private Sigstore
    #[arg(long, env = name::TRUSTED_ROOT, value_name = "FILE")]
    trusted_root: Option<PathBuf>,
    /// CA certificates in PEM, believed beside the system's; needed only where a log must be asked
    #[arg(long, env = name::CA_FILE, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

/// What `serve` tells a deputy; its settings are those of `serve`.
#[derive(Debug, Args)]
pub struct DeputyArgs {
    job: JobId,
    tag: String,
    container: String,
    #[arg(long)]
    allow_downgrade: bool,
    #[arg(long)]
    accept_drift: bool,
    #[arg(long)]
    retry: bool,
    #[arg(long)]
    accept_unwell: bool,
    #[command(flatten)]
    serve: Box<ServeArgs>,
}

/// `deputy`: updates the updater that made it.
pub fn deputy(args: DeputyArgs) -> Outcome {
    let DeputyArgs { job, tag, container, allow_downgrade, accept_drift, retry, accept_unwell, serve } = args;
    let request = Request { target_tag: tag, allow_downgrade, accept_drift, retry, accept_unwell };
    let mission = Mission { job, request, container };
    with_settings(*serve, |settings| deputy::serve(settings, mission))
}

/// `serve`
pub fn serve(args: ServeArgs) -> Outcome {
    with_settings(args, daemon::serve)
}

/// Runs a service on a runtime of its own. Every fault of the settings is a line on stderr.
fn with_settings<F>(args: ServeArgs, service: impl FnOnce(Settings) -> F) -> Outcome
where
    F: Future<Output = Result<(), ServeError>>,
{
    let settings = match args.settings() {
        Ok(settings) => settings,
        Err(faults) => {
            faults.iter().for_each(|fault| complain(&fault.to_string()));
            return Ok(CONFIGURATION);
        }
    };
    log_to_stdout(&settings);
    // An update waits more than it computes.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let served = runtime.block_on(service(settings));
    // Whatever still blocks a thread is a job's, and the next start takes the job up.
    runtime.shutdown_background();
    match served {
        Ok(()) => Ok(0),
        Err(error) => {
            tracing::error!("{error}");
            complain(&error.to_string());
            Ok(if error.is_configuration() { CONFIGURATION } else { 1 })
        }
    }
}

/// One JSON object a line. Dependencies speak only of trouble, whatever the level: some of them would log
/// headers.
fn log_to_stdout(settings: &Settings) {
    let level = if settings.debug { LevelFilter::DEBUG } else { LevelFilter::INFO };
    let filter = Targets::new().with_default(LevelFilter::WARN).with_target("processgit_updater", level);
    let lines = tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(std::io::stdout);
    tracing_subscriber::registry().with(lines.with_filter(filter)).init();
}

/// What `serve` tells a helper.
#[derive(Debug, Args)]
pub struct HelperArgs {
    socket: PathBuf,
    snapshots: PathBuf,
    keep: usize,
    #[arg(long)]
    max_age_seconds: Option<u64>,
    #[arg(long)]
    max_depth: u64,
    #[arg(long)]
    max_entries: u64,
}

/// `helper`: serves the updater that made it, until that is gone.
pub fn helper(args: HelperArgs) -> Outcome {
    let max_age = args.max_age_seconds.map(Duration::from_secs);
    let retention = Retention { keep: args.keep, max_age };
    let limits = Limits { depth: args.max_depth, entries: args.max_entries };
    let settings = HelperSettings { socket: args.socket, snapshots: args.snapshots, retention, limits };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve::serve(settings))?;
    // A copy that nobody waits for stops at its next entry; the container ends now.
    runtime.shutdown_background();
    Ok(0)
}

/// `env get`, `env set`, `env unset`
pub fn env(command: EnvCommand) -> Outcome {
    let failed = |e: envfile::EnvFileError| CliError::Failed(e.to_string());
    match command {
        EnvCommand::Get { key, file } => match envfile::get_file(&file.file, &key).map_err(failed)? {
            Some(value) => say(format!("{value}\n")),
            None => {
                complain(&format!("{key} is not set in {}", file.file.display()));
                Ok(1)
            }
        },
        EnvCommand::Set { key, value, file } => {
            let edited = envfile::set_file(&file.file, &key, &value).map_err(failed)?;
            let before = edited.previous.unwrap_or_else(|| "(absent)".into());
            if std::io::stdout().is_terminal() {
                say(format!("{key}: {before} -> {value} ({})\n", file.file.display()))?;
            }
            Ok(0)
        }
        EnvCommand::Unset { key, file } => {
            envfile::unset_file(&file.file, &key).map_err(failed)?;
            Ok(0)
        }
    }
}

/// `manifest verify`: the same judge and the same rules as an update; 0 only if every file is trusted.
pub fn manifest(command: ManifestCommand) -> Outcome {
    let ManifestCommand::Verify(args) = command;
    let (key, root) = (args.signing_key, args.trusted_root);
    let policy = Signing::new(key, &args.repo, args.signing_issuer, args.signing_identity_regex, root);
    let signing = match policy {
        Ok(signing) => signing,
        Err(fault) => {
            complain(&fault);
            return Ok(CONFIGURATION);
        }
    };
    block_on(async move {
        let authorities = Authorities::load(args.ca_file.as_deref()).map_err(|e| CliError::Failed(e.to_string()))?;
        let judge = Judge::from_settings(&signing, &authorities).await.map_err(|e| CliError::Failed(e.to_string()))?;
        let policy = judge.describe();
        let mut trusted = true;
        for file in &args.files {
            match judge_file(&judge, file).await {
                Ok(text) => say(format!("{}: {text}  judged by {policy}\n", file.display()))?,
                Err(why) => {
                    trusted = false;
                    let (file, why) = (file.display(), why.to_string());
                    let why = clean(&why);
                    writeln!(std::io::stderr(), "error: {file}: not trusted: {why}\n  judged by {policy}")?;
                    0
                }
            };
        }
        Ok(u8::from(!trusted))
    })
}

/// Why the file is trusted, or why not.
async fn judge_file(judge: &Judge, file: &std::path::Path) -> Result<String, Refusal> {
    let verified = judge.verify_file(file).await?;
    let unread = |e: std::io::Error| TrustError::new(TrustFault::File, e.to_string());
    let bytes = tokio::fs::read(file).await.map_err(unread)?;
    let manifest = Manifest::parse(&bytes)?;
    judge.agrees(&manifest.signing.method, &manifest.signing.issuer)?;
    let (name, tag, digest) = (&manifest.name, &manifest.tag, &manifest.image.digest);
    let mut text = format!("trusted\n  {name} {tag} -> {}@{digest}\n", manifest.image_reference());
    for line in show::genuine(&[verified]) {
        text.push_str(&format!("  {}\n", clean(&line)));
    }
    Ok(text)
}
