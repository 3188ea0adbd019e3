//! Reading what has settled: whole batches out of segments, checked before they are served for the first time.
//!
//! Caller: `read`, with a log in hand. Every call may block on the disk. What is not as it was written is put on record, and
//! readers of it are told; what cannot be read is left to the scrub.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use model::batch::BatchHeader;
use model::{LogId, Offset, Timestamp};

use super::cell::LogCell;
use super::dirty::DirtyLogs;
use super::scan_blocks::{Asks, Stride, Told, Wanted};
use super::segments::{Part, Segments, Source};
use crate::damage::DamageRecord;
use crate::error::{ReadError, TimedOffset};
use crate::io::{FileMap, InMemory};
use crate::metrics::Counters;
use crate::scrub::Suspects;
use crate::segment::key_index::{KeyIndex, Place};
use crate::segment::{
    BadBatches, Examined, Extent, OpenSegment, SegmentError, SegmentFiles, SegmentId,
    SegmentSource, is_shortage,
};

/// What reading settled records takes.
#[derive(Debug)]
pub(crate) struct SettledReader {
    pub files: Arc<SegmentFiles>,
    pub damage: Arc<DamageRecord>,
    pub dirty: Arc<DirtyLogs>,
    pub counters: Arc<Counters>,
}

/// Where the bytes of a segment come from.
#[derive(Clone, Debug)]
enum ByteSource {
    Mapped(Arc<FileMap>),
    /// All of it, in memory.
    Copied(Bytes),
}

/// A run of whole batches within one segment.
#[derive(Clone, Debug)]
pub(crate) struct SegmentPart {
    source: ByteSource,
    positions: Range<u64>,
    end_offset: Offset,
    segment: (LogId, SegmentId),
    suspects: Arc<Suspects>,
}

impl SegmentPart {
    pub fn is_cold(&self) -> bool {
        match &self.source {
            ByteSource::Mapped(map) => map.is_cold(self.positions.clone()),
            ByteSource::Copied(_) => false,
        }
    }

    pub fn populate(&self) -> std::io::Result<()> {
        let ByteSource::Mapped(map) = &self.source else {
            return Ok(());
        };
        map.populate(self.positions.clone()).inspect_err(|error| {
            let (log, id) = self.segment;
            tracing::error!(%log, segment = %id, %error, "a segment cannot be read");
            self.suspects.add(log, id);
        })
    }

    pub fn slice(&self) -> Bytes {
        let index = |position: u64| usize::try_from(position).expect("a copy is in memory");
        match &self.source {
            ByteSource::Mapped(map) => map.slice(self.positions.clone()),
            ByteSource::Copied(front) => {
                front.slice(index(self.positions.start)..index(self.positions.end))
            }
        }
    }

    pub fn end_offset(&self) -> Offset {
        self.end_offset
    }
}

impl SettledReader {
    /// A run of whole batches from the one that contains the first of `offsets`, or the first one behind it, and before the
    /// one that contains their end. None if there is none, or if it does not fit. Every batch was checked since its file was
    /// opened: the run ends before one that is not sound, which is put on record. Blocks.
    pub fn read(
        &self,
        log: &Arc<LogCell>,
        segments: &Segments,
        offsets: Range<Offset>,
        max_bytes: usize,
        min_one: bool,
    ) -> Result<Option<SegmentPart>, ReadError> {
        let from = offsets.start;
        let Some(part) = segments.parts().find(|part| part.end_offset > from) else {
            return Ok(None);
        };
        let Some((open, extent)) = self.find(log, &part, offsets, max_bytes, min_one)? else {
            return Ok(None);
        };
        let fail = |error: SegmentError| self.read_error(log, error, from, &part);
        let map = Arc::clone(open.map().map_err(fail)?);
        Ok(Some(SegmentPart {
            source: ByteSource::Mapped(map),
            positions: extent.positions,
            end_offset: extent.end_offset,
            segment: (log.id(), part.id),
            suspects: Arc::clone(&self.files.suspects),
        }))
    }

