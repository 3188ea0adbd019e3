//! Subscriptions: what a topic has from some place on, and then what comes, as it becomes durable.
//! Callers: fronts that follow. A subscriber asks for one event after the other; while it does not ask, nothing is read for it.
//! Invariants: each record from its place on is given once, in each partition in the order of offsets, or a gap is told in its
//! place. A subscription holds a cursor for each partition: a slow subscriber is behind, and costs nothing.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use model::{Offset, PartitionId, Timestamp};
use storage::{Log, Waiter};

use super::block::Block;
use super::partitions_of;
use super::reader::{Found, Reader, Sizes, Step};
use super::request::{Filter, Gap, GapReason, Order, Place, ReplayError};
use crate::broker::access::{Caller, Granted, right};
use crate::broker::open_readers::ReaderName;
use crate::broker::place::offset_mut;
use crate::broker::{Broker, Topic};

/// How often a subscription to all partitions looks whether the topic has got more, while nothing comes.
const GROWTH_LOOK: Duration = Duration::from_secs(5);

/// What to follow.
#[derive(Clone, Debug)]
pub struct FollowRequest {
    /// Which partitions; None for all, also those that the topic gets later.
    pub partitions: Option<Vec<PartitionId>>,
    /// Where to begin. A time bounds the timestamps of what is there at the request; what comes later is given whatever its
    /// time, so that a device with a late clock is not lost.
    pub from: Place,
    /// Where to go on, as [`Subscription::position`] told an earlier one. Partitions that it does not name are new: they are
    /// given from their start. Without it, `from` counts.
    pub resume: Option<Vec<Resume>>,
    /// Which records.
    pub filter: Filter,
    /// Within a partition records come in the order of offsets. [`Order::Offset`] gives partitions their turns. [`Order::Time`]
    /// goes on with the partition whose next record is the earliest, of those that have one.
    pub order: Order,
}

/// Where a subscription is in one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resume {
    /// Which partition.
    pub partition: PartitionId,
    /// The next offset.
    pub offset: Offset,
    /// Before which offset records from which time on are wanted only.
    pub since: Option<(Offset, Timestamp)>,
}

/// What a subscriber is given.
#[derive(Debug)]
pub enum Event {
    /// Records, all of one partition.
    Records(Block),
    /// Offsets that have no records to give: what was wanted may have been among them.
    Gap(Gap),
    /// All that is durable was given. Told once each time; the next call waits.
    CaughtUp,
}

/// One follower of a topic. See the module.
pub struct Subscription {
    broker: Broker,
    topic: Granted<Arc<Topic>, right::Read>,
    filter: Filter,
    /// Whether partitions that come later belong to it.
    is_of_all: bool,
    order: Order,
    cursors: Vec<Cursor>,
    /// Which one has its turn.
    turn: usize,
    /// The one that has all turns until it is there.
    first: Option<(usize, Offset)>,
    waiter: Arc<Waiter>,
    is_caught_up: bool,
    /// What is to be told before anything else is read.
    then: VecDeque<Event>,
    /// For whom it reads.
    who: Option<ReaderName>,
    /// Where it tells how far it is.
    read_to: Option<Arc<ReadTo>>,
}

/// How far a subscription has come where it found nothing to give, partition by partition: what lies before was given, and whoever
/// asked for it again has had the time to note it. It may be less than was read, and is never more.
#[derive(Debug, Default)]
pub struct ReadTo(Mutex<Vec<Offset>>);

impl ReadTo {
    /// All of them.
    pub fn offsets(&self) -> Vec<Offset> {
        self.locked().clone()
    }

    fn locked(&self) -> MutexGuard<'_, Vec<Offset>> {
        self.0
            .lock()
            .expect("nothing panics while it holds offsets")
    }

    pub(in crate::broker) fn set(&self, partition: PartitionId, offset: Offset) {
        *offset_mut(&mut self.locked(), partition) = offset;
    }
}

/// One partition of a subscription.
struct Cursor {
    log: Arc<Log>,
    reader: Reader,
    /// Where the reader of what was there at the request ends, and what it leaves out.
    since: Option<(Offset, Timestamp)>,
    /// How often the log had moved before it was found to have nothing more.
    idle_at: Option<u64>,
    /// How often the log had moved when the step began that is under way.
    begun_at: Option<u64>,
    /// The count of moves since which the waiter is told of the next one.
    watched_at: Option<u64>,
    /// What was read and is not given yet.
    head: Option<Head>,
}

