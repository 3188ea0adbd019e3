//! `retention`, `compact`, `thin`: what cleanup would remove from a topic, what holds the rest back, and running it at once. A policy is a command;
//! what they do is the same.
//!
//! Callers: the command line. `server.rs` asks a running server over HTTP, `offline.rs` opens a data directory that no server
//! has open, `limits.rs` finds out there which settings hold, `report.rs` is what both tell.

mod limits;
mod offline;
mod report;
mod server;

use std::num::NonZero;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use model::TopicName;
use serde_json::json;
use storage::cleanup::Policy;

use self::limits::GivenSettings;
use self::report::{Job, Plan};
use crate::cli::Common;
use crate::failure;
use crate::log::view::{self, ViewArgs};
use crate::output::print;

const PLAN_EXAMPLES: &str = "\
--json: an object: policy, topic, removes (segments, records, bytes), segments_left_out, partitions (an array of partition, \
start_offset, end_offset, start_offset_after, bytes, wal_bytes, rolls_active, removes, segments: an array of base_offset, \
end_offset, sealed, records, bytes, last_append_ms, outcome, rule, why).

Examples:
  alluvium retention plan readings
  alluvium retention plan readings --partition 3
  alluvium retention plan readings --dir data --config server.toml      without a server";

const EXPLAIN_EXAMPLES: &str = "\
--json: the object that `plan` prints.

Examples:
  alluvium retention explain readings
  alluvium retention explain readings --json | jq '.partitions[].segments[] | select(.outcome == \"keep\").why'
  alluvium retention explain readings --dir data --defaults             without a server";

const RUN_EXAMPLES: &str = "\
What it removes is what the topic's settings say, and what the server would remove by itself in time. --now first puts all \
records into sealed segments, and leaves out rules that only keep the work small (min.cleanable.dirty.ratio). Without --wait it returns when the \
server has taken the job; `status` tells how far it is. Ctrl-C during --wait cancels the job: what it has done stays done.
--json: an object: id, state, policy, topic, partition, now, dry_run, bytes_per_second, asked_by, asked_ms, started_ms, ended_ms, progress, and \
once it has ended result (removed, bytes_read, bytes_written, partitions_failed, partitions_left_out, partitions).

Examples:
  alluvium retention run readings --wait
  alluvium retention run readings --now --wait
  alluvium retention run readings --dry-run
  alluvium retention run readings --wait --throttle 10000000
  alluvium retention run readings --dir data --config server.toml       without a server

Exit codes: 0 done, or taken by the server; 1 failed in part, or cancelled; 2 wrong usage; 3 no such topic or partition; 4 no \
server reached.";

const STATUS_EXAMPLES: &str = "\
--json: an array of the objects that `run` prints; with a job, this one object.

Examples:
  alluvium retention status
  alluvium retention status 7-12";

const CANCEL_EXAMPLES: &str = "\
--json: the object that `run` prints.

Examples:
  alluvium retention cancel 7-12";

/// The commands' examples, which are written for retention, in the words of another policy.
pub(crate) fn in_words_of(policy: &'static str, command: clap::Command) -> clap::Command {
    let examples = command.get_after_help().map(ToString::to_string);
    match examples {
        Some(text) => {
            command.after_help(text.replace("alluvium retention ", &format!("alluvium {policy} ")))
        }
        None => command,
    }
}

/// A policy's commands.
#[derive(Debug, Args)]
pub struct CleanupArgs {
    #[command(subcommand)]
    command: CleanupCommand,
}

#[derive(Debug, Subcommand)]
enum CleanupCommand {
    /// Show what would go, in records and bytes per segment.
    #[command(after_help = PLAN_EXAMPLES)]
    Plan(Selection),
    /// Show for each segment what will happen to it, or the first rule that holds it back.
    #[command(after_help = EXPLAIN_EXAMPLES)]
    Explain(Selection),
    /// Run it now.
    #[command(after_help = RUN_EXAMPLES)]
    Run(RunArgs),
    /// Show the runs that the server knows of, or one of them.
    #[command(after_help = STATUS_EXAMPLES)]
    Status {
        #[command(flatten)]
        server: ServerArgs,
        /// A run, by the name that `run` printed
        job: Option<String>,
    },
    /// Stop a run.
    #[command(after_help = CANCEL_EXAMPLES)]
    Cancel {
        #[command(flatten)]
        server: ServerArgs,
        /// The run, by the name that `run` printed
        job: String,
    },
}

/// Where the server serves HTTP.
#[derive(Debug, Args)]
pub(crate) struct ServerArgs {
    /// Where the server serves HTTP, HOST or HOST:PORT [env: ALLUVIUM_HTTP] [default: port 8080 of the first broker]
    #[arg(long, value_name = "ADDR")]
    pub http: Option<String>,
}

