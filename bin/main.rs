//! The `alluvium` binary: the server, its configuration, and the tools.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use alluvium::config::{Config, Sources};
use alluvium::serve;
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use tools::failure;
use tools::output::{print, print_text};
use tools::shell::{self, CompletionsArgs, ManArgs};
use tools::signals::StopSignals;

/// Gives freed memory back within a second, as `.cargo/config.toml` has it built: docs/sizing.md.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Shown below the list of commands.
const EXAMPLES: &str = "\
Examples:
  alluvium demo                                    watch a broker survive a SIGKILL
  alluvium serve --data DIR                        run a server: Kafka protocol on port 9092, HTTP on 8080
  seq 1000 | alluvium produce readings             write 1,000 records to a topic
  alluvium consume readings -o -10m                read the last ten minutes, then new records as they arrive
  alluvium group describe dashboard                show how far behind a consumer group is
  alluvium retention explain readings              show what retention will remove, and what holds the rest back
  alluvium COMMAND --help                          options and examples of a command

The tools connect to 127.0.0.1:9092, or to the broker that -b, --context or ALLUVIUM_BROKERS names. --json prints JSON.
Exit codes: 0 success, 1 failure, 2 wrong usage, 3 not found, 4 no broker reached or no answer in time, 5 damage found.";

const SERVE_EXAMPLES: &str = "\
Prints one line with its addresses when it is ready, and notifies systemd. SIGTERM and Ctrl-C stop it in order, with exit code \
0. Logs go to standard error; ALLUVIUM_LOG=debug logs more.

Examples:
  alluvium serve --data ./data
  alluvium serve --config access/server.toml --data /var/lib/alluvium     # others reach it: alluvium access init --help
  alluvium serve --data d --kafka 127.0.0.1:0 --http 127.0.0.1:0 --json    # free ports
  alluvium serve --config server.toml -X num.partitions=4
  alluvium config show --origin                                            # all settings

Exit codes: 0 stopped on request, 1 could not start, 2 wrong setting or option, 74 a write or sync failed.";

/// A persistent, log-structured stream store for telemetry. It speaks the Kafka protocol.
#[derive(Parser)]
#[command(
    name = "alluvium",
    version,
    long_version = env!("BUILD_VERSION"),
    propagate_version = true,
    arg_required_else_help = true,
    after_help = EXAMPLES
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server.
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(ServeArgs),
    #[command(flatten)]
    Tool(Box<tools::cli::ToolCommand>),
    /// Check and show the server's configuration.
    Config(ConfigArgs),
    /// Print a script that completes commands and options in a shell.
    #[command(after_help = shell::COMPLETIONS_EXAMPLES)]
    Completions(CompletionsArgs),
    /// Print or write manual pages.
    #[command(after_help = shell::MAN_EXAMPLES)]
    Man(ManArgs),
}

#[derive(Args)]
struct ServeArgs {
    #[command(flatten)]
    settings: SettingArgs,
    /// Print the ready line as JSON, and logs as JSON lines.
    #[arg(long)]
    json: bool,
}

/// How settings are given.
#[derive(Args)]
struct SettingArgs {
    /// The configuration file (TOML).
    #[arg(
        long,
        env = "ALLUVIUM_CONFIG",
        hide_env_values = true,
        value_name = "FILE"
    )]
    config: Option<PathBuf>,
    /// The directory of the store; its last level is created if it is missing (data.dir).
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// Listen here for the Kafka protocol, host:port; port 0 picks a free one (kafka.listen).
    #[arg(long, value_name = "ADDR")]
    kafka: Option<String>,
    /// Listen here for HTTP, host:port; port 0 picks a free one (http.listen).
    #[arg(long, value_name = "ADDR")]
    http: Option<String>,
    /// Start although others can reach the server and access is not controlled; every start warns of it (insecure).
    #[arg(long)]
    insecure: bool,
    /// Listen here for MQTT 3.1.1 and 5, host:port; port 0 picks a free one (mqtt.listen).
    #[arg(long, value_name = "ADDR")]
    mqtt: Option<String>,
    /// Listen here for AMQP 1.0, host:port; port 0 picks a free one (amqp.listen).
    #[arg(long, value_name = "ADDR")]
    amqp: Option<String>,
    /// Set any setting; `alluvium config reference` lists them.
    #[arg(short = 'X', value_name = "KEY=VALUE", value_parser = pair)]
    overrides: Vec<(String, String)>,
}

