//! Counters of the Kafka front: requests by key, how long they took, and the errors in answers.
//! Callers: its connections and handlers write, `metrics` reads.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use wire::ApiKey;

/// API keys below this have a counter of their own; no key that is offered lies above.
const KEYS: usize = 128;
/// Upper bounds of the latency histogram's buckets, in microseconds; one more bucket has no bound.
pub(super) const LATENCY_MICROS: [u64; 12] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000, 500_000, 2_500_000, 10_000_000,
];

/// Counters since the start.
#[derive(Debug)]
pub(super) struct Stats {
    /// Bytes of request frames.
    pub(super) received_bytes: AtomicU64,
    /// Bytes of response frames.
    pub(super) sent_bytes: AtomicU64,
    /// Connections that were closed because their peer did not take a whole answer in time.
    pub(super) unread_closed: AtomicU64,
    keys: Vec<Key>,
}

#[derive(Debug, Default)]
struct Key {
    is_asked: AtomicBool,
    micros: AtomicU64,
    buckets: [AtomicU64; LATENCY_MICROS.len() + 1],
    /// Error codes in answers, and how often each.
    errors: Mutex<BTreeMap<i16, u64>>,
}

/// The counters of one API key.
#[derive(Debug, Clone)]
pub(super) struct KeyStats {
    /// The key's name, as in `Fetch`.
    pub(super) name: String,
    /// Sum of the times from the whole frame to the ready reply, microseconds. Waiting for data is in it.
    pub(super) micros: u64,
    /// How many requests fell into each bucket of [`LATENCY_MICROS`] alone; the last one has no bound.
    pub(super) buckets: Vec<u64>,
    /// Errors in answers, by the name of their code.
    pub(super) errors: Vec<(&'static str, u64)>,
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
            received_bytes: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            unread_closed: AtomicU64::new(0),
            keys: (0..KEYS).map(|_| Key::default()).collect(),
        }
    }
}

impl Stats {
    /// Counters of every key that was asked for.
    pub(super) fn keys(&self) -> Vec<KeyStats> {
        let asked = |(code, key): (usize, &Key)| {
            let is_asked = key.is_asked.load(Relaxed);
            let api = i16::try_from(code).ok().and_then(ApiKey::from_code)?;
            is_asked.then(|| KeyStats {
                name: format!("{api:?}"),
                micros: key.micros.load(Relaxed),
                buckets: key
                    .buckets
                    .iter()
                    .map(|count| count.load(Relaxed))
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

    /// Counts the begin of a request.
    pub(super) fn started(&self, key: ApiKey) {
        if let Some(key) = self.key(key) {
            key.is_asked.store(true, Relaxed);
        }
    }

    /// Counts the end of a request, and how long it took.
    pub(super) fn finished(&self, key: ApiKey, took: Duration) {
        if let Some(key) = self.key(key) {
            let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            let bucket = LATENCY_MICROS.partition_point(|bound| *bound < micros);
            key.micros.fetch_add(micros, Relaxed);
            key.buckets[bucket].fetch_add(1, Relaxed);
        }
    }

    /// Counts the error codes of one answer.
    pub(super) fn answered_with(&self, key: ApiKey, errors: &[(i16, u32)]) {
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
