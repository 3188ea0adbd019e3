//! History as an MQTT subscription, and a subscriber that comes back to what it has missed.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::bench::figures::{Figure, Mark, quantile};
use crate::bench::mqtt::connection::Connection;
use crate::bench::mqtt::fleet::{self, DEVICES, Given, PARTITIONS, RARE_EVERY};
use crate::bench::mqtt::packet;
use crate::bench::{Bench, Case, broker};
use crate::exam::probe::Probe;
use crate::exam::victim::Victim;

/// The case.
pub const CASE: Case = Case {
    name: "mqtt-replay",
    about: "History by MQTT 3.1.1: 10 million records of 100 bytes of 10,000 devices, which take turns in 16 partitions, and 5 devices with \
            one record each in between. $replay/earliest of one device after the other, QoS 0: from SUBSCRIBE to the first message. Then of \
            all devices at once for --seconds, where each device's messages have to come once and in order. It is measured when the key \
            indexes are made, so that nothing else reads the log. Then a session that has missed a million messages and is given all of them with QoS 1; \
            memory is by how much the process had more that is not of files, at most.",
    uses_binary: true,
    run,
};

const RECORDS: u64 = 10_000_000;
const MISSED: u64 = 1_000_000;
const ASKED: u64 = 5;
const INDEX_PATIENCE: Duration = Duration::from_secs(180);
/// Indexes are made when nothing was read for them for so long.
const INDEX_REST: Duration = Duration::from_secs(3);

fn run(bench: &Bench) -> Result<Vec<Figure>> {
    let mut first = Figure::new("one device of 10,000: first message, p50 of 5", "ms")
        .marked(Mark::AtMost(50.0));
    let mut rare =
        Figure::new("a device with one message: p50 of 5", "ms").marked(Mark::AtMost(50.0));
    let mut whole = Figure::new("one device of 10,000: all 1,000 messages, p50 of 5", "ms");
    let mut all = Figure::new("all devices, QoS 0", "messages/s").marked(Mark::AtLeast(200_000.0));
    let directory = bench.directory()?;
    let mut victim = filled(bench, &directory.path().join("history"), RECORDS)?;
    bench.progress("10 million records are there");
    wait_for_indexes(&victim)?;
    let runtime = broker::runtime()?;
    let address = broker::mqtt_address(&victim)?;
    for round in 0..bench.runs {
        let (mut to_first, mut to_last, mut to_rare) = (Vec::new(), Vec::new(), Vec::new());
        for asked in 0..ASKED {
            let device = asked * (DEVICES / ASKED) + u64::from(round);
            let of_device = history(&address, fleet::topic(device), RECORDS / DEVICES);
            let [one, last] = runtime.block_on(of_device)?;
            let of_rare = history(&address, fleet::rare_topic(asked), 1);
            let [found, _] = runtime.block_on(of_rare)?;
            to_first.push(one);
            to_last.push(last);
            to_rare.push(found);
        }
        for (figure, times) in [
            (&mut first, &mut to_first),
            (&mut whole, &mut to_last),
            (&mut rare, &mut to_rare),
        ] {
            figure.runs.push(quantile(times, 0.5) as f64 / 1e3);
        }
        let rate = runtime.block_on(everything(&address, bench.time))?;
        all.runs.push(rate);
        bench.progress(&format!(
            "one device {:.1} ms to its first message, {:.1} ms to its last, a rare one {:.1} ms; all {rate:.0} messages/s",
            quantile(&mut to_first, 0.5) as f64 / 1e3,
            quantile(&mut to_last, 0.5) as f64 / 1e3,
            quantile(&mut to_rare, 0.5) as f64 / 1e3,
        ));
    }
    victim.kill()?;
    drop(directory);
    let mut rows = vec![first, whole, rare, all];
    rows.extend(missed(bench)?);
    Ok(rows)
}

/// A store with a fleet's history.
fn filled(bench: &Bench, directory: &std::path::Path, records: u64) -> Result<Victim> {
    std::fs::create_dir_all(directory)?;
    let plan = broker::mqtt_plan(bench, directory)?
        .with("settle.age.ms", 200)
        .with("key.index.io.max.bytes.per.second", -1);
    let victim = plan.start()?;
    let partitions = i32::try_from(PARTITIONS)?;
    let settings = [("segment.bytes", "16777216")];
    Probe::connect(&victim.kafka)?.create_topic("mqtt", partitions, &settings)?;
    fill(&victim, records)?;
    Ok(victim)
}

fn fill(victim: &Victim, records: u64) -> Result<()> {
    let sent = broker::runtime()?.block_on(fleet::fill(&victim.kafka, records))?;
    let stored = broker::records_of(victim, "mqtt", i32::try_from(PARTITIONS)?)?;
    ensure!(
        stored == sent,
        "{sent} records were sent, {stored} are in the log"
    );
    Ok(())
}

