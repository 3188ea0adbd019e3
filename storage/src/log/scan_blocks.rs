//! What of a segment a scan has to read: blocks are passed over by what the index says of them.
//!
//! Callers: [`super::scan`] and the reader of what has settled. Plain computations; the file is read elsewhere.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use model::{Offset, Timestamp};

use crate::segment::key_index::Sought;
use crate::segment::{Block, SegmentId, SegmentIndex};

/// What a scan wants, as far as an index can tell that a block does not have it.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    times: Option<Range<Timestamp>>,
    key: Option<Sought>,
    /// The segment whose key index was asked last, and what it told.
    looked: Option<(SegmentId, Told)>,
}

/// What a key index is asked.
pub(crate) struct Asks<'a> {
    /// Which blocks may hold this.
    pub key: Option<&'a Sought>,
    /// The smallest timestamp of each block.
    pub smallest: bool,
}

/// What a key index has told; None where it knows nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    /// The blocks that may hold the key.
    pub key_blocks: Option<Vec<Range<u32>>>,
    /// The smallest timestamp of each block.
    pub smallest: Option<Arc<[Timestamp]>>,
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
    pub fn new(times: Option<Range<Timestamp>>, key: Option<Sought>) -> Wanted {
        Wanted {
            times,
            key,
            looked: None,
        }
    }

    /// Asks the key index once for each segment, if it can tell anything of what is wanted.
    pub fn look_up(&mut self, segment: SegmentId, look_up: impl FnOnce(&Asks<'_>) -> Told) {
        let is_known = |(known, _): &(SegmentId, _)| *known == segment;
        let last = Timestamp::from_millis(i64::MAX);
        let asks = Asks {
            key: self.key.as_ref(),
            smallest: self.times.as_ref().is_some_and(|times| times.end < last),
        };
        if (asks.key.is_some() || asks.smallest) && !self.looked.as_ref().is_some_and(is_known) {
            let told = look_up(&asks);
            self.looked = Some((segment, told));
        }
    }

    /// Whether a block of a segment may hold what is wanted, by what the key index told.
    fn key_index_allows(&self, segment: SegmentId, block: usize) -> bool {
        let told = self.looked.as_ref().filter(|(of, _)| *of == segment);
        let Some((_, told)) = told else { return true };
        let has_key = told.key_blocks.as_ref().is_none_or(|blocks| {
            let behind = blocks.partition_point(|range| range.end as usize <= block);
            let next = blocks.get(behind);
            next.is_some_and(|range| range.start as usize <= block)
        });
        let smallest = told.smallest.as_ref().and_then(|times| times.get(block));
        let end = self.times.as_ref().map(|times| times.end);
        has_key
            && smallest
                .zip(end)
                .is_none_or(|(smallest, end)| *smallest < end)
    }

    /// Whether something whose latest record has this time may hold a wanted one.
    pub fn may_be_in(&self, max_timestamp: Timestamp) -> bool {
        let times = self.times.as_ref();
        times.is_none_or(|times| max_timestamp >= times.start)
    }

    /// Whether a block may hold something wanted, by the segment's index. Its smallest timestamp does not say: it is that of first
    /// records of batches, which others in their batches may undercut. The key index has the exact one.
    fn may_be_in_block(&self, block: &Block) -> bool {
        self.may_be_in(block.max_timestamp)
    }

    /// The next blocks at or behind `from` that may hold something wanted, in the first `bytes` of the segment.
    pub fn next_blocks(&self, index: &SegmentIndex, from: Offset, bytes: u64) -> NextBlocks {
        let blocks = index.blocks();
        let published = blocks.partition_point(|block| u64::from(block.position) < bytes);
        let first = index.block_of_offset(from).unwrap_or(0).min(published);
        let is_wanted = |block: &usize| {
            self.may_be_in_block(&blocks[*block]) && self.key_index_allows(index.id(), *block)
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
