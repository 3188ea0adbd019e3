//! Counters of the Kafka front. Written by its connections, read by the front that shows metrics: it stands between the
//! two, as fronts do not know each other.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use wire::ApiKey;

use super::budget::Budget;
pub use super::budget::Use;
use super::peers::Peers;

/// API keys below this have a counter of their own; no key that is offered lies above.
const KEYS: usize = 128;
/// Upper bounds of the latency histogram's buckets, in microseconds; one more bucket has no bound.
const LATENCY_MICROS: [u64; 12] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000, 500_000, 2_500_000, 10_000_000,
];

/// Counters since the start.
#[derive(Debug)]
pub struct Stats {
    /// Connections accepted.
    pub accepted: AtomicU64,
    /// Connections that are open now.
    pub connections: AtomicU64,
    /// The same, one by one.
    pub peers: Peers,
    /// Bytes of request frames.
    pub received_bytes: AtomicU64,
    /// Bytes of response frames.
    pub sent_bytes: AtomicU64,
    /// Connections to the Kafka port that had to make room for others.
    pub made_room: AtomicU64,
    /// Connections to the HTTP port that had to make room for others.
    pub http_made_room: AtomicU64,
    /// Connections that were closed because their peer did not take a whole answer in time.
    pub unread_closed: AtomicU64,
    /// What requests and answers hold, once the Kafka front runs.
    budgets: OnceLock<[Arc<Budget>; 2]>,
    keys: Vec<Key>,
}

#[derive(Debug, Default)]
struct Key {
    started: AtomicU64,
    finished: AtomicU64,
    micros: AtomicU64,
    buckets: [AtomicU64; LATENCY_MICROS.len() + 1],
    /// Error codes in answers, and how often each.
    errors: Mutex<BTreeMap<i16, u64>>,
}

/// The counters of one API key.
#[derive(Debug, Clone)]
pub struct KeyStats {
    /// The key's name, as in `Fetch`.
    pub name: String,
    /// Requests begun.
    pub started: u64,
    /// Requests answered.
    pub finished: u64,
    /// Sum of the times from the whole frame to the ready reply, microseconds. Waiting for data is in it.
    pub micros: u64,
    /// Upper bounds in microseconds (`None`: no bound) and how many requests took at most this long, not cumulated.
    pub buckets: Vec<(Option<u64>, u64)>,
    /// Errors in answers, by the name of their code.
    pub errors: Vec<(&'static str, u64)>,
}

impl Key {
    fn errors(&self) -> MutexGuard<'_, BTreeMap<i16, u64>> {
        self.errors
            .lock()
            .expect("nothing panics while it holds the errors")
    }
}

impl Default for Stats {
    fn default() -> Stats {
        Stats {
            accepted: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            peers: Peers::default(),
            received_bytes: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            made_room: AtomicU64::new(0),
            http_made_room: AtomicU64::new(0),
            unread_closed: AtomicU64::new(0),
            budgets: OnceLock::new(),
            keys: (0..KEYS).map(|_| Key::default()).collect(),
        }
    }
}

impl Stats {
    /// Counters of every key that was asked for.
    pub fn keys(&self) -> Vec<KeyStats> {
        let asked = |(code, key): (usize, &Key)| {
            let started = key.started.load(Relaxed);
            let api = i16::try_from(code).ok().and_then(ApiKey::from_code)?;
            (started > 0).then(|| KeyStats {
                name: format!("{api:?}"),
                started,
                finished: key.finished.load(Relaxed),
                micros: key.micros.load(Relaxed),
                buckets: LATENCY_MICROS
                    .iter()
                    .map(|bound| Some(*bound))
                    .chain([None])
                    .zip(key.buckets.iter().map(|count| count.load(Relaxed)))
                    .collect(),
                errors: key
                    .errors()
                    .iter()
                    .map(|(code, count)| (wire::error_name(*code), *count))
                    .collect(),
            })
        };
        self.keys.iter().enumerate().filter_map(asked).collect()
    }

    /// What requests hold of their memory, and what answers hold of theirs.
    pub fn memory(&self) -> Option<[Use; 2]> {
        let budgets = self.budgets.get()?;
        Some(budgets.each_ref().map(|budget| budget.usage()))
    }

    /// Shows these budgets from now on: that of requests, that of answers.
    pub(in crate::front) fn show(&self, requests: &Arc<Budget>, answers: &Arc<Budget>) {
        let budgets = [requests.clone(), answers.clone()];
        assert!(
            self.budgets.set(budgets).is_ok(),
            "one front writes these counters"
        );
    }

    /// Counts a connection as open until the guard is dropped.
    pub(in crate::front) fn open(self: &Arc<Stats>) -> Open {
        self.connections.fetch_add(1, Relaxed);
        Open(self.clone())
    }

    pub(in crate::front) fn started(&self, key: ApiKey) {
        if let Some(key) = self.key(key) {
            key.started.fetch_add(1, Relaxed);
        }
    }

    pub(in crate::front) fn finished(&self, key: ApiKey, took: Duration) {
        if let Some(key) = self.key(key) {
            let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            let bucket = LATENCY_MICROS.partition_point(|bound| *bound < micros);
            key.finished.fetch_add(1, Relaxed);
            key.micros.fetch_add(micros, Relaxed);
            key.buckets[bucket].fetch_add(1, Relaxed);
        }
    }

    /// Counts the error codes of one answer.
    pub(in crate::front) fn answered_with(&self, key: ApiKey, errors: &[(i16, u32)]) {
        let Some(key) = self.key(key).filter(|_| !errors.is_empty()) else {
            return;
        };
        let mut known = key.errors();
        for (code, count) in errors {
            *known.entry(*code).or_default() += u64::from(*count);
        }
    }

    fn key(&self, key: ApiKey) -> Option<&Key> {
        usize::try_from(key.code())
            .ok()
            .and_then(|code| self.keys.get(code))
    }
}

/// An open connection's count.
pub(in crate::front) struct Open(Arc<Stats>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}
