//! The tools' commands: their arguments, how they reach a broker, and their exit codes.
//!
//! Callers: the binary, which adds these commands to its own. A command is a variant of [`ToolCommand`] and an arm in
//! `start`; one that talks to a broker is wrapped in [`OnBroker`], which brings `--brokers` and `--json`. Exit codes are in
//! `failure.rs`.

use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Result;
use client::{Client, ClientConfig};
use model::Timestamp;
use storage::cleanup::Policy;

use crate::access::{self, AccessArgs};
use crate::acl::{self, AclArgs};
use crate::backup::{self, BackupArgs, RestoreArgs};
use crate::bench::{self, BenchArgs};
use crate::broker::BrokerArgs;
use crate::cleanup::{CleanupArgs, ThinArgs, in_words_of};
use crate::consume::{self, ConsumeArgs};
use crate::context::{self, ContextArgs};
use crate::demo::{self, DemoArgs};
use crate::doctor::{self, DoctorArgs};
use crate::erase::{self, EraseArgs};
use crate::failure;
use crate::group::GroupCommand;
use crate::hold::{self, HoldArgs};
use crate::http::HttpServer;
use crate::log::LogArgs;
use crate::loss::{self, LossArgs};
use crate::mqtt::{self, MqttArgs};
use crate::output::similar;
use crate::produce::{self, ProduceArgs};
use crate::protection::{Protection, pair};
use crate::queue::{self, QueueArgs};
use crate::reach::{HTTPS, Watch};
use crate::replay::{self, ReplayArgs};
use crate::runtime;
use crate::topic::TopicArgs;
use crate::transfer::{EXPORT_EXAMPLES, ExportArgs, IMPORT_EXAMPLES, ImportArgs};
use crate::users::{self, UserArgs};

const GROUP_EXAMPLES: &str = "\
Examples:
  alluvium group list
  alluvium group describe dashboard                how far behind, in records and in seconds
  alluvium group reset dashboard -t readings --to -1h              the plan
  alluvium group reset dashboard -t readings --to -1h --execute
  alluvium group delete dashboard --dry-run";

const BENCH_EXAMPLES: &str = "\
It creates a topic of its own, and deletes it in the end.

Examples:
  alluvium bench
  alluvium bench produce --seconds 30 --record-bytes 200
  alluvium bench latency --json | jq .latency.p99_ms.median";

const DOCTOR_EXAMPLES: &str = "\
Examples:
  alluvium doctor -b store.example:9092
  alluvium doctor --json | jq '.findings[] | select(.verdict != \"ok\")'

Exit codes: 0 all is well from here, 1 something is not, 4 no broker was reached.";

const LOG_EXAMPLES: &str = "\
Examples:
  alluvium log stat data                           what a data directory holds
  alluvium log verify data                         check every byte
  alluvium log dump --records data/p/*/*/*.log     what segments hold
  alluvium log acknowledge data --note 'disk replaced, records lost'";

const RETENTION_EXAMPLES: &str = "\
They ask a running server over HTTP, or with --dir work on a data directory that no server has open.

Examples:
  alluvium retention explain readings              what goes, and what holds the rest back
  alluvium retention run readings --now --wait     do it now, and return when it is done
  alluvium retention status                        the runs that the server knows of";

const THIN_EXAMPLES: &str = "\
They ask a running server over HTTP, or with --dir work on a data directory that no server has open. What a topic keeps is its \
setting thin.tiers; docs/thinning.md explains it.

Examples:
  alluvium topic create readings -c cleanup.policy=thin -c 'thin.tiers=7d:1m:first+last+min(json/temp)+max(json/temp)'
  alluvium thin explain readings                   which tier has reached what, and what holds the rest back
  alluvium thin run readings --dry-run --wait      how much would go
  alluvium thin run readings --now --wait          do it now, and return when it is done";
const COMPACT_EXAMPLES: &str = "\
They ask a running server over HTTP, or with --dir work on a data directory that no server has open.

Examples:
  alluvium compact explain settings                what is due, and what holds the rest back
  alluvium compact run settings --now --wait       do it now, whatever min.cleanable.dirty.ratio is
  alluvium compact run settings --dry-run          read all of it, and tell exactly what would go
  alluvium compact status                          the runs that the server knows of";

const DEMO_EXAMPLES: &str = "\
Examples:
  alluvium demo                                    and then try the commands that it prints
  alluvium demo --once                             ends after the proof, for scripts";

/// How long a suggestion for a misspelt name may take.
const SUGGESTION_TIME: Duration = Duration::from_secs(2);

