//! What is brought to the WAL: checked batches, how much room they take, and what for.

use model::batch::Batch;

use super::format::{FRAME_ENTRIES_MAX, FRAME_ENTRY_BYTES};

/// A checked batch to append; its base offset and leader epoch are assigned by the log.
#[derive(Clone, Debug)]
pub struct AppendBatch(pub(crate) Batch);

impl AppendBatch {
    /// Its length, header included.
    pub fn bytes(&self) -> usize {
        self.0.bytes().len()
    }
}

impl From<Batch> for AppendBatch {
    fn from(batch: Batch) -> AppendBatch {
        AppendBatch(batch)
    }
}

/// What an append is for: how far it may go into the room that is kept for a full disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Somebody's records: nothing of it.
    Records,
    /// The broker's own state, as of groups: a quarter of it.
    State,
    /// Settings, which may free space, and may not: half of it.
    Settings,
    /// A deletion: all of it.
    Removal,
}

/// What a frame of its own may cost a batch: head, table entry and padding.
pub(crate) const FRAME_OVERHEAD_BYTES: u64 = 2 * 4096;

/// The largest batch that a WAL file of this length takes for certain.
pub(crate) fn batch_bytes_max(file_bytes: u64) -> u64 {
    (file_bytes / 2).saturating_sub(FRAME_OVERHEAD_BYTES)
}

/// How an append may lie in the WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Each batch may need a frame of its own.
    Batches,
    /// All of it is one frame: a group over several logs.
    OneFrame,
}

/// What an admission is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Demand {
    pub size: AppendSize,
    pub shape: Shape,
}

impl Demand {
    /// What it may take in the WAL.
    pub fn wal_bytes(self) -> u64 {
        let AppendSize { batches, bytes } = self.size;
        let overhead = match self.shape {
            Shape::Batches => batches.saturating_mul(FRAME_OVERHEAD_BYTES),
            Shape::OneFrame => batches
                .saturating_mul(FRAME_ENTRY_BYTES as u64)
                .saturating_add(FRAME_OVERHEAD_BYTES),
        };
        bytes.saturating_add(overhead)
    }

    /// Whether a WAL file of this length takes it. No frame is longer than half a file: one that does not fit any more leaves
    /// the rest of its file empty, and the room that the gate gives out counts on half of each file.
    pub fn fits(self, file_bytes: u64) -> bool {
        let has_entries = self.shape == Shape::Batches || self.size.batches <= GROUP_BATCHES_MAX;
        has_entries && self.wal_bytes() <= file_bytes / 2
    }

    /// The most bytes with which so many batches fit.
    pub fn bytes_max(self, file_bytes: u64) -> u64 {
        let overhead = self.wal_bytes().saturating_sub(self.size.bytes);
        (file_bytes / 2).saturating_sub(overhead)
    }
}

/// Batches that are appended to several logs at once, at most: each has an entry in the table of one frame.
pub const GROUP_BATCHES_MAX: u64 = FRAME_ENTRIES_MAX as u64;

/// What one append brings: how many batches, and their bytes together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AppendSize {
    /// Batches.
    pub batches: u64,
    /// Bytes of all batches, headers included.
    pub bytes: u64,
}

impl AppendSize {
    /// One batch of this length.
    pub fn of_one(bytes: usize) -> AppendSize {
        AppendSize {
            batches: 1,
            bytes: bytes as u64,
        }
    }

    /// These batches.
    pub fn of<'b>(batches: impl IntoIterator<Item = &'b AppendBatch>) -> AppendSize {
        let mut size = AppendSize::default();
        for batch in batches {
            size.batches += 1;
            size.bytes += batch.bytes() as u64;
        }
        size
    }

    /// As batches that may lie in frames of their own.
    pub(crate) fn in_batches(self) -> Demand {
        let (size, shape) = (self, Shape::Batches);
        Demand { size, shape }
    }

    /// As one group.
    pub(crate) fn in_one_frame(self) -> Demand {
        let (size, shape) = (self, Shape::OneFrame);
        Demand { size, shape }
    }

    /// Whether an admission for this is one for the other too.
    pub fn holds(self, other: AppendSize) -> bool {
        other.batches <= self.batches && other.bytes <= self.bytes
    }
}
