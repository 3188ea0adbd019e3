//! When which machine must be looked at again: one heap for all machines of a shard, instead of a task for each of them.
//! Callers: the runtime. A machine has at most one entry that counts; its cell remembers which. Entries that were overtaken by
//! an earlier one are recognised by their time and dropped when they come up.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;

/// Which machine to look at, and when; the earliest comes first.
type Entry<K> = Reverse<(Duration, K)>;

pub(super) struct Timers<K> {
    heap: Mutex<BinaryHeap<Entry<K>>>,
    earlier: Notify,
}

impl<K: Ord> Timers<K> {
    pub(super) fn new() -> Timers<K> {
        Timers {
            heap: Mutex::new(BinaryHeap::new()),
            earlier: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BinaryHeap<Entry<K>>> {
        self.heap.lock().expect("nothing panics under this lock")
    }

    /// Adds an entry, and wakes the waiter if it is now the first.
    pub(super) fn add(&self, at: Duration, key: K) {
        let mut heap = self.lock();
        let is_first = heap.peek().is_none_or(|Reverse((first, _))| at < *first);
        heap.push(Reverse((at, key)));
        if is_first {
            self.earlier.notify_one();
        }
    }

    /// Takes the first entry if it is due.
    pub(super) fn take_due(&self, now: Duration) -> Option<(Duration, K)> {
        let mut heap = self.lock();
        let is_due = heap.peek().is_some_and(|Reverse((at, _))| *at <= now);
        if is_due {
            heap.pop().map(|Reverse(entry)| entry)
        } else {
            None
        }
    }

    /// When the first entry is due.
    pub(super) fn next(&self) -> Option<Duration> {
        self.lock().peek().map(|Reverse((at, _))| *at)
    }

    /// Returns when an entry was added that is earlier than all others.
    pub(super) async fn earlier(&self) {
        self.earlier.notified().await;
    }
}
