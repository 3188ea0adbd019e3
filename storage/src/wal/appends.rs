//! What is brought to the WAL: checked batches, how much room they take, and what for.

use model::batch::Batch;

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
    pub fn of(batches: &[AppendBatch]) -> AppendSize {
        AppendSize {
            batches: batches.len() as u64,
            bytes: batches.iter().map(|batch| batch.bytes() as u64).sum(),
        }
    }

    /// What it may take in the WAL: each batch may need a frame of its own.
    pub(crate) fn wal_bytes(self) -> u64 {
        self.bytes
            .saturating_add(self.batches.saturating_mul(FRAME_OVERHEAD_BYTES))
    }

    /// Whether an admission for this is one for the other too.
    pub fn holds(self, other: AppendSize) -> bool {
        other.batches <= self.batches && other.bytes <= self.bytes
    }
}
