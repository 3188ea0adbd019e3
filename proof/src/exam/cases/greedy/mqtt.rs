//! What greedy clients do over MQTT 5, each of many connections. Refusals, and connections that end, are fine answers.
//! What is waited for is told by the broker's metrics.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::PATIENCE;
use crate::exam::mqtt::{packet, publish, text};
use crate::exam::victim::Victim;

const CONNACK: u8 = 0x20;
/// Behind which a connection's bytes are no more looked at.
const ANSWER_BYTES: usize = 16 << 10;
/// The longest packet but for its head: the broker's setting is a MiB.
const LARGE: usize = 1_000_000;
/// A session that is kept for some seconds.
const EXPIRY: [u8; 5] = [0x11, 0, 0, 0, 5];
/// By then those of the kind before have expired.
const LET_IN_WAIT: Duration = Duration::from_secs(30);

/// How long a metric may take to say what is waited for.
const TOLD_WAIT: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A count that stays the same for so many looks has come to its end.
const SAME_LOOKS: usize = 10;

/// The sum of a metric's samples.
fn metric(victim: &Victim, name: &str) -> Result<u64> {
    let (_, page) = victim.get("/metrics")?;
    let of_name = |line: &str| {
        let rest = line.strip_prefix(name)?;
        let is_it = rest.starts_with([' ', '{']);
        is_it.then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
    };
    let mut samples = page.lines().filter_map(of_name).peekable();
    ensure!(samples.peek().is_some(), "/metrics has no {name}");
    Ok(samples.sum::<f64>() as u64)
}

