//! A log's state behind its lock, and who waits for it to move. What the committer publishes into, recovery replays into and the
//! settler moves on; [`super::Log`] is this with the means to append and to read.
//!
//! The lock is short: no file is touched under it. Lock order: a log's state, then the committer's queue; two logs' states in
//! the order of their ids.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use model::{LogId, Offset};

use super::segments::Segments;
use super::settings::{Bounds, LogSettings};
use super::state::LogState;
use super::tail::TailEntry;
use crate::segment::SegmentId;
use crate::waiter::{Waiter, Watchers};

/// See the module.
#[derive(Debug)]
pub(crate) struct LogCell {
    id: LogId,
    state: Mutex<LogState>,
    watchers: Watchers,
}

impl LogCell {
    pub fn new(id: LogId, settings: Arc<LogSettings>, bounds: Bounds) -> LogCell {
        LogCell {
            id,
            state: Mutex::new(LogState::new(settings, bounds)),
            watchers: Watchers::default(),
        }
    }

    pub fn id(&self) -> LogId {
        self.id
    }

    pub fn locked(&self) -> MutexGuard<'_, LogState> {
        self.state
            .lock()
            .expect("nothing panics while it holds a log")
    }

    pub fn bounds(&self) -> Bounds {
        self.locked().bounds
    }

    /// Registers a waiter for one wake.
    pub fn watch(&self, waiter: &Arc<Waiter>) {
        self.watchers.add(waiter);
    }

    /// How often the log has moved.
    pub fn moves(&self) -> u64 {
        self.watchers.moves()
    }

    /// As if it had moved.
    #[cfg(test)]
    pub fn has_moved(&self) {
        self.watchers.moved();
    }

    /// Whether readers wait that are to be woken for a move, and nobody has been asked to wake them.
    pub fn readers_become_due(&self) -> bool {
        self.watchers.become_due()
    }

    /// Wakes those who wait for a move.
    pub fn wake_readers(&self) {
        self.watchers.wake_all();
    }

    pub fn set_settings(&self, settings: Arc<LogSettings>) {
        self.locked().settings = settings;
    }

    /// A batch has reached the disk as its topic's durability asks: show it to readers. Those who wait are woken by the caller,
    /// after the acks. True if the settler does not know yet that this log has something to settle.
    pub fn publish(&self, entry: TailEntry) -> bool {
        let mut state = self.locked();
        if state.deleted {
            return false;
        }
        state.publish(entry);
        self.watchers.moved();
        !std::mem::replace(&mut state.dirty, true)
    }

    /// The raised start is durable: readers below it are told. True as for [`LogCell::publish`].
    pub fn publish_start(&self, start: Offset) -> bool {
        let mut state = self.locked();
        if state.deleted || start <= state.bounds.start {
            return false;
        }
        state.raise_start(start);
        self.watchers.moved();
        !std::mem::replace(&mut state.dirty, true)
    }

    /// The active segment is to be sealed, so that retention can remove it.
    pub fn ask_for_seal(&self) {
        self.locked().seal = true;
    }

    /// Readers of the range are told that it is damaged. False if they were, or if the log does not hold it.
    pub fn mark_damaged(&self, range: Range<Offset>) -> bool {
        let mut state = self.locked();
        !state.deleted && state.mark_damaged(range)
    }

    /// Whether readers of all of a range are told that it is damaged, or that it is gone.
    pub fn is_lost(&self, range: &Range<Offset>) -> bool {
        let state = self.locked();
        state.deleted || range.end <= state.bounds.start || state.is_damaged(range)
    }

    /// Whether a segment is one of the log's.
    pub fn has_segment(&self, id: SegmentId) -> bool {
        self.locked().segments.parts().any(|part| part.id == id)
    }

    /// Whether the log has other sealed segments than in a view of them. What was looked for there may have gone with a file that
    /// another one stands for, or that lies before the start.
    pub(super) fn has_other_segments(&self, than: &Segments) -> bool {
        let state = self.locked();
        match (&state.segments.manifest, &than.manifest) {
            (Some(now), Some(then)) => !Arc::ptr_eq(now, then),
            (now, then) => now.is_some() != then.is_some(),
        }
    }

    /// No reader and no writer gets anything from the log any more.
    pub fn mark_deleted(&self) {
        let mut state = self.locked();
        state.deleted = true;
        state.tail.clear();
        state.tail_bytes = 0;
        self.watchers.moved();
        drop(state);
        self.watchers.wake_all();
    }

    pub fn is_deleted(&self) -> bool {
        self.locked().deleted
    }
}
