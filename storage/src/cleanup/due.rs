//! Which logs may be due for compaction: those of which something has settled since they were looked at, and those whose time
//! has come. All others cost nothing.
//!
//! Callers: the settler and whoever changes settings note what has changed; the cleaner takes what is to be looked at.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard};

use model::{LogId, Timestamp};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct CompactionDue(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    changed: HashSet<LogId>,
    /// When a log is to be looked at, though nothing changes: each log once.
    times: BTreeSet<(Timestamp, LogId)>,
    time_of: HashMap<LogId, Timestamp>,
}

impl State {
    fn forget_time(&mut self, log: LogId) {
        if let Some(time) = self.time_of.remove(&log) {
            self.times.remove(&(time, log));
        }
    }
}

impl CompactionDue {
    fn locked(&self) -> MutexGuard<'_, State> {
        self.0
            .lock()
            .expect("nothing panics while it holds the list")
    }

    /// Something of the log has settled, or its settings are others.
    pub fn changed(&self, log: LogId) {
        self.locked().changed.insert(log);
    }

    /// The log is to be looked at then.
    pub fn at(&self, log: LogId, time: Timestamp) {
        let mut state = self.locked();
        state.forget_time(log);
        state.times.insert((time, log));
        state.time_of.insert(log, time);
    }

    /// The log is to be looked at then and not now, unless it changes again.
    pub fn not_before(&self, log: LogId, time: Timestamp) {
        self.at(log, time);
        self.locked().changed.remove(&log);
    }

    /// The logs to be looked at now, each once.
    pub fn take(&self, now: Timestamp) -> Vec<LogId> {
        let mut state = self.locked();
        while let Some((_, log)) = state
            .times
            .first()
            .copied()
            .filter(|(time, _)| *time <= now)
        {
            state.forget_time(log);
            state.changed.insert(log);
        }
        let changed = std::mem::take(&mut state.changed);
        for log in &changed {
            state.forget_time(*log);
        }
        changed.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use model::{PartitionId, TopicId};

    use super::*;

    fn log(partition: u32) -> LogId {
        LogId::new(TopicId::from_bytes([3; 16]), PartitionId::new(partition))
    }

    fn take(due: &CompactionDue, now: i64) -> Vec<LogId> {
        let mut logs = due.take(Timestamp::from_millis(now));
        logs.sort();
        logs
    }

    #[test]
    fn a_log_is_looked_at_once_for_each_change_and_when_its_time_has_come() {
        let due = CompactionDue::default();
        due.changed(log(1));
        due.changed(log(1));
        due.at(log(2), Timestamp::from_millis(50));
        due.at(log(3), Timestamp::from_millis(60));
        due.at(log(3), Timestamp::from_millis(40));
        assert_eq!(take(&due, 39), [log(1)]);
        assert_eq!(take(&due, 45), [log(3)]);
        due.changed(log(2));
        assert_eq!(take(&due, 46), [log(2)], "a change makes the time void");
        assert_eq!(take(&due, 1_000), []);
        due.changed(log(1));
        due.not_before(log(1), Timestamp::from_millis(2_000));
        assert_eq!(take(&due, 1_999), []);
        assert_eq!(take(&due, 2_000), [log(1)]);
    }
}
