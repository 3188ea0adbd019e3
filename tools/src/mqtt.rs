//! `mqtt`: the connected clients of a running server.
//!
//! Callers: the command line. Talks HTTP to `/api/v1/mqtt`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::Value;

use crate::cli::Common;
use crate::failure::Failure;
use crate::http::{self, HttpServer};
use crate::output::{aside, in_one_line, print, say, shown_of};
use crate::table::Table;

/// Shown below `mqtt --help`.
pub const EXAMPLES: &str = "\
Examples:
  alluvium mqtt sessions                           who is connected
  alluvium mqtt kick pump-17                       ends its connection; it may come again";

/// `mqtt` and its options.
#[derive(Debug, Args)]
pub struct MqttArgs {
    /// Where the server serves HTTP, HOST or HOST:PORT [env: ALLUVIUM_HTTP] [default: port 8080 of the first broker]
    #[arg(long, global = true, value_name = "ADDR")]
    http: Option<String>,
    #[command(subcommand)]
    command: MqttCommand,
}

#[derive(Debug, Subcommand)]
enum MqttCommand {
    /// List the clients that are connected.
    Sessions,
    /// End a client's connection.
    Kick {
        /// The client's id
        client_id: String,
    },
}

impl MqttArgs {
    /// Runs the command.
    pub async fn run(self, common: &Common) -> Result<ExitCode> {
        let server = common.http(self.http.as_deref())?;
        match self.command {
            MqttCommand::Sessions => {
                let columns = [
                    "client_id",
                    "principal",
                    "address",
                    "version",
                    "connected_seconds",
                ];
                list(&server, common.json, ("sessions", &columns)).await
            }
            MqttCommand::Kick { client_id } => kick(&server, common.json, &client_id).await,
        }
    }
}

async fn list(
    server: &HttpServer,
    json: bool,
    (what, columns): (&str, &[&str]),
) -> Result<ExitCode> {
    let answer = server.get(&format!("/api/v1/mqtt/{what}")).await?;
    let all = answer[what].as_array().cloned().unwrap_or_default();
    let open = answer["open"].as_u64().unwrap_or_default();
    let open = usize::try_from(open).unwrap_or(usize::MAX);
    let total = shown_of(all.len(), open, "client");
    if json {
        if all.len() < open {
            // The array has no place for it.
            aside(format_args!("{total}\n"));
        }
        say!("{:#}", Value::from(all));
        return Ok(ExitCode::SUCCESS);
    }
    let headings: Vec<&str> = columns.iter().map(|name| heading(name)).collect();
    let mut table = Table::new(&headings);
    for one in &all {
        table.row(columns.iter().map(|name| match &one[*name] {
            Value::String(text) => in_one_line(text),
            Value::Number(seconds) if *name == "connected_seconds" => {
                let seconds = Duration::from_secs_f64(seconds.as_f64().unwrap_or_default());
                format!("{}s", seconds.as_secs())
            }
            other => other.to_string(),
        }));
    }
    print(false, || Value::Null, || format!("{table}\n{total}\n"))?;
    Ok(ExitCode::SUCCESS)
}

fn heading(name: &str) -> &'static str {
    match name {
        "client_id" => "CLIENT",
        "principal" => "PRINCIPAL",
        "address" => "ADDRESS",
        "version" => "VERSION",
        _ => "CONNECTED",
    }
}

async fn kick(server: &HttpServer, json: bool, client_id: &str) -> Result<ExitCode> {
    let path = format!("/api/v1/mqtt/sessions/{}", http::escaped(client_id));
    let answer = server.delete(&path).await?;
    let ended = answer["ended"].as_u64().unwrap_or_default();
    if ended == 0 {
        anyhow::bail!(Failure::NotFound(format!(
            "no client {client_id} is connected"
        )));
    }
    print(json, || answer, || format!("{client_id}: ended\n"))?;
    Ok(ExitCode::SUCCESS)
}
