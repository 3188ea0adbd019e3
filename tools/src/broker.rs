//! `broker`: look at a running broker's settings and change those that need no restart; see who is connected.
//!
//! Callers: the command line. All checks of settings are the broker's.

mod connections;

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use client::Client;
use client::admin::{Admin, ConfigEntry, ConfigSource, Resource};
use serde_json::json;

use self::connections::ConnectionsArgs;
use crate::cli::Common;
use crate::failure::Failure;
use crate::output::print;
use crate::settings_change::{self, ChangeArgs, Target};
use crate::table::Table;

const DESCRIBE_EXAMPLES: &str = "\
--json: an object: broker, settings (an object of the settings: each with value, source and live). Source is running (set while \
it runs), cluster (so for all brokers), start (the configuration that it was started with) or default. Those that are not live \
need a restart.

Examples:
  alluvium broker describe
  alluvium broker describe --all                     every setting, the defaults too
  alluvium broker describe --json | jq -r '.settings[\"max.connections\"].value'";

const ALTER_EXAMPLES: &str = "\
The broker checks all changes together: all are made, or none. They are in force at once, and kept over restarts. Less retention \
may delete records, so that is asked about first; --yes says so beforehand.
--json: an object: broker, applied, changes (an array of setting, old, new; null stands for what the start gives).

Examples:
  alluvium broker alter --set max.connections=2000 --set max.connections.per.ip=100
  alluvium broker alter --set store.bytes.max=26843545600 --dry-run
  alluvium broker alter --unset max.connections";

/// Lowering one of these may delete records.
const LIMITS: [&str; 3] = ["store.bytes.max", "log.retention.ms", "log.retention.bytes"];

/// `broker` and its commands.
#[derive(Debug, clap::Args)]
pub struct BrokerArgs {
    /// Which broker, by its id (node.id); needed only where there are several
    #[arg(long, global = true, value_name = "ID")]
    id: Option<i32>,
    #[command(subcommand)]
    command: BrokerCommand,
}

#[derive(Debug, clap::Subcommand)]
enum BrokerCommand {
    /// Show settings and where their values come from.
    #[command(after_help = DESCRIBE_EXAMPLES)]
    Describe {
        /// Show all settings, those too that nobody changed
        #[arg(short, long)]
        all: bool,
    },
    /// Change settings while the broker runs, showing what changes.
    #[command(after_help = ALTER_EXAMPLES)]
    Alter(ChangeArgs),
    /// Show who is connected to the Kafka port, busiest first.
    #[command(after_help = connections::EXAMPLES)]
    Connections(ConnectionsArgs),
}

impl BrokerArgs {
    /// Runs the command.
    pub(crate) async fn run(self, common: &Common) -> Result<ExitCode> {
        if let BrokerCommand::Alter(changes) = &self.command {
            changes.check()?;
        }
        if let BrokerCommand::Connections(args) = &self.command {
            return args.run(common).await;
        }
        let client = &common.connect().await?;
        let id = match self.id {
            Some(id) => id,
            None => the_only_one(client)?,
        };
        let admin = &Admin::new(client);
        match self.command {
            BrokerCommand::Connections(_) => unreachable!("it asks over HTTP"),
            BrokerCommand::Describe { all } => describe(id, all, admin, common.json).await,
            BrokerCommand::Alter(changes) => {
                let target = Target {
                    resource: Resource::Broker(Some(id)),
                    named: ("broker", id.into()),
                    own: ConfigSource::Broker,
                    limits: &LIMITS,
                };
                settings_change::alter(&changes, &target, admin, common.json).await
            }
        }
    }
}

fn the_only_one(client: &Client) -> Result<i32> {
    let metadata = client.metadata();
    let mut ids = metadata.brokers.keys().copied();
    let first = ids.next().context("the cluster names no broker")?;
    if ids.next().is_some() {
        let count = metadata.brokers.len();
        bail!(Failure::Usage(format!(
            "there are {count} brokers: say which one with --id"
        )));
    }
    Ok(first)
}

async fn describe(id: i32, all: bool, admin: &Admin, json: bool) -> Result<ExitCode> {
    let mut settings = admin.describe_configs(&Resource::Broker(Some(id))).await?;
    settings.sort_by(|one, other| one.name.cmp(&other.name));
    let value = || {
        let settings = settings.iter().map(|entry| {
            let source = source(entry.source);
            let value = json!({ "value": entry.value, "source": source, "live": !entry.read_only });
            (entry.name.clone(), value)
        });
        let settings: serde_json::Map<_, _> = settings.collect();
        json!({ "broker": id, "settings": settings })
    };
    print(json, value, || in_text(id, &settings, all))?;
    Ok(ExitCode::SUCCESS)
}

fn in_text(id: i32, settings: &[ConfigEntry], all: bool) -> String {
    let mut table = Table::new(&["SETTING", "VALUE", "FROM", "CHANGES"]);
    let shown = settings
        .iter()
        .filter(|entry| all || entry.source != ConfigSource::Default);
    for entry in shown {
        let changes = if entry.read_only {
            "at a restart"
        } else {
            "while it runs"
        };
        let value = entry.value.clone().unwrap_or_default();
        table.row([
            entry.name.clone(),
            value,
            source(entry.source),
            changes.to_owned(),
        ]);
    }
    let mut text = format!("broker {id}\n\n{table}");
    if !all {
        let _ = writeln!(text, "\nall others have their defaults; --all shows them");
    }
    text
}

fn source(source: ConfigSource) -> String {
    match source {
        ConfigSource::Broker => "running".to_owned(),
        ConfigSource::DefaultBroker => "cluster".to_owned(),
        ConfigSource::StaticBroker => "start".to_owned(),
        ConfigSource::Default => "default".to_owned(),
        ConfigSource::Topic | ConfigSource::Group => "another".to_owned(),
        ConfigSource::Other(number) => format!("source {number}"),
    }
}