/// The commands that are not the server's.
#[derive(Debug, clap::Subcommand)]
pub enum ToolCommand {
    /// Create, look at, change and delete topics and their records.
    Topic(OnBroker<TopicArgs>),
    /// Look at a running broker's settings, and change those that need no restart.
    Broker(OnBroker<BrokerArgs>),
    /// Produce records from standard input or a file, one for each match of a format.
    #[command(after_help = produce::EXAMPLES)]
    Produce(OnBroker<ProduceArgs>),
    /// Write records to standard output, from any place to any place.
    #[command(after_help = consume::EXAMPLES)]
    Consume(OnBroker<ConsumeArgs>),
    /// Write a range of a topic as rows: by key, time and condition, as NDJSON, CSV, Arrow or Parquet.
    #[command(after_help = replay::EXAMPLES)]
    Replay(OnBroker<ReplayArgs>),
    /// Write topics, or ranges of them, to files: batches as they are stored, with their offsets, checked.
    #[command(after_help = EXPORT_EXAMPLES)]
    Export(OnBroker<ExportArgs>),
    /// Write the records of a file of `export` into a topic.
    #[command(after_help = IMPORT_EXAMPLES)]
    Import(OnBroker<ImportArgs>),
    /// List, describe, move and delete consumer groups.
    #[command(after_help = GROUP_EXAMPLES)]
    Group(GroupArgs),
    /// Measure a running broker: durable produce, ack latency at a fixed rate, replay.
    #[command(after_help = BENCH_EXAMPLES)]
    Bench(OnBroker<BenchArgs>),
    /// Check that brokers can be reached from here, and that what they advertise can be too.
    #[command(after_help = DOCTOR_EXAMPLES)]
    Doctor(OnBroker<DoctorArgs>),
    /// Give brokers names, and choose which one commands go to.
    #[command(after_help = context::EXAMPLES)]
    Context(ContextArgs),
    /// Make certificates and settings with which a server can stand on a network.
    #[command(after_help = access::EXAMPLES)]
    Access(AccessArgs),
    /// Look at data files without a broker.
    #[command(after_help = LOG_EXAMPLES)]
    Log(LogArgs),
    /// Copy a data directory, while a server runs on it or without one: whole, checked, and only what is new.
    #[command(after_help = backup::BACKUP_EXAMPLES)]
    Backup(BackupArgs),
    /// Make a data directory of a backup, or check one.
    #[command(after_help = backup::RESTORE_EXAMPLES)]
    Restore(RestoreArgs),
    /// Look at what retention removes from a topic and what it keeps, and run it at once.
    #[command(after_help = RETENTION_EXAMPLES)]
    Retention(OnBroker<CleanupArgs>),
    /// Look at what thinning leaves of a topic as it ages, and run it at once.
    #[command(after_help = THIN_EXAMPLES, mut_subcommands(|command| in_words_of("thin", command)))]
    Thin(OnBroker<ThinArgs>),
    /// Look at what compaction by key removes from a topic and what it keeps, and run it at once.
    #[command(after_help = COMPACT_EXAMPLES, mut_subcommands(|command| in_words_of("compact", command)))]
    Compact(OnBroker<CleanupArgs>),
    /// Keep records from cleanup and deletion: add, list and end holds.
    #[command(after_help = hold::EXAMPLES)]
    Hold(OnBroker<HoldArgs>),
    /// List MQTT clients that are connected, and end a client's connection.
    #[command(after_help = mqtt::EXAMPLES)]
    Mqtt(OnBroker<MqttArgs>),
    /// Look at queues and what shares them, discard and move their messages, and give dead letters back.
    #[command(after_help = queue::EXAMPLES)]
    Queue(OnBroker<QueueArgs>),
    /// Say who may do what, and ask who may.
    #[command(after_help = acl::EXAMPLES)]
    Acl(OnBroker<AclArgs>),
    /// Say who may log in: users, their passwords, API tokens.
    #[command(after_help = users::EXAMPLES)]
    User(OnBroker<UserArgs>),
    /// Erase the records of a key for good, with a receipt, and prove that nothing of it is left.
    #[command(after_help = erase::EXAMPLES)]
    Erase(OnBroker<EraseArgs>),
    /// Show what consumer groups had not read when it was removed or damaged.
    #[command(after_help = loss::EXAMPLES)]
    Loss(OnBroker<LossArgs>),
    /// Watch a broker being killed in mid-stream, and nothing acknowledged being lost.
    #[command(after_help = DEMO_EXAMPLES)]
    Demo(DemoArgs),
}

