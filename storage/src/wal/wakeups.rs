//! Wakes readers off the committer's thread.
//!
//! The committer publishes a frame, sends its acks, and hands over the logs whose readers wait. One task of the caller's
//! runtime ([`Wakeups::serve`]) wakes them: an ack waits for no reader, and what the committer pays for a thousand of them is
//! one wake-up. A reader's way gets no further thread by it: it is woken on a thread that runs such tasks anyway. Without such
//! a task, as in tests, the committer wakes them itself, after the acks.
//! Bound: a log is on the list once at most.

use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

use crate::log::LogCell;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Wakeups {
    due: Mutex<Due>,
    notify: Notify,
}

#[derive(Debug, Default)]
struct Due {
    logs: Vec<Arc<LogCell>>,
    is_served: bool,
}

/// While it lives, somebody serves; at its end nobody waits for a wake-up that never comes.
struct Serving<'a>(&'a Wakeups);

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        let left = {
            let mut due = self.0.locked();
            due.is_served = false;
            std::mem::take(&mut due.logs)
        };
        wake(&left);
    }
}

impl Wakeups {
    fn locked(&self) -> MutexGuard<'_, Due> {
        self.due
            .lock()
            .expect("nothing panics while it holds the list")
    }

    /// Readers of these logs are to be woken; each was found due ([`LogCell::readers_become_due`]).
    pub fn hand_over(&self, logs: Vec<Arc<LogCell>>) {
        if logs.is_empty() {
            return;
        }
        let mut due = self.locked();
        if !due.is_served {
            drop(due);
            return wake(&logs);
        }
        due.logs.extend(logs);
        drop(due);
        self.notify.notify_one();
    }

    /// Wakes readers until it is dropped. One at a time.
    pub async fn serve(&self) {
        self.locked().is_served = true;
        let _serving = Serving(self);
        loop {
            self.notify.notified().await;
            let logs = std::mem::take(&mut self.locked().logs);
            wake(&logs);
        }
    }
}

fn wake(logs: &[Arc<LogCell>]) {
    logs.iter().for_each(|log| log.wake_readers());
}

#[cfg(test)]
mod tests {
    use std::future::Future as _;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use model::topic_config::TopicConfig;
    use model::{LogId, Offset};

    use super::*;
    use crate::log::{Bounds, LogSettings};
    use crate::waiter::Waiter;

    fn log() -> Arc<LogCell> {
        let bounds = Bounds {
            start: Offset::ZERO,
            settled_end: Offset::ZERO,
            durable_end: Offset::ZERO,
            end: Offset::ZERO,
        };
        let settings = LogSettings::from(&TopicConfig::default());
        Arc::new(LogCell::new(LogId::METADATA, Arc::new(settings), bounds))
    }

    fn is_woken(waiter: &Arc<Waiter>) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        pin!(waiter.wait()).poll(&mut context).is_ready()
    }

    #[test]
    fn readers_are_woken_by_who_serves_and_by_the_committer_where_nobody_does() {
        let (wakeups, log, waiter) = (Wakeups::default(), log(), Waiter::new());
        log.watch(&waiter);
        log.has_moved();
        assert!(log.readers_become_due());
        wakeups.hand_over(vec![Arc::clone(&log)]);
        assert!(is_woken(&waiter), "nobody serves");

        let mut serving = Box::pin(wakeups.serve());
        let mut context = Context::from_waker(Waker::noop());
        assert!(serving.as_mut().poll(&mut context).is_pending());
        log.watch(&waiter);
        log.has_moved();
        assert!(log.readers_become_due() && !log.readers_become_due());
        wakeups.hand_over(vec![Arc::clone(&log)]);
        assert!(!is_woken(&waiter), "the server's turn has not come");
        assert!(serving.as_mut().poll(&mut context).is_pending());
        assert!(is_woken(&waiter));

        log.watch(&waiter);
        log.has_moved();
        assert!(log.readers_become_due());
        wakeups.hand_over(vec![log]);
        drop(serving);
        assert!(is_woken(&waiter), "what was left at the end");
    }
}
