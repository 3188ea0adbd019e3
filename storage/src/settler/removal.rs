//! Removal: what is deleted gives its space back, also where there is none.
//!
//! In an ordinary round files go after the checkpoint that no longer names them. On a full disk nothing may wait for a round
//! that needs space: whole segments before a log's start, and the directories of deleted logs, go before anything is
//! settled. It needs no space: the start and the deletion are durable in the write-ahead log, and the checkpoint that says so is
//! written over an older one of at least that length, begun anew where nothing can be appended to it. Where even that fails
//! the files go first: a start that finds them missing learns from the write-ahead log that they were deleted. A manifest may
//! name them until the next round.

use super::settled_log::SettledLog;
use super::{SettleError, Settler};
use crate::wal::gate::RESERVED_FILES;

impl Settler {
    /// Removes what is deleted, without a need for space. True if there was something.
    pub(super) fn relieve(&mut self) -> Result<bool, SettleError> {
        let deleted = self.parts.registry.take_deleted();
        for log in &deleted {
            self.logs.remove(*log);
        }
        let mut garbage = Vec::new();
        for log in self.parts.dirty.all() {
            let start = log.bounds().start;
            let is_behind = |settled: &SettledLog| settled.start < start;
            if !self.logs.get(log.id()).is_some_and(is_behind) {
                continue;
            }
            let Some(settled) = self.logs.get_mut(log.id()) else {
                continue;
            };
            let mut passed = settled.raise_start(&self.parts, log.id(), start);
            if !passed.is_empty() {
                log.locked().segments = settled.view();
                garbage.append(&mut passed);
            }
        }
        if deleted.is_empty() && garbage.is_empty() {
            return Ok(false);
        }
        let stored = self.store_removal()?;
        tracing::info!(
            partitions = deleted.len(),
            files = garbage.len(),
            "the disk is full: what is deleted is removed before anything is written"
        );
        for path in garbage {
            self.parts.remove_quietly(&path);
        }
        for log in deleted {
            self.parts.remove_directory(log);
        }
        if !stored {
            self.forgotten |= !self.store_removal()?;
        }
        self.release_below(self.older.file)?;
        Ok(true)
    }

    /// The same checkpoint again, without what is removed. False if there is no space for it.
    fn store_removal(&mut self) -> Result<bool, SettleError> {
        match self.checkpoint(self.newest) {
            Ok(()) => Ok(true),
            Err(SettleError::DiskFull) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes the free files of the write-ahead log, but for those that the broker's own records need: what has to be settled
    /// down needs their space more, and gives more back. True if there were some.
    pub(super) fn give_up_spares(&self) -> bool {
        match self.parts.wal.pool.give_up(RESERVED_FILES) {
            Ok(count) => count > 0,
            Err(error) => {
                tracing::warn!(%error, "free files of the write-ahead log could not be removed");
                false
            }
        }
    }
}