/// A command that talks to a broker, and its options.
#[derive(Debug, clap::Args)]
pub struct OnBroker<A: clap::Args> {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    args: A,
}

/// `group` and its options.
#[derive(Debug, clap::Args)]
pub struct GroupArgs {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: GroupCommand,
}

/// What all commands that talk to a broker take. Clones share the client.
#[derive(Clone, Debug, clap::Args)]
pub struct Common {
    /// Brokers to ask first, HOST or HOST:PORT, separated by commas [env: ALLUVIUM_BROKERS] [default: 127.0.0.1:9092]
    #[arg(short, long, global = true, value_name = "ADDRS")]
    brokers: Option<String>,
    /// Brokers by the name that `alluvium context set` gave them
    #[arg(long, global = true, value_name = "NAME", conflicts_with = "brokers")]
    context: Option<String>,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// How connections are protected, in the names of Kafka's clients (security.protocol=SASL_SSL, ssl.truststore.location=FILE,
    /// sasl.mechanism=SCRAM-SHA-256, sasl.username=NAME) and sasl.password.location=FILE; or ALLUVIUM_PASSWORD
    #[arg(short = 'X', global = true, value_name = "KEY=VALUE", value_parser = pair)]
    pub properties: Vec<(String, String)>,
    /// The client of the command, with what is said while it waits.
    #[arg(skip)]
    connected: Arc<OnceLock<(Client, Watch)>>,
}

impl Common {
    /// Where the command goes.
    fn brokers(&self) -> Result<String> {
        context::brokers(self.brokers.as_deref(), self.context.as_deref())
    }

    /// Where HTTP is served, as `given` or as it follows from where the command goes. An address behind `https://` is encrypted.
    pub fn http(&self, given: Option<&str>) -> Result<HttpServer> {
        let brokers = self.brokers()?;
        let named = self.context.as_deref();
        let address = context::http(given, named, self.brokers.is_some(), &brokers)?;
        let protection = self.protection()?;
        let (address, tls) = match address.strip_prefix(HTTPS) {
            Some(address) => (address.to_owned(), Some(protection.tls()?)),
            None => (address, None),
        };
        Ok(HttpServer {
            authorization: protection.authorization(&address, tls.is_some())?,
            address,
            tls,
        })
    }

    /// What the context says of protection, and then the command.
    fn protection(&self) -> Result<Protection> {
        let mut all = context::properties(self.brokers.is_some(), self.context.as_deref())?;
        all.extend_from_slice(&self.properties);
        Ok(Protection::parse(&all)?)
    }

    /// How a client reaches these brokers.
    fn config(&self) -> Result<ClientConfig> {
        let protection = self.protection()?;
        let mut config = ClientConfig::new(&self.brokers()?);
        config.tls = protection.of_kafka()?;
        config.sasl = protection.login()?;
        Ok(config)
    }

    /// A client of these brokers.
    pub async fn connect(&self) -> Result<Client> {
        let config = self.config()?;
        let watch = Watch::start(config.troubles.clone());
        let client = Client::connect(config).await?;
        let (client, _) = self.connected.get_or_init(|| (client, watch));
        Ok(client.clone())
    }

    /// A topic that is there and has nearly this name.
    async fn similar_topic(&self, name: &str) -> Option<String> {
        let (client, _) = self.connected.get()?;
        let known = tokio::time::timeout(SUGGESTION_TIME, client.refresh(None)).await;
        let known = known.ok()?.ok()?;
        let names = known.topics.keys().map(String::as_str);
        similar(name, names).map(str::to_owned)
    }
}

/// Threads beside the runtime's workers: those that read files, or wait for names.
const OTHER_THREADS: usize = 2;

impl ToolCommand {
    /// What the command knows of its broker, if it talks to one.
    fn common(&self) -> Option<&Common> {
        match self {
            ToolCommand::Topic(OnBroker { common, .. }) => Some(common),
            ToolCommand::Broker(OnBroker { common, .. }) => Some(common),
            ToolCommand::Produce(OnBroker { common, .. }) => Some(common),
            ToolCommand::Consume(OnBroker { common, .. }) => Some(common),
            ToolCommand::Replay(OnBroker { common, .. }) => Some(common),
            ToolCommand::Export(OnBroker { common, .. }) => Some(common),
            ToolCommand::Import(OnBroker { common, .. }) => Some(common),
            ToolCommand::Group(GroupArgs { common, .. }) => Some(common),
            ToolCommand::Bench(OnBroker { common, .. }) => Some(common),
            ToolCommand::Doctor(OnBroker { common, .. }) => Some(common),
            ToolCommand::Retention(OnBroker { common, .. })
            | ToolCommand::Compact(OnBroker { common, .. }) => Some(common),
            ToolCommand::Thin(OnBroker { common, .. }) => Some(common),
            ToolCommand::Hold(OnBroker { common, .. }) => Some(common),
            ToolCommand::Mqtt(OnBroker { common, .. }) => Some(common),
            ToolCommand::Queue(OnBroker { common, .. }) => Some(common),
            ToolCommand::Acl(OnBroker { common, .. }) => Some(common),
            ToolCommand::User(OnBroker { common, .. }) => Some(common),
            ToolCommand::Erase(OnBroker { common, .. }) => Some(common),
            ToolCommand::Loss(OnBroker { common, .. }) => Some(common),
            ToolCommand::Access(_)
            | ToolCommand::Context(_)
            | ToolCommand::Log(_)
            | ToolCommand::Backup(_)
            | ToolCommand::Restore(_)
            | ToolCommand::Demo(_) => None,
        }
    }

