//! The lanes: one for each partition that somebody publishes to at this moment, with its open batch.
//!
//! Callers: `publish`, which fills batches, and the driver, which appends them. Invariants: a lane is there exactly as long as
//! its driver runs, so that a partition to which nobody publishes costs nothing. A batch's records lie in the order in which
//! they were pushed, and a lane's batches leave in the order in which they were opened. What all batches hold together is
//! bounded by the budget. No lock is held over an await; a lane's lock is taken under the map's, never the other way.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use model::batch::BatchBuilder;
use model::{LogId, PartitionId, Timestamp};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::batch::OpenBatch;
use super::message::{Message, Outgoing};
use super::outcome::Publishing;
use super::refusal::PublishRefusal;
use crate::broker::catalog::Topic;

/// What open and closed batches hold, all partitions together, before the store has taken them.
const BYTES_MAX: usize = 64 << 20;
/// Parts of the map, so that publishers to different partitions seldom meet.
const SHARDS: usize = 16;

/// All lanes.
#[derive(Debug)]
pub(in crate::broker) struct Lanes {
    shards: [Mutex<HashMap<LogId, Arc<Lane>>>; SHARDS],
    /// A permit for each byte.
    budget: Arc<Semaphore>,
    /// The largest batch that the store takes.
    batch_bytes_max: u64,
}

/// A partition's open batch, and those before it that are full.
#[derive(Debug)]
pub(super) struct Lane {
    pub log: LogId,
    batches: Mutex<Batches>,
    /// The driver has something to do.
    pub moved: Notify,
}

#[derive(Debug, Default)]
struct Batches {
    full: VecDeque<OpenBatch>,
    open: Option<OpenBatch>,
    /// How large the last batch became.
    last_bytes: usize,
    /// The driver has ended: this lane is not in the map any more.
    retired: bool,
}

/// A message that may be written, and what it takes as a batch of its own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Checked<'a> {
    pub message: Message<'a>,
    pub bytes: usize,
    /// Whether it goes here only because it has no key.
    pub keyless: bool,
}

impl<'a> Checked<'a> {
    pub fn new(outgoing: &Outgoing<'a>) -> Checked<'a> {
        Checked {
            message: outgoing.message,
            bytes: BatchBuilder::alone_bytes(&outgoing.message.body()),
            keyless: outgoing.is_keyless(),
        }
    }
}

impl Lanes {
    /// None yet, over a store that takes batches of so many bytes.
    pub fn new(batch_bytes_max: u64) -> Lanes {
        Lanes {
            shards: std::array::from_fn(|_| Mutex::default()),
            budget: Arc::new(Semaphore::new(BYTES_MAX)),
            batch_bytes_max,
        }
    }

    /// Waits until so many bytes may be held. More than there may be is as much as there may be, so that nobody waits for ever.
    pub(super) async fn admit(&self, bytes: usize) -> OwnedSemaphorePermit {
        let bytes = u32::try_from(bytes.min(BYTES_MAX)).expect("the budget is less than 4 GiB");
        let permit = Arc::clone(&self.budget).acquire_many_owned(bytes).await;
        permit.expect("nobody closes the budget")
    }

    fn shard(&self, log: LogId) -> MutexGuard<'_, HashMap<LogId, Arc<Lane>>> {
        let bytes = log.topic_id.as_uuid().as_u128() as usize;
        let index = bytes.wrapping_add(log.partition.get() as usize) % SHARDS;
        self.shards[index]
            .lock()
            .expect("nothing panics while it holds the lanes")
    }

