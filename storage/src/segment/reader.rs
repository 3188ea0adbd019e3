//! Finds records in one segment: by offset, by time, and how far a fetch reaches.
//!
//! Callers: `Log::read` and its relatives, through [`OpenSegment`](super::OpenSegment). A reader is told up to where the
//! segment is published, and never looks past it. Our own looks at bytes go through `read_at`; only ranges that leave
//! unchanged are handed out as slices of the map.

use std::ops::Range;

use bytes::Bytes;
use model::batch::{Batch, BatchHeader};
use model::codec::DecompressLimit;
use model::{Offset, Timestamp};

use super::index::{BLOCK_BYTES, SegmentIndex, SharedIndex};
use super::walk::{HeaderWalk, Walked};
use super::{SegmentError, SegmentId};
use crate::error::TimedOffset;
use crate::io::DiskFile;

/// Consecutive whole batches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where they stand in the file.
    pub positions: Range<u64>,
    /// The first batch's base offset.
    pub base_offset: Offset,
    /// The offset after the last batch.
    pub end_offset: Offset,
}

/// Looks into the published part of one segment.
#[derive(Debug)]
pub struct SegmentReader<'a> {
    /// Which segment.
    pub id: SegmentId,
    /// Its log file.
    pub file: &'a dyn DiskFile,
    /// Its index.
    pub index: &'a SharedIndex,
    /// How many of its bytes are published.
    pub bytes: u64,
    /// The offset after the last published record.
    pub end_offset: Offset,
}

