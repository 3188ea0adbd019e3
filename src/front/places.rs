//! Places: how many connections a listener serves at a time, and who makes room when one more comes.
//! Callers: each front's listener and connections, one `Places` for each front.
//! Invariants: no more than [`Limits::connections_max`] places are given away, and no more than [`Limits::per_address_max`] of
//! them to one address; both may change at any time, and then those beyond the first make room, as far as their patience is
//! used up. A full house does not lock newcomers out for ever: the connection that
//! has been of no use for longest makes room, first those that never sent a request, then those that are idle, then, where
//! the patience says so, those that are busy. Nobody has to go who has not used up the patience for what it does.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

/// How long connections may stay as they are while others wait for a place.
#[derive(Debug, Clone, Copy)]
pub(in crate::front) struct Patience {
    /// Without ever having sent a request.
    pub(in crate::front) silent: Duration,
    /// Since the end of its last request.
    pub(in crate::front) idle: Duration,
    /// With a request that is being answered; None for as long as it takes.
    pub(in crate::front) busy: Option<Duration>,
}

/// How many connections there may be at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// In all; 1 or more.
    pub connections_max: usize,
    /// From one address.
    pub per_address_max: usize,
}

/// What a listener counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::front) struct Counts {
    /// Connections at a time at most.
    pub(in crate::front) open_max: usize,
    /// Connections that are open.
    pub(in crate::front) open: usize,
    /// Connections accepted since the start, those without a place yet included.
    pub(in crate::front) accepted: u64,
    /// Connections that were closed at once because their address had too many.
    pub(in crate::front) refused: u64,
    /// Connections that had to make room for others.
    pub(in crate::front) made_room: u64,
}

/// For how long an address is to wait that makes more connections than it may; none if it need not.
pub(in crate::front) type AskRate = Box<dyn Fn(IpAddr) -> Option<Duration> + Send + Sync>;

/// What bounds how fast connections are made.
struct Rate(AskRate);

impl std::fmt::Debug for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rate")
    }
}

/// Connections that are kept open for as long as their addresses have to wait, at most; further ones are closed at once.
const HELD_MAX: usize = 256;

/// The places of one listener.
#[derive(Debug)]
pub struct Places {
    patience: Patience,
    /// What bounds how fast connections are made.
    rate: OnceLock<Rate>,
    /// Places of connections that are held and then closed.
    held: Arc<Semaphore>,
    state: Mutex<State>,
    /// A place was freed, or the limits have changed.
    moved: Notify,
    started_at: Instant,
}

#[derive(Debug)]
struct State {
    limits: Limits,
    taken: HashMap<u64, Arc<Activity>>,
    /// How many of the taken ones each address has.
    of_address: HashMap<IpAddr, usize>,
    /// Those that were asked to go and have not gone yet.
    leaving: usize,
    /// When one was last asked to go.
    asked_at: Option<Instant>,
    next_id: u64,
    accepted: u64,
    refused: u64,
    made_room: u64,
}

impl State {
    fn has_room(&self) -> bool {
        self.taken.len() < self.limits.connections_max.max(1)
    }

    fn is_over(&self) -> bool {
        self.taken.len() > self.limits.connections_max.max(1)
    }
}

/// What a connection does.
#[derive(Debug, Default)]
struct Activity {
    /// Requests that are being answered.
    busy: AtomicU32,
    /// Those of them that nobody may ask to make room.
    staying: AtomicU32,
    /// Requests since the connection was made.
    requests: AtomicU64,
    /// Milliseconds from the start of the house to the last change.
    since_ms: AtomicU64,
    leave: Notify,
    is_leaving: AtomicBool,
}

impl Places {
    /// So many places, all of them free.
    pub(in crate::front) fn new(limits: Limits, patience: Patience) -> Arc<Places> {
        let state = State {
            limits,
            taken: HashMap::new(),
            of_address: HashMap::new(),
            leaving: 0,
            asked_at: None,
            next_id: 0,
            accepted: 0,
            refused: 0,
            made_room: 0,
        };
        Arc::new(Places {
            patience,
            rate: OnceLock::new(),
            held: Arc::new(Semaphore::new(HELD_MAX)),
            state: Mutex::new(state),
            moved: Notify::new(),
            started_at: Instant::now(),
        })
    }

