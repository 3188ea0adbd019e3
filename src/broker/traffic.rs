//! What goes into topics and out of them, counted since the start of the process.
//! Callers: produce, fetch, and who shows the counters. A topic that is created again counts anew.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The counters of one topic.
#[derive(Debug, Default)]
pub struct Traffic {
    appended_records: AtomicU64,
    appended_bytes: AtomicU64,
    fetched_bytes: AtomicU64,
}

impl Traffic {
    /// A batch was appended.
    pub(super) fn appended(&self, records: u64, bytes: u64) {
        self.appended_records.fetch_add(records, Relaxed);
        self.appended_bytes.fetch_add(bytes, Relaxed);
    }

    /// Batches go to a reader.
    pub fn fetched(&self, bytes: u64) {
        self.fetched_bytes.fetch_add(bytes, Relaxed);
    }

    /// Records of the batches that were appended.
    pub fn appended_records(&self) -> u64 {
        self.appended_records.load(Relaxed)
    }

    /// Bytes of the batches that were appended, as they are stored.
    pub fn appended_bytes(&self) -> u64 {
        self.appended_bytes.load(Relaxed)
    }

    /// Bytes of the batches that went to readers.
    pub fn fetched_bytes(&self) -> u64 {
        self.fetched_bytes.load(Relaxed)
    }
}