/// A block that is given in parts.
struct Head {
    block: Block,
    /// The next record.
    index: usize,
}

impl Head {
    fn time(&self) -> Timestamp {
        let record = self.block.get(self.index).map(|found| found.record);
        record.expect("a head has a record left").timestamp
    }
}

impl Broker {
    /// Where each partition of a topic ends: all below is durable.
    pub fn durable_ends(
        &self,
        topic: &Granted<Arc<Topic>, right::Read>,
    ) -> Result<Vec<Offset>, ReplayError> {
        let all = topic.partitions();
        all.map(|partition| Ok(topic.log(partition)?.bounds().durable_end))
            .collect()
    }

    /// Follows a topic. Nothing is read before the first event is asked for.
    pub fn follow(
        &self,
        topic: &Granted<Arc<Topic>, right::Read>,
        request: FollowRequest,
    ) -> Result<Subscription, ReplayError> {
        let mut subscription = Subscription {
            broker: self.clone(),
            topic: topic.clone(),
            filter: request.filter,
            is_of_all: request.partitions.is_none(),
            order: request.order,
            cursors: Vec::new(),
            turn: 0,
            first: None,
            waiter: Waiter::new(),
            is_caught_up: false,
            then: VecDeque::new(),
            who: None,
            read_to: None,
        };
        for partition in partitions_of(topic, request.partitions)? {
            let log = topic.log(partition)?;
            let at = match &request.resume {
                None => begin(partition, log, request.from),
                Some(resume) => {
                    let at = resume.iter().find(|at| at.partition == partition);
                    let at = at.copied().unwrap_or(first_of(partition));
                    subscription.not_behind(at, log.bounds().durable_end)
                }
            };
            subscription.add(Arc::clone(log), at);
        }
        Ok(subscription)
    }
}

fn first_of(partition: PartitionId) -> Resume {
    Resume {
        partition,
        offset: Offset::ZERO,
        since: None,
    }
}

fn begin(partition: PartitionId, log: &Log, from: Place) -> Resume {
    let bounds = log.bounds();
    let offset = from.offset(&bounds).unwrap_or(bounds.start);
    Resume {
        partition,
        offset,
        since: from.time().map(|time| (bounds.durable_end, time)),
    }
}

impl Subscription {
    /// Where to go on. A log that ends before that has lost what was given once: what it gets instead is given.
    fn not_behind(&mut self, mut at: Resume, end: Offset) -> Resume {
        if at.offset > end {
            self.then.push_back(Event::Gap(Gap {
                partition: at.partition,
                offsets: end..at.offset,
                missing: 0,
                reason: GapReason::Rewound,
            }));
            at.offset = end;
        }
        at
    }

    /// Reads what a partition has by now before it reads any other: what is looked for is there, as a rule.
    pub fn begin_with(&mut self, partition: PartitionId) {
        let mut cursors = self.cursors.iter();
        let at = cursors.position(|it| it.reader.partition() == partition);
        self.first = at.map(|at| (at, self.cursors[at].log.bounds().durable_end));
    }

    /// The partition that has all turns, if there is one.
    fn first(&mut self) -> Option<usize> {
        let (at, end) = self.first?;
        let cursor = &self.cursors[at];
        if cursor.next_offset() >= end || !cursor.may_have_more() {
            self.first = None;
        }
        self.first.map(|(at, _)| at)
    }

    /// Says for whom it reads: who is overtaken by a removal is in the loss ledger.
    pub fn open_as(&mut self, caller: &Caller) {
        let who = ReaderName::of(caller);
        for cursor in &mut self.cursors {
            let log = cursor.log.id();
            cursor.reader.open_as(&self.broker, &who, log);
        }
        self.who = Some(who);
    }

    /// Tells how far it is from here on, also while nobody asks.
    pub fn read_to(&mut self) -> Arc<ReadTo> {
        let read_to = Arc::new(ReadTo::default());
        for at in self.position() {
            read_to.set(at.partition, at.offset);
        }
        self.read_to = Some(Arc::clone(&read_to));
        read_to
    }

