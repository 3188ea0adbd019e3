//! Replay throughput: how fast history is fetched, from the page cache and from the disk.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::bench::broker::{self, BATCH_BYTES, IN_FLIGHT, PARTITIONS, Replayer};
use crate::bench::figures::{Figure, Mark};
use crate::bench::{Bench, Case, limits, pace};
use crate::exam::victim::Victim;

/// The case.
pub const CASE: Case = Case {
    name: "replay",
    about: "Replay of settled history: 4 connections read 8 partitions of 4 GiB in all from start to end, in fetches of 1 MiB. \
            The limit is a bare loop of vectored writes from a map of a warm file to 4 loopback sockets; for cold history, \
            reading the same files once in pieces of 1 MiB.",
    uses_binary: true,
    run,
};

const HISTORY_BYTES: u64 = 4 << 30;
const READERS: i32 = 4;

fn run(bench: &Bench) -> Result<Vec<Figure>> {
    let directory = bench.directory()?;
    let mut victim = broker::plan(bench, directory.path())?
        .with("settle.age.ms", 200)
        .start()?;
    broker::create_topic(&victim, HISTORY_BYTES * 4)?;
    let runtime = broker::runtime()?;
    let lanes = runtime.block_on(broker::lanes(&victim.kafka))?;
    let pace = pace::Pace {
        piece_bytes: BATCH_BYTES as u64,
        in_flight: IN_FLIGHT,
        bytes_per_second: None,
        bytes_max: HISTORY_BYTES,
        time_max: Duration::from_secs(600),
    };
    runtime.block_on(pace::run(pace, lanes))?;
    // An orderly end settles everything.
    victim.terminate()?;
    let data = directory.path().join("data");
    let mut warm = Figure::new("from memory", "MB/s").marked(Mark::OfLimit(0.6));
    let mut cold = Figure::new("from the disk", "MB/s");
    for _ in 0..bench.runs {
        let segments = log_files(&data)?;
        let bytes: u64 = segments
            .iter()
            .map(|path| Ok(path.metadata()?.len()))
            .sum::<Result<u64>>()?;
        // Twice: the first time a virtual disk's host may have to fetch it.
        limits::read_cold(&segments)?;
        cold.limits
            .push(bytes as f64 / limits::read_cold(&segments)? / 1e6);
        for path in &segments {
            let file = std::fs::File::open(path)?;
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        }
        let mut victim = broker::plan(bench, directory.path())?.start()?;
        cold.runs.push(replay_all(&victim)? / 1e6);
        // The first pass over what is now in memory maps it.
        replay_all(&victim)?;
        warm.limits
            .push(limits::map_to_socket(directory.path(), READERS as usize, HISTORY_BYTES)? / 1e6);
        let rate = replay_all(&victim)?;
        warm.runs.push(rate / 1e6);
        bench.progress(&format!(
            "{:.0} MB/s from memory (the limit {:.0}), {:.0} MB/s from the disk (the limit {:.0})",
            rate / 1e6,
            warm.limits.last().copied().unwrap_or_default(),
            cold.runs.last().copied().unwrap_or_default(),
            cold.limits.last().copied().unwrap_or_default()
        ));
        victim.terminate()?;
    }
    Ok(vec![warm, cold])
}

/// Bytes a second of all partitions, each reader with its own.
fn replay_all(victim: &Victim) -> Result<f64> {
    let began = Instant::now();
    let bytes = std::thread::scope(|scope| -> Result<u64> {
        let readers: Vec<_> = (0..READERS)
            .map(|index| {
                scope.spawn(move || -> Result<u64> {
                    let mut replayer = Replayer::connect(&victim.kafka)?;
                    let mut bytes = 0;
                    for partition in (0..PARTITIONS).filter(|p| p % READERS == index) {
                        bytes += replayer.replay(partition, 0, u64::MAX)?.0;
                    }
                    Ok(bytes)
                })
            })
            .collect();
        let mut bytes = 0;
        for reader in readers {
            bytes += reader
                .join()
                .map_err(|_| anyhow::anyhow!("a reader panicked"))??;
        }
        Ok(bytes)
    })?;
    anyhow::ensure!(
        bytes > HISTORY_BYTES * 9 / 10,
        "only {bytes} bytes were read back"
    );
    Ok(bytes as f64 / began.elapsed().as_secs_f64())
}

/// Every segment's log file.
pub fn log_files(data: &std::path::Path) -> Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    let mut directories = vec![data.join("p")];
    while let Some(directory) = directories.pop() {
        let entries = std::fs::read_dir(&directory)
            .with_context(|| format!("list {}", directory.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "log") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
