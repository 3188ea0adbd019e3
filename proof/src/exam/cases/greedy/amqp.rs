//! What greedy clients do over AMQP 1.0, each of many connections. Refusals, and connections that end, are fine answers.
//!
//! Frames are put together by hand: what is said here no well-made client would say.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::PATIENCE;

const OPEN: u8 = 0x10;
const BEGIN: u8 = 0x11;
const ATTACH: u8 = 0x12;
const FLOW: u8 = 0x13;
const TRANSFER: u8 = 0x14;
const SOURCE: u8 = 0x28;
const TARGET: u8 = 0x29;
const NULL: &[u8] = &[0x40];
const TRUE: &[u8] = &[0x41];
const FALSE: &[u8] = &[0x42];
/// The longest message but for its head: the broker's setting is a MiB.
const LARGE: usize = 1_000_000;
/// Within the broker's longest frame.
const PIECE: usize = 100_000;

fn uint(number: u32) -> Vec<u8> {
    [&[0x70][..], &number.to_be_bytes()].concat()
}

fn ushort(number: u16) -> Vec<u8> {
    [&[0x60][..], &number.to_be_bytes()].concat()
}

fn ubyte(number: u8) -> Vec<u8> {
    vec![0x50, number]
}

/// Bytes behind their constructor and length.
fn variable(constructor: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("short");
    [&[constructor][..], &length.to_be_bytes(), bytes].concat()
}

fn string(text: &str) -> Vec<u8> {
    variable(0xb1, text.as_bytes())
}

/// A described list of fields.
fn described(descriptor: u8, fields: &[&[u8]]) -> Vec<u8> {
    let count = u32::try_from(fields.len()).expect("few");
    let list = [&count.to_be_bytes()[..], &fields.concat()].concat();
    [&[0, 0x53, descriptor][..], &variable(0xd0, &list)].concat()
}

fn frame(channel: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(8 + body.len()).expect("short");
    [&length.to_be_bytes()[..], &[2, 0, 0, channel], body].concat()
}

/// A connection without a session.
fn opened(address: &str, container: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address).context("nobody speaks AMQP")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let fields = [&string(container)[..], NULL, &uint(131_072), &ushort(255)];
    let open = frame(0, &described(OPEN, &fields));
    let _ = stream.write_all(&[&b"AMQP\0\x01\0\0"[..], &open].concat());
    Ok(stream)
}

fn begin(channel: u8) -> Vec<u8> {
    let many = uint(100_000);
    let fields = [NULL, &uint(0), &many, &many, &uint(10_000)];
    frame(channel, &described(BEGIN, &fields))
}

/// Connections with a session each.
fn connections(address: &str, kind: &str, count: usize) -> Result<Vec<TcpStream>> {
    let one = |number| {
        let mut stream = opened(address, &format!("{kind}-{number}"))?;
        let _ = stream.write_all(&begin(0));
        Ok(stream)
    };
    let mut all = (0..count).map(one).collect::<Result<Vec<_>>>()?;
    ensure!(!heard(&mut all[0])?.is_empty(), "{kind}: nothing was said");
    Ok(all)
}

/// What was said within a moment, as far as it is short.
fn heard(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let mut answer = vec![0; 64 << 10];
    let count = stream.read(&mut answer).unwrap_or(0);
    answer.truncate(count);
    Ok(answer)
}

/// A link that sends to an address.
fn sender(handle: u32, name: &str, address: &str) -> Vec<u8> {
    let (source, target) = (string("here"), string(address));
    let (source, target) = (described(SOURCE, &[&source]), described(TARGET, &[&target]));
    let (name, handle) = (string(name), uint(handle));
    let fields: [&[u8]; 10] = [
        &name,
        &handle,
        FALSE,
        &ubyte(2),
        &ubyte(0),
        &source,
        &target,
        NULL,
        NULL,
        &uint(0),
    ];
    frame(0, &described(ATTACH, &fields))
}

