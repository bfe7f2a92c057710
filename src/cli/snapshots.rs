//! `snapshot …`: copies of the application's data.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::json;
use tokio::fs;

use super::client::{Access, Client, ClientError};
use super::confirm::confirm;
use super::jobs::{self, Following};
use super::remote::as_it_is;
use super::text::{bytes, clean, moment, table};
use super::{CliError, Outcome, complain, say};
use crate::update::ports::SnapshotInfo;

pub const EXAMPLES: &str = "\
Examples:
  A copy of the data now; the application is down only while what changed meanwhile is copied
    processgit-updater snapshot create

  Which ones are there?
    processgit-updater snapshot list

  Put one back, with the version that wrote it if that is still at hand
    processgit-updater snapshot restore ID

  Take one along; GNU tar restores it exactly
    processgit-updater snapshot export ID data.tar.zst
    processgit-updater snapshot export ID - | ssh backup 'cat > data.tar.zst'
    tar --zstd --xattrs --xattrs-include='*' --acls --numeric-owner -xpf data.tar.zst";

#[derive(Debug, Subcommand)]
pub enum SnapshotCommand {
    /// Copy the data; the application is stopped for a moment
    Create(CreateArgs),
    /// All snapshots, newest first
    List(ListArgs),
    /// Read all of a snapshot and compare it with what was recorded
    Verify(OneArgs),
    /// Put a snapshot's data back; the present data is kept as a snapshot
    ///
    /// The application is stopped meanwhile. The version that wrote the snapshot is started if it is still
    /// to be had, and must prove healthy; otherwise everything is put back. Asks first.
    Restore(RestoreArgs),
    /// Write a snapshot as tar.zst
    Export(ExportArgs),
    /// Remove old snapshots now, by the settings of `serve`
    Prune(PruneArgs),
}

#[derive(Debug, Args)]
pub struct CreateArgs {
    #[command(flatten)]
    access: Access,
    /// Do not stop the application: the snapshot is not consistent
    #[arg(long)]
    hot: bool,
    #[command(flatten)]
    following: Following,
}

#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    access: Access,
    /// Print the updater's answer as it is
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub struct OneArgs {
    #[command(flatten)]
    access: Access,
    /// The snapshot, as `snapshot list` shows it
    id: String,
}

#[derive(Debug, Args)]
pub struct RestoreArgs {
    #[command(flatten)]
    one: OneArgs,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Also if the files differ from what runs in more than the version
    #[arg(long)]
    accept_drift: bool,
    /// Also if the snapshot has other mounts than the application: what it has not stays as it is
    #[arg(long)]
    accept_partial: bool,
    #[command(flatten)]
    following: Following,
}

#[derive(Debug, Args)]
pub struct ExportArgs {
    #[command(flatten)]
    one: OneArgs,
    /// Where to; `-` is stdout. It appears when it is complete, and replaces what was there
    #[arg(value_name = "FILE.tar.zst")]
    file: PathBuf,
}

#[derive(Debug, Args)]
pub struct PruneArgs {
    #[command(flatten)]
    access: Access,
}

#[derive(Deserialize)]
struct Snapshots {
    snapshots: Vec<SnapshotInfo>,
}

pub async fn run(command: SnapshotCommand) -> Outcome {
    match command {
        SnapshotCommand::Create(args) => create(args).await,
        SnapshotCommand::List(args) => list(args).await,
        SnapshotCommand::Verify(args) => verify(args).await,
        SnapshotCommand::Restore(args) => restore(args).await,
        SnapshotCommand::Export(args) => export(args).await,
        SnapshotCommand::Prune(args) => prune(args).await,
    }
}

async fn create(args: CreateArgs) -> Outcome {
    let client = args.access.client()?;
    if args.hot {
        eprintln!("warning: the application is not stopped, so the snapshot is not consistent");
    }
    let job = jobs::begin(&client, "/snapshots", &json!({ "hot": args.hot })).await?;
    jobs::to_the_end(&client, job, &args.following).await
}

async fn list(args: ListArgs) -> Outcome {
    let client = args.access.client()?;
    let answer = client.get("/snapshots").await?;
    if args.json {
        return as_it_is(answer);
    }
    let Snapshots { snapshots } = client.understood(&answer)?;
    say(shown(&snapshots))
}

