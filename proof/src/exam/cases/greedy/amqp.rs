//! What greedy clients do over AMQP 1.0, each of many connections. Refusals, and connections that end, are fine answers.
//!
//! Nobody waits for an answer before saying more: no well-made client would.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use amqp::frame::Protocol;
use amqp::message::{SectionKind, put_section};
use amqp::performative::{Attach, Open, Performative, Transfer};
use amqp::terminus::{AnyTarget, Source};
use amqp::{BytesMut, Symbol, Value};
use anyhow::{Context as _, Result, ensure};

use super::PATIENCE;
use crate::amqp_client::said::{self, Ends, Stand};

/// The longest message but for its head: the broker's setting is a MiB.
const LARGE: usize = 1_000_000;
/// Within the broker's longest frame.
const PIECE: usize = 100_000;
const FRAME_BYTES_MAX: u32 = 131_072;
/// Sessions of a connection, but for one.
const CHANNELS: u16 = 255;
const WINDOW: u32 = 100_000;

/// A connection without a session.
fn opened(address: &str, container: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address).context("nobody speaks AMQP")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let open = Performative::Open(Open {
        channel_max: CHANNELS,
        ..said::open(container, FRAME_BYTES_MAX)
    });
    let mut out = BytesMut::from(&Protocol::Amqp.bytes()[..]);
    said::put(&mut out, 0, &open, b"");
    let _ = stream.write_all(&out);
    Ok(stream)
}

fn begin(channel: u16) -> BytesMut {
    said::frame(channel, &Performative::Begin(said::begin(WINDOW)), b"")
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

fn attach(attach: Attach<'_>) -> BytesMut {
    said::frame(0, &Performative::Attach(attach), b"")
}

/// A link that sends to an address.
fn sender(handle: u32, name: &str, address: &str) -> BytesMut {
    let ends = Ends::SendsTo(AnyTarget::Target(said::target(Some(address))));
    attach(Attach {
        source: Some(said::source(Some("here"))),
        ..said::attach(name, handle, ends)
    })
}

/// A link that receives from an address; without one, from a node that is made for it.
fn receiver(handle: u32, address: Option<&str>) -> BytesMut {
    let source = match address {
        Some(_) => said::source(address),
        None => Source {
            dynamic: true,
            expiry_policy: Symbol("never"),
            ..said::source(None)
        },
    };
    let name = format!("receiver-{handle}");
    attach(Attach {
        target: Some(AnyTarget::Target(said::target(Some("here")))),
        ..said::attach(&name, handle, Ends::ReceivesFrom(source))
    })
}

fn credit(handle: u32) -> BytesMut {
    let stand = Stand {
        window: WINDOW,
        ..Stand::default()
    };
    let flow = said::credit(stand, handle, (0, WINDOW), false);
    said::frame(0, &Performative::Flow(flow), b"")
}

/// A piece of a message.
fn transfer(delivery: u32, goes_on: bool, piece: &[u8]) -> BytesMut {
    let tag = delivery.to_be_bytes();
    let transfer = Transfer {
        more: goes_on,
        ..said::transfer(0, delivery, &tag)
    };
    said::frame(0, &Performative::Transfer(transfer), piece)
}

/// A message of one data section, in pieces.
fn message(delivery: u32, bytes: usize) -> Vec<BytesMut> {
    let mut body = BytesMut::new();
    let data = vec![b'v'; bytes];
    put_section(&mut body, SectionKind::Data, &Value::Binary(&data));
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
        let begins = (1..CHANNELS).flat_map(begin);
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
