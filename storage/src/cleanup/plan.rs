//! What a cleanup policy is shown of a log, and what it wants done, as data. A policy is a pure function from the one to the
//! other; nothing here touches a file.

use model::{LogId, Offset, Timestamp};

use crate::segment::SegmentId;

/// What a policy is shown of one log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogView {
    /// Which log.
    pub log: LogId,
    /// The first offset that is kept.
    pub start_offset: Offset,
    /// Live segments in order; the last one may be active.
    pub segments: Vec<SegmentView>,
    /// Bytes that are in the WAL only.
    pub tail_bytes: u64,
    /// Where what is in the WAL only ends, and when the last batch of it was appended; None if there is nothing.
    pub tail_end: Option<(Offset, Timestamp)>,
}

/// What a policy is shown of one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentView {
    /// Which file.
    pub id: SegmentId,
    /// The offset after its last record.
    pub end_offset: Offset,
    /// Its length.
    pub bytes: u64,
    /// When the broker appended its last batch.
    pub last_append_time: Timestamp,
    /// Whether it is sealed.
    pub sealed: bool,
}

/// Why a segment goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// All its records lie before the start offset: somebody deleted them.
    BelowStart,
    /// Its last batch was appended longer ago than `retention.ms`.
    Age {
        /// How long ago.
        age_ms: u64,
        /// The limit.
        retention_ms: u64,
    },
    /// Without it the log still holds `retention.bytes`.
    Size {
        /// What the log holds with it.
        log_bytes: u64,
        /// The limit.
        retention_bytes: u64,
    },
    /// With it the whole store holds more than `store.bytes.max`, and nothing sealed is older.
    StoreSize {
        /// What the store holds with it.
        store_bytes: u64,
        /// The limit.
        store_bytes_max: u64,
    },
}

/// A segment that goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removal {
    /// Which file.
    pub id: SegmentId,
    /// The offset after its last record.
    pub end_offset: Offset,
    /// Its length.
    pub bytes: u64,
    /// Why.
    pub reason: Reason,
}

/// What should be done to one log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The new start offset, if it rises.
    pub raise_start_to: Option<Offset>,
    /// The segments that go, in order, from the front.
    pub remove: Vec<Removal>,
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        *self == Plan::default()
    }

    /// How many bytes it frees.
    pub fn bytes(&self) -> u64 {
        self.remove.iter().map(|removal| removal.bytes).sum()
    }
}
