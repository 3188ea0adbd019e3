//! What a rewrite asks of those who call it: which batches stay, and at what pace.

use std::sync::{Arc, RwLockReadGuard};

use bytes::Bytes;
use model::Offset;
use model::batch::{BatchError, BatchHeader};

use crate::segment::summary::SummaryWriter;

/// What becomes of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It stays, byte for byte.
    Keep,
    /// All of it goes.
    Drop,
    /// This batch takes its place: with the same base offset and last offset delta, and some of its records.
    Replace(Bytes),
}

/// Says what of each batch stays.
pub trait Keeper {
    /// Judges a batch. Its checksum and its offsets were checked; its records were not looked into. Batches come in the order of
    /// their offsets.
    fn judge(&mut self, header: &BatchHeader, batch: &Bytes) -> Result<Verdict, KeepError>;

    /// All batches were judged.
    fn finish(&mut self) -> Result<(), KeepError> {
        Ok(())
    }

    /// Asked right before the switch, which is not made on an error. What it gives is held until the switch is durable.
    fn may_switch(&self) -> Result<Option<RwLockReadGuard<'_, ()>>, KeepError> {
        Ok(None)
    }

    /// The new segment's summary, asked for when all batches were judged. None is what those of the old ones say together, if
    /// they have any.
    fn summary(&mut self) -> Option<SummaryWriter> {
        None
    }

    /// Whether a new segment is wanted even if every batch of the only old one stays: for the sake of its summary.
    fn wants_new(&self) -> bool {
        false
    }
}

/// Why a batch was not judged. Nothing is changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeepError {
    /// Its records cannot be read, although its checksum is right.
    #[error("the batch at offset {base}: {source}")]
    Records {
        /// The batch's base offset.
        base: Offset,
        /// What is wrong with it.
        source: BatchError,
    },
    /// A hold that was added meanwhile wants what was to go.
    #[error("held by {hold}")]
    Held {
        /// What the hold is called.
        hold: Arc<str>,
    },
    /// Whoever looks at the batches has seen enough: no fault.
    #[error("no more batches are wanted")]
    Enough,
    /// Whoever judges the batches cannot go on, and tells its caller why.
    #[error("the batches cannot be judged")]
    Unable,
}

/// So much is read or written at a time at most, but for a batch that is larger.
pub const PIECE_BYTES_MAX: usize = 1 << 20;

/// The pace of a rewrite or a scan: throttle, progress and cancel in one.
pub trait Pace: Sync {
    /// How much is to be read or written at a time: a power of two, 4,096 or more and no more than [`PIECE_BYTES_MAX`].
    fn piece_bytes(&self) -> usize {
        PIECE_BYTES_MAX
    }

    /// So many bytes were read or written. May wait.
    fn spend(&self, bytes: u64) -> Result<(), Cancelled>;
}

/// The work is to end here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it was cancelled")]
pub struct Cancelled;
