//! `topic describe`. What of a topic cannot be cleaned up, the server's health tells, over HTTP; where nobody answers there, it is
//! left out.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use client::admin::{Admin, ConfigEntry, ConfigSource, Resource};
use client::{Client, TopicMetadata};
use model::{LogId, TopicName, TopicPartition};
use serde_json::{Value, json};

use super::each_once;
use super::places::{Held, held, partitions_of, sum};
use crate::http::HttpServer;
use crate::output::{counted, print, size};
use crate::table::Table;

pub(super) const EXAMPLES: &str = "\
--json: an array with an object for each topic: topic, id, internal, records, bytes, partitions (an array of partition, \
leader, leader_epoch, replicas, in_sync, start_offset, end_offset, records, bytes, cleanup_error) and settings (an object of the settings: \
each with value and source, which is topic, broker or default). Records count offsets.

Examples:
  alluvium topic describe readings
  alluvium topic describe readings --all             every setting, the defaults too
  alluvium topic describe readings --json | jq '.[].settings[\"retention.ms\"].value'";

/// How long the server's health may take.
const HEALTH_TIME: Duration = Duration::from_secs(1);

/// Which topics.
#[derive(Debug, clap::Args)]
pub(super) struct DescribeArgs {
    /// Names
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    /// Show all settings, those too that nobody changed
    #[arg(short, long)]
    all: bool,
}

struct Description {
    topic: Arc<TopicMetadata>,
    /// What of it cannot be cleaned up, by partition; empty if nothing of it is known.
    uncleanable: BTreeMap<u32, String>,
    partitions: Vec<(TopicPartition, Held)>,
    settings: Vec<ConfigEntry>,
}

pub(super) async fn run(
    args: &DescribeArgs,
    client: &Client,
    http: &HttpServer,
    json: bool,
) -> Result<ExitCode> {
    each_once(&args.topics)?;
    let admin = Admin::new(client);
    let mut descriptions = Vec::new();
    for name in &args.topics {
        TopicName::parse(name)?;
        let topic = client.topic_anew(name, false).await?;
        let held = held(&admin, &partitions_of(&topic)?).await?;
        let mut settings = admin
            .describe_configs(&Resource::Topic(name.clone()))
            .await?;
        settings.sort_by(|a, b| a.name.cmp(&b.name));
        let uncleanable = match is_rewritten(&settings) {
            true => uncleanable(http, &topic).await,
            false => BTreeMap::new(),
        };
        descriptions.push(Description {
            topic,
            uncleanable,
            partitions: held.into_iter().collect(),
            settings,
        });
    }
    let value = || descriptions.iter().map(in_json).collect::<Vec<_>>().into();
    let text = || {
        let texts = descriptions.iter().map(|one| in_text(one, args.all));
        texts.collect::<Vec<_>>().join("\n")
    };
    print(json, value, text)?;
    Ok(ExitCode::SUCCESS)
}

/// Whether cleanup writes segments of the topic anew, which may fail.
fn is_rewritten(settings: &[ConfigEntry]) -> bool {
    let policy = settings.iter().find(|entry| entry.name == "cleanup.policy");
    let policy = policy
        .and_then(|entry| entry.value.as_deref())
        .unwrap_or("");
    policy
        .split(',')
        .any(|one| one.trim() != "delete" && !one.trim().is_empty())
}

/// The partitions with segments that could not be cleaned up, and the first reason for each.
async fn uncleanable(http: &HttpServer, topic: &TopicMetadata) -> BTreeMap<u32, String> {
    let Ok(Ok(health)) = tokio::time::timeout(HEALTH_TIME, http.get_any("/readyz")).await else {
        return BTreeMap::new();
    };
    let mut found = BTreeMap::new();
    for reason in health["reasons"].as_array().into_iter().flatten() {
        let log = reason["log"]
            .as_str()
            .and_then(|log| log.parse::<LogId>().ok());
        let Some(log) = log.filter(|log| log.topic_id == topic.id) else {
            continue;
        };
        if reason["code"] == "cleanup_set_aside" {
            let detail = reason["detail"].as_str().unwrap_or_default();
            let text = format!(
                "the segment at offset {} is set aside: {detail}",
                reason["from"]
            );
            found.entry(log.partition.get()).or_insert(text);
        }
    }
    found
}

