//! The commands that ask nobody: they serve, or touch files of this machine.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{CliError, Outcome};

/// WIRE: replace by `crate::settings::ServeArgs`.
#[derive(Debug, Args)]
pub struct ServeArgs {}

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
}

#[derive(Debug, Subcommand)]
pub enum ManifestCommand {
    /// Check release manifests and the signatures beside them
    ///
    /// Looks for the files that carry a signature (such as release.json.sigstore.json) in the same folder.
    Verify {
        /// A release.json
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
}

/// `serve`. WIRE: print each `Fault` as `error: …` and return 2, or hand the settings to
/// `crate::daemon::serve`.
pub fn serve(_args: ServeArgs) -> Outcome {
    Err(CliError::Failed("serve is not wired up yet".into()))
}

/// `env get`, `env set`. WIRE: `crate::envfile::{get_file, set_file}`.
pub fn env(command: EnvCommand) -> Outcome {
    let (key, file) = match command {
        EnvCommand::Get { key, file } | EnvCommand::Set { key, file, value: _ } => (key, file.file),
    };
    Err(CliError::Failed(format!("{key} in {}: the .env editor is not wired up yet", file.display())))
}

/// `manifest verify`. WIRE: `crate::release::manifest` for the shape, `crate::trust` for the signatures.
pub fn manifest(command: ManifestCommand) -> Outcome {
    let ManifestCommand::Verify { files } = command;
    let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    Err(CliError::Failed(format!("{}: manifest verify is not wired up yet", names.join(", "))))
}
