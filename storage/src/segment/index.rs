//! The sparse index of one segment, in memory: about one block per 16 KiB, for offsets and for time.
//!
//! Callers: the writer pushes batches as it writes them, the reader looks up. The index of the active segment is shared
//! between them and is missing after a restart until somebody needs it ([`SharedIndex`]).
//! Invariants: a block starts at a batch; blocks are contiguous, from position 0 to `bytes`; relative offsets rise. Of a plain
//! segment the offsets of the blocks are contiguous too; in a sparse one there are gaps, also before the first.

use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use model::batch::BatchHeader;
use model::{Offset, Timestamp};

use super::walk::{HEAD_BYTES, HeaderWalk};
use super::{SegmentError, SegmentId};
use crate::io::DiskFile;
use crate::manifest::{Sealed, SegmentKind};

/// A block ends with the batch that brings it to this size: one read finds any batch in it.
pub const BLOCK_BYTES: u64 = 16 * 1024;

/// How much a rebuild reads at a time.
const REBUILD_READ_BYTES: usize = 256 * 1024;

/// Some consecutive batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// The first batch's base offset, relative to the segment's.
    pub relative_offset: u32,
    /// Where the first batch starts.
    pub position: u32,
    /// The smallest base timestamp of its batches: the first record's time, which a producer whose clock jumps may undercut
    /// within a batch. A hint, not a bound.
    pub min_timestamp: Timestamp,
    /// The largest timestamp of its records, as the batches' headers say.
    pub max_timestamp: Timestamp,
    /// When the broker appended its last batch.
    pub append_time: Timestamp,
    /// CRC-32 (IEEE) over the first 21 bytes of each batch: what Kafka's own checksum leaves out, and that checksum.
    pub heads_checksum: u32,
}

/// Offsets, times and positions of one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentIndex {
    id: SegmentId,
    kind: SegmentKind,
    blocks: Vec<Block>,
    bytes: u64,
    end_offset: Offset,
    max_timestamp: Timestamp,
    first_append_time: Timestamp,
    last_append_time: Timestamp,
    records: u64,
}

/// What an index file tells of an index.
pub(super) struct Parts {
    pub id: SegmentId,
    pub kind: SegmentKind,
    pub blocks: Vec<Block>,
    pub bytes: u64,
    pub end_offset: Offset,
    pub first_append_time: Timestamp,
    pub records: u64,
}

impl SegmentIndex {
    /// The index of an empty segment.
    pub fn empty(id: SegmentId, kind: SegmentKind) -> SegmentIndex {
        SegmentIndex {
            id,
            kind,
            blocks: Vec::new(),
            bytes: 0,
            end_offset: id.base,
            max_timestamp: Timestamp::NONE,
            first_append_time: Timestamp::NONE,
            last_append_time: Timestamp::NONE,
            records: 0,
        }
    }

    pub(super) fn from_parts(parts: Parts) -> SegmentIndex {
        let Parts {
            id,
            kind,
            blocks,
            bytes,
            end_offset,
            first_append_time,
            records,
        } = parts;
        let last_append_time = blocks
            .last()
            .map_or(Timestamp::NONE, |block| block.append_time);
        let max_timestamp = blocks
            .iter()
            .map(|block| block.max_timestamp)
            .max()
            .unwrap_or(Timestamp::NONE);
        SegmentIndex {
            id,
            kind,
            blocks,
            bytes,
            end_offset,
            max_timestamp,
            first_append_time,
            last_append_time,
            records,
        }
    }

    /// Builds the index from the log file's batch headers. When the broker appended them is not in there: `append_time` is
    /// taken for all of them, which should be the last one's, so that nothing is thought older than it is.
    pub fn rebuild(
        file: &dyn DiskFile,
        id: SegmentId,
        kind: SegmentKind,
        bytes: u64,
        append_time: Timestamp,
    ) -> Result<SegmentIndex, SegmentError> {
        Ok(SegmentIndex::rebuild_with_heads(file, id, kind, bytes, append_time)?.0)
    }

    /// [`Self::rebuild`], and the checksum of all heads, which tells whether these are the batches that were settled.
    fn rebuild_with_heads(
        file: &dyn DiskFile,
        id: SegmentId,
        kind: SegmentKind,
        bytes: u64,
        append_time: Timestamp,
    ) -> Result<(SegmentIndex, u32), SegmentError> {
        let mut index = SegmentIndex::empty(id, kind);
        let heads = index.walk_on(file, bytes, append_time, HEADS_OF_NONE)?;
        Ok((index, heads))
    }

