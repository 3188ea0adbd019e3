//! `loss`: the ledger of what consumer groups had not read when it was removed or damaged.
//!
//! Callers: the command line; `group describe` shows a group's own entries. Talks HTTP to `/api/v1/cleanup/losses`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::Value;

use crate::cli::Common;
use crate::hold::time_text;
use crate::http::{self, HttpServer};
use crate::output::{print, say};
use crate::table::Table;

/// Shown below `loss --help`.
pub const EXAMPLES: &str = "\
Examples:
  alluvium loss list
  alluvium loss list --group dashboard --json | jq '.[].records'";

/// How long a description waits for the ledger.
const WAIT: Duration = Duration::from_secs(1);

/// `loss` and its options.
#[derive(Debug, Args)]
pub struct LossArgs {
    /// Where the server serves HTTP, HOST or HOST:PORT [env: ALLUVIUM_HTTP] [default: port 8080 of the first broker]
    #[arg(long, global = true, value_name = "ADDR")]
    http: Option<String>,
    #[command(subcommand)]
    command: LossCommand,
}

#[derive(Debug, Subcommand)]
enum LossCommand {
    /// List the entries, the newest first: who lost which records, when and why.
    List {
        /// Only those of this group
        #[arg(long)]
        group: Option<String>,
        /// Only those of this topic
        #[arg(long)]
        topic: Option<String>,
    },
}

impl LossArgs {
    /// Runs the command.
    pub async fn run(self, common: &Common) -> Result<ExitCode> {
        let server = common.http(self.http.as_deref())?;
        let LossCommand::List { group, topic } = self.command;
        let answer = server
            .get(&path(group.as_deref(), topic.as_deref()))
            .await?;
        let losses = answer["losses"].as_array().cloned().unwrap_or_default();
        if common.json {
            say!("{:#}", Value::from(losses));
            return Ok(ExitCode::SUCCESS);
        }
        let left_out = answer["left_out"].as_u64().unwrap_or(0);
        print(
            false,
            || Value::Null,
            || {
                let more = match left_out {
                    0 => String::new(),
                    _ => format!("and {left_out} older ones\n"),
                };
                format!("{}{more}", page(&losses))
            },
        )?;
        Ok(ExitCode::SUCCESS)
    }
}

fn path(group: Option<&str>, topic: Option<&str>) -> String {
    let pairs = [("group", group), ("topic", topic)];
    let given = pairs
        .iter()
        .filter_map(|(name, value)| Some((*name, (*value)?.to_owned())));
    let given: Vec<(&str, String)> = given.collect();
    match given.is_empty() {
        true => "/api/v1/cleanup/losses".to_owned(),
        false => format!("/api/v1/cleanup/losses?{}", http::query(&given)),
    }
}

/// A table of entries.
pub(crate) fn page(losses: &[Value]) -> String {
    let mut table = Table::new(&[
        "WHO",
        "TOPIC",
        "PARTITION",
        "FROM",
        "TO",
        "RECORDS",
        "WHEN",
        "CAUSE",
        "REASON",
    ]);
    for loss in losses {
        let text = |name: &str| match &loss[name] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        table.row([
            match loss["group"].as_str() {
                Some(group) => group.to_owned(),
                None => text("reader"),
            },
            text("topic"),
            text("partition"),
            text("from"),
            text("to"),
            text("records"),
            time_text(&loss["until_ms"], ""),
            text("cause"),
            text("reason"),
        ]);
    }
    table.to_string()
}

/// What a group of this cluster lost. None if no server of it tells within a second on that HTTP port.
pub(crate) async fn of_group(
    server: &HttpServer,
    cluster_id: &str,
    group: &str,
) -> Option<Vec<Value>> {
    let path = path(Some(group), None);
    let answer = tokio::time::timeout(WAIT, server.get(&path)).await;
    let answer = answer.ok()?.ok()?;
    (answer["cluster_id"] == cluster_id).then_some(())?;
    answer["losses"].as_array().cloned()
}
