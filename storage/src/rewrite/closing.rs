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
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    use super::*;

    struct Slow(Arc<AtomicU32>);

    impl Drop for Slow {
        fn drop(&mut self) {
            std::thread::sleep(std::time::Duration::from_millis(50));
            self.0.fetch_add(1, SeqCst);
        }
    }

    #[test]
    fn who_waits_finds_all_closed() {
        let closed = Arc::default();
        let closing = Closing::default();
        closing.wait();
        closing.close(Slow(Arc::clone(&closed)));
        closing.close(Slow(Arc::clone(&closed)));
        assert!(closed.load(SeqCst) >= 1, "one at a time");
        closing.wait();
        assert_eq!(closed.load(SeqCst), 2);
        closing.close(Slow(Arc::clone(&closed)));
        drop(closing);
        assert_eq!(closed.load(SeqCst), 3);
    }
}