    /// Goes on to the first `bytes` of the log file, and gives the checksum of all heads, of which that of the known ones is `heads`.
    fn walk_on(
        &mut self,
        file: &dyn DiskFile,
        bytes: u64,
        append_time: Timestamp,
        mut heads: u32,
    ) -> Result<u32, SegmentError> {
        let (id, rest) = (self.id, self.bytes..bytes);
        let mut walk = HeaderWalk::new(file, id, rest, self.end_offset, REBUILD_READ_BYTES);
        while let Some(walked) = walk.next_batch()? {
            // A base offset stands outside its batch's checksum, and the checksum is not looked at here.
            let expected = self.end_offset;
            if !self.kind.may_follow(expected, walked.header.base())
                || !self.has_room_for(&walked.header)
            {
                let found = walked.header.base();
                let reason = format!("base offset {found}, expected {expected}");
                return Err(SegmentError::damaged(id, walked.position, reason));
            }
            self.push(&walked.header, &walked.head, append_time);
            heads = with_head(heads, &walked.head);
        }
        Ok(heads)
    }

    /// Adds the batch that was settled at the end of what is indexed.
    pub fn push(&mut self, header: &BatchHeader, head: &[u8; HEAD_BYTES], append_time: Timestamp) {
        assert!(
            header.base() >= self.end_offset,
            "batches are settled in the order of offsets"
        );
        let max_timestamp = header.max_time();
        // A delete horizon is no record's time.
        let min_timestamp = header.first_time().unwrap_or(max_timestamp);
        match self.blocks.last_mut() {
            Some(block) if self.bytes - u64::from(block.position) < BLOCK_BYTES => {
                block.min_timestamp = block.min_timestamp.min(min_timestamp);
                block.max_timestamp = block.max_timestamp.max(max_timestamp);
                block.append_time = append_time;
                block.heads_checksum = with_head(block.heads_checksum, head);
            }
            _ => self.blocks.push(Block {
                relative_offset: u32::try_from(header.base().since(self.id.base))
                    .expect("the segment rolls before offsets leave u32"),
                position: u32::try_from(self.bytes).expect("the segment rolls before 4 GiB"),
                min_timestamp,
                max_timestamp,
                append_time,
                heads_checksum: with_head(HEADS_OF_NONE, head),
            }),
        }
        if self.bytes == 0 {
            self.max_timestamp = max_timestamp;
            self.first_append_time = append_time;
        }
        self.max_timestamp = self.max_timestamp.max(max_timestamp);
        self.last_append_time = append_time;
        self.bytes += header.total_bytes() as u64;
        self.end_offset = header.next_offset();
        self.records += u64::from(header.record_count.unsigned_abs());
        let last = self.blocks.last().expect("a batch is in a block");
        assert!(
            u64::from(last.position) < self.bytes,
            "a block begins at a batch"
        );
    }

    /// Whether a batch can be settled behind the others without an overflow of the index's fields.
    pub fn has_room_for(&self, header: &BatchHeader) -> bool {
        let relative = header.next_offset().get().checked_sub(self.id.base.get());
        let end = self.bytes + header.total_bytes() as u64;
        relative.is_some_and(|relative| relative <= u32::MAX.into()) && end <= u32::MAX.into()
    }

    /// Which segment.
    pub fn id(&self) -> SegmentId {
        self.id
    }

    /// Whether its offsets have gaps.
    pub fn kind(&self) -> SegmentKind {
        self.kind
    }

    /// How many records its batches hold, by their headers.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// What a manifest says of the segment.
    pub fn sealed(&self) -> Sealed {
        Sealed {
            end_offset: self.end_offset,
            bytes: self.bytes,
            max_timestamp: self.max_timestamp,
            first_append_time: self.first_append_time,
            last_append_time: self.last_append_time,
            records: match self.kind {
                SegmentKind::Plain => self.end_offset.since(self.id.base),
                SegmentKind::Sparse => self.records,
            },
        }
    }

    /// The blocks, in order.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// How many bytes of the log file are indexed.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The offset after the last indexed record.
    pub fn end_offset(&self) -> Offset {
        self.end_offset
    }