/// A link that receives from an address; without one, from a node that is made for it.
fn receiver(handle: u32, address: Option<&str>) -> Vec<u8> {
    let never = variable(0xb3, b"never");
    let source = match address {
        Some(address) => described(SOURCE, &[&string(address)]),
        None => described(SOURCE, &[NULL, &uint(0), &never, &uint(0), TRUE]),
    };
    let target = described(TARGET, &[&string("here")]);
    let (name, number) = (string(&format!("receiver-{handle}")), uint(handle));
    let fields: [&[u8]; 7] = [&name, &number, TRUE, &ubyte(2), &ubyte(0), &source, &target];
    frame(0, &described(ATTACH, &fields))
}

fn credit(handle: u32) -> Vec<u8> {
    let many = uint(100_000);
    let fields: [&[u8]; 7] = [
        &uint(0),
        &many,
        &uint(0),
        &many,
        &uint(handle),
        &uint(0),
        &many,
    ];
    frame(0, &described(FLOW, &fields))
}

/// A piece of a message.
fn transfer(delivery: u32, goes_on: bool, piece: &[u8]) -> Vec<u8> {
    let tag = variable(0xb0, &delivery.to_be_bytes());
    let goes_on = if goes_on { TRUE } else { FALSE };
    let fields: [&[u8]; 6] = [&uint(0), &uint(delivery), &tag, &uint(0), FALSE, goes_on];
    frame(0, &[&described(TRANSFER, &fields)[..], piece].concat())
}

/// A message of one data section, in pieces.
fn message(delivery: u32, bytes: usize) -> Vec<Vec<u8>> {
    let body = [&[0, 0x53, 0x75][..], &variable(0xb0, &vec![b'v'; bytes])].concat();
    let mut pieces = body.chunks(PIECE).peekable();
    let mut all = Vec::new();
    while let Some(piece) = pieces.next() {
        all.push(transfer(delivery, pieces.peek().is_some(), piece));
    }
    all
}

/// Messages of a MiB that never end.
pub fn half_received(address: &str) -> Result<()> {
    let mut pieces = message(0, LARGE);
    pieces.pop();
    let mut streams = connections(address, "half", 300)?;
    for stream in &mut streams {
        let _ = stream.write_all(&sender(0, "half", "greedy-half"));
    }
    thread::sleep(Duration::from_secs(1));
    for stream in &mut streams {
        let _ = pieces.iter().try_for_each(|piece| stream.write_all(piece));
    }
    thread::sleep(Duration::from_secs(1));
    Ok(())
}

/// All sessions of a connection, and in one of them more links than may be, with long names.
pub fn sessions_and_links(address: &str) -> Result<()> {
    let mut streams = connections(address, "links", 100)?;
    for stream in &mut streams {
        let begins = (1..255).flat_map(begin);
        let _ = stream.write_all(&begins.collect::<Vec<u8>>());
        for handle in 0..1_100 {
            let name = format!("{handle}-{}", "n".repeat(1_000));
            if stream
                .write_all(&sender(handle, &name, "greedy-links"))
                .is_err()
            {
                break;
            }
        }
    }
    thread::sleep(Duration::from_secs(1));
    Ok(())
}

/// Nodes that are made for their receivers.
pub fn temporary_nodes(address: &str) -> Result<()> {
    let mut streams = connections(address, "temporary", 20)?;
    for stream in &mut streams {
        let receivers = (0..120).flat_map(|handle| receiver(handle, None));
        let _ = stream.write_all(&receivers.collect::<Vec<u8>>());
    }
    thread::sleep(Duration::from_secs(2));
    Ok(())
}

/// Messages of nearly a MiB for many who take none.
pub fn not_taken(address: &str) -> Result<()> {
    let mut pump = connections(address, "pump", 1)?.remove(0);
    pump.write_all(&sender(0, "pump", "/topics/greedy-deaf"))?;
    thread::sleep(Duration::from_millis(500));
    let mut streams = connections(address, "deaf", 40)?;
    for stream in &mut streams {
        let receiver = [receiver(0, Some("/topics/greedy-deaf")), credit(0)].concat();
        let _ = stream.write_all(&receiver);
    }
    thread::sleep(Duration::from_secs(1));
    pump.set_write_timeout(None)?;
    for delivery in 0..12 {
        for piece in message(delivery, LARGE) {
            pump.write_all(&piece)?;
        }
    }
    thread::sleep(Duration::from_secs(3));
    Ok(())
}
