//! Which clients are connected: one connection for each user and client id, and the newest counts (§3.1.4).
//! Callers: `greeting` enters a client, whose connection then waits to be told that another has taken its place. Bounded by the places.
//! A user takes over connections of the same user only: a client id that somebody else guesses ends nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

use crate::broker::access::Principal;

/// All connected clients.
#[derive(Debug)]
pub(super) struct Clients {
    count_max: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    clients: HashMap<(Principal, Arc<str>), (u64, Arc<Notify>)>,
}

/// A client that is connected, until this is dropped.
#[derive(Debug)]
pub(super) struct Entered {
    all: Arc<Clients>,
    key: (Principal, Arc<str>),
    number: u64,
    taken_over: Arc<Notify>,
}

impl Clients {
    /// None yet, and never more than so many.
    pub(super) fn new(count_max: usize) -> Arc<Clients> {
        Arc::new(Clients {
            count_max,
            open: Mutex::default(),
        })
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open
            .lock()
            .expect("nothing panics while it holds the clients")
    }

    /// Enters a client. A connection that it has already is told; None if there are as many clients as there may be.
    pub(super) fn enter(
        self: &Arc<Clients>,
        principal: Principal,
        client_id: Arc<str>,
    ) -> Option<Entered> {
        let key = (principal, client_id);
        let taken_over = Arc::new(Notify::new());
        let mut open = self.open();
        let number = open.next;
        let count = open.clients.len();
        match open.clients.get_mut(&key) {
            Some(entry) => {
                entry.1.notify_one();
                *entry = (number, Arc::clone(&taken_over));
            }
            None if count >= self.count_max => return None,
            None => {
                let entry = (number, Arc::clone(&taken_over));
                open.clients.insert(key.clone(), entry);
            }
        }
        open.next += 1;
        drop(open);
        Some(Entered {
            all: Arc::clone(self),
            key,
            number,
            taken_over,
        })
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.open().clients.len()
    }
}

impl Entered {
    /// Resolves when another connection has taken its place.
    pub(super) async fn taken_over(&self) {
        self.taken_over.notified().await;
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut open = self.all.open();
        let is_its_own = |(number, _): &(u64, Arc<Notify>)| *number == self.number;
        if open.clients.get(&self.key).is_some_and(is_its_own) {
            open.clients.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn the_newest_connection_of_a_client_counts_and_users_have_their_own() {
        let clients = Clients::new(2);
        let user = |name: &str| Principal::User(name.into());
        let enter = |name, id: &str| clients.enter(user(name), id.into());
        let first = enter("alice", "pump").expect("a place");
        let other = enter("bob", "pump").expect("a place");
        assert!(first.taken_over().now_or_never().is_none());
        assert!(enter("carol", "x").is_none(), "as many as there may be");
        let second = enter("alice", "pump").expect("its own place");
        assert!(first.taken_over().now_or_never().is_some());
        assert!(other.taken_over().now_or_never().is_none());
        drop(first);
        assert_eq!(clients.count(), 2, "the second keeps its place");
        drop((second, other));
        assert_eq!(clients.count(), 0);
    }
}
