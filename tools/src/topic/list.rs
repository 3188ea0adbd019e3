//! `topic list`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::Result;
use client::admin::Admin;
use serde_json::json;

use super::places::{Held, held, partitions_of, sum};
use crate::output::{note, print, size};
use crate::table::Table;
use crate::topic_choice::matches;

pub(super) const EXAMPLES: &str = "\
--json: an array with an object for each topic: topic, id, partitions, internal; with --long also records, bytes, lost.

Examples:
  alluvium topic list
  alluvium topic list 'plant-*' --long
  alluvium topic list --json | jq -r '.[].topic'";

/// Which topics.
#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    /// Only topics with such names; `*` stands for any text
    #[arg(value_name = "PATTERN")]
    patterns: Vec<String>,
    /// Records and bytes too
    #[arg(short, long)]
    long: bool,
    /// Internal topics too
    #[arg(long)]
    internal: bool,
}

pub(super) async fn run(args: &ListArgs, admin: &Admin, json: bool) -> Result<ExitCode> {
    let mut topics = admin.list_topics().await?;
    topics.retain(|name, topic| {
        let is_wanted =
            args.patterns.is_empty() || args.patterns.iter().any(|pattern| matches(pattern, name));
        is_wanted && (args.internal || !topic.is_internal)
    });
    let mut contents = BTreeMap::new();
    if args.long {
        let mut partitions = Vec::new();
        for topic in topics.values() {
            partitions.extend(partitions_of(topic)?);
        }
        let mut by_topic: BTreeMap<String, Vec<Held>> = BTreeMap::new();
        for (partition, held) in held(admin, &partitions).await? {
            by_topic
                .entry(partition.topic.to_string())
                .or_default()
                .push(held);
        }
        contents = by_topic
            .into_iter()
            .map(|(name, held)| (name, sum(&held)))
            .collect();
    }
    let value = || {
        let topics = topics.iter().map(|(name, topic)| {
            let mut value = json!({
                "topic": name, "id": topic.id.to_string(), "partitions": topic.partitions.len(),
                "internal": topic.is_internal,
            });
            if args.long {
                let (records, bytes) = contents.get(name).copied().unwrap_or_default();
                value["records"] = records.into();
                value["bytes"] = bytes.into();
                value["lost"] = is_lost(records, bytes).into();
            }
            value
        });
        topics.collect::<Vec<_>>().into()
    };
    let text = || {
        let columns = ["TOPIC", "PARTITIONS", "RECORDS", "BYTES"];
        let shown = if args.long { 4 } else { 2 };
        let mut table = Table::new(&columns[..shown]);
        for (name, topic) in &topics {
            let (records, bytes) = contents.get(name).copied().unwrap_or_default();
            let mut bytes_cell = bytes.map_or_else(|| "-".to_owned(), size);
            if is_lost(records, bytes) {
                bytes_cell.push_str(" (lost)");
            }
            let cells = [
                name.clone(),
                topic.partitions.len().to_string(),
                records.to_string(),
                bytes_cell,
            ];
            table.row(cells.into_iter().take(shown));
        }
        table.to_string()
    };
    print(json, value, text)?;
    let lost = |name: &&String| {
        let (records, bytes) = contents.get(*name).copied().unwrap_or_default();
        is_lost(records, bytes)
    };
    let lost: Vec<&str> = topics.keys().filter(lost).map(String::as_str).collect();
    if !lost.is_empty() {
        note!(
            "the files of {} are gone: /readyz of the broker, or `alluvium log verify`, names what is lost",
            lost.join(", ")
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether all records between start and end are without a byte on the disk: the files of the topic are gone.
fn is_lost(records: u64, bytes: Option<u64>) -> bool {
    records > 0 && bytes == Some(0)
}
