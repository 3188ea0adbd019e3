//! What cleanup takes from readers, told to whoever keeps a book of it.
//!
//! Callers: the cleaner, when a start is raised, before it is durable; the broker listens. Without a listener nothing is told.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use model::{LogId, Offset, Timestamp};

use super::policy::Policy;

/// Records that cleanup removes from the front of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// Which log.
    pub log: LogId,
    /// The offsets that readers could have read until now.
    pub offsets: Range<Offset>,
    /// How many records they are.
    pub records: u64,
    /// When they were appended, the first and the last.
    pub appended: Option<(Timestamp, Timestamp)>,
    /// By which policy.
    pub policy: Policy,
    /// Why, in words.
    pub reason: String,
}

/// Hears of a removal. Must not wait for the disk.
pub type OnRemoved = Arc<dyn Fn(&Removed) + Send + Sync>;

/// Who hears of removals.
#[derive(Default)]
pub(crate) struct RemovalListener(OnceLock<OnRemoved>);

impl fmt::Debug for RemovalListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_set = self.0.get().is_some();
        f.debug_tuple("RemovalListener").field(&is_set).finish()
    }
}

impl RemovalListener {
    /// Sets the listener, once.
    pub fn set(&self, listener: OnRemoved) {
        let is_first = self.0.set(listener).is_ok();
        assert!(is_first, "a store has one listener of removals");
    }

    pub fn tell(&self, removed: &Removed) {
        if let Some(listener) = self.0.get() {
            listener(removed);
        }
    }
}
