//! What shows that the store keeps its promises, each a command of `cargo xtask`: `compat` drives other people's clients and
//! test suites against the broker, `chaos` a consumer group of them, `oracle` compares it with Apache Kafka, `exam` injects
//! faults, `bench` measures, `soak` keeps it under load for long. One module per command; this file parses the command line.
//! Callers: `cargo xtask`, which builds this program, hands it the command line, and asks for short forms in `test`.
//! Invariant: a broker is judged from outside, by what it answers and by what its files hold.

mod amqp_client;
mod bench;
mod chaos;
mod compat;
mod exam;
mod http;
#[path = "../../tests/key_search/mod.rs"]
mod key_search;
mod oracle;
mod secured;
mod soak;
mod suites;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::process::ExitCode;
use xtask::{Tally, proof};

/// The server's: benchmarks of the engine alone are to allocate as it does.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about,
    disable_help_subcommand = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    #[command(about = proof::COMPAT)]
    Compat(compat::Options),
    #[command(about = proof::CHAOS)]
    Chaos(chaos::Options),
    #[command(about = proof::EXAM)]
    Exam(exam::ExamArgs),
    #[command(about = proof::BENCH)]
    Bench(bench::BenchArgs),
    #[command(about = proof::ORACLE)]
    Oracle(oracle::Options),
    #[command(about = proof::SOAK)]
    Soak(soak::Options),
    /// Run a short form, and leave what passed and failed in a file: what `cargo xtask test` asks for.
    #[command(hide = true)]
    Short {
        /// The short form of what.
        what: Short,
        /// The file for the tally.
        #[arg(long, value_name = "FILE")]
        tally: PathBuf,
    },
    /// Install everything that clients and suites need.
    #[command(hide = true)]
    Prepare,
}

#[derive(Clone, Copy, ValueEnum)]
enum Short {
    Exam,
    Clients,
    Suites,
    Oracle,
    Chaos,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Compat(options) => compat::main(&options),
        Command::Chaos(options) => chaos::main(&options),
        Command::Exam(arguments) => exam::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Bench(arguments) => bench::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Oracle(options) => oracle::main(&options),
        Command::Soak(options) => soak::run(&options).map(|()| ExitCode::SUCCESS),
        Command::Short { what, tally } => run_short(what)
            .and_then(|found| found.write(&tally))
            .map(|()| ExitCode::SUCCESS),
        Command::Prepare => prepare().map(|()| ExitCode::SUCCESS),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_short(what: Short) -> Result<Tally> {
    match what {
        Short::Exam => exam::run_short(),
        Short::Clients => {
            compat::install_all()?;
            compat::run_matrix()
        }
        Short::Suites => suites::run_fast(),
        Short::Oracle => oracle::run_short(),
        Short::Chaos => chaos::run_short(),
    }
}

fn prepare() -> Result<()> {
    compat::install_all()?;
    suites::prepare(&suites::all(), None)
}
