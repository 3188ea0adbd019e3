//! Slow subscribers beside a fast one.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::bench::figures::Figure;
use crate::bench::mqtt::connection::{Connection, PATIENCE};
use crate::bench::mqtt::fanout::number;
use crate::bench::mqtt::packet;
use crate::bench::mqtt::publishers::{self, Load};
use crate::bench::{Bench, Case, broker};
use crate::exam::probe::Probe;
use crate::exam::victim::Victim;

/// The case.
pub const CASE: Case = Case {
    name: "mqtt-slow",
    about: "100 MQTT clients publish 100 bytes with QoS 1, 16 under way each, and one subscriber takes all of it with QoS 1; every message \
            has to come. Alone, and beside 16 subscribers to the same that take 100 messages a second each. The column of limits has it \
            alone. Memory is by how much the process had more that is not of files, at most.",
    uses_binary: true,
    run,
};

const FILTER: &str = "bench/#";
const SLOW: usize = 16;
/// What a slow one takes at a time.
const SIP: u64 = 10;
const SIP_EVERY: Duration = Duration::from_millis(100);
const LOAD: Load = Load {
    clients: 100,
    window: 16,
    qos: 1,
    payload_bytes: 100,
    time: Duration::ZERO,
    rate: None,
    is_drained: true,
};

fn run(bench: &Bench) -> Result<Vec<Figure>> {
    let mut fast = Figure::new("the fast one, beside 16 slow ones", "messages/s");
    let mut published = Figure::new("published meanwhile", "messages/s");
    let mut memory = Figure::new("memory, beside 16 slow ones", "MiB");
    let runtime = broker::runtime()?;
    for _ in 0..bench.runs {
        let measured = |slow| -> Result<Measured> {
            let directory = bench.directory()?;
            let mut victim = broker::mqtt_plan(bench, directory.path())?.start()?;
            Probe::connect(&victim.kafka)?.create_topic("mqtt", 16, &[])?;
            let measured = runtime.block_on(beside(&victim, slow, bench.time))?;
            victim.kill()?;
            Ok(measured)
        };
        let alone = measured(0)?;
        let with_slow = measured(SLOW)?;
        fast.runs.push(with_slow.taken);
        fast.limits.push(alone.taken);
        published.runs.push(with_slow.published);
        published.limits.push(alone.published);
        memory.runs.push(with_slow.more_mib);
        memory.limits.push(alone.more_mib);
        bench.progress(&format!(
            "{:.0} messages/s beside slow ones, {:.0} alone; {:.1} MiB more, {:.1} alone",
            with_slow.taken, alone.taken, with_slow.more_mib, alone.more_mib
        ));
    }
    Ok(vec![fast, published, memory])
}

struct Measured {
    taken: f64,
    published: f64,
    more_mib: f64,
}

async fn beside(victim: &Victim, slow: usize, time: Duration) -> Result<Measured> {
    let address = broker::mqtt_address(victim)?;
    let mut tasks = JoinSet::new();
    for index in 0..slow {
        let mut connection = Connection::open(&address, &format!("slow-{index}"), true).await?;
        connection.subscribe(FILTER, 1).await?;
        tasks.spawn(sip(connection));
    }
    let mut connection = Connection::open(&address, "fast", true).await?;
    connection.subscribe(FILTER, 1).await?;
    let taken = Arc::new(AtomicU64::new(0));
    tasks.spawn(take(connection, taken.clone()));
    let before = victim.anonymous_bytes()?;
    let began = Instant::now();
    let load = Load { time, ..LOAD };
    let (address, watch) = (address.clone(), Duration::from_millis(20));
    let mut publishing = tokio::spawn(async move { publishers::run(&address, load).await });
    let mut most = 0;
    let published = loop {
        most = most.max(victim.anonymous_bytes()?);
        match tokio::time::timeout(watch, &mut publishing).await {
            Ok(published) => break published.context("the publishers")??,
            Err(_) => ended_early(&mut tasks)?,
        }
    };
    while taken.load(Ordering::Relaxed) < published.sent {
        ensure!(
            began.elapsed() < time + PATIENCE,
            "{} of {} messages came",
            taken.load(Ordering::Relaxed),
            published.sent
        );
        most = most.max(victim.anonymous_bytes()?);
        tokio::time::sleep(Duration::from_millis(2)).await;
        ended_early(&mut tasks)?;
    }
    let seconds = began.elapsed().as_secs_f64();
    tasks.shutdown().await;
    Ok(Measured {
        taken: published.sent as f64 / seconds,
        published: published.rate(),
        more_mib: most.saturating_sub(before) as f64 / f64::from(1 << 20),
    })
}

fn ended_early(tasks: &mut JoinSet<Result<()>>) -> Result<()> {
    match tasks.try_join_next() {
        Some(ended) => ended.context("a subscriber")?.context("a subscriber"),
        None => Ok(()),
    }
}

/// Takes all that comes: of each publisher everything, once and in order.
async fn take(mut connection: Connection, taken: Arc<AtomicU64>) -> Result<()> {
    let mut next: HashMap<Vec<u8>, u64> = HashMap::new();
    loop {
        let mut count = 0;
        connection
            .receive(|packet, out| {
                let publish = packet.publish()?;
                let number = number(publish.payload)?;
                let wanted = match next.get_mut(publish.topic) {
                    Some(wanted) => wanted,
                    None => next.entry(publish.topic.to_vec()).or_default(),
                };
                ensure!(number == *wanted, "message {number} came, not {wanted}");
                *wanted += 1;
                out.extend(packet::ack(packet::PUBACK, publish.id));
                count += 1;
                Ok(())
            })
            .await?;
        connection.flush().await?;
        taken.fetch_add(count, Ordering::Relaxed);
    }
}

/// Acknowledges a few messages at a time, so that no more are sent, and waits.
async fn sip(mut connection: Connection) -> Result<()> {
    let mut waiting = std::collections::VecDeque::new();
    loop {
        while waiting.is_empty() {
            connection
                .receive(|packet, _| {
                    if packet.kind() != packet::PUBLISH {
                        bail!("{packet:?} came");
                    }
                    waiting.push_back(packet.publish()?.id);
                    Ok(())
                })
                .await?;
        }
        for _ in 0..SIP {
            let Some(id) = waiting.pop_front() else {
                break;
            };
            connection.outgoing.extend(packet::ack(packet::PUBACK, id));
        }
        connection.flush().await?;
        tokio::time::sleep(SIP_EVERY).await;
    }
}