    /// The index of its blocks that end within the first `bytes`, without the last one, which may grow. Later blocks change
    /// nothing about these.
    pub fn ended_blocks(&self, bytes: u64) -> SegmentIndex {
        let ends = self.blocks.get(1..).unwrap_or_default();
        let count = ends.partition_point(|next| u64::from(next.position) <= bytes);
        let next = self.blocks.get(count).filter(|_| count > 0);
        SegmentIndex::from_parts(Parts {
            id: self.id,
            kind: self.kind,
            blocks: self.blocks[..count].to_vec(),
            bytes: next.map_or(0, |next| next.position.into()),
            end_offset: next.map_or(self.id.base, |next| {
                self.id.base.plus(next.relative_offset.into())
            }),
            first_append_time: self.first_append_time,
            // Nobody asks for it.
            records: 0,
        })
    }

    /// The largest timestamp of the records; `Timestamp::NONE` if there are none.
    pub fn max_timestamp(&self) -> Timestamp {
        self.max_timestamp
    }

    /// When the broker appended the first batch.
    pub fn first_append_time(&self) -> Timestamp {
        self.first_append_time
    }

    /// A rewrite may have taken the first batches: those that are left were appended no earlier.
    pub(super) fn set_first_append_time(&mut self, time: Timestamp) {
        self.first_append_time = time;
    }

    /// When the broker appended the last batch.
    pub fn last_append_time(&self) -> Timestamp {
        self.last_append_time
    }

    /// Memory that the index takes.
    pub fn memory_bytes(&self) -> usize {
        size_of::<SegmentIndex>() + self.blocks.capacity() * size_of::<Block>()
    }

    /// The block that holds the batch with `offset`, or the first one if the offset lies before it.
    pub fn block_of_offset(&self, offset: Offset) -> Option<usize> {
        let relative = offset.get().saturating_sub(self.id.base.get());
        let after = self
            .blocks
            .partition_point(|block| u64::from(block.relative_offset) <= relative);
        if self.blocks.is_empty() {
            None
        } else {
            Some(after.saturating_sub(1))
        }
    }

    /// The last block that starts at or before a position.
    pub fn block_of_position(&self, position: u64) -> Option<usize> {
        let after = self
            .blocks
            .partition_point(|block| u64::from(block.position) <= position);
        after.checked_sub(1)
    }

    /// The first block from `from` on that may hold a record at or after `timestamp`.
    pub fn block_reaching(&self, from: usize, timestamp: Timestamp) -> Option<usize> {
        let blocks = self.blocks.get(from..)?;
        blocks
            .iter()
            .position(|block| block.max_timestamp >= timestamp)
            .map(|found| from + found)
    }

    /// The first offset of a block.
    pub fn block_offset(&self, block: usize) -> Offset {
        self.id.base.plus(self.blocks[block].relative_offset.into())
    }

    /// Where a block ends.
    pub fn block_end(&self, block: usize) -> u64 {
        self.blocks
            .get(block + 1)
            .map_or(self.bytes, |next| next.position.into())
    }
}

/// The checksum of no heads.
pub(super) const HEADS_OF_NONE: u32 = 0;

/// The checksum of heads and one more behind them: CRC-32 (IEEE 802.3) of the bytes in a row.
pub(super) fn with_head(checksum: u32, head: &[u8; HEAD_BYTES]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(checksum);
    hasher.update(head);
    hasher.finalize()
}

/// Whether a segment has the heads that were settled in it. Which one is another cannot be told: none is to be believed.
pub(crate) fn check_heads(
    id: SegmentId,
    found: u32,
    expected: Option<u32>,
) -> Result<(), SegmentError> {
    match expected {
        Some(expected) if expected != found => Err(SegmentError::Foreign {
            segment: id,
            found,
            expected,
        }),
        _ => Ok(()),
    }
}

/// A segment's index, shared between the writer and readers. After a restart the active segment's is missing, so that start-up
/// does not read the segment; the first one who needs it builds it, while batches go on to be settled.
#[derive(Clone, Debug)]
pub struct SharedIndex {
    state: Arc<RwLock<State>>,
    /// Held by the one who builds the index. The others wait for it, and the settler does not.
    building: Arc<Mutex<()>>,
}

/// So often whoever builds an index reads what came meanwhile, before it makes the settler wait for the rest.
const BUILD_ROUNDS: usize = 4;

#[derive(Debug)]
struct State {
    index: Option<SegmentIndex>,
    /// What an index would cover: all that was settled.
    written: Written,
}

#[derive(Clone, Copy, Debug)]
struct Written {
    id: SegmentId,
    bytes: u64,
    end_offset: Offset,
    append_time: Timestamp,
    /// The checksum of all heads; None if the segment was begun by a release that kept none.
    heads_checksum: Option<u32>,
}

