//! Whose producer ids are: a block of ids is one principal's, or nobody's. An id of nobody's block is on the account of the principal that
//! uses it, as long as it does and no other one does: it was given away before accounts were kept, or so long ago that its block is
//! forgotten, or never.
//! Callers: the block's machine, which gives blocks away; the store, which asks for each producer that it comes to remember, and for all
//! that it remembers whenever it looks at all of them; `produce`, for batches of producers that a partition does not know.
//! Invariants: the blocks that stand here are durable, or on their way in the step that put them here. A block is forgotten when nobody has asked for
//! an id of it for a day: then no partition remembers one, and what is left of it was not used.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use model::{ProducerId, Timestamp};
use storage::{Clock, ProducerAccounts};

use crate::broker::access::Owner;

/// How many ids are reserved at once, as in Kafka.
pub(super) const BLOCK: i64 = 1000;
/// A block is kept for so long after somebody has asked for an id of it.
const KEPT_MS: i64 = 24 * 3600 * 1000;
/// An id of nobody's block is known for so long after somebody has asked for it.
const ADOPTED_MS: i64 = 3600 * 1000;
/// Blocks of one principal at most: so many ids may be in use, or were given away for nothing within a day.
pub(super) const BLOCKS_OF_ONE_MAX: usize = 1_000;
/// Blocks that are forgotten at once.
pub(super) const FORGOTTEN_MAX: usize = 100;

/// See the module.
pub(in crate::broker) struct Owners {
    clock: Arc<dyn Clock>,
    blocks: RwLock<Blocks>,
    /// Ids of nobody's block that one may use.
    adopted_max: u64,
    adopted: RwLock<Adopted>,
}

/// Ids of nobody's blocks that are in use.
#[derive(Default)]
struct Adopted {
    all: HashMap<i64, AdoptedId>,
    of_one: HashMap<Owner, u64>,
}

struct AdoptedId {
    /// None where several use it.
    owner: Option<Owner>,
    asked_at: AtomicI64,
}

/// Why somebody may not use an id where it is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) enum NotClaimed {
    /// It was given to somebody else.
    Others,
    /// There are so many already that were given to nobody.
    TooMany(u64),
}

impl Adopted {
    /// Takes those off their accounts that are meant.
    fn forget(&mut self, is_meant: impl Fn(i64, &AdoptedId) -> bool) {
        let of_one = &mut self.of_one;
        self.all.retain(|id, adopted| {
            let stays = !is_meant(*id, adopted);
            if !stays {
                take_one(of_one, adopted.owner.take());
            }
            stays
        });
    }
}

