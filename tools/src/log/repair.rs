//! `log repair`: shows what would be done about what a verification finds, and does it with `--yes`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use model::Timestamp;
use serde_json::json;
use storage::RealDisk;
use storage::io::{Disk as _, LockHow};
use storage::repair::{Action, Planned, execute, plan};

use super::DAMAGED;
use super::directory::Directory;
use crate::failure::Failure;
use crate::output::say;

/// What to repair.
#[derive(Debug, clap::Args)]
pub(super) struct RepairArgs {
    /// The data directory
    #[arg(default_value = "data")]
    directory: PathBuf,
    /// Do it; without this only the plan is shown
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
    /// Show the plan, and change nothing: what is done without --yes too
    #[arg(long)]
    dry_run: bool,
}

/// Runs the command. Exit code 0 if all is well in the end, 5 if something is left to do, or lost.
pub(super) fn run(args: &RepairArgs, json: bool) -> Result<ExitCode> {
    let directory = &args.directory;
    let is_store = ["STORE", "wal", "checkpoint"]
        .iter()
        .any(|name| directory.join(name).exists());
    if !is_store {
        let place = directory.display();
        bail!(Failure::NotFound(format!(
            "{place} is no data directory: it has no file STORE"
        )));
    }
    let _lock = match RealDisk.lock(&directory.join("LOCK"), LockHow::Exclusive) {
        Ok(lock) => lock,
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => bail!(
            "a server, or another command, has {} open: stop it first",
            directory.display()
        ),
        Err(error) => {
            return Err(error).with_context(|| directory.join("LOCK").display().to_string());
        }
    };
    let names = Directory::read(directory)
        .map(|found| found.names)
        .unwrap_or_default();
    let mut planned = plan(&RealDisk, directory)?;
    let mut done: Vec<Planned> = Vec::new();
    if args.yes {
        // What a rebuilt checkpoint shows is planned for when it is there.
        for _ in 0..3 {
            if !planned.iter().any(Planned::changes) {
                break;
            }
            execute(&RealDisk, directory, &planned, now())?;
            done.extend(planned.iter().filter(|one| one.changes()).cloned());
            planned = plan(&RealDisk, directory)?;
        }
    }
    let left = planned.len()
        + done
            .iter()
            .filter(|one| one.action == Action::RecordDamage)
            .count();
    if json {
        let value =
            json!({ "path": directory, "applied": args.yes, "done": done, "planned": planned });
        say!("{value:#}");
    } else {
        let name = |log: &str| {
            log.parse()
                .map_or_else(|_| log.to_owned(), |id| names.of(id))
        };
        for one in &done {
            say!("done: {}", line(one, &name));
        }
        for one in &planned {
            let head = if one.changes() { "would be done: " } else { "" };
            say!("{head}{}", line(one, &name));
        }
        match (args.yes, planned.iter().filter(|one| one.changes()).count()) {
            (false, 0) => say!("{}: nothing to do here", directory.display()),
            (false, count) => say!(
                "{}: {count} things to do; --yes does them",
                directory.display()
            ),
            (true, _) => say!("{}: {} things done", directory.display(), done.len()),
        }
    }
    Ok(ExitCode::from(if left > 0 { DAMAGED } else { 0 }))
}

fn line(one: &Planned, name: &dyn Fn(&str) -> String) -> String {
    let what = match one.action {
        Action::RewriteStore => "write STORE again",
        Action::RebuildCheckpoint => "build a checkpoint",
        Action::RecordDamage => "put damage on record",
        Action::RebuildIndex => "build the index again",
        Action::SetAside => "move to quarantine",
        Action::LeftToStart => "left to the next start",
        Action::CannotRepair => "cannot be repaired: restore a backup",
    };
    let mut text = format!("{what}: {}", one.path.display());
    if let Some(log) = &one.log {
        text.push_str(&format!(", {}", name(log)));
    }
    if let (Some(from), Some(to)) = (one.from, one.to) {
        text.push_str(&format!(", offsets {from}..{to}"));
    }
    format!("{text}: {}", one.reason)
}

fn now() -> Timestamp {
    Timestamp::from_millis(jiff::Timestamp::now().as_millisecond())
}
