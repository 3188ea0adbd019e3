//! A subscriber of MQTT whose session outlives its connections, and the broker's crashes: part of the load over MQTT.
//! Caller: `mqtt`. It remembers what a client has to: which messages of QoS 2 it has taken and not yet been told to release.
//!
//! K1 its session is there again. K2 once it has caught up it was given every record: at QoS 1 each at least once, and new ones
//! in order; at QoS 2 each once, in order.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};

use super::ledger::id_of;
use super::mqtt::{Connection, PATIENCE, PUBACK, PUBCOMP, PUBREC, PUBREL, packet};

const CLIENT_ID: &str = "kept";

/// The subscriber's memory.
#[derive(Default)]
pub struct Kept {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    has_session: bool,
    unreleased: HashSet<u16>,
    given: Vec<u64>,
}

impl Kept {
    /// Subscribes, if that has not been done: it is given what is published from here on.
    pub fn subscribe(&self, address: &str) -> Result<()> {
        let mut inner = self.held();
        if !inner.has_session {
            let (mut connection, _) = Connection::open_kept(address, CLIENT_ID)?;
            connection.subscribe("exam/#", 2)?;
            inner.has_session = true;
        }
        Ok(())
    }

    /// Takes what comes until it is told to stop or the connection ends.
    pub fn follow(&self, address: &str, stop: &AtomicBool) -> Result<()> {
        let mut inner = self.held();
        let mut connection = inner.connect(address)?;
        while !stop.load(Ordering::Relaxed) {
            inner.take(&mut connection)?;
        }
        Ok(())
    }

    /// Takes what comes until it was given `count` messages or more, and gives the ids of all. None if it never subscribed.
    pub fn catch_up(&self, address: &str, count: usize) -> Result<Option<Vec<u64>>> {
        let mut inner = self.held();
        if !inner.has_session {
            return Ok(None);
        }
        let mut connection = inner.connect(address)?;
        let began = Instant::now();
        let mut distinct: HashSet<u64> = inner.given.iter().copied().collect();
        while distinct.len() < count {
            ensure!(
                began.elapsed() < PATIENCE,
                "K2 of {count} records a kept session gave {} in {PATIENCE:?}",
                distinct.len()
            );
            let known = inner.given.len();
            inner.take(&mut connection).with_context(|| {
                format!(
                    "K2 of {count} records a kept session gave {}",
                    distinct.len()
                )
            })?;
            distinct.extend(&inner.given[known..]);
        }
        Ok(Some(inner.given.clone()))
    }

    fn held(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no thread of the load panics")
    }
}

impl Inner {
    fn connect(&self, address: &str) -> Result<Connection> {
        let (connection, is_present) = Connection::open_kept(address, CLIENT_ID)?;
        ensure!(is_present, "K1 a kept session is gone");
        Ok(connection)
    }

    /// Takes the next packet, and answers it.
    fn take(&mut self, connection: &mut Connection) -> Result<()> {
        let (first, body) = connection.next()?;
        match first & 0xf6 {
            0x32 | 0x34 => {
                let length = usize::from(u16::from_be_bytes([body[0], body[1]]));
                let packet_id = [body[2 + length], body[3 + length]];
                let id = id_of(&body[4 + length..]).context("a message that nobody published")?;
                let is_once = first & 0xf6 == 0x34;
                if !is_once || self.unreleased.insert(u16::from_be_bytes(packet_id)) {
                    self.given.push(id);
                }
                connection.send(&packet(if is_once { PUBREC } else { PUBACK }, &packet_id))
            }
            _ if first == PUBREL => {
                self.unreleased
                    .remove(&u16::from_be_bytes([body[0], body[1]]));
                connection.send(&packet(PUBCOMP, &body))
            }
            _ => bail!("{first:#x} was not to come"),
        }
    }
}
