//! What is asked of a replay or a subscription, and what it tells beside records.
//!
//! Callers: fronts make requests; the reader and its users read them. Plain values.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use model::batch::{NAME_HEADER, RecordRef};
use model::time_spec::Position;
use model::{Offset, PartitionId, Timestamp};
use storage::{Bounds, GapReason as StoredGap, Sought};

use crate::broker::Refusal;

/// A place in each of a topic's partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The first record that is kept.
    Earliest,
    /// The durable end at the request.
    Latest,
    /// An offset.
    Offset(Offset),
    /// So many offsets after the earliest.
    AfterEarliest(u64),
    /// So many offsets before the latest.
    BeforeLatest(u64),
    /// A time: it bounds the records' own timestamps, in every partition, whatever their order.
    Time(Timestamp),
}

impl From<Position> for Place {
    fn from(position: Position) -> Place {
        match position {
            Position::Earliest => Place::Earliest,
            Position::Latest => Place::Latest,
            Position::Offset(offset) => Place::Offset(offset),
            Position::AfterEarliest(count) => Place::AfterEarliest(count),
            Position::BeforeLatest(count) => Place::BeforeLatest(count),
            Position::At(time) => Place::Time(time),
        }
    }
}

impl Place {
    /// The offset in a log that has these bounds; None for a time, which is no offset.
    pub(super) fn offset(self, bounds: &Bounds) -> Option<Offset> {
        Some(match self {
            Place::Earliest => bounds.start,
            Place::Latest => bounds.durable_end,
            Place::Offset(offset) => offset,
            Place::AfterEarliest(count) => bounds.start.plus(count),
            Place::BeforeLatest(count) => {
                let offset = bounds.durable_end.get().saturating_sub(count);
                Offset::new(offset).max(bounds.start)
            }
            Place::Time(_) => return None,
        })
    }

    pub(super) fn time(self) -> Option<Timestamp> {
        match self {
            Place::Time(time) => Some(time),
            _ => None,
        }
    }
}

/// In which order records of several partitions come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Partition by partition, in the order of offsets.
    #[default]
    Offset,
    /// By record timestamp; those with the same by partition and offset. Partitions are merged over a buffer of
    /// [`TIME_ORDER_BYTES`](super::TIME_ORDER_BYTES): the order is exact where a record is stored no further behind one with a
    /// later time than the buffer reaches, and always where all that is asked for fits into it. A record that comes later than
    /// that is shown when it is found, and counted in [`Scanned::late`].
    Time,
}

/// Which keys are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyFilter {
    /// This key.
    Is(Bytes),
    /// Keys that begin so.
    Prefix(Bytes),
}

impl KeyFilter {
    fn accepts(&self, key: Option<&[u8]>) -> bool {
        match self {
            KeyFilter::Is(wanted) => key == Some(wanted),
            KeyFilter::Prefix(wanted) => key.is_some_and(|key| key.starts_with(wanted)),
        }
    }
}

/// Says of a record whether it is wanted. It runs on threads that may block, many at a time.
pub type Accept = Arc<dyn Fn(PartitionId, &RecordRef<'_>) -> bool + Send + Sync>;

/// Which records are wanted: those that pass all of it.
#[derive(Clone, Default)]
pub struct Filter {
    /// By key.
    pub key: Option<KeyFilter>,
    /// By what records are called: those with this key, and those with a header [`NAME_HEADER`] of this value, whatever their keys are.
    pub name: Option<Bytes>,
    /// By record timestamp, exactly.
    pub times: Option<Range<Timestamp>>,
    /// By anything else.
    pub accept: Option<Accept>,
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filter")
            .field("key", &self.key)
            .field("name", &self.name)
            .field("times", &self.times)
            .field("accept", &self.accept.is_some())
            .finish()
    }
}

impl Filter {
    /// Whether a record is wanted.
    pub fn accepts(&self, partition: PartitionId, record: &RecordRef<'_>) -> bool {
        let times = self.times.as_ref();
        times.is_none_or(|times| times.contains(&record.timestamp))
            && self.key.as_ref().is_none_or(|key| key.accepts(record.key))
            && self.name.as_ref().is_none_or(|name| is_named(record, name))
            && self
                .accept
                .as_ref()
                .is_none_or(|accept| accept(partition, record))
    }

    /// The one key or name that is wanted; None if there may be several.
    pub(super) fn sought(&self) -> Option<Sought> {
        match &self.key {
            Some(KeyFilter::Is(key)) => Some(Sought::Key(key.clone())),
            Some(KeyFilter::Prefix(_)) | None => self.name.clone().map(Sought::Name),
        }
    }

