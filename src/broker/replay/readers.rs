//! What bounds all readers together.
//! Callers: `reader`, which takes a turn for each step.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// So many steps of all replays together may be made before they are asked for: the records of each are kept in memory meanwhile.
const AHEAD_MAX: usize = 16;

/// See the module.
#[derive(Debug)]
pub(in crate::broker) struct Readers {
    /// How many may read and decode at a time.
    turns: Semaphore,
    /// How many steps may be ahead.
    ahead: Arc<Semaphore>,
}

impl Readers {
    /// As many as there are processors, and some, as reading waits for the disk.
    pub(in crate::broker) fn new() -> Readers {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Readers {
            turns: Semaphore::new(cores + 2),
            ahead: Arc::new(Semaphore::new(AHEAD_MAX)),
        }
    }

    /// Leave to make a step before it is asked for, and to keep what it finds; None if others have taken all.
    pub(super) fn ahead(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.ahead).try_acquire_owned().ok()
    }

    /// A turn to read and decode.
    pub(super) async fn turn(&self) -> SemaphorePermit<'_> {
        let turn = self.turns.acquire().await;
        turn.expect("nobody closes the semaphore")
    }
}
