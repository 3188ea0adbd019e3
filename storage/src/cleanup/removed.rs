//! What cleanup takes from readers, told to whoever keeps a book of it.
//!
//! Callers: the cleaner, before it has a start raised, and before a rewritten segment takes the place of others; the broker listens.
//! Without a listener nothing is told. Invariant: what the listener answers [`Noted::NotNow`] to is not done.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use model::{LogId, Offset, Timestamp};

use super::policy::Policy;
use crate::segment::SegmentId;

/// Records that cleanup is about to remove from a log: all of a range at its front, or some of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// Which log.
    pub log: LogId,
    /// The offsets that readers could have read until now; of a rewrite, from the first to the last batch of which something goes.
    pub offsets: Range<Offset>,
    /// How many records they are.
    pub records: u64,
    /// When they were appended, the first and the last.
    pub appended: Option<(Timestamp, Timestamp)>,
    /// By which policy.
    pub policy: Policy,
    /// Why, in words.
    pub reason: String,
    /// The segment that takes the place of those they are in; None where a start is raised.
    pub rewritten_as: Option<SegmentId>,
}

/// What whoever keeps the book says to a removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noted {
    /// It is noted: the removal may be done. What was appended for it is durable no later than a start that is raised then; for a
    /// rewrite it is durable.
    Yes,
    /// It could not be noted now. It is asked again.
    NotNow,
}

/// Hears of a removal before it is done. Must not wait for the disk where a start is raised; may where a rewrite is to be. May be told
/// of the same removal again, if it was not done or the store was killed.
pub type OnRemoved = Arc<dyn Fn(&Removed) -> Noted + Send + Sync>;

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

    pub fn tell(&self, removed: &Removed) -> Noted {
        let listener = self.0.get();
        listener.map_or(Noted::Yes, |listener| listener(removed))
    }
}
