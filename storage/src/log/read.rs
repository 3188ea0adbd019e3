//! Reading a log: whole batches as slices of the maps, and the searches by time and by epoch.
//!
//! No reader is given anything past the durable end. The log's lock is short: no file is touched under it.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use model::batch::Batch;
use model::{LeaderEpoch, Offset, Timestamp};

use super::Log;
use super::segments::Segments;
use super::settings::Bounds;
use super::settled::SegmentPart;
use super::tail::TailEntry;
use crate::error::{ReadError, TimedOffset};
use crate::segment::{first_at_or_after, largest_in};

/// No more slices than this are handed out at once: what one vectored write takes.
const CHUNK_SLICES_MAX: usize = 512;

/// What a read found: whole batches, as slices of the WAL's and the segments' maps.
#[derive(Clone, Debug, Default)]
pub struct Chunk {
    /// The batches, one after the other; a slice may hold several.
    pub slices: Vec<Bytes>,
    /// Their length together.
    pub bytes: usize,
    /// The offset after the last record; where to read on.
    pub end_offset: Offset,
    /// The parts that come from segments, to see whether they are in memory.
    parts: Vec<SegmentPart>,
}

impl Chunk {
    /// Whether some of it would have to come from the disk, so that writing it to a socket may block.
    pub fn is_cold(&self) -> bool {
        self.parts.iter().any(SegmentPart::is_cold)
    }

    /// Brings it into memory. Blocks; an unreadable sector is an error, never a signal.
    pub fn populate(&self) -> std::io::Result<()> {
        self.parts.iter().try_for_each(SegmentPart::populate)
    }

    /// All of it in one piece.
    pub fn to_bytes(&self) -> Bytes {
        match self.slices.as_slice() {
            [] => Bytes::new(),
            [one] => one.clone(),
            many => many.concat().into(),
        }
    }

    fn push(&mut self, slice: Bytes, end_offset: Offset) {
        self.bytes += slice.len();
        self.end_offset = end_offset;
        self.slices.push(slice);
    }
}

/// What a read does where it would have to wait for the disk.
#[derive(Clone, Copy)]
enum Wait {
    ForDisk,
    Never,
}

/// What came of a step of a read.
enum Step {
    Done,
    /// It was not to wait, and would have to.
    NeedsDisk,
    /// The segments that it looked through were replaced meanwhile.
    LookAgain,
}

/// All that a search looks through, as it was at one moment.
struct SearchView {
    start: Offset,
    settled_end: Offset,
    segments: Segments,
    tail: Vec<TailEntry>,
}

impl Log {
    /// Reads whole batches, starting with the one that contains `from`. Returns at most `max_bytes`, except that with
    /// `min_one` the first batch is returned whole even if it is larger (KIP-74). Nothing at the durable end.
    /// Errors: `OutOfRange` outside `start..=end`, `Damaged`, `Io`. Never waits for the writer. What has settled is checked
    /// the first time that it is read, which blocks.
    pub fn read(&self, from: Offset, max_bytes: usize, min_one: bool) -> Result<Chunk, ReadError> {
        let found = self.read_by(from, max_bytes, min_one, Wait::ForDisk)?;
        Ok(found.expect("who waits for the disk gets an answer"))
    }

    /// Like [`Log::read`], of what is in memory, in open files and checked. None if the disk would be needed for some of it.
    /// Does not block.
    pub fn read_in_memory(
        &self,
        from: Offset,
        max_bytes: usize,
        min_one: bool,
    ) -> Result<Option<Chunk>, ReadError> {
        self.read_by(from, max_bytes, min_one, Wait::Never)
    }

    fn read_by(
        &self,
        from: Offset,
        max_bytes: usize,
        min_one: bool,
        wait: Wait,
    ) -> Result<Option<Chunk>, ReadError> {
        let mut chunk = Chunk {
            end_offset: from,
            ..Chunk::default()
        };
        loop {
            let next = chunk.end_offset;
            let budget = max_bytes.saturating_sub(chunk.bytes);
            let first = min_one && chunk.slices.is_empty();
            if (budget == 0 && !first) || chunk.slices.len() >= CHUNK_SLICES_MAX {
                return Ok(Some(chunk));
            }
            let before = chunk.slices.len();
            match self.read_on(next, budget, first, wait, &mut chunk) {
                Ok(Step::NeedsDisk) => return Ok(None),
                Ok(Step::LookAgain) => {}
                Ok(Step::Done) if chunk.slices.len() == before => return Ok(Some(chunk)),
                Ok(Step::Done) => {}
                // What was found before the trouble is good; the next read begins with the trouble.
                Err(_) if before > 0 => return Ok(Some(chunk)),
                Err(error) => return Err(error),
            }
        }
    }