    /// What was counted since the start.
    pub(in crate::front) fn counts(&self) -> Counts {
        let state = self.locked();
        Counts {
            open_max: state.limits.connections_max,
            open: state.taken.len(),
            accepted: state.accepted,
            refused: state.refused,
            made_room: state.made_room,
        }
    }

    /// From now on these are the limits. Connections beyond the whole number are asked to go as soon as their patience is
    /// used up; of an address that has too many none is, but it gets no further one.
    pub fn limit(&self, limits: Limits) {
        self.locked().limits = limits;
        self.moved.notify_waiters();
    }

    /// Bounds how fast connections are made. Once, before the first comes.
    pub(in crate::front) fn set_rate(&self, rate: AskRate) {
        assert!(self.rate.set(Rate(rate)).is_ok(), "the rate is set once");
    }

    /// The connection, unless it is more than its address may make now: then it is held as long as the address has to wait, and
    /// closed, as by Kafka, so that a client that comes again and again does so no faster than it may.
    pub(in crate::front) fn within_rate<T: Send + 'static>(
        &self,
        address: IpAddr,
        connection: T,
    ) -> Option<T> {
        let Some(wait) = self.rate.get().and_then(|rate| (rate.0)(address)) else {
            return Some(connection);
        };
        if let Ok(place) = Arc::clone(&self.held).try_acquire_owned() {
            tokio::spawn(async move {
                tokio::time::sleep(wait).await;
                drop((connection, place));
            });
        }
        None
    }

    /// Counts a connection that came; false if its address has too many, so that it is to be closed.
    pub(in crate::front) fn accept(&self, address: IpAddr) -> bool {
        let mut state = self.locked();
        state.accepted += 1;
        let others = state.of_address.get(&address.to_canonical());
        let fits = others.is_none_or(|count| *count < state.limits.per_address_max);
        if !fits {
            state.refused += 1;
        }
        fits
    }

    /// Waits for a place for a connection from this address. One caller at a time, the listener. Cancelling loses nothing.
    pub(in crate::front) async fn enter(self: &Arc<Places>, address: Option<IpAddr>) -> Place {
        loop {
            let moved = self.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            let wait = {
                let mut state = self.locked();
                if state.has_room() {
                    return self.take(&mut state, address);
                }
                self.make_room(&mut state)
            };
            // Whoever was asked to go is about to; otherwise somebody's patience is used up by then.
            let _ = tokio::time::timeout(wait, moved).await;
        }
    }

    /// Makes room while more places are taken than there are, for ever. Cancelling loses nothing.
    pub(in crate::front) async fn shed(&self) -> Infallible {
        loop {
            let moved = self.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            let wait = {
                let mut state = self.locked();
                state.is_over().then(|| self.make_room(&mut state))
            };
            match wait {
                Some(wait) => drop(tokio::time::timeout(wait, moved).await),
                None => moved.await,
            }
        }
    }

    fn take(self: &Arc<Places>, state: &mut State, address: Option<IpAddr>) -> Place {
        let id = state.next_id;
        state.next_id += 1;
        let activity = Arc::new(Activity::default());
        activity.since_ms.store(self.now_ms(), Relaxed);
        state.taken.insert(id, activity.clone());
        let address = address.map(|address| address.to_canonical());
        if let Some(address) = address {
            *state.of_address.entry(address).or_default() += 1;
        }
        Place {
            places: self.clone(),
            id,
            address,
            activity,
        }
    }

    /// Asks one to go, if nobody is about to; else says how long to wait until one may be asked.
    fn make_room(&self, state: &mut State) -> Duration {
        const LOOK_AGAIN: Duration = Duration::from_secs(1);
        let asked_now = |at: Instant| at.elapsed() < LOOK_AGAIN;
        if state.leaving > 0 && state.asked_at.is_some_and(asked_now) {
            return LOOK_AGAIN;
        }
        let now_ms = self.now_ms();
        let mut first: Option<(u8, u64, &Arc<Activity>)> = None;
        let mut wait = LOOK_AGAIN;
        for activity in state.taken.values() {
            if activity.is_leaving.load(Relaxed) || activity.staying.load(Relaxed) > 0 {
                continue;
            }
            let (rank, patience) =
                match (activity.busy.load(Relaxed), activity.requests.load(Relaxed)) {
                    (0, 0) => (0, Some(self.patience.silent)),
                    (0, _) => (1, Some(self.patience.idle)),
                    _ => (2, self.patience.busy),
                };
            let Some(patience) = patience else { continue };
            let since_ms = activity.since_ms.load(Relaxed);
            let stayed = Duration::from_millis(now_ms.saturating_sub(since_ms));
            match patience.checked_sub(stayed) {
                None | Some(Duration::ZERO) => {
                    if first.is_none_or(|(best, since, _)| (rank, since_ms) < (best, since)) {
                        first = Some((rank, since_ms, activity));
                    }
                }
                Some(left) => wait = wait.min(left),
            }
        }
        let Some((_, _, activity)) = first else {
            return wait;
        };
        activity.is_leaving.store(true, Relaxed);
        activity.leave.notify_one();
        state.leaving += 1;
        state.asked_at = Some(Instant::now());
        state.made_room += 1;
        LOOK_AGAIN
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started_at.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("nothing panics while it holds the places")
    }
}

