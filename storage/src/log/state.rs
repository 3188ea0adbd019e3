//! What a log's lock guards: bounds, the tail's index, producers, epochs, the view of its segments, what is damaged.
//!
//! Callers: the log itself, the committer when it publishes, recovery when it replays, the settler when it has settled.
//! Invariant: `start <= durable_end <= end`, `settled_end <= durable_end`; offsets continue from entry to entry, but over
//! ranges that are marked as damaged.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use model::batch::BatchHeader;
use model::{LeaderEpoch, Offset, ProducerId, Timestamp};

use super::segments::Segments;
use super::settings::{Bounds, LogSettings};
use super::tail::TailEntry;
use crate::epochs::Epochs;
use crate::error::{AppendError, ReadError};
use crate::producers::{PRODUCER_IDLE_MS, ProducerLimits, Producers};

/// How often a log's producers are looked at for it, at most.
const PRODUCER_SCAN_MS: i64 = 1000;

/// What the log's lock guards.
#[derive(Debug)]
pub(crate) struct LogState {
    pub settings: Arc<LogSettings>,
    pub bounds: Bounds,
    pub tail: VecDeque<TailEntry>,
    pub tail_bytes: u64,
    pub producers: Producers,
    /// When it was last looked for idle producers to forget.
    pub producers_scanned_at: Timestamp,
    pub epochs: Epochs,
    pub segments: Segments,
    pub damaged: Vec<Range<Offset>>,
    pub deleted: bool,
    /// Whether the settler has this log on its list.
    pub dirty: bool,
    /// Whether the active segment is to be sealed with the next settling, whatever its size.
    pub seal: bool,
}

impl LogState {
    pub fn new(settings: Arc<LogSettings>, bounds: Bounds) -> LogState {
        LogState {
            settings,
            bounds,
            tail: VecDeque::new(),
            tail_bytes: 0,
            producers: Producers::default(),
            producers_scanned_at: Timestamp::from_millis(i64::MIN),
            epochs: Epochs::default(),
            segments: Segments::default(),
            damaged: Vec::new(),
            deleted: false,
            dirty: false,
            seal: false,
        }
    }

    pub(super) fn check_readable(&self, from: Offset) -> Result<(), ReadError> {
        if self.deleted {
            return Err(ReadError::Deleted);
        }
        if from < self.bounds.start || from > self.bounds.end {
            return Err(ReadError::OutOfRange {
                from,
                bounds: self.bounds,
            });
        }
        match self.damaged.iter().find(|range| range.contains(&from)) {
            Some(range) => Err(ReadError::Damaged {
                range: range.clone(),
            }),
            None => Ok(()),
        }
    }

    /// What always holds of the bounds, once the WAL is replayed.
    fn check_bounds(&self) {
        let Bounds {
            start,
            settled_end,
            durable_end,
            end,
        } = self.bounds;
        assert!(start <= durable_end, "the start is durable");
        assert!(settled_end <= durable_end, "only what is durable settles");
        assert!(durable_end <= end, "only what has an offset is durable");
    }

    /// Where the next damage begins.
    pub(super) fn damaged_after(&self, from: Offset) -> Option<Offset> {
        let starts = self.damaged.iter().map(|range| range.start);
        starts.filter(|start| *start > from).min()
    }

    /// A batch joins what readers see.
    pub(super) fn publish(&mut self, entry: TailEntry) {
        assert!(
            entry.base >= self.bounds.durable_end,
            "a log is published in the order of its offsets"
        );
        assert!(
            entry.next <= self.bounds.end,
            "only what has offsets is published"
        );
        assert!(entry.base < entry.next, "a batch takes an offset");
        self.bounds.durable_end = entry.next;
        self.tail_bytes += u64::from(entry.bytes);
        self.tail.push_back(entry);
        self.check_bounds();
    }

    pub(crate) fn raise_start(&mut self, start: Offset) {
        assert!(
            start <= self.bounds.durable_end,
            "the start never passes the durable end"
        );
        assert!(self.bounds.start < start, "the start only rises");
        self.bounds.start = start;
        self.epochs.forget_before(start);
        self.damaged.retain(|range| range.end > start);
    }

    /// Acknowledged records are known to be gone. Their offsets are not given out again.
    pub(crate) fn lose(&mut self, range: Range<Offset>) {
        self.bounds.end = self.bounds.end.max(range.end);
        self.bounds.durable_end = self.bounds.durable_end.max(range.end);
        self.mark_damaged(range);
    }

