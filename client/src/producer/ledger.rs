//! The outcome (delivery report) of every batch that is queued or in-flight, and what `flush` reports of it.
//!
//! Callers: the queues open a batch's fate, the sender decides it, `flush` waits for all and yields the first failure.
//! Invariant: a failure is recorded for everybody who may ask for it under the lock that closes the batch's fate. Whoever
//! sees that a batch is no longer open therefore sees its failure as well, in every order of threads.
//!
//! `tests/it/ledger.rs` compiles this file a second time, against loom's lock, and explores those orders. So it takes its
//! lock, the outcome and the error from its parent module.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use model::TopicPartition;
use tokio::sync::Notify;

use super::sync::{Mutex, MutexGuard};
use super::{Acked, Error};

/// What became of a batch.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The same for all its records.
    Whole(Result<Acked, Error>),
    /// It was split before its record number `at`: each part has an outcome of its own.
    Split { at: u32, parts: [Arc<Fate>; 2] },
}

/// What becomes of a batch. Shared by all its records.
#[derive(Debug)]
pub struct Fate {
    /// Where the batch goes.
    pub partition: TopicPartition,
    /// Its place among all batches of the producer. The parts of a batch have its mark.
    mark: u64,
    outcome: Mutex<Option<Outcome>>,
    decided: Notify,
}

impl Fate {
    /// The outcome, if there is one yet.
    pub fn outcome(&self) -> Option<Outcome> {
        lock(&self.outcome).clone()
    }

    /// Waits for the outcome.
    pub async fn wait(&self) -> Outcome {
        loop {
            let decided = self.decided.notified();
            if let Some(outcome) = self.outcome() {
                return outcome;
            }
            decided.await;
        }
    }
}

/// Who is told of failures: a handle of the producer, or a flush under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Watcher(u64);

/// The failures that a watcher was not told of yet: the oldest and the youngest, which is enough to know whether a failure
/// before, and one after, any mark is among them.
#[derive(Debug, Default)]
struct Failures {
    oldest: Option<(u64, Error)>,
    youngest: Option<(u64, Error)>,
}

impl Failures {
    fn add(&mut self, mark: u64, error: &Error) {
        if self
            .oldest
            .as_ref()
            .is_none_or(|(oldest, _)| mark < *oldest)
        {
            self.oldest = Some((mark, error.clone()));
        }
        if self
            .youngest
            .as_ref()
            .is_none_or(|(youngest, _)| mark > *youngest)
        {
            self.youngest = Some((mark, error.clone()));
        }
    }

    /// The oldest failure below `mark`. Those from `mark` on are kept.
    fn take_below(&mut self, mark: u64) -> Option<Error> {
        let (_, error) = self.oldest.take_if(|(oldest, _)| *oldest < mark)?;
        match &self.youngest {
            Some((youngest, _)) if *youngest >= mark => self.oldest = self.youngest.clone(),
            _ => self.youngest = None,
        }
        Some(error)
    }
}

/// All batches of a producer whose outcome is open, and the failures that were not reported yet.
#[derive(Debug, Default)]
pub struct Ledger {
    state: Mutex<State>,
    /// A batch was closed.
    closed: Notify,
}

#[derive(Debug, Default)]
struct State {
    next_mark: u64,
    open: BTreeMap<u64, Vec<Arc<Fate>>>,
    next_watcher: u64,
    watchers: BTreeMap<Watcher, Failures>,
}

impl State {
    /// False if it was closed before.
    fn close(&mut self, fate: &Arc<Fate>) -> bool {
        let Some(open) = self.open.get_mut(&fate.mark) else {
            return false;
        };
        let Some(place) = open.iter().position(|other| Arc::ptr_eq(other, fate)) else {
            return false;
        };
        open.swap_remove(place);
        if open.is_empty() {
            self.open.remove(&fate.mark);
        }
        true
    }

    fn open(&mut self, partition: TopicPartition, mark: u64) -> Arc<Fate> {
        let fate = Arc::new(Fate {
            partition,
            mark,
            outcome: Mutex::new(None),
            decided: Notify::new(),
        });
        self.open.entry(mark).or_default().push(fate.clone());
        fate
    }

