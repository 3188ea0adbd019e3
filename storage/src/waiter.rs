//! Waiting for a log to grow: one waiter may watch many logs.
//!
//! Each log counts how often it moved. Who has looked at a log when it stood at some count, and watches it since, need not
//! look again, nor watch again, while the count is the same.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::Notify;

/// Wakes one task when any of the logs that it watches has moved.
#[derive(Debug, Default)]
pub struct Waiter {
    notify: Notify,
    woken: AtomicBool,
}

impl Waiter {
    /// A waiter that watches nothing yet.
    pub fn new() -> Arc<Waiter> {
        Arc::new(Waiter::default())
    }

    /// Waits until a watched log has moved since the last call. Returns at once if one has already.
    pub async fn wait(&self) {
        while !self.woken.swap(false, Ordering::AcqRel) {
            self.notify.notified().await;
        }
    }

    /// Wakes the task.
    pub fn wake(&self) {
        self.woken.store(true, Ordering::Release);
        self.notify.notify_one();
    }
}

/// The waiters of one log. A waiter that was dropped, or was added again, costs its place until the next look.
///
/// A move is counted before it is asked whether anybody watches, and a waiter is listed before it looks at the count again:
/// one of the two sees the other, so both are ordered sequentially.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    moves: AtomicU64,
    is_watched: AtomicBool,
    /// Whether somebody has been asked to wake them.
    is_due: AtomicBool,
    list: Mutex<Vec<Weak<Waiter>>>,
}

impl Watchers {
    /// Adds a waiter, for one wake.
    pub fn add(&self, waiter: &Arc<Waiter>) {
        let mut list = self
            .list
            .lock()
            .expect("nothing panics while it holds the watchers");
        if list.len() == list.capacity() {
            let mut known = HashSet::new();
            list.retain(|other| other.strong_count() > 0 && known.insert(other.as_ptr()));
        }
        list.push(Arc::downgrade(waiter));
        self.is_watched.store(true, Ordering::SeqCst);
    }

    /// How often the log has moved.
    pub fn moves(&self) -> u64 {
        self.moves.load(Ordering::SeqCst)
    }

    /// The log has moved. Under the log's lock, so that whoever sees the new count sees the log as it is then.
    pub fn moved(&self) {
        self.moves.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether they are to be woken, and nobody has been asked to yet.
    pub fn become_due(&self) -> bool {
        self.is_watched.load(Ordering::SeqCst) && !self.is_due.swap(true, Ordering::SeqCst)
    }

    /// Wakes all and forgets them.
    pub fn wake_all(&self) {
        self.is_due.store(false, Ordering::SeqCst);
        let list = {
            let mut list = self
                .list
                .lock()
                .expect("nothing panics while it holds the watchers");
            self.is_watched.store(false, Ordering::SeqCst);
            std::mem::take(&mut *list)
        };
        for waiter in list.iter().filter_map(Weak::upgrade) {
            waiter.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiter_that_is_added_again_and_again_takes_a_few_places() {
        let watchers = Watchers::default();
        let waiter = Waiter::new();
        for _ in 0..10_000 {
            watchers.add(&waiter);
        }
        let places = watchers.list.lock().unwrap().len();
        assert!(places <= 8, "{places}");
        assert!(watchers.become_due() && !watchers.become_due());
        watchers.wake_all();
        assert!(!watchers.become_due(), "nobody is left");
    }
}