/// A connection's place, until it is dropped.
#[derive(Debug)]
pub(in crate::front) struct Place {
    places: Arc<Places>,
    id: u64,
    address: Option<IpAddr>,
    activity: Arc<Activity>,
}

impl Place {
    /// A request begins; it is being answered until the guard is dropped.
    pub(in crate::front) fn busy(&self) -> Busy {
        self.activity.busy.fetch_add(1, Relaxed);
        self.activity.requests.fetch_add(1, Relaxed);
        self.touch();
        Busy {
            places: self.places.clone(),
            activity: self.activity.clone(),
        }
    }

    /// From now on the connection makes no room for others, until the guard is dropped. Whoever takes such guards bounds them
    /// well below the number of places.
    pub(in crate::front) fn stay(&self) -> Stay {
        // Nobody looks meanwhile who is to go: from here on it either was asked already, or never is.
        let _looks = self.places.locked();
        self.activity.staying.fetch_add(1, Relaxed);
        Stay(self.activity.clone())
    }

    /// Whether a request is being answered.
    pub(in crate::front) fn is_busy(&self) -> bool {
        self.activity.busy.load(Relaxed) > 0
    }

    /// How long it has been doing what it does.
    pub(in crate::front) fn unchanged_for(&self) -> Duration {
        let since_ms = self.activity.since_ms.load(Relaxed);
        Duration::from_millis(self.places.now_ms().saturating_sub(since_ms))
    }

    /// Resolves when the connection is to make room.
    pub(in crate::front) async fn leave(&self) {
        self.activity.leave.notified().await;
    }

