//! What bounds all readers together.
//! Callers: `reader`, which takes a turn for each step.

use tokio::sync::{Semaphore, SemaphorePermit};

/// See the module.
#[derive(Debug)]
pub(in crate::broker) struct Readers {
    /// How many may read and decode at a time.
    turns: Semaphore,
}

impl Readers {
    /// As many as there are processors, and some, as reading waits for the disk.
    pub(in crate::broker) fn new() -> Readers {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Readers {
            turns: Semaphore::new(cores + 2),
        }
    }

    /// A turn to read and decode.
    pub(super) async fn turn(&self) -> SemaphorePermit<'_> {
        let turn = self.turns.acquire().await;
        turn.expect("nobody closes the semaphore")
    }
}
