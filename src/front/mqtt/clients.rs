//! Which clients are connected: one connection for each user and client id, and the newest counts (§3.1.4).
//! Callers: `greeting` enters a client, whose connection then waits to be told that another has taken its place, or that it is to end for
//! another reason. Bounded by the places.
//! A user takes over connections of the same user only: a client id that somebody else guesses ends nothing.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use tokio::time::Instant;

use super::ending::Ending;
use super::packet::Version;
use crate::broker::sessions::SessionKey;
use crate::front::administered::ClientShown;

/// All connected clients.
#[derive(Debug)]
pub(super) struct Clients {
    count_max: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    clients: HashMap<Arc<SessionKey>, Arc<Connected>>,
    /// Whoever comes from here on is told at once.
    is_stopping: bool,
}

#[derive(Debug)]
struct Connected {
    key: Arc<SessionKey>,
    address: SocketAddr,
    version: Version,
    since: Instant,
    /// Why its connection ends: the first that was told.
    told: AtomicU8,
    /// Its connection, where it waits for that.
    waits: AtomicWaker,
}

/// What a connection is told from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Told {
    /// Another connection of its client has come.
    TakenOver = 1,
    /// An operator ended it.
    Kicked = 2,
    /// The server stops.
    Stopping = 3,
}

impl Connected {
    fn tell(&self, told: Told) {
        let first = self
            .told
            .compare_exchange(0, told as u8, Relaxed, Relaxed)
            .is_ok();
        if first {
            // It publishes what was told, too.
            self.waits.wake();
        }
    }
}

/// A client that is connected, until this is dropped.
#[derive(Debug)]
pub(super) struct Entered {
    all: Arc<Clients>,
    connected: Arc<Connected>,
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
        key: Arc<SessionKey>,
        (address, version): (SocketAddr, Version),
    ) -> Option<Entered> {
        let connected = Arc::new(Connected {
            key: Arc::clone(&key),
            address,
            version,
            since: Instant::now(),
            told: AtomicU8::new(0),
            waits: AtomicWaker::new(),
        });
        let mut open = self.open();
        if open.is_stopping {
            connected.tell(Told::Stopping);
        }
        let count = open.clients.len();
        match open.clients.get_mut(&key) {
            Some(entry) => std::mem::replace(entry, Arc::clone(&connected)).tell(Told::TakenOver),
            None if count >= self.count_max => return None,
            None => drop(open.clients.insert(key, Arc::clone(&connected))),
        }
        drop(open);
        Some(Entered {
            all: Arc::clone(self),
            connected,
        })
    }

    /// How many there are, and the first of them by their ids.
    pub(super) fn list(&self, count_max: usize) -> (usize, Vec<ClientShown>) {
        let open = self.open();
        let mut all: Vec<_> = open.clients.values().collect();
        all.sort_unstable_by(|one, two| one.key.client_id.cmp(&two.key.client_id));
        all.truncate(count_max);
        let shown = all.into_iter().map(|connected| ClientShown {
            client_id: connected.key.client_id.to_string(),
            principal: connected.key.owner.to_string(),
            address: connected.address.to_string(),
            version: match connected.version {
                Version::V311 => "3.1.1",
                Version::V5 => "5.0",
            },
            age: connected.since.elapsed(),
        });
        (open.clients.len(), shown.collect())
    }

    /// Ends the connections of a client id, whoever's they are; how many there were.
    pub(super) fn end(&self, client_id: &str) -> usize {
        let open = self.open();
        let all = open.clients.values();
        let of_id = all.filter(|connected| &*connected.key.client_id == client_id);
        of_id.inspect(|it| it.tell(Told::Kicked)).count()
    }

    /// Ends all connections, and those that come from here on: the server stops.
    pub(super) fn stop(&self) {
        let mut open = self.open();
        open.is_stopping = true;
        open.clients.values().for_each(|it| it.tell(Told::Stopping));
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.open().clients.len()
    }
}

impl Entered {
    /// Resolves when another connection has taken its place, an operator ends it, or the server stops; says which.
    pub(super) async fn ended(&self) -> Ending {
        std::future::poll_fn(|context| self.poll_ended(context)).await
    }

    /// The same.
    pub(super) fn poll_ended(&self, context: &mut Context<'_>) -> Poll<Ending> {
        self.connected.waits.register(context.waker());
        match self.connected.told.load(Relaxed) {
            0 => Poll::Pending,
            told if told == Told::TakenOver as u8 => Poll::Ready(Ending::TakenOver),
            told if told == Told::Kicked as u8 => Poll::Ready(Ending::Kicked),
            _ => Poll::Ready(Ending::Stopping),
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut open = self.all.open();
        let key = &self.connected.key;
        let is_its_own = |it: &Arc<Connected>| Arc::ptr_eq(it, &self.connected);
        if open.clients.get(key).is_some_and(is_its_own) {
            open.clients.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::broker::access::Principal;

    #[test]
    fn the_newest_connection_of_a_client_counts_and_users_have_their_own() {
        let clients = Clients::new(2);
        let key = |name: &str, id: &str| SessionKey {
            owner: Principal::User(name.into()),
            client_id: id.into(),
        };
        let of = (SocketAddr::from(([127, 0, 0, 1], 1)), Version::V5);
        let enter = |name, id| clients.enter(key(name, id).into(), of);
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

    #[test]
    fn when_the_server_stops_those_that_are_there_end_and_those_that_come() {
        let clients = Clients::new(2);
        let of = (SocketAddr::from(([127, 0, 0, 1], 1)), Version::V5);
        let enter = |id: &str| {
            let key = SessionKey {
                owner: Principal::Anonymous,
                client_id: id.into(),
            };
            clients.enter(key.into(), of).expect("a place")
        };
        let before = enter("before");
        assert!(before.ended().now_or_never().is_none());
        clients.stop();
        for one in [&before, &enter("after")] {
            assert_eq!(one.ended().now_or_never(), Some(Ending::Stopping));
        }
    }
}
