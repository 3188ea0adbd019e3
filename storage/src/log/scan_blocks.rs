//! What of a segment a scan has to read: blocks are passed over by what the index says of them.
//!
//! Callers: [`super::scan`] and the reader of what has settled. Plain computations; the file is read elsewhere.

use std::ops::Range;

use bytes::Bytes;
use model::{Offset, Timestamp};

use crate::segment::{Block, SegmentId, SegmentIndex};

/// What a scan wants, as far as an index can tell that a block does not have it.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    times: Option<Range<Timestamp>>,
    key: Option<Bytes>,
    /// The sealed segment in which the key was looked up last, and the blocks that may hold it; None for all of them.
    looked: Option<(SegmentId, Option<Vec<Range<u32>>>)>,
}

/// How far a look at what has settled came.
pub(crate) struct Stride {
    pub skipped_bytes: u64,
    /// Where the batches begin to tell, behind what was passed over.
    pub from: Offset,
    /// Whole batches, if there are any.
    pub batches: Option<Bytes>,
    /// What lies before is in the batches, or not wanted.
    pub end_offset: Offset,
}

/// The next blocks of a segment to read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NextBlocks {
    pub from: Offset,
    /// Where the first block is behind them that is not wanted; None for the end of what is published.
    pub until: Option<Offset>,
    pub skipped_bytes: u64,
}

impl Wanted {
    /// Some times of some key; None for all.
    pub fn new(times: Option<Range<Timestamp>>, key: Option<Bytes>) -> Wanted {
        Wanted {
            times,
            key,
            looked: None,
        }
    }

    /// Asks once for each sealed segment which of its blocks may hold the key.
    pub fn look_up(
        &mut self,
        segment: SegmentId,
        look_up: impl FnOnce(&[u8]) -> Option<Vec<Range<u32>>>,
    ) {
        let is_known = |(known, _): &(SegmentId, _)| *known == segment;
        if let Some(key) = &self.key
            && !self.looked.as_ref().is_some_and(is_known)
        {
            self.looked = Some((segment, look_up(key)));
        }
    }

    /// Whether a block of a segment may hold the key.
    fn key_may_be_in(&self, segment: SegmentId, block: usize) -> bool {
        match &self.looked {
            Some((looked, Some(blocks))) if *looked == segment => {
                let behind = blocks.partition_point(|range| range.end as usize <= block);
                let next = blocks.get(behind);
                next.is_some_and(|range| range.start as usize <= block)
            }
            _ => true,
        }
    }

    /// Whether something whose latest record has this time may hold a wanted one.
    pub fn may_be_in(&self, max_timestamp: Timestamp) -> bool {
        let times = self.times.as_ref();
        times.is_none_or(|times| max_timestamp >= times.start)
    }

    /// Whether a block may hold something wanted. Its smallest timestamp does not say: it is that of first records of batches,
    /// which others in their batches may undercut.
    fn may_be_in_block(&self, block: &Block) -> bool {
        self.may_be_in(block.max_timestamp)
    }

    /// The next blocks at or behind `from` that may hold something wanted, in the first `bytes` of the segment.
    pub fn next_blocks(&self, index: &SegmentIndex, from: Offset, bytes: u64) -> NextBlocks {
        let blocks = index.blocks();
        let published = blocks.partition_point(|block| u64::from(block.position) < bytes);
        let first = index.block_of_offset(from).unwrap_or(0).min(published);
        let is_wanted = |block: &usize| {
            self.may_be_in_block(&blocks[*block]) && self.key_may_be_in(index.id(), *block)
        };
        let found = (first..published).find(is_wanted).unwrap_or(published);
        let behind = (found..published).find(|block| !is_wanted(block));
        let position = |block: usize| match block < published {
            true => u64::from(blocks[block].position),
            false => bytes,
        };
        let skipped_bytes = position(found) - position(first);
        if found == published {
            let from = index.end_offset();
            return NextBlocks {
                from,
                until: Some(from),
                skipped_bytes,
            };
        }
        NextBlocks {
            from: match found == first {
                true => from,
                false => index.block_offset(found),
            },
            until: behind.map(|block| index.block_offset(block)),
            skipped_bytes,
        }
    }
}
