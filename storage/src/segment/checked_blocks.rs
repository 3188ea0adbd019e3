//! Which blocks of an open segment were checked since it was opened: a bit for each.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard};

use model::Offset;

use super::index::BLOCK_BYTES;
use crate::manifest::SegmentKind;

/// Which blocks of an open segment were checked. Goes with the open file.
#[derive(Debug, Default)]
pub(super) struct CheckedBlocks(Mutex<BlockBits>);

#[derive(Debug, Default)]
pub(super) struct BlockBits {
    /// A bit for each block of the index: 8 KiB for a segment of 1 GiB.
    bits: Vec<u64>,
    /// The last block, which may still grow, and the position up to which it was checked.
    growing: Option<(usize, u64)>,
}

impl CheckedBlocks {
    pub fn locked(&self) -> MutexGuard<'_, BlockBits> {
        self.0
            .lock()
            .expect("nothing panics while it holds the bits")
    }

    pub fn mark<'s>(&self, spans: impl IntoIterator<Item = &'s Span>) {
        let mut state = self.locked();
        for span in spans {
            if !span.is_full() {
                state.growing = Some((span.block, span.positions.end));
                continue;
            }
            assert!(
                span.positions.start < span.positions.end,
                "a block holds a batch"
            );
            let word = span.block / 64;
            if state.bits.len() <= word {
                state.bits.resize(word + 1, 0);
            }
            state.bits[word] |= 1 << (span.block % 64);
        }
    }
}

impl BlockBits {
    pub fn holds(&self, block: usize, until: u64) -> bool {
        let word = self.bits.get(block / 64).copied().unwrap_or(0);
        word & (1 << (block % 64)) != 0
            || self
                .growing
                .is_some_and(|(growing, end)| growing == block && until <= end)
    }
}

/// A block of the index as far as it is published.
#[derive(Clone, Debug)]
pub(super) struct Span {
    pub block: usize,
    pub positions: Range<u64>,
    pub offsets: Range<Offset>,
    pub kind: SegmentKind,
    /// Of the heads of its batches; None while more of the block is written than is published.
    pub heads_checksum: Option<u32>,
}

impl Span {
    /// Whether no batch comes to the block any more, and all of it is here.
    pub fn is_full(&self) -> bool {
        self.heads_checksum.is_some() && self.positions.end - self.positions.start >= BLOCK_BYTES
    }

    /// Whether the block's batches may end before `next`: those of a plain segment end where the next block begins.
    pub fn may_end_at(&self, next: Offset) -> bool {
        match self.kind {
            SegmentKind::Plain => next == self.offsets.end,
            SegmentKind::Sparse => next <= self.offsets.end,
        }
    }
}
