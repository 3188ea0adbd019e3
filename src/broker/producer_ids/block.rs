//! The blocks of producer ids that are reserved: a machine of `coordination`.
//! Callers: `producer_ids`. Invariant: a block, and whose it is, is durable in the metadata before the first of its ids is given away.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use storage::{AppendError, Clock, Purpose};
use tokio::sync::oneshot;

use super::owners::{BLOCK, BLOCKS_OF_ONE_MAX, FORGOTTEN_MAX, Owners};
use crate::broker::access::Owner;
use crate::broker::coordination::{
    Answer, Cell, Machine, Moment, Runtime, RuntimeTask, Shape, Step,
};
use crate::broker::records::Record;
use crate::broker::state_log::{StateLog, StateLogError, StateRecord as _};
use crate::broker::{Refusal, state_refusal};

/// Of so many principals the rest of a block is kept; then that of the oldest block is given up.
const OPEN_MAX: usize = 10_000;

/// There is one machine, so one shard; and so many may wait for its record.
const SHAPE: Shape = Shape {
    shards: 1,
    places: 1024,
};

/// Gives ids away. Cheap to clone.
#[derive(Clone)]
pub(in crate::broker) struct ProducerIds {
    runtime: Runtime<Block>,
    block: Arc<Cell<Block>>,
    owners: Arc<Owners>,
}

/// The ids that are left of the reserved blocks.
pub(in crate::broker) struct Block {
    /// Behind the last block.
    end: i64,
    /// What is left of each principal's, and of nobody's.
    open: HashMap<Option<Owner>, Range<i64>>,
    owners: Arc<Owners>,
}

/// What a step reserves, and what it forgets.
pub(in crate::broker) struct Reserved {
    owner: Option<Owner>,
    begin: i64,
    forgotten: Vec<(i64, Owner)>,
}

/// The one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::broker) struct TheBlock;

/// An id, for whoever asked.
pub(in crate::broker) struct Granted {
    id: Result<i64, Refusal>,
    to: oneshot::Sender<Result<i64, Refusal>>,
}

impl ProducerIds {
    /// No id below `next` may be given away again; of those whose `owners` are known it is known whose they are.
    pub(in crate::broker) fn new(
        next: i64,
        owners: Arc<Owners>,
        metadata: StateLog<Record>,
        clock: Arc<dyn Clock>,
    ) -> (ProducerIds, RuntimeTask<Block>) {
        let (runtime, task) = Runtime::new(SHAPE, metadata, clock);
        let block = Block {
            end: next,
            open: HashMap::new(),
            owners: Arc::clone(&owners),
        };
        let block = runtime
            .cell_or(TheBlock, || Some(block))
            .expect("it was just made");
        let ids = ProducerIds {
            runtime,
            block,
            owners,
        };
        (ids, task)
    }

    /// Whose ids are.
    pub(in crate::broker) fn owners(&self) -> &Arc<Owners> {
        &self.owners
    }

    /// An id that nobody has had, which is on the account of `owner` if there is one.
    pub(super) async fn grant(&self, owner: Option<Owner>) -> Result<i64, Refusal> {
        let (to, granted) = oneshot::channel();
        // The runtime ends with the broker.
        let closed = || state_refusal(AppendError::Closed.into());
        let wanted = owner.clone();
        self.runtime
            .step(
                &self.block,
                Purpose::State,
                |block| block.reservation_bytes(&wanted),
                |block, _, step| block.grant(owner, to, step),
            )
            .await
            .map_err(|_| closed())?;
        granted.await.unwrap_or_else(|_| Err(closed()))
    }
}

impl Block {
    fn has_any(&self, owner: &Option<Owner>) -> bool {
        self.open.get(owner).is_some_and(|left| !left.is_empty())
    }

    fn reservation(&self, owner: &Option<Owner>) -> Vec<Record> {
        let owned = owner.clone().map(|owner| Record::ProducerIdOwner {
            begin: self.end,
            owner: Some(owner),
        });
        let next = self.end + BLOCK;
        { owned.into_iter() }
            .chain([Record::ProducerIds { next }])
            .collect()
    }

    /// How long the records are that must be stored before the next id is given away, if there are any.
    fn reservation_bytes(&self, owner: &Option<Owner>) -> Vec<usize> {
        if self.has_any(owner) {
            return Vec::new();
        }
        let forgotten = Record::ProducerIdOwner {
            begin: i64::MAX,
            owner: None,
        };
        let mut bytes = vec![forgotten.bytes(); FORGOTTEN_MAX];
        bytes.extend(self.reservation(owner).iter().map(Record::bytes));
        bytes
    }

