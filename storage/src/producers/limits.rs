//! How many idempotent producers are remembered: in one log, and in all logs together.
//!
//! Callers: an append, which makes room for new ones or refuses them; the settler and the cleaner, which forget those that have
//! expired. The count of all logs is exact after each look at all of them, and off by what was appended meanwhile in between.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use model::Timestamp;

/// Producers that are idle for so long make room for new ones where there are too many. Clients give a batch up after two
/// minutes (`delivery.timeout.ms`).
pub(crate) const PRODUCER_IDLE_MS: i64 = 15 * 60_000;

/// Producers that appended nothing since these times are not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeptSince {
    /// They have expired.
    pub expired: Timestamp,
    /// They have been idle for long enough: the same time, or a later one while there are nearly as many as there may be.
    pub idle: Timestamp,
}

/// A bound that more producers would pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooMany {
    /// How many there are.
    pub count: u64,
    /// The setting that is the bound.
    pub setting: &'static str,
}

/// The bounds, and how many there are.
#[derive(Debug)]
pub(crate) struct ProducerLimits {
    per_log_max: usize,
    all_max: u64,
    expiry_ms: i64,
    known: AtomicU64,
    forgotten: AtomicU64,
    refused: AtomicU64,
}

impl ProducerLimits {
    pub fn new(per_log_max: usize, all_max: u64, expiry: Duration) -> ProducerLimits {
        ProducerLimits {
            per_log_max,
            all_max,
            expiry_ms: i64::try_from(expiry.as_millis()).unwrap_or(i64::MAX),
            known: AtomicU64::new(0),
            forgotten: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// Producers that one log remembers at most.
    pub fn per_log_max(&self) -> usize {
        self.per_log_max
    }

    /// Producers that all logs remember.
    pub fn known(&self) -> u64 {
        self.known.load(Relaxed)
    }

    /// Producers that were forgotten before they expired.
    pub fn forgotten(&self) -> u64 {
        self.forgotten.load(Relaxed)
    }

    /// Batches of new producers that were refused.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// The bound that `more` producers pass in a log that knows `known`, if they pass one.
    pub fn passed_by(&self, known: usize, more: usize) -> Option<TooMany> {
        let all = self.known();
        if known + more > self.per_log_max {
            let (count, setting) = (known as u64, "producer.ids.per.partition.max");
            Some(TooMany { count, setting })
        } else if all + more as u64 > self.all_max {
            let (count, setting) = (all, "producer.ids.max");
            Some(TooMany { count, setting })
        } else {
            None
        }
    }

    /// A log remembers so many more.
    pub fn added(&self, count: u64) {
        if count > 0 {
            self.known.fetch_add(count, Relaxed);
        }
    }

    /// So many are gone with their log.
    pub fn gone(&self, count: u64) {
        // What was counted anew meanwhile may be less.
        let less = |known: u64| Some(known.saturating_sub(count));
        let _ = self.known.fetch_update(Relaxed, Relaxed, less);
    }

    /// So many were forgotten before they expired, and are gone.
    pub fn forgot(&self, count: u64) {
        self.gone(count);
        self.forgot_early(count);
    }

    /// So many were forgotten before they expired.
    pub fn forgot_early(&self, count: u64) {
        self.forgotten.fetch_add(count, Relaxed);
    }

    /// A batch of a new producer was refused.
    pub fn refuse(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    /// All logs were looked at. What was appended meanwhile may count twice or not at all until the next time.
    pub fn recounted(&self, known: u64) {
        self.known.store(known, Relaxed);
    }

    /// Which producers are kept at this time.
    pub fn kept_since(&self, now: Timestamp) -> KeptSince {
        let idle_ms = if self.known() >= self.all_max - self.all_max / 10 {
            self.expiry_ms.min(PRODUCER_IDLE_MS)
        } else {
            self.expiry_ms
        };
        assert!(idle_ms <= self.expiry_ms, "what has expired is idle");
        KeptSince {
            expired: now.plus_millis(-self.expiry_ms),
            idle: now.plus_millis(-idle_ms),
        }
    }
}
