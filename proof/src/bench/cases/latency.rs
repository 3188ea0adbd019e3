//! Ack latency at a fixed rate (open loop): from when a batch was due to its acknowledgement.

use std::time::Duration;

use anyhow::Result;

use crate::bench::broker::{self, BATCH_BYTES, CONNECTIONS, IN_FLIGHT};
use crate::bench::figures::{Figure, Mark, quantile};
use crate::bench::{Bench, Case, limits, pace};

/// The case.
pub const CASE: Case = Case {
    name: "latency",
    about: "Acknowledgements while producing at half of the own peak, and at fixed rates, in the shape of `produce`. Measured \
            from the moment a batch was due, so that a stall counts for everything that had to wait (no coordinated \
            omission); timers here are 1 ms coarse. The limit is one 64 KiB write and its fdatasync, on average.",
    uses_binary: true,
    run,
};

const BYTES_KEPT: u64 = 4 << 30;
const RATES: [f64; 3] = [50e6, 100e6, 200e6];

fn run(bench: &Bench) -> Result<Vec<Figure>> {
    let names = ["p50", "p99", "p99.9"];
    let parts = [0.5, 0.99, 0.999];
    let mut peaks = Figure::new("own peak", "MB/s");
    let mut tables: Vec<Vec<Figure>> = std::iter::once("half of the own peak".to_owned())
        .chain(RATES.iter().map(|rate| format!("{:.0} MB/s", rate / 1e6)))
        .map(|rate| {
            names
                .iter()
                .map(|name| Figure::new(format!("ack {name} at {rate}"), "ms"))
                .collect()
        })
        .collect();
    tables[0][1].mark = Some(Mark::AtMost(25.0));
    for _ in 0..bench.runs {
        let directory = bench.directory()?;
        let bare = limits::write_and_sync(directory.path(), BATCH_BYTES, Duration::from_secs(3))?;
        let bare_ms = BATCH_BYTES as f64 / bare * 1e3;
        let mut victim = broker::plan(bench, directory.path())?.start()?;
        broker::create_topic(&victim, BYTES_KEPT)?;
        let runtime = broker::runtime()?;
        let lanes = runtime.block_on(broker::lanes(&victim.kafka))?;
        let pace = |rate: Option<f64>| pace::Pace {
            piece_bytes: BATCH_BYTES as u64,
            // A paced sender does not hold back because answers are late.
            in_flight: if rate.is_some() { 1024 } else { IN_FLIGHT },
            bytes_per_second: rate,
            bytes_max: rate.map_or(bench.bytes, |rate| (rate * bench.time.as_secs_f64()) as u64),
            time_max: bench.time * 2,
        };
        let peak = runtime
            .block_on(pace::run(pace(None), lanes.clone()))?
            .rate();
        peaks.runs.push(peak / 1e6);
        let rates = std::iter::once(peak / 2.0).chain(RATES);
        for (figures, rate) in tables.iter_mut().zip(rates) {
            let mut paced = runtime.block_on(pace::run(pace(Some(rate)), lanes.clone()))?;
            for (figure, part) in figures.iter_mut().zip(parts) {
                let latency = quantile(&mut paced.latencies_us, part);
                figure.runs.push(latency as f64 / 1e3);
                figure.limits.push(bare_ms);
            }
            bench.progress(&format!(
                "{:.0} MB/s asked, {:.0} MB/s reached on {CONNECTIONS} connections: p50 {:.1} ms, p99 {:.1} ms, largest {:.1} ms",
                rate / 1e6,
                paced.rate() / 1e6,
                quantile(&mut paced.latencies_us, 0.5) as f64 / 1e3,
                quantile(&mut paced.latencies_us, 0.99) as f64 / 1e3,
                quantile(&mut paced.latencies_us, 1.0) as f64 / 1e3,
            ));
        }
        drop(lanes);
        victim.kill()?;
    }
    Ok(std::iter::once(peaks)
        .chain(tables.into_iter().flatten())
        .collect())
}