    /// Goes on over what of `offsets` may hold something wanted: what lies before it is passed over, by the manifest and the
    /// index, and a run of whole batches is copied out of the file, of at most `max_bytes` or a single batch. Never reads
    /// through a map. Nothing stays open because of it. Blocks.
    pub fn scan(
        &self,
        log: &Arc<LogCell>,
        segments: &Segments,
        offsets: Range<Offset>,
        wanted: &mut Wanted,
        max_bytes: usize,
    ) -> Result<Stride, ReadError> {
        let from = offsets.start;
        let nothing = Stride {
            skipped_bytes: 0,
            from,
            batches: None,
            end_offset: offsets.end,
        };
        let Some(part) = segments.parts().find(|part| part.end_offset > from) else {
            return Ok(nothing);
        };
        if part.id.base >= offsets.end {
            return Ok(nothing);
        }
        if from <= part.id.base && !wanted.may_be_in(part.max_timestamp) {
            return Ok(Stride {
                skipped_bytes: part.bytes,
                from,
                batches: None,
                end_offset: part.end_offset.min(offsets.end),
            });
        }
        let fail = |error: SegmentError| self.read_error(log, error, from, &part);
        let open = self.open(log, &part).map_err(fail)?;
        // The disk is asked while nobody waits for the index.
        wanted.look_up(part.id, |asks| self.look_up(log.id(), &part, &open, asks));
        let next = open.index_of(|index| wanted.next_blocks(index, from, part.bytes));
        let next = next.map_err(fail)?;
        let until = next
            .until
            .map_or(offsets.end, |until| until.min(offsets.end));
        if next.from >= until {
            return Ok(Stride {
                skipped_bytes: next.skipped_bytes,
                from,
                batches: None,
                end_offset: until.min(part.end_offset),
            });
        }
        let found = self.find(log, &part, next.from..until, max_bytes, true)?;
        let (batches, end_offset) = match found {
            Some((open, extent)) if extent.base_offset < until => {
                let reader = open.reader(part.bytes, part.end_offset);
                let bytes = reader.copy(extent.positions).map_err(fail)?;
                (Some(bytes), extent.end_offset)
            }
            _ => (None, until.min(part.end_offset)),
        };
        Ok(Stride {
            skipped_bytes: next.skipped_bytes,
            from: next.from,
            batches,
            end_offset,
        })
    }

    /// Where the run lies that [`SettledReader::read`] tells of, all of it checked.
    fn find(
        &self,
        log: &Arc<LogCell>,
        part: &Part<'_>,
        offsets: Range<Offset>,
        max_bytes: usize,
        min_one: bool,
    ) -> Result<Option<(Arc<OpenSegment>, Extent)>, ReadError> {
        let from = offsets.start;
        let fail = |error: SegmentError| self.read_error(log, error, from, part);
        let open = self.open(log, part).map_err(fail)?;
        let from = from.max(part.id.base);
        let reader = open.reader(part.bytes, part.end_offset);
        let first = match reader.locate(from) {
            Ok(Some(first)) => (first.position, first.header),
            Ok(None) => return Ok(None),
            // A head that is not as it was written stands before it in its block.
            Err(error) if !error.is_of_the_whole_segment() => {
                let examined = open
                    .examine_block_of(from, part.bytes, part.end_offset)
                    .map_err(fail)?;
                self.report(log, part, &open, &examined);
                if let Some(bad) = examined.bad_at(from) {
                    return Err(bad_batches(bad, from));
                }
                let is_it = |(_, header): &&(u64, BatchHeader)| header.next_offset() > from;
                match examined.sound.iter().find(is_it) {
                    Some(first) => *first,
                    None => return Err(fail(error)),
                }
            }
            Err(error) => return Err(fail(error)),
        };
        let found = reader.extent_from(first, max_bytes as u64, min_one);
        let Some(extent) = found.map_err(fail)? else {
            return Ok(None);
        };
        let mut extent = reader.cut(extent, offsets.end).map_err(fail)?;
        let checked = open.check(&extent.positions, part.bytes, part.end_offset);
        if let Some(examined) = checked.map_err(fail)? {
            self.report(log, part, &open, &examined);
            if let Some(bad) = examined.bad_at(first.1.base()) {
                return Err(bad_batches(bad, from));
            }
            let behind = |bad: &&BadBatches| bad.offsets.start > from;
            if let Some(bad) = examined.bad.iter().find(behind) {
                extent = reader.cut(extent, bad.offsets.start).map_err(fail)?;
            }
        }
        assert!(
            extent.positions.end <= part.bytes && extent.end_offset <= part.end_offset,
            "nothing is given out past what is settled"
        );
        Ok(Some((open, extent)))
    }

