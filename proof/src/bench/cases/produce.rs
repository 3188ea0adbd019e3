//! Throughput of durable produce (closed loop): bytes a second that are acknowledged after their fsync.

use std::time::Duration;

use anyhow::Result;

use crate::bench::broker::{self, BATCH_BYTES, CONNECTIONS, IN_FLIGHT};
use crate::bench::figures::{Figure, Mark, quantile};
use crate::bench::{Bench, Case, limits, pace};

/// The case.
pub const CASE: Case = Case {
    name: "produce",
    about: "Durable produce, flat out: 64 KiB batches, 4 connections with 8 batches under way each, 8 partitions, acks=all. \
            The limit is a bare loop of writing as much as is under way (2 MiB) and fdatasync, on zero-filled \
            files, for 5 s before and 5 s after.",
    uses_binary: true,
    run,
};

const BYTES_KEPT: u64 = 4 << 30;

fn run(bench: &Bench) -> Result<Vec<Figure>> {
    let gib = bench.bytes >> 30;
    let mut rate = Figure::new(format!("acknowledged, sustained over {gib} GiB"), "MB/s")
        .marked(Mark::OfLimit(0.35));
    let mut worst = Figure::new("the slowest tenth of the run", "MB/s");
    let mut median = Figure::new("ack p50", "ms");
    let mut late = Figure::new("ack p99", "ms");
    for _ in 0..bench.runs {
        let directory = bench.directory()?;
        let bare = || {
            let under_way = BATCH_BYTES * IN_FLIGHT * CONNECTIONS;
            limits::write_and_sync(directory.path(), under_way, Duration::from_secs(5))
        };
        let before = bare()?;
        let mut victim = broker::plan(bench, directory.path())?.start()?;
        broker::create_topic(&victim, BYTES_KEPT)?;
        let runtime = broker::runtime()?;
        let lanes = runtime.block_on(broker::lanes(&victim.kafka))?;
        let (mut bytes, mut seconds, mut slowest) = (0, 0.0, f64::INFINITY);
        let mut latencies = Vec::new();
        for _ in 0..10 {
            let pace = pace::Pace {
                piece_bytes: BATCH_BYTES as u64,
                in_flight: IN_FLIGHT,
                bytes_per_second: None,
                bytes_max: bench.bytes / 10,
                time_max: Duration::from_secs(3600),
            };
            let paced = runtime.block_on(pace::run(pace, lanes.clone()))?;
            bytes += paced.bytes;
            seconds += paced.seconds;
            slowest = slowest.min(paced.rate());
            latencies.extend(paced.latencies_us);
        }
        let resident = victim.resident_bytes()?;
        drop(lanes);
        victim.kill()?;
        // A virtual disk is not the same for long: the limit is the mean of before and after.
        let limit = (before + bare()?) / 2.0;
        rate.runs.push(bytes as f64 / seconds / 1e6);
        rate.limits.push(limit / 1e6);
        worst.runs.push(slowest / 1e6);
        worst.limits.push(limit / 1e6);
        median.runs.push(quantile(&mut latencies, 0.5) as f64 / 1e3);
        late.runs.push(quantile(&mut latencies, 0.99) as f64 / 1e3);
        bench.progress(&format!(
            "{:.0} MB/s, the limit {:.0} MB/s, {} MiB resident",
            bytes as f64 / seconds / 1e6,
            limit / 1e6,
            resident >> 20
        ));
    }
    Ok(vec![rate, worst, median, late])
}
