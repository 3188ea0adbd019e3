//! Which container ids are one connection's alone: those of clients that want it so, as JMS's client ids are.
//! Callers: `connection`, when it opens and when it ends.
//! Invariant: of the connections that ask for it (`sole-connection-for-container`) one has an id at a time, until it is over.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

/// The capability by which a client asks for it, and by which it is told that it has it.
pub(super) const SOLE_CONNECTION: &str = "sole-connection-for-container";
/// How long somebody waits for a connection of the same id to be over: a client that was cut off comes back at once.
const ENDING_MAX: Duration = Duration::from_secs(1);

/// Which ids are taken.
#[derive(Debug, Default)]
pub(super) struct Containers {
    all: Mutex<HashSet<String>>,
    freed: Notify,
}

/// An id that is one connection's alone.
#[derive(Debug)]
pub(super) struct Sole {
    containers: Arc<Containers>,
    id: String,
}

impl Containers {
    fn locked(&self) -> MutexGuard<'_, HashSet<String>> {
        self.all.lock().expect("nothing panics while it looks")
    }

    /// Takes an id; waits a moment for who has it. None: it is in use.
    pub(super) async fn take(self: &Arc<Containers>, id: &str) -> Option<Sole> {
        let taken = async {
            loop {
                let freed = self.freed.notified();
                if self.locked().insert(id.to_owned()) {
                    return Sole {
                        containers: Arc::clone(self),
                        id: id.to_owned(),
                    };
                }
                freed.await;
            }
        };
        timeout(ENDING_MAX, taken).await.ok()
    }
}

impl Drop for Sole {
    fn drop(&mut self) {
        self.containers.locked().remove(&self.id);
        self.containers.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_id_is_one_connections_until_that_is_over() {
        let containers = Arc::new(Containers::default());
        let first = containers.take("a").await.expect("it is free");
        assert!(containers.take("b").await.is_some());
        assert!(containers.take("a").await.is_none());
        let waits = tokio::spawn({
            let containers = Arc::clone(&containers);
            async move { containers.take("a").await.is_some() }
        });
        tokio::task::yield_now().await;
        drop(first);
        assert!(waits.await.expect("it ends"));
        assert!(containers.locked().is_empty());
    }
}