/// Waits until the log has been read for key indexes, and nothing more is for a while.
fn wait_for_indexes(victim: &Victim) -> Result<()> {
    let until = Instant::now() + INDEX_PATIENCE;
    let log_bytes = (RECORDS * 100) as f64;
    let (mut before, mut since) = (0.0, Instant::now());
    loop {
        let (_, page) = victim.get("/metrics")?;
        let read = page
            .lines()
            .find_map(|line| line.strip_prefix("alluvium_key_index_read_bytes_total "))
            .context("no metric of key indexes")?;
        let read: f64 = read.trim().parse()?;
        if read > before {
            (before, since) = (read, Instant::now());
        } else if read > log_bytes && since.elapsed() > INDEX_REST {
            return Ok(());
        }
        ensure!(
            Instant::now() < until,
            "{read} bytes were read for key indexes"
        );
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Asks for the history of one topic; gives the times until its first message and until so many have come, in microseconds.
async fn history(address: &str, topic: String, count: u64) -> Result<[u64; 2]> {
    let mut connection = Connection::open(address, "historian", true).await?;
    let began = Instant::now();
    let filter = format!("$replay/earliest/{topic}");
    connection.outgoing.extend(packet::subscribe(1, &filter, 0));
    connection.flush().await?;
    let (mut came, mut first) = (0, 0);
    while came < count {
        let took = u64::try_from(began.elapsed().as_micros())?;
        let receive = connection.receive(|packet, _| {
            if packet.kind() == packet::SUBACK {
                ensure!(packet.body.get(2) == Some(&0), "{filter}: {packet:?}");
                return Ok(());
            }
            let publish = packet.publish()?;
            ensure!(publish.topic == topic.as_bytes(), "{publish:?} came");
            if came == 0 {
                first = u64::try_from(began.elapsed().as_micros())?;
            }
            came += 1;
            Ok(())
        });
        tokio::time::timeout(Duration::from_secs(60), receive)
            .await
            .with_context(|| {
                format!("{came} of {count} messages of {topic} came in {took} µs")
            })??;
    }
    let last = u64::try_from(began.elapsed().as_micros())?;
    connection.close().await?;
    Ok([first, last])
}

/// Messages a second of a replay of all devices, for this long.
async fn everything(address: &str, time: Duration) -> Result<f64> {
    let mut connection = Connection::open(address, "archivist", true).await?;
    connection
        .outgoing
        .extend(packet::subscribe(1, "$replay/earliest/site/#", 0));
    connection.flush().await?;
    let mut given = Given::nothing();
    let began = Instant::now();
    while began.elapsed() < time && given.count < RECORDS {
        connection
            .receive(|packet, _| match packet.kind() {
                packet::SUBACK => Ok(()),
                _ => given.note(&packet.publish()?),
            })
            .await?;
    }
    Ok(given.count as f64 / began.elapsed().as_secs_f64())
}

/// A session that was away while a million messages came.
fn missed(bench: &Bench) -> Result<Vec<Figure>> {
    let mut rate = Figure::new("a million missed messages, QoS 1", "messages/s");
    let mut memory = Figure::new("a million missed messages: memory at most", "MiB");
    let runtime = broker::runtime()?;
    for _ in 0..bench.runs {
        let directory = bench.directory()?;
        let mut victim = filled(bench, directory.path(), 0)?;
        let address = broker::mqtt_address(&victim)?;
        runtime.block_on(async {
            let mut connection = Connection::open(&address, "away", false).await?;
            connection.subscribe("site/#", 1).await?;
            connection.close().await
        })?;
        fill(&victim, MISSED)?;
        let before = victim.anonymous_bytes()?;
        let began = Instant::now();
        let most = runtime.block_on(come_back(&address, &victim))?;
        rate.runs
            .push(MISSED as f64 / began.elapsed().as_secs_f64());
        let more = most.saturating_sub(before);
        memory.runs.push(more as f64 / f64::from(1 << 20));
        bench.progress(&format!(
            "{:.0} missed messages/s, {} KiB more",
            rate.runs.last().copied().unwrap_or_default(),
            more >> 10
        ));
        victim.kill()?;
    }
    Ok(vec![rate, memory])
}

/// Takes what was missed, and acknowledges it. Gives the most memory that the process had meanwhile.
async fn come_back(address: &str, victim: &Victim) -> Result<u64> {
    let mut connection = Connection::open(address, "away", false).await?;
    ensure!(connection.is_resumed, "the session is lost");
    let mut given = Given::nothing();
    let (mut most, mut looked) = (0, Instant::now());
    while given.count < MISSED {
        let receive = connection.receive(|packet, out| {
            let publish = packet.publish()?;
            out.extend(packet::ack(packet::PUBACK, publish.id));
            given.note(&publish)
        });
        let received = tokio::time::timeout(Duration::from_secs(60), receive).await;
        received.with_context(|| format!("{} of {MISSED} messages came", given.count))??;
        connection.flush().await?;
        if looked.elapsed() > Duration::from_millis(50) {
            looked = Instant::now();
            most = most.max(victim.anonymous_bytes()?);
        }
    }
    connection.close().await?;
    Ok(most)
}

const _: () = assert!(RECORDS / RARE_EVERY == ASKED);
