//! Messages that MQTT clients publish, beside other brokers.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::runtime::Runtime;

use crate::bench::figures::{Figure, Mark, quantile};
use crate::bench::mqtt::publishers::{self, Load, Published};
use crate::bench::peers::{Kept, Peer};
use crate::bench::{Bench, Case, broker};
use crate::exam::probe::Probe;
use crate::exam::victim::Victim;

/// The case.
pub const CASE: Case = Case {
    name: "mqtt-produce",
    about: "1,000 MQTT clients that publish 100 bytes each to a topic of its own, acknowledged when it is on the disk. Every message \
            is counted at the end, in the log too. The column of limits has what the same clients get of another broker: of \
            mosquitto, which acknowledges from memory, without persistence and with nobody who is sent the messages, or with \
            autosave_on_changes, autosave_interval 1 and a session that is away and is to get them; of nats-server's MQTT, on \
            JetStream with sync_interval always. For QoS 2 it has this store's QoS 1. At half of the rate: from when a message was due \
            to its PUBACK; timers here are 1 ms coarse. This and QoS 2 have half of \
            --seconds.",
    uses_binary: true,
    run,
};

const CLIENTS: usize = 1_000;
const PAYLOAD_BYTES: usize = 100;
const WINDOW: u16 = 16;
const PARTITIONS: i32 = 16;
const PEER_TIME_MIN: Duration = Duration::from_secs(3);

fn run(bench: &Bench) -> Result<Vec<Figure>> {
    broker::more_descriptors(4_096)?;
    let row = |what, part| Figure::new(what, "messages/s").marked(Mark::OfLimit(part));
    let mut memory = row("QoS 1, window 16, beside mosquitto in memory", 1.5);
    let mut synced = row(
        "QoS 1, window 16, beside nats-server, each write synced",
        10.0,
    );
    let mut saved = row("QoS 1, window 16, beside mosquitto that saves changes", 5.0);
    let mut single = row("QoS 1, window 1, beside mosquitto in memory", 1.0);
    let mut middle = Figure::new("PUBACK p50, window 1, at half of that", "ms");
    let mut late =
        Figure::new("PUBACK p99, window 1, at half of that", "ms").marked(Mark::AtMost(5.0));
    let mut twice = row("QoS 2, window 16, beside QoS 1", 0.5);
    let runtime = broker::runtime()?;
    let wide = Load {
        clients: CLIENTS,
        window: WINDOW,
        qos: 1,
        payload_bytes: PAYLOAD_BYTES,
        time: bench.time,
        rate: None,
        is_drained: true,
    };
    let narrow = Load { window: 1, ..wide };
    for _ in 0..bench.runs {
        let directory = bench.directory()?;
        let mut victim = broker::mqtt_plan(bench, directory.path())?.start()?;
        Probe::connect(&victim.kafka)?.create_topic("mqtt", PARTITIONS, &[])?;
        let ours = |load| published(&victim, &runtime, load);
        let rate = ours(wide)?.rate();
        let one = ours(narrow)?.rate();
        let mut paced = ours(Load {
            rate: Some(one / 2.0),
            time: bench.time / 2,
            ..narrow
        })?;
        let both = Load {
            qos: 2,
            time: bench.time / 2,
            ..wide
        };
        let both = ours(both)?.rate();
        victim.kill()?;
        for figure in [&mut memory, &mut synced, &mut saved] {
            figure.runs.push(rate);
        }
        single.runs.push(one);
        middle
            .runs
            .push(quantile(&mut paced.latencies_us, 0.5) as f64 / 1e3);
        late.runs
            .push(quantile(&mut paced.latencies_us, 0.99) as f64 / 1e3);
        twice.runs.push(both);
        twice.limits.push(rate);
        peers(
            directory.path(),
            &runtime,
            wide,
            [&mut memory, &mut synced, &mut saved, &mut single],
        )?;
        bench.progress(&format!(
            "window 16: {rate:.0} messages/s; in memory {:.0}, each write synced {:.0}, saved {:.0}. Window 1: {one:.0}, in memory {:.0}, \
             p99 {:.1} ms at {:.0}. QoS 2: {both:.0}",
            last(&memory.limits),
            last(&synced.limits),
            last(&saved.limits),
            last(&single.limits),
            last(&late.runs),
            paced.rate()
        ));
    }
    Ok(vec![memory, synced, saved, single, middle, late, twice])
}

fn last(values: &[f64]) -> f64 {
    values.last().copied().unwrap_or_default()
}

/// Publishes to this store. Every message has to be acknowledged and in the log, once.
fn published(victim: &Victim, runtime: &Runtime, load: Load) -> Result<Published> {
    let before = broker::records_of(victim, "mqtt", PARTITIONS)?;
    let published = runtime.block_on(publishers::run(&broker::mqtt_address(victim)?, load))?;
    let stored = broker::records_of(victim, "mqtt", PARTITIONS)? - before;
    ensure!(
        stored == published.sent && published.acknowledged == published.sent,
        "{} messages were sent, {} acknowledged, {stored} are in the log",
        published.sent,
        published.acknowledged
    );
    Ok(published)
}

/// What the peers make of it, one after the other. What they have not acknowledged at the end is not waited for.
fn peers(directory: &Path, runtime: &Runtime, load: Load, rows: [&mut Figure; 4]) -> Result<()> {
    let [memory, synced, saved, single] = rows;
    let load = Load {
        is_drained: false,
        ..load
    };
    let rate = |peer: &Peer, load| {
        let published = runtime.block_on(publishers::run(&peer.address, load))?;
        ensure!(published.counted > 0, "a peer acknowledged nothing");
        anyhow::Ok(published.rate())
    };
    let peer = Peer::mosquitto(directory, Kept::Nothing)?;
    memory.limits.push(rate(&peer, load)?);
    single.limits.push(rate(&peer, Load { window: 1, ..load })?);
    drop(peer);
    let peer = Peer::nats(directory)?;
    // It acknowledges in bursts, far apart, and so does the next one.
    let time = load.time.max(PEER_TIME_MIN);
    synced.limits.push(rate(&peer, Load { time, ..load })?);
    drop(peer);
    let peer = Peer::mosquitto(directory, Kept::EachChange)?;
    runtime.block_on(peer.keeps_messages("bench/#"))?;
    let time = (load.time / 2).max(PEER_TIME_MIN);
    saved.limits.push(rate(&peer, Load { time, ..load })?);
    Ok(())
}
