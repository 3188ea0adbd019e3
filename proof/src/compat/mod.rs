//! `cargo xtask compat`: unmodified Kafka clients against a fresh broker each, with the broker
//! stopped, killed and started again in between; `--against kafka` runs the same scenarios against
//! Apache Kafka, which proves the scenarios. Programs of ours lie under `tests/compat`.
//! Names of other projects' test suites lead to `crate::suites`.
//!
//! `clients` is the matrix, `install` gets the packages, `peer` is the broker, `session` runs one
//! client, `raw` reads what was stored.

pub mod clients;
pub mod install;
pub mod peer;
mod raw;
pub mod session;

use crate::suites;
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use clients::{
    AMQP, CLIENTS, Client, ENGINES, FLIGHTS, LONG, MQTT, MQTT_GO, MQTT_JAVA, MQTT_JS, MQTT_OTHERS,
    MQTT_RUST, SCHEMATHESIS,
};
use install::{Kit, Places};
use peer::Kind;
use session::Report;
use std::collections::VecDeque;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use xtask::{Tally, run};

/// Flags of `cargo xtask compat`.
#[derive(clap::Args)]
pub struct Options {
    /// Clients and suites (see --list); a name that both have means both. All clients if none is named.
    names: Vec<String>,
    /// All clients and all suites of other projects.
    #[arg(long, conflicts_with = "names")]
    all: bool,
    /// Of what is named, only the clients or only the suites.
    #[arg(long, value_enum)]
    only: Option<Only>,
    /// Suites: only tests whose names contain this.
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Suites: only the fast shard, as in `cargo xtask test`.
    #[arg(long)]
    fast: bool,
    /// Suites: run the excluded tests instead; one that passes fails the command, since the reason in its list is none any more.
    /// Against Apache Kafka it is only told.
    #[arg(long, conflicts_with = "fast")]
    excluded: bool,
    /// Suites: add newly passing tests to the lists in tests/compat/suites, and write docs/COMPATIBILITY.md's tables.
    #[arg(long)]
    write: bool,
    /// Suites that no registry has (of MQTT, JMS and AMQP): the directory of their checkouts, each called as its repository. It is remembered.
    #[arg(long, value_name = "DIR")]
    checkout: Option<PathBuf>,
    /// The broker to run against.
    #[arg(long, value_enum, default_value_t = Against::Alluvium)]
    against: Against,
    /// The broker's binary; built by cargo (development profile) if not given.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Clients, or programs of a suite, that run at the same time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// End a client after this many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 240)]
    timeout: u64,
    /// Install what is needed, and run nothing.
    #[arg(long)]
    install: bool,
    /// List the clients with their scenarios, and the suites.
    #[arg(long)]
    list: bool,
    /// Print the result as JSON on stdout; everything else goes to stderr.
    #[arg(long)]
    json: bool,
}

/// Which broker.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Against {
    /// Ours.
    Alluvium,
    /// Apache Kafka, as the oracle.
    Kafka,
}

/// Which kind of what is named.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Only {
    /// Clients, by programs of ours.
    Clients,
    /// Test suites of other projects.
    Suites,
}

/// What is to be run.
struct Chosen {
    clients: Vec<&'static Client>,
    suites: Vec<String>,
}

