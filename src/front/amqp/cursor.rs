//! What receivers are sent: records from a place in the log on, or for browsers those of a queue that nobody has finished, which nothing
//! remembers when they are gone.
//! Callers: `connection`. Invariants: nothing is queued for a receiver: it has a cursor in the log, and without credit nothing is read
//! for it. A drain is answered when what is there was sent (part 2, 2.6.7). A message that is longer than the receiver takes is
//! passed over and counted, and holds up nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use amqp::endpoint::{Endpoint, LinkId};
use futures_util::future::select_all;
use model::{Offset, PartitionId};

use super::again::{Again, Sent};
use super::bounds::{CURSORS_MAX, UNSENT_BYTES_MAX};
use super::errors::NoLink;
use super::outcome::Outcome;
use super::owners::{Lost, Number, Owned, Read};
use super::pinned::TopicPin;
use super::route::Record;
use super::selected::selects;
use super::selector::Selector;
use super::state::Front;
use crate::broker::access::{Door, Granted, right};
use crate::broker::replay::{
    Block, Event, Filter, FollowRequest, Order, Place, Replay, ReplayError, ReplayRecord,
    ReplayRequest, Subscription,
};
use crate::broker::share::QUEUES;
use crate::broker::{Broker, Topic};

/// What a cursor is opened for.
pub(super) struct Wanted {
    pub(super) topic: Granted<Arc<Topic>, right::Read>,
    /// The one partition; None for all.
    pub(super) partition: Option<u32>,
    pub(super) start: Start,
    /// Which messages; None for all.
    pub(super) selector: Option<Selector>,
    /// Whether RabbitMQ's annotations are wanted.
    pub(super) is_rabbit: bool,
    /// Whether what its receiver does not take is sent to it again.
    pub(super) repeats: bool,
    /// The consumer group that the partition is read for, if there is one.
    pub(super) group: Option<String>,
    /// The owner level that is asked for there.
    pub(super) level: Option<i64>,
}

/// Where a cursor begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// At a place, and it follows what comes.
    At(Place),
    /// With what a queue has now, and it ends with that.
    Queue,
}

/// Where records come from.
enum Records {
    Following(Box<Subscription>),
    Browsing(Box<Replay>),
}

impl Records {
    async fn next(&mut self) -> Result<Event, ReplayError> {
        match self {
            Records::Following(it) => it.next().await,
            Records::Browsing(it) => {
                let block = it.next().await?;
                Ok(block.map_or(Event::CaughtUp, Event::Records))
            }
        }
    }

    /// Whether there may be more behind what was all.
    fn may_have_more(&mut self) -> bool {
        match self {
            Records::Following(it) => it.may_have_more(),
            Records::Browsing(_) => false,
        }
    }

    /// Whether nothing comes any more.
    fn is_over(&self, is_caught_up: bool) -> bool {
        is_caught_up && matches!(self, Records::Browsing(_))
    }
}

/// The cursors of a connection.
pub(super) struct Cursors {
    front: Arc<Front>,
    /// Where it is told that others have taken partitions.
    lost: Arc<Lost>,
    all: Vec<Cursor>,
}

struct Cursor {
    link: LinkId,
    records: Records,
    topic: Granted<Arc<Topic>, right::Read>,
    block: Option<(Block, usize)>,
    /// Whether all that was there was given.
    is_caught_up: bool,
    /// Whether its receiver has credit and nothing to be sent.
    wants_more: bool,
    /// Whether deliveries are sent settled.
    sends_settled: bool,
    /// Whether RabbitMQ's annotations are wanted.
    is_rabbit: bool,
    /// What may have to be sent again; None where nothing is.
    again: Option<Again>,
    /// Its part in the partition, if it reads that for a group.
    owned: Option<Owned>,
}

/// What was read for a cursor.
enum Next {
    New(Event),
    /// Something that is sent again; no block: it is gone.
    Again((PartitionId, Offset), Option<Block>),
}