impl SharedIndex {
    /// Shares an index. Whether its heads' checksum is known matters for one that grows: that one is empty here.
    pub fn new(index: SegmentIndex) -> SharedIndex {
        let written = Written {
            id: index.id,
            bytes: index.bytes,
            end_offset: index.end_offset,
            append_time: index.last_append_time,
            heads_checksum: (index.bytes == 0).then_some(HEADS_OF_NONE),
        };
        SharedIndex::of(Some(index), written)
    }

    /// The index of a plain segment, which is built from the first `bytes` of the log file when it is needed, and has to find
    /// the same heads there.
    pub fn missing(
        id: SegmentId,
        bytes: u64,
        end_offset: Offset,
        append_time: Timestamp,
        heads_checksum: Option<u32>,
    ) -> SharedIndex {
        let written = Written {
            id,
            bytes,
            end_offset,
            append_time,
            heads_checksum,
        };
        SharedIndex::of(None, written)
    }

    fn of(index: Option<SegmentIndex>, written: Written) -> SharedIndex {
        SharedIndex {
            state: Arc::new(RwLock::new(State { index, written })),
            building: Arc::default(),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state
            .read()
            .expect("no index operation panics while it holds the lock")
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state
            .write()
            .expect("no index operation panics while it holds the lock")
    }

    /// Notes batches that were settled; extends the index if there is one.
    pub(super) fn push<'h>(
        &self,
        batches: impl Iterator<Item = (&'h BatchHeader, [u8; HEAD_BYTES], Timestamp)>,
    ) {
        let mut state = self.write();
        for (header, head, append_time) in batches {
            state.written.bytes += header.total_bytes() as u64;
            state.written.end_offset = header.next_offset();
            state.written.append_time = append_time;
            let heads = state.written.heads_checksum;
            state.written.heads_checksum = heads.map(|heads| with_head(heads, &head));
            if let Some(index) = &mut state.index {
                index.push(header, &head, append_time);
            }
        }
    }

    /// Looks something up, building the index from `file` first if it is missing.
    pub fn with<T>(
        &self,
        file: &dyn DiskFile,
        lookup: impl FnOnce(&SegmentIndex) -> T,
    ) -> Result<T, SegmentError> {
        if self.read().index.is_none() {
            self.build(file)?;
        }
        let state = self.read();
        let index = state.index.as_ref();
        Ok(lookup(index.expect("an index that is there stays")))
    }

    /// Builds the index. The file is read without the lock: what is settled meanwhile is read in the next round.
    fn build(&self, file: &dyn DiskFile) -> Result<(), SegmentError> {
        let _building = self
            .building
            .lock()
            .expect("nobody panics while it builds an index");
        let written = match &*self.read() {
            State { index: Some(_), .. } => return Ok(()),
            State { written, .. } => *written,
        };
        let mut index = SegmentIndex::empty(written.id, SegmentKind::Plain);
        let mut heads = written.walk(file, &mut index, HEADS_OF_NONE)?;
        for _ in 1..BUILD_ROUNDS {
            let written = self.read().written;
            heads = written.walk(file, &mut index, heads)?;
        }
        let mut state = self.write();
        let written = state.written;
        written.walk(file, &mut index, heads)?;
        state.index = Some(index);
        Ok(())
    }

    /// The checksum of the heads of all that was settled, where it is known.
    pub(super) fn heads_checksum(&self) -> Option<u32> {
        self.read().written.heads_checksum
    }

    /// The index if it is in memory.
    pub fn peek<T>(&self, lookup: impl FnOnce(&SegmentIndex) -> T) -> Option<T> {
        self.read().index.as_ref().map(lookup)
    }
}

impl Written {
    /// Has an index, whose heads have this checksum, go on to all that was settled. What is found has to be what was settled.
    fn walk(
        &self,
        file: &dyn DiskFile,
        index: &mut SegmentIndex,
        heads: u32,
    ) -> Result<u32, SegmentError> {
        let heads = index.walk_on(file, self.bytes, self.append_time, heads)?;
        if index.end_offset() != self.end_offset {
            let (found, expected) = (index.end_offset(), self.end_offset);
            let reason = format!("the batches end at offset {found}, expected {expected}");
            return Err(SegmentError::damaged(self.id, self.bytes, reason));
        }
        check_heads(self.id, heads, self.heads_checksum)?;
        Ok(heads)
    }
}
