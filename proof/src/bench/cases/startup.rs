//! Recovery time: start-up after SIGKILL, with the write-ahead log full of what had not settled.

use std::time::Duration;

use anyhow::Result;

use crate::bench::broker::{self, BATCH_BYTES, IN_FLIGHT};
use crate::bench::figures::{Figure, Mark};
use crate::bench::{Bench, Case, limits, pace};

/// The case.
pub const CASE: Case = Case {
    name: "startup",
    about: "Start-up after SIGKILL in the middle of producing flat out (2 GiB each time): from the start of the process to its \
            ready line. The limit is reading the write-ahead log's files once from the disk.",
    uses_binary: true,
    run,
};

const BYTES: u64 = 2 << 30;

fn run(bench: &Bench) -> Result<Vec<Figure>> {
    let mut figure =
        Figure::new("ready again after SIGKILL under load", "s").marked(Mark::AtMost(3.0));
    let directory = bench.directory()?;
    let plan = broker::plan(bench, directory.path())?;
    let mut victim = plan.start()?;
    broker::create_topic(&victim, BYTES)?;
    for _ in 0..bench.runs {
        let runtime = broker::runtime()?;
        let lanes = runtime.block_on(broker::lanes(&victim.kafka))?;
        let pace = pace::Pace {
            piece_bytes: BATCH_BYTES as u64,
            in_flight: IN_FLIGHT,
            bytes_per_second: None,
            bytes_max: BYTES,
            time_max: Duration::from_secs(120),
        };
        runtime.block_on(pace::run(pace, lanes))?;
        victim.kill()?;
        let wal: Vec<_> = std::fs::read_dir(directory.path().join("data/wal"))?
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<_>>()?;
        let limit = limits::read_cold(&wal)?;
        victim = plan.start()?;
        figure.runs.push(victim.up_in.as_secs_f64());
        figure.limits.push(limit);
        bench.progress(&format!(
            "up in {:.2} s over {} files of the WAL, which take {limit:.2} s to read",
            victim.up_in.as_secs_f64(),
            wal.len()
        ));
    }
    victim.kill()?;
    Ok(vec![figure])
}
