//! The project's own chores, as `cargo xtask NAME`: `test` is the README's second command,
//! `compat` drives other people's clients and test suites against the broker, `chaos` a group of them, `oracle` compares it with Apache Kafka, `exam` hurts it, `bench` measures it, `fuzz` feeds it garbage, `soak` wears it, `package` builds the Debian package, `wire` writes the generated messages.
//! One module per chore; this file only parses the command line.

mod bench;
mod chaos;
mod compat;
mod exam;
mod fuzz;
mod oracle;
mod package;
mod run;
mod soak;
mod suites;
mod test;
mod wire;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", about, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Check format, lints and docs, run all Rust tests, the short exam and the real clients.
    Test(test::Options),
    /// Run unmodified Kafka clients against a fresh broker, through restarts and kills, and other projects' test suites.
    Compat(compat::Options),
    /// A consumer group of four different clients that join, leave, stall and crash, while the broker does too.
    Chaos(chaos::Options),
    /// Hurt the store (kills, power cuts, full disks, failing syncs) and judge what it kept.
    Exam(exam::ExamArgs),
    /// Measure: produce, latency, replay, start-up, memory, each beside the machine's limit.
    Bench(bench::BenchArgs),
    /// Feed all that reads foreign bytes with inputs that nobody would write.
    Fuzz(fuzz::Options),
    /// Ask the broker and Apache Kafka the same things, and compare the answers field by field.
    Oracle(oracle::Options),
    /// Build the Debian package with Debian's own tools, and try it in a root directory of its own.
    Package(package::Options),
    /// Keep a broker under mixed load for long, with restarts, and see that nothing grows.
    Soak(soak::Options),
    /// Write the Kafka protocol's messages (wire/src/messages) from the facts in wire/schema.
    Wire(wire::Args),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().chore {
        Chore::Test(options) => test::main(&options),
        Chore::Compat(options) => compat::main(&options),
        Chore::Chaos(options) => chaos::main(&options),
        Chore::Exam(arguments) => exam::run(&arguments).map(|()| ExitCode::SUCCESS),
        Chore::Bench(arguments) => bench::run(&arguments).map(|()| ExitCode::SUCCESS),
        Chore::Fuzz(options) => fuzz::main(&options),
        Chore::Oracle(options) => oracle::main(&options),
        Chore::Package(options) => package::run(&options).map(|()| ExitCode::SUCCESS),
        Chore::Soak(options) => soak::run(&options).map(|()| ExitCode::SUCCESS),
        Chore::Wire(arguments) => wire::run(&arguments).map(|()| ExitCode::SUCCESS),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