impl Cursor {
    /// Reads on, or again. What is given up loses nothing.
    async fn next(&mut self, broker: &Broker) -> Result<Next, ReplayError> {
        let due = { &self.again }.as_ref().and_then(Again::next_due);
        let Some((partition, offset)) = due else {
            return self.records.next().await.map(Next::New);
        };
        let request = ReplayRequest {
            partitions: Some(vec![partition]),
            from: Place::Offset(offset),
            to: Some(Place::Offset(offset.plus(1))),
            max_records: Some(1),
            ..ReplayRequest::default()
        };
        let block = broker.replay(&self.topic, request).await?.next().await?;
        Ok(Next::Again((partition, offset), block))
    }

    fn has_due(&self) -> bool {
        { &self.again }.as_ref().and_then(Again::next_due).is_some()
    }

    /// Whether nothing is to be sent again now.
    fn is_idle(&self) -> bool {
        { &self.again }.as_ref().is_none_or(Again::is_idle)
    }

    /// Sends again what was read for it. Gives how many bytes.
    fn send_again(&mut self, front: &Front, endpoint: &mut Endpoint) -> usize {
        let (link, Some(again)) = (self.link, &mut self.again) else {
            return 0;
        };
        let Some((block, before)) = again.take_read() else {
            return 0;
        };
        let Some(found) = block.get(0) else {
            return 0;
        };
        let count = before + 1;
        let message = Record::of(&found).message_of_queue(count);
        let bytes = message.len();
        if let Some(id) = endpoint.send(link, false, message) {
            let (partition, offset) = (found.partition, found.record.offset);
            again.add(
                id,
                Sent {
                    partition,
                    offset,
                    count,
                },
            );
            front.stats.delivered.fetch_add(1, Relaxed);
        }
        bytes
    }

    fn take(&mut self, front: &Front, event: Event) {
        match event {
            Event::Records(block) => {
                self.is_caught_up = false;
                self.block = Some((block, 0));
            }
            Event::Gap(gap) => {
                front.stats.skipped.fetch_add(gap.missing, Relaxed);
            }
            Event::CaughtUp => self.is_caught_up = true,
        }
    }

    /// Sends what was read, as far as there is room; gives how many bytes.
    fn send(
        &mut self,
        front: &Front,
        door: &Door,
        endpoint: &mut Endpoint,
    ) -> Result<usize, NoLink> {
        if !endpoint.can_send(self.link) {
            return Ok(0);
        }
        // The right may have been taken since.
        self.topic = door.renew(&self.topic)?;
        let mut bytes = self.send_again(front, endpoint);
        let Some((block, mut index)) = self.block.take() else {
            return Ok(bytes);
        };
        while endpoint.can_send(self.link) && endpoint.output().len() < UNSENT_BYTES_MAX {
            let Some(record) = block.get(index) else {
                return Ok(bytes);
            };
            index += 1;
            let message = Record::of(&record).message(self.is_rabbit);
            if !endpoint.takes(self.link, message.len()) {
                front.stats.skipped.fetch_add(1, Relaxed);
                continue;
            }
            bytes += message.len();
            let sent = endpoint.send(self.link, self.sends_settled, message);
            if let (Some(id), Some(again)) = (sent, &mut self.again) {
                again.add(
                    id,
                    Sent {
                        partition: record.partition,
                        offset: record.record.offset,
                        count: 1,
                    },
                );
            }
            front.stats.delivered.fetch_add(1, Relaxed);
        }
        if index < block.len() {
            self.block = Some((block, index));
        }
        Ok(bytes)
    }
}

impl Cursors {
    pub(super) fn new(front: &Arc<Front>, lost: &Arc<Lost>) -> Cursors {
        Cursors {
            front: Arc::clone(front),
            lost: Arc::clone(lost),
            all: Vec::new(),
        }
    }

