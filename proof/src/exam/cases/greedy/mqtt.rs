//! What greedy clients do over MQTT 5, each of many connections. Refusals, and connections that end, are fine answers.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::PATIENCE;
use crate::exam::mqtt::{packet, publish, text};

const CONNACK: u8 = 0x20;
/// Behind which a connection's bytes are no more looked at.
const ANSWER_BYTES: usize = 16 << 10;
/// The longest packet but for its head: the broker's setting is a MiB.
const LARGE: usize = 1_000_000;
/// A session that is kept for some seconds.
const EXPIRY: [u8; 5] = [0x11, 0, 0, 0, 5];
/// By then those of the kind before have expired.
const LET_IN_WAIT: Duration = Duration::from_secs(30);

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

/// Packets of a MiB that never end.
pub fn half_received(address: &str) -> Result<()> {
    let publish = message("greedy/half", LARGE);
    let mut streams = clients(address, "half", 300, (&[], &[]))?;
    for stream in &mut streams {
        let _ = stream.write_all(&publish[..LARGE - 1_000]);
    }
    thread::sleep(Duration::from_secs(1));
    Ok(())
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

/// Messages of nearly a MiB for many who take none.
pub fn not_taken(address: &str) -> Result<()> {
    let mut streams = clients(address, "deaf", 40, (&[], &[]))?;
    for stream in &mut streams {
        subscribe(stream, std::iter::once("greedy/deaf".to_owned()));
    }
    let mut pump = client(address, "pump", &[], &[])?.context("it was not let in")?;
    pump.set_write_timeout(None)?;
    let large = message("greedy/deaf", LARGE);
    // More than the sockets' buffers hold.
    for _ in 0..12 {
        pump.write_all(&large)?;
    }
    thread::sleep(Duration::from_secs(3));
    Ok(())
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
