//! `topic add-partitions`.

use std::process::ExitCode;

use anyhow::{Result, bail};
use client::Client;
use client::admin::{Admin, single};
use model::TopicName;
use serde_json::json;

use crate::failure::Failure;
use crate::output::{counted, print};

pub(super) const EXAMPLES: &str = "\
Records that are there stay where they are, but from then on most keys go to other partitions than before: a key's order \
holds only within a partition. Partitions cannot be taken away again.
--json: an object: topic, old, new, applied.

Examples:
  alluvium topic add-partitions readings --to 12
  alluvium topic add-partitions readings --more 4 --dry-run";

/// How many.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("count").required(true).args(["to", "more"])))]
pub(super) struct AddPartitionsArgs {
    /// The topic
    topic: String,
    /// So many in all
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(i32).range(1..))]
    to: Option<i32>,
    /// So many more than there are
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(i32).range(1..))]
    more: Option<i32>,
    /// Let the broker check it, and change nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(args: &AddPartitionsArgs, client: &Client, json: bool) -> Result<ExitCode> {
    let name = &args.topic;
    TopicName::parse(name)?;
    let known = client.topic_anew(name, false).await?;
    let old = i32::try_from(known.partitions.len())?;
    let new = args
        .to
        .unwrap_or_else(|| old.saturating_add(args.more.unwrap_or(0)));
    if new <= old {
        bail!(Failure::Usage(format!(
            "topic {name} has {} already: their number can only grow",
            counted(old.unsigned_abs() as usize, "partition")
        )));
    }
    let results = Admin::new(client)
        .create_partitions(&[(name, new)], args.dry_run)
        .await?;
    single(results, name)?;
    let value = || json!({ "topic": name, "old": old, "new": new, "applied": !args.dry_run });
    let text = || match args.dry_run {
        true => format!("{name} would have {new} partitions instead of {old}\n"),
        false => format!("{name} has {new} partitions instead of {old}\n"),
    };
    print(json, value, text)?;
    Ok(ExitCode::SUCCESS)
}
