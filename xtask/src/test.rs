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
    ("Rust tests", |_| {
        cargo(&["test", "--workspace", "--quiet", "--no-fail-fast"])
    }),
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
            Tally::ONE_FAILED
        });
        total.add(tally);
        let passed = tally.failed == 0;
        let mark = if passed { "ok" } else { "FAILED" };
        summary.push(format!(
            "{name:<14}{mark:<8}{:>6.0} s",
            started.elapsed().as_secs_f64()
        ));
        if passed {
            watch(Event::Passed(name));
        } else if is_fail_fast || name == BUILD {
            break;
        }
    }
    println!("\n{}\n", summary.join("\n"));
    println!("{} passed, {} failed", total.passed, total.failed);
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
