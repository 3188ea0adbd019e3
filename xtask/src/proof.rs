//! The door to the crate `proof`: builds its program and runs it.
//! Callers: `main.rs`, which hands the whole command line over; `test`, for the short forms; the crate `proof` itself, for the
//! words of its commands.
//! Invariant: `proof` is compiled by who needs it only; its commands' flags are parsed by its own program.

use crate::{Tally, run};
use anyhow::{Context, Result, bail};
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

/// What `cargo xtask compat` is.
pub const COMPAT: &str = "Run unmodified Kafka clients against a fresh broker, through restarts and kills, and other projects' test suites";
/// What `cargo xtask chaos` is.
pub const CHAOS: &str = "A consumer group of four different clients that join, leave, stall and crash, while the broker does too";
/// What `cargo xtask exam` is.
pub const EXAM: &str =
    "Hurt the store (kills, power cuts, full disks, failing syncs) and judge what it kept";
/// What `cargo xtask bench` is.
pub const BENCH: &str =
    "Measure: produce, latency, replay, start-up, memory, each beside the machine's limit";
/// What `cargo xtask oracle` is.
pub const ORACLE: &str =
    "Ask the broker and Apache Kafka the same things, and compare the answers field by field";
/// What `cargo xtask soak` is.
pub const SOAK: &str =
    "Keep a broker under mixed load for long, with restarts, and see that nothing grows";

const PACKAGE: &str = "alluvium-proof";

/// Becomes `proof` with these arguments: the command's name and its flags. Returns only if that cannot be done.
pub fn become_it(arguments: impl IntoIterator<Item = OsString>) -> Result<ExitCode> {
    let mut command = Command::new(run::cargo().get_program());
    // Not in the workspace's directory: paths among the arguments are relative to the caller's.
    command
        .args(["run", "--quiet", "--package", PACKAGE, "--manifest-path"])
        .arg(run::workspace().join("Cargo.toml"))
        .arg("--")
        .args(arguments);
    Err(command.exec()).context("cannot start cargo")
}

/// The program, as [`run::build_all`] left it.
fn program() -> PathBuf {
    run::built(PACKAGE)
}

/// The short form of one of its commands (`exam`, `clients`, `suites`, `oracle`, `chaos`) on this broker, with the output on
/// ours. The program ends with success also where something failed; the tally says so.
pub fn short(name: &str, broker: &Path) -> Result<Tally> {
    let directory = tempfile::tempdir()?;
    let tally = directory.path().join("tally");
    let mut command = Command::new(program());
    command.current_dir(run::workspace());
    command.env("ALLUVIUM_BIN", broker);
    command.args(["short", name, "--tally"]).arg(&tally);
    run::shown(&mut command)?;
    Tally::read(&tally)
}

/// Downloads and builds what clients and suites need, beside whatever else goes on.
pub struct Preparation(Child);

impl Preparation {
    /// Starts the program.
    pub fn start() -> Result<Preparation> {
        let mut command = Command::new(program());
        command.current_dir(run::workspace());
        let child = command.arg("prepare").stdin(Stdio::null()).spawn();
        Ok(Preparation(child.context("cannot start alluvium-proof")?))
    }

    /// Waits for its end.
    pub fn finish(mut self) -> Result<()> {
        let status = self.0.wait()?;
        if !status.success() {
            bail!("clients and suites could not be prepared ({status})");
        }
        Ok(())
    }
}
