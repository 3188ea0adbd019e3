//! Places: how many connections a listener serves at a time, and who makes room when one more comes.
//! Callers: the Kafka front and the HTTP front, one `Places` each.
//! Invariants: no more than `max` places are taken. A full house does not lock newcomers out for ever: the connection that
//! has been of no use for longest makes room, first those that never sent a request, then those that are idle, then, where
//! the patience says so, those that are busy. Nobody has to go who has not used up the patience for what it does.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
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

/// See the module.
#[derive(Debug)]
pub(in crate::front) struct Places {
    max: usize,
    patience: Patience,
    state: Mutex<State>,
    freed: Notify,
    started_at: Instant,
    made_room: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    taken: HashMap<u64, Arc<Activity>>,
    /// Those that were asked to go and have not gone yet.
    leaving: usize,
    /// When one was last asked to go.
    asked_at: Option<Instant>,
    next_id: u64,
}

/// What a connection does.
#[derive(Debug, Default)]
struct Activity {
    /// Requests that are being answered.
    busy: AtomicUsize,
    /// Requests since the connection was made.
    requests: AtomicU64,
    /// Milliseconds from the start of the house to the last change.
    since_ms: AtomicU64,
    leave: Notify,
    is_leaving: AtomicBool,
}

impl Places {
    /// So many places, all of them free.
    pub(in crate::front) fn new(max: usize, patience: Patience) -> Arc<Places> {
        Arc::new(Places {
            max: max.max(1),
            patience,
            state: Mutex::default(),
            freed: Notify::new(),
            started_at: Instant::now(),
            made_room: AtomicU64::new(0),
        })
    }

    /// Connections that had to make room for others.
    pub(in crate::front) fn made_room(&self) -> u64 {
        self.made_room.load(Relaxed)
    }

    /// Waits for a place. One caller at a time, the listener. Cancelling loses nothing.
    pub(in crate::front) async fn enter(self: &Arc<Places>) -> Place {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            let wait = {
                let mut state = self.locked();
                if state.taken.len() < self.max {
                    return self.take(&mut state);
                }
                self.make_room(&mut state)
            };
            // Whoever was asked to go is about to; otherwise somebody's patience is used up by then.
            let _ = tokio::time::timeout(wait, freed).await;
        }
    }

    fn take(self: &Arc<Places>, state: &mut State) -> Place {
        let id = state.next_id;
        state.next_id += 1;
        let activity = Arc::new(Activity::default());
        activity.since_ms.store(self.now_ms(), Relaxed);
        state.taken.insert(id, activity.clone());
        Place {
            places: self.clone(),
            id,
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
            if activity.is_leaving.load(Relaxed) {
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
        self.made_room.fetch_add(1, Relaxed);
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
        if self.activity.is_leaving.load(Relaxed) {
            state.leaving -= 1;
        }
        drop(state);
        self.places.freed.notify_one();
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

#[cfg(test)]
mod tests {
    use futures_util::future::FutureExt as _;

    use super::*;

    const PATIENCE: Patience = Patience {
        silent: Duration::from_secs(1),
        idle: Duration::from_secs(10),
        busy: None,
    };

    fn goes(place: &Place) -> bool {
        place.leave().now_or_never().is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_connection_makes_room_before_an_idle_one_and_a_busy_one_never_does() {
        let places = Places::new(3, PATIENCE);
        let (busy, idle, silent) = (
            places.enter().await,
            places.enter().await,
            places.enter().await,
        );
        let request = busy.busy();
        drop(idle.busy());
        tokio::time::advance(Duration::from_secs(100)).await;
        let enter = places.enter();
        tokio::pin!(enter);
        assert!(enter.as_mut().now_or_never().is_none());
        assert!(goes(&silent) && !goes(&idle) && !goes(&busy));
        drop(silent);
        let second = enter.await;
        let _second_request = second.busy();
        let enter = places.enter();
        tokio::pin!(enter);
        assert!(enter.as_mut().now_or_never().is_none());
        assert!(goes(&idle) && !goes(&second) && !goes(&busy));
        drop(idle);
        let third = enter.await;
        let _third_request = third.busy();
        assert_eq!(places.made_room(), 2);
        tokio::time::advance(Duration::from_secs(100)).await;
        let enter = places.enter();
        tokio::pin!(enter);
        assert!(enter.as_mut().now_or_never().is_none());
        assert!(!goes(&busy) && !goes(&second) && !goes(&third));
        drop(request);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_makes_room_before_its_patience_is_used_up() {
        let places = Places::new(1, PATIENCE);
        let idle = places.enter().await;
        drop(idle.busy());
        let started_at = Instant::now();
        let enter = places.enter();
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
        let places = Places::new(1, Patience { busy, ..PATIENCE });
        let place = places.enter().await;
        let _request = place.busy();
        let enter = places.enter();
        tokio::pin!(enter);
        tokio::select! {
            _ = &mut enter => panic!("the only place is taken"),
            () = place.leave() => {}
        }
    }
}
