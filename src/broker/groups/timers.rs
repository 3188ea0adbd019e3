//! When which group must be looked at again: one heap for all groups, instead of a task for each member.
//! Callers: `Coordinator`. A group has at most one entry that counts; it remembers which. Entries that were overtaken by
//! an earlier one are recognised by their time and dropped when they come up.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;

/// Which group to look at, and when; the earliest comes first.
type Entry = Reverse<(Duration, Arc<str>)>;

#[derive(Default)]
pub(super) struct Timers {
    heap: Mutex<BinaryHeap<Entry>>,
    earlier: Notify,
}

impl Timers {
    /// Adds an entry, and wakes the waiter if it is now the first.
    pub(super) fn add(&self, at: Duration, group: Arc<str>) {
        let mut heap = self.heap.lock().expect("nothing panics under this lock");
        let is_first = heap.peek().is_none_or(|Reverse((first, _))| at < *first);
        heap.push(Reverse((at, group)));
        if is_first {
            self.earlier.notify_one();
        }
    }

    /// Takes the first entry if it is due.
    pub(super) fn take_due(&self, now: Duration) -> Option<(Duration, Arc<str>)> {
        let mut heap = self.heap.lock().expect("nothing panics under this lock");
        let is_due = heap.peek().is_some_and(|Reverse((at, _))| *at <= now);
        if is_due {
            heap.pop().map(|Reverse(entry)| entry)
        } else {
            None
        }
    }

    /// When the first entry is due.
    pub(super) fn next(&self) -> Option<Duration> {
        let heap = self.heap.lock().expect("nothing panics under this lock");
        heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Returns when an entry was added that is earlier than all others.
    pub(super) async fn earlier(&self) {
        self.earlier.notified().await;
    }
}