impl SegmentReader<'_> {
    /// Whole batches from the one that contains `from` on, of at most `max_bytes`. With `min_one` the first batch is taken
    /// even if it is larger. None if nothing fits, or if `from` lies behind the segment.
    pub fn extent(
        &self,
        from: Offset,
        max_bytes: u64,
        min_one: bool,
    ) -> Result<Option<Extent>, SegmentError> {
        let Some(first) = self.locate(from)? else {
            return Ok(None);
        };
        self.extent_from((first.position, first.header), max_bytes, min_one)
    }

    /// [`Self::extent`] from a batch whose place is known.
    pub fn extent_from(
        &self,
        (start, header): (u64, BatchHeader),
        max_bytes: u64,
        min_one: bool,
    ) -> Result<Option<Extent>, SegmentError> {
        let first_end = start + header.total_bytes() as u64;
        let base_offset = header.base();
        if first_end - start > max_bytes {
            let alone = Extent {
                positions: start..first_end,
                base_offset,
                end_offset: header.next_offset(),
            };
            return Ok(min_one.then_some(alone));
        }
        let target = start.saturating_add(max_bytes);
        if target >= self.bytes {
            let positions = start..self.bytes;
            return Ok(Some(Extent {
                positions,
                base_offset,
                end_offset: self.end_offset,
            }));
        }
        let known = self.with_index(|index| {
            let block = index.block_of_position(target)?;
            Some((
                u64::from(index.blocks()[block].position),
                index.block_offset(block),
            ))
        })?;
        let (mut end, mut end_offset) = match known {
            Some((position, offset)) if position > first_end => (position, offset),
            _ => (first_end, header.next_offset()),
        };
        let mut walk = self.walk(end, end_offset);
        // What cannot be walked over ends the extent; the next one begins with it, and says so.
        while let Ok(Some(next)) = walk.next_batch() {
            if next.end_position() > target {
                break;
            }
            (end, end_offset) = (next.end_position(), next.header.next_offset());
        }
        Ok(Some(Extent {
            positions: start..end,
            base_offset,
            end_offset,
        }))
    }

    /// What of an extent lies before `until`: whole batches, the first of them at least.
    pub fn cut(&self, extent: Extent, until: Offset) -> Result<Extent, SegmentError> {
        if extent.end_offset <= until {
            return Ok(extent);
        }
        let mut walk = self.walk(extent.positions.start, extent.base_offset);
        let Some(first) = walk.next_batch()? else {
            return Ok(extent);
        };
        let (mut end, mut end_offset) = (first.end_position(), first.header.next_offset());
        let known = self.with_index(|index| {
            let block = index.block_of_offset(until)?;
            Some((
                u64::from(index.blocks()[block].position),
                index.block_offset(block),
            ))
        })?;
        if let Some((position, offset)) = known
            && position > end
            && offset <= until
        {
            (end, end_offset) = (position, offset);
        }
        let mut walk = self.walk_to(end, end_offset, extent.positions.end);
        // What cannot be walked over ends the extent.
        while let Ok(Some(next)) = walk.next_batch() {
            if next.header.next_offset() > until {
                break;
            }
            (end, end_offset) = (next.end_position(), next.header.next_offset());
        }
        Ok(Extent {
            positions: extent.positions.start..end,
            end_offset,
            ..extent
        })
    }

    /// The batch that contains `offset`, or the first one behind it if compaction took it; None past the published end.
    /// A base offset stands outside its batch's checksum: what does not fit into its block of the index is damage.
    pub fn locate(&self, offset: Offset) -> Result<Option<Walked>, SegmentError> {
        if offset >= self.end_offset {
            return Ok(None);
        }
        let Some((position, base, next_block)) = self.with_index(|index| {
            let block = index.block_of_offset(offset)?;
            let next = (block + 1 < index.blocks().len())
                .then(|| (index.block_end(block), index.block_offset(block + 1)));
            Some((
                u64::from(index.blocks()[block].position),
                index.block_offset(block),
                next,
            ))
        })?
        else {
            return Ok(None);
        };
        let mut walk = self.walk(position, base);
        while let Some(walked) = walk.next_batch()? {
            if walked.header.next_offset() <= offset {
                continue;
            }
            let end = match next_block {
                Some((end, next)) if walked.position < end => next,
                _ => self.end_offset,
            };
            if walked.header.next_offset() > end {
                break;
            }
            return Ok(Some(walked));
        }
        let reason = format!(
            "no batch with offset {offset}, which is below the end {}",
            self.end_offset
        );
        Err(SegmentError::damaged(self.id, walk.position(), reason))
    }

    /// The first record in the order of offsets, from `from` on, whose timestamp is at or after `target`. Exact also where
    /// devices' clocks jump: blocks are skipped by their largest timestamp, and the candidate batch is decoded.
    pub fn offset_for_time(
        &self,
        target: Timestamp,
        from: Offset,
    ) -> Result<Option<TimedOffset>, SegmentError> {
        let mut block = self.with_index(|index| index.block_of_offset(from))?;
        while let Some(at) = block {
            let found = self.with_index(|index| {
                let found = index.block_reaching(at, target)?;
                Some((
                    found,
                    index.blocks()[found].position.into(),
                    index.block_offset(found),
                    index.block_end(found),
                ))
            })?;
            let Some((found, position, base, end)) = found else {
                return Ok(None);
            };
            if position >= self.bytes {
                return Ok(None);
            }
            let mut walk = self.walk_to(position, base, end.min(self.bytes));
            while let Some(walked) = walk.next_batch()? {
                if walked.header.max_time() < target || walked.header.next_offset() <= from {
                    continue;
                }
                let found = first_at_or_after(&self.batch(&walked)?, target, from);
                let found = found
                    .map_err(|error| SegmentError::damaged(self.id, walked.position, error))?;
                if found.is_some() {
                    return Ok(found);
                }
            }
            block = Some(found + 1);
        }
        Ok(None)
    }

    /// The first record, from `from` on, with the largest timestamp that any of them has.
    pub fn max_timestamp(&self, from: Offset) -> Result<Option<TimedOffset>, SegmentError> {
        let mut blocks = self.with_index(|index| {
            let first = index.block_of_offset(from).unwrap_or(0);
            let published = |block: &usize| u64::from(index.blocks()[*block].position) < self.bytes;
            let describe = |block: usize| {
                let found = index.blocks()[block];
                let end = index.block_end(block).min(self.bytes);
                (
                    found.max_timestamp,
                    u64::from(found.position)..end,
                    index.block_offset(block),
                )
            };
            (first..index.blocks().len())
                .filter(published)
                .map(describe)
                .collect::<Vec<_>>()
        })?;
        blocks.sort_by_key(|(max, ..)| std::cmp::Reverse(*max));
        let mut largest: Option<TimedOffset> = None;
        for (max, positions, base) in blocks {
            if largest.is_some_and(|hit| hit.timestamp >= max) {
                break;
            }
            let mut walk = self.walk_to(positions.start, base, positions.end);
            while let Some(walked) = walk.next_batch()? {
                let cannot_beat =
                    largest.is_some_and(|hit| hit.timestamp >= walked.header.max_time());
                if walked.header.next_offset() <= from || cannot_beat {
                    continue;
                }
                let found = largest_in(&self.batch(&walked)?, from);
                let found = found
                    .map_err(|error| SegmentError::damaged(self.id, walked.position, error))?;
                if let Some(hit) = found
                    && largest.is_none_or(|largest| largest.timestamp < hit.timestamp)
                {
                    largest = Some(hit);
                }
            }
        }
        Ok(largest)
    }

    /// When the broker appended the record at `offset`: not before the first, if that is known, and not after the second.
    /// Blocks whose times are alike may have been indexed again, with the time of the last of them.
    pub fn appended_between(
        &self,
        offset: Offset,
    ) -> Result<Option<(Option<Timestamp>, Timestamp)>, SegmentError> {
        self.with_index(|index| {
            let block = index.block_of_offset(offset)?;
            let until = index.blocks()[block].append_time;
            let before = index.blocks()[..block].iter().rev();
            let since = before
                .map(|block| block.append_time)
                .find(|time| *time < until);
            Some((since, until))
        })
    }

    /// Copies a range of published bytes: for code of ours that touches them.
    pub fn copy(&self, positions: Range<u64>) -> Result<Bytes, SegmentError> {
        assert!(
            positions.end <= self.bytes,
            "nothing past the published end is read"
        );
        let count = usize::try_from(positions.end - positions.start)
            .expect("a published range fits memory");
        match self.file.read_new(positions.start, count) {
            Ok(bytes) => Ok(bytes.into()),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                Err(SegmentError::damaged(self.id, positions.start, error))
            }
            Err(error) => Err(SegmentError::io(self.id)(error)),
        }
    }

    /// Copies and checks one batch.
    pub fn batch(&self, walked: &Walked) -> Result<Batch, SegmentError> {
        let bytes = self.copy(walked.position..walked.end_position())?;
        Batch::parse(bytes).map_err(|error| SegmentError::damaged(self.id, walked.position, error))
    }

    fn walk(&self, position: u64, base: Offset) -> HeaderWalk<'_> {
        self.walk_to(position, base, self.bytes)
    }

    fn walk_to(&self, position: u64, base: Offset, end: u64) -> HeaderWalk<'_> {
        HeaderWalk::new(
            self.file,
            self.id,
            position..end,
            base,
            BLOCK_BYTES as usize,
        )
    }

    fn with_index<T>(&self, lookup: impl FnOnce(&SegmentIndex) -> T) -> Result<T, SegmentError> {
        self.index.with(self.file, lookup)
    }
}

