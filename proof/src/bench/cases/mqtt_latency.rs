//! From an MQTT publisher to its subscriber, beside another broker.

use std::time::Duration;

use anyhow::Result;

use crate::bench::figures::{Figure, Mark, quantile};
use crate::bench::mqtt::one_way;
use crate::bench::peers::{Kept, Peer};
use crate::bench::{Bench, Case, broker, limits};

/// The case.
pub const CASE: Case = Case {
    name: "mqtt-latency",
    about: "From when a message was due at its MQTT publisher until its subscriber has it: 1,000 messages a second of 100 bytes, QoS 1 both \
            ways. Every message has to come, once and in order. The column of limits has the same of mosquitto without persistence, and \
            one sync of this disk on top: here a message is on the disk before it is sent on. A sync is a bare loop of writing 4 KiB and \
            fdatasync, on average.",
    uses_binary: true,
    run,
};

const RATE: f64 = 1_000.0;
const PAYLOAD_BYTES: usize = 100;
const SYNC_BYTES: usize = 4 << 10;

fn run(bench: &Bench) -> Result<Vec<Figure>> {
    let mut beside = Figure::new(
        "publish to receive p50, beside mosquitto and one sync",
        "ms",
    )
    .marked(Mark::WithinLimit(1.0));
    let mut middle = Figure::new("publish to receive p50", "ms").marked(Mark::AtMost(1.0));
    let mut late = Figure::new("publish to receive p99", "ms");
    let mut synced = Figure::new("one sync", "ms");
    for _ in 0..bench.runs {
        let directory = bench.directory()?;
        let bare = limits::write_and_sync(directory.path(), SYNC_BYTES, Duration::from_secs(1))?;
        let sync_ms = SYNC_BYTES as f64 / bare * 1e3;
        let measured = |address: &str| -> Result<(f64, f64)> {
            let mut times = one_way::run(address, RATE, PAYLOAD_BYTES, bench.time)?;
            let mut part = |part| quantile(&mut times, part) as f64 / 1e3;
            Ok((part(0.5), part(0.99)))
        };
        let mut victim = broker::mqtt_plan(bench, directory.path())?.start()?;
        let ours = measured(&broker::mqtt_address(&victim)?)?;
        victim.kill()?;
        let theirs = measured(&Peer::mosquitto(directory.path(), Kept::Nothing)?.address)?;
        beside.runs.push(ours.0);
        beside.limits.push(theirs.0 + sync_ms);
        middle.runs.push(ours.0);
        late.runs.push(ours.1);
        late.limits.push(theirs.1 + sync_ms);
        synced.runs.push(sync_ms);
        bench.progress(&format!(
            "p50 {:.2} ms, p99 {:.2} ms; mosquitto {:.2} and {:.2}; a sync {sync_ms:.2}",
            ours.0, ours.1, theirs.0, theirs.1
        ));
    }
    Ok(vec![beside, middle, late, synced])
}
