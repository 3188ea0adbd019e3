//! `erase`: the records of a key erased for good, with a receipt; how far that is; and whether anything is left.
//!
//! Callers: the command line. Talks HTTP to `/api/v1/cleanup/erasures`; `verify.rs` also looks into a data directory itself, by
//! the witness, which shares no code with what erases. `text.rs` is what people are told.

mod text;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use model::TopicName;
use model::hex::{from_hex, to_hex};
use serde_json::{Value, json};

use self::verify::VerifyArgs;
use crate::cli::Common;
use crate::failure::{self, Failure};
use crate::http::{self, HttpServer};
use crate::output::{aside, confirm, note, print, print_text};

/// Shown below `erase --help`.
pub const EXAMPLES: &str = "\
What goes are all records of the keys that lie below each partition's end when it is asked for. It is durable, goes on after \
a restart by itself, and ends with a search of every file of the store, by other code than erases, and a receipt. Backups, and \
what consumers have read, are not the store's to erase; docs/erasure.md tells all of it.

Examples:
  alluvium erase request readings device-17 --dry-run      what would go
  alluvium erase request readings device-17 --reason 'request 4711' --wait
  alluvium erase status
  alluvium erase verify                                    is the chain of receipts whole
  alluvium erase verify readings device-17                 and is something of the key left
  alluvium erase verify readings device-17 --dir data      without asking a server";

const REQUEST_EXAMPLES: &str = "\
First all of the topic is read and it is shown what would go; then it asks, unless --yes says so. A hold refuses it. One that is \
added later stops it, as a full disk or an unreadable segment does: it goes on by itself when it can, and `status` tells why not.
--json: with --dry-run the plan: records, segments, segments_read, windows, undecodable, refusal, quarantine, partitions; else the \
erasure: id, state, outcome, stopped, topic, keys (as SHA-256), progress, receipt, partitions.

Examples:
  alluvium erase request readings device-17 --dry-run
  alluvium erase request readings device-17 device-18 --yes --wait
  alluvium erase request readings --keys-file keys.txt --yes
  alluvium erase request readings 00ff17 --hex --partition 3

Exit codes: 0 taken by the server, or with --wait done and verified; 1 refused, stopped or cancelled, or batches were left that \
cannot be read; 2 wrong usage; 3 no such topic or partition; 4 no server reached.";

const STATUS_EXAMPLES: &str = "\
--json: an array of the objects that `request` prints; with an erasure, this one object.

Examples:
  alluvium erase status
  alluvium erase status 1a2b3c4d5e6f --json";

const RECEIPTS_EXAMPLES: &str = "\
Each is a line, to the byte: its SHA-256 can be checked with `alluvium erase verify --receipt FILE`.

Examples:
  alluvium erase receipts > receipts.ndjson
  alluvium erase receipts 1a2b3c4d5e6f | jq .verified";

const CANCEL_EXAMPLES: &str = "\
What it has erased stays erased, and a receipt says so.
--json: the object that `request` prints.

Examples:
  alluvium erase cancel 1a2b3c4d5e6f";

/// How long the server waits with its answer for the end of something.
const WAIT_MS: u64 = 500;

/// `erase` and its options.
#[derive(Debug, Args)]
pub struct EraseArgs {
    /// Where the server serves HTTP, HOST or HOST:PORT [env: ALLUVIUM_HTTP] [default: port 8080 of the first broker]
    #[arg(long, global = true, value_name = "ADDR")]
    http: Option<String>,
    #[command(subcommand)]
    command: EraseCommand,
}

#[derive(Debug, Subcommand)]
enum EraseCommand {
    /// Have the records of keys erased: the plan first, then the erasure.
    #[command(after_help = REQUEST_EXAMPLES)]
    Request(RequestArgs),
    /// Show how far erasures are, and what stops them.
    #[command(after_help = STATUS_EXAMPLES)]
    Status {
        /// One erasure
        id: Option<String>,
    },
    /// Check the chain of receipts, and look whether anything of a key is left in any file.
    #[command(after_help = verify::EXAMPLES)]
    Verify(VerifyArgs),
    /// Print the receipts, a line each.
    #[command(after_help = RECEIPTS_EXAMPLES)]
    Receipts {
        /// That of one erasure
        id: Option<String>,
    },
    /// End an erasure early.
    #[command(after_help = CANCEL_EXAMPLES)]
    Cancel {
        /// Which
        id: String,
    },
}

