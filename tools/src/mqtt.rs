//! `mqtt`: the clients of a running server, their sessions, what is retained, and where messages go.
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
use crate::output::{aside, counted, duration, in_one_line, print, say, shown_of, size};
use crate::table::Table;

/// Shown below `mqtt --help`.
pub const EXAMPLES: &str = "\
Examples:
  alluvium mqtt sessions                           who is connected
  alluvium mqtt session show pump-17               what is kept of it
  alluvium mqtt retained 'site/#'                  which messages are retained
  alluvium mqtt routes                             which Kafka topics messages go to
  alluvium mqtt routes site/17/pump/temp           where those of one topic go
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
    /// What is kept of a client.
    #[command(subcommand)]
    Session(SessionCommand),
    /// List retained messages.
    Retained {
        /// Of which topics
        #[arg(default_value = "#")]
        filter: String,
    },
    /// List the routes from MQTT topics to Kafka topics, or tell where messages of one topic go.
    Routes {
        /// An MQTT topic: tell where its messages go
        topic: Option<String>,
    },
    /// End a client's connection.
    Kick {
        /// The client's id
        client_id: String,
    },
}

#[derive(Debug, Subcommand)]
enum SessionCommand {
    /// Show a session: its subscriptions, its will, and what is under way.
    Show {
        /// The client's id
        client_id: String,
        /// Whose client it is, if it shows a user
        #[arg(long)]
        user: Option<String>,
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
            MqttCommand::Session(SessionCommand::Show { client_id, user }) => {
                show(&server, common.json, (&client_id, user.as_deref())).await
            }
            MqttCommand::Retained { filter } => retained(&server, common.json, &filter).await,
            MqttCommand::Routes { topic: None } => routes(&server, common.json).await,
            MqttCommand::Routes { topic: Some(topic) } => route(&server, common.json, &topic).await,
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

async fn show(
    server: &HttpServer,
    json: bool,
    (client_id, user): (&str, Option<&str>),
) -> Result<ExitCode> {
    let mut path = format!("/api/v1/mqtt/sessions/{}", http::escaped(client_id));
    if let Some(user) = user {
        path.push_str(&format!("?user={}", http::escaped(user)));
    }
    let answer = server.get(&path).await?;
    let text = || {
        let time = |value: &Value| {
            let seconds = value.as_f64().unwrap_or_default();
            duration(Duration::try_from_secs_f64(seconds).unwrap_or_default())
        };
        let connected = match (answer["connected"].as_bool(), &answer["absent_seconds"]) {
            (Some(true), _) => "connected".to_owned(),
            (_, Value::Null) => "absent".to_owned(),
            (_, absent) => format!("absent for {}", time(absent)),
        };
        let mut text = format!(
            "{connected}; kept for {} behind its connection\n",
            time(&answer["expiry_seconds"])
        );
        if let Some(topic) = answer["will"]["topic"].as_str() {
            let delay = time(&answer["will"]["delay_seconds"]);
            text.push_str(&format!("will: {}, after {delay}\n", in_one_line(topic)));
        }
        text.push_str(&format!(
            "{} messages sent and not acknowledged, {} received and not released\n",
            answer["unacknowledged"], answer["unreleased"]
        ));
        let mut table = Table::new(&["SUBSCRIPTION", "QOS"]);
        for one in answer["subscriptions"].as_array().into_iter().flatten() {
            let filter = one["filter"].as_str().unwrap_or_default();
            table.row([in_one_line(filter), one["qos"].to_string()]);
        }
        format!("{text}\n{table}")
    };
    print(json, || answer.clone(), text)?;
    Ok(ExitCode::SUCCESS)
}

async fn retained(server: &HttpServer, json: bool, filter: &str) -> Result<ExitCode> {
    let mut all: Vec<Value> = Vec::new();
    let mut path = format!("/api/v1/mqtt/retained?filter={}", http::escaped(filter));
    loop {
        let mut answer = server.get(&path).await?;
        if let Value::Array(some) = answer["retained"].take() {
            all.extend(some);
        }
        let Some(next) = answer["next"].as_str() else {
            break;
        };
        let (filter, behind) = (http::escaped(filter), http::escaped(next));
        path = format!("/api/v1/mqtt/retained?filter={filter}&behind={behind}");
    }
    let text = || {
        let time = |value: &Value| match value.as_f64() {
            Some(seconds) => duration(Duration::try_from_secs_f64(seconds).unwrap_or_default()),
            None => "-".to_owned(),
        };
        let mut table = Table::new(&["TOPIC", "SIZE", "AGE", "EXPIRES"]);
        for one in &all {
            table.row([
                in_one_line(one["topic"].as_str().unwrap_or_default()),
                size(one["bytes"].as_u64().unwrap_or_default()),
                time(&one["age_seconds"]),
                time(&one["expires_seconds"]),
            ]);
        }
        let total = counted(all.len(), "retained message");
        format!("{table}\n{total}\n")
    };
    print(json, || Value::from(all.clone()), text)?;
    Ok(ExitCode::SUCCESS)
}

async fn routes(server: &HttpServer, json: bool) -> Result<ExitCode> {
    let answer = server.get("/api/v1/mqtt/routes").await?;
    let all = &answer["routes"];
    let text = || {
        let mut table = Table::new(&["ROUTE", "FILTER", "TOPIC", "KEY", "PARTITIONS"]);
        for (number, one) in (1..).zip(all.as_array().into_iter().flatten()) {
            let text = |name: &str| in_one_line(one[name].as_str().unwrap_or_default());
            let number: usize = number;
            table.row([
                number.to_string(),
                text("filter"),
                text("topic"),
                text("key"),
                one["partitions"].to_string(),
            ]);
        }
        table.to_string()
    };
    print(json, || all.clone(), text)?;
    Ok(ExitCode::SUCCESS)
}

async fn route(server: &HttpServer, json: bool, topic: &str) -> Result<ExitCode> {
    let path = format!("/api/v1/mqtt/routes?topic={}", http::escaped(topic));
    let answer = server.get(&path).await?;
    let takes = &answer["takes"];
    let text = || {
        let by = match takes["route"].as_u64() {
            Some(number) => format!("route {number}"),
            None => "its own name".to_owned(),
        };
        let kafka_topic = in_one_line(takes["topic"].as_str().unwrap_or_default());
        let key = match takes["key"].as_str() {
            Some(key) => format!("key {}", in_one_line(key)),
            None => "no key".to_owned(),
        };
        let partition = match takes["partition"].as_u64() {
            Some(partition) => format!(", partition {partition}"),
            None => String::new(),
        };
        // As `alluvium acl check` asks for it.
        let resource = match takes["route"].is_null() {
            true => kafka_topic.to_string(),
            false => format!("{kafka_topic}/{topic}"),
        };
        format!(
            "{} goes by {by} to {kafka_topic}, {key}{partition}\nwho may: alluvium acl check USER write topic:{}\n",
            in_one_line(topic),
            in_one_line(&resource)
        )
    };
    print(json, || takes.clone(), text)?;
    Ok(ExitCode::SUCCESS)
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
