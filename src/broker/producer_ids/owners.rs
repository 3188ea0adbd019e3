//! Whose producer ids are: a block of ids is one principal's, or nobody's.
//! Callers: the block's machine, which gives blocks away; the store, which asks for each producer that it comes to remember, and for all
//! that it remembers whenever it looks at all of them; `produce`, for batches of producers that a partition does not know.
//! Invariants: what stands here is durable, or on its way in the step that put it here. A block is forgotten when nobody has asked for
//! an id of it for a day: then no partition remembers one, and what is left of it was not used.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use model::{ProducerId, Timestamp};
use storage::{Clock, ProducerAccounts};

use super::block::BLOCK;
use crate::broker::access::Owner;

/// A block is kept for so long after somebody has asked for an id of it.
const KEPT_MS: i64 = 24 * 3600 * 1000;
/// Blocks of one principal at most: so many ids may be in use, or were given away for nothing within a day.
pub(super) const BLOCKS_OF_ONE_MAX: usize = 1_000;
/// Blocks that are forgotten at once.
pub(super) const FORGOTTEN_MAX: usize = 100;

/// See the module.
pub(in crate::broker) struct Owners {
    clock: Arc<dyn Clock>,
    blocks: RwLock<Blocks>,
}

#[derive(Default)]
struct Blocks {
    /// By their first ids.
    all: BTreeMap<i64, Block>,
    /// How many each has.
    of_one: HashMap<Owner, usize>,
}

struct Block {
    owner: Owner,
    /// When somebody last asked for an id of it.
    asked_at: AtomicI64,
}

impl Owners {
    /// With the blocks that the log says.
    pub(in crate::broker) fn new(
        clock: Arc<dyn Clock>,
        blocks: impl IntoIterator<Item = (i64, Owner)>,
    ) -> Owners {
        let owners = Owners {
            clock,
            blocks: RwLock::default(),
        };
        for (begin, owner) in blocks {
            owners.put(begin, owner);
        }
        owners
    }

    // A change is whole when it may panic: what a panic elsewhere has left can be used.
    fn read(&self) -> RwLockReadGuard<'_, Blocks> {
        self.blocks.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Blocks> {
        self.blocks.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> i64 {
        self.clock.now().millis()
    }

    /// Gives a block to somebody.
    pub(super) fn put(&self, begin: i64, owner: Owner) {
        let asked_at = AtomicI64::new(self.now());
        let mut blocks = self.write();
        *blocks.of_one.entry(Arc::clone(&owner)).or_default() += 1;
        let before = blocks.all.insert(begin, Block { owner, asked_at });
        assert!(before.is_none(), "a block is given away once");
    }

    /// Takes a block away; whose it was.
    pub(super) fn take(&self, begin: i64) -> Option<Owner> {
        let mut blocks = self.write();
        let Block { owner, .. } = blocks.all.remove(&begin)?;
        if let Some(count) = blocks.of_one.get_mut(&owner) {
            *count -= 1;
            if *count == 0 {
                blocks.of_one.remove(&owner);
            }
        }
        Some(owner)
    }

    /// How many blocks somebody has.
    pub(super) fn count_of(&self, owner: &Owner) -> usize {
        self.read().of_one.get(owner).copied().unwrap_or(0)
    }

    /// Blocks that may be forgotten, the first of them.
    pub(super) fn unused(&self) -> Vec<i64> {
        let oldest = Timestamp::from_millis(self.now()).plus_millis(-KEPT_MS);
        let blocks = self.read();
        let is_unused =
            |(_, block): &(&i64, &Block)| block.asked_at.load(Relaxed) < oldest.millis();
        let unused = blocks.all.iter().filter(is_unused);
        unused
            .map(|(begin, _)| *begin)
            .take(FORGOTTEN_MAX)
            .collect()
    }

    /// Whether an id was given to this principal.
    pub(in crate::broker) fn is_of(&self, id: ProducerId, principal: &str) -> bool {
        self.account_of(id)
            .is_some_and(|owner| *owner == *principal)
    }
}

impl ProducerAccounts for Owners {
    fn account_of(&self, id: ProducerId) -> Option<Arc<str>> {
        let blocks = self.read();
        let (begin, block) = blocks.all.range(..=id.get()).next_back()?;
        let is_in = id.get() - *begin < BLOCK;
        is_in.then(|| {
            block.asked_at.store(self.now(), Relaxed);
            Arc::clone(&block.owner)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use storage::ManualClock;

    use super::*;

    #[test]
    fn an_id_is_its_blocks_owners_and_a_block_that_nobody_asks_for_may_be_forgotten() {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1)));
        let steady = Arc::clone(&clock) as Arc<dyn Clock>;
        let blocks = [(0, "alice".into()), (2 * BLOCK, "bob".into())];
        let owners = Owners::new(steady, blocks);
        let of = |id: i64| owners.account_of(ProducerId::new(id));
        assert_eq!(of(BLOCK - 1).as_deref(), Some("alice"));
        assert_eq!(of(BLOCK), None, "nobody's");
        assert!(owners.is_of(ProducerId::new(2 * BLOCK), "bob"));
        assert_eq!(owners.unused(), [0; 0]);
        clock.advance(Duration::from_secs(24 * 3600));
        assert_eq!(of(0).as_deref(), Some("alice"), "it is in use");
        clock.advance(Duration::from_millis(1));
        assert_eq!(owners.unused(), [2 * BLOCK]);
        assert_eq!(owners.take(2 * BLOCK).as_deref(), Some("bob"));
        assert_eq!((of(2 * BLOCK), owners.count_of(&"bob".into())), (None, 0));
    }
}
