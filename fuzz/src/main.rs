//! A fuzzer for stable Rust: the targets' seeds, and random changes of them under a seed, for as long as one says.
//!
//! Callers: `cargo xtask fuzz` and whoever repeats what it found. It knows nothing of the code's paths, as libFuzzer does, but runs
//! wherever the tests run. What is being read is kept in a file, so that a process that dies leaves its input behind.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use alluvium_fuzz::mutate::{Random, mutated};
use alluvium_fuzz::{TARGETS, Target};
use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};

/// No input of a few kilobytes takes longer, also in an unoptimized build beside others.
const SECONDS_MAX: u64 = 20;
/// All memory that the process may map: far above what the targets need, far below what a length of 32 bits can ask for.
const MEMORY_BYTES_MAX: u64 = 2 << 30;

#[derive(Parser)]
#[command(about, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Print the targets' names.
    List,
    /// Run targets over their seeds and random changes of them.
    Run {
        /// Targets; none for all.
        targets: Vec<String>,
        /// For how long, each.
        #[arg(long, default_value_t = 10.0)]
        seconds: f64,
        /// Which changes.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Where to leave an input that breaks something.
        #[arg(long)]
        failures: PathBuf,
    },
    /// Run a target over files.
    Replay {
        /// The target.
        target: String,
        /// The files.
        files: Vec<PathBuf>,
    },
    /// Write a target's seeds into a directory, a file each.
    Unpack {
        /// The target.
        target: String,
        /// The directory.
        directory: PathBuf,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().what) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(what: What) -> Result<()> {
    match what {
        What::List => {
            for target in TARGETS {
                println!("{}", target.name);
            }
        }
        What::Run {
            targets,
            seconds,
            seed,
            failures,
        } => {
            let chosen = match targets.is_empty() {
                true => TARGETS.iter().collect(),
                false => targets
                    .iter()
                    .map(|name| find(name))
                    .collect::<Result<Vec<_>>>()?,
            };
            bound_memory()?;
            watch();
            for target in chosen {
                let seconds = Duration::from_secs_f64(seconds);
                fuzz(target, seconds, seed, &failures)?;
            }
        }
        What::Replay { target, files } => {
            let target = find(&target)?;
            for file in files {
                println!("{}", file.display());
                (target.run)(&std::fs::read(file)?);
            }
        }
        What::Unpack { target, directory } => {
            let target = find(&target)?;
            std::fs::create_dir_all(&directory)?;
            for (number, seed) in (target.seeds)().iter().enumerate() {
                std::fs::write(directory.join(format!("seed-{number:05}")), seed)?;
            }
        }
    }
    Ok(())
}

fn find(name: &str) -> Result<&'static Target> {
    TARGETS
        .iter()
        .find(|target| target.name == name)
        .with_context(|| format!("no target {name}"))
}

fn fuzz(target: &Target, time: Duration, seed: u64, failures: &Path) -> Result<()> {
    std::fs::create_dir_all(failures)?;
    let path = failures.join(format!("{}.input", target.name));
    let kept = File::create(&path).with_context(|| format!("cannot keep {}", path.display()))?;
    let seeds = (target.seeds)();
    let mut random = Random::new(seed);
    let started = Instant::now();
    let mut executions = 0u64;
    let order = random.below(seeds.len());
    let (later, first) = seeds.split_at(order);
    for seed in first.iter().chain(later) {
        if started.elapsed() > time {
            break;
        }
        execute(target, seed, &kept, &path)?;
        executions += 1;
    }
    while started.elapsed() < time {
        let input = mutated(&seeds, target.bytes_max, &mut random);
        execute(target, &input, &kept, &path)?;
        executions += 1;
    }
    drop(kept);
    std::fs::remove_file(&path)?;
    let took = started.elapsed().as_secs_f64();
    println!(
        "{:<18}{executions:>10} executions{took:>8.1} s",
        target.name
    );
    Ok(())
}

fn execute(target: &Target, input: &[u8], kept: &File, path: &Path) -> Result<()> {
    kept.set_len(input.len() as u64)?;
    kept.write_all_at(input, 0)?;
    TURN.fetch_add(1, Ordering::Relaxed);
    let ended = std::panic::catch_unwind(|| (target.run)(input));
    TURN.fetch_add(1, Ordering::Relaxed);
    if ended.is_err() {
        bail!(
            "{} broke a promise; its input: {}",
            target.name,
            path.display()
        );
    }
    Ok(())
}

/// Odd while an input is being read.
static TURN: AtomicU64 = AtomicU64::new(0);

/// Ends the process if one input takes too long.
fn watch() {
    std::thread::spawn(|| {
        let mut last = (TURN.load(Ordering::Relaxed), Instant::now());
        loop {
            std::thread::park_timeout(Duration::from_secs(1));
            let turn = TURN.load(Ordering::Relaxed);
            if turn != last.0 {
                last = (turn, Instant::now());
            } else if turn % 2 == 1 && last.1.elapsed().as_secs() > SECONDS_MAX {
                eprintln!("error: an input takes more than {SECONDS_MAX} s; it is kept");
                std::process::exit(1);
            }
        }
    });
}

/// An allocation by a length that an input claims fails then, which ends the process.
fn bound_memory() -> Result<()> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::As);
    limit.current = Some(MEMORY_BYTES_MAX);
    setrlimit(Resource::As, limit).context("cannot bound the memory")
}
