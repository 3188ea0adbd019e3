//! Compaction by key, in the engine without sockets: how fast, in how much memory, and what producers notice of it.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use model::batch::{Batch, BatchBuilder, Codec};
use model::topic_config::{CompactionConfig, Durability, Ratio};
use model::{LogId, Offset, PartitionId, Timestamp, TopicId};
use storage::cleanup::Policy;
use storage::cleanup::run::{Progress, Report, RunOptions};
use storage::{AppendBatch, Env, Log, LogSettings, Storage, StorageConfig};

use crate::bench::broker::{self, BATCH_BYTES};
use crate::bench::figures::{Figure, Mark, quantile};
use crate::bench::pace::{self, Boxed, SendPiece};
use crate::bench::{Bench, Case};

/// The case.
pub const CASE: Case = Case {
    name: "compaction",
    about: "Compaction in the engine by itself. Speed: logs of records of 1 KiB, not compressed, each key twice, so that half \
            of the bytes stay; bytes of the log before, for each second. The limit is a bare loop that reads as many bytes and \
            writes half of them, synced at the end. Memory: 10 million keys in 128 MiB (cleaner.memory.bytes), once, and \
            the memory of the whole process meanwhile. Produce: 64 KiB batches to another log at 20 MB/s, from the moment \
            a batch was due, alone and while logs are compacted.",
    uses_binary: false,
    run,
};

const VALUE_BYTES: usize = 1000;
const RECORDS_PER_BATCH: u64 = 64;
const KEYS: u64 = 10_000_000;
const KEYS_PER_BATCH: u64 = 2_000;
const PRODUCE_RATE: f64 = 20e6;
const LOG_BYTES: u64 = 1 << 30;

const NOW: RunOptions = RunOptions {
    now: true,
    dry_run: false,
    bytes_per_second: None,
};

