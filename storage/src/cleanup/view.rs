//! What a cleanup policy is shown of a log: plain values, taken under the log's lock at one moment.

use std::sync::Arc;

use model::{LogId, Offset, Timestamp};

use crate::log::LogCell;
use crate::manifest::SegmentKind;
use crate::segment::SegmentId;

/// What a policy is shown of one log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogView {
    /// Which log.
    pub log: LogId,
    /// The first offset that is kept.
    pub start_offset: Offset,
    /// The first offset that compaction has not seen yet.
    pub compacted_to: Offset,
    /// Live segments in order; the last one may be active.
    pub segments: Vec<SegmentView>,
    /// Bytes that are in the WAL only.
    pub tail_bytes: u64,
    /// When the first batch of what is in the WAL only was appended; None if there is nothing.
    pub tail_begin: Option<Timestamp>,
    /// Where what is in the WAL only ends, and when the last batch of it was appended; None if there is nothing.
    pub tail_end: Option<(Offset, Timestamp)>,
    /// Segments that could not be rewritten, and why.
    pub set_aside: Vec<(SegmentId, Arc<str>)>,
}

/// What a policy is shown of one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentView {
    /// Which file.
    pub id: SegmentId,
    /// What kind.
    pub kind: SegmentKind,
    /// The offset after its last record.
    pub end_offset: Offset,
    /// Its length.
    pub bytes: u64,
    /// How many records it holds.
    pub records: u64,
    /// The largest timestamp of its records, as their producers say.
    pub max_timestamp: Timestamp,
    /// When the broker appended its first batch.
    pub first_append_time: Timestamp,
    /// When the broker appended its last batch.
    pub last_append_time: Timestamp,
    /// Whether it is sealed.
    pub sealed: bool,
}

impl LogView {
    /// What a log looks like now. None for a deleted one.
    pub(crate) fn of(log: &LogCell) -> Option<LogView> {
        let state = log.locked();
        if state.deleted {
            return None;
        }
        let sealed = state.segments.sealed().map(|(entry, sealed)| SegmentView {
            id: entry.id,
            kind: entry.kind,
            end_offset: sealed.end_offset,
            bytes: sealed.bytes,
            records: sealed.records,
            max_timestamp: sealed.max_timestamp,
            first_append_time: sealed.first_append_time,
            last_append_time: sealed.last_append_time,
            sealed: true,
        });
        let active = state.segments.active.iter().map(|active| SegmentView {
            id: active.segment.id,
            kind: SegmentKind::Plain,
            end_offset: active.end_offset,
            bytes: active.segment.bytes,
            records: active.end_offset.get() - active.segment.id.base.get(),
            max_timestamp: active.segment.max_timestamp,
            first_append_time: active.segment.first_append_time,
            last_append_time: active.segment.last_append_time,
            sealed: false,
        });
        let manifest = state.segments.manifest.as_ref();
        Some(LogView {
            log: log.id(),
            start_offset: state.bounds.start,
            compacted_to: manifest.map_or(Offset::ZERO, |manifest| manifest.compacted_to),
            segments: sealed.chain(active).collect(),
            tail_bytes: state.tail_bytes,
            tail_begin: state.tail.front().map(|entry| entry.append_time),
            tail_end: state
                .tail
                .back()
                .map(|entry| (entry.next, entry.append_time)),
            set_aside: Vec::new(),
        })
    }

    /// That of a log of which nothing is left.
    pub(crate) fn gone(log: LogId) -> LogView {
        LogView {
            log,
            start_offset: Offset::ZERO,
            compacted_to: Offset::ZERO,
            segments: Vec::new(),
            tail_bytes: 0,
            tail_begin: None,
            tail_end: None,
            set_aside: Vec::new(),
        }
    }

    /// Bytes of all that it holds, in segments and in the WAL.
    pub fn bytes(&self) -> u64 {
        let segments = self.segments.iter().map(|segment| segment.bytes);
        self.tail_bytes + segments.sum::<u64>()
    }

    /// Whether something of it is not in a sealed segment.
    pub(crate) fn has_unsealed(&self) -> bool {
        let active = self
            .segments
            .last()
            .is_some_and(|segment| !segment.sealed && segment.bytes > 0);
        active || self.tail_end.is_some()
    }
}