/// Which partitions, and where they are.
#[derive(Debug, Args)]
struct Selection {
    /// The topic
    topic: TopicName,
    /// One partition of it
    #[arg(short, long, value_name = "P")]
    partition: Option<u32>,
    /// As if what is not in a sealed segment yet were put into one first
    #[arg(long)]
    now: bool,
    #[command(flatten)]
    server: ServerArgs,
    /// Work on this data directory, without a server
    #[arg(long, value_name = "DIR", conflicts_with_all = ["brokers", "context", "http"])]
    dir: Option<PathBuf>,
    #[command(flatten)]
    given: GivenSettings,
}

/// What to run.
#[derive(Debug, Args)]
struct RunArgs {
    #[command(flatten)]
    selection: Selection,
    /// Read everything and change nothing: tells exactly what would go
    #[arg(long)]
    dry_run: bool,
    /// Return when it is done
    #[arg(long)]
    wait: bool,
    /// Read and write no more bytes a second than this [default: cleaner.io.max.bytes.per.second of the server]
    #[arg(long, value_name = "BYTES")]
    throttle: Option<NonZero<u64>>,
}

/// A policy as its command names it.
fn name_of(policy: Policy) -> &'static str {
    match policy {
        Policy::Retention => "retention",
        Policy::Compaction => "compact",
        Policy::Thin | Policy::StoreBound => policy.name(),
    }
}

/// The commands of thinning.
#[derive(Debug, Args)]
pub struct ThinArgs {
    #[command(subcommand)]
    command: ThinCommand,
}

#[derive(Debug, Subcommand)]
enum ThinCommand {
    #[command(flatten)]
    Cleanup(CleanupCommand),
    /// Show what a topic held before it was thinned: counts, means and extremes, key by key and window by window.
    #[command(after_help = view::EXAMPLES)]
    View(ViewArgs),
}

impl ThinArgs {
    /// Runs the command.
    pub(crate) async fn run(self, common: &Common) -> Result<ExitCode> {
        match self.command {
            ThinCommand::Cleanup(command) => command.run(Policy::Thin, common).await,
            ThinCommand::View(args) => tokio::task::block_in_place(|| args.run(common.json)),
        }
    }
}

impl CleanupArgs {
    /// Runs the command.
    pub(crate) async fn run(self, policy: Policy, common: &Common) -> Result<ExitCode> {
        self.command.run(policy, common).await
    }
}

impl CleanupCommand {
    async fn run(mut self, policy: Policy, common: &Common) -> Result<ExitCode> {
        let json = common.json;
        if let CleanupCommand::Plan(selection)
        | CleanupCommand::Explain(selection)
        | CleanupCommand::Run(RunArgs { selection, .. }) = &mut self
            && selection.dir.is_some()
        {
            selection.given.overrides = common.properties.clone();
        }
        match self {
            CleanupCommand::Plan(selection) => {
                let plan = plan_of(policy, &selection, common).await?;
                print(json, || json!(plan), || report::plan_text(&plan))?;
                Ok(ExitCode::SUCCESS)
            }
            CleanupCommand::Explain(selection) => {
                let plan = plan_of(policy, &selection, common).await?;
                print(json, || json!(plan), || report::explain_text(&plan))?;
                Ok(ExitCode::SUCCESS)
            }
            CleanupCommand::Run(args) => {
                let job = match args.selection.dir.clone() {
                    Some(dir) => offline::run(policy, &args, &dir).await?,
                    None => {
                        server::Server::of(&args.selection.server, common)?
                            .run(policy, &args)
                            .await?
                    }
                };
                ended(&job, json)
            }
            CleanupCommand::Status { server, job } => {
                let server = server::Server::of(&server, common)?;
                match job {
                    Some(id) => {
                        let job = server.job(&id).await?;
                        print(json, || json!(job), || report::job_text(&job))?;
                    }
                    None => {
                        let jobs = server.jobs().await?;
                        print(json, || json!(jobs), || report::jobs_text(&jobs))?;
                    }
                }
                Ok(ExitCode::SUCCESS)
            }
            CleanupCommand::Cancel { server, job } => {
                let server = server::Server::of(&server, common)?;
                let job = server.cancel(&job).await?;
                print(json, || json!(job), || report::job_text(&job))?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

async fn plan_of(policy: Policy, selection: &Selection, common: &Common) -> Result<Plan> {
    match selection.dir.clone() {
        Some(dir) => tokio::task::block_in_place(|| offline::plan(policy, selection, &dir)),
        None => {
            let server = server::Server::of(&selection.server, common)?;
            server.plan(policy, selection).await
        }
    }
}

/// Tells how a run ended, or that it goes on.
fn ended(job: &Job, json: bool) -> Result<ExitCode> {
    print(json, || json!(job), || report::job_text(job))?;
    let is_well = !job.is_ended() || job.is_done();
    Ok(ExitCode::from(if is_well {
        failure::OK
    } else {
        failure::FAILED
    }))
}
