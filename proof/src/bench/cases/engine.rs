//! The engine by itself, without sockets: appends of 64 KiB at fixed rates and flat out.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use model::batch::Batch;
use model::topic_config::Durability;
use model::{LogId, PartitionId, TopicId};
use storage::{AppendBatch, Env, LogSettings, Storage, StorageConfig};

use crate::bench::broker::{self, BATCH_BYTES, CONNECTIONS, IN_FLIGHT, PARTITIONS};
use crate::bench::figures::{Figure, quantile};
use crate::bench::pace::{Boxed, SendPiece};
use crate::bench::{Bench, Case, limits, pace};

/// The case.
pub const CASE: Case = Case {
    name: "engine",
    about: "The storage engine by itself: 64 KiB batches to 8 logs, 32 under way flat out; paced from the moment a batch was \
            due. Settling and retention run beside it, so that each byte is written twice. The limit is a bare loop of writing \
            2 MiB and fdatasync, on zero-filled files.",
    uses_binary: false,
    run,
};

const RATES: [Option<f64>; 4] = [Some(200e6), Some(400e6), Some(600e6), None];
const BYTES_KEPT: u64 = 4 << 30;

fn run(bench: &Bench) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for rate in RATES {
        let name = rate.map_or("flat out".to_owned(), |rate| {
            format!("paced at {:.0} MB/s", rate / 1e6)
        });
        let mut reached = Figure::new(format!("acknowledged, {name}"), "MB/s");
        let mut median = Figure::new(format!("ack p50, {name}"), "ms");
        let mut late = Figure::new(format!("ack p99, {name}"), "ms");
        for _ in 0..bench.runs {
            let directory = bench.directory()?;
            let limit = limits::write_and_sync(
                directory.path(),
                BATCH_BYTES * IN_FLIGHT * CONNECTIONS,
                Duration::from_secs(3),
            )?;
            let mut paced = run_at(bench, directory.path(), rate)?;
            reached.runs.push(paced.rate() / 1e6);
            reached.limits.push(limit / 1e6);
            let p50 = quantile(&mut paced.latencies_us, 0.5) as f64 / 1e3;
            let p99 = quantile(&mut paced.latencies_us, 0.99) as f64 / 1e3;
            median.runs.push(p50);
            late.runs.push(p99);
            bench.progress(&format!(
                "{name}: {:.0} MB/s, p50 {p50:.1} ms, p99 {p99:.1} ms, the limit {:.0} MB/s",
                paced.rate() / 1e6,
                limit / 1e6
            ));
        }
        figures.extend([reached, median, late]);
    }
    Ok(figures)
}

fn run_at(bench: &Bench, directory: &std::path::Path, rate: Option<f64>) -> Result<pace::Paced> {
    let mut config = StorageConfig::new(directory.join("data"));
    config.retention_check = Duration::from_secs(1);
    let (storage, _) = Storage::open(config, Env::real())?;
    storage.finish_open(&HashSet::new())?;
    let partitions = PARTITIONS.unsigned_abs();
    let settings = LogSettings {
        durability: Durability::Fsync,
        segment_bytes: 128 << 20,
        segment_ms: u64::MAX,
        retention_ms: None,
        retention_bytes: Some(BYTES_KEPT / u64::from(partitions)),
        compaction: None,
        thinning: None,
        key_index: false,
    };
    let topic = TopicId::random();
    let logs: Vec<_> = (0..partitions)
        .map(|partition| {
            let id = LogId {
                topic_id: topic,
                partition: PartitionId::new(partition),
            };
            storage.create_log(id, settings.clone())
        })
        .collect();
    let batch = Batch::parse(broker::batch()?)?;
    let lanes: Vec<SendPiece> = logs
        .chunks(logs.len() / CONNECTIONS)
        .map(|logs| {
            let (logs, storage, batch) = (logs.to_vec(), storage.clone(), batch.clone());
            let lane: SendPiece = Arc::new(move |piece| {
                let log = logs[piece % logs.len()].clone();
                let (storage, batch) = (storage.clone(), batch.clone());
                Box::pin(async move {
                    let admission = storage.admit(batch.bytes().len()).await;
                    let appended = log.append(vec![AppendBatch::from(batch)], admission)?;
                    let acknowledged: Boxed<Result<()>> =
                        Box::pin(async move { Ok(appended.durable.await?) });
                    Ok(acknowledged)
                })
            });
            lane
        })
        .collect();
    let pace = pace::Pace {
        piece_bytes: BATCH_BYTES as u64,
        in_flight: if rate.is_some() { 1024 } else { IN_FLIGHT },
        bytes_per_second: rate,
        bytes_max: rate.map_or(bench.bytes, |rate| (rate * bench.time.as_secs_f64()) as u64),
        time_max: bench.time * 3,
    };
    let paced = broker::runtime()?.block_on(pace::run(pace, lanes))?;
    storage.shutdown();
    Ok(paced)
}
