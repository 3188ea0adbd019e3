//! `cargo xtask test`: everything that must hold before a change goes in, from format to real clients.
//! Callers: a developer, and `.ci/run`. Ends in one line, `N passed, N failed`, which counts the
//! chores and the clients' scenarios.
//! Invariant: nothing is left out in silence; what cannot be run is a failure that says what to do.

use crate::{chaos, compat, exam, fuzz, oracle, package, run, suites};
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

type Chore = (&'static str, fn() -> Result<compat::Tally>);

const CHORES: &[Chore] = &[
    ("format", || cargo(&["fmt", "--all", "--check"])),
    ("lints", || {
        cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--quiet",
            "--",
            "-D",
            "warnings",
        ])
    }),
    ("docs", docs),
    // Without `--no-fail-fast` one failure would hide those of every later crate.
    ("Rust tests", || {
        cargo(&["test", "--workspace", "--quiet", "--no-fail-fast"])
    }),
    ("fuzz, short", fuzz::run_short),
    ("exam, short", short_exam),
    ("real clients", clients),
    ("suites, fast", suites::run_fast),
    ("beside Kafka", oracle::run_short),
    ("chaos, short", chaos::run_short),
    ("package", package::run_check),
];

/// Entry of `cargo xtask test`.
pub fn main(options: &Options) -> Result<ExitCode> {
    // Downloads go on beside the builds; the chores that need them report what went wrong.
    let installation = std::thread::spawn(|| -> Result<()> {
        compat::install_all()?;
        suites::prepare(&suites::all())
    });
    let mut installation = Some(installation);
    let mut total = compat::Tally::default();
    let mut summary = Vec::new();
    for (name, chore) in CHORES {
        println!("\n== {name}");
        let started = Instant::now();
        if *name == "real clients"
            && let Some(installation) = installation.take()
        {
            // A second try in the foreground tells the reason.
            let _ = installation.join();
        }
        let tally = chore().unwrap_or_else(|error| {
            println!("{name}: {error:#}");
            compat::Tally {
                passed: 0,
                failed: 1,
            }
        });
        total.passed += tally.passed;
        total.failed += tally.failed;
        let mark = if tally.failed == 0 { "ok" } else { "FAILED" };
        summary.push(format!(
            "{name:<14}{mark:<8}{:>6.0} s",
            started.elapsed().as_secs_f64()
        ));
        if tally.failed > 0 && options.fail_fast {
            break;
        }
    }
    println!("\n{}\n", summary.join("\n"));
    println!("{} passed, {} failed", total.passed, total.failed);
    Ok(if total.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

const ONE_PASSED: compat::Tally = compat::Tally {
    passed: 1,
    failed: 0,
};

fn cargo(arguments: &[&str]) -> Result<compat::Tally> {
    run::shown(run::cargo().args(arguments))?;
    Ok(ONE_PASSED)
}

fn docs() -> Result<compat::Tally> {
    let mut command = run::cargo();
    command.env("RUSTDOCFLAGS", "-D warnings").args([
        "doc",
        "--workspace",
        "--no-deps",
        "--document-private-items",
        "--quiet",
    ]);
    run::shown(&mut command)?;
    Ok(ONE_PASSED)
}

fn short_exam() -> Result<compat::Tally> {
    let (passed, failed) = exam::run_short()?;
    Ok(compat::Tally { passed, failed })
}

fn clients() -> Result<compat::Tally> {
    compat::install_all()?;
    compat::run_matrix()
}
