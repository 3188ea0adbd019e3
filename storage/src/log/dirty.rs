//! The logs that have something for the settler: a tail, a raised start, or a segment to seal.
//!
//! Callers: the committer and readers put logs on the list, the settler takes it.
//! Invariant: a log whose `dirty` is set is on the list, or in the hands of the settler.

use std::sync::{Arc, Mutex, MutexGuard};

use super::cell::LogCell;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct DirtyLogs(Mutex<Vec<Arc<LogCell>>>);

impl DirtyLogs {
    fn locked(&self) -> MutexGuard<'_, Vec<Arc<LogCell>>> {
        self.0
            .lock()
            .expect("nothing panics while it holds the list")
    }

    /// Puts a log on the list whose `dirty` was just set.
    pub fn push(&self, log: &Arc<LogCell>) {
        self.locked().push(Arc::clone(log));
    }

    /// Puts a log on the list, unless it is there.
    pub fn push_once(&self, log: &Arc<LogCell>) {
        if !std::mem::replace(&mut log.locked().dirty, true) {
            self.push(log);
        }
    }

    /// Puts logs back.
    pub fn push_all(&self, logs: impl IntoIterator<Item = Arc<LogCell>>) {
        self.locked().extend(logs);
    }

    /// Takes the list.
    pub fn take(&self) -> Vec<Arc<LogCell>> {
        std::mem::take(&mut *self.locked())
    }

    /// A copy of the list.
    pub fn all(&self) -> Vec<Arc<LogCell>> {
        self.locked().clone()
    }
}
