//! Soak: `cargo xtask soak --minutes N`. A broker lives under mixed load for a long time, with restarts by SIGTERM and
//! SIGKILL, and must not grow: memory, descriptors, maps, threads, disk and latency stay flat, and nothing is lost.
//!
//! `load` is what is done to it, `sample` what is measured, `bare` the machine's own pace beside it, `verdict` what flat means, `plot` the picture. With `--write`
//! table and picture go into `docs/reliability.md` and `docs/soak.svg`.

mod bare;
mod load;
mod plot;
mod sample;
mod verdict;

use crate::bench;
use crate::exam::victim::{self, Plan, Victim};
use anyhow::{Result, ensure};
use bare::Bare;
use load::Load;
use sample::{Restart, Sample, Sampler};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use xtask::run;

/// Flags of `cargo xtask soak`.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// How long the load goes on.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    minutes: u64,
    /// Put the table into docs/reliability.md, and the picture into docs/soak.svg.
    #[arg(long)]
    write: bool,
    /// Where the data goes; by default below cargo's target directory.
    #[arg(long)]
    directory: Option<PathBuf>,
    /// The broker's binary (built in release mode when not given).
    #[arg(long, env = "ALLUVIUM_BIN")]
    binary: Option<PathBuf>,
}

/// When the broker goes down, in parts of the whole, and how. Short lives at both ends show what a start leaves behind;
/// the long life between them shows what grows with time.
const RESTARTS: [(f64, How); 9] = [
    (0.05, How::Kill),
    (0.10, How::Term),
    (0.15, How::Kill),
    (0.20, How::Term),
    (0.25, How::Kill),
    (0.70, How::Term),
    (0.75, How::Kill),
    (0.80, How::Term),
    (0.85, How::Kill),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Term,
    Kill,
}

/// The time between two samples.
fn period(minutes: u64) -> Duration {
    // An hour has 720 samples; fewer of them than 120 would make poor medians.
    Duration::from_millis((minutes * 500).clamp(500, 5_000))
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    let binary = match &options.binary {
        Some(binary) => std::fs::canonicalize(binary)?,
        None => victim::build_release()?,
    };
    let parent = options
        .directory
        .clone()
        .unwrap_or_else(run::target_directory);
    std::fs::create_dir_all(&parent)?;
    let work = tempfile::Builder::new()
        .prefix("soak-")
        .tempdir_in(&parent)?;
    let data = work.path().join("data");
    // A binary of its own: what is built meanwhile must not change what is started again.
    let own_binary = work.path().join("broker");
    std::fs::copy(&binary, &own_binary)?;
    let plan =
        Plan::new(&own_binary, &data, work.path()).with("log.retention.check.interval.ms", 5_000);
    let mut broker = plan.start()?;
    let plan = plan.at(&broker.kafka);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let load = runtime.block_on(Load::start(&broker.kafka))?;
    let bare = Bare::start(&work.path().join("bare"))?;
    let length = Duration::from_secs(options.minutes * 60);
    let period = period(options.minutes);
    let begun = Instant::now();
    let mut sampler = Sampler::new(&data);
    let (mut samples, mut restarts) = (Vec::<Sample>::new(), Vec::<Restart>::new());
    let mut planned = RESTARTS
        .iter()
        .map(|(part, how)| (length.mul_f64(*part), *how))
        .peekable();
    while begun.elapsed() < length {
        let next = period * u32::try_from(samples.len() + 1)?;
        std::thread::sleep(next.saturating_sub(begun.elapsed()));
        ensure!(
            broker.ended()?.is_none(),
            "the broker ended by itself; its log ends: {}",
            broker.log_tail()
        );
        samples.push(sampler.take(begun.elapsed(), &broker, load.latencies(), bare.latencies())?);
        if let Some((_, how)) = planned.next_if(|(at, _)| *at <= begun.elapsed()) {
            let at = begun.elapsed();
            restart(&mut broker, &plan, how)?;
            restarts.push(Restart {
                at,
                killed: how == How::Kill,
                down: begun.elapsed().saturating_sub(at),
            });
            // What was waiting for the broker tells nothing about it.
            sampler.skip_latency();
        }
        if samples.len().is_multiple_of(60) {
            eprintln!(
                "  {:>5.1} min: {}",
                begun.elapsed().as_secs_f64() / 60.0,
                load.counts()
            );
        }
    }
    bare.stop()?;
    let done = runtime.block_on(load.stop())?;
    broker.terminate()?;
    if let Some(complaint) = broker
        .log()
        .lines()
        .find(|line| line.contains(" ERROR ") || line.contains("panicked at"))
    {
        anyhow::bail!("the broker complains: {complaint}");
    }
    let verdict = verdict::judge(&samples, &restarts);
    let text = verdict::section(options.minutes, &verdict, &restarts, &done);
    println!("{text}");
    let picture = plot::draw(&samples, &restarts);
    std::fs::write(parent.join("soak.svg"), &picture)?;
    if options.write {
        std::fs::write(run::workspace().join("docs/soak.svg"), &picture)?;
        bench::write(&run::workspace().join("docs/reliability.md"), "soak", &text)?;
    }
    let grown: Vec<&str> = verdict
        .rows
        .iter()
        .filter(|row| !row.is_flat())
        .map(|row| row.name)
        .collect();
    println!(
        "soak {}: {} min, {} restarts | {done} | {} of {} measures flat",
        if grown.is_empty() { "PASSED" } else { "FAILED" },
        options.minutes,
        restarts.len(),
        verdict.rows.len() - grown.len(),
        verdict.rows.len(),
    );
    ensure!(grown.is_empty(), "not flat: {}", grown.join(", "));
    Ok(())
}

fn restart(broker: &mut Victim, plan: &Plan, how: How) -> Result<()> {
    match how {
        How::Kill => broker.kill()?,
        How::Term => broker.terminate()?,
    }
    *broker = plan.start()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_marks_for_the_soak() {
        let page = std::fs::read_to_string(run::workspace().join("docs/reliability.md")).unwrap();
        assert!(page.contains("<!-- begin soak -->\n") && page.contains("<!-- end soak -->"));
    }

    #[test]
    fn restarts_are_in_order_and_leave_a_long_life_between_them() {
        assert!(RESTARTS.is_sorted_by_key(|(part, _)| *part));
        let gaps = RESTARTS.windows(2).map(|pair| pair[1].0 - pair[0].0);
        assert!(gaps.fold(0.0, f64::max) > 0.4);
    }
}
