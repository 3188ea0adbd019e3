//! `topic alter`: changes settings, and shows what they were.

use std::process::ExitCode;

use anyhow::Result;
use client::Client;
use client::admin::{Admin, ConfigSource, Resource};
use model::TopicName;

use crate::settings_change::{self, ChangeArgs, Target};

pub(super) const EXAMPLES: &str = "\
The broker checks all changes together: all are made, or none. Less retention may delete records, so that is asked about \
first; --yes says so beforehand.
--json: an object: topic, applied, changes (an array of setting, old, new; null stands for the default).

Examples:
  alluvium topic alter readings --set retention.ms=604800000 --set durability=os
  alluvium topic alter readings --unset retention.ms --dry-run
  alluvium topic settings                            what --set takes";

/// What to change.
#[derive(Debug, clap::Args)]
pub(super) struct AlterArgs {
    /// The topic
    topic: String,
    #[command(flatten)]
    changes: ChangeArgs,
}

/// Lowering one of these may delete records.
const LIMITS: [&str; 2] = ["retention.ms", "retention.bytes"];

pub(super) async fn run(args: &AlterArgs, client: &Client, json: bool) -> Result<ExitCode> {
    TopicName::parse(&args.topic)?;
    args.changes.check()?;
    client.topic_anew(&args.topic, false).await?;
    let target = Target {
        resource: Resource::Topic(args.topic.clone()),
        named: ("topic", args.topic.clone().into()),
        own: ConfigSource::Topic,
        limits: &LIMITS,
    };
    settings_change::alter(&args.changes, &target, &Admin::new(client), json).await
}
