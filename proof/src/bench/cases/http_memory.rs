//! A long replay with little memory: what the server takes for it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::bench::broker::{self, BATCH_BYTES, IN_FLIGHT, PARTITIONS, TOPIC};
use crate::bench::figures::{Figure, Mark};
use crate::bench::{Bench, Case, pace};
use crate::exam::memory_group::MemoryGroup;
use crate::http::Http;

/// The case.
pub const CASE: Case = Case {
    name: "http-memory",
    about: "A replay of as much as --gib says, all of it stored, in one answer, by a server that a control group gives 512 MiB, what \
            the kernel caches for it included. Records of 1 KiB that do not compress, in 8 partitions. The mark is the memory that it \
            had at most, without files' pages that the kernel can take back.",
    uses_binary: true,
    run,
};

const MEMORY: u64 = 512 << 20;

fn run(bench: &Bench) -> Result<Vec<Figure>> {
    let directory = bench.directory()?;
    let mut victim = broker::plan(bench, directory.path())?.start()?;
    broker::create_topic(&victim, bench.bytes * 4)?;
    let runtime = broker::runtime()?;
    let lanes = runtime.block_on(broker::lanes(&victim.kafka))?;
    let pace = pace::Pace {
        piece_bytes: BATCH_BYTES as u64,
        in_flight: IN_FLIGHT,
        bytes_per_second: None,
        bytes_max: bench.bytes,
        time_max: Duration::from_secs(1_200),
    };
    runtime.block_on(pace::run(pace, lanes))?;
    // An orderly end settles everything.
    victim.terminate()?;
    let mut rows = Vec::new();
    for format in ["arrow", "ndjson"] {
        let mut rate = Figure::new(format!("replay as {format}, of source"), "MB/s");
        let mut most = Figure::new(
            format!("replay as {format}: memory of its own at most"),
            "MiB",
        )
        .marked(Mark::AtMost(256.0));
        let mut resident = Figure::new(format!("replay as {format}: resident at most"), "MiB");
        for _ in 0..bench.runs {
            let group = MemoryGroup::create(MEMORY)?;
            let mut victim = broker::plan(bench, directory.path())?
                .within(&group)
                .start()?;
            let mut http = Http::connect(&victim.http)?;
            let began = Instant::now();
            let path = format!(
                "/api/v1/topics/{TOPIC}/replay?format={format}&columns=partition,offset,value"
            );
            let (mut bytes, mut looked, mut own) = (0_u64, Instant::now(), 0);
            let headers = http.read(&path, &mut |piece| {
                bytes += piece.len() as u64;
                if looked.elapsed() > Duration::from_millis(200) {
                    looked = Instant::now();
                    own = own.max(victim.anonymous_bytes().unwrap_or(0));
                }
            })?;
            let seconds = began.elapsed().as_secs_f64();
            let number = |name: &str| -> Result<u64> {
                let text = headers.get(name).with_context(|| format!("no {name}"))?;
                Ok(text.parse()?)
            };
            let scanned = number("alluvium-scanned-bytes")?;
            ensure!(
                scanned > bench.bytes / 10 * 9 && bytes > scanned && number("alluvium-gaps")? == 0,
                "{scanned} bytes were scanned, {bytes} came, of {}: {headers:?}",
                bench.bytes
            );
            ensure!(group.killed()? == 0, "the kernel killed the server");
            rate.runs.push(scanned as f64 / seconds / 1e6);
            most.runs.push(own as f64 / f64::from(1 << 20));
            let peak = victim.peak_resident_bytes()?;
            resident.runs.push(peak as f64 / f64::from(1 << 20));
            bench.progress(&format!(
                "{format}: {:.0} MB/s over {PARTITIONS} partitions, {:.0} MiB of its own, {:.0} MiB resident, the limit reached {} times",
                scanned as f64 / seconds / 1e6,
                own as f64 / f64::from(1 << 20),
                peak as f64 / f64::from(1 << 20),
                group.limit_reached()?
            ));
            victim.kill()?;
        }
        rows.extend([rate, most, resident]);
    }
    Ok(rows)
}