fn run(bench: &Bench) -> Result<Vec<Figure>> {
    // First, so that no memory of something else is left in the process.
    let mut figures = many_keys(bench)?;
    let mut speed = Figure::new("compacted, each key twice", "MB/s").marked(Mark::OfLimit(0.5));
    let mut alone = Figure::new("ack p99, alone", "ms");
    let mut beside = Figure::new("ack p99, while logs are compacted", "ms");
    for _ in 0..bench.runs {
        let directory = bench.directory()?;
        let store = Store::open(directory.path())?;
        let logs = (bench.bytes / LOG_BYTES).max(2);
        let mut rates = Vec::new();
        for number in 0..logs {
            store.fill_twice(number)?;
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
                        reports.push(store.compact(number)?);
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
        let limit = read_and_write(directory.path(), LOG_BYTES)?;
        let report = store.compact(logs - 1)?;
        ensure!(report.records_removed > 0, "each key was there twice");
        let before: u64 = report.rewrites.iter().map(|one| one.before.bytes).sum();
        rates.push(before as f64 / report.took.as_secs_f64() / 1e6);
        speed.runs.append(&mut rates);
        speed.limits.push(limit / 1e6);
        bench.progress(&format!(
            "{:.0} MB/s, the limit {:.0} MB/s; p99 {p99:.1} ms alone, {late:.1} ms beside",
            speed.runs.last().unwrap_or(&0.0),
            limit / 1e6
        ));
        store.storage.shutdown();
        drop(store);
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
    let store = Store::open(directory.path())?;
    store.fill_keys()?;
    let ends = AtomicBool::new(false);
    let (report, kib) = std::thread::scope(|scope| -> Result<(Report, u64)> {
        let watch = scope.spawn(|| -> Result<u64> {
            let mut most = 0;
            while !ends.load(Ordering::Relaxed) {
                most = most.max(resident_kib("RssAnon:")?);
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok(most)
        });
        let report = store.compact(0);
        ends.store(true, Ordering::Relaxed);
        let most = watch.join().map_err(|_| anyhow::anyhow!("a panic"))??;
        Ok((report?, most))
    })?;
    store.storage.shutdown();
    rate.runs
        .push((KEYS + KEYS / 10) as f64 / report.took.as_secs_f64() / 1e3);
    passes.runs.push(report.passes as f64);
    memory.runs.push(kib as f64 / 1024.0);
    bench.progress(&format!(
        "10 million keys: {} passes, {:.0} MiB, {:.1} s",
        report.passes,
        kib as f64 / 1024.0,
        report.took.as_secs_f64()
    ));
    Ok(vec![rate, passes, memory])
}

/// A store with compacted logs.
struct Store {
    storage: Storage,
    topic: TopicId,
}

impl Store {
    fn open(directory: &Path) -> Result<Store> {
        let mut config = StorageConfig::new(directory.join("data"));
        // It is compacted when it is asked for.
        config.cleaner_check = Duration::from_secs(24 * 3600);
        config.scrub_bytes_per_second = 0;
        let (storage, _) = Storage::open(config, Env::real())?;
        storage.finish_open(&HashSet::new())?;
        Ok(Store {
            storage,
            topic: TopicId::random(),
        })
    }

    fn log(&self, number: u64) -> Result<Arc<Log>> {
        let id = LogId {
            topic_id: self.topic,
            partition: PartitionId::new(u32::try_from(number)?),
        };
        let settings = LogSettings {
            durability: Durability::Fsync,
            segment_bytes: 256 << 20,
            segment_ms: u64::MAX,
            retention_ms: None,
            retention_bytes: None,
            thinning: None,
            compaction: Some(CompactionConfig {
                delete_retention_ms: 0,
                min_cleanable_dirty_ratio: Ratio::new(0.5).context("a ratio")?,
                min_compaction_lag_ms: 0,
                max_compaction_lag_ms: None,
            }),
        };
        Ok(self
            .storage
            .log(id)
            .unwrap_or_else(|| self.storage.create_log(id, settings)))
    }

    /// Fills a log with records of 1 KiB of which each key is there twice, the second time in another order.
    fn fill_twice(&self, number: u64) -> Result<()> {
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
        self.append(&*self.log(number)?, batches)
    }

    /// Fills a log with 10 million keys, the first tenth of them again at its end.
    fn fill_keys(&self) -> Result<()> {
        let value = [b'v'; 20];
        let batches = (0..(KEYS + KEYS / 10) / KEYS_PER_BATCH).map(|batch| {
            let first = batch * KEYS_PER_BATCH;
            build(
                (first..first + KEYS_PER_BATCH).map(|key| key % KEYS),
                &value,
            )
        });
        self.append(&*self.log(0)?, batches)
    }

    fn append(&self, log: &Log, batches: impl Iterator<Item = Result<Batch>>) -> Result<()> {
        let runtime = broker::runtime()?;
        runtime.block_on(async {
            let mut under_way = std::collections::VecDeque::new();
            for batch in batches {
                let batch = batch?;
                let admission = self.storage.admit(batch.bytes().len()).await;
                under_way.push_back(
                    log.append(vec![AppendBatch::from(batch)], admission)?
                        .durable,
                );
                if under_way.len() > 64
                    && let Some(durable) = under_way.pop_front()
                {
                    durable.await?;
                }
            }
            for durable in under_way {
                durable.await?;
            }
            Ok(())
        })
    }

    fn compact(&self, number: u64) -> Result<Report> {
        let log = self.log(number)?;
        let report =
            self.storage
                .run_cleanup(log.id(), Policy::Compaction, NOW, &Progress::default())?;
        ensure!(report.set_aside.is_empty(), "a segment was set aside");
        ensure!(
            log.bounds().start == Offset::ZERO,
            "compaction raises no start"
        );
        Ok(report)
    }

    /// The p99 of acks, in milliseconds, of appends to a log of their own.
    fn produce(&self, time: Duration) -> Result<f64> {
        let log = self.log(1_000_000)?;
        let batch = Batch::parse(broker::batch()?)?;
        let storage = self.storage.clone();
        let lane: SendPiece = Arc::new(move |_| {
            let (storage, batch, log) = (storage.clone(), batch.clone(), log.clone());
            Box::pin(async move {
                let admission = storage.admit(batch.bytes().len()).await;
                let appended = log.append(vec![AppendBatch::from(batch)], admission)?;
                let acknowledged: Boxed<Result<()>> =
                    Box::pin(async move { Ok(appended.durable.await?) });
                Ok(acknowledged)
            })
        });
        let pace = pace::Pace {
            piece_bytes: BATCH_BYTES as u64,
            in_flight: 1024,
            bytes_per_second: Some(PRODUCE_RATE),
            bytes_max: (PRODUCE_RATE * time.as_secs_f64()) as u64,
            time_max: time * 3,
        };
        let mut paced = broker::runtime()?.block_on(pace::run(pace, vec![lane]))?;
        Ok(quantile(&mut paced.latencies_us, 0.99) as f64 / 1e3)
    }
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

/// Bytes a second of a loop that reads a file from the disk and writes half of it to another one, synced at its end.
fn read_and_write(directory: &Path, bytes: u64) -> Result<f64> {
    use std::io::{Read as _, Write as _};
    let (from, to) = (directory.join("limit-from"), directory.join("limit-to"));
    let mut piece = vec![7; 1 << 20];
    let mut file = std::fs::File::create(&from)?;
    for _ in 0..bytes >> 20 {
        file.write_all(&piece)?;
    }
    file.sync_all()?;
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    drop(file);
    let began = std::time::Instant::now();
    let (mut source, mut target) = (std::fs::File::open(&from)?, std::fs::File::create(&to)?);
    let mut is_kept = false;
    loop {
        let read = source.read(&mut piece)?;
        if read == 0 {
            break;
        }
        is_kept = !is_kept;
        if is_kept {
            target.write_all(&piece[..read])?;
        }
    }
    target.sync_all()?;
    let rate = bytes as f64 / began.elapsed().as_secs_f64();
    std::fs::remove_file(from)?;
    std::fs::remove_file(to)?;
    Ok(rate)
}

fn resident_kib(field: &str) -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.context("the process's status")?.parse()?)
}
