//! The times of the records that groups read next, remembered: a record's times do not change.
//! Callers: `lag`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use model::{LogId, Offset, Timestamp};

/// When a record was appended, by the store's time, and when it says that it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::broker) struct RecordTimes {
    pub(super) appended: Timestamp,
    pub(super) stamped: Timestamp,
}

/// The times of the records that groups read next, as far as they were looked up.
#[derive(Debug, Default)]
pub(in crate::broker) struct LagTimes {
    known: Mutex<HashMap<(LogId, Offset), RecordTimes>>,
    /// Held by whoever looks: one at a time, so that a disk that does not answer holds up one thread.
    pub(super) looking: Arc<tokio::sync::Mutex<()>>,
}

impl LagTimes {
    pub(super) fn known(&self) -> MutexGuard<'_, HashMap<(LogId, Offset), RecordTimes>> {
        self.known
            .lock()
            .expect("nothing panics while it holds the times")
    }
}