/// Entry of `cargo xtask compat`.
pub fn main(options: &Options) -> Result<ExitCode> {
    let chosen = choose(options)?;
    if options.list {
        list(&chosen)?;
        return Ok(ExitCode::SUCCESS);
    }
    let places = Places::find();
    install::install(&places, kits(&chosen.clients))?;
    suites::prepare(&chosen.suites, options.checkout.as_deref())?;
    if options.install {
        return Ok(ExitCode::SUCCESS);
    }
    let kind = match options.against {
        Against::Alluvium => alluvium(options.binary.clone())?,
        Against::Kafka => kafka(&places)?,
    };
    let mut total = Tally::default();
    if !chosen.clients.is_empty() {
        let reports = run_all(
            &chosen.clients,
            &kind,
            &places,
            options.jobs,
            options.timeout,
        );
        let tally = tally(&reports);
        if options.json {
            println!("{}", serde_json::to_string_pretty(&reports)?);
        } else {
            print_table(&reports);
            println!("{} passed, {} failed", tally.passed, tally.failed());
        }
        total.add(tally);
    }
    if !chosen.suites.is_empty() {
        let wish = suites::Wish {
            names: chosen.suites,
            filter: options.filter.clone(),
            fast: options.fast,
            excluded: options.excluded,
            write: options.write,
            jobs: options.jobs,
        };
        total.add(suites::run(&wish, &kind, options.against)?);
    }
    Ok(total.exit_code())
}

fn choose(options: &Options) -> Result<Chosen> {
    let of_suites = options.only == Some(Only::Suites);
    let everything = options.all || (options.names.is_empty() && of_suites);
    let mut chosen = if everything {
        Chosen {
            clients: CLIENTS.iter().collect(),
            suites: suites::all(),
        }
    } else if options.names.is_empty() {
        Chosen {
            clients: CLIENTS.iter().collect(),
            suites: Vec::new(),
        }
    } else {
        named(&options.names)?
    };
    match options.only {
        Some(Only::Clients) => chosen.suites.clear(),
        Some(Only::Suites) => chosen.clients.clear(),
        None => {}
    }
    if options.against == Against::Kafka {
        let needs_ours = |client: &&Client| {
            let of_mqtt = [MQTT, MQTT_GO, MQTT_JAVA, MQTT_JS, MQTT_OTHERS, MQTT_RUST];
            of_mqtt.contains(&client.name)
                || AMQP.contains(&client.name)
                || [ENGINES, FLIGHTS, SCHEMATHESIS].contains(&client.name)
        };
        chosen.clients.retain(|client| !needs_ours(client));
    }
    Ok(chosen)
}

fn named(names: &[String]) -> Result<Chosen> {
    let mut chosen = Chosen {
        clients: Vec::new(),
        suites: Vec::new(),
    };
    for name in names {
        let client = CLIENTS.iter().find(|client| client.name == name);
        chosen.clients.extend(client);
        if suites::is_known(name) {
            chosen.suites.push(name.clone());
        } else if client.is_none() {
            bail!("no client and no suite is called {name}; see cargo xtask compat --all --list");
        }
    }
    Ok(chosen)
}

fn list(chosen: &Chosen) -> Result<()> {
    for client in &chosen.clients {
        println!(
            "{:<18}{:<10}{}",
            client.name,
            client.version,
            client.listed()
        );
    }
    for suite in &chosen.suites {
        println!("{}", suites::describe(suite)?);
    }
    Ok(())
}

/// What `cargo xtask test` runs of the matrix.
fn short() -> Vec<&'static Client> {
    let is_short = |client: &&Client| !LONG.contains(&client.name);
    CLIENTS.iter().filter(is_short).collect()
}

/// Installs everything that it needs.
pub fn install_all() -> Result<()> {
    let chosen = short();
    install::install(&Places::find(), kits(&chosen))
}

/// Runs it against our own broker and prints the table.
pub fn run_matrix() -> Result<Tally> {
    let chosen = short();
    let kind = alluvium(None)?;
    let reports = run_all(&chosen, &kind, &Places::find(), 2, 240);
    print_table(&reports);
    Ok(tally(&reports))
}

fn kits(clients: &[&Client]) -> Vec<Kit> {
    clients
        .iter()
        .flat_map(|client| client.kits.iter().copied())
        .collect()
}