    /// Puts messages behind those that their partition has already, and pays for each out of `permit`. Gives the lane if it
    /// is new, which needs a driver.
    pub(super) fn push<'a>(
        &self,
        (topic, partition): (&Arc<Topic>, PartitionId),
        messages: impl Iterator<Item = Checked<'a>>,
        permit: &mut OwnedSemaphorePermit,
        now: Timestamp,
        taken: impl FnMut(Result<Publishing, PublishRefusal>),
    ) -> Option<Arc<Lane>> {
        let log = topic.log_id(partition);
        let mut filling = Filling {
            topic,
            partition,
            permit,
            now,
            batch_bytes_max: self.batch_bytes_max,
            taken,
        };
        loop {
            let mut shard = self.shard(log);
            let Some(lane) = shard.get(&log).cloned() else {
                let lane = Arc::new(Lane::new(log));
                filling.fill(&mut lane.batches(), messages);
                shard.insert(log, Arc::clone(&lane));
                return Some(lane);
            };
            drop(shard);
            let mut batches = lane.batches();
            if batches.retired {
                continue;
            }
            let waited = batches.full.is_empty();
            filling.fill(&mut batches, messages);
            let is_full = waited && !batches.full.is_empty();
            drop(batches);
            if is_full {
                lane.moved.notify_one();
            }
            return None;
        }
    }

    /// Takes a lane out if nothing is in it: its driver ends.
    pub(super) fn retire(&self, lane: &Lane) -> bool {
        let mut shard = self.shard(lane.log);
        let mut batches = lane.batches();
        let is_empty = batches.full.is_empty() && batches.open.is_none();
        if is_empty {
            batches.retired = true;
            shard.remove(&lane.log);
        }
        is_empty
    }

    /// Takes a lane out, whatever is in it: its driver is gone, and those who wait for it are told that nothing is known.
    pub(super) fn abandon(&self, lane: &Lane) {
        let mut shard = self.shard(lane.log);
        let mut batches = lane.batches();
        if !std::mem::replace(&mut batches.retired, true) {
            shard.remove(&lane.log);
            let left = std::mem::take(&mut *batches);
            batches.retired = true;
            drop((batches, shard, left));
        }
    }

    /// How many lanes there are.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        let lanes = self.shards.iter().map(|shard| shard.lock());
        lanes.map(|shard| shard.expect("sound").len()).sum()
    }

    /// How many bytes may still be held.
    #[cfg(test)]
    pub(super) fn bytes_held(&self) -> usize {
        BYTES_MAX - self.budget.available_permits()
    }
}

impl Lane {
    fn new(log: LogId) -> Lane {
        Lane {
            log,
            batches: Mutex::default(),
            moved: Notify::new(),
        }
    }

    fn batches(&self) -> MutexGuard<'_, Batches> {
        self.batches
            .lock()
            .expect("nothing panics while it holds a lane")
    }

    /// The next batch to append: a full one, or with `also_open` the one that is open. It takes no more records then.
    pub fn next(&self, also_open: bool) -> Option<OpenBatch> {
        let mut batches = self.batches();
        let next = match batches.full.pop_front() {
            None if also_open => batches.open.take(),
            full => full,
        }?;
        batches.last_bytes = next.plain_bytes();
        Some(next)
    }
}

/// Filling one partition's batches.
struct Filling<'t, F> {
    topic: &'t Arc<Topic>,
    partition: PartitionId,
    permit: &'t mut OwnedSemaphorePermit,
    now: Timestamp,
    batch_bytes_max: u64,
    taken: F,
}

impl<F: FnMut(Result<Publishing, PublishRefusal>)> Filling<'_, F> {
    fn fill<'a>(&mut self, batches: &mut Batches, messages: impl Iterator<Item = Checked<'a>>) {
        for checked in messages {
            let open = &mut batches.open;
            if let Some(full) = open.take_if(|open| !open.takes(self.topic, checked.bytes)) {
                batches.full.push_back(full);
            }
            let topic = self.topic;
            let bytes = checked.bytes.max(batches.last_bytes);
            let open = open.get_or_insert_with(|| {
                OpenBatch::new(Arc::clone(topic), bytes, self.batch_bytes_max)
            });
            let pushed = open.push(self.partition, &checked.message, self.now);
            if pushed.is_ok() {
                // What the permit does not have was more than may be held at all.
                let left = self.permit.num_permits();
                open.pay(self.permit.split(checked.bytes.min(left)));
                open.holds_keyless |= checked.keyless;
            }
            (self.taken)(pushed);
        }
        // The format's own bound refused the only record.
        batches.open.take_if(|open| open.is_empty());
    }
}
