//! Counters of the MQTT front.
//! Callers: its connections write, `metrics` reads.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::packet::Qos;

/// Counters since the start.
#[derive(Debug, Default)]
pub(super) struct Stats {
    /// Bytes of packets from clients.
    pub(super) received_bytes: AtomicU64,
    /// Bytes that were sent to them.
    pub(super) sent_bytes: AtomicU64,
    /// Messages that clients published and that are durable or on their way, by QoS.
    published: [AtomicU64; 3],
    /// Messages that were sent to subscribers, by the QoS that they were sent with.
    delivered: [AtomicU64; 3],
    /// Wills that were published.
    pub(super) wills: AtomicU64,
    /// Subscriptions that are there now.
    pub(super) subscriptions: AtomicU64,
    /// Cursors of subscribers that read by themselves.
    pub(super) readers: AtomicU64,
    /// Times that a subscriber fell behind what comes.
    pub(super) fell_behind: AtomicU64,
    /// Messages that a subscriber was not sent, by why.
    skipped: [AtomicU64; Skipped::ALL.len()],
    /// Messages that were refused with an ack, by its code.
    refused: Mutex<BTreeMap<u8, u64>>,
    /// Connections that the server ended, by the code of its DISCONNECT.
    ended: Mutex<BTreeMap<u8, u64>>,
    /// Clients that were not let in, by the code of their CONNACK.
    not_connected: Mutex<BTreeMap<u8, u64>>,
}

/// Why a subscriber was not sent a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Skipped {
    /// It is longer than the client takes.
    TooLarge,
    /// Its time is over.
    Expired,
    /// It was removed, or cannot be read, before the subscriber came to it.
    Gap,
}

impl Skipped {
    pub(super) const ALL: [Skipped; 3] = [Skipped::TooLarge, Skipped::Expired, Skipped::Gap];

    /// In one word.
    pub(super) fn name(self) -> &'static str {
        match self {
            Skipped::TooLarge => "too_large",
            Skipped::Expired => "expired",
            Skipped::Gap => "gap",
        }
    }
}

impl Stats {
    /// A message was published.
    pub(super) fn published(&self, qos: Qos) {
        self.published[usize::from(qos.number())].fetch_add(1, Relaxed);
    }

    /// A message was sent to a subscriber.
    pub(super) fn delivered(&self, qos: Qos) {
        self.delivered[usize::from(qos.number())].fetch_add(1, Relaxed);
    }

    /// So many messages were not sent to a subscriber.
    pub(super) fn skipped(&self, why: Skipped, count: u64) {
        self.skipped[why as usize].fetch_add(count, Relaxed);
    }

    /// A message was refused.
    pub(super) fn refused(&self, code: u8) {
        count(&self.refused, code);
    }

    /// The server ended a connection.
    pub(super) fn ended(&self, code: u8) {
        count(&self.ended, code);
    }

    /// A client was not let in.
    pub(super) fn not_connected(&self, code: u8) {
        count(&self.not_connected, code);
    }

    /// Messages that were published, by QoS.
    pub(super) fn all_published(&self) -> [u64; 3] {
        self.published.each_ref().map(|count| count.load(Relaxed))
    }

    /// Messages that were delivered, by QoS.
    pub(super) fn all_delivered(&self) -> [u64; 3] {
        self.delivered.each_ref().map(|count| count.load(Relaxed))
    }

    /// Messages that were not sent, by why.
    pub(super) fn all_skipped(&self) -> [(Skipped, u64); Skipped::ALL.len()] {
        Skipped::ALL.map(|why| (why, self.skipped[why as usize].load(Relaxed)))
    }

    /// Refusals, ends, and clients that were not let in, each by code.
    pub(super) fn by_code(&self) -> [BTreeMap<u8, u64>; 3] {
        [&self.refused, &self.ended, &self.not_connected].map(|counts| {
            let counts = counts.lock().expect("nothing panics while it counts");
            counts.clone()
        })
    }
}

fn count(counts: &Mutex<BTreeMap<u8, u64>>, code: u8) {
    let mut counts = counts.lock().expect("nothing panics while it counts");
    *counts.entry(code).or_default() += 1;
}