    fn reserve(&mut self, owner: &Option<Owner>, step: &mut Step<Block>) {
        let begin = self.end;
        step.records.extend(self.reservation(owner));
        self.end += BLOCK;
        self.open.retain(|_, left| !left.is_empty());
        if self.open.len() >= OPEN_MAX {
            let oldest = self.open.iter().min_by_key(|(_, left)| left.start);
            let oldest = oldest.map(|(owner, _)| owner.clone());
            self.open.remove(&oldest.expect("there are many"));
        }
        self.open.insert(owner.clone(), begin..self.end);
        let mut forgotten = Vec::new();
        for unused in self.owners.unused() {
            let Some(owner) = self.owners.take(unused) else {
                continue;
            };
            let of_it = unused..unused + BLOCK;
            self.open.retain(|_, left| !of_it.contains(&left.start));
            step.records.push(Record::ProducerIdOwner {
                begin: unused,
                owner: None,
            });
            forgotten.push((unused, owner));
        }
        if let Some(owner) = owner {
            self.owners.put(begin, Arc::clone(owner));
        }
        step.change = Some(Reserved {
            owner: owner.clone(),
            begin,
            forgotten,
        });
    }

    fn grant(
        &mut self,
        owner: Option<Owner>,
        to: oneshot::Sender<Result<i64, Refusal>>,
        step: &mut Step<Block>,
    ) {
        if !self.has_any(&owner) {
            if let Some(one) = &owner
                && self.owners.count_of(one) >= BLOCKS_OF_ONE_MAX
            {
                let id = Err(Refusal::TooManyProducerIds {
                    owner: Arc::clone(one),
                });
                step.answers.push(Granted { id, to });
                return;
            }
            self.reserve(&owner, step);
        }
        let left = self.open.get_mut(&owner);
        let id = left.and_then(Iterator::next);
        let id = Ok(id.expect("no id is given that is not reserved"));
        step.answers.push(Granted { id, to });
    }
}

impl Machine for Block {
    const KIND: &'static str = "producer ids";
    type Key = TheBlock;
    type Name = TheBlock;
    type Record = Record;
    type Answer = Granted;
    type Change = Option<Reserved>;
    type Mark = Infallible;

    fn on_appended(&mut self, _: Option<Reserved>) -> Option<Infallible> {
        None
    }

    fn on_durable(&mut self, mark: Infallible) {
        match mark {}
    }

    fn withdraw(
        &mut self,
        change: Option<Reserved>,
        _: Moment,
        refused: &StateLogError,
        answers: &mut Vec<Granted>,
    ) {
        if let Some(Reserved {
            owner,
            begin,
            forgotten,
        }) = change
        {
            self.end = begin;
            self.open.remove(&owner);
            self.owners.take(begin);
            for (begin, owner) in forgotten {
                self.owners.put(begin, owner);
            }
        }
        for answer in answers {
            answer.id = Err(state_refusal(refused.clone()));
        }
    }

    fn wake_at(&self) -> Option<Duration> {
        None
    }

    fn record_bytes_on_time(&self) -> Vec<usize> {
        Vec::new()
    }

    fn on_time(&mut self, _: Moment, _: &mut Step<Block>) {}
}

impl Answer for Granted {
    fn tell(self, stored: Result<(), &StateLogError>) {
        let id = match stored {
            Ok(()) => self.id,
            Err(error) => Err(state_refusal(error.clone())),
        };
        // Nobody has the id of someone who no longer waits.
        drop(self.to.send(id));
    }
}

impl fmt::Display for TheBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("block")
    }
}

#[cfg(test)]
mod tests {
    use model::{ProducerId, Timestamp};
    use storage::{ManualClock, ProducerAccounts as _};
    use tokio::sync::watch;

    use super::*;
    use crate::broker::state_log::sim::SimStore;

    fn open(store: &SimStore) -> ProducerIds {
        open_with(store, Arc::new(ManualClock::new(Timestamp::from_millis(1))))
    }

    fn open_with(store: &SimStore, clock: Arc<ManualClock>) -> ProducerIds {
        let (log, replayed) = store.open::<Record>();
        let (mut next, mut owned) = (0, Vec::new());
        for record in replayed {
            match record.expect("readable") {
                Record::ProducerIds { next: found } => next = found,
                Record::ProducerIdOwner { begin, owner } => {
                    owned.push((begin, owner.expect("a removal does not count")));
                }
                other => panic!("{other:?}"),
            }
        }
        let owners = Owners::new(Arc::clone(&clock) as Arc<dyn Clock>, 9, owned);
        let (ids, task) = ProducerIds::new(next, Arc::new(owners), log, clock);
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(async move {
            task.run(stopped).await;
            drop(stop);
        });
        ids
    }

