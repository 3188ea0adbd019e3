//! Scanning a log: whole batches of a range of offsets, without what cannot hold a wanted time, and told what is missing.
//!
//! Callers: the broker's replay and subscriptions, on a thread that may block. A scan holds its place in the log and nothing
//! else: no file, no map, no write-ahead log file stays open or pinned between two steps, however slow its reader is. Bytes are
//! copied out of files with `pread`; those of the tail out of the write-ahead log's map, which is in memory.
//! Invariants: whatever is appended, settled, rewritten or removed meanwhile, each offset of the range is passed exactly once, in
//! order: it is in a run, passed over because nothing there was wanted, or told as a gap. Nothing past the durable end is shown.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use model::{Offset, Timestamp};

use super::cell::LogCell;
use super::scan_blocks::Wanted;
use super::state::LogState;
use super::tail::TailEntry;
use super::{Log, LogParts};
use crate::error::ReadError;
use crate::segment::key_index::Sought;

/// What of a log is wanted.
#[derive(Clone, Debug)]
pub struct ScanRange {
    /// From the first inclusive to the last exclusive; it may lie behind the end of the log, which is then followed.
    pub offsets: Range<Offset>,
    /// Batches that hold no record of these times need not be shown; others are shown as wholes, so that who wants exact times
    /// looks at each record. None for all.
    pub times: Option<Range<Timestamp>>,
    /// Batches of segments that hold no record with this key, or of this name, need not be shown, as for times. None for all.
    pub key: Option<Sought>,
    /// Bytes of batches that one step copies at most, but for a single larger one.
    pub run_bytes: usize,
}

/// Why offsets of a range were not shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapReason {
    /// They lie before the log's start: retention took them, or somebody who had them deleted.
    Removed,
    /// They were acknowledged, and cannot be read any more.
    Damaged,
}

/// One step of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scanned {
    /// Whole batches, which hold all records that are kept of the wanted ones in `offsets`. The first batch may begin before
    /// them. An offset of them without a record is one that cleanup took.
    Run {
        /// The batches, one after the other; their checksums were verified since they were written or opened.
        batches: Bytes,
        /// What this tells about.
        offsets: Range<Offset>,
    },
    /// Offsets that are no longer there.
    Gap {
        /// Which.
        offsets: Range<Offset>,
        /// Why.
        reason: GapReason,
    },
}

/// How much a scan has looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScanCounts {
    /// Bytes of the batches that were shown.
    pub bytes: u64,
    /// Bytes of batches that were passed over unread, because an index says that nothing in them is wanted.
    pub skipped_bytes: u64,
}

/// A scan under way. See the module.
#[derive(Debug)]
pub struct LogScan {
    cell: Arc<LogCell>,
    parts: Arc<LogParts>,
    next: Offset,
    end: Offset,
    wanted: Wanted,
    run_bytes: usize,
    counts: ScanCounts,
}

/// What a step does where it would have to wait for the disk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    ForDisk,
    Never,
}

impl Log {
    /// Scans the log from here on. Takes no lock and reads nothing before its first step.
    pub fn scan(&self, range: ScanRange) -> LogScan {
        LogScan {
            cell: Arc::clone(&self.cell),
            parts: Arc::clone(&self.parts),
            next: range.offsets.start,
            end: range.offsets.end,
            wanted: Wanted::new(range.times, range.key),
            run_bytes: range.run_bytes,
            counts: ScanCounts::default(),
        }
    }
}

impl LogScan {
    /// Goes on to the next batches that may hold something wanted, or the next gap. None at the end of the range, or where the
    /// log ends for now: later there may be more. Blocks.
    /// Errors: `Deleted`; `Io` where the disk cannot read, which a later call tries again.
    pub fn next_step(&mut self) -> Result<Option<Scanned>, ReadError> {
        let step = self.next_by(Wait::ForDisk)?;
        Ok(step.expect("who waits for the disk gets an answer"))
    }

    /// Like [`LogScan::next_step`], in the log's tail, which is in memory. None if what has settled would have to be read, which
    /// [`LogScan::next_step`] does. Does not block.
    pub fn next_step_in_memory(&mut self) -> Result<Option<Option<Scanned>>, ReadError> {
        self.next_by(Wait::Never)
    }

