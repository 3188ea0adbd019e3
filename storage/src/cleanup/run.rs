//! A run of a policy over one log that somebody asked for: what is asked, how far it is, and what was done.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use model::{LogId, Offset};

pub use super::view::Unsealed;
use super::{Plan, Policy};
use crate::error::StorageFailed;
use crate::rewrite::Rewritten;
use crate::segment::SegmentId;

/// How a run is to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunOptions {
    /// What is in the WAL only is settled, the active segment is sealed, and rules are left out that only keep the work small:
    /// `min.cleanable.dirty.ratio`. Never left out are holds, `min.compaction.lag.ms`, `delete.retention.ms`, and the limits
    /// of retention.
    pub now: bool,
    /// Nothing is changed, and the report tells what would go.
    pub dry_run: bool,
    /// Bytes read and written a second; None is the server's setting.
    pub bytes_per_second: Option<u64>,
}

/// How far a run is, and the way to end it. Shared by the one who runs it and those who watch.
#[derive(Debug, Default)]
pub struct Progress {
    bytes_done: AtomicU64,
    bytes_total: AtomicU64,
    passes: AtomicU64,
    cancelled: AtomicBool,
}

impl Progress {
    /// Bytes read so far.
    pub fn bytes_done(&self) -> u64 {
        self.bytes_done.load(Ordering::Relaxed)
    }

    /// Bytes to be read in all, as far as it is known; 0 before the run has looked.
    pub fn bytes_total(&self) -> u64 {
        self.bytes_total.load(Ordering::Relaxed)
    }

    /// Which pass over the log it is, from 1; 0 before the first.
    pub fn pass(&self) -> u64 {
        self.passes.load(Ordering::Relaxed)
    }

    /// Ends the run at the next batch. What it has finished stays, what it was writing is removed.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
    }

    /// Whether it is to end.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// So many more bytes are to be read.
    pub fn expect(&self, bytes: u64) {
        self.bytes_total.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn begin_pass(&self) {
        self.passes.fetch_add(1, Ordering::Relaxed);
    }

    /// So many more bytes were read.
    pub fn done(&self, bytes: u64) {
        self.bytes_done.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// What a run has done, or would do if it was a dry one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The plan that was followed: the first, if there were several passes.
    pub plan: Plan,
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// Somebody ended it: what is told is what was done until then.
    pub is_cut_short: bool,
    /// Of a dry run that was to be as one with [`RunOptions::now`]: what it did not look at, because it is in no sealed segment yet.
    pub unsealed: Unsealed,
    /// Where the log began before.
    pub start_before: Offset,
    /// Where it begins now, or would.
    pub start_after: Offset,
    /// Segments that went as a whole.
    pub segments_removed: u64,
    /// Records that went.
    pub records_removed: u64,
    /// Bytes of segments before, less bytes of what took their place.
    pub bytes_removed: u64,
    /// Bytes read.
    pub bytes_read: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Passes over the log. A dry run makes one, which does not reach all that is dirty where the key map is too small for it.
    pub passes: u64,
    /// Of the records that went: those without a value.
    pub tombstones_removed: u64,
    /// Of the records that went: those without a key.
    pub keyless_removed: u64,
    /// Batches whose records cannot be read, and which stay as they are.
    pub unreadable_batches: u64,
    /// What took the place of which segments; for a dry run each segment by itself.
    pub rewrites: Vec<Rewritten>,
    /// Segments of the log that could not be rewritten, and why.
    pub set_aside: Vec<(SegmentId, Arc<str>)>,
    /// How long it took.
    pub took: Duration,
}

impl Report {
    /// That of a run that had nothing to do.
    pub(crate) fn of_nothing(plan: Plan, start: Offset, options: RunOptions) -> Report {
        Report {
            plan,
            dry_run: options.dry_run,
            is_cut_short: false,
            unsealed: Unsealed::default(),
            start_before: start,
            start_after: start,
            segments_removed: 0,
            records_removed: 0,
            bytes_removed: 0,
            bytes_read: 0,
            bytes_written: 0,
            passes: 0,
            tombstones_removed: 0,
            keyless_removed: 0,
            unreadable_batches: 0,
            rewrites: Vec::new(),
            set_aside: Vec::new(),
            took: Duration::ZERO,
        }
    }
}

/// Why a run could not be done, or not to its end.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CleanupError {
    /// There is no such log, or not any more.
    #[error("there is no log {0}")]
    NoLog(LogId),
    /// The policy is over the whole store, not over a log.
    #[error("{0} is a bound of the whole store and cannot be run for one log")]
    NotOfOneLog(Policy),
    /// Somebody ended it.
    #[error("the run was cancelled")]
    Cancelled,
    /// There is no space for what it has to write.
    #[error("the disk is full")]
    DiskFull,
    /// The start of the log could not be raised.
    #[error("the log start offset could not be raised: {0}")]
    StartNotRaised(Arc<str>),
    /// The store has failed.
    #[error(transparent)]
    Failed(#[from] StorageFailed),
}