    /// Like [`SettledReader::read`], of what is in memory, checked, and in an open file; None outside where that is not so, or
    /// where something is not as it should be: [`SettledReader::read`] finds out what. Does not block.
    pub fn read_in_memory(
        &self,
        log: &LogCell,
        segments: &Segments,
        offsets: Range<Offset>,
        max_bytes: usize,
        min_one: bool,
    ) -> Option<Option<SegmentPart>> {
        let from = offsets.start;
        let Some(part) = segments.parts().find(|part| part.end_offset > from) else {
            return Some(None);
        };
        let open = self.files.cache.get(log.id(), part.id)?;
        if !open.has_index() {
            return None;
        }
        let front = open.front(part.bytes);
        let file = InMemory::new(open.file(), front.as_deref().unwrap_or_default());
        let reader = open.reader_of(&file, part.bytes, part.end_offset);
        let Some(first) = reader.locate(from.max(part.id.base)).ok()? else {
            return Some(None);
        };
        let first = (first.position, first.header);
        let found = reader.extent_from(first, max_bytes as u64, min_one);
        let Some(extent) = found.ok()? else {
            return Some(None);
        };
        let extent = reader.cut(extent, offsets.end).ok()?;
        if !open.is_checked(&extent.positions, part.bytes, part.end_offset) {
            return None;
        }
        let source = match front {
            Some(front) => ByteSource::Copied(front),
            None => ByteSource::Mapped(Arc::clone(open.map().ok()?)),
        };
        let found = SegmentPart {
            source,
            positions: extent.positions,
            end_offset: extent.end_offset,
            segment: (log.id(), part.id),
            suspects: Arc::clone(&self.files.suspects),
        };
        (!found.is_cold()).then_some(Some(found))
    }

    /// When the broker appended the record at `offset`, or the next one: between these times.
    pub fn appended_between(
        &self,
        log: &Arc<LogCell>,
        segments: &Segments,
        offset: Offset,
    ) -> Result<Option<(Timestamp, Timestamp)>, ReadError> {
        let Some(part) = segments.parts().find(|part| part.end_offset > offset) else {
            return Ok(None);
        };
        let fail = |error: SegmentError| self.read_error(log, error, offset, &part);
        let open = self.open(log, &part).map_err(fail)?;
        let reader = open.reader(part.bytes, part.end_offset);
        let found = reader.appended_between(offset).map_err(fail)?;
        Ok(found.map(|(since, until)| (since.unwrap_or(part.first_append_time).min(until), until)))
    }

    /// The first record at or after `start` whose timestamp is at or after `wanted`.
    pub fn offset_for_time(
        &self,
        log: &Arc<LogCell>,
        segments: &Segments,
        start: Offset,
        wanted: Timestamp,
    ) -> Result<Option<TimedOffset>, ReadError> {
        for part in segments
            .parts()
            .filter(|part| part.end_offset > start && part.max_timestamp >= wanted)
        {
            let fail = |error: SegmentError| self.read_error(log, error, part.id.base, &part);
            let open = self.open(log, &part).map_err(fail)?;
            let reader = open.reader(part.bytes, part.end_offset);
            if let Some(hit) = reader
                .offset_for_time(wanted, start.max(part.id.base))
                .map_err(fail)?
            {
                return Ok(Some(hit));
            }
        }
        Ok(None)
    }

    /// The largest timestamp of a record at or after `start`.
    pub fn max_timestamp(
        &self,
        log: &Arc<LogCell>,
        segments: &Segments,
        start: Offset,
    ) -> Result<Option<Timestamp>, ReadError> {
        let mut largest: Option<Timestamp> = None;
        for part in segments.parts().filter(|part| part.end_offset > start) {
            if largest.is_some_and(|known| known >= part.max_timestamp) {
                continue;
            }
            let fail = |error: SegmentError| self.read_error(log, error, part.id.base, &part);
            let open = self.open(log, &part).map_err(fail)?;
            let reader = open.reader(part.bytes, part.end_offset);
            let hit = reader
                .max_timestamp(start.max(part.id.base))
                .map_err(fail)?;
            largest = largest.max(hit.map(|hit| hit.timestamp));
        }
        Ok(largest)
    }

