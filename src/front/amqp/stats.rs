//! Counters of the AMQP front.
//! Callers: its connections write, `metrics` reads.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counters since the start.
#[derive(Debug, Default)]
pub(super) struct Stats {
    /// Bytes of frames from clients.
    pub(super) received_bytes: AtomicU64,
    /// Bytes that were sent to them.
    pub(super) sent_bytes: AtomicU64,
    /// Links that are attached now: those of senders, of consumers of queues, and cursors.
    pub(super) producers: AtomicU64,
    pub(super) consumers: AtomicU64,
    pub(super) cursors: AtomicU64,
    /// Links to the coordinator of transactions.
    pub(super) coordinators: AtomicU64,
    /// Links to nodes that answer.
    pub(super) requests: AtomicU64,
    /// Temporary nodes that there are now.
    pub(super) temporaries: AtomicU64,
    /// Deliveries that clients sent, by what became of them.
    received: [AtomicU64; Became::ALL.len()],
    /// Deliveries that were sent to receivers.
    pub(super) delivered: AtomicU64,
    /// Records that a receiver was not sent, as they are longer than it takes, or gone.
    pub(super) skipped: AtomicU64,
    /// Messages of queues that were given to nobody, as their time was over.
    pub(super) expired: AtomicU64,
    /// Links, sessions and connections that the server ended or did not let in, by condition.
    ended: Mutex<BTreeMap<&'static str, u64>>,
}

/// What became of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Became {
    /// It is durable.
    Accepted,
    /// It never will be.
    Rejected,
    /// It can be sent again.
    Released,
}

impl Became {
    pub(super) const ALL: [Became; 3] = [Became::Accepted, Became::Rejected, Became::Released];

    /// In one word.
    pub(super) fn name(self) -> &'static str {
        match self {
            Became::Accepted => "accepted",
            Became::Rejected => "rejected",
            Became::Released => "released",
        }
    }
}

impl Stats {
    /// A delivery that a client sent is decided.
    pub(super) fn became(&self, what: Became) {
        self.received[what as usize].fetch_add(1, Relaxed);
    }

    /// Something was ended with a condition.
    pub(super) fn ended(&self, condition: &'static str) {
        let mut ended = self.ended.lock().expect("nothing panics while it counts");
        *ended.entry(condition).or_default() += 1;
    }

    /// Deliveries that clients sent, by what became of them.
    pub(super) fn all_received(&self) -> [(Became, u64); Became::ALL.len()] {
        Became::ALL.map(|what| (what, self.received[what as usize].load(Relaxed)))
    }

    /// What was ended, by condition.
    pub(super) fn all_ended(&self) -> BTreeMap<&'static str, u64> {
        let ended = self.ended.lock().expect("nothing panics while it counts");
        ended.clone()
    }
}