/// Which keys.
#[derive(Debug, Args)]
pub(crate) struct KeyArgs {
    /// The keys
    #[arg(value_name = "KEY")]
    keys: Vec<String>,
    /// Keys from a file, one a line; - is standard input
    #[arg(long, value_name = "FILE")]
    keys_file: Option<PathBuf>,
    /// The keys are given as hexadecimal digits
    #[arg(long)]
    hex: bool,
    /// One partition of the topic
    #[arg(short, long, value_name = "P")]
    partition: Option<u32>,
}

#[derive(Debug, Args)]
struct RequestArgs {
    /// The topic
    topic: TopicName,
    #[command(flatten)]
    keys: KeyArgs,
    /// Why, for the receipt
    #[arg(long)]
    reason: Option<String>,
    /// Remove files of the quarantine that hold a key, whatever else they hold
    #[arg(long)]
    remove_quarantined: bool,
    /// Only show what would go
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Return when it is over, or does not go on by itself
    #[arg(long)]
    wait: bool,
}

impl KeyArgs {
    /// The keys' bytes.
    fn bytes(&self) -> Result<Vec<Vec<u8>>> {
        let mut texts = self.keys.clone();
        if let Some(path) = &self.keys_file {
            let read = match path.as_os_str() == "-" {
                true => std::io::read_to_string(std::io::stdin()),
                false => std::fs::read_to_string(path),
            };
            let read = read.with_context(|| path.display().to_string())?;
            texts.extend(read.lines().map(str::to_owned));
        }
        let bytes = |text: &String| match self.hex {
            false => Ok(text.clone().into_bytes()),
            true => from_hex(text)
                .ok_or_else(|| Failure::Usage(format!("{text:?} is no hexadecimal digits"))),
        };
        Ok(texts.iter().map(bytes).collect::<Result<_, Failure>>()?)
    }

    /// What a request's body says of the keys.
    fn body(&self, topic: &TopicName) -> Result<Value> {
        let keys = self.bytes()?;
        if keys.is_empty() {
            bail!(Failure::Usage(
                "which key? name one, or a --keys-file".to_owned()
            ));
        }
        let hex: Vec<String> = keys.iter().map(to_hex).collect();
        Ok(json!({ "topic": topic.as_str(), "partition": self.partition, "keys_hex": hex }))
    }
}

/// A server's erasures.
struct Erasures {
    http: HttpServer,
}