fn take_one(of_one: &mut HashMap<Owner, u64>, owner: Option<Owner>) {
    let Some(owner) = owner else {
        return;
    };
    if let Some(count) = of_one.get_mut(&owner) {
        *count -= 1;
        if *count == 0 {
            of_one.remove(&owner);
        }
    }
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
    /// With the blocks that the log says. One may use so many ids that were given to nobody.
    pub(in crate::broker) fn new(
        clock: Arc<dyn Clock>,
        adopted_max: u64,
        blocks: impl IntoIterator<Item = (i64, Owner)>,
    ) -> Owners {
        let owners = Owners {
            clock,
            blocks: RwLock::default(),
            adopted_max,
            adopted: RwLock::default(),
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

    /// Somebody uses an id. True if it was nobody's, and is on his account from now on.
    pub(in crate::broker) fn claim(
        &self,
        id: ProducerId,
        principal: &str,
    ) -> Result<bool, NotClaimed> {
        if let Some(owner) = self.owner_of_block(id) {
            let is_his = *owner == *principal;
            return is_his.then_some(false).ok_or(NotClaimed::Others);
        }
        if self.is_known_as(id, principal) {
            return Ok(false);
        }
        let mut adopted = self.adopted.write().unwrap_or_else(PoisonError::into_inner);
        let Adopted { all, of_one } = &mut *adopted;
        let (id, now) = (id.get(), self.now());
        if let Some(known) = all.get_mut(&id) {
            // Whose it is cannot be known: nobody is to bear what others do in his name.
            let is_his = known
                .owner
                .as_ref()
                .is_some_and(|owner| **owner == *principal);
            if !is_his {
                take_one(of_one, known.owner.take());
            }
            return Ok(false);
        }
        let count_of = |adopted: &Adopted| adopted.of_one.get(principal).copied().unwrap_or(0);
        if count_of(&adopted) >= self.adopted_max {
            let is_unused = |_, it: &AdoptedId| it.asked_at.load(Relaxed) < now - ADOPTED_MS;
            adopted.forget(is_unused);
            let count = count_of(&adopted);
            if count >= self.adopted_max {
                return Err(NotClaimed::TooMany(count));
            }
        }
        let owner = Owner::from(principal);
        *adopted.of_one.entry(Arc::clone(&owner)).or_default() += 1;
        let asked_at = AtomicI64::new(now);
        let owner = Some(owner);
        adopted.all.insert(id, AdoptedId { owner, asked_at });
        Ok(true)
    }

    /// Whether an id of nobody's block is on this account already, or on nobody's as several use it.
    fn is_known_as(&self, id: ProducerId, principal: &str) -> bool {
        let adopted = self.adopted.read().unwrap_or_else(PoisonError::into_inner);
        adopted.all.get(&id.get()).is_some_and(|known| {
            known.asked_at.store(self.now(), Relaxed);
            known
                .owner
                .as_ref()
                .is_none_or(|owner| **owner == *principal)
        })
    }

    /// Takes back that an id is on the account of who used it.
    pub(in crate::broker) fn disown(&self, id: ProducerId) {
        let mut adopted = self.adopted.write().unwrap_or_else(PoisonError::into_inner);
        let found = adopted.all.remove(&id.get());
        take_one(&mut adopted.of_one, found.and_then(|found| found.owner));
    }

    fn owner_of_block(&self, id: ProducerId) -> Option<Owner> {
        let blocks = self.read();
        let (begin, block) = blocks.all.range(..=id.get()).next_back()?;
        let is_in = id.get() - *begin < BLOCK;
        is_in.then(|| {
            block.asked_at.store(self.now(), Relaxed);
            Arc::clone(&block.owner)
        })
    }

    fn adopter_of(&self, id: ProducerId) -> Option<Owner> {
        let adopted = self.adopted.read().unwrap_or_else(PoisonError::into_inner);
        let known = adopted.all.get(&id.get())?;
        known.asked_at.store(self.now(), Relaxed);
        known.owner.clone()
    }
}

impl ProducerAccounts for Owners {
    fn account_of(&self, id: ProducerId) -> Option<Arc<str>> {
        self.owner_of_block(id).or_else(|| self.adopter_of(id))
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
        let owners = Owners::new(steady, 2, blocks);
        let of = |id: i64| owners.account_of(ProducerId::new(id));
        assert_eq!(of(BLOCK - 1).as_deref(), Some("alice"));
        assert_eq!(of(BLOCK), None, "nobody's");
        assert_eq!(owners.claim(ProducerId::new(2 * BLOCK), "bob"), Ok(false));
        assert_eq!(owners.unused(), [0; 0]);
        clock.advance(Duration::from_secs(24 * 3600));
        assert_eq!(of(0).as_deref(), Some("alice"), "it is in use");
        clock.advance(Duration::from_millis(1));
        assert_eq!(owners.unused(), [2 * BLOCK]);
        assert_eq!(owners.take(2 * BLOCK).as_deref(), Some("bob"));
        assert_eq!((of(2 * BLOCK), owners.count_of(&"bob".into())), (None, 0));
    }

    #[test]
    fn an_id_of_nobodys_is_on_the_account_of_who_uses_it_and_nobody_can_take_anothers() {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1)));
        let steady = Arc::clone(&clock) as Arc<dyn Clock>;
        let owners = Owners::new(steady, 2, [(0, "alice".into())]);
        let of = |id: i64| owners.account_of(ProducerId::new(id));
        let claim = |id: i64, who: &str| owners.claim(ProducerId::new(id), who);
        assert_eq!(claim(1, "mallory"), Err(NotClaimed::Others));
        assert_eq!(
            (claim(5_000, "mallory"), claim(5_000, "mallory")),
            (Ok(true), Ok(false))
        );
        assert_eq!(of(5_000).as_deref(), Some("mallory"));
        assert_eq!(claim(5_001, "mallory"), Ok(true));
        assert_eq!(claim(5_002, "mallory"), Err(NotClaimed::TooMany(2)));
        owners.disown(ProducerId::new(5_001));
        assert_eq!((of(5_001), claim(5_002, "mallory")), (None, Ok(true)));
        // Of one that two use nobody knows whose it is: it is nobody's, and neither is hindered.
        assert_eq!(claim(5_000, "alice"), Ok(false));
        assert_eq!((of(5_000), claim(5_003, "mallory")), (None, Ok(true)));
        assert_eq!(claim(5_004, "mallory"), Err(NotClaimed::TooMany(2)));
        clock.advance(Duration::from_millis(ADOPTED_MS.unsigned_abs() + 1));
        assert_eq!(of(5_003).as_deref(), Some("mallory"), "in use");
        assert_eq!(claim(5_004, "mallory"), Ok(true), "the other one is not");
    }
}