    fn add(&mut self, log: Arc<Log>, at: Resume) {
        let since = at.since.filter(|(until, _)| *until > at.offset);
        let (end, filter) = match since {
            Some((until, time)) => (until, self.filter.clone().within(Some(time), None)),
            None => (Offset::MAX, self.filter.clone()),
        };
        let offsets = at.offset..end;
        let mut reader = Reader::new(at.partition, &log, offsets, filter, Sizes::FOLLOWER);
        if let Some(who) = &self.who {
            reader.open_as(&self.broker, who, log.id());
        }
        self.cursors.push(Cursor {
            log,
            reader,
            since,
            begun_at: None,
            idle_at: None,
            watched_at: None,
            head: None,
        });
    }

    /// The next event; waits for one. A call that is given up loses nothing.
    /// Errors: the topic is gone, or the disk cannot read; what was not given is still to be asked for.
    pub async fn next(&mut self) -> Result<Event, ReplayError> {
        if let Some(event) = self.then.pop_front() {
            return Ok(event);
        }
        loop {
            let event = match self.order {
                Order::Offset => self.read_in_turns().await?,
                Order::Time => self.read_earliest().await?,
            };
            if let Some(event) = event {
                self.is_caught_up = false;
                return Ok(event);
            }
            if !std::mem::replace(&mut self.is_caught_up, true) {
                return Ok(Event::CaughtUp);
            }
            self.wait().await?;
        }
    }

    /// Of records that were just given: what cleanup has taken before the last of them, which would be the next event. For who may
    /// not come again behind the last of them.
    pub fn gap_of_records(&mut self) -> Option<Gap> {
        match self.then.pop_front() {
            Some(Event::Gap(gap)) if gap.reason == GapReason::Cleaned => Some(gap),
            other => {
                other.into_iter().for_each(|it| self.then.push_front(it));
                None
            }
        }
    }

    /// Whether something may have come since [`Event::CaughtUp`] was told. If so it is told again, behind what came.
    pub fn may_have_more(&mut self) -> bool {
        let may = !self.then.is_empty() || self.cursors.iter().any(Cursor::may_have_more);
        if may {
            self.is_caught_up = false;
        }
        may
    }

    /// Where it is in each partition, as far as events were given: who resumes there gets what comes after them.
    pub fn position(&self) -> Vec<Resume> {
        let of = |cursor: &Cursor| {
            let offset = cursor.next_offset();
            Resume {
                partition: cursor.reader.partition(),
                offset,
                since: cursor.since.filter(|(until, _)| *until > offset),
            }
        };
        self.cursors.iter().map(of).collect()
    }

    /// Reads on in the next partition that may have something; None if none has.
    async fn read_in_turns(&mut self) -> Result<Option<Event>, ReplayError> {
        loop {
            let (count, first) = (self.cursors.len(), self.first());
            let mut all = (0..count).map(|step| (self.turn + step) % count);
            let next = match first {
                None => all.find(|at| self.cursors[*at].may_have_more()),
                first => first,
            };
            let Some(at) = next else {
                return Ok(None);
            };
            self.turn = at;
            let (found, cleaned) = self.step(at).await?;
            // Each partition has its turn.
            self.turn = (at + 1) % count;
            match (found, cleaned.map(Event::Gap)) {
                (Some(found), gap) => {
                    self.then.extend(gap);
                    return Ok(Some(found));
                }
                (None, Some(gap)) => return Ok(Some(gap)),
                (None, None) => tokio::task::yield_now().await,
            }
        }
    }

    /// Reads on in each partition of which nothing is held, and gives of the one whose next record is the earliest; None if none
    /// has a record.
    async fn read_earliest(&mut self) -> Result<Option<Event>, ReplayError> {
        loop {
            let to_read = |at: &usize| {
                let cursor = &self.cursors[*at];
                cursor.head.is_none() && cursor.may_have_more()
            };
            let Some(at) = (0..self.cursors.len()).find(to_read) else {
                return Ok(self.give_earliest());
            };
            match self.step(at).await? {
                (Some(Event::Records(block)), cleaned) => {
                    self.cursors[at].head = Some(Head { block, index: 0 });
                    // It is told before the records: who goes on among them is told of the rest again.
                    if let Some(gap) = cleaned {
                        return Ok(Some(Event::Gap(gap)));
                    }
                }
                (Some(found), cleaned) => {
                    self.then.extend(cleaned.map(Event::Gap));
                    return Ok(Some(found));
                }
                (None, Some(gap)) => return Ok(Some(Event::Gap(gap))),
                (None, None) => tokio::task::yield_now().await,
            }
        }
    }

