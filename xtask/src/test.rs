//! `cargo xtask test`: everything that must hold before a change goes in, from format to real clients.
//! Callers: a developer, and `.ci/run`. Ends in one line, `N passed, N failed`, which counts the
//! chores and the clients' scenarios.
//! Invariant: nothing is left out in silence; what cannot be run is a failure that says what to do.

use crate::proof::Preparation;
use crate::{Tally, debian, fuzz, package, proof, run};
use anyhow::Result;
use std::process::ExitCode;
use std::time::Instant;

/// Flags of `cargo xtask test`.
#[derive(clap::Args)]
pub struct Options {
    /// Stop at the first chore that fails.
    #[arg(long)]
    fail_fast: bool,
}

/// One thing that must hold: its name, and what finds out.
pub(crate) type Chore = (&'static str, fn() -> Result<Tally>);

const CHORES: &[Chore] = &[
    ("format", format),
    ("lints", lints),
    ("docs", docs),
    // Without `--no-fail-fast` one failure would hide those of every later crate.
    ("Rust tests", || {
        cargo(&["test", "--workspace", "--quiet", "--no-fail-fast"])
    }),
    ("fuzz, short", fuzz::run_short),
    ("exam, short", || proof::short("exam")),
    (CLIENTS, || proof::short("clients")),
    ("suites, fast", || proof::short("suites")),
    ("beside Kafka", || proof::short("oracle")),
    ("chaos, short", || proof::short("chaos")),
    ("package", package::run_check),
];

/// The first chore that needs what is downloaded.
const CLIENTS: &str = "real clients";

/// Entry of `cargo xtask test`.
pub fn main(options: &Options) -> Result<ExitCode> {
    if run::on_path("make").is_none() {
        debian::install("make")?;
    }
    // Downloads go on beside the builds; the chores that need them report what went wrong.
    let mut preparation = Some(std::thread::spawn(|| Preparation::start()?.finish()));
    run_all(CHORES, options.fail_fast, |name| {
        if name == CLIENTS
            && let Some(preparation) = preparation.take()
        {
            // A second try in the foreground tells the reason.
            let _ = preparation.join();
        }
    })
}

/// Runs chores one after the other, `before` each with its name, and prints how long each took. Success if none failed.
pub(crate) fn run_all(
    chores: &[Chore],
    is_fail_fast: bool,
    mut before: impl FnMut(&str),
) -> Result<ExitCode> {
    let mut total = Tally::default();
    let mut summary = Vec::new();
    for (name, chore) in chores {
        println!("\n== {name}");
        let started = Instant::now();
        before(name);
        let tally = chore().unwrap_or_else(|error| {
            println!("{name}: {error:#}");
            Tally::ONE_FAILED
        });
        total.add(tally);
        let mark = if tally.failed == 0 { "ok" } else { "FAILED" };
        summary.push(format!(
            "{name:<14}{mark:<8}{:>6.0} s",
            started.elapsed().as_secs_f64()
        ));
        if tally.failed > 0 && is_fail_fast {
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
