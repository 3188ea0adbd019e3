//! Budget: what the requests that are being received, or the answers that are being sent, may hold in memory, all
//! connections together.
//! Callers: the Kafka front, with one budget for requests (`queued.max.request.bytes`) and one for answers
//! (`queued.max.response.bytes`).
//! Invariants: never more than `bytes_max` is held, and no claim is larger than `claim_bytes_max`. Whoever needs more
//! waits, those with the least to come first. So that claims which each hold a part cannot wait for each other for ever,
//! `claim_bytes_max` of the budget is kept for one claim at a time, which then always comes to its end. While somebody
//! waits, a claim whose peer takes or sends so little that it would hold its bytes for longer than [`TURNOVER`] is
//! evicted, the largest first: its connection is closed.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// While others wait, a claim must move all that it holds through its socket in this time.
const TURNOVER: Duration = Duration::from_secs(30);
/// A peer is judged by what it moved in no less than this time.
const WINDOW: Duration = Duration::from_secs(1);
/// How often one who waits looks for a claim to evict.
const SEARCH: Duration = Duration::from_millis(250);

/// See the module.
#[derive(Debug)]
pub(in crate::front) struct Budget {
    bytes_max: usize,
    claim_bytes_max: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    held: usize,
    held_most: usize,
    claims: HashMap<u64, Held>,
    /// Those who wait: bytes that are still to come after this, and who.
    waiting: BTreeSet<(usize, u64)>,
    /// The one claim that may use what is kept.
    finisher: Option<u64>,
    next_id: u64,
    searched_at: Instant,
    evicted: u64,
    waits: u64,
}

#[derive(Debug)]
struct Held {
    bytes: usize,
    /// What it waits for, and what is to come after it.
    wants: Option<(usize, usize)>,
    /// Since when its peer is to send or take bytes, and how many it did; None while that is not the peer's turn.
    window: Option<(Instant, usize)>,
    granted: Arc<Notify>,
    evict: Arc<Notify>,
    is_evicted: bool,
}

impl State {
    fn held_mut(&mut self, id: u64) -> &mut Held {
        self.claims
            .get_mut(&id)
            .expect("a claim is known until it is dropped")
    }
}

/// A claim that was not to be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::front) enum ClaimError {
    /// More than one claim may hold.
    #[error("more than {bytes_max} bytes")]
    TooLarge {
        /// The bound.
        bytes_max: usize,
    },
    /// Others waited for what a peer held that moved too little.
    #[error("others waited for memory, and this peer moved too few bytes for what it held")]
    Evicted,
}

/// How a budget is used, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Use {
    /// Bytes that may be held.
    pub bytes_max: usize,
    /// Bytes that one claim may hold.
    pub claim_bytes_max: usize,
    /// Bytes that are held.
    pub held: usize,
    /// The most that was ever held.
    pub held_most: usize,
    /// How many claims wait now.
    pub waiting: usize,
    /// How often a claim had to wait.
    pub waits: u64,
    /// Claims that were evicted.
    pub evicted: u64,
}

impl Budget {
    /// A budget of `bytes_max`, of which one claim may hold `claim_bytes_max`: no more than half.
    pub(in crate::front) fn new(bytes_max: usize, claim_bytes_max: usize) -> Arc<Budget> {
        assert!(
            claim_bytes_max <= bytes_max / 2,
            "the configuration was checked"
        );
        Arc::new(Budget {
            bytes_max,
            claim_bytes_max,
            state: Mutex::new(State {
                held: 0,
                held_most: 0,
                claims: HashMap::new(),
                waiting: BTreeSet::new(),
                finisher: None,
                next_id: 0,
                searched_at: Instant::now(),
                evicted: 0,
                waits: 0,
            }),
        })
    }

    /// A claim that holds nothing yet.
    pub(in crate::front) fn claim(self: &Arc<Budget>) -> Claim {
        let mut state = self.locked();
        let id = state.next_id;
        state.next_id += 1;
        let held = Held {
            bytes: 0,
            wants: None,
            window: None,
            granted: Arc::default(),
            evict: Arc::default(),
            is_evicted: false,
        };
        let (granted, evict) = (held.granted.clone(), held.evict.clone());
        state.claims.insert(id, held);
        drop(state);
        Claim {
            budget: self.clone(),
            id,
            granted,
            evict,
        }
    }

    /// How it is used now.
    pub(in crate::front) fn usage(&self) -> Use {
        let state = self.locked();
        Use {
            bytes_max: self.bytes_max,
            claim_bytes_max: self.claim_bytes_max,
            held: state.held,
            held_most: state.held_most,
            waiting: state.waiting.len(),
            waits: state.waits,
            evicted: state.evicted,
        }
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("nothing panics while it holds a budget")
    }

    /// Gives `id` what it asks for, if that is to be had now.
    fn give(&self, state: &mut State, id: u64, bytes: usize) -> bool {
        let fits = state.held + bytes <= self.bytes_max - self.claim_bytes_max;
        if !fits {
            if state.finisher.is_some_and(|finisher| finisher != id) {
                return false;
            }
            // The others hold no more than the common part, and this one no more than what is kept.
            state.finisher = Some(id);
        }
        state.held += bytes;
        state.held_most = state.held_most.max(state.held);
        assert!(
            state.held <= self.bytes_max,
            "a budget is never held beyond its bound"
        );
        let held = state.held_mut(id);
        held.bytes += bytes;
        held.wants = None;
        true
    }

