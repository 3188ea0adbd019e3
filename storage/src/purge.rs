//! Purges the write-ahead log: no file of it holds a byte of what has settled.
//!
//! Caller: an erasure, behind its rewrites. The files of the log are used again as they are, and keep the bytes of records long
//! after these have settled, and after a rewrite has dropped them. A purge settles all, has the committer go on in a new file, and
//! removes the others: those that are new hold zeros.
//! Invariant: no file is removed that one of the two checkpoints needs.

use std::io;
use std::time::Duration;

use crate::error::StorageFailed;
use crate::settler::{SettleError, SettlerSeat};
use crate::signals::Signals;
use crate::wal::Wal;

/// How long to wait for appends that were promised room in the current file.
const ROLL_WAIT: Duration = Duration::from_millis(10);

/// Why the write-ahead log may still hold what has settled. The purge can be tried again.
#[derive(Debug, thiserror::Error)]
pub enum PurgeError {
    /// There is no space to settle, or for a new file.
    #[error("the disk is full")]
    DiskFull,
    /// A file could not be removed.
    #[error("a file of the write-ahead log could not be removed: {source}")]
    Remove {
        /// What the disk said.
        source: io::Error,
    },
    /// The store ends.
    #[error("the store is being closed")]
    Stopped,
    /// The store has failed.
    #[error(transparent)]
    Failed(#[from] StorageFailed),
}

/// See the module. Blocks, for as long as appends that were admitted are not durable too.
pub(crate) fn purge_wal(
    wal: &Wal,
    settler: &SettlerSeat,
    signals: &Signals,
) -> Result<(), PurgeError> {
    let current = || wal.committer.progress().current().sequence;
    let old = current();
    if wal.gate.is_disk_full() {
        return Err(PurgeError::DiskFull);
    }
    let _discarding = wal.pool.discard();
    wal.pool
        .give_up(0)
        .map_err(|source| PurgeError::Remove { source })?;
    while current() <= old {
        if signals.is_stopping() {
            return Err(PurgeError::Stopped);
        }
        if wal.gate.is_disk_full() {
            return Err(PurgeError::DiskFull);
        }
        if !wal.committer.roll()? {
            wal.pool.wait(ROLL_WAIT);
        }
    }
    match settler.settle_all() {
        Ok(()) => {}
        Err(SettleError::DiskFull) => return Err(PurgeError::DiskFull),
        Err(SettleError::Stopped) => return Err(PurgeError::Stopped),
        Err(SettleError::Failed(failure)) => return Err(failure.into()),
    }
    let progress = wal.committer.progress();
    assert!(
        progress.files.iter().all(|file| file.sequence > old),
        "what has settled twice over is needed by no checkpoint"
    );
    Ok(())
}
