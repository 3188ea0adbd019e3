//! What the store tells of itself: its health, counts since the start, and sizes now. Nothing here waits for the disk.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::cleanup::Uncleanable;
use crate::damage::Damage;

/// How the store is.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// There is no space; appends are refused until there is.
    pub disk_full: bool,
    /// A write or sync has failed.
    pub failed: Option<String>,
    /// The disk does not answer: an append has waited this long for it.
    pub stalled: Option<Duration>,
    /// Acknowledged records that cannot be read any more, and that are still kept.
    pub damage: Vec<Damage>,
    /// The same, where an operator has acknowledged the damage.
    pub damage_acknowledged: Vec<Damage>,
    /// Segments that could not be cleaned up, and are left out.
    pub uncleanable: Vec<Uncleanable>,
}

/// Counts since the start, and sizes now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Frames written.
    pub frames: u64,
    /// Syncs of the WAL for frames.
    pub syncs: u64,
    /// Bytes of batches appended.
    pub appended_bytes: u64,
    /// Bytes of batches moved into segments.
    pub settled_bytes: u64,
    /// Checkpoints stored.
    pub checkpoints: u64,
    /// Bytes written for them.
    pub checkpoint_bytes: u64,
    /// Bytes of sealed segments that the scrub has verified.
    pub scrubbed_bytes: u64,
    /// Sealed segments that the scrub has verified to their end.
    pub scrubbed_segments: u64,
    /// Places that the scrub has found damaged.
    pub scrub_faults: u64,
    /// Places that the check before the first read has found damaged.
    pub read_faults: u64,
    /// Indexes that were missing or damaged, and were written again from their logs.
    pub rewritten_indexes: u64,
    /// Bytes of segments that were removed because the whole store was larger than its bound.
    pub bound_removed_bytes: u64,
    /// Bytes that wait for the committer.
    pub queued_bytes: u64,
    /// WAL files that hold something unsettled.
    pub wal_files_used: u64,
    /// WAL files in all.
    pub wal_files: u64,
    /// WAL files at most.
    pub wal_files_max: u64,
    /// WAL files that were made and filled with zeros since the start; the others were used again.
    pub wal_files_created: u64,
    /// Logs.
    pub logs: u64,
    /// Idempotent producers that logs remember, counted once in each.
    pub producers: u64,
    /// Producers that were forgotten before they expired, to make room for others.
    pub producers_forgotten: u64,
    /// Batches of new producers that were refused because there are too many.
    pub producers_refused: u64,
    /// Deleted files that are read still.
    pub pinned_files: u64,
    /// Their bytes.
    pub pinned_bytes: u64,
    /// What was done for key indexes.
    pub key_indexes: KeyIndexMetrics,
}

/// What was done for key indexes since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyIndexMetrics {
    /// Key indexes made.
    pub built: u64,
    /// Bytes of the segments that they index.
    pub indexed_bytes: u64,
    /// Their own bytes.
    pub written_bytes: u64,
    /// Segments that could not be read, or whose key index could not be written.
    pub failed: u64,
}

/// The counters behind [`Metrics`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub frames: AtomicU64,
    pub syncs: AtomicU64,
    pub appended_bytes: AtomicU64,
    pub settled_bytes: AtomicU64,
    /// Bytes that readers had to wait for, because they were not in memory.
    pub cold_read_bytes: AtomicU64,
    pub checkpoints: AtomicU64,
    pub checkpoint_bytes: AtomicU64,
    pub scrubbed_bytes: AtomicU64,
    pub scrubbed_segments: AtomicU64,
    pub scrub_faults: AtomicU64,
    pub read_faults: AtomicU64,
    pub rewritten_indexes: AtomicU64,
    pub bound_removed_bytes: AtomicU64,
}

impl Counters {
    pub fn frame(&self, bytes: u64, synced: bool) {
        self.frames.fetch_add(1, Ordering::Relaxed);
        self.syncs.fetch_add(u64::from(synced), Ordering::Relaxed);
        self.appended_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The metrics that are counts; the others are zero.
    pub fn counted(&self) -> Metrics {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Metrics {
            frames: count(&self.frames),
            syncs: count(&self.syncs),
            appended_bytes: count(&self.appended_bytes),
            settled_bytes: count(&self.settled_bytes),
            checkpoints: count(&self.checkpoints),
            checkpoint_bytes: count(&self.checkpoint_bytes),
            scrubbed_bytes: count(&self.scrubbed_bytes),
            scrubbed_segments: count(&self.scrubbed_segments),
            scrub_faults: count(&self.scrub_faults),
            read_faults: count(&self.read_faults),
            rewritten_indexes: count(&self.rewritten_indexes),
            bound_removed_bytes: count(&self.bound_removed_bytes),
            ..Metrics::default()
        }
    }
}
