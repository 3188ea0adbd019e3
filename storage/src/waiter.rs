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
/// Whoever is to be woken for a move is woken later, and may have seen the move by itself and watch for the next one by then: a wake
/// is for those who were added before the last move, and leaves the others where they are.
///
/// A move is counted before it is asked whether anybody watches, and a waiter is listed before it looks at the count again:
/// one of the two sees the other, so both are ordered sequentially.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    moves: AtomicU64,
    is_watched: AtomicBool,
    /// Whether somebody has been asked to wake them.
    is_due: AtomicBool,
    /// Each with how often the log had moved when it was added.
    list: Mutex<Vec<(u64, Weak<Waiter>)>>,
}

impl Watchers {
    /// Adds a waiter, for one wake.
    pub fn add(&self, waiter: &Arc<Waiter>) {
        let mut list = self
            .list
            .lock()
            .expect("nothing panics while it holds the watchers");
        if list.len() == list.capacity() {
            // The last time that it was added counts.
            let mut known = HashSet::new();
            list.reverse();
            list.retain(|(_, other)| other.strong_count() > 0 && known.insert(other.as_ptr()));
            list.reverse();
        }
        list.push((self.moves(), Arc::downgrade(waiter)));
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

    /// Wakes those who were added before the last move, and forgets them.
    pub fn wake_all(&self) {
        self.is_due.store(false, Ordering::SeqCst);
        let woken: Vec<_> = {
            let mut list = self
                .list
                .lock()
                .expect("nothing panics while it holds the watchers");
            // A move that comes behind this asks for another wake while somebody is left.
            let moves = self.moves();
            let woken = list.extract_if(.., |(added_at, _)| *added_at < moves);
            let woken = woken.map(|(_, waiter)| waiter).collect();
            self.is_watched.store(!list.is_empty(), Ordering::SeqCst);
            woken
        };
        for waiter in woken.iter().filter_map(Weak::upgrade) {
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
        watchers.moved();
        assert!(watchers.become_due() && !watchers.become_due());
        watchers.wake_all();
        assert!(!watchers.become_due(), "nobody is left");
    }

    #[test]
    fn a_wake_that_comes_late_leaves_who_waits_for_the_next_move() {
        let (watchers, waiter) = (Watchers::default(), Waiter::new());
        let is_woken = || waiter.woken.swap(false, Ordering::AcqRel);
        watchers.add(&waiter);
        watchers.moved();
        assert!(watchers.become_due());
        // Before it is woken, it sees the move because of another log, and watches again.
        watchers.add(&waiter);
        watchers.wake_all();
        assert!(is_woken());
        watchers.moved();
        assert!(watchers.become_due(), "it still watches");
        watchers.wake_all();
        assert!(is_woken());
        watchers.moved();
        assert!(!watchers.become_due(), "it was woken for that");
    }
}
