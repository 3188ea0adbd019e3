//! `cargo xtask test`: everything that must hold before a change goes in, from format to real clients.
//! Callers: a developer, and `.ci/run`. Ends in one line, `N passed, N failed`, which counts the
//! chores and the clients' scenarios.
//! Invariant: nothing is left out in silence; what cannot be run is a failure that says what to do.

use crate::proof::Preparation;
use crate::{Tally, debian, fuzz, package, proof, run};
use anyhow::Result;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// Flags of `cargo xtask test`.
#[derive(clap::Args)]
pub struct Options {
    /// Stop at the first chore that fails.
    #[arg(long)]
    fail_fast: bool,
    /// Let the exam and the package have the release binary instead of the one with debug assertions.
    #[arg(long)]
    release: bool,
}

/// One thing that must hold: its name, and what finds out, given the command's options.
pub(crate) type Chore<Options> = (&'static str, fn(&Options) -> Result<Tally>);

const CHORES: &[Chore<Options>] = &[
    ("format", |_| format()),
    (BUILD, |_| run::build_all().map(|()| Tally::ONE_PASSED)),
    ("lints", |_| lints()),
    ("docs", |_| docs()),
    // Without `--no-fail-fast` one failure would hide those of every later crate.
    ("Rust tests", |_| rust_tests()),
    ("fuzz, short", |_| fuzz::run_short()),
    ("exam, short", |options| {
        proof::short("exam", &options.broker()?)
    }),
    (CLIENTS, |_| proof::short("clients", &debug_broker())),
    ("suites, fast", |_| proof::short("suites", &debug_broker())),
    ("beside Kafka", |_| proof::short("oracle", &debug_broker())),
    ("chaos, short", |_| proof::short("chaos", &debug_broker())),
    ("package", |options| package::run_check(&options.broker()?)),
];

/// Tests that run at the same time, for each core.
const TESTS_PER_CORE: usize = 3;
/// What all later chores run.
const BUILD: &str = "build";
/// The first chore that needs what is downloaded.
const CLIENTS: &str = "real clients";

impl Options {
    /// The broker for what can do with either.
    fn broker(&self) -> Result<PathBuf> {
        if self.release {
            run::build_release()
        } else {
            Ok(debug_broker())
        }
    }
}

fn debug_broker() -> PathBuf {
    run::built("alluvium")
}

/// Entry of `cargo xtask test`.
pub fn main(options: &Options) -> Result<ExitCode> {
    if run::on_path("make").is_none() {
        debian::install("make")?;
    }
    let mut preparation = None;
    run_all(CHORES, options, options.fail_fast, |event| match event {
        // Downloads go on beside lints and tests; the chores that need them report what went wrong.
        Event::Passed(BUILD) => preparation = Preparation::start().ok(),
        Event::Begins(CLIENTS) => {
            if let Some(preparation) = preparation.take() {
                // A second try in the foreground tells the reason.
                let _ = preparation.finish();
            }
        }
        Event::Begins(_) | Event::Passed(_) => (),
    })
}

/// What [`run_all`] comes to, with the chore's name.
pub(crate) enum Event {
    Begins(&'static str),
    Passed(&'static str),
}

/// Runs chores one after the other, tells `watch` of each, and prints how long each took. Success if none failed.
/// Ends with the first that fails if that is wished, and with a failed build: what comes after it would judge an older one.
pub(crate) fn run_all<Options>(
    chores: &[Chore<Options>],
    options: &Options,
    is_fail_fast: bool,
    mut watch: impl FnMut(Event),
) -> Result<ExitCode> {
    let mut total = Tally::default();
    let mut summary = Vec::new();
    for &(name, chore) in chores {
        println!("\n== {name}");
        let started = Instant::now();
        watch(Event::Begins(name));
        let tally = chore(options).unwrap_or_else(|error| {
            println!("{name}: {error:#}");
            Tally::one_failed(format!("{error:#}"))
        });
        let passed = tally.failures.is_empty();
        let mark = if passed { "ok" } else { "FAILED" };
        summary.push(format!(
            "{name:<14}{mark:<8}{:>6.0} s",
            started.elapsed().as_secs_f64()
        ));
        // Who sees the end of the output only learns from it what to look for.
        summary.extend(tally.failures.iter().map(|why| format!("    {why}")));
        total.add(tally);
        if passed {
            watch(Event::Passed(name));
        } else if is_fail_fast || name == BUILD {
            break;
        }
    }
    println!("\n{}\n", summary.join("\n"));
    println!("{} passed, {} failed", total.passed, total.failed());
    Ok(total.exit_code())
}

pub(crate) fn cargo(arguments: &[&str]) -> Result<Tally> {
    run::shown(run::cargo().args(arguments))?;
    Ok(Tally::ONE_PASSED)
}

pub(crate) fn format() -> Result<Tally> {
    cargo(&["fmt", "--all", "--check"])
}

pub(crate) fn lints() -> Result<Tally> {
    cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--quiet",
        "--",
        "-D",
        "warnings",
    ])
}

/// All tests of the workspace. One thing in the tally if they pass, else one for each test that failed.
fn rust_tests() -> Result<Tally> {
    let mut command = run::cargo();
    command.args(["test", "--workspace", "--quiet", "--no-fail-fast"]);
    // Most of their time they wait: for a sync, a server's start, a deadline.
    if std::env::var_os("RUST_TEST_THREADS").is_none() {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        command.env("RUST_TEST_THREADS", (TESTS_PER_CORE * cores).to_string());
    }
    let (status, lines) = run::shown_and_kept(&mut command, is_name_in_a_list)?;
    if status.success() {
        return Ok(Tally::ONE_PASSED);
    }
    let mut tally = Tally::default();
    lines.iter().for_each(|name| tally.fail(name));
    if tally.failures.is_empty() {
        tally.fail(format!("cargo test failed ({status})"));
    }
    Ok(tally)
}

/// Whether a line of the test harness is one of its closing list of failures: four spaces and a path of Rust, or a document
/// test's file and line.
fn is_name_in_a_list(line: &str) -> bool {
    let name = line.strip_prefix("    ").unwrap_or_default();
    let is_path = name.contains("::") && !name.contains(|c: char| c.is_whitespace());
    is_path || (name.contains(".rs - ") && name.contains(" (line "))
}

fn docs() -> Result<Tally> {
    let mut command = run::cargo();
    command.env("RUSTDOCFLAGS", "-D warnings").args([
        "doc",
        "--workspace",
        "--no-deps",
        "--document-private-items",
        "--quiet",
    ]);
    run::shown(&mut command)?;
    Ok(Tally::ONE_PASSED)
}