/// The first record of a batch, from `from` on, whose timestamp is at or after `target`.
pub fn first_at_or_after(
    batch: &Batch,
    target: Timestamp,
    from: Offset,
) -> Result<Option<TimedOffset>, model::batch::BatchError> {
    let mut records = batch.records(DecompressLimit::default())?;
    while let Some(record) = records.next_ref() {
        let record = record?;
        if record.offset >= from && record.timestamp >= target {
            return Ok(Some(hit(batch.header(), record.offset, record.timestamp)));
        }
    }
    Ok(None)
}

/// The first record of a batch, from `from` on, with the largest timestamp that any of them has.
pub fn largest_in(
    batch: &Batch,
    from: Offset,
) -> Result<Option<TimedOffset>, model::batch::BatchError> {
    let mut records = batch.records(DecompressLimit::default())?;
    let mut largest: Option<TimedOffset> = None;
    while let Some(record) = records.next_ref() {
        let record = record?;
        let larger = largest.is_none_or(|largest| largest.timestamp < record.timestamp);
        if record.offset >= from && larger {
            largest = Some(hit(batch.header(), record.offset, record.timestamp));
        }
    }
    Ok(largest)
}

fn hit(header: &BatchHeader, offset: Offset, timestamp: Timestamp) -> TimedOffset {
    TimedOffset {
        offset,
        timestamp,
        leader_epoch: header.epoch(),
    }
}
