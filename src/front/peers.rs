//! Who is connected to the Kafka port: one entry for each open connection, kept while it is open.
//! Callers: the Kafka front enters and counts, the HTTP front lists. It stands between the two, as fronts do not know each
//! other. Bounded by the number of connections; of what a client calls itself no more than `CLIENT_ID_BYTES_MAX` is kept.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::listener::{SecurityProtocol, Transport};
use crate::broker::access::Principal;

/// A longer name is cut.
const CLIENT_ID_BYTES_MAX: usize = 255;
/// Rates are of the time since the last but one of these began: 10 to 20 s.
const WINDOW: Duration = Duration::from_secs(10);

/// All open connections.
#[derive(Debug, Default)]
pub struct Peers(Mutex<Open>);

#[derive(Debug, Default)]
struct Open {
    next: u64,
    peers: BTreeMap<u64, Arc<Peer>>,
}

/// One open connection.
#[derive(Debug)]
pub struct Peer {
    address: SocketAddr,
    transport: Transport,
    since: Instant,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    /// Who has logged in.
    principal: Option<Principal>,
    client_id: Option<String>,
    requests: u64,
    last_request: Instant,
    total: Bytes,
    /// The windows that rates are computed from: when each began, and what came in it.
    windows: [(Instant, Bytes); 2],
}

/// Bytes of requests and of responses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    /// Of requests.
    pub received: u64,
    /// Of responses.
    pub sent: u64,
}

/// One connection as it is now.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerNow {
    /// Where it comes from.
    pub address: SocketAddr,
    /// The name of the listener that it came by, and how that is protected.
    pub listener: (String, SecurityProtocol),
    /// Who is at its other end, as far as the connection tells.
    pub principal: Principal,
    /// How the client calls itself, once it has.
    pub client_id: Option<String>,
    /// How long it is open.
    pub age: Duration,
    /// How long ago its last request came, or since it is open.
    pub idle: Duration,
    /// Requests so far.
    pub requests: u64,
    /// Bytes so far.
    pub total: Bytes,
    /// Bytes a second in the last 10 to 20 s.
    pub rate: Bytes,
}

/// Keeps the entry of a connection until it is dropped.
#[derive(Debug)]
pub(in crate::front) struct Entered {
    all: Arc<Peers>,
    number: u64,
    peer: Arc<Peer>,
}

impl Peers {
    fn locked(&self) -> MutexGuard<'_, Open> {
        self.0
            .lock()
            .expect("nothing panics while it holds the peers")
    }

    /// Enters a connection that is open from now on.
    pub(in crate::front) fn enter(
        self: &Arc<Peers>,
        address: SocketAddr,
        transport: Transport,
    ) -> Entered {
        let peer = Arc::new(Peer::new(address, transport, Instant::now()));
        let mut open = self.locked();
        let number = open.next;
        open.next += 1;
        open.peers.insert(number, Arc::clone(&peer));
        drop(open);
        Entered {
            all: Arc::clone(self),
            number,
            peer,
        }
    }

    /// How many are open.
    pub fn count(&self) -> usize {
        self.locked().peers.len()
    }

    /// The open connections that move most, at most so many.
    pub fn busiest(&self, most: usize) -> Vec<PeerNow> {
        let peers: Vec<Arc<Peer>> = self.locked().peers.values().cloned().collect();
        let now = Instant::now();
        let mut found: Vec<PeerNow> = peers.iter().map(|peer| peer.now(now)).collect();
        found.sort_by_key(|peer| {
            (
                std::cmp::Reverse(peer.rate.received.saturating_add(peer.rate.sent)),
                peer.address,
            )
        });
        found.truncate(most);
        found
    }
}

impl Entered {
    /// Counts a request.
    pub(in crate::front) fn request(&self, client_id: Option<&str>, bytes: usize) {
        self.peer.request(client_id, bytes as u64, Instant::now());
    }

    /// Notes who is at the other end after a login.
    pub(in crate::front) fn logged_in(&self, principal: Principal) {
        self.peer.locked().principal = Some(principal);
    }

    /// Counts bytes of responses.
    pub(in crate::front) fn sent(&self, bytes: usize) {
        let more = Bytes {
            received: 0,
            sent: bytes as u64,
        };
        self.peer.locked().add(more, Instant::now());
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.all.locked().peers.remove(&self.number);
    }
}

