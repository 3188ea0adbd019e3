//! `cargo xtask check`: the inner loop, for while one works: format, lints, unit tests, and the rules of the house
//! (`tests/it/tidy.rs`). What takes a whole broker is in `test`.
//! Callers: a developer. Invariant: whatever fails here fails in `test` too.

use crate::Tally;
use crate::test::{self, Chore};
use anyhow::Result;
use std::process::ExitCode;

/// Flags of `cargo xtask check`.
#[derive(clap::Args)]
pub struct Options {
    /// Stop at the first chore that fails.
    #[arg(long)]
    fail_fast: bool,
}

const CHORES: &[Chore<Options>] = &[
    ("format", |_| test::format()),
    ("tidy", |_| tidy()),
    ("lints", |_| test::lints()),
    ("unit tests", |_| unit_tests()),
];

/// Entry of `cargo xtask check`.
pub fn main(options: &Options) -> Result<ExitCode> {
    test::run_all(CHORES, options, options.fail_fast, |_| ())
}

/// The rules of the house, by a program of their own: they are told in seconds.
fn tidy() -> Result<Tally> {
    test::cargo(&["test", "--quiet", "--package", "xtask", "--test", "tidy"])
}

/// What each crate tests of itself, in its own files.
fn unit_tests() -> Result<Tally> {
    test::cargo(&[
        "test",
        "--workspace",
        "--lib",
        "--bins",
        "--quiet",
        "--no-fail-fast",
    ])
}
