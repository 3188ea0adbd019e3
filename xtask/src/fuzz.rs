//! `cargo xtask fuzz`: the targets of `fuzz/` under libFuzzer, with a nightly compiler, or under the fuzzer for stable Rust.
//! Callers: a nightly run, and `cargo xtask test` with the short form, which needs nothing but the toolchain that builds us.
//! Invariant: no target is left out in silence; an input that breaks something is kept and named.

use crate::{Tally, run};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The version that the targets were tried with.
const CARGO_FUZZ: &str = "0.13.2";
/// An input that takes longer is a finding.
const INPUT_SECONDS_MAX: u32 = 20;
/// One allocation above this is a finding: no target's limit is higher.
const ALLOCATION_MIB_MAX: u32 = 256;
const SHORT_SECONDS: f64 = 2.0;
const SHORT_SEED: u32 = 1;
const PACKAGE: &str = "alluvium-fuzz";

/// Flags of `cargo xtask fuzz`.
#[derive(clap::Args)]
pub struct Options {
    /// Targets; none for all.
    targets: Vec<String>,
    /// For how long, each.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Without libFuzzer and nightly, a few seconds each: what `cargo xtask test` does.
    #[arg(long, conflicts_with_all = ["seconds", "stable"])]
    short: bool,
    /// Without libFuzzer and nightly.
    #[arg(long)]
    stable: bool,
    /// Which random changes; the long form takes another one each time unless told.
    #[arg(long)]
    seed: Option<u32>,
    /// Print the targets' names.
    #[arg(long)]
    list: bool,
}

/// Entry of `cargo xtask fuzz`.
pub fn main(options: &Options) -> Result<ExitCode> {
    if options.list {
        print!("{}", targets(&fuzzer()?)?);
        return Ok(ExitCode::SUCCESS);
    }
    let tally = if options.short {
        let seed = options.seed.unwrap_or(SHORT_SEED);
        stable(&fuzzer()?, &options.targets, SHORT_SECONDS, seed)?
    } else if options.stable {
        let seed = options.seed.unwrap_or_else(seed_of_now);
        stable(&fuzzer()?, &options.targets, options.seconds.into(), seed)?
    } else {
        let seed = options.seed.unwrap_or_else(seed_of_now);
        libfuzzer(&options.targets, options.seconds, seed)?
    };
    println!("{} passed, {} failed", tally.passed, tally.failed());
    Ok(tally.exit_code())
}

/// The short form of all targets, by the program that [`run::build_all`] left.
pub fn run_short() -> Result<Tally> {
    stable(&run::built(PACKAGE), &[], SHORT_SECONDS, SHORT_SEED)
}

/// The program of `fuzz/`, built as the tests are: overflows count.
fn fuzzer() -> Result<PathBuf> {
    run::shown(run::cargo().args(["build", "--quiet", "--package", PACKAGE]))?;
    Ok(run::built(PACKAGE))
}

fn targets(fuzzer: &Path) -> Result<String> {
    run::quiet(Command::new(fuzzer).arg("list"))
}

fn chosen(fuzzer: &Path, names: &[String]) -> Result<Vec<String>> {
    match names {
        [] => Ok(targets(fuzzer)?.lines().map(str::to_owned).collect()),
        names => Ok(names.to_vec()),
    }
}

/// A process for each target, as what a target finds may take its process down.
fn stable(fuzzer: &Path, names: &[String], seconds: f64, seed: u32) -> Result<Tally> {
    let mut tally = Tally::default();
    let failures = run::target_directory().join("fuzz-failures");
    for target in chosen(fuzzer, names)? {
        let mut command = Command::new(fuzzer);
        command
            .args(["run", &target, "--seconds", &seconds.to_string()])
            .args(["--seed", &seed.to_string(), "--failures"])
            .arg(&failures);
        match run::shown(&mut command) {
            Ok(()) => tally.passed += 1,
            Err(error) => {
                println!("{target}: {error:#}");
                tally.fail(format!("{target}: {error:#}"));
                println!(
                    "repeat it with: cargo run -p alluvium-fuzz -- replay {target} {}",
                    failures.join(format!("{target}.input")).display()
                );
            }
        }
    }
    Ok(tally)
}