    fn read_on(
        &self,
        from: Offset,
        max_bytes: usize,
        min_one: bool,
        wait: Wait,
        chunk: &mut Chunk,
    ) -> Result<Step, ReadError> {
        let state = self.locked();
        state.check_readable(from)?;
        if from >= state.bounds.durable_end {
            return Ok(Step::Done);
        }
        if from < state.bounds.settled_end {
            let segments = state.segments.clone();
            let settled_end = state.bounds.settled_end;
            let offsets = from..state.damaged_after(from).unwrap_or(settled_end);
            drop(state);
            let settled = &self.parts.settled;
            let (cell, of) = (&self.cell, &segments);
            let found = match wait {
                Wait::Never => settled.read_in_memory(cell, of, offsets, max_bytes, min_one),
                Wait::ForDisk => match settled.read(cell, of, offsets, max_bytes, min_one) {
                    Ok(found) => Some(found),
                    Err(_) if self.cell.has_other_segments(&segments) => {
                        return Ok(Step::LookAgain);
                    }
                    Err(error) => self.unless_removed(from, error)?,
                },
            };
            let Some(found) = found else {
                return Ok(Step::NeedsDisk);
            };
            if let Some(part) = found {
                // What settled since this view was taken is the tail's to give.
                assert!(
                    part.end_offset() <= settled_end,
                    "a view shows nothing past its settled end"
                );
                chunk.push(part.slice(), part.end_offset());
                chunk.parts.push(part);
            }
            return Ok(Step::Done);
        }
        let first = state.tail.partition_point(|entry| entry.next <= from);
        let mut taken: Vec<(TailEntry, u64)> = Vec::new();
        let mut bytes = 0;
        let mut expected: Option<Offset> = None;
        for entry in state.tail.range(first..) {
            let fits = bytes + entry.bytes as usize <= max_bytes || (min_one && bytes == 0);
            let continues = expected.is_none_or(|expected| expected == entry.base);
            if !fits || !continues || entry.next > state.bounds.durable_end {
                break;
            }
            bytes += entry.bytes as usize;
            expected = Some(entry.next);
            let slices = taken.len() + chunk.slices.len();
            match taken.last_mut() {
                // Neighbours in the WAL leave as one slice.
                Some((last, end))
                    if (last.file.sequence, *end)
                        == (entry.file.sequence, u64::from(entry.position)) =>
                {
                    *end = entry.ends_at().1;
                    last.next = entry.next;
                }
                _ if slices >= CHUNK_SLICES_MAX => break,
                _ => taken.push((entry.clone(), entry.ends_at().1)),
            }
        }
        drop(state);
        for (entry, end) in taken {
            chunk.push(
                entry.file.map.slice(u64::from(entry.position)..end),
                entry.next,
            );
        }
        Ok(Step::Done)
    }

    /// A segment that went away while it was looked for is no trouble of the disk: the start has passed it.
    fn unless_removed<T>(&self, from: Offset, error: ReadError) -> Result<T, ReadError> {
        self.locked().check_readable(from)?;
        Err(error)
    }

    /// Like [`Log::read`], with all of it in memory, so that writing it to a socket does not wait for the disk. Blocks. Where a
    /// sector cannot be read it ends before the batch that lies on it; an error if that is the first one.
    pub fn read_warm(
        &self,
        from: Offset,
        max_bytes: usize,
        min_one: bool,
    ) -> Result<Chunk, ReadError> {
        let mut chunk = self.read(from, max_bytes, min_one)?;
        if chunk.is_cold() {
            let counter = &self.parts.settled.counters.cold_read_bytes;
            counter.fetch_add(chunk.bytes as u64, Ordering::Relaxed);
        }
        while chunk.is_cold()
            && let Err(source) = chunk.populate()
        {
            let less = self.read(from, chunk.bytes / 2, true)?;
            if less.bytes >= chunk.bytes {
                return Err(ReadError::Io { from, source });
            }
            chunk = less;
        }
        Ok(chunk)
    }

    /// Like [`Log::read`] with `min_one`, for our own code to look into: a bad sector is an error, never a signal. Blocks.
    pub fn read_copy(&self, from: Offset, max_bytes: usize) -> Result<Chunk, ReadError> {
        let chunk = self.read(from, max_bytes, true)?;
        chunk
            .populate()
            .map_err(|source| ReadError::Io { from, source })?;
        Ok(chunk)
    }

