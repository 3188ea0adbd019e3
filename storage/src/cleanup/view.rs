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

/// What of a log is in no sealed segment: in the active one, or in the WAL only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unsealed {
    /// Offsets, and so the most records.
    pub records: u64,
    /// Bytes of batches.
    pub bytes: u64,
}

/// A batch that is in the WAL only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TailBatch {
    pub base: Offset,
    pub next: Offset,
    pub bytes: u64,
    pub append_time: Timestamp,
    pub max_timestamp: Timestamp,
}

impl TailBatch {
    /// Those of a log, in order.
    pub fn all_of(log: &LogCell) -> Vec<TailBatch> {
        let state = log.locked();
        let batches = state.tail.iter().map(|entry| TailBatch {
            base: entry.base,
            next: entry.next,
            bytes: entry.bytes.into(),
            append_time: entry.append_time,
            max_timestamp: entry.max_timestamp,
        });
        batches.collect()
    }

    /// A segment that begins with it.
    fn alone(&self) -> SegmentView {
        SegmentView {
            id: SegmentId::first(self.base),
            kind: SegmentKind::Plain,
            end_offset: self.next,
            bytes: self.bytes,
            records: self.next.since(self.base),
            max_timestamp: self.max_timestamp,
            first_append_time: self.append_time,
            last_append_time: self.append_time,
            sealed: false,
        }
    }
}

/// When the settler seals a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SealRules {
    pub segment_bytes: u64,
    pub segment_ms: u64,
    pub now: Timestamp,
}

impl SealRules {
    /// Whether the batch begins another segment.
    fn is_full(&self, active: &SegmentView, next: &TailBatch) -> bool {
        let age_ms = self.now.millis_since(active.first_append_time);
        active.bytes + next.bytes > self.segment_bytes.min(u32::MAX.into())
            || next.next.since(active.id.base) > u64::from(u32::MAX)
            || age_ms > i64::try_from(self.segment_ms).unwrap_or(i64::MAX)
    }
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

    /// What it becomes when all of it is sealed: `tail` is what is in the WAL only, batch by batch, as the settler would settle it.
    pub(crate) fn sealed(mut self, tail: &[TailBatch], rules: &SealRules) -> LogView {
        // The active one is sealed as it is, and what settles then begins another.
        self.seal_active();
        for batch in tail {
            match self.segments.last_mut().filter(|one| !one.sealed) {
                Some(active) if !rules.is_full(active, batch) => {
                    active.end_offset = batch.next;
                    active.bytes += batch.bytes;
                    active.records = batch.next.since(active.id.base);
                    active.last_append_time = batch.append_time;
                    active.max_timestamp = active.max_timestamp.max(batch.max_timestamp);
                }
                Some(_) | None => {
                    self.seal_active();
                    self.segments.push(batch.alone());
                }
            }
        }
        self.seal_active();
        (self.tail_bytes, self.tail_begin, self.tail_end) = (0, None, None);
        self
    }

    fn seal_active(&mut self) {
        self.segments.retain(|one| one.sealed || one.bytes > 0);
        if let Some(active) = self.segments.last_mut() {
            active.sealed = true;
        }
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
        self.active().is_some() || self.tail_end.is_some()
    }

    fn active(&self) -> Option<&SegmentView> {
        let last = self.segments.last();
        last.filter(|segment| !segment.sealed && segment.bytes > 0)
    }

    /// What of it is not in a sealed segment.
    pub(crate) fn unsealed(&self) -> Unsealed {
        let settled = self.segments.last();
        let end = settled.map_or(self.start_offset, |segment| segment.end_offset);
        let tail = self
            .tail_end
            .map_or(0, |(to, _)| to.get().saturating_sub(end.get()));
        let (records, bytes) = self.active().map_or((0, 0), |one| (one.records, one.bytes));
        Unsealed {
            records: records + tail,
            bytes: bytes + self.tail_bytes,
        }
    }
}