    /// Opens a cursor in a topic, or a partition of it, from a place on.
    pub(super) async fn open(
        &mut self,
        door: &Door,
        link: LinkId,
        wanted: Wanted,
        sends_settled: bool,
    ) -> Result<(), NoLink> {
        if self.all.len() >= CURSORS_MAX {
            return Err(NoLink::TooMany);
        }
        let Wanted {
            topic,
            partition,
            start,
            selector,
            is_rabbit,
            repeats,
            group,
            level,
        } = wanted;
        let count = topic.partition_count();
        if matches!(start, Start::At(Place::Offset(_))) && partition.is_none() && count != 1 {
            return Err(NoLink::Offset(count));
        }
        let partitions = partition.map(|it| vec![PartitionId::new(it)]);
        let broker = &self.front.broker;
        let records = match start {
            Start::At(from) => {
                let request = FollowRequest {
                    partitions,
                    from,
                    resume: None,
                    filter: match selector {
                        None => Filter::default(),
                        Some(_) => selected(selector, |_| true),
                    },
                    order: Order::Offset,
                };
                let mut subscription = broker.follow(&topic, request)?;
                subscription.open_as(door.caller());
                Records::Following(Box::new(subscription))
            }
            Start::Queue => {
                let group = door.group(QUEUES, right::Read)?;
                let is_open = broker.unfinished_of(&group, topic.id);
                let now = broker.now();
                let is_there = move |found: &ReplayRecord<'_>| {
                    is_open(found.partition, found.record.offset)
                        && !Record::of(found).is_expired(now)
                };
                let request = ReplayRequest {
                    partitions,
                    filter: selected(selector, is_there),
                    // In blocks that are no larger than those of who follows.
                    max_records: Some(u64::MAX),
                    ..ReplayRequest::default()
                };
                let mut replay = broker.replay(&topic, request).await?;
                replay.open_as(&topic, door.caller());
                Records::Browsing(Box::new(replay))
            }
        };
        // The last step: who cannot read takes the partition from nobody.
        let read = partition.zip(group).map(|(partition, group)| Read {
            topic: topic.id,
            partition,
            group,
        });
        let owners = &self.front.owners;
        let owned = read.map(|read| owners.take(read, level, &self.lost));
        let owned = owned.transpose()?;
        self.all.push(Cursor {
            owned,
            link,
            records,
            topic,
            block: None,
            is_caught_up: false,
            wants_more: false,
            sends_settled,
            is_rabbit,
            again: (repeats && !sends_settled).then(Again::default),
        });
        self.front.stats.cursors.fetch_add(1, Relaxed);
        Ok(())
    }

    /// The link of a reader that is there.
    pub(super) fn link_of(&self, reader: Number) -> Option<LinkId> {
        let is_it = |it: &&Cursor| it.owned.as_ref().is_some_and(|it| it.number() == reader);
        self.all.iter().find(is_it).map(|it| it.link)
    }

    /// Links are gone.
    pub(super) fn forget(&mut self, is_gone: impl Fn(LinkId) -> bool) {
        let before = self.all.len();
        self.all.retain(|it| !is_gone(it.link));
        let gone = (before - self.all.len()) as u64;
        self.front.stats.cursors.fetch_sub(gone, Relaxed);
    }

    /// Whether the log is to be asked for more.
    pub(super) fn wants_more(&mut self, endpoint: &Endpoint) -> bool {
        for cursor in &mut self.all {
            let is_over = cursor.records.is_over(cursor.is_caught_up);
            let has_credit = endpoint.credit(cursor.link) > 0;
            let may_read = cursor.block.is_none() && !is_over;
            cursor.wants_more = has_credit && (may_read || cursor.has_due());
        }
        self.all.iter().any(|it| it.wants_more)
    }

    /// Reads on in the log, and waits for something there. What is given up loses nothing. An error ends its link.
    pub(super) async fn read(&mut self) -> Result<(), (LinkId, NoLink)> {
        let broker = &self.front.broker;
        let wanting = self.all.iter_mut().filter(|it| it.wants_more);
        let next: Vec<_> = wanting
            .map(|cursor| Box::pin(async move { (cursor.next(broker).await, cursor) }))
            .collect();
        if next.is_empty() {
            return Ok(());
        }
        let ((event, cursor), ..) = select_all(next).await;
        let link = cursor.link;
        match event.map_err(|error| (link, error.into()))? {
            Next::New(event) => cursor.take(&self.front, event),
            Next::Again(due, block) => {
                if let Some(again) = &mut cursor.again {
                    again.found(due, block);
                }
            }
        }
        Ok(())
    }

    fn again(&mut self, link: LinkId) -> Option<&mut Again> {
        let found = self.all.iter_mut().find(|it| it.link == link);
        found.and_then(|it| it.again.as_mut())
    }

    /// What receivers say of deliveries.
    pub(super) fn settled(&mut self, deliveries: &[(LinkId, u32)], outcome: Outcome) {
        for (link, id) in deliveries {
            if let Some(again) = self.again(*link) {
                again.settle(*id, outcome);
            }
        }
    }

    /// The same in a transaction: those that may have to be sent again.
    pub(super) fn pin(
        &mut self,
        deliveries: &[(LinkId, u32)],
        outcome: Outcome,
        is_settled: bool,
    ) -> Vec<TopicPin> {
        let pin = |(link, id): &(LinkId, u32)| {
            let sent = self.again(*link)?.take(*id)?;
            Some(TopicPin {
                link: *link,
                id: *id,
                outcome,
                is_settled,
                sent,
            })
        };
        deliveries.iter().filter_map(pin).collect()
    }

    /// Deliveries of transactions that were rolled back: what was settled is sent again, the rest is as if nothing had been said of it.
    pub(super) fn put_back(&mut self, pins: Vec<TopicPin>) {
        for pin in pins {
            if let Some(again) = self.again(pin.link) {
                match pin.is_settled {
                    true => again.give_back(pin.sent, true),
                    false => again.add(pin.id, pin.sent),
                }
            }
        }
    }

    /// Sends what was read, as far as there is room, and answers drains. Gives how many bytes were sent, and a link that ends.
    pub(super) fn fill(
        &mut self,
        door: &Door,
        endpoint: &mut Endpoint,
    ) -> (usize, Option<(LinkId, NoLink)>) {
        let mut bytes = 0;
        let mut ended = None;
        for cursor in &mut self.all {
            match cursor.send(&self.front, door, endpoint) {
                Ok(sent) => bytes += sent,
                Err(why) => ended = Some((cursor.link, why)),
            }
            if !endpoint.drains(cursor.link) {
                continue;
            }
            // What came since it was caught up is there, too, be it in memory or not.
            if cursor.is_caught_up && cursor.block.is_none() {
                cursor.is_caught_up = !cursor.records.may_have_more();
            }
            let is_done = cursor.is_caught_up && cursor.block.is_none() && cursor.is_idle();
            if is_done || endpoint.credit(cursor.link) == 0 {
                endpoint.drained(cursor.link);
            }
        }
        (bytes, ended)
    }
}

/// Those that a selector selects, of those that are meant at all.
fn selected(
    selector: Option<Selector>,
    is_meant: impl Fn(&ReplayRecord<'_>) -> bool + Send + Sync + 'static,
) -> Filter {
    Filter {
        accept: Some(Arc::new(move |partition, record| {
            let found = ReplayRecord {
                partition,
                record: *record,
            };
            is_meant(&found) && { &selector }.as_ref().is_none_or(|it| selects(it, &found))
        })),
        ..Filter::default()
    }
}

impl Drop for Cursors {
    fn drop(&mut self) {
        let count = self.all.len() as u64;
        self.front.stats.cursors.fetch_sub(count, Relaxed);
    }
}