impl Peer {
    fn new(address: SocketAddr, transport: Transport, now: Instant) -> Peer {
        Peer {
            address,
            transport,
            since: now,
            seen: Mutex::new(Seen {
                principal: None,
                client_id: None,
                requests: 0,
                last_request: now,
                total: Bytes::default(),
                windows: [(now, Bytes::default()); 2],
            }),
        }
    }

    fn locked(&self) -> MutexGuard<'_, Seen> {
        self.seen
            .lock()
            .expect("nothing panics while it holds a peer")
    }

    fn request(&self, client_id: Option<&str>, bytes: u64, now: Instant) {
        let mut seen = self.locked();
        seen.requests += 1;
        seen.last_request = now;
        let cut = client_id.map(|id| &id[..id.floor_char_boundary(CLIENT_ID_BYTES_MAX)]);
        if seen.client_id.as_deref() != cut && cut.is_some() {
            seen.client_id = cut.map(str::to_owned);
        }
        let more = Bytes {
            received: bytes,
            sent: 0,
        };
        seen.add(more, now);
    }

    fn now(&self, now: Instant) -> PeerNow {
        let mut seen = self.locked();
        seen.add(Bytes::default(), now);
        let [(began, before), (_, current)] = seen.windows;
        let millis = u64::try_from(now.saturating_duration_since(began).as_millis());
        let millis = millis.unwrap_or(u64::MAX).max(1_000);
        let a_second = |bytes: u64| bytes.saturating_mul(1_000) / millis;
        PeerNow {
            address: self.address,
            listener: (
                self.transport.listener.name.clone(),
                self.transport.listener.protocol,
            ),
            principal: seen
                .principal
                .clone()
                .unwrap_or_else(|| self.transport.principal()),
            client_id: seen.client_id.clone(),
            age: now.saturating_duration_since(self.since),
            idle: now.saturating_duration_since(seen.last_request),
            requests: seen.requests,
            total: seen.total,
            rate: Bytes {
                received: a_second(before.received + current.received),
                sent: a_second(before.sent + current.sent),
            },
        }
    }
}

impl Seen {
    fn add(&mut self, more: Bytes, now: Instant) {
        let age = now.saturating_duration_since(self.windows[1].0);
        if age >= WINDOW {
            let before = if age >= WINDOW * 2 {
                // Nothing was counted for a whole window.
                (now - WINDOW, Bytes::default())
            } else {
                self.windows[1]
            };
            self.windows = [before, (now, Bytes::default())];
        }
        for counted in [&mut self.total, &mut self.windows[1].1] {
            counted.received += more.received;
            counted.sent += more.sent;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn a_connection_is_listed_while_it_is_open() {
        let peers = Arc::new(Peers::default());
        let (one, other) = (
            peers.enter(address(1), Transport::plain()),
            peers.enter(address(2), Transport::plain()),
        );
        other.request(Some("sensor"), 5_000);
        assert_eq!(peers.count(), 2);
        let busiest = peers.busiest(1);
        assert_eq!(busiest[0].client_id.as_deref(), Some("sensor"));
        assert_eq!((busiest[0].requests, busiest[0].total.received), (1, 5_000));
        assert_eq!(busiest[0].principal, Principal::Anonymous);
        let alice = Principal::User("alice".into());
        other.logged_in(alice.clone());
        assert_eq!(peers.busiest(1)[0].principal, alice);
        drop((one, other));
        assert_eq!(peers.count(), 0);
    }

    #[test]
    fn rates_are_of_the_last_seconds_and_fall_to_0() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let peer = Peer::new(address(1), Transport::plain(), start);
        for second in 0..60 {
            peer.request(None, 1_000, at(second));
        }
        let now = peer.now(at(60));
        assert!((900..=1_100).contains(&now.rate.received), "{:?}", now.rate);
        assert_eq!(now.total.received, 60_000);
        let later = peer.now(at(100));
        assert_eq!(later.rate, Bytes::default());
        assert_eq!(later.idle, Duration::from_secs(41));
    }

    #[test]
    fn a_name_is_cut_at_a_whole_character() {
        let peer = Peer::new(address(1), Transport::plain(), Instant::now());
        peer.request(Some(&"ü".repeat(1_000)), 1, Instant::now());
        let name = peer.now(Instant::now()).client_id.unwrap();
        assert_eq!(name, "ü".repeat(127));
    }
}
