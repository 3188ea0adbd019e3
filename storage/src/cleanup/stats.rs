//! What compaction tells of itself: counts since the start, and how it is now.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use super::run::Report;

/// What compaction has done since the start, and how it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompactionMetrics {
    /// Runs that found something to do, whether they came to their end or not.
    pub runs: u64,
    /// Bytes read.
    pub bytes_read: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Records that went.
    pub records_removed: u64,
    /// Of those: tombstones.
    pub tombstones_removed: u64,
    /// Time spent.
    pub time: Duration,
    /// Errors: runs that ended early, and segments that were set aside.
    pub errors: u64,
    /// The last of them.
    pub last_error: Option<String>,
    /// Logs with segments that are set aside, at the last look.
    pub uncleanable_logs: u64,
    /// How long the log that waits longest is past its `max.compaction.lag.ms`, at the last look.
    pub delay_max: Duration,
}

/// The counters behind [`CompactionMetrics`].
#[derive(Debug, Default)]
pub(crate) struct CompactionCounters(Mutex<CompactionMetrics>);

impl CompactionCounters {
    fn locked(&self) -> MutexGuard<'_, CompactionMetrics> {
        self.0
            .lock()
            .expect("nothing panics while it holds the counters")
    }

    pub fn get(&self) -> CompactionMetrics {
        self.locked().clone()
    }

    pub fn ran(&self, report: &Report) {
        let mut counters = self.locked();
        counters.runs += 1;
        counters.bytes_read += report.bytes_read;
        counters.bytes_written += report.bytes_written;
        counters.records_removed += report.records_removed;
        counters.tombstones_removed += report.tombstones_removed;
        counters.time += report.took;
    }

    pub fn failed(&self, error: &str) {
        let mut counters = self.locked();
        counters.errors += 1;
        counters.last_error = Some(error.to_owned());
    }

    pub fn looked(&self, uncleanable_logs: u64, delay_ms: u64) {
        let mut counters = self.locked();
        counters.uncleanable_logs = uncleanable_logs;
        counters.delay_max = Duration::from_millis(delay_ms);
    }
}
