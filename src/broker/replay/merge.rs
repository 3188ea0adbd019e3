//! Merging partitions by record time, over a bounded buffer.
//!
//! Caller: a replay by time. The merge holds blocks until it has as many bytes as it may have, or all there are; then it gives the
//! earliest records. It reads on in the partition of which it holds the earliest end, so that none runs ahead of the others.
//! Invariant: no record is given after one with a later time, unless it came into the buffer only after that one was given; each
//! of these is counted.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use model::{Offset, PartitionId, Timestamp};

use super::block::Block;

/// Bytes that an order by time may hold to find the earliest record.
pub const TIME_ORDER_BYTES: usize = 32 << 20;
/// Records that are given at a time.
const GIVEN_MAX: usize = 4096;
/// Bytes that are given at a time, of keys and values, but for a single larger record.
const GIVEN_BYTES: usize = 512 << 10;

/// A record in the buffer, in the order of its time. Its block and index say where it is.
type Waiting = Reverse<(Timestamp, PartitionId, Offset, u64, u32)>;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Merge {
    waiting: BinaryHeap<Waiting>,
    blocks: BTreeMap<u64, Held>,
    blocks_begun: u64,
    bytes: usize,
    /// The time of the last record that was given.
    given: Option<Timestamp>,
    late: u64,
}

/// A block of which some records wait.
#[derive(Debug)]
struct Held {
    block: Block,
    left: usize,
    bytes: usize,
}

impl Merge {
    /// Whether it holds as much as it may.
    pub fn is_full(&self) -> bool {
        self.bytes >= TIME_ORDER_BYTES
    }

    /// Records that came too late for their place in the order.
    pub fn late(&self) -> u64 {
        self.late
    }

    /// Takes a block. Gives the latest time in it.
    pub fn push(&mut self, block: Block) -> Option<Timestamp> {
        let number = self.blocks_begun;
        self.blocks_begun += 1;
        let mut latest = None;
        for (index, found) in block.iter().enumerate() {
            let time = found.record.timestamp;
            latest = latest.max(Some(time));
            self.late += u64::from(self.given.is_some_and(|given| time < given));
            let index = u32::try_from(index).expect("a block has fewer records than bytes");
            let (partition, offset) = (found.partition, found.record.offset);
            self.waiting
                .push(Reverse((time, partition, offset, number, index)));
        }
        let bytes = block.memory_bytes() + block.len() * size_of::<Waiting>();
        let left = block.len();
        if left > 0 {
            self.bytes += bytes;
            self.blocks.insert(number, Held { block, left, bytes });
        }
        latest
    }

    /// Takes out the earliest records, `count` at most.
    pub fn pop(&mut self, count: u64) -> Block {
        let mut given = Block::default();
        let mut bytes = 0;
        let count = usize::try_from(count).map_or(GIVEN_MAX, |count| count.min(GIVEN_MAX));
        while given.len() < count && bytes < GIVEN_BYTES {
            let Some(Reverse((time, _, _, number, index))) = self.waiting.pop() else {
                break;
            };
            let held = self.blocks.get_mut(&number);
            let held = held.expect("a block is held while a record of it waits");
            let record = held.block.get(index as usize).map(|found| found.record);
            let record = record.expect("it was in the block when that came");
            bytes += record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
            given.push_of(&held.block, index as usize);
            held.left -= 1;
            if held.left == 0 {
                self.bytes -= held.bytes;
                self.blocks.remove(&number);
            }
            self.given = self.given.max(Some(time));
        }
        given
    }

    /// The first offset of each partition that waits.
    pub fn first_waiting(&self) -> BTreeMap<PartitionId, Offset> {
        let mut first = BTreeMap::new();
        for Reverse((_, partition, offset, ..)) in &self.waiting {
            let known = first.entry(*partition).or_insert(*offset);
            *known = (*known).min(*offset);
        }
        first
    }
}