    /// The same filter, for records within these times too.
    pub(super) fn within(mut self, from: Option<Timestamp>, to: Option<Timestamp>) -> Filter {
        if from.is_none() && to.is_none() {
            return self;
        }
        let all = Timestamp::from_millis(i64::MIN)..Timestamp::from_millis(i64::MAX);
        let mut times = self.times.take().unwrap_or(all);
        times.start = from.map_or(times.start, |from| times.start.max(from));
        times.end = to.map_or(times.end, |to| times.end.min(to));
        self.times = Some(times);
        self
    }
}

fn is_named(record: &RecordRef<'_>, name: &[u8]) -> bool {
    let header = (NAME_HEADER.as_bytes(), Some(name));
    record.key == Some(name) || record.headers().any(|it| it == header)
}

/// A range of a topic to read once.
#[derive(Clone, Debug)]
pub struct ReplayRequest {
    /// Which partitions; None for all.
    pub partitions: Option<Vec<PartitionId>>,
    /// Where to begin, inclusive.
    pub from: Place,
    /// Where to stop, exclusive. None for the durable end at the request, behind which a replay never goes.
    pub to: Option<Place>,
    /// Where to go on in some partitions, as [`Replay::next_offsets`](super::Replay::next_offsets) told an earlier one.
    pub resume: Vec<(PartitionId, Offset)>,
    /// Which records.
    pub filter: Filter,
    /// In which order.
    pub order: Order,
    /// No more than so many records.
    pub max_records: Option<u64>,
}

impl Default for ReplayRequest {
    /// All that a topic has.
    fn default() -> ReplayRequest {
        ReplayRequest {
            partitions: None,
            from: Place::Earliest,
            to: None,
            resume: Vec::new(),
            filter: Filter::default(),
            order: Order::Offset,
            max_records: None,
        }
    }
}

/// How much was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scanned {
    /// Records that were looked at, wanted or not.
    pub records: u64,
    /// Bytes of stored batches that were read.
    pub bytes: u64,
    /// Bytes of stored batches that an index passed over.
    pub skipped_bytes: u64,
    /// Offsets without a record: compaction, thinning or an erasure took them.
    pub cleaned: u64,
    /// Records that an order by time showed after later ones: see [`Order::Time`].
    pub late: u64,
}

impl std::ops::AddAssign for Scanned {
    fn add_assign(&mut self, other: Scanned) {
        self.records += other.records;
        self.bytes += other.bytes;
        self.skipped_bytes += other.skipped_bytes;
        self.cleaned += other.cleaned;
        self.late += other.late;
    }
}

/// Why records of a range were not shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapReason {
    /// Retention took them, or somebody who had them deleted: they lie before the log's start.
    Removed,
    /// Cleanup within the log took them: compaction, thinning, an erasure.
    Cleaned,
    /// They were acknowledged, and cannot be read any more.
    Damaged,
    /// They are as they were sent, and no records: a batch that does not decompress, or whose records are malformed.
    Undecodable,
    /// The log ends before the place where a subscription goes on: it lost records that were given once. New ones take their
    /// offsets.
    Rewound,
}

impl GapReason {
    /// The reason in one word, for those who ask over a protocol.
    pub fn name(self) -> &'static str {
        match self {
            GapReason::Removed => "removed",
            GapReason::Cleaned => "cleaned",
            GapReason::Damaged => "damaged",
            GapReason::Undecodable => "undecodable",
            GapReason::Rewound => "rewound",
        }
    }
}

impl From<StoredGap> for GapReason {
    fn from(reason: StoredGap) -> GapReason {
        match reason {
            StoredGap::Removed => GapReason::Removed,
            StoredGap::Damaged => GapReason::Damaged,
        }
    }
}

/// Offsets of a range that had no records to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// In which partition.
    pub partition: PartitionId,
    /// From the first to behind the last of them.
    pub offsets: Range<Offset>,
    /// How many of these are missing: of what cleanup took, others lie between.
    pub missing: u64,
    /// Why.
    pub reason: GapReason,
}

/// Why a replay cannot begin, or go on.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReplayError {
    /// The broker refuses: the topic or a partition is not there (any more), or the disk cannot read.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A partition is named that the topic does not have.
    #[error("the topic has no partition {partition}")]
    NoPartition {
        /// Which.
        partition: PartitionId,
    },
}