    async fn granted(ids: &ProducerIds) -> i64 {
        ids.grant(None).await.expect("room")
    }

    fn store() -> SimStore {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1)));
        SimStore::new(clock, 256 << 10)
    }

    #[tokio::test]
    async fn no_id_is_given_twice_over_restarts_and_none_before_its_block_is_durable() {
        let store = store();
        let ids = open(&store);
        assert_eq!((granted(&ids).await, granted(&ids).await), (0, 1));
        let store = store.cut();
        let ids = open(&store);
        assert_eq!(granted(&ids).await, BLOCK);
        for _ in 1..BLOCK {
            granted(&ids).await;
        }
        store.hold();
        let (one, other) = (ids.clone(), ids.clone());
        let one = tokio::spawn(async move { granted(&one).await });
        let other = tokio::spawn(async move { granted(&other).await });
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(
            !one.is_finished() && !other.is_finished(),
            "not durable yet"
        );
        store.sync();
        let given = (one.await.expect("no panic"), other.await.expect("no panic"));
        assert_eq!(given, (2 * BLOCK, 2 * BLOCK + 1));
    }

    #[tokio::test]
    async fn whose_an_id_is_is_known_after_a_start_too_and_nobody_takes_ids_without_end() {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1)));
        let store = store();
        let ids = open_with(&store, Arc::clone(&clock));
        let [alice, mallory]: [Owner; 2] = ["alice", "mallory"].map(Owner::from);
        let grant = async |ids: &ProducerIds, owner: &Owner| {
            ids.grant(Some(Arc::clone(owner)))
                .await
                .map(ProducerId::new)
        };
        let hers = grant(&ids, &alice).await.expect("room");
        let his = grant(&ids, &mallory).await.expect("room");
        let nobodys = ProducerId::new(granted(&ids).await);
        assert_eq!(
            grant(&ids, &alice).await.expect("room").get(),
            hers.get() + 1
        );
        let store = store.cut();
        let ids = open_with(&store, Arc::clone(&clock));
        let of = |id| ids.owners().account_of(id);
        assert_eq!(of(hers).as_deref(), Some("alice"));
        assert_eq!(of(his).as_deref(), Some("mallory"));
        assert_eq!(ids.owners().account_of(nobodys), None);
        for number in 1..BLOCKS_OF_ONE_MAX as i64 {
            let far = (1 << 40) + number * BLOCK;
            ids.owners().put(far, Arc::clone(&mallory));
        }
        let refused = grant(&ids, &mallory).await;
        assert!(
            matches!(refused, Err(Refusal::TooManyProducerIds { .. })),
            "{refused:?}"
        );
        grant(&ids, &alice).await.expect("her own room");
        // What nobody has used for a day is forgotten, and in the log too.
        clock.advance(Duration::from_secs(25 * 3600));
        for _ in 0..=BLOCKS_OF_ONE_MAX / FORGOTTEN_MAX {
            for _ in 0..BLOCK {
                grant(&ids, &alice).await.expect("her own room");
            }
        }
        grant(&ids, &mallory).await.expect("room again");
        assert_eq!(ids.owners().count_of(&mallory), 1);
        let ids = open_with(&store.cut(), clock);
        assert_eq!(ids.owners().count_of(&mallory), 1);
        assert_eq!(ids.owners().account_of(hers), None);
    }

    #[tokio::test]
    async fn a_full_disk_refuses_ids_and_costs_none() {
        let store = store();
        let ids = open(&store);
        store.set_full(true);
        let refused = ids.grant(None).await;
        assert!(matches!(refused, Err(Refusal::DiskFull)), "{refused:?}");
        store.set_full(false);
        assert_eq!(granted(&ids).await, 0);
        store.set_full(true);
        let owner: Owner = "alice".into();
        let mut refused = Ok(0);
        while refused.is_ok() {
            refused = ids.grant(Some(Arc::clone(&owner))).await;
            assert!(ids.owners().count_of(&owner) < 1_000, "the disk is full");
        }
        let before = ids.owners().count_of(&owner);
        let again = ids.grant(Some(Arc::clone(&owner))).await;
        assert!(matches!(again, Err(Refusal::DiskFull)), "{again:?}");
        assert_eq!(ids.owners().count_of(&owner), before, "taken back");
    }
}