    /// Runs the command to its end and tells its exit code. What went wrong is said on standard error.
    pub fn run(self) -> ExitCode {
        match runtime::build(OTHER_THREADS) {
            Ok(runtime) => runtime.block_on(self.report()),
            Err(error) => failure::report(&error),
        }
    }

    async fn report(self) -> ExitCode {
        let common = self.common().cloned();
        let error = match self.start().await {
            Ok(code) => return code,
            Err(error) => error,
        };
        let similar = match (failure::missing_topic(&error), &common) {
            (Some(name), Some(common)) => common.similar_topic(name).await,
            _ => None,
        };
        failure::report_with(&error, similar.as_deref())
    }

    async fn start(self) -> Result<ExitCode> {
        match self {
            ToolCommand::Topic(OnBroker { common, args }) => args.run(&common, now()).await,
            ToolCommand::Broker(OnBroker { common, args }) => args.run(&common).await,
            ToolCommand::Produce(OnBroker { common, args }) => {
                let client = common.connect().await?;
                let reports_records = args.output_format.is_some();
                let produced = produce::run(args, &client, now()).await?;
                produce::report(&produced, common.json && !reports_records)
            }
            ToolCommand::Consume(OnBroker { common, mut args }) => {
                if common.json {
                    args.format = Some("json".to_owned());
                }
                consume::run(args, &common.connect().await?, now()).await
            }
            ToolCommand::Replay(OnBroker { common, args }) => args.run(&common, now()).await,
            ToolCommand::Export(OnBroker { common, args }) => args.run(&common, now()).await,
            ToolCommand::Import(OnBroker { common, args }) => args.run(&common, now()).await,
            ToolCommand::Demo(args) => demo::run(&args).await,
            ToolCommand::Bench(OnBroker { common, args }) => {
                bench::run(args, &common.connect().await?, common.json).await
            }
            ToolCommand::Doctor(OnBroker { common, args }) => {
                doctor::run(args, common.config()?, common.json).await
            }
            ToolCommand::Retention(OnBroker { common, args }) => {
                args.run(Policy::Retention, &common).await
            }
            ToolCommand::Thin(OnBroker { common, args }) => args.run(&common).await,
            ToolCommand::Compact(OnBroker { common, args }) => {
                args.run(Policy::Compaction, &common).await
            }
            ToolCommand::Hold(OnBroker { common, args }) => args.run(&common, now()).await,
            ToolCommand::Mqtt(OnBroker { common, args }) => args.run(&common).await,
            ToolCommand::Queue(OnBroker { common, args }) => args.run(&common).await,
            ToolCommand::Acl(OnBroker { common, args }) => args.run(&common).await,
            ToolCommand::User(OnBroker { common, args }) => args.run(&common, now()).await,
            ToolCommand::Erase(OnBroker { common, args }) => args.run(&common).await,
            ToolCommand::Loss(OnBroker { common, args }) => args.run(&common).await,
            ToolCommand::Access(args) => tokio::task::block_in_place(|| args.run()),
            ToolCommand::Context(args) => args.run(),
            ToolCommand::Log(args) => tokio::task::block_in_place(|| args.run()),
            ToolCommand::Backup(args) => tokio::task::block_in_place(|| args.run()),
            ToolCommand::Restore(args) => tokio::task::block_in_place(|| args.run()),
            ToolCommand::Group(GroupArgs { common, command }) => {
                let client = common.connect().await?;
                let ledger = common.http(None).ok();
                command.run(&client, common.json, now(), ledger).await
            }
        }
    }
}

fn now() -> Timestamp {
    Timestamp::from_millis(jiff::Timestamp::now().as_millisecond())
}
