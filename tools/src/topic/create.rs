//! `topic create`.

use std::process::ExitCode;

use anyhow::Result;
use client::ErrorCode;
use client::admin::{Admin, NewTopic};
use model::TopicName;
use serde_json::json;

use super::{all_or_first, each_once};
use crate::output::{counted, print};
use crate::settings_change::setting;

pub(super) const EXAMPLES: &str = "\
--json: an array with an object for each topic: topic, id, partitions, created (false if it was there already, or with --dry-run).

Examples:
  alluvium topic create readings
  alluvium topic create readings events -p 12 -c retention.ms=604800000
  alluvium topic create readings --if-not-exists
  alluvium topic settings                            what -c takes";

/// What to create.
#[derive(Debug, clap::Args)]
pub(super) struct CreateArgs {
    /// Names: letters, digits, `.`, `_` and `-`
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    /// Partitions of each; without it as many as the broker's num.partitions says
    #[arg(short, long, value_name = "COUNT", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// Copies of each partition; without it the broker's own number
    #[arg(short, long, value_name = "COUNT", value_parser = clap::value_parser!(i16).range(1..))]
    replicas: Option<i16>,
    /// A setting; may be repeated. Takes 7d for milliseconds and 16MiB for bytes
    #[arg(short, long = "config", value_name = "KEY=VALUE", value_parser = setting)]
    configs: Vec<(String, String)>,
    /// A topic that exists already is no error; it stays as it is
    #[arg(long)]
    if_not_exists: bool,
    /// Let the broker check everything, and create nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(args: &CreateArgs, admin: &Admin, json: bool) -> Result<ExitCode> {
    each_once(&args.topics)?;
    for name in &args.topics {
        TopicName::parse(name)?;
    }
    let new: Vec<NewTopic> = args
        .topics
        .iter()
        .map(|name| NewTopic {
            name: name.clone(),
            partitions: args.partitions,
            replication_factor: args.replicas,
            configs: args.configs.clone(),
            ..NewTopic::default()
        })
        .collect();
    let mut results = admin.create_topics(&new, args.dry_run).await?;
    let exists = |error: &client::Error| error.code() == Some(ErrorCode::TopicAlreadyExists);
    let was_there: Vec<String> = results
        .extract_if(.., |(_, result)| {
            args.if_not_exists && result.as_ref().is_err_and(exists)
        })
        .map(|(name, _)| name)
        .collect();
    let created = all_or_first(results)?;
    let value = || {
        let is_new = created.iter().map(|(name, topic)| {
            json!({
                "topic": name, "id": (!args.dry_run).then(|| topic.id.to_string()), "partitions": topic.partitions,
                "created": !args.dry_run,
            })
        });
        let old = was_there
            .iter()
            .map(|name| json!({ "topic": name, "id": null, "partitions": null, "created": false }));
        is_new.chain(old).collect::<Vec<_>>().into()
    };
    let text = || {
        let done = if args.dry_run {
            "would be created"
        } else {
            "created"
        };
        let mut text = String::new();
        for (name, topic) in &created {
            let partitions = topic.partitions.or(args.partitions);
            let count = partitions.and_then(|count| usize::try_from(count).ok());
            let with = count.map_or_else(String::new, |count| {
                format!(" with {}", counted(count, "partition"))
            });
            text.push_str(&format!("{done} {name}{with}\n"));
        }
        for name in &was_there {
            text.push_str(&format!("{name} was there already\n"));
        }
        text
    };
    print(json, value, text)?;
    Ok(ExitCode::SUCCESS)
}