    /// Gives to those who wait what has become free.
    fn serve(&self, state: &mut State) {
        if state.held <= self.bytes_max - self.claim_bytes_max {
            // All of it fits into the common part: what is kept is free for another.
            state.finisher = None;
        }
        while let Some(&(left, id)) = state.waiting.first() {
            let (bytes, _) = state.claims[&id].wants.expect("whoever waits wants bytes");
            if !self.give(state, id, bytes) {
                return;
            }
            state.waiting.remove(&(left, id));
            state.claims[&id].granted.notify_one();
        }
    }

    /// Takes a claim off the list of those who wait.
    fn stop_waiting(state: &mut State, id: u64) {
        let held = state.claims.get_mut(&id);
        if let Some((_, left)) = held.and_then(|held| held.wants.take()) {
            state.waiting.remove(&(left, id));
        }
    }

    /// Evicts the largest claim whose peer moves too little, if somebody waits.
    fn search(&self, now: Instant) {
        let mut state = self.locked();
        if state.waiting.is_empty() || now - state.searched_at < SEARCH {
            return;
        }
        state.searched_at = now;
        let mut worst: Option<(usize, u64)> = None;
        for (id, held) in &mut state.claims {
            let Some((since, moved)) = held.window else {
                continue;
            };
            let elapsed = now - since;
            if held.is_evicted || elapsed < WINDOW {
                continue;
            }
            let needed = held.bytes as f64 * (elapsed.as_secs_f64() / TURNOVER.as_secs_f64());
            if moved as f64 >= needed {
                held.window = Some((now, 0));
            } else if worst.is_none_or(|(bytes, _)| held.bytes > bytes) {
                worst = Some((held.bytes, *id));
            }
        }
        if let Some((_, id)) = worst {
            state.evicted += 1;
            let held = state.held_mut(id);
            held.is_evicted = true;
            held.evict.notify_one();
        }
    }
}

/// Bytes that one request or answer holds, until it is dropped.
#[derive(Debug)]
pub(in crate::front) struct Claim {
    budget: Arc<Budget>,
    id: u64,
    granted: Arc<Notify>,
    evict: Arc<Notify>,
}

impl Claim {
    /// Holds `total` bytes from now on, or more if it does already; that may mean waiting. `left` bytes are still to come
    /// after them, and those with the least go first. While it waits it is not the peer's turn. Cancelling the future gives
    /// up waiting.
    pub(in crate::front) async fn hold(&self, total: usize, left: usize) -> Result<(), ClaimError> {
        let budget = &self.budget;
        {
            let mut state = budget.locked();
            let held = state.held_mut(self.id);
            let Some(bytes) = total.checked_sub(held.bytes).filter(|bytes| *bytes > 0) else {
                return Ok(());
            };
            if total > budget.claim_bytes_max {
                return Err(ClaimError::TooLarge {
                    bytes_max: budget.claim_bytes_max,
                });
            }
            held.window = None;
            if budget.give(&mut state, self.id, bytes) {
                return Ok(());
            }
            state.waits += 1;
            state.waiting.insert((left, self.id));
            state.held_mut(self.id).wants = Some((bytes, left));
        }
        let _waiting = Waiting(self);
        loop {
            let notified = tokio::time::timeout(SEARCH, self.granted.notified()).await;
            // A notice may be one of a wait that was given up.
            if self.budget.locked().held_mut(self.id).wants.is_none() {
                return Ok(());
            }
            if notified.is_err() {
                budget.search(Instant::now());
            }
        }
    }

    /// From now on the peer is to send or take bytes, if it is not its turn already.
    pub(in crate::front) fn await_peer(&self) {
        self.with(|held| {
            held.window.get_or_insert_with(|| (Instant::now(), 0));
        });
    }

    /// The peer sent or took bytes.
    pub(in crate::front) fn moved(&self, bytes: usize) {
        self.with(|held| {
            let (since, moved) = held.window.unwrap_or_else(|| (Instant::now(), 0));
            held.window = Some((since, moved.saturating_add(bytes)));
        });
    }

    /// The peer has done its part: what is held now is the broker's to work on.
    pub(in crate::front) fn received(&self) {
        self.with(|held| held.window = None);
    }

    /// Holds no more than `total` from now on.
    pub(in crate::front) fn shrink(&self, total: usize) {
        let mut state = self.budget.locked();
        let held = state.held_mut(self.id);
        let freed = held.bytes.saturating_sub(total);
        held.bytes -= freed;
        state.held -= freed;
        self.budget.serve(&mut state);
    }

    /// Resolves when the claim is to be given up.
    pub(in crate::front) async fn evicted(&self) {
        self.evict.notified().await;
    }

