//! Changes of topics: each is planned and appended in its turn, and becomes durable together with others.
//! Callers: `topics` and `configs`.
//!
//! Invariants: a plan is made of what is in force. Changes that are under way touch different things: one that touches what
//! another touches waits in its turn until that has ended, and one that concerns everything waits for all. Otherwise nothing
//! waits for a sync in its turn, so that one sync is shared by all that were appended meanwhile. No two plans count on the
//! same room for partitions.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard};

use model::{TopicId, TopicName};
use tokio::sync::Notify;

use super::access::Owner;
use super::catalog::Owned;

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
    /// And to whose accounts.
    owned: HashMap<Owner, Owned>,
}

/// What a change adds to what there is.
#[derive(Debug, Default)]
pub(super) struct Added {
    /// Partitions.
    pub(super) partitions: u64,
    /// What of it is on somebody's account.
    pub(super) owned: Vec<(Owner, Owned)>,
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
    added: Added,
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

    /// What `in_force` says that a principal has, and with it what is under way, at one moment.
    pub(super) fn owned(&self, owner: &Owner, in_force: impl FnOnce() -> Owned) -> Owned {
        let under_way = self.lock();
        let coming = under_way.owned.get(owner).copied().unwrap_or_default();
        in_force().plus(coming)
    }

    /// Ends a change: what `put_in_force` does is seen at once with what was under way for it being gone.
    pub(super) fn end<T>(&self, begun: Begun, put_in_force: impl FnOnce() -> T) -> T {
        let mut under_way = self.lock();
        let result = put_in_force();
        for touched in &begun.touched {
            assert!(under_way.touched.remove(touched), "it was touched by this");
        }
        assert!(
            under_way.count > 0 && under_way.partitions >= begun.added.partitions,
            "it was counted when it began"
        );
        under_way.count -= 1;
        under_way.partitions -= begun.added.partitions;
        for (owner, added) in begun.added.owned {
            let left = under_way.owned.entry(owner.clone()).or_default();
            *left = left.beyond(added);
            if *left == Owned::default() {
                under_way.owned.remove(&owner);
            }
        }
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
    /// The records are appended: others have their turn.
    pub(super) fn begin(self, added: Added) -> Begun {
        let mut under_way = self.changes.lock();
        for touched in &self.touched {
            let is_new = under_way.touched.insert(touched.clone());
            assert!(is_new, "whoever has the turn has waited for the others");
        }
        under_way.count += 1;
        under_way.partitions += added.partitions;
        for (owner, more) in &added.owned {
            let coming = under_way.owned.entry(owner.clone()).or_default();
            *coming = coming.plus(*more);
        }
        drop(under_way);
        Begun {
            touched: self.touched,
            added,
        }
    }
}

#[cfg(test)]
mod tests;
