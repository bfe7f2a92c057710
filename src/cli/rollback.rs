//! `rollback`: back to the version before the last committed update.

use clap::Args;
use serde_json::json;

use super::client::Access;
use super::confirm::confirm;
use super::jobs::{self, Following};
use super::show::list;
use super::text::{bytes, clean};
use super::{Outcome, say};
use crate::update::RollbackView;

pub const EXAMPLES: &str = "\
Examples:
  Back to the version before, with its data; what was written since is kept as a snapshot
    processgit-updater rollback

  Back to the version before, with today's data (if the old version can read it)
    processgit-updater rollback --without-data

  From a script
    processgit-updater rollback --yes --json > job.json";

#[derive(Debug, Args)]
pub struct RollbackArgs {
    #[command(flatten)]
    access: Access,
    /// Only the version: the data stays as it is
    #[arg(long)]
    without_data: bool,
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

pub async fn run(args: RollbackArgs) -> Outcome {
    let client = args.access.client()?;
    let with_data = !args.without_data;
    let view: RollbackView = client.get_as(&format!("/rollback?with_data={with_data}")).await?;
    if !args.following.json {
        say(shown(&view))?;
    }
    confirm("Go back?", args.yes).await?;
    // Who was shown what stays as it is, and said yes, has accepted it.
    let accept_partial = args.accept_partial || (view.is_partial && !args.yes);
    let request =
        json!({ "with_data": with_data, "accept_drift": args.accept_drift, "accept_partial": accept_partial });
    let job = jobs::begin(&client, "/rollback", &request).await?;
    jobs::to_the_end(&client, job, &args.following).await
}

/// What would happen, for the person who decides.
fn shown(view: &RollbackView) -> String {
    let version = |version: &Option<String>| version.clone().unwrap_or_else(|| "an unknown version".into());
    let mut lines =
        vec![format!("from {} to {} ({})", version(&view.from_version), version(&view.to_version), view.to_image)];
    match (&view.snapshot, &view.written_since) {
        (None, _) => lines.push("the data stays as it is: the old version must be able to read it".into()),
        (Some(id), None) => lines.push(format!("the data becomes that of snapshot {id}")),
        (Some(id), Some(since)) => {
            let plural = if since.files == 1 { "" } else { "s" };
            lines.push(format!("the data becomes that of snapshot {id}"));
            lines.push(format!(
                "written since: {} file{plural}, {}; it is kept as a snapshot of its own",
                since.files,
                bytes(since.bytes)
            ));
            if !view.not_counted.is_empty() {
                lines.push(format!(
                    "not counted: what was written to {}, beside the application",
                    view.not_counted.join(", ")
                ));
            }
        }
    }
    let mut shown: String = lines.iter().map(|line| format!("{}\n", clean(line))).collect();
    list(&mut shown, "changes", &view.changes);
    list(&mut shown, "warnings", &view.warnings);
    shown + "\n"
}
