//! `broker connections`: who is connected to a server's Kafka port, as the server tells over HTTP.
//!
//! Callers: `broker`. The server lists the 1,000 busiest; how many there are is always told.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cleanup::ServerArgs;
use crate::cli::Common;
use crate::output::{counted, duration, in_one_line, print, shown_of, size};
use crate::table::Table;

pub(super) const EXAMPLES: &str = "\
Rates are of the last 10 to 20 seconds. IDLE is the time since the client's last request.
--json: an object: open (how many there are), shown, connections (an array of client_id, address, open_seconds, idle_seconds, \
requests, received_bytes, sent_bytes, received_bytes_per_second, sent_bytes_per_second).

Examples:
  alluvium broker connections
  alluvium broker connections --client gateway --limit 100
  alluvium broker connections --json | jq -r '.connections[] | select(.idle_seconds > 600) | .address'";

/// What is to be shown.
#[derive(Debug, clap::Args)]
pub(super) struct ConnectionsArgs {
    /// Show so many at most
    #[arg(short, long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Show those whose client id contains this text
    #[arg(long, value_name = "TEXT")]
    client: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
}

/// What the server answers.
#[derive(Deserialize)]
struct Answer {
    open: u64,
    connections: Vec<Value>,
}

/// What a line of the table shows of a connection.
#[derive(Deserialize)]
struct Connection {
    client_id: Option<String>,
    address: String,
    open_seconds: f64,
    idle_seconds: f64,
    requests: u64,
    received_bytes_per_second: u64,
    sent_bytes_per_second: u64,
}

impl ConnectionsArgs {
    /// Runs the command.
    pub(super) async fn run(&self, common: &Common) -> Result<ExitCode> {
        let server = common.http(self.server.http.as_deref())?;
        let answer = server.get("/connections").await?;
        let answer: Answer = serde_json::from_value(answer).context("the server's connections")?;
        let is_wanted = |connection: &&Value| {
            let name = connection["client_id"].as_str().unwrap_or_default();
            self.client.as_ref().is_none_or(|text| name.contains(text))
        };
        let wanted = answer.connections.iter().filter(is_wanted);
        let shown: Vec<&Value> = wanted.take(self.limit as usize).collect();
        let connections = shown.iter().map(|one| Connection::deserialize(*one));
        let connections: Vec<Connection> = connections
            .collect::<Result<_, _>>()
            .context("the server's connections")?;
        print(
            common.json,
            || json!({ "open": answer.open, "shown": shown.len(), "connections": shown }),
            || in_text(answer.open, &connections),
        )?;
        Ok(ExitCode::SUCCESS)
    }
}

fn in_text(open: u64, connections: &[Connection]) -> String {
    let time = |seconds: f64| duration(Duration::try_from_secs_f64(seconds).unwrap_or_default());
    let mut table = Table::new(&["CLIENT", "ADDRESS", "OPEN", "IDLE", "REQUESTS", "IN", "OUT"]);
    for one in connections {
        let client = one.client_id.as_deref().unwrap_or("-");
        table.row([
            in_one_line(client),
            one.address.clone(),
            time(one.open_seconds),
            time(one.idle_seconds),
            one.requests.to_string(),
            format!("{}/s", size(one.received_bytes_per_second)),
            format!("{}/s", size(one.sent_bytes_per_second)),
        ]);
    }
    let open = usize::try_from(open).unwrap_or(usize::MAX);
    if connections.is_empty() {
        return format!("{}, none to show\n", counted(open, "open connection"));
    }
    let total = shown_of(connections.len(), open, "open connection");
    format!("{table}\n{total}\n")
}
