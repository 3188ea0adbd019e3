//! The jobs of this start, and who waits for one of them.
//! Callers: `cleanup`.

use std::sync::{Mutex, MutexGuard};

use tokio::sync::watch;

use super::jobs::Jobs;

/// The part of the broker that runs jobs.
#[derive(Debug)]
pub(in crate::broker) struct Cleanup {
    pub(super) jobs: Mutex<Jobs>,
    /// Told whenever a job comes or ends.
    pub(super) changed: watch::Sender<()>,
}

impl Cleanup {
    /// Without a job, in a start of this leader epoch.
    pub(in crate::broker) fn new(epoch: u32) -> Cleanup {
        Cleanup {
            jobs: Mutex::new(Jobs::new(epoch)),
            changed: watch::Sender::new(()),
        }
    }

    pub(super) fn locked(&self) -> MutexGuard<'_, Jobs> {
        self.jobs
            .lock()
            .expect("nothing panics while it holds the jobs")
    }
}
