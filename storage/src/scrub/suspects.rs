//! Segments that a reader had trouble with, and that the scrub verifies soon.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};

use model::LogId;

use crate::segment::SegmentId;

/// More segments than this are not waited for by name: the pass comes to them.
const SUSPECTS_MAX: usize = 1024;

/// Segments that a reader had trouble with.
#[derive(Debug, Default)]
pub(crate) struct Suspects(Mutex<VecDeque<(LogId, SegmentId)>>);

impl Suspects {
    /// Has a segment verified soon.
    pub fn add(&self, log: LogId, id: SegmentId) {
        let mut suspects = self.locked();
        if suspects.len() < SUSPECTS_MAX && !suspects.contains(&(log, id)) {
            suspects.push_back((log, id));
        }
    }

    pub fn take(&self) -> Option<(LogId, SegmentId)> {
        self.locked().pop_front()
    }

    pub fn is_empty(&self) -> bool {
        self.locked().is_empty()
    }

    fn locked(&self) -> MutexGuard<'_, VecDeque<(LogId, SegmentId)>> {
        self.0
            .lock()
            .expect("nothing panics while it holds the suspects")
    }
}
