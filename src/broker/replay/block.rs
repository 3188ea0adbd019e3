//! Blocks: records that were found, with the bytes that they lie in.
//!
//! Callers: the reader makes them, the merge takes them apart, fronts iterate over them. A record is kept as its place in its
//! batch's decompressed bytes and parsed again when it is looked at: eight bytes a record.
//! Invariant: each place holds a record that was read there once, so that it can be read again.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use model::batch::{RecordFrame, RecordRef};
use model::{Offset, PartitionId};

/// A record of a topic.
#[derive(Clone, Copy, Debug)]
pub struct ReplayRecord<'a> {
    /// In which partition.
    pub partition: PartitionId,
    /// The record.
    pub record: RecordRef<'a>,
}

/// Some records. It owns their bytes: some MiB at most, or those of one larger record.
#[derive(Clone, Debug, Default)]
pub struct Block {
    parts: Vec<Part>,
    places: Vec<RecordPlace>,
}

/// Decompressed records of one batch.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub partition: PartitionId,
    pub frame: RecordFrame,
    pub payload: Bytes,
}

/// Where a record lies: in which part, and where it begins there.
#[derive(Clone, Copy, Debug)]
struct RecordPlace {
    part: u32,
    position: u32,
}

impl Part {
    fn record_at(&self, position: u32) -> ReplayRecord<'_> {
        let record = self.frame.record_at(&self.payload, position as usize);
        ReplayRecord {
            partition: self.partition,
            record: record.expect("it was read there before"),
        }
    }
}

impl Block {
    /// How many records.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The records, in their order.
    pub fn iter(&self) -> impl Iterator<Item = ReplayRecord<'_>> {
        self.places.iter().map(|place| self.record(*place))
    }

    /// The record with this index.
    pub fn get(&self, index: usize) -> Option<ReplayRecord<'_>> {
        self.places.get(index).map(|place| self.record(*place))
    }

    /// Bytes that it keeps in memory.
    pub fn memory_bytes(&self) -> usize {
        let payloads: usize = self.parts.iter().map(|part| part.payload.len()).sum();
        payloads + self.places.capacity() * size_of::<RecordPlace>()
    }

    /// Some of its records. Their bytes are kept by both.
    pub(super) fn slice(&self, indexes: Range<usize>) -> Block {
        let mut slice = Block::default();
        for index in indexes {
            slice.push_of(self, index);
        }
        slice
    }

    /// Keeps the first `count` records.
    pub(super) fn truncate(&mut self, count: usize) {
        self.places.truncate(count);
    }

    /// The last record's offset.
    pub(super) fn last_offset(&self) -> Option<Offset> {
        let last = self.places.last()?;
        Some(self.record(*last).record.offset)
    }

    fn record(&self, place: RecordPlace) -> ReplayRecord<'_> {
        self.parts[place.part as usize].record_at(place.position)
    }

    /// Adds decompressed records of a batch; the places of those that are wanted follow with [`Block::push`].
    pub(super) fn begin_part(&mut self, part: Part) {
        self.parts.push(part);
    }

    /// Adds the record that begins here in the last part.
    pub(super) fn push(&mut self, position: usize) {
        let part = self.parts.len().checked_sub(1).expect("a part was begun");
        self.places.push(RecordPlace {
            part: u32::try_from(part).expect("a block has few parts"),
            position: u32::try_from(position).expect("a batch is shorter than 4 GiB"),
        });
    }

    /// Adds records of a batch that is not kept for some of them: their bytes alone.
    pub(super) fn push_copies(
        &mut self,
        partition: PartitionId,
        frame: RecordFrame,
        copies: BytesMut,
        positions: &[usize],
    ) {
        if positions.is_empty() {
            return;
        }
        self.begin_part(Part {
            partition,
            frame,
            payload: copies.freeze(),
        });
        for position in positions {
            self.push(*position);
        }
    }

    /// Adds a record of another block, whose bytes are kept by both.
    pub(super) fn push_of(&mut self, other: &Block, index: usize) {
        let place = other.places[index];
        let part = &other.parts[place.part as usize];
        let is_same = |last: &Part| {
            last.payload.as_ptr() == part.payload.as_ptr() && last.frame == part.frame
        };
        if !self.parts.last().is_some_and(is_same) {
            self.begin_part(part.clone());
        }
        self.push(place.position as usize);
    }
}
