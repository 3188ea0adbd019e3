//! Removal: what is deleted gives its space back, also where there is none.
//!
//! In an ordinary round files go after the checkpoint that no longer names them. On a full disk nothing may wait for a round
//! that needs space: whole segments before a log's start, and the directories of deleted logs, go before anything is settled
//! down. It needs no space: the start and the deletion are durable in the write-ahead log, and the checkpoint that says so is
//! written over an older one of at least that length, begun anew where nothing can be appended to it. Where even that fails
//! the files go first: a start that finds them missing learns from the write-ahead log that they were deleted. A manifest may
//! name them until the next round.

use std::io;
use std::path::Path;

use model::LogId;

use super::settled_log::SettledLog;
use super::{SettleError, Settler};
use crate::storage::Shared;
use crate::wal::gate::RESERVED_FILES;

impl Settler {
    /// Removes what is deleted, without a need for space. True if there was something.
    pub(super) fn relieve(&mut self, shared: &Shared) -> Result<bool, SettleError> {
        let deleted = shared.take_deleted();
        for log in &deleted {
            self.logs.remove(*log);
        }
        let mut garbage = Vec::new();
        for log in shared.dirty_logs() {
            let start = log.bounds().start;
            let is_behind = |settled: &SettledLog| settled.start < start;
            if !self.logs.get(log.id()).is_some_and(is_behind) {
                continue;
            }
            let Some(settled) = self.logs.get_mut(log.id()) else {
                continue;
            };
            let mut passed = settled.raise_start(shared, log.id(), start);
            if !passed.is_empty() {
                log.locked().segments = settled.view();
                garbage.append(&mut passed);
            }
        }
        if deleted.is_empty() && garbage.is_empty() {
            return Ok(false);
        }
        let stored = self.store_removal(shared)?;
        tracing::info!(
            partitions = deleted.len(),
            files = garbage.len(),
            "the disk is full: what is deleted is removed before anything is written"
        );
        for path in garbage {
            remove_quietly(shared, &path);
        }
        for log in deleted {
            remove_directory(shared, log);
        }
        if !stored {
            self.forgotten |= !self.store_removal(shared)?;
        }
        self.release_below(shared, self.older.file)?;
        Ok(true)
    }

    /// The same checkpoint again, without what is removed. False if there is no space for it.
    fn store_removal(&mut self, shared: &Shared) -> Result<bool, SettleError> {
        match self.checkpoint(shared, self.newest) {
            Ok(()) => Ok(true),
            Err(SettleError::DiskFull) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes the free files of the write-ahead log, but for those that the broker's own records need: what has to be settled
    /// down needs their space more, and gives more back. True if there were some.
    pub(super) fn give_up_spares(&self, shared: &Shared) -> bool {
        match shared.pool.give_up(RESERVED_FILES) {
            Ok(count) => count > 0,
            Err(error) => {
                tracing::warn!(%error, "free files of the write-ahead log could not be removed");
                false
            }
        }
    }
}

pub(super) fn remove_quietly(shared: &Shared, path: &Path) {
    match shared.disk.remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "a file that is no longer needed could not be removed");
        }
        _ => {}
    }
}

pub(super) fn remove_directory(shared: &Shared, log: LogId) {
    shared.segments.forget_log(log);
    let directory = shared.log_directory(log);
    let entries = match shared.disk.list(&directory) {
        Ok(entries) => entries,
        Err(_) => return,
    };
    // The manifests first: what is left of a removal that is cut short names no file that is gone.
    let (manifests, others): (Vec<_>, Vec<_>) = entries
        .into_iter()
        .partition(|entry| entry.name.starts_with("manifest."));
    for entry in manifests.into_iter().chain(others) {
        remove_quietly(shared, &directory.join(entry.name));
    }
    if let Err(error) = shared.disk.remove_dir(&directory) {
        tracing::warn!(path = %directory.display(), %error, "a deleted partition's directory could not be removed");
    }
}
