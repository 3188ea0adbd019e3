//! The engine in this process, for cases that have its logs cleaned up: logs are filled, and one policy runs over one of them when
//! it is asked for and not before. Callers: the cases of compaction and of thinning.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use model::batch::Batch;
use model::topic_config::Durability;
use model::{LogId, Offset, PartitionId, TopicId};
use storage::cleanup::Policy;
use storage::cleanup::run::{Progress, Report, RunOptions};
use storage::{AppendBatch, Env, Log, LogSettings, Storage, StorageConfig};

use crate::bench::broker::{self, BATCH_BYTES};
use crate::bench::figures::quantile;
use crate::bench::pace::{self, Boxed, SendPiece};

const SEGMENT_BYTES: u64 = 256 << 20;
const PRODUCE_RATE: f64 = 20e6;
/// The log that is produced to.
const PRODUCED: u64 = 1_000_000;

const NOW: RunOptions = RunOptions {
    now: true,
    dry_run: false,
    bytes_per_second: None,
};

/// A store whose logs have these settings.
pub struct Store {
    storage: Storage,
    topic: TopicId,
    settings: LogSettings,
}

/// Settings of a log of which nothing goes by itself.
pub fn kept_for_ever() -> LogSettings {
    LogSettings {
        durability: Durability::Fsync,
        segment_bytes: SEGMENT_BYTES,
        segment_ms: u64::MAX,
        retention_ms: None,
        retention_bytes: None,
        compaction: None,
        thinning: None,
        key_index: false,
    }
}

impl Store {
    /// An empty one.
    pub fn open(directory: &Path, settings: LogSettings) -> Result<Store> {
        let mut config = StorageConfig::new(directory.join("data"));
        // It is cleaned up when it is asked for.
        config.cleaner_check = Duration::from_secs(24 * 3600);
        config.scrub_bytes_per_second = 0;
        let (storage, _) = Storage::open(config, Env::real())?;
        storage.finish_open(&HashSet::new())?;
        Ok(Store {
            storage,
            topic: TopicId::random(),
            settings,
        })
    }

    /// Ends it.
    pub fn shutdown(self) {
        self.storage.shutdown();
    }

    fn log(&self, number: u64) -> Result<Arc<Log>> {
        let id = LogId {
            topic_id: self.topic,
            partition: PartitionId::new(u32::try_from(number)?),
        };
        let log = self.storage.log(id);
        Ok(log.unwrap_or_else(|| self.storage.create_log(id, self.settings.clone())))
    }

    /// Appends batches to a log. All of them are durable afterwards.
    pub fn append(&self, number: u64, batches: impl Iterator<Item = Result<Batch>>) -> Result<()> {
        let log = self.log(number)?;
        broker::runtime()?.block_on(async {
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

    /// Has a policy run over a log.
    pub fn clean_up(&self, number: u64, policy: Policy) -> Result<Report> {
        let log = self.log(number)?;
        let report = self
            .storage
            .run_cleanup(log.id(), policy, NOW, &Progress::default())?;
        ensure!(report.set_aside.is_empty(), "a segment was set aside");
        ensure!(
            log.bounds().start == Offset::ZERO,
            "this cleanup raises no start"
        );
        Ok(report)
    }

    /// The same, and the most memory in MiB that the whole process had meanwhile, that of files left out.
    pub fn clean_up_watched(&self, number: u64, policy: Policy) -> Result<(Report, f64)> {
        let ends = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let watch = scope.spawn(|| -> Result<f64> {
                let mut most = 0.0_f64;
                while !ends.load(Ordering::Relaxed) {
                    most = most.max(anonymous_mib(std::process::id())?);
                    std::thread::sleep(Duration::from_millis(5));
                }
                Ok(most)
            });
            let report = self.clean_up(number, policy);
            ends.store(true, Ordering::Relaxed);
            let most = watch.join().map_err(|_| anyhow::anyhow!("a panic"))??;
            Ok((report?, most))
        })
    }

    /// The p99 of acks, in milliseconds, of appends to a log of their own.
    pub fn produce(&self, time: Duration) -> Result<f64> {
        let log = self.log(PRODUCED)?;
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

/// Bytes of a log before, for each second of a run.
pub fn rate(report: &Report) -> f64 {
    let before: u64 = report.rewrites.iter().map(|one| one.before.bytes).sum();
    before as f64 / report.took.as_secs_f64() / 1e6
}

/// Memory of a process that belongs to no file, in MiB.
pub fn anonymous_mib(process: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    let kib: f64 = kib.context("the process's status")?.parse()?;
    Ok(kib / 1024.0)
}