#[derive(Args)]
struct ConfigArgs {
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Read the configuration and say whether the server would start with it.
    ///
    /// Exit code 0 if so, 2 if not. Warns of what is allowed and most likely not meant. JSON: an object with good; warnings if it
    /// is, error if it is not.
    Check(SettingArgs),
    /// Print every setting that is in force.
    ///
    /// JSON: an array with an object for each setting: key, value, origin.
    Show {
        #[command(flatten)]
        settings: SettingArgs,
        /// Also say where each value comes from.
        #[arg(long)]
        origin: bool,
    },
    /// Print the reference page of all settings.
    ///
    /// JSON: an array with an object for each setting of the server: key, default, about.
    Reference,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("must be KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

impl SettingArgs {
    fn load(&self) -> anyhow::Result<Config> {
        let named = [
            ("data.dir", &self.data),
            ("kafka.listen", &self.kafka),
            ("http.listen", &self.http),
            ("mqtt.listen", &self.mqtt),
            ("amqp.listen", &self.amqp),
        ];
        let mut flags = self.overrides.clone();
        flags.extend(
            named
                .into_iter()
                .filter_map(|(key, value)| Some((key.to_owned(), value.clone()?))),
        );
        if self.insecure {
            flags.push(("insecure".to_owned(), "true".to_owned()));
        }
        let environment = std::env::vars_os().collect();
        Ok(Config::load(&Sources {
            file: self.config.clone(),
            environment,
            flags,
        })?)
    }
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(args) => {
            if let Err(error) = alluvium::logging::start(args.json) {
                return fail(&error.into(), failure::USAGE);
            }
            let config = match args.settings.load() {
                Ok(config) => config,
                Err(error) => return fail(&error, failure::USAGE),
            };
            run(config, args.json).map_or_else(
                |error| fail(&error, failure::FAILED),
                |()| ExitCode::SUCCESS,
            )
        }
        Command::Tool(command) => command.run(),
        Command::Completions(args) => args.run(Cli::command()),
        Command::Man(args) => args.run(Cli::command()),
        Command::Config(args) => {
            configure(&args).unwrap_or_else(|error| fail(&error, failure::USAGE))
        }
    }
}

/// Serves until a signal asks for the end.
fn run(config: Config, json: bool) -> anyhow::Result<()> {
    let runtime = tools::runtime::build(serve::OTHER_THREADS)?;
    let commit = Some(env!("BUILD_COMMIT")).filter(|commit| !commit.is_empty());
    runtime.block_on(serve::serve(config, commit, json, || {
        let mut signals = StopSignals::listen()?;
        Ok(async move { signals.asked().await })
    }))
}

fn fail(error: &anyhow::Error, code: u8) -> ExitCode {
    // Nobody may be listening any more; the exit code still says it.
    let _ = writeln!(std::io::stderr(), "error: {}", failure::told(error));
    ExitCode::from(code)
}

fn configure(args: &ConfigArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        ConfigCommand::Check(settings) => return check(settings, args.json),
        ConfigCommand::Show { settings, origin } => {
            let shown = settings.load()?.show();
            let text = || {
                let line = |setting: &alluvium::config::Shown| match origin {
                    true => format!("{}={}  # {}\n", setting.key, setting.value, setting.origin),
                    false => format!("{}={}\n", setting.key, setting.value),
                };
                shown.iter().map(line).collect()
            };
            print(args.json, || serde_json::json!(shown), text)
        }
        ConfigCommand::Reference if args.json => {
            let settings = alluvium::config::settings().map(|(key, default, about)| {
                serde_json::json!({ "key": key, "default": default, "about": about })
            });
            let settings: serde_json::Value = settings.collect();
            print_text(&format!("{settings:#}\n"))
        }
        ConfigCommand::Reference => print_text(&alluvium::config::reference()),
    }
    .map_or_else(
        |error| Ok(failure::report(&error)),
        |()| Ok(ExitCode::SUCCESS),
    )
}

fn check(settings: &SettingArgs, json: bool) -> anyhow::Result<ExitCode> {
    let checked = settings.load().and_then(|config| {
        config.open_tls()?;
        Ok(config)
    });
    match checked {
        Ok(config) => {
            let warnings = config.warnings();
            let value = || serde_json::json!({ "good": true, "warnings": warnings });
            print(json, value, || {
                let lines = warnings.iter().map(|line| format!("warning: {line}\n"));
                lines.collect::<String>() + "the configuration is valid\n"
            })?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) if json => {
            let error = failure::told(&error);
            let value = || serde_json::json!({ "good": false, "error": error });
            print(json, value, String::new)?;
            Ok(ExitCode::from(failure::USAGE))
        }
        Err(error) => Err(error),
    }
}