fn source(source: ConfigSource) -> String {
    match source {
        ConfigSource::Topic => "topic".to_owned(),
        ConfigSource::Broker | ConfigSource::DefaultBroker | ConfigSource::StaticBroker => {
            "broker".to_owned()
        }
        ConfigSource::Default => "default".to_owned(),
        ConfigSource::Group => "group".to_owned(),
        ConfigSource::Other(number) => format!("source {number}"),
    }
}

fn in_json(description: &Description) -> Value {
    let topic = &description.topic;
    let (records, bytes) = sum(description.partitions.iter().map(|(_, held)| held));
    let partitions = description.partitions.iter().map(|(partition, held)| {
        let known = topic.partition(partition.partition.to_wire());
        json!({
            "partition": partition.partition.get(),
            "leader": known.and_then(|known| known.leader),
            "leader_epoch": known.map(|known| known.leader_epoch),
            "replicas": known.map(|known| known.replicas.clone()),
            "in_sync": known.map(|known| known.in_sync.clone()),
            "start_offset": held.start.get(), "end_offset": held.end.get(), "records": held.records(), "bytes": held.bytes,
            "cleanup_error": description.uncleanable.get(&partition.partition.get()),
        })
    });
    let settings = description.settings.iter().map(|entry| {
        let value = json!({ "value": entry.value, "source": source(entry.source) });
        (entry.name.clone(), value)
    });
    json!({
        "topic": topic.name, "id": topic.id.to_string(), "internal": topic.is_internal, "records": records, "bytes": bytes,
        "partitions": partitions.collect::<Vec<_>>(),
        "settings": settings.collect::<serde_json::Map<_, _>>(),
    })
}

fn in_text(description: &Description, all: bool) -> String {
    let topic = &description.topic;
    let (records, bytes) = sum(description.partitions.iter().map(|(_, held)| held));
    let mut text = String::new();
    let count = counted(description.partitions.len(), "partition");
    let records = counted(usize::try_from(records).unwrap_or(usize::MAX), "record");
    let bytes = bytes.map_or_else(String::new, |bytes| format!(", {} on disk", size(bytes)));
    let _ = writeln!(text, "topic {}: {count}, {records}{bytes}", topic.name);
    let _ = writeln!(text, "id {}\n", topic.id);
    let mut table = Table::new(&[
        "PARTITION",
        "LEADER",
        "EPOCH",
        "START",
        "END",
        "RECORDS",
        "BYTES",
    ]);
    for (partition, held) in &description.partitions {
        let known = topic.partition(partition.partition.to_wire());
        let or_dash =
            |number: Option<i32>| number.map_or_else(|| "-".to_owned(), |n| n.to_string());
        table.row([
            partition.partition.get().to_string(),
            or_dash(known.and_then(|known| known.leader)),
            or_dash(known.map(|known| known.leader_epoch)),
            held.start.to_string(),
            held.end.to_string(),
            held.records().to_string(),
            held.bytes.map_or_else(|| "-".to_owned(), size),
        ]);
    }
    text.push_str(&table.to_string());
    for (partition, reason) in &description.uncleanable {
        let _ = writeln!(
            text,
            "\npartition {partition} cannot be cleaned up whole: {reason}"
        );
    }
    let shown: Vec<&ConfigEntry> = description
        .settings
        .iter()
        .filter(|entry| all || entry.source != ConfigSource::Default)
        .collect();
    if shown.is_empty() {
        text.push_str("\nall settings have their defaults; --all shows them\n");
        return text;
    }
    let mut table = Table::new(&["SETTING", "VALUE", "FROM"]);
    for entry in shown {
        let value = entry.value.clone().unwrap_or_default();
        table.row([entry.name.clone(), value, source(entry.source)]);
    }
    let _ = write!(text, "\n{table}");
    text
}