/// Waits until a metric is so large.
fn wait_for(victim: &Victim, name: &str, least: u64) -> Result<()> {
    let deadline = Instant::now() + TOLD_WAIT;
    while metric(victim, name)? < least {
        ensure!(Instant::now() < deadline, "{name} stays below {least}");
        thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

/// Waits until a metric does not rise any more.
fn wait_for_end(victim: &Victim, name: &str) -> Result<()> {
    let deadline = Instant::now() + TOLD_WAIT;
    let (mut last, mut same) = (metric(victim, name)?, 0);
    while same < SAME_LOOKS {
        ensure!(Instant::now() < deadline, "{name} rises on and on");
        thread::sleep(LOOK_EVERY);
        let now = metric(victim, name)?;
        same = if now == last { same + 1 } else { 0 };
        last = now;
    }
    Ok(())
}

/// A client that was let in, or none.
fn client(address: &str, id: &str, properties: &[u8], will: &[u8]) -> Result<Option<TcpStream>> {
    let mut stream = TcpStream::connect(address).context("nobody speaks MQTT")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let flags = if will.is_empty() { 0x02 } else { 0x0e };
    let length = u8::try_from(properties.len())?;
    let head = [&text("MQTT")[..], &[5, flags, 0, 0, length], properties].concat();
    let greeting = packet(0x10, &[&head[..], &text(id), will].concat());
    if stream.write_all(&greeting).is_err() {
        return Ok(None);
    }
    let mut answer = [0; ANSWER_BYTES];
    let count = stream.read(&mut answer).unwrap_or(0);
    let is_let_in = count > 3 && answer[0] == CONNACK && answer[3] == 0;
    Ok(is_let_in.then_some(stream))
}

/// As many clients as are let in: one at least, once there is room for it.
fn clients(
    address: &str,
    kind: &str,
    count: usize,
    (properties, will): (&[u8], &[u8]),
) -> Result<Vec<TcpStream>> {
    let deadline = Instant::now() + LET_IN_WAIT;
    let mut all = Vec::new();
    while all.is_empty() {
        ensure!(Instant::now() < deadline, "{kind}: nobody was let in");
        for number in 0..count {
            all.extend(client(
                address,
                &format!("{kind}-{number}"),
                properties,
                will,
            )?);
        }
    }
    Ok(all)
}

/// Subscribes, and waits for what is said of it.
fn subscribe(stream: &mut TcpStream, filters: impl Iterator<Item = String>) {
    let filters: Vec<u8> = filters
        .flat_map(|it| [text(&it), vec![1]].concat())
        .collect();
    let said = stream.write_all(&packet(0x82, &[&[0, 1, 0][..], &filters].concat()));
    let mut answer = [0; ANSWER_BYTES];
    let _ = said.and_then(|()| stream.read(&mut answer));
}

/// A message of QoS 0 without properties.
fn message(topic: &str, value_bytes: usize) -> Vec<u8> {
    packet(
        0x30,
        &[&text(topic)[..], &[0], &vec![b'v'; value_bytes]].concat(),
    )
}

/// Packets of a MiB that never end, until one is closed because others wait for the memory that it holds.
pub fn half_received(victim: &Victim) -> Result<()> {
    const EVICTED: &str = "alluvium_mqtt_queued_evicted_total";
    let evicted = metric(victim, EVICTED)?;
    let publish = message("greedy/half", LARGE);
    let mut streams = clients(&victim.other("MQTT")?, "half", 300, (&[], &[]))?;
    for stream in &mut streams {
        let _ = stream.write_all(&publish[..LARGE - 1_000]);
    }
    wait_for(victim, EVICTED, evicted + 1)
}

/// Names for all aliases, as long as they may be.
pub fn aliases(address: &str) -> Result<()> {
    let mut streams = clients(address, "alias", 60, (&[], &[]))?;
    for stream in &mut streams {
        for alias in 1..=20 {
            let topic = format!("{alias}/{}", "a".repeat(60_000));
            let body = [&text(&topic)[..], &[3, 0x23, 0, alias]].concat();
            let _ = stream.write_all(&packet(0x30, &body));
        }
    }
    Ok(())
}

/// Sessions that stay, each with as many long filters as may be.
pub fn sessions(address: &str) -> Result<()> {
    for stream in &mut clients(address, "kept", 400, (&EXPIRY, &[]))? {
        for first in [0, 100] {
            let filters = (first..first + 100).map(|it| format!("{it}/{}", "f".repeat(1_200)));
            subscribe(stream, filters);
        }
    }
    Ok(())
}

/// Wills as long as they may be.
pub fn wills(address: &str) -> Result<()> {
    let value = "w".repeat(60_000);
    let will = [&[0][..], &text("greedy/will"), &text(&value)].concat();
    clients(address, "will", 450, (&EXPIRY, &will)).map(drop)
}

/// Retained messages, each under another name.
pub fn retained(address: &str) -> Result<()> {
    let mut stream = client(address, "retains", &[], &[])?.context("it was not let in")?;
    let mut answer = [0; ANSWER_BYTES];
    for number in 0..4_000_u16 {
        let topic = text(&format!("greedy/retained/{number}"));
        let id = (number + 1).to_be_bytes();
        let body = [&topic[..], &id, &[0], &[b'r'; 20_000]].concat();
        stream.write_all(&packet(0x33, &body))?;
        ensure!(stream.read(&mut answer)? > 0, "the connection ended");
    }
    Ok(())
}

/// Messages of nearly a MiB for many who take none, until their sockets take no more.
pub fn not_taken(victim: &Victim) -> Result<()> {
    const PUBLISHED: &str = "alluvium_mqtt_published_total";
    const DELIVERED: &str = "alluvium_mqtt_delivered_total";
    /// More than the sockets' buffers hold.
    const MESSAGES: u64 = 12;
    let address = &victim.other("MQTT")?;
    let before = [metric(victim, PUBLISHED)?, metric(victim, DELIVERED)?];
    let mut streams = clients(address, "deaf", 40, (&[], &[]))?;
    for stream in &mut streams {
        subscribe(stream, std::iter::once("greedy/deaf".to_owned()));
    }
    let mut pump = client(address, "pump", &[], &[])?.context("it was not let in")?;
    pump.set_write_timeout(None)?;
    let large = message("greedy/deaf", LARGE);
    for _ in 0..MESSAGES {
        pump.write_all(&large)?;
    }
    wait_for(victim, PUBLISHED, before[0] + MESSAGES)?;
    wait_for(victim, DELIVERED, before[1] + streams.len() as u64)?;
    wait_for_end(victim, "alluvium_mqtt_sent_bytes_total")
}

/// Messages of QoS 2 that are never released.
pub fn unreleased(address: &str) -> Result<()> {
    let mut streams = clients(address, "unreleased", 100, (&EXPIRY, &[]))?;
    for stream in &mut streams {
        for id in 1..2_000 {
            let body = publish("greedy/unreleased", 2, id, &[0; 1_001]);
            if stream.write_all(&body).is_err() {
                break;
            }
        }
    }
    Ok(())
}
