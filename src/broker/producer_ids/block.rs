//! The block of producer ids that is reserved: a machine of `coordination`.
//! Callers: `producer_ids`. Invariant: a block is durable in the metadata before the first of its ids is given away.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use storage::{AppendError, Clock, Purpose};
use tokio::sync::oneshot;

use crate::broker::coordination::{
    Answer, Cell, Machine, Moment, Runtime, RuntimeTask, Shape, Step,
};
use crate::broker::records::Record;
use crate::broker::state_log::{StateLog, StateLogError, StateRecord as _};
use crate::broker::{Refusal, state_refusal};

/// How many ids are reserved at once, as in Kafka.
const BLOCK: i64 = 1000;

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
}

/// The ids that are left of the reserved block.
pub(in crate::broker) struct Block {
    next: i64,
    end: i64,
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
    /// No id below `next` may be given away again.
    pub(in crate::broker) fn new(
        next: i64,
        metadata: StateLog<Record>,
        clock: Arc<dyn Clock>,
    ) -> (ProducerIds, RuntimeTask<Block>) {
        let (runtime, task) = Runtime::new(SHAPE, metadata, clock);
        let block = Block { next, end: next };
        let block = runtime
            .cell_or(TheBlock, || Some(block))
            .expect("it was just made");
        (ProducerIds { runtime, block }, task)
    }

    /// An id that nobody has had.
    pub(super) async fn grant(&self) -> Result<i64, Refusal> {
        let (to, granted) = oneshot::channel();
        // The runtime ends with the broker.
        let closed = || state_refusal(AppendError::Closed.into());
        self.runtime
            .step(
                &self.block,
                Purpose::State,
                |block| block.reservation().iter().map(Record::bytes).collect(),
                |block, _, step| block.grant(to, step),
            )
            .await
            .map_err(|_| closed())?;
        granted.await.unwrap_or_else(|_| Err(closed()))
    }
}

impl Block {
    /// What must be stored before the next id is given away, if it is not yet.
    fn reservation(&self) -> Option<Record> {
        (self.next == self.end).then(|| Record::ProducerIds {
            next: self.end + BLOCK,
        })
    }

    fn grant(&mut self, to: oneshot::Sender<Result<i64, Refusal>>, step: &mut Step<Block>) {
        if let Some(record) = self.reservation() {
            step.change = Some(self.end);
            step.records.push(record);
            self.end += BLOCK;
        }
        let id = Ok(self.next);
        self.next += 1;
        assert!(self.next <= self.end, "no id is given that is not reserved");
        step.answers.push(Granted { id, to });
    }
}

impl Machine for Block {
    const KIND: &'static str = "producer ids";
    type Key = TheBlock;
    type Name = TheBlock;
    type Record = Record;
    type Answer = Granted;
    /// Where the block began that a step reserves.
    type Change = Option<i64>;
    type Mark = Infallible;

    fn on_appended(&mut self, _: Option<i64>) -> Option<Infallible> {
        None
    }

    fn on_durable(&mut self, mark: Infallible) {
        match mark {}
    }

    fn withdraw(
        &mut self,
        change: Option<i64>,
        _: Moment,
        refused: &StateLogError,
        answers: &mut Vec<Granted>,
    ) {
        if let Some(begin) = change {
            (self.next, self.end) = (begin, begin);
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
    use model::Timestamp;
    use storage::ManualClock;
    use tokio::sync::watch;

    use super::*;
    use crate::broker::state_log::sim::SimStore;

    fn open(store: &SimStore) -> ProducerIds {
        let (log, replayed) = store.open::<Record>();
        let next = replayed
            .map(|record| match record.expect("readable") {
                Record::ProducerIds { next } => next,
                other => panic!("{other:?}"),
            })
            .last();
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1)));
        let (ids, task) = ProducerIds::new(next.unwrap_or(0), log, clock);
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(async move {
            task.run(stopped).await;
            drop(stop);
        });
        ids
    }

    async fn granted(ids: &ProducerIds) -> i64 {
        ids.grant().await.expect("room")
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
    async fn a_full_disk_refuses_ids_and_costs_none() {
        let store = store();
        let ids = open(&store);
        store.set_full(true);
        let refused = ids.grant().await;
        assert!(matches!(refused, Err(Refusal::DiskFull)), "{refused:?}");
        store.set_full(false);
        assert_eq!(granted(&ids).await, 0);
    }
}
