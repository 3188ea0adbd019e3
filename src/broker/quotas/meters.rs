//! Meters: what each client has used of one quota, in bounded memory.
//! Callers: `Quotas`. Invariants: there are no more than [`METERS_MAX`] and one; one that is idle goes, and says the same when it
//! comes again. Names of clients are not kept.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Mutex;

use super::rate::{Meter, Window};

/// Meters of one quota at a time: those who come while there are as many, and none of them is idle, share one.
pub(super) const METERS_MAX: usize = 16_384;

/// Whose meter it is, as 128 bits of two keyed hashes.
type Key = (u64, u64);

/// That of those who share one.
const OTHERS: Key = (0, 0);

/// The meters of one quota.
#[derive(Debug)]
pub(super) struct Meters<M> {
    hashers: (RandomState, RandomState),
    state: Mutex<State<M>>,
}

#[derive(Debug)]
struct State<M> {
    meters: HashMap<Key, M>,
    swept_ms: u64,
}

impl<M: Meter> Meters<M> {
    pub(super) fn new() -> Meters<M> {
        Meters {
            hashers: (RandomState::new(), RandomState::new()),
            state: Mutex::new(State {
                meters: HashMap::new(),
                swept_ms: 0,
            }),
        }
    }

    /// Works with somebody's meter.
    pub(super) fn with<T>(
        &self,
        who: &impl Hash,
        window: Window,
        now_ms: u64,
        work: impl FnOnce(&mut M) -> T,
    ) -> T {
        let mut key = (self.hashers.0.hash_one(who), self.hashers.1.hash_one(who));
        let mut state = self
            .state
            .lock()
            .expect("nothing panics while it holds the meters");
        if !state.meters.contains_key(&key) {
            // All of them are looked at once in a window at most.
            if now_ms.saturating_sub(state.swept_ms) >= window.total_ms() {
                state.swept_ms = now_ms;
                state
                    .meters
                    .retain(|_, meter| !meter.is_idle(window, now_ms));
                state.meters.shrink_to(METERS_MAX / 16);
            }
            if state.meters.len() >= METERS_MAX {
                key = OTHERS;
            }
        }
        work(state.meters.entry(key).or_default())
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        let state = self.state.lock();
        state
            .expect("nothing panics while it holds the meters")
            .meters
            .len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::rate::Rate;
    use super::*;

    const WINDOW: Window = Window {
        samples: 11,
        sample_ms: 1000,
    };

    #[test]
    fn who_comes_when_there_are_as_many_as_may_be_shares_and_idle_ones_go() {
        let meters = Meters::<Rate>::new();
        let used = |who: usize, now| {
            meters.with(&who, WINDOW, now, |meter| {
                meter.record(WINDOW, 1.0, now);
                meter.measure(WINDOW, now).per_second
            })
        };
        for who in 0..METERS_MAX {
            assert_eq!(used(who, 20_000), 0.1);
        }
        assert_eq!(meters.count(), METERS_MAX);
        // Three more share one, and the first has its own still.
        assert_eq!(used(METERS_MAX, 20_000), 0.1);
        assert_eq!(used(METERS_MAX + 1, 20_000), 0.2);
        assert!(used(METERS_MAX + 2, 20_000) > 0.29);
        assert_eq!(used(0, 20_000), 0.2);
        assert_eq!(meters.count(), METERS_MAX + 1);
        // When the window has passed all are idle, and go.
        assert_eq!(used(METERS_MAX + 1, 31_000), 0.1);
        assert_eq!(meters.count(), 1);
    }
}
