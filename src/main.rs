//! The `alluvium` binary: the server, its configuration, and the tools.

use std::path::PathBuf;
use std::process::ExitCode;

use alluvium::config::{Config, Sources};
use alluvium::serve;
use clap::{Args, Parser, Subcommand};

/// A persistent, log-structured stream store for telemetry: one binary, one log, every protocol.
#[derive(Parser)]
#[command(
    name = "alluvium",
    version,
    propagate_version = true,
    arg_required_else_help = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server.
    Serve(ServeArgs),
    /// Check and show the server's configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    #[command(flatten)]
    Tool(tools::cli::ToolCommand),
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
    #[arg(long, env = "ALLUVIUM_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where everything is kept (data.dir).
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// Where the Kafka protocol listens, host:port; port 0 picks one (kafka.listen).
    #[arg(long, value_name = "ADDR")]
    kafka: Option<String>,
    /// Where HTTP listens, host:port; port 0 picks one (http.listen).
    #[arg(long, value_name = "ADDR")]
    http: Option<String>,
    /// Override any setting; see `alluvium config show`.
    #[arg(short = 'X', value_name = "KEY=VALUE", value_parser = pair)]
    overrides: Vec<(String, String)>,
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Read the configuration and say whether the server would start with it.
    Check(SettingArgs),
    /// Print every setting that is in force.
    Show {
        #[command(flatten)]
        settings: SettingArgs,
        /// Also say where each value comes from.
        #[arg(long)]
        origin: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print the reference page of all settings.
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
        ];
        let mut flags = self.overrides.clone();
        flags.extend(
            named
                .into_iter()
                .filter_map(|(key, value)| Some((key.to_owned(), value.clone()?))),
        );
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Ok(Config::load(&Sources {
            file: self.config.clone(),
            environment,
            flags,
        })?)
    }
}

/// The exit code of wrong usage, settings included.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(args) => {
            alluvium::logging::start(args.json);
            let config = match args.settings.load() {
                Ok(config) => config,
                Err(error) => return fail(&error, USAGE),
            };
            serve::run(config, args.json)
                .map_or_else(|error| fail(&error, 1), |()| ExitCode::SUCCESS)
        }
        Command::Tool(command) => command.run(),
        Command::Config(command) => configure(&command).unwrap_or_else(|error| fail(&error, USAGE)),
    }
}

fn fail(error: &anyhow::Error, code: u8) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::from(code)
}

fn configure(command: &ConfigCommand) -> anyhow::Result<ExitCode> {
    match command {
        ConfigCommand::Check(settings) => {
            settings.load()?;
            println!("the configuration is good");
        }
        ConfigCommand::Show {
            settings,
            origin,
            json,
        } => {
            let shown = settings.load()?.show();
            if *json {
                println!("{}", serde_json::to_string_pretty(&shown)?);
            } else {
                for setting in shown {
                    let from = if *origin {
                        format!("  # {}", setting.origin)
                    } else {
                        String::new()
                    };
                    println!("{}={}{from}", setting.key, setting.value);
                }
            }
        }
        ConfigCommand::Reference => print!("{}", alluvium::config::reference()),
    }
    Ok(ExitCode::SUCCESS)
}