/// Our own broker: this binary, or that of the variable `ALLUVIUM_BIN`, or one that is built now.
pub fn alluvium(binary: Option<PathBuf>) -> Result<Kind> {
    let told = || std::env::var_os("ALLUVIUM_BIN").map(PathBuf::from);
    let binary = match binary.or_else(told) {
        Some(binary) => {
            fs::canonicalize(&binary).with_context(|| format!("no {}", binary.display()))?
        }
        None => {
            run::shown(run::cargo().args(["build", "--quiet", "--bin", "alluvium"]))?;
            run::target_directory().join("debug/alluvium")
        }
    };
    Ok(Kind::Alluvium { binary })
}

/// The class path of Kafka's console tools and of its server, installed.
pub fn kafka_classpath(places: &Places) -> Result<String> {
    let tools = CLIENTS
        .iter()
        .find(|client| client.name == "console-tools")
        .expect("in the matrix");
    install::install(places, tools.kits.iter().copied())?;
    places.classpath("tools")
}

/// Apache Kafka, installed and formatted.
pub fn kafka(places: &Places) -> Result<Kind> {
    let classpath = kafka_classpath(places)?;
    let formatted = places.cache.join("kafka-formatted");
    if !formatted.join("meta.properties").exists() {
        let settings = places.cache.join("kafka-format.properties");
        fs::write(
            &settings,
            peer::kafka_settings("127.0.0.1:9092", 9093, &formatted),
        )?;
        let mut command = Command::new("java");
        command
            .args(["-cp", &classpath, "kafka.tools.StorageTool", "format"])
            .args(["-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c"])
            .arg(&settings);
        run::quiet(&mut command)?;
    }
    if !formatted.join("meta.properties").exists() {
        bail!("Kafka's storage tool left no meta.properties");
    }
    Ok(Kind::Kafka {
        classpath,
        formatted,
    })
}

fn run_all(
    clients: &[&'static Client],
    kind: &Kind,
    places: &Places,
    jobs: usize,
    seconds_max: u64,
) -> Vec<Report> {
    let queue: Mutex<VecDeque<(usize, &'static Client)>> =
        Mutex::new(clients.iter().copied().enumerate().collect());
    let reports = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().expect("no panic holds the queue").pop_front();
                    let Some((index, client)) = next else { break };
                    let report = session::run(client, kind.clone(), places, seconds_max);
                    let mark = if report.passed { "passed" } else { "FAILED" };
                    eprintln!(
                        "{} {} {mark} in {:.1} s",
                        report.client, report.version, report.seconds
                    );
                    reports
                        .lock()
                        .expect("no panic holds the reports")
                        .push((index, report));
                }
            });
        }
    });
    let mut reports = reports.into_inner().expect("every thread has ended");
    reports.sort_by_key(|(index, _)| *index);
    reports.into_iter().map(|(_, report)| report).collect()
}

fn tally(reports: &[Report]) -> Tally {
    let mut tally = Tally::default();
    for report in reports {
        for outcome in &report.scenarios {
            match &outcome.failure {
                None => tally.passed += 1,
                Some(why) => tally.fail(format!("{} {}: {why}", report.client, outcome.scenario)),
            }
        }
    }
    tally
}

fn print_table(reports: &[Report]) {
    println!(
        "{:<18}{:<10}{:>7}{:>7}{:>6}{:>9}",
        "client", "version", "passed", "failed", "exit", "seconds"
    );
    for report in reports {
        let failed = report
            .scenarios
            .iter()
            .filter(|outcome| outcome.failure.is_some())
            .count();
        let exit = report
            .exit_code
            .map_or("-".to_string(), |code| code.to_string());
        println!(
            "{:<18}{:<10}{:>7}{:>7}{:>6}{:>9.1}",
            report.client,
            report.version,
            report.scenarios.len() - failed,
            failed,
            exit,
            report.seconds
        );
    }
    for report in reports.iter().filter(|report| !report.passed) {
        println!(
            "\n{} {} (log: {})",
            report.client, report.version, report.log
        );
        for outcome in &report.scenarios {
            if let Some(failure) = &outcome.failure {
                println!("  {}: {failure}", outcome.scenario);
            }
        }
    }
}