    /// Readers of the range are told that it is damaged. False if they were, or if the log does not reach back that far.
    pub(crate) fn mark_damaged(&mut self, range: Range<Offset>) -> bool {
        if range.is_empty() || range.end <= self.bounds.start || self.is_damaged(&range) {
            return false;
        }
        // Neighbours are one range: it tells readers where to go on.
        let touches = |known: &Range<Offset>| known.start <= range.end && range.start <= known.end;
        let mut all = range.clone();
        for known in self.damaged.iter().filter(|known| touches(known)) {
            all = all.start.min(known.start)..all.end.max(known.end);
        }
        self.damaged.retain(|known| !touches(known));
        self.damaged.push(all);
        true
    }

    pub(crate) fn is_damaged(&self, range: &Range<Offset>) -> bool {
        let holds = |known: &Range<Offset>| known.start <= range.start && range.end <= known.end;
        self.damaged.iter().any(holds)
    }

    /// The WAL is replayed: no offset of what is damaged behind its last record is given out again.
    pub(crate) fn replayed(&mut self) {
        let damaged = self.damaged.iter().map(|range| range.end);
        let end = damaged.fold(self.bounds.start, Offset::max);
        self.bounds.end = self.bounds.end.max(end);
        self.bounds.durable_end = self.bounds.end;
        self.check_bounds();
    }

    /// Recovery found a batch in the WAL that is not settled yet. Gives the gap before it, if one was not known.
    pub(crate) fn replay(
        &mut self,
        header: &BatchHeader,
        entry: TailEntry,
        epoch: LeaderEpoch,
    ) -> Option<Range<Offset>> {
        if entry.next <= self.bounds.settled_end {
            return None;
        }
        let end = self.bounds.end;
        assert!(
            entry.base >= end,
            "offsets continue from frame to frame: {} after {end}",
            entry.base
        );
        let gap = Some(end..entry.base).filter(|gap| !gap.is_empty() && !self.is_damaged(gap));
        if let Some(gap) = &gap {
            self.mark_damaged(gap.clone());
        }
        self.producers.record(header, entry.base, entry.append_time);
        self.epochs.begin(epoch, entry.base);
        self.bounds.end = entry.next;
        self.bounds.durable_end = entry.next;
        self.tail_bytes += u64::from(entry.bytes);
        self.tail.push_back(entry);
        gap
    }

    /// Sees that these producers too may be remembered: forgets those that are idle for long, or refuses. What is forgotten
    /// could only come again as a retry that its client gave up long ago.
    pub(super) fn make_room_for_producers(
        &mut self,
        limits: &ProducerLimits,
        new: &[ProducerId],
        now: Timestamp,
    ) -> Result<(), AppendError> {
        if limits.passed_by(self.producers.len(), new).is_none() {
            return Ok(());
        }
        // A look at all of them takes time, and a refused producer may come again at once.
        if now.millis_since(self.producers_scanned_at) >= PRODUCER_SCAN_MS {
            self.producers_scanned_at = now;
            let oldest = now.plus_millis(-PRODUCER_IDLE_MS);
            // Some more than needed, so that the next look is not at once.
            let keep = self.producers.len() - self.producers.len() / 16;
            let forgotten = self
                .producers
                .forget_idle(oldest, keep.saturating_sub(new.len()));
            limits.forgot(&forgotten);
        }
        match limits.passed_by(self.producers.len(), new) {
            None => Ok(()),
            Some(passed) => {
                limits.refuse(passed);
                Err(AppendError::TooManyProducers {
                    count: passed.count,
                    setting: passed.setting,
                    idle_minutes: PRODUCER_IDLE_MS.unsigned_abs() / 60_000,
                })
            }
        }
    }

    /// Drops what settled from the tail's index.
    pub(crate) fn settled(&mut self, settled_end: Offset) {
        assert!(
            settled_end <= self.bounds.durable_end,
            "only what is durable settles"
        );
        assert!(
            settled_end >= self.bounds.settled_end,
            "what is settled stays settled"
        );
        while self
            .tail
            .front()
            .is_some_and(|entry| entry.next <= settled_end)
        {
            let entry = self.tail.pop_front().expect("it was just looked at");
            assert!(
                self.tail_bytes >= u64::from(entry.bytes),
                "the tail's bytes are its entries'"
            );
            self.tail_bytes -= u64::from(entry.bytes);
        }
        if self.tail.is_empty() {
            assert!(self.tail_bytes == 0, "the tail's bytes are its entries'");
            self.tail.shrink_to_fit();
        }
        self.bounds.settled_end = settled_end;
        self.check_bounds();
    }
}
