//! Subscriptions: what a topic has from some place on, and then what comes, as it becomes durable.
//! Callers: fronts that follow. A subscriber asks for one event after the other; while it does not ask, nothing is read for it.
//! Invariants: each record from its place on is given once, in each partition in the order of offsets, or a gap is told in its
//! place. A subscription holds a cursor for each partition: a slow subscriber is behind, and costs nothing.

use std::sync::Arc;
use std::time::Duration;

use model::{Offset, PartitionId, Timestamp};
use storage::{Log, Waiter};

use super::block::Block;
use super::partitions_of;
use super::reader::{Found, Reader, Step};
use super::request::{Filter, Gap, Place, ReplayError};
use crate::broker::access::{Granted, right};
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
    /// given from their start. If it is empty, `from` counts.
    pub resume: Vec<Resume>,
    /// Which records.
    pub filter: Filter,
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
    cursors: Vec<Cursor>,
    /// Which one has its turn.
    turn: usize,
    waiter: Arc<Waiter>,
    is_caught_up: bool,
    /// What cleanup took from between the records that were given last.
    then: Option<Event>,
}

/// One partition of a subscription.
struct Cursor {
    log: Arc<Log>,
    reader: Reader,
    /// Where the reader of what was there at the request ends, and what it leaves out.
    since: Option<(Offset, Timestamp)>,
    /// How often the log had moved before it was found to have nothing more.
    idle_at: Option<u64>,
    /// The count of moves since which the waiter is told of the next one.
    watched_at: Option<u64>,
}

impl Broker {
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
            cursors: Vec::new(),
            turn: 0,
            waiter: Waiter::new(),
            is_caught_up: false,
            then: None,
        };
        for partition in partitions_of(topic, request.partitions)? {
            let log = topic.log(partition)?;
            let resumed = request.resume.iter().find(|at| at.partition == partition);
            let at = match resumed {
                Some(at) => *at,
                None if !request.resume.is_empty() => first_of(partition),
                None => begin(partition, log, request.from),
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
    fn add(&mut self, log: Arc<Log>, at: Resume) {
        let since = at.since.filter(|(until, _)| *until > at.offset);
        let (end, filter) = match since {
            Some((until, time)) => (until, self.filter.clone().within(Some(time), None)),
            None => (Offset::MAX, self.filter.clone()),
        };
        let reader = Reader::new(at.partition, &log, at.offset..end, filter);
        self.cursors.push(Cursor {
            log,
            reader,
            since,
            idle_at: None,
            watched_at: None,
        });
    }

    /// The next event; waits for one. A call that is given up loses nothing.
    /// Errors: the topic is gone, or the disk cannot read; what was not given is still to be asked for.
    pub async fn next(&mut self) -> Result<Event, ReplayError> {
        if let Some(event) = self.then.take() {
            return Ok(event);
        }
        loop {
            if let Some(event) = self.read().await? {
                self.is_caught_up = false;
                return Ok(event);
            }
            if !std::mem::replace(&mut self.is_caught_up, true) {
                return Ok(Event::CaughtUp);
            }
            self.wait().await?;
        }
    }

    /// Where it is in each partition, as far as events were given: who resumes there gets what comes after them.
    pub fn position(&self) -> Vec<Resume> {
        let of = |cursor: &Cursor| {
            let offset = cursor.reader.next_offset();
            Resume {
                partition: cursor.reader.partition(),
                offset,
                since: cursor.since.filter(|(until, _)| *until > offset),
            }
        };
        self.cursors.iter().map(of).collect()
    }

    /// Reads on in the next partition that may have something; None if none has.
    async fn read(&mut self) -> Result<Option<Event>, ReplayError> {
        loop {
            let count = self.cursors.len();
            let all = (0..count).map(|step| (self.turn + step) % count);
            let is_ready = |at: &usize| self.cursors[*at].may_have_more();
            let Some(at) = all.clone().find(is_ready) else {
                return Ok(None);
            };
            self.turn = at;
            let moves = self.cursors[at].log.moves();
            let Step { found, cleaned } = self.cursors[at].reader.step(&self.broker).await?;
            let found = match found {
                Found::Records(block) => Some(Event::Records(block)),
                Found::Gap(gap) => Some(Event::Gap(gap)),
                Found::Nothing => None,
                Found::End => {
                    self.at_end(at, moves);
                    None
                }
            };
            // Each partition has its turn.
            self.turn = (at + 1) % count;
            match (found, cleaned.map(Event::Gap)) {
                (Some(found), gap) => {
                    self.then = gap;
                    return Ok(Some(found));
                }
                (None, Some(gap)) => return Ok(Some(gap)),
                (None, None) => {}
            }
        }
    }

    /// A reader has come to its end: that of what was there at the request, or of the log for now.
    fn at_end(&mut self, at: usize, moves: u64) {
        let cursor = &mut self.cursors[at];
        match cursor.since.take() {
            None => cursor.idle_at = Some(moves),
            Some((until, _)) => {
                let partition = cursor.reader.partition();
                let offsets = until..Offset::MAX;
                cursor.reader = Reader::new(partition, &cursor.log, offsets, self.filter.clone());
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
    fn may_have_more(&self) -> bool {
        self.idle_at != Some(self.log.moves())
    }
}