    fn decide(&mut self, fate: &Arc<Fate>, outcome: Result<Acked, Error>) -> bool {
        if !self.close(fate) {
            return false;
        }
        if let Err(error) = &outcome {
            for failures in self.watchers.values_mut() {
                failures.add(fate.mark, error);
            }
        }
        *lock(&fate.outcome) = Some(Outcome::Whole(outcome));
        true
    }
}

impl State {
    /// The end of a flush of everything below `mark`, if it has come: the oldest failure that any of the watchers knows.
    fn flushed(&mut self, mark: u64, watchers: [Watcher; 2]) -> Option<Result<(), Error>> {
        if self.open.keys().next().is_some_and(|first| *first < mark) {
            return None;
        }
        let known = watchers.map(|watcher| self.watchers.get_mut(&watcher)?.take_below(mark));
        let first = known.into_iter().flatten().next();
        Some(first.map_or(Ok(()), Err))
    }
}

impl Ledger {
    /// The fate of a new batch.
    pub fn open(&self, partition: TopicPartition) -> Arc<Fate> {
        let mut state = lock(&self.state);
        let mark = state.next_mark;
        state.next_mark += 1;
        state.open(partition, mark)
    }

    /// Decides a batch. The first decision stands: false if this is not the first.
    pub fn decide(&self, fate: &Arc<Fate>, outcome: Result<Acked, Error>) -> bool {
        let is_first = lock(&self.state).decide(fate, outcome);
        if is_first {
            fate.decided.notify_waiters();
            self.closed.notify_waiters();
        }
        is_first
    }

    /// Puts two parts in the place of a batch; None if it is decided. Who waits for the batch waits for both.
    pub fn split(&self, fate: &Arc<Fate>, at: u32) -> Option<[Arc<Fate>; 2]> {
        let mut state = lock(&self.state);
        if !state.close(fate) {
            return None;
        }
        let parts = [(); 2].map(|()| state.open(fate.partition.clone(), fate.mark));
        *lock(&fate.outcome) = Some(Outcome::Split {
            at,
            parts: parts.clone(),
        });
        drop(state);
        fate.decided.notify_waiters();
        Some(parts)
    }

    /// Decides all that is open: nothing more will be delivered.
    pub fn decide_all(&self, error: &Error) {
        let mut state = lock(&self.state);
        let open: Vec<Arc<Fate>> = state.open.values().flatten().cloned().collect();
        for fate in &open {
            state.decide(fate, Err(error.clone()));
        }
        drop(state);
        open.iter().for_each(|fate| fate.decided.notify_waiters());
        self.closed.notify_waiters();
    }

    /// From now on failures are kept for the new watcher, until it forgets them with [`Ledger::unwatch`].
    pub fn watch(&self) -> Watcher {
        let mut state = lock(&self.state);
        let watcher = Watcher(state.next_watcher);
        state.next_watcher += 1;
        state.watchers.insert(watcher, Failures::default());
        watcher
    }

    /// Ends a watch.
    pub fn unwatch(&self, watcher: Watcher) {
        lock(&self.state).watchers.remove(&watcher);
    }

    /// The oldest failure that the watcher was not told of. It stays to be told.
    pub fn failure(&self, watcher: Watcher) -> Option<Error> {
        let state = lock(&self.state);
        let (_, error) = state.watchers.get(&watcher)?.oldest.as_ref()?;
        Some(error.clone())
    }

    /// Waits for the outcome of every batch that is open now, and yields the oldest failure of any batch until now that
    /// `watcher` was not told of. Callers at the same time are each told of what fails while they wait.
    pub async fn flush(&self, watcher: Watcher) -> Result<(), Error> {
        let own = Own {
            ledger: self,
            watcher: self.watch(),
        };
        let mark = lock(&self.state).next_mark;
        loop {
            let closed = self.closed.notified();
            if let Some(result) = lock(&self.state).flushed(mark, [watcher, own.watcher]) {
                return result;
            }
            closed.await;
        }
    }
}

/// A flush's own watch, which ends with it, however it ends.
struct Own<'a> {
    ledger: &'a Ledger,
    watcher: Watcher,
}

impl Drop for Own<'_> {
    fn drop(&mut self) {
        self.ledger.unwatch(self.watcher);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
