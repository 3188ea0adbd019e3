//! The tools' commands: their arguments, how they reach a broker, and their exit codes.
//!
//! Callers: the binary, which adds these commands to its own. 0 is success, 1 failure, 2 wrong usage, 3 not found, 4 no
//! broker reached or no answer in time, 5 damage found.

use std::process::ExitCode;

use anyhow::Result;
use client::{Client, ClientConfig, Error, ErrorCode};
use model::Timestamp;

use crate::demo::{self, DemoArgs};
use crate::group::GroupCommand;
use crate::log::LogArgs;
use crate::time_spec::TimeSpecError;

/// The commands that are not the server's.
#[derive(Debug, clap::Subcommand)]
pub enum ToolCommand {
    /// Watch a broker being killed in mid-stream, and nothing acknowledged being lost.
    Demo(DemoArgs),
    /// List, describe, move and delete consumer groups.
    Group(GroupArgs),
    /// Look at data files without a broker.
    Log(LogArgs),
}

/// `group` and its options.
#[derive(Debug, clap::Args)]
pub struct GroupArgs {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: GroupCommand,
}

/// What all commands that talk to a broker take.
#[derive(Debug, clap::Args)]
pub struct Common {
    /// Brokers to ask first, host:port, separated by commas
    #[arg(
        short,
        long,
        global = true,
        env = "ALLUVIUM_BROKERS",
        default_value = "127.0.0.1:9092",
        value_name = "ADDRS"
    )]
    pub brokers: String,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
}

impl Common {
    /// A client of these brokers.
    pub async fn connect(&self) -> Result<Client> {
        Ok(Client::connect(ClientConfig::new(&self.brokers)).await?)
    }
}

impl ToolCommand {
    /// Runs the command to its end and tells its exit code. What went wrong is said on standard error.
    pub fn run(self) -> ExitCode {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build();
        let result = match runtime {
            Ok(runtime) => runtime.block_on(self.start()),
            Err(error) => Err(error.into()),
        };
        result.unwrap_or_else(|error| {
            eprintln!("error: {}", told(&error));
            ExitCode::from(code_of(&error))
        })
    }

    async fn start(self) -> Result<ExitCode> {
        match self {
            ToolCommand::Demo(args) => demo::run(&args).await,
            ToolCommand::Log(args) => tokio::task::block_in_place(|| args.run()),
            ToolCommand::Group(GroupArgs { common, command }) => {
                let client = common.connect().await?;
                command.run(&client, common.json, now()).await
            }
        }
    }
}

fn now() -> Timestamp {
    Timestamp::from_millis(jiff::Timestamp::now().as_millisecond())
}

/// The error and its causes, without those whose words the one before has already said.
fn told(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if !text.ends_with(&cause) {
            let colon = if text.is_empty() { "" } else { ": " };
            text = format!("{text}{colon}{cause}");
        }
    }
    text
}

/// The exit code that an error ends a command with.
fn code_of(error: &anyhow::Error) -> u8 {
    let wrong_usage = error.chain().any(|cause| cause.is::<TimeSpecError>());
    match error
        .chain()
        .find_map(|cause| cause.downcast_ref::<Error>())
    {
        _ if wrong_usage => 2,
        Some(Error::Connect { .. } | Error::Disconnected { .. } | Error::TimedOut { .. }) => 4,
        Some(error) => match error.code() {
            Some(ErrorCode::UnknownTopicOrPartition | ErrorCode::GroupIdNotFound) => 3,
            _ => 1,
        },
        None => 1,
    }
}
