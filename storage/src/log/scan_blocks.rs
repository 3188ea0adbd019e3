//! What of a segment a scan has to read: blocks are passed over by what the index says of them.
//!
//! Callers: [`super::scan`] and the reader of what has settled. Plain computations; the file is read elsewhere.

use std::ops::Range;

use bytes::Bytes;
use model::{Offset, Timestamp};

use crate::segment::{Block, SegmentIndex};

/// What a scan wants, as far as an index can tell that a block does not have it.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub times: Option<Range<Timestamp>>,
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
        let is_wanted = |block: &usize| self.may_be_in_block(&blocks[*block]);
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