    /// Puts what is damaged on record, and has the scrub look at what could not be read. The blocks need no second look once
    /// no reader is given any of it.
    fn report(&self, log: &Arc<LogCell>, part: &Part<'_>, open: &OpenSegment, examined: &Examined) {
        let mut is_all_on_record = true;
        for bad in &examined.bad {
            let (position, reason) = (bad.position, &bad.reason);
            if !bad.is_unreadable {
                let reason = format!("segment {}, position {position}: {reason}", part.id);
                if self.damage.note_lost(log, bad.offsets.clone(), reason) {
                    self.counters.read_faults.fetch_add(1, Relaxed);
                    self.go_on_behind(log, part);
                }
            } else if !log.is_lost(&bad.offsets) {
                tracing::error!(log = %log.id(), segment = %part.id, position, reason, "a segment cannot be read");
                self.files.suspects.add(log.id(), part.id);
                is_all_on_record = false;
            }
        }
        if is_all_on_record {
            open.noted(examined);
        }
    }

    /// What settles from now on has a file of its own, that the damage does not reach.
    fn go_on_behind(&self, log: &Arc<LogCell>, part: &Part<'_>) {
        if let Source::Active(_) = &part.source {
            log.ask_for_seal();
            self.dirty.push_once(log);
        }
    }

    fn open(&self, log: &LogCell, part: &Part<'_>) -> Result<Arc<OpenSegment>, SegmentError> {
        let source = match part.source {
            Source::Sealed(kind, sealed) => SegmentSource::Sealed {
                kind,
                bytes: sealed.bytes,
                last_append_time: sealed.last_append_time,
            },
            Source::Active(active) => SegmentSource::Active {
                index: active.index.clone(),
                bytes_max: active.bytes_max.max(part.bytes),
            },
        };
        self.files.open(log.id(), part.id, &source)
    }

    /// What the key index of a segment knows of what is asked.
    fn look_up(&self, log: LogId, part: &Part<'_>, open: &OpenSegment, asks: &Asks<'_>) -> Told {
        let data = &self.files.data;
        let (disk, directory) = (data.disk(), data.of_log(log));
        let is_of = |found: &KeyIndex| {
            let is_of = open.index_of(|index| found.is_of(log, index));
            is_of.unwrap_or(false)
        };
        let place = Place {
            directory: &directory,
            log,
            id: part.id,
            bytes: part.bytes,
            grows: matches!(part.source, Source::Active(_)),
            is_of: &is_of,
        };
        let indexes = &self.files.key_indexes;
        let of_key = |key| indexes.look_up(disk, &place, key);
        let smallest = || indexes.smallest_times(disk, &place);
        Told {
            key_blocks: asks.key.and_then(of_key).map(|found| found.blocks),
            smallest: asks.smallest.then(smallest).flatten(),
        }
    }

    /// A read has failed: the scrub looks at the segment soon, and puts what is damaged on record to the offset.
    fn read_error(
        &self,
        log: &Arc<LogCell>,
        error: SegmentError,
        from: Offset,
        part: &Part<'_>,
    ) -> ReadError {
        let (id, suspects) = (log.id(), &self.files.suspects);
        match error {
            SegmentError::Io { source, .. } if is_shortage(&source) => {
                ReadError::Io { from, source }
            }
            // It was removed, or replaced, since the view was taken.
            SegmentError::Io { source, .. } if !log.has_segment(part.id) => {
                ReadError::Io { from, source }
            }
            SegmentError::Io { source, .. } => {
                tracing::error!(log = %id, segment = %part.id, error = %source, "a segment cannot be read");
                suspects.add(id, part.id);
                ReadError::Io { from, source }
            }
            SegmentError::Damaged { .. } | SegmentError::Foreign { .. } => {
                tracing::error!(log = %id, %error, "a segment is damaged");
                self.go_on_behind(log, part);
                suspects.add(id, part.id);
                ReadError::Damaged {
                    range: part.id.base..part.end_offset,
                }
            }
        }
    }
}

/// What a reader is told of batches that are not as they were written.
fn bad_batches(bad: &BadBatches, from: Offset) -> ReadError {
    if bad.is_unreadable {
        let source = std::io::Error::other(bad.reason.clone());
        return ReadError::Io { from, source };
    }
    ReadError::Damaged {
        range: bad.offsets.clone(),
    }
}