impl EraseArgs {
    /// Runs the command.
    pub async fn run(self, common: &Common) -> Result<ExitCode> {
        if let EraseCommand::Verify(args) = &self.command
            && args.is_offline()
        {
            return tokio::task::block_in_place(|| args.run_offline(common.json));
        }
        let server = Erasures {
            http: common.http(self.http.as_deref())?,
        };
        match self.command {
            EraseCommand::Request(args) => server.request(&args, common.json).await,
            EraseCommand::Status { id } => server.status(id.as_deref(), common.json).await,
            EraseCommand::Verify(args) => args.run(&server, common.json).await,
            EraseCommand::Receipts { id } => server.receipts(id.as_deref()).await,
            EraseCommand::Cancel { id } => {
                let erasure = server.http.delete(&path_of(&id)).await?;
                print(
                    common.json,
                    || erasure.clone(),
                    || text::of_erasure(&erasure),
                )?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

fn path_of(id: &str) -> String {
    format!("/api/v1/cleanup/erasures/{}", http::escaped(id))
}

impl Erasures {
    async fn request(&self, args: &RequestArgs, json: bool) -> Result<ExitCode> {
        let mut body = args.keys.body(&args.topic)?;
        let plan = self.look("plan", &body).await?;
        if args.dry_run {
            print(json, || plan.clone(), || text::of_plan(&plan))?;
            return Ok(ExitCode::SUCCESS);
        }
        if !json || !args.yes {
            aside(format_args!("{}", text::of_plan(&plan)));
        }
        if let Some(refusal) = plan["refusal"].as_str() {
            bail!("it would be refused: {refusal}");
        }
        if !args.remove_quarantined
            && let Some(files) = plan["quarantine"].as_str()
        {
            bail!(
                "files in the quarantine hold a key: {files}; --remove-quarantined removes them too"
            );
        }
        if !args.yes {
            let records = plan["records"].as_u64().unwrap_or(0);
            confirm(&format!("erase {records} records for good"))?;
        }
        body["reason"] = args.reason.clone().into();
        body["remove_quarantined"] = args.remove_quarantined.into();
        let mut erasure = self.http.post("/api/v1/cleanup/erasures", &body).await?;
        if args.wait {
            let id = erasure["id"].as_str().unwrap_or_default().to_owned();
            erasure = self.wait(&id).await?;
        }
        print(json, || erasure.clone(), || text::of_erasure(&erasure))?;
        if !args.wait {
            return Ok(ExitCode::SUCCESS);
        }
        let left = self.left_of(&erasure).await?;
        let is_done = erasure["outcome"] == "done" && left == 0;
        if left > 0 {
            note!(
                "warning: the receipt names {left} places that could not be read: what they hold is not known"
            );
        }
        Ok(match is_done {
            true => ExitCode::SUCCESS,
            false => ExitCode::from(failure::FAILED),
        })
    }

    /// What a finished erasure could not read, by its receipt.
    async fn left_of(&self, erasure: &Value) -> Result<u64> {
        let id = erasure["id"].as_str().unwrap_or_default();
        if erasure["receipt"].is_null() {
            return Ok(0);
        }
        let receipt = self.http.get(&format!("{}/receipt", path_of(id))).await?;
        let unread = receipt["verified"]["unread"].as_u64().unwrap_or(0);
        Ok(unread.max(receipt["undecodable"].as_u64().unwrap_or(0)))
    }

    /// Waits until an erasure is over, or stopped by something that does not pass by itself.
    async fn wait(&self, id: &str) -> Result<Value> {
        let bar = spinner()?;
        loop {
            let path = format!("{}?wait_ms={WAIT_MS}", path_of(id));
            let erasure = self.http.get(&path).await?;
            bar.set_message(text::progress(&erasure));
            let passes = matches!(
                erasure["stopped"]["code"].as_str(),
                None | Some("disk_full" | "busy" | "stopping")
            );
            if erasure["state"] == "ended" || !passes {
                bar.finish_and_clear();
                return Ok(erasure);
            }
            if !erasure["stopped"].is_null() {
                tokio::time::sleep(Duration::from_millis(WAIT_MS)).await;
            }
        }
    }

    /// Has something looked at, and waits for what was found.
    async fn look(&self, what: &str, body: &Value) -> Result<Value> {
        let path = format!("/api/v1/cleanup/erasures/{what}");
        let mut look = self.http.post(&path, body).await?;
        let id = look["id"].as_str().unwrap_or_default().to_owned();
        let bar = spinner()?;
        while look["state"] == "running" {
            bar.set_message(text::progress(&look));
            let id = http::escaped(&id);
            let path = format!("/api/v1/cleanup/erasures/looks/{id}?wait_ms={WAIT_MS}");
            look = self.http.get(&path).await?;
        }
        bar.finish_and_clear();
        match look["detail"].as_str() {
            Some(reason) => bail!("{reason}"),
            None => Ok(look["result"].take()),
        }
    }

    async fn status(&self, id: Option<&str>, json: bool) -> Result<ExitCode> {
        if let Some(id) = id {
            let erasure = self.http.get(&path_of(id)).await?;
            print(json, || erasure.clone(), || text::of_erasure(&erasure))?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut answer = self.http.get("/api/v1/cleanup/erasures").await?;
        let all = answer["erasures"].take();
        print(json, || all.clone(), || text::of_all(&all))?;
        Ok(ExitCode::SUCCESS)
    }

    async fn receipts(&self, id: Option<&str>) -> Result<ExitCode> {
        let path = match id {
            Some(id) => format!("{}/receipt", path_of(id)),
            None => "/api/v1/cleanup/erasures/receipts".to_owned(),
        };
        let mut lines = self.http.get_text(&path).await?;
        if !lines.is_empty() && !lines.ends_with('\n') {
            lines.push('\n');
        }
        print_text(&lines)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Drawn on standard error, and only if that is a terminal.
fn spinner() -> Result<ProgressBar> {
    let style = ProgressStyle::with_template("{spinner} {msg}")?;
    let bar = ProgressBar::new_spinner().with_style(style);
    bar.enable_steady_tick(Duration::from_millis(200));
    Ok(bar)
}
