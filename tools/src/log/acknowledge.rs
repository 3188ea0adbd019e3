//! `log acknowledge`: ends the alert about damage that is on record. The records stay unreadable, and readers are told.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use serde_json::json;
use storage::RealDisk;
use storage::acknowledged::{self, Acknowledgement};
use storage::inspect::damage_on_record;

use crate::failure::Failure;
use crate::output::say;
use crate::user::user_name;

#[derive(Debug, clap::Args)]
pub(super) struct AcknowledgeArgs {
    /// The data directory
    #[arg(default_value = "data")]
    directory: PathBuf,
    /// Only damage of this log, TOPIC_UUID-PARTITION, as /readyz names it
    #[arg(long)]
    log: Option<String>,
    /// Why, for the record
    #[arg(long, default_value = "")]
    note: String,
    /// Show what would be acknowledged, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Runs the command. A server may have the directory open: it never writes the file that this appends to.
pub(super) fn run(args: &AcknowledgeArgs, json: bool) -> Result<ExitCode> {
    let directory = &args.directory;
    if !directory.join("STORE").exists() {
        let place = directory.display();
        bail!(Failure::NotFound(format!(
            "{place} is no data directory: it has no file STORE"
        )));
    }
    let known = acknowledged::load(&RealDisk, directory)
        .with_context(|| format!("read {}", acknowledged::FILE))?;
    let by = user_name();
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let at_ms = now.map_or(0, |now| i64::try_from(now.as_millis()).unwrap_or(i64::MAX));
    let fresh: Vec<Acknowledgement> = damage_on_record(&RealDisk, directory)?
        .iter()
        .filter(|damage| !known.iter().any(|line| line.covers(damage)))
        .map(|damage| Acknowledgement::of(damage, &by, at_ms, &args.note))
        .filter(|line| args.log.is_none() || line.log == args.log)
        .collect();
    if !args.dry_run && !fresh.is_empty() {
        acknowledged::add(&RealDisk, directory, &fresh)
            .with_context(|| format!("append to {}", acknowledged::FILE))?;
    }
    if json {
        say!(
            "{:#}",
            json!({ "acknowledged": fresh, "applied": !args.dry_run })
        );
        return Ok(ExitCode::SUCCESS);
    }
    for line in &fresh {
        let log = line.log.as_deref().unwrap_or("an unknown log");
        say!("{log} {}..{}: {}", line.from, line.to, line.reason);
    }
    let done = if args.dry_run {
        "would be acknowledged"
    } else {
        "acknowledged"
    };
    say!("{} {done}, {} before", fresh.len(), known.len());
    Ok(ExitCode::SUCCESS)
}
