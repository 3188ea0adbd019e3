//! `group delete`: groups without members, or what they committed for some topics.

use std::process::ExitCode;

use anyhow::{Result, bail};
use client::admin::Admin;
use model::TopicPartition;
use serde_json::json;

use super::{TopicChoice, counted, find, members_to_stop, not_found, print};
use crate::output::confirm;
use crate::table::Table;

pub(super) const EXAMPLES: &str = "\
Examples:
  alluvium group delete dashboard --dry-run
  alluvium group delete dashboard alarms --yes
  alluvium group delete dashboard -t readings:0 --yes       what it committed there";

/// What to delete.
#[derive(Debug, clap::Args)]
pub struct DeleteArgs {
    /// Groups
    #[arg(required = true)]
    groups: Vec<String>,
    /// Forget only what the groups committed for this topic, or for some of its partitions (`readings:0,3`)
    #[arg(short, long = "topic", value_name = "TOPIC[:PARTITIONS]")]
    topics: Vec<TopicChoice>,
    /// Only show what would be deleted
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// What goes of one group.
struct Plan {
    group: String,
    partitions: Vec<TopicPartition>,
}

pub(super) async fn run(args: DeleteArgs, admin: &Admin, json: bool) -> Result<ExitCode> {
    let mut plans = Vec::new();
    for name in &args.groups {
        let Some(group) = find(admin, name).await? else {
            return Ok(not_found(&format!("there is no group {name}")));
        };
        if args.topics.is_empty() && !group.members.is_empty() {
            bail!("{}", members_to_stop(&group));
        }
        let committed = admin.committed(name, None).await?;
        let chosen = |partition: &TopicPartition| {
            args.topics.is_empty() || args.topics.iter().any(|choice| choice.takes(partition))
        };
        let mut partitions: Vec<TopicPartition> = committed.into_keys().filter(chosen).collect();
        partitions.sort();
        if !args.topics.is_empty() && partitions.is_empty() {
            return Ok(not_found(&format!("group {name} committed nothing there")));
        }
        plans.push(Plan {
            group: name.clone(),
            partitions,
        });
    }
    if !args.dry_run {
        if !args.yes {
            confirm(&deed(&plans, !args.topics.is_empty()))?;
        }
        for plan in &plans {
            match args.topics.is_empty() {
                true => admin.delete_group(&plan.group).await?,
                false => {
                    admin
                        .delete_committed(&plan.group, &plan.partitions)
                        .await?
                }
            }
        }
    }
    let value = || {
        let plans = plans.iter().map(|plan| {
            let partitions = plan.partitions.iter().map(
                |one| json!({ "topic": one.topic.as_str(), "partition": one.partition.get() }),
            );
            json!({
                "group": plan.group, "partitions": partitions.collect::<Vec<_>>(),
                "whole": args.topics.is_empty(), "deleted": !args.dry_run,
            })
        });
        plans.collect::<Vec<_>>().into()
    };
    print(json, value, || table(&plans, args.dry_run))?;
    Ok(ExitCode::SUCCESS)
}

fn table(plans: &[Plan], dry_run: bool) -> String {
    let done = if dry_run {
        "would be deleted"
    } else {
        "deleted"
    };
    let mut table = Table::new(&["GROUP", "COMMITTED OFFSETS", ""]);
    for plan in plans {
        let count = plan.partitions.len().to_string();
        table.row([plan.group.as_str(), &count, done]);
    }
    table.to_string()
}

/// What would be done, in words.
fn deed(plans: &[Plan], only_offsets: bool) -> String {
    let offsets = plans.iter().map(|plan| plan.partitions.len()).sum();
    let offsets = counted(offsets, "committed offset");
    match only_offsets {
        true => format!("delete {offsets}"),
        false => format!("delete {} with {offsets}", counted(plans.len(), "group")),
    }
}