fn libfuzzer(names: &[String], seconds: u32, seed: u32) -> Result<Tally> {
    need_tools()?;
    let places = Places::new();
    // The same dependencies as in the build that is tested.
    fs::copy(
        run::workspace().join("Cargo.lock"),
        places.folder.join("Cargo.lock"),
    )?;
    run::shown(&mut places.cargo_fuzz("build"))?;
    let mut tally = Tally::default();
    let mut lines = Vec::new();
    for target in chosen(&fuzzer()?, names)? {
        println!("\n== {target}, {seconds} s, seed {seed}");
        match fuzz_target(&places, &target, seconds, seed) {
            Ok(line) => {
                lines.push(line);
                tally.passed += 1;
            }
            Err(error) => {
                lines.push(format!("{target:<18} FAILED: {error:#}"));
                tally.fail(format!("{target}: {error:#}"));
            }
        }
    }
    println!("\n{}", lines.join("\n"));
    Ok(tally)
}

fn fuzz_target(places: &Places, target: &str, seconds: u32, seed: u32) -> Result<String> {
    let corpus = places.target.join("corpus").join(target);
    let seeds = places.target.join("seeds").join(target);
    fs::create_dir_all(&corpus)?;
    run::shown(Command::new(fuzzer()?).args(["unpack", target]).arg(&seeds))?;
    let log = places.target.join(format!("{target}.log"));
    let mut command = places.cargo_fuzz("run");
    command
        .arg(target)
        .args([&corpus, &seeds])
        .arg("--")
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-seed={}", seed.max(1)))
        .arg(format!("-timeout={INPUT_SECONDS_MAX}"))
        .arg(format!("-malloc_limit_mb={ALLOCATION_MIB_MAX}"))
        .args(["-print_final_stats=1", "-verbosity=1"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(&log)?);
    let status = command.status().context("cannot start cargo fuzz")?;
    let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    if !status.success() {
        let lines: Vec<&str> = text.lines().collect();
        println!("{}", lines[lines.len().saturating_sub(60)..].join("\n"));
        bail!("see {}", log.display());
    }
    let executions = text
        .lines()
        .find_map(|line| line.strip_prefix("stat::number_of_executed_units:"))
        .context("libFuzzer told no number of executions")?
        .trim();
    let covered = text
        .lines()
        .rev()
        .find_map(|line| line.split_once(" cov: ")?.1.split(' ').next())
        .unwrap_or("?");
    Ok(format!(
        "{target:<18}{executions:>12} executions{covered:>8} edges"
    ))
}

struct Places {
    /// The package that cargo-fuzz builds.
    folder: PathBuf,
    /// What it builds, corpora, logs.
    target: PathBuf,
}

impl Places {
    fn new() -> Places {
        Places {
            folder: run::workspace().join("fuzz/libfuzzer"),
            target: run::target_directory().join("libfuzzer"),
        }
    }

    fn cargo_fuzz(&self, what: &str) -> Command {
        let mut command = Command::new("cargo");
        command
            .current_dir(&self.folder)
            .args(["+nightly", "fuzz", what, "--fuzz-dir"])
            .arg(&self.folder)
            .arg("--target-dir")
            .arg(&self.target)
            // Ours would stand in the way of the other toolchain.
            .env_remove("CARGO")
            .env_remove("RUSTUP_TOOLCHAIN");
        command
    }
}

fn need_tools() -> Result<()> {
    let has = |arguments: &[&str]| {
        let mut command = Command::new("cargo");
        command.args(arguments).env_remove("RUSTUP_TOOLCHAIN");
        run::quiet(&mut command).is_ok()
    };
    if !has(&["+nightly", "--version"]) {
        bail!(
            "the long form needs a nightly compiler: `rustup toolchain install nightly`; without one, `cargo xtask fuzz --stable`"
        );
    }
    if !has(&["+nightly", "fuzz", "--version"]) {
        bail!(
            "the long form needs cargo-fuzz: `cargo install cargo-fuzz --version {CARGO_FUZZ} --locked`"
        );
    }
    Ok(())
}

fn seed_of_now() -> u32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or(Duration::ZERO).subsec_nanos() | 1
}
