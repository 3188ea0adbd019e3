//! Waiting for a log to grow: one waiter may watch many logs.

use std::sync::atomic::{AtomicBool, Ordering};
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

/// The waiters of one log. A waiter that was dropped costs its place until the next look.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
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
            list.retain(|known| known.strong_count() > 0);
        }
        list.push(Arc::downgrade(waiter));
    }

    /// Wakes all and forgets them.
    pub fn wake_all(&self) {
        let list = std::mem::take(
            &mut *self
                .list
                .lock()
                .expect("nothing panics while it holds the watchers"),
        );
        for waiter in list.iter().filter_map(Weak::upgrade) {
            waiter.wake();
        }
    }
}