    /// The first record in log order whose timestamp is at or after `wanted`, exact to the record, also where clocks were
    /// wrong. None if there is none below the durable end. Blocks: it decompresses the batch that holds it.
    pub fn offset_for_time(&self, wanted: Timestamp) -> Result<Option<TimedOffset>, ReadError> {
        self.search(|view| {
            if view.start < view.settled_end {
                let found = self.parts.settled.offset_for_time(
                    &self.cell,
                    &view.segments,
                    view.start,
                    wanted,
                )?;
                if found.is_some() {
                    return Ok(found);
                }
            }
            for entry in &view.tail {
                if entry.max_timestamp < wanted {
                    continue;
                }
                let in_batch = |batch: &Batch| first_at_or_after(batch, wanted, view.start);
                if let Some(found) = entry.search(in_batch)? {
                    return Ok(Some(found));
                }
            }
            Ok(None)
        })
    }

    /// The record with the largest timestamp, the first of them. None in an empty log. Blocks.
    pub fn max_timestamp(&self) -> Result<Option<TimedOffset>, ReadError> {
        self.search(|view| {
            let mut largest: Option<TimedOffset> = None;
            if view.start < view.settled_end {
                let (settled, log) = (&self.parts.settled, &self.cell);
                let (segments, start) = (&view.segments, view.start);
                if let Some(time) = settled.max_timestamp(log, segments, start)? {
                    largest = settled.offset_for_time(log, segments, start, time)?;
                }
            }
            for entry in &view.tail {
                if largest.is_some_and(|known| known.timestamp >= entry.max_timestamp) {
                    continue;
                }
                let found = entry.search(|batch| largest_in(batch, view.start))?;
                let is_larger = |found: &TimedOffset| {
                    largest.is_none_or(|known| known.timestamp < found.timestamp)
                };
                largest = found.filter(is_larger).or(largest);
            }
            Ok(largest)
        })
    }

    /// Looks through all that is visible at one moment. Segments that are removed meanwhile are no trouble of the disk: the
    /// start has passed them, or others have taken their place, and the search begins anew.
    fn search<T>(
        &self,
        find: impl Fn(&SearchView) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        loop {
            let view = self.view_for_search()?;
            match find(&view) {
                Err(_) if self.bounds().start > view.start => {}
                Err(_) if self.cell.has_other_segments(&view.segments) => {}
                found => return found,
            }
        }
    }

    fn view_for_search(&self) -> Result<SearchView, ReadError> {
        let state = self.locked();
        if state.deleted {
            return Err(ReadError::Deleted);
        }
        let Bounds {
            start,
            durable_end,
            settled_end,
            ..
        } = state.bounds;
        let visible = |entry: &&TailEntry| entry.next > start && entry.next <= durable_end;
        Ok(SearchView {
            start,
            settled_end,
            segments: state.segments.clone(),
            tail: state.tail.iter().filter(visible).cloned().collect(),
        })
    }

    /// When the broker appended the record at `offset`, or the next one that is kept, by the store's own time: not before the
    /// first and not after the second. Exact in the tail; in a segment as exact as its index, which has a time for each block.
    /// None at the durable end. Blocks.
    pub fn appended_between(
        &self,
        offset: Offset,
    ) -> Result<Option<(Timestamp, Timestamp)>, ReadError> {
        loop {
            let segments = {
                let state = self.locked();
                if state.deleted {
                    return Err(ReadError::Deleted);
                }
                if offset >= state.bounds.durable_end {
                    return Ok(None);
                }
                if offset >= state.bounds.settled_end {
                    let at = state.tail.partition_point(|entry| entry.next <= offset);
                    let found = state.tail.get(at);
                    return Ok(found.map(|entry| (entry.append_time, entry.append_time)));
                }
                state.segments.clone()
            };
            let settled = &self.parts.settled;
            match settled.appended_between(&self.cell, &segments, offset) {
                Err(_) if self.cell.has_other_segments(&segments) => {}
                Err(error) => return self.unless_removed(offset, error),
                found => return found,
            }
        }
    }

    /// The largest leader epoch that is not above `epoch`, and where it ended; Kafka's OffsetForLeaderEpoch. None if the
    /// epoch is above all that are known.
    pub fn end_offset_for_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        let state = self.locked();
        state.epochs.end_offset_for(epoch, state.bounds.durable_end)
    }

    /// The leader epoch of the record at `offset`, if it is still known.
    pub fn epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> {
        self.locked().epochs.epoch_at(offset)
    }
}