fn shown(snapshots: &[SnapshotInfo]) -> String {
    if snapshots.is_empty() {
        return "no snapshot yet\n".to_owned();
    }
    let head = ["taken", "version", "consistent", "size", "own", "job", "why", "id"].map(str::to_owned).to_vec();
    let line = |s: &SnapshotInfo| {
        let label = s.label.as_ref();
        let version = label.map(|l| l.version.clone().unwrap_or_else(|| l.image.clone()));
        let line = [
            moment(s.created_at),
            version.unwrap_or_else(|| "-".into()),
            if s.consistent { "yes" } else { "NO" }.into(),
            bytes(s.bytes),
            bytes(s.own_bytes),
            label.map_or("-".into(), |l| l.job.to_string()),
            s.reason.clone(),
            s.id.clone(),
        ];
        line.map(|text| clean(&text).into_owned()).to_vec()
    };
    table(&std::iter::once(head).chain(snapshots.iter().map(line)).collect::<Vec<_>>())
}

async fn verify(OneArgs { access, id }: OneArgs) -> Outcome {
    let client = access.client()?;
    #[derive(Deserialize)]
    struct Verdict {
        ok: bool,
        error: Option<String>,
    }
    let verdict: Verdict = client.get_patiently(&format!("/snapshots/{}/verify", in_path(&id))).await?;
    if verdict.ok {
        return say(format!("snapshot {id} is whole\n"));
    }
    complain(&format!("snapshot {id}: {}", clean(verdict.error.as_deref().unwrap_or("it is not whole"))));
    Ok(1)
}

async fn restore(args: RestoreArgs) -> Outcome {
    let OneArgs { access, id } = args.one;
    let client = access.client()?;
    if !args.yes {
        confirm(&question(&client, &id).await?, args.yes).await?;
    }
    let path = format!("/snapshots/{}/restore", in_path(&id));
    let request = json!({ "accept_drift": args.accept_drift, "accept_partial": args.accept_partial });
    let job = jobs::begin(&client, &path, &request).await?;
    jobs::to_the_end(&client, job, &args.following).await
}

async fn question(client: &Client, id: &str) -> Result<String, CliError> {
    let Snapshots { snapshots } = client.get_as("/snapshots").await?;
    let Some(snapshot) = snapshots.iter().find(|s| s.id == *id) else {
        let text = format!("there is no snapshot {id:?}: processgit-updater snapshot list shows them");
        return Err(CliError::Failed(text));
    };
    let inconsistent =
        if snapshot.consistent { "" } else { "\nIt is NOT consistent: it was taken while the application ran." };
    Ok(format!(
        "{}{inconsistent}\nThe application is stopped meanwhile; its present data is kept as a snapshot.\n\
         Put this snapshot's data back?",
        shown(std::slice::from_ref(snapshot))
    ))
}

async fn export(args: ExportArgs) -> Outcome {
    let OneArgs { access, id } = args.one;
    let client = access.client()?;
    let path = format!("/snapshots/{}/export", in_path(&id));
    if args.file.as_os_str() == "-" {
        if std::io::stdout().is_terminal() {
            return Err(CliError::Failed("a terminal cannot take an archive: name a file, or use a pipe".into()));
        }
        return match client.download(&path, &mut tokio::io::stdout(), "stdout").await {
            Err(ClientError::Write { reason, .. }) => Err(CliError::Output(reason)),
            other => Ok(other.map(|_| 0)?),
        };
    }
    let size = to_file(&client, &path, &args.file).await?;
    say(format!("snapshot {id}: {} written to {}\n", bytes(size), args.file.display()))
}

/// The file appears when it is complete and on the disk, or not at all. It holds the application's
/// secrets: nobody else may read it.
async fn to_file(client: &Client, path: &str, file: &Path) -> Result<u64, CliError> {
    let unwritable = |reason| ClientError::Write { to: file.display().to_string(), reason };
    let mut name = file.file_name().ok_or_else(|| unwritable(std::io::ErrorKind::IsADirectory.into()))?.to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let part = file.with_file_name(name);
    let mut out =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part).await.map_err(unwritable)?;
    let written = async {
        let size = client.download(path, &mut out, &part.display().to_string()).await?;
        out.sync_all().await.map_err(unwritable)?;
        fs::rename(&part, file).await.map_err(unwritable)?;
        sync_folder(file).await.map_err(unwritable)?;
        Ok(size)
    };
    let written: Result<u64, ClientError> = written.await;
    if written.is_err() {
        // Gone already if it was renamed.
        let _ = fs::remove_file(&part).await;
    }
    Ok(written?)
}

/// A rename is durable when its folder is.
async fn sync_folder(file: &Path) -> std::io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(folder).await?.sync_all().await
}

async fn prune(args: PruneArgs) -> Outcome {
    let client = args.access.client()?;
    #[derive(Deserialize)]
    struct Pruned {
        left: usize,
    }
    let pruned: Pruned = client.post("/snapshots/prune", Vec::new()).await?;
    say(format!("{} left\n", pruned.left))
}

/// An id as one part of a path, whatever was typed.
fn in_path(id: &str) -> String {
    url::form_urlencoded::byte_serialize(id.as_bytes()).collect::<String>().replace('+', "%20")
}
