//! `group`: what consumer groups there are, how far behind they are, and moving or deleting them.
//!
//! Callers: the command line. `places.rs` asks where partitions begin and end and when their records were written,
//! `describe.rs` and `reset.rs` are a command each. Whatever changes something shows its plan first.

mod delete;
mod describe;
mod places;
mod reset;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Result;
use client::admin::{Admin, GroupDescription};
use client::{Client, ErrorCode};
use model::{PartitionId, Timestamp, TopicName, TopicPartition};
use serde_json::json;

use crate::table::Table;

/// The exit code if a group, topic or partition is not there.
pub const NOT_FOUND: u8 = 3;

/// List, describe, move and delete consumer groups.
#[derive(Debug, clap::Subcommand)]
pub enum GroupCommand {
    /// List all groups and their states.
    List,
    /// Show members, committed offsets, and lag in records and in time.
    ///
    /// The lag in seconds is the age of the record that the group reads next.
    Describe(describe::DescribeArgs),
    /// Move a group that has no members to other offsets. Shows what would change; --execute does it.
    Reset(reset::ResetArgs),
    /// Delete groups without members, or what they committed for some topics.
    Delete(delete::DeleteArgs),
}

impl GroupCommand {
    /// Runs the command. `now` is what lags and relative times count from.
    pub async fn run(self, client: &Client, json: bool, now: Timestamp) -> Result<ExitCode> {
        let admin = Admin::new(client);
        match self {
            GroupCommand::List => list(&admin, json).await,
            GroupCommand::Describe(args) => describe::run(args, client, json, now).await,
            GroupCommand::Reset(args) => reset::run(args, client, json, now).await,
            GroupCommand::Delete(args) => delete::run(args, &admin, json).await,
        }
    }
}

async fn list(admin: &Admin, json: bool) -> Result<ExitCode> {
    let groups = admin.list_groups().await?;
    let mut table = Table::new(&["GROUP", "STATE", "PROTOCOL TYPE"]);
    let mut all = Vec::new();
    for group in &groups {
        table.row([&group.group, &group.state, &group.protocol_type]);
        all.push(json!({
            "group": group.group, "state": group.state, "protocol_type": group.protocol_type, "type": group.group_type,
        }));
    }
    print(json, || all.into(), || table.to_string())?;
    Ok(ExitCode::SUCCESS)
}

/// Writes one of the two to standard output.
fn print(
    json: bool,
    value: impl FnOnce() -> serde_json::Value,
    text: impl FnOnce() -> String,
) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, &value())?;
        out.write_all(b"\n")?;
    } else {
        out.write_all(text().as_bytes())?;
    }
    Ok(out.flush()?)
}

/// A group, or None if there is no such group.
async fn find(admin: &Admin, group: &str) -> Result<Option<GroupDescription>> {
    match admin.describe_group(group).await {
        Ok(found) if found.state == "Dead" => Ok(None),
        Ok(found) => Ok(Some(found)),
        Err(error) if error.code() == Some(ErrorCode::GroupIdNotFound) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn not_found(what: &str) -> ExitCode {
    eprintln!("error: {what}");
    ExitCode::from(NOT_FOUND)
}

/// Who has to stop before a group can be moved or deleted.
fn members_to_stop(group: &GroupDescription) -> String {
    let mut who: Vec<String> = group
        .members
        .iter()
        .map(|member| {
            format!(
                "{} at {}",
                member.client_id,
                member.host.trim_start_matches('/')
            )
        })
        .collect();
    who.sort();
    who.dedup();
    let more = who.len().saturating_sub(5);
    who.truncate(5);
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    format!(
        "group {} has {} (state {}): stop {}{more}, or wait for their sessions to time out, and try again",
        group.group,
        counted(group.members.len(), "member"),
        group.state,
        who.join(", "),
    )
}

fn counted(count: usize, thing: &str) -> String {
    match count {
        1 => format!("1 {thing}"),
        _ => format!("{count} {thing}s"),
    }
}

/// A topic, or some of its partitions: `readings`, `readings:0,3`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct TopicChoice {
    topic: TopicName,
    /// Empty for all.
    partitions: Vec<PartitionId>,
}

impl std::str::FromStr for TopicChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<TopicChoice, String> {
        let (topic, numbers) = match text.split_once(':') {
            Some((topic, numbers)) => (topic, Some(numbers)),
            None => (text, None),
        };
        let partition = |number: &str| -> Result<PartitionId, String> {
            number
                .parse::<i32>()
                .ok()
                .and_then(PartitionId::from_wire)
                .ok_or_else(|| format!("{number:?} is no partition's number"))
        };
        Ok(TopicChoice {
            topic: TopicName::parse(topic).map_err(|error| error.to_string())?,
            partitions: match numbers {
                Some(numbers) => numbers
                    .split(',')
                    .map(partition)
                    .collect::<Result<_, _>>()?,
                None => Vec::new(),
            },
        })
    }
}

impl TopicChoice {
    fn takes(&self, partition: &TopicPartition) -> bool {
        self.topic == partition.topic
            && (self.partitions.is_empty() || self.partitions.contains(&partition.partition))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_chosen_whole_or_by_partitions() {
        let choice: TopicChoice = "a.b:0,3".parse().unwrap();
        assert_eq!(choice.topic.as_str(), "a.b");
        assert_eq!(
            choice.partitions,
            [PartitionId::new(0), PartitionId::new(3)]
        );
        assert!("a".parse::<TopicChoice>().unwrap().partitions.is_empty());
        for wrong in ["", "a:", "a:x", "a:-1", "a b", "a:1,,2"] {
            assert!(wrong.parse::<TopicChoice>().is_err(), "{wrong}");
        }
    }
}
