//! Signals: how the store's threads wait, and how they are woken: that there is something to settle, and that the store ends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use crate::io::Clock;

/// See the module.
#[derive(Debug)]
pub(crate) struct Signals {
    clock: Arc<dyn Clock>,
    /// Whether the settler is asked to begin before its time.
    settle: Mutex<bool>,
    changed: Condvar,
    stopping: AtomicBool,
}

impl Signals {
    pub fn new(clock: Arc<dyn Clock>) -> Signals {
        Signals {
            clock,
            settle: Mutex::default(),
            changed: Condvar::new(),
            stopping: AtomicBool::new(false),
        }
    }

    /// The store ends: nobody waits any longer.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.settle_soon();
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Has the settler begin now: a WAL file is full, or something is to be removed.
    pub fn settle_soon(&self) {
        *self.locked() = true;
        self.changed.notify_all();
    }

    /// Waits for [`Signals::settle_soon`], the end, or the time.
    pub fn wait_to_settle(&self, at_most: Duration) {
        let mut settle = self.locked();
        if !*settle && !self.is_stopping() {
            settle = self.wait(settle, at_most);
        }
        *settle = false;
    }

    /// Waits for all of the time, also over what wakes others. False at the end.
    pub fn pause(&self, time: Duration) -> bool {
        let ends = self.clock.monotonic() + time;
        let mut settle = self.locked();
        loop {
            let left = ends.saturating_sub(self.clock.monotonic());
            if self.is_stopping() {
                return false;
            }
            if left.is_zero() {
                return true;
            }
            settle = self.wait(settle, left);
        }
    }

    fn wait<'s>(&self, settle: MutexGuard<'s, bool>, at_most: Duration) -> MutexGuard<'s, bool> {
        self.changed
            .wait_timeout(settle, at_most)
            .expect("nothing panics while it holds the signal")
            .0
    }

    fn locked(&self) -> MutexGuard<'_, bool> {
        self.settle
            .lock()
            .expect("nothing panics while it holds the signal")
    }
}
