//! Compaction by key, in the engine without sockets: how fast, in how much memory, and what producers notice of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use model::Timestamp;
use model::batch::{Batch, BatchBuilder, Codec};
use model::topic_config::{CompactionConfig, Ratio};
use storage::LogSettings;
use storage::cleanup::Policy;
use storage::cleanup::run::Report;

use crate::bench::figures::{Figure, Mark};
use crate::bench::store::{self, Store};
use crate::bench::{Bench, Case, limits};

/// The case.
pub const CASE: Case = Case {
    name: "compaction",
    about: "Compaction in the engine by itself. Speed: logs of records of 1 KiB, not compressed, each key twice, so that half \
            of the bytes stay; bytes of the log before, for each second. The limit is a bare loop that reads as many bytes and \
            writes half of them, synced at the end. Memory: 10 million keys in 128 MiB (cleaner.memory.bytes), once, and \
            the memory of the whole process meanwhile. Produce: 64 KiB batches to another log at 20 MB/s, from the moment \
            a batch was due, alone and while logs are compacted, for which the limit is what it takes alone.",
    uses_binary: false,
    run,
};

const VALUE_BYTES: usize = 1000;
const RECORDS_PER_BATCH: u64 = 64;
const KEYS: u64 = 10_000_000;
const KEYS_PER_BATCH: u64 = 2_000;
const LOG_BYTES: u64 = 1 << 30;

fn run(bench: &Bench) -> Result<Vec<Figure>> {
    // First, so that no memory of something else is left in the process.
    let mut figures = many_keys(bench)?;
    let mut speed = Figure::new("compacted, each key twice", "MB/s").marked(Mark::OfLimit(0.5));
    let mut alone = Figure::new("ack p99, alone", "ms");
    let mut beside =
        Figure::new("ack p99, while logs are compacted", "ms").marked(Mark::WithinLimit(2.0));
    for _ in 0..bench.runs {
        let directory = bench.directory()?;
        let store = Store::open(directory.path(), compacted()?)?;
        let logs = (bench.bytes / LOG_BYTES).max(2);
        for number in 0..logs {
            fill_twice(&store, number)?;
        }
        let p99 = store.produce(bench.time)?;
        alone.runs.push(p99);
        let (began, ends) = (std::time::Instant::now(), AtomicBool::new(false));
        let late = std::thread::scope(|scope| -> Result<f64> {
            let store = &store;
            let compactor = scope.spawn(|| -> Result<Vec<Report>> {
                let mut reports = Vec::new();
                for number in 0..logs - 1 {
                    if !ends.load(Ordering::Relaxed) {
                        reports.push(store.clean_up(number, Policy::Compaction)?);
                    }
                }
                Ok(reports)
            });
            let late = store.produce(bench.time.min(Duration::from_secs(logs)));
            ends.store(true, Ordering::Relaxed);
            let reports = compactor.join().map_err(|_| anyhow::anyhow!("a panic"))??;
            bench.progress(&format!(
                "{} logs compacted in {:.1} s beside producers",
                reports.len(),
                began.elapsed().as_secs_f64()
            ));
            late
        })?;
        beside.runs.push(late);
        beside.limits.push(p99);
        let limit = limits::read_and_write_half(directory.path(), LOG_BYTES)?;
        let report = store.clean_up(logs - 1, Policy::Compaction)?;
        ensure!(report.records_removed > 0, "each key was there twice");
        speed.runs.push(store::rate(&report));
        speed.limits.push(limit / 1e6);
        bench.progress(&format!(
            "{:.0} MB/s, the limit {:.0} MB/s; p99 {p99:.1} ms alone, {late:.1} ms beside",
            speed.runs.last().unwrap_or(&0.0),
            limit / 1e6
        ));
        store.shutdown();
    }
    figures.extend([speed, alone, beside]);
    Ok(figures)
}

/// 10 million keys, once.
fn many_keys(bench: &Bench) -> Result<Vec<Figure>> {
    let mut rate = Figure::new("10 million keys: records compacted", "1000/s");
    let mut passes = Figure::new("10 million keys: passes", "");
    let mut memory = Figure::new(
        "10 million keys: memory of the process, not of files, at most",
        "MiB",
    )
    .marked(Mark::AtMost(160.0));
    let directory = bench.directory()?;
    let store = Store::open(directory.path(), compacted()?)?;
    fill_keys(&store)?;
    let (report, most) = store.clean_up_watched(0, Policy::Compaction)?;
    store.shutdown();
    rate.runs
        .push((KEYS + KEYS / 10) as f64 / report.took.as_secs_f64() / 1e3);
    passes.runs.push(report.passes as f64);
    memory.runs.push(most);
    bench.progress(&format!(
        "10 million keys: {} passes, {most:.0} MiB, {:.1} s",
        report.passes,
        report.took.as_secs_f64()
    ));
    Ok(vec![rate, passes, memory])
}

fn compacted() -> Result<LogSettings> {
    Ok(LogSettings {
        compaction: Some(CompactionConfig {
            delete_retention_ms: 0,
            min_cleanable_dirty_ratio: Ratio::new(0.5).context("a ratio")?,
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: None,
        }),
        ..store::kept_for_ever()
    })
}

/// Fills a log with records of 1 KiB of which each key is there twice, the second time in another order.
fn fill_twice(store: &Store, number: u64) -> Result<()> {
    let keys = LOG_BYTES / 1024 / 2;
    let value = [b'v'; VALUE_BYTES];
    let batches = (0..2 * keys / RECORDS_PER_BATCH).map(|batch| {
        let first = batch * RECORDS_PER_BATCH;
        let key = move |record: u64| match first + record {
            number if number < keys => number,
            number => (number - keys) * 7 % keys,
        };
        build((0..RECORDS_PER_BATCH).map(key), &value)
    });
    store.append(number, batches)
}

/// Fills a log with 10 million keys, the first tenth of them again at its end.
fn fill_keys(store: &Store) -> Result<()> {
    let value = [b'v'; 20];
    let batches = (0..(KEYS + KEYS / 10) / KEYS_PER_BATCH).map(|batch| {
        let first = batch * KEYS_PER_BATCH;
        build(
            (first..first + KEYS_PER_BATCH).map(|key| key % KEYS),
            &value,
        )
    });
    store.append(0, batches)
}

fn build(keys: impl Iterator<Item = u64>, value: &[u8]) -> Result<Batch> {
    let mut builder = BatchBuilder::new(Codec::None);
    for key in keys {
        let key = format!("device-{key:09}");
        let time = Timestamp::from_millis(1_700_000_000_000);
        builder.push(time, Some(key.as_bytes()), Some(value), &[])?;
    }
    Ok(Batch::parse(builder.build()?)?)
}