    fn with(&self, change: impl FnOnce(&mut Held)) {
        change(self.budget.locked().held_mut(self.id));
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut state = self.budget.locked();
        Budget::stop_waiting(&mut state, self.id);
        let held = state.claims.remove(&self.id);
        state.held -= held.expect("a claim is dropped once").bytes;
        if state.finisher == Some(self.id) {
            state.finisher = None;
        }
        self.budget.serve(&mut state);
    }
}

/// Takes the claim off the list when whoever waited was cancelled.
struct Waiting<'a>(&'a Claim);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        Budget::stop_waiting(&mut self.0.budget.locked(), self.0.id);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::FutureExt as _;

    use super::*;

    const KEPT: usize = 100;
    const ALL: usize = 300;

    fn holds(claim: &Claim, total: usize) -> bool {
        claim.hold(total, 0).now_or_never() == Some(Ok(()))
    }

    #[tokio::test]
    async fn claims_that_hold_a_part_each_all_come_to_their_end() {
        let budget = Budget::new(ALL, KEPT);
        let tasks: Vec<_> = (0..20)
            .map(|_| {
                let budget = budget.clone();
                tokio::spawn(async move {
                    let claim = budget.claim();
                    for total in (10..=100).step_by(10) {
                        claim.hold(total, 100 - total).await.unwrap();
                        tokio::task::yield_now().await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let usage = budget.usage();
        assert!(usage.held == 0 && usage.waiting == 0, "{usage:?}");
        assert!(usage.held_most <= ALL && usage.waits > 0, "{usage:?}");
    }

    #[tokio::test]
    async fn a_claim_above_the_bound_of_one_is_refused_and_changes_nothing() {
        let budget = Budget::new(ALL, KEPT);
        let claim = budget.claim();
        assert!(holds(&claim, 60));
        let refused = claim.hold(101, 0).await;
        assert_eq!(refused, Err(ClaimError::TooLarge { bytes_max: KEPT }));
        assert_eq!(budget.usage().held, 60);
    }

    #[tokio::test]
    async fn the_one_with_the_least_to_come_goes_first() {
        let budget = Budget::new(ALL, KEPT);
        let holders: Vec<Claim> = (0..3).map(|_| budget.claim()).collect();
        for holder in &holders {
            assert!(holds(holder, 100));
        }
        let (small, large) = (budget.claim(), budget.claim());
        let mut large_waits = Box::pin(large.hold(100, 500));
        let mut small_waits = Box::pin(small.hold(100, 20));
        assert!(large_waits.as_mut().now_or_never().is_none());
        assert!(small_waits.as_mut().now_or_never().is_none());
        drop(holders);
        assert_eq!(small_waits.as_mut().now_or_never(), Some(Ok(())));
        assert_eq!(large_waits.as_mut().now_or_never(), Some(Ok(())));
    }

    #[tokio::test]
    async fn who_gives_up_waiting_is_given_nothing_and_may_ask_again() {
        let budget = Budget::new(ALL, KEPT);
        let (one, two, three) = (budget.claim(), budget.claim(), budget.claim());
        for holder in [&one, &two, &three] {
            assert!(holds(holder, 100));
        }
        let fourth = budget.claim();
        assert!(!holds(&fourth, 10));
        drop(one);
        assert_eq!(budget.usage().held, 200);
        assert!(holds(&fourth, 10) && holds(&fourth, 10));
        assert_eq!(budget.usage().held, 210);
        drop((two, three, fourth));
        assert_eq!(budget.usage().held, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_stands_still_is_evicted_once_somebody_waits() {
        let budget = Budget::new(ALL, KEPT);
        let (still, slow, brisk) = (budget.claim(), budget.claim(), budget.claim());
        for (holder, bytes) in [(&still, 90), (&slow, 100), (&brisk, 100)] {
            assert!(holds(holder, bytes));
            holder.await_peer();
        }
        tokio::time::advance(Duration::from_secs(600)).await;
        assert_eq!(budget.usage().evicted, 0, "nobody waits");
        for holder in [&slow, &brisk] {
            holder.received();
            holder.await_peer();
        }
        let waiter = budget.claim();
        let waits = waiter.hold(50, 0);
        tokio::pin!(waits);
        // Ten bytes a second turn 100 over in ten seconds, one byte in a hundred.
        let mut evicted = Vec::new();
        let peers = async {
            let (mut still, mut slow) = (Some(still), Some(slow));
            loop {
                tokio::time::sleep(Duration::from_millis(500)).await;
                brisk.moved(5);
                if let Some(claim) = &slow {
                    claim.moved(1);
                }
                for (name, claim) in [("still", &mut still), ("slow", &mut slow)] {
                    let gone = claim
                        .as_ref()
                        .is_some_and(|claim| claim.evicted().now_or_never().is_some());
                    if gone {
                        evicted.push(name);
                        *claim = None;
                    }
                }
            }
        };
        tokio::select! {
            done = &mut waits => done.unwrap(),
            () = peers => unreachable!("they never end"),
        }
        assert!(!evicted.is_empty() && budget.usage().evicted >= 1);
        assert!(
            brisk.evicted().now_or_never().is_none(),
            "its peer moves enough"
        );
    }
}
