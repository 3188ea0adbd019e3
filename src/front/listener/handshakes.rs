//! Handshakes: how many may be under way at a time, and which of them has to go when one more begins.
//! Caller: the listener, for each connection of an encrypted endpoint. Pure but for its lock.
//! Invariant: no more than [`HANDSHAKES_MAX`] are under way. One that begins beyond it ends the oldest of the address that has
//! the most, so that whoever lets handshakes stall ends their own.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

/// One takes milliseconds if nobody stalls it, and holds up to some ten KiB.
pub(super) const HANDSHAKES_MAX: usize = 1_024;

/// Those that are under way.
#[derive(Debug, Default)]
pub(super) struct Handshakes {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next_id: u64,
    /// Oldest first.
    open: BTreeMap<u64, (IpAddr, Arc<Notify>)>,
    of_address: HashMap<IpAddr, usize>,
}

impl Handshakes {
    /// One begins. Never waits: another has to go if there are too many.
    pub(super) fn begin(self: &Arc<Handshakes>, address: IpAddr) -> Slot {
        let address = address.to_canonical();
        let mut state = self.locked();
        if state.open.len() >= HANDSHAKES_MAX {
            state.end_one();
        }
        let id = state.next_id;
        state.next_id += 1;
        let ended = Arc::new(Notify::new());
        state.open.insert(id, (address, ended.clone()));
        *state.of_address.entry(address).or_default() += 1;
        Slot {
            of: self.clone(),
            id,
            ended,
        }
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("nothing panics while it holds the handshakes")
    }
}

impl State {
    fn end_one(&mut self) {
        let most = self.of_address.iter().max_by_key(|(_, count)| **count);
        let Some((most, _)) = most.map(|(address, count)| (*address, *count)) else {
            return;
        };
        let oldest = self.open.iter().find(|(_, (address, _))| *address == most);
        if let Some((id, _)) = oldest {
            let id = *id;
            if let Some(ended) = self.remove(id) {
                ended.notify_one();
            }
        }
    }

    fn remove(&mut self, id: u64) -> Option<Arc<Notify>> {
        let (address, ended) = self.open.remove(&id)?;
        if let Some(count) = self.of_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.of_address.remove(&address);
            }
        }
        Some(ended)
    }
}

/// A handshake that is under way, until it is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    of: Arc<Handshakes>,
    id: u64,
    ended: Arc<Notify>,
}

impl Slot {
    /// Resolves when it has to make room for another.
    pub(super) async fn ended(&self) {
        self.ended.notified().await;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.of.locked().remove(self.id);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn the_oldest_of_the_address_with_the_most_makes_room() {
        let handshakes = Arc::new(Handshakes::default());
        let honest: IpAddr = "10.0.0.1".parse().unwrap();
        let stalling: IpAddr = "10.0.0.2".parse().unwrap();
        let first = handshakes.begin(honest);
        let stalled: Vec<Slot> = (1..HANDSHAKES_MAX)
            .map(|_| handshakes.begin(stalling))
            .collect();
        assert!(stalled[0].ended().now_or_never().is_none());
        let more: Vec<Slot> = (0..10).map(|_| handshakes.begin(stalling)).collect();
        for (index, slot) in stalled.iter().enumerate() {
            let has_ended = slot.ended().now_or_never().is_some();
            assert_eq!(has_ended, index < 10, "{index}");
        }
        assert!(first.ended().now_or_never().is_none());
        drop((first, stalled, more));
        let state = handshakes.locked();
        assert!(state.open.is_empty() && state.of_address.is_empty());
    }
}
