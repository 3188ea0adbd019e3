//! Closes files that are unlinked, with a thread of its own: who closes such a file last waits until its pages and its space are given
//! back, which takes as long as a third of a rewrite.
//!
//! Callers: the rewrite, with the segments whose place was taken; and, before it says that there is no space for a new one.
//! Invariant: one thread at a time closes, so that no more is to be given back than what one rewrite has replaced.

use std::mem;
use std::sync::{Mutex, MutexGuard};
use std::thread::{Builder, JoinHandle};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Closing(Mutex<Option<JoinHandle<()>>>);

impl Closing {
    /// Closes what this holds.
    pub fn close<T: Send + 'static>(&self, files: T) {
        let mut thread = self.locked();
        wait_for(&mut thread);
        let name = "segment-closer".to_owned();
        // Without one more thread it is closed here, with what was to be run.
        *thread = Builder::new().name(name).spawn(move || drop(files)).ok();
    }

    /// Waits until all is closed, and its space free.
    pub fn wait(&self) {
        wait_for(&mut self.locked());
    }

    fn locked(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.0.lock().expect("nobody who has it panics")
    }
}

fn wait_for(thread: &mut Option<JoinHandle<()>>) {
    if let Some(thread) = mem::take(thread)
        && thread.join().is_err()
    {
        tracing::error!("the thread that closes replaced segments panicked");
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Is closed once it is told to, and tells that.
    struct Slow {
        may_close: Receiver<()>,
        closed: Sender<u32>,
        number: u32,
    }

    impl Drop for Slow {
        fn drop(&mut self) {
            self.may_close.recv().expect("it is told");
            self.closed.send(self.number).expect("somebody looks");
        }
    }

    #[test]
    fn who_closes_does_not_wait_and_who_waits_finds_all_closed() {
        let (tell, closed) = channel();
        let slow = |number| {
            let (close, may_close) = channel();
            let closed = tell.clone();
            let slow = Slow {
                may_close,
                closed,
                number,
            };
            (slow, close)
        };
        let closing = Closing::default();
        closing.wait();
        let (first, close_first) = slow(1);
        closing.close(first);
        assert!(closed.try_recv().is_err(), "it is not closed yet");
        close_first.send(()).unwrap();
        let (second, close_second) = slow(2);
        closing.close(second);
        assert_eq!(closed.try_recv(), Ok(1), "one at a time");
        close_second.send(()).unwrap();
        closing.wait();
        assert_eq!(closed.try_recv(), Ok(2));
        let (third, close_third) = slow(3);
        closing.close(third);
        close_third.send(()).unwrap();
        drop(closing);
        assert_eq!(closed.try_recv(), Ok(3));
    }
}
