//! `topic delete`: topics with all their records.

use std::process::ExitCode;

use anyhow::Result;
use client::admin::Admin;
use client::{Client, ErrorCode};
use model::{TopicId, TopicName};
use serde_json::json;

use super::places::{held, partitions_of, sum};
use super::{all_or_first, each_once};
use crate::output::{confirm, counted, print, size};
use crate::table::Table;
use crate::topic_choice::expand;

pub(super) const EXAMPLES: &str = "\
--json: an array with an object for each topic: topic, id, partitions, records, bytes, deleted (false with --dry-run).

Examples:
  alluvium topic delete readings --dry-run
  alluvium topic delete readings events --yes
  alluvium topic delete 'test-*' --dry-run";

/// What to delete.
#[derive(Debug, clap::Args)]
pub(super) struct DeleteArgs {
    /// Names; `*` stands for any text
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    /// A topic that does not exist is no error
    #[arg(long)]
    if_exists: bool,
    /// Only show what would be deleted
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// One topic, and what goes with it.
struct Plan {
    topic: String,
    id: TopicId,
    partitions: usize,
    records: u64,
    bytes: Option<u64>,
}

pub(super) async fn run(args: &DeleteArgs, client: &Client, json: bool) -> Result<ExitCode> {
    each_once(&args.topics)?;
    let admin = Admin::new(client);
    let mut plans = Vec::new();
    let names = match expand(client, &args.topics).await {
        Err(_) if args.if_exists && args.topics.iter().all(|name| name.contains('*')) => Vec::new(),
        names => names?,
    };
    let is_asked = !args.dry_run && !args.yes;
    for name in &names {
        TopicName::parse(name)?;
        let topic = match client.topic_anew(name, false).await {
            Err(error)
                if args.if_exists && error.code() == Some(ErrorCode::UnknownTopicOrPartition) =>
            {
                continue;
            }
            topic => topic?,
        };
        let held = held(&admin, &partitions_of(&topic)?).await?;
        let (records, bytes) = sum(held.values());
        plans.push(Plan {
            topic: name.clone(),
            id: topic.id,
            partitions: held.len(),
            records,
            bytes,
        });
    }
    if !args.dry_run && !plans.is_empty() {
        if !args.yes {
            crate::output::aside(format_args!("{}", table(&plans)));
            let records = plans.iter().map(|plan| plan.records).sum::<u64>();
            confirm(&format!(
                "delete {} with {}",
                counted(plans.len(), "topic"),
                counted(usize::try_from(records)?, "record")
            ))?;
        }
        let names: Vec<&str> = plans.iter().map(|plan| plan.topic.as_str()).collect();
        all_or_first(admin.delete_topics(&names).await?)?;
    }
    let value = || {
        let plans = plans.iter().map(|plan| {
            json!({
                "topic": plan.topic, "id": plan.id.to_string(), "partitions": plan.partitions, "records": plan.records,
                "bytes": plan.bytes, "deleted": !args.dry_run,
            })
        });
        plans.collect::<Vec<_>>().into()
    };
    let text = || {
        let done = match args.dry_run {
            true => "would be deleted",
            false => "deleted",
        };
        // Who was asked has seen the table.
        let table = if is_asked {
            String::new()
        } else {
            table(&plans)
        };
        format!("{table}{} {done}\n", counted(plans.len(), "topic"))
    };
    print(json, value, text)?;
    Ok(ExitCode::SUCCESS)
}

fn table(plans: &[Plan]) -> String {
    if plans.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&["TOPIC", "PARTITIONS", "RECORDS", "BYTES"]);
    for plan in plans {
        table.row([
            plan.topic.clone(),
            plan.partitions.to_string(),
            plan.records.to_string(),
            plan.bytes.map_or_else(|| "-".to_owned(), size),
        ]);
    }
    table.to_string()
}
