//! Changes of topics: each is planned and appended in its turn, and becomes durable together with others.
//! Callers: `topics` and `configs`.
//!
//! Invariants: a plan is made of what is in force. Changes that are under way touch different things: one that touches what
//! another touches waits in its turn until that has ended, and one that concerns everything waits for all. Otherwise nothing
//! waits for a sync in its turn, so that one sync is shared by all that were appended meanwhile. No two plans count on the
//! same room for partitions.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard};

use model::{TopicId, TopicName};
use tokio::sync::Notify;

/// What a change concerns beside itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Touched {
    /// A topic that exists.
    Topic(TopicId),
    /// A name that begins or ends.
    Name(TopicName),
    /// What a name has in common with those that it collides with.
    Alike(String),
}

impl Touched {
    /// A name, and all that could collide with it.
    pub(super) fn by_name(name: &TopicName) -> impl Iterator<Item = Touched> {
        let alike = name.collision_key().map(Touched::Alike);
        std::iter::once(Touched::Name(name.clone())).chain(alike)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Changes {
    turn: tokio::sync::Mutex<()>,
    under_way: Mutex<UnderWay>,
    /// A change has ended. Whoever has the turn may wait for it, and nobody else.
    ended: Notify,
}

/// The changes that are appended and not yet in force.
#[derive(Debug, Default)]
struct UnderWay {
    count: usize,
    touched: HashSet<Touched>,
    /// Partitions that they add.
    partitions: u64,
}

/// The turn to plan and to append.
pub(super) struct Turn<'a> {
    changes: &'a Changes,
    touched: Vec<Touched>,
    _guard: tokio::sync::MutexGuard<'a, ()>,
}

/// A change that is appended and not yet in force. It must be ended.
#[must_use = "what it touches is kept from others until it has ended"]
#[derive(Debug)]
pub(super) struct Begun {
    touched: Vec<Touched>,
    partitions: u64,
}

impl Changes {
    /// Waits for the turn, and in it until nothing is under way that touches any of these.
    pub(super) async fn turn(&self, touched: impl IntoIterator<Item = Touched>) -> Turn<'_> {
        // One request may name something twice; that is for its plan to refuse.
        let touched: HashSet<Touched> = touched.into_iter().collect();
        let guard = self.turn.lock().await;
        while !self.lock().touched.is_disjoint(&touched) {
            self.ended.notified().await;
        }
        Turn {
            changes: self,
            touched: touched.into_iter().collect(),
            _guard: guard,
        }
    }

    /// Waits for the turn, and in it until nothing is under way. Nothing begins while it is held.
    pub(super) async fn alone(&self) -> Turn<'_> {
        let guard = self.turn.lock().await;
        while self.lock().count > 0 {
            self.ended.notified().await;
        }
        Turn {
            changes: self,
            touched: Vec::new(),
            _guard: guard,
        }
    }

    /// What `partitions` counts of those in force, and with them those that are under way, at one moment.
    pub(super) fn partitions(&self, in_force: impl FnOnce() -> u64) -> u64 {
        let under_way = self.lock();
        in_force().saturating_add(under_way.partitions)
    }

    /// Ends a change: what `put_in_force` does is seen at once with what was under way for it being gone.
    pub(super) fn end<T>(&self, begun: Begun, put_in_force: impl FnOnce() -> T) -> T {
        let mut under_way = self.lock();
        let result = put_in_force();
        for touched in &begun.touched {
            assert!(under_way.touched.remove(touched), "it was touched by this");
        }
        assert!(
            under_way.count > 0 && under_way.partitions >= begun.partitions,
            "it was counted when it began"
        );
        under_way.count -= 1;
        under_way.partitions -= begun.partitions;
        drop(under_way);
        self.ended.notify_one();
        result
    }

    /// How many are appended and not yet in force.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.lock().count
    }

    fn lock(&self) -> MutexGuard<'_, UnderWay> {
        self.under_way
            .lock()
            .expect("no change panics while it is put in force")
    }
}

impl Turn<'_> {
    /// The records are appended: others have their turn. They add so many partitions.
    pub(super) fn begin(self, partitions: u64) -> Begun {
        let mut under_way = self.changes.lock();
        for touched in &self.touched {
            let is_new = under_way.touched.insert(touched.clone());
            assert!(is_new, "whoever has the turn has waited for the others");
        }
        under_way.count += 1;
        under_way.partitions += partitions;
        Begun {
            touched: self.touched,
            partitions,
        }
    }
}

#[cfg(test)]
mod tests;