    fn touch(&self) {
        let now_ms = self.places.now_ms();
        self.activity.since_ms.store(now_ms, Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.places.locked();
        state.taken.remove(&self.id);
        if let Some(address) = self.address
            && let Some(count) = state.of_address.get_mut(&address)
        {
            *count -= 1;
            if *count == 0 {
                state.of_address.remove(&address);
            }
        }
        if self.activity.is_leaving.load(Relaxed) {
            state.leaving -= 1;
        }
        drop(state);
        self.places.moved.notify_waiters();
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(in crate::front) struct Busy {
    places: Arc<Places>,
    activity: Arc<Activity>,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.activity.busy.fetch_sub(1, Relaxed);
        let now_ms = self.places.now_ms();
        self.activity.since_ms.store(now_ms, Relaxed);
    }
}

/// A connection that makes no room.
#[derive(Debug)]
pub(in crate::front) struct Stay(Arc<Activity>);

impl Drop for Stay {
    fn drop(&mut self) {
        self.0.staying.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::FutureExt as _;

    use super::*;

    const PATIENCE: Patience = Patience {
        silent: Duration::from_secs(1),
        idle: Duration::from_secs(10),
        busy: None,
    };

    fn at_most(connections_max: usize) -> Limits {
        Limits {
            connections_max,
            per_address_max: usize::MAX,
        }
    }

    fn goes(place: &Place) -> bool {
        place.leave().now_or_never().is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_connection_makes_room_before_an_idle_one_and_a_busy_one_never_does() {
        let places = Places::new(at_most(3), PATIENCE);
        let (busy, idle, silent) = (
            places.enter(None).await,
            places.enter(None).await,
            places.enter(None).await,
        );
        let request = busy.busy();
        drop(idle.busy());
        tokio::time::advance(Duration::from_secs(100)).await;
        let enter = places.enter(None);
        tokio::pin!(enter);
        assert!(enter.as_mut().now_or_never().is_none());
        assert!(goes(&silent) && !goes(&idle) && !goes(&busy));
        drop(silent);
        let second = enter.await;
        let _second_request = second.busy();
        let enter = places.enter(None);
        tokio::pin!(enter);
        assert!(enter.as_mut().now_or_never().is_none());
        assert!(goes(&idle) && !goes(&second) && !goes(&busy));
        drop(idle);
        let third = enter.await;
        let _third_request = third.busy();
        assert_eq!(places.counts().made_room, 2);
        tokio::time::advance(Duration::from_secs(100)).await;
        let enter = places.enter(None);
        tokio::pin!(enter);
        assert!(enter.as_mut().now_or_never().is_none());
        assert!(!goes(&busy) && !goes(&second) && !goes(&third));
        drop(request);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_makes_room_before_its_patience_is_used_up() {
        let places = Places::new(at_most(1), PATIENCE);
        let idle = places.enter(None).await;
        drop(idle.busy());
        let started_at = Instant::now();
        let enter = places.enter(None);
        tokio::pin!(enter);
        tokio::select! {
            _ = &mut enter => panic!("the only place is taken"),
            () = idle.leave() => {}
        }
        assert!(started_at.elapsed() >= PATIENCE.idle);
        assert!(started_at.elapsed() < PATIENCE.idle + Duration::from_secs(2));
        drop(idle);
        enter.await;
    }

    #[tokio::test(start_paused = true)]
    async fn where_the_patience_ends_a_busy_one_makes_room_too() {
        let busy = Some(Duration::from_secs(5));
        let places = Places::new(at_most(1), Patience { busy, ..PATIENCE });
        let place = places.enter(None).await;
        let _request = place.busy();
        let enter = places.enter(None);
        tokio::pin!(enter);
        tokio::select! {
            _ = &mut enter => panic!("the only place is taken"),
            () = place.leave() => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_stays_makes_no_room_until_it_has_done_so() {
        let busy = Some(Duration::from_secs(5));
        let places = Places::new(at_most(1), Patience { busy, ..PATIENCE });
        let place = places.enter(None).await;
        let (request, stay) = (place.busy(), place.stay());
        tokio::time::advance(Duration::from_secs(100)).await;
        let enter = places.enter(None);
        tokio::pin!(enter);
        assert!(enter.as_mut().now_or_never().is_none());
        assert!(!goes(&place));
        drop((request, stay));
        tokio::select! {
            _ = &mut enter => panic!("the only place is taken"),
            () = place.leave() => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_gets_no_more_than_its_share_and_others_still_come_in() {
        let mut limits = at_most(9);
        limits.per_address_max = 2;
        let places = Places::new(limits, PATIENCE);
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        let one = address("10.0.0.1");
        // The same host, as a socket for both families shows it.
        let mapped = address("::ffff:10.0.0.1");
        assert!(places.accept(one));
        let first = places.enter(Some(one)).await;
        assert!(places.accept(mapped));
        let _second = places.enter(Some(mapped)).await;
        assert!(!places.accept(one), "a third one");
        assert!(places.accept(address("10.0.0.2")));
        drop(first);
        assert!(places.accept(one), "one has gone");
        limits.per_address_max = 1;
        places.limit(limits);
        assert!(!places.accept(one), "the limit was lowered");
        let counts = places.counts();
        assert_eq!((counts.accepted, counts.refused, counts.open), (6, 2, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn lowered_limits_close_what_is_idle_until_they_hold_and_nothing_that_is_busy() {
        let places = Places::new(at_most(4), PATIENCE);
        let mut all = Vec::new();
        for _ in 0..4 {
            all.push(places.enter(None).await);
        }
        let _request = all[0].busy();
        let listener = tokio::spawn({
            let places = places.clone();
            async move { match places.shed().await {} }
        });
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(places.counts().made_room, 0, "there are places for all");
        places.limit(at_most(1));
        let busy = all.remove(0);
        for place in all {
            place.leave().await;
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(!goes(&busy));
        let counts = places.counts();
        assert_eq!((counts.open, counts.made_room), (1, 3));
        listener.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn raised_limits_let_in_who_waits() {
        let places = Places::new(at_most(1), PATIENCE);
        let first = places.enter(None).await;
        let _request = first.busy();
        let second = places.enter(None);
        tokio::pin!(second);
        assert!(second.as_mut().now_or_never().is_none());
        places.limit(at_most(2));
        let _second = second.now_or_never().expect("there is a place");
    }
}
