//! `group`: what consumer groups there are, how far behind they are, and moving or deleting them.
//!
//! Callers: the command line. `places.rs` asks where partitions begin and end and when their records were written,
//! `describe.rs` and `reset.rs` are a command each. Whatever changes something shows its plan first.

mod delete;
mod describe;
mod places;
mod reset;

use std::process::ExitCode;

use anyhow::Result;
use client::admin::{Admin, GroupDescription};
use client::{Client, ErrorCode};
use model::Timestamp;
use serde_json::json;

use crate::failure::NOT_FOUND;
use crate::http::HttpServer;
use crate::output::{counted, print};
use crate::table::Table;
use crate::topic_choice::TopicChoice;

const LIST_EXAMPLES: &str = "\
Examples:
  alluvium group list
  alluvium group list --json | jq -r '.[].group'";

/// List, describe, move and delete consumer groups.
#[derive(Debug, clap::Subcommand)]
pub enum GroupCommand {
    /// List all groups and their states.
    #[command(after_help = LIST_EXAMPLES)]
    List,
    /// Show members, committed offsets, and lag in records and in time.
    ///
    /// The lag in seconds is the age of the record that the group reads next.
    Describe(describe::DescribeArgs),
    /// Move a group that has no members to other offsets. Shows what would change; --execute does it.
    #[command(after_help = reset::EXAMPLES)]
    Reset(reset::ResetArgs),
    /// Delete groups without members, or what they committed for some topics.
    #[command(after_help = delete::EXAMPLES)]
    Delete(delete::DeleteArgs),
}

impl GroupCommand {
    /// Runs the command. `now` is what lags and relative times count from.
    pub async fn run(
        self,
        client: &Client,
        json: bool,
        now: Timestamp,
        ledger: Option<HttpServer>,
    ) -> Result<ExitCode> {
        let admin = Admin::new(client);
        match self {
            GroupCommand::List => list(&admin, json).await,
            GroupCommand::Describe(args) => describe::run(args, client, json, now, ledger).await,
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
    crate::output::note!("error: {what}");
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
