//! `cargo xtask NAME`: parses the command line of the project's chores, and hands those of the crate `proof` over to it whole.

use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::process::ExitCode;
use xtask::{check, fuzz, package, proof, test, wire};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about,
    disable_help_subcommand = true
)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// The inner loop: check format and lints, run the unit tests and the rules of the house.
    Check(check::Options),
    /// Check format, lints and docs, run all Rust tests, the short exam and the real clients.
    Test(test::Options),
    #[command(about = proof::COMPAT, disable_help_flag = true)]
    Compat(Given),
    #[command(about = proof::CHAOS, disable_help_flag = true)]
    Chaos(Given),
    #[command(about = proof::EXAM, disable_help_flag = true)]
    Exam(Given),
    #[command(about = proof::BENCH, disable_help_flag = true)]
    Bench(Given),
    /// Feed all that reads foreign bytes with inputs that nobody would write.
    Fuzz(fuzz::Options),
    #[command(about = proof::ORACLE, disable_help_flag = true)]
    Oracle(Given),
    /// Build the Debian package with Debian's own tools, and try it in a root directory of its own.
    Package(package::Options),
    #[command(about = proof::SOAK, disable_help_flag = true)]
    Soak(Given),
    /// Write the Kafka protocol's messages (wire/src/messages) from the facts in wire/schema.
    Wire(wire::Args),
}

/// Whatever follows the name of one of `proof`'s commands; its own program parses it.
#[derive(clap::Args)]
struct Given {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().chore {
        Chore::Check(options) => check::main(&options),
        Chore::Test(options) => test::main(&options),
        Chore::Fuzz(options) => fuzz::main(&options),
        Chore::Package(options) => package::run(&options).map(|()| ExitCode::SUCCESS),
        Chore::Wire(arguments) => wire::run(&arguments).map(|()| ExitCode::SUCCESS),
        Chore::Bench(given) => hand_over("bench", given),
        Chore::Chaos(given) => hand_over("chaos", given),
        Chore::Compat(given) => hand_over("compat", given),
        Chore::Exam(given) => hand_over("exam", given),
        Chore::Oracle(given) => hand_over("oracle", given),
        Chore::Soak(given) => hand_over("soak", given),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn hand_over(name: &str, given: Given) -> anyhow::Result<ExitCode> {
    proof::become_it([OsString::from(name)].into_iter().chain(given.arguments))
}
