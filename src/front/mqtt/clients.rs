//! Which clients are connected: one connection for each user and client id, and the newest counts (§3.1.4).
//! Callers: `greeting` enters a client, whose connection then waits to be told that another has taken its place. Bounded by the places.
//! A user takes over connections of the same user only: a client id that somebody else guesses ends nothing.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::ending::Ending;
use super::packet::Version;
use crate::broker::access::Principal;
use crate::front::administered::ClientShown;

/// All connected clients.
#[derive(Debug)]
pub(super) struct Clients {
    count_max: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    clients: HashMap<(Principal, Arc<str>), Connected>,
}

#[derive(Debug)]
struct Connected {
    number: u64,
    told: Arc<Told>,
    address: SocketAddr,
    version: Version,
    since: Instant,
}

/// What a connection is told from outside.
#[derive(Debug, Default)]
struct Told {
    ends: Notify,
    /// By an operator, and not by another connection.
    is_kicked: AtomicBool,
}

/// A client that is connected, until this is dropped.
#[derive(Debug)]
pub(super) struct Entered {
    all: Arc<Clients>,
    key: (Principal, Arc<str>),
    number: u64,
    told: Arc<Told>,
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
        (address, version): (SocketAddr, Version),
    ) -> Option<Entered> {
        let key = (principal, client_id);
        let told = Arc::<Told>::default();
        let mut open = self.open();
        let number = open.next;
        let count = open.clients.len();
        let connected = Connected {
            number,
            told: Arc::clone(&told),
            address,
            version,
            since: Instant::now(),
        };
        match open.clients.get_mut(&key) {
            Some(entry) => {
                entry.told.ends.notify_one();
                *entry = connected;
            }
            None if count >= self.count_max => return None,
            None => {
                open.clients.insert(key.clone(), connected);
            }
        }
        open.next += 1;
        drop(open);
        Some(Entered {
            all: Arc::clone(self),
            key,
            number,
            told,
        })
    }

    /// How many there are, and the first of them by their ids.
    pub(super) fn list(&self, count_max: usize) -> (usize, Vec<ClientShown>) {
        let open = self.open();
        let mut keys: Vec<_> = open.clients.keys().collect();
        keys.sort_unstable_by(|one, two| one.1.cmp(&two.1));
        keys.truncate(count_max);
        let shown = keys.into_iter().map(|key| {
            let connected = &open.clients[key];
            ClientShown {
                client_id: key.1.to_string(),
                principal: key.0.to_string(),
                address: connected.address.to_string(),
                version: match connected.version {
                    Version::V311 => "3.1.1",
                    Version::V5 => "5.0",
                },
                age: connected.since.elapsed(),
            }
        });
        (open.clients.len(), shown.collect())
    }

    /// Ends the connections of a client id, whoever's they are; how many there were.
    pub(super) fn end(&self, client_id: &str) -> usize {
        let open = self.open();
        let of_id = open.clients.iter().filter(|(key, _)| &*key.1 == client_id);
        let ended = of_id.inspect(|(_, connected)| {
            connected.told.is_kicked.store(true, Relaxed);
            connected.told.ends.notify_one();
        });
        ended.count()
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.open().clients.len()
    }
}

impl Entered {
    /// Resolves when another connection has taken its place, or an operator ends it; says which.
    pub(super) async fn ended(&self) -> Ending {
        self.told.ends.notified().await;
        match self.told.is_kicked.load(Relaxed) {
            true => Ending::Kicked,
            false => Ending::TakenOver,
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut open = self.all.open();
        let is_its_own = |connected: &Connected| connected.number == self.number;
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
        let of = (SocketAddr::from(([127, 0, 0, 1], 1)), Version::V5);
        let enter = |name, id: &str| clients.enter(user(name), id.into(), of);
        let first = enter("alice", "pump").expect("a place");
        let other = enter("bob", "pump").expect("a place");
        assert!(first.ended().now_or_never().is_none());
        assert!(enter("carol", "x").is_none(), "as many as there may be");
        let second = enter("alice", "pump").expect("its own place");
        assert_eq!(first.ended().now_or_never(), Some(Ending::TakenOver));
        assert!(other.ended().now_or_never().is_none());
        drop(first);
        assert_eq!(clients.count(), 2, "the second keeps its place");
        let (count, listed) = clients.list(1);
        assert_eq!((count, listed.len(), clients.end("none")), (2, 1, 0));
        assert_eq!(clients.end("pump"), 2, "of each user");
        for one in [&second, &other] {
            assert_eq!(one.ended().now_or_never(), Some(Ending::Kicked));
        }
        drop((second, other));
        assert_eq!(clients.count(), 0);
    }
}
