//! The logs that the settler knows, and which of them changed since the newest checkpoint.
//!
//! Callers: the settler's rounds. A checkpoint writes what changed only, so nothing here can be changed without being put on
//! that list: a log that is missing there would be settled a second time after the next start.
//! Invariant: what is not on the list is, entry for entry, what the newest checkpoint says.

use std::collections::{HashMap, HashSet};
use std::io;

use model::LogId;

use super::settled_log::SettledLog;
use crate::checkpoint::{CheckpointStore, Moment};
use crate::io::Disk;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct KnownLogs {
    logs: HashMap<LogId, SettledLog>,
    changed: HashSet<LogId>,
}

impl KnownLogs {
    pub fn get(&self, log: LogId) -> Option<&SettledLog> {
        self.logs.get(&log)
    }

    /// A log, to be changed.
    pub fn get_mut(&mut self, log: LogId) -> Option<&mut SettledLog> {
        let known = self.logs.get_mut(&log)?;
        self.changed.insert(log);
        Some(known)
    }

    /// A log, to be changed; one of which nothing has settled if it is new.
    pub fn get_or_default(&mut self, log: LogId) -> &mut SettledLog {
        self.changed.insert(log);
        self.logs.entry(log).or_default()
    }

    pub fn insert(&mut self, log: LogId, settled: SettledLog) {
        self.changed.insert(log);
        let replaced = self.logs.insert(log, settled);
        assert!(replaced.is_none(), "it was taken off before it is put back");
    }

    pub fn remove(&mut self, log: LogId) -> Option<SettledLog> {
        let removed = self.logs.remove(&log)?;
        self.changed.insert(log);
        Some(removed)
    }

    /// A log at the start. The first checkpoint after it names all logs.
    pub fn restore(&mut self, log: LogId, settled: SettledLog) {
        let replaced = self.logs.insert(log, settled);
        assert!(replaced.is_none(), "a checkpoint says one thing of a log");
    }

    /// A log whose newest entry a checkpoint has just stored. For what is no part of its entry.
    pub fn stored(&mut self, log: LogId) -> Option<&mut SettledLog> {
        assert!(!self.changed.contains(&log), "it is stored");
        self.logs.get_mut(&log)
    }

    /// Stores a checkpoint of all logs. If it fails what changed stays on the list.
    pub fn store(
        &mut self,
        store: &mut CheckpointStore,
        disk: &dyn Disk,
        moment: Moment,
    ) -> io::Result<()> {
        let entry = |log, settled: &SettledLog| settled.entry(log);
        store.store(disk, moment, &self.changed, &self.logs, entry)?;
        self.changed = HashSet::new();
        Ok(())
    }
}
