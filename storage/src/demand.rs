//! What producers and readers ask of the disk, to whom background work gives way: a sync of the write-ahead log waits for the reads
//! and writes that are before it in the disk's queue.
//!
//! Callers: the key indexer, which reads the more slowly the more is asked; the pace of a cleanup, which reads and writes less at a
//! time; the settler, which lets compacted logs go past the page cache. Asked is what is appended, and what readers had to wait for
//! because it was not in memory.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::io::Clock;
use crate::metrics::Counters;

/// How often it is looked what was asked.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
const MIB: f64 = (1 << 20) as f64;

/// See the module.
#[derive(Debug)]
pub(crate) struct Demand {
    clock: Arc<dyn Clock>,
    counters: Arc<Counters>,
    looked: Mutex<Looked>,
}

/// How it was when it was last looked.
#[derive(Debug, Default)]
struct Looked {
    at: Duration,
    bytes: u64,
    mib_per_second: u64,
}

impl Demand {
    pub fn new(clock: Arc<dyn Clock>, counters: Arc<Counters>) -> Demand {
        Demand {
            clock,
            counters,
            looked: Mutex::default(),
        }
    }

    /// How many whole MiB a second were asked for when it was last looked, a tenth of a second ago at most if anybody asks.
    pub fn mib_per_second(&self) -> u64 {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let bytes = count(&self.counters.appended_bytes) + count(&self.counters.cold_read_bytes);
        let looked = self.looked.lock();
        let mut looked = looked.expect("nothing panics while it holds what was asked");
        looked.look(self.clock.monotonic(), bytes)
    }
}

impl Looked {
    fn look(&mut self, now: Duration, bytes: u64) -> u64 {
        let time = now.saturating_sub(self.at);
        if time >= LOOK_INTERVAL {
            let asked = bytes.saturating_sub(self.bytes) as f64;
            *self = Looked {
                at: now,
                bytes,
                mib_per_second: (asked / time.as_secs_f64() / MIB) as u64,
            };
        }
        self.mib_per_second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_known_within_a_tenth_of_a_second_and_no_longer_than_it_is_asked() {
        let mut looked = Looked::default();
        let at = Duration::from_millis;
        assert_eq!(looked.look(at(1_000), 1_000), 0);
        // Not looked again so soon.
        assert_eq!(looked.look(at(1_050), 100 << 20), 0);
        assert_eq!(looked.look(at(1_200), (100 << 20) + 1_000), 500);
        assert_eq!(looked.look(at(1_250), 100 << 20), 500);
        // Half a MiB a second, and two.
        assert_eq!(looked.look(at(1_300), (100 << 20) + (50 << 10)), 0);
        assert_eq!(looked.look(at(1_400), (100 << 20) + (255 << 10)), 2);
    }
}
