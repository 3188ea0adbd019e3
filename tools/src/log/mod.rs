//! `log`: looks at a data directory, or at single files of it, without a broker. Nothing is written, but by `acknowledge` and
//! `repair`.
//!
//! `dump.rs` lists what a file holds, `stat.rs` what a directory holds, `verify.rs` checks either, `gaps.rs` tells what readers
//! do not get. `directory.rs` finds the logs of a directory, and `names.rs` the topics they belong to.

mod acknowledge;
mod directory;
mod dump;
mod gaps;
pub(crate) mod names;
mod repair;
mod stat;
mod verify;
pub(crate) mod view;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use model::{TopicId, TopicName};
use storage::RealDisk;
use storage::io::{Disk as _, LockGuard, LockHow};

use crate::failure::{DAMAGED, Failure};

const DUMP_EXAMPLES: &str = "\
Examples:
  alluvium log dump data/wal/*.wal
  alluvium log dump --records data/p/*/*/*.log     the records of segments
  alluvium log dump --json data/checkpoint/A";

/// Look at data files without a broker.
#[derive(Debug, clap::Args)]
pub struct LogArgs {
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: LogCommand,
}

#[derive(Debug, clap::Subcommand)]
enum LogCommand {
    /// List what files hold: segments (.log), indexes (.idx, .kix), manifests, checkpoints, write-ahead files (.wal).
    #[command(after_help = DUMP_EXAMPLES)]
    Dump(dump::DumpArgs),
    /// Show what a data directory holds: topics, partitions, segments, bytes, offsets, damage.
    Stat(DirectoryArgs),
    /// Check every byte of a data directory, or of single segments. Exit code 5 if something is damaged.
    Verify(verify::VerifyArgs),
    /// Tell every range of offsets that a reader does not get, and why. Exit code 5 if something is damaged that nobody
    /// acknowledged.
    Gaps(gaps::GapsArgs),
    /// Build again what can be had from other files, and put damage on record. Shows its plan; --yes does it.
    ///
    /// Nothing that was acknowledged is deleted: what cannot be used moves to quarantine/. No server may have the directory open.
    Repair(repair::RepairArgs),
    /// Acknowledge the damage on record, so that the alert ends: the records stay unreadable, and new damage alerts again.
    ///
    /// A running server notices within a second: /readyz lists the damage as acknowledged, and alluvium_damaged_ranges counts only
    /// what is not. Who acknowledged what and when is appended to the file ACKNOWLEDGED.
    Acknowledge(acknowledge::AcknowledgeArgs),
}

/// A data directory, and what to do if a server has it open.
#[derive(Debug, clap::Args)]
struct DirectoryArgs {
    /// The data directory
    #[arg(default_value = "data")]
    directory: PathBuf,
    /// Look while a server has the directory open: what it is writing just then may look wrong
    #[arg(long, alias = "read-only")]
    while_running: bool,
}

impl LogArgs {
    /// Runs the command. Blocks.
    pub fn run(self) -> Result<ExitCode> {
        match self.command {
            LogCommand::Dump(args) => dump::run(&args, self.json),
            LogCommand::Stat(args) => stat::run(&args, self.json),
            LogCommand::Acknowledge(args) => acknowledge::run(&args, self.json),
            LogCommand::Verify(args) => verify::run(&args, self.json),
            LogCommand::Gaps(args) => gaps::run(&args, self.json),
            LogCommand::Repair(args) => repair::run(&args, self.json),
        }
    }
}

/// The id of a topic in a data directory, by its name.
pub(crate) fn topic_id(directory: &Path, name: &TopicName) -> Result<TopicId> {
    let found = directory::Directory::read(directory)?;
    let mut topics = found.names.topics();
    let topic = topics.find(|(_, topic)| topic.name == name.as_str());
    let place = directory.display();
    let missing = || Failure::NotFound(format!("{place} holds no topic {name}"));
    Ok(topic.map(|(id, _)| id).ok_or_else(missing)?)
}

/// Keeps servers out while a directory is looked at. Without a lock a server has it open, and that is wanted.
fn lock(directory: &Path, while_running: bool) -> Result<Option<Box<dyn LockGuard>>> {
    if !directory.join("STORE").exists() && !directory.join("LOCK").exists() {
        bail!(Failure::NotFound(format!(
            "{} is no data directory: it has no file STORE",
            directory.display()
        )));
    }
    match RealDisk.lock(&directory.join("LOCK"), LockHow::Shared) {
        Ok(guard) => Ok(Some(guard)),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            if !while_running {
                bail!(
                    "a server has {} open: stop it, or look while it runs with --while-running",
                    directory.display()
                );
            }
            crate::output::note!(
                "note: a server has {} open: what it is writing just now may look wrong",
                directory.display()
            );
            Ok(None)
        }
        // A copy of a directory may come without its lock.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| directory.join("LOCK").display().to_string()),
    }
}