    /// Records of the partition whose next one is the earliest, up to where another partition's goes first.
    fn give_earliest(&mut self) -> Option<Event> {
        let heads = self.cursors.iter().enumerate();
        let mut heads: Vec<(Timestamp, usize)> = heads
            .filter_map(|(at, cursor)| Some((cursor.head.as_ref()?.time(), at)))
            .collect();
        heads.sort_unstable();
        let (_, at) = *heads.first()?;
        let next = heads.get(1).copied();
        let head = self.cursors[at]
            .head
            .as_mut()
            .expect("it is one of the heads");
        let from = head.index;
        head.index += 1;
        while head.index < head.block.len() && next.is_none_or(|next| (head.time(), at) < next) {
            head.index += 1;
        }
        let block = head.block.slice(from..head.index);
        if head.index == head.block.len() {
            self.cursors[at].head = None;
        }
        Some(Event::Records(block))
    }

    /// A step of one partition's reader.
    async fn step(&mut self, at: usize) -> Result<(Option<Event>, Option<Gap>), ReplayError> {
        // A step that was given up goes on: what came since it began may not be in it.
        let cursor = &mut self.cursors[at];
        let moves = *cursor.begun_at.get_or_insert_with(|| cursor.log.moves());
        let step = cursor.reader.step(&self.broker).await;
        cursor.begun_at = None;
        let Step { found, cleaned } = step?;
        let found = match found {
            Found::Records(block) => Some(Event::Records(block)),
            Found::Gap(gap) => Some(Event::Gap(gap)),
            Found::Nothing => None,
            Found::End => {
                self.at_end(at, moves);
                None
            }
        };
        if let (None, Some(read_to)) = (&found, &self.read_to) {
            let reader = &self.cursors[at].reader;
            read_to.set(reader.partition(), reader.next_offset());
        }
        Ok((found, cleaned))
    }

    /// A reader has come to its end: that of what was there at the request, or of the log for now.
    fn at_end(&mut self, at: usize, moves: u64) {
        let cursor = &mut self.cursors[at];
        match cursor.since.take() {
            None => cursor.idle_at = Some(moves),
            Some((until, _)) => {
                let partition = cursor.reader.partition();
                let offsets = until..Offset::MAX;
                cursor.reader = Reader::new(
                    partition,
                    &cursor.log,
                    offsets,
                    self.filter.clone(),
                    Sizes::FOLLOWER,
                );
                if let Some(who) = &self.who {
                    let log = cursor.log.id();
                    cursor.reader.open_as(&self.broker, who, log);
                }
            }
        }
    }

    /// Waits until some partition may have more.
    async fn wait(&mut self) -> Result<(), ReplayError> {
        for cursor in &mut self.cursors {
            if cursor.watched_at != cursor.idle_at {
                cursor.watched_at = cursor.idle_at;
                cursor.log.watch(&self.waiter);
            }
        }
        // What moved before it was watched is seen here, what moves later wakes.
        while !self.cursors.iter().any(Cursor::may_have_more) {
            let woken = tokio::time::timeout(GROWTH_LOOK, self.waiter.wait());
            if woken.await.is_err() && self.is_of_all {
                self.look_for_growth();
            }
        }
        Ok(())
    }

    /// Takes in partitions that the topic has got since. All that they hold came later than this subscription.
    fn look_for_growth(&mut self) {
        let Ok(topic) = self.broker.topic_by_id(self.topic.id) else {
            return;
        };
        let known = self.cursors.len();
        for partition in topic.partitions().skip(known) {
            if let Ok(log) = topic.log(partition) {
                self.add(Arc::clone(log), first_of(partition));
            }
        }
    }
}

impl Cursor {
    fn next_offset(&self) -> Offset {
        let held = self
            .head
            .as_ref()
            .and_then(|head| head.block.get(head.index));
        held.map_or_else(|| self.reader.next_offset(), |found| found.record.offset)
    }

    fn may_have_more(&self) -> bool {
        self.idle_at != Some(self.log.moves())
    }
}