    fn next_by(&mut self, wait: Wait) -> Result<Option<Option<Scanned>>, ReadError> {
        loop {
            let from = self.next;
            match self.step(wait)? {
                Step::End => return Ok(Some(None)),
                Step::NeedsDisk => return Ok(None),
                Step::LookAgain => {}
                Step::Skip(to) => self.next = to,
                Step::Gap(to, reason) => {
                    self.next = to;
                    let offsets = from..to;
                    return Ok(Some(Some(Scanned::Gap { offsets, reason })));
                }
                Step::Run(batches, offsets) => {
                    assert!(
                        from <= offsets.start && offsets.start < offsets.end,
                        "a run takes a scan on"
                    );
                    self.next = offsets.end;
                    self.counts.bytes += batches.len() as u64;
                    return Ok(Some(Some(Scanned::Run { batches, offsets })));
                }
            }
        }
    }

    /// The first offset that it has not passed.
    pub fn next_offset(&self) -> Offset {
        self.next
    }

    /// How much it has looked at.
    pub fn counts(&self) -> ScanCounts {
        self.counts
    }

    fn step(&mut self, wait: Wait) -> Result<Step, ReadError> {
        let cell = Arc::clone(&self.cell);
        let state = cell.locked();
        if state.deleted {
            return Err(ReadError::Deleted);
        }
        let from = self.next;
        if from < state.bounds.start && from < self.end {
            let to = state.bounds.start.min(self.end);
            return Ok(Step::Gap(to, GapReason::Removed));
        }
        let end = self.end.min(state.bounds.durable_end);
        if from >= end {
            return Ok(Step::End);
        }
        if let Some(lost) = state.damaged.iter().find(|range| range.contains(&from)) {
            return Ok(Step::Gap(lost.end.min(end), GapReason::Damaged));
        }
        let end = state.damaged_after(from).unwrap_or(end).min(end);
        if from >= state.bounds.settled_end {
            let entries = tail_entries(&state, from..end, self.run_bytes);
            drop(state);
            return Ok(self.tail_step(entries));
        }
        if wait == Wait::Never {
            return Ok(Step::NeedsDisk);
        }
        let segments = state.segments.clone();
        let offsets = from..end.min(state.bounds.settled_end);
        drop(state);
        let settled = &self.parts.settled;
        match settled.scan(
            &self.cell,
            &segments,
            offsets,
            &mut self.wanted,
            self.run_bytes,
        ) {
            Ok(stride) => {
                self.counts.skipped_bytes += stride.skipped_bytes;
                Ok(match stride.batches {
                    Some(batches) => {
                        Step::Run(batches, stride.from..stride.end_offset.min(self.end))
                    }
                    None => Step::Skip(stride.end_offset),
                })
            }
            // What it looked for has gone with a file that another one stands for, or that lies before the start.
            Err(_) if self.cell.has_other_segments(&segments) => Ok(Step::LookAgain),
            Err(ReadError::Damaged { range }) if range.contains(&from) => {
                Ok(Step::Gap(range.end.min(end), GapReason::Damaged))
            }
            Err(error) => Err(error),
        }
    }

    /// Copies batches of the tail, which are in memory.
    fn tail_step(&mut self, entries: Vec<TailEntry>) -> Step {
        let mut run = BytesMut::new();
        let mut next = self.next;
        for entry in entries {
            // What is passed over stands before a run or behind it: of the run's offsets nothing is left out.
            match self.wanted.may_be_in(entry.max_timestamp) {
                true if run.is_empty() && next > self.next => break,
                true => run.extend_from_slice(&entry.slice()),
                false if run.is_empty() => self.counts.skipped_bytes += u64::from(entry.bytes),
                false => break,
            }
            next = entry.next;
        }
        let next = next.min(self.end);
        match run.is_empty() {
            _ if next == self.next => Step::End,
            true => Step::Skip(next),
            false => Step::Run(run.freeze(), self.next..next),
        }
    }
}

/// The next batches of the tail, of some offsets that continue: so many as one step copies, or a single larger one.
fn tail_entries(state: &LogState, offsets: Range<Offset>, bytes_max: usize) -> Vec<TailEntry> {
    let first = state
        .tail
        .partition_point(|entry| entry.next <= offsets.start);
    let (mut entries, mut bytes) = (Vec::new(), 0);
    let mut expected = None;
    for entry in state.tail.range(first..) {
        let continues = expected.is_none_or(|expected| expected == entry.base);
        let fits = entries.is_empty() || bytes + entry.bytes as usize <= bytes_max;
        if !continues || !fits || entry.base >= offsets.end {
            break;
        }
        bytes += entry.bytes as usize;
        expected = Some(entry.next);
        entries.push(entry.clone());
    }
    entries
}

/// What one step came to.
enum Step {
    End,
    NeedsDisk,
    LookAgain,
    Skip(Offset),
    Gap(Offset, GapReason),
    Run(Bytes, Range<Offset>),
}
