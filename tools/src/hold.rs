//! `hold`: what cleanup must not remove, of a running server: added with a reason, listed, ended.
//!
//! Callers: the command line. Talks HTTP to `/api/v1/cleanup/holds`.

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use model::{Timestamp, TopicName};
use serde_json::{Value, json};

use crate::cli::Common;
use crate::failure::Failure;
use crate::http::{self, HttpServer};
use crate::output::{print, say};
use crate::table::Table;
use model::time_spec::{parse_duration, parse_time};

/// Shown below `hold --help`.
pub const EXAMPLES: &str = "\
A hold keeps records from retention, store.bytes.max, compaction and DeleteRecords, and the topic from deletion, until it is
removed or ends. It is on what was appended in a time, whole segments; without --from and --to on all of a topic. With --key it
is on the segments that have records of this key, and thinning keeps these records.

Examples:
  alluvium hold add readings --from 2026-03-01 --to 2026-03-05 --reason 'case 4711' --expires 90d
  alluvium hold add readings --key sensor-17 --reason 'case 4712'
  alluvium hold list
  alluvium hold remove 1a2b3c4d";

/// `hold` and its options.
#[derive(Debug, Args)]
pub struct HoldArgs {
    /// Where the server serves HTTP, HOST or HOST:PORT [env: ALLUVIUM_HTTP] [default: port 8080 of the first broker]
    #[arg(long, global = true, value_name = "ADDR")]
    http: Option<String>,
    #[command(subcommand)]
    command: HoldCommand,
}

#[derive(Debug, Subcommand)]
enum HoldCommand {
    /// Add a hold. It is in force when this returns.
    Add(AddArgs),
    /// List the holds that are in force.
    List,
    /// End a hold.
    Remove {
        /// The hold, as `list` names it
        id: String,
    },
}

#[derive(Debug, Args)]
struct AddArgs {
    /// The topic
    topic: TopicName,
    /// One partition of it
    #[arg(short, long, value_name = "P")]
    partition: Option<u32>,
    /// What was appended from this time on
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Option<String>,
    /// What was appended before this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    to: Option<String>,
    /// The records of this key only
    #[arg(long, value_name = "KEY", conflicts_with = "key_hex")]
    key: Option<String>,
    /// The same, the key as hexadecimal digits
    #[arg(long, value_name = "DIGITS")]
    key_hex: Option<String>,
    /// Why
    #[arg(long)]
    reason: String,
    /// When it ends: a time, or how long from now, as 90d
    #[arg(long, value_name = "TIME | DURATION")]
    expires: Option<String>,
}

impl HoldArgs {
    /// Runs the command.
    pub async fn run(self, common: &Common, now: Timestamp) -> Result<ExitCode> {
        let server = common.http(self.http.as_deref())?;
        match self.command {
            HoldCommand::Add(args) => add(&args, &server, common.json, now).await,
            HoldCommand::List => list(&server, common.json).await,
            HoldCommand::Remove { id } => {
                let path = format!("/api/v1/cleanup/holds/{}", http::escaped(&id));
                let hold = server.delete(&path).await?;
                let topic = text(&hold, "topic").to_owned();
                print(
                    common.json,
                    || hold,
                    || format!("hold {id} on {topic} is removed\n"),
                )?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

async fn add(args: &AddArgs, server: &HttpServer, json: bool, now: Timestamp) -> Result<ExitCode> {
    let time = |text: &Option<String>, option: &'static str| -> Result<Option<i64>> {
        let parsed = text.as_deref().map(|text| parse_time(text, now));
        Ok(parsed.transpose().context(option)?.map(Timestamp::millis))
    };
    let expires = match args.expires.as_deref() {
        None => None,
        Some(text) => match parse_duration(text) {
            Ok(millis) => Some(now.millis().saturating_add(millis)),
            Err(_) => Some(parse_time(text, now).context("--expires")?.millis()),
        },
    };
    if expires.is_some_and(|end| end <= now.millis()) {
        bail!(Failure::Usage(
            "--expires: the hold would have ended already".to_owned()
        ));
    }
    let mut body = json!({
        "topic": args.topic.as_str(), "partition": args.partition, "from_ms": time(&args.from, "--from")?,
        "to_ms": time(&args.to, "--to")?, "reason": args.reason, "expires_ms": expires,
    });
    // A server before this one knows neither.
    for (name, key) in [("key", &args.key), ("key_hex", &args.key_hex)] {
        if let Some(key) = key {
            body[name] = key.as_str().into();
        }
    }
    let hold = server.post("/api/v1/cleanup/holds", &body).await?;
    let told = format!("hold {} on {}\n", text(&hold, "id"), text(&hold, "topic"));
    print(json, || hold, || told)?;
    Ok(ExitCode::SUCCESS)
}

async fn list(server: &HttpServer, json: bool) -> Result<ExitCode> {
    let answer = server.get("/api/v1/cleanup/holds").await?;
    let holds = answer["holds"].as_array().cloned().unwrap_or_default();
    if json {
        say!("{:#}", Value::from(holds));
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(&[
        "HOLD",
        "TOPIC",
        "PARTITION",
        "KEY",
        "FROM",
        "TO",
        "EXPIRES",
        "BY",
        "REASON",
    ]);
    for hold in &holds {
        let partition = hold["partition"]
            .as_u64()
            .map_or("all".to_owned(), |one| one.to_string());
        table.row([
            text(hold, "id").to_owned(),
            text(hold, "topic").to_owned(),
            partition,
            key_text(hold),
            time_text(&hold["from_ms"], "start"),
            time_text(&hold["to_ms"], "end"),
            time_text(&hold["expires_ms"], "never"),
            text(hold, "by").to_owned(),
            text(hold, "reason").to_owned(),
        ]);
    }
    print(false, || Value::Null, || table.to_string())?;
    Ok(ExitCode::SUCCESS)
}

/// The key whose records are held, or `all`.
fn key_text(hold: &Value) -> String {
    match (hold["key"].as_str(), hold["key_hex"].as_str()) {
        (Some(key), _) => key.escape_default().to_string(),
        (None, Some(digits)) => format!("0x{digits}"),
        (None, None) => "all".to_owned(),
    }
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// A time in words; `none` for none.
pub(crate) fn time_text(millis: &Value, none: &str) -> String {
    let time = millis
        .as_i64()
        .and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok());
    time.map_or_else(|| none.to_owned(), |time| format!("{time:.0}"))
}
