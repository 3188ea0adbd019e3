//! What can go wrong, by what the caller does about it.

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use model::{LogId, Offset, Timestamp};

use crate::log::Bounds;
use crate::producers::SequenceError;
use crate::wal::appends::AppendSize;

/// The store cannot write any more: a write or sync failed, and was not retried. Reads go on until the process ends.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the store has stopped writing: {reason}")]
pub struct StorageFailed {
    /// What failed.
    pub reason: Arc<str>,
}

impl StorageFailed {
    /// A failure with its reason.
    pub fn new(reason: impl Into<Arc<str>>) -> StorageFailed {
        StorageFailed {
            reason: reason.into(),
        }
    }
}

fn process(id: Option<u32>) -> String {
    id.map_or_else(
        || "another process".to_owned(),
        |id| format!("process {id}"),
    )
}

/// Why a store does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("{} is in use by {}; stop it, or choose another data directory", path.display(), process(*holder))]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// Which process, if the system tells.
        holder: Option<u32>,
    },
    /// The disk refused.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The disk's answer.
        source: io::Error,
    },
    /// A file is not what it should be, and nothing can stand in for it.
    #[error("{}: {reason}", path.display())]
    Format {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A later release wrote it.
    #[error(
        "{}: it is of format version {found}, and this release reads versions up to {known}. Nothing was changed. Start the \
         release that wrote it, or a later one; or restore a copy of the data directory from before the upgrade",
        path.display()
    )]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The latest version that this release reads.
        known: u32,
    },
    /// The settings contradict one another.
    #[error("storage settings: {reason}")]
    Config {
        /// Which, and how.
        reason: String,
    },
}

impl OpenError {
    pub(crate) fn io(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> OpenError {
        let path = path.into();
        move |source| OpenError::Io { what, path, source }
    }
}

/// Why a batch was not appended. Nothing of it is stored.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// There is no space left; appends go on by themselves when there is.
    #[error("the disk is full")]
    DiskFull,
    /// The batch can never be written.
    #[error("{bytes} bytes are more than the write-ahead log takes at once ({bytes_max})")]
    TooLarge {
        /// The batch.
        bytes: u64,
        /// The bound.
        bytes_max: u64,
    },
    /// The batches are more than what was admitted: nobody has made sure that the write-ahead log can take them.
    #[error(
        "{} batches of {} bytes are more than what was admitted: {} of {}",
        size.batches, size.bytes, admitted.batches, admitted.bytes
    )]
    NotAdmitted {
        /// What was to be appended.
        size: AppendSize,
        /// What the admission is for.
        admitted: AppendSize,
    },
    /// An idempotent producer's sequence does not fit.
    #[error(transparent)]
    Sequence(#[from] SequenceError),
    /// A new idempotent producer, where as many are remembered as may be, and none of them has been idle for long.
    #[error(
        "{count} idempotent producers are remembered, as many as {setting} allows, and none of them has been idle for {idle_minutes} minutes"
    )]
    TooManyProducers {
        /// How many.
        count: u64,
        /// The bound that was reached.
        setting: &'static str,
        /// Those that are idle for so long are forgotten for new ones.
        idle_minutes: u64,
    },
    /// The log was deleted.
    #[error("the log was deleted")]
    Deleted,
    /// The offset after the last one does not exist.
    #[error("the log has no offset left")]
    OffsetsExhausted,
    /// The store has failed.
    #[error(transparent)]
    Failed(#[from] StorageFailed),
    /// The store is shutting down.
    #[error("the store is shutting down")]
    Closed,
}

/// Why nothing was appended to any of several logs.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendAllError {
    /// All of it was refused: there is no room, it is larger than a frame can be, or the store takes no appends.
    #[error(transparent)]
    Refused(AppendError),
    /// One of the logs refused its part.
    #[error("log {log}: {source}")]
    Log {
        /// Which.
        log: LogId,
        /// Why.
        source: AppendError,
    },
    /// An idempotent producer has appended a batch before.
    #[error(
        "log {log}: its producer has appended a batch before, at offsets {base_offset}..={last_offset}"
    )]
    Duplicate {
        /// Which log.
        log: LogId,
        /// Where the batch's first record went then.
        base_offset: Offset,
        /// Where its last record went then, inclusive.
        last_offset: Offset,
    },
    /// A log is named twice.
    #[error("log {log} is named twice")]
    Twice {
        /// Which.
        log: LogId,
    },
}

/// Why nothing was read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The offset is not in the log.
    #[error("offset {from} is outside {}..={}", bounds.start, bounds.end)]
    OutOfRange {
        /// What was asked for.
        from: Offset,
        /// What there is.
        bounds: Bounds,
    },
    /// Records that were acknowledged cannot be read any more.
    #[error("offsets {}..{} are damaged", range.start, range.end)]
    Damaged {
        /// Which.
        range: Range<Offset>,
    },
    /// The disk refused.
    #[error("read at offset {from}: {source}")]
    Io {
        /// What was asked for.
        from: Offset,
        /// The disk's answer.
        source: io::Error,
    },
    /// The log was deleted.
    #[error("the log was deleted")]
    Deleted,
}

/// Why the log's start does not move.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DeleteRecordsError {
    /// Above the high watermark, or below nothing.
    #[error("offset {before} is outside {}..={}", bounds.start, bounds.durable_end)]
    OutOfRange {
        /// What was asked for.
        before: Offset,
        /// What there is.
        bounds: Bounds,
    },
    /// The log was deleted, or the store takes no writes.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// A record found by its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimedOffset {
    /// Its offset.
    pub offset: Offset,
    /// Its timestamp.
    pub timestamp: Timestamp,
    /// The leader epoch it was appended in, if that is still known.
    pub leader_epoch: Option<model::LeaderEpoch>,
}
