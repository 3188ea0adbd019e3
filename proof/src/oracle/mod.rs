//! `cargo xtask oracle`: Apache Kafka as the oracle. The same requests go to Alluvium and to Apache Kafka, every key in
//! every version that both serve, and the answers are compared field by field. What differs is a defect, or it stands in
//! `tests/compat/oracle-differences.toml` with its reason.
//!
//! `pair` holds the two brokers, `tree` and `compare` look at answers, `differences` is the list, `scenarios` are the
//! scripts, one file per family of APIs, `generate` draws requests under a seed, `page` writes the table.

mod batches;
mod compare;
mod differences;
mod generate;
mod page;
mod pair;
mod scenarios;
mod tree;
mod warm;

use crate::compat;
use crate::compat::install::Places;
use crate::exam::random::fresh_seed;
use anyhow::Result;
use differences::Differences;
use pair::Pair;
use scenarios::SCENARIOS;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;
use xtask::{Tally, run};

/// Drawn requests of a run that says nothing else, and of `cargo xtask test`.
const ROUNDS: usize = 500;

/// The seed of `cargo xtask test`.
const SEED: u64 = 1;

/// Flags of `cargo xtask oracle`.
#[derive(clap::Args)]
pub struct Options {
    /// Scenarios whose names contain one of these; all if none is given.
    names: Vec<String>,
    /// The broker's binary; built by cargo (development profile) if not given.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Seed of the drawn requests; a fresh one if not given.
    #[arg(long)]
    seed: Option<u64>,
    /// How many requests are drawn after the scenarios.
    #[arg(long, default_value_t = ROUNDS)]
    rounds: usize,
    /// Write the table of docs/COMPATIBILITY.md from the list of differences, and run nothing.
    #[arg(long)]
    write: bool,
    /// List the scenarios.
    #[arg(long)]
    list: bool,
}

/// Entry of `cargo xtask oracle`.
pub fn main(options: &Options) -> Result<ExitCode> {
    if options.write {
        page::write()?;
        return Ok(ExitCode::SUCCESS);
    }
    let chosen: Vec<&scenarios::Scenario> = SCENARIOS
        .iter()
        .filter(|scenario| {
            options.names.is_empty()
                || options
                    .names
                    .iter()
                    .any(|name| scenario.name.contains(name.as_str()))
        })
        .collect();
    if options.list {
        for scenario in chosen {
            println!("{:<20}{}", scenario.name, scenario.about);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let seed = options.seed.unwrap_or_else(fresh_seed);
    let is_whole = options.names.is_empty();
    let binary = options.binary.clone();
    let tally = compare(&chosen, binary, seed, options.rounds, is_whole)?;
    Ok(tally.exit_code())
}

/// All scenarios, and requests drawn under one seed, so that what fails here is what a change broke: what
/// `cargo xtask test` runs.
pub fn run_short() -> Result<Tally> {
    let all: Vec<&scenarios::Scenario> = SCENARIOS.iter().collect();
    compare(&all, None, SEED, ROUNDS, true)
}

fn compare(
    chosen: &[&scenarios::Scenario],
    binary: Option<PathBuf>,
    seed: u64,
    rounds: usize,
    is_whole: bool,
) -> Result<Tally> {
    let list = Differences::read()?;
    let ours = compat::alluvium(binary)?;
    let theirs = compat::kafka(&Places::find())?;
    let started = Instant::now();
    let directory = run::target_directory().join("oracle");
    let mut pair = Pair::start(ours, theirs, &directory)?;
    println!(
        "both brokers are up after {:.1} s",
        started.elapsed().as_secs_f64()
    );
    let mut broken = 0;
    for scenario in chosen {
        let began = Instant::now();
        let before = (pair.asked.values().sum::<usize>(), pair.findings.len());
        if let Err(error) = (scenario.run)(&mut pair) {
            println!("{}: {error:#}", scenario.name);
            broken += 1;
        }
        println!(
            "{:<20}{:>6} requests{:>6} differing fields{:>7.1} s",
            scenario.name,
            pair.asked.values().sum::<usize>() - before.0,
            pair.findings.len() - before.1,
            began.elapsed().as_secs_f64()
        );
    }
    println!("seed {seed}, {rounds} rounds");
    if let Err(error) = generate::run(&mut pair, seed, rounds) {
        println!("seed {seed}: {error:#}");
        broken += 1;
    }
    let judgement = list.judge(&pair.findings);
    print!("{}", differences::summary(&judgement.unlisted));
    let gone: Vec<&differences::Entry> = list
        .entries
        .iter()
        .zip(&judgement.counts)
        .filter(|(entry, count)| **count == 0 && is_whole && !entry.is_of_draws())
        .map(|(entry, _)| entry)
        .collect();
    for entry in &gone {
        println!(
            "{} {}: listed (alluvium {}, kafka {}), and does not show any more: remove it",
            entry.api, entry.path, entry.ours, entry.theirs
        );
    }
    let keys: std::collections::BTreeSet<i16> = pair.asked.keys().map(|(key, _)| *key).collect();
    println!(
        "{} requests to each broker, {} keys of {}, {} versions; {} fields differ: {} as listed, {} unlisted; {} s",
        pair.asked.values().sum::<usize>(),
        keys.len(),
        pair.keys().len(),
        pair.asked.len(),
        pair.findings.len(),
        pair.findings.len() - judgement.unlisted.len(),
        judgement.unlisted.len(),
        started.elapsed().as_secs()
    );
    let (unlisted, gone) = (judgement.unlisted.len(), gone.len());
    Ok(match unlisted + gone + broken {
        0 => Tally::ONE_PASSED,
        _ => Tally::one_failed(format!(
            "{unlisted} differences are not listed, {gone} that are listed do not show, {broken} scenarios ended early"
        )),
    })
}
