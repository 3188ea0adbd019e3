//! Why a round of the settler is given up.

use std::io;

use model::LogId;

use crate::error::StorageFailed;
use crate::segment::SegmentError;
use crate::wal::pool::is_full;

/// Why a round was given up.
#[derive(Debug)]
pub(crate) enum SettleError {
    /// No space: nothing is lost, the WAL still holds it.
    DiskFull,
    /// The disk failed.
    Failed(StorageFailed),
    /// The store is being closed: the write-ahead log holds all of it for the next start.
    Stopped,
}

impl std::fmt::Display for SettleError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SettleError::DiskFull => f.write_str("the disk is full"),
            SettleError::Failed(failure) => f.write_str(&failure.reason),
            SettleError::Stopped => f.write_str("the store is being closed"),
        }
    }
}

impl SettleError {
    pub(super) fn io(what: impl std::fmt::Display) -> impl FnOnce(io::Error) -> SettleError {
        move |error| {
            if is_full(&error) {
                return SettleError::DiskFull;
            }
            SettleError::Failed(StorageFailed::new(format!("settling {what}: {error}")))
        }
    }

    pub(super) fn segment(log: LogId) -> impl FnOnce(SegmentError) -> SettleError {
        move |error| match error {
            SegmentError::Io { source, .. } => SettleError::io(log)(source),
            SegmentError::Damaged { .. } | SegmentError::Foreign { .. } => {
                SettleError::Failed(StorageFailed::new(format!("settling {log}: {error}")))
            }
        }
    }
}
