//! `topic`: create, look at, change and delete topics and their records.
//!
//! Callers: the command line. A command is a file; `places.rs` asks what the partitions hold. Whatever may delete records
//! shows its plan (`--dry-run`) and asks (`--yes`) first. All checks of settings are the broker's.

mod add_partitions;
mod alter;
mod create;
mod delete;
mod delete_records;
mod describe;
mod list;
mod places;
mod settings;

use std::process::ExitCode;

use anyhow::{Result, bail};
use client::admin::Admin;
use model::Timestamp;

use crate::cli::Common;
use crate::failure::Failure;

/// `topic` and its commands.
#[derive(Debug, clap::Args)]
pub struct TopicArgs {
    #[command(subcommand)]
    command: TopicCommand,
}

#[derive(Debug, clap::Subcommand)]
enum TopicCommand {
    /// Create topics.
    #[command(after_help = create::EXAMPLES)]
    Create(create::CreateArgs),
    /// List topics.
    #[command(after_help = list::EXAMPLES)]
    List(list::ListArgs),
    /// Show partitions with their offsets and sizes, and the settings that were changed.
    #[command(after_help = describe::EXAMPLES)]
    Describe(describe::DescribeArgs),
    /// Change settings, showing what changes.
    #[command(after_help = alter::EXAMPLES)]
    Alter(alter::AlterArgs),
    /// Give a topic more partitions.
    #[command(after_help = add_partitions::EXAMPLES)]
    AddPartitions(add_partitions::AddPartitionsArgs),
    /// Delete the oldest records, before an offset or a time.
    #[command(after_help = delete_records::EXAMPLES)]
    DeleteRecords(delete_records::DeleteRecordsArgs),
    /// Delete topics with all their records.
    #[command(after_help = delete::EXAMPLES)]
    Delete(delete::DeleteArgs),
    /// Explain the settings that a topic can have. Needs no broker.
    #[command(after_help = settings::EXAMPLES)]
    Settings(settings::SettingsArgs),
}

impl TopicArgs {
    /// Runs the command. `now` is what relative times count from.
    pub(crate) async fn run(self, common: &Common, now: Timestamp) -> Result<ExitCode> {
        if let TopicCommand::Settings(args) = self.command {
            return settings::run(&args, common.json);
        }
        let json = common.json;
        let client = &common.connect().await?;
        let admin = &Admin::new(client);
        match self.command {
            TopicCommand::Create(args) => create::run(&args, admin, json).await,
            TopicCommand::List(args) => list::run(&args, admin, json).await,
            TopicCommand::Describe(args) => {
                let server = common.http(None)?;
                describe::run(&args, client, &server, json).await
            }
            TopicCommand::Alter(args) => alter::run(&args, client, json).await,
            TopicCommand::AddPartitions(args) => add_partitions::run(&args, client, json).await,
            TopicCommand::DeleteRecords(args) => {
                delete_records::run(&args, client, json, now).await
            }
            TopicCommand::Delete(args) => delete::run(&args, client, json).await,
            TopicCommand::Settings(_) => unreachable!("it was run above"),
        }
    }
}

/// Says which topics failed and why; the exit code is that of the first failure.
fn all_or_first<T>(results: Vec<(String, client::Result<T>)>) -> Result<Vec<(String, T)>> {
    let mut good = Vec::new();
    let mut failed = None;
    for (name, result) in results {
        match result {
            Ok(value) => good.push((name, value)),
            Err(error) if failed.is_none() => failed = Some(error),
            Err(error) => crate::output::note!("error: {error}"),
        }
    }
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(good),
    }
}

/// Refuses a name that is given twice, which a broker would take for a broken request.
fn each_once(names: &[String]) -> Result<()> {
    let mut sorted: Vec<&String> = names.iter().collect();
    sorted.sort();
    if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        bail!(Failure::Usage(format!("{} is named twice", pair[0])));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_given_twice_is_refused() {
        let names = |names: [&str; 3]| names.map(str::to_owned);
        assert!(each_once(&names(["a", "b", "c"])).is_ok());
        assert!(each_once(&names(["a", "b", "a"])).is_err());
    }
}
