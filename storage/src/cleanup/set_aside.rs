//! Segments that could not be rewritten, with the reason: they are left out until somebody asks for a run, or the store starts
//! again, so that one bad segment does not keep the others from being cleaned.
//!
//! What is kept here is in memory only. While a log has a segment that is set aside, what its manifest says of compaction does
//! not move on: the next start compacts the log from there, with the keys that the bad segment has missed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use model::{LogId, Offset};

use super::LogView;
use crate::segment::SegmentId;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct SetAside {
    logs: Mutex<HashMap<LogId, OfLog>>,
}

/// A segment that could not be cleaned up, and is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uncleanable {
    /// Whose.
    pub log: LogId,
    /// Which.
    pub segment: SegmentId,
    /// What went wrong.
    pub reason: Arc<str>,
}

#[derive(Debug, Default)]
struct OfLog {
    segments: Vec<(SegmentId, Arc<str>)>,
    /// Compaction has seen the others up to here.
    seen_to: Offset,
}

impl SetAside {
    fn locked(&self) -> MutexGuard<'_, HashMap<LogId, OfLog>> {
        self.logs
            .lock()
            .expect("nothing panics while it holds what is set aside")
    }

    /// Leaves a segment out from now on.
    pub fn add(&self, log: LogId, segment: SegmentId, error: Arc<str>) {
        let mut logs = self.locked();
        let of_log = logs.entry(log).or_default();
        of_log.segments.retain(|(id, _)| *id != segment);
        of_log.segments.push((segment, error));
    }

    /// All others of the log were compacted up to an offset.
    pub fn seen(&self, log: LogId, to: Offset) {
        if let Some(of_log) = self.locked().get_mut(&log) {
            of_log.seen_to = of_log.seen_to.max(to);
        }
    }

    /// Tries the log's segments again.
    pub fn forget(&self, log: LogId) {
        self.locked().remove(&log);
    }

    /// Puts what is known into a view. What went away with its segments is forgotten.
    pub fn show_in(&self, view: &mut LogView) {
        let mut logs = self.locked();
        let Some(of_log) = logs.get_mut(&view.log) else {
            return;
        };
        let is_live = |id| view.segments.iter().any(|segment| segment.id == id);
        of_log.segments.retain(|(id, _)| is_live(*id));
        if of_log.segments.is_empty() {
            logs.remove(&view.log);
            return;
        }
        view.set_aside.clone_from(&of_log.segments);
        view.compacted_to = view.compacted_to.max(of_log.seen_to);
    }

    /// All of them that are known.
    pub fn all(&self) -> Vec<Uncleanable> {
        let logs = self.locked();
        let of_log = |(log, of_log): (&LogId, &OfLog)| {
            let segments = of_log.segments.iter();
            let of_segment = |(segment, reason): &(SegmentId, Arc<str>)| Uncleanable {
                log: *log,
                segment: *segment,
                reason: reason.clone(),
            };
            segments.map(of_segment).collect::<Vec<_>>()
        };
        let mut all: Vec<Uncleanable> = logs.iter().flat_map(of_log).collect();
        all.sort_by_key(|one| (one.log, one.segment.base));
        all
    }

    /// How many logs have such segments, of those that are there.
    pub fn count(&self, is_there: &dyn Fn(LogId) -> bool) -> usize {
        let mut logs = self.locked();
        logs.retain(|log, _| is_there(*log));
        logs.len()
    }
}
